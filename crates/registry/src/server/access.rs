//! Who may do what: accounts with a password (RFC 7617), each with the repositories that
//! it may pull from, push to and delete from. Without accounts everybody may do
//! everything.

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::failure::Failure;
use super::route::Route;
use crate::Secret;
use crate::reference::is_repository_path;

/// What an account may do; each includes what stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Read.
    Pull,
    /// Write.
    Push,
    /// Delete.
    Delete,
}

/// One who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user name.
    pub name: String,
    /// The password.
    pub password: Secret,
    /// What may be done.
    pub right: Right,
    /// The repository, or the path above repositories, for which this holds; empty for all.
    pub below: String,
}

/// All accounts of a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    accounts: Vec<Account>,
    /// Reading needs no login.
    anonymous_pull: bool,
}

/// A list of accounts that cannot be read. It does not show the line, which has a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the accounts is not valid: {problem}")]
pub struct InvalidAccounts {
    /// The number of the line.
    pub line: usize,
    /// Why.
    pub problem: &'static str,
}

impl Accounts {
    /// Begins without any account: nobody may do anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an account, or a further right of one.
    #[must_use]
    pub fn with(mut self, account: Account) -> Self {
        self.accounts.push(account);
        self
    }

    /// Lets everybody read.
    #[must_use]
    pub fn anonymous_pull(mut self) -> Self {
        self.anonymous_pull = true;
        self
    }

    /// Reads lines of `right path user password`, where the path is `*` for all
    /// repositories; `pull * *` lets everybody read. The password is the rest of the line.
    pub fn parse(text: &str) -> Result<Self, InvalidAccounts> {
        let mut accounts = Self::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            accounts = accounts
                .with_line(line)
                .map_err(|problem| InvalidAccounts {
                    line: number + 1,
                    problem,
                })?;
        }
        Ok(accounts)
    }

    fn with_line(self, line: &str) -> Result<Self, &'static str> {
        let mut words = line.splitn(4, char::is_whitespace);
        let mut word = || words.next().unwrap_or_default().trim();
        let (right, below, name, password) = (word(), word(), word(), word());
        let right = match right {
            "pull" => Right::Pull,
            "push" => Right::Push,
            "delete" => Right::Delete,
            _ => return Err("it must begin with pull, push or delete"),
        };
        if (right, below, name, password) == (Right::Pull, "*", "*", "") {
            return Ok(self.anonymous_pull());
        }
        let below = match below {
            "*" => "",
            path if is_repository_path(path) => path,
            _ => return Err("the path is neither * nor one of repositories"),
        };
        if name.is_empty() || name.contains(':') || password.is_empty() {
            return Err("it needs a user and a password");
        }
        Ok(self.with(Account {
            name: name.to_owned(),
            password: Secret::new(password),
            right,
            below: below.to_owned(),
        }))
    }

    /// Judges a request by its path, its method and its login.
    pub(super) fn check(&self, request: &Request) -> Result<(), Failure> {
        let login = login(request);
        let mine: Vec<&Account> = self
            .accounts
            .iter()
            .filter(|account| login.as_ref().is_some_and(|login| account.is(login)))
            .collect();
        let (right, repositories) = wanted(request);
        let anonymous = login.is_none() && self.anonymous_pull && right == Right::Pull;
        if anonymous && !is_ping(request) {
            return Ok(());
        }
        if mine.is_empty() {
            return Err(unauthorized());
        }
        let permitted = |(right, name): &(Right, String)| {
            let anybody = self.anonymous_pull && *right == Right::Pull;
            anybody || mine.iter().any(|account| account.may(*right, name))
        };
        match repositories.iter().all(permitted) {
            true => Ok(()),
            false => Err(Failure::denied("the account may not do this here")),
        }
    }
}

impl Account {
    /// Compares hashes, so that the time it takes says nothing about the password.
    fn is(&self, (name, password): &(String, String)) -> bool {
        let hash = |text: &str| Sha256::digest(text.as_bytes());
        self.name == *name && hash(self.password.expose()) == hash(password)
    }

