//! How long it takes from `kill -9` of a replica in mid-build until its build runs again, and
//! until it has completed.
//!
//! With MariaDB another replica takes the build over, when the lease of the dead one has run
//! out. With SQLite there is no other: the service is started again on the same folder.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::gate::Gate;
use super::options::Database;
use super::replica::Replica;
use super::site::Site;
use crate::spread::{Spread, milliseconds};

/// A replica judges others only when it has reached the database for the time of a lease,
/// which is 15 s unless configured otherwise: this long both are left alone before the kill.
const SETTLED: Duration = Duration::from_secs(18);
const PAUSE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(120);

/// What was seen after one kill, as times since then.
#[derive(Debug)]
struct Recovered {
    /// The processes of the old attempt are gone.
    gone: Duration,
    /// The table says that the build runs again.
    claimed: Duration,
    /// Its command has reached the place at which the replica was killed.
    back: Duration,
    completed: Duration,
}

pub(super) async fn measure(site: &Site) -> Result<Value> {
    let mut all = Vec::new();
    for _ in 0..site.counts.kills {
        all.push(match site.database {
            Database::Sqlite => restart(site).await?,
            Database::Mariadb => take_over(site).await?,
        });
    }
    let by = match site.database {
        Database::Sqlite => "the same replica, started again",
        Database::Mariadb => "another replica",
    };
    let spread =
        |time: fn(&Recovered) -> Duration| Spread::of(all.iter().map(time).collect()).report();
    let gone = all.iter().map(|one| one.gone).max().map(milliseconds);
    Ok(json!({
        "recovered_by": by,
        "old_processes_gone_max_ms": gone,
        "claimed_ms": spread(|one| one.claimed),
        "command_back_ms": spread(|one| one.back),
        "completed_ms": spread(|one| one.completed),
    }))
}

async fn restart(site: &Site) -> Result<Recovered> {
    let gate = Gate::close()?;
    let repository = repository(site, &gate);
    let settings = site.settings()?;
    let mut replica = Replica::start(site, &settings).await?;
    let id = replica.submit(&repository, 0).await?;
    let waiting = gate.reached().await?;
    let killed = replica.kill()?;
    let again = Replica::start(site, &settings).await?;
    let gone = waiting.gone().await? - killed;
    finish(&again, &id, &gate, killed, gone).await
}

async fn take_over(site: &Site) -> Result<Recovered> {
    let gate = Gate::close()?;
    let repository = repository(site, &gate);
    let [one, two] = site.replicas()?;
    let mut replicas = vec![
        Replica::start(site, &one).await?,
        Replica::start(site, &two).await?,
    ];
    tokio::time::sleep(SETTLED).await;
    let id = replicas[0].submit(&repository, 0).await?;
    let waiting = gate.reached().await?;
    let build = replicas[0].build(&id).await?;
    let owner = build["worker"].as_str().context("nobody builds it")?;
    let is_owner = |replica: &Replica| owner.starts_with(&format!("{}/", replica.name));
    let owner = replicas.iter().position(is_owner);
    let mut dead = replicas.swap_remove(owner.with_context(|| format!("an unknown {build}"))?);
    let killed = dead.kill()?;
    let gone = waiting.gone().await? - killed;
    finish(&replicas[0], &id, &gate, killed, gone).await
}

fn repository(site: &Site, gate: &Gate) -> String {
    site.repository(1, |_| {
        format!("FROM {}\nRUN {}\n", site.base, gate.command())
    })
}

/// Follows a build whose replica was killed to its end.
async fn finish(
    replica: &Replica,
    id: &str,
    gate: &Gate,
    killed: Instant,
    gone: Duration,
) -> Result<Recovered> {
    loop {
        let build = replica.build(id).await?;
        if build["attempts"] == 2 && build["status"] == "running" {
            break;
        }
        ensure!(
            killed.elapsed() < PATIENCE,
            "nobody takes the build: {build}"
        );
        tokio::time::sleep(PAUSE).await;
    }
    let claimed = killed.elapsed();
    let back = gate.reached().await?;
    let back_at = back.since - killed;
    drop(back);
    replica.wait_for(id).await?;
    Ok(Recovered {
        gone,
        claimed,
        back: back_at,
        completed: killed.elapsed(),
    })
}
