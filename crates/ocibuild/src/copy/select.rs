//! Which files are meant: wildcards, links, `--parents` and `--exclude`.

use std::sync::Arc;

use super::Error;
use crate::context::ignore::{IgnoreMatcher, Verdict, pattern};
use crate::layer::TreePath;
use crate::snapshot::{Found, RootView};

/// Flags that decide over what a source gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// `--exclude`: patterns as in an ignore file, relative to each directory that is copied.
    pub exclude: Vec<String>,
    /// `--parents`: paths are kept from the root, or from a `/./` in the source.
    pub parents: bool,
}

/// One source that was found.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The name under which it is copied: that of a link, not of its target.
    pub name: Vec<u8>,
    /// What it is, links followed.
    pub root: TreePath,
    filter: Option<Arc<Filter>>,
}

/// What of a directory is copied.
#[derive(Debug)]
struct Filter {
    /// Only what matches, and what is below it.
    include: Option<IgnoreMatcher>,
    /// Not what matches.
    exclude: IgnoreMatcher,
}

/// Finds one source. `../f` and `/f` are `f`; a named link is followed; a wildcard
/// without a match is silently nothing.
pub fn select(source: &str, choice: &Choice, view: &RootView) -> Result<Vec<Selected>, Error> {
    let (place, filter) = split(source, choice, view)?;
    let path = clean(place);
    let mut found = match pattern::is_pattern(place) {
        true => glob(view, &path, place)?
            .iter()
            .map(|path| follow(view, path, place))
            .collect::<Result<_, _>>()?,
        false => vec![follow(view, path.as_bytes(), place)?],
    };
    if let Some(filter) = filter.map(Arc::new) {
        for selected in &mut found {
            selected.filter = Some(filter.clone());
        }
    }
    Ok(found)
}

/// Finds one source that is no pattern.
pub fn select_path(source: &str, view: &RootView) -> Result<Selected, Error> {
    follow(view, clean(source).as_bytes(), source)
}

impl Selected {
    /// Names what is at a path, all of it.
    pub fn whole(name: &[u8], root: TreePath) -> Self {
        Self {
            name: name.to_vec(),
            root,
            filter: None,
        }
    }

    /// Leaves out what matches one of the patterns.
    pub fn without(mut self, exclude: &[String]) -> Result<Self, Error> {
        self.filter = Filter::new(None, exclude)?.map(Arc::new);
        Ok(self)
    }

    /// Gives everything that is selected: a file itself, or what is in a directory. Where
    /// it lies below its source, [`TreePath::below`] of `root` says.
    pub fn entries<'a>(&'a self, view: &'a RootView) -> Box<dyn Iterator<Item = Found<'a>> + 'a> {
        let itself = view.lookup(&self.root);
        if let Some(file) = itself.filter(|found| !found.entry.kind.is_dir()) {
            // Patterns are relative to a directory, so they do not reach a source itself.
            return Box::new(std::iter::once(file));
        }
        let below = view.walk(&self.root);
        match &self.filter {
            Some(filter) => Box::new(filter.apply(&self.root, below).into_iter()),
            None => Box::new(below),
        }
    }
}

/// Splits a source into the place to copy from and what of it is meant.
fn split<'a>(
    source: &'a str,
    choice: &Choice,
    view: &RootView,
) -> Result<(&'a str, Option<Filter>), Error> {
    if !choice.parents {
        return Ok((source, Filter::new(None, &choice.exclude)?));
    }
    let (place, kept) = source.split_once("/./").unwrap_or(("/", source));
    let kept = clean(kept);
    if !pattern::is_pattern(source) {
        let path = TreePath::parse(clean(&format!("{place}/{kept}")));
        let is_there = path.is_ok_and(|path| path.is_root() || view.lookup(&path).is_some());
        if !is_there {
            return Err(not_found(source));
        }
    }
    let include = (!kept.is_empty()).then_some(kept);
    Ok((place, Filter::new(include, &choice.exclude)?))
}

impl Filter {
    /// Gives none where everything is copied.
    fn new(include: Option<String>, exclude: &[String]) -> Result<Option<Self>, Error> {
        if include.is_none() && exclude.is_empty() {
            return Ok(None);
        }
        let include = include.iter().map(String::as_str);
        let include = match include.len() {
            0 => None,
            _ => Some(matcher(include)?),
        };
        Ok(Some(Self {
            include,
            exclude: matcher(exclude.iter().map(String::as_str))?,
        }))
    }

