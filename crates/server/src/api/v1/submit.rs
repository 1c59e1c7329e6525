//! From the JSON of a build to a task, or to every reason why not.

use std::collections::BTreeMap;
use std::path::Path;

use ocibuild::registry::{Platform, Reference};
use ocibuild_store::{BuildParams, ContextId, NewTask};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::error::{ApiError, FieldError};
use crate::api::queue::DOCKERFILE_IN_TABLE;
use crate::api::validate::{
    check_app_dir, check_app_name, check_branch, check_file, check_git_repo, check_image_tag,
};
use crate::config::Config;
use crate::request::{BuildLimits, Cache, ContextKind, Request, SecretReference};
use crate::spec::OutputForm;

/// The most of anything that may be many.
const MOST: usize = 256;
/// The most platforms of one build: more than there are processors that Go knows.
const MOST_PLATFORMS: usize = 32;
/// The longest name, value of an argument, or label.
const VALUE_BYTES: usize = 64 << 10;
/// A number that every database can hold.
const LARGEST: u64 = i64::MAX as u64;

/// A build.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "app_name": "serve", "image_tag": "v1",
    "context": {"type": "git", "url": "https://github.com/org/repo", "ref": "main"},
    "args": {"VERSION": "1.2"}, "labels": {"team": "ml"},
}))]
pub(crate) struct SubmitBuild {
    /// Name of the application: builds of one application may be limited together.
    pub(crate) app_name: String,
    /// Tag of the image in the registries that are configured.
    pub(crate) image_tag: String,
    /// Where the files come from.
    pub(crate) context: SubmitContext,
    /// Which Dockerfile is built; `Dockerfile` at the root of the context where it is absent.
    #[serde(default)]
    pub(crate) dockerfile: Option<SubmitDockerfile>,
    /// Build arguments.
    #[serde(default)]
    pub(crate) args: BTreeMap<String, String>,
    /// The stage to build in place of the last one.
    #[serde(default)]
    pub(crate) target: Option<String>,
    /// The platforms to build for; more than one become one index. A RUN for a processor that
    /// the service neither has nor emulates fails the build.
    #[serde(default)]
    #[schema(example = json!(["linux/amd64", "linux/arm64"]))]
    pub(crate) platforms: Vec<String>,
    /// Labels of the image.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// Secrets for `RUN --mount=type=secret`, by name.
    #[serde(default)]
    pub(crate) secrets: Vec<SecretReference>,
    /// Where the image goes, `registry/repository:tag`, in place of the registries that are
    /// configured.
    #[serde(default)]
    pub(crate) destinations: Vec<String>,
    /// In which form the image is pushed.
    #[serde(default)]
    pub(crate) output: OutputForm,
    /// How earlier results are used.
    #[serde(default)]
    pub(crate) cache: Cache,
    /// How long the build may take, in seconds, where that is less than the service allows.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub(crate) timeout_seconds: Option<u64>,
    /// What the build may use, where that is less than the service allows.
    #[serde(default)]
    pub(crate) limits: BuildLimits,
}

/// Where the files of a build come from.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum SubmitContext {
    /// A Git repository.
    Git {
        /// URL of the repository, without credentials.
        url: String,
        /// Branch, tag or commit; the default branch where it is absent.
        #[serde(default, rename = "ref")]
        reference: Option<String>,
        /// Directory of the repository that is the context.
        #[serde(default)]
        subdir: Option<String>,
    },
    /// A file behind an HTTP URL: the tar of a context (plain, or compressed with gzip, bzip2,
    /// xz or Zstandard), else a Dockerfile. The hosts of Git repositories are those of files.
    Http {
        /// Its URL, without credentials and query.
        url: String,
    },
    /// The files of an OCI artifact. It is read as a base is.
    Oci {
        /// Its name in a registry.
        #[schema(example = "registry.example.org/team/context:3")]
        reference: String,
    },
    /// A tar that was uploaded to `/v1/contexts`.
    Upload {
        /// Its id.
        id: String,
    },
    /// No files.
    Empty {},
}

/// Which Dockerfile is built.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SubmitDockerfile {
    /// The one at this path of the context.
    Path(String),
    /// This text.
    Text(String),
}

