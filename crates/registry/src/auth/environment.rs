//! What the programs of clouds read from their surroundings, as a value: variables by the
//! names that the clouds' own tools use. Nothing is looked for on the machine here; files
//! are read only where a variable names them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Secret;

/// Variables that decide where a login to a cloud comes from.
const NAMES: [&str; 23] = [
    "HOME",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_STS",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GCE_METADATA_HOST",
    "CLOUDSDK_CONFIG",
];

/// The variables of a process that its clouds' logins depend on. `Debug` shows their names
/// only: some are secrets.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CloudEnvironment(BTreeMap<String, String>);

impl CloudEnvironment {
    /// Picks the variables that count; those without a value are as good as absent.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let counts = |(name, value): &(String, String)| {
            !value.trim().is_empty() && NAMES.contains(&name.as_str())
        };
        Self(vars.into_iter().filter(counts).collect())
    }

    /// Lists what must not be shown.
    pub fn secrets(&self) -> Vec<Secret> {
        let secrets = [
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        ];
        let values = secrets.into_iter().filter_map(|name| self.get(name));
        values.map(Secret::new).collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// Gives a path below the home directory, where there is one.
    pub(super) fn in_home(&self, path: &str) -> Option<PathBuf> {
        Some(self.path("HOME")?.join(path))
    }
}

impl fmt::Debug for CloudEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_counts_is_taken_and_no_value_is_shown() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment = CloudEnvironment::from_vars([
            pair("AWS_PROFILE", "team"),
            pair("AWS_CONTAINER_AUTHORIZATION_TOKEN", "geheim"),
            pair("AWS_ROLE_ARN", " "),
            pair("PATH", "/bin"),
        ]);
        assert_eq!(environment.get("AWS_PROFILE"), Some("team"));
        assert_eq!(environment.get("AWS_ROLE_ARN"), None);
        let shown = format!("{environment:?}");
        assert!(
            !shown.contains("geheim") && !shown.contains("PATH\""),
            "{shown}"
        );
    }
}
