//! Layers, one over the other, as the file system that a container would see.
//!
//! Only tables of contents are looked at. Whiteouts, opaque directories and entries
//! that replace one of another type hide what is below (OCI image-spec, layer.md,
//! "Applying Changesets"); symbolic links are followed inside the root and never out of it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::Error;
use crate::layer::{Content, Entry, Kind, Toc, TreePath, names};

/// Symbolic links that may stand on the way to one place.
const MAX_LINKS: usize = 255;

/// A root file system made of layers.
#[derive(Debug, Clone)]
pub struct RootView {
    layers: Vec<Arc<Toc>>,
}

/// What is visible at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// Index of the layer that it comes from, 0 is the lowest.
    pub layer: usize,
    /// The entry.
    pub entry: &'a Entry,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentPlace {
    /// Index of the layer.
    pub layer: usize,
    /// The path of the file in that layer: of the file itself where a hard link was asked for.
    pub path: TreePath,
    /// Size and digest.
    pub content: Content,
}

/// The place that a path means after its symbolic links have been followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// The place; no directory above it is a symbolic link.
    pub path: TreePath,
    /// How many of the last components are not there.
    pub missing: usize,
    /// What is there; `None` where something is missing or the place is a bare root.
    pub found: Option<Found<'a>>,
}

/// A visible entry and the layers that may have something below it, highest first.
#[derive(Debug, Clone)]
struct Node<'a> {
    found: Option<Found<'a>>,
    live: Vec<usize>,
}

/// What is still to come of a directory on the way of a walk.
enum Below<'a> {
    /// No other layer has anything there: all that the layer has below it.
    OneLayer(usize, std::slice::Iter<'a, Entry>),
    /// What is directly in it.
    Nodes(std::vec::IntoIter<Node<'a>>),
}

impl RootView {
    /// Lays layers one over the other, lowest first.
    pub fn new(layers: &[Arc<Toc>]) -> Self {
        Self {
            layers: layers.to_vec(),
        }
    }

    /// Lays one more layer on top.
    pub fn with(&self, layer: Arc<Toc>) -> Self {
        let mut layers = self.layers.clone();
        layers.push(layer);
        Self { layers }
    }

    /// Gives the layers, lowest first.
    pub fn layers(&self) -> &[Arc<Toc>] {
        &self.layers
    }

    /// Finds what is visible at a path, following no symbolic link. The root is found
    /// where there is a layer at all.
    pub fn lookup(&self, path: &TreePath) -> Option<Found<'_>> {
        // Nothing covers what the highest layer has.
        if let Some((highest, below)) = self.layers.split_last()
            && let Some(entry) = highest.get(path).filter(|entry| !entry.implicit)
        {
            let layer = below.len();
            return Some(Found { layer, entry });
        }
        self.node(path).and_then(|node| node.found)
    }

    /// Gives what is visible directly in a directory, sorted by name.
    pub fn children(&self, path: &TreePath) -> Vec<Found<'_>> {
        let node = self.node(path);
        let nodes = node.map(|node| self.nodes_in(path, &node.live));
        nodes
            .into_iter()
            .flatten()
            .filter_map(|node| node.found)
            .collect()
    }

    /// Goes through everything visible below a directory, in walk order.
    pub fn walk(&self, path: &TreePath) -> impl Iterator<Item = Found<'_>> {
        let node = self.node(path);
        let mut stack: Vec<Below<'_>> = node
            .map(|node| self.everything_below(path, &node.live))
            .into_iter()
            .collect();
        std::iter::from_fn(move || {
            loop {
                let node = match stack.last_mut()? {
                    Below::OneLayer(layer, entries) => match entries.next() {
                        Some(entry) => {
                            let layer = *layer;
                            return Some(Found { layer, entry });
                        }
                        None => None,
                    },
                    Below::Nodes(nodes) => nodes.next(),
                };
                let Some(node) = node else {
                    stack.pop();
                    continue;
                };
                if let Some(found) = node.found.filter(|found| found.entry.kind.is_dir()) {
                    stack.push(self.everything_below(&found.entry.path, &node.live));
                }
                return node.found;
            }
        })
    }

    fn everything_below(&self, path: &TreePath, live: &[usize]) -> Below<'_> {
        match live {
            [layer] => {
                let entries = self.layers.get(*layer).map(|toc| toc.below(path));
                Below::OneLayer(*layer, entries.unwrap_or_default().iter())
            }
            _ => Below::Nodes(self.nodes_in(path, live).into_iter()),
        }
    }

    /// Finds the bytes of the file at a path; follows hard links and no symbolic one.
    pub fn content_of(&self, path: &TreePath) -> Option<ContentPlace> {
        self.content(self.lookup(path)?)
    }

    /// Finds the bytes of a file that was found; follows hard links and no symbolic one.
    pub fn content(&self, Found { layer, entry }: Found<'_>) -> Option<ContentPlace> {
        let file = match &entry.kind {
            Kind::Hardlink { target } => self.layers.get(layer)?.get(target)?,
            _ => entry,
        };
        match file.kind {
            Kind::File(content) => Some(ContentPlace {
                layer,
                path: file.path.clone(),
                content,
            }),
            _ => None,
        }
    }

    /// Finds the place that a path means: symbolic links are followed, the last
    /// component's only if `follow_last` or a slash at the end says so; absolute links
    /// begin at the root and `..` does not leave it. Components that are not there are
    /// taken as they stand.
    pub fn resolve(
        &self,
        path: impl AsRef<[u8]>,
        follow_last: bool,
    ) -> Result<Resolved<'_>, Error> {
        Resolver {
            view: self,
            path: path.as_ref(),
            todo: names(path.as_ref()).map(<[u8]>::to_vec).collect(),
            nodes: vec![(TreePath::root(), self.root())],
            missing: Vec::new(),
            links: 0,
        }
        .run(follow_last || path.as_ref().ends_with(b"/"))
    }

    /// Gives the text of a file, if it is an account file whose text its layer keeps.
    pub fn account_file(&self, place: &ContentPlace) -> Option<&[u8]> {
        let layer = self.layers.get(place.layer)?;
        layer.accounts().get(&place.path)
    }

    fn root(&self) -> Node<'_> {
        let all: Vec<usize> = (0..self.layers.len()).rev().collect();
        self.step(&all, &TreePath::root()).unwrap_or(Node {
            found: None,
            live: Vec::new(),
        })
    }

    fn node(&self, path: &TreePath) -> Option<Node<'_>> {
        let above = path.ancestors().skip(1).chain([path.clone()]);
        above
            .filter(|path| !path.is_root())
            .try_fold(self.root(), |node, path| self.step(&node.live, &path))
    }

    fn nodes_in(&self, path: &TreePath, live: &[usize]) -> Vec<Node<'_>> {
        let tocs = live.iter().filter_map(|&layer| self.layers.get(layer));
        let paths: BTreeSet<&TreePath> = tocs
            .flat_map(|toc| toc.children(path))
            .map(|entry| &entry.path)
            .collect();
        paths
            .into_iter()
            .filter_map(|path| self.step(live, path))
            .collect()
    }

    /// Finds one entry; `live` are the layers that may have it.
    fn step(&self, live: &[usize], path: &TreePath) -> Option<Node<'_>> {
        let mut found: Option<Found<'_>> = None;
        let mut below = Vec::new();
        for &layer in live {
            let toc = self.layers.get(layer)?;
            match toc.get(path) {
                Some(entry) if entry.kind.is_dir() => {
                    below.push(layer);
                    // A directory that a layer only implies is the one below, unchanged.
                    if found.is_none_or(|above| above.entry.implicit && !entry.implicit) {
                        found = Some(Found { layer, entry });
                    }
                    if toc.removes(path) || toc.is_opaque(path) {
                        break;
                    }
                }
                Some(entry) => {
                    found = found.or(Some(Found { layer, entry }));
                    break;
                }
                None if toc.removes(path) => break,
                None => {}
            }
        }
        found.is_some().then_some(Node { found, live: below })
    }
}

