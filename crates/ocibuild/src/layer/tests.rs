//! Writing and reading against each other, against other tools, and against tars
//! that no honest tool would write.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use flate2::write::GzEncoder;
use ocibuild_registry::Digest;
use proptest::prelude::*;

use super::*;

fn path(text: impl AsRef<[u8]>) -> TreePath {
    TreePath::parse(text).expect("a valid path")
}

fn meta(name: &str, kind: Kind<u64>) -> EntryMeta {
    EntryMeta {
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: 1_700_000_000,
        ..EntryMeta::dir(path(name))
    }
}

fn options(compression: Compression, threads: usize) -> Options {
    Options {
        compression,
        threads,
        ..Options::default()
    }
}

/// Writes a layer; a file's content is `text`, its size must be in `meta`.
fn write(options: Options, entries: &[(EntryMeta, &[u8])]) -> (Finished, Vec<u8>) {
    let mut layer = LayerWriter::new(options, Vec::new()).expect("a writer");
    for (meta, text) in entries {
        let mut content = *text;
        layer
            .append(meta, Some(&mut content))
            .expect("an entry in order");
    }
    layer.finish().expect("a whole layer")
}

fn read(blob: &[u8]) -> Result<ReadLayer, Error> {
    read_layer(blob, Encoding::Detect, &Limits::default(), &mut ())
}

fn file(name: &str, text: &'static [u8]) -> (EntryMeta, &'static [u8]) {
    (meta(name, Kind::File(text.len() as u64)), text)
}

fn every_kind() -> Vec<(EntryMeta, &'static [u8])> {
    let long = "directory-with-a-long-name/".repeat(6);
    let capability = b"\x01\0\0\x02\0\n\0\0=\0\0\0\n\0\0\0\0\0\0\0".to_vec();
    let with_xattrs = EntryMeta {
        xattrs: vec![
            (b"security.capability".to_vec(), capability),
            (b"user.empty".to_vec(), Vec::new()),
        ],
        ..file("bin/ping", b"#!").0
    };
    let rich = EntryMeta {
        uid: 3_000_000,
        gid: u32::MAX - 1,
        mode: 0o7755,
        ..file("rich", b"x").0
    };
    let old = EntryMeta {
        mtime: -1,
        ..file("old", b"").0
    };
    let raw = EntryMeta {
        path: path(b"raw-\xff\xfe"),
        ..file("x", b"bytes").0
    };
    let mut entries = vec![
        (meta("", Kind::Dir), &b""[..]),
        (meta("bin", Kind::Dir), b""),
        (with_xattrs, b"#!"),
        (
            meta("dev/null", Kind::Char { major: 1, minor: 3 }),
            &b""[..],
        ),
        (meta("dev/sda", Kind::Block { major: 8, minor: 0 }), b""),
        file("etc/group", b"users:x:100:\n"),
        file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
        (meta("fifo", Kind::Fifo), b""),
        file(&format!("{long}file"), b"deep"),
        (
            meta(
                "link",
                Kind::Symlink {
                    target: long.clone().into(),
                },
            ),
            b"",
        ),
        (old, b""),
        (raw, b"bytes"),
        (rich, b"x"),
        (
            meta(
                "same",
                Kind::Hardlink {
                    target: path(format!("{long}file")),
                },
            ),
            b"",
        ),
    ];
    entries.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    entries
}

#[test]
fn an_empty_layer_is_two_blocks_of_zeros() {
    let (finished, blob) = write(options(Compression::None, 1), &[]);
    assert_eq!(blob, [0; 1024]);
    let known = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    assert_eq!(finished.diff_id.to_string(), known);
    assert_eq!(finished.digest, finished.diff_id.0);
    assert!(finished.toc.is_empty());
    let read = read(&blob).expect("a valid layer");
    assert_eq!(
        (read.diff_id, read.toc),
        (finished.diff_id, finished.toc.clone())
    );
}

