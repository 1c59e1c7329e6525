//! Whether a user may read, write, or execute and search: path_resolution(7), step 3, and
//! access of root by capabilities. Pure.

use rustix::fs::FileType;
use rustix::io::Errno;

use super::credentials::{Credentials, cap};
use crate::ownership::Record;

/// Wanted of a file: bits as in the last digit of a mode.
pub(super) const READ: u32 = 4;
/// Wanted of a file.
pub(super) const WRITE: u32 = 2;
/// Wanted of a file, to execute it, or of a directory, to search it.
pub(super) const EXECUTE: u32 = 1;

/// Set-user-ID.
pub(super) const SET_USER: u32 = 0o4000;
/// Set-group-ID.
pub(super) const SET_GROUP: u32 = 0o2000;
/// Only owners remove names.
pub(super) const STICKY: u32 = 0o1000;

/// Fails unless all that is wanted is allowed.
pub(super) fn check(
    who: &Credentials,
    file: &Record,
    kind: FileType,
    wanted: u32,
) -> Result<(), Errno> {
    let granted = if who.uid.files == file.uid {
        file.mode >> 6
    } else if who.in_group(file.gid) {
        file.mode >> 3
    } else {
        file.mode
    };
    if granted & wanted == wanted || overrides(who, file, kind, wanted) {
        return Ok(());
    }
    Err(Errno::ACCESS)
}

fn overrides(who: &Credentials, file: &Record, kind: FileType, wanted: u32) -> bool {
    let is_directory = kind == FileType::Directory;
    if who.can(cap::DAC_OVERRIDE) {
        let executes = wanted & EXECUTE != 0 && !is_directory;
        return !executes || file.mode & 0o111 != 0;
    }
    let reads = wanted == READ || (is_directory && wanted & WRITE == 0);
    reads && who.can(cap::DAC_READ_SEARCH)
}

/// Fails unless a name may be removed from a directory that may be written.
pub(super) fn check_sticky(
    who: &Credentials,
    directory: &Record,
    file: &Record,
) -> Result<(), Errno> {
    let is_owner = [directory.uid, file.uid].contains(&who.uid.files);
    if directory.mode & STICKY == 0 || is_owner || who.can(cap::FOWNER) {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

/// Tells whether somebody may do with a file what its owner may.
pub(super) fn owns(who: &Credentials, file: &Record) -> bool {
    who.uid.files == file.uid || who.can(cap::FOWNER)
}

/// Fails unless somebody may give a file another name where hard links are protected: its
/// owner, or who may read and write it if that gains nobody anything. See
/// `protected_hardlinks` in proc_sys_fs(5).
pub(super) fn check_link(who: &Credentials, file: &Record, kind: FileType) -> Result<(), Errno> {
    let gains = file.mode & SET_USER != 0 || file.mode & 0o2010 == 0o2010;
    let is_harmless =
        kind == FileType::RegularFile && !gains && check(who, file, kind, READ | WRITE).is_ok();
    if owns(who, file) || is_harmless {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

/// What a new file is: whose, and with which of the wanted permissions.
pub(super) fn new_file(who: &Credentials, directory: &Record, kind: FileType, mode: u32) -> Record {
    let inherits = directory.mode & SET_GROUP != 0;
    let gid = if inherits {
        directory.gid
    } else {
        who.gid.files
    };
    let mut mode = mode;
    if inherits && kind == FileType::Directory {
        mode |= SET_GROUP;
    }
    if kind != FileType::Directory
        && mode & 0o2010 == 0o2010
        && !who.can(cap::FSETID)
        && !who.in_group(gid)
    {
        mode &= !SET_GROUP;
    }
    Record {
        uid: who.uid.files,
        gid,
        mode,
        device: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::caps;

    fn file(uid: u32, gid: u32, mode: u32) -> Record {
        Record {
            uid,
            gid,
            mode,
            device: None,
        }
    }

    #[test]
    fn strangers_link_only_what_they_may_write() {
        let (plain, device) = (FileType::RegularFile, FileType::CharacterDevice);
        let may = |record: &Record, kind| check_link(&user(), record, kind).is_ok();
        assert!(may(&file(1000, 0, 0o4000), plain), "its owner may");
        assert!(may(&file(0, 1001, 0o660), plain) && may(&file(0, 0, 0o666), plain));
        assert!(!may(&file(0, 0, 0o644), plain), "who may only read may not");
        assert!(!may(&file(0, 0, 0o4666), plain) && !may(&file(0, 1001, 0o2670), plain));
        assert!(!may(&file(0, 0, 0o666), device));
        let root = Credentials::root(caps::DEFAULT.bits());
        assert_eq!(check_link(&root, &file(7, 7, 0), plain), Ok(()));
    }

    fn user() -> Credentials {
        let root = Credentials::root(caps::DEFAULT.bits());
        let user = root
            .set_groups(vec![7])
            .and_then(|root| root.set_group(1001))
            .and_then(|root| root.set_user(1000));
        user.expect("root becomes anybody")
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let table = [
            (file(1000, 0, 0o400), READ, true),
            (file(1000, 0, 0o400), WRITE, false),
            (file(1000, 1001, 0o077), READ, false),
            (file(0, 1001, 0o640), READ, true),
            (file(0, 7, 0o070), READ | WRITE | EXECUTE, true),
            (file(0, 7, 0o707), READ, false),
            (file(0, 0, 0o600), READ, false),
            (file(0, 0, 0o644), READ, true),
            (file(0, 0, 0o644), READ | WRITE, false),
        ];
        for (record, wanted, allowed) in table {
            let got = check(&user(), &record, FileType::RegularFile, wanted);
            assert_eq!(got.is_ok(), allowed, "{record:?} {wanted}");
        }
    }

    #[test]
    fn root_executes_what_anybody_may() {
        let root = Credentials::root(caps::DEFAULT.bits());
        let allowed = |kind, mode, wanted| check(&root, &file(5, 5, mode), kind, wanted).is_ok();
        assert!(allowed(FileType::RegularFile, 0, READ | WRITE));
        assert!(!allowed(FileType::RegularFile, 0o644, EXECUTE));
        assert!(allowed(FileType::RegularFile, 0o010, EXECUTE));
        assert!(allowed(FileType::Directory, 0, EXECUTE | WRITE));
    }

    #[test]
    fn names_in_a_sticky_directory_belong_to_owners() {
        let (tmp, plain) = (file(0, 0, 0o1777), file(0, 0, 0o777));
        let (own, others) = (file(1000, 0, 0), file(33, 0, 0));
        assert_eq!(check_sticky(&user(), &tmp, &own), Ok(()));
        assert_eq!(check_sticky(&user(), &tmp, &others), Err(Errno::PERM));
        assert_eq!(check_sticky(&user(), &plain, &others), Ok(()));
    }

    #[test]
    fn directories_give_their_group_on() {
        let staff = file(0, 50, 0o2775);
        let made = new_file(&user(), &staff, FileType::Directory, 0o755);
        assert_eq!((made.uid, made.gid, made.mode), (1000, 50, 0o2755));
        let made = new_file(&user(), &staff, FileType::RegularFile, 0o644);
        assert_eq!((made.uid, made.gid, made.mode), (1000, 50, 0o644));
        let made = new_file(&user(), &file(0, 0, 0o755), FileType::Directory, 0o755);
        assert_eq!((made.uid, made.gid, made.mode), (1000, 1001, 0o755));
    }
}
