//! The four workflows of the distribution specification — pull, push, content discovery,
//! content management — request by request, in the order of OCI's own conformance tests.
//! Debian's registry is asked the same, where it does what the specification says: a suite
//! that both pass does not only know one of them.

use ocibuild_registry::{Digest, media_type};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::{Judged, noise, plain_http};

const NAME: &str = "team/conformance";
const OCTETS: (&str, &str) = ("content-type", "application/octet-stream");

/// One registry, spoken to by hand.
struct Hand {
    base: String,
    http: reqwest::Client,
    is_ours: bool,
    _registry: Judged,
}

impl Hand {
    fn all() -> Vec<Self> {
        let hand = |registry: Judged| Self {
            base: format!("http://{}", registry.repository("x").registry()),
            http: plain_http(),
            is_ours: registry.is_ours(),
            _registry: registry,
        };
        let all = [Some(Judged::ours()), Judged::debian()];
        all.into_iter().flatten().map(hand).collect()
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let url = match path.starts_with("http") {
            true => path.to_owned(),
            false => format!("{}{path}", self.base),
        };
        let mut request = self.http.request(method, url).body(body.to_vec());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn status(&self, method: Method, path: &str) -> u16 {
        self.send(method, path, &[], b"").await.status().as_u16()
    }

    async fn start(&self, name: &str) -> String {
        let path = format!("/v2/{name}/blobs/uploads/");
        let response = self.send(Method::POST, &path, &[], b"").await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        header(&response, "location")
    }

    async fn blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let path = ended(&self.start(name).await, &digest);
        let response = self.send(Method::PUT, &path, &[OCTETS], bytes).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        digest
    }

    async fn manifest(&self, name: &str, key: &str, document: &Value) -> Response {
        let kind = document["mediaType"].as_str().unwrap();
        let path = format!("/v2/{name}/manifests/{key}");
        let body = document.to_string().into_bytes();
        self.send(Method::PUT, &path, &[("content-type", kind)], &body)
            .await
    }

    /// Pushes an image under a tag; gives its manifest.
    async fn image(&self, name: &str, tag: &str, seed: u64) -> Value {
        let layer = noise(seed, 1000);
        let config = format!(r#"{{"architecture":"amd64","os":"linux","seed":{seed}}}"#);
        self.blob(name, &layer).await;
        self.blob(name, config.as_bytes()).await;
        let document = manifest(config.as_bytes(), &layer, None);
        let response = self.manifest(name, tag, &document).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        document
    }
}

fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name);
    value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

fn ended(location: &str, digest: &Digest) -> String {
    let mark = if location.contains('?') { '&' } else { '?' };
    format!("{location}{mark}digest={digest}")
}

fn described(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": Digest::sha256(bytes).to_string(), "size": bytes.len()})
}

fn manifest(config: &[u8], layer: &[u8], subject: Option<&[u8]>) -> Value {
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "config": described(media_type::CONFIG, config),
        "layers": [described(media_type::LAYER_GZIP, layer)],
    });
    if let Some(subject) = subject {
        document["subject"] = described(media_type::MANIFEST, subject);
        document["annotations"] = json!({"org.example": "x"});
    }
    document
}

fn digest_of(document: &Value) -> Digest {
    Digest::sha256(document.to_string().as_bytes())
}

