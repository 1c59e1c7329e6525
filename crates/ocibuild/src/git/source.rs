//! Text to [`GitSource`]: where the repository is, which commit is wanted, and which
//! directory of it. Understands the forms that BuildKit documents for Git contexts
//! and `ADD`: `https://host/repo.git#ref:subdir`, the query form
//! `?branch=…&subdir=…`, `github.com/owner/repo` without a scheme, `ssh://user@host/repo`
//! and `user@host:repo`.
//!
//! Nothing here asks the network.

use std::fmt;

use gix::bstr::ByteSlice as _;
use ocibuild_registry::Secret;
use url::Url;

use super::address::{self, decode, without_secrets};
use super::error::{GitError, public_url};

/// A directory of a Git repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSource {
    /// Where the repository is: an `http` or `https` URL without user information, query and
    /// fragment, an `ssh` URL without query and fragment, or `user@host:path`.
    pub url: String,
    /// Branch, tag, full reference name, or commit id of seven digits and more; the default branch
    /// where it is missing.
    pub reference: Option<String>,
    /// The directory to use; the root of the repository where it is missing.
    pub subdir: Option<String>,
    /// Token or password; sent to the host of `url` only.
    pub token: Option<Secret>,
    /// User name that goes with the token, where the server cares.
    pub username: Option<String>,
    /// The id of the commit that must come, or the begin of it.
    pub checksum: Option<String>,
    /// Keeps `.git` in the tree.
    pub keep_git_dir: bool,
    /// Fetches submodules too.
    pub submodules: bool,
    /// Loads the files that are kept with Git LFS; otherwise their pointers stay.
    pub lfs: bool,
}

impl GitSource {
    /// Reads a URL with what BuildKit lets follow it.
    ///
    /// ```
    /// # use ocibuild::git::GitSource;
    /// let source = GitSource::parse("https://example.com/shop.git#v1.2:services/cart")?;
    /// assert_eq!(source.url, "https://example.com/shop.git");
    /// assert_eq!(source.reference.as_deref(), Some("v1.2"));
    /// assert_eq!(source.subdir.as_deref(), Some("services/cart"));
    /// # Ok::<(), ocibuild::git::GitError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, GitError> {
        let url = address::parse(text)?;
        let from_home = address::is_from_home(text);
        let mut source = Self {
            url: String::new(),
            reference: None,
            subdir: None,
            token: url.password().map(|password| Secret::new(decode(password))),
            username: Some(decode(url.username())).filter(|name| !name.is_empty()),
            checksum: None,
            keep_git_dir: false,
            submodules: true,
            lfs: true,
        };
        // `https://token@host/…` is how tokens are commonly written into URLs. The user of
        // ssh is part of the URL.
        if source.token.is_none() {
            let token = source.username.take().map(Secret::new);
            source.token = token.filter(|_| url.scheme() != "ssh");
        }
        source.read_fragment(&url)?;
        source.read_query(&url)?;
        source.url = address::text_of(&address::bare(url, false), from_home);
        if let Some(reference) = &source.reference {
            check_reference(reference)?;
        }
        Ok(source)
    }

    /// Tells whether a text names a Git repository rather than a file to download: the
    /// rule by which `ADD` and the context argument of a build choose.
    pub fn is_git_url(text: &str) -> bool {
        const GIT_ONLY: [&str; 4] = ["git://", "ssh://", "git+ssh://", "github.com/"];
        if GIT_ONLY.iter().any(|prefix| text.starts_with(prefix)) || address::is_scp(text) {
            return true;
        }
        Url::parse(text).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.path().ends_with(".git")
        })
    }

    fn read_query(&mut self, url: &Url) -> Result<(), GitError> {
        let invalid = |reason: String| GitError::InvalidUrl {
            url: public_url(url),
            reason,
        };
        let mut seen = Vec::new();
        for (key, value) in url.query_pairs() {
            if seen.contains(&key) {
                return Err(invalid(format!("{key:?} is given twice")));
            }
            match (&*key, &*value) {
                ("ref", name) => self.set_reference(url, name.to_owned())?,
                ("commit" | "checksum", id) => self.set_checksum(url, id)?,
                ("branch", name) => self.set_reference(url, full_name("refs/heads/", name))?,
                ("tag", name) => self.set_reference(url, full_name("refs/tags/", name))?,
                ("subdir", path) => self.set_subdir(url, path)?,
                // Files have the time of the checkout, and a commit is fetched by its id.
                ("mtime", "checkout") | ("fetch-by-commit", "" | "1" | "true" | "0" | "false") => {}
                ("submodules", flag) => {
                    self.submodules = switch(flag).ok_or_else(|| {
                        invalid(format!("submodules is neither true nor false: {flag:?}"))
                    })?;
                }
                ("lfs", flag) => {
                    self.lfs = switch(flag).ok_or_else(|| {
                        invalid(format!("lfs is neither true nor false: {flag:?}"))
                    })?;
                }
                ("keep-git-dir", flag) => {
                    self.keep_git_dir = switch(flag).ok_or_else(|| {
                        invalid(format!("keep-git-dir is neither true nor false: {flag:?}"))
                    })?;
                }
                _ => return Err(invalid(format!("unknown option {key:?}"))),
            }
            seen.push(key);
        }
        if self.reference.is_none() {
            self.reference.clone_from(&self.checksum);
        }
        Ok(())
    }

    fn read_fragment(&mut self, url: &Url) -> Result<(), GitError> {
        let Some(fragment) = url.fragment() else {
            return Ok(());
        };
        let fragment = decode(fragment);
        let (reference, path) = fragment.split_once(':').unwrap_or((&fragment, ""));
        if !reference.is_empty() {
            self.set_reference(url, reference.to_owned())?;
        }
        self.set_subdir(url, path)
    }

    fn set_reference(&mut self, url: &Url, name: String) -> Result<(), GitError> {
        let what = "more than one branch, tag or commit is named";
        set_once(&mut self.reference, name, url, what)
    }

    fn set_checksum(&mut self, url: &Url, id: &str) -> Result<(), GitError> {
        if !is_commit(id) {
            return Err(GitError::InvalidUrl {
                url: public_url(url),
                reason: format!("{id:?} is not the id of a commit"),
            });
        }
        let what = "more than one commit is named";
        set_once(&mut self.checksum, id.to_ascii_lowercase(), url, what)
    }

    fn set_subdir(&mut self, url: &Url, path: &str) -> Result<(), GitError> {
        match subdir(path) {
            Some(path) => set_once(&mut self.subdir, path, url, "two directories are named"),
            None => Ok(()),
        }
    }
}

