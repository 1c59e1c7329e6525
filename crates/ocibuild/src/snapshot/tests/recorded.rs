//! Trees of an ordinary user: what it may not set is recorded, and the layer that is
//! made of them is the one that they were made from.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;

use super::*;
use crate::ownership::{self, Device, Record};

const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn recorded() -> diff::Options {
    diff::Options::new(Identity::Recorded)
}

/// A layer of what an ordinary user can make least of.
fn odd_layer() -> (Finished, Vec<u8>) {
    let device = |major, minor| Kind::Char { major, minor };
    let link = |target: &str| Kind::Symlink {
        target: target.into(),
    };
    let hard = |target| Kind::Hardlink {
        target: path(target),
    };
    let entries = [
        ("d", Kind::Dir, 0o2750, (7, 8)),
        ("d/disk", Kind::Block { major: 8, minor: 1 }, 0o660, (0, 6)),
        ("d/null", device(1, 3), 0o666, (0, 0)),
        ("d/wide", device(511, 1_048_575), 0o000, (1, 1)),
        ("fifo", Kind::Fifo, 0o1600, (3_000_000, 5)),
        ("link", link("d"), 0o777, (9, 4_294_967_294)),
        ("link-again", link("link"), 0o777, (0, 1_000_650_000)),
        ("locked", Kind::Dir, 0o000, (0, 0)),
        ("locked/file", Kind::File(4), 0o000, (33, 33)),
        ("ping", Kind::File(4), 0o755, (0, 5)),
        ("ping-hard", hard("ping"), 0o755, (0, 5)),
        ("plain", Kind::File(4), 0o644, (0, 0)),
        ("plain-link", link("nowhere"), 0o777, (0, 0)),
        ("read-only", Kind::File(4), 0o444, (0, 0)),
        ("suid", Kind::File(4), 0o4755, (0, 0)),
        ("suid-hard", hard("suid"), 0o4755, (0, 0)),
        ("tmp", Kind::Dir, 0o1777, (0, 0)),
    ];
    let mut writer = LayerWriter::new(plain(), Vec::new()).expect("a writer");
    for (name, kind, mode, (uid, gid)) in entries {
        let xattrs = match name {
            "ping" => vec![(b"security.capability".to_vec(), CAPABILITY.to_vec())],
            _ => Vec::new(),
        };
        let meta = EntryMeta {
            kind,
            mode,
            uid,
            gid,
            mtime: 1_700_000_000,
            xattrs,
            ..EntryMeta::dir(path(name))
        };
        let mut text = &b"text"[..];
        let content: Option<&mut dyn Read> = match meta.kind {
            Kind::File(_) => Some(&mut text),
            _ => None,
        };
        writer.append(&meta, content).expect(name);
    }
    writer.finish().expect("a layer")
}

fn round_trip(blob: &[u8], identity: Identity) -> Finished {
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("tree");
    let lowers = RootView::new(&[]);
    unpack_to(blob, &tree, identity.clone(), &lowers);
    diff_of(&tree, &lowers, &diff::Options::new(identity))
}

#[test]
fn the_layer_is_the_one_that_was_unpacked() {
    let (layer, blob) = odd_layer();
    let again = round_trip(&blob, Identity::Recorded);
    assert_eq!(again.toc.entries(), layer.toc.entries());
    assert_eq!(again.digest, layer.digest);
}

/// The tests run as root on many machines, where everything could be set.
#[test]
fn privileged_an_ordinary_user_makes_the_same_layer_as_root() {
    if !is_root() {
        return;
    }
    let (layer, blob) = odd_layer();
    let again = round_trip(&blob, Identity::Real);
    assert_eq!(again.digest, layer.digest);
    let this = "snapshot::tests::recorded::";
    for test in [
        "the_layer_is_the_one_that_was_unpacked",
        "any_tree_says_what_its_layer_says",
        "whiteouts_and_opaque_directories",
    ] {
        let mut command = Command::new("/proc/self/exe");
        command
            .uid(54321)
            .gid(0)
            .args(["--exact", &format!("{this}{test}")]);
        let output = command.output().expect("this program");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("1 passed"), "{text}");
    }
}

