//! One image in several forms: what is in it stays the same, other tools read each form, and
//! nothing is run or compressed twice for them.

use std::path::Path;

use ocibuild::images::Images;
use ocibuild::layer::Compression::{self, Gzip, None as Plain, Zstd};
use ocibuild::registry::{Client, Digest, Index, Manifest, Platform, Reference, media_type};
use ocibuild::testing::ContextDir;
use ocibuild::{
    Annotation, Apart, Build, CacheMode, CachePlace, CacheSource, CacheTarget, ErrorKind, Form,
    Image, LayerPolicy, MediaTypes, Output,
};
use ocibuild_registry::testing::{DebianRegistry, Registry, StartError, not_installed};

use crate::built::{Built, Workshop, skopeo, wait};
use crate::cache::push_base;

const EPOCH: i64 = 1_700_000_000;

fn context() -> ContextDir {
    let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    ContextDir::new().file("f", text).file(
        "Dockerfile",
        "FROM busybox\nCOPY f /d/f\nRUN echo run > /r\n",
    )
}

fn form(compression: Compression) -> Form {
    Form {
        compression: Some(compression),
        ..Form::default()
    }
}

fn with_level(compression: Compression, level: i32) -> Form {
    Form {
        level: Some(level),
        ..form(compression)
    }
}

fn forced(form: Form) -> Form {
    Form {
        force: true,
        ..form
    }
}

fn docker(form: Form) -> Form {
    Form {
        media_types: MediaTypes::Docker,
        ..form
    }
}

fn dated(workshop: &Workshop, store: &str, context: &ContextDir) -> Build {
    workshop.build_in(store, context).source_date_epoch(EPOCH)
}

/// Builds into a layout, and checks every claim of what is there.
fn built(workshop: &Workshop, store: &str, context: &ContextDir, form: Form) -> Built {
    workshop.built(dated(workshop, store, context).form(form))
}

fn manifest(image: &Image) -> Manifest {
    serde_json::from_slice(&image.manifest.bytes).unwrap()
}

fn types(image: &Image) -> Vec<String> {
    let layers = manifest(image).layers.into_iter();
    layers.map(|layer| layer.media_type).collect()
}

/// How many layers were compressed anew.
fn made_anew(image: &Image) -> usize {
    let steps = image.steps.iter();
    steps.filter(|step| step.name.ends_with(" anew")).count()
}

fn ran(image: &Image) -> usize {
    let steps = image.steps.iter();
    steps
        .filter(|step| step.layer.is_some() && !step.cached)
        .count()
}

#[test]
fn layers_that_are_built_have_the_compression_that_is_asked_for() {
    let (workshop, context) = (Workshop::new(), context());
    for (compression, ours) in [
        (Gzip, media_type::LAYER_GZIP),
        (Zstd, media_type::LAYER_ZSTD),
        (Plain, media_type::LAYER_TAR),
    ] {
        let store = format!("store-{compression:?}");
        let own = built(&workshop, &store, &context, form(compression));
        // They are compressed once, as they are wanted; the base is left alone.
        assert_eq!(made_anew(own.image()), 0);
        assert_eq!(types(own.image()), [media_type::LAYER_GZIP, ours, ours]);
        assert_eq!(own.text("r"), "run\n");
        let all = built(&workshop, &store, &context, forced(form(compression)));
        assert_eq!(types(all.image()), [ours; 3]);
        assert_eq!(all.config, own.config);
        assert_eq!(ran(all.image()), 0);
        assert_eq!(made_anew(all.image()), usize::from(compression != Gzip));
    }
}

