//! How an overlay file system writes down what it removed: a character device 0:0
//! for a path, an attribute for a directory whose lower content is gone
//! (kernel documentation, overlayfs, "whiteouts and opaque directories").

use rustix::fs::{FileType, Stat};

use crate::executor::Notes;

impl Notes {
    /// Gives the attribute that makes a directory opaque; its value is `y`.
    pub(super) fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }

    /// Gives what the kernel noted, if the attribute is one of its notes.
    pub(super) fn strip(self, attribute: &[u8]) -> Option<&[u8]> {
        let prefix: &[u8] = match self {
            Self::Trusted => b"trusted.overlay.",
            Self::User => b"user.overlay.",
        };
        attribute.strip_prefix(prefix)
    }
}

/// The value of the opaque attribute.
pub(super) const OPAQUE: &[u8] = b"y";

pub(super) fn is_whiteout(stat: &Stat) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    kind == FileType::CharacterDevice && stat.st_rdev == 0
}
