//! A directory with files for a build, all with the same modification time.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

/// 2023-11-14T22:13:20Z, the time of every file in a [`ContextDir`].
const MTIME: Duration = Duration::from_secs(1_700_000_000);

/// A context for a test, removed when it is dropped.
///
/// ```
/// let context = ocibuild::testing::ContextDir::new()
///     .file("Dockerfile", "FROM scratch\nCOPY a /\n")
///     .file("a", "hello");
/// assert!(context.path().join("a").is_file());
/// ```
#[derive(Debug)]
pub struct ContextDir {
    root: TempDir,
}

impl Default for ContextDir {
    fn default() -> Self {
        Self::new()
    }
}

impl ContextDir {
    /// Makes an empty context.
    pub fn new() -> Self {
        Self {
            root: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// Adds a file with mode 0644.
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.file_with_mode(path, content, 0o644)
    }

    /// Adds a file with mode 0755.
    pub fn executable(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.file_with_mode(path, content, 0o755)
    }

    /// Adds a file with the given mode.
    pub fn file_with_mode(self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Self {
        let path = self.place(path);
        fs::write(&path, content).expect("write a file of the context");
        self.finish(&path, mode)
    }

    /// Adds an empty directory with mode 0755.
    pub fn dir(self, path: &str) -> Self {
        let path = self.place(path);
        fs::create_dir_all(&path).expect("make a directory of the context");
        self.finish(&path, 0o755)
    }

    /// Gives something that is there another mode.
    pub fn with_mode(self, path: &str, mode: u32) -> Self {
        let path = self.place(path);
        self.finish(&path, mode)
    }

    /// Adds a symbolic link; its time is that of its making.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        symlink(target, self.place(path)).expect("make a link of the context");
        self
    }

    /// Adds a second name for a file.
    pub fn hard_link(self, path: &str, existing: &str) -> Self {
        fs::hard_link(self.root.path().join(existing), self.place(path))
            .expect("make a hard link of the context");
        self
    }

    /// Gives the directory.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    fn place(&self, path: &str) -> PathBuf {
        let full = self.root.path().join(path);
        let parent = full.parent().expect("a path below the context");
        fs::create_dir_all(parent).expect("make the directories of the context");
        full
    }

    /// Sets mode and time, and the time of the directories above, which the new entry has changed.
    fn finish(self, path: &Path, mode: u32) -> Self {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("set a mode");
        let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + MTIME);
        for changed in path.ancestors().take_while(|p| p.starts_with(self.path())) {
            // Times can be set through a descriptor that only reads.
            File::open(changed)
                .and_then(|file| file.set_times(times))
                .expect("set a time");
        }
        self
    }
}
