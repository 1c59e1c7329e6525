//! What becomes of an image: a registry, an image layout, an archive, or its root file
//! system. Each output takes the documents and a way to read blobs, and nothing appears
//! at its destination before it is whole.

pub mod annotation;
pub mod archive;
pub mod form;
pub mod layout;
pub mod push;
pub mod rootfs;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

pub use annotation::{Annotation, AnnotationPlace, InvalidAnnotation};
pub use form::Form;

use crate::content;
use crate::image::manifest::{Document, Documents};
use crate::layer::{self, DiffId};
use crate::registry::{self, Descriptor, Digest, Index, Platform, Reference};
use crate::{snapshot, source};

/// What is to be done with an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Push it under this name.
    Registry(Reference),
    /// Write an OCI image layout into a directory.
    OciDirectory(PathBuf),
    /// Write a tar of an OCI image layout.
    OciArchive(PathBuf),
    /// Write a tar that `docker load` reads.
    DockerArchive(PathBuf),
    /// Write the root file system as a tar.
    Tar(PathBuf),
    /// Write the root file system into a directory; of several platforms each into a
    /// directory in it, such as `linux_arm64`.
    Local(PathBuf),
}

/// An output that a build was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) output: Output,
    /// How it writes the image, if not as the build says.
    pub(crate) form: Option<Form>,
}

impl Wanted {
    /// Gives the name in a registry, where it goes to one.
    pub(crate) fn pushed_as(&self) -> Option<&Reference> {
        match &self.output {
            Output::Registry(reference) => Some(reference),
            _ => None,
        }
    }
}

/// What went wrong with an output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder of the destination.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The destination holds something else.
    #[error("{path} is not an image layout and not empty: choose another destination")]
    Occupied {
        /// The destination.
        path: PathBuf,
    },
    /// The output holds one image, and several were built.
    #[error(
        "{what} cannot hold an index of platforms: build one platform, or write an OCI layout or archive"
    )]
    OnePlatform {
        /// Which output.
        what: &'static str,
    },
    /// The compression has no such level.
    #[error("the levels of {compression} are 0 to {last}, not {level}")]
    Level {
        /// The compression.
        compression: &'static str,
        /// The level.
        level: i32,
        /// The last one that there is.
        last: i32,
    },
    /// An image cannot be written so.
    #[error("the output cannot be written as it is asked for: {0}")]
    Form(&'static str),
    /// A thread that compressed a layer ended without a result.
    #[error("a layer is not compressed: {0}")]
    Lost(String),
    /// A layer that was to be compressed anew is not what its image says.
    #[error("layer {digest} unpacks to {found}, its image says {wanted}")]
    WrongLayer {
        /// The blob.
        digest: Digest,
        /// What came out of it.
        found: DiffId,
        /// What should have.
        wanted: DiffId,
    },
    /// A tar that is written or read.
    #[error(transparent)]
    Tar(#[from] layer::Error),
    /// A push.
    #[error("push {reference}")]
    Push {
        /// The name.
        reference: String,
        /// What the registry said.
        source: registry::Error,
    },
    /// The root file system.
    #[error("write the root file system")]
    Rootfs(#[from] snapshot::Error),
    /// A layer that has to be fetched first.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] content::Error),
}

pub(crate) fn at<T>(
    result: Result<T, impl Into<io::Error>>,
    doing: &'static str,
    path: &Path,
) -> Result<T, Error> {
    result.map_err(|source| Error::Io {
        doing,
        path: path.to_owned(),
        source: source.into(),
    })
}

/// Gives the folder that a file is in.
pub(crate) fn folder_of(dest: &Path) -> &Path {
    match dest.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes a file beside a destination, to be renamed to it when it is whole.
pub(crate) fn temporary(folder: &Path) -> Result<NamedTempFile, Error> {
    at(fs::create_dir_all(folder), "create", folder)?;
    at(NamedTempFile::new_in(folder), "create a file in", folder)
}

/// Gives a whole file its name.
pub(crate) fn persist(file: NamedTempFile, dest: &Path) -> Result<(), Error> {
    let mode = fs::Permissions::from_mode(0o644);
    at(
        file.as_file().set_permissions(mode),
        "set the mode of",
        dest,
    )?;
    at(
        file.persist(dest).map_err(|error| error.error),
        "write",
        dest,
    )?;
    Ok(())
}

/// Writes a file beside its destination and renames it when it is whole.
pub(crate) fn write_whole(
    dest: &Path,
    write: impl FnOnce(&mut File) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut file = temporary(folder_of(dest))?;
    write(file.as_file_mut())?;
    persist(file, dest)
}

/// What an output takes: one image, or an index of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One image.
    Image(Box<Documents>),
    /// The images of several platforms.
    Index {
        /// The index.
        index: Box<Document>,
        /// What it names, in its order.
        images: Vec<Documents>,
    },
}

impl Content {
    /// Makes the index of images, each with its platform.
    pub fn index(images: Vec<(Platform, Documents)>, form: &Form) -> Self {
        let described = images.iter().map(|(platform, documents)| Descriptor {
            platform: Some(platform.clone()),
            annotations: form.annotations_of(AnnotationPlace::ManifestDescriptor, Some(platform)),
            ..documents.manifest.descriptor.clone()
        });
        let media_type = form.media_types.index();
        let index = Index {
            media_type: Some(media_type.to_owned()),
            annotations: form.annotations_of(AnnotationPlace::Index, None),
            ..Index::of(described.collect())
        };
        let bytes = serde_json::to_vec(&index).expect("an index has only string keys");
        Self::Index {
            index: Box::new(Document::new(media_type, bytes)),
            images: images.into_iter().map(|(_, image)| image).collect(),
        }
    }

    /// Gives the document by which it is known.
    pub fn top(&self) -> &Document {
        match self {
            Self::Image(documents) => &documents.manifest,
            Self::Index { index, .. } => index,
        }
    }

    /// Gives the images.
    pub fn images(&self) -> &[Documents] {
        match self {
            Self::Image(documents) => std::slice::from_ref(documents.as_ref()),
            Self::Index { images, .. } => images,
        }
    }

    /// Gives every document: what names others comes after them.
    pub(crate) fn documents(&self) -> Vec<&Document> {
        let images = self.images().iter();
        let mut all: Vec<&Document> = images
            .flat_map(|image| [&image.config, &image.manifest])
            .collect();
        if let Self::Index { index, .. } = self {
            all.push(index);
        }
        all
    }

    /// Gives the layers of all images, some perhaps more than once.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Descriptor> {
        self.images().iter().flat_map(|image| &image.layers)
    }
}

/// An image as the outputs take it.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Manifests, configurations, layer descriptors.
    pub content: Content,
    /// The names that archives and layouts give it.
    pub names: Vec<String>,
    /// What the index of a layout says of it beside its names.
    pub annotations: BTreeMap<String, String>,
    /// Seconds since 1970 for what an output itself dates.
    pub created: i64,
}

/// Refuses outputs that cannot hold more than one platform.
pub(crate) fn refuse_for_several(several: bool, outputs: &[Wanted]) -> Result<(), Error> {
    let what = outputs.iter().find_map(|wanted| match &wanted.output {
        Output::DockerArchive(_) => Some("an archive for docker load"),
        Output::Tar(_) => Some("a tar of the root file system"),
        _ => None,
    });
    match what.filter(|_| several) {
        Some(what) => Err(Error::OnePlatform { what }),
        None => Ok(()),
    }
}
