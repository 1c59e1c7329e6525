//! The text that names a repository to a URL of HTTP or of ssh, and nothing else.
//!
//! Nothing here asks the network. What passes can be given to a client: no part of it is
//! read as an option, as a pattern, or as something for a shell.

use url::{Host, Url};

use super::error::{GitError, public_url};

/// The fragment of the URL of a path that counts from the home of the user at the server.
/// `user@host:path` says so, and a URL has no other place for it.
const FROM_HOME: &str = "home";

/// Reads the URL of a repository: of HTTP, of ssh, or `user@host:path`.
pub(super) fn parse(text: &str) -> Result<Url, GitError> {
    match of_ssh(text) {
        Some(text) => {
            check_text(&text)?;
            parse_ssh(&text)
        }
        None => parse_http(text),
    }
}

/// Reads a URL as [`parse`] gives it, without its query and what a user's fragment says.
pub(super) fn bare(mut url: Url, from_home: bool) -> Url {
    url.set_query(None);
    url.set_fragment(from_home.then_some(FROM_HOME));
    url
}

/// Tells whether a text has the form `user@host:path`, whose path counts from the home of
/// the user where it does not begin with a slash.
pub(super) fn is_scp(text: &str) -> bool {
    let Some((place, _)) = split_scp(text) else {
        return false;
    };
    place.contains('@')
}

/// Tells whether the path of a URL that [`bare`] gave counts from the home of the user.
pub(super) fn counts_from_home(url: &Url) -> bool {
    url.fragment() == Some(FROM_HOME)
}

/// Tells whether the path of such a text counts from the home of the user.
pub(super) fn is_from_home(text: &str) -> bool {
    is_scp(text) && split_scp(text).is_some_and(|(_, path)| !path.starts_with('/'))
}

/// Splits `user@host:path` at its colon; a host may be an address in brackets.
fn split_scp(text: &str) -> Option<(&str, &str)> {
    let end = match text.split_once('[') {
        Some((user, rest)) if user.ends_with('@') => user.len() + 1 + rest.find(']')? + 1,
        _ => text.find(':')?,
    };
    let (place, path) = text.split_at(end);
    let path = path.strip_prefix(':')?;
    (!place.contains('/') && !path.starts_with("//")).then_some((place, path))
}

/// Gives the URL of ssh that a text is, or stands for.
fn of_ssh(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("ssh://") {
        return Some(format!("ssh://{}", &text["ssh://".len()..]));
    }
    if lower.starts_with("git+ssh://") || lower.starts_with("ssh+git://") {
        return Some(format!("ssh://{}", &text["git+ssh://".len()..]));
    }
    let (place, path) = split_scp(text).filter(|_| is_scp(text))?;
    // There, a percent sign is one.
    let path = path.trim_start_matches('/').replace('%', "%25");
    Some(format!("ssh://{place}/{path}"))
}

fn parse_ssh(text: &str) -> Result<Url, GitError> {
    let invalid = |reason: &str| GitError::InvalidUrl {
        url: without_secrets(text),
        reason: reason.to_owned(),
    };
    let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
    if url.password().is_some() {
        return Err(invalid(
            "ssh takes no password: an agent or a key is needed",
        ));
    }
    let user = decode(url.username());
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if user.starts_with('-') || !user.bytes().all(is_plain) {
        return Err(invalid("its user name is none"));
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| invalid("it names no host"))?;
    let plain = Host::parse(host).map_err(|_| invalid("its host is none"))?;
    if host.starts_with('-') || matches!(&plain, Host::Domain(name) if !name.bytes().all(is_plain))
    {
        return Err(invalid("its host is none"));
    }
    let path = decode(url.path());
    if path.trim_matches('/').is_empty() {
        return Err(invalid("it names a host and no repository"));
    }
    if path.contains(|c: char| c.is_control()) || path.trim_start_matches('/').starts_with('-') {
        return Err(invalid(
            "its path begins with a dash or has control characters",
        ));
    }
    // The host as every other URL has it: an address in its usual form, a name in lower case.
    let user = match user.as_str() {
        "" => String::new(),
        user => format!("{user}@"),
    };
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let start = format!("ssh://{user}{plain}{port}");
    let rest = text["ssh://".len()..]
        .find('/')
        .map_or("", |at| &text["ssh://".len() + at..]);
    Url::parse(&format!("{start}{rest}")).map_err(|error| invalid(&error.to_string()))
}

/// Gives the text of a repository's URL as [`parse`] reads it, without anything that may be
/// secret. The user of ssh is not: it is part of the name.
pub(super) fn text_of(url: &Url, from_home: bool) -> String {
    if url.scheme() != "ssh" {
        return public_url(url);
    }
    if from_home && url.port().is_none() {
        let host = url.host_str().unwrap_or_default();
        return format!(
            "{}@{host}:{}",
            url.username(),
            decode(url.path().trim_start_matches('/'))
        );
    }
    bare(url.clone(), false).to_string()
}

/// Gives the path of a repository as a server of ssh is told it.
pub(super) fn path_for_ssh(url: &Url) -> String {
    let path = decode(url.path());
    // `ssh://host/~user/path` is below the home of a user.
    match counts_from_home(url) || path.starts_with("/~") {
        true => path.trim_start_matches('/').to_owned(),
        false => path,
    }
}

