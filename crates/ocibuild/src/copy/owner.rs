//! `--chown`: names and numbers become ids.

use super::Error;
use crate::layer::TreePath;
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
/// builder has it; in an empty root a name is an error.
pub fn parse_owner(text: &str, view: &RootView, accounts: &Accounts) -> Result<Owner, Error> {
    let empty = || Error::Owner(text.to_owned(), "the stage is empty and names nobody");
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, primary) = match (user.parse::<u32>(), user) {
        (Ok(uid), _) => (uid, uid),
        (_, "" | "root") => (0, 0),
        (Err(_), name) => match accounts.user(name) {
            Some(user) => (user.uid, user.gid),
            None if is_empty(view) => return Err(empty()),
            None => (0, 0),
        },
    };
    let gid = match group {
        None | Some("") => primary,
        Some(group) => match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) if group == "root" => 0,
            Err(_) => match accounts.group(group) {
                Some(group) => group.gid,
                None if is_empty(view) => return Err(empty()),
                None => primary,
            },
        },
    };
    Ok(Owner { uid, gid })
}

fn is_empty(view: &RootView) -> bool {
    view.children(&TreePath::root()).is_empty()
}
