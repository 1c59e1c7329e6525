//! What can go wrong with a record.

use std::io;

use rustix::io::Errno;

/// A record that could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{call}: {}", io::Error::from(*.errno))]
    System {
        /// The call.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The file system has no attributes of the user.
    #[error(
        "the file system holds no user attributes ({call}: EOPNOTSUPP), so owners cannot be recorded"
    )]
    NoAttributes {
        /// The call.
        call: &'static str,
    },
    /// The file system has no times in the far future.
    #[error(
        "the file system holds no access times after the year 2106, so owners of symbolic links cannot be recorded"
    )]
    NoFarTimes,
    /// Reading a link changes its access time, although that is in the future.
    #[error(
        "the file system is mounted with strictatime, so owners of symbolic links cannot be recorded"
    )]
    StrictTimes,
    /// A group for which the access time of a link or pipe has no room.
    #[error("group {gid} cannot be recorded for a symbolic link or a pipe")]
    Group {
        /// The group.
        gid: u32,
    },
    /// What stands in the attribute is not a record.
    #[error("the recorded owner is malformed")]
    Malformed,
    /// Only an empty regular file can stand for a device.
    #[error("a device can be recorded for a regular file only")]
    DevicePlace,
    /// A real device has no place for a record.
    #[error("nothing can be recorded for a device")]
    NoPlace,
}

impl Error {
    /// Names the system call that failed.
    pub(super) fn of(call: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| match errno {
            Errno::OPNOTSUPP => Self::NoAttributes { call },
            errno => Self::System { call, errno },
        }
    }

    /// Gives the error number that a program gets to see for it.
    pub fn errno(&self) -> Errno {
        match self {
            Self::System { errno, .. } => *errno,
            Self::NoAttributes { .. } | Self::NoFarTimes | Self::StrictTimes => Errno::OPNOTSUPP,
            Self::Group { .. } | Self::DevicePlace | Self::NoPlace => Errno::INVAL,
            Self::Malformed => Errno::IO,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::System { errno, .. } => errno.into(),
            error => Self::new(io::Error::from(error.errno()).kind(), error),
        }
    }
}
