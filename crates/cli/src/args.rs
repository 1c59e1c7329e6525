//! The command line. Names and meanings of flags are those of `docker buildx build`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ocibuild::MediaTypes;
use ocibuild::graph::Entitlement;
use ocibuild::registry::TagPolicy;

use crate::sizes;

/// Builds OCI images from Dockerfiles: no daemon, no Docker socket, no privileged mode.
#[derive(Debug, Parser)]
#[command(name = "ocibuild", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// Check a Dockerfile without building it
    Check(CheckArgs),
    /// Push an image of the store to a registry
    Push(PushArgs),
    /// Pull an image from a registry into the store
    Pull(PullArgs),
    /// Show an image of the store or of a registry as JSON
    Inspect(InspectArgs),
    /// Copy an image from one registry to others, byte for byte
    Copy(CopyArgs),
    /// List the tags of a repository
    Tags(TagsArgs),
    /// Delete tags or images of a registry
    Delete(DeleteArgs),
    /// Look at what the store keeps, and take things out of it
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Say which sandbox RUN steps get on this machine, and why not a better one
    CheckHost(CheckHostArgs),
    /// Run the build service
    Serve(ServeArgs),
    /// Show how Dockerfiles are read, for comparisons with other builders
    #[command(hide = true, subcommand)]
    Dockerfile(DockerfileCommand),
    /// Carry out one build of the service: a specification on standard input, events on standard output
    #[command(hide = true)]
    Worker,
}

/// Where the store is.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Folder of the store [default: $XDG_DATA_HOME/ocibuild or ~/.local/share/ocibuild]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
}

/// How registries are spoken to.
#[derive(Debug, Clone, Args)]
pub(crate) struct RegistryArgs {
    /// Speak plain HTTP to this registry; loopback addresses need no flag
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) plain_http: Vec<String>,
    /// Trust the certificates of this PEM file too
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Vec<PathBuf>,
    /// Read how each registry is reached from this file [default: $OCIBUILD_REGISTRIES,
    /// ~/.config/ocibuild/registries.toml or /etc/ocibuild/registries.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) registries: Option<PathBuf>,
    /// Read logins from this file before Docker's and Podman's [default: $REGISTRY_AUTH_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
    /// What becomes of a tag that is there already [default: overwrite]
    #[arg(long, value_name = "overwrite|keep-if-same|fail-if-exists")]
    pub(crate) tag_policy: Option<TagPolicy>,
}