#[test]
fn what_is_written_is_read_back() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        for threads in [1, 2] {
            let (finished, blob) = write(options(compression, threads), &every_kind());
            assert_eq!(finished.digest, Digest::sha256(&blob));
            assert_eq!(finished.size, blob.len() as u64);
            let read = read(&blob).expect("a valid layer");
            assert_eq!(read.diff_id, finished.diff_id);
            assert_eq!(read.uncompressed_size, finished.uncompressed_size);
            assert_eq!(read.toc, finished.toc);
            let accounts = read.toc.accounts();
            assert_eq!(
                accounts.get(&path("etc/group")),
                Some(&b"users:x:100:\n"[..])
            );
        }
    }
}

#[test]
fn the_table_survives_its_form_on_disk_and_no_damage() {
    let (finished, _) = write(options(Compression::None, 1), &every_kind());
    let bytes = finished.toc.to_bytes();
    assert_eq!(
        Toc::from_bytes(&bytes).expect("a whole table"),
        *finished.toc
    );
    for end in 0..bytes.len() {
        assert!(Toc::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        assert!(Toc::from_bytes(&damaged).is_err(), "changed at {at}");
    }
}

/// More than a block, partly compressible, the same in every run.
fn large_content() -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let bytes = (0..5_300_000u32).map(|at| match (at >> 12) % 3 {
        0 => next(),
        _ => b"the quick brown fox "[at as usize % 20],
    });
    bytes.collect()
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let content = large_content();
    let entries = [(
        meta("large", Kind::File(content.len() as u64)),
        &content[..],
    )];
    for compression in [Compression::Gzip, Compression::Zstd] {
        let (alone, blob) = write(options(compression, 1), &entries);
        for threads in [0, 2, 3, 8] {
            let (finished, other) = write(options(compression, threads), &entries);
            assert!(other == blob, "{compression:?} with {threads} threads");
            assert_eq!(finished, alone);
        }
        assert_eq!(read(&blob).expect("a valid layer").toc, alone.toc);
    }
}

#[test]
fn every_level_is_readable() {
    let content = large_content();
    let content = &content[..1_200_000];
    let entries = [(meta("f", Kind::File(content.len() as u64)), content)];
    let plain = write(options(Compression::None, 1), &entries).0.diff_id;
    for (compression, levels) in [(Compression::Gzip, -1..=10), (Compression::Zstd, -1..=4)] {
        for level in levels {
            let options = Options {
                level: Some(level),
                ..options(compression, 1)
            };
            let (_, blob) = write(options, &entries);
            let layer = read(&blob).expect("a valid layer");
            assert_eq!(layer.diff_id, plain, "{compression:?} {level}");
        }
    }
}