#[test]
fn another_form_runs_nothing_and_is_made_once() {
    let (workshop, context) = (Workshop::new(), context());
    let first = built(&workshop, "store", &context, Form::default());
    let zstd = built(&workshop, "store", &context, form(Zstd));
    assert_eq!((ran(zstd.image()), made_anew(zstd.image())), (0, 2));
    assert_eq!(zstd.config, first.config);
    let again = built(&workshop, "store", &context, form(Zstd));
    assert_eq!((ran(again.image()), made_anew(again.image())), (0, 0));
    assert_eq!(again.digest(), zstd.digest());
    // Which form came first does not show.
    let fresh = built(&workshop, "fresh", &context, form(Zstd));
    assert_eq!(
        (made_anew(fresh.image()), fresh.digest()),
        (0, zstd.digest())
    );
    let back = built(&workshop, "fresh", &context, form(Gzip));
    assert_eq!(back.digest(), first.digest());
    // Who asks for nothing gets what is there.
    let any = built(&workshop, "fresh", &context, Form::default());
    assert_eq!(any.digest(), zstd.digest());
}

#[test]
fn a_level_is_kept_and_known_again() {
    let (workshop, context) = (Workshop::new(), context());
    let size = |built: &Built| built.image().layers[1].size;
    let fast = built(&workshop, "store", &context, with_level(Gzip, 1));
    let best = built(&workshop, "store", &context, with_level(Gzip, 9));
    assert!(size(&best) < size(&fast), "{} {}", size(&best), size(&fast));
    assert_eq!((ran(best.image()), made_anew(best.image())), (0, 2));
    for (level, wanted) in [(1, &fast), (9, &best)] {
        let again = built(&workshop, "store", &context, with_level(Gzip, level));
        assert_eq!(made_anew(again.image()), 0);
        assert_eq!(again.digest(), wanted.digest());
    }
    let fresh = built(&workshop, "fresh", &context, with_level(Gzip, 9));
    assert_eq!(fresh.digest(), best.digest());
}

#[test]
fn outputs_of_one_build_have_forms_of_their_own() {
    let (workshop, context, registry) = (Workshop::new(), context(), Registry::start().unwrap());
    let [plain, zstd] = ["plain", "zstd"].map(|name| workshop.path(name));
    let pushed = registry.reference("app:1");
    let image = wait(
        dated(&workshop, "store", &context)
            .output(Output::OciDirectory(plain.clone()))
            .output_as(Output::OciDirectory(zstd.clone()), form(Zstd))
            .output_as(Output::Registry(pushed.clone()), forced(docker(form(Gzip))))
            .run(),
    )
    .unwrap();
    assert_eq!(image.pushed, std::slice::from_ref(&pushed));
    let [plain, zstd] = [plain, zstd].map(|layout| Built::read_only(&layout));
    let client = Client::builder().build().unwrap();
    let there = wait(client.image(&pushed, &Platform::host())).unwrap();
    assert_eq!(there.descriptor.media_type, media_type::DOCKER_MANIFEST);
    assert_eq!(there.manifest.config.media_type, media_type::DOCKER_CONFIG);
    for layer in &there.manifest.layers {
        assert_eq!(layer.media_type, media_type::DOCKER_LAYER_GZIP);
    }
    assert_eq!(plain.config, zstd.config);
    // What the first needs is packed so; the other form is made from it.
    assert_eq!(made_anew(&image), 2, "{:?}", image.steps);
}

/// Has skopeo, which is written in another language by others, take an image apart.
fn assert_skopeo_reads(from: &str, folder: &Path, wanted: &Built) {
    let dest = format!("dir:{}", folder.display());
    let arguments = ["copy", "--quiet", "--src-tls-verify=false", from, &dest];
    if skopeo(&arguments).is_none() {
        return;
    }
    let inspected = skopeo(&["inspect", "--config", "--raw", &dest]).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
    let expected = serde_json::to_value(&wanted.config).unwrap();
    assert_eq!(config["rootfs"], expected["rootfs"], "{from}");
}

