//! How long it takes from a request, on a service that has nothing else to do, to the first
//! line in the log that comes from the build. The log is asked for once a millisecond.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::replica::Replica;
use super::site::Site;
use crate::spread::{Spread, milliseconds};

/// The line before it says only that the task waits.
const FIRST_LINE: &str = "<----- Input Parameters ----->";
const PAUSE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn measure(site: &Site) -> Result<Value> {
    let count = site.counts.first_lines;
    let repository = site.repository(count, |_| "FROM scratch\nCOPY program /\n".to_owned());
    let replica = Replica::start(site, &site.settings()?).await?;
    let (mut answered, mut began, mut completed) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        let start = Instant::now();
        let id = replica.submit(&repository, number).await?;
        answered.push(start.elapsed());
        while !replica.log(&id).await?.contains(FIRST_LINE) {
            ensure!(start.elapsed() < PATIENCE, "the build does not begin");
            tokio::time::sleep(PAUSE).await;
        }
        began.push(start.elapsed());
        replica.wait_for(&id).await?;
        completed.push(start.elapsed());
    }
    let whole = completed.iter().min().copied().map(milliseconds);
    Ok(json!({
        "answer_ms": Spread::of(answered).report(),
        "first_line_ms": Spread::of(began).report(),
        "fastest_build_ms": whole,
    }))
}
