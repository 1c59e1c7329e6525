//! The values of all settings, each with the place that it came from.
//!
//! Flags win over the environment, the environment over a `.env` file, and each over what
//! counts otherwise. A value that is empty counts as absent: Helm charts write absent values so.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use ocibuild_registry::CloudEnvironment;

use super::error::{ConfigError, Problem};
use super::settings::{self, Computed, ENVIRONMENT, Fallback, HOSTNAME, Kind, Secrecy, Setting};
use super::{Config, Defaults};

/// Where a value came from, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Nobody gave one.
    Default,
    /// The `.env` file.
    EnvFile,
    /// The environment of the program.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::EnvFile => ".env",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// What is known of the settings before any of them is checked.
#[derive(Clone)]
pub struct Values {
    given: BTreeMap<String, Given>,
    defaults: Defaults,
}

#[derive(Clone)]
struct Given {
    text: String,
    source: Source,
}

// Derived, it would show secrets.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.given.keys();
        f.debug_set().entries(names).finish()
    }
}

impl Values {
    /// Begins with nothing but what the caller knows of the machine.
    pub fn new(defaults: Defaults) -> Self {
        Self {
            given: BTreeMap::new(),
            defaults,
        }
    }

    /// Adds the variables of one source. The order of calls does not matter; of two values
    /// from one source the later one counts.
    pub fn with(
        mut self,
        source: Source,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let variables: BTreeMap<_, _> = variables.into_iter().collect();
        for (name, text) in variables {
            let weaker = |given: &Given| given.source <= source;
            if !text.is_empty() && self.given.get(&name).is_none_or(weaker) {
                self.given.insert(name, Given { text, source });
            }
        }
        self
    }

    /// Checks every value and gives the settings, or everything that is wrong.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let mut reader = Reader {
            values: self,
            problems: self.unknown(),
        };
        let config = Config::read(&mut reader);
        match reader.problems.is_empty() {
            true => Ok(config),
            false => Err(ConfigError::new(reader.problems)),
        }
    }

    /// Gives the text of a setting: what somebody said, or else what counts then.
    pub fn text(&self, setting: &Setting) -> Option<Cow<'_, str>> {
        match self.given(setting) {
            Some(text) => Some(text.into()),
            None => self.fallback(setting),
        }
    }

    /// Tells where the value of a setting came from.
    pub fn source(&self, setting: &Setting) -> Source {
        let given = self.given.get(setting.name);
        given.map_or(Source::Default, |given| given.source)
    }

    /// Gives the variables that logins of clouds come from.
    pub(super) fn cloud(&self) -> CloudEnvironment {
        let given = self.given.iter();
        CloudEnvironment::from_vars(given.map(|(name, given)| (name.clone(), given.text.clone())))
    }

    /// Gives what somebody said about a setting.
    pub(super) fn given(&self, setting: &Setting) -> Option<&str> {
        let text = &self.given.get(setting.name)?.text;
        // A password may begin and end with spaces, nothing else does on purpose.
        match setting.secrecy {
            Secrecy::Secret => Some(text),
            _ => Some(text.trim()),
        }
    }

    fn fallback(&self, setting: &Setting) -> Option<Cow<'_, str>> {
        let computed = match setting.fallback {
            Fallback::Absent => return None,
            Fallback::Text(text) => return Some(text.into()),
            Fallback::Computed(computed) => computed,
        };
        match computed {
            Computed::DataFolder => Some(self.defaults.data.to_string_lossy()),
            Computed::Processors => {
                Some(self.defaults.max_builds.clamp(1, 1000).to_string().into())
            }
            Computed::HostName => self.given(&HOSTNAME).map(Cow::from),
            Computed::PublicUrl if self.environment() == "prod" => None,
            Computed::PublicUrl => Some("http://localhost:8000".into()),
            Computed::UnlessLocal => Some((self.environment() != "local").to_string().into()),
        }
    }

    pub(super) fn environment(&self) -> Cow<'_, str> {
        self.text(&ENVIRONMENT).unwrap_or_default()
    }

    /// Gives the ignored settings that somebody set.
    pub(super) fn ignored(&self) -> impl Iterator<Item = &'static Setting> {
        settings::all()
            .filter(|setting| setting.kind == Kind::Ignored && self.given(setting).is_some())
    }

    /// Finds the names that look like ours and are not: they are typing errors.
    fn unknown(&self) -> Vec<Problem> {
        let names = self.given.iter().filter(|(name, given)| {
            let ours = name
                .get(..PREFIX.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
            ours && settings::find(name).is_none() && !is_service_link(name, &given.text)
        });
        let problem = |(name, _): (&String, _)| Problem::Unknown {
            name: name.clone(),
            similar: similar(name),
        };
        names.map(problem).collect()
    }
}