/// Reads the URL of a repository and refuses everything that is not HTTP.
pub(super) fn parse_http(text: &str) -> Result<Url, GitError> {
    let invalid = |reason: &str| GitError::InvalidUrl {
        url: without_secrets(text),
        reason: reason.to_owned(),
    };
    check_text(text)?;
    if let Some(transport) = other_transport(text) {
        return Err(GitError::UnsupportedTransport {
            url: without_secrets(text),
            transport,
        });
    }
    let full = match text.strip_prefix("github.com/") {
        Some(path) => format!("https://github.com/{path}"),
        None => text.to_owned(),
    };
    let url = Url::parse(&full).map_err(|error| invalid(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("it is neither https:// nor http://"));
    }
    if url.path().trim_matches('/').is_empty() {
        return Err(invalid("it names a host and no repository"));
    }
    Ok(url)
}

fn check_text(text: &str) -> Result<(), GitError> {
    let reason = if text.is_empty() {
        "it is empty"
    } else if text.starts_with('-') {
        "it begins with a dash"
    } else if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        "it has blanks or control characters"
    } else {
        return Ok(());
    };
    Err(GitError::InvalidUrl {
        url: without_secrets(text),
        reason: reason.to_owned(),
    })
}

/// Names the transport of a URL that Git knows and that is not offered here.
fn other_transport(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    let by_scheme = [
        ("git://", "git's own protocol"),
        ("file:", "a local path"),
        ("/", "a local path"),
        (".", "a local path"),
        ("~", "a local path"),
    ];
    if let Some((_, name)) = by_scheme.iter().find(|(start, _)| lower.starts_with(start)) {
        return Some(name);
    }
    // `ext::command`, `fd::3`: remote helpers, which run programs.
    if lower.split_once("::").is_some_and(|(helper, _)| {
        !helper.is_empty()
            && helper
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    }) {
        return Some("a remote helper");
    }
    None
}

/// Drops what stands between scheme and host and whatever follows the path, in text that may not parse.
pub(super) fn without_secrets(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => text.to_owned(),
    }
}

pub(super) fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_named_in_several_ways() {
        for (text, url, path) in [
            ("ssh://git@h/o/r.git", "ssh://git@h/o/r.git", "/o/r.git"),
            (
                "SSH://git@H.Example:2222/r",
                "ssh://git@h.example:2222/r",
                "/r",
            ),
            ("git+ssh://h/r", "ssh://h/r", "/r"),
            ("ssh://git@h/~/r", "ssh://git@h/~/r", "~/r"),
            ("ssh://git@h/~me/r", "ssh://git@h/~me/r", "~me/r"),
            ("git@h:o/r.git", "git@h:o/r.git", "o/r.git"),
            ("git@h:/o/r.git", "ssh://git@h/o/r.git", "/o/r.git"),
            ("git@h:50%41/r", "git@h:50%41/r", "50%41/r"),
            ("ssh://git@h/50%41/r", "ssh://git@h/50%41/r", "/50A/r"),
            ("me@[::1]:r", "me@[::1]:r", "r"),
            ("ssh://me@0x7f.1/r", "ssh://me@127.0.0.1/r", "/r"),
        ] {
            let from_home = is_from_home(text);
            let parsed = bare(
                parse(text).unwrap_or_else(|e| panic!("{text}: {e}")),
                from_home,
            );
            assert_eq!(text_of(&parsed, from_home), url, "{text}");
            assert_eq!(path_for_ssh(&parsed), path, "{text}");
            assert_eq!(
                parse(url).map(|again| bare(again, from_home)).unwrap(),
                parsed,
                "{text}"
            );
        }
    }

    #[test]
    fn hostile_names_of_ssh_are_refused() {
        for text in [
            "ssh://-oProxyCommand=id/r",
            "ssh://git@-oProxyCommand=id/r",
            "ssh://-oProxyCommand=id@h/r",
            "git@-oProxyCommand=id:r",
            "-oProxyCommand=id@h:r",
            "git@h:-oProxyCommand=id",
            "git@h:/-x",
            "ssh://h/--upload-pack=id",
            "ssh://h/a%0ab",
            "ssh://h/a%00b",
            "ssh://a%20b@h/r",
            "ssh://a$b@h/r",
            "ssh://me:s3cret@h/r",
            "ssh://h$(id)/r",
            "ssh://h;id/r",
            "ssh:///r",
            "ssh://h",
            "ssh://h/",
            "git@h:",
            "git@h:/",
            "ssh://h:99999/r",
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                matches!(error, GitError::InvalidUrl { .. }),
                "{text}: {error}"
            );
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn hostile_urls_are_refused() {
        for (text, unsupported) in [
            ("", false),
            ("--upload-pack=touch /tmp/x", false),
            ("-c", false),
            ("https://h/a\nb", false),
            ("https://h/a b", false),
            ("https://h", false),
            ("https://h/", false),
            ("ftp://h/r.git", false),
            ("host/r.git", false),
            ("git://h/r.git", true),
            ("file:///etc", true),
            ("FILE:///etc", true),
            ("/etc/passwd", true),
            ("../r", true),
            ("ext::sh", true),
            ("fd::17", true),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(
                matches!(error, GitError::UnsupportedTransport { .. }),
                unsupported,
                "{text:?}: {error}"
            );
        }
    }
}