/// Runs a program over a blob; `None` where it is not installed.
fn judge(program: &str, arguments: &[&str], blob: &[u8]) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take().expect("a pipe");
    let blob = blob.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&blob));
    let output = child.wait_with_output().expect("the output");
    feeder
        .join()
        .expect("no panic")
        .expect("everything is read");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn other_tools_accept_what_is_written() {
    let content = large_content();
    let mut entries = every_kind();
    entries.push((meta("zzz", Kind::File(content.len() as u64)), &content[..]));
    let (finished, blob) = write(options(Compression::Gzip, 2), &entries);
    judge("gzip", &["-t"], &blob);
    let (_, frames) = write(options(Compression::Zstd, 2), &entries);
    judge("zstd", &["-qt"], &frames);
    if let Some(list) = judge("tar", &["--numeric-owner", "-tvzf", "-"], &blob) {
        assert_eq!(list.lines().count(), entries.len());
        assert!(list.contains("-rwsr-sr-t 3000000/4294967294"), "{list}");
        assert!(list.contains("same link to directory-with"), "{list}");
        assert!(
            list.contains("bin/\n"),
            "directories end in a slash: {list}"
        );
    }
    let script = "import sys,tarfile\n\
        t=tarfile.open(fileobj=sys.stdin.buffer,mode='r|gz')\n\
        for m in t: print(m.name.encode('utf8','surrogateescape'),m.uid,m.gid,m.mtime,len(m.pax_headers))";
    if let Some(list) = judge("python3", &["-c", script], &blob) {
        assert_eq!(list.lines().count(), entries.len());
        assert!(
            list.contains("b'rich' 3000000 4294967294 1700000000"),
            "{list}"
        );
        assert!(list.contains(r"b'raw-\xff\xfe' 1 2"), "{list}");
        assert!(list.contains("b'old' 1 2 -1"), "{list}");
    }
    assert_eq!(
        finished.media_type,
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
}

#[test]
fn whiteouts_and_opaque_marks() {
    let mut layer = LayerWriter::new(options(Compression::None, 1), Vec::new()).expect("a writer");
    layer.append(&meta("a", Kind::Dir), None).expect("a");
    layer.opaque(&path("a")).expect("opaque");
    layer.whiteout(&path("a/old")).expect("whiteout");
    layer
        .append(&meta("a/old", Kind::Dir), None)
        .expect("replacement");
    layer.whiteout(&path("b/c/gone")).expect("whiteout");
    let (finished, blob) = layer.finish().expect("a layer");
    assert_eq!(finished.toc.whiteouts(), [path("a/old"), path("b/c/gone")]);
    assert_eq!(finished.toc.opaques(), [path("a")]);
    let implied = finished
        .toc
        .get(&path("b/c"))
        .expect("an implied directory");
    assert!(implied.implicit && implied.kind.is_dir());
    assert_eq!(read(&blob).expect("a layer").toc, finished.toc);
    // Whiteouts have mode 0 and time 0.
    let at = blob
        .windows(14)
        .position(|window| window == b"b/c/.wh.gone\0\0")
        .expect("the header");
    assert_eq!(&blob[at + 100..at + 108], b"0000000\0");
    assert_eq!(&blob[at + 136..at + 148], b"00000000000\0");
}

#[test]
fn entries_must_come_in_order_and_fit() {
    type Steps<'a> = &'a dyn Fn(&mut LayerWriter<Vec<u8>>) -> Result<(), Error>;
    let refused = |steps: Steps<'_>| {
        let mut layer = LayerWriter::new(Options::default(), Vec::new()).expect("a writer");
        let error = steps(&mut layer).expect_err("it should be refused");
        let after = layer.append(&meta("zz", Kind::Dir), None);
        assert!(matches!(after, Err(Error::Incomplete)));
        assert!(matches!(layer.finish(), Err(Error::Incomplete)));
        error
    };
    let twice = refused(&|layer| {
        layer.append(&meta("a", Kind::Dir), None)?;
        layer.append(&meta("a", Kind::Dir), None)
    });
    assert_eq!(twice.to_string(), "/a does not come after /a in walk order");
    let back = refused(&|layer| {
        layer.append(&meta("a.b", Kind::Dir), None)?;
        layer.append(&meta("a/b", Kind::Dir), None)
    });
    assert!(matches!(back, Error::Order { .. }));
    let short = refused(&|layer| layer.append(&meta("f", Kind::File(5)), Some(&mut &b"1234"[..])));
    assert_eq!(
        short.to_string(),
        "/f changed while it was read: expected 5 bytes, found 4"
    );
    let long = refused(&|layer| layer.append(&meta("f", Kind::File(3)), Some(&mut &b"1234"[..])));
    assert!(long.to_string().ends_with("expected 3 bytes, found more"));
    let below = refused(&|layer| {
        layer.append(&meta("a", Kind::File(0)), None)?;
        layer.append(&meta("a/b", Kind::Dir), None)
    });
    assert!(matches!(below, Error::Conflict { .. }));
    let link = Kind::Hardlink { target: path("b") };
    let forward = refused(&|layer| layer.append(&meta("a", link.clone()), None));
    assert!(matches!(forward, Error::Conflict { .. }));
    let disguised = refused(&|layer| layer.append(&meta("a/.wh.b", Kind::File(0)), None));
    assert!(matches!(disguised, Error::Unrepresentable { .. }));
    let root = refused(&|layer| layer.whiteout(&TreePath::root()));
    assert!(matches!(root, Error::Unrepresentable { .. }));
}

