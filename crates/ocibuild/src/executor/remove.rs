//! The job that removes a tree whose files belong to ids of a sandbox: outside of it
//! this user may not.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Name of the job for [`super::Sandbox::call`]; its input is the path of the tree, an
/// absolute one, its output is empty. It is no error if there is nothing.
pub const REMOVE_TREE: &str = "remove-tree";

/// Removes the tree, without following symbolic links.
pub(crate) fn remove_tree(input: &[u8]) -> Result<Vec<u8>, String> {
    let path = Path::new(OsStr::from_bytes(input));
    if !path.is_absolute() {
        return Err(format!("{}: not an absolute path", path.display()));
    }
    let removed = match fs::remove_dir_all(path) {
        // A command has left directories that even their owner may not enter.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(path).and_then(|()| fs::remove_dir_all(path))
        }
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", path.display()))
        }
        _ => Ok(Vec::new()),
    }
}

/// Lets the owner into every directory of a tree. Nothing else runs in it any more, and
/// no entry is entered that is not a directory itself.
fn unlock(tree: &Path) -> io::Result<()> {
    let mut todo: Vec<PathBuf> = vec![tree.to_owned()];
    while let Some(dir) = todo.pop() {
        fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For root no directory is locked, but what is left must be the same.
    #[test]
    fn locked_directories_go_too() {
        let place = tempfile::tempdir().expect("a directory");
        let tree = place.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).expect("directories");
        fs::write(tree.join("a/b/file"), "").expect("a file");
        for dir in ["a/b", "a", ""] {
            let locked = Permissions::from_mode(0o000);
            fs::set_permissions(tree.join(dir), locked).expect("a mode");
        }
        unlock(&tree).expect("it can be entered");
        let mode = fs::metadata(tree.join("a/b"))
            .expect("metadata")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        for _ in 0..2 {
            let path = tree.as_os_str().as_bytes();
            assert_eq!(remove_tree(path), Ok(Vec::new()));
            assert!(!tree.exists());
        }
    }
}
