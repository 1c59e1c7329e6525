//! Our server, by the letter of the distribution specification.

use ocibuild_registry::testing::Registry;
use ocibuild_registry::{Digest, Hasher, Progress, digest::Algorithm, media_type};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::{client, image, noise, plain_http};

/// One request after the other, by hand.
struct Hand {
    registry: Registry,
    http: reqwest::Client,
}

impl Hand {
    fn new() -> Self {
        Self::to(Registry::start().unwrap())
    }

    fn to(registry: Registry) -> Self {
        let http = plain_http();
        Self { registry, http }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let url = format!("http://{}{path}", self.registry.host());
        let mut request = self.http.request(method, url).body(body);
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, &[], "").await
    }

    /// Starts an upload and gives its path.
    async fn upload(&self, name: &str) -> String {
        let path = format!("/v2/{name}/blobs/uploads/");
        let response = self.send(Method::POST, &path, &[], "").await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        header(&response, "location").to_owned()
    }

    async fn put_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let response = self.send(Method::POST, &path, &[], bytes.to_vec()).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        digest
    }

    async fn put_manifest(&self, path: &str, document: &Value) -> Response {
        let media_type = document["mediaType"].as_str().unwrap();
        let body = document.to_string();
        let headers = [("content-type", media_type)];
        self.send(Method::PUT, path, &headers, body).await
    }
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

async fn json(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

async fn code(response: Response) -> String {
    let document = json(response).await;
    document["errors"][0]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_answer_names_the_version() {
    let hand = Hand::new();
    for path in ["/v2/", "/v2", "/v2/_catalog", "/v2/no/such/page"] {
        let response = hand.get(path).await;
        let version = header(&response, "docker-distribution-api-version");
        assert_eq!(version, "registry/2.0", "{path}");
    }
}

#[tokio::test]
async fn chunks_have_to_come_in_order() {
    let hand = Hand::new();
    let bytes = noise(100, 300);
    let digest = Digest::sha256(&bytes);
    let path = hand.upload("app").await;
    let patch = async |range: &str, part: &[u8]| {
        let headers = [("content-range", range)];
        let response = hand.send(Method::PATCH, &path, &headers, part.to_vec());
        let response = response.await;
        let range = header(&response, "range").to_owned();
        (response.status().as_u16(), range)
    };
    assert_eq!(patch("0-99", &bytes[..100]).await, (202, "0-99".to_owned()));
    for wrong in ["0-99", "50-149", "101-200", "nonsense"] {
        let answer = patch(wrong, &bytes[..100]).await;
        assert_eq!(answer, (416, "0-99".to_owned()), "{wrong}");
    }
    assert_eq!(patch("100-150", &bytes[100..200]).await.0, 400);
    let status = hand.get(&path).await;
    assert_eq!(status.status(), StatusCode::NO_CONTENT);
    assert_eq!(header(&status, "range"), "0-99");
    assert_eq!(patch("100-199", &bytes[100..200]).await.0, 202);

    let end = format!("{path}?digest={digest}");
    let rest = bytes[200..].to_vec();
    let headers = [("content-range", "200-299")];
    let response = hand.send(Method::PUT, &end, &headers, rest).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = header(&response, "location").to_owned();
    let blob = hand.get(&location).await;
    assert_eq!(header(&blob, "docker-content-digest"), digest.to_string());
    assert_eq!(blob.bytes().await.unwrap(), bytes);
    // The session is over.
    let status = hand.get(&path).await;
    assert_eq!(code(status).await, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn uploads_are_verified_cancelled_and_bound_to_their_repository() {
    let hand = Hand::new();
    let digest = Digest::sha256(b"right");
    let path = hand.upload("app").await;
    let wrong = format!("{path}?digest={digest}");
    let response = hand.send(Method::PUT, &wrong, &[], "wrong").await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(code(response).await, "DIGEST_INVALID");
    let blob = hand.get(&format!("/v2/app/blobs/{digest}")).await;
    assert_eq!(code(blob).await, "BLOB_UNKNOWN");

    let path = hand.upload("app").await;
    let foreign = path.replace("/app/", "/other/");
    assert_eq!(hand.get(&foreign).await.status(), StatusCode::NOT_FOUND);
    let response = hand.send(Method::DELETE, &path, &[], "").await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(hand.get(&path).await.status(), StatusCode::NOT_FOUND);
    // Neither the refused nor the cancelled upload has left a file.
    let uploads = hand.registry.folder().join("uploads");
    assert_eq!(std::fs::read_dir(uploads).unwrap().count(), 0);
}

#[tokio::test]
async fn sha512_works_whole_and_in_chunks() {
    let hand = Hand::new();
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(b"hello");
    let digest = hasher.finish();
    for chunked in [false, true] {
        let path = hand.upload("app").await;
        let (first, rest) = if chunked {
            ("hel", "lo")
        } else {
            ("", "hello")
        };
        if chunked {
            hand.send(Method::PATCH, &path, &[], first).await;
        }
        let end = format!("{path}?digest={digest}");
        let response = hand.send(Method::PUT, &end, &[], rest).await;
        assert_eq!(response.status(), StatusCode::CREATED);
    }
    let blob = hand.get(&format!("/v2/app/blobs/{digest}")).await;
    assert_eq!(blob.bytes().await.unwrap(), "hello");
}

#[tokio::test]
async fn ranges_of_blobs() {
    let hand = Hand::new();
    let digest = hand.put_blob("app", b"0123456789").await;
    let path = format!("/v2/app/blobs/{digest}");
    for (range, status, content_range, body) in [
        ("bytes=2-4", 206, "bytes 2-4/10", "234"),
        ("bytes=7-", 206, "bytes 7-9/10", "789"),
        ("bytes=-2", 206, "bytes 8-9/10", "89"),
        ("bytes=4-2", 200, "", "0123456789"),
    ] {
        let response = hand.send(Method::GET, &path, &[("range", range)], "").await;
        assert_eq!(response.status().as_u16(), status, "{range}");
        assert_eq!(header(&response, "content-range"), content_range, "{range}");
        assert_eq!(response.bytes().await.unwrap(), body, "{range}");
    }
    let beyond = [("range", "bytes=10-")];
    let response = hand.send(Method::GET, &path, &beyond, "").await;
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let response = hand.send(Method::HEAD, &path, &[], "").await;
    assert_eq!(header(&response, "content-length"), "10");
}

#[tokio::test]
async fn blobs_belong_to_their_repository() {
    let hand = Hand::new();
    let digest = hand.put_blob("secret", b"data").await;
    let elsewhere = hand.get(&format!("/v2/app/blobs/{digest}")).await;
    assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);
    // A mount that cannot be becomes an upload, and never an error.
    for query in [
        format!("mount={digest}&from=nowhere"),
        format!("mount={digest}&from=../secret"),
        "mount=nonsense&from=secret".to_owned(),
        format!("mount={digest}"),
    ] {
        let path = format!("/v2/app/blobs/uploads/?{query}");
        let response = hand.send(Method::POST, &path, &[], "").await;
        assert_eq!(response.status(), StatusCode::ACCEPTED, "{query}");
    }
    let path = format!("/v2/app/blobs/uploads/?mount={digest}&from=secret");
    let response = hand.send(Method::POST, &path, &[], "").await;
    assert_eq!(response.status(), StatusCode::CREATED);
    // Deleting there leaves it here.
    let secret = format!("/v2/secret/blobs/{digest}");
    let response = hand.send(Method::DELETE, &secret, &[], "").await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(hand.get(&secret).await.status(), StatusCode::NOT_FOUND);
    let here = hand.get(&format!("/v2/app/blobs/{digest}")).await;
    assert_eq!(here.bytes().await.unwrap(), "data");
}

fn artifact(config: &Digest, artifact_type: &str, subject: &Digest, size: usize) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "artifactType": artifact_type,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config.to_string(), "size": 2},
        "layers": [],
        "subject": {"mediaType": media_type::MANIFEST, "digest": subject.to_string(), "size": size},
        "annotations": {"kind": artifact_type},
    })
}

