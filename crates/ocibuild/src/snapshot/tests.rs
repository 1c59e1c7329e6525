//! Layers become trees and trees become layers: against each other, against the
//! kernel's overlayfs, and against archives that want out.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::executor::{Identity, Notes};
use crate::layer::{
    Compression, Encoding, EntryMeta, Finished, Kind, LayerWriter, Options, Toc, TreePath,
};

mod merge;
mod recorded;
mod unchanged;

fn path(text: &str) -> TreePath {
    TreePath::parse(text).expect("a valid path")
}

fn plain() -> Options {
    Options {
        compression: Compression::None,
        ..Options::default()
    }
}

/// One thing in a layer: `d name`, `f name content`, `l name target`, `h name target`,
/// `w name` for a whiteout, `o name` for an opaque mark.
fn layer(lines: &[&str]) -> (Arc<Toc>, Vec<u8>) {
    let mut layer = LayerWriter::new(plain(), Vec::new()).expect("a writer");
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let kind = words.next().expect("a kind");
        let name = path(words.next().expect("a name"));
        let rest = words.next().unwrap_or_default();
        let kind = match kind {
            "w" => {
                layer.whiteout(&name).expect("a whiteout");
                continue;
            }
            "o" => {
                layer.opaque(&name).expect("an opaque mark");
                continue;
            }
            "d" => Kind::Dir,
            "f" => Kind::File(rest.len() as u64),
            "l" => Kind::Symlink {
                target: rest.into(),
            },
            _ => Kind::Hardlink { target: path(rest) },
        };
        let meta = EntryMeta {
            kind,
            mtime: 1_000_000,
            ..EntryMeta::dir(name)
        };
        let mut content = match meta.kind {
            Kind::File(_) => rest.as_bytes(),
            _ => b"",
        };
        layer.append(&meta, Some(&mut content)).expect(line);
    }
    let (finished, blob) = layer.finish().expect("a layer");
    (finished.toc, blob)
}

fn view(layers: &[&[&str]]) -> RootView {
    let tocs: Vec<Arc<Toc>> = layers.iter().map(|lines| layer(lines).0).collect();
    RootView::new(&tocs)
}

/// What a container would see, as comparable lines.
fn seen(view: &RootView) -> Vec<String> {
    let line = |found: Found<'_>| {
        let entry = found.entry;
        let content = view.content_of(&entry.path).map(|place| place.content);
        let kind = match &entry.kind {
            Kind::Hardlink { .. } => "file".to_owned(),
            Kind::File(_) => "file".to_owned(),
            other => format!("{other:?}"),
        };
        // A layer need not have a directory for its time alone.
        let mtime = match entry.kind {
            Kind::Dir => 0,
            _ => entry.mtime,
        };
        format!(
            "{} {kind} {content:?} {:o} {}:{} {mtime} {:?}",
            entry.path, entry.mode, entry.uid, entry.gid, entry.xattrs
        )
    };
    view.walk(&TreePath::root()).map(line).collect()
}

#[test]
fn layers_hide_what_they_replace() {
    let view = view(&[
        &[
            "d a",
            "f a/1 one",
            "f a/2 two",
            "d a/sub",
            "f a/sub/x x",
            "f b b",
            "d c",
            "f c/x x",
        ],
        &[
            "d a",
            "w a/1",
            "o a/sub",
            "f a/sub/y y",
            "l b a",
            "f c file",
        ],
        &["f a/3 three", "w c", "d c", "f c/new n"],
    ]);
    let root: Vec<String> = view
        .walk(&TreePath::root())
        .map(|found| format!("{}@{}", found.entry.path, found.layer))
        .collect();
    // `a` is only implied by the highest layer, so the one below it speaks for it.
    let want = [
        "/a@1",
        "/a/2@0",
        "/a/3@2",
        "/a/sub@1",
        "/a/sub/y@1",
        "/b@1",
        "/c@2",
        "/c/new@2",
    ];
    assert_eq!(root, want);
    let children: Vec<String> = view
        .children(&path("a"))
        .iter()
        .map(|found| found.entry.path.to_string())
        .collect();
    assert_eq!(children, ["/a/2", "/a/3", "/a/sub"]);
    for hidden in ["a/1", "a/sub/x", "c/x", "b/x", "nothing"] {
        assert_eq!(view.lookup(&path(hidden)), None, "{hidden}");
    }
    assert!(RootView::new(&[]).children(&TreePath::root()).is_empty());
}

