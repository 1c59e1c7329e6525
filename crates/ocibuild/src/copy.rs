//! COPY and ADD: which files are meant, and where they come to stand. Pure over two
//! merged views; nothing is read or unpacked here.
//!
//! [`select`] finds the sources (and is all that a cache key needs); [`place`] lays
//! them over the root file system of the stage and gives the entries of the layer.
//! What the reference builder does in the odd cases is pinned by the tests.

use std::collections::{BTreeMap, HashMap};

use crate::context::ignore::pattern;
use crate::layer::{Content, Entry, Kind, TreePath};
use crate::registry::Digest;
use crate::snapshot::RootView;

/// What went wrong with a copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A source that is named does not exist.
    #[error("{path:?}: not found{}", .hint.as_deref().unwrap_or(""))]
    NotFound {
        /// As it was written.
        path: String,
        /// Why it may be missing.
        hint: Option<String>,
    },
    /// A wildcard is not one.
    #[error("invalid pattern {0:?}")]
    Pattern(String),
    /// A directory would have to replace a file.
    #[error("cannot copy a directory to {0:?}: it is not a directory")]
    NotADirectory(String),
    /// A file would have to replace a directory.
    #[error("cannot replace the directory {0:?} with a file")]
    IsADirectory(String),
    /// A path of the destination leads through too many links.
    #[error("cannot follow the links in the destination {0:?}")]
    Links(String),
    /// An owner that cannot be found.
    #[error("invalid owner {0:?}: {1}")]
    Owner(String, &'static str),
    /// A mode that is none.
    #[error("invalid mode {0:?}: want an octal number of at most 7777")]
    Mode(String),
}

/// A file whose content stands in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// Its name.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// User and group ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Where copied files go, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Absolute path as text; a slash or `.` at its end means "into this directory".
    pub path: String,
    /// `--chown`.
    pub owner: Option<Owner>,
    /// `--chmod`, octal.
    pub mode: Option<u32>,
}

/// One source that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The name under which it is copied: that of a link, not of its target.
    pub name: Vec<u8>,
    /// What it is, links followed.
    pub root: TreePath,
}

/// Finds the sources. `../f` and `/f` are `f`; a named link is followed; a wildcard
/// without a match is silently nothing.
pub fn select(sources: &[String], view: &RootView) -> Result<Vec<Selected>, Error> {
    let mut selected = Vec::new();
    for source in sources {
        let path = clean(source);
        if pattern::is_pattern(source) {
            for found in glob(view, &path, source)? {
                selected.push(follow(view, &found, source)?);
            }
        } else {
            selected.push(follow(view, path.as_bytes(), source)?);
        }
    }
    Ok(selected)
}

/// Gives everything that is selected, each with its path below its source: a file
/// itself, or what is in a directory.
pub fn selected_entries<'a>(
    view: &'a RootView,
    selected: &'a Selected,
) -> impl Iterator<Item = (TreePath, &'a Entry)> {
    let itself = view
        .lookup(&selected.root)
        .filter(|found| !found.entry.kind.is_dir())
        .map(|found| (TreePath::root(), found.entry));
    let below = view.walk(&selected.root).map(|found| {
        let path = found.entry.path.relative_to(&selected.root);
        (path, found.entry)
    });
    itself.into_iter().chain(below)
}

/// Finds one source that is no pattern.
pub fn select_path(source: &str, view: &RootView) -> Result<Selected, Error> {
    follow(view, clean(source).as_bytes(), source)
}

fn follow(view: &RootView, path: &[u8], written: &str) -> Result<Selected, Error> {
    let not_found = || Error::NotFound {
        path: format!("/{}", clean(written)),
        hint: None,
    };
    let resolved = view.resolve(path, true).map_err(|_| not_found())?;
    if resolved.missing > 0 || (resolved.found.is_none() && !resolved.path.is_root()) {
        return Err(not_found());
    }
    let name = path.rsplit(|&byte| byte == b'/').next();
    Ok(Selected {
        name: name.unwrap_or_default().to_vec(),
        root: resolved.path,
    })
}

/// Gives the path from the root without `.`, `..` and empty parts.
fn clean(path: &str) -> String {
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

/// Finds what matches a wildcard, part by part: `*` never crosses a slash. A link on
/// the way is followed, the one at the end is the caller's.
fn glob(view: &RootView, path: &str, written: &str) -> Result<Vec<Vec<u8>>, Error> {
    let mut found = vec![Vec::new()];
    for part in path.split('/') {
        let mut next = Vec::new();
        for folder in &found {
            next.extend(glob_in(view, folder, part, written)?);
        }
        found = next;
    }
    Ok(found)
}

fn glob_in(
    view: &RootView,
    folder: &[u8],
    part: &str,
    written: &str,
) -> Result<Vec<Vec<u8>>, Error> {
    let Ok(place) = view.resolve(folder, true) else {
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

/// What an entry of the layer is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bytes {
    /// A file of the source view.
    Source(TreePath),
    /// A file whose content stands in the Dockerfile, by its index.
    Inline(usize),
    /// Everything is in the entry: a directory, link or device.
    None,
}

/// Where an entry of the layer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlacedFrom {
    /// It is copied, with its time.
    Source,
    /// A directory of the stage that something was put below; it keeps its time.
    Base,
    /// A directory that was missing.
    Made,
    /// The Dockerfile has its content.
    Dockerfile,
}

/// One entry of the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Type and metadata; the digest of a file is not set.
    pub entry: Entry,
    /// How it comes to its time.
    pub origin: PlacedFrom,
    /// Where its bytes are.
    pub bytes: Bytes,
}

