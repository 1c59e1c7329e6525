//! `ocibuild build`: flags become a [`Build`], its result goes to standard output and
//! into the files that were asked for.

use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use ocibuild::content::StoreLimits;
use ocibuild::executor::UnknownSandbox;
use ocibuild::graph::Entitlement;
use ocibuild::registry::{Digest, Reference};
use ocibuild::{Apart, Build, ContextSource, DockerfileSource, Image, LayerPolicy};

use super::caches;
use super::contexts;
use super::outputs;
use super::secrets;
use super::ssh::Agents;
use super::stdin;
use super::surroundings::{cancel_on_signal, client, platform, reference, store_root};
use crate::args::{BuildArgs, RegistryArgs};
use crate::error::Error;
use crate::report;
use crate::sizes;

/// Runs the command.
pub(crate) async fn run(args: BuildArgs) -> Result<ExitCode, Error> {
    if let Some(status) = super::check::called(&args).await? {
        return Ok(status);
    }
    let agents = Agents::of(&args.ssh)?;
    let image = to_build(&args, &agents)?
        .cancel(cancel_on_signal())
        .run()
        .await?;
    if let Some(file) = &args.iidfile {
        write(file, id(&image).to_string().as_bytes())?;
    }
    if let Some(file) = &args.metadata_file {
        write(file, metadata(&image, &args.tag).as_bytes())?;
    }
    // A reader that went away does not make the build a failure.
    let _ = writeln!(std::io::stdout().lock(), "{}", image.digest);
    Ok(ExitCode::SUCCESS)
}

/// What decides over a Dockerfile, be it built or only looked at.
pub(crate) struct CheckedBuild {
    /// `--file`.
    pub(crate) file: Option<String>,
    /// The context.
    pub(crate) context: String,
    /// `--target`.
    pub(crate) target: Option<String>,
    /// `--build-arg`.
    pub(crate) build_arg: Vec<String>,
    /// `--platform`.
    pub(crate) platform: Vec<String>,
    /// `--build-context`.
    pub(crate) build_context: Vec<String>,
    /// `--known-hosts`.
    pub(crate) known_hosts: Vec<PathBuf>,
    /// How registries are spoken to.
    pub(crate) registry: RegistryArgs,
}

impl CheckedBuild {
    /// Takes them from the flags of `build`.
    pub(crate) fn of(args: &BuildArgs) -> Self {
        Self {
            file: args.file.clone(),
            context: args.context.clone(),
            target: args.target.clone(),
            build_arg: args.build_arg.clone(),
            platform: args.platform.clone(),
            build_context: args.build_context.clone(),
            known_hosts: args.known_hosts.clone(),
            registry: args.registry.clone(),
        }
    }
}

/// Begins a build with a store in a folder.
pub(crate) fn to_check(args: CheckedBuild, agents: &Agents, root: &Path) -> Result<Build, Error> {
    let (context, dockerfile) = sources(&args)?;
    let mut build = Build::new(context, root).client(client(&args.registry)?);
    let named = args
        .build_context
        .iter()
        .filter_map(|text| text.split_once('='));
    let mut texts = named.map(|(_, text)| text).chain([args.context.as_str()]);
    if let Some(ssh) = agents.for_git(&args.known_hosts, texts.any(contexts::is_ssh)) {
        build = build.git_ssh(ssh);
    }
    if let Some(source) = dockerfile {
        build = build.dockerfile(source);
    }
    let given = build_args(&args.build_arg)?;
    for (name, value) in epoch(&given).into_iter().chain(given) {
        build = build.build_arg(name, value);
    }
    for (name, value) in pairs("--build-context", &args.build_context)? {
        build = build.named_context(name, contexts::named(&value)?);
    }
    if let Some(target) = args.target {
        build = build.target(target);
    }
    let platforms = args.platform.iter().map(|text| platform(text));
    build = build.platforms(platforms.collect::<Result<Vec<_>, _>>()?);
    Ok(build)
}