#[test]
fn content_is_found_through_hard_links() {
    let view = view(&[&["f a one", "h b a"], &["f a two"]]);
    let place = view.content_of(&path("b")).expect("a file");
    assert_eq!((place.layer, place.path), (0, path("a")));
    let place = view.content_of(&path("a")).expect("a file");
    assert_eq!(place.layer, 1);
    assert_eq!(view.content_of(&path("missing")), None);
}

#[test]
fn links_are_resolved_inside_the_root() {
    let view = view(&[&[
        "l abs /usr/bin",
        "l chain abs",
        "l loop loop",
        "l out ../../../usr/bin/sh",
        "d usr",
        "d usr/bin",
        "l usr/bin/rel ../lib/x",
        "f usr/bin/sh #!",
        "d usr/lib",
        "f usr/lib/x x",
    ]]);
    for (text, follow, want, missing) in [
        ("", true, "/", 0),
        ("/usr/./bin//sh", true, "/usr/bin/sh", 0),
        ("abs", true, "/usr/bin", 0),
        ("abs", false, "/abs", 0),
        ("abs/", false, "/usr/bin", 0),
        ("chain/rel", true, "/usr/lib/x", 0),
        ("chain/rel", false, "/usr/bin/rel", 0),
        ("out", true, "/usr/bin/sh", 0),
        ("../../usr", true, "/usr", 0),
        ("abs/..", true, "/usr", 0),
        ("abs/new/deep", true, "/usr/bin/new/deep", 2),
        ("new/../abs/x", true, "/usr/bin/x", 1),
        ("new/../../..", true, "/", 0),
    ] {
        let resolved = view.resolve(text, follow).expect(text);
        assert_eq!(resolved.path.to_string(), want, "{text}");
        assert_eq!(resolved.missing, missing, "{text}");
        assert_eq!(resolved.found.is_none(), missing > 0, "{text}");
    }
    assert!(matches!(
        view.resolve("loop/x", true),
        Err(Error::Loop { .. })
    ));
    for text in ["usr/bin/sh/x", "out/..", "abs/sh/"] {
        let resolved = view.resolve(text, true);
        let not_a_directory = matches!(resolved, Err(Error::NotDirectory { .. }));
        assert!(not_a_directory || text.ends_with('/'), "{text}");
    }
    let bare = RootView::new(&[]);
    assert_eq!(bare.resolve("/a/b", true).expect("a bare root").missing, 2);
}

#[test]
fn accounts_come_from_the_highest_layer() {
    let view = view(&[
        &[
            "f etc/group users:x:100:app\n",
            "f etc/passwd app:x:7:7::/:\n",
        ],
        &["l etc/group /nowhere", "f etc/passwd app:x:8:8::/:\n"],
    ]);
    let place = view.content_of(&path("etc/passwd")).expect("it is there");
    assert_eq!(view.account_file(&place), Some(&b"app:x:8:8::/:\n"[..]));
    assert_eq!(view.content_of(&path("etc/group")), None);
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"skipped: owners and devices need the real root\n",
        );
    }
    is_root
}

fn unpack_to(blob: &[u8], dest: &Path, identity: Identity, lowers: &RootView) -> Arc<Toc> {
    let options = unpack::Options {
        lowers: lowers.clone(),
        ..unpack::Options::new(identity)
    };
    let layer = unpack::unpack(blob, dest, &options).expect("an unpacked layer");
    layer.toc
}

fn diff_of(upper: &Path, lowers: &RootView, options: &diff::Options) -> Finished {
    let mut layer = LayerWriter::new(plain(), Vec::new()).expect("a writer");
    diff::diff(upper, lowers, options, &mut layer).expect("a diff");
    layer.finish().expect("a layer").0
}

