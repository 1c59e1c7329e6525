//! Builds for several platforms: what is in the index, what is done once, and what this
//! machine cannot run.

use std::path::Path;
use std::sync::{Arc, Mutex};

use ocibuild::executor::binfmt;
use ocibuild::registry::{Client, Index, Platform, media_type};
use ocibuild::testing::ContextDir;
use ocibuild::{Build, ErrorKind, Event, EventSink, Image, Output};
use ocibuild_registry::testing::{DebianRegistry, Registry, StartError, not_installed};

use crate::built::{Built, Workshop, skip, skopeo_digest, wait};

const PLATFORMS: [&str; 3] = ["linux/amd64", "linux/arm64", "linux/arm/v6"];

const DOCKERFILE: &str = "FROM scratch\nARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDPLATFORM\n\
    LABEL p=$TARGETPLATFORM os=$TARGETOS a=$TARGETARCH v=$TARGETVARIANT b=$BUILDPLATFORM\n\
    COPY f /\nCOPY <<EOF /arch\n$TARGETARCH\nEOF\n";

fn platforms(texts: &[&str]) -> Vec<Platform> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn context(dockerfile: &str) -> ContextDir {
    ContextDir::new()
        .file("f", "text")
        .file("Dockerfile", dockerfile)
}

/// A processor that this machine can neither run nor emulate.
fn foreign() -> Option<Platform> {
    let all = ["s390x", "riscv64", "loong64", "mips64", "arm64", "amd64"].map(Platform::linux);
    let found = all
        .into_iter()
        .find(|platform| binfmt::check(platform).is_err());
    if found.is_none() {
        skip("this machine emulates every processor");
    }
    found
}

fn host() -> String {
    Platform::host().to_string()
}

/// Reads the index of a layout and each image that it names, and checks all their claims.
fn read(layout: &Path, image: &Image) -> Vec<Built> {
    let index = image.index.as_ref().unwrap();
    let digest = index.descriptor.digest;
    assert_eq!(digest, image.digest);
    let bytes = std::fs::read(layout.join("blobs/sha256").join(digest.hex())).unwrap();
    assert_eq!(bytes, index.bytes);
    let parsed: Index = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(parsed.media_type.as_deref(), Some(media_type::INDEX));
    let named = parsed.manifests.iter().zip(&image.platforms);
    named
        .map(|(descriptor, one)| {
            assert_eq!(descriptor.platform.as_ref(), Some(&one.platform));
            assert_eq!(descriptor.digest, one.manifest.descriptor.digest);
            let built = Built::read(layout, descriptor.digest);
            assert_eq!(built.config, one.config);
            assert_eq!(built.config.platform, one.platform);
            built
        })
        .collect()
}

#[test]
fn row_80_each_platform_has_its_image_in_one_index() {
    let workshop = Workshop::new();
    let layout = workshop.path("out");
    let context = context(DOCKERFILE);
    let build = workshop
        .build(&context)
        .platforms(platforms(&PLATFORMS))
        .tag("app:1".parse().unwrap())
        .output(Output::OciDirectory(layout.clone()));
    let image = wait(build.run()).unwrap();
    let images = read(&layout, &image);
    let said: Vec<String> = images
        .iter()
        .map(|image| {
            let label = |name: &str| image.config.config.labels[name].clone();
            format!(
                "{} {} {} {}",
                label("p"),
                label("os"),
                label("a"),
                label("v")
            )
        })
        .collect();
    let want = [
        "linux/amd64 linux amd64 ",
        "linux/arm64 linux arm64 ",
        "linux/arm/v6 linux arm v6",
    ];
    assert_eq!(said, want);
    for (image, arch) in images.iter().zip(["amd64", "arm64", "arm"]) {
        assert_eq!(image.text("arch"), format!("{arch}\n"));
        assert_eq!(image.config.config.labels["b"], host());
    }
    let layers = |at: usize| image.platforms[at].layers.clone();
    assert_eq!(layers(0)[0], layers(1)[0], "what is the same is one layer");
    assert_ne!(layers(0)[1], layers(1)[1]);
    let index = std::fs::read(layout.join("index.json")).unwrap();
    let index: Index = serde_json::from_slice(&index).unwrap();
    let digests: Vec<_> = index.manifests.iter().map(|found| found.digest).collect();
    assert_eq!(digests, [image.digest], "the layout names the index alone");
}

