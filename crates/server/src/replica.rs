//! The name of this replica, under which it claims tasks.
//!
//! A name that nobody else can have lets a service that was killed take its own tasks back
//! at once when it starts again. The lock on a file of its data folder says so: it goes with
//! the process, however that ends. Where the folder is shared, the first one has the name.

use std::fs::{File, OpenOptions};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// A name, and what keeps others from having it.
#[derive(Debug)]
pub(crate) struct Replica {
    /// The name.
    pub(crate) name: String,
    lock: Option<File>,
}

impl Replica {
    /// Takes the name `wanted`, or one made of the host's, together with the folder's own.
    pub(crate) fn take(data: &Path, wanted: Option<&str>) -> Self {
        let host = || {
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned()
        };
        let base = wanted.map_or_else(host, str::to_owned);
        match own_name(data) {
            Some((name, lock)) => Self {
                name: format!("{base}/{name}"),
                lock: Some(lock),
            },
            None => Self {
                name: format!("{base}/{}", random()),
                lock: None,
            },
        }
    }

    /// Tells whether nobody else can have this name.
    pub(crate) fn is_ours(&self) -> bool {
        self.lock.is_some()
    }
}

/// Gives the name that a folder keeps, and its lock, unless somebody has it.
fn own_name(data: &Path) -> Option<(String, File)> {
    use std::io::{Read, Write};
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(data.join("replica"))
        .ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    let mut name = String::new();
    file.read_to_string(&mut name).ok()?;
    let valid = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !valid {
        name = random();
        file.set_len(0).ok()?;
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).ok()?;
        file.write_all(name.as_bytes()).ok()?;
    }
    Some((name, file))
}

fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_over_a_restart_and_given_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = Replica::take(folder.path(), Some("pod"));
        assert!(first.is_ours() && first.name.starts_with("pod/"));
        let second = Replica::take(folder.path(), Some("pod"));
        assert!(!second.is_ours() && second.name != first.name);
        let name = first.name.clone();
        drop(first);
        assert_eq!(Replica::take(folder.path(), Some("pod")).name, name);
        std::fs::write(folder.path().join("replica"), "../../x").unwrap();
        let mended = Replica::take(folder.path(), Some("pod"));
        assert!(mended.is_ours() && !mended.name.contains(".."));
    }
}
