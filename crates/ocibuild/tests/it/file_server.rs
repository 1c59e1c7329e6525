//! A server with files that remembers what it was asked.

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, Uri};

/// A path of the server and what it answers with.
pub(crate) type Page = (&'static str, u16, Vec<(&'static str, String)>, Vec<u8>);

/// A server with a few files that remembers what it was asked.
pub(crate) struct FileServer {
    pub(crate) url: String,
    pages: Arc<Mutex<Vec<Page>>>,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    _runtime: tokio::runtime::Runtime,
}

impl FileServer {
    pub(crate) fn start(pages: Vec<Page>) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let pages = Arc::new(Mutex::new(pages));
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let (known, asked) = (pages.clone(), seen.clone());
        let app = axum::Router::new().fallback(move |uri: Uri, headers: HeaderMap| {
            let (known, asked) = (known.clone(), asked.clone());
            async move {
                asked
                    .lock()
                    .unwrap()
                    .push((uri.to_string(), headers.clone()));
                answer(&known.lock().unwrap(), &uri, &headers)
            }
        });
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self {
            url,
            pages,
            seen,
            _runtime: runtime,
        }
    }

    /// One file at `/f`.
    pub(crate) fn with(content: &[u8], headers: Vec<(&'static str, String)>) -> Self {
        Self::start(vec![("/f", 200, headers, content.to_vec())])
    }

    pub(crate) fn set(&self, page: Page) {
        let mut pages = self.pages.lock().unwrap();
        pages.retain(|known| known.0 != page.0);
        pages.push(page);
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(path, _)| path.clone()).collect()
    }

    /// A header of the last request.
    pub(crate) fn last(&self, name: &str) -> Option<String> {
        let seen = self.seen.lock().unwrap();
        let value = seen.last().unwrap().1.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    }
}

fn answer(pages: &[Page], uri: &Uri, headers: &HeaderMap) -> Response<Body> {
    let Some((_, status, fields, body)) = pages.iter().find(|page| page.0 == uri.path()) else {
        return Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body(Body::empty())
            .unwrap();
    };
    let field = |name: &str| {
        let found = fields.iter().find(|field| field.0 == name);
        found.map(|field| field.1.as_str())
    };
    let asks = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_same = field("etag").is_some() && field("etag") == asks("if-none-match")
        || field("last-modified").is_some()
            && asks("if-none-match").is_none()
            && field("last-modified") == asks("if-modified-since");
    let mut response = Response::builder().status(if is_same { 304 } else { *status });
    for (name, value) in fields {
        response = response.header(*name, value);
    }
    let body = if is_same { Vec::new() } else { body.clone() };
    response.body(Body::from(body)).unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}
