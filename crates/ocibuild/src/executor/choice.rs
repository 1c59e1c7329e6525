//! Which engines may be taken: any, or those that somebody has named.

use std::fmt;
use std::str::FromStr;

use super::Namespaces;
use super::plain::{CHROOT, EMULATION};

/// An engine with a kind of identity.
pub(super) type Name = (&'static str, &'static str);

/// Engines with the kinds of identity that they have, best first.
pub(super) const NAMES: &[Name] = &[
    (Namespaces::NAME, "real"),
    (Namespaces::NAME, "range"),
    (Namespaces::NAME, "recorded"),
    (CHROOT, "real"),
    (CHROOT, "recorded"),
    (EMULATION, "recorded"),
    (Namespaces::NAME, "single"),
];

/// Engines that may be taken: an engine by its name, as in `emulation`, or one with one
/// kind of identity, as in `namespaces/recorded`. By default all of them may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    name: Option<String>,
    with_devices: bool,
}

impl Choice {
    fn allows(&self, engine: &str, identity: &str) -> bool {
        match self.name().map(|name| name.split_once('/')) {
            None => true,
            Some(Some(named)) => named == (engine, identity),
            Some(None) => self.name() == Some(engine),
        }
    }

    /// Gives the name, if there is one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Prefers engines in which commands can make device nodes, if they are to.
    pub fn with_devices(self, with_devices: bool) -> Self {
        Self {
            with_devices,
            ..self
        }
    }

    /// Gives the engines that may be taken, best first.
    pub(super) fn candidates(&self) -> Vec<&'static Name> {
        let allowed = NAMES.iter().filter(|(e, i)| self.allows(e, i));
        let mut candidates: Vec<_> = allowed.collect();
        if self.with_devices {
            candidates.sort_by_key(|(_, identity)| !holds_devices(identity));
        }
        candidates
    }
}

/// Whether there are device nodes with a kind of identity. No user namespace may make one,
/// whatever ids it has.
fn holds_devices(identity: &str) -> bool {
    matches!(identity, "real" | "recorded")
}

impl FromStr for Choice {
    type Err = UnknownSandbox;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let choice = Self {
            name: Some(name.to_owned()),
            with_devices: false,
        };
        match choice.candidates().is_empty() {
            false => Ok(choice),
            true => Err(UnknownSandbox(name.to_owned())),
        }
    }
}

/// No engine has this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownSandbox(String);

impl fmt::Display for UnknownSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no sandbox; there are", self.0)?;
        for (index, (engine, identity)) in NAMES.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma} {engine}/{identity}")?;
        }
        f.write_str("; or the name of an engine alone")
    }
}

impl std::error::Error for UnknownSandbox {}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(name: &str) -> Vec<&'static str> {
        identities(&name.parse().unwrap())
    }

    fn identities(choice: &Choice) -> Vec<&'static str> {
        let candidates = choice.candidates();
        candidates.iter().map(|(_, identity)| *identity).collect()
    }

    #[test]
    fn engines_without_devices_come_last_where_devices_are_made() {
        let all = Choice::default();
        assert_eq!(all.candidates()[..2], [&NAMES[0], &NAMES[1]]);
        let all = all.with_devices(true);
        assert_eq!(all.candidates().len(), NAMES.len());
        assert_eq!(identities(&all)[..2], ["real", "recorded"]);
        assert_eq!(identities(&all)[5..], ["range", "single"]);
        // Who names an engine gets it.
        let named: Choice = "namespaces/range".parse().unwrap();
        assert_eq!(identities(&named.with_devices(true)), ["range"]);
    }

    #[test]
    fn engines_are_named_with_and_without_identity() {
        assert_eq!(
            allowed("namespaces"),
            ["real", "range", "recorded", "single"]
        );
        assert_eq!(allowed("namespaces/recorded"), ["recorded"]);
        assert_eq!(allowed("emulation"), ["recorded"]);
        assert_eq!(Choice::default().candidates().len(), NAMES.len());
        for unknown in ["", "/", "real", "chroot/single", "docker"] {
            let refused = Choice::from_str(unknown).unwrap_err().to_string();
            assert!(refused.contains("emulation/recorded"), "{refused}");
        }
    }
}