/// What the names of our own settings begin with.
const PREFIX: &str = "OCIBUILD_";

/// Finds the setting that somebody meant.
fn similar(name: &str) -> Option<&'static str> {
    const ALIKE: f64 = 0.75;
    // What all have in common would make all of them alike.
    let word = |name: &str| name[PREFIX.len()..].to_ascii_uppercase();
    let wanted = word(name);
    settings::all()
        .filter(|setting| setting.name.starts_with(PREFIX))
        .map(|setting| {
            (
                strsim::jaro_winkler(&wanted, &word(setting.name)),
                setting.name,
            )
        })
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

/// Tells whether Kubernetes set a variable, which it does in every container for every service
/// of the namespace: one that is called `ocibuild` gives `OCIBUILD_SERVICE_HOST`,
/// `OCIBUILD_PORT=tcp://10.0.0.1:8000` and `OCIBUILD_PORT_8000_TCP_ADDR`.
fn is_service_link(name: &str, text: &str) -> bool {
    let of_a_port = |rest: &str| {
        let protocol = rest.trim_start_matches(|first: char| first.is_ascii_digit());
        let known = ["_TCP", "_UDP", "_SCTP"];
        protocol.len() < rest.len() && known.iter().any(|start| protocol.starts_with(start))
    };
    let protocols = ["tcp://", "udp://", "sctp://"];
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.split("_PORT_").skip(1).any(of_a_port)
        || (name.ends_with("_PORT") && protocols.iter().any(|start| text.starts_with(start)))
}

/// Reads settings one by one and collects what is wrong with them. A value that is wrong is
/// replaced by the default, so that reading can go on.
pub(super) struct Reader<'a> {
    pub(super) values: &'a Values,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// Reads a setting that always has a value.
    pub(super) fn read<T>(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        match self.optional(setting, &parse) {
            Some(value) => value,
            None => {
                let fallback = self.values.fallback(setting);
                fallback
                    .and_then(|text| parse(&text))
                    .expect("the default of a setting can be read")
            }
        }
    }

    /// Reads a setting that may have no value.
    pub(super) fn optional<T>(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let value = parse(&self.values.text(setting)?);
        if value.is_none() {
            self.refuse(setting);
        }
        value
    }

    /// Reads a list; empty items do not count.
    pub(super) fn list<T>(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let items = |text: &str| items(text).map(&parse).collect();
        self.optional(setting, items).unwrap_or_default()
    }

    /// Reads a number of the setting's kind: as it is, in bytes, or in seconds.
    pub(super) fn number(&mut self, setting: &'static Setting) -> u64 {
        self.read(setting, |text| setting.kind.number(text))
    }

    /// Reads such a number that may be absent.
    pub(super) fn optional_number(&mut self, setting: &'static Setting) -> Option<u64> {
        self.optional(setting, |text| setting.kind.number(text))
    }

    /// Reads text that can be anything.
    pub(super) fn string(&mut self, setting: &'static Setting) -> Option<String> {
        self.optional(setting, |text| Some(text.to_owned()))
    }

    /// Writes down that a value cannot be used.
    pub(super) fn refuse(&mut self, setting: &'static Setting) {
        let source = self.values.source(setting);
        let text = self.values.given(setting).unwrap_or_default();
        self.add(Problem::value(setting, source, text));
    }

    /// Writes down anything else that is wrong.
    pub(super) fn add(&mut self, problem: Problem) {
        self.problems.push(problem);
    }
}

/// Splits a list.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}
