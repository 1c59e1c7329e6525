//! Large files in layers of their own: the same files, and an edit beside them moves none.

use ocibuild::layer::{DiffId, TreePath};
use ocibuild::testing::ContextDir;
use ocibuild::{Apart, Build, Image, LayerPolicy, Output};
use ocibuild_registry::testing::{Registry, noise};

use crate::built::{Built, Workshop, wait};

/// Above what the tests take for large.
const LARGE: usize = 3_000_000;

fn context() -> ContextDir {
    let text = "FROM busybox AS tools\nRUN mkdir -p /t && echo x > /t/tool\n\
         FROM busybox\nWORKDIR /app\nCOPY --chown=7:8 --chmod=750 . .\nCOPY --from=tools /t /t\nCMD [\"x\"]\n";
    let context = ContextDir::new()
        .file("Dockerfile", text)
        .file("main.py", "print(1)\n")
        .file("models/small.bin", "small");
    std::fs::write(context.path().join("models/large.bin"), noise(1, LARGE)).unwrap();
    std::fs::write(context.path().join("other.safetensors"), noise(2, LARGE)).unwrap();
    context
}

fn apart(build: Build) -> Build {
    build.layer_policy(LayerPolicy::Apart(Apart {
        min_size: LARGE as u64,
        names: vec!["small.*".to_owned()],
    }))
}

fn listed(built: &Built) -> Vec<String> {
    let root = TreePath::root();
    let all = built.view.walk(&root).map(|found| {
        let entry = found.entry;
        format!(
            "{} {:o} {}:{} {:?} {}",
            entry.path.as_path().display(),
            entry.mode,
            entry.uid,
            entry.gid,
            entry.kind,
            entry.mtime
        )
    });
    all.collect()
}

#[test]
fn the_files_are_those_of_a_build_in_one_layer() {
    let workshop = Workshop::new();
    let context = context();
    let whole = workshop.built(workshop.build(&context));
    let split = workshop.built(apart(workshop.build(&context)));
    assert_eq!(listed(&split), listed(&whole));
    // Three files of the context have a layer each, and an entry of the history.
    assert_eq!(split.layers.len(), whole.layers.len() + 3);
    let history = |built: &Built| {
        let entries = built.config.history.iter();
        entries.filter(|entry| !entry.empty_layer).count()
    };
    assert_eq!(history(&split), split.layers.len());
    for layer in &split.layers[3..6] {
        let entries = layer.entries().iter().filter(|entry| !entry.implicit);
        assert_eq!(entries.count(), 1);
    }
    // A second build knows all of it.
    let again = workshop.built(apart(workshop.build(&context)));
    assert_eq!(again.digest(), split.digest());
    assert!(again.cached().iter().all(|(_, cached)| *cached));
}

fn diff_ids(image: &Image) -> Vec<DiffId> {
    image
        .layers
        .iter()
        .map(|layer| DiffId(layer.diff_id))
        .collect()
}

#[test]
fn an_edit_beside_weights_moves_none() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    let context = context();
    let build = || {
        let output = Output::Registry(registry.reference("app:1"));
        wait(apart(workshop.build(&context)).output(output).run()).unwrap()
    };
    let first = build();
    registry.clear_requests();
    std::fs::write(context.path().join("main.py"), "print(2)\n").unwrap();
    let second = build();
    let moved = registry.uploaded_bytes();
    assert!(moved < 100_000, "{moved} bytes");
    let (before, after) = (diff_ids(&first), diff_ids(&second));
    assert_eq!(before.len(), after.len());
    let differ = before
        .iter()
        .zip(&after)
        .filter(|(one, other)| one != other);
    assert_eq!(differ.count(), 1);
    let steps = second
        .steps
        .iter()
        .filter(|step| step.name.contains("(app/"));
    let weights: Vec<bool> = steps.map(|step| step.cached).collect();
    assert_eq!(weights, [true; 3]);

    // Of two weights one changes: the other stays where it is.
    registry.clear_requests();
    std::fs::write(context.path().join("models/large.bin"), noise(3, LARGE)).unwrap();
    build();
    let moved = registry.uploaded_bytes();
    assert!(
        (LARGE as u64..LARGE as u64 + 200_000).contains(&moved),
        "{moved} bytes"
    );
}
