//! The job that removes a tree whose files belong to ids of a sandbox: outside of it
//! this user may not.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Name of the job for [`super::Sandbox::call`]; its input is the path of the tree, an
/// absolute one, its output is empty. It is no error if there is nothing.
pub const REMOVE_TREE: &str = "remove-tree";

/// Removes the tree, without following symbolic links.
pub(crate) fn remove_tree(input: &[u8]) -> Result<Vec<u8>, String> {
    let path = Path::new(OsStr::from_bytes(input));
    if !path.is_absolute() {
        return Err(format!("{}: not an absolute path", path.display()));
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", path.display()))
        }
        _ => Ok(Vec::new()),
    }
}