/// Shows the source as [`GitSource::parse`] reads it, without anything that may be secret.
impl fmt::Display for GitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match address::is_scp(&self.url) {
            true => f.write_str(&self.url)?,
            false => f.write_str(&without_secrets(&self.url))?,
        }
        match (self.reference.as_deref().unwrap_or_default(), &self.subdir) {
            ("", None) => Ok(()),
            (reference, None) => write!(f, "#{reference}"),
            (reference, Some(subdir)) => write!(f, "#{reference}:{subdir}"),
        }
    }
}

/// The same may be said twice.
fn set_once(
    place: &mut Option<String>,
    value: String,
    url: &Url,
    what: &str,
) -> Result<(), GitError> {
    match place {
        Some(known) if *known != value => Err(GitError::InvalidUrl {
            url: public_url(url),
            reason: what.to_owned(),
        }),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

/// Tells whether a text may be the id of a commit, or the begin of one.
pub(crate) fn is_commit(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn full_name(folder: &str, name: &str) -> String {
    match name.starts_with(folder) {
        true => name.to_owned(),
        false => format!("{folder}{name}"),
    }
}

/// Refuses names that Git does not allow, and those that would be read as a pattern.
pub(super) fn check_reference(name: &str) -> Result<(), GitError> {
    let valid = !name.starts_with(['-', '+'])
        && gix::validate::reference::name_partial(name.as_bytes().as_bstr()).is_ok();
    if valid {
        Ok(())
    } else {
        Err(GitError::InvalidReference {
            reference: name.to_owned(),
        })
    }
}

fn subdir(path: &str) -> Option<String> {
    let path = path.trim_matches('/');
    (!path.is_empty() && path != ".").then(|| path.to_owned())
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "" | "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_source() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for (text, url, reference, subdir) in [
            ("https://h/r.git", "https://h/r.git", None, None),
            (
                "https://h/r.git#main",
                "https://h/r.git",
                Some("main"),
                None,
            ),
            (
                "https://h/r#main:a/b",
                "https://h/r",
                Some("main"),
                Some("a/b"),
            ),
            ("https://h/r.git#:/a/", "https://h/r.git", None, Some("a")),
            ("https://h/r.git#:", "https://h/r.git", None, None),
            (
                "http://h:8080/r.git#f/x",
                "http://h:8080/r.git",
                Some("f/x"),
                None,
            ),
            ("github.com/o/r", "https://github.com/o/r", None, None),
            (
                "https://h/r.git?branch=b",
                "https://h/r.git",
                Some("refs/heads/b"),
                None,
            ),
            (
                "https://h/r.git?tag=v1&subdir=d",
                "https://h/r.git",
                Some("refs/tags/v1"),
                Some("d"),
            ),
            (
                &format!("https://h/r.git?commit={commit}"),
                "https://h/r.git",
                Some(commit),
                None,
            ),
            (
                "https://h/r.git?tag=refs/tags/v1&mtime=checkout&fetch-by-commit=1",
                "https://h/r.git",
                Some("refs/tags/v1"),
                None,
            ),
            (
                "https://h/r.git?ref=x&subdir=a#x:a",
                "https://h/r.git",
                Some("x"),
                Some("a"),
            ),
            ("ssh://git@h:2222/r", "ssh://git@h:2222/r", None, None),
            ("git@h:o/r#v1:d", "git@h:o/r", Some("v1"), Some("d")),
            (
                "git@h:/o/r?ref=v1&subdir=d",
                "ssh://git@h/o/r",
                Some("v1"),
                Some("d"),
            ),
            (
                "https://h/r.git?subdir=a%2Fb#x",
                "https://h/r.git",
                Some("x"),
                Some("a/b"),
            ),
        ] {
            let source = GitSource::parse(text).unwrap();
            assert_eq!(source.url, url, "{text}");
            assert_eq!(source.reference.as_deref(), reference, "{text}");
            assert_eq!(source.subdir.as_deref(), subdir, "{text}");
            assert!(source.submodules && !source.keep_git_dir, "{text}");
        }
    }

    #[test]
    fn b55_a_commit_is_a_reference_where_none_is_named() {
        for (text, reference, checksum) in [
            ("https://h/r.git?commit=ABC123", "abc123", "abc123"),
            (
                "https://h/r.git?checksum=abc123&branch=b",
                "refs/heads/b",
                "abc123",
            ),
            ("https://h/r.git?commit=abc123#v1", "v1", "abc123"),
        ] {
            let source = GitSource::parse(text).unwrap();
            assert_eq!(source.reference.as_deref(), Some(reference), "{text}");
            assert_eq!(source.checksum.as_deref(), Some(checksum), "{text}");
        }
    }

    #[test]
    fn switches_of_the_query_form() {
        let source = GitSource::parse("https://h/r.git?submodules=false&keep-git-dir").unwrap();
        assert!(!source.submodules && source.keep_git_dir);
        for text in [
            "https://h/r.git?mtime=commit",
            "https://h/r.git?submodules=perhaps",
            "https://h/r.git?ref=a&ref=b",
            "https://h/r.git?ref=a&tag=b",
            "https://h/r.git?ref=a#b",
            "https://h/r.git?subdir=a#:b",
            "https://h/r.git?commit=main",
            "https://h/r.git?commit=ab&checksum=cd",
            "https://h/r.git?branch=a&tag=a",
        ] {
            let error = GitSource::parse(text).unwrap_err();
            assert!(
                matches!(error, GitError::InvalidUrl { .. }),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn credentials_leave_the_url() {
        let source = GitSource::parse("https://me:s%40cret@h/r.git").unwrap();
        assert_eq!(source.url, "https://h/r.git");
        assert_eq!(source.username.as_deref(), Some("me"));
        assert_eq!(source.token, Some(Secret::new("s@cret")));

        let source = GitSource::parse("https://s3cret@h/r.git").unwrap();
        assert_eq!(source.username, None);
        assert_eq!(source.token, Some(Secret::new("s3cret")));
    }

    #[test]
    fn a_source_is_shown_without_its_token() {
        for (text, shown) in [
            ("https://me:s3cret@h/r.git", "https://h/r.git"),
            ("https://s3cret@h/r.git#main", "https://h/r.git#main"),
            (
                "https://h/r.git?branch=b&subdir=a",
                "https://h/r.git#refs/heads/b:a",
            ),
            ("https://h/r.git#:a/b", "https://h/r.git#:a/b"),
        ] {
            assert_eq!(GitSource::parse(text).unwrap().to_string(), shown);
        }
        let mut source = GitSource::parse("https://h/r").unwrap();
        source.url = "https://me:s3cret@h/r?token=s3cret".to_owned();
        assert_eq!(source.to_string(), "https://h/r");
    }

    #[test]
    fn errors_do_not_show_secrets() {
        for text in [
            "https://me:s3cret@h",
            "ssh://me:s3cret@h/r.git",
            "ftp://me:s3cret@h/r.git",
            "https://me:s3cret@h/r.git?what=s3cret",
            "https://me:s3cret@h:port/r.git#s3cret",
            "https://s3cret@h/r.git?ref=a#b",
        ] {
            let error = GitSource::parse(text).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }

    #[test]
    fn reference_names_are_checked() {
        for name in [
            "-x",
            "a..b",
            "a b",
            "+refs/heads/x",
            "x.lock",
            "a:b",
            "a*",
            "@{1}",
            "",
        ] {
            assert!(check_reference(name).is_err(), "{name:?}");
        }
        for name in ["main", "feature/x", "v1.0", "refs/heads/main", "HEAD"] {
            assert!(check_reference(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn git_urls_are_told_from_downloads() {
        for (text, git) in [
            ("https://h/r.git", true),
            ("https://h/r.git#main:sub", true),
            ("https://h/r.tar.gz", false),
            ("https://h/r", false),
            ("git@h:r", true),
            ("me@h:r#main:sub", true),
            ("a/me@h:r", false),
            ("github.com/o/r", true),
            ("ssh://h/r", true),
            ("dir/r.git", false),
        ] {
            assert_eq!(GitSource::is_git_url(text), git, "{text}");
        }
    }
}
