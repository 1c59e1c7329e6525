//! What a build does side by side, and what it does once however many of its steps ask.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ocibuild::error::ErrorKind;
use ocibuild::testing::ContextDir;
use ocibuild::{Cancel, Error};
use ocibuild_registry::testing::{Fault, Registry, noise};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use crate::built::{Workshop, wait};
use crate::run_mounts::gate;

/// Counts how often something happens to files of a folder.
pub(crate) struct Watched(OwnedFd);

impl Watched {
    pub(crate) fn new(folder: &Path, what: WatchFlags) -> Self {
        fs::create_dir_all(folder).unwrap();
        let watched = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watched, folder, what).unwrap();
        Self(watched)
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut buffer);
        let mut count = 0;
        loop {
            match reader.next() {
                Ok(event) => {
                    assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW));
                    let found = event.file_name().map(|found| found.to_bytes());
                    count += usize::from(found == Some(name.as_bytes()));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return count,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Gives the layers of the base of a workshop.
fn base_layers(workshop: &Workshop) -> Vec<ocibuild::registry::Descriptor> {
    let layout = workshop.path("base");
    let digest = crate::built::only_image(&layout);
    let manifest = fs::read(layout.join("blobs/sha256").join(digest.hex())).unwrap();
    let manifest: ocibuild::registry::Manifest = serde_json::from_slice(&manifest).unwrap();
    manifest.layers
}

/// Table and tree of a base come from one pass over it, whichever step asks first.
#[test]
fn a_base_is_read_once() {
    let workshop = Workshop::new();
    let text = "FROM busybox AS runs\nRUN echo one > /one\n\
        FROM busybox AS copies\nWORKDIR /w\nCOPY f /w/\nRUN cat f > g\n\
        FROM busybox\nCOPY --from=runs /one /\nCOPY --from=copies /w/g /\n";
    let layer = base_layers(&workshop).pop().unwrap();
    let blobs = workshop.store().join("blobs/sha256");
    let opened = Watched::new(&blobs, WatchFlags::OPEN);
    let context = ContextDir::new().file("f", "text").file("Dockerfile", text);
    let image = wait(workshop.build(&context).run()).unwrap();
    assert!(image.steps.iter().any(|step| step.name.contains("RUN cat")));
    assert_eq!(opened.count(&layer.digest.hex()), 1);
}

pub(crate) fn trees(store: &Path) -> Vec<PathBuf> {
    let identities = fs::read_dir(store.join("layers")).into_iter().flatten();
    let identities = identities.map(|entry| entry.unwrap().path());
    let trees = identities.flat_map(|identity| fs::read_dir(identity).unwrap());
    let trees = trees.map(|entry| entry.unwrap().path());
    trees.filter(|path| path.is_dir()).collect()
}

/// Waits for what another thread does.
pub(crate) fn until(what: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !what() {
        if begun.elapsed() > Duration::from_secs(60) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// A layer that has arrived is unpacked while another is on its way.
#[test]
fn layers_of_a_base_are_unpacked_as_they_arrive() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let context = ContextDir::new()
        .file("f", "text")
        .file("Dockerfile", "FROM busybox\nCOPY f /f\n");
    let output = ocibuild::Output::Registry(registry.reference("base:1"));
    let base = wait(workshop.build_in("other", &context).output(output).run()).unwrap();
    let [low, high] = &base.layers[..] else {
        panic!("{:?}", base.layers);
    };
    let blob = format!("/v2/base/blobs/{}", low.digest);
    registry.inject("GET", &blob, 1, Fault::StallAfter(1000));

    // The step before the command waits for the lowest layer too.
    let text = format!(
        "FROM {}/base:1\nCOPY f /g\nRUN cat /g > /h\n",
        registry.host()
    );
    let context = ContextDir::new().file("f", "text").file("Dockerfile", text);
    let cancel = Cancel::new();
    let build = workshop.build(&context).cancel(cancel.clone());
    let store = workshop.store();
    let half = |layer: &ocibuild::LayerSummary| {
        let toc = store.join("tocs").join(layer.diff_id.hex());
        File::open(toc).is_ok()
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| wait(build.run()));
        assert!(until(|| half(high)), "the upper layer waits for the lower");
        assert!(!half(low));
        assert!(trees(&store).is_empty(), "its directories wait");
        cancel.cancel();
        assert!(matches!(running.join().unwrap(), Err(Error::Cancelled)));
    });
    workshop.assert_tidy();
    let context = context.path().to_owned();
    let build = workshop.build_from("store", ocibuild::ContextSource::Directory(context));
    wait(build.run()).unwrap();
    assert_eq!(trees(&store).len(), 4);
}

