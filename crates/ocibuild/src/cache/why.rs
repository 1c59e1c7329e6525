//! Why a step was not known: its key is laid beside the nearest one that an earlier build
//! left, and the parts that differ are told. Builds leave for that what their keys were
//! made of (`keys/`), and what became of their steps (`builds/`).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::content::{self, ContentStore};
use crate::graph::key::StepKey;
use crate::graph::parts::{KeyPart, PartValue};
use crate::registry::Digest;

/// The folder of what keys were made of.
const KEYS: &str = "keys";
/// The folder of what became of the steps of builds.
const BUILDS: &str = "builds";
/// How many builds are remembered.
const MOST_BUILDS: usize = 20;
/// How many differences of one part are told.
const TOLD: usize = 5;

/// What a key was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The step as the build showed it, such as `[stage 2/5] RUN make`.
    pub step: String,
    /// When the step was done, in milliseconds since 1970.
    pub made: u64,
    /// The parts.
    pub parts: Vec<KeyPart>,
}

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTrace {
    /// The step as the build showed it.
    pub step: String,
    /// Its key.
    pub key: Digest,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was done, where the build itself has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The store had its result.
    Known,
    /// A cache elsewhere had its result.
    Imported(String),
    /// Another platform of the same build did it.
    Shared,
    /// It was done: nobody had its result.
    Missed,
    /// It was done because the build was told to do every step.
    Forced,
}

/// The steps of one build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildTrace {
    /// When the build began, in milliseconds since 1970.
    pub began: u64,
    /// What became of its steps, in their order.
    pub steps: Vec<StepTrace>,
}

/// Why a step was done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// No earlier step was like it.
    New,
    /// It was known, and its layer has been removed since.
    Removed,
    /// This differs from the nearest earlier step.
    Differs {
        /// That step as its build showed it.
        from: String,
        /// When that was done, in milliseconds since 1970.
        made: u64,
        /// The differences, one text each.
        differences: Vec<String>,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("no earlier step is like it"),
            Self::Removed => f.write_str("it was known, and its layer is no longer in the store"),
            Self::Differs {
                from, differences, ..
            } => write!(f, "unlike {from:?}: {}", differences.join("; ")),
        }
    }
}

/// Remembers what a key was made of; the first that had it counts.
pub(crate) fn remember(
    store: &ContentStore,
    key: &StepKey,
    record: &KeyRecord,
) -> Result<(), content::Error> {
    match self::record(store, key) {
        Some(_) => Ok(()),
        None => store.put_record(KEYS, &key.0, record),
    }
}

/// Gives what a key was made of, where that is known.
pub(crate) fn record(store: &ContentStore, key: &StepKey) -> Option<KeyRecord> {
    store.record(KEYS, &key.0)
}

/// Everything that keys were made of: in the store, and what else is given.
#[derive(Debug, Default)]
pub struct History(BTreeMap<Digest, KeyRecord>);

impl History {
    /// Reads what builds have left in a store.
    pub fn of(store: &ContentStore) -> Self {
        let keys = store.record_names(KEYS);
        let read = |key: Digest| Some((key, store.record(KEYS, &key)?));
        Self(keys.into_iter().filter_map(read).collect())
    }

    /// Adds what a cache elsewhere says; the store's own records count more.
    pub(crate) fn add(&mut self, key: &StepKey, record: &KeyRecord) {
        self.0.entry(key.0).or_insert_with(|| record.clone());
    }

    /// Says why a step that was made of `now` was not known before the time `began`.
    pub fn why(&self, key: &StepKey, now: &KeyRecord, began: u64) -> Why {
        let earlier = || self.0.iter().filter(|(_, record)| record.made < began);
        if earlier().any(|(known, _)| *known == key.0) {
            return Why::Removed;
        }
        let scored = earlier().filter_map(|(_, record)| Some((score(now, record)?, record)));
        let nearest = scored.max_by_key(|(score, record)| (*score, record.made));
        match nearest {
            None => Why::New,
            Some((_, nearest)) => Why::Differs {
                from: nearest.step.clone(),
                made: nearest.made,
                differences: differences(&nearest.parts, &now.parts),
            },
        }
    }

