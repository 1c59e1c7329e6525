//! `ocibuild serve --demo`: the second of the two commands of the README.

use crate::command::Place;

#[test]
fn the_demo_builds_pushes_and_ends() {
    let place = Place::new();
    let ended = place.run(&["serve", "--demo", "--demo-exit", "--listen", "127.0.0.1:0"]);
    assert_eq!(ended.status, 0, "{}{}", ended.out, ended.err);
    let last = ended.out.lines().last().unwrap();
    let (name, digest) = last.split_once("@sha256:").unwrap();
    assert!(name.starts_with("demo: pushed 127.0.0.1:"), "{last}");
    assert!(
        digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{last}"
    );
    assert!(ended.out.contains("<----- Logs ----->\n"), "{}", ended.out);
}

#[test]
fn demo_exit_needs_the_demo() {
    let ended = Place::new().run(&["serve", "--demo-exit"]);
    assert_eq!(ended.status, 2, "{}", ended.err);
}
