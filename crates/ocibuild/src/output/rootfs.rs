//! The root file system in a directory: unpacked beside the destination, then moved in,
//! so that a failure leaves the destination as it was. What is there already stays
//! unless the image has something of that name.

use std::fs::{self, File};
use std::path::Path;

use super::{Error, at, folder_of};
use crate::executor::Identity;
use crate::layer::Encoding;
use crate::snapshot::unpack::{Options, unpack};

/// Unpacks a plain tar into `dest`. Owners are set where the process may set them.
pub fn write(tar: &Path, dest: &Path) -> Result<(), Error> {
    let identity = match rustix::process::geteuid().is_root() {
        true => Identity::Real,
        false => Identity::Single,
    };
    let options = Options {
        encoding: Encoding::Plain,
        ..Options::new(identity)
    };
    let folder = folder_of(dest);
    at(fs::create_dir_all(folder), "create", folder)?;
    let scratch = tempfile::Builder::new()
        .prefix(".ocibuild-")
        .tempdir_in(folder);
    let scratch = at(scratch, "create a folder in", folder)?;
    let tree = scratch.path().join("tree");
    let file = at(File::open(tar), "open", tar)?;
    unpack(file, &tree, &options)?;
    merge(&tree, dest)
}

/// Moves everything of `from` to `to`; directories that are on both sides are merged.
fn merge(from: &Path, to: &Path) -> Result<(), Error> {
    let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    if !is_folder(to) || !is_folder(from) {
        if is_folder(to) {
            at(fs::remove_dir_all(to), "replace", to)?;
        } else if is_folder(from) && fs::symlink_metadata(to).is_ok() {
            at(fs::remove_file(to), "replace", to)?;
        }
        return at(fs::rename(from, to), "move to", to);
    }
    for child in at(fs::read_dir(from), "read", from)? {
        let name = at(child, "read", from)?.file_name();
        merge(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}
