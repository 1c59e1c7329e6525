//! Secrets that are logins: what ADD and contexts from servers are let in with. Their
//! names are those of the reference builder, and hold the server: `example.com`, or
//! `example.com:8443` where the URL has a port.
//!
//! - `HTTP_AUTH_HEADER_<server>`: the field `Authorization` as it is;
//! - `HTTP_AUTH_TOKEN_<server>`: a bearer token (RFC 6750);
//! - `GIT_AUTH_TOKEN.<server>`, else `GIT_AUTH_TOKEN`: the token of a repository.

use std::collections::BTreeMap;

use url::Url;

use crate::error::Error;
use crate::registry::Secret as Text;
use crate::secret::Secret;

type Secrets = BTreeMap<String, Secret>;

/// Gives what stands in `Authorization` when a file is asked for; a login in the URL wins.
pub(super) fn of_file(secrets: &Secrets, url: &Url) -> Result<Option<Text>, Error> {
    if !url.username().is_empty() || url.password().is_some() {
        return Ok(None);
    }
    for server in servers(url) {
        if let Some(header) = read(secrets, &format!("HTTP_AUTH_HEADER_{server}"))? {
            return Ok(Some(header));
        }
        if let Some(token) = read(secrets, &format!("HTTP_AUTH_TOKEN_{server}"))? {
            return Ok(Some(Text::new(format!("Bearer {}", token.expose()))));
        }
    }
    Ok(None)
}

/// Gives the token of a repository.
pub(super) fn of_repository(secrets: &Secrets, url: &str) -> Result<Option<Text>, Error> {
    let servers = Url::parse(url).map(|url| servers(&url)).unwrap_or_default();
    for server in servers {
        if let Some(token) = read(secrets, &format!("GIT_AUTH_TOKEN.{server}"))? {
            return Ok(Some(token));
        }
    }
    read(secrets, "GIT_AUTH_TOKEN")
}

/// The names of a server, the one with its port first.
fn servers(url: &Url) -> Vec<String> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let with_port = url.port().map(|port| format!("{host}:{port}"));
    with_port.into_iter().chain([host]).collect()
}

/// Line ends behind a secret are those of the file that it is in.
fn read(secrets: &Secrets, id: &str) -> Result<Option<Text>, Error> {
    let Some(secret) = secrets.get(id) else {
        return Ok(None);
    };
    let content = secret.read().map_err(|source| Error::Secret {
        id: id.to_owned(),
        source,
    })?;
    let text = std::str::from_utf8(content.expose()).map_err(|_| {
        Error::invalid(format!("the secret {id:?} is to be a login and is no text"))
    })?;
    Ok(Some(Text::new(text.trim_end_matches(['\r', '\n']))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(ids: &[&str]) -> Secrets {
        let secret = |id: &&str| ((*id).to_owned(), Secret::bytes(format!("{id}!\n")));
        ids.iter().map(secret).collect()
    }

    #[test]
    fn row_50_a_login_is_found_by_the_name_of_the_server() {
        let of = |ids: &[&str], url: &str| {
            let found = of_file(&secrets(ids), &url.parse().unwrap()).unwrap();
            found.map(|text| text.expose().to_owned())
        };
        let token = Some("Bearer HTTP_AUTH_TOKEN_h!".to_owned());
        assert_eq!(of(&["HTTP_AUTH_TOKEN_h"], "https://h/f"), token);
        assert_eq!(of(&["HTTP_AUTH_TOKEN_h"], "https://h:8443/f"), token);
        assert_eq!(of(&["HTTP_AUTH_TOKEN_h"], "https://other.h/f"), None);
        let both = ["HTTP_AUTH_TOKEN_h", "HTTP_AUTH_HEADER_h"];
        let header = Some("HTTP_AUTH_HEADER_h!".to_owned());
        assert_eq!(of(&both, "https://h/f"), header);
        assert_eq!(of(&["HTTP_AUTH_TOKEN_h"], "https://me:pw@h/f"), None);
        let ported = ["HTTP_AUTH_HEADER_h", "HTTP_AUTH_HEADER_h:8443"];
        let header = Some("HTTP_AUTH_HEADER_h:8443!".to_owned());
        assert_eq!(of(&ported, "https://h:8443/f"), header);
    }

    #[test]
    fn row_50_the_token_of_one_server_wins() {
        let both = secrets(&["GIT_AUTH_TOKEN", "GIT_AUTH_TOKEN.h"]);
        let of = |url: &str| of_repository(&both, url).unwrap().unwrap();
        assert_eq!(of("https://h/r.git").expose(), "GIT_AUTH_TOKEN.h!");
        assert_eq!(of("https://i/r.git").expose(), "GIT_AUTH_TOKEN!");
    }
}
