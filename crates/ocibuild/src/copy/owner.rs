//! `--chown`: names and numbers become ids.

use super::Error;
use crate::snapshot::{Accounts, RootView};

/// User and group ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Reads `--chown`: `user[:group]`, each a name or a number. Names are looked up in the
/// accounts of the stage; a number alone is user and group; an unknown name is 0, as the reference
/// builder has it; without an account file a name is an error.
pub fn parse_owner(text: &str, view: &RootView, accounts: &Accounts) -> Result<Owner, Error> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, primary) = match (user.parse::<u32>(), user) {
        (Ok(uid), _) => (uid, uid),
        (_, "" | "root") => (0, 0),
        (Err(_), name) => match accounts.user(name) {
            Some(user) => (user.uid, user.gid),
            None if has_file(view, "etc/passwd") => (0, 0),
            None => {
                return Err(Error::Owner(
                    text.to_owned(),
                    "the stage has no /etc/passwd",
                ));
            }
        },
    };
    let gid = match group {
        None | Some("") => primary,
        Some(group) => match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) if group == "root" => 0,
            Err(_) => match accounts.group(group) {
                Some(group) => group.gid,
                None if has_file(view, "etc/group") => primary,
                None => return Err(Error::Owner(text.to_owned(), "the stage has no /etc/group")),
            },
        },
    };
    Ok(Owner { uid, gid })
}

fn has_file(view: &RootView, path: &str) -> bool {
    view.resolve(path, true)
        .is_ok_and(|place| place.found.is_some())
}
