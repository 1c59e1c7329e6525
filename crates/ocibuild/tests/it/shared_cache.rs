//! What one machine has built another does not build again, and moves as little as can be.

use std::path::Path;

use ocibuild::registry::{Digest, Index, Manifest, Reference, media_type};
use ocibuild::testing::ContextDir;
use ocibuild::{Build, CacheMode, CachePlace, CacheSource, CacheTarget, Event, EventSink, Output};
use ocibuild_registry::testing::{DebianRegistry, Fault, Registry, StartError, not_installed};
use std::sync::{Arc, Mutex};

use crate::built::{Built, Workshop, wait};
use crate::cache::push_base;

const TWO_STAGES: &str = "FROM base AS made\nARG A=1\nRUN mkdir /out && echo $A > /out/f && date +%N > /out/when\n\
     RUN head -c 200000 /dev/urandom > /out/noise\n\
     FROM base\nWORKDIR /w\nCOPY f g/\nCOPY --from=made /out /out\nRUN date +%N > /when\nCMD [\"x\"]\n";

/// A context whose base is in a registry.
fn context(workshop: &Workshop, base: Reference) -> ContextDir {
    push_base(workshop, base.clone());
    let text = TWO_STAGES.replace("base", &base.to_string());
    ContextDir::new().file("f", "x").file("Dockerfile", text)
}

fn to(place: CachePlace, mode: CacheMode) -> CacheTarget {
    CacheTarget::new(place, mode).required()
}

fn layers(built: &ocibuild::Image) -> Vec<bool> {
    let steps = built.steps.iter().filter(|step| step.layer.is_some());
    steps.map(|step| step.cached).collect()
}

fn warnings(build: Build) -> (Build, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let build = build.events(EventSink::new(move |event| {
        if let Event::Warning { message } = event {
            sink.lock().unwrap().push(message);
        }
    }));
    (build, seen)
}

/// Bytes of layers that a registry was asked for or was sent.
fn moved(registry: &Registry, config_like: u64) -> (Vec<String>, u64) {
    let requests = registry.requests();
    let got = requests
        .iter()
        .filter(|r| r.method == "GET" && r.path.contains("/blobs/"));
    let got = got.map(|request| request.path.clone()).collect();
    let sent = requests.iter().filter(|r| r.body_bytes > config_like);
    (got, sent.map(|request| request.body_bytes).sum())
}

#[test]
fn another_machine_hits_everything_and_moves_no_layer() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let context = context(&workshop, registry.reference("base:1"));
    let image = Output::Registry(registry.reference("app:1"));
    let cache = registry.reference("cache:app");
    let first = workshop
        .build_in("one", &context)
        .output(image.clone())
        .cache_to(to(CachePlace::Registry(cache.clone()), CacheMode::Max));
    let first = wait(first.run()).unwrap();
    registry.clear_requests();

    let second = workshop
        .build_in("two", &context)
        .output(Output::Registry(registry.reference("other:1")))
        .cache_from(CacheSource::Registry(cache.clone()));
    let second = wait(second.run()).unwrap();
    assert_eq!(second.digest, first.digest);
    assert_eq!(layers(&second), [true; 6]);
    let (got, sent) = moved(&registry, 10_000);
    // The configurations of the base and of the cache.
    assert_eq!(got.len(), 2, "{got:?}");
    assert_eq!(sent, 0, "every layer is mounted");

    // Without the cache it is another image: the commands print the time.
    let third = wait(workshop.build_in("three", &context).run()).unwrap();
    assert_ne!(third.digest, first.digest);
    assert_eq!(layers(&third), [false; 6]);
}

#[test]
fn what_is_missing_is_built_upon_what_was_fetched() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let context = context(&workshop, registry.reference("base:1"));
    let cache = CachePlace::Registry(registry.reference("cache:app"));
    let first = workshop.build_in("one", &context);
    let first = workshop.built(first.cache_to(to(cache, CacheMode::Max)));

    let changed = context.file("f", "changed");
    let second = workshop
        .build_in("two", &changed)
        .cache_from(CacheSource::Registry(registry.reference("cache:app")));
    let second = workshop.built(second);
    // The copy of another file is made, and what stands on it; the other stage is as it was.
    assert_eq!(
        layers(second.image()),
        [true, true, true, false, false, false].map(|cached| cached)
    );
    assert_eq!(second.text("w/g/f"), "changed");
    assert_eq!(second.text("out/when"), first.text("out/when"));
}

