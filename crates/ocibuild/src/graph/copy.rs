//! COPY and ADD as a step: flags and words expanded, sources told apart, and the history
//! that the reference builder writes.

use crate::copy::{Choice, InlineFile, Mode};
use crate::dockerfile::Word;
use crate::dockerfile::ast::{Add, Copy, CopyFlags, Heredoc};
use crate::registry::Digest;

use super::step::{Applied, Step, absolute};
use super::{Error, Scope, StageConfig};

/// COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyStep {
    /// `--from`; the context where it is not given.
    pub from: Option<String>,
    /// What is copied, in order.
    pub sources: Vec<CopySource>,
    /// Files whose content stands in the Dockerfile.
    pub inline: Vec<InlineFile>,
    /// Absolute destination; a slash at its end is kept.
    pub dest: String,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`, as it is written.
    pub chmod: Option<String>,
    /// `--exclude` and `--parents`.
    pub choice: Choice,
    /// The layer does not look at what is below it.
    pub link: bool,
    /// Archives of the context are extracted.
    pub unpack_local: bool,
    /// Archives from elsewhere are extracted.
    pub unpack_remote: bool,
    /// `--checksum`: the digest of a download, or the begin of a commit's id.
    pub checksum: Option<String>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
}

/// One source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path, perhaps with wildcards.
    Path(String),
    /// A file to download.
    Http(String),
    /// A repository.
    Git(String),
}

impl CopySource {
    /// Tells what a source is by how it is written.
    pub fn of(text: &str) -> Self {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
        let text = text.to_owned();
        if starts(&["http://", "https://"]) {
            let path = text.split(['?', '#']).next().unwrap_or_default();
            return match path.ends_with(".git") {
                true => Self::Git(text),
                false => Self::Http(text),
            };
        }
        match starts(&["git://", "ssh://", "git@"]) {
            true => Self::Git(text),
            false => Self::Path(text),
        }
    }

    /// Gives the source as it was written.
    pub fn text(&self) -> &str {
        match self {
            Self::Path(text) | Self::Http(text) | Self::Git(text) => text,
        }
    }

    fn is_remote(&self) -> bool {
        !matches!(self, Self::Path(_))
    }
}

impl StageConfig {
    pub(super) fn copy(&self, copy: &Copy) -> Result<Applied, Error> {
        let flags = &copy.flags;
        let step = self.copy_step(flags, &copy.sources, &copy.heredocs, &copy.destination)?;
        if let Some(remote) = step.sources.iter().find(|source| source.is_remote()) {
            return Err(Error::Invalid(format!(
                "COPY takes paths only, not {:?}: use ADD",
                remote.text()
            )));
        }
        self.applied("COPY", step, &copy.heredocs, &copy.destination)
    }

    pub(super) fn add(&self, add: &Add) -> Result<Applied, Error> {
        let flags = CopyFlags {
            chown: add.flags.chown.clone(),
            chmod: add.flags.chmod.clone(),
            link: add.flags.link,
            exclude: add.flags.exclude.clone(),
            ..CopyFlags::default()
        };
        let mut step = self.copy_step(&flags, &add.sources, &add.heredocs, &add.destination)?;
        step.unpack_local = add.flags.unpack != Some(false);
        step.unpack_remote = add.flags.unpack == Some(true);
        step.keep_git_dir = add.flags.keep_git_dir;
        if let Some(checksum) = &add.flags.checksum {
            let checksum = self.scope.expand(&checksum.text)?;
            check_checksum(&checksum, &step.sources)?;
            step.checksum = (!checksum.is_empty()).then_some(checksum);
        }
        self.applied("ADD", step, &add.heredocs, &add.destination)
    }

    fn applied(
        &self,
        keyword: &str,
        step: CopyStep,
        heredocs: &[Heredoc],
        destination: &Word,
    ) -> Result<Applied, Error> {
        for source in &step.sources {
            check_source(source)?;
        }
        let text = copy_text(keyword, &step, heredocs, destination, &self.scope)?;
        Ok(Applied::layer(Step::Copy(step), text))
    }

    fn copy_step(
        &self,
        flags: &CopyFlags,
        sources: &[Word],
        heredocs: &[Heredoc],
        destination: &Word,
    ) -> Result<CopyStep, Error> {
        let expand = |word: &Word| self.scope.expand(&word.text);
        // A flag that is empty once its arguments are expanded is not there.
        let flag = |word: &Option<Word>| {
            let text = word.as_ref().map(expand).transpose()?;
            Ok::<_, Error>(text.filter(|text| !text.is_empty()))
        };
        let dest = expand(destination)?;
        let chmod = flag(&flags.chmod)?;
        if let Some(mode) = &chmod {
            Mode::parse(mode).map_err(|error| Error::Invalid(error.to_string()))?;
        }
        let sources = sources.iter().map(expand).collect::<Result<Vec<_>, _>>()?;
        Ok(CopyStep {
            from: flags.from.as_ref().map(|from| from.text.clone()),
            sources: sources.iter().map(|text| CopySource::of(text)).collect(),
            inline: heredocs
                .iter()
                .map(|heredoc| self.inline(heredoc))
                .collect::<Result<_, _>>()?,
            dest: absolute_dest(&self.image.config.working_dir, &dest),
            chown: flag(&flags.chown)?,
            // With a mode the reference builder does not build on an empty root.
            link: flags.link && chmod.is_none(),
            chmod,
            choice: Choice {
                exclude: flags.exclude.iter().map(|word| word.text.clone()).collect(),
                parents: flags.parents,
            },
            ..CopyStep::default()
        })
    }

    fn inline(&self, heredoc: &Heredoc) -> Result<InlineFile, Error> {
        let mut content = heredoc.content();
        if heredoc.expands {
            content = self.scope.expand_heredoc(&content)?;
        }
        Ok(InlineFile {
            name: heredoc.name.clone(),
            content: content.into_bytes(),
        })
    }
}

/// A checksum belongs to one source, which is not a path.
fn check_checksum(checksum: &str, sources: &[CopySource]) -> Result<(), Error> {
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    match (checksum, sources) {
        ("", _) => Ok(()),
        (_, [CopySource::Http(_)]) => check_digest(checksum),
        (_, [CopySource::Git(_)]) => check_commit(checksum),
        (_, [CopySource::Path(_)]) => invalid("--checksum needs the URL of a file or repository"),
        _ => invalid("--checksum needs one source, which is the URL of a file or repository"),
    }
}

fn check_digest(checksum: &str) -> Result<(), Error> {
    let is_digest = checksum.parse::<Digest>().is_ok() && checksum.starts_with("sha256:");
    match is_digest {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "invalid checksum {checksum:?}: want sha256: and 64 hexadecimal digits"
        ))),
    }
}

/// The begin of a commit's id, or all of it.
fn check_commit(checksum: &str) -> Result<(), Error> {
    #[cfg(feature = "git")]
    if !crate::git::is_commit(checksum) {
        return Err(Error::Invalid(format!(
            "invalid checksum {checksum:?} of a repository: want the id of a commit"
        )));
    }
    let _ = checksum;
    Ok(())
}

/// Refuses what cannot be fetched, whatever is there.
pub(super) fn check_source(source: &CopySource) -> Result<(), Error> {
    match source {
        CopySource::Path(_) => {}
        #[cfg(feature = "git")]
        CopySource::Http(text) => {
            let parsed = crate::download::parse_url(text);
            parsed.map_err(|error| Error::Invalid(error.to_string()))?;
        }
        #[cfg(feature = "git")]
        CopySource::Git(text) => {
            let parsed = crate::git::GitSource::parse(text);
            parsed.map_err(|error| Error::Invalid(error.to_string()))?;
        }
        #[cfg(not(feature = "git"))]
        remote => {
            return Err(Error::Unsupported(format!(
                "ADD of the remote source {:?}",
                remote.text()
            )));
        }
    }
    Ok(())
}

fn copy_text(
    keyword: &str,
    step: &CopyStep,
    heredocs: &[Heredoc],
    destination: &Word,
    scope: &Scope,
) -> Result<String, Error> {
    let mut words = vec![keyword.to_owned()];
    words.extend(step.choice.parents.then(|| "--parents".to_owned()));
    words.extend(step.chown.iter().map(|owner| format!("--chown={owner}")));
    words.extend(step.chmod.iter().map(|mode| format!("--chmod={mode}")));
    words.extend(step.sources.iter().map(|source| source.text().to_owned()));
    words.extend(heredocs.iter().map(|heredoc| format!("<<{}", heredoc.name)));
    words.push(scope.expand(&destination.text)?);
    words.push("# buildkit".to_owned());
    Ok(words.join(" "))
}

/// Makes a destination absolute and clean; a slash or dot at the end means "into".
fn absolute_dest(folder: &str, path: &str) -> String {
    let into = path.ends_with('/') || path == "." || path.ends_with("/.") || path.is_empty();
    let clean = absolute(folder, path);
    match into && clean != "/" {
        true => format!("{clean}/"),
        false => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        for (folder, path, want) in [
            ("/app", "./", "/app/"),
            ("/app", ".", "/app/"),
            ("", "x", "/x"),
            ("/a/", "../b/./c", "/b/c"),
            ("/a", "/", "/"),
            ("/a", "/t/", "/t/"),
            ("/a", "/t/.", "/t/"),
        ] {
            assert_eq!(absolute_dest(folder, path), want, "{folder} {path}");
        }
    }

    #[test]
    fn b54_b55_sources_are_told_apart_by_how_they_are_written() {
        for (text, kind) in [
            ("a/b.txt", "path"),
            ("./http://h/f", "path"),
            ("github.com/o/r", "path"),
            ("dir/r.git", "path"),
            ("http://h/f", "http"),
            ("https://h/f.tar.gz?x=.git", "http"),
            ("https://h/r.git", "git"),
            ("https://h/r.git#main:sub", "git"),
            ("https://h/r.git?ref=v1&subdir=s", "git"),
            ("git://h/r", "git"),
            ("ssh://git@h/r", "git"),
            ("git@h:o/r.git", "git"),
        ] {
            let found = match CopySource::of(text) {
                CopySource::Path(_) => "path",
                CopySource::Http(_) => "http",
                CopySource::Git(_) => "git",
            };
            assert_eq!(found, kind, "{text}");
        }
    }
}
