//! Where a blob can be had: from mirrors in their order, then from its registry. A place
//! that fails is left for good; the registry itself, the last one, is asked again and
//! again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{HeaderValue, RANGE};
use url::Url;

use crate::action::Action;
use crate::auth::Access;
use crate::retry::Backoff;
use crate::transport::{Request, Response, Transport};
use crate::{Client, Descriptor, Error, Repository, Retry};

/// How long a mirror may be silent before the next place is asked.
const MIRROR_IDLE: Duration = Duration::from_secs(15);
pub(super) const OTHER_RANGE: &str = "it sends another range than it was asked for";
pub(super) const ODD_STATUS: &str = "it answers a request for a blob with an odd status";

/// The number of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

struct Address {
    repository: Repository,
    url: Url,
    action: Action,
}

/// The places of one blob; clones share which of them is asked.
#[derive(Clone)]
pub(super) struct Places {
    transport: Arc<Transport>,
    hasty: Arc<Transport>,
    addresses: Arc<Vec<Address>>,
    current: Arc<AtomicUsize>,
    /// Never empty: the registry itself.
    last: usize,
}

impl Places {
    pub(super) fn new(
        client: &Client,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<Self, Error> {
        let mut addresses = Vec::new();
        let mirrors = client.transport.connector().mirrors(repository);
        for repository in mirrors.into_iter().chain([repository.clone()]) {
            let action = super::action(&repository, descriptor);
            let path = format!("blobs/{}", descriptor.digest);
            addresses.push(Address {
                url: client.transport.url(&repository, &path, &action)?,
                repository,
                action,
            });
        }
        let hasty = client.transport.with_retry(Retry::short(MIRROR_IDLE));
        Ok(Self {
            transport: Arc::clone(&client.transport),
            hasty: Arc::new(hasty),
            last: addresses.len() - 1,
            addresses: Arc::new(addresses),
            current: Arc::default(),
        })
    }

    pub(super) fn has_mirrors(&self) -> bool {
        self.last > 0
    }

    /// Gives the registry alone.
    pub(super) fn only_origin(&self) -> Self {
        Self {
            current: Arc::new(AtomicUsize::new(self.last)),
            ..self.clone()
        }
    }

    pub(super) fn origin(&self) -> &Repository {
        &self.addresses[self.last].repository
    }

    pub(super) fn action(&self) -> Action {
        self.addresses[self.last].action.clone()
    }

    pub(super) fn backoff(&self) -> Backoff {
        self.transport.backoff()
    }

    pub(super) fn protocol(&self, problem: &'static str) -> Error {
        let action = self.action();
        Error::Protocol { action, problem }
    }

    /// Asks for the blob or a range of it; fails when its registry does.
    pub(super) async fn open(&self, range: Option<&str>) -> Result<(Response, Place), Error> {
        loop {
            let at = self.current.load(Ordering::Relaxed).min(self.last);
            let address = &self.addresses[at];
            let access = Access::pull(&address.repository);
            let (action, url) = (address.action.clone(), address.url.clone());
            let mut request = Request::new(action, Method::GET, url, access);
            if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
                request = request.header(RANGE, range);
            }
            let transport = match at < self.last {
                true => &self.hasty,
                false => &self.transport,
            };
            match transport.send_once(&request).await {
                Ok(response) => return Ok((response, Place(at))),
                Err(error) if self.leave(Place(at), &error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Goes on to the next place where one has failed; false where it was the last.
    pub(super) fn leave(&self, Place(failed): Place, error: &Error) -> bool {
        if failed >= self.last {
            return false;
        }
        let next = self.current.fetch_max(failed + 1, Ordering::Relaxed);
        if next <= failed {
            let mirror = &self.addresses[failed].repository;
            let reason = error.reason();
            tracing::warn!(%mirror, reason, "a mirror fails, the next place is asked");
        }
        true
    }
}

/// Reads where a range begins that an answer carries.
pub(super) fn range_begin(response: &Response) -> Option<u64> {
    let range = response.header("content-range")?;
    let (begin, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    begin.parse().ok()
}
