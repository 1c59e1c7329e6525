//! Records on real file systems: the disk's and one in memory.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{
    CWD, FileType, Mode, OFlags, XattrFlags, fsetxattr, mknodat, open, readlinkat, statfs,
};

use super::*;

const TMPFS_MAGIC: i64 = 0x0102_1994;

fn directory(path: &Path) -> OwnedFd {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("a directory")
}

/// A directory on the disk, and one in memory.
fn places() -> [tempfile::TempDir; 2] {
    let memory = Path::new("/dev/shm");
    let magic = statfs(memory).expect("a file system").f_type;
    assert_eq!(magic, TMPFS_MAGIC, "/dev/shm is not in memory");
    [
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir_in(memory).expect("a directory"),
    ]
}

const RECORD: Record = Record {
    uid: 33,
    gid: 4_294_967_294,
    mode: 0o4751,
    device: None,
};

/// Makes one of each kind of file that can be had without rights.
fn fill(dir: &Path) -> [&'static str; 5] {
    fs::write(dir.join("file"), "content").expect("a file");
    fs::create_dir(dir.join("dir")).expect("a directory");
    symlink("nowhere", dir.join("link")).expect("a link");
    mknodat(CWD, dir.join("pipe"), FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
    drop(UnixListener::bind(dir.join("socket")).expect("a socket"));
    ["file", "dir", "link", "pipe", "socket"]
}

#[test]
fn every_kind_of_file_keeps_its_record() {
    for place in places() {
        let dir = directory(place.path());
        for name in fill(place.path()) {
            let path = place.path().join(name);
            let mtime = fs::symlink_metadata(&path).expect("metadata").mtime_nsec();
            let name = OsStr::new(name);
            assert_eq!(read_at(&dir, name), Ok(None), "{name:?}");
            write_at(&dir, name, &RECORD).expect("it can be recorded");
            // Links have no mode of their own.
            let mode = if name == "link" { 0o777 } else { RECORD.mode };
            let want = Record { mode, ..RECORD };
            assert_eq!(read_at(&dir, name), Ok(Some(want)), "{name:?}");
            let moved = path.with_extension("moved");
            fs::rename(&path, &moved).expect("a rename");
            let moved = moved.file_name().expect("a name");
            assert_eq!(read_at(&dir, moved), Ok(Some(want)), "{name:?}");
            let metadata = fs::symlink_metadata(place.path().join(moved)).expect("metadata");
            assert_eq!(metadata.mtime_nsec(), mtime, "{name:?}");
            clear_at(&dir, moved).expect("it can be cleared");
            assert_eq!(read_at(&dir, moved), Ok(None), "{name:?}");
        }
    }
}

#[test]
fn reading_a_link_and_a_file_changes_nothing() {
    for place in places() {
        let dir = directory(place.path());
        fill(place.path());
        for name in ["file", "link"] {
            let name = OsStr::new(name);
            write_at(&dir, name, &RECORD).expect("it can be recorded");
            let before = read_at(&dir, name);
            let _ = fs::read(place.path().join(name));
            let _ = readlinkat(&dir, name, Vec::new());
            assert_eq!(read_at(&dir, name), before);
        }
    }
}

#[test]
fn ids_that_links_can_have() {
    for place in places() {
        let dir = directory(place.path());
        symlink("nowhere", place.path().join("link")).expect("a link");
        let name = OsStr::new("link");
        for (uid, gid) in [
            (0, 1),
            (1, 0),
            (33, 33),
            (u32::MAX - 1, u32::MAX - 1),
            (1_000_650_000, 0),
            (u32::MAX, 2_499_934_462),
            (0, u32::MAX - 65_535),
        ] {
            let record = Record {
                uid,
                gid,
                mode: 0o777,
                device: None,
            };
            write_at(&dir, name, &record).expect("it can be recorded");
            assert_eq!(read_at(&dir, name), Ok(Some(record)));
        }
        let record = Record {
            uid: 0,
            gid: 2_499_934_464,
            mode: 0o777,
            device: None,
        };
        let refused = write_at(&dir, name, &record);
        assert_eq!(refused, Err(Error::Group { gid: record.gid }));
        let root = Record {
            uid: 0,
            gid: 0,
            ..record
        };
        write_at(&dir, name, &root).expect("it can be recorded");
        assert_eq!(read_at(&dir, name), Ok(None));
    }
}

#[test]
fn descriptors_of_every_kind_will_do() {
    for place in places() {
        fill(place.path());
        let path = place.path().join("file");
        for flags in [OFlags::PATH, OFlags::RDONLY, OFlags::RDWR] {
            let file = open(&path, flags, Mode::empty()).expect("a file");
            let device = Some(Device::Block(7, 300));
            let record = Record { device, ..RECORD };
            write(&file, &record).expect("it can be recorded");
            assert_eq!(read(&file), Ok(Some(record)));
            let seen = look(&file).expect("it can be looked at");
            assert_eq!(seen.st_mode(), 0o064_751);
            clear(&file).expect("it can be cleared");
            assert_eq!(read(&file), Ok(None));
        }
    }
}

#[test]
fn a_file_that_needs_no_record_has_none() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("file");
    let file = File::create(&path).expect("a file");
    let names = || attribute_names(&file).expect("names");
    for mode in [0o4644, 0o644, 0o400, 0o755] {
        let record = Record {
            uid: 0,
            gid: 0,
            mode,
            device: None,
        };
        write(&file, &record).expect("it can be recorded");
        assert_eq!(names(), Vec::<Vec<u8>>::new());
        let seen = look(&file).expect("it can be looked at");
        assert_eq!(
            seen.record.is_some(),
            [0o4644, 0o400].contains(&mode),
            "{mode:o}"
        );
        assert_eq!(seen.meant(), record);
        let on_disk = file.metadata().expect("metadata").permissions().mode();
        assert_eq!(on_disk & 0o600, 0o600);
        assert_eq!(on_disk & 0o7000, 0);
    }
}

