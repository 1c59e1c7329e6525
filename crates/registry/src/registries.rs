//! `registries.toml`: how each registry is reached. A text enters, a [`Registries`] leaves,
//! which a [`ClientBuilder`] takes; the certificates and passwords that it names are read
//! then. The form is documented in docs/registries.md.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::auth::{
    AwsKeys, CloudEnvironment, Credential, EcrLogin, EcrSettings, GoogleLogin, InvalidEcrLogin,
    InvalidGoogleLogin,
};
use crate::client::ClientBuilder;
use crate::connector::{Certificates, Limits, Mirror};
use crate::home::Endpoint;
use crate::reference::canonical_registry;
use crate::{Repository, Secret, TagPolicy};

/// What an operator says about registries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registries {
    /// By the names that stand in references: `docker.io`, `localhost:5000`.
    #[serde(default)]
    pub registry: BTreeMap<String, RegistrySettings>,
}

/// What an operator says about one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistrySettings {
    /// Over TLS or over plain HTTP; without it plain HTTP on loopback only.
    pub protocol: Option<Protocol>,
    /// A PEM file of authorities that are trusted for this registry.
    pub ca: Option<PathBuf>,
    /// A PEM file of our certificate for it.
    pub client_certificate: Option<PathBuf>,
    /// A PEM file of the key of our certificate.
    pub client_key: Option<PathBuf>,
    /// Take any certificate.
    pub skip_verify: bool,
    /// Registries that are asked for images before this one: `[http[s]://]host[:port][/path]`.
    pub mirrors: Vec<String>,
    /// Where it is reached: `[http[s]://]host[:port]`.
    pub reached_as: Option<String>,
    /// How others call it: what was pushed is reported under this name.
    pub reported_as: Option<String>,
    /// Who we are to it, in place of what Docker's configuration says.
    pub login: Option<Login>,
    /// The user name of a login by `password_file`.
    pub username: Option<String>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// Makes a repository that a push finds missing, where a registry needs that (ECR).
    pub create: bool,
    /// Layers that are sent at once.
    pub uploads: Option<usize>,
    /// Parts of a layer that are loaded at once.
    pub downloads: Option<usize>,
    /// What becomes of a tag that is there already.
    pub tag_policy: Option<TagPolicy>,
}

/// How a registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Over TLS.
    Https,
    /// Over plain HTTP.
    Http,
}

/// A login that is no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    /// None.
    Anonymous,
    /// Amazon's default chain: variables, profile, web identity, container, machine.
    Aws,
    /// Google's default chain: key file, gcloud's login, machine.
    Google,
}

/// A `registries.toml` that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistriesError {
    /// The text is not what it should be.
    #[error("the settings of registries are not valid: {0}")]
    Parse(String),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A setting of a registry does not make sense.
    #[error("the settings of registry {registry:?} are not valid: {problem}")]
    Setting {
        /// The registry.
        registry: String,
        /// Why.
        problem: &'static str,
    },
    /// A login to Amazon is not possible.
    #[error("the login of registry {registry:?} is not valid")]
    Amazon {
        /// The registry.
        registry: String,
        /// Why.
        source: InvalidEcrLogin,
    },
    /// A login to Google is not possible.
    #[error("the login of registry {registry:?} is not valid")]
    Google {
        /// The registry.
        registry: String,
        /// Why.
        source: InvalidGoogleLogin,
    },
}

impl Registries {
    /// Reads the text of a `registries.toml`.
    pub fn parse(text: &str) -> Result<Self, RegistriesError> {
        let parsed: Self =
            toml::from_str(text).map_err(|error| RegistriesError::Parse(describe(text, &error)))?;
        for (name, settings) in &parsed.registry {
            settings
                .check()
                .map_err(|problem| RegistriesError::Setting {
                    registry: name.clone(),
                    problem,
                })?;
            if Repository::new(name, "x").is_err() {
                return Err(RegistriesError::Setting {
                    registry: name.clone(),
                    problem: "its name is not host[:port]",
                });
            }
        }
        Ok(parsed)
    }

    /// Reads a `registries.toml`; paths in it are relative to its folder.
    pub fn read(file: &Path) -> Result<Self, RegistriesError> {
        let text = std::fs::read_to_string(file).map_err(|source| RegistriesError::Read {
            path: file.to_owned(),
            source,
        })?;
        let mut registries = Self::parse(&text)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        for settings in registries.registry.values_mut() {
            settings.below(folder);
        }
        Ok(registries)
    }

    /// Hands everything to a builder of clients. Passwords win over what the builder's
    /// credentials say.
    pub(crate) fn apply(
        &self,
        mut builder: ClientBuilder,
        environment: &CloudEnvironment,
    ) -> Result<ClientBuilder, RegistriesError> {
        for (name, settings) in &self.registry {
            builder = settings.reach(name, builder)?;
            builder = settings.log_in(name, builder, environment)?;
            if let Some(policy) = settings.tag_policy {
                let name = canonical_registry(name).to_owned();
                builder.tags.own.insert(name, policy);
            }
        }
        Ok(builder)
    }
}

