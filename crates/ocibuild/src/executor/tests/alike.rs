//! What a step finds the same in every engine, by whoever it is done.

use super::site::{Room, Site, file, sites};
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

/// What is in /proc, /sys and /dev, and how they look, by mounts or without.
#[test]
fn privileged_the_kernels_file_systems_look_alike() {
    let script = "
        cat /proc/sys/kernel/hostname; cat /proc/keys | wc -c; ls /proc/acpi /sys/firmware | grep -vc :
        cat /proc/acpi/wakeup 2> /dev/null || echo hidden; ls -l /dev/ptmx | awk '{ print $9, $10, $11 }'
        stat -c %a /dev/shm /dev/mqueue; ls /dev/fd/ | wc -l
        echo shared > /dev/shm/x && cat /dev/shm/x; test -c /dev/pts/ptmx && echo ptmx
        for path in / /proc /proc/sys /dev /dev/pts /dev/shm /dev/mqueue /sys /sys/firmware /etc/shown; do
            awk -v path=$path '$2 == path { print $2, $3, $4 }' /proc/mounts | sed 's/ overlay .*/ overlay/'
            awk -v path=$path '$5 == path { n += 1 } END { print n }' /proc/self/mountinfo
        done";
    let mut first: Option<String> = None;
    // In a user namespace the kernel adds whose a file system is.
    let alike = |site: &Site| *site == Site::Real || !site.has_namespaces();
    for site in sites().into_iter().filter(alike) {
        let room = Room::new(site);
        let spec = RunSpec {
            mounts: vec![file("/etc/shown", "shown")],
            ..room.script(script)
        };
        let outcome = room.run(&spec);
        let text = outcome.text().to_owned();
        let expected = first.get_or_insert_with(|| text.clone());
        assert_eq!(&text, expected, "{site:?} {}", outcome.stderr);
        assert!(text.starts_with("buildkitsandbox\n0\n"), "{text}");
    }
}

/// The kernel sends the first of its own process ids only what it handles.
#[test]
fn privileged_the_first_process_ends_by_itself() {
    for site in sites() {
        let room = Room::new(site);
        let script = "kill -9 $$; kill -TERM $$; trap 'echo handled' USR1; kill -USR1 $$; (kill -9 $$); echo alive
            sleep 100 & kill -9 $!; wait $!; echo $?";
        assert_eq!(
            room.run(&room.script(script)).text(),
            "handled\nalive\n137\n",
            "{site:?}"
        );
    }
}
