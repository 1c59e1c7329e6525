//! What runs when: in each run every mode, in each mode every builder, so that whatever
//! else the machine does meets all builders alike.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use ocibuild::testing::busybox_layout;
use ocibuild_registry::testing::Registry;
use serde_json::Value;
use tempfile::TempDir;

use crate::builder::{self, Builder};
use crate::measure::Cost;
use crate::options::{Mode, Options};
use crate::report;
use crate::workload::{self, Workload};

/// All that exists while measuring; it goes away with this value.
pub(crate) struct Place {
    workloads: Vec<Workload>,
    builders: Vec<Builder>,
    registry: Target,
    _folder: TempDir,
}

/// Where images are pushed.
enum Target {
    Ours(Registry),
    Given(String),
}

impl Place {
    /// Starts a registry with a base in it and makes the workloads, or takes what the
    /// options name.
    pub(crate) fn prepare(options: &Options) -> Result<Self> {
        let folder = match &options.work {
            Some(parent) => TempDir::new_in(parent),
            None => TempDir::new(),
        };
        let folder = folder.context("make a working folder")?;
        let contexts = folder.path().join("contexts");
        let (registry, workloads) = match (&options.workloads, &options.registry) {
            (Some(given), Some(host)) => (
                Target::Given(host.clone()),
                workload::copy_from(given, &contexts, &options.only)?,
            ),
            _ => {
                let registry = Registry::start().context("start a registry")?;
                let base = push_base(&registry.host(), folder.path())?;
                let made = workload::make(&contexts, &base, &options.only, options.full)?;
                (Target::Ours(registry), made)
            }
        };
        let stores = folder.path().join("stores");
        std::fs::create_dir_all(&stores)?;
        let mut builders = vec![Builder::Ocibuild {
            program: match &options.command {
                Some(program) => program.clone(),
                None => std::env::current_exe()?,
            },
            root: stores.join("ocibuild"),
        }];
        let peers = options.peer.iter();
        builders.extend(peers.map(|peer| Builder::peer(*peer, &stores)));
        Ok(Self {
            workloads,
            builders,
            registry,
            _folder: folder,
        })
    }

    /// Takes the workloads out, in the order in which they are measured.
    pub(crate) fn take_workloads(&mut self) -> Vec<Workload> {
        std::mem::take(&mut self.workloads)
    }
}

/// Pushes an image of busybox to a registry and gives its name.
pub(crate) fn push_base(host: &str, folder: &Path) -> Result<String> {
    let layout = folder.join("base");
    busybox_layout(&layout, "latest");
    let name = format!("{host}/busybox:latest");
    let (text, store) = ("FROM base\n", folder.join("base-store"));
    builder::push_layout(&layout, "latest", text, folder, &name, &store)?;
    Ok(name)
}

/// Measures one workload in every wanted mode, with every builder; gives the lines.
pub(crate) fn measure(place: &mut Place, work: &Workload, options: &Options) -> Result<Vec<Value>> {
    let wanted = |mode: &Mode| options.mode.is_empty() || options.mode.contains(mode);
    let mut costs: BTreeMap<(usize, usize), Vec<Cost>> = BTreeMap::new();
    for run in 1..=options.runs {
        for (mode_number, mode) in Mode::ALL.iter().enumerate() {
            // What the other modes know is what the cold build has left.
            if *mode != Mode::Cold && !wanted(mode) || *mode == Mode::Edited && !work.edit(run)? {
                continue;
            }
            for (number, builder) in place.builders.iter_mut().enumerate() {
                if *mode == Mode::Cold {
                    builder.forget()?;
                }
                let cost =
                    build_once(&place.registry, work, builder, *mode, run).with_context(|| {
                        format!("{} {} by {}", work.name, mode.name(), builder.name())
                    })?;
                if wanted(mode) {
                    costs.entry((mode_number, number)).or_default().push(cost);
                }
            }
        }
    }
    let lines = costs.iter().map(|((mode, builder), costs)| {
        let builder = place.builders[*builder].name();
        report::line(&work.name, builder, Mode::ALL[*mode].name(), costs)
    });
    Ok(lines.collect())
}

fn build_once(
    registry: &Target,
    work: &Workload,
    builder: &Builder,
    mode: Mode,
    run: u32,
) -> Result<Cost> {
    // A name of its own for what is to be sent in full; the other modes push again.
    let again = match mode {
        Mode::Base => "-base",
        Mode::Cold | Mode::Unchanged | Mode::Edited | Mode::Rebased => "",
    };
    let host = match registry {
        Target::Ours(registry) => registry.host(),
        Target::Given(host) => host.clone(),
    };
    let path = format!("bench/{}-{}-{run}{again}", work.name, builder.name());
    let name = format!("{host}/{}:latest", path.to_lowercase());
    if let Target::Ours(registry) = registry {
        registry.clear_requests();
    }
    let mut cost = builder.build(&work.folder, &name, mode != Mode::Base)?;
    if let Target::Ours(registry) = registry {
        cost.sent_bytes = Some(registry.uploaded_bytes());
    }
    Ok(cost)
}
