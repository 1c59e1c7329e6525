//! How much a registry may hold. A repository's share is what it links, so that what two
//! repositories have in common counts for each; the whole is what is on the disk.

use super::failure::Failure;
use super::route::Name;
use super::store::{Result, Store};

/// Limits in bytes; without one there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Of all contents together.
    pub total: Option<u64>,
    /// Of what one repository has.
    pub repository: Option<u64>,
}

impl Store {
    /// Gives how many bytes a repository may still take, and who sets the limit.
    pub(super) fn allowance(&self, name: &Name) -> Result<Option<Allowance>> {
        let quota = self.quota();
        let mut tightest: Option<Allowance> = None;
        let mut limit = |limit: Option<u64>, used: u64, whose: &'static str| {
            let left = limit.map(|limit| limit.saturating_sub(used));
            let allowance = left
                .zip(limit)
                .map(|(left, limit)| Allowance { left, limit, whose });
            if let Some(new) = allowance
                && tightest.is_none_or(|old| new.left < old.left)
            {
                tightest = Some(new);
            }
        };
        if quota.total.is_some() {
            limit(quota.total, self.used(), "the registry");
        }
        if quota.repository.is_some() {
            limit(quota.repository, self.used_by(name)?, "the repository");
        }
        Ok(tightest)
    }
}

/// What may still be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    left: u64,
    limit: u64,
    whose: &'static str,
}

impl Allowance {
    /// Refuses what is too much.
    pub(super) fn check(allowance: Option<Self>, wanted: u64) -> std::result::Result<(), Failure> {
        match allowance {
            Some(Self { left, limit, whose }) if wanted > left => Err(Failure::quota(format!(
                "{whose} may hold {limit} bytes, of which {left} are free"
            ))),
            _ => Ok(()),
        }
    }
}
