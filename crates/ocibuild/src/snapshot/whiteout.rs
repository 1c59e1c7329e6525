//! How an overlay file system writes down what it removed: a character device 0:0
//! for a path, an attribute for a directory whose lower content is gone
//! (kernel documentation, overlayfs, "whiteouts and opaque directories").

use crate::executor::Identity;

/// Where the kernel keeps its own notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notes {
    /// `trusted.overlay.*`, for the real root.
    Trusted,
    /// `user.overlay.*`, for mounts inside a user namespace (`userxattr`).
    User,
}

impl Notes {
    pub(super) fn of(identity: &Identity) -> Self {
        match identity {
            Identity::Real => Self::Trusted,
            Identity::Range { .. } | Identity::Single | Identity::Recorded => Self::User,
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }

    /// Gives the attribute that makes a directory opaque; its value is `y`.
    pub(super) fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }

    /// Gives what the kernel noted, if the attribute is one of its notes.
    pub(super) fn strip(self, attribute: &[u8]) -> Option<&[u8]> {
        attribute.strip_prefix(self.prefix().as_bytes())
    }
}

/// The value of the opaque attribute.
pub(super) const OPAQUE: &[u8] = b"y";
