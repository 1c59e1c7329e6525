//! Many builds at once, no two of them alike: how long each waits, how long all take, and
//! whether all complete. Once of builds that only copy a file, once of builds that run a
//! command on a base.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::replica::Replica;
use super::site::Site;
use crate::spread::{Spread, hundredths};

pub(super) async fn measure(site: &Site) -> Result<Vec<Value>> {
    let copy = |_| "FROM scratch\nCOPY program /\n".to_owned();
    let run = |number| {
        format!(
            "FROM {}\nCOPY program /\nRUN echo {number} > /made\n",
            site.base
        )
    };
    Ok(vec![
        burst(site, "copy", &copy).await?,
        burst(site, "run", &run).await?,
    ])
}

async fn burst(site: &Site, kind: &str, dockerfile: &dyn Fn(usize) -> String) -> Result<Value> {
    let count = site.counts.burst;
    let repository = site.repository(count, dockerfile);
    let settings = site.settings()?;
    let replica = Replica::start(site, &settings).await?;
    let start = Instant::now();
    replica.submit_all(&repository, 0..count).await?;
    let submitted = start.elapsed().as_secs_f64();
    let builds = replica.wait_for_all().await?;
    let took = start.elapsed().as_secs_f64();
    let completed = builds.iter().filter(|build| build["status"] == "completed");
    let waited = between(&builds, "created_at", "started_at")?;
    let ran = between(&builds, "started_at", "ended_at")?;
    Ok(json!({
        "kind": kind,
        "max_builds": settings.max_builds,
        "builds": count,
        "completed": completed.count(),
        "all_answered_seconds": hundredths(submitted),
        "wall_seconds": hundredths(took),
        "waited_ms": Spread::of(waited).report(),
        "ran_ms": Spread::of(ran).report(),
    }))
}

/// Gives the times between two moments of every build.
fn between(builds: &[Value], from: &str, to: &str) -> Result<Vec<Duration>> {
    let moment = |build: &Value, name: &str| -> Result<DateTime<Utc>> {
        let text = build[name].as_str();
        Ok(text
            .with_context(|| format!("no {name}: {build}"))?
            .parse()?)
    };
    let times = builds.iter().map(|build| {
        let time = moment(build, to)? - moment(build, from)?;
        // Clocks of two machines may differ by a little; here there is one.
        time.to_std()
            .with_context(|| format!("{to} is before {from}: {build}"))
    });
    times.collect()
}
