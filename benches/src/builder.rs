//! How each builder is told to build a folder and push the result, and to forget all
//! that it knows.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Parser;
use ocibuild::registry::{Client, Reference};
use ocibuild::{Build, ContextSource, DockerfileSource, NamedContext, Output};

use crate::measure::{self, Cost, Daemons};
use crate::options::Peer;

/// The first argument with which this program is ocibuild: it takes the arguments of
/// `ocibuild build`, so that the one is measured like the other.
pub(crate) const BUILD: &str = "build";

const DOCKER_BUILD: &str = r#"docker build --quiet --network=host $3 --tag "$1" "$2"
docker push --quiet "$1""#;
const DOCKER_FORGET: &str = "docker image prune --all --force
docker builder prune --all --force";
const BUILDAH_BUILD: &str = r#"b="buildah --root $4/root --runroot $4/run"
$b build --quiet --layers --isolation=chroot --tls-verify=false $3 --tag "$1" "$2"
$b push --quiet --tls-verify=false "$1""#;
const BUILDAH_FORGET: &str = r#"buildah --root "$1/root" --runroot "$1/run" rmi --all --force"#;

/// A builder with its own store.
#[derive(Debug)]
pub(crate) enum Builder {
    /// The library in this program, or an `ocibuild` command.
    Ocibuild {
        program: PathBuf,
        root: PathBuf,
    },
    Docker,
    Buildah {
        root: PathBuf,
    },
}

impl Builder {
    /// Gives a peer whose store, where it is a folder, is below `stores`.
    pub(crate) fn peer(peer: Peer, stores: &Path) -> Self {
        match peer {
            Peer::Docker => Self::Docker,
            Peer::Buildah => Self::Buildah {
                root: stores.join("buildah"),
            },
        }
    }

    /// Gives the name that reports use.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ocibuild { .. } => "ocibuild",
            Self::Docker => "docker",
            Self::Buildah { .. } => "buildah",
        }
    }

    /// Makes the builder forget all that it knows.
    pub(crate) fn forget(&mut self) -> Result<()> {
        match self {
            // A new folder beside the old one: to remove many files just before a run can
            // slow it down (ext4 without a journal passes over inodes freed a while ago).
            Self::Ocibuild { root, .. } => {
                let parent = root.parent().context("a store is below a folder")?;
                *root = tempfile::Builder::new()
                    .prefix("ocibuild-")
                    .tempdir_in(parent)?
                    .keep();
            }
            Self::Docker => {
                measure::run(&mut shell(DOCKER_FORGET), &Daemons::None)?;
            }
            Self::Buildah { root } => {
                measure::run(shell(BUILDAH_FORGET).arg(root), &Daemons::None)?;
            }
        }
        Ok(())
    }

    /// Builds a folder, pushes the result and says what that cost.
    pub(crate) fn build(&self, context: &Path, name: &str, steps_known: bool) -> Result<Cost> {
        let no_cache = if steps_known { "" } else { "--no-cache" };
        let peer = |script| {
            let mut command = shell(script);
            command.arg(name).arg(context).arg(no_cache);
            command
        };
        match self {
            Self::Ocibuild { program, root } => {
                let mut command = Command::new(program);
                command.args([BUILD, "--push", "--tag", name, "--root"]);
                command.arg(root).arg(context);
                if !steps_known {
                    command.arg(no_cache);
                }
                measure::run(&mut command, &Daemons::None)
            }
            Self::Docker => measure::run(
                peer(DOCKER_BUILD).env("DOCKER_BUILDKIT", "1"),
                &Daemons::Named(&["dockerd", "containerd"]),
            ),
            Self::Buildah { root } => measure::run(peer(BUILDAH_BUILD).arg(root), &Daemons::None),
        }
    }
}

/// Gives a shell that stops at the first command that fails; arguments become `$1`, `$2`, ….
fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-ec", script, "sh"]);
    command
}

#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct BuildHere {
    #[arg(long)]
    root: PathBuf,
    #[arg(long)]
    tag: Reference,
    #[arg(long)]
    push: bool,
    #[arg(long)]
    no_cache: bool,
    context: PathBuf,
}

/// Is `ocibuild build`: carries out one build in this process.
pub(crate) fn build_here(arguments: &[String]) -> Result<()> {
    let arguments = BuildHere::try_parse_from(arguments)?;
    let mut build = Build::new(ContextSource::Directory(arguments.context), arguments.root);
    if arguments.push {
        build = build.output(Output::Registry(arguments.tag.clone()));
    }
    if arguments.no_cache {
        build = build.no_cache();
    }
    run(build.tag(arguments.tag))
}

/// Builds a Dockerfile over an image of a layout, which it calls `base`, and pushes the result.
pub(crate) fn push_layout(
    layout: &Path,
    tag: &str,
    dockerfile: &str,
    context: &Path,
    name: &str,
    store: &Path,
) -> Result<()> {
    let build = Build::new(ContextSource::Directory(context.to_owned()), store)
        .dockerfile(DockerfileSource::Text {
            name: "Dockerfile".to_owned(),
            text: dockerfile.to_owned(),
        })
        .named_context("base", of_layout(layout, Some(tag)))
        .output(Output::Registry(name.parse()?));
    run(build).with_context(|| format!("push {name}"))
}

/// Builds a folder over the image of a layout, which it calls `base`, and writes a layout.
pub(crate) fn export(layout: &Path, context: &Path, dest: &Path, store: &Path) -> Result<()> {
    let build = Build::new(ContextSource::Directory(context.to_owned()), store)
        .named_context("base", of_layout(layout, None))
        .tag("base:1".parse()?)
        .output(Output::OciDirectory(dest.to_owned()));
    run(build).with_context(|| format!("write {}", dest.display()))
}

fn of_layout(layout: &Path, tag: Option<&str>) -> NamedContext {
    NamedContext::OciLayout {
        path: layout.to_owned(),
        name: tag.map(str::to_owned),
    }
}

/// Runs a build to its end, with a client for loopback registries.
pub(crate) fn run(build: Build) -> Result<()> {
    // Nothing was installed before, so this cannot fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(build.client(client).run())?;
    Ok(())
}
