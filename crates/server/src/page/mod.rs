//! The page for people: the list of tasks at `/`, one build at `/builds/{id}`.
//!
//! HTML that reads well without JavaScript; two small scripts keep it up to date. All texts
//! come from strangers: `maud` escapes them, the scripts write them as text, and a content
//! security policy stands behind both. Every address is relative to the page, so that it
//! works under whatever prefix a proxy gives it.

mod ansi;
mod build;
mod files;
mod format;
mod forms;
mod frame;
mod list;
mod log;
mod waterfall;

pub(crate) use self::build::build;
pub(crate) use self::files::asset;
pub(crate) use self::forms::{cancel, retry};
pub(crate) use self::list::{NoSlash, list};
