//! `--chmod`: an octal mode, or changes as chmod(1) takes them. The odd corners are those
//! of BSD's setmode(3), which the reference builder uses: `X` looks at the mode before any
//! change, `=` takes set-id bits away too, and no umask takes part.

use super::Error;

const SET_IDS: u32 = 0o6000;
const STICKY: u32 = 0o1000;
const EXECUTE: u32 = 0o111;
const EVERYONE: u32 = 0o777;
/// What `a`, and a clause without anybody, stand for.
const STANDARD: u32 = SET_IDS | EVERYONE;

/// The mode that copied files get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Exactly this: twelve bits.
    Octal(u32),
    /// What they had, changed.
    Symbolic(Vec<Change>),
}

/// One operator of a symbolic mode and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The bits of those whose permissions change.
    who: u32,
    operator: Operator,
    bits: u32,
    /// `X`.
    execute_if_any: bool,
    /// Classes whose permissions are copied, as the place of their bits.
    copied: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

impl Mode {
    /// Reads `--chmod`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = || Error::Mode(text.to_owned());
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let is_octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
            let mode = u32::from_str_radix(text, 8).ok();
            let mode = mode.filter(|mode| is_octal && *mode <= 0o7777);
            return mode.map(Self::Octal).ok_or_else(invalid);
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut changes).ok_or_else(invalid)?;
        }
        Ok(Self::Symbolic(changes))
    }

    /// Gives the mode of something that had `mode`.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(changes) => {
                let may_execute = is_directory || mode & EXECUTE != 0;
                let change = |mode, change: &Change| change.apply(mode, may_execute);
                changes.iter().fold(mode, change)
            }
        }
    }
}

impl Change {
    fn apply(&self, mode: u32, may_execute: bool) -> u32 {
        let mut bits = self.bits;
        if self.execute_if_any && may_execute {
            bits |= EXECUTE & self.who;
        }
        for place in &self.copied {
            bits |= (((mode >> place) & 7) * EXECUTE) & self.who;
        }
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            Operator::Set => mode & !self.cleared() | bits,
        }
    }

    /// A copy replaces permissions only; everything else replaces set-id bits too.
    fn cleared(&self) -> u32 {
        let is_copy = !self.copied.is_empty() && self.bits == 0 && !self.execute_if_any;
        match is_copy {
            true => self.who & EVERYONE,
            false => self.who,
        }
    }
}

/// Reads `[ugoa…]` and one or more operators with their permissions.
fn parse_clause(clause: &str, changes: &mut Vec<Change>) -> Option<()> {
    let people = clause.len() - clause.trim_start_matches(['u', 'g', 'o', 'a']).len();
    let (people, mut rest) = clause.split_at(people);
    let who = people.chars().fold(0, |who, class| {
        who | match class {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o007,
            _ => STANDARD,
        }
    });
    loop {
        let operator = match rest.chars().next()? {
            '+' => Operator::Add,
            '-' => Operator::Remove,
            '=' => Operator::Set,
            _ => return None,
        };
        rest = &rest[1..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        changes.push(Change::parse(who, operator, &rest[..end])?);
        rest = &rest[end..];
        if rest.is_empty() {
            return Some(());
        }
    }
}

impl Change {
    fn parse(who: u32, operator: Operator, permissions: &str) -> Option<Self> {
        // Set-id and sticky bits mean nothing for others alone.
        let others_only = who != 0 && who & !0o007 == 0;
        let mut change = Self {
            who: if who == 0 { STANDARD } else { who },
            operator,
            bits: 0,
            execute_if_any: false,
            copied: Vec::new(),
        };
        for permission in permissions.chars() {
            match permission {
                'r' => change.bits |= 0o444,
                'w' => change.bits |= 0o222,
                'x' => change.bits |= EXECUTE,
                'X' => change.execute_if_any = operator != Operator::Remove,
                's' if !others_only => change.bits |= SET_IDS,
                't' if !others_only => {
                    change.who |= STICKY;
                    change.bits |= STICKY;
                }
                's' | 't' => {}
                'u' => change.copied.push(6),
                'g' => change.copied.push(3),
                'o' => change.copied.push(0),
                _ => return None,
            }
        }
        change.bits &= change.who;
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b48_symbolic_modes_change_what_was_there() {
        for (text, file, directory) in [
            ("u=rwX,go=rX", (0o600, 0o644), (0o700, 0o755)),
            ("u=rwX,go=rX", (0o700, 0o755), (0o000, 0o755)),
            ("+x", (0o644, 0o755), (0o644, 0o755)),
            ("a+X", (0o644, 0o644), (0o644, 0o755)),
            ("u+x,g+X", (0o600, 0o700), (0o600, 0o710)),
            ("go-rwx", (0o755, 0o700), (0o755, 0o700)),
            ("go=", (0o755, 0o700), (0o755, 0o700)),
            ("g=u", (0o640, 0o660), (0o2750, 0o2770)),
            ("g=u,o=g", (0o700, 0o777), (0o700, 0o777)),
            ("go=u-w", (0o700, 0o755), (0o750, 0o755)),
            ("u+s", (0o755, 0o4755), (0o755, 0o4755)),
            ("g+s", (0o755, 0o2755), (0o755, 0o2755)),
            ("o+s", (0o755, 0o755), (0o755, 0o755)),
            ("+t", (0o755, 0o1755), (0o777, 0o1777)),
            ("=", (0o6755, 0), (0o6755, 0)),
            ("u=rw", (0o4755, 0o655), (0o4755, 0o655)),
            ("a-s", (0o6755, 0o755), (0o6755, 0o755)),
            ("u-X", (0o755, 0o755), (0o755, 0o755)),
            ("0640", (0o4755, 0o640), (0o755, 0o640)),
            ("7777", (0, 0o7777), (0, 0o7777)),
        ] {
            let mode = Mode::parse(text).unwrap();
            assert_eq!(mode.apply(file.0, false), file.1, "{text} of a file");
            assert_eq!(
                mode.apply(directory.0, true),
                directory.1,
                "{text} of a directory"
            );
        }
    }

    #[test]
    fn b48_what_is_no_mode_is_refused() {
        for text in [
            "",
            "8",
            "99",
            "10000",
            "77777777777777",
            "0o644",
            "-1",
            "u",
            "rwx",
            "u=rwz",
            "u=r,",
            ",u=r",
            "u=r;g=r",
            "x+r",
            "u=ä",
            "77x",
        ] {
            assert!(Mode::parse(text).is_err(), "{text:?}");
        }
    }
}
