//! What `ident` and `working-tree-encoding` make of files (gitattributes(5)), where gix
//! makes something else of them than git: keywords that are filled already, encodings of
//! Unicode, and encodings that it does not know and passes over.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use encoding_rs::Encoding;
use gix::attrs::StateRef;
use gix::bstr::{BStr, ByteSlice as _};
use gix::filter::plumbing::eol::{self, AttributesDigest};
use gix::index::State;
use gix::index::entry::Mode;
use gix::worktree::stack::state::attributes::Source;

use super::error::GitError;

const FILE: &str = ".gitattributes";
const IDENT: &str = "ident";
const ENCODING: &str = "working-tree-encoding";

/// Writes those files of a tree in `dest` again that need it.
pub(super) fn rewrite(
    repository: &gix::Repository,
    index: &State,
    dest: &Path,
) -> Result<(), GitError> {
    let unreadable = |path: &BStr| {
        let path = path.to_str_lossy().into_owned();
        move |source| GitError::Attributes {
            path,
            source: Box::new(source),
        }
    };
    if !are_named(repository, index).map_err(unreadable(FILE.into()))? {
        return Ok(());
    }
    let stack = repository.attributes_only(index, Source::IdMapping);
    let mut stack = stack.map_err(unreadable(FILE.into()))?;
    let names = ["crlf", IDENT, "eol", "text", ENCODING];
    let mut matches = stack.selected_attribute_matches(names);
    for entry in index.entries() {
        if !matches!(entry.mode, Mode::FILE | Mode::FILE_EXECUTABLE) {
            continue;
        }
        let path = entry.path(index);
        let platform = stack
            .at_entry(path, Some(entry.mode))
            .map_err(unreadable(path))?;
        platform.matching_attributes(&mut matches);
        let attributes = Attributes::of(&matches, path)?;
        if attributes.is_usual() {
            continue;
        }
        let blob = repository.find_object(entry.id).map_err(unreadable(path))?;
        let content = attributes
            .apply(&blob.data, entry.id)
            .map_err(unreadable(path))?;
        let file = dest.join(OsStr::from_bytes(path));
        write(&file, &content).map_err(GitError::io(&file))?;
    }
    Ok(())
}

