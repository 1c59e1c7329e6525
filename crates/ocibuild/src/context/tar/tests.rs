//! Archives made by hand: what they become, and what hostile ones may not do.

use std::fs as files;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};
use tempfile::TempDir;

use super::*;

/// Adds an entry with any name, valid or not.
fn entry(tar: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, link: &str, data: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory {
        0o750
    } else {
        0o640
    });
    header.set_mtime(1_600_000_000);
    header.set_size(data.len() as u64);
    header.set_cksum();
    tar.append(&header, data).unwrap();
}

fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (kind, name, text) in entries {
        match kind {
            EntryType::Regular => entry(&mut tar, *kind, name, "", text.as_bytes()),
            _ => entry(&mut tar, *kind, name, text, b""),
        }
    }
    tar.into_inner().unwrap()
}

fn unpack(bytes: &[u8]) -> Result<(TempDir, Extracted), TarError> {
    let dest = tempfile::tempdir().unwrap();
    let done = extract(bytes, dest.path(), &Limits::default())?;
    Ok((dest, done))
}

const PLAIN: &[(EntryType, &str, &str)] = &[
    (EntryType::Directory, "./", ""),
    (EntryType::Directory, "./dir/", ""),
    (EntryType::Regular, "./dir/file", "hello"),
    (EntryType::Symlink, "dir/link", "/anywhere/../at/all"),
    (EntryType::Link, "second", "dir/file"),
    (EntryType::Regular, "new/parent/file", ""),
];

#[test]
fn files_links_modes_and_times() {
    let (dest, done) = unpack(&archive(PLAIN)).unwrap();
    assert_eq!(
        done,
        Extracted {
            entries: 6,
            bytes: 5
        }
    );
    let file = dest.path().join("dir/file");
    assert_eq!(files::read_to_string(&file).unwrap(), "hello");
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o640);
    assert_eq!(metadata.mtime(), 1_600_000_000);
    assert_eq!(metadata.nlink(), 2);
    let directory = dest.path().join("dir").metadata().unwrap();
    assert_eq!(directory.mode() & 0o7777, 0o750);
    assert_eq!(directory.mtime(), 1_600_000_000);
    let link = dest.path().join("dir/link");
    assert_eq!(
        files::read_link(&link).unwrap(),
        Path::new("/anywhere/../at/all")
    );
    assert_eq!(link.symlink_metadata().unwrap().mtime(), 1_600_000_000);
    assert!(dest.path().join("new/parent/file").is_file());
}

#[test]
fn compressed_archives_are_recognized() {
    let plain = archive(PLAIN);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&plain).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let xz = lzma_rust2::XzOptions::with_preset(0);
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), xz).unwrap();
    xz.write_all(&plain).unwrap();
    for bytes in [
        gzip.finish().unwrap(),
        zstd::encode_all(&plain[..], 1).unwrap(),
        bzip2.finish().unwrap(),
        xz.finish().unwrap(),
    ] {
        let (_dest, done) = unpack(&bytes).unwrap();
        assert_eq!(done.entries, 6);
    }
    let error = unpack(b"PK\x03\x04").unwrap_err();
    assert!(matches!(error, TarError::Format("zip")), "{error}");
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    let (dest, _) = unpack(&archive(&[
        (EntryType::Regular, "a", "old"),
        (EntryType::Link, "b", "a"),
        (EntryType::Regular, "a", "new"),
        (EntryType::Symlink, "c", "nowhere"),
        (EntryType::Directory, "c/", ""),
        (EntryType::Regular, "c/file", ""),
    ]))
    .unwrap();
    let read = |name| files::read_to_string(dest.path().join(name)).unwrap();
    assert_eq!((read("a"), read("b")), ("new".to_owned(), "old".to_owned()));
    assert!(dest.path().join("c").symlink_metadata().unwrap().is_dir());
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["../x", "/x", "a/../../x", "a/..", ".."] {
        for kind in [EntryType::Regular, EntryType::Directory] {
            let error = unpack(&archive(&[(kind, name, "")])).unwrap_err();
            assert!(matches!(error, TarError::Name { .. }), "{name}: {error}");
        }
        let hard = [(EntryType::Regular, "f", ""), (EntryType::Link, "l", name)];
        let error = unpack(&archive(&hard)).unwrap_err();
        assert!(
            matches!(error, TarError::Name { .. }),
            "link to {name}: {error}"
        );
    }
}

