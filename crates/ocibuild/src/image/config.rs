//! The image configuration (OCI image-spec, config.md, and Docker's further keys).
//!
//! Instructions change the typed part; whatever else a base image has in its
//! configuration is kept as it was, because runtimes and scanners read keys that
//! no specification lists.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::History;
use crate::layer::DiffId;
use crate::registry::{Platform, null_default};

/// `PATH` of an image that sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A whole image configuration document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The platform it is for.
    #[serde(flatten)]
    pub platform: Platform,
    /// What a container of the image runs with.
    #[serde(default, deserialize_with = "null_default")]
    pub config: RunConfig,
    /// RFC 3339 time of the last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Text of `MAINTAINER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// One entry an instruction.
    #[serde(default, deserialize_with = "null_default")]
    pub history: Vec<History>,
    /// The layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// Keys that we do not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The list of layers of a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "null_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: "layers".to_owned(),
            diff_ids: Vec::new(),
        }
    }
}

/// The `config` object: how a container starts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `USER`.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// `EXPOSE`: `port/protocol` to an empty object.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `ENV`: `NAME=value`.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// `ENTRYPOINT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `CMD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// `VOLUME`.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub volumes: BTreeMap<String, Empty>,
    /// `WORKDIR`.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// `LABEL`.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// `STOPSIGNAL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// `CMD` was given by this build (Docker's key).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// `HEALTHCHECK` (Docker's key).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// `SHELL` (Docker's key).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// `ONBUILD` (Docker's key).
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub on_build: Vec<String>,
    /// Keys that we do not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A JSON object without keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// `HEALTHCHECK`; durations in nanoseconds, as Docker stores them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time after which a check has failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time that the container has to start.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks while it starts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl ImageConfig {
    /// Gives the configuration that `FROM scratch` begins with.
    pub fn scratch(platform: &Platform) -> Self {
        Self {
            platform: platform.clone(),
            config: RunConfig {
                env: vec![format!("PATH={DEFAULT_PATH}")],
                working_dir: "/".to_owned(),
                ..RunConfig::default()
            },
            created: None,
            author: None,
            history: Vec::new(),
            rootfs: RootFs::default(),
            other: Map::new(),
        }
    }

    /// Reads a configuration document.
    pub fn parse(json: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }

    /// Gives the document's bytes: the same value gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a configuration has only string keys")
    }
}

impl RunConfig {
    /// Sets an environment variable; one that is there keeps its place.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let text = format!("{name}={value}");
        let same = |entry: &String| entry.split('=').next() == Some(name);
        match self.env.iter_mut().find(|entry| same(entry)) {
            Some(entry) => *entry = text,
            None => self.env.push(text),
        }
    }

    /// Gives an environment variable.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env.iter().find_map(|entry| {
            let (key, value) = entry.split_once('=')?;
            (key == name).then_some(value)
        })
    }

    /// Adds Docker's `PATH` where none is set.
    pub fn ensure_path(&mut self) {
        if self.env("PATH").is_none() {
            self.set_env("PATH", DEFAULT_PATH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_it_does_not_know() {
        let json = br#"{"architecture":"amd64","os":"linux","x-top":[1],
            "config":{"Env":["A=1"],"Cmd":null,"Labels":null,"X-Inner":{"a":true}},
            "rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config = ImageConfig::parse(json).unwrap();
        let again: Value = serde_json::from_slice(&config.to_bytes()).unwrap();
        assert_eq!(again["x-top"], serde_json::json!([1]));
        assert_eq!(again["config"]["X-Inner"]["a"], serde_json::json!(true));
        assert_eq!(again["config"]["Env"], serde_json::json!(["A=1"]));
        assert!(again["config"].get("Cmd").is_none());
    }

    #[test]
    fn env_keeps_its_place() {
        let mut config = RunConfig::default();
        for (name, value) in [("A", "1"), ("B", "2"), ("A", "3")] {
            config.set_env(name, value);
        }
        assert_eq!(config.env, ["A=3", "B=2"]);
        assert_eq!(config.env("B"), Some("2"));
    }
}
