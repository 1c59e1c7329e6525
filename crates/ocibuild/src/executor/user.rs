//! Who a command runs as: `user[:group]` of the image configuration, looked up in
//! the image's own /etc/passwd and /etc/group as runc and BuildKit do (see
//! <https://github.com/moby/sys/tree/main/user>). Pure: text in, ids out.

use super::error::Failure;

/// The largest id that the lookup accepts, as in Go's implementation.
const MAX_ID: u32 = i32::MAX as u32;

/// The ids of a command and its home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// User id.
    pub(super) uid: u32,
    /// Primary group.
    pub(super) gid: u32,
    /// All groups, the primary one first.
    pub(super) groups: Vec<u32>,
    /// `HOME`.
    pub(super) home: String,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Finds the ids for `wanted`, which may be empty for root.
///
/// Two numbers are taken as they are. One number need not be in /etc/passwd, and then
/// its group is root. A name must be there. A group that is named or numbered beside
/// the user replaces all of the user's groups.
pub(super) fn find(wanted: &str, passwd: &str, group: &str) -> Result<User, Failure> {
    let (user, named_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    if let (Some(uid), Some(gid)) = (id(user), named_group.and_then(id)) {
        return Ok(User {
            uid,
            gid,
            groups: vec![gid],
            home: home_of(uid, passwd),
        });
    }

    let entry = match id(user) {
        Some(uid) => passwd_entries(passwd).find(|entry| entry.uid == uid),
        None => passwd_entries(passwd).find(|entry| entry.name == user),
    };
    let (uid, primary) = match (&entry, id(user)) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(Failure::NoSuchUser(user.to_owned())),
    };
    let (gid, others) = match named_group {
        Some(name) => (group_id(name, group)?, Vec::new()),
        None => (
            primary,
            entry.map(|e| groups_of(e.name, group)).unwrap_or_default(),
        ),
    };
    let mut groups = vec![gid];
    groups.extend(others.into_iter().filter(|other| *other != gid));
    Ok(User {
        uid,
        gid,
        groups,
        home: home_of(uid, passwd),
    })
}

/// A group by number or name.
fn group_id(wanted: &str, group: &str) -> Result<u32, Failure> {
    let number = id(wanted);
    let entry = group_entries(group)
        .find(|entry| number.map_or(entry.name == wanted, |number| entry.gid == number));
    entry
        .map(|entry| entry.gid)
        .or(number)
        .ok_or_else(|| Failure::NoSuchGroup(wanted.to_owned()))
}

/// The groups that list a user as a member.
fn groups_of(user: &str, group: &str) -> Vec<u32> {
    group_entries(group)
        .filter(|entry| entry.members.split(',').any(|member| member == user))
        .map(|entry| entry.gid)
        .collect()
}

fn home_of(uid: u32, passwd: &str) -> String {
    let entry = passwd_entries(passwd).find(|entry| entry.uid == uid);
    match entry {
        Some(entry) => entry.home.to_owned(),
        None => "/".to_owned(),
    }
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let (uid, gid) = (field_id(fields.nth(1))?, field_id(fields.next())?);
        Some(PasswdEntry {
            name,
            uid,
            gid,
            home: fields.nth(1).unwrap_or_default(),
        })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = field_id(fields.nth(1))?;
        Some(GroupEntry {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

/// The number in a field of a file: 0 where it is missing or none, nothing where it is
/// out of range.
fn field_id(field: Option<&str>) -> Option<u32> {
    let text = field.unwrap_or_default();
    let is_number = text
        .strip_prefix(['-', '+'])
        .unwrap_or(text)
        .bytes()
        .all(|byte| byte.is_ascii_digit());
    match is_number && !text.is_empty() {
        true => id(text),
        false => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
# a comment
daemon:x:1:1::/usr/sbin:
broken line
app:x:1000:1001:App:/home/app:/bin/sh
app:x:2000:2000:later:/later:
nohome:x:77:78::
text:x:seven:5::/text:
below:x:-1:5::/:
";
    const GROUP: &str = "\
root:x:0:root
daemon:x:1:
wheel:x:10:root,app
app:x:1001:app
docker:x:999:other,app
";

    fn ids(wanted: &str) -> Result<(u32, u32, Vec<u32>, String), Failure> {
        find(wanted, PASSWD, GROUP).map(|user| (user.uid, user.gid, user.groups, user.home))
    }

    #[test]
    fn users_are_found_as_runc_finds_them() {
        type Found<'a> = (u32, u32, &'a [u32], &'a str);
        let table: &[(&str, Found<'_>)] = &[
            ("", (0, 0, &[0, 10], "/root")),
            ("root", (0, 0, &[0, 10], "/root")),
            ("0", (0, 0, &[0, 10], "/root")),
            ("0:0", (0, 0, &[0], "/root")),
            ("app", (1000, 1001, &[1001, 10, 999], "/home/app")),
            ("1000", (1000, 1001, &[1001, 10, 999], "/home/app")),
            ("app:", (1000, 1001, &[1001, 10, 999], "/home/app")),
            ("app:wheel", (1000, 10, &[10], "/home/app")),
            ("app:12345", (1000, 12345, &[12345], "/home/app")),
            ("1000:4", (1000, 4, &[4], "/home/app")),
            ("5555", (5555, 0, &[0], "/")),
            ("5555:wheel", (5555, 10, &[10], "/")),
            (":wheel", (0, 10, &[10], "/root")),
            ("nohome", (77, 78, &[78], "")),
            ("broken line", (0, 0, &[0], "/root")),
            ("text", (0, 5, &[5], "/root")),
        ];
        for (wanted, (uid, gid, groups, home)) in table {
            let expected = (*uid, *gid, groups.to_vec(), (*home).to_owned());
            assert_eq!(ids(wanted), Ok(expected), "{wanted:?}");
        }
    }

    #[test]
    fn unknown_names_fail() {
        assert_eq!(ids("nobody"), Err(Failure::NoSuchUser("nobody".into())));
        assert_eq!(ids("below"), Err(Failure::NoSuchUser("below".into())));
        assert_eq!(
            ids("app:nogroup"),
            Err(Failure::NoSuchGroup("nogroup".into()))
        );
        assert_eq!(
            ids("4294967295"),
            Err(Failure::NoSuchUser("4294967295".into()))
        );
        assert_eq!(ids("-1"), Err(Failure::NoSuchUser("-1".into())));
    }

    #[test]
    fn without_files_there_is_root_and_there_are_numbers() {
        let root = User {
            uid: 0,
            gid: 0,
            groups: vec![0],
            home: "/".into(),
        };
        assert_eq!(find("", "", ""), Ok(root));
        assert_eq!(find("app", "", ""), Err(Failure::NoSuchUser("app".into())));
        let user = User {
            uid: 7,
            gid: 8,
            groups: vec![8],
            home: "/".into(),
        };
        assert_eq!(find("7:8", "", ""), Ok(user));
    }
}