#[test]
fn debians_registry_takes_every_form_and_skopeo_reads_it() {
    let registry = match DebianRegistry::start() {
        Ok(registry) => registry,
        Err(StartError::Missing) => return not_installed("docker-registry"),
        Err(error) => panic!("{error}"),
    };
    let (workshop, context) = (Workshop::new(), context());
    let noted = Form {
        annotations: Annotation::parse("org.example.note=x").unwrap(),
        ..form(Zstd)
    };
    for (number, form) in [
        form(Gzip),
        noted,
        forced(form(Zstd)),
        forced(form(Plain)),
        docker(form(Gzip)),
        forced(docker(form(Plain))),
    ]
    .into_iter()
    .enumerate()
    {
        let pushed: Reference = registry.reference(&format!("team/app:v{number}"));
        let build = dated(&workshop, "store", &context).tag("app:1".parse().unwrap());
        let built = workshop.built(build.form(form).output(Output::Registry(pushed.clone())));
        let store = workshop.path(&format!("pulled-{number}"));
        let client = Client::builder().build().unwrap();
        let pulled = Images::open(&store).unwrap();
        let pulled = wait(pulled.pull(&client, &pushed, &Platform::host())).unwrap();
        assert_eq!(pulled.manifest, built.image().manifest);

        let folder = workshop.path(&format!("skopeo-{number}"));
        assert_skopeo_reads(&format!("docker://{pushed}"), &folder, &built);
        let archive = workshop.path(&format!("{number}.tar"));
        let output = Output::DockerArchive(archive.clone());
        let form = built_form(number);
        let build = dated(&workshop, "store", &context).tag("app:1".parse().unwrap());
        wait(build.form(form).output(output).run()).unwrap();
        let name = format!(
            "docker-archive:{}:docker.io/library/app:1",
            archive.display()
        );
        let folder = workshop.path(&format!("archive-{number}"));
        assert_skopeo_reads(&name, &folder, &built);
    }
}

/// Forms of an archive for Docker, one after the other.
fn built_form(number: usize) -> Form {
    [
        form(Gzip),
        form(Zstd),
        forced(form(Plain)),
        docker(form(Gzip)),
    ][number % 4]
        .clone()
}