fn to_build(args: &BuildArgs, agents: &Agents) -> Result<Build, Error> {
    let names: Vec<Reference> = args
        .tag
        .iter()
        .map(|name| reference(name))
        .collect::<Result<_, _>>()?;
    let mut build = to_check(CheckedBuild::of(args), agents, &store_root(&args.store)?)?
        .events(report::sink(args.progress, args.quiet));
    for label in &args.label {
        // As in Docker, a name alone is a label without a value.
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        if name.is_empty() {
            let problem = format!("--label {label:?}: want NAME[=VALUE]");
            return Err(Error::Usage(problem));
        }
        build = build.label(name, value);
    }
    for secret in &args.secret {
        let (id, secret) = secrets::parse(secret)?;
        build = build.secret(id, secret);
    }
    for (id, socket) in agents.sockets() {
        build = build.ssh(id, socket);
    }
    let allowed = args.allow.iter().copied();
    build = build.entitlements(allowed.chain([Entitlement::NetworkHost]));
    build = outputs::add(build, args, &names)?;
    for name in names {
        build = build.tag(name);
    }
    if args.no_cache {
        build = build.no_cache();
    }
    for spec in &args.cache_from {
        build = build.cache_from(caches::source(spec)?);
    }
    for spec in &args.cache_to {
        build = build.cache_to(caches::target(spec)?);
    }
    if args.why {
        build = build.explain_misses();
    }
    if let Some(policy) = &args.layer_policy {
        build = build.layer_policy(layer_policy(policy)?);
    }
    build = build.store_limits(StoreLimits {
        max_bytes: args.store_max,
        min_free: args.store_min_free,
    });
    if let Some(name) = sandbox(args) {
        let choice = name.parse();
        build =
            build
                .sandbox(choice.map_err(|error: UnknownSandbox| {
                    Error::Usage(format!("--sandbox: {error}"))
                })?);
    }
    Ok(build)
}

fn layer_policy(text: &str) -> Result<LayerPolicy, Error> {
    let usage = |reason: String| Error::Usage(format!("--layer-policy {text:?}: {reason}"));
    let mut parts = text.split(',');
    if parts.next() != Some("ml") {
        return Err(usage("the one policy is ml".to_owned()));
    }
    let mut apart = Apart::default();
    for part in parts {
        match part.split_once('=') {
            Some(("min-size", size)) => apart.min_size = sizes::bytes(size).map_err(usage)?,
            Some(("match", glob)) => apart.names.push(glob.to_owned()),
            _ => return Err(usage(format!("unknown part {part:?}"))),
        }
    }
    Ok(LayerPolicy::Apart(apart))
}

/// The sandbox that was named.
fn sandbox(args: &BuildArgs) -> Option<String> {
    let variable = || std::env::var("OCIBUILD_SANDBOX").ok();
    args.sandbox
        .clone()
        .or_else(variable)
        .filter(|name| !name.is_empty())
}

/// The context, and the Dockerfile where it is not the one of the context.
type Sources = (ContextSource, Option<DockerfileSource>);

/// A Dockerfile is looked for beside the caller, as `docker buildx build` does; for a
/// context that is no directory it is a path in the context.
fn sources(args: &CheckedBuild) -> Result<Sources, Error> {
    let (file, context) = (args.file.as_deref(), args.context.as_str());
    if context == "-" {
        return from_stdin(file);
    }
    let source = contexts::main(context)?;
    // In the files of a server a name is a path; an image has no Dockerfile in it.
    let is_beside = !matches!(
        source,
        ContextSource::Git(_) | ContextSource::Http(_) | ContextSource::OciArtifact(_)
    );
    let dockerfile = match file {
        None => None,
        Some("-") => Some(dockerfile_text(stdin::text(std::io::stdin())?)),
        Some(file) if contexts::is_http(file) => Some(DockerfileSource::Http(file.to_owned())),
        Some(file) if is_beside => Some(DockerfileSource::File(file.into())),
        Some(file) => Some(DockerfileSource::InContext(file.to_owned())),
    };
    Ok((source, dockerfile))
}