/// Flags of `build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The Dockerfile, `-` for standard input, or its URL [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// Name of the image
    #[arg(short, long, value_name = "REF")]
    pub(crate) tag: Vec<String>,
    /// Set a build argument; without a value it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Build this stage in place of the last one
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Build for these platforms, separated by commas; more than one become an index
    #[arg(long, value_name = "OS/ARCH[/VARIANT],…", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// Let a name in FROM and --from stand for a directory, an image layout, another image, or
    /// the files of a Git repository, of a tar behind a URL or of an OCI artifact
    #[arg(
        long,
        value_name = "NAME=PATH|URL|oci://REF|oci-layout://DIR[:TAG]|docker-image://REF"
    )]
    pub(crate) build_context: Vec<String>,
    /// Give a secret to RUN --mount=type=secret; without a source it is the variable ID, else the file ID
    #[arg(long, value_name = "id=ID[,src=FILE|,env=NAME]")]
    pub(crate) secret: Vec<String>,
    /// Give an SSH agent, or one with the key of a file, to RUN --mount=type=ssh, and `default` to
    /// Git too; without a file it is that of $SSH_AUTH_SOCK
    #[arg(long, value_name = "default|ID[=SOCKET|KEY]")]
    pub(crate) ssh: Vec<String>,
    /// Believe the SSH servers of this file [default: ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts]
    #[arg(long, value_name = "FILE")]
    pub(crate) known_hosts: Vec<PathBuf>,
    /// Allow steps what they ask for: security.insecure (all rights of root) or network.host,
    /// which every build has
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub(crate) allow: Vec<Entitlement>,
    /// Run every step, also those whose result is known
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Look for results of steps here too: REF, or type=registry,ref=REF or type=local,src=DIR[,tag=TAG]
    #[arg(long, value_name = "SPEC")]
    pub(crate) cache_from: Vec<String>,
    /// Leave results of steps for others: type=registry,ref=REF, type=local,dest=DIR[,tag=TAG] or type=inline,
    /// with mode=min|max and ignore-error=true|false
    #[arg(long, value_name = "SPEC")]
    pub(crate) cache_to: Vec<String>,
    /// Say of every step that has to be done why its result is not known
    #[arg(long)]
    pub(crate) why: bool,
    /// Give large files of COPY and ADD layers of their own, so that an edit beside them moves none of
    /// them: ml, with min-size=SIZE (64M) and match=GLOB, the latter several times
    #[arg(long, value_name = "ml[,min-size=SIZE][,match=GLOB]…")]
    pub(crate) layer_policy: Option<String>,
    /// Keep the store below this size: what was not used for the longest time goes before a write
    /// would break it
    #[arg(long, value_name = "SIZE", value_parser = sizes::bytes)]
    pub(crate) store_max: Option<u64>,
    /// Leave so much of the store's disk free
    #[arg(long, value_name = "SIZE", value_parser = sizes::bytes)]
    pub(crate) store_min_free: Option<u64>,
    /// Set a label; without a value it is empty
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// Write a text into the manifest, or into what is said before it: manifest, index,
    /// manifest-descriptor or index-descriptor, for one platform or all
    #[arg(long, value_name = "[TYPE[[PLATFORM]],…:]KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Where the image goes: type=oci|docker|tar|local|registry|image,dest=PATH, and in which form:
    /// compression=gzip|zstd|uncompressed, compression-level=N, force-compression=true,
    /// oci-mediatypes=false, annotation.KEY=VALUE
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) output: Vec<String>,
    /// Push the image under each of its names
    #[arg(long)]
    pub(crate) push: bool,
    /// Sandbox of RUN steps, as `check-host` names it [default: $OCIBUILD_SANDBOX or the best one that works]
    #[arg(long, value_name = "NAME")]
    pub(crate) sandbox: Option<String>,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    pub(crate) progress: Progress,
    /// Write the digest of the image's configuration to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what was built as JSON to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Show nothing but the digest of the image
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Check the Dockerfile in place of building it: the same as --call=check
    #[arg(long, conflicts_with = "call")]
    pub(crate) check: bool,
    /// What to do with the Dockerfile: build it, check it, show the parameters of a target or all targets
    #[arg(
        long,
        value_name = "build|check|outline|targets[,format=FORMAT]",
        default_value = "build"
    )]
    pub(crate) call: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// A directory, a Git URL, the URL of a tar or Dockerfile, `-` for one on standard input,
    /// oci://REF for the files of an OCI artifact, docker-image://REF or oci-layout://DIR[:TAG]
    /// for those of an image
    pub(crate) context: String,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The Dockerfile, `-` for standard input, or its URL [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// How the result is shown
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: CheckFormat,
    /// Check this stage and what it needs in place of all stages
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Set a build argument; without a value it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Check for this platform; of several the first
    #[arg(long, value_name = "OS/ARCH[/VARIANT],…", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// Let a name in FROM and --from stand for a directory, an image layout, another image, or
    /// the files of a Git repository, of a tar behind a URL or of an OCI artifact
    #[arg(
        long,
        value_name = "NAME=PATH|URL|oci://REF|oci-layout://DIR[:TAG]|docker-image://REF"
    )]
    pub(crate) build_context: Vec<String>,
    /// Believe the SSH servers of this file [default: ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts]
    #[arg(long, value_name = "FILE")]
    pub(crate) known_hosts: Vec<PathBuf>,
    /// Ask no registry: variables of base images are taken for set
    #[arg(long)]
    pub(crate) offline: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// A directory, a Dockerfile, a URL as for build, or `-` for a tar or a Dockerfile on standard input
    #[arg(default_value = ".")]
    pub(crate) context: String,
}

