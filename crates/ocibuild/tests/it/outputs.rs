//! Where an image can go. Other tools read what was written, or we read it back as if it
//! were somebody else's.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use ocibuild::images::Images;
use ocibuild::registry::{Client, Copy, Index, Platform, Progress, Reference};
use ocibuild::testing::ContextDir;
use ocibuild::{Build, ContextSource, Image, Output};
use ocibuild_registry::testing::{DebianRegistry, Registry, StartError, not_installed};

use crate::built::{Built, Workshop, example, skopeo, skopeo_digest, wait};
use crate::cache::push_base;

const DOCKERFILE: &str = "FROM busybox\nCOPY --chown=1:2 f /d/f\nENV A=1\nWORKDIR /w\n\
    COPY link /link\nCMD [\"x\"]\n";

fn context() -> ContextDir {
    ContextDir::new()
        .file("f", "content")
        .symlink("link/to", "/d/f")
        .file("Dockerfile", DOCKERFILE)
}

fn run(workshop: &Workshop, output: Output, names: &[&str]) -> Image {
    let context = context();
    let mut build = workshop.build(&context).output(output);
    for name in names {
        build = build.tag(name.parse().unwrap());
    }
    wait(build.run()).unwrap()
}

#[test]
fn an_image_layout_names_the_image_for_all_readers() {
    let workshop = Workshop::new();
    let layout = workshop.path("out");
    let names = ["example.org/team/app:1", "app:latest"];
    let image = run(&workshop, Output::OciDirectory(layout.clone()), &names);
    let built = Built::read_only(&layout);
    assert_eq!(built.config, image.config);

    let index = std::fs::read(layout.join("index.json")).unwrap();
    let index: Index = serde_json::from_slice(&index).unwrap();
    let annotation = |key: &str| -> BTreeSet<&str> {
        let images = index.manifests.iter();
        images
            .map(|image| image.annotations[key].as_str())
            .collect()
    };
    assert_eq!(
        annotation("org.opencontainers.image.ref.name"),
        ["1", "latest"].into()
    );
    assert_eq!(
        annotation("io.containerd.image.name"),
        ["docker.io/library/app:latest", "example.org/team/app:1"].into()
    );
    for tag in ["1", "latest"] {
        let name = format!("oci:{}:{tag}", layout.display());
        assert_skopeo_finds(&name, &image);
    }
    // Another image joins the first, and a new one takes over a name.
    let other = ContextDir::new().file("Dockerfile", "FROM scratch\nLABEL other=1\n");
    let build = workshop.build(&other).tag("app:latest".parse().unwrap());
    let other = wait(build.output(Output::OciDirectory(layout.clone())).run()).unwrap();
    Built::read(&layout, other.digest);
    assert_skopeo_finds(&format!("oci:{}:latest", layout.display()), &other);
    assert_skopeo_finds(&format!("oci:{}:1", layout.display()), &image);
}

fn assert_skopeo_finds(name: &str, image: &Image) {
    let Some(ended) = skopeo(&["inspect", "--raw", name]) else {
        return;
    };
    assert!(ended.stdout == image.manifest.bytes, "{name}");
}

/// Unpacks an archive with the tar of the machine.
fn untar(archive: &Path, into: &Path) {
    std::fs::create_dir(into).unwrap();
    let mut tar = Command::new("tar");
    let status = tar.arg("-xf").arg(archive).arg("-C").arg(into).status();
    assert!(status.unwrap().success());
}

#[test]
fn an_oci_archive_is_a_layout_in_a_tar() {
    let workshop = Workshop::new();
    let archive = workshop.path("image.tar");
    let image = run(&workshop, Output::OciArchive(archive.clone()), &["app:1"]);
    let layout = workshop.path("layout");
    untar(&archive, &layout);
    assert_eq!(Built::read_only(&layout).config, image.config);
    assert_skopeo_finds(&format!("oci-archive:{}:1", archive.display()), &image);
    let mode = archive.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn docker_reads_a_docker_archive() {
    let workshop = Workshop::new();
    let archive = workshop.path("image.tar");
    let image = run(
        &workshop,
        Output::DockerArchive(archive.clone()),
        &["app:1"],
    );
    // It is an image layout too.
    let layout = workshop.path("layout");
    untar(&archive, &layout);
    assert_eq!(Built::read_only(&layout).config, image.config);

    let name = format!(
        "docker-archive:{}:docker.io/library/app:1",
        archive.display()
    );
    let Some(_) = skopeo(&["inspect", &name]) else {
        return;
    };
    let copy = workshop.path("copy");
    let dest = format!("oci:{}:1", copy.display());
    skopeo(&["copy", "--quiet", &name, &dest]).unwrap();
    let copied = Built::read_only(&copy);
    assert_eq!(copied.config.rootfs, image.config.rootfs);
    assert_eq!(copied.config.config, image.config.config);
}

#[test]
fn a_tar_holds_the_root_file_system() {
    let workshop = Workshop::new();
    let archive = workshop.path("root.tar");
    run(&workshop, Output::Tar(archive.clone()), &[]);
    let mut tar = tar::Archive::new(std::fs::File::open(&archive).unwrap());
    let listed: Vec<String> = tar
        .entries()
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| !entry.path_bytes().starts_with(b"bin/"))
        .map(|entry| {
            let header = entry.header();
            let (mode, uid) = (header.mode().unwrap(), header.uid().unwrap());
            format!("{} {mode:o} {uid}", entry.path().unwrap().display())
        })
        .collect();
    for line in [
        "d/ 755 1",
        "d/f 644 1",
        "link/to 777 0",
        "tmp/ 1777 0",
        "w/ 755 0",
    ] {
        assert!(listed.contains(&line.to_owned()), "{line}: {listed:?}");
    }
    assert_eq!(
        listed.iter().filter(|line| line.starts_with("d/f")).count(),
        1
    );
}