#[test]
fn min_has_the_layers_of_the_image_only() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let context = context(&workshop, registry.reference("base:1"));
    let place = |name: &str| CachePlace::Registry(registry.reference(name));
    let build = workshop
        .build_in("one", &context)
        .cache_to(to(place("min:1"), CacheMode::Min))
        .cache_to(to(place("max:1"), CacheMode::Max));
    wait(build.run()).unwrap();
    let count = |name: &str| {
        let (_, bytes) = wait(client().manifest(&registry.reference(name))).unwrap();
        let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            manifest.config.media_type,
            "application/vnd.ocibuild.cache.config.v1+json"
        );
        manifest.layers.len()
    };
    assert_eq!((count("min:1"), count("max:1")), (4, 6));

    let from = |store: &str, name: &str| {
        let source = CacheSource::Registry(registry.reference(name));
        let built = wait(workshop.build_in(store, &context).cache_from(source).run());
        layers(&built.unwrap())
    };
    assert_eq!(from("two", "max:1"), [true; 6]);
    // The other stage prints another time: what is copied out of it is another content.
    let min = from("three", "min:1");
    assert_eq!(min.iter().filter(|cached| **cached).count(), 2, "{min:?}");
}

fn client() -> ocibuild::registry::Client {
    ocibuild::registry::Client::builder().build().unwrap()
}

#[test]
fn an_image_can_have_its_cache_in_it() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    push_base(&workshop, registry.reference("base:1"));
    let text = format!(
        "FROM {}/base:1\nRUN date +%N > /when\nCOPY f /\n",
        registry.host()
    );
    let context = ContextDir::new().file("f", "x").file("Dockerfile", text);
    let app = registry.reference("app:1");
    let build = |store: &str| {
        workshop
            .build_in(store, &context)
            .output(Output::Registry(app.clone()))
            .cache_to(to(CachePlace::Inline, CacheMode::Min))
    };
    let plain = wait(workshop.build_in("one", &context).run()).unwrap();
    let first = wait(build("one").run()).unwrap();
    assert_eq!(first.config_descriptor, plain.config_descriptor);
    registry.clear_requests();
    let second = wait(
        build("two")
            .cache_from(CacheSource::Registry(app.clone()))
            .run(),
    )
    .unwrap();
    assert_eq!(layers(&second), [true, true]);
    assert_eq!(second.digest, first.digest);
    let (got, sent) = moved(&registry, 10_000);
    assert_eq!((got.len(), sent), (1, 0), "{got:?}");
}

#[test]
fn a_directory_can_hold_a_cache() {
    let workshop = Workshop::new();
    let text = "FROM busybox\nRUN date +%N > /when\nCOPY f /\n";
    let context = ContextDir::new().file("f", "x").file("Dockerfile", text);
    let path = workshop.path("cache");
    let place = |tag: &str| CachePlace::Local {
        path: path.clone(),
        tag: tag.to_owned(),
    };
    let first = workshop.build_in("one", &context);
    let first = first
        .cache_to(to(place("a"), CacheMode::Max))
        .cache_to(to(place("b"), CacheMode::Min));
    let first = workshop.built(first);
    let source = |tag: Option<&str>| CacheSource::Local {
        path: path.clone(),
        tag: tag.map(str::to_owned),
    };
    let second = workshop
        .build_in("two", &context)
        .cache_from(source(Some("a")));
    let second = workshop.built(second);
    assert_eq!(layers(second.image()), [true, true]);
    assert_eq!(second.digest(), first.digest());

    // Two caches, and nobody said which: none is taken, and that is told.
    let (build, told) = warnings(workshop.build_in("three", &context));
    let third = wait(build.cache_from(source(None)).run()).unwrap();
    assert_eq!(layers(&third), [false, false]);
    let told = told.lock().unwrap();
    assert!(
        told.iter()
            .any(|text| text.contains("no cache is imported")),
        "{told:?}"
    );
}

