//! Where the notes of overlay file systems stand in the trees of an engine.

use serde::{Deserialize, Serialize};

use super::Identity;

/// The attributes that say which directories are opaque. The kernel looks at one kind
/// or the other, and not every process may set both, so trees that are made with one
/// are not valid with the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notes {
    /// `trusted.overlay.*`, which only root with `CAP_SYS_ADMIN` may set.
    Trusted,
    /// `user.overlay.*`, for mounts with `userxattr` and for engines without mounts.
    User,
}

impl Notes {
    /// Gives what engines with this identity usually have.
    pub fn of(identity: &Identity) -> Self {
        match identity {
            Identity::Real => Self::Trusted,
            Identity::Range { .. } | Identity::Single | Identity::Recorded => Self::User,
        }
    }
}
