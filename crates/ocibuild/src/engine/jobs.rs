//! Work that must be done with the ids of RUN steps: unpacking a layer with its owners,
//! reading what a step wrote, and removing it. With real ids it is done right here,
//! in a user namespace by this program started again inside it.

use serde::{Serialize, de::DeserializeOwned};

use crate::Cancel;
use crate::error::Error;
use crate::executor::remove::remove_tree;
use crate::executor::{Identity, Job, REMOVE_TREE, Sandbox};
use crate::snapshot::{diff, fill, unpack};

pub(crate) const UNPACK: &str = "unpack";
pub(crate) const COMPLETE: &str = "complete";
pub(crate) const DIFF: &str = "diff";
pub(crate) const FILL: &str = "fill";

/// Every job, by name.
pub(crate) const JOBS: &[(&str, Job)] = &[
    (UNPACK, unpack::job),
    (COMPLETE, unpack::complete_job),
    (DIFF, diff::job),
    (FILL, fill::job),
    (REMOVE_TREE, remove_tree),
];

/// Does a job with the ids of the sandbox.
pub(crate) fn call<Q: Serialize, A: DeserializeOwned>(
    sandbox: &dyn Sandbox,
    name: &'static str,
    request: &Q,
    cancel: &Cancel,
) -> Result<A, Error> {
    let failed = |reason: String| Error::Job { name, reason };
    let request = serde_json::to_vec(request).map_err(|error| failed(error.to_string()))?;
    let answer = match sandbox.identity() {
        Identity::Real => here(name, &request).map_err(failed)?,
        Identity::Range { .. } | Identity::Single | Identity::Recorded => {
            sandbox.call(name, &request, cancel)?
        }
    };
    serde_json::from_slice(&answer).map_err(|error| failed(error.to_string()))
}

fn here(name: &str, request: &[u8]) -> Result<Vec<u8>, String> {
    let (_, job) = JOBS
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| "there is no such job".to_owned())?;
    job(request)
}
