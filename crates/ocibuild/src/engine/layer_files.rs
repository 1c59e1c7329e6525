//! Files of one layer, for whoever copies out of it: from its tree where that is at hand,
//! else picked out of its blob.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::layers::trees_name;
use crate::content::{ContentStore, Layer};
use crate::error::Error;
use crate::executor::{Identity, Notes};
use crate::layer::{self, Encoding, EntryMeta, Kind, Limits, TreePath, Visitor, read_layer};
use crate::snapshot::Beneath;
use crate::snapshot::beneath::Links;

/// Opens the tree of a layer that has its owners on the disk, if there is one.
fn real_tree(store: &ContentStore, layer: &Layer) -> Option<Beneath> {
    let names = [Notes::Trusted, Notes::User].map(|notes| trees_name(&Identity::Real, notes));
    let trees = names.map(|name| store.tree_path(&name, layer.diff_id));
    let mut there = trees.iter().filter(|tree| store.use_tree(tree));
    there.find_map(|tree| Beneath::open(tree).ok())
}

/// Files of one layer: in its tree where that is at hand, else picked out of its blob.
pub(crate) enum LayerFiles {
    Tree(Beneath),
    Picked(HashMap<TreePath, PathBuf>),
}

impl LayerFiles {
    pub(crate) fn open(
        store: &ContentStore,
        layer: &Layer,
        wanted: Vec<TreePath>,
        scratch: &Path,
    ) -> Result<Self, Error> {
        // Only a tree with real owners is sure to be readable by whoever is root here.
        if rustix::process::geteuid().is_root()
            && let Some(tree) = real_tree(store, layer)
        {
            return Ok(Self::Tree(tree));
        }
        let folder = scratch.join(layer.diff_id.0.hex());
        std::fs::create_dir_all(&folder).map_err(layer::Error::Write)?;
        let files: HashMap<TreePath, PathBuf> = wanted
            .into_iter()
            .enumerate()
            .map(|(number, path)| (path, folder.join(number.to_string())))
            .collect();
        let blob = store.open_blob(&layer.blob.digest)?;
        let mut pick = Pick { files: &files };
        let encoding = Encoding::of_media_type(&layer.blob.media_type);
        read_layer(blob, encoding, &Limits::default(), &mut pick)?;
        Ok(Self::Picked(files))
    }

    pub(crate) fn file(&self, path: &TreePath) -> Result<File, Error> {
        let opened = match self {
            Self::Tree(tree) => tree.file(path, Links::Refuse),
            Self::Picked(files) => match files.get(path) {
                Some(file) => File::open(file),
                None => Err(io::ErrorKind::NotFound.into()),
            },
        };
        opened.map_err(|source| {
            Error::from(layer::Error::Content {
                path: path.clone(),
                source,
            })
        })
    }
}

/// Writes the wanted files of a layer out as they pass by; of a name that is there twice
/// the last one stays.
struct Pick<'a> {
    files: &'a HashMap<TreePath, PathBuf>,
}

impl Visitor for Pick<'_> {
    type Error = layer::Error;

    fn entry(&mut self, meta: &EntryMeta, content: &mut dyn Read) -> Result<(), layer::Error> {
        let (Kind::File(_), Some(path)) = (&meta.kind, self.files.get(&meta.path)) else {
            return Ok(());
        };
        let mut file = File::create(path).map_err(layer::Error::Write)?;
        io::copy(content, &mut file).map_err(layer::Error::Write)?;
        Ok(())
    }
}