    /// A directory that is not meant itself is given before the first thing below it
    /// that is.
    fn apply<'a>(&self, root: &TreePath, walk: impl Iterator<Item = Found<'a>>) -> Vec<Found<'a>> {
        let mut given = Vec::new();
        let mut open: Vec<OpenDirectory<'a>> = Vec::new();
        for found in walk {
            let path = &found.entry.path;
            open.truncate(
                open.partition_point(|folder| path.starts_with(&folder.found.entry.path)),
            );
            let judged = self.judge(path.below(root), open.last());
            let is_meant = judged.is_meant;
            if is_meant {
                for folder in open.iter_mut().filter(|folder| !folder.judged.is_meant) {
                    folder.judged.is_meant = true;
                    given.push(folder.found);
                }
                given.push(found);
            }
            if found.entry.kind.is_dir() {
                open.push(OpenDirectory { found, judged });
            }
        }
        given
    }

    fn judge(&self, path: &[u8], above: Option<&OpenDirectory<'_>>) -> Judged {
        let text = String::from_utf8_lossy(path);
        let start = Judged::default();
        let above = above.map_or(&start, |folder| &folder.judged);
        let include = match &self.include {
            Some(include) => include.check(&text, &above.include),
            None => Verdict::default(),
        };
        let exclude = self.exclude.check(&text, &above.exclude);
        // A rule of an ignore file matches what it would leave out.
        let is_included = self.include.is_none() || include.is_ignored();
        Judged {
            is_meant: is_included && !exclude.is_ignored(),
            include,
            exclude,
        }
    }
}

/// A directory on the way of a walk.
struct OpenDirectory<'a> {
    found: Found<'a>,
    judged: Judged,
}

#[derive(Default)]
struct Judged {
    is_meant: bool,
    include: Verdict,
    exclude: Verdict,
}

/// Fails if one of the patterns of `--exclude` is none.
pub fn check_exclude<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    matcher(patterns).map(drop)
}

fn matcher<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<IgnoreMatcher, Error> {
    IgnoreMatcher::from_patterns(patterns).map_err(|error| Error::Exclude(error.without_line()))
}

fn not_found(written: &str) -> Error {
    Error::NotFound {
        path: format!("/{}", clean(written)),
    }
}

fn follow(view: &RootView, path: &[u8], written: &str) -> Result<Selected, Error> {
    let resolved = view.resolve(path, true).map_err(|_| not_found(written))?;
    if resolved.missing > 0 || (resolved.found.is_none() && !resolved.path.is_root()) {
        return Err(not_found(written));
    }
    let name = path.rsplit(|&byte| byte == b'/').next();
    Ok(Selected::whole(name.unwrap_or_default(), resolved.path))
}

/// Gives the path from the root without `.`, `..` and empty parts.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Finds what matches a wildcard, part by part: `*` never crosses a slash. A link before
/// the first wildcard is followed, one that a wildcard has found is not, and the one at
/// the end is the caller's.
fn glob(view: &RootView, path: &str, written: &str) -> Result<Vec<Vec<u8>>, Error> {
    let mut found = vec![Vec::new()];
    let mut is_literal = true;
    for part in path.split('/') {
        let mut next = Vec::new();
        for folder in &found {
            next.extend(glob_in(view, folder, part, is_literal, written)?);
        }
        found = next;
        is_literal &= !pattern::is_pattern(part);
    }
    Ok(found)
}

fn glob_in(
    view: &RootView,
    folder: &[u8],
    part: &str,
    follows: bool,
    written: &str,
) -> Result<Vec<Vec<u8>>, Error> {
    let Ok(place) = view.resolve(folder, follows) else {
        return Ok(Vec::new());
    };
    let mut matching = Vec::new();
    for child in view.children(&place.path) {
        let name = child.entry.path.file_name();
        let fits = pattern::matches(part, &String::from_utf8_lossy(name))
            .map_err(|_| Error::Pattern(written.to_owned()))?;
        if fits {
            let mut path = folder.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            matching.push(path);
        }
    }
    Ok(matching)
}