#[test]
fn a_second_opinion_keeps_and_gives_caches() {
    let registry = match DebianRegistry::start() {
        Ok(registry) => registry,
        Err(StartError::Missing) => return not_installed("docker-registry"),
        Err(error) => panic!("{error}"),
    };
    let workshop = Workshop::new();
    let context = context(&workshop, registry.reference("base:1"));
    let cache = registry.reference("cache:app");
    let app = registry.reference("app:1");
    let first = workshop
        .build_in("one", &context)
        .output(Output::Registry(app))
        .cache_to(to(CachePlace::Registry(cache.clone()), CacheMode::Max));
    let first = wait(first.run()).unwrap();
    let second = workshop
        .build_in("two", &context)
        .output(Output::Registry(registry.reference("other:1")))
        .cache_from(CacheSource::Registry(cache.clone()))
        .cache_to(to(
            CachePlace::Registry(registry.reference("again:1")),
            CacheMode::Max,
        ));
    let second = wait(second.run()).unwrap();
    assert_eq!(second.digest, first.digest);
    assert_eq!(layers(&second), [true; 6]);
    // Nothing of the layers was needed here: this store has none.
    for layer in &second.layers {
        let blob = workshop.path("two/blobs/sha256").join(layer.digest.hex());
        assert!(!blob.exists(), "{}", layer.digest);
    }
    let third = workshop
        .build_in("three", &context)
        .cache_from(CacheSource::Registry(registry.reference("again:1")));
    assert_eq!(layers(&wait(third.run()).unwrap()), [true; 6]);
}

#[test]
fn other_scopes_have_nothing_of_a_command() {
    let workshop = Workshop::new();
    let text = "FROM busybox\nCOPY f /\nRUN date +%N > /when\n";
    let context = ContextDir::new().file("f", "x").file("Dockerfile", text);
    let path = workshop.path("cache");
    let place = CachePlace::Local {
        path: path.clone(),
        tag: "a".to_owned(),
    };
    let first = workshop.build_in("one", &context).cache_scope("a");
    wait(first.cache_to(to(place, CacheMode::Max)).run()).unwrap();
    let from = |store: &str, scope: &str| {
        let source = CacheSource::Local {
            path: path.clone(),
            tag: None,
        };
        let build = workshop.build_in(store, &context).cache_scope(scope);
        layers(&wait(build.cache_from(source).run()).unwrap())
    };
    assert_eq!(from("two", "a"), [true, true]);
    assert_eq!(from("three", "b"), [true, false]);
}

#[test]
fn what_was_imported_is_not_kept_for_others() {
    let workshop = Workshop::new();
    let context = ContextDir::new().file("Dockerfile", "FROM busybox\nRUN date +%N > /when\n");
    let path = workshop.path("cache");
    let place = CachePlace::Local {
        path: path.clone(),
        tag: "a".to_owned(),
    };
    wait(
        workshop
            .build_in("one", &context)
            .cache_to(to(place, CacheMode::Max))
            .run(),
    )
    .unwrap();
    let source = CacheSource::Local { path, tag: None };
    let imported = workshop.built(workshop.build_in("two", &context).cache_from(source));
    assert_eq!(layers(imported.image()), [true]);
    let own = wait(workshop.build_in("two", &context).run()).unwrap();
    assert_eq!(layers(&own), [false]);
}

#[test]
fn a_registry_that_fails_fails_no_build() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let context = ContextDir::new().file("Dockerfile", "FROM busybox\nRUN echo x > /x\n");
    let nowhere = "127.0.0.1:1/cache:1".parse::<Reference>().unwrap();
    let (build, told) = warnings(workshop.build_in("one", &context));
    let build = build
        .client(impatient())
        .cache_from(CacheSource::Registry(nowhere.clone()))
        .cache_from(CacheSource::Registry(registry.reference("not-yet:1")))
        .cache_to(CacheTarget::new(
            CachePlace::Registry(nowhere.clone()),
            CacheMode::Max,
        ));
    wait(build.run()).unwrap();
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("no cache is imported") && told[1].contains("not exported"));

    let asked = workshop.build_in("one", &context).client(impatient());
    let asked = asked.cache_to(to(CachePlace::Registry(nowhere), CacheMode::Max));
    let error = wait(asked.run()).unwrap_err();
    assert_eq!(error.kind(), ocibuild::ErrorKind::Registry, "{error:?}");
}

fn impatient() -> ocibuild::registry::Client {
    let retry = ocibuild::registry::Retry {
        attempts: 1,
        ..Default::default()
    };
    let client = ocibuild::registry::Client::builder().retry(retry);
    client.build().unwrap()
}

/// A cache in a directory, which a test then spoils.
struct Spoiled {
    workshop: Workshop,
    context: ContextDir,
    path: std::path::PathBuf,
    first: Built,
}