/// The state of one [`RootView::resolve`].
struct Resolver<'a, 'p> {
    view: &'a RootView,
    path: &'p [u8],
    todo: VecDeque<Vec<u8>>,
    /// The directories on the way, the root first, and at the end where we are.
    nodes: Vec<(TreePath, Node<'a>)>,
    missing: Vec<Vec<u8>>,
    links: usize,
}

impl<'a> Resolver<'a, '_> {
    fn run(mut self, follow_last: bool) -> Result<Resolved<'a>, Error> {
        while let Some(name) = self.todo.pop_front() {
            if name == b".." {
                self.go_up()?;
            } else if self.missing.is_empty() {
                self.go_down(name, follow_last)?;
            } else {
                self.missing.push(name);
            }
        }
        let (mut path, found) = match self.nodes.last() {
            Some((path, node)) => (path.clone(), node.found),
            None => (TreePath::root(), None),
        };
        for name in &self.missing {
            path = join(&path, name)?;
        }
        Ok(Resolved {
            path,
            missing: self.missing.len(),
            found: found.filter(|_| self.missing.is_empty()),
        })
    }

    fn go_up(&mut self) -> Result<(), Error> {
        if self.missing.pop().is_none() {
            self.check_directory()?;
            if self.nodes.len() > 1 {
                self.nodes.pop();
            }
        }
        Ok(())
    }

    fn go_down(&mut self, name: Vec<u8>, follow_last: bool) -> Result<(), Error> {
        self.check_directory()?;
        let Some((above, node)) = self.nodes.last() else {
            return Ok(());
        };
        let path = join(above, &name)?;
        let Some(next) = self.view.step(&node.live, &path) else {
            self.missing.push(name);
            return Ok(());
        };
        if let Some(Kind::Symlink { target }) = next.found.map(|found| &found.entry.kind)
            && (follow_last || !self.todo.is_empty())
        {
            return self.follow(target);
        }
        self.nodes.push((path, next));
        Ok(())
    }

    fn follow(&mut self, target: &[u8]) -> Result<(), Error> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Error::Loop {
                path: String::from_utf8_lossy(self.path).into_owned(),
            });
        }
        if target.starts_with(b"/") {
            self.nodes.truncate(1);
        }
        for name in names(target).rev() {
            self.todo.push_front(name.to_vec());
        }
        Ok(())
    }

    /// Only a directory can be gone on from.
    fn check_directory(&self) -> Result<(), Error> {
        match self.nodes.last() {
            Some((path, node)) if node.found.is_some_and(|found| !found.entry.kind.is_dir()) => {
                Err(Error::NotDirectory { path: path.clone() })
            }
            _ => Ok(()),
        }
    }
}

fn join(above: &TreePath, name: &[u8]) -> Result<TreePath, Error> {
    above.join(name).map_err(|error| Error::Layer(error.into()))
}