/// Everything in a random layer belongs to root, so that any identity can hold it.
fn random_entry() -> impl Strategy<Value = (String, u8, u8)> {
    let name = prop::sample::select(vec!["a", "b", "b.c", "\u{fc}"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    (path, 0u8..8, any::<u8>())
}

/// Owners and modes are of `ids`, in turn; without any everything is root's.
fn random_layer(entries: Vec<(String, u8, u8)>, ids: &[(u32, u32, u32)]) -> (Arc<Toc>, Vec<u8>) {
    let is_leaf = |kind: u8| kind > 3;
    let mut kinds: BTreeMap<TreePath, (u8, u8)> = BTreeMap::new();
    for (name, kind, seed) in entries {
        let place = path(&name);
        let fits = kinds.iter().all(|(other, &(other_kind, _))| {
            let below_leaf = place.starts_with(other) && is_leaf(other_kind);
            let leaf_above = other.starts_with(&place) && is_leaf(kind);
            *other == place || !(below_leaf || leaf_above)
        });
        let same = kinds.keys().any(|other| *other == place);
        if fits && !same {
            kinds.insert(place, (kind, seed));
        }
    }
    let mut layer = LayerWriter::new(plain(), Vec::new()).expect("a writer");
    let mut first_file = None;
    for (place, (kind, seed)) in kinds {
        let text = vec![seed; usize::from(seed) * 20];
        let kind = match kind {
            0..=1 => Kind::Dir,
            2 => {
                layer
                    .append(&EntryMeta::dir(place.clone()), None)
                    .expect("a directory");
                layer.opaque(&place).expect("an opaque mark");
                continue;
            }
            3 => {
                layer.whiteout(&place).expect("a whiteout");
                Kind::Dir
            }
            4 => {
                layer.whiteout(&place).expect("a whiteout");
                continue;
            }
            5 => Kind::Symlink {
                target: text[..usize::from(seed % 40)].to_vec(),
            },
            6 if first_file.is_some() => Kind::Hardlink {
                target: first_file.clone().unwrap_or_else(TreePath::root),
            },
            _ => Kind::File(text.len() as u64),
        };
        let kind = match kind {
            Kind::Symlink { target } if target.is_empty() || target.contains(&0) => Kind::Fifo,
            kind => kind,
        };
        let content: Option<&mut dyn Read> = match kind {
            Kind::File(_) => {
                first_file = first_file.or(Some(place.clone()));
                Some(&mut &text[..])
            }
            _ => None,
        };
        let meta = EntryMeta {
            kind,
            mode: 0o700 | u32::from(seed),
            mtime: i64::from(seed),
            ..EntryMeta::dir(place)
        };
        // Names of one file share owner, mode and time; links have no mode of their own.
        let meta = match meta.kind {
            Kind::Symlink { .. } => EntryMeta {
                mode: 0o777,
                ..meta
            },
            Kind::Hardlink { .. } | Kind::File(_) => EntryMeta {
                mode: 0o644,
                mtime: 9,
                ..meta
            },
            _ => meta,
        };
        let turn = match meta.kind {
            Kind::Hardlink { .. } | Kind::File(_) => 0,
            _ => usize::from(seed) % ids.len().max(1),
        };
        let meta = match (ids.get(turn), &meta.kind) {
            (None, _) => meta,
            (Some(&(uid, gid, _)), Kind::Symlink { .. }) => EntryMeta { uid, gid, ..meta },
            (Some(&(uid, gid, mode)), _) => EntryMeta {
                uid,
                gid,
                mode,
                ..meta
            },
        };
        layer.append(&meta, content).expect("an entry");
    }
    let (finished, blob) = layer.finish().expect("a layer");
    (finished.toc, blob)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Layer → tree → layer: over the same lower layer both show the same files.
    #[test]
    fn a_tree_says_what_its_layer_says(
        below in prop::collection::vec(random_entry(), 0..16),
        above in prop::collection::vec(random_entry(), 0..16),
    ) {
        let (below, _) = random_layer(below, &[]);
        let (above, blob) = random_layer(above, &[]);
        let lowers = RootView::new(std::slice::from_ref(&below));
        let dir = tempfile::tempdir().expect("a directory");
        let tree = dir.path().join("tree");
        let toc = unpack_to(&blob, &tree, Identity::Single, &lowers);
        prop_assert_eq!(&toc, &above);
        let again = diff_of(&tree, &lowers, &diff::Options::new(Identity::Single)).toc;
        let want = seen(&RootView::new(&[below.clone(), above]));
        let got = seen(&RootView::new(&[below, again]));
        prop_assert_eq!(got, want);
        let left: Vec<_> = fs::read_dir(dir.path()).expect("a directory").collect();
        prop_assert_eq!(left.len(), 1, "nothing is left beside the tree");
    }
}

#[test]
fn implied_directories_look_as_below() {
    let mut base = LayerWriter::new(plain(), Vec::new()).expect("a writer");
    let tmp = EntryMeta {
        mode: 0o1777,
        mtime: 77,
        ..EntryMeta::dir(path("tmp"))
    };
    base.append(&tmp, None).expect("tmp");
    let (base, _) = base.finish().expect("a layer");
    let lowers = RootView::new(&[base.toc]);
    let (_, blob) = layer(&["f tmp/x x"]);
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("tree");
    unpack_to(&blob, &tree, Identity::Single, &lowers);
    let tmp = fs::metadata(tree.join("tmp")).expect("tmp");
    assert_eq!((tmp.mode() & 0o7777, tmp.mtime()), (0o1777, 77));
}

#[test]
fn nothing_appears_unless_it_is_whole_and_right() {
    let (_, blob) = layer(&["d a", "f a/b text"]);
    let dir = tempfile::tempdir().expect("a directory");
    let dest = dir.path().join("tree");
    let options = unpack::Options::new(Identity::Single);
    let cut = unpack::unpack(&blob[..1026], &dest, &options);
    assert!(matches!(cut, Err(Error::Layer(_) | Error::Tree { .. })));
    let options = unpack::Options {
        expected: Some(crate::layer::DiffId(crate::registry::Digest::sha256(
            b"other",
        ))),
        ..options
    };
    let wrong = unpack::unpack(&blob[..], &dest, &options);
    assert!(matches!(wrong, Err(Error::WrongLayer { .. })));
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
    fs::create_dir(&dest).expect("a directory");
    fs::write(dest.join("mine"), "").expect("a file");
    let options = unpack::Options::new(Identity::Single);
    let occupied = unpack::unpack(&blob[..], &dest, &options);
    assert!(matches!(occupied, Err(Error::Host { .. })));
    assert!(dest.join("mine").exists());
}

/// What the reader lets through still may not follow links on the disk.
#[test]
fn replaced_entries_do_not_write_through_links() {
    let dir = tempfile::tempdir().expect("a directory");
    let outside = dir.path().join("outside");
    fs::write(&outside, "untouched").expect("a file");
    let source = dir.path().join("source");
    fs::create_dir(&source).expect("a directory");
    // The same name first as a link to the outside, then as a file, a directory, a pipe.
    let archive = dir.path().join("archive.tar");
    let tar = |arguments: &[&str]| {
        let mut command = Command::new("tar");
        command.arg("-C").arg(&source).arg("-rf").arg(&archive);
        command
            .args(arguments)
            .status()
            .is_ok_and(|status| status.success())
    };
    let reset = |name: &str| {
        let _ = fs::remove_file(source.join(name));
    };
    for name in ["file", "dir", "link"] {
        symlink(&outside, source.join(name)).expect("a link");
    }
    if !tar(&["file", "dir", "link"]) {
        return;
    }
    ["file", "dir", "link"].iter().for_each(|name| reset(name));
    fs::write(source.join("file"), "inside").expect("a file");
    fs::create_dir(source.join("dir")).expect("a directory");
    fs::write(source.join("dir/x"), "inside").expect("a file");
    fs::hard_link(source.join("file"), source.join("link")).expect("a link");
    assert!(tar(&["file", "dir", "link"]));
    let tree = dir.path().join("tree");
    let blob = fs::read(&archive).expect("the archive");
    unpack_to(&blob, &tree, Identity::Single, &RootView::new(&[]));
    assert_eq!(fs::read_to_string(&outside).expect("outside"), "untouched");
    for name in ["file", "dir/x", "link"] {
        let text = fs::read_to_string(tree.join(name)).expect(name);
        assert_eq!(text, "inside", "{name}");
        assert!(
            !fs::symlink_metadata(tree.join(name))
                .expect(name)
                .is_symlink()
        );
    }
}

#[test]
fn holes_are_zeros() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().expect("a directory");
    let file = fs::File::create(dir.path().join("sparse")).expect("a file");
    file.write_all_at(b"begin", 0).expect("data");
    file.write_all_at(b"middle", 5_000_000).expect("data");
    file.set_len(9_000_000).expect("a hole");
    let mut want = vec![0; 9_000_000];
    want[..5].copy_from_slice(b"begin");
    want[5_000_000..5_000_006].copy_from_slice(b"middle");
    let options = diff::Options::new(Identity::Single);
    let toc = diff_of(dir.path(), &RootView::new(&[]), &options).toc;
    let entry = toc.get(&path("sparse")).expect("the file");
    let Kind::File(content) = entry.kind else {
        panic!("{entry:?}");
    };
    assert_eq!(content.digest, crate::registry::Digest::sha256(&want));
}

#[test]
fn jobs_speak_json() {
    let (base, blob) = layer(&["d a", "f a/b text", "f a/c text"]);
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("blob"), &blob).expect("a blob");
    let request = unpack::Request {
        blob: at("blob"),
        encoding: Encoding::Detect,
        tree: at("half"),
        identity: Identity::Single,
        notes: Notes::User,
        expected: None,
        toc: at("base.toc"),
    };
    fs::create_dir(at("half")).expect("a directory");
    let request = serde_json::to_vec(&request).expect("JSON");
    let answer = unpack::job(&request).expect("an unpacked layer");
    let answer: unpack::Response = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!(answer.diff_id.0, crate::registry::Digest::sha256(&blob));
    let stored = fs::read(at("base.toc")).expect("a table");
    assert_eq!(Toc::from_bytes(&stored).expect("a table"), *base);
    let request = unpack::Completion {
        tree: at("half"),
        dest: at("tree"),
        identity: Identity::Single,
        notes: Notes::User,
        toc: at("base.toc"),
        lowers: Vec::new(),
    };
    let request = serde_json::to_vec(&request).expect("JSON");
    let answer = unpack::complete_job(&request).expect("a whole tree");
    assert_eq!(answer, b"null");
    assert!(at("tree/a/b").is_file() && !at("half").exists());
    fs::write(at("tree/a/b"), "another text").expect("a file");
    let request = diff::Request {
        upper: at("tree"),
        lowers: vec![at("base.toc")],
        identity: Identity::Single,
        notes: Notes::User,
        exclude: vec![path("a/c")],
        compression: Compression::Gzip,
        level: Some(1),
        threads: 2,
        clamp_mtime: Some(5),
        blob: Some(at("upper.tar.gz")),
        toc: at("upper.toc"),
    };
    let request = serde_json::to_vec(&request).expect("JSON");
    let answer = diff::job(&request).expect("a layer");
    let answer: diff::Response = serde_json::from_slice(&answer).expect("JSON");
    let blob = fs::read(at("upper.tar.gz")).expect("a blob");
    assert_eq!(answer.digest, crate::registry::Digest::sha256(&blob));
    assert!(!answer.empty);
    let error = unpack::job(b"{").expect_err("no request");
    assert!(error.contains("EOF"), "{error}");
    let error = diff::job(&request[..]).and(unpack::job(
        &serde_json::to_vec(&serde_json::json!({
            "blob": "/nonexistent", "tree": at("x"), "identity": "real", "notes": "user",
            "toc": at("y"),
        }))
        .expect("JSON"),
    ));
    let error = error.expect_err("no blob");
    assert!(error.starts_with("cannot open /nonexistent: "), "{error}");
}

