//! Changes and bytes: a layer is a tar whose entries stand in walk order.
//!
//! [`LayerWriter`] takes entries and gives the blob, both digests and the [`Toc`]
//! in one pass; [`read_layer`] takes a blob and gives the same back. What is
//! written is canonical: the same entries give the same bytes on any machine and
//! with any number of threads. What is read is hostile, so every size has a limit.
//! OCI image-spec, layer.md, rules both.

mod accounts;
mod archive;
mod by_path;
pub mod compress;
mod decompress;
pub mod digest;
mod entries;
mod entry;
mod error;
mod gzip;
mod limits;
mod name;
mod path;
mod pax;
mod pipeline;
pub mod read;
mod recompress;
mod sparse;
mod stream;
mod tar;
pub mod toc;
mod toc_builder;
pub mod writer;

#[cfg(feature = "git")]
pub(crate) use archive::newest_file;
pub use archive::{is_archive, read_archive};
pub(crate) use by_path::ByPath;
pub use compress::{Compression, Options};
pub(crate) use decompress::decompressed;
pub use digest::{ChainId, DiffId};
pub use entry::{Content, Entry, EntryMeta, Kind, Xattr};
pub use error::Error;
pub use limits::Limits;
pub(crate) use name::LayerName;
pub(crate) use path::names;
pub use path::{InvalidPath, TreePath};
pub use read::{Encoding, ReadLayer, Visitor, read_layer};
pub use recompress::{Recompressed, recompress};
pub use toc::Toc;
pub use writer::{Finished, LayerWriter};

#[cfg(test)]
mod tests;