    /// Says why a step of a build was done; none where it was not, or nothing is known of it.
    pub fn why_traced(&self, step: &StepTrace, build: &BuildTrace) -> Option<String> {
        if step.outcome != Outcome::Missed {
            return None;
        }
        let told = || {
            let now = self.0.get(&step.key)?;
            Some(self.why(&StepKey(step.key), now, build.began).to_string())
        };
        step.why.clone().or_else(told)
    }
}

/// Says how alike two steps are; none where they have nothing to do with each other.
fn score(now: &KeyRecord, before: &KeyRecord) -> Option<usize> {
    let find = |name: &str| before.parts.iter().find(|part| part.name == name);
    let equal = |name: &str| {
        let here = now.parts.iter().find(|part| part.name == name);
        here.is_some() && here == find(name)
    };
    if !equal("kind") {
        return None;
    }
    let weight = |name: &str| match name {
        // What the instruction itself says tells the step from its neighbours.
        "argv" | "script" | "dest" | "path" => 8,
        "below" => 4,
        _ => 1,
    };
    let names = now.parts.iter().map(|part| part.name.as_str());
    let same: usize = names.filter(|name| equal(name)).map(weight).sum();
    let same_step = usize::from(now.step == before.step) * 6;
    let says_the_same = ["argv", "dest", "path"].iter().any(|name| equal(name));
    (says_the_same || equal("below") || same_step > 0).then_some(same + same_step)
}

/// Says how two lists of parts differ, one text each.
pub(crate) fn differences(before: &[KeyPart], now: &[KeyPart]) -> Vec<String> {
    let mut told = Vec::new();
    for part in now {
        match before.iter().find(|other| other.name == part.name) {
            Some(other) if other.value == part.value => {}
            Some(other) => told.extend(difference(&part.name, &other.value, &part.value)),
            None => told.push(format!("{} is new", part.name)),
        }
    }
    let gone = before
        .iter()
        .filter(|part| now.iter().all(|other| other.name != part.name));
    told.extend(gone.map(|part| format!("{} is gone", part.name)));
    told
}

fn difference(name: &str, before: &PartValue, now: &PartValue) -> Vec<String> {
    match (before, now) {
        _ if name == "below" => vec!["it stands on other layers".to_owned()],
        (PartValue::Text(before), PartValue::Text(now)) => {
            vec![format!("{name} was {before:?} and is {now:?}")]
        }
        (PartValue::List(before), PartValue::List(now)) => {
            let (before, now) = (before.join(" "), now.join(" "));
            vec![format!("{name} was {before:?} and is {now:?}")]
        }
        (PartValue::Named(before), PartValue::Named(now)) => {
            let noun = match name {
                "env" => "variable",
                _ => "file",
            };
            named(noun, before, now)
        }
        _ => vec![format!("{name} is another")],
    }
}

