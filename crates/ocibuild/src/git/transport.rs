//! What gix speaks Git over: its own HTTP client, with every byte that it hands on counted.

use std::any::Any;
use std::io::{self, BufRead, Read};
use std::sync::Arc;

use gix::protocol::transport;
use gix::protocol::transport::client::TransportWithoutIO as _;
use gix::protocol::transport::client::blocking_io::Transport;
use gix::protocol::transport::client::blocking_io::http::{
    self, GetResponse, Http, PostBodyDataKind, PostResponse,
};

use super::limits::Budget;
use super::remote::{Access, Endpoint};

type Inner = http::reqwest::Remote;

/// Makes the connection to a server; over HTTP nothing is sent yet.
pub(super) fn connect(endpoint: &Endpoint) -> gix::Result<Box<dyn Transport + Send>> {
    let http = match &endpoint.access {
        Access::Http(http) => http,
        Access::Ssh(way) => return way.connect_for_gix(&endpoint.url, &endpoint.budget),
    };
    let options = endpoint.transport_options(http);
    let url = gix::url::parse(endpoint.url.as_str())?;
    let http = Counting {
        inner: Inner::default(),
        budget: endpoint.budget.clone(),
    };
    let mut connection = http::Transport::new_http(http, url, transport::Protocol::V2, false);
    connection.configure(&options)?;
    Ok(Box::new(connection))
}

struct Counting {
    inner: Inner,
    budget: Arc<Budget>,
}

impl Counting {
    fn head<R>(&self, inner: R) -> Counted<R> {
        let budget = self.budget.clone();
        Counted {
            inner,
            budget,
            is_body: false,
        }
    }

    fn body<R>(&self, inner: R) -> Counted<R> {
        Counted {
            is_body: true,
            ..self.head(inner)
        }
    }
}

impl Http for Counting {
    type Headers = Counted<<Inner as Http>::Headers>;
    type ResponseBody = Counted<<Inner as Http>::ResponseBody>;
    type PostBody = <Inner as Http>::PostBody;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<GetResponse<Self::Headers, Self::ResponseBody>> {
        let response = self.inner.get(url, base_url, headers)?;
        Ok(GetResponse {
            headers: self.head(response.headers),
            body: self.body(response.body),
        })
    }

    fn post(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        kind: PostBodyDataKind,
    ) -> gix::Result<PostResponse<Self::Headers, Self::ResponseBody, Self::PostBody>> {
        let response = self.inner.post(url, base_url, headers, kind)?;
        Ok(PostResponse {
            post_body: response.post_body,
            headers: self.head(response.headers),
            body: self.body(response.body),
        })
    }

    fn configure(&mut self, config: &dyn Any) -> gix::Result {
        self.inner.configure(config)
    }
}

/// Tells whether a request ended without an answer, which gix says where the headers of an
/// answer would be.
fn has_no_answer(error: &io::Error) -> bool {
    error
        .get_ref()
        .and_then(|error| error.downcast_ref::<gix::Error>())
        .and_then(|error| error.downcast_any_ref::<reqwest::Error>())
        .is_some_and(|error| error.status().is_none() && !error.is_redirect())
}

/// A part of an answer.
struct Counted<R> {
    inner: R,
    budget: Arc<Budget>,
    /// Not the headers, in which gix also says that the server has refused.
    is_body: bool,
}

/// Gives what has come, however little that is: the pipe's own `read` waits until the
/// buffer is full, which a slow server can make last for days.
impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(buffer.len());
        buffer[..amount].copy_from_slice(&available[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.budget.check().map_err(io::Error::other)?;
        let filled = self.inner.fill_buf();
        if let Err(error) = &filled
            && (self.is_body || has_no_answer(error))
        {
            self.budget.note_broken();
        }
        filled
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
        self.budget.receive(amount as u64);
    }
}
