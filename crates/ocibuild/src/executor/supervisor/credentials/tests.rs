//! What the kernel would do, by its manual pages.

use super::*;
use crate::executor::caps;

fn root() -> Credentials {
    Credentials::root(caps::DEFAULT.bits())
}

fn user() -> Credentials {
    let root = root().set_groups(vec![27, 4]).expect("groups");
    let root = root.set_three_groups([1000; 3]).expect("groups");
    root.set_three_users([1000; 3]).expect("a user")
}

fn ids(real: u32, effective: u32, saved: u32) -> Ids {
    Ids {
        real,
        effective,
        saved,
        files: effective,
    }
}

#[test]
fn who_leaves_root_loses_its_rights() {
    let user = user();
    assert_eq!(user.uid, Ids::all(1000));
    assert_eq!(user.groups, [4, 27]);
    assert_eq!((user.caps.permitted, user.caps.effective), (0, 0));
    assert_eq!(user.caps.bounding, caps::DEFAULT.bits());
    assert_eq!(user.set_user(0), Err(Errno::PERM));
    assert_eq!(user.set_groups(vec![]), Err(Errno::PERM));
    assert_eq!(user.set_group(0), Err(Errno::PERM));
}

#[test]
fn root_can_be_left_for_a_while() {
    let away = root().set_three_users([SAME, 33, SAME]).expect("a user");
    assert_eq!(away.uid, ids(0, 33, 0));
    assert_eq!(away.caps.effective, 0);
    assert_eq!(away.caps.permitted, caps::DEFAULT.bits());
    let back = away.set_three_users([SAME, 0, SAME]).expect("root");
    assert_eq!(back, root());
    // For files alone.
    let away = root().set_file_user(33);
    assert!(!away.can(cap::DAC_OVERRIDE) && away.can(cap::SETUID));
    assert_eq!(away.set_file_user(0), root());
}

#[test]
fn two_ids_are_set_as_the_kernel_does() {
    let table = [
        (ids(0, 0, 0), (33, 33), Ok(ids(33, 33, 33))),
        (ids(0, 0, 0), (SAME, 33), Ok(ids(0, 33, 33))),
        (ids(33, 0, 0), (0, 33), Ok(ids(0, 33, 33))),
        (ids(33, 44, 44), (44, 33), Ok(ids(44, 33, 33))),
        (ids(33, 33, 33), (SAME, SAME), Ok(ids(33, 33, 33))),
        (ids(33, 33, 33), (SAME, 0), Err(Errno::PERM)),
    ];
    for (old, (real, effective), new) in table {
        let got = old.set_two(real, effective, old.effective == 0);
        assert_eq!(got, new, "{old:?} {real} {effective}");
    }
    assert_eq!(Ids::all(0).set(SAME, true), Err(Errno::INVAL));
    assert_eq!(ids(33, 44, 55).set(55, false), Ok(ids(33, 55, 55)));
    assert_eq!(ids(33, 44, 55).set(44, false), Err(Errno::PERM));
}

#[test]
fn kept_capabilities_stay_permitted() {
    let mut keeping = root();
    keeping.keep_caps = true;
    let user = keeping.set_three_users([1000; 3]).expect("a user");
    assert_eq!(user.caps.effective, 0);
    assert_eq!(user.caps.permitted, caps::DEFAULT.bits());
    let again = user
        .set_capabilities(cap::CHOWN, cap::CHOWN, cap::CHOWN)
        .expect("what is permitted");
    assert!(again.can(cap::CHOWN));
    let more = again.set_capabilities(cap::CHOWN, cap::CHOWN | cap::KILL, 0);
    assert_eq!(more, Err(Errno::PERM));
    assert!(!again.after_exec(&ProgramBits::default()).can(cap::CHOWN));
}

#[test]
fn programs_give_what_their_files_say() {
    let sudo = ProgramBits {
        user: Some(0),
        ..ProgramBits::default()
    };
    let became = user().after_exec(&sudo);
    assert_eq!(became.uid, ids(1000, 0, 0));
    assert_eq!(became.caps.effective, caps::DEFAULT.bits());
    assert!(became.set_three_users([0; 3]).is_ok());

    let crontab = ProgramBits {
        group: Some(101),
        ..ProgramBits::default()
    };
    let became = user().after_exec(&crontab);
    assert_eq!(became.gid, ids(1000, 101, 101));
    assert_eq!(became.caps.effective, 0);

    let raw = rustix::thread::CapabilitySet::NET_RAW.bits();
    let ping = ProgramBits {
        capabilities: Some(FileCapabilities {
            permitted: raw | cap::SYS_ADMIN,
            inheritable: 0,
            effective: true,
        }),
        ..ProgramBits::default()
    };
    // Beyond the bounding set nobody gets.
    assert_eq!(user().after_exec(&ping).caps.effective, raw);
    let mut bound = user();
    bound.no_new_privileges = true;
    assert_eq!(bound.after_exec(&sudo), bound);
    assert_eq!(root().after_exec(&ProgramBits::default()), root());
}

#[test]
fn capabilities_of_files_are_read_in_every_revision() {
    let value =
        |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    let wanted = FileCapabilities {
        permitted: 0x2000,
        inheritable: 1,
        effective: true,
    };
    let parse = |words: &[u32]| FileCapabilities::parse(&value(words));
    assert_eq!(parse(&[0x0100_0001, 0x2000, 1]), Some(wanted));
    assert_eq!(parse(&[0x0200_0001, 0x2000, 1, 0, 0]), Some(wanted));
    assert_eq!(parse(&[0x0300_0001, 0x2000, 1, 0, 0, 12345]), Some(wanted));
    assert_eq!(parse(&[0x0200_0001, 0x2000]), None);
    assert_eq!(parse(&[]), None);
    let high = parse(&[0x0200_0000, 0, 0, 1 << 8, 0]).expect("it is whole");
    assert_eq!((high.permitted, high.effective), (1 << 40, false));
}