/// Says where a text is wrong; the parser's own words may show a secret's line.
fn describe(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| {
        let before = text.get(..span.start).unwrap_or_default();
        before.matches('\n').count() + 1
    });
    let message = error.message().lines().next().unwrap_or_default();
    match line {
        Some(line) => format!("line {line}: {message}"),
        None => message.to_owned(),
    }
}

impl RegistrySettings {
    fn check(&self) -> Result<(), &'static str> {
        if self.client_certificate.is_some() != self.client_key.is_some() {
            return Err("client_certificate and client_key belong together");
        }
        if self.username.is_some() != self.password_file.is_some() {
            return Err("username and password_file belong together");
        }
        if self.login.is_some() && self.username.is_some() {
            return Err("it has a login and a username");
        }
        if self.create && self.login != Some(Login::Aws) {
            return Err(
                "only repositories at Amazon need to be made: create wants login = \"aws\"",
            );
        }
        if self.uploads == Some(0) || self.downloads == Some(0) {
            return Err("uploads and downloads must be at least 1");
        }
        Ok(())
    }

    fn below(&mut self, folder: &Path) {
        let paths = [
            &mut self.ca,
            &mut self.client_certificate,
            &mut self.client_key,
            &mut self.password_file,
        ];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&path);
        }
    }

    fn reach(
        &self,
        name: &str,
        mut builder: ClientBuilder,
    ) -> Result<ClientBuilder, RegistriesError> {
        let invalid = |problem| RegistriesError::Setting {
            registry: name.to_owned(),
            problem,
        };
        let named = Repository::new(name, "x").map_err(|_| invalid("its name is no host"))?;
        let host = named.api_host().to_owned();
        builder = match self.protocol {
            Some(Protocol::Http) => builder.plain_http([&host]),
            Some(Protocol::Https) => builder.force_https([&host]),
            None => builder,
        };
        if self.skip_verify {
            builder = builder.skip_verify(&host);
        }
        if let Some(certificates) = self.certificates()? {
            builder.hosts.certificates.insert(host, certificates);
        }
        if let Some(endpoint) = &self.reached_as {
            builder = builder.alias(name, endpoint);
        }
        let registry = named.registry().to_owned();
        if let Some(other) = &self.reported_as {
            let valid = Repository::new(other, "x").is_ok();
            let other = valid.then(|| other.clone());
            let other = other.ok_or_else(|| invalid("reported_as is not host[:port]"))?;
            builder.reported.insert(registry.clone(), other);
        }
        let limits = Limits {
            uploads: self.uploads,
            downloads: self.downloads,
        };
        if limits != Limits::default() {
            builder.hosts.limits.insert(registry.clone(), limits);
        }
        for text in &self.mirrors {
            let (mirror, tls) = mirror(text).ok_or_else(|| {
                invalid("a mirror is not [http[s]://]host[:port][/path] in small letters")
            })?;
            builder = match tls {
                Some(true) => builder.force_https([&mirror.registry]),
                Some(false) => builder.plain_http([&mirror.registry]),
                None => builder,
            };
            let mirrors = builder.hosts.mirrors.entry(registry.clone());
            mirrors.or_default().push(mirror);
        }
        Ok(builder)
    }

    fn certificates(&self) -> Result<Option<Certificates>, RegistriesError> {
        let identity = match (&self.client_certificate, &self.client_key) {
            (Some(certificate), Some(key)) => {
                let key = read(key)?;
                let key = String::from_utf8(key).unwrap_or_default();
                Some((read(certificate)?, Secret::new(key)))
            }
            _ => None,
        };
        let ca = self.ca.as_deref().map(read).transpose()?;
        let has_any = ca.is_some() || identity.is_some();
        Ok(has_any.then_some(Certificates { ca, identity }))
    }

    fn log_in(
        &self,
        name: &str,
        mut builder: ClientBuilder,
        environment: &CloudEnvironment,
    ) -> Result<ClientBuilder, RegistriesError> {
        let credential = match (self.login, &self.username, &self.password_file) {
            (Some(Login::Anonymous), ..) => {
                builder.credentials = builder.credentials.without(name);
                return Ok(builder);
            }
            (Some(Login::Aws), ..) => Credential::Ecr(self.amazon(name, environment)?),
            (Some(Login::Google), ..) => {
                let login = GoogleLogin::default_chain(environment);
                Credential::Google(login.map_err(|source| RegistriesError::Google {
                    registry: name.to_owned(),
                    source,
                })?)
            }
            (None, Some(username), Some(file)) => {
                let password = read(file)?;
                let password = String::from_utf8_lossy(&password);
                Credential::password(username, password.trim_end_matches(['\r', '\n']))
            }
            (None, ..) => return Ok(builder),
        };
        let credentials = builder.credentials.without(name);
        builder.credentials = credentials.with(name, credential);
        Ok(builder)
    }

    fn amazon(
        &self,
        name: &str,
        environment: &CloudEnvironment,
    ) -> Result<EcrLogin, RegistriesError> {
        let place = ecr_place(name).ok_or_else(|| RegistriesError::Setting {
            registry: name.to_owned(),
            problem: "a login at Amazon wants ACCOUNT.dkr.ecr.REGION.amazonaws.com",
        })?;
        EcrLogin::new(EcrSettings {
            region: place.1.to_owned(),
            account: place.0.to_owned(),
            keys: AwsKeys::chain(environment.clone()),
            endpoint: None,
            create_repository: self.create,
        })
        .map_err(|source| RegistriesError::Amazon {
            registry: name.to_owned(),
            source,
        })
    }
}