/// Checks a build, and makes a task of it; reports all that is wrong at once.
pub(super) fn task(build: SubmitBuild, config: &Config) -> Result<NewTask, ApiError> {
    let mut check = Check::default();
    check.field(
        "app_name",
        &build.app_name,
        nonempty(&build.app_name).and_then(|()| check_app_name(&build.app_name)),
    );
    check.field(
        "image_tag",
        &build.image_tag,
        check_image_tag(&build.image_tag),
    );
    let (context, params) = check.context(&build.context, config);
    let (dockerfile, dockerfile_path) = check.dockerfile(build.dockerfile, config);
    check.names("args", &build.args);
    check.names("labels", &build.labels);
    check.target(build.target.as_deref());
    check.platforms(&build.platforms);
    check.secrets(&build.secrets);
    check.destinations("destinations", &build.destinations);
    check.output(&build.output, build.platforms.len() > 1);
    check.cache(&build.cache);
    check.positive("timeout_seconds", build.timeout_seconds);
    check.positive("limits.memory_bytes", build.limits.memory_bytes);
    check.end()?;
    let uploaded = match &context {
        ContextKind::Upload { id } => Some(id.clone()),
        _ => None,
    };
    let request = Request {
        context,
        dockerfile_path,
        args: build.args,
        target: build.target,
        platforms: build.platforms,
        labels: build.labels,
        secrets: build.secrets,
        destinations: build.destinations,
        output: build.output,
        cache: build.cache,
        timeout_seconds: build.timeout_seconds,
        limits: build.limits,
    };
    let docker_file_path = dockerfile.as_ref().map(|_| DOCKERFILE_IN_TABLE.to_owned());
    Ok(NewTask {
        app_name: build.app_name,
        image_tag: build.image_tag,
        params: BuildParams {
            docker_file_path: docker_file_path.unwrap_or_default(),
            ..params
        },
        dockerfile,
        request: Some(text(&request)),
        context: uploaded,
        ..NewTask::default()
    })
}

/// Writes a request as the table keeps it.
pub(super) fn text(request: &Request) -> String {
    serde_json::to_string(request).expect("a request holds texts and numbers")
}

/// Checks destinations that are named for an image that is there.
pub(super) fn check_destinations(names: &[String]) -> Result<(), ApiError> {
    let mut check = Check::default();
    check.destinations("destinations", names);
    check.end()
}

fn nonempty(text: &str) -> Result<(), &'static str> {
    match text.is_empty() {
        true => Err("it is empty"),
        false => Ok(()),
    }
}

/// Collects what is wrong.
#[derive(Default)]
struct Check {
    errors: Vec<FieldError>,
}

impl Check {
    fn end(self) -> Result<(), ApiError> {
        match self.errors.is_empty() {
            true => Ok(()),
            false => Err(ApiError::Invalid(self.errors)),
        }
    }

    fn field(&mut self, path: &str, value: &str, result: Result<(), &'static str>) {
        if let Err(message) = result {
            self.errors
                .push(FieldError::value(path, message, Some(value)));
        }
    }

    fn refuse(&mut self, path: &str, message: &str) {
        self.errors.push(FieldError::value(path, message, None));
    }

    fn context(&mut self, context: &SubmitContext, config: &Config) -> (ContextKind, BuildParams) {
        match context {
            SubmitContext::Git {
                url,
                reference,
                subdir,
            } => {
                // A refused URL may hold a password, which must not come back in an answer.
                if let Err(message) = check_git_repo(url, &config.git) {
                    self.refuse("context.url", message);
                }
                let (reference, subdir) = (
                    reference.clone().unwrap_or_default(),
                    subdir.clone().unwrap_or_default(),
                );
                if !reference.is_empty() {
                    self.field("context.ref", &reference, check_branch(&reference));
                }
                if !subdir.is_empty() {
                    self.field("context.subdir", &subdir, check_app_dir(&subdir));
                }
                let params = BuildParams {
                    git_repo: url.clone(),
                    branch: reference,
                    app_dir: subdir,
                    docker_file_path: String::new(),
                };
                (ContextKind::Git, params)
            }
            SubmitContext::Http { url } => {
                if let Err(message) = check_file(url, &config.git) {
                    self.refuse("context.url", message);
                }
                let kind = ContextKind::Http { url: url.clone() };
                (kind, BuildParams::default())
            }
            SubmitContext::Oci { reference } => {
                self.field("context.reference", reference, check_reference(reference));
                let kind = ContextKind::Oci {
                    reference: reference.clone(),
                };
                (kind, BuildParams::default())
            }
            SubmitContext::Upload { id } => match id.parse::<ContextId>() {
                Ok(id) => (ContextKind::Upload { id }, BuildParams::default()),
                Err(error) => {
                    self.errors.push(FieldError::value(
                        "context.id",
                        &error.to_string(),
                        Some(id),
                    ));
                    (ContextKind::Empty, BuildParams::default())
                }
            },
            SubmitContext::Empty {} => (ContextKind::Empty, BuildParams::default()),
        }
    }

