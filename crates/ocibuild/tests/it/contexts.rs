//! Contexts of every kind: the files of a build, and what a name stands for in FROM and
//! `--from`.

use ocibuild::git::{GitSource, Policy};
use ocibuild::net::AddressPolicy;
use ocibuild::testing::{ContextDir, GitServer};
use ocibuild::{Build, ContextSource, DockerfileSource, ErrorKind, NamedContext, Secret};
use ocibuild_registry::testing::Registry;
use ocibuild_registry::{
    BlobSource, Client, Descriptor, ImagePush, LayerPush, Manifest, Progress, media_type,
};

use crate::built::{Built, Workshop, wait};
use crate::cache::push_base;
use crate::file_server::{FileServer, gzip};

const COMMON: &str = "FROM scratch\nCOPY . /c/\n";
/// 2020-01-01 as HTTP writes it, and in seconds since 1970.
const DATE: (&str, i64) = ("Wed, 01 Jan 2020 00:00:00 GMT", 1_577_836_800);

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o640);
        header.set_mtime(1_500_000_000);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn text(text: &str) -> DockerfileSource {
    DockerfileSource::Text {
        name: "Dockerfile".to_owned(),
        text: text.to_owned(),
    }
}

/// A build over an HTTP context.
fn http(workshop: &Workshop, url: &str) -> Build {
    workshop.build_from("store", ContextSource::Http(url.to_owned()))
}

/// A build of a text without a context.
fn bare(workshop: &Workshop, dockerfile: &str) -> Build {
    workshop
        .build_from("store", ContextSource::Empty)
        .dockerfile(text(dockerfile))
}

fn failure(build: impl FnOnce(&Workshop) -> Build) -> (ErrorKind, String) {
    let workshop = Workshop::new();
    let error = workshop.fails(build(&workshop));
    (error.kind(), ocibuild::causes::one_line(&error))
}

fn epoch_of(built: &Built) -> Option<&str> {
    built.config.created.as_deref()
}

#[test]
fn row_67_a_tar_behind_a_url_is_a_context() {
    let files = [
        ("Dockerfile", COMMON),
        ("d/f", "text"),
        ("left", "out"),
        (".dockerignore", "left"),
    ];
    for body in [
        tar(&files),
        gzip(&tar(&files)),
        zstd::encode_all(&tar(&files)[..], 1).unwrap(),
    ] {
        // Neither the name nor the type says what it is.
        let kind = vec![("content-type", "text/plain".to_owned())];
        let server = FileServer::with(&body, kind);
        let workshop = Workshop::new();
        let built = workshop.built(http(&workshop, &format!("{}/f", server.url)));
        assert_eq!(built.at("c/d/f"), "0640 0:0 file");
        assert_eq!(built.at("c/left"), "-");
        assert_eq!(built.text("c/d/f"), "text");
        let again = workshop.built(http(&workshop, &format!("{}/f", server.url)));
        assert_eq!(built.cached(), [("COPY . /c/", false)]);
        assert_eq!(again.cached(), [("COPY . /c/", true)]);
    }
}

#[test]
fn row_67_a_dockerfile_behind_a_url_is_a_context_of_one_file() {
    let server = FileServer::with(
        COMMON.as_bytes(),
        vec![("last-modified", DATE.0.to_owned())],
    );
    let url = format!("{}/f", server.url);
    let workshop = Workshop::new();
    let built = workshop.built(http(&workshop, &url));
    assert_eq!(built.list("c"), ["c/context 0600 0:0 file"]);
    assert_eq!(built.text("c/context"), COMMON);
    let dated = http(&workshop, &url).build_arg("SOURCE_DATE_EPOCH", "context");
    assert_eq!(
        epoch_of(&workshop.built(dated)),
        Some("2020-01-01T00:00:00Z")
    );
    let other = DockerfileSource::InContext("Other".to_owned());
    let error = workshop.fails(http(&workshop, &url).dockerfile(other));
    assert_eq!(error.to_string(), "the Dockerfile \"Other\" is not there");
}

