//! Profiles: `~/.aws/credentials` and `~/.aws/config`. A profile has a key, or a role that
//! is taken on with another profile's key, with a token in a file, or with what the
//! machine or container is given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::sts::Role;
use super::{AccessKey, AwsKeyError, AwsKeyProblem, AwsKeySource, Finder, Found, without_end};
use crate::Secret;

const USUAL: &str = "default";
/// Profiles that name each other as their source.
const MAX_DEPTH: usize = 5;

type Settings = BTreeMap<String, String>;
type Profiles = BTreeMap<String, Settings>;

impl Finder<'_> {
    pub(super) async fn profile(&self) -> Found {
        let named = self.environment.get("AWS_PROFILE");
        let name = named.unwrap_or(USUAL);
        let profiles = self.profiles()?;
        if !profiles.contains_key(name) {
            return match named {
                None => Ok(None),
                Some(name) => Err(AwsKeySource::Profile.failed(AwsKeyProblem::NoProfile {
                    name: name.to_owned(),
                })),
            };
        }
        self.of_profile(&profiles, name, named.is_some()).await
    }

    /// Walks from a profile to the one with a key, and back over their roles.
    async fn of_profile(&self, profiles: &Profiles, name: &str, must: bool) -> Found {
        let mut roles = Vec::new();
        let mut name = name.to_owned();
        let mut found = loop {
            let Some(settings) = profiles.get(&name) else {
                return Err(AwsKeySource::Profile.failed(AwsKeyProblem::NoProfile { name }));
            };
            let own = key_of(settings);
            let Some(arn) = settings.get("role_arn") else {
                match (own, unsupported(settings)) {
                    (Some(key), _) => break without_end(key),
                    (None, Some(problem)) => return Err(unusable(&name, problem)),
                    // A file that only names a region is no reason to stop looking.
                    (None, None) if !must && roles.is_empty() => return Ok(None),
                    (None, None) => return Err(unusable(&name, "it has no access key")),
                }
            };
            if roles.len() == MAX_DEPTH {
                return Err(unusable(&name, "its sources go round in circles"));
            }
            let role = role(settings, arn);
            if let Some(file) = settings.get("web_identity_token_file") {
                break self.with_web_identity(&role, Path::new(file)).await?;
            }
            roles.push(role);
            match (
                settings.get("source_profile"),
                settings.get("credential_source"),
            ) {
                // A profile may be its own source: then its key is meant.
                (Some(source), _) if *source == name => match own {
                    Some(key) => break without_end(key),
                    None => return Err(unusable(&name, "it has no access key")),
                },
                (Some(source), _) => name = source.clone(),
                (None, Some(source)) => break self.of_source(&name, source).await?,
                (None, None) => {
                    return Err(unusable(&name, "its role has no source of a key"));
                }
            }
        };
        for role in roles.iter().rev() {
            found = self.with_key(role, &found.0).await?;
        }
        Ok(Some(found))
    }

    async fn of_source(
        &self,
        name: &str,
        source: &str,
    ) -> Result<(AccessKey, DateTime<Utc>), AwsKeyError> {
        let found = match source {
            "Environment" => self.variables(),
            "Ec2InstanceMetadata" => self.instance().await?,
            "EcsContainer" => self.container().await?,
            _ => return Err(unusable(name, "its credential_source is not known")),
        };
        found.ok_or_else(|| unusable(name, "its credential_source has no access key"))
    }

    fn profiles(&self) -> Result<Profiles, AwsKeyError> {
        let mut profiles = Profiles::new();
        let config = self.file("AWS_CONFIG_FILE", ".aws/config")?;
        add(&mut profiles, &config, true);
        // Where both have a setting, the file of credentials counts.
        let credentials = self.file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")?;
        add(&mut profiles, &credentials, false);
        Ok(profiles)
    }

    /// Reads a file; one that is not there is as good as empty.
    fn file(&self, variable: &str, usual: &str) -> Result<String, AwsKeyError> {
        let named: Option<PathBuf> = self.environment.path(variable);
        let Some(path) = named.or_else(|| self.environment.in_home(usual)) else {
            return Ok(String::new());
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(source) => Err(AwsKeySource::Profile.failed(AwsKeyProblem::Read { path, source })),
        }
    }
}

fn unusable(name: &str, problem: &'static str) -> AwsKeyError {
    AwsKeySource::Profile.failed(AwsKeyProblem::Profile {
        name: name.to_owned(),
        problem,
    })
}

fn unsupported(settings: &Settings) -> Option<&'static str> {
    if settings.contains_key("credential_process") {
        return Some("programs that give keys (credential_process) are not run");
    }
    let is_sso = |name: &String| name.starts_with("sso_");
    settings.keys().any(is_sso).then_some(
        "a login by single sign-on is not supported: hand over its key as variables \
         (aws configure export-credentials --format env)",
    )
}

fn key_of(settings: &Settings) -> Option<AccessKey> {
    let get = |name: &str| settings.get(name).filter(|value| !value.is_empty());
    Some(AccessKey {
        id: get("aws_access_key_id")?.clone(),
        secret: Secret::new(get("aws_secret_access_key")?),
        session_token: get("aws_session_token").map(Secret::new),
    })
}

fn role<'a>(settings: &'a Settings, arn: &'a str) -> Role<'a> {
    let get = |name: &str| settings.get(name).map(String::as_str);
    Role {
        arn,
        session: get("role_session_name"),
        external_id: get("external_id"),
    }
}

/// Reads sections of `name = value`. In the file of configuration a profile's section is
/// `[profile NAME]`; settings below a setting are not for us.
fn add(profiles: &mut Profiles, text: &str, is_config: bool) {
    let mut current: Option<String> = None;
    for line in text.lines() {
        let is_nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            current = section_name(section.trim(), is_config);
            if let Some(name) = &current {
                profiles.entry(name.clone()).or_default();
            }
            continue;
        }
        let (Some(name), Some((key, value)), false) = (&current, line.split_once('='), is_nested)
        else {
            continue;
        };
        let value = value.split(" #").next().unwrap_or_default().trim();
        let settings = profiles.entry(name.clone()).or_default();
        settings.insert(key.trim().to_ascii_lowercase(), value.to_owned());
    }
}

fn section_name(section: &str, is_config: bool) -> Option<String> {
    match (is_config, section.strip_prefix("profile")) {
        (true, Some(name)) if name.starts_with([' ', '\t']) => Some(name.trim().to_owned()),
        (true, _) if section != USUAL => None,
        _ => Some(section.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_profiles_are_read() {
        let mut profiles = Profiles::new();
        let config = "# x\n[default]\nregion = eu-1\n[profile team]\nrole_arn=arn:x # why\n\
            source_profile = base\ns3 =\n  max = 1\n[sso-session y]\nsso_region = z\n";
        add(&mut profiles, config, true);
        let credentials = "[base]\naws_access_key_id = A\nAWS_SECRET_ACCESS_KEY = s=#\n";
        add(&mut profiles, credentials, false);
        assert_eq!(
            profiles.keys().collect::<Vec<_>>(),
            ["base", "default", "team"]
        );
        assert_eq!(profiles["team"]["role_arn"], "arn:x");
        assert!(!profiles["team"].contains_key("max"));
        let key = key_of(&profiles["base"]).unwrap();
        assert_eq!((key.id.as_str(), key.secret.expose()), ("A", "s=#"));
    }
}
