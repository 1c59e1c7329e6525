//! Files as their layers have them.
//!
//! Where a file with several names loses one, the kernel counts that as a change of the
//! file, and only the file of the layer tells whether anything else has changed.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::{FileType, fstat};

use super::table::Fact;
use crate::layer::TreePath;
use crate::snapshot::beneath::{Beneath, Links};
use crate::snapshot::error::At;
use crate::snapshot::{Error, attributes};

/// A tree, and the layers that it was made of, lowest first.
pub(super) struct Pristine<'a> {
    pub(super) tree: &'a Beneath,
    pub(super) lowers: &'a [PathBuf],
}

impl Pristine<'_> {
    /// Tells whether nothing has happened to a file but that it has fewer names now.
    pub(super) fn lost_names_only(
        &self,
        path: &TreePath,
        was: &Fact,
        is: &Fact,
    ) -> Result<bool, Error> {
        let names_aside = Fact {
            links: was.links,
            changed: was.changed,
            ..*is
        };
        if is.kind() != FileType::RegularFile || is.links >= was.links || names_aside != *was {
            return Ok(false);
        }
        // What is visible is what the highest layer has that has anything there.
        for lower in self.lowers.iter().rev() {
            let lower = Beneath::open(lower).at_host("open", lower)?;
            match lower.file(path, Links::Refuse) {
                Ok(file) => {
                    let now = self.tree.file(path, Links::Refuse).at("open", path)?;
                    return is_same(file, now, path);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(_) => return Ok(false),
            }
        }
        Ok(false)
    }
}

fn is_same(one: File, other: File, path: &TreePath) -> Result<bool, Error> {
    let facts = |file: &File| {
        let stat = fstat(file).at("look at", path)?;
        let Fact {
            mode,
            owner,
            size,
            modified,
            ..
        } = Fact::of(&stat);
        Ok::<_, Error>((mode, owner, size, modified))
    };
    Ok(facts(&one)? == facts(&other)?
        && attributes_of(&one, path)? == attributes_of(&other, path)?
        && is_same_content(one, other).at("compare", path)?)
}

type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

fn attributes_of(file: impl AsFd, path: &TreePath) -> Result<Attributes, Error> {
    let mut names = attributes::names(&file, path)?;
    names.sort();
    let with_value = |name: Vec<u8>| {
        let value = attributes::value(&file, &name, path)?;
        Ok((name, value))
    };
    names.into_iter().map(with_value).collect()
}

fn is_same_content(one: File, other: File) -> std::io::Result<bool> {
    let (one, mut other) = (BufReader::new(one).bytes(), BufReader::new(other).bytes());
    for byte in one {
        let byte = byte?;
        if other.next().transpose()? != Some(byte) {
            return Ok(false);
        }
    }
    Ok(other.next().is_none())
}