#[test]
fn row_67_a_dockerfile_may_come_from_elsewhere_than_its_context() {
    let server = FileServer::with(COMMON.as_bytes(), vec![]);
    let workshop = Workshop::new();
    let context = ContextDir::new().file("f", "text");
    let source = DockerfileSource::Http(format!("{}/f", server.url));
    let built = workshop.built(workshop.build(&context).dockerfile(source));
    assert_eq!(built.text("c/f"), "text");
    let source = DockerfileSource::Http(format!("{}/f?secret=s3cret", server.url));
    server.set(("/f", 200, vec![], b"FROM scratch\nCOPX a b\n".to_vec()));
    let error = workshop.fails(workshop.build(&context).dockerfile(source));
    let shown = format!("{error}");
    assert!(
        shown.starts_with(&format!("{}/f:2: ", server.url)),
        "{shown}"
    );
}

#[test]
fn row_67_what_is_no_context_is_an_error() {
    let server = FileServer::with(b"text", vec![]);
    let url = format!("{}/nothing?token=s3cret", server.url);
    let (kind, error) = failure(|workshop| http(workshop, &url));
    assert_eq!(kind, ErrorKind::Registry);
    assert_eq!(
        error,
        format!("{}/nothing answered with HTTP status 404", server.url)
    );
    let (kind, error) = failure(|workshop| {
        let policy = Policy::default().addresses(AddressPolicy::default().refuse_loopback());
        http(workshop, &format!("{}/f", server.url)).git_policy(policy)
    });
    assert_eq!(kind, ErrorKind::User);
    assert!(error.contains("is refused"), "{error}");
    let (kind, _) = failure(|workshop| http(workshop, "ftp://example.com/f"));
    assert_eq!(kind, ErrorKind::User);
}

#[test]
fn row_67_the_context_may_be_an_image() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    push_base(&workshop, registry.reference("base:1"));
    let layout = ContextSource::OciLayout {
        path: workshop.path("base"),
        name: Some("1".to_owned()),
    };
    for source in [layout, ContextSource::Image(registry.reference("base:1"))] {
        let dockerfile = "FROM scratch\nCOPY /etc/passwd /p\n";
        let build = workshop
            .build_from("store", source)
            .dockerfile(text(dockerfile));
        assert!(workshop.built(build).text("p").starts_with("root:"));
    }
    let source = ContextSource::Image(registry.reference("base:1"));
    let error = workshop.fails(workshop.build_from("store", source));
    assert_eq!(
        error.hint(),
        Some("give a Dockerfile from elsewhere, with -f FILE")
    );
}

