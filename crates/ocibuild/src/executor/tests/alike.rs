//! What a step finds the same in every engine, by whoever it is done.

use super::site::{Room, file, sites};
use crate::executor::{Mount, MountSource, RunSpec};

#[test]
fn privileged_strangers_do_not_link_to_files() {
    let protected = std::fs::read_to_string("/proc/sys/fs/protected_hardlinks");
    let is_protected = protected.is_ok_and(|value| value.trim() == "1");
    for site in sites() {
        let room = Room::new(site);
        let script = "ln /etc/notes /tmp/notes && echo linked
            echo mine > /tmp/mine; ln /tmp/mine /tmp/again && stat -c %h /tmp/mine";
        let spec = RunSpec {
            user: "app".into(),
            ..room.script(script)
        };
        let expected = if is_protected { "2\n" } else { "linked\n2\n" };
        assert_eq!(room.run(&spec).text(), expected, "{site:?}");
    }
}

/// As here-documents are, which a step runs by their path.
#[test]
fn privileged_a_file_shown_in_dev_is_a_program() {
    for site in sites() {
        let room = Room::new(site);
        let Mount { target, source } = file("/dev/pipes/EOF", "#!/bin/sh\necho $0 $1\n");
        let MountSource::File { content, .. } = source else {
            panic!("{source:?}");
        };
        let source = MountSource::File {
            content,
            mode: 0o755,
            uid: 0,
            gid: 0,
        };
        let spec = RunSpec {
            mounts: vec![Mount { target, source }],
            ..room.script(
                "/dev/pipes/EOF here; ls /dev/pipes; echo no > /dev/pipes/EOF; rm /dev/pipes/EOF",
            )
        };
        let outcome = room.run(&spec);
        assert_eq!(outcome.stdout, "/dev/pipes/EOF here\nEOF\n", "{site:?}");
        assert!(room.changes().is_empty(), "{:?}", room.changes());
    }
}
