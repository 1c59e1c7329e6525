//! What is built once is not built again, and what is built again comes out the same.

use std::fs::{File, FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use ocibuild::registry::Reference;
use ocibuild::testing::ContextDir;
use ocibuild::{Build, Output};
use ocibuild_registry::testing::Registry;

use crate::built::{Built, Workshop, wait};

/// Puts the base image of a workshop into a registry.
pub(crate) fn push_base(workshop: &Workshop, reference: Reference) {
    let context = ContextDir::new().file("Dockerfile", "FROM busybox\n");
    let build = workshop.build_in("pushed-from", &context);
    wait(build.output(Output::Registry(reference)).run()).unwrap();
}

fn all_cached(built: &Built) -> bool {
    let steps = built.cached();
    assert!(!steps.is_empty());
    steps.iter().all(|(_, cached)| *cached)
}

#[test]
fn a_second_build_moves_no_bytes() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    push_base(&workshop, registry.reference("base:1"));
    let text = format!(
        "FROM {}/base:1\nCOPY f /\nRUN echo made > /made\nWORKDIR /w\n",
        registry.host()
    );
    let context = ContextDir::new().file("f", "x").file("Dockerfile", text);
    let build = || {
        let output = Output::Registry(registry.reference("app:1"));
        wait(workshop.build(&context).output(output).run()).unwrap()
    };
    let first = build();
    registry.clear_requests();
    let second = build();
    assert_eq!(second.digest, first.digest);
    let layers = second.steps.iter().filter(|step| step.layer.is_some());
    assert!(layers.clone().all(|step| step.cached) && layers.count() == 3);
    let requests = registry.requests();
    // What is the base, and is it the image already? Nothing else is asked.
    let asked: Vec<_> = requests
        .iter()
        .filter(|request| request.path != "/v2/")
        .map(|request| (&request.method[..], &request.path[..]))
        .collect();
    let base = ("GET", "/v2/base/manifests/1");
    assert_eq!(
        asked,
        [base, ("HEAD", "/v2/app/manifests/1")],
        "{requests:#?}"
    );
    assert_eq!(registry.uploaded_bytes(), 0, "{requests:#?}");
}

#[test]
fn only_what_ends_in_the_image_counts() {
    let workshop = Workshop::new();
    let context = ContextDir::new()
        .file("f", "one")
        .file("ignored", "1")
        .file(".dockerignore", "ignored\nDockerfile\n")
        .file(
            "Dockerfile",
            "FROM scratch\nARG USED=1\nLABEL used=$USED\nCOPY . /$USED/\nWORKDIR /w\n",
        );
    let path = context.path().to_owned();
    let build = |change: fn(Build) -> Build| workshop.built(change(workshop.build(&context)));
    let first = build(|build| build);
    assert!(!all_cached(&first));

    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    File::open(path.join("f"))
        .unwrap()
        .set_times(times)
        .unwrap();
    std::fs::write(path.join("ignored"), "2").unwrap();
    let again = build(|build| build.build_arg("UNUSED", "1"));
    assert!(all_cached(&again), "{:?}", again.cached());
    assert_eq!(again.digest(), first.digest());

    std::fs::set_permissions(path.join("f"), Permissions::from_mode(0o600)).unwrap();
    assert!(!build(|build| build).cached()[0].1, "another mode");
    assert!(all_cached(&build(|build| build)));

    // As long as before: only the bytes tell.
    std::fs::write(path.join("f"), "two").unwrap();
    let changed = build(|build| build);
    assert!(
        !changed.cached()[0].1 && !changed.cached()[1].1,
        "another byte"
    );
    assert_eq!(changed.text("1/f"), "two");

    assert!(!build(|build| build.build_arg("USED", "2")).cached()[0].1);
    let anew = build(Build::no_cache);
    assert!(anew.cached().iter().all(|(_, cached)| !cached));
}

