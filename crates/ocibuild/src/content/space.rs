//! Limits of a store: how much it may take, and how much of the disk it must leave free.
//!
//! Whoever is about to write reserves the room first; where there is none, the longest
//! unused things go, and where that does not help, the write does not begin. Reservations
//! are files of their length, without content, in the folder of the process, so that every
//! process that shares the store counts them.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::prune::{Prune, Remover};
use super::usage::{self, RESERVED};
use super::{At, ContentStore, Error};

use crate::mutex::lock;

/// For so long a store that is far from its limit is not measured again.
const TRUSTED: Duration = Duration::from_secs(2);

/// Removes a folder whose files may belong to other ids.
pub type OwnedRemover = Arc<dyn Fn(&Path) -> io::Result<()> + Send + Sync>;

/// How much a store may take; nothing is limited by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreLimits {
    /// The most bytes of the disk that it takes.
    pub max_bytes: Option<u64>,
    /// The least bytes that the file system has left.
    pub min_free: Option<u64>,
}

impl StoreLimits {
    /// Tells whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a process keeps in mind about the room in its store.
pub(super) struct Space {
    limits: StoreLimits,
    remover: OwnedRemover,
    /// When the store was measured last, what it took, and what was reserved since.
    measured: Mutex<Option<(Instant, u64)>>,
}

impl Space {
    pub(super) fn new(limits: StoreLimits, remover: OwnedRemover) -> Self {
        Self {
            limits,
            remover,
            measured: Mutex::new(None),
        }
    }

    /// No limits.
    pub(super) fn any() -> Self {
        let refuse = |_: &Path| Err(io::ErrorKind::PermissionDenied.into());
        Self::new(StoreLimits::default(), Arc::new(refuse))
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limits.fmt(f)
    }
}

/// Room for something that is being written, until this is dropped.
#[derive(Debug)]
#[must_use = "the room is free again when this is dropped"]
pub(crate) struct Reservation(Option<PathBuf>);

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::debug!(path = %path.display(), %error, "a reservation stays");
        }
    }
}

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lack {
    bytes: u64,
    /// The limit that would be broken.
    limit: Limit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Store(u64),
    Free(u64),
}

impl Limit {
    /// Gives how much more goes than has to, so that the next write finds room.
    fn slack(self) -> u64 {
        match self {
            Self::Store(bytes) => bytes / 20,
            Self::Free(_) => 1 << 20,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(bytes) => write!(f, "the store may take {bytes} bytes"),
            Self::Free(bytes) => write!(f, "{bytes} bytes of the disk must stay free"),
        }
    }
}

impl ContentStore {
    /// Makes room for something that is about to be written. Blocks.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<Reservation, Error> {
        if self.0.space.limits.is_none() || self.is_surely_room(bytes) {
            return Ok(Reservation(None));
        }
        let _lock = self.lock("space")?;
        self.make_room(bytes)?;
        let name = tempfile::Builder::new()
            .prefix(RESERVED)
            .make_in(&self.0.scratch, |path| File::create_new(path));
        let (file, path) = name.at("create a file in", &self.0.scratch)?.into_parts();
        let path = path.keep().map_err(|error| error.error);
        let path = path.at("create a file in", &self.0.scratch)?;
        let reservation = Reservation(Some(path.clone()));
        file.set_len(bytes).at("reserve room with", &path)?;
        Ok(reservation)
    }

    /// Sees that the limits hold, and makes them hold. Blocks.
    pub(crate) fn keep_limits(&self) -> Result<(), Error> {
        match self.lack(0)? {
            None => Ok(()),
            Some(_) => {
                let _lock = self.lock("space")?;
                self.make_room(0)
            }
        }
    }

    /// Far from every limit nothing is measured for each small write.
    fn is_surely_room(&self, bytes: u64) -> bool {
        let StoreLimits {
            max_bytes,
            min_free,
        } = self.0.space.limits;
        if let Some(floor) = min_free {
            let free = usage::free(self.root()).unwrap_or_default();
            if free / 2 < floor.saturating_add(bytes) {
                return false;
            }
        }
        let Some(most) = max_bytes else {
            return true;
        };
        let mut measured = lock(&self.0.space.measured);
        match &mut *measured {
            Some((when, used)) if when.elapsed() < TRUSTED => {
                *used = used.saturating_add(bytes);
                *used < most / 4 * 3
            }
            _ => false,
        }
    }

    /// Lets the longest unused things go until there is room. Others write meanwhile, so what
    /// went may be used up again.
    fn make_room(&self, bytes: u64) -> Result<(), Error> {
        while let Some(lack) = self.lack(bytes)? {
            let used = self.bytes_on_disk();
            let going = lack.bytes.saturating_add(lack.limit.slack());
            let prune = Prune {
                keep_bytes: Some(used.saturating_sub(going)),
                ..Prune::default()
            };
            let remover: Remover<'_> = &*self.0.space.remover;
            let pruned = self.prune(&prune, remover)?;
            tracing::info!(bytes = pruned.bytes(), "made room in the store");
            if pruned.bytes() == 0 && self.lack(bytes)?.is_some() {
                return Err(Error::Full {
                    wanted: bytes,
                    missing: lack.bytes,
                    limit: lack.limit.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Gives what is missing for so many more bytes.
    fn lack(&self, bytes: u64) -> Result<Option<Lack>, Error> {
        let StoreLimits {
            max_bytes,
            min_free,
        } = self.0.space.limits;
        if let Some(most) = max_bytes {
            let used = self.bytes_on_disk();
            *lock(&self.0.space.measured) = Some((Instant::now(), used));
            let over = used.saturating_add(bytes).saturating_sub(most);
            if over > 0 {
                let limit = Limit::Store(most);
                return Ok(Some(Lack { bytes: over, limit }));
            }
        }
        if let Some(floor) = min_free {
            let free = usage::free(self.root()).at("measure", self.root())?;
            let wanted = floor
                .saturating_add(bytes)
                .saturating_add(usage::reserved(self.root()));
            if wanted > free {
                let limit = Limit::Free(floor);
                let bytes = wanted - free;
                return Ok(Some(Lack { bytes, limit }));
            }
        }
        Ok(None)
    }
}
