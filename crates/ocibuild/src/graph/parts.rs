//! The parts of a cache key in a form that can be kept and compared, so that a miss can
//! say why. What may be secret is there as a digest only.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::registry::{Digest, Hasher};

/// More entries than this are told apart by their directories only.
const MOST_ENTRIES: usize = 2000;
/// Their directories have at most so many components.
const MOST_LEVELS: usize = 6;
/// Longer texts are cut, and told apart by their digests.
const LONGEST: usize = 300;

/// One named part of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// Its name.
    pub name: String,
    /// Its value, one text or several.
    pub value: PartValue,
}

/// The value of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartValue {
    /// A text.
    Text(String),
    /// Texts in their order.
    List(Vec<String>),
    /// Names with what they stand for: a short digest of a value, or mode, owner and
    /// short digest of a file.
    Named(BTreeMap<String, String>),
}

impl PartValue {
    pub(super) fn text(bytes: &[u8]) -> Self {
        Self::Text(shortened(bytes))
    }

    pub(super) fn list<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for (index, value) in values.enumerate() {
            match index {
                0..MOST_ENTRIES => texts.push(shortened(value)),
                _ => {
                    // The last text stands for itself and all that follow.
                    let rest = texts.pop().unwrap_or_default();
                    let both = [rest.as_bytes(), value].concat();
                    texts.push(format!("… {}", short_digest(&both)));
                }
            }
        }
        Self::List(texts)
    }

    /// Names and values that may be secret: `NAME, value, NAME, value, …`.
    pub(super) fn variables<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut named = BTreeMap::new();
        let mut values = values;
        while let Some(name) = values.next() {
            let value = short_digest(values.next().unwrap_or_default());
            named.insert(shortened(name), value);
        }
        Self::Named(named)
    }

    /// Files as the keys of copies have them: a path, a zero byte, mode and owner, content.
    /// An entry without a zero byte is the name of a source.
    pub(super) fn files<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut named = BTreeMap::new();
        let mut source = String::new();
        for value in values {
            let Some(end) = value.iter().position(|byte| *byte == 0) else {
                source = shortened(value);
                named.insert(source.clone(), "source".to_owned());
                continue;
            };
            let path = String::from_utf8_lossy(&value[..end]);
            let name = match (source.is_empty(), path.is_empty()) {
                (true, _) => path.into_owned(),
                (false, true) => source.clone(),
                (false, false) => format!("{source}/{path}"),
            };
            let name = shortened(name.as_bytes());
            named.insert(name, attributes(&value[end + 1..]));
        }
        Self::Named(fewer(named))
    }
}

/// `0644 0:0 1a2b3c4d` of ` 644 0 0 <content>`.
fn attributes(rest: &[u8]) -> String {
    let mut fields = rest.splitn(5, |byte| *byte == b' ');
    fields.next();
    let mut field = || String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
    let (mode, uid, gid) = (field(), field(), field());
    let content = short_digest(fields.next().unwrap_or_default());
    format!("{mode:0>4} {uid}:{gid} {content}")
}

/// Joins entries that are too many into one for each directory, of as many levels as fit.
fn fewer(named: BTreeMap<String, String>) -> BTreeMap<String, String> {
    if named.len() <= MOST_ENTRIES {
        return named;
    }
    let fits = |levels: &usize| {
        let folders = named.keys().map(|name| folder(name, *levels));
        folders.collect::<HashSet<&str>>().len() <= MOST_ENTRIES
    };
    let levels = (1..=MOST_LEVELS).rev().find(fits);
    let mut groups: BTreeMap<&str, (usize, Hasher)> = BTreeMap::new();
    for (name, value) in &named {
        let group = levels.map_or("all", |levels| folder(name, levels));
        let (count, hasher) = groups.entry(group).or_insert((0, Hasher::sha256()));
        *count += 1;
        for part in [name, "\0", value, "\0"] {
            hasher.update(part.as_bytes());
        }
    }
    let told = groups.into_iter().map(|(name, (count, hasher))| {
        let digest = short(&hasher.finish());
        (name.to_owned(), format!("{count} entries {digest}"))
    });
    told.collect()
}

/// Gives the first components of a name.
fn folder(name: &str, levels: usize) -> &str {
    let mut slashes = name.match_indices('/');
    let end = slashes.nth(levels - 1);
    &name[..end.map_or(name.len(), |(at, _)| at)]
}

fn shortened(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.len() <= LONGEST {
        return text.into_owned();
    }
    let cut: String = text.chars().take(LONGEST / 4).collect();
    format!("{cut}… ({} bytes, {})", bytes.len(), short_digest(bytes))
}

fn short_digest(bytes: &[u8]) -> String {
    short(&Digest::sha256(bytes))
}

fn short(digest: &Digest) -> String {
    hex::encode(&digest.as_bytes()[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(value: &PartValue) -> &BTreeMap<String, String> {
        match value {
            PartValue::Named(named) => named,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_of_variables_are_not_kept() {
        let values = ["TOKEN", "hidden", "B", "", "C"].map(str::as_bytes);
        let part = PartValue::variables(values.into_iter());
        let named = named(&part);
        assert_eq!(named.keys().collect::<Vec<_>>(), ["B", "C", "TOKEN"]);
        assert!(!format!("{part:?}").contains("hidden"));
        let other = ["TOKEN", "hidden2"].map(str::as_bytes);
        let PartValue::Named(other) = PartValue::variables(other.into_iter()) else {
            panic!("variables are named");
        };
        assert_ne!(named["TOKEN"], other["TOKEN"]);
    }

    #[test]
    fn files_have_mode_owner_and_content() {
        let values: [&[u8]; 3] = [b"src", b"a/b\0 644 1 2 x", b"\0 755 0 0 Dir"];
        let part = PartValue::files(values.into_iter());
        let named = named(&part);
        let x = short_digest(b"x");
        assert_eq!(named["src/a/b"], format!("0644 1:2 {x}"));
        assert!(named["src"].starts_with("0755 0:0 "));
    }

    #[test]
    fn very_many_files_are_told_by_directory() {
        let all = |changed: usize| {
            let texts: Vec<Vec<u8>> = (0..9000)
                .map(|n| {
                    let content = u8::from(n == changed);
                    format!("d{}/e{}/f{n}\0 644 0 0 {content}", n % 10, n % 700).into_bytes()
                })
                .collect();
            PartValue::files(texts.iter().map(Vec::as_slice))
        };
        let (one, other) = (all(0), all(1));
        let (one, other) = (named(&one), named(&other));
        assert!(one.len() <= MOST_ENTRIES && one.len() > 10);
        let differ: Vec<&String> = one
            .keys()
            .filter(|name| one[*name] != other[*name])
            .collect();
        assert_eq!(differ, ["d0/e0", "d1/e1"]);
    }

    #[test]
    fn long_texts_are_cut_and_still_differ() {
        let text = |end: &str| PartValue::text(format!("{}{end}", "x".repeat(5000)).as_bytes());
        assert_ne!(text("a"), text("b"));
        let many = |end: &'static [u8]| {
            let values = std::iter::repeat_n(&b"x"[..], MOST_ENTRIES + 5);
            PartValue::list(values.chain([end]))
        };
        assert_ne!(many(b"a"), many(b"b"));
        assert!(matches!(many(b"a"), PartValue::List(texts) if texts.len() == MOST_ENTRIES));
    }
}
