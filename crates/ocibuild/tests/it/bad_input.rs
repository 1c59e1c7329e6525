//! What can be wrong with what a build is given: each time an error that names the
//! thing, its kind and its place, and nothing half-written.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use ocibuild::error::{Error, ErrorKind};
use ocibuild::registry::{Client, Credential, Credentials};
use ocibuild::testing::{ContextDir, busybox_layout};
use ocibuild::{ContextSource, DockerfileSource, NamedContext, Output};
use ocibuild_registry::testing::{Fault, Login, Registry};

use crate::built::{Workshop, example, skip};

/// The error with its causes, as users see it.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn failure(dockerfile: &str) -> Error {
    let workshop = Workshop::new();
    let context = ContextDir::new()
        .file("f", "x")
        .file("Dockerfile", dockerfile);
    workshop.fails(workshop.build(&context))
}

#[test]
fn a_dockerfile_that_cannot_be_built() {
    let cases = [
        (
            "RUN --security=insecure true",
            "Dockerfile:2: this step needs the entitlement security.insecure, which this build \
             does not have",
        ),
        (
            "COPY https://example.org/f /",
            "Dockerfile:2: COPY takes paths only, not \"https://example.org/f\": use ADD",
        ),
        (
            "ADD --checksum=1 f /",
            "Dockerfile:2: --checksum needs the URL of a file or repository",
        ),
        ("COPY missing /", "Dockerfile:2: \"/missing\": not found"),
        (
            "COPY f /x\nCOPY . /x",
            "Dockerfile:3: cannot copy a directory to \"/x\": it is not a directory",
        ),
        (
            "WORKDIR /d/f\nCOPY f /d",
            "Dockerfile:3: cannot replace the directory \"/d/f\" with a file",
        ),
        (
            "COPY --from=$A f /",
            "Dockerfile:2: variable expansion is not supported for --from: \"$A\"",
        ),
        (
            "COPY --from=7 f /",
            "Dockerfile:2: there is no stage 7: stages are counted from 0",
        ),
        (
            "COPY --chmod=99 f /",
            "Dockerfile:2: invalid mode \"99\": want an octal number of at most 7777, or changes such as u=rwX,go=rX",
        ),
        (
            "LABEL a=${x:?gone}",
            "Dockerfile:2: cannot expand \"${x:?gone}\": x: gone",
        ),
    ];
    for (instructions, want) in cases {
        let error = failure(&format!("FROM scratch\n{instructions}\n"));
        assert_eq!(whole(&error), want);
        assert_eq!(error.kind(), ErrorKind::User, "{want}");
    }
}

#[test]
fn nothing_runs_before_everything_is_understood() {
    let registry = Registry::start().unwrap();
    let text = format!(
        "FROM {}/base\nRUN echo first\nRUN --device=vendor.com/device true\n",
        registry.host()
    );
    assert_eq!(
        failure(&text).to_string(),
        "Dockerfile:3: RUN --device is not supported yet"
    );
    assert_eq!(registry.requests(), []);
}

#[test]
fn an_unknown_instruction_has_a_suggestion() {
    let error = failure("FROM scratch\n\nCOPPY f /\n");
    assert_eq!(
        error.to_string(),
        "Dockerfile:3: unknown instruction \"COPPY\""
    );
    assert_eq!(error.hint(), Some("did you mean COPY?"));
    assert_eq!(error.kind(), ErrorKind::User);
    let excerpt = error.location().unwrap().excerpt(1);
    assert_eq!(excerpt, [(2, false, ""), (3, true, "COPPY f /")]);
}

#[test]
fn stages_that_need_each_other() {
    let error = failure(
        "FROM scratch AS one\nCOPY --from=two f /\nFROM scratch AS two\nCOPY --from=one f /\n",
    );
    assert_eq!(
        whole(&error),
        "Dockerfile:4: circular dependency detected on stage \"one\""
    );
    let error =
        failure("FROM scratch AS one\nCOPY --from=two f /\nFROM scratch AS two\nFROM one\n");
    assert_eq!(
        whole(&error),
        "Dockerfile:2: stage \"two\" is used before it is defined"
    );
    assert_eq!(
        error.hint(),
        Some("move the stage that is used above the one that uses it")
    );
    let error = failure("FROM scratch AS one\nCOPY --from=one f /\n");
    assert_eq!(
        whole(&error),
        "Dockerfile:2: circular dependency detected on stage \"one\""
    );
}