#[test]
fn privileged_owners_devices_and_attributes() {
    if !is_root() {
        return;
    }
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let mut writer = LayerWriter::new(plain(), Vec::new()).expect("a writer");
    for (name, kind, mode, uid) in [
        ("dir", Kind::Dir, 0o2750, 7),
        ("dir/null", Kind::Char { major: 1, minor: 3 }, 0o666, 0),
        ("disk", Kind::Block { major: 8, minor: 1 }, 0o660, 6),
        ("fifo", Kind::Fifo, 0o600, 3_000_000),
        (
            "link",
            Kind::Symlink {
                target: b"dir".to_vec(),
            },
            0o777,
            9,
        ),
        ("ping", Kind::File(4), 0o755, 5),
        ("suid", Kind::File(4), 0o4755, 1000),
    ] {
        let xattrs = match name {
            "ping" => vec![
                (b"security.capability".to_vec(), capability.clone()),
                (b"trusted.overlay.metacopy".to_vec(), Vec::new()),
                (b"user.overlay.redirect".to_vec(), b"/etc".to_vec()),
            ],
            _ => Vec::new(),
        };
        let meta = EntryMeta {
            path: path(name),
            kind,
            mode,
            uid,
            gid: uid,
            mtime: 1234,
            xattrs,
        };
        let mut text = &b"text"[..];
        let content: Option<&mut dyn Read> = match meta.kind {
            Kind::File(_) => Some(&mut text),
            _ => None,
        };
        writer.append(&meta, content).expect(name);
    }
    let (finished, blob) = writer.finish().expect("a layer");
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("tree");
    let lowers = RootView::new(&[]);
    unpack_to(&blob, &tree, Identity::Real, &lowers);
    let stat = |name: &str| fs::symlink_metadata(tree.join(name)).expect(name);
    assert_eq!(
        (stat("suid").uid(), stat("suid").mode() & 0o7777),
        (1000, 0o4755)
    );
    assert_eq!((stat("dir").gid(), stat("dir").mtime()), (7, 1234));
    assert!(stat("dir/null").file_type().is_char_device());
    assert_eq!((stat("link").uid(), stat("link").mtime()), (9, 1234));
    // The notes of overlayfs did not reach the disk, so the diff has nothing to refuse.
    let again = diff_of(&tree, &lowers, &diff::Options::new(Identity::Real)).toc;
    let want = finished.toc.entries().iter().map(|entry| {
        let mut entry = entry.clone();
        entry
            .xattrs
            .retain(|(name, _)| name == b"security.capability");
        entry
    });
    assert_eq!(again.entries(), want.collect::<Vec<_>>());
}

