//! The text of a Dockerfile becomes a typed tree; no file is read here.
//!
//! [`parse`] gives a [`Dockerfile`]: stages of [`ast::Instruction`]s, in which every
//! argument knows its place in the text. What depends on a build stays text: the
//! graph expands variables with [`words`], reads mounts with [`mount`] and parses
//! the `ONBUILD` triggers of a base image with [`parse_trigger`].
//!
//! The language is what BuildKit's builder accepts, which its documentation does not
//! always say; `docs/decisions/0002-dockerfile-parser.md` has the reasons for a
//! parser of our own, and `testdata/dockerfile` pins its behaviour.

pub mod ast;
mod directive;
mod dump;
mod error;
mod flags;
mod heredoc;
mod lines;
pub mod lint;
pub mod mount;
mod parse;
pub mod path;
pub(crate) mod quote;
mod sexp;
mod span;
pub mod suggest;
pub mod words;
#[cfg(feature = "testing")]
pub mod work;
#[cfg(not(feature = "testing"))]
mod work;

pub use ast::Dockerfile;
pub use directive::{Directives, Escape, detect_syntax};
pub use dump::{dump, dump_instruction};
pub use error::{ParseError, ParseErrorKind};
pub use lines::MAX_LINE;
pub use mount::{Mount, parse_mount};
pub use parse::{parse, parse_bytes, parse_prefix, parse_trigger};
pub use sexp::{Node, parse_tree};
pub use span::{LineColumn, LineStarts, SourceMap, Span, Word};