#[test]
fn a_target_that_is_not_there() {
    let workshop = Workshop::new();
    let context = ContextDir::new().file("Dockerfile", "FROM scratch AS builder\n");
    let error = workshop.fails(workshop.build(&context).target("bilder"));
    assert_eq!(
        error.to_string(),
        "target stage \"bilder\" could not be found"
    );
    assert_eq!(
        (error.kind(), error.hint()),
        (
            ErrorKind::User,
            Some("did you mean builder? the stages are: builder")
        )
    );
}

#[test]
fn no_dockerfile() {
    let workshop = Workshop::new();
    let context = ContextDir::new().file("f", "");
    let error = workshop.fails(workshop.build(&context));
    assert_eq!(
        error.to_string(),
        "the Dockerfile \"Dockerfile\" is not there"
    );
    assert_eq!(error.kind(), ErrorKind::User);
    let outside = DockerfileSource::InContext("../Dockerfile".to_owned());
    let error = workshop.fails(workshop.build(&context).dockerfile(outside));
    assert_eq!(error.kind(), ErrorKind::User);
}

#[test]
fn a_base_that_is_not_there() {
    let registry = Registry::start().unwrap();
    let base = registry.reference("team/none:1");
    let error = failure(&format!("# comment\nFROM {base}\n"));
    let want = format!("Dockerfile:2: load the base image {base}");
    assert!(whole(&error).starts_with(&want), "{}", whole(&error));
    assert!(whole(&error).contains("404"), "{}", whole(&error));
    assert_eq!(error.kind(), ErrorKind::Registry);

    let error = failure("FROM Upper/Case\n");
    assert!(
        whole(&error).starts_with("Dockerfile:1: invalid image name \"Upper/Case\": "),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::User);
}

/// Waits for nobody.
fn hasty() -> Client {
    let retry = ocibuild::registry::Retry {
        attempts: 1,
        ..ocibuild::registry::Retry::default()
    };
    Client::builder().retry(retry).build().unwrap()
}

#[test]
fn a_registry_that_is_down() {
    let address = {
        let registry = Registry::start().unwrap();
        registry.host()
    };
    let workshop = Workshop::new();
    let context = ContextDir::new().file("Dockerfile", format!("FROM {address}/base:1\n"));
    let error = workshop.fails(workshop.build(&context).client(hasty()));
    let text = whole(&error);
    assert!(
        text.starts_with(&format!(
            "Dockerfile:1: load the base image {address}/base:1: "
        )),
        "{text}"
    );
    assert!(
        text.ends_with("Connection refused (os error 111)"),
        "{text}"
    );
    assert_eq!(error.kind(), ErrorKind::Registry);

    let pushed = format!("{address}/app:1");
    let context = ContextDir::new().file("Dockerfile", "FROM scratch\nLABEL a=1\n");
    let output = Output::Registry(pushed.parse().unwrap());
    let error = workshop.fails(workshop.build(&context).client(hasty()).output(output));
    let text = whole(&error);
    assert!(text.starts_with(&format!("push {pushed}: ")), "{text}");
    assert_eq!(error.kind(), ErrorKind::Registry);
}

#[test]
fn a_registry_that_refuses_the_credentials() {
    let registry = Registry::start_with(Login::basic("ann", "right")).unwrap();
    let credential = Credential::password("ann", "wrong-secret");
    let credentials = Credentials::anonymous().with(&registry.host(), credential);
    let client = Client::builder().credentials(credentials).build().unwrap();
    let workshop = Workshop::new();
    let base = registry.reference("base:1");
    let context = ContextDir::new().file("Dockerfile", format!("FROM {base}\n"));
    let error = workshop.fails(workshop.build(&context).client(client));
    let text = whole(&error);
    assert!(
        text.starts_with(&format!("Dockerfile:1: load the base image {base}: ")),
        "{text}"
    );
    assert!(
        text.contains("401") && !text.contains("wrong-secret"),
        "{text}"
    );
    assert_eq!(error.kind(), ErrorKind::Registry);
}