    /// Gives text and path, of which there is one at most.
    fn dockerfile(
        &mut self,
        dockerfile: Option<SubmitDockerfile>,
        config: &Config,
    ) -> (Option<String>, Option<String>) {
        match dockerfile {
            None => (None, None),
            Some(SubmitDockerfile::Path(path)) => {
                let result = nonempty(&path).and_then(|()| check_app_dir(&path));
                self.field("dockerfile.path", &path, result);
                (None, Some(path))
            }
            Some(SubmitDockerfile::Text(text)) => {
                let limit = config.limits.dockerfile_bytes;
                if text.len() > limit {
                    let message = format!("the Dockerfile is larger than {limit} bytes");
                    self.refuse("dockerfile.text", &message);
                } else if text.trim().is_empty() {
                    self.refuse("dockerfile.text", "the Dockerfile is empty");
                }
                (Some(text), None)
            }
        }
    }

    /// Arguments and labels: values may be secrets by mistake and are not shown.
    fn names(&mut self, field: &str, pairs: &BTreeMap<String, String>) {
        if pairs.len() > MOST {
            self.refuse(field, "there are too many");
        }
        for (name, value) in pairs {
            let valid = !name.is_empty()
                && name.len() <= VALUE_BYTES
                && !name.contains(|c: char| c == '=' || c.is_control() || c.is_whitespace());
            if !valid {
                self.refuse(
                    field,
                    "a name is empty, or has '=', blanks or control characters",
                );
            }
            if value.len() > VALUE_BYTES || value.contains('\0') {
                self.refuse(field, "a value is too long, or has a zero byte");
            }
        }
    }

    fn target(&mut self, target: Option<&str>) {
        let valid = |text: &str| {
            !text.is_empty()
                && text.len() <= 255
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        if let Some(target) = target.filter(|target| !valid(target)) {
            let message = "this is not the name or number of a stage";
            self.errors
                .push(FieldError::value("target", message, Some(target)));
        }
    }

    fn platforms(&mut self, platforms: &[String]) {
        if platforms.len() > MOST_PLATFORMS {
            self.refuse("platforms", "there are too many");
        }
        for platform in platforms {
            if let Err(error) = platform.parse::<Platform>() {
                self.errors.push(FieldError::value(
                    "platforms",
                    &error.to_string(),
                    Some(platform),
                ));
            }
        }
    }

    fn secrets(&mut self, secrets: &[SecretReference]) {
        if secrets.len() > MOST {
            self.refuse("secrets", "there are too many");
        }
        for secret in secrets {
            self.field("secrets.id", &secret.id, check_name(&secret.id));
            self.field("secrets.name", secret.source(), check_name(secret.source()));
        }
    }

    fn destinations(&mut self, field: &str, names: &[String]) {
        if names.len() > MOST {
            self.refuse(field, "there are too many");
        }
        for name in names {
            let result = match name.parse::<Reference>() {
                Err(_) => Err("this is not the name of an image: registry/repository:tag"),
                Ok(_) if !name.contains('/') => Err("the name has no registry"),
                Ok(reference) if reference.digest().is_some() => {
                    Err("an image is pushed under a tag, not under a digest")
                }
                Ok(_) => Ok(()),
            };
            self.field(field, name, result);
        }
    }

    fn output(&mut self, output: &OutputForm, several: bool) {
        if output.annotations.len() > MOST {
            self.refuse("output.annotations", "there are too many");
        }
        let is_long = |text: &String| text.len() > VALUE_BYTES;
        if output.annotations.iter().any(is_long) {
            self.refuse("output.annotations", "an annotation is too long");
        }
        match output.to_form() {
            Err(error) => self.refuse("output.annotations", &error.reason),
            Ok(form) => {
                if let Err(error) = form.check(several) {
                    self.refuse("output", &error.to_string());
                }
            }
        }
    }

    fn cache(&mut self, cache: &Cache) {
        if let Some(scope) = &cache.scope {
            self.field("cache.scope", scope, check_name(scope));
        }
        self.destinations("cache.from", &cache.from);
        self.destinations("cache.to", &cache.to);
    }

    fn positive(&mut self, field: &str, number: Option<u64>) {
        if number.is_some_and(|number| number == 0 || number > LARGEST) {
            self.refuse(field, "the number must be above 0 and below 2^63");
        }
    }
}

/// The name of something that is read from a registry, by tag or digest.
fn check_reference(text: &str) -> Result<(), &'static str> {
    match text.parse::<Reference>() {
        Err(_) => Err("this is not the name of an artifact: registry/repository:tag"),
        Ok(_) if !text.contains('/') => Err("the name has no registry"),
        Ok(_) => Ok(()),
    }
}

/// A name that can be one of a file: it leads nowhere else.
fn check_name(text: &str) -> Result<(), &'static str> {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let valid = !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(inside)
        && !text.starts_with('.')
        && Path::new(text).components().count() == 1;
    match valid {
        true => Ok(()),
        false => Err("a name has letters, digits, '.', '_' and '-', and does not begin with '.'"),
    }
}