/// Gives account and region of a registry at Amazon.
fn ecr_place(name: &str) -> Option<(&str, &str)> {
    let (account, rest) = name.split_once(".dkr.ecr.")?;
    let region = rest
        .strip_suffix(".amazonaws.com")
        .or_else(|| rest.strip_suffix(".amazonaws.com.cn"))?;
    Some((account, region))
}

/// Reads `[http[s]://]host[:port][/path]`; the second value says whether TLS is spoken.
fn mirror(text: &str) -> Option<(Mirror, Option<bool>)> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let (place, prefix) = match rest.trim_end_matches('/').split_once('/') {
        Some((place, prefix)) => (place, Some(prefix.to_owned())),
        None => (rest.trim_end_matches('/'), None),
    };
    let endpoint = Endpoint::parse(&format!("{scheme}{place}"))?;
    let path = prefix.as_deref().unwrap_or("x");
    Repository::new(&endpoint.authority, path).ok()?;
    let mirror = Mirror {
        registry: endpoint.authority,
        prefix,
    };
    Some((mirror, endpoint.tls))
}

fn read(path: &Path) -> Result<Vec<u8>, RegistriesError> {
    std::fs::read(path).map_err(|source| RegistriesError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_can_be_said_is_read() {
        let text = r#"
            [registry."docker.io"]
            mirrors = ["mirror.example", "http://10.0.0.7:5000/hub/"]
            tag_policy = "keep-if-same"
            [registry."localhost:5001"]
            protocol = "http"
            reached_as = "http://kind-registry:5000"
            reported_as = "localhost:5000"
            uploads = 2
            downloads = 4
            [registry."123456789012.dkr.ecr.eu-central-1.amazonaws.com"]
            login = "aws"
            create = true
        "#;
        let registries = Registries::parse(text).unwrap();
        assert_eq!(registries.registry.len(), 3);
        let builder = crate::Client::builder();
        let builder = builder.registries(&registries, &CloudEnvironment::default());
        let client = builder.unwrap().build().unwrap();
        let connector = client.transport.connector();
        let mirrors = connector.mirrors(&"alpine".parse().unwrap());
        let names: Vec<String> = mirrors.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "mirror.example/library/alpine",
                "10.0.0.7:5000/hub/library/alpine"
            ]
        );
        let pushed = "localhost:5001/app:v1".parse().unwrap();
        let reported = client.reported_name(&pushed).to_string();
        assert_eq!(reported, "localhost:5000/app:v1");
        assert_eq!(client.tags.of(&pushed), TagPolicy::Overwrite);
        assert_eq!(
            client.tags.of(&"alpine:3".parse().unwrap()),
            TagPolicy::KeepIfSame
        );
        assert_eq!(connector.limits(pushed.repository()).uploads, Some(2));
    }

    #[test]
    fn mistakes_say_where_they_are() {
        for (text, why) in [
            ("[registry.\"a.example\"]\nmirror = []", "line 2"),
            ("[registry.\"a b\"]", "host"),
            ("[registry.\"a.example\"]\nprotocol = \"ftp\"", "line 2"),
            (
                "[registry.\"a.example\"]\nclient_key = \"k\"",
                "belong together",
            ),
            ("[registry.\"a.example\"]\ncreate = true", "aws"),
            ("[registry.\"a.example\"]\nuploads = 0", "at least 1"),
            ("x = 1", "line 1"),
        ] {
            let error = Registries::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        for text in [
            "[registry.\"a.example\"]\nlogin = \"aws\"",
            "[registry.\"a.example\"]\nmirrors = [\"ftp://x\"]",
        ] {
            let registries = Registries::parse(text).unwrap();
            let builder = crate::Client::builder();
            let error = builder.registries(&registries, &CloudEnvironment::default());
            assert!(error.is_err(), "{text}");
        }
    }
}