#[test]
fn a_context_that_vanishes() {
    let workshop = Workshop::new();
    let gone = workshop.path("gone");
    let source = ContextSource::Directory(gone.clone());
    let text = DockerfileSource::Text {
        name: "given".to_owned(),
        text: "FROM scratch\nCOPY . /\n".to_owned(),
    };
    let error = workshop.fails(workshop.build_from("store", source).dockerfile(text));
    let text = whole(&error);
    assert!(text.contains(gone.to_str().unwrap()), "{text}");
    assert!(
        text.ends_with("No such file or directory (os error 2)"),
        "{text}"
    );
    assert_eq!(error.kind(), ErrorKind::User);

    // It goes while the build runs: the events tell when the context has been read.
    let context = ContextDir::new()
        .file("f", "x")
        .file("Dockerfile", "FROM busybox\nCOPY f /\n");
    let file = context.path().join("f");
    let remove = move |event| {
        if let ocibuild::Event::StepStarted { .. } = event {
            let _ = std::fs::remove_file(&file);
        }
    };
    let error = workshop.fails(
        workshop
            .build(&context)
            .events(ocibuild::EventSink::new(remove)),
    );
    let text = whole(&error);
    assert!(
        text.starts_with("Dockerfile:2: ") && text.contains("f of the build context"),
        "{text}"
    );
    assert!(
        text.ends_with("No such file or directory (os error 2)"),
        "{text}"
    );
    assert_eq!(error.kind(), ErrorKind::User);
}

/// A tar with one entry, whose name is written as it stands.
fn tar_with(name: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(1);
    header.set_mode(0o644);
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, &b"x"[..]).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn a_tar_that_leads_out_of_its_tree() {
    let workshop = Workshop::new();
    let tar = std::io::Cursor::new(tar_with("a/../../../escaped"));
    let build = workshop.build_from("store", ContextSource::Tar(Box::new(tar)));
    let error = workshop.fails(build);
    let text = whole(&error);
    assert!(
        text.starts_with(
            "unpack the build context: entry \"a/../../../escaped\" of the context archive "
        ),
        "{text}"
    );
    assert_eq!(error.kind(), ErrorKind::User);
}

#[test]
fn a_tar_that_is_cut_off() {
    let workshop = Workshop::new();
    let mut tar = tar_with("Dockerfile");
    tar.truncate(600);
    let tar = std::io::Cursor::new(tar);
    let error = workshop.fails(workshop.build_from("store", ContextSource::Tar(Box::new(tar))));
    assert!(
        whole(&error).starts_with("unpack the build context: "),
        "{}",
        whole(&error)
    );
    assert_eq!(error.kind(), ErrorKind::User);
}

/// Changes the documents of the base, digests included, so that only their claims are wrong.
fn base_with(workshop: &Workshop, change: impl FnOnce(&mut serde_json::Value)) -> NamedContext {
    use ocibuild::registry::{Descriptor, Index, Manifest, media_type};
    let layout = workshop.path("changed");
    let named = busybox_layout(&layout, "1");
    let blob = |descriptor: &Descriptor| layout.join("blobs/sha256").join(descriptor.digest.hex());
    let mut manifest: Manifest =
        serde_json::from_slice(&std::fs::read(blob(&named)).unwrap()).unwrap();
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(blob(&manifest.config)).unwrap()).unwrap();
    change(&mut config);
    let store = |media_type: &str, bytes: Vec<u8>| {
        let descriptor = Descriptor::of(media_type, &bytes);
        std::fs::write(blob(&descriptor), bytes).unwrap();
        descriptor
    };
    manifest.config = store(media_type::CONFIG, serde_json::to_vec(&config).unwrap());
    let manifest = store(media_type::MANIFEST, serde_json::to_vec(&manifest).unwrap());
    let index = serde_json::to_vec(&Index::of(vec![manifest])).unwrap();
    std::fs::write(layout.join("index.json"), index).unwrap();
    NamedContext::OciLayout {
        path: layout,
        name: None,
    }
}