fn named(
    noun: &str,
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Vec<String> {
    let changed = now
        .iter()
        .filter_map(|(name, value)| match before.get(name) {
            None => Some(format!("{noun} {name} is new")),
            Some(old) if old != value => Some(format!("{noun} {name}: {}", change(old, value))),
            Some(_) => None,
        });
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    let mut all: Vec<String> = changed
        .chain(gone.map(|name| format!("{noun} {name} is gone")))
        .collect();
    let more = all.len().saturating_sub(TOLD);
    all.truncate(TOLD);
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    all
}

/// Says what of `mode owner content` changed; where there are not three, the value did.
fn change(before: &str, now: &str) -> String {
    let fields = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    let (before, now) = (fields(before), fields(now));
    let ([mode, owner, content], [new_mode, new_owner, new_content]) = (&before[..], &now[..])
    else {
        return "another value".to_owned();
    };
    let mut told = Vec::new();
    if mode != new_mode {
        told.push(format!("mode {mode} became {new_mode}"));
    }
    if owner != new_owner {
        told.push(format!("owner {owner} became {new_owner}"));
    }
    if content != new_content {
        told.push("another content".to_owned());
    }
    told.join(", ")
}

/// Remembers a build, and forgets the oldest.
pub(crate) fn remember_build(
    store: &ContentStore,
    trace: &BuildTrace,
) -> Result<(), content::Error> {
    let text = serde_json::to_string(trace).expect("a trace has only string keys");
    let id = Digest::sha256(format!("{text} {}", std::process::id()).as_bytes());
    store.put_record(BUILDS, &id, trace)?;
    let mut all = traces(store);
    while all.len() > MOST_BUILDS {
        let (oldest, _) = all.remove(0);
        store.remove_record(BUILDS, &oldest);
    }
    Ok(())
}

/// Gives the builds that are remembered, the oldest first.
pub fn builds(store: &ContentStore) -> Vec<BuildTrace> {
    traces(store).into_iter().map(|(_, trace)| trace).collect()
}

fn traces(store: &ContentStore) -> Vec<(Digest, BuildTrace)> {
    let names = store.record_names(BUILDS).into_iter();
    let mut all: Vec<(Digest, BuildTrace)> = names
        .filter_map(|name| Some((name, store.record(BUILDS, &name)?)))
        .collect();
    all.sort_by_key(|(_, trace)| trace.began);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::key::KeyBuilder;

    fn record(step: &str, made: u64, fill: impl FnOnce(KeyBuilder) -> KeyBuilder) -> KeyRecord {
        KeyRecord {
            step: step.to_owned(),
            made,
            parts: fill(KeyBuilder::keeping("copy")).into_parts(),
        }
    }

    fn key(text: &str) -> StepKey {
        StepKey(Digest::sha256(text.as_bytes()))
    }

    fn copied(below: &str, content: &str) -> impl FnOnce(KeyBuilder) -> KeyBuilder {
        let file = format!("f\0 644 0 0 {content}");
        let below = below.to_owned();
        move |builder| {
            builder
                .part("below", below)
                .part("dest", "/app/")
                .files("inputs", [file.as_str(), "g\0 644 0 0 same"])
        }
    }

    #[test]
    fn the_nearest_earlier_step_is_compared() {
        let mut history = History::default();
        history.add(
            &key("old"),
            &record("[s 2/2] COPY . /app/", 1, copied("a", "x")),
        );
        history.add(
            &key("new"),
            &record("[s 2/2] COPY . /app/", 2, copied("a", "y")),
        );
        let other = |builder: KeyBuilder| builder.part("below", "a").part("dest", "/other/");
        history.add(&key("other"), &record("[s 1/2] COPY h /other/", 3, other));
        let now = record("[s 2/2] COPY . /app/", 10, copied("a", "z"));
        let why = history.why(&key("now"), &now, 10);
        let Why::Differs {
            made, differences, ..
        } = &why
        else {
            panic!("{why}");
        };
        assert_eq!(
            (*made, differences.as_slice()),
            (2, &["file f: another content".to_owned()][..])
        );
        // What came later is not earlier.
        let first = history.why(&key("now"), &now, 1);
        assert_eq!(first, Why::New);
        assert_eq!(history.why(&key("old"), &now, 10), Why::Removed);
    }

    #[test]
    fn every_difference_is_named() {
        let before = KeyBuilder::keeping("run")
            .part("cwd", "/")
            .list("argv", ["sh", "-c", "make"])
            .variables("env", ["A", "1", "B", "2"])
            .files("inputs", ["f\0 644 0 0 c", "gone\0 644 0 0 c"])
            .into_parts();
        let now = KeyBuilder::keeping("run")
            .part("cwd", "/w")
            .list("argv", ["sh", "-c", "make all"])
            .variables("env", ["A", "3", "C", "2"])
            .files("inputs", ["f\0 755 5 0 c", "new\0 644 0 0 c"])
            .into_parts();
        assert_eq!(
            differences(&before, &now),
            [
                "cwd was \"/\" and is \"/w\"",
                "argv was \"sh -c make\" and is \"sh -c make all\"",
                "variable A: another value",
                "variable C is new",
                "variable B is gone",
                "file f: mode 0644 became 0755, owner 0:0 became 5:0",
                "file new is new",
                "file gone is gone",
            ]
        );
    }
}