async fn code(response: Response) -> String {
    let body: Value = response.json().await.unwrap();
    body["errors"][0]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn pull() {
    for hand in Hand::all() {
        let document = hand.image(NAME, "v1", 60).await;
        let (digest, layer) = (digest_of(&document), noise(60, 1000));
        let layer_digest = Digest::sha256(&layer);
        let nothing = Digest::sha256(b"nothing");

        let version = hand.send(Method::GET, "/v2/", &[], b"").await;
        assert_eq!(version.status(), StatusCode::OK);
        for method in [Method::HEAD, Method::GET] {
            for (path, want) in [
                (format!("blobs/{nothing}"), 404),
                (format!("blobs/{layer_digest}"), 200),
                (format!("manifests/{nothing}"), 404),
                ("manifests/none".to_owned(), 404),
                (format!("manifests/{digest}"), 200),
                ("manifests/v1".to_owned(), 200),
            ] {
                let path = format!("/v2/{NAME}/{path}");
                let accept = ("accept", media_type::MANIFEST);
                let response = hand.send(method.clone(), &path, &[accept], b"").await;
                assert_eq!(response.status().as_u16(), want, "{method} {path}");
                if want == 404 && method == Method::GET {
                    assert!(code(response).await.ends_with("_UNKNOWN"), "{path}");
                    continue;
                }
                if want == 200 {
                    let length: usize = header(&response, "content-length").parse().unwrap();
                    assert!(length > 0);
                    let is_manifest = path.contains("manifests");
                    let expected = if is_manifest { digest } else { layer_digest };
                    assert_eq!(
                        header(&response, "docker-content-digest"),
                        expected.to_string()
                    );
                    if is_manifest {
                        assert_eq!(header(&response, "content-type"), media_type::MANIFEST);
                    }
                    let body = response.bytes().await.unwrap();
                    assert_eq!(body.len(), if method == Method::GET { length } else { 0 });
                }
            }
        }
        let path = format!("/v2/{NAME}/blobs/{layer_digest}");
        let part = hand
            .send(Method::GET, &path, &[("range", "bytes=10-19")], b"")
            .await;
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.bytes().await.unwrap(), &layer[10..20]);
        let unknown = hand
            .send(Method::GET, "/v2/no/where/manifests/v1", &[], b"")
            .await;
        assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn push_blobs_whole() {
    for hand in Hand::all() {
        let bytes = noise(61, 5000);
        let digest = Digest::sha256(&bytes);
        let path = ended(&hand.start(NAME).await, &digest);
        let response = hand.send(Method::PUT, &path, &[OCTETS], &bytes).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let location = header(&response, "location");
        assert_eq!(hand.status(Method::GET, &location).await, 200);

        // One POST is allowed to be taken for the begin of a session.
        let other = noise(62, 5000);
        let path = format!(
            "/v2/{NAME}/blobs/uploads/?digest={}",
            Digest::sha256(&other)
        );
        let response = hand.send(Method::POST, &path, &[OCTETS], &other).await;
        let status = response.status().as_u16();
        assert!(matches!(status, 201 | 202), "{status}");
        assert!(!hand.is_ours || status == 201);

        let path = ended(&hand.start(NAME).await, &Digest::sha256(b"other"));
        let wrong = hand.send(Method::PUT, &path, &[OCTETS], &bytes).await;
        assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
        assert_eq!(code(wrong).await, "DIGEST_INVALID");
    }
}

#[tokio::test]
async fn push_blobs_in_chunks() {
    for hand in Hand::all() {
        let bytes = noise(63, 3000);
        let start = hand.start(NAME).await;
        let range = |from: usize, to: usize| format!("{from}-{}", to - 1);
        let chunk = async |path: &str, from: usize, to: usize| {
            let range = range(from, to);
            let headers = [OCTETS, ("content-range", range.as_str())];
            hand.send(Method::PATCH, path, &headers, &bytes[from..to])
                .await
        };
        let first = chunk(&start, 0, 1000).await;
        assert_eq!(first.status(), StatusCode::ACCEPTED);
        assert_eq!(header(&first, "range"), "0-999");
        let location = header(&first, "location");

        // Debian's takes whatever comes.
        if hand.is_ours {
            let again = chunk(&location, 0, 1000).await;
            assert_eq!(again.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        }
        let status = hand.send(Method::GET, &location, &[], b"").await;
        assert_eq!(status.status(), StatusCode::NO_CONTENT);
        assert_eq!(header(&status, "range"), "0-999");

        let location = header(&status, "location");
        let second = chunk(&location, 1000, 2000).await;
        assert_eq!(second.status(), StatusCode::ACCEPTED);
        let path = ended(&header(&second, "location"), &Digest::sha256(&bytes));
        let range = range(2000, 3000);
        let headers = [OCTETS, ("content-range", range.as_str())];
        let last = hand
            .send(Method::PUT, &path, &headers, &bytes[2000..])
            .await;
        assert_eq!(last.status(), StatusCode::CREATED);

        let streamed = noise(64, 4000);
        let start = hand.start(NAME).await;
        let whole = hand.send(Method::PATCH, &start, &[OCTETS], &streamed).await;
        assert_eq!(whole.status(), StatusCode::ACCEPTED);
        let path = ended(&header(&whole, "location"), &Digest::sha256(&streamed));
        let closed = hand.send(Method::PUT, &path, &[], b"").await;
        assert_eq!(closed.status(), StatusCode::CREATED);
        let path = format!("/v2/{NAME}/blobs/{}", Digest::sha256(&streamed));
        assert_eq!(hand.status(Method::HEAD, &path).await, 200);

        let start = hand.start(NAME).await;
        assert_eq!(hand.status(Method::DELETE, &start).await, 204);
        assert_eq!(hand.status(Method::GET, &start).await, 404);
    }
}

#[tokio::test]
async fn push_by_mounting() {
    for hand in Hand::all() {
        let digest = hand.blob(NAME, &noise(65, 2000)).await;
        let mount = |digest: &Digest, from: &str| {
            format!("/v2/other/repository/blobs/uploads/?mount={digest}&from={from}")
        };
        let mounted = hand
            .send(Method::POST, &mount(&digest, NAME), &[], b"")
            .await;
        assert_eq!(mounted.status(), StatusCode::CREATED);
        let path = format!("/v2/other/repository/blobs/{digest}");
        assert_eq!(
            header(&mounted, "location").trim_start_matches(&hand.base),
            path
        );
        assert_eq!(hand.status(Method::GET, &path).await, 200);

        let nothing = Digest::sha256(b"nothing");
        let session = hand
            .send(Method::POST, &mount(&nothing, NAME), &[], b"")
            .await;
        assert_eq!(session.status(), StatusCode::ACCEPTED);
        assert!(!header(&session, "location").is_empty());
    }
}

#[tokio::test]
async fn push_manifests() {
    for hand in Hand::all() {
        let document = hand.image(NAME, "v1", 66).await;
        let digest = digest_of(&document);
        for key in ["v2".to_owned(), "a".repeat(128), digest.to_string()] {
            let response = hand.manifest(NAME, &key, &document).await;
            assert_eq!(response.status(), StatusCode::CREATED, "{key}");
            assert_eq!(
                header(&response, "docker-content-digest"),
                digest.to_string()
            );
            let location = header(&response, "location");
            let accept = [("accept", media_type::MANIFEST)];
            let there = hand.send(Method::GET, &location, &accept, b"").await;
            assert_eq!(there.status(), StatusCode::OK);
        }
        // An index of it, and a manifest without layers.
        let mut entry = described(media_type::MANIFEST, document.to_string().as_bytes());
        entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let index = json!({
            "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [entry],
        });
        let response = hand.manifest(NAME, "index", &index).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let mut empty = document.clone();
        empty["layers"] = json!([]);
        let response = hand.manifest(NAME, "empty", &empty).await;
        assert_eq!(response.status(), StatusCode::CREATED);

        let mut dangling = document.clone();
        dangling["layers"] = json!([described(media_type::LAYER_GZIP, b"nowhere")]);
        let refused = hand.manifest(NAME, "dangling", &dangling).await;
        assert!(
            matches!(refused.status().as_u16(), 400 | 404),
            "{}",
            refused.status()
        );
        let wrong = hand
            .manifest(NAME, &Digest::sha256(b"x").to_string(), &document)
            .await;
        assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn discover_tags() {
    // Debian's has them in no order.
    for hand in Hand::all().into_iter().filter(|hand| hand.is_ours) {
        let document = hand.image(NAME, "b", 67).await;
        for tag in ["d", "a", "c"] {
            hand.manifest(NAME, tag, &document).await;
        }
        let list = async |query: &str| {
            let path = format!("/v2/{NAME}/tags/list{query}");
            let response = hand.send(Method::GET, &path, &[], b"").await;
            assert_eq!(response.status(), StatusCode::OK, "{query}");
            let link = header(&response, "link");
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["name"], NAME);
            (body["tags"].clone(), link)
        };
        assert_eq!(list("").await.0, json!(["a", "b", "c", "d"]));
        let (first, link) = list("?n=2").await;
        assert_eq!(first, json!(["a", "b"]));
        assert!(
            link.contains("rel=\"next\"") && link.contains("last=b"),
            "{link}"
        );
        assert_eq!(list("?n=2&last=b").await.0, json!(["c", "d"]));
        assert_eq!(list("?last=c").await.0, json!(["d"]));
    }
}

#[tokio::test]
async fn discover_referrers() {
    for hand in Hand::all().into_iter().filter(|hand| hand.is_ours) {
        let document = hand.image(NAME, "v1", 68).await;
        let subject = document.to_string();
        let digest = Digest::sha256(subject.as_bytes());
        let config = noise(68, 10);
        hand.blob(NAME, &config).await;
        let list = async |query: &str| {
            let path = format!("/v2/{NAME}/referrers/{digest}{query}");
            let response = hand.send(Method::GET, &path, &[], b"").await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(header(&response, "content-type"), media_type::INDEX);
            let filtered = header(&response, "oci-filters-applied");
            let body: Value = response.json().await.unwrap();
            (body["manifests"].as_array().unwrap().clone(), filtered)
        };
        assert_eq!(list("").await.0, Vec::<Value>::new());
        for kind in ["application/a", "application/b"] {
            let mut referrer = manifest(&config, &noise(68, 1000), Some(subject.as_bytes()));
            referrer["artifactType"] = json!(kind);
            let key = digest_of(&referrer).to_string();
            let pushed = hand.manifest(NAME, &key, &referrer).await;
            assert_eq!(pushed.status(), StatusCode::CREATED);
            assert_eq!(header(&pushed, "oci-subject"), digest.to_string());
        }
        assert_eq!(list("").await.0.len(), 2);
        let (found, filtered) = list("?artifactType=application/b").await;
        assert_eq!((found.len(), filtered.as_str()), (1, "artifactType"));
        assert_eq!(found[0]["artifactType"], "application/b");
        assert_eq!(found[0]["annotations"], json!({"org.example": "x"}));

        // A subject may come after what refers to it.
        let late = manifest(&config, &noise(68, 1000), Some(b"late"));
        let pushed = hand
            .manifest(NAME, &digest_of(&late).to_string(), &late)
            .await;
        assert_eq!(pushed.status(), StatusCode::CREATED);
        let bad = format!("/v2/{NAME}/referrers/no-digest");
        assert_eq!(hand.status(Method::GET, &bad).await, 400);
    }
}

#[tokio::test]
async fn manage() {
    for hand in Hand::all() {
        let document = hand.image(NAME, "v1", 69).await;
        let (digest, layer) = (digest_of(&document), Digest::sha256(&noise(69, 1000)));
        let at = |rest: &str| format!("/v2/{NAME}/{rest}");
        if hand.is_ours {
            hand.manifest(NAME, "v2", &document).await;
            assert_eq!(hand.status(Method::DELETE, &at("manifests/v2")).await, 202);
            assert_eq!(hand.status(Method::GET, &at("manifests/v2")).await, 404);
            assert_eq!(hand.status(Method::GET, &at("manifests/v1")).await, 200);
        }
        let path = at(&format!("manifests/{digest}"));
        assert_eq!(hand.status(Method::DELETE, &path).await, 202);
        assert_eq!(hand.status(Method::GET, &path).await, 404);
        assert_eq!(hand.status(Method::GET, &at("manifests/v1")).await, 404);
        assert_eq!(hand.status(Method::DELETE, &path).await, 404);
        let path = at(&format!("blobs/{layer}"));
        assert_eq!(hand.status(Method::DELETE, &path).await, 202);
        assert_eq!(hand.status(Method::GET, &path).await, 404);
        assert_eq!(hand.status(Method::DELETE, &path).await, 404);
    }
}