#[test]
fn a_full_disk_is_an_error_with_and_without_threads() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            match self.0.checked_sub(bytes.len()) {
                Some(left) => self.0 = left,
                None => return Err(std::io::ErrorKind::StorageFull.into()),
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let content = large_content();
    let meta = meta("large", Kind::File(content.len() as u64));
    for threads in [1, 3] {
        for room in [0, 700_000] {
            let options = options(Compression::Gzip, threads);
            let mut layer = LayerWriter::new(options, Full(room)).expect("a writer");
            let appended = layer.append(&meta, Some(&mut &content[..]));
            let error = match appended {
                Err(error) => error,
                Ok(()) => layer.finish().err().expect("it cannot be whole"),
            };
            let Error::Write(source) = error else {
                panic!("{error}");
            };
            assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
        }
    }
}

#[test]
fn times_are_clamped() {
    let options = Options {
        clamp_mtime: Some(1000),
        ..options(Compression::None, 1)
    };
    let early = EntryMeta {
        mtime: 10,
        ..meta("a", Kind::Dir)
    };
    let (finished, _) = write(options, &[(early, b""), (meta("b", Kind::Dir), b"")]);
    let time = |name| finished.toc.get(&path(name)).map(|entry| entry.mtime);
    assert_eq!((time("a"), time("b")), (Some(10), Some(1000)));
}

/// Tars made by hand.
mod hostile {
    use super::*;

    /// A header with a correct checksum.
    fn header(name: &[u8], kind: u8, size: u64, link: &[u8]) -> Vec<u8> {
        let mut block = vec![0; 512];
        block[..name.len()].copy_from_slice(name);
        block[100..107].copy_from_slice(b"0000644");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        sealed(block)
    }