/// What is below a command is at the registry before the command ends, and is not sent again.
#[test]
fn layers_are_sent_while_a_command_runs() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let (listener, hold) = gate();
    let text = format!("FROM busybox\nRUN echo one > /one\nRUN {hold}; echo two > /two\n");
    let context = ContextDir::new().file("Dockerfile", text);
    let output = ocibuild::Output::Registry(registry.reference("app:1"));
    let build = workshop.build(&context).output(output);
    let sent = || registry.count("PUT", "/v2/app/blobs/uploads/");
    let image = std::thread::scope(|scope| {
        let running = scope.spawn(|| wait(build.run()));
        let (held, _) = listener.accept().unwrap();
        assert!(until(|| sent() == 2), "{:#?}", registry.requests());
        assert_eq!(registry.count("PUT", "/v2/app/manifests/"), 0);
        drop(held);
        running.join().unwrap().unwrap()
    });
    assert_eq!(image.layers.len(), 3);
    assert_eq!(sent(), 4, "three layers and a configuration");
}

/// So large that a part of it is sent while another is packed.
const SENT_AHEAD: usize = 96 << 20;

/// A large layer goes to the registry while it is packed, and each of its bytes once; one of
/// which the registry may have it, or that is not in the image, does not.
#[test]
fn a_large_layer_is_sent_while_it_is_packed() {
    let large = noise(1, SENT_AHEAD);
    let (copies, runs) = ("COPY large /large", "RUN cat /in/large > /large");
    let mounted = "--mount=type=bind,target=/in";
    let runs = runs.replace("RUN", &format!("RUN {mounted}"));
    let elsewhere = format!("AS made\n{copies}\nFROM busybox\nCOPY --from=made /etc/passwd /p");
    for (step, epoch, is_ahead) in [
        (copies, None, true),
        (runs.as_str(), None, true),
        (copies, Some("1000000000"), false),
        (elsewhere.as_str(), None, false),
    ] {
        let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
        let text = match step.starts_with("AS") {
            true => format!("FROM busybox {step}\n"),
            false => format!("FROM busybox\n{step}\n"),
        };
        let context = ContextDir::new()
            .file("large", &large)
            .file("Dockerfile", text);
        let output = ocibuild::Output::Registry(registry.reference("app:1"));
        let mut build = workshop.build(&context).output(output);
        if let Some(epoch) = epoch {
            build = build.build_arg("SOURCE_DATE_EPOCH", epoch);
        }
        let image = wait(build.run()).unwrap();
        let chunks = registry.count("PATCH", "/v2/app/blobs/uploads/");
        assert_eq!(chunks > 0, is_ahead, "{step}: {:#?}", registry.requests());
        let layers: u64 = image.layers.iter().map(|layer| layer.size).sum();
        let sent = registry.uploaded_bytes();
        let most = layers + image.config_descriptor.size;
        assert_eq!(sent, most, "{step}");
        assert_eq!(
            registry.count("DELETE", "/v2/app/blobs/uploads/"),
            1,
            "the preflight's"
        );
        workshop.assert_tidy();
    }
}

#[test]
fn a_failed_build_leaves_no_name() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let (listener, hold) = gate();
    let text = format!("FROM busybox\nRUN echo one > /one\nRUN {hold}; false\n");
    let context = ContextDir::new().file("Dockerfile", text);
    let output = ocibuild::Output::Registry(registry.reference("app:1"));
    let build = workshop.build(&context).output(output);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| wait(build.run()));
        let (held, _) = listener.accept().unwrap();
        assert!(until(|| registry.uploaded_bytes() > 0));
        drop(held);
        let error = running.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Command);
    });
    assert_eq!(registry.count("PUT", "/v2/app/manifests/"), 0);
    workshop.assert_tidy();
}

