//! What the service has resident at its start and after each lot of builds, half of which
//! copy a file and half of which run a command. Its build processes are not counted.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::replica::Replica;
use super::site::Site;
use crate::measure::{peak_memory, resident_memory};

pub(super) async fn measure(site: &Site) -> Result<Value> {
    let (lots, lot) = (site.counts.lots, site.counts.lot);
    let repository = site.repository(lots * lot, |number| match number % 2 {
        0 => "FROM scratch\nCOPY program /\n".to_owned(),
        _ => format!(
            "FROM {}\nCOPY program /\nRUN echo {number} > /made\n",
            site.base
        ),
    });
    let replica = Replica::start(site, &site.settings()?).await?;
    let at_start = resident_memory(replica.process());
    let mut after = Vec::new();
    for number in 0..lots {
        let numbers = number * lot..(number + 1) * lot;
        replica.submit_all(&repository, numbers.clone()).await?;
        let builds = replica.wait_for_all().await?;
        let completed = builds.iter().filter(|build| build["status"] == "completed");
        ensure!(
            completed.count() == numbers.end,
            "builds failed: {builds:?}"
        );
        after.push(resident_memory(replica.process()));
    }
    Ok(json!({
        "builds": lots * lot,
        "start_bytes": at_start,
        "after_each_lot_bytes": after,
        "peak_bytes": peak_memory(replica.process()),
    }))
}