#[test]
fn a_base_whose_layer_is_another() {
    let workshop = Workshop::new();
    let wrong = format!("sha256:{}", "0".repeat(64));
    let base = base_with(&workshop, |config| {
        config["rootfs"]["diff_ids"][0] = wrong.clone().into()
    });
    for instruction in ["COPY f /", "RUN true"] {
        let context = ContextDir::new()
            .file("f", "")
            .file("Dockerfile", format!("FROM wrong\n{instruction}\n"));
        let error = workshop.fails(
            workshop
                .build(&context)
                .named_context("wrong", base.clone()),
        );
        let text = whole(&error);
        assert!(
            text.starts_with("Dockerfile:2: ") && text.contains(&wrong),
            "{text}"
        );
    }
    let base = base_with(&workshop, |config| {
        config["rootfs"]["diff_ids"] = serde_json::json!([])
    });
    let context = ContextDir::new().file("Dockerfile", "FROM wrong\n");
    let error = workshop.fails(workshop.build(&context).named_context("wrong", base));
    let want = format!(
        "Dockerfile:1: the base image {} has 1 layers and 0 diff_ids",
        workshop.path("changed").display()
    );
    assert_eq!((whole(&error), error.kind()), (want, ErrorKind::User));
}

#[test]
fn a_damaged_blob() {
    let workshop = Workshop::new();
    let layout = workshop.path("base");
    let blobs = std::fs::read_dir(layout.join("blobs/sha256")).unwrap();
    let layer = blobs
        .map(|blob| blob.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len());
    let layer: PathBuf = layer.unwrap();
    let mut bytes = std::fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&layer, bytes).unwrap();
    let context = ContextDir::new()
        .file("f", "")
        .file("Dockerfile", "FROM busybox\nCOPY f /\n");
    let error = workshop.fails(workshop.build(&context));
    let digest = layer.file_name().unwrap().to_str().unwrap();
    let want = format!(
        "Dockerfile:2: blob sha256:{digest} in {} is damaged",
        layout.display()
    );
    assert_eq!(whole(&error), want);
}

#[test]
fn a_blob_that_is_damaged_on_its_way() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    crate::cache::push_base(&workshop, registry.reference("base:1"));
    // Every attempt at the layer ends early.
    for nth in 1..50 {
        registry.inject("GET", "/v2/base/blobs/", nth, Fault::Status(404));
    }
    let text = format!("FROM {}/base:1\nRUN true\n", registry.host());
    let context = ContextDir::new().file("Dockerfile", text);
    let error = workshop.fails(workshop.build(&context));
    assert_eq!(error.kind(), ErrorKind::Registry, "{}", whole(&error));
    assert!(error.to_string().starts_with("Dockerfile:"), "{error}");
}

#[test]
fn privileged_a_full_disk() {
    if !rustix::process::geteuid().is_root() {
        skip("only root can mount a small file system");
        return;
    }
    let workshop = Workshop::new();
    let registry = Registry::start().unwrap();
    let context = ContextDir::new().file("Dockerfile", "FROM scratch\nCOPY noise /\n");
    let mut noise = std::fs::File::create(context.path().join("noise")).unwrap();
    let mut state = 1u64;
    for _ in 0..500_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        noise.write_all(&state.to_le_bytes()).unwrap();
    }
    std::fs::create_dir(workshop.store()).unwrap();
    let script = "mount -t tmpfs -o size=1m tmpfs \"$1\" || exit 99\n\
        \"$2\" \"$3\" \"$1\" \"$4\"; status=$?; echo left: $(ls \"$1/tmp\") blobs: $(ls \"$1/blobs/sha256\"); exit $status";
    let ended = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .args([
            workshop.store(),
            example("embed"),
            context.path().to_owned(),
        ])
        .arg(registry.reference("app:1").to_string())
        .output()
        .unwrap();
    if ended.status.code() == Some(99) {
        skip("this machine does not let root mount");
        return;
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("StorageFull"), "{said}");
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "left: blobs:\n");
    assert_eq!(registry.count("PUT", "/manifests/"), 0);
}
