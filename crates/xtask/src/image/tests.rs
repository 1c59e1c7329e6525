//! The image is built by the library from the real context, with another static program
//! in the place of ours: linking that takes minutes.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt as _;

use ocibuild::image::ImageConfig;
use ocibuild::image::validate::validate;
use ocibuild::registry::Digest;
use ocibuild::{Build, ContextSource, Image, Output};
use tempfile::TempDir;

use super::*;

const STAND_IN: &[u8] = b"a program";

/// The built image: a layout, and what it looks like unpacked.
struct Built {
    folder: TempDir,
    image: Image,
}

impl Built {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("program"), STAND_IN).unwrap();
        fs::write(path("certificates"), "-----BEGIN CERTIFICATE-----\n").unwrap();
        assemble(&path("context"), &path("program"), &path("certificates")).unwrap();
        let build = Build::new(ContextSource::Directory(path("context")), path("store"))
            .build_arg("VERSION", "1.2.3")
            .build_arg("REVISION", "0123abcd")
            .output(Output::OciDirectory(path("oci")))
            .output(Output::Local(path("unpacked")));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let image = runtime.block_on(build.run()).unwrap();
        Self { folder, image }
    }

    /// Computes every digest and size again.
    fn validated(&self) -> ImageConfig {
        let blobs = self.folder.path().join("oci/blobs/sha256");
        let open = |digest: &Digest| {
            let blob = File::open(blobs.join(digest.hex()))?;
            Ok(Box::new(blob) as Box<dyn Read + Send>)
        };
        validate(&self.image.manifest.descriptor, &open).unwrap()
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.folder.path().join("unpacked").join(path)
    }

    fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.inside(path)).unwrap().mode() & 0o7777
    }
}

#[test]
fn the_image_starts_the_service_as_a_user_without_privileges() {
    let config = Built::new().validated();
    for step in &config.history {
        let made_by = step.created_by.as_deref().unwrap();
        assert!(!made_by.starts_with("RUN"), "{made_by}");
    }
    let run = config.config;
    assert_eq!(run.user, "65532:65532");
    assert_eq!(run.entrypoint.unwrap(), ["/usr/bin/ocibuild"]);
    assert_eq!(run.cmd.unwrap(), ["serve"]);
    assert!(run.shell.is_none() && run.healthcheck.is_none());
    assert_eq!(run.exposed_ports.keys().collect::<Vec<_>>(), ["8000/tcp"]);
    let volumes: Vec<_> = run.volumes.keys().collect();
    assert_eq!(volumes, ["/tmp", "/var/lib/ocibuild"]);
    for variable in [
        "OCIBUILD_DATA_DIR=/var/lib/ocibuild",
        "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
        "TMPDIR=/tmp",
    ] {
        assert!(run.env.iter().any(|found| found == variable), "{variable}");
    }
    let label = |name: &str| run.labels[&format!("org.opencontainers.image.{name}")].clone();
    assert_eq!(
        (label("version"), label("revision")),
        ("1.2.3".into(), "0123abcd".into())
    );
    assert_eq!(label("licenses"), "Apache-2.0");
}

#[test]
fn the_image_has_the_program_and_what_it_reads_and_nothing_else() {
    let built = Built::new();
    let mut files = Vec::new();
    list(&built.inside(""), &mut files);
    let found: Vec<_> = files
        .iter()
        .map(|file| file.strip_prefix(built.inside("")).unwrap())
        .collect();
    let expected = [
        "etc/group",
        "etc/nsswitch.conf",
        "etc/passwd",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/bin/ocibuild",
    ];
    assert_eq!(found, expected.map(Path::new));
    assert_eq!(
        fs::read(built.inside("usr/bin/ocibuild")).unwrap(),
        STAND_IN
    );
    assert_eq!(built.mode("usr/bin/ocibuild"), 0o755);
    assert_eq!(built.mode("etc/passwd"), 0o644);
    assert_eq!(built.mode("tmp"), 0o1777);
    assert_eq!(built.mode("var/lib/ocibuild"), 0o700);
    let passwd = fs::read_to_string(built.inside("etc/passwd")).unwrap();
    assert!(passwd.contains("\nocibuild:x:65532:65532:"), "{passwd}");
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            list(&path, files);
        } else {
            files.push(path);
        }
    }
}

#[test]
fn a_program_that_needs_a_loader_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    assert!(
        check_static(&script)
            .unwrap_err()
            .ends_with("not a program of a 64-bit Linux")
    );
    assert!(
        check_static(Path::new("/bin/sh"))
            .unwrap_err()
            .ends_with("is not linked statically")
    );
    let busybox = Path::new("/bin/busybox");
    if names_interpreter(busybox).is_ok_and(|dynamic| !dynamic) {
        check_static(busybox).unwrap();
    } else {
        println!("skipped: no static busybox");
    }
}

#[test]
fn arguments_are_read() {
    let parsed = Request::parse(&[
        "--push",
        "r:5000/a:1",
        "--debug",
        "--",
        "--plain-http",
        "r:5000",
    ]);
    let expected = Request {
        push: Some("r:5000/a:1".into()),
        debug: true,
        flags: vec!["--plain-http".into(), "r:5000".into()],
        ..Request::default()
    };
    assert_eq!(parsed.unwrap(), expected);
    for wrong in [&["--out"][..], &["--out", "a", "--push", "b"], &["--quick"]] {
        assert!(Request::parse(wrong).is_err(), "{wrong:?}");
    }
}
