//! From a form to a task that can be built, or to every reason why not.
//!
//! Everything here comes from strangers. A tag, a branch, a directory and a URL name things
//! in registries, repositories and file systems later; what could name anything else is
//! refused now, before the client holds a task id.

use ocibuild::git::GitSource;
use url::Url;

use super::error::{ApiError, FieldError};
use super::form::{BuildForm, Upload};
use crate::config::GitRules;

/// A build request whose every field can be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BuildFields {
    pub(super) app_name: String,
    pub(super) image_tag: String,
    pub(super) git_repo: String,
    pub(super) branch: String,
    pub(super) app_dir: String,
    pub(super) dockerfile: Option<String>,
}

/// Why a value cannot be used.
type Refusal = &'static str;

const FOREIGN: Refusal = "nothing of this host is allowed here (OCIBUILD_GIT_HOSTS)";

/// Checks every field, and reports all that are wrong at once.
pub(super) fn validate(
    form: BuildForm,
    dockerfile_limit: usize,
    git: &GitRules,
) -> Result<BuildFields, ApiError> {
    let mut errors = Vec::new();
    let check_git_repo = |text: &str| check_git_repo(text, git);
    let request = BuildFields {
        app_name: required("app_name", form.app_name, check_app_name, &mut errors),
        image_tag: required("image_tag", form.image_tag, check_image_tag, &mut errors),
        git_repo: required("git_repo", form.git_repo, check_git_repo, &mut errors),
        branch: optional("branch", form.branch, check_branch, &mut errors),
        app_dir: optional("app_dir", form.app_dir, check_app_dir, &mut errors),
        dockerfile: dockerfile(form.dockerfile, dockerfile_limit, &mut errors),
    };
    if errors.is_empty() {
        Ok(request)
    } else {
        Err(ApiError::Invalid(errors))
    }
}

fn required(
    field: &'static str,
    value: Option<String>,
    check: impl Fn(&str) -> Result<(), Refusal>,
    errors: &mut Vec<FieldError>,
) -> String {
    if value.is_none() {
        errors.push(FieldError::missing("body", field));
    }
    optional(field, value, check, errors)
}

fn optional(
    field: &'static str,
    value: Option<String>,
    check: impl Fn(&str) -> Result<(), Refusal>,
    errors: &mut Vec<FieldError>,
) -> String {
    let Some(value) = value else {
        return String::new();
    };
    if let Err(refusal) = check(&value) {
        // A refused URL may hold a password, which must not come back in an answer.
        let shown = (field != "git_repo").then_some(value.as_str());
        errors.push(FieldError::value(field, refusal, shown));
    }
    value
}

fn dockerfile(
    upload: Option<Upload>,
    limit: usize,
    errors: &mut Vec<FieldError>,
) -> Option<String> {
    let mut refuse = |message: &str| {
        errors.push(FieldError::value("dockerfile", message, None));
        None
    };
    let content = match upload? {
        Upload::Text => return refuse("Expected UploadFile, received: <class 'str'>"),
        Upload::File(content) => content,
    };
    if content.len() > limit {
        return refuse(&format!("the Dockerfile is larger than {limit} bytes"));
    }
    if content.is_empty() {
        return refuse("the Dockerfile is empty");
    }
    match String::from_utf8(content.into()) {
        Ok(text) => Some(text),
        Err(_) => refuse("the Dockerfile is not UTF-8 text"),
    }
}

fn check(holds: bool, refusal: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(refusal) }
}

pub(super) fn check_app_name(text: &str) -> Result<(), Refusal> {
    let forbidden = |c: char| c.is_control() || c == '/' || c == '\\';
    check(text.len() <= 255, "a name has at most 255 bytes")?;
    check(
        !text.contains(forbidden),
        "a name has no slashes and no control characters",
    )?;
    check(
        !text.starts_with(['.', '-']),
        "a name does not begin with . or -",
    )
}

/// A tag as the OCI distribution specification defines it.
pub(super) fn check_image_tag(text: &str) -> Result<(), Refusal> {
    let refusal = "a tag has at most 128 letters, digits, '_', '.' and '-', and begins with none \
                   of the last two";
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let valid = text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text
            .bytes()
            .all(|byte| word(byte) || byte == b'.' || byte == b'-');
    check(valid, refusal)
}

