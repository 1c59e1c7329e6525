//! How much a registry is asked for at once, as `registries.toml` says it. The server lets
//! nobody go on before as many requests are there as are allowed for once, so a client that
//! sends fewer at once does not get through, and one that sends more is seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{self, Next};
use axum::response::Response;
use ocibuild_registry::server::{Store, router};
use ocibuild_registry::{Client, CloudEnvironment, Downloads, Progress, Reference, Registries};
use tokio::sync::Barrier;

use crate::support::{image, quick};

/// Counts what is under way at once.
struct Gate {
    together: Barrier,
    is_open: AtomicBool,
    now: AtomicUsize,
    most: AtomicUsize,
}

async fn pass(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let length = request.headers().get("content-length");
    let length = length.and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
    let counts = match *request.method() {
        // Layers, and not the configuration.
        Method::PUT => length.is_some_and(|length| length > 10_000),
        // The first part is asked for alone: whether there are parts is not known before.
        Method::GET => {
            let range = request.headers().get("range");
            range.is_some_and(|range| !range.as_bytes().starts_with(b"bytes=0-"))
        }
        _ => false,
    };
    if !counts {
        return next.run(request).await;
    }
    let now = gate.now.fetch_add(1, Ordering::SeqCst) + 1;
    gate.most.fetch_max(now, Ordering::SeqCst);
    if !gate.is_open.load(Ordering::SeqCst) {
        gate.together.wait().await;
        gate.is_open.store(true, Ordering::SeqCst);
    }
    let response = next.run(request).await;
    gate.now.fetch_sub(1, Ordering::SeqCst);
    response
}

/// Serves an empty registry in which `together` requests go on at once or none; gives its host.
async fn serve(folder: &std::path::Path, together: usize) -> (String, Arc<Gate>) {
    let gate = Arc::new(Gate {
        together: Barrier::new(together),
        is_open: AtomicBool::new(false),
        now: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let app = router(Store::open(folder).unwrap());
    let app = app.layer(middleware::from_fn_with_state(Arc::clone(&gate), pass));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(axum::serve(listener, app).into_future());
    (host, gate)
}

fn client(host: &str, settings: &str) -> Client {
    let text = format!("[registry.\"{host}\"]\n{settings}\n");
    let registries = Registries::parse(&text).unwrap();
    let mut retry = quick();
    retry.attempts = 1;
    let builder = Client::builder().retry(retry).downloads(Downloads {
        part: 100_000,
        at_once: 8,
    });
    let builder = builder.registries(&registries, &CloudEnvironment::default());
    builder.unwrap().build().unwrap()
}

#[tokio::test]
async fn so_many_layers_are_sent_at_once() {
    for uploads in [1, 2, 3] {
        let folder = tempfile::tempdir().unwrap();
        let (host, gate) = serve(folder.path(), uploads).await;
        let client = client(&host, &format!("uploads = {uploads}"));
        let name: Reference = format!("{host}/app:v1").parse().unwrap();
        let mut image = image(320, &[50_000; 6]);
        image.concurrency = 4;
        let none = Progress::none();
        let pushed = client.push_image(&name, &image, &none);
        let pushed = tokio::time::timeout(Duration::from_secs(20), pushed).await;
        pushed.unwrap().unwrap();
        assert_eq!(gate.most.load(Ordering::SeqCst), uploads);
    }
}

#[tokio::test]
async fn so_many_parts_are_loaded_at_once() {
    for downloads in [2, 3] {
        let folder = tempfile::tempdir().unwrap();
        let (host, gate) = serve(folder.path(), downloads).await;
        let client = client(&host, &format!("downloads = {downloads}\nuploads = 1"));
        let name: Reference = format!("{host}/app:v1").parse().unwrap();
        let image = image(321, &[600_000]);
        let layer = &image.layers[0];
        let none = Progress::none();
        let file = folder.path().join("loaded");
        // Not over the gate: one upload alone would wait for others.
        put(&Store::open(folder.path()).unwrap(), &name, layer).await;
        let load = client.download_blob(name.repository(), &layer.descriptor, &file, &none);
        let loaded = tokio::time::timeout(Duration::from_secs(20), load).await;
        loaded.unwrap().unwrap();
        assert_eq!(gate.most.load(Ordering::SeqCst), downloads);
    }
}

/// Pushes a layer to the same store by another door.
async fn put(store: &Store, name: &Reference, layer: &ocibuild_registry::LayerPush) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(axum::serve(listener, router(store.clone())).into_future());
    let repository = format!("{host}/{}", name.repository().path())
        .parse()
        .unwrap();
    let client = crate::support::client();
    let (source, none) = (&layer.source, Progress::none());
    let pushed = client.push_blob(&repository, &layer.descriptor, source, &[], &none);
    pushed.await.unwrap();
}