#[test]
fn attributes_are_shown_under_their_own_names() {
    for place in places() {
        let path = place.path().join("file");
        fs::write(&path, "").expect("a file");
        for flags in [OFlags::PATH, OFlags::RDWR] {
            let file = open(&path, flags, Mode::empty()).expect("a file");
            let name = b"security.capability";
            assert_eq!(attribute(&file, name), Ok(None));
            write(&file, &RECORD).expect("it can be recorded");
            let big = vec![7; 1000];
            for value in [&b""[..], b"caps", &big] {
                set_attribute(&file, name, value, XattrFlags::empty()).expect("it can be set");
                assert_eq!(attribute(&file, name), Ok(Some(value.to_vec())));
            }
            let again = set_attribute(&file, name, b"", XattrFlags::CREATE);
            assert_eq!(again.map_err(|error| error.errno()), Err(Errno::EXIST));
            let real = open(&path, OFlags::RDWR, Mode::empty()).expect("a file");
            fsetxattr(&real, "user.own", b"1", XattrFlags::empty()).expect("an attribute");
            let mut names = attribute_names(&file).expect("names");
            names.sort();
            assert_eq!(names, [&name[..], b"user.own"]);
            assert_eq!(remove_attribute(&file, name), Ok(true));
            assert_eq!(remove_attribute(&file, name), Ok(false));
            assert!(is_ours(INODE.as_bytes()) && !is_ours(b"user.own"));
        }
    }
}

#[test]
fn what_is_no_record_is_an_error() {
    let place = tempfile::tempdir().expect("a directory");
    let file = File::create(place.path().join("file")).expect("a file");
    for value in [&b""[..], b"\x01", &[1; 100]] {
        fsetxattr(&file, INODE, value, XattrFlags::empty()).expect("an attribute");
        assert_eq!(read(&file), Err(Error::Malformed));
    }
    let dir = directory(place.path());
    let device = Some(Device::Char(1, 3));
    let refused = write(&dir, &Record { device, ..RECORD });
    assert_eq!(refused, Err(Error::DevicePlace));
    let refused = write(File::open("/dev/null").expect("a device"), &RECORD);
    assert_eq!(refused, Err(Error::NoPlace));
}

#[test]
fn a_file_system_is_tried() {
    for place in places() {
        assert_eq!(probe(place.path()), Ok(()));
        let left = fs::read_dir(place.path()).expect("a directory").count();
        assert_eq!(left, 0);
    }
}

/// /proc has neither attributes of users nor times that can be set.
#[test]
fn a_file_system_without_attributes_says_so() {
    let file = File::open("/proc/self/comm").expect("a file");
    assert_eq!(read(&file), Ok(None));
    let refused = set_attribute(&file, b"trusted.x", b"", XattrFlags::empty());
    let call = "setxattr";
    assert_eq!(refused, Err(Error::NoAttributes { call }));
    let text = Error::NoAttributes { call }.to_string();
    assert!(text.contains("EOPNOTSUPP"), "{text}");
    assert_eq!(OsStr::from_bytes(INODE.as_bytes()), "user.ocibuild.inode");
}