pub(super) fn check_git_repo(text: &str, rules: &GitRules) -> Result<(), Refusal> {
    check_characters(text)?;
    if let Ok(source) = GitSource::parse(text)
        && source.is_ssh()
    {
        return check_ssh(text, &source, rules);
    }
    let url = check_web(text, rules)?;
    check_bare(
        &url,
        "a URL has no credentials; the service has its own (GITHUB_TOKEN)",
    )?;
    check(url.path().len() > 1, "the URL names no repository")
}

/// The URL of a file, which may come from where repositories may come from.
pub(super) fn check_file(text: &str, rules: &GitRules) -> Result<(), Refusal> {
    check_characters(text)?;
    let url = check_web(text, rules)?;
    check_bare(&url, "a URL has no credentials")
}

fn check_web(text: &str, rules: &GitRules) -> Result<Url, Refusal> {
    let refusal = "it must be an http or https URL";
    let url = Url::parse(text).map_err(|_| refusal)?;
    check(matches!(url.scheme(), "http" | "https"), refusal)?;
    let host = url.host_str().ok_or(refusal)?;
    let port = url.port_or_known_default().unwrap_or_default();
    check(
        url.scheme() == "https" || rules.allows_http(host, port),
        "it must be an https URL; hosts of plain http are named in OCIBUILD_GIT_HTTP_HOSTS",
    )?;
    check(rules.allows(host, port), FOREIGN)?;
    Ok(url)
}

fn check_characters(text: &str) -> Result<(), Refusal> {
    check(text.len() <= 2048, "a URL has at most 2048 bytes")?;
    let visible = text
        .chars()
        .all(|c| !c.is_control() && !c.is_whitespace() && c != '\\');
    check(
        visible,
        "a URL has no spaces, backslashes and control characters",
    )
}

/// What may be secret would be kept in the table and shown in the log.
fn check_bare(url: &Url, refusal: Refusal) -> Result<(), Refusal> {
    let bare = url.username().is_empty() && url.password().is_none();
    check(bare, refusal)?;
    check(
        url.query().is_none() && url.fragment().is_none(),
        "a URL has no '?' and no '#'",
    )
}

fn check_ssh(text: &str, source: &GitSource, rules: &GitRules) -> Result<(), Refusal> {
    check(
        rules.ssh.is_some(),
        "it must be an http or https URL; ssh is not set up here (OCIBUILD_GIT_SSH_KEY)",
    )?;
    let (host, port) = source.place().ok_or("the URL names no host")?;
    check(rules.allows(&host, port), FOREIGN)?;
    check(!text.contains(['?', '#']), "a URL has no '?' and no '#'")
}

/// A reference name as `git check-ref-format` defines it.
pub(super) fn check_branch(text: &str) -> Result<(), Refusal> {
    let forbidden = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let valid = text.len() <= 255
        && !text.contains(forbidden)
        && !text.starts_with('-')
        && !text.ends_with('.')
        && !text.contains("..")
        && !text.contains("@{")
        && text != "@"
        && text.split('/').all(part);
    check(valid, "this is not the name of a branch or tag")
}

