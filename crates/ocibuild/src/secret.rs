//! Secrets: what `RUN --mount=type=secret` shows to a command. A secret is read when a
//! step asks for it, stays in memory, and never shows itself: not in Debug, not in an
//! error.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The most bytes that a secret may have, as in BuildKit (`MaxSecretSize`).
pub const MAX_SIZE: usize = 500 << 10;

/// Why a secret cannot be had. None of the texts holds any of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Its file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its file is a directory, a device or a pipe.
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    /// Its environment variable is not set.
    #[error("the environment variable {0:?} is not set")]
    NotSet(OsString),
    /// It has more than [`MAX_SIZE`] bytes.
    #[error("it is longer than {MAX_SIZE} bytes")]
    TooLong,
    /// It is to be an environment variable and holds a zero byte.
    #[error("it holds a zero byte and so cannot be an environment variable")]
    ZeroByte,
}

/// Bytes that do not show themselves: Debug tells how many there are.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(Vec<u8>);

impl Hidden {
    /// Gives the bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl<T: Into<Vec<u8>>> From<T> for Hidden {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "****({} bytes)", self.0.len())
    }
}

/// Where the content of a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret(Source);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Bytes(Hidden),
    File(PathBuf),
    Variable(OsString),
}

impl Secret {
    /// A secret that is in memory already.
    pub fn bytes(content: impl Into<Vec<u8>>) -> Self {
        Self(Source::Bytes(Hidden::from(content)))
    }

    /// A secret in a file, which is read each time that a step asks for it.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    /// A secret in an environment variable of this process, which is read each time that
    /// a step asks for it. Nothing else in this library reads the environment: here the
    /// caller names the variable.
    pub fn variable(name: impl Into<OsString>) -> Self {
        Self(Source::Variable(name.into()))
    }

    /// Reads the secret.
    ///
    /// # Errors
    ///
    /// If its file cannot be read, its variable is not set, or it has more than
    /// [`MAX_SIZE`] bytes.
    pub fn read(&self) -> Result<Hidden, Error> {
        let content = match &self.0 {
            Source::Bytes(content) => content.clone(),
            Source::File(path) => read_file(path)?,
            Source::Variable(name) => match std::env::var_os(name) {
                Some(value) => Hidden(value.into_vec()),
                None => return Err(Error::NotSet(name.clone())),
            },
        };
        match content.0.len() {
            0..=MAX_SIZE => Ok(content),
            _ => Err(Error::TooLong),
        }
    }
}

/// Reads one byte more than is allowed at most, so that a file that is too long is seen.
fn read_file(path: &PathBuf) -> Result<Hidden, Error> {
    let failed = |source| Error::Read {
        path: path.clone(),
        source,
    };
    // A pipe without a writer must not hold the build.
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::NotAFile(path.clone()));
    }
    let mut content = Vec::new();
    let most = MAX_SIZE as u64 + 1;
    file.take(most).read_to_end(&mut content).map_err(failed)?;
    Ok(Hidden(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows() {
        let secret = Secret::bytes("hidden");
        assert_eq!(format!("{secret:?}"), "Secret(Bytes(****(6 bytes)))");
        assert_eq!(secret.read().expect("it is here").expose(), b"hidden");
    }

    #[test]
    fn sources_that_give_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("f");
        std::fs::write(&file, vec![b'x'; MAX_SIZE]).expect("a file");
        assert!(Secret::file(&file).read().is_ok());
        std::fs::write(&file, vec![b'x'; MAX_SIZE + 1]).expect("a file");
        let fails = |secret: Secret| secret.read().expect_err("it must fail");
        assert!(matches!(fails(Secret::file(&file)), Error::TooLong));
        assert!(matches!(
            fails(Secret::file(folder.path())),
            Error::NotAFile(_)
        ));
        assert!(matches!(
            fails(Secret::file("/does/not/exist")),
            Error::Read { .. }
        ));
        assert!(matches!(
            fails(Secret::variable("OCIBUILD_TEST_NOT_SET")),
            Error::NotSet(_)
        ));
        assert!(matches!(
            fails(Secret::bytes(vec![0; MAX_SIZE + 1])),
            Error::TooLong
        ));
    }
}
