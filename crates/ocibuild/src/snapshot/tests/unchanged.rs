//! What a layer leaves out because the layers below have it.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn directories_that_are_as_they_were_come_with_what_is_in_them() {
    let lowers = view(&[&["d a", "d a/b", "d a/c", "d d", "d e"]]);
    let dir = tempfile::tempdir().expect("a directory");
    for (name, mode) in [
        ("a", 0o755),
        ("a/b", 0o755),
        ("a/b/new", 0o750),
        ("a/c", 0o755),
        ("d", 0o755),
        ("e", 0o700),
    ] {
        let path = dir.path().join(name);
        fs::create_dir(&path).expect("a directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let options = diff::Options::new(Identity::Single);
    let toc = diff_of(dir.path(), &lowers, &options).toc;
    let there = toc.entries().iter().filter(|entry| !entry.implicit);
    let there: Vec<String> = there.map(|entry| entry.path.to_string()).collect();
    assert_eq!(there, ["/a", "/a/b", "/a/b/new", "/e"]);
}

/// What a step has written has the time of its step on the disk, whatever its layer says.
#[test]
fn times_that_a_layer_could_not_have_do_not_differ() {
    // That of the lower one may be later too.
    let lowers = view(&[&["f a same", "f b same"]]);
    let found = lowers.lookup(&path("a")).expect("a file");
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in [("a", "same"), ("b", "else")] {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("a file");
        let mode = fs::Permissions::from_mode(found.entry.mode);
        fs::set_permissions(&path, mode).expect("a mode");
    }
    let options = diff::Options {
        clamp_mtime: Some(found.entry.mtime - 1),
        ..diff::Options::new(Identity::Single)
    };
    let toc = diff_of(dir.path(), &lowers, &options).toc;
    let there = toc.entries().iter().filter(|entry| !entry.implicit);
    let there: Vec<String> = there.map(|entry| entry.path.to_string()).collect();
    assert_eq!(there, ["/b"]);
}
