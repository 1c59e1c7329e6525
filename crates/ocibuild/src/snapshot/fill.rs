//! A directory that commands see by a mount: made with an owner and a mode, and perhaps
//! with files from a tar. Like an unpacked layer it grows beside its place and is renamed
//! when it is whole.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use super::error::At;
use super::unpack::{Options, unpack};
use crate::causes::one_line;
use crate::executor::{Identity, Notes};
use crate::ownership::{self, Record};

/// What [`job`] is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The directory to make.
    pub dest: PathBuf,
    /// A tar with what is in it.
    pub tar: Option<PathBuf>,
    /// Whose ids the files get.
    pub identity: Identity,
    /// Where overlayfs looks for its notes.
    pub notes: Notes,
    /// User and group of the directory itself.
    pub owner: (u32, u32),
    /// Its twelve permission bits.
    pub mode: u32,
}

/// Does what a [`Request`] in JSON says, as root among the ids of the sandbox; gives
/// `null`, or the error in one line.
pub fn job(request: &[u8]) -> Result<Vec<u8>, String> {
    let request: Request = serde_json::from_slice(request).map_err(|error| one_line(&error))?;
    request.run().map_err(|error| one_line(&error))?;
    Ok(b"null".to_vec())
}

impl Request {
    fn run(&self) -> Result<(), Error> {
        let dest = &self.dest;
        let folder = tempfile::Builder::new()
            .prefix(".fill-")
            .tempdir_in(dest.parent().unwrap_or(Path::new("/")))
            .at_host("make a directory beside", dest)?;
        let path = folder.path();
        if let Some(tar) = &self.tar {
            let options = Options {
                notes: self.notes,
                ..Options::new(self.identity.clone())
            };
            let tar = File::open(tar).at_host("open", tar)?;
            unpack(tar, path, &options)?;
        }
        self.set_owner_and_mode(path)?;
        fs::rename(path, dest).at_host("rename to", dest)?;
        // It is not there any more under the name that would be removed.
        let _ = folder.keep();
        Ok(())
    }

    fn set_owner_and_mode(&self, path: &Path) -> Result<(), Error> {
        let ((uid, gid), dest) = (self.owner, &self.dest);
        if self.identity == Identity::Recorded {
            let record = Record {
                uid,
                gid,
                ..Record::plain(self.mode)
            };
            let folder = File::open(path).at_host("open", dest)?;
            return ownership::write(folder, &record).at_host("record the owner of", dest);
        }
        chown(path, Some(uid), Some(gid)).at_host("set the owner of", dest)?;
        let mode = Permissions::from_mode(self.mode & 0o7777);
        fs::set_permissions(path, mode).at_host("set the mode of", dest)
    }
}