#[test]
fn row_66_a_repository_has_a_name() {
    let git = GitServer::start();
    let repository = git.repository("app.git");
    repository
        .file("sub/f", "text")
        .file("sub/.dockerignore", "out")
        .file("sub/out", "");
    repository.commit("first");
    let source = GitSource::parse(&format!("{}#main:sub", repository.url())).unwrap();
    let workshop = Workshop::new();
    let dockerfile = "FROM src AS child\nCOPY --from=src /f /copied\n\
        FROM busybox\nCOPY --from=child / /d/\n\
        RUN --mount=from=src,target=/m cat /m/f > /mounted\n";
    let build = bare(&workshop, dockerfile).named_context("src", NamedContext::Git(source.clone()));
    let built = workshop.built(build);
    assert_eq!(
        (built.text("d/f"), built.text("d/copied")),
        ("text".into(), "text".into())
    );
    assert_eq!(
        (built.text("mounted"), built.at("d/out")),
        ("text".into(), "-".into())
    );
    let fetched = built.image().steps.iter();
    let fetched = fetched.filter(|step| step.name.starts_with("[context src] load git source"));
    assert_eq!(fetched.count(), 1, "once a build");

    let keeping = bare(&workshop, "FROM scratch\nCOPY --from=src / /\n")
        .named_context(
            "src",
            NamedContext::Git(GitSource::parse(repository.url()).unwrap()),
        )
        .build_arg("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "1");
    assert_ne!(workshop.built(keeping).at(".git/HEAD"), "-");
}

#[test]
fn row_66_a_url_has_a_name() {
    let server = FileServer::start(vec![
        ("/tar", 200, vec![], gzip(&tar(&[("d/f", "text")]))),
        ("/file", 200, vec![], b"alone".to_vec()),
    ]);
    let named = |path: &str| NamedContext::Http(format!("{}/{path}", server.url));
    let workshop = Workshop::new();
    let build = bare(&workshop, "FROM files\nCOPY --from=file context /f\n")
        .named_context("files", named("tar"))
        .named_context("file", named("file"))
        .named_context("unused", named("nothing"));
    let built = workshop.built(build);
    assert_eq!(
        (built.text("d/f"), built.text("f")),
        ("text".into(), "alone".into())
    );
    assert!(
        !server.seen().contains(&"/nothing".to_owned()),
        "nobody asked for it"
    );

    let error = workshop.fails(
        bare(&workshop, "FROM scratch\nCOPY --from=gone / /\n")
            .named_context("gone", named("nothing")),
    );
    let want = format!(
        "Dockerfile:2: {}/nothing answered with HTTP status 404",
        server.url
    );
    assert_eq!(error.to_string().replace("instruction ", ""), want);
}

#[test]
fn row_19_a_context_keeps_its_git_directory() {
    let git = GitServer::start();
    let repository = git.repository("app.git");
    repository.file("Dockerfile", COMMON);
    repository.commit("first");
    let workshop = Workshop::new();
    let build = || {
        let source = GitSource::parse(repository.url()).unwrap();
        workshop.build_from("store", ContextSource::Git(source))
    };
    let keep = |value: &str| build().build_arg("BUILDKIT_CONTEXT_KEEP_GIT_DIR", value);
    assert_eq!(workshop.built(build()).at("c/.git"), "-");
    assert_eq!(workshop.built(keep("false")).at("c/.git"), "-");
    assert_ne!(workshop.built(keep("1")).at("c/.git/HEAD"), "-");
    let error = workshop.fails(keep("perhaps")).to_string();
    assert!(
        error.contains("BUILDKIT_CONTEXT_KEEP_GIT_DIR=perhaps"),
        "{error}"
    );
}

#[test]
fn row_20_a_build_is_dated_by_a_stage_or_a_named_context() {
    let date = vec![("last-modified", DATE.0.to_owned())];
    let server = FileServer::start(vec![
        ("/dated", 200, date, b"x".to_vec()),
        ("/tar", 200, vec![], tar(&[("f", "text")])),
        ("/timeless", 200, vec![], b"x".to_vec()),
    ]);
    let workshop = Workshop::new();
    let stage = |add: &str| {
        format!("FROM scratch AS source\nARG P=dated\n{add}\nFROM scratch\nLABEL a=1\n")
    };
    let dated = |dockerfile: &str| {
        bare(&workshop, dockerfile)
            .build_arg("SOURCE_DATE_EPOCH", "source")
            .build_arg("SERVER", &server.url)
    };
    let created = |build: Build| epoch_of(&workshop.built(build)).map(str::to_owned);
    let at_2020 = Some("2020-01-01T00:00:00Z".to_owned());
    let at_2017 = Some("2017-07-14T02:40:00Z".to_owned());
    assert_eq!(
        created(dated(&stage(&format!("ADD {}/$P /", server.url)))),
        at_2020
    );
    assert_eq!(
        created(dated(&stage("ARG SERVER\nADD ${SERVER}/tar /"))),
        at_2017
    );
    let context = NamedContext::Http(format!("{}/tar", server.url));
    let build = dated("FROM scratch\nLABEL a=1\n").named_context("source", context);
    assert_eq!(created(build), at_2017);
    // Nothing says a time, so it is now.
    let timeless = stage(&format!("ADD {}/timeless /", server.url));
    assert_ne!(created(dated(&timeless)), at_2020);
    for (instruction, what) in [
        ("ADD f /", "files"),
        ("ARG Q", "nothing"),
        ("LABEL b=1", "LABEL"),
    ] {
        let error = workshop.fails(dated(&stage(instruction))).to_string();
        assert!(error.ends_with(&format!("not {what}")), "{error}");
    }
    let error = workshop.fails(dated("FROM scratch\n")).to_string();
    assert!(error.contains("invalid SOURCE_DATE_EPOCH"), "{error}");
}

#[test]
fn row_50_secrets_are_logins_of_servers() {
    let server = FileServer::with(b"text", vec![]);
    let host = server.url.strip_prefix("http://").unwrap().to_owned();
    let workshop = Workshop::new();
    let add = format!("FROM scratch\nADD {}/f /\n", server.url);
    let token = Secret::bytes("s3cret\n");
    let with = |id: String| bare(&workshop, &add).no_cache().secret(id, token.clone());
    workshop.built(with(format!("HTTP_AUTH_TOKEN_{host}")));
    assert_eq!(
        server.last("authorization").as_deref(),
        Some("Bearer s3cret")
    );
    workshop.built(with("HTTP_AUTH_HEADER_127.0.0.1".to_owned()));
    assert_eq!(server.last("authorization").as_deref(), Some("s3cret"));
    workshop.built(with("HTTP_AUTH_TOKEN_example.com".to_owned()));
    assert_eq!(server.last("authorization"), None);

    // Another server that this one points to gets nothing.
    let other = FileServer::with(b"text", vec![]);
    let target = format!("{}/f", other.url);
    server.set(("/f", 302, vec![("location", target)], vec![]));
    workshop.built(with(format!("HTTP_AUTH_TOKEN_{host}")));
    assert_eq!(
        server.last("authorization").as_deref(),
        Some("Bearer s3cret")
    );
    assert_eq!(other.last("authorization"), None);

    let broken =
        bare(&workshop, &add).secret(format!("HTTP_AUTH_HEADER_{host}"), Secret::bytes("a\nb"));
    let error = format!("{:?}", workshop.fails(broken));
    assert!(
        error.contains("Login") && !error.contains("a\\nb"),
        "{error}"
    );
    let clear = "FROM scratch\nADD http://example.com/f /\n";
    let clear = bare(&workshop, clear).secret("HTTP_AUTH_TOKEN_example.com", token.clone());
    let error = workshop.fails(clear).to_string();
    assert!(error.contains("would travel unencrypted"), "{error}");
}

#[test]
fn row_50_repositories_have_logins_too() {
    let git = GitServer::start();
    git.require_login("x-access-token", "s3cret");
    let repository = git.repository("app.git");
    repository.file("f", "text");
    repository.commit("first");
    let workshop = Workshop::new();
    let add = format!("FROM scratch\nADD {} /\n", repository.url());
    for id in ["GIT_AUTH_TOKEN", "GIT_AUTH_TOKEN.127.0.0.1"] {
        let build = bare(&workshop, &add).secret(id, Secret::bytes("s3cret"));
        assert_eq!(workshop.built(build).text("f"), "text");
    }
    let build = bare(&workshop, &add).secret("GIT_AUTH_TOKEN.example.com", Secret::bytes("s3cret"));
    assert_eq!(workshop.fails(build).kind(), ErrorKind::Registry);
}

/// A layer of an artifact: media type, bytes and annotations.
type ArtifactLayer<'a> = (&'a str, Vec<u8>, Vec<(&'a str, &'a str)>);