/// The entries of a layer, in the order of the tar.
pub type Placement = BTreeMap<TreePath, Placed>;

/// Lays sources and inline files over `base`.
pub fn place(
    source: &RootView,
    selected: &[Selected],
    inline: &[InlineFile],
    base: &RootView,
    dest: &Destination,
) -> Result<Placement, Error> {
    let mut placing = Placing {
        base,
        dest,
        placed: Placement::new(),
    };
    let target = placing.target()?;
    let into = is_into(&dest.path);
    for one in selected {
        placing.source(source, one, &target, into)?;
    }
    for (index, file) in inline.iter().enumerate() {
        placing.inline(index, file, &target, into)?;
    }
    placing.finish();
    Ok(placing.placed)
}

fn is_into(path: &str) -> bool {
    path.ends_with('/') || path == "." || path.ends_with("/.")
}

struct Placing<'a> {
    base: &'a RootView,
    dest: &'a Destination,
    placed: Placement,
}

impl Placing<'_> {
    /// Gives the destination with every link on the way followed, the last one too.
    fn target(&self) -> Result<TreePath, Error> {
        let resolved = self.base.resolve(clean(&self.dest.path), true);
        let links = |_| Error::Links(self.dest.path.clone());
        Ok(resolved.map_err(links)?.path)
    }

    fn source(
        &mut self,
        view: &RootView,
        selected: &Selected,
        target: &TreePath,
        into: bool,
    ) -> Result<(), Error> {
        let entry = match view.lookup(&selected.root) {
            Some(found) if !found.entry.kind.is_dir() => found.entry,
            _ => return self.folder(view, selected, target),
        };
        let at = self.file_target(target, &selected.name, into)?;
        self.put(view, &selected.root, entry, at, &mut HashMap::new())
    }

    /// A directory gives its contents, not itself.
    fn folder(
        &mut self,
        view: &RootView,
        selected: &Selected,
        target: &TreePath,
    ) -> Result<(), Error> {
        self.make_folders(target)?;
        let mut links = HashMap::new();
        for (below, entry) in selected_entries(view, selected) {
            let from = selected.root.join_path(&below);
            self.put(view, &from, entry, target.join_path(&below), &mut links)?;
        }
        Ok(())
    }

    fn inline(
        &mut self,
        index: usize,
        file: &InlineFile,
        target: &TreePath,
        into: bool,
    ) -> Result<(), Error> {
        let at = self.file_target(target, file.name.as_bytes(), into)?;
        let entry = Entry {
            path: at.clone(),
            kind: Kind::File(Content {
                size: file.content.len() as u64,
                digest: Digest::sha256(&file.content),
            }),
            mode: 0o644,
            ..Entry::dir(at.clone())
        };
        self.insert(at, entry, Bytes::Inline(index))
    }

    /// A file goes into the destination where that is, or is meant as, a directory.
    fn file_target(
        &mut self,
        target: &TreePath,
        name: &[u8],
        into: bool,
    ) -> Result<TreePath, Error> {
        let at = if into || self.is_folder(target) {
            target
                .join(name)
                .map_err(|_| Error::IsADirectory(show(target)))?
        } else {
            target.clone()
        };
        if let Some(parent) = at.parent() {
            self.make_folders(&parent)?;
        }
        Ok(at)
    }

    fn put(
        &mut self,
        view: &RootView,
        from: &TreePath,
        entry: &Entry,
        at: TreePath,
        links: &mut HashMap<(usize, TreePath), TreePath>,
    ) -> Result<(), Error> {
        let Some(content) = view.content_of(from) else {
            return self.insert(at, entry.clone(), Bytes::None);
        };
        // Names that were one file in the source stay one file.
        let identity = (content.layer, content.path);
        if let Some(first) = links.get(&identity) {
            let mut link = entry.clone();
            link.kind = Kind::Hardlink {
                target: first.clone(),
            };
            return self.insert(at, link, Bytes::None);
        }
        links.insert(identity, at.clone());
        let mut file = entry.clone();
        file.kind = Kind::File(content.content);
        self.insert(at, file, Bytes::Source(from.clone()))
    }

    fn insert(&mut self, at: TreePath, mut entry: Entry, bytes: Bytes) -> Result<(), Error> {
        let is_folder = matches!(entry.kind, Kind::Dir);
        match self.kind_at(&at) {
            Some(Kind::Dir) if !is_folder => return Err(Error::IsADirectory(show(&at))),
            Some(Kind::Dir) | None => {}
            Some(_) if is_folder => return Err(Error::NotADirectory(show(&at))),
            Some(_) => {}
        }
        entry.path = at.clone();
        self.own(&mut entry);
        let placed = Placed {
            entry,
            origin: match bytes {
                Bytes::Inline(_) => PlacedFrom::Dockerfile,
                Bytes::Source(_) | Bytes::None => PlacedFrom::Source,
            },
            bytes,
        };
        self.placed.insert(at, placed);
        Ok(())
    }

    fn own(&self, entry: &mut Entry) {
        if let Some(owner) = self.dest.owner {
            entry.uid = owner.uid;
            entry.gid = owner.gid;
        }
        if let (Some(mode), false) = (self.dest.mode, matches!(entry.kind, Kind::Symlink { .. })) {
            entry.mode = mode;
        }
    }

    /// Makes what is missing of a path, with the owner and mode that were asked for.
    fn make_folders(&mut self, path: &TreePath) -> Result<(), Error> {
        for folder in path.ancestors().chain([path.clone()]) {
            match self.kind_at(&folder) {
                Some(Kind::Dir) => continue,
                Some(_) => return Err(Error::NotADirectory(show(&folder))),
                None => {}
            }
            let mut entry = Entry::dir(folder.clone());
            self.own(&mut entry);
            let placed = Placed {
                entry,
                origin: PlacedFrom::Made,
                bytes: Bytes::None,
            };
            self.placed.insert(folder, placed);
        }
        Ok(())
    }

    /// Adds the existing directories above everything that was placed.
    fn finish(&mut self) {
        let mut parents = Placement::new();
        for path in self.placed.keys() {
            let mut above = path.parent();
            while let Some(folder) = above.filter(|folder| !folder.is_root()) {
                if self.placed.contains_key(&folder) || parents.contains_key(&folder) {
                    break;
                }
                if let Some(found) = self.base.lookup(&folder) {
                    let placed = Placed {
                        entry: found.entry.clone(),
                        origin: PlacedFrom::Base,
                        bytes: Bytes::None,
                    };
                    parents.insert(folder.clone(), placed);
                }
                above = folder.parent();
            }
        }
        self.placed.append(&mut parents);
    }

    fn is_folder(&self, path: &TreePath) -> bool {
        matches!(self.kind_at(path), Some(Kind::Dir))
    }

    fn kind_at(&self, path: &TreePath) -> Option<Kind<Content>> {
        if path.is_root() {
            return Some(Kind::Dir);
        }
        match self.placed.get(path) {
            Some(placed) => Some(placed.entry.kind.clone()),
            None => self.base.lookup(path).map(|found| found.entry.kind.clone()),
        }
    }
}