/// A registry that does not take the image is found out before a command runs.
#[test]
fn nothing_runs_for_a_registry_that_takes_nothing() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    registry.inject("POST", "/v2/app/blobs/uploads/", 1, Fault::Status(403));
    let text = "FROM busybox\nCOPY f /f\nRUN --mount=type=cache,target=/c touch /c/ran\n";
    let context = ContextDir::new().file("f", "text").file("Dockerfile", text);
    let output = ocibuild::Output::Registry(registry.reference("app:1"));
    let error = workshop.fails(workshop.build(&context).output(output));
    assert_eq!(error.kind(), ErrorKind::Registry);
    assert!(error.to_string().starts_with("push "), "{error}");
    let caches = fs::read_dir(workshop.store().join("cachemounts")).unwrap();
    assert_eq!(caches.count(), 0, "the command has run");
}

/// Makes a layer that takes time to pack, and changes who is known.
const LARGE: &str = "RUN head -c 9000000 /dev/zero > /large && echo ann:x:7:8::/: >> /etc/passwd";

/// A large layer is packed, sent and remembered while the next command runs, and is what it
/// would be without one.
#[test]
fn large_layers_are_packed_while_a_command_runs() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let (listener, hold) = gate();
    let whole = format!(
        "FROM busybox\n{LARGE}\nCOPY --chown=ann f /f\nRUN ls -l /f > /seen; {hold}\nWORKDIR /w\n"
    );
    let epoch = |build: ocibuild::Build| build.build_arg("SOURCE_DATE_EPOCH", "1000000000");
    let context = ContextDir::new()
        .file("f", "text")
        .file("Dockerfile", whole);
    let output = ocibuild::Output::Registry(registry.reference("app:1"));
    let build = epoch(workshop.build(&context)).output(output);
    let image = std::thread::scope(|scope| {
        let running = scope.spawn(|| wait(build.run()));
        let (held, _) = listener.accept().unwrap();
        let sent = || registry.count("PUT", "/v2/app/blobs/uploads/");
        assert!(until(|| sent() == 3), "{:#?}", registry.requests());
        drop(held);
        running.join().unwrap().unwrap()
    });
    let alone = ContextDir::new().file("Dockerfile", format!("FROM busybox\n{LARGE}\n"));
    let alone = wait(epoch(workshop.build_in("other", &alone)).run()).unwrap();
    assert_eq!(image.layers[1], alone.layers[1]);
    let steps = image.steps.iter().filter_map(|step| step.layer.as_ref());
    assert!(steps.eq(&image.layers[1..]), "each step has its blob");

    let text = format!("FROM busybox\n{LARGE}\nCOPY --chown=ann f /f\nRUN ls -l /f > /seen\n");
    let context = ContextDir::new().file("f", "text").file("Dockerfile", text);
    let built = workshop.built(epoch(workshop.build(&context)));
    let cached: Vec<bool> = built.cached().iter().map(|(_, cached)| *cached).collect();
    assert_eq!(cached, [true, true, false]);
    assert_eq!(built.at("f"), "0644 7:8 file");
}

/// What was done before a command failed is not done again.
#[test]
fn a_large_layer_is_kept_when_the_next_command_fails() {
    let workshop = Workshop::new();
    let context =
        |end| ContextDir::new().file("Dockerfile", format!("FROM busybox\n{LARGE}\nRUN {end}\n"));
    let failed = context("false");
    let error = workshop.fails(workshop.build(&failed));
    assert_eq!(error.kind(), ErrorKind::Command);
    let mended = context("true");
    let built = workshop.built(workshop.build(&mended));
    let cached: Vec<bool> = built.cached().iter().map(|(_, cached)| *cached).collect();
    assert_eq!(cached, [true, false]);
}

/// When a command fails, those of other stages do not run to their ends.
#[test]
fn a_stage_that_fails_ends_the_others() {
    let workshop = Workshop::new();
    let (waiting, wait_for_ever) = gate();
    let (failing, hold) = gate();
    let text = format!(
        "FROM busybox AS waits\nRUN {wait_for_ever}; touch /a\nFROM busybox AS fails\n\
         RUN {hold}; false\nFROM busybox\nCOPY --from=waits /a /\nCOPY --from=fails /b /\n"
    );
    let context = ContextDir::new().file("Dockerfile", text);
    let build = workshop.build(&context);
    let error = std::thread::scope(|scope| {
        let running = scope.spawn(|| wait(build.run()));
        let (never_dropped, _) = waiting.accept().unwrap();
        drop(failing.accept().unwrap());
        let ended = until(|| running.is_finished());
        drop(never_dropped);
        assert!(ended, "the other command is waited for");
        running.join().unwrap().unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::Command);
    workshop.assert_tidy();
}