/// How the result of a check is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum CheckFormat {
    /// Each warning with the lines that it is about
    #[default]
    Text,
    /// A JSON object, as BuildKit gives it
    Json,
    /// Static Analysis Results Interchange Format 2.1.0, which code hosts read
    Sarif,
}

/// Views of the parser.
#[derive(Debug, Subcommand)]
pub(crate) enum DockerfileCommand {
    /// Print the parse tree of a Dockerfile
    Parse {
        /// How it is printed
        #[arg(long, value_enum, default_value_t)]
        format: TreeFormat,
        /// The file, `-` for standard input
        file: String,
    },
    /// Print a word with its variables replaced
    Expand {
        /// Set a variable
        #[arg(long, value_name = "NAME=VALUE")]
        env: Vec<String>,
        /// Escape with a backtick
        #[arg(long)]
        backtick: bool,
        /// The word
        word: String,
    },
    /// Say of each path whether the rules of an ignore file leave it out
    Match {
        /// The ignore file
        rules: PathBuf,
        /// Paths relative to the context
        paths: Vec<String>,
    },
}

/// How a parse tree is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum TreeFormat {
    /// A list in parentheses for each instruction, as in the tests of BuildKit's parser
    #[default]
    Sexp,
    /// A JSON object for each instruction, in an array
    Json,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Progress {
    /// `tty` on a terminal, else `plain`
    #[default]
    Auto,
    /// Steps with a line that changes while they run
    Tty,
    /// One line after the other
    Plain,
    /// One JSON object a line
    Json,
}

/// In which form an image is pushed.
#[derive(Debug, Args)]
pub(crate) struct FormArgs {
    /// Compress all layers so that are not: gzip, zstd or uncompressed [default: as they are]
    #[arg(long, value_name = "NAME")]
    pub(crate) compression: Option<String>,
    /// Compress them with this level: 0 to 9 of gzip, 0 to 22 of zstd
    #[arg(long, value_name = "N")]
    pub(crate) compression_level: Option<i32>,
    /// Write documents with these media types [default: as they are]
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) media_types: Option<MediaTypesName>,
    /// Write a text into the manifest, or into what is said before it, as for build
    #[arg(long, value_name = "[TYPE[[PLATFORM]],…:]KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
}

/// Whose media types documents have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MediaTypesName {
    /// Those of OCI
    Oci,
    /// Those of Docker
    Docker,
}

impl From<MediaTypesName> for MediaTypes {
    fn from(name: MediaTypesName) -> Self {
        match name {
            MediaTypesName::Oci => Self::Oci,
            MediaTypesName::Docker => Self::Docker,
        }
    }
}

/// Flags of `push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    #[command(flatten)]
    pub(crate) form: FormArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Name of the image in the store
    pub(crate) image: String,
    /// Names to push it under [default: IMAGE]
    pub(crate) targets: Vec<String>,
}

/// Flags of `pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Pull for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// Name of the image
    pub(crate) image: String,
}

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Recompute every digest and size of an image of the store
    #[arg(long)]
    pub(crate) verify: bool,
    /// Ask the registry, not the store
    #[arg(long, conflicts_with = "verify")]
    pub(crate) remote: bool,
    /// Show what refers to the image in the registry, such as signatures
    #[arg(long, requires = "remote")]
    pub(crate) referrers: bool,
    /// Name of the image
    pub(crate) image: String,
}

