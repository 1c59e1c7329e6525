//! The pointers in a tree: found, read, and replaced by what they name.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use ocibuild_registry::Hasher;
use serde::{Deserialize, Serialize};

use super::super::error::GitError;
use super::super::session::Session;
use super::super::tree::for_each_entry;

const VERSION: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
/// Larger files are no pointers.
const LARGEST_POINTER: u64 = 1024;
const BUFFER: usize = 256 * 1024;

/// A file in whose place a pointer stands.
pub(super) struct Pointer {
    pub(super) file: PathBuf,
    /// How an error names it.
    shown: String,
    pub(super) object: Object,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) oid: String,
    pub(super) size: u64,
}

impl Pointer {
    /// Finds the files that are pointers.
    pub(super) fn all_in(root: &Path) -> Result<Vec<Self>, GitError> {
        let mut pointers = Vec::new();
        for_each_entry(root, &mut |path, metadata| {
            if !metadata.is_file() || metadata.len() >= LARGEST_POINTER {
                return Ok(());
            }
            let bytes = fs::read(path).map_err(GitError::io(path))?;
            if let Some(object) = parse(&bytes) {
                let shown = path.strip_prefix(root).unwrap_or(path);
                pointers.push(Self {
                    shown: shown.display().to_string(),
                    file: path.to_owned(),
                    object,
                });
            }
            Ok(())
        })?;
        Ok(pointers)
    }

    /// Copies a content into the place of the pointer, with the mode of the pointer. What is
    /// not what the pointer names does not get there.
    pub(super) fn fill(&self, from: &mut dyn Read, session: &Session<'_>) -> Result<(), GitError> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let at = |error: std::io::Error| GitError::io(&self.file)(error);
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(at)?;
        let mut hasher = Hasher::sha256();
        let (mut length, mut buffer) = (0, vec![0; BUFFER]);
        loop {
            session.watch.check()?;
            let count = from.read(&mut buffer).map_err(|_| self.broken())?;
            if count == 0 {
                break;
            }
            length += count as u64;
            session.means.budget.receive(count as u64);
            let excess = session.means.budget.check();
            excess.map_err(|_| self.missing("it is too large"))?;
            if length > self.object.size {
                return Err(self.missing("it is larger than its pointer says"));
            }
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count]).map_err(at)?;
        }
        if length < self.object.size {
            return Err(self.broken());
        }
        if hasher.finish().hex() != self.object.oid {
            return Err(self.missing("what its server sends has another digest"));
        }
        let mode = fs::metadata(&self.file).map_err(at)?.permissions();
        file.as_file().set_permissions(mode).map_err(at)?;
        file.persist(&self.file)
            .map_err(|failed| at(failed.error))?;
        Ok(())
    }

    /// Does so from a file that an earlier checkout has left, and tells whether there was
    /// one; a broken one goes.
    pub(super) fn fill_from(&self, kept: &Path, session: &Session<'_>) -> Result<bool, GitError> {
        let Ok(mut file) = fs::File::open(kept) else {
            return Ok(false);
        };
        match self.fill(&mut file, session) {
            Err(GitError::Lfs { .. }) if session.means.budget.excess().is_none() => {
                tracing::warn!(path = %kept.display(), "a broken file is loaded again");
                fs::remove_file(kept).map_err(GitError::io(kept))?;
                Ok(false)
            }
            filled => filled.map(|()| true),
        }
    }

    /// Tells whether the pointer is still there.
    pub(super) fn stands(&self) -> bool {
        let bytes = fs::read(&self.file).unwrap_or_default();
        parse(&bytes).as_ref() == Some(&self.object)
    }

    pub(super) fn missing(&self, reason: &'static str) -> GitError {
        GitError::Lfs {
            path: self.shown.clone(),
            reason,
            is_transient: false,
        }
    }

    pub(super) fn broken(&self) -> GitError {
        GitError::Lfs {
            path: self.shown.clone(),
            reason: "the connection broke off",
            is_transient: true,
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Object> {
    let text = std::str::from_utf8(bytes.strip_prefix(VERSION)?).ok()?;
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    };
    let oid = field("oid")?.strip_prefix("sha256:")?;
    let is_hex = oid.len() == 64 && oid.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then_some(())?;
    Some(Object {
        oid: oid.to_owned(),
        size: field("size")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_told_from_files() {
        let oid = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";
        let pointer =
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 12345\n");
        let object = parse(pointer.as_bytes()).unwrap();
        assert_eq!((object.oid.as_str(), object.size), (oid, 12345));
        for other in [
            "",
            "version https://git-lfs.github.com/spec/v1\n",
            &pointer.replace("v1", "v2"),
            &pointer.replace("4d7a", "4D7A"),
            &pointer.replace("sha256", "md5"),
            &pointer.replace("12345", "-1"),
            &format!("# {pointer}"),
        ] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }
}
