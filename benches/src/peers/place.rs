//! What is there while builders are compared: one registry with the bases in it, and the
//! folders that are built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use ocibuild::registry::Index;
use ocibuild::testing::busybox_layout;
use ocibuild_registry::testing::DebianRegistry;
use tempfile::TempDir;

use super::options::Options;
use super::recipe::file_name;
use crate::builder;
use crate::workload::{self, Random, Workload};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What stands for the registry in Dockerfiles that are given.
const REGISTRY: &str = "REGISTRY";

/// All of it goes away with this value.
pub(crate) struct Place {
    pub(crate) registry: DebianRegistry,
    pub(crate) workloads: Vec<Workload>,
    /// The names of the bases; each is there under its name with `-rebased` behind it too.
    pub(crate) bases: Vec<String>,
    pub(crate) stores: PathBuf,
    _folder: TempDir,
}

impl Place {
    pub(crate) fn prepare(options: &Options) -> Result<Self> {
        let folder = match &options.work {
            Some(parent) => TempDir::new_in(parent),
            None => TempDir::new(),
        };
        let folder = folder.context("make a working folder")?;
        let registry = DebianRegistry::start().context("start Debian's docker-registry")?;
        let contexts = folder.path().join("contexts");
        let layouts = match &options.bases {
            Some(bases) => listed(bases)?,
            None => vec![own_base(folder.path(), options.full)?],
        };
        let mut bases = Vec::new();
        for layout in layouts {
            bases.extend(push(&layout, &registry.host(), folder.path())?);
        }
        let (only, full) = (&options.only, options.full);
        let workloads = match &options.workloads {
            Some(given) => {
                let copied = workload::copy_from(given, &contexts, only)?;
                for work in &copied {
                    work.rewrite(|text| text.replace(REGISTRY, &registry.host()))?;
                }
                copied
            }
            None => workload::make(&contexts, &bases[0], only, full)?,
        };
        let stores = folder.path().join("stores");
        fs::create_dir(&stores)?;
        Ok(Self {
            registry,
            workloads,
            bases,
            stores,
            _folder: folder,
        })
    }

    /// Gives a workload the other version of its bases, or the first one again.
    pub(crate) fn rebase(&self, work: &Workload, is_rebased: bool) -> Result<()> {
        work.rewrite(|text| {
            let mut text = text.to_owned();
            for base in &self.bases {
                let other = rebased(base);
                text = text.replace(&other, base);
                if is_rebased {
                    text = text.replace(base, &other);
                }
            }
            text
        })
    }
}

fn rebased(base: &str) -> String {
    format!("{base}-rebased")
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.retain(|path| path.join("index.json").is_file());
    paths.sort();
    ensure!(!paths.is_empty(), "no image layout in {}", folder.display());
    Ok(paths)
}

/// Makes a base that has something in it: busybox and three layers of files, a part of them
/// text, as the packages of a distribution are.
fn own_base(folder: &Path, full: bool) -> Result<PathBuf> {
    let busybox = folder.join("busybox");
    busybox_layout(&busybox, "1");
    let context = folder.join("base-context");
    let mut text = "FROM base\n".to_owned();
    let mut random = Random::new(11);
    for layer in ["one", "two", "three"] {
        for number in 0..if full { 3_000 } else { 100 } {
            let path = context.join(format!("{layer}/{:02}/{number:04}", number % 50));
            let size = 1_000 + random.below(20_000);
            let bytes = match number % 4 {
                0 => random.bytes(size),
                _ => random.text(size).into_bytes(),
            };
            workload::write(&path, &bytes)?;
        }
        text += &format!("COPY {layer} /usr/lib/{layer}\n");
    }
    workload::write(&context.join("Dockerfile"), text.as_bytes())?;
    let layout = folder.join("base");
    builder::export(&busybox, &context, &layout, &folder.join("base-store"))?;
    Ok(layout)
}

/// Pushes every image of a layout that has a tag, and another version of each; gives the
/// names of the first ones.
fn push(layout: &Path, host: &str, folder: &Path) -> Result<Vec<String>> {
    let index = fs::read(layout.join("index.json"))?;
    let index: Index = serde_json::from_slice(&index).context("read the index of a layout")?;
    let tags = index
        .manifests
        .iter()
        .filter_map(|image| image.annotations.get(REF_NAME));
    let tags = tags.map(|name| name.rsplit_once(':').map_or(&name[..], |(_, tag)| tag));
    let marker = folder.join("rebased");
    workload::write(&marker.join("marker"), b"another version of the base\n")?;
    let mut names = Vec::new();
    for tag in tags {
        let name = format!("{host}/{}:{tag}", file_name(layout));
        let store = folder.join("base-store");
        builder::push_layout(layout, tag, "FROM base\n", &marker, &name, &store)?;
        let changed = "FROM base\nCOPY marker /etc/base-version\n";
        builder::push_layout(layout, tag, changed, &marker, &rebased(&name), &store)?;
        names.push(name);
    }
    ensure!(
        !names.is_empty(),
        "no image in {} has a tag",
        layout.display()
    );
    Ok(names)
}