/// Tells whether a tree says anything about what is done here.
fn are_named(repository: &gix::Repository, index: &State) -> gix::Result<bool> {
    for entry in index.entries() {
        let name = entry.path(index).rsplit(|&byte| byte == b'/').next();
        let is_file = matches!(entry.mode, Mode::FILE | Mode::FILE_EXECUTABLE);
        if name != Some(FILE.as_bytes()) || !is_file {
            continue;
        }
        let text = repository.find_object(entry.id)?;
        if [IDENT, ENCODING]
            .iter()
            .any(|word| text.data.contains_str(word))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The file is there, and no link: it has just been written.
fn write(file: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .truncate(true)
        .custom_flags(libc::O_NOFOLLOW);
    options.open(file)?.write_all(content)
}

/// What is said about a file.
struct Attributes {
    ident: bool,
    /// Line feeds become carriage returns and line feeds.
    windows: Option<AttributesDigest>,
    encoding: Option<Target>,
}

impl Attributes {
    fn of(matches: &gix::attrs::search::Outcome, path: &BStr) -> Result<Self, GitError> {
        let states: Vec<StateRef<'_>> = matches
            .iter_selected()
            .map(|found| found.assignment.state)
            .collect();
        let [crlf, ident, eol, text, encoding] = states[..] else {
            return Ok(Self {
                ident: false,
                windows: None,
                encoding: None,
            });
        };
        let is = |state: StateRef<'_>, word: &str| matches!(state, StateRef::Value(value) if value.as_bstr() == word);
        // The older attribute counts where the newer one says nothing.
        let text = match text {
            StateRef::Unspecified => crlf,
            said => said,
        };
        let windows = match (text, is(eol, "crlf")) {
            (StateRef::Unset, _) | (_, false) => None,
            (said, true) if is(said, "auto") => Some(AttributesDigest::TextAutoCrlf),
            (_, true) => Some(AttributesDigest::TextCrlf),
        };
        let encoding = match encoding {
            StateRef::Value(name) => {
                let name = name.as_bstr().to_str_lossy();
                Target::of(&name).ok_or_else(|| GitError::UnknownEncoding {
                    path: path.to_str_lossy().into_owned(),
                    encoding: name.into_owned(),
                })?
            }
            _ => None,
        };
        Ok(Self {
            ident: ident.is_set(),
            windows,
            encoding,
        })
    }

    fn is_usual(&self) -> bool {
        !self.ident && self.encoding.is_none()
    }

    /// Gives what a blob becomes, in the order in which git does it.
    fn apply(&self, blob: &[u8], id: gix::ObjectId) -> gix::Result<Vec<u8>> {
        let mut content = match self.ident {
            true => identified(blob, &id.to_string()),
            false => blob.to_vec(),
        };
        if let Some(digest) = self.windows {
            let mut lines = Vec::new();
            let converted = eol::convert_to_worktree(
                &content,
                digest,
                &mut lines,
                eol::Configuration::default(),
            );
            if converted? {
                content = lines;
            }
        }
        // What has no such form stays as it is, as with git.
        let encoded = self.encoding.and_then(|target| target.encode(&content));
        Ok(encoded.unwrap_or(content))
    }
}

/// Fills `$Id$` and what was filled before with the id of the content. A keyword with blanks
/// in it belongs to another system, and one that does not end on its line is none.
fn identified(content: &[u8], id: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    let mut rest = content;
    while let Some(dollar) = rest.find_byte(b'$') {
        let (before, after) = rest.split_at(dollar + 1);
        out.extend_from_slice(before);
        rest = after;
        let length = match after {
            [b'I', b'd', b'$', ..] => 3,
            [b'I', b'd', b':', value @ ..] => {
                let Some(end) = value.find_byte(b'$') else {
                    break;
                };
                match is_ours(&value[..end]) {
                    true => 3 + end + 1,
                    false => continue,
                }
            }
            _ => continue,
        };
        out.extend_from_slice(format!("Id: {id} $").as_bytes());
        rest = &after[length..];
    }
    out.extend_from_slice(rest);
    out
}

/// Tells whether what stands between `$Id:` and `$` may be what git has put there.
fn is_ours(value: &[u8]) -> bool {
    let inner = value.get(1..).unwrap_or_default();
    let blank = inner.find_byte(b' ');
    !value.contains(&b'\n') && blank.is_none_or(|at| at + 1 == inner.len())
}

/// The encoding of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// ISO 8859-1, whose numbers are those of Unicode.
    Latin1,
    Unicode {
        width: usize,
        is_big: bool,
        has_mark: bool,
    },
    Other(&'static Encoding),
}

impl Target {
    /// Reads the name of an encoding: nothing where files stay as they are, and nothing at
    /// all where it is not known.
    fn of(name: &str) -> Option<Option<Self>> {
        let name = name.to_ascii_uppercase();
        let unicode = |width, is_big, has_mark| {
            Some(Some(Self::Unicode {
                width,
                is_big,
                has_mark,
            }))
        };
        match name.as_str() {
            "UTF-8" | "UTF8" => Some(None),
            // As the C library of most machines writes it.
            "UTF-16" | "UTF16" | "UTF-16LE-BOM" => unicode(2, false, true),
            "UTF-16BE-BOM" => unicode(2, true, true),
            "UTF-16LE" | "UTF16LE" => unicode(2, false, false),
            "UTF-16BE" | "UTF16BE" => unicode(2, true, false),
            "UTF-32" | "UTF32" => unicode(4, false, true),
            "UTF-32LE" | "UTF32LE" => unicode(4, false, false),
            "UTF-32BE" | "UTF32BE" => unicode(4, true, false),
            "ISO-8859-1" | "ISO8859-1" | "LATIN-1" | "LATIN1" | "L1" => Some(Some(Self::Latin1)),
            other => Encoding::for_label(other.as_bytes()).map(|found| Some(Self::Other(found))),
        }
    }

    /// Encodes a text in UTF-8; nothing where it is none or cannot be encoded.
    fn encode(self, content: &[u8]) -> Option<Vec<u8>> {
        // A file without content has no mark either.
        if content.is_empty() {
            return Some(Vec::new());
        }
        let text = std::str::from_utf8(content).ok()?;
        match self {
            Self::Latin1 => text.chars().map(|c| u8::try_from(c).ok()).collect(),
            Self::Other(encoding) => {
                let (bytes, _, has_gaps) = encoding.encode(text);
                (!has_gaps).then(|| bytes.into_owned())
            }
            Self::Unicode {
                width,
                is_big,
                has_mark,
            } => {
                let mark = has_mark.then_some('\u{feff}');
                let mut out = Vec::with_capacity(width * (text.len() + 1));
                for c in mark.into_iter().chain(text.chars()) {
                    push_unicode(&mut out, c, width, is_big);
                }
                Some(out)
            }
        }
    }
}

fn push_unicode(out: &mut Vec<u8>, c: char, width: usize, is_big: bool) {
    if width == 4 {
        let number = u32::from(c);
        out.extend(match is_big {
            true => number.to_be_bytes(),
            false => number.to_le_bytes(),
        });
        return;
    }
    for unit in c.encode_utf16(&mut [0; 2]) {
        out.extend(match is_big {
            true => unit.to_be_bytes(),
            false => unit.to_le_bytes(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_filled_as_git_does() {
        for (text, want) in [
            ("$Id$", "$Id: 1 $"),
            ("a $Id$ b $Id$", "a $Id: 1 $ b $Id: 1 $"),
            ("$Id: 2 $", "$Id: 1 $"),
            ("$Id:2$", "$Id: 1 $"),
            ("$Id:$", "$Id: 1 $"),
            ("$Id: a b $", "$Id: a b $"),
            ("$Id: a\n$Id$", "$Id: a\n$Id: 1 $"),
            ("$Id: open", "$Id: open"),
            ("$id$ $I$ $", "$id$ $I$ $"),
            ("$$Id$$", "$$Id: 1 $$"),
            ("", ""),
        ] {
            let got = String::from_utf8(identified(text.as_bytes(), "1")).unwrap();
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn encodings_have_names() {
        assert_eq!(Target::of("utf-8"), Some(None));
        assert_eq!(Target::of("no such thing"), None);
        let encode = |name: &str, text: &str| {
            let target = Target::of(name)
                .flatten()
                .unwrap_or_else(|| panic!("{name}"));
            target.encode(text.as_bytes())
        };
        assert_eq!(
            encode("UTF-16BE", "\u{1f600}").unwrap(),
            [0xd8, 0x3d, 0xde, 0x00]
        );
        assert_eq!(encode("UTF-32LE", "a").unwrap(), [b'a', 0, 0, 0]);
        assert_eq!(encode("latin1", "\u{20ac}"), None);
        assert_eq!(encode("KOI8-R", "\u{416}").unwrap(), [0xf6]);
    }
}
