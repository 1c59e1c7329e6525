//! How long answers to build requests take at a fixed rate, whether or not the ones before
//! were answered (an open loop). A time counts from when the request was due, so that a stall
//! counts for all requests that it delays.
//!
//! The only place for a build is taken by one whose Git server never answers: the queue only
//! grows, and nothing is built meanwhile.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::replica::{Replica, Settings};
use super::site::Site;
use crate::measure::own_cpu_seconds;
use crate::spread::{Spread, hundredths};

const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn measure(site: &Site) -> Result<Value> {
    let settings = Settings {
        max_builds: 1,
        ..site.settings()?
    };
    let replica = Arc::new(Replica::start(site, &settings).await?);
    // The kernel accepts the connection, and nobody reads from it.
    let silent = TcpListener::bind("127.0.0.1:0").context("make a silent Git server")?;
    let repository = format!("http://{}/app.git", silent.local_addr()?);
    let first = replica.submit(&repository, 0).await?;
    wait_until_running(&replica, &first).await?;

    let cpu_before = own_cpu_seconds(replica.process());
    let rate = site.counts.rate;
    let count = usize::try_from(rate * site.counts.seconds)?;
    let start = Instant::now();
    let mut requests = JoinSet::new();
    for number in 1..=count {
        let due = start + Duration::from_secs(1) / rate * u32::try_from(number)?;
        tokio::time::sleep_until(due.into()).await;
        let (replica, repository) = (Arc::clone(&replica), repository.clone());
        requests.spawn(async move {
            let answer = replica.submit(&repository, number).await;
            answer.map(|_| due.elapsed())
        });
    }
    let (mut times, mut failures) = (Vec::new(), 0);
    for answer in requests.join_all().await {
        match answer {
            Ok(time) => times.push(time),
            Err(_) => failures += 1,
        }
    }
    let took = start.elapsed().as_secs_f64();
    let cpu = own_cpu_seconds(replica.process()) - cpu_before;

    ensure!(
        replica.build(&first).await?["status"] == "running",
        "the queue did not only grow"
    );
    Ok(json!({
        "requests_per_second": rate,
        "post_ms": Spread::of(times).report(),
        "failures": failures,
        "seconds": hundredths(took),
        "cpu_seconds": hundredths(cpu),
    }))
}

async fn wait_until_running(replica: &Replica, id: &str) -> Result<()> {
    let start = Instant::now();
    while replica.build(id).await?["status"] != "running" {
        ensure!(start.elapsed() < PATIENCE, "the first build does not begin");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