/// Flags of `copy`.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Copy these platforms only; one becomes an image, several a smaller index
    #[arg(long, value_name = "OS/ARCH[/VARIANT],…", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// Take along what refers to the image, such as signatures
    #[arg(long)]
    pub(crate) referrers: bool,
    /// Name of the image
    pub(crate) source: String,
    /// Names that it gets
    #[arg(required = true)]
    pub(crate) targets: Vec<String>,
}

/// Flags of `tags`.
#[derive(Debug, Args)]
pub(crate) struct TagsArgs {
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Print a JSON array
    #[arg(long)]
    pub(crate) json: bool,
    /// The repository
    pub(crate) repository: String,
}

/// Flags of `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Delete the image too that a tag names, with all of its tags
    #[arg(long)]
    pub(crate) manifest: bool,
    /// Delete the image, the images of all platforms that it names, and what refers to them
    #[arg(long, conflicts_with = "manifest")]
    pub(crate) all: bool,
    /// Names with a tag or digest
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

/// What to do with what the store keeps.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show what takes how much of the disk
    Du(DuArgs),
    /// Remove what no running build uses; images that have a name stay
    Prune(PruneArgs),
    /// Say of every step of the last build what it hit, or why it hit nothing
    Why(WhyArgs),
}

/// Flags of `cache du`.
#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Show every single thing, the longest unused first
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "verbose")]
    pub(crate) json: bool,
}

/// Flags of `cache prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Remove images that have a name too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Remove only what was not used for so long: 90s, 30m, 12h, 7d
    #[arg(long, value_name = "TIME", value_parser = sizes::time)]
    pub(crate) older_than: Option<std::time::Duration>,
    /// Keep so many bytes, those that were used last: 1048576, 512M, 10GB
    #[arg(long, value_name = "SIZE", value_parser = sizes::bytes)]
    pub(crate) keep_storage: Option<u64>,
    /// Remove only this kind of thing
    #[arg(long, value_enum, value_name = "KIND")]
    pub(crate) kind: Vec<CacheKind>,
}

/// A kind of thing in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CacheKind {
    /// Layers, configurations and manifests as they are moved
    Blobs,
    /// Layers unpacked for RUN
    Trees,
    /// Tables of contents of layers
    Tables,
    /// What steps gave
    Steps,
    /// Directories of RUN --mount=type=cache
    CacheMounts,
    /// Repositories
    Git,
}

/// Flags of `cache why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Show the build before the last one, the one before that, …
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) back: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `check-host`.
#[derive(Debug, Args)]
pub(crate) struct CheckHostArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `serve`; they win over the environment, which wins over the file of variables.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on [default: $OCIBUILD_LISTEN or 0.0.0.0:8000]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<String>,
    /// Folder for everything that is kept [default: $OCIBUILD_DATA_DIR, $XDG_DATA_HOME/ocibuild or
    /// ~/.local/share/ocibuild]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<String>,
    /// Run a registry too, on this address [default: $OCIBUILD_EMBEDDED_REGISTRY or none]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) embedded_registry: Option<String>,
    /// Sandbox of RUN steps, as `ocibuild check-host` names it [default: $OCIBUILD_SANDBOX or the best one
    /// that works]
    #[arg(long, value_name = "NAME")]
    pub(crate) sandbox: Option<String>,
    /// Read variables from this file [default: .env in the working directory, if it is there]
    #[arg(long, value_name = "FILE", conflicts_with = "demo")]
    pub(crate) env_file: Option<PathBuf>,
    /// Show every setting with its source, secrets masked, and start nothing
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text",
        conflicts_with = "demo_exit"
    )]
    pub(crate) print_config: Option<PrintConfig>,
    /// Start with an embedded registry and a sample repository, build and push it, show the log
    #[arg(long)]
    pub(crate) demo: bool,
    /// End after the demo, with the status of its build
    #[arg(long, requires = "demo")]
    pub(crate) demo_exit: bool,
}

/// How settings are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrintConfig {
    /// A line for each
    Text,
    /// A JSON object
    Json,
}