/// Pushes what is no image, as `oras push` does.
fn push_artifact(registry: &Registry, name: &str, config: &str, layers: Vec<ArtifactLayer<'_>>) {
    let layers: Vec<LayerPush> = layers
        .into_iter()
        .map(|(media_type, bytes, annotations)| {
            let mut descriptor = Descriptor::of(media_type, &bytes);
            let annotations = annotations.into_iter();
            descriptor.annotations = annotations
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            LayerPush {
                descriptor,
                source: BlobSource::Bytes(bytes.into()),
                mount_from: Vec::new(),
            }
        })
        .collect();
    let created = ("org.opencontainers.image.created", "2020-01-01T00:00:00Z");
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config: Descriptor::of(config, b"{}"),
        layers: layers
            .iter()
            .map(|layer| layer.descriptor.clone())
            .collect(),
        annotations: [(created.0.to_owned(), created.1.to_owned())].into(),
    };
    let push = ImagePush {
        manifest: serde_json::to_vec(&manifest).unwrap().into(),
        media_type: media_type::MANIFEST.to_owned(),
        config: manifest.config.clone(),
        config_bytes: b"{}".to_vec().into(),
        layers,
        concurrency: 1,
    };
    let client = Client::builder().build().unwrap();
    let reference = registry.reference(name);
    wait(client.push_image(&reference, &push, &Progress::none())).unwrap();
}

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const TITLE: &str = "org.opencontainers.image.title";
const UNPACK: &str = "io.deis.oras.content.unpack";

fn artifact(workshop: &Workshop, registry: &Registry, name: &str) -> Build {
    let reference = registry.reference(name);
    workshop.build_from("store", ContextSource::OciArtifact(reference))
}

