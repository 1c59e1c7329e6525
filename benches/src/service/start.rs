//! How long the service takes from its start to its first healthy answer: in an empty folder
//! (and an empty database), and again after it was killed.

use anyhow::Result;
use serde_json::{Value, json};

use super::replica::Replica;
use super::site::Site;
use crate::spread::Spread;

pub(super) async fn measure(site: &Site) -> Result<Value> {
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for _ in 0..site.counts.starts {
        let settings = site.settings()?;
        // It is killed at the end of the line.
        first.push(Replica::start(site, &settings).await?.started_in);
        again.push(Replica::start(site, &settings).await?.started_in);
    }
    Ok(json!({
        "first_ms": Spread::of(first).report(),
        "again_ms": Spread::of(again).report(),
    }))
}