#[test]
fn a_directory_holds_the_root_file_system() {
    let workshop = Workshop::new();
    let folder = workshop.path("root");
    run(&workshop, Output::Local(folder.clone()), &[]);
    assert_eq!(
        std::fs::read_to_string(folder.join("d/f")).unwrap(),
        "content"
    );
    assert_eq!(
        std::fs::read_link(folder.join("link/to")).unwrap(),
        Path::new("/d/f")
    );
    let mode = folder.join("tmp").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1777);
}

/// Runs the example program against a registry and checks what has arrived.
fn embed(pushed: &Reference, base: Reference) {
    let workshop = Workshop::new();
    push_base(&workshop, base.clone());
    let text = DOCKERFILE.replace("busybox", &base.to_string()) + "RUN echo run > /run.txt\n";
    let context = context().file("Dockerfile", text);
    let ended = Command::new(example("embed"))
        .arg(context.path())
        .arg(workshop.path("embedded"))
        .arg(pushed.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("] RUN echo run > /run.txt\n"), "{said}");

    let digest = String::from_utf8(ended.stdout).unwrap();
    let built = pulled(&workshop, pushed);
    assert_eq!(built.text("run.txt"), "run\n");
    assert_eq!(built.at("d/f"), "0644 1:2 file");
    if let Some(found) = skopeo_digest(pushed) {
        assert_eq!(found, digest.trim_end());
    }
}

/// Builds the demonstration's sample into a registry, and has skopeo pull it.
fn sample(pushed: &Reference) {
    let workshop = Workshop::new();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/sample");
    let image = wait(
        Build::new(ContextSource::Directory(sample), workshop.path("store"))
            .output(Output::Registry(pushed.clone()))
            .run(),
    )
    .unwrap();
    let built = pulled(&workshop, pushed);
    assert!(built.text("srv/www/index.html").contains("<html"));
    let layout = workshop.path("layout");
    let dest = format!("oci:{}:sample", layout.display());
    let from = format!("docker://{pushed}");
    if skopeo(&["copy", "--quiet", "--src-tls-verify=false", &from, &dest]).is_some() {
        assert_eq!(Built::read(&layout, image.digest).config, image.config);
    }
}

/// Pulls an image into a store of its own and reads it there.
pub(crate) fn pulled(workshop: &Workshop, reference: &Reference) -> Built {
    let store = workshop.path("pulled");
    let images = Images::open(&store).unwrap();
    let client = Client::builder().build().unwrap();
    let pulled = wait(images.pull(&client, reference, &Platform::host())).unwrap();
    Built::read(&store, pulled.manifest.descriptor.digest)
}

#[test]
fn the_example_builds_and_pushes_to_our_registry() {
    let registry = Registry::start().unwrap();
    embed(
        &registry.reference("team/app:1"),
        registry.reference("base:1"),
    );
    sample(&registry.reference("team/sample:1"));
}