    fn sealed(mut block: Vec<u8>) -> Vec<u8> {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    fn entry(name: &[u8], kind: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = header(name, kind, content.len() as u64, b"");
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn link(name: &[u8], kind: u8, target: &[u8]) -> Vec<u8> {
        header(name, kind, 0, target)
    }

    fn pax(records: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in records {
            pax::push_record(&mut bytes, key, value);
        }
        entry(b"PaxHeaders/x", b'x', &bytes)
    }

    fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = parts.concat();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    #[test]
    fn names_cannot_leave_the_tree() {
        for parts in [
            vec![entry(b"../x", b'0', b"")],
            vec![entry(b"a/../../x", b'0', b"")],
            vec![entry(b"/..", b'5', b"")],
            vec![pax(&[(b"path", b"../x")]), entry(b"x", b'0', b"")],
            vec![pax(&[(b"path", b"a\0b")]), entry(b"x", b'0', b"")],
            vec![entry(b"L", b'L', b"../../x\0"), entry(b"x", b'0', b"")],
            vec![link(b"x", b'1', b"../../etc/passwd")],
            vec![entry(b".wh...", b'0', b"")],
            vec![entry(b".wh..", b'0', b"")],
            vec![entry(b"a/.wh.", b'0', b"")],
            vec![entry(b".wh.a/b", b'0', b"")],
        ] {
            let error = read(&archive(&parts)).expect_err("it should be refused");
            assert!(matches!(error, Error::Path(_)), "{error}");
        }
    }

    #[test]
    fn hard_links_to_what_is_no_file_are_one_more() {
        let layer = read(&archive(&[
            link(b"link", b'2', b"gone"),
            link(b"twin", b'1', b"link"),
            link(b"triplet", b'1', b"twin"),
            entry(b"pipe", b'6', b""),
            link(b"pipe2", b'1', b"pipe"),
        ]))
        .expect("a valid layer");
        let kind = |name: &str| &layer.toc.get(&path(name)).expect("it is there").kind;
        let target = b"gone".to_vec();
        assert_eq!(*kind("triplet"), Kind::Symlink { target });
        assert_eq!(kind("twin"), kind("link"));
        assert_eq!(*kind("pipe2"), Kind::Fifo);
    }

    #[test]
    fn absolute_and_dotted_names_are_inside() {
        let layer = read(&archive(&[
            entry(b"./", b'5', b""),
            entry(b"/abs//./file", b'0', b"x"),
            link(b"./hard", b'1', b"/abs/file"),
        ]))
        .expect("a valid layer");
        let hard = layer.toc.get(&path("hard")).expect("hard");
        let target = path("abs/file");
        assert_eq!(hard.kind, Kind::Hardlink { target });
        assert!(
            layer
                .toc
                .get(&TreePath::root())
                .is_some_and(|root| !root.implicit)
        );
    }

    #[test]
    fn entries_that_cannot_stand_together() {
        for parts in [
            vec![link(b"a", b'2', b"/etc"), entry(b"a/passwd", b'0', b"")],
            vec![entry(b"a", b'0', b""), entry(b"a/.wh.b", b'0', b"")],
            vec![entry(b"a/b", b'0', b""), link(b"a", b'2', b"/etc")],
            vec![entry(b"a/.wh.b", b'0', b""), entry(b"a", b'0', b"")],
            vec![entry(b"a/.wh..wh..opq", b'0', b""), entry(b"a", b'0', b"")],
            vec![link(b"a", b'1', b"missing")],
            vec![link(b"a", b'1', b"a")],
            vec![entry(b"d", b'5', b""), link(b"a", b'1', b"d")],
            vec![
                entry(b"f", b'0', b""),
                link(b"g", b'1', b"f"),
                entry(b"f", b'0', b"x"),
            ],
            vec![link(b".", b'2', b"/etc")],
        ] {
            let error = read(&archive(&parts)).expect_err("it should be refused");
            assert!(matches!(error, Error::Conflict { .. }), "{error}");
        }
    }

    #[test]
    fn broken_archives() {
        let good = archive(&[entry(b"file", b'0', &[7; 600])]);
        for cut in [1, 511, 513, 1000] {
            assert!(read(&good[..cut]).is_err(), "cut at {cut}");
        }
        // Without the blocks at the end, and without the last padding, it is still whole.
        for cut in [512 + 600, 512 + 1024, 512 + 1024 + 512] {
            assert!(read(&good[..cut]).is_ok(), "cut at {cut}");
        }
        let mut changed = good.clone();
        changed[0] = b'x';
        assert!(matches!(
            read(&changed),
            Err(Error::Malformed { offset: 0, .. })
        ));
        let lone = [vec![0; 512], entry(b"hidden", b'0', b"")].concat();
        assert!(matches!(read(&lone), Err(Error::Malformed { .. })));
        for kind in *b"VMDNZ" {
            let error = read(&archive(&[entry(b"x", kind, b"")])).expect_err("unsupported");
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        }
        let whiteout_device = archive(&[entry(b"x", b'3', b"")]);
        assert!(matches!(
            read(&whiteout_device),
            Err(Error::Unsupported { .. })
        ));
        for records in [
            &[(&b"uid"[..], &b"4294967295"[..])],
            &[(b"gid", b"-1")],
            &[(b"size", b"-1")],
            &[(b"size", b"ten")],
            &[(b"mtime", b"soon")],
            &[(b"GNU.sparse.major", b"1")],
        ] {
            let parts = [pax(records), entry(b"x", b'0', b"")];
            assert!(read(&archive(&parts)).is_err(), "{records:?}");
        }
    }

    #[test]
    fn the_digest_covers_bytes_after_the_end() {
        let mut bytes = archive(&[entry(b"file", b'0', b"x")]);
        bytes.extend_from_slice(&b"tail".repeat(300));
        let layer = read(&bytes).expect("a valid layer");
        assert_eq!(layer.diff_id.0, Digest::sha256(&bytes));
        assert_eq!(layer.uncompressed_size, bytes.len() as u64);
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        let bytes = archive(&[entry(b"file", b'0', &[9; 5000])]);
        let (first, second) = bytes.split_at(777);
        let gzip = [first, second].map(|part| {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(part).expect("memory");
            encoder.finish().expect("memory")
        });
        let zstd = [first, second].map(|part| zstd::encode_all(part, 1).expect("memory"));
        for blob in [gzip.concat(), zstd.concat()] {
            assert_eq!(
                read(&blob).expect("valid").diff_id.0,
                Digest::sha256(&bytes)
            );
            assert!(read(&blob[..blob.len() - 3]).is_err(), "cut off");
        }
    }

    #[test]
    fn the_last_of_two_entries_counts() {
        let layer = read(&archive(&[
            entry(b"etc/passwd", b'0', b"old:x:1:1::/:"),
            entry(b"d", b'0', b""),
            entry(b"d", b'5', b""),
            entry(b"etc/passwd", b'0', b"new:x:1:1::/:"),
        ]))
        .expect("a valid layer");
        assert!(
            layer
                .toc
                .get(&path("d"))
                .is_some_and(|entry| entry.kind.is_dir())
        );
        let passwd = layer.toc.accounts().get(&path("etc/passwd"));
        assert_eq!(passwd, Some(&b"new:x:1:1::/:"[..]));
    }

    #[test]
    fn attributes_in_both_forms() {
        let value = b"line\n12 path=evil\n\0=";
        let layer = read(&archive(&[
            pax(&[
                (b"SCHILY.xattr.user.a", value),
                (b"LIBARCHIVE.xattr.user.b%3Dc", b"aGk"),
                (b"LIBARCHIVE.xattr.user.a", b"aGk="),
            ]),
            entry(b"file", b'0', b""),
        ]))
        .expect("a valid layer");
        let file = layer.toc.get(&path("file")).expect("the file");
        assert_eq!(
            file.xattrs,
            [
                (b"user.a".to_vec(), value.to_vec()),
                (b"user.b=c".to_vec(), b"hi".to_vec())
            ]
        );
    }

    #[test]
    fn old_ways_of_saying_things() {
        let mut binary = entry(b"big", b'0', b"");
        // GNU: ids and times in binary.
        binary[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0]);
        binary[136..148].copy_from_slice(&[0xff; 12]);
        let layer = read(&archive(&[
            entry(
                b"g",
                b'g',
                b"52 comment=0123456789012345678901234567890123456789\n",
            ),
            entry(b"old-dir/", 0, b""),
            entry(b"contiguous", b'7', b"x"),
            entry(b"././@LongLink", b'L', &[b'n'; 200]),
            entry(b"././@LongLink", b'K', &[b't'; 200]),
            link(b"short", b'2', b"short"),
            sealed(binary),
        ]))
        .expect("a valid layer");
        let get = |name: &[u8]| layer.toc.get(&path(name)).expect("an entry").clone();
        assert!(get(b"old-dir").kind.is_dir());
        assert!(matches!(get(b"contiguous").kind, Kind::File(content) if content.size == 1));
        let target = vec![b't'; 200];
        assert_eq!(get(&[b'n'; 200]).kind, Kind::Symlink { target });
        assert_eq!((get(b"big").uid, get(b"big").mtime), (3_000_000, -1));
    }

    #[test]
    fn limits_hold() {
        let limits = |change: &dyn Fn(&mut Limits)| {
            let mut limits = Limits::default();
            change(&mut limits);
            limits
        };
        let deep = [b"a/".repeat(600), b"f".to_vec()].concat();
        let many = archive(&[
            pax(&[(b"path", &deep), (b"SCHILY.xattr.user.x", &[1; 3000])]),
            entry(b"x", b'0', &[0; 10_000]),
            entry(b"y", b'0', b""),
        ]);
        assert!(read(&many).is_ok());
        for limits in [
            limits(&|limits| limits.entries = 1),
            limits(&|limits| limits.entries = 500),
            limits(&|limits| limits.size = 10_000),
            limits(&|limits| limits.name = 1000),
            limits(&|limits| limits.xattrs = 2999),
            limits(&|limits| limits.metadata = 100_000),
        ] {
            let result = read_layer(&many[..], Encoding::Plain, &limits, &mut ());
            assert!(matches!(result, Err(Error::Limit { .. })), "{limits:?}");
        }
        let huge = archive(&[entry(b"L", b'L', &[b'n'; 5000]), entry(b"x", b'0', b"")]);
        assert!(matches!(read(&huge), Err(Error::Limit { .. })));
        // Nothing is allocated for what is only announced.
        let announced = header(b"x", b'x', 1 << 32, b"");
        assert!(matches!(read(&announced), Err(Error::Limit { .. })));
    }

    #[test]
    fn a_visitor_sees_limits_in_the_content_too() {
        struct Taker(Vec<u8>);
        impl Visitor for Taker {
            type Error = Error;
            fn entry(&mut self, _: &EntryMeta, content: &mut dyn Read) -> Result<(), Error> {
                content
                    .read_to_end(&mut self.0)
                    .map_err(Error::from_content)?;
                Ok(())
            }
        }
        let bytes = archive(&[entry(b"x", b'0', &[5; 300_000])]);
        let mut taker = Taker(Vec::new());
        let all = read_layer(&bytes[..], Encoding::Plain, &Limits::default(), &mut taker);
        assert!(all.is_ok());
        assert_eq!(taker.0, [5; 300_000]);
        let limits = Limits {
            size: 200_000,
            ..Limits::default()
        };
        let cut = read_layer(&bytes[..], Encoding::Plain, &limits, &mut Taker(Vec::new()));
        assert!(matches!(cut, Err(Error::Limit { .. })));
    }

    #[test]
    fn sparse_files_are_whole_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("sparse");
        let handle = std::fs::File::create(&file).expect("a file");
        let mut want = vec![0; 3_000_000];
        for part in 0..40 {
            use std::os::unix::fs::FileExt;
            let at = part * 70_000;
            handle.write_all_at(&[b'd'; 10], at as u64).expect("data");
            want[at..at + 10].fill(b'd');
        }
        handle
            .set_len(want.len() as u64)
            .expect("a hole at the end");
        for (format, readable) in [("gnu", true), ("pax", false)] {
            let output = Command::new("tar")
                .args(["-S", "--format", format, "-cf", "-", "-C"])
                .arg(dir.path())
                .arg("sparse")
                .output();
            let Ok(output) = output else {
                return;
            };
            match read(&output.stdout) {
                Ok(layer) if readable => {
                    let content = Content {
                        size: want.len() as u64,
                        digest: Digest::sha256(&want),
                    };
                    let entry = layer.toc.get(&path("sparse")).expect("the file");
                    assert_eq!(entry.kind, Kind::File(content));
                }
                Err(error) => {
                    assert!(!readable, "{error}");
                    assert!(error.to_string().contains("sparse"), "{error}");
                }
                Ok(_) => panic!("PAX sparse files are not supported"),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 300,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Whatever the bytes, reading ends with a value.
        #[test]
        fn no_bytes_make_it_panic(
            changes in prop::collection::vec((0usize..6000, any::<u8>()), 1..12),
            seal in any::<bool>(),
        ) {
            let (_, mut blob) = write(options(Compression::None, 1), &every_kind());
            for (at, byte) in changes {
                let at = at % blob.len();
                blob[at] = byte;
                if seal {
                    let start = at / 512 * 512;
                    let block = sealed(blob[start..start + 512].to_vec());
                    blob[start..start + 512].copy_from_slice(&block);
                }
            }
            let _ = read(&blob);
        }
    }
}