/// Lets the kernel make the upper directory, over trees of which the highest is first.
/// `None` where overlayfs cannot be mounted.
fn over(lowers: &[&Path], script: &str) -> Option<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::tempdir_in(lowers.first()?.parent()?).ok()?;
    let lowers: Vec<String> = lowers.iter().map(|it| it.display().to_string()).collect();
    for name in ["upper", "work", "merged"] {
        fs::create_dir(dir.path().join(name)).ok()?;
    }
    let mount = format!(
        "set -e; cd {}; mount -t overlay overlay \
         -o lowerdir={},upperdir=upper,workdir=work,redirect_dir=off,metacopy=off merged; \
         touch mounted; cd merged; {script}",
        dir.path().display(),
        lowers.join(":")
    );
    let status = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", &mount])
        .status()
        .ok()?;
    if !dir.path().join("mounted").exists() {
        return None;
    }
    assert!(status.success(), "the script failed: {script}");
    let upper = dir.path().join("upper");
    Some((dir, upper))
}

#[test]
fn privileged_the_kernel_writes_what_is_read() {
    if !is_root() {
        return;
    }
    let (base, blob) = layer(&[
        "d dir",
        "f dir/1 one",
        "f dir/2 two",
        "d dir/sub",
        "f dir/sub/x x",
        "f gone x",
        "d keep",
        "f keep/file same",
        "d turned",
        "f turned/x x",
    ]);
    let lowers = RootView::new(std::slice::from_ref(&base));
    let dir = tempfile::tempdir().expect("a directory");
    let lower = dir.path().join("lower");
    unpack_to(&blob, &lower, Identity::Real, &lowers);
    let script = "rm gone; rm -r dir; mkdir dir; echo new > dir/1; mkdir dir/sub; \
        rm -r turned; echo file > turned; ln keep/file keep/hard; ln -s keep link; \
        mkfifo fifo; chown 12:34 keep/file; touch -d @5.75 dir/1; : > temporary; rm temporary; \
        cp -a /bin/true ping; setcap cap_net_raw+p ping 2>/dev/null || true";
    let Some((_dir, upper)) = over(&[&lower], script) else {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"skipped: no overlayfs here\n");
        return;
    };
    let toc = diff_of(&upper, &lowers, &diff::Options::new(Identity::Real)).toc;
    let removed: Vec<String> = toc.whiteouts().iter().map(ToString::to_string).collect();
    assert_eq!(removed, ["/dir/2", "/dir/sub/x", "/gone"]);
    assert!(toc.opaques().is_empty());
    let there: Vec<String> = toc
        .entries()
        .iter()
        .map(|entry| entry.path.to_string())
        .collect();
    let want = [
        "/",
        "/dir",
        "/dir/1",
        "/dir/sub",
        "/fifo",
        "/keep",
        "/keep/file",
        "/keep/hard",
        "/link",
        "/ping",
        "/turned",
    ];
    assert_eq!(there, want);
    let get = |name| toc.get(&path(name)).expect(name);
    let target = path("keep/file");
    assert_eq!(get("keep/hard").kind, Kind::Hardlink { target });
    assert_eq!((get("keep/file").uid, get("keep/file").gid), (12, 34));
    assert_eq!(get("dir/1").mtime, 5);
    let merged = RootView::new(&[base, toc.clone()]);
    assert_eq!(merged.lookup(&path("dir/2")), None);
    assert_eq!(merged.children(&path("dir/sub")), []);
}