#[test]
fn nothing_is_written_through_links() {
    let outside = tempfile::tempdir().unwrap();
    files::write(outside.path().join("file"), "mine").unwrap();
    let outside_text = outside.path().to_str().unwrap();
    let to_file = format!("{outside_text}/file");
    for entries in [
        vec![
            (EntryType::Symlink, "l", outside_text),
            (EntryType::Regular, "l/x", "evil"),
        ],
        vec![
            (EntryType::Symlink, "l", outside_text),
            (EntryType::Directory, "l/x/", ""),
        ],
        vec![
            (EntryType::Symlink, "l", outside_text),
            (EntryType::Link, "h", "l/file"),
        ],
        vec![
            (EntryType::Symlink, "l", outside_text),
            (EntryType::Symlink, "l/x", "/"),
        ],
    ] {
        let error = unpack(&archive(&entries)).unwrap_err();
        assert!(matches!(error, TarError::Name { .. }), "{error}");
    }
    // The link itself is replaced, what it points to is not touched.
    let (dest, _) = unpack(&archive(&[
        (EntryType::Symlink, "l", &to_file),
        (EntryType::Regular, "l", "new"),
        (EntryType::Symlink, "d", outside_text),
        (EntryType::Directory, "d/", ""),
    ]))
    .unwrap();
    assert_eq!(files::read_to_string(dest.path().join("l")).unwrap(), "new");
    assert_eq!(
        files::read_to_string(outside.path().join("file")).unwrap(),
        "mine"
    );
    assert_eq!(files::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn links_that_stand_in_the_destination_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let dest = tempfile::tempdir().unwrap();
    symlink(outside.path(), dest.path().join("dir")).unwrap();
    let bytes = archive(&[(EntryType::Regular, "dir/x", "evil")]);
    assert!(extract(&bytes[..], dest.path(), &Limits::default()).is_err());
    assert_eq!(files::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn devices_and_pipes_are_refused() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        let error = unpack(&archive(&[(kind, "x", "")])).unwrap_err();
        assert!(matches!(error, TarError::Kind { .. }), "{kind:?}: {error}");
    }
}

#[test]
fn limits_hold() {
    let dest = tempfile::tempdir().unwrap();
    let bytes = archive(&[
        (EntryType::Regular, "a", "12345"),
        (EntryType::Regular, "b", "6"),
    ]);
    let limits = |entries, bytes| Limits { entries, bytes };
    assert!(extract(&bytes[..], dest.path(), &limits(2, 6)).is_ok());
    for (limits, what) in [(limits(1, 6), "entries"), (limits(2, 5), "bytes")] {
        let error = extract(&bytes[..], dest.path(), &limits).unwrap_err();
        assert!(
            matches!(error, TarError::TooLarge { what: found, .. } if found == what),
            "{error}"
        );
    }
}

#[test]
fn a_name_without_end_is_not_held_in_memory() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let bytes = io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(b'x'));
    let dest = tempfile::tempdir().unwrap();
    let error = extract(bytes, dest.path(), &Limits::default()).unwrap_err();
    assert!(matches!(error, TarError::Read(_)), "{error}");
}

#[test]
fn what_is_no_tar_is_refused() {
    let whole = archive(PLAIN);
    for bytes in [b"not a tar".as_slice(), &[1; 2048], &whole[..700]] {
        assert!(unpack(bytes).is_err());
    }
}

#[test]
fn pax_times_have_fractions() {
    for (text, want) in [
        ("12", Some((12, 0))),
        ("12.5", Some((12, 500_000_000))),
        ("12.1234567899", Some((12, 123_456_789))),
        ("-1", None),
        ("1.x", None),
        ("", None),
    ] {
        let time = pax_time(text).map(|time| (time.tv_sec, time.tv_nsec));
        assert_eq!(time, want, "{text:?}");
    }
}