#[test]
fn row_80_registries_and_archives_take_an_index() {
    let registry = Registry::start().unwrap();
    let workshop = Workshop::new();
    let context = context(DOCKERFILE);
    let reference = registry.reference("team/app:1");
    let archive = workshop.path("out.tar");
    let build = || {
        workshop
            .build(&context)
            .platforms(platforms(&PLATFORMS))
            .source_date_epoch(7)
    };
    let both = build()
        .output(Output::Registry(reference.clone()))
        .output(Output::OciArchive(archive.clone()));
    let image = wait(both.run()).unwrap();
    assert_eq!(image.pushed, std::slice::from_ref(&reference));
    let client = Client::builder().build().unwrap();
    for (text, one) in PLATFORMS.iter().zip(&image.platforms) {
        let platform: Platform = text.parse().unwrap();
        let found = wait(client.image(&reference, &platform)).unwrap();
        assert_eq!(found.descriptor.digest, one.manifest.descriptor.digest);
    }
    if let Some(digest) = skopeo_digest(&reference) {
        assert_eq!(digest, image.digest.to_string());
    }
    assert_eq!(
        registry.count("PUT", "/manifests/"),
        4,
        "three images and the index"
    );
    let again = build().output(Output::Registry(reference));
    assert_eq!(wait(again.run()).unwrap().digest, image.digest);
    assert_eq!(registry.count("PUT", "/manifests/"), 4, "it is there");
    let unpacked = workshop.path("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    let file = std::fs::File::open(&archive).unwrap();
    tar::Archive::new(file).unpack(&unpacked).unwrap();
    assert_eq!(read(&unpacked, &image).len(), 3);
}

#[test]
fn row_80_debians_registry_takes_an_index() {
    let registry = match DebianRegistry::start() {
        Ok(registry) => registry,
        Err(StartError::Missing) => return not_installed("docker-registry"),
        Err(error) => panic!("{error}"),
    };
    let workshop = Workshop::new();
    let context = context(DOCKERFILE);
    let reference = registry.reference("team/app:1");
    let build = workshop.build(&context).platforms(platforms(&PLATFORMS));
    let image = wait(build.output(Output::Registry(reference.clone())).run()).unwrap();
    let client = Client::builder().build().unwrap();
    let head = wait(client.head(&reference)).unwrap().unwrap();
    assert_eq!(head.digest, image.digest);
}

#[test]
fn row_80_steps_of_the_build_platform_are_done_once() {
    let dockerfile = "FROM --platform=$BUILDPLATFORM busybox AS tool\nRUN cat /proc/sys/kernel/random/uuid > /once\n\
        FROM --platform=$BUILDPLATFORM tool AS each\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n\
        FROM scratch\nCOPY --from=each /once /arch /\n";
    let workshop = Workshop::new();
    let context = context(dockerfile);
    let layout = workshop.path("out");
    let names = Arc::<Mutex<Vec<String>>>::default();
    let seen = names.clone();
    let sink = EventSink::new(move |event| {
        if let Event::StepStarted { name, .. } = event {
            seen.lock().unwrap().push(name);
        }
    });
    let build = workshop
        .build(&context)
        .platforms(platforms(&["linux/amd64", "linux/arm64"]))
        .no_cache()
        .events(sink)
        .output(Output::OciDirectory(layout.clone()));
    let image = wait(build.run()).unwrap();
    let images = read(&layout, &image);
    assert_eq!(images[0].text("once"), images[1].text("once"));
    assert_eq!(
        (images[0].text("arch"), images[1].text("arch")),
        ("amd64\n".into(), "arm64\n".into())
    );
    let steps = image
        .steps
        .iter()
        .filter(|step| step.name.contains("RUN cat"));
    let cached: Vec<bool> = steps.map(|step| step.cached).collect();
    assert!(
        cached.contains(&true) && cached.contains(&false),
        "{cached:?}"
    );
    let names = names.lock().unwrap();
    let is_named = |part: &str| names.iter().any(|name| name.contains(part));
    assert!(is_named("[linux/arm64 stage-2 2/2] COPY"), "{names:?}");
    let other = if host() == "linux/arm64" {
        "amd64"
    } else {
        "arm64"
    };
    assert!(
        is_named(&format!("[{}->{other} tool 2/2] RUN", host())),
        "{names:?}"
    );
}

#[test]
fn row_19_one_platform_may_be_an_index_too() {
    let workshop = Workshop::new();
    let context = context(DOCKERFILE);
    let build = |value: &str| {
        workshop
            .build(&context)
            .build_arg("BUILDKIT_MULTI_PLATFORM", value)
    };
    let layout = workshop.path("out");
    let image = wait(
        build("1")
            .output(Output::OciDirectory(layout.clone()))
            .run(),
    )
    .unwrap();
    assert_eq!(read(&layout, &image).len(), 1);
    assert!(wait(build("false").run()).unwrap().index.is_none());
    let two = platforms(&["linux/amd64", "linux/arm64"]);
    let error = workshop.fails(build("0").platforms(two)).to_string();
    assert!(error.contains("BUILDKIT_MULTI_PLATFORM=0"), "{error}");
    let same = platforms(&["linux/arm64", "linux/arm64/v8"]);
    let image = wait(workshop.build(&context).platforms(same).run()).unwrap();
    assert!(image.index.is_none(), "one platform in two spellings");
}

#[test]
fn row_80_outputs_of_one_platform() {
    let workshop = Workshop::new();
    let context = context(DOCKERFILE);
    let build = || {
        workshop
            .build(&context)
            .platforms(platforms(&["linux/amd64", "linux/arm64"]))
    };
    for output in [
        Output::DockerArchive(workshop.path("a.tar")),
        Output::Tar(workshop.path("b.tar")),
    ] {
        let error = workshop.fails(build().output(output)).to_string();
        assert!(error.contains("cannot hold an index"), "{error}");
    }
    let folder = workshop.path("rootfs");
    wait(build().output(Output::Local(folder.clone())).run()).unwrap();
    let arch = |name: &str| std::fs::read_to_string(folder.join(name).join("arch")).unwrap();
    assert_eq!(
        (arch("linux_amd64"), arch("linux_arm64")),
        ("amd64\n".into(), "arm64\n".into())
    );
}

#[test]
fn row_81_commands_that_cannot_run_are_refused_before_anything_runs() {
    let Some(foreign) = foreign() else {
        return;
    };
    let dockerfile = "FROM busybox AS base\nCOPY f /\nFROM base\nRUN echo\n";
    let workshop = Workshop::new();
    let context = context(dockerfile);
    let started = Arc::<Mutex<u32>>::default();
    let seen = started.clone();
    let sink = EventSink::new(move |event| {
        if let Event::StepStarted { .. } = event {
            *seen.lock().unwrap() += 1;
        }
    });
    let build = |context: &ContextDir| -> Build {
        let both = [Platform::host(), foreign.clone()];
        workshop.build(context).platforms(both)
    };
    let error = workshop.fails(build(&context).events(sink));
    assert_eq!(error.kind(), ErrorKind::Sandbox);
    assert_eq!(error.location().unwrap().to_string(), "Dockerfile:4");
    let text = error.to_string();
    assert!(
        text.contains(&format!("RUN for {foreign} cannot run")),
        "{text}"
    );
    assert!(error.hint().unwrap().contains("$BUILDPLATFORM"));
    assert_eq!(*started.lock().unwrap(), 0, "nothing has begun");

    let trigger = ContextDir::new().file("Dockerfile", "FROM busybox\nONBUILD RUN echo\n");
    let layout = workshop.path("triggers");
    let base = workshop.build(&trigger).platform(foreign.clone());
    wait(base.output(Output::OciDirectory(layout.clone())).run()).unwrap();
    let child = ContextDir::new().file("Dockerfile", "FROM triggers\n");
    let base = ocibuild::NamedContext::OciLayout {
        path: layout,
        name: None,
    };
    let build = workshop
        .build(&child)
        .platform(foreign.clone())
        .named_context("triggers", base);
    let error = workshop.fails(build);
    assert_eq!(error.location().unwrap().to_string(), "Dockerfile:1");
    assert_eq!(error.kind(), ErrorKind::Sandbox);
}