#[tokio::test]
async fn referrers_are_listed_and_filtered() {
    let hand = Hand::new();
    let empty = hand.put_blob("app", b"{}").await;
    let subject = Digest::sha256(b"comes later, or never");
    let list = format!("/v2/app/referrers/{subject}");
    let none = json(hand.get(&list).await).await;
    assert_eq!(none["manifests"], json!([]));

    for kind in ["test/sbom", "test/signature"] {
        let document = artifact(&empty, kind, &subject, 5);
        let digest = Digest::sha256(document.to_string().as_bytes());
        let path = format!("/v2/app/manifests/{digest}");
        let response = hand.put_manifest(&path, &document).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(header(&response, "oci-subject"), subject.to_string());
    }
    let response = hand.get(&list).await;
    assert_eq!(header(&response, "content-type"), media_type::INDEX);
    let all = json(response).await;
    assert_eq!(all["manifests"].as_array().unwrap().len(), 2);

    let filtered = hand.get(&format!("{list}?artifactType=test/sbom")).await;
    assert_eq!(header(&filtered, "oci-filters-applied"), "artifactType");
    let filtered = json(filtered).await;
    let found = filtered["manifests"].as_array().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["annotations"]["kind"], "test/sbom");

    let digest = found[0]["digest"].as_str().unwrap();
    let path = format!("/v2/app/manifests/{digest}");
    let response = hand.send(Method::DELETE, &path, &[], "").await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let left = json(hand.get(&list).await).await;
    assert_eq!(left["manifests"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn bad_manifests_are_refused() {
    let hand = Hand::new();
    let empty = hand.put_blob("app", b"{}").await;
    let config = json!({"mediaType": media_type::CONFIG, "digest": empty.to_string(), "size": 2});
    let absent = json!({"mediaType": media_type::MANIFEST, "digest": Digest::sha256(b"?").to_string(), "size": 1});
    let image = json!({"mediaType": media_type::MANIFEST, "schemaVersion": 2, "config": config, "layers": []});
    let with = |changes: Value| {
        let mut document = image.clone();
        for (key, value) in changes.as_object().unwrap() {
            document[key] = value.clone();
        }
        document
    };
    let cases = [
        (
            "v1",
            json!({"mediaType": media_type::MANIFEST}),
            "MANIFEST_INVALID",
        ),
        (".bad", image.clone(), "MANIFEST_INVALID"),
        ("v1", with(json!({"manifests": []})), "MANIFEST_INVALID"),
        (
            "v1",
            with(json!({"mediaType": media_type::INDEX})),
            "MANIFEST_INVALID",
        ),
        (
            "v1",
            with(json!({"layers": [absent]})),
            "MANIFEST_BLOB_UNKNOWN",
        ),
        (
            "v1",
            json!({"mediaType": media_type::INDEX, "manifests": [absent]}),
            "MANIFEST_BLOB_UNKNOWN",
        ),
        (
            &Digest::sha256(b"other").to_string(),
            image.clone(),
            "DIGEST_INVALID",
        ),
    ];
    for (name, document, want) in cases {
        let path = format!("/v2/app/manifests/{name}");
        let response = hand.put_manifest(&path, &document).await;
        assert_eq!(code(response).await, want, "{name} {document}");
    }
    let huge = with(json!({"annotations": {"x": "x".repeat(5 << 20)}}));
    let response = hand.put_manifest("/v2/app/manifests/v1", &huge).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let tags = hand.get("/v2/app/tags/list").await;
    assert_eq!(json(tags).await["tags"], json!([]));
    // A layer that is elsewhere need not be here.
    let mut foreign = absent.clone();
    foreign["urls"] = json!(["https://elsewhere.example/layer"]);
    let document = with(json!({"layers": [foreign]}));
    let response = hand.put_manifest("/v2/app/manifests/v1", &document).await;
    assert_eq!(response.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let hand = Hand::new();
    let image = image(101, &[10]);
    for name in ["app:a", "app:b", "app:c", "team/x:v1", "team/y:v1"] {
        let reference = hand.registry.reference(name);
        client()
            .push_image(&reference, &image, &Progress::none())
            .await
            .unwrap();
    }
    for (path, key, want, link) in [
        ("/v2/app/tags/list", "tags", json!(["a", "b", "c"]), ""),
        (
            "/v2/app/tags/list?n=2",
            "tags",
            json!(["a", "b"]),
            "</v2/app/tags/list?n=2&last=b>; rel=\"next\"",
        ),
        ("/v2/app/tags/list?n=2&last=b", "tags", json!(["c"]), ""),
        ("/v2/app/tags/list?n=0", "tags", json!([]), ""),
        ("/v2/app/tags/list?n=3", "tags", json!(["a", "b", "c"]), ""),
        ("/v2/app/tags/list?last=zzz", "tags", json!([]), ""),
        (
            "/v2/_catalog?n=2",
            "repositories",
            json!(["app", "team/x"]),
            "</v2/_catalog?n=2&last=team%2Fx>; rel=\"next\"",
        ),
        (
            "/v2/_catalog?n=2&last=team%2Fx",
            "repositories",
            json!(["team/y"]),
            "",
        ),
    ] {
        let response = hand.get(path).await;
        assert_eq!(header(&response, "link"), link, "{path}");
        assert_eq!(json(response).await[key], want, "{path}");
    }
}

#[tokio::test]
async fn hostile_names_do_not_leave_the_folder() {
    let hand = Hand::new();
    for path in [
        "/v2/../../etc/manifests/passwd",
        "/v2/%2e%2e/%2e%2e/manifests/x",
        "/v2/a%2f..%2f..%2fb/manifests/x",
        "/v2/app/manifests/..%2f..%2fx",
        "/v2/app/blobs/uploads/..%2f..%2fx",
        "/v2/_uploads/tags/list",
        "/v2/app/blobs/sha256:..%2f..%2f",
    ] {
        let response = hand.get(path).await;
        assert!(response.status().is_client_error(), "{path}");
        let response = hand.put_manifest(path, &json!({"mediaType": "x"})).await;
        assert!(response.status().is_client_error(), "{path}");
    }
}

#[tokio::test]
async fn a_store_is_opened_again_as_it_was() {
    use ocibuild_registry::server::{Store, serve};
    let first = Registry::start().unwrap();
    let image = image(102, &[10, 20]);
    let reference = first.reference("team/app:v1");
    let pushed = client()
        .push_image(&reference, &image, &Progress::none())
        .await
        .unwrap();
    let upload = Hand::to(first);
    let open = upload.upload("team/app").await;

    // A second server over the same folder, as after a kill: nothing is closed first.
    let store = Store::open(upload.registry.folder()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, store, async move {
        let _ = stopped.await;
    }));
    let there = format!("{host}/team/app:v1").parse().unwrap();
    let found = client().resolve(&there).await.unwrap();
    assert_eq!(found.digest, pushed.digest);
    // The second server does not know the first one's upload, and the first still does.
    let url = format!("http://{host}{open}");
    let response = upload.http.get(url).send().await.unwrap();
    assert_eq!(code(response).await, "BLOB_UPLOAD_UNKNOWN");
    assert!(upload.get(&open).await.status().is_success());
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}