#[test]
fn the_example_builds_and_pushes_to_debians_registry() {
    match DebianRegistry::start() {
        Ok(registry) => {
            embed(
                &registry.reference("team/app:1"),
                registry.reference("base:1"),
            );
            sample(&registry.reference("team/sample:1"));
        }
        Err(StartError::Missing) => not_installed("docker-registry"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_base_in_the_same_registry_is_taken_over_unread() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    push_base(&workshop, registry.reference("base:1"));
    registry.clear_requests();
    let base = registry.reference("base:1").to_string();
    let context = ContextDir::new().file("Dockerfile", format!("FROM {base}\nLABEL a=1\n"));
    let pushed = registry.reference("app:1");
    wait(
        workshop
            .build(&context)
            .output(Output::Registry(pushed.clone()))
            .run(),
    )
    .unwrap();
    let layer_reads = registry
        .requests()
        .iter()
        .filter(|request| request.method == "GET" && request.path.contains("base/blobs/"))
        .count();
    assert_eq!(layer_reads, 1, "the configuration, and not the layer");
    assert!(registry.uploaded_bytes() < 10_000);
    pulled(&workshop, &pushed);
}

#[test]
fn an_image_is_copied_to_other_names_byte_for_byte() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let other = Registry::start().unwrap();
    let source = registry.reference("team/base:1");
    push_base(&workshop, source.clone());
    let client = Client::builder().build().unwrap();
    let digest = wait(client.head(&source)).unwrap().unwrap().digest;
    let pinned: Reference = format!("{source}@{digest}").parse().unwrap();
    let (all, none) = (Copy::default(), Progress::none());
    registry.clear_requests();

    let same = registry.reference("elsewhere/app:2");
    let copied = wait(client.copy(&pinned, &same, &all, &none)).unwrap();
    assert_eq!((copied.digest, copied.moved), (digest, 0));
    assert_eq!(registry.count("GET", "/blobs/"), 0);

    let far = other.reference("app:3");
    let copied = wait(client.copy(&pinned, &far, &all, &none)).unwrap();
    assert_eq!(copied.digest, digest);
    assert_eq!(copied.moved, other.uploaded_bytes());
    pulled(&workshop, &far);
}

/// Builds on a base that is named by its digest, twice; gives the requests of the second time.
fn requests_for_a_known_base(top: impl Fn(&Client, &Reference) -> ocibuild::registry::Digest) {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let name = registry.reference("team/base:1");
    push_base(&workshop, name.clone());
    let client = Client::builder().build().unwrap();
    let digest = top(&client, &name);
    let pinned = name.repository().with_digest(digest);
    let text = format!("FROM {pinned}\nCOPY f /f\nCOPY --from={pinned} /bin /b\n");
    let context = context().file("Dockerfile", text);
    let build = |layout: &str| {
        let output = Output::OciDirectory(workshop.path(layout));
        wait(workshop.build(&context).output(output).run()).unwrap()
    };
    let first = build("first");
    assert!(registry.count("GET", "/manifests/") > 0);
    registry.clear_requests();
    assert_eq!(build("second").manifest, first.manifest);
    let images = Images::open(&workshop.store()).unwrap();
    let pulled = wait(images.pull(&client, &pinned, &Platform::host())).unwrap();
    assert_eq!(pulled.layers.len(), 1);
    assert!(registry.requests().is_empty(), "{:?}", registry.requests());
    // One that is not known is asked for.
    let other = ocibuild::registry::Digest::sha256(b"other");
    let other = name.repository().with_digest(other);
    assert!(wait(images.pull(&client, &other, &Platform::host())).is_err());
    assert!(!registry.requests().is_empty());
}

#[test]
fn a_base_that_is_known_by_its_digest_costs_no_request() {
    requests_for_a_known_base(|client, name| wait(client.head(name)).unwrap().unwrap().digest);
}

#[test]
fn an_index_that_is_known_by_its_digest_costs_no_request() {
    requests_for_a_known_base(|client, name| {
        let mut entry = wait(client.head(name)).unwrap().unwrap();
        entry.platform = Some(Platform::host());
        let bytes = serde_json::to_vec(&Index::of(vec![entry])).unwrap();
        let index = ocibuild::registry::media_type::INDEX;
        wait(client.push_manifest(name, index, &bytes)).unwrap()
    });
}

#[test]
fn a_layer_that_was_pushed_elsewhere_in_the_registry_does_not_travel_again() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let push = |name: &str, label: &str, scope: &str| {
        registry.clear_requests();
        let text = format!("{DOCKERFILE}LABEL l={label}\n");
        let context = context().file("Dockerfile", text);
        let output = Output::Registry(registry.reference(name));
        let build = workshop.build(&context).cache_scope(scope);
        wait(build.output(output).run()).unwrap();
        let mounts = registry.requests().into_iter();
        let mounts = mounts.filter(|request| request.query.contains("mount="));
        (registry.uploaded_bytes() > 100_000, mounts.count())
    };
    let base_and_steps = 4;
    assert_eq!(push("one/app:1", "a", "red"), (true, 0));
    assert_eq!(push("two/app:1", "b", "red"), (false, base_and_steps));
    // Where the layers are is not told to others who share the store.
    assert_eq!(push("three/app:1", "c", "blue"), (true, 0));
    pulled(&workshop, &registry.reference("two/app:1"));
}