fn show(path: &TreePath) -> String {
    path.to_string()
}

/// Reads `--chown`: `user[:group]`, each a name or a number. Names are looked up in
/// the stage; a number alone is user and group; an unknown name is 0, as the reference
/// builder has it; without an account file a name is an error.
pub fn parse_owner(text: &str, view: &RootView) -> Result<Owner, Error> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let accounts = view.accounts();
    let (uid, primary) = match (user.parse::<u32>(), user) {
        (Ok(uid), _) => (uid, uid),
        (_, "" | "root") => (0, 0),
        (Err(_), name) => match accounts.user(name) {
            Some(user) => (user.uid, user.gid),
            None if has_file(view, "etc/passwd") => (0, 0),
            None => {
                return Err(Error::Owner(
                    text.to_owned(),
                    "the stage has no /etc/passwd",
                ));
            }
        },
    };
    let gid = match group {
        None | Some("") => primary,
        Some(group) => match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) if group == "root" => 0,
            Err(_) => match accounts.group(group) {
                Some(group) => group.gid,
                None if has_file(view, "etc/group") => primary,
                None => return Err(Error::Owner(text.to_owned(), "the stage has no /etc/group")),
            },
        },
    };
    Ok(Owner { uid, gid })
}

fn has_file(view: &RootView, path: &str) -> bool {
    view.resolve(path, true)
        .is_ok_and(|place| place.found.is_some())
}

/// Makes what is missing of a directory, for WORKDIR; nothing where it is there.
pub fn place_folder(base: &RootView, path: &str, owner: Owner) -> Result<Placement, Error> {
    let dest = Destination {
        path: path.to_owned(),
        owner: Some(owner),
        mode: None,
    };
    let mut placing = Placing {
        base,
        dest: &dest,
        placed: Placement::new(),
    };
    let target = placing.target()?;
    placing.make_folders(&target)?;
    placing.finish();
    Ok(placing.placed)
}

/// Reads `--chmod`.
pub fn parse_mode(text: &str) -> Result<u32, Error> {
    let invalid = || Error::Mode(text.to_owned());
    let is_octal = !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    if !is_octal {
        return Err(invalid());
    }
    let mode = u32::from_str_radix(text, 8).map_err(|_| invalid())?;
    if mode > 0o7777 {
        return Err(invalid());
    }
    Ok(mode)
}