/// A directory inside the repository.
pub(super) fn check_app_dir(text: &str) -> Result<(), Refusal> {
    let refusal = "the directory must be a path inside the repository, without '..'";
    let valid = text.len() <= 4096
        && !text.starts_with(['/', '-'])
        && !text.contains(|c: char| c.is_control() || c == '\\')
        && text.split('/').all(|part| part != "..");
    check(valid, refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(check: impl Fn(&str) -> Result<(), Refusal>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(check(text), Ok(()), "{text:?}");
        }
        for text in bad {
            assert!(check(text).is_err(), "{text:?}");
        }
    }

    fn rules() -> GitRules {
        GitRules {
            http_hosts: Vec::new(),
            hosts: Vec::new(),
            tokens: Vec::new(),
            deny: crate::config::DenyAddresses::Metadata,
            ssh: None,
        }
    }

    #[test]
    fn app_names() {
        let long = "x".repeat(256);
        judge(
            check_app_name,
            &["serve", "my serve", "Ünïcode", "a.b-c_d"],
            &[
                "..",
                ".",
                "/app",
                "a/b",
                "a\\b",
                "-rf",
                "a\nb",
                "\u{1b}[31m",
                &long,
            ],
        );
    }

    #[test]
    fn image_tags() {
        let (longest, long) = ("t".repeat(128), "t".repeat(129));
        judge(
            check_image_tag,
            &["latest", "serve_1.0", "_x", "1", &longest],
            &[
                "../x", "/abs", "a/b", "a:b", ".x", "-x", "a b", "a+b", "ü", "a\n", &long,
            ],
        );
    }

    #[test]
    fn repositories() {
        let rules = GitRules {
            http_hosts: vec!["127.0.0.1:3000".to_owned()],
            ..rules()
        };
        judge(
            |text| check_git_repo(text, &rules),
            &[
                "https://github.com/org/repo",
                "https://github.com/org/repo.git",
                "http://127.0.0.1:3000/repo",
                "https://gitlab.example/a/b/c",
            ],
            &[
                "http://gitlab.example/a/b/c",
                "http://127.0.0.1:3001/repo",
                "git@github.com:org/repo",
                "ssh://git@github.com/org/repo",
                "file:///etc",
                "--upload-pack=x https://github.com/a/b",
                "-c https://github.com/a/b",
                "https://user:password@github.com/a/b",
                "https://token@github.com/a/b",
                "https://github.com",
                "https://github.com/a b",
                "https://github.com/a\nb",
                "https://github.com/a#main",
                "ext::sh -c id",
                "https://",
                "/local/path",
            ],
        );
    }

    #[test]
    fn repositories_over_ssh_need_a_key_and_an_allowed_host() {
        let rules = GitRules {
            hosts: vec!["github.com".to_owned(), "git.example:2222".to_owned()],
            ssh: Some(crate::config::GitSsh {
                key: "/key".into(),
                known_hosts: "/known_hosts".into(),
            }),
            ..rules()
        };
        judge(
            |text| check_git_repo(text, &rules),
            &[
                "git@github.com:org/repo",
                "ssh://git@github.com/org/repo.git",
                "ssh://git@git.example:2222/repo",
                "https://github.com/org/repo",
            ],
            &[
                "git@gitlab.com:org/repo",
                "ssh://git@git.example/repo",
                "ssh://git:password@github.com/org/repo",
                "ssh://-oProxyCommand=id/repo",
                "git@github.com:-x",
                "git@github.com:org/repo#main",
                "ssh://git@github.com/org/repo?ref=main",
            ],
        );
    }

    #[test]
    fn files() {
        let rules = GitRules {
            http_hosts: vec!["127.0.0.1:3000".to_owned()],
            hosts: vec!["files.example".to_owned(), "127.0.0.1".to_owned()],
            ..rules()
        };
        judge(
            |text| check_file(text, &rules),
            &[
                "https://files.example/a/b.tar.gz",
                "https://files.example",
                "http://127.0.0.1:3000/f",
            ],
            &[
                "http://files.example/f",
                "http://127.0.0.1:3001/f",
                "https://other.example/f",
                "https://me@files.example/f",
                "https://files.example/f?token=x",
                "https://files.example/f#x",
                "https://files.example/a b",
                "ftp://files.example/f",
                "file:///etc/passwd",
                "/etc/passwd",
                "",
            ],
        );
    }

    #[test]
    fn branches() {
        judge(
            check_branch,
            &["main", "feature/x-1", "v1.0", "release@2", "ünï"],
            &[
                "-b",
                "--upload-pack=x",
                "a..b",
                "a b",
                "a~1",
                "a^",
                "a:b",
                "a?",
                "a*",
                "a[",
                "a\\",
                "/a",
                "a/",
                "a//b",
                ".a",
                "a/.b",
                "a.lock",
                "a.lock/b",
                "a.",
                "@",
                "a@{1}",
                "a\0",
            ],
        );
    }

    #[test]
    fn directories() {
        judge(
            check_app_dir,
            &["app", "a/b/c", "./app", "app/", "...", "a..b", "."],
            &["..", "../x", "a/../../x", "/etc", "a\\..\\b", "-x", "a\0b"],
        );
    }

    #[test]
    fn all_errors_come_at_once_and_none_shows_a_password() {
        let form = BuildForm {
            image_tag: Some("a/b".to_owned()),
            git_repo: Some("https://u:hidden@github.com/a/b".to_owned()),
            dockerfile: Some(Upload::File("FROM x".into())),
            ..BuildForm::default()
        };
        let Err(ApiError::Invalid(errors)) = validate(form, 5, &rules()) else {
            panic!("it is invalid")
        };
        let json = serde_json::to_string(&errors).unwrap();
        for field in ["app_name", "image_tag", "git_repo", "dockerfile"] {
            assert!(
                json.contains(&format!(r#""loc":["body","{field}"]"#)),
                "{json}"
            );
        }
        assert!(!json.contains("hidden"), "{json}");
    }
}