#[test]
fn a_command_is_run_again_when_its_arguments_change() {
    let workshop = Workshop::new();
    let context = ContextDir::new().file(
        "Dockerfile",
        "FROM busybox\nRUN true\nARG A=1\nRUN echo $A > /a\nRUN date +%s%N > /when\n",
    );
    let build = |value| workshop.built(workshop.build(&context).build_arg("A", value));
    let first = build("1");
    // A command that changes nothing makes an empty layer, and is not run again either.
    assert_eq!(first.layer(1), [""; 0]);
    let empty = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    assert_eq!(first.config.rootfs.diff_ids[1].to_string(), empty);

    let second = build("1");
    assert!(all_cached(&second), "{:?}", second.cached());
    assert_eq!(second.digest(), first.digest());

    let third = build("2");
    let cached: Vec<bool> = third.cached().iter().map(|(_, cached)| *cached).collect();
    assert_eq!(cached, [true, false, false]);
    assert_eq!(third.text("a"), "2\n");
}

#[test]
fn equal_content_of_another_stage_is_a_hit() {
    let workshop = Workshop::new();
    let stages = |line: &str| {
        format!(
            "FROM busybox AS made\nRUN {line}\n\
             FROM busybox\nCOPY --from=made /out /out\nRUN echo then > /then\n"
        )
    };
    let build = |line: &str| workshop.dockerfile(ContextDir::new(), &stages(line));
    let first = build("mkdir /out && echo x > /out/f");
    let second = build("mkdir /out; printf 'x\\n' > /out/f");
    assert_eq!(second.digest(), first.digest());
    let cached: Vec<bool> = second.cached().iter().map(|(_, cached)| *cached).collect();
    assert_eq!(cached, [false, true, true], "{:?}", second.cached());
    assert!(!build("mkdir /out; echo y > /out/f").cached()[1].1);
}

#[test]
fn cold_builds_give_the_same_digest_with_any_number_of_threads() {
    let workshop = Workshop::new();
    let noise: String = (0..400_000u32)
        .map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761)))
        .collect();
    let context = ContextDir::new().file("noise", noise).file(
        "Dockerfile",
        "FROM busybox AS tools\nRUN mkdir -p /t/a /t/b && echo x > /t/a/f && ln /t/a/f /t/b/g\n\
         FROM busybox\nWORKDIR /w/x\nCOPY noise /noise\nCOPY --from=tools /t /w/t\n\
         RUN cat /noise /noise > /double && date > /date && rm /date && touch /tmp/new\n\
         COPY <<EOF /h\ntext\nEOF\nCMD [\"x\"]\n",
    );
    let build = |store: &str, threads| {
        let build = workshop.build_in(store, &context).threads(threads);
        workshop
            .built(build.source_date_epoch(1_600_000_000))
            .digest()
    };
    let first = build("one", 1);
    // Times have whole seconds: what differs by the clock would show.
    let second = Duration::from_secs(1);
    let start = SystemTime::now();
    let four = build("four", 4);
    assert_eq!(four, first);
    while start.elapsed().unwrap() < second {
        std::thread::yield_now();
    }
    assert_eq!(build("later", 2), first);
}

#[test]
fn a_damaged_or_deleted_store_is_made_again() {
    let workshop = Workshop::new();
    let context = ContextDir::new().file("f", "x");
    let context = context.file("Dockerfile", "FROM busybox\nCOPY f /\nRUN echo y > /y\n");
    let build = || workshop.built(workshop.build(&context).source_date_epoch(1_600_000_000));
    let first = build();
    for folder in ["tocs", "layers", "steps", "blobs", "origins"] {
        std::fs::remove_dir_all(workshop.store().join(folder)).unwrap();
        assert_eq!(build().digest(), first.digest(), "without {folder}");
    }
    for toc in std::fs::read_dir(workshop.store().join("tocs")).unwrap() {
        std::fs::write(toc.unwrap().path(), "damaged").unwrap();
    }
    assert_eq!(build().digest(), first.digest(), "with damaged tables");
}