#[test]
fn privileged_the_kernel_reads_what_is_written() {
    if !is_root() {
        return;
    }
    let (base, base_blob) = layer(&["d a", "f a/1 one", "f a/2 two", "d b", "f b/x x", "f c c"]);
    let (top, top_blob) = layer(&["w a/1", "f a/3 three", "d b", "o b", "f b/y y", "w c"]);
    let dir = tempfile::tempdir().expect("a directory");
    let lowers = RootView::new(std::slice::from_ref(&base));
    let at = |name: &str| dir.path().join(name);
    unpack_to(&base_blob, &at("base"), Identity::Real, &RootView::new(&[]));
    unpack_to(&top_blob, &at("top"), Identity::Real, &lowers);
    fs::create_dir(at("merged")).expect("a directory");
    let script = format!(
        "cd {} && mount -t overlay overlay -o lowerdir=top:base merged && touch mounted && \
         cd merged && find . | sort > ../list",
        dir.path().display()
    );
    let status = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", &script])
        .status();
    if !at("mounted").exists() {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"skipped: no overlayfs here\n");
        return;
    }
    assert!(status.is_ok_and(|status| status.success()));
    let list = fs::read_to_string(at("list")).expect("a list");
    let mut want: Vec<String> = RootView::new(&[base, top])
        .walk(&TreePath::root())
        .map(|found| format!(".{}", found.entry.path))
        .chain([".".to_owned()])
        .collect();
    want.sort();
    assert_eq!(list.lines().collect::<Vec<_>>(), want);
    assert_eq!(
        fs::metadata(at("top")).expect("top").permissions().mode() & 0o7777,
        0o755
    );
}
