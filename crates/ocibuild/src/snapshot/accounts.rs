//! Users and groups of an image, from the texts of its passwd(5) and group(5).

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Number of the primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
}

/// A line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Number.
    pub gid: u32,
    /// Names of users who are in it beside those whose primary group it is.
    pub members: Vec<String>,
}

/// The accounts of an image; of lines with the same name the first counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

impl Accounts {
    /// Reads both texts. Comments and lines that are not accounts are passed over, as
    /// the C library does.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        Self {
            users: lines(passwd).filter_map(|line| parse_user(&line)).collect(),
            groups: lines(group).filter_map(|line| parse_group(&line)).collect(),
        }
    }

    /// Finds a user by name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// Finds a user by number.
    pub fn user_by_id(&self, uid: u32) -> Option<&User> {
        self.users.iter().find(|user| user.uid == uid)
    }

    /// Finds a group by name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// Gives the numbers of the groups that list a user as a member, in the order of the file.
    pub fn supplementary_groups(&self, user: &str) -> Vec<u32> {
        let member = |group: &&Group| group.members.iter().any(|name| name == user);
        self.groups
            .iter()
            .filter(member)
            .map(|group| group.gid)
            .collect()
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = String> {
    text.split(|&byte| byte == b'\n')
        .map(|line| String::from_utf8_lossy(line.trim_ascii()).into_owned())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn parse_user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(User {
        name: name.to_owned(),
        uid,
        gid,
        home: fields.nth(1).unwrap_or_default().to_owned(),
    })
}

fn parse_group(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = fields.nth(1)?.parse().ok()?;
    let members = fields.next().unwrap_or_default().split(',');
    Some(Group {
        name: name.to_owned(),
        gid,
        members: members
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_users_and_groups() {
        let accounts = Accounts::parse(
            b"root:x:0:0:root:/root:/bin/sh\n# note\napp:x:1000:100:,,:/home/app:/bin/sh\n\
              bad\nnegative:x:-1:0::/:\nroot:x:7:7:second:/:\n:x:1:1::/:\nshort:x:5:5",
            b"root:x:0:\nusers:x:100:\naudio:x:29:app,root\nvideo:x:44:app\nbad:x\n",
        );
        let app = accounts.user("app").expect("app is there");
        assert_eq!((app.uid, app.gid, &*app.home), (1000, 100, "/home/app"));
        assert_eq!(accounts.user("root").map(|user| user.uid), Some(0));
        assert_eq!(accounts.user_by_id(5).map(|user| &*user.home), Some(""));
        for missing in ["bad", "negative", "", "x"] {
            assert_eq!(accounts.user(missing), None, "{missing:?}");
        }
        assert_eq!(accounts.group("audio").map(|group| group.gid), Some(29));
        assert_eq!(accounts.group("bad"), None);
        assert_eq!(accounts.supplementary_groups("app"), [29, 44]);
        assert!(accounts.supplementary_groups("nobody").is_empty());
    }
}