impl Spoiled {
    fn new() -> Self {
        let workshop = Workshop::new();
        let text = "FROM busybox\nRUN echo x > /x\nCOPY f /\nRUN cat /x /f > /y\n";
        let context = ContextDir::new().file("f", "x").file("Dockerfile", text);
        let path = workshop.path("cache");
        let place = CachePlace::Local {
            path: path.clone(),
            tag: "a".to_owned(),
        };
        let first = workshop.build_in("one", &context).source_date_epoch(0);
        let first = workshop.built(first.cache_to(to(place, CacheMode::Max)));
        Self {
            workshop,
            context,
            path,
            first,
        }
    }

    fn blob(&self, digest: &Digest) -> std::path::PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    fn manifest(&self) -> Manifest {
        let index: Index = read(&self.path.join("index.json"));
        read(&self.blob(&index.manifests[0].digest))
    }

    /// Puts another configuration or other layers into the cache.
    fn rewrite(&self, change: impl FnOnce(&mut Manifest, &mut serde_json::Value)) {
        let mut manifest = self.manifest();
        let mut config: serde_json::Value = read(&self.blob(&manifest.config.digest));
        change(&mut manifest, &mut config);
        let bytes = serde_json::to_vec(&config).unwrap();
        manifest.config = ocibuild::registry::Descriptor::of(manifest.config.media_type, &bytes);
        std::fs::write(self.blob(&manifest.config.digest), bytes).unwrap();
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let descriptor = ocibuild::registry::Descriptor::of(media_type::MANIFEST, &bytes);
        std::fs::write(self.blob(&descriptor.digest), bytes).unwrap();
        let index = serde_json::to_vec(&Index::of(vec![descriptor])).unwrap();
        std::fs::write(self.path.join("index.json"), index).unwrap();
    }

