//! Which engines may be taken: any, or those that somebody has named.

use std::fmt;
use std::str::FromStr;

use super::Namespaces;
use super::plain::{CHROOT, EMULATION};

/// Engines with the kinds of identity that they have, best first.
pub(super) const NAMES: &[(&str, &str)] = &[
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
pub struct Choice(Option<String>);

impl Choice {
    /// Tells whether an engine with a kind of identity may be taken.
    pub fn allows(&self, engine: &str, identity: &str) -> bool {
        match self.0.as_deref().map(|name| name.split_once('/')) {
            None => true,
            Some(Some(named)) => named == (engine, identity),
            Some(None) => self.0.as_deref() == Some(engine),
        }
    }

    /// Gives the name, if there is one.
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl FromStr for Choice {
    type Err = UnknownSandbox;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let choice = Self(Some(name.to_owned()));
        let is_known = NAMES
            .iter()
            .any(|(engine, identity)| choice.allows(engine, identity));
        if is_known {
            Ok(choice)
        } else {
            Err(UnknownSandbox(name.to_owned()))
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
        let choice: Choice = name.parse().unwrap();
        let all = NAMES.iter().filter(|(e, i)| choice.allows(e, i));
        all.map(|(_, identity)| *identity).collect()
    }

    #[test]
    fn engines_are_named_with_and_without_identity() {
        assert_eq!(
            allowed("namespaces"),
            ["real", "range", "recorded", "single"]
        );
        assert_eq!(allowed("namespaces/recorded"), ["recorded"]);
        assert_eq!(allowed("emulation"), ["recorded"]);
        assert!(NAMES.iter().all(|(e, i)| Choice::default().allows(e, i)));
        for unknown in ["", "/", "real", "chroot/single", "docker"] {
            let refused = Choice::from_str(unknown).unwrap_err().to_string();
            assert!(refused.contains("emulation/recorded"), "{refused}");
        }
    }
}
