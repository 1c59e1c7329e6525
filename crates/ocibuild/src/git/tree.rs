//! The tree on disk once Git has written it: where it may go, what is removed, which
//! modes files have, and which directory of it is the one that was asked for. Nobody
//! else writes to the tree meanwhile, so a checked path stays what it was.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use super::error::GitError;

const GIT_DIR: &str = ".git";

/// Makes sure that the destination is an empty directory.
pub(super) fn prepare_destination(dest: &Path) -> Result<(), GitError> {
    fs::create_dir_all(dest).map_err(GitError::io(dest))?;
    let mut entries = fs::read_dir(dest).map_err(GitError::io(dest))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(GitError::DestinationNotEmpty {
            path: dest.to_owned(),
        }),
    }
}

/// Empties a directory.
pub(super) fn clear(dest: &Path) -> Result<(), GitError> {
    for entry in fs::read_dir(dest).map_err(GitError::io(dest))? {
        let path = entry.map_err(GitError::io(dest))?.path();
        let removed = match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
        removed.map_err(GitError::io(&path))?;
    }
    Ok(())
}

/// Gives the directory of a submodule, made where Git has not made it; a symbolic link
/// on the way would lead out of the tree and is refused.
pub(super) fn submodule_destination(root: &Path, path: &str) -> Result<PathBuf, GitError> {
    let refuse = |reason: &str| GitError::InvalidSubmodule {
        reason: reason.to_owned(),
    };
    let mut dest = root.to_owned();
    for component in Path::new(path).components() {
        let Component::Normal(name) = component else {
            return Err(refuse("its path leads out of the repository"));
        };
        if name.eq_ignore_ascii_case(GIT_DIR) {
            return Err(refuse("its path leads into .git"));
        }
        dest.push(name);
        match dest.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(refuse("its path is not a directory")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&dest).map_err(GitError::io(&dest))?;
            }
            Err(error) => return Err(GitError::io(&dest)(error)),
        }
    }
    prepare_destination(&dest)?;
    Ok(dest)
}

/// Removes `.git` of the repository and of all submodules.
pub(super) fn remove_git_dirs(root: &Path) -> Result<(), GitError> {
    for_each_entry(root, &mut |path, metadata| {
        if path.file_name().is_some_and(|name| name == GIT_DIR) && metadata.is_dir() {
            fs::remove_dir_all(path).map_err(GitError::io(path))?;
        }
        Ok(())
    })
}

/// Gives every file 0644 or 0755 and every directory 0755, so that the umask of the
/// process does not show in the image.
pub(super) fn normalize_modes(root: &Path) -> Result<(), GitError> {
    for_each_entry(root, &mut |path, metadata| {
        let mode = metadata.permissions().mode() & 0o7777;
        let wanted = match metadata.is_dir() || mode & 0o100 != 0 {
            true => 0o755,
            false => 0o644,
        };
        if metadata.is_symlink() || mode == wanted {
            return Ok(());
        }
        fs::set_permissions(path, Permissions::from_mode(wanted)).map_err(GitError::io(path))
    })
}

/// Visits everything below `root` and nothing inside `.git`, directories first.
pub(super) fn for_each_entry(
    root: &Path,
    visit: &mut dyn FnMut(&Path, &fs::Metadata) -> Result<(), GitError>,
) -> Result<(), GitError> {
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).map_err(GitError::io(&directory))? {
            let path = entry.map_err(GitError::io(&directory))?.path();
            let metadata = path.symlink_metadata().map_err(GitError::io(&path))?;
            visit(&path, &metadata)?;
            if metadata.is_dir() && path.file_name().is_some_and(|name| name != GIT_DIR) {
                pending.push(path);
            }
        }
    }
    Ok(())
}

/// Finds the subdirectory; symbolic links on the way must stay in the repository.
pub(super) fn resolve_subdir(root: &Path, subdir: &str) -> Result<PathBuf, GitError> {
    let outside = || GitError::SubdirOutside {
        subdir: subdir.to_owned(),
    };
    let missing = || GitError::SubdirNotFound {
        subdir: subdir.to_owned(),
    };
    let relative = Path::new(subdir);
    if !relative
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(outside());
    }
    let root = root.canonicalize().map_err(GitError::io(root))?;
    let found = root.join(relative).canonicalize().map_err(|_| missing())?;
    if !found.starts_with(&root) {
        return Err(outside());
    }
    match found.is_dir() {
        true => Ok(found),
        false => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn subdirectories_stay_inside() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        symlink("a/b", root.join("inside")).unwrap();
        symlink("/etc", root.join("absolute")).unwrap();
        symlink("..", root.join("up")).unwrap();
        for subdir in ["a", "a/b", "inside", "./a", "up/root/a"] {
            assert!(resolve_subdir(&root, subdir).is_ok(), "{subdir}");
        }
        for subdir in ["absolute", "up", "up/..", "..", "/etc", "a/../.."] {
            let error = resolve_subdir(&root, subdir).unwrap_err();
            assert!(
                matches!(error, GitError::SubdirOutside { .. }),
                "{subdir}: {error}"
            );
        }
        for subdir in ["missing", "file", "a/missing"] {
            let error = resolve_subdir(&root, subdir).unwrap_err();
            assert!(
                matches!(error, GitError::SubdirNotFound { .. }),
                "{subdir}: {error}"
            );
        }
    }

    #[test]
    fn submodules_do_not_follow_links() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("link")).unwrap();
        for path in ["link", "link/lib", "../lib", ".git/lib", "a/.GIT", "/lib"] {
            assert!(submodule_destination(root.path(), path).is_err(), "{path}");
        }
        let dest = submodule_destination(root.path(), "vendor/lib").unwrap();
        assert!(dest.is_dir());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