/// `build -` takes the archive of a context, or a Dockerfile that needs none.
fn from_stdin(file: Option<&str>) -> Result<Sources, Error> {
    if file == Some("-") {
        return Err(Error::Usage(
            "the Dockerfile and the context cannot both come from standard input".to_owned(),
        ));
    }
    match (stdin::read(std::io::stdin())?, file) {
        (stdin::Input::Archive(tar), file) => {
            let dockerfile = file.map(|file| DockerfileSource::InContext(file.to_owned()));
            Ok((ContextSource::Tar(tar), dockerfile))
        }
        (stdin::Input::Dockerfile(text), None) => {
            Ok((ContextSource::Empty, Some(dockerfile_text(text))))
        }
        (stdin::Input::Dockerfile(_), Some(file)) => Err(Error::Usage(format!(
            "standard input holds no archive, in which {file:?} could be"
        ))),
    }
}

fn dockerfile_text(text: String) -> DockerfileSource {
    DockerfileSource::Text {
        name: "Dockerfile".to_owned(),
        text,
    }
}

fn build_args(texts: &[String]) -> Result<Vec<(String, String)>, Error> {
    let mut args = Vec::new();
    for text in texts {
        match text.split_once('=') {
            Some(("", _)) => return Err(Error::Usage(format!("--build-arg {text:?}: no name"))),
            Some((name, value)) => args.push((name.to_owned(), value.to_owned())),
            None => {
                if let Ok(value) = std::env::var(text) {
                    args.push((text.clone(), value));
                }
            }
        }
    }
    Ok(args)
}

fn pairs(flag: &str, texts: &[String]) -> Result<Vec<(String, String)>, Error> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Error::Usage(format!("{flag} {text:?}: want NAME=VALUE"))),
        })
        .collect()
}

/// `SOURCE_DATE_EPOCH` of the environment is a build argument where none is given.
fn epoch(given: &[(String, String)]) -> Option<(String, String)> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let value = std::env::var(NAME).ok().filter(|value| !value.is_empty())?;
    let is_given = given.iter().any(|(name, _)| name == NAME);
    (!is_given).then(|| (NAME.to_owned(), value))
}

/// Gives by what an image is known to Docker: its configuration, or the index.
fn id(image: &Image) -> &Digest {
    match &image.index {
        Some(index) => &index.descriptor.digest,
        None => &image.config_descriptor.digest,
    }
}

/// Gives what buildx writes too, so that scripts find the keys that they know.
fn metadata(image: &Image, names: &[String]) -> String {
    let layers: Vec<_> = image.layers.iter().map(|layer| &layer.digest).collect();
    let mut metadata = serde_json::json!({
        "containerimage.digest": image.digest,
        "containerimage.descriptor": image.index.as_ref().unwrap_or(&image.manifest).descriptor,
        "image.name": names.join(","),
        "ocibuild.layers": layers,
        "ocibuild.steps": image.steps,
        "ocibuild.commit": image.commit,
    });
    match image.index {
        // One configuration would not say which.
        Some(_) => metadata["ocibuild.platforms"] = platforms(image),
        None => {
            let config = serde_json::json!(image.config_descriptor.digest);
            metadata["containerimage.config.digest"] = config;
        }
    }
    metadata.to_string()
}

/// Gives the image of each platform.
fn platforms(image: &Image) -> serde_json::Value {
    let platforms = image.platforms.iter().map(|one| {
        let layers: Vec<_> = one.layers.iter().map(|layer| &layer.digest).collect();
        serde_json::json!({
            "platform": one.platform.to_string(),
            "digest": one.manifest.descriptor.digest,
            "config": one.config_descriptor.digest,
            "layers": layers,
        })
    });
    platforms.collect()
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    std::fs::write(file, bytes)
        .map_err(|error| Error::failed(format!("write {}", file.display()), error))
}