#[test]
fn an_artifact_is_a_context() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let folder = gzip(&tar(&[("Dockerfile", COMMON), ("app/f", "text")]));
    let more = zstd::encode_all(&tar(&[("app/g", "more")])[..], 1).unwrap();
    let layers = vec![
        (
            media_type::LAYER_GZIP,
            folder,
            vec![(TITLE, "app"), (UNPACK, "true")],
        ),
        (media_type::LAYER_ZSTD, more, vec![]),
        (
            media_type::LAYER_TAR,
            b"alone".to_vec(),
            vec![(TITLE, "docs/alone")],
        ),
    ];
    push_artifact(&registry, "ctx:1", EMPTY, layers);
    let built = workshop.built(artifact(&workshop, &registry, "ctx:1"));
    let texts = ["app/f", "app/g", "docs/alone"].map(|name| built.text(&format!("c/{name}")));
    assert_eq!(texts, ["text", "more", "alone"]);
    assert_eq!(built.at("c/app/f"), "0640 0:0 file");
    assert_eq!(built.at("c/docs/alone"), "0644 0:0 file");

    // What is in the store does not come again.
    registry.clear_requests();
    let build = artifact(&workshop, &registry, "ctx:1");
    let again = workshop.built(build.build_arg("SOURCE_DATE_EPOCH", "context"));
    assert_eq!(registry.count("GET", "/blobs/"), 0);
    assert_eq!(epoch_of(&again), Some("2020-01-01T00:00:00Z"));
}

#[test]
fn an_artifact_of_one_archive_is_the_context_whatever_it_is_called() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let archive = gzip(&tar(&[("Dockerfile", COMMON), ("f", "text")]));
    let titled = vec![(
        media_type::LAYER_TAR,
        archive.clone(),
        vec![(TITLE, "a.tgz")],
    )];
    push_artifact(&registry, "ctx:titled", "application/x-own", titled);
    let flux = "application/vnd.cncf.flux.content.v1.tar+gzip";
    push_artifact(&registry, "ctx:flux", EMPTY, vec![(flux, archive, vec![])]);
    for name in ["ctx:titled", "ctx:flux"] {
        let built = workshop.built(artifact(&workshop, &registry, name));
        assert_eq!(built.text("c/f"), "text", "{name}");
    }
    let file = vec![(EMPTY, COMMON.into(), vec![(TITLE, "Dockerfile")])];
    push_artifact(&registry, "ctx:file", EMPTY, file);
    let built = workshop.built(artifact(&workshop, &registry, "ctx:file"));
    assert_eq!(built.list("c"), ["c/Dockerfile 0644 0:0 file"]);
}

#[test]
fn an_artifact_has_a_name() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let layers = vec![(media_type::LAYER_TAR, tar(&[("d/f", "text")]), vec![])];
    push_artifact(&registry, "ctx:1", EMPTY, layers);
    let named = |name: &str| NamedContext::OciArtifact(registry.reference(name));
    let build = bare(&workshop, "FROM scratch\nCOPY --from=src /d /d\n")
        .named_context("src", named("ctx:1"))
        .named_context("unused", named("nothing:1"));
    assert_eq!(workshop.built(build).text("d/f"), "text");
    let asked = registry.requests();
    let asked = asked
        .iter()
        .any(|request| request.path.contains("/nothing/"));
    assert!(!asked, "nobody asked for it");
}

#[test]
fn what_is_no_artifact_with_files_is_refused() {
    let registry = Registry::start().unwrap();
    let title = |name: &'static str| vec![(TITLE, name)];
    let plain = || media_type::LAYER_TAR;
    let two = |name| {
        vec![
            (plain(), b"a".to_vec(), title(name)),
            (plain(), b"b".to_vec(), title("b")),
        ]
    };
    for (name, config, layers, part) in [
        ("a:image", media_type::CONFIG, two("a"), "it is an image"),
        ("a:empty", EMPTY, vec![], "it has no layers"),
        (
            "a:json",
            EMPTY,
            vec![("a/json", b"{}".to_vec(), vec![])],
            "neither a tar nor a file",
        ),
        ("a:up", EMPTY, two("../a"), "leads out of the context"),
        ("a:root", EMPTY, two("/etc/a"), "has an absolute name"),
        ("a:all", EMPTY, two("."), "names the whole context"),
        (
            "a:broken",
            EMPTY,
            vec![(plain(), b"no tar".to_vec(), vec![])],
            "cannot read the context archive",
        ),
    ] {
        push_artifact(&registry, name, config, layers);
        let (kind, error) = failure(|workshop| artifact(workshop, &registry, name));
        assert_eq!(kind, ErrorKind::User, "{error}");
        assert!(error.contains(part), "{name}: {error}");
    }
    let (kind, error) = failure(|workshop| artifact(workshop, &registry, "a:nothing"));
    assert_eq!(kind, ErrorKind::Registry);
    assert!(error.starts_with("load the artifact "), "{error}");
}