    /// Builds with the cache on a machine of its own; the image must be what it is without.
    fn rebuilt(&self, store: &str) -> (Vec<bool>, Vec<String>) {
        let source = CacheSource::Local {
            path: self.path.clone(),
            tag: None,
        };
        let build = self
            .workshop
            .build_in(store, &self.context)
            .source_date_epoch(0);
        let (build, told) = warnings(build.cache_from(source));
        let built = self.workshop.built(build);
        assert_eq!(built.digest(), self.first.digest());
        let told = told.lock().unwrap().clone();
        (layers(built.image()), told)
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn layers_that_are_gone_or_damaged_are_made_again() {
    let spoiled = Spoiled::new();
    assert_eq!(spoiled.rebuilt("whole"), (vec![true; 3], Vec::new()));
    let layers = spoiled.manifest().layers;
    std::fs::write(spoiled.blob(&layers[0].digest), "other bytes").unwrap();
    std::fs::remove_file(spoiled.blob(&layers[1].digest)).unwrap();
    let (_, told) = spoiled.rebuilt("spoiled");
    assert!(
        told.iter()
            .all(|text| text.contains("a cached layer cannot be used"))
    );
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn layers_that_are_not_what_the_cache_says_are_made_again() {
    // A digest of content that is true of another layer: found when the bytes are read.
    let spoiled = Spoiled::new();
    spoiled.rewrite(|_, config| {
        let steps = config["steps"].as_array_mut().unwrap();
        let layer = steps[0]["layer"].clone();
        for step in steps {
            step["layer"] = layer.clone();
        }
    });
    let source = CacheSource::Local {
        path: spoiled.path.clone(),
        tag: None,
    };
    let text = "FROM busybox\nRUN echo x > /x\nCOPY f /\nRUN cat /x /f > /y\nRUN cat /y > /z\n";
    let context = ContextDir::new().file("f", "x").file("Dockerfile", text);
    let build = spoiled
        .workshop
        .build_in("lies", &context)
        .source_date_epoch(0);
    let built = spoiled.workshop.built(build.cache_from(source));
    assert_eq!(built.text("z"), "x\nx");
    assert_eq!(built.text("f"), "x");
}

#[test]
fn hostile_caches_are_refused_or_ignored() {
    let spoiled = Spoiled::new();
    let ignored = |name: &str, change: &dyn Fn(&mut Manifest, &mut serde_json::Value)| {
        let fresh = Spoiled::new();
        fresh.rewrite(change);
        let (cached, told) = fresh.rebuilt("fresh");
        assert_eq!(cached, [false; 3], "{name}");
        assert_eq!(told.len(), 1, "{name}: {told:?}");
    };
    ignored("absurd sizes", &|manifest, _| {
        for layer in &mut manifest.layers {
            layer.size = u64::MAX;
        }
    });
    ignored("no layers", &|manifest, _| manifest.layers.clear());
    ignored("another version", &|_, config| config["version"] = 2.into());
    ignored("no layer types", &|manifest, _| {
        for layer in &mut manifest.layers {
            layer.media_type = "text/html".to_owned();
        }
    });
    ignored("odd times", &|_, config| {
        for step in config["steps"].as_array_mut().unwrap() {
            step["created"] = "\u{1b}[2Jyesterday".into();
        }
    });
    ignored("no cache", &|_, config| *config = "text".into());
    ignored("very many steps", &|_, config| {
        let step = config["steps"][0].clone();
        config["steps"] = vec![step; 20_001].into();
    });
    std::fs::write(spoiled.path.join("index.json"), "{").unwrap();
    let (cached, told) = spoiled.rebuilt("no-index");
    assert_eq!((cached, told.len()), (vec![false; 3], 1));
}

#[test]
fn sizes_that_are_wrong_are_found_out() {
    let spoiled = Spoiled::new();
    spoiled.rewrite(|manifest, _| {
        for layer in &mut manifest.layers {
            layer.size += 1;
        }
    });
    let (_, told) = spoiled.rebuilt("sizes");
    assert!(
        told[0].contains("a cached layer cannot be used"),
        "{told:?}"
    );
}

#[test]
fn images_of_others_are_no_caches() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    push_base(&workshop, registry.reference("base:1"));
    let context = ContextDir::new().file("Dockerfile", "FROM busybox\nRUN echo x > /x\n");
    let only_copies = ContextDir::new().file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let foreign = workshop
        .build_in("one", &only_copies)
        .platforms([
            "linux/s390x".parse().unwrap(),
            "linux/ppc64le".parse().unwrap(),
        ])
        .output(Output::Registry(registry.reference("foreign:1")));
    wait(foreign.run()).unwrap();
    let (build, told) = warnings(workshop.build_in("two", &context));
    let build = build
        .cache_from(CacheSource::Registry(registry.reference("base:1")))
        .cache_from(CacheSource::Registry(registry.reference("foreign:1")));
    let built = wait(build.run()).unwrap();
    assert_eq!(layers(&built), [false]);
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn the_image_does_not_wait_for_its_cache() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let context = context(&workshop, registry.reference("base:1"));
    registry.inject("PUT", "/v2/cache/manifests", 1, Fault::Status(500));
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let build = workshop
        .build_in("one", &context)
        .output(Output::Registry(registry.reference("app:1")))
        .cache_to(CacheTarget::new(
            CachePlace::Registry(registry.reference("cache:1")),
            CacheMode::Max,
        ))
        .events(EventSink::new(move |event| match event {
            Event::Pushed { .. } => seen.lock().unwrap().push("pushed"),
            Event::StepStarted { name, .. } if name.starts_with("exporting cache") => {
                seen.lock().unwrap().push("exporting");
            }
            _ => {}
        }));
    wait(build.run()).unwrap();
    assert_eq!(*order.lock().unwrap(), ["pushed", "exporting"]);
    // What the image brought is taken over; only layers that it has not are sent again.
    let uploads = registry.requests();
    let into_cache = uploads
        .iter()
        .filter(|r| r.path.starts_with("/v2/cache/blobs/uploads/") && r.body_bytes > 100_000);
    assert_eq!(into_cache.count(), 1, "the noise of the other stage");
}

#[test]
fn commands_that_see_other_stages_are_hit_without_their_bytes() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let base = registry.reference("base:1");
    push_base(&workshop, base.clone());
    let text = format!(
        "FROM {base} AS made\nRUN date +%N > /when\nFROM {base}\n\
         RUN --mount=type=bind,from=made,source=/when,target=/m cat /m > /seen\n"
    );
    let context = ContextDir::new().file("Dockerfile", text);
    let cache = registry.reference("cache:app");
    let first = workshop.build_in("one", &context);
    let first = first.cache_to(to(CachePlace::Registry(cache.clone()), CacheMode::Max));
    let first = wait(first.run()).unwrap();
    registry.clear_requests();
    let second = workshop.build_in("two", &context);
    let second = wait(second.cache_from(CacheSource::Registry(cache)).run()).unwrap();
    assert_eq!(layers(&second), [true, true]);
    assert_eq!(second.digest, first.digest);
    let (got, _) = moved(&registry, 0);
    assert_eq!(got.len(), 2, "configurations only: {got:?}");
}