#[test]
fn annotations_stand_where_they_belong() {
    let (workshop, context) = (Workshop::new(), context());
    let context = context.file("Dockerfile", "FROM scratch\nCOPY f /f\n");
    let layout = workshop.path("out");
    let texts = [
        "all=1",
        "manifest[linux/arm64]:arm=1",
        "index:top=1",
        "manifest-descriptor[linux/amd64]:entry=1",
        "index-descriptor:layout=1",
    ];
    let annotations = texts.map(|text| Annotation::parse(text).unwrap()).concat();
    let form = Form {
        annotations,
        ..Form::default()
    };
    let platforms = ["linux/amd64", "linux/arm64"].map(|text| text.parse().unwrap());
    let build = dated(&workshop, "store", &context).platforms(platforms);
    let output = Output::OciDirectory(layout.clone());
    let image = wait(build.form(form).output(output).run()).unwrap();
    let read =
        |digest: &Digest| std::fs::read(layout.join("blobs/sha256").join(digest.hex())).unwrap();
    let keys = |map: &std::collections::BTreeMap<String, String>| -> Vec<String> {
        map.keys().cloned().collect()
    };
    let index: Index = serde_json::from_slice(&read(&image.digest)).unwrap();
    assert_eq!(keys(&index.annotations), ["top"]);
    let entries = index.manifests.iter().map(|entry| keys(&entry.annotations));
    assert_eq!(entries.collect::<Vec<_>>(), [vec!["entry"], vec![]]);
    let manifests = index.manifests.iter().map(|entry| {
        let manifest: Manifest = serde_json::from_slice(&read(&entry.digest)).unwrap();
        keys(&manifest.annotations)
    });
    assert_eq!(
        manifests.collect::<Vec<_>>(),
        [vec!["all"], vec!["all", "arm"]]
    );
    let top: Index =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(keys(&top.manifests[0].annotations), ["layout"]);

    let single = Form {
        annotations: Annotation::parse("manifest,manifest-descriptor:k=v").unwrap(),
        ..Form::default()
    };
    let one = built(&workshop, "store", &context, single);
    assert_eq!(keys(&manifest(one.image()).annotations), ["k"]);
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_runs() {
    let (workshop, context) = (Workshop::new(), context());
    let noted = |text| Form {
        annotations: Annotation::parse(text).unwrap(),
        ..Form::default()
    };
    for form in [
        docker(form(Zstd)),
        docker(noted("a=b")),
        noted("index:a=b"),
        noted("index-descriptor:a=b"),
    ] {
        let error = workshop.fails(workshop.build(&context).form(form.clone()));
        assert_eq!(error.kind(), ErrorKind::User, "{form:?}");
        let output = Output::OciDirectory(workshop.path("out"));
        let error = workshop.fails(workshop.build(&context).output_as(output, form));
        assert!(error.to_string().starts_with("the output"), "{error}");
    }
}

#[test]
fn files_that_are_set_apart_stay_uncompressed_unless_that_is_forced() {
    let (workshop, context) = (Workshop::new(), context());
    let build = |form: Form| {
        let policy = LayerPolicy::Apart(Apart {
            min_size: 100_000,
            names: Vec::new(),
        });
        workshop.built(
            dated(&workshop, "store", &context)
                .layer_policy(policy)
                .form(form),
        )
    };
    let (tar, zstd) = (media_type::LAYER_TAR, media_type::LAYER_ZSTD);
    let apart = build(with_level(Zstd, 3));
    assert_eq!(
        types(apart.image()),
        [media_type::LAYER_GZIP, zstd, tar, zstd]
    );
    assert_eq!(types(build(forced(form(Zstd))).image()), [zstd; 4]);
}

#[test]
fn a_cache_in_an_image_names_the_layers_that_the_image_has() {
    let (workshop, context, registry) = (Workshop::new(), context(), Registry::start().unwrap());
    let pushed = registry.reference("app:1");
    built(&workshop, "store", &context, Form::default());
    let inline = CacheTarget::new(CachePlace::Inline, CacheMode::Min);
    let output = Output::Registry(pushed.clone());
    let build = dated(&workshop, "store", &context).cache_to(inline);
    wait(build.form(form(Zstd)).output(output).run()).unwrap();
    let fresh = dated(&workshop, "fresh", &context).cache_from(CacheSource::Registry(pushed));
    let again = workshop.built(fresh);
    assert_eq!(ran(again.image()), 0);
    assert_eq!(types(again.image())[1..], [media_type::LAYER_ZSTD; 2]);
}

#[test]
fn an_image_of_the_store_is_pushed_in_another_form() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let base = registry.reference("base:1");
    push_base(&workshop, base.clone());
    let client = Client::builder().build().unwrap();
    let images = Images::open(&workshop.path("images")).unwrap();
    let pulled = wait(images.pull(&client, &base, &Platform::host())).unwrap();
    let noted = Form {
        annotations: Annotation::parse("k=v").unwrap(),
        ..form(Zstd)
    };
    let formed = wait(images.formed(&client, &pulled, &noted)).unwrap();
    assert_eq!(formed.config_document.bytes, pulled.config_document.bytes);
    let name = registry.reference("zstd:1");
    let digest = wait(images.push(&client, &formed, &name)).unwrap();
    let store = workshop.path("again");
    let again = Images::open(&store).unwrap();
    wait(again.pull(&client, &name, &Platform::host())).unwrap();
    let read = Built::read(&store, digest);
    let manifest: Manifest = serde_json::from_slice(&formed.manifest.bytes).unwrap();
    assert_eq!(manifest.annotations["k"], "v");
    assert_eq!(manifest.layers[0].media_type, media_type::LAYER_ZSTD);
    assert_eq!(read.config, pulled.config);
    let unwritable = docker(form(Zstd));
    assert!(wait(images.formed(&client, &pulled, &unwritable)).is_err());
}