    fn may(&self, right: Right, repository: &str) -> bool {
        let rest = repository.strip_prefix(self.below.as_str());
        let is_below = self.below.is_empty()
            || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.right >= right && is_below
    }
}

fn unauthorized() -> Failure {
    let challenge = HeaderValue::from_static("Basic realm=\"registry\", charset=\"UTF-8\"");
    Failure::unauthorized().with_header(WWW_AUTHENTICATE, challenge)
}

fn login(request: &Request) -> Option<(String, String)> {
    let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, text) = header.split_once(' ')?;
    let pair = STANDARD.decode(text.trim()).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    let (name, password) = pair.split_once(':')?;
    scheme
        .eq_ignore_ascii_case("basic")
        .then(|| (name.to_owned(), password.to_owned()))
}

/// Clients find out how to log in by asking for the version.
fn is_ping(request: &Request) -> bool {
    request.uri().path().trim_end_matches('/') == "/v2"
}

/// Tells what a request needs, and in which repositories. What has no repository, and what
/// is no path of the API, needs a login only; the list of all repositories needs the right
/// to read all.
fn wanted(request: &Request) -> (Right, Vec<(Right, String)>) {
    let right = match *request.method() {
        Method::GET | Method::HEAD => Right::Pull,
        Method::DELETE => Right::Delete,
        _ => Right::Push,
    };
    let path = request
        .uri()
        .path()
        .strip_prefix("/v2/")
        .unwrap_or_default();
    let path = percent_decoded(path);
    let name = match Route::parse(&path) {
        Ok(Route::Catalog) => return (right, vec![(right, String::new())]),
        // Giving up an upload is a part of pushing.
        Ok(Route::Upload(name, _)) => return (Right::Push, vec![(Right::Push, name.to_string())]),
        Ok(
            Route::Tags(name)
            | Route::Uploads(name)
            | Route::Blob(name, _)
            | Route::Manifest(name, _)
            | Route::Referrers(name, _),
        ) => name.to_string(),
        Err(_) => return (right, Vec::new()),
    };
    let mut all = vec![(right, name)];
    // Mounting reads where the blob is.
    let query = request.uri().query().unwrap_or_default();
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    let from = pairs.filter(|(key, _)| key == "from");
    all.extend(from.map(|(_, from)| (Right::Pull, from.into_owned())));
    (right, all)
}

/// Decodes a path as the router does before it reads it.
fn percent_decoded(path: &str) -> String {
    if !path.contains('%') {
        return path.to_owned();
    }
    // A form's decoder also turns a plus into a space, which no path of the API has.
    let text = path
        .replace('+', "%2B")
        .replace('&', "%26")
        .replace('=', "%3D");
    let decoded = url::form_urlencoded::parse(text.as_bytes()).next();
    decoded.map_or_else(String::new, |(key, _)| key.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_accounts() {
        let text = "# who\npull * *\npush team ann pass word \ndelete * root s:x\n";
        let accounts = Accounts::parse(text).unwrap();
        assert!(accounts.anonymous_pull);
        let [ann, root] = &accounts.accounts[..] else {
            unreachable!("there are two lines of accounts")
        };
        assert_eq!(ann.password.expose(), "pass word");
        assert!(ann.may(Right::Push, "team/app") && ann.may(Right::Pull, "team"));
        assert!(!ann.may(Right::Delete, "team/app") && !ann.may(Right::Pull, "teams/app"));
        assert!(root.may(Right::Delete, "any"));
        for (line, why) in [
            ("own * u geheim", "begin"),
            ("push A/B u geheim", "path"),
            ("push * u", "password"),
            ("push * u:v geheim", "user"),
        ] {
            let error = Accounts::parse(line).unwrap_err().to_string();
            assert!(
                error.contains(why) && !error.contains("geheim"),
                "{line}: {error}"
            );
        }
    }
}