#[test]
fn records_are_what_a_command_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let upper = dir.path();
    fs::create_dir(upper.join("dir")).expect("a directory");
    fs::write(upper.join("dir/null"), "").expect("a file");
    fs::write(upper.join("ping"), "#!").expect("a file");
    fs::hard_link(upper.join("ping"), upper.join("pong")).expect("a link");
    fs::hard_link(upper.join("dir/null"), upper.join("null")).expect("a link");
    fs::write(upper.join("root"), "").expect("a file");
    let _socket = std::os::unix::net::UnixListener::bind(upper.join("socket")).expect("a socket");
    let tree = fs::File::open(upper).expect("a directory");
    let null = Record {
        uid: 0,
        gid: 5,
        mode: 0o622,
        device: Some(Device::Char(1, 3)),
    };
    let owned = Record {
        uid: 33,
        gid: 34,
        mode: 0o2711,
        device: None,
    };
    let sub = fs::File::open(upper.join("dir")).expect("a directory");
    ownership::write_at(&sub, OsStr::new("null"), &null).expect("a record");
    for name in ["dir", "ping", "socket"] {
        ownership::write_at(&tree, OsStr::new(name), &owned).expect("a record");
    }
    let ping = fs::File::open(upper.join("ping")).expect("a file");
    // As a kernel in a user namespace gives it, with the user of that namespace.
    let version_3 = [&[1, 0, 0, 3], &CAPABILITY[4..], &[1, 0, 0, 0]].concat();
    let none = rustix::fs::XattrFlags::empty();
    let name = b"security.capability";
    ownership::set_attribute(&ping, name, &version_3, none).expect("an attribute");
    let layer = diff_of(upper, &RootView::new(&[]), &recorded());
    let get = |name| layer.toc.get(&path(name)).expect(name);
    let all: Vec<String> = layer
        .toc
        .entries()
        .iter()
        .map(|entry| {
            format!(
                "{} {:o} {}:{}",
                entry.path, entry.mode, entry.uid, entry.gid
            )
        })
        .collect();
    assert_eq!(
        all[1..],
        [
            "/dir 2711 33:34",
            "/dir/null 622 0:5",
            "/null 622 0:5",
            "/ping 2711 33:34",
            "/pong 2711 33:34",
            "/root 644 0:0",
        ]
    );
    for name in ["null", "dir/null"] {
        assert_eq!(get(name).kind, Kind::Char { major: 1, minor: 3 });
    }
    let target = path("ping");
    assert_eq!(get("pong").kind, Kind::Hardlink { target });
    assert_eq!(get("ping").xattrs, [(name.to_vec(), CAPABILITY.to_vec())]);
}

#[test]
fn whiteouts_and_opaque_directories() {
    let (base, _) = layer(&["d a", "f a/1 one", "f a/2 two", "d b", "f b/x x", "f c c"]);
    let (top, blob) = layer(&[
        "d a",
        "w a/1",
        "f a/3 three",
        "d b",
        "o b",
        "f b/y y",
        "w c",
    ]);
    let lowers = RootView::new(std::slice::from_ref(&base));
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("tree");
    unpack_to(&blob, &tree, Identity::Recorded, &lowers);
    let again = diff_of(&tree, &lowers, &recorded()).toc;
    let want = seen(&RootView::new(&[base.clone(), top]));
    assert_eq!(seen(&RootView::new(&[base, again])), want);
    let mark = fs::symlink_metadata(tree.join("c")).expect("a whiteout");
    let is_device = mark.file_type().is_char_device() && mark.rdev() == 0;
    let note = rustix::fs::getxattr(tree.join("c"), "user.overlay.whiteout", &mut [0; 2]);
    assert!(is_device || note.is_ok());
}

/// A layer may neither forge records nor bring any back.
#[test]
fn attributes_of_a_layer_are_no_records() {
    let mut writer = LayerWriter::new(plain(), Vec::new()).expect("a writer");
    let forged = [
        &[1, 0][..],
        &0o4755_u16.to_le_bytes(),
        &[1, 0, 0, 0, 1, 0, 0, 0],
    ]
    .concat();
    let kinds = [
        ("fifo", Kind::Fifo),
        ("file", Kind::File(0)),
        (
            "link",
            Kind::Symlink {
                target: b"x".to_vec(),
            },
        ),
    ];
    for (name, kind) in kinds {
        let xattrs = [
            (&b"user.mine"[..], &b"1"[..]),
            (ownership::INODE.as_bytes(), &forged),
            (b"user.ocibuild.xattr.security.capability", CAPABILITY),
        ];
        let meta = EntryMeta {
            kind,
            mode: 0o644,
            // What could be a record as a time of access.
            mtime: 5_000_000_000,
            xattrs: xattrs
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .into(),
            ..EntryMeta::dir(path(name))
        };
        writer.append(&meta, Some(&mut &b""[..])).expect(name);
    }
    let (_, blob) = writer.finish().expect("a layer");
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("tree");
    unpack_to(&blob, &tree, Identity::Recorded, &RootView::new(&[]));
    let tree = fs::File::open(&tree).expect("a directory");
    for name in ["fifo", "file", "link"] {
        let read = ownership::read_at(&tree, OsStr::new(name));
        assert_eq!(read, Ok(None), "{name}");
    }
    let file = rustix::fs::openat(
        &tree,
        "file",
        rustix::fs::OFlags::RDONLY,
        rustix::fs::Mode::empty(),
    );
    let names = ownership::attribute_names(file.expect("a file"));
    assert_eq!(names, Ok(vec![b"user.mine".to_vec()]));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Layer → tree → layer with any owners and modes.
    #[test]
    fn any_tree_says_what_its_layer_says(
        below in prop::collection::vec(random_entry(), 0..16),
        above in prop::collection::vec(random_entry(), 0..16),
        ids in prop::collection::vec((0u32..70_000, 0u32..70_000, 0u32..0o10000), 1..20),
    ) {
        let (below, _) = random_layer(below, &ids);
        let (above, blob) = random_layer(above, &ids);
        let lowers = RootView::new(std::slice::from_ref(&below));
        let dir = tempfile::tempdir().expect("a directory");
        let tree = dir.path().join("tree");
        unpack_to(&blob, &tree, Identity::Recorded, &lowers);
        let again = diff_of(&tree, &lowers, &recorded()).toc;
        let want = seen(&RootView::new(&[below.clone(), above]));
        let got = seen(&RootView::new(&[below, again]));
        prop_assert_eq!(got, want);
    }
}
