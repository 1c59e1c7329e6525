//! Where the database is, and how to reach it.
//!
//! Single values come from variables of their own; a URL puts them all into one, with what it
//! cannot hold as it is written as `%` and two digits.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use url::Url;

const PORT: u16 = 3306;
const TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTIONS: u32 = 16;

/// Where the database is.
#[derive(Clone, PartialEq, Eq)]
pub struct MySqlSettings {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name of the database, which is created when missing.
    pub database: String,
    /// User.
    pub username: String,
    /// Password, empty for none; every character is allowed.
    pub password: String,
    /// How the connection is secured.
    pub tls: MySqlTls,
    /// How long an operation may take, the waiting for a connection included.
    pub timeout: Duration,
    /// The most connections that are kept.
    pub connections: u32,
}

/// How a connection is secured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MySqlTls {
    /// Whether, and how strictly.
    pub mode: MySqlTlsMode,
    /// File with the certificates of authorities (PEM) that are trusted beside the public ones.
    pub ca: Option<PathBuf>,
    /// File with the certificate (PEM) that this side shows.
    pub certificate: Option<PathBuf>,
    /// File with the key (PEM) of that certificate.
    pub key: Option<PathBuf>,
}

/// Whether a connection is encrypted, and what the server must show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MySqlTlsMode {
    /// Never encrypted.
    Disabled,
    /// Encrypted where the server can.
    #[default]
    Preferred,
    /// Always encrypted, whoever the server is.
    Required,
    /// The server must show a certificate of an authority that is trusted.
    VerifyCa,
    /// The certificate must also be for the host.
    VerifyIdentity,
}

/// The text is no mode of TLS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected disabled, preferred, required, verify_ca or verify_identity")]
pub struct InvalidTlsMode;

impl FromStr for MySqlTlsMode {
    type Err = InvalidTlsMode;

    /// Reads a mode as MySQL's own programs write it, such as `VERIFY_CA`.
    fn from_str(text: &str) -> Result<Self, InvalidTlsMode> {
        match text.to_ascii_lowercase().replace('-', "_").as_str() {
            "disabled" => Ok(Self::Disabled),
            "preferred" => Ok(Self::Preferred),
            "required" => Ok(Self::Required),
            "verify_ca" => Ok(Self::VerifyCa),
            "verify_identity" => Ok(Self::VerifyIdentity),
            _ => Err(InvalidTlsMode),
        }
    }
}

/// Why a URL does not lead to a database. No text of it holds the URL or a part that could be
/// the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDatabaseUrl {
    /// It is not a URL at all.
    #[error("it is not a URL such as mysql://user:password@host:3306/database")]
    NotAUrl,
    /// It leads to something else than MySQL or MariaDB.
    #[error("it must begin with mysql:// or mariadb://")]
    Scheme,
    /// A part that every such URL has is not there, or not text.
    #[error("it has no valid {part}")]
    Part {
        /// The part.
        part: &'static str,
    },
    /// A parameter behind the `?` has a value that it cannot have.
    #[error("its parameter ssl-mode is wrong")]
    TlsMode {
        /// The cause.
        source: InvalidTlsMode,
    },
    /// A parameter behind the `?` is unknown.
    #[error(
        "it has an unknown parameter: ssl-mode, ssl-ca, ssl-cert, ssl-key and charset are known"
    )]
    Parameter,
}

impl fmt::Debug for MySqlSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MySqlSettings({} as {:?}, {:?})",
            self.name(),
            self.username,
            self.tls
        )
    }
}

impl MySqlSettings {
    /// Names the database for people, without the password.
    pub fn name(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.database)
    }

    /// Reads a URL such as `mysql://user:password@host:3306/database?ssl-mode=VERIFY_CA&ssl-ca=/ca.pem`.
    pub fn from_url(text: &str) -> Result<Self, InvalidDatabaseUrl> {
        // The error of the parser would be safe today; that it stays so is not promised.
        let url = Url::parse(text).map_err(|_| InvalidDatabaseUrl::NotAUrl)?;
        if !matches!(url.scheme(), "mysql" | "mariadb") {
            return Err(InvalidDatabaseUrl::Scheme);
        }
        let host = decoded("host", url.host_str().unwrap_or_default())?;
        let username = decoded("user", url.username())?;
        let database = decoded("database", url.path().trim_start_matches('/'))?;
        for (part, text) in [
            ("host", &host),
            ("user", &username),
            ("database", &database),
        ] {
            if text.is_empty() {
                return Err(InvalidDatabaseUrl::Part { part });
            }
        }
        Ok(Self {
            // An IPv6 address has brackets in a URL only.
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(PORT),
            database,
            username,
            password: decoded("password", url.password().unwrap_or_default())?,
            tls: tls(&url)?,
            timeout: TIMEOUT,
            connections: CONNECTIONS,
        })
    }

    // Options in place of a URL: a password may contain what a URL cannot.
    pub(super) fn server_options(&self) -> MySqlConnectOptions {
        let mut options = MySqlConnectOptions::new()
            .host(&self.host)
            .port(self.port)
            .username(&self.username)
            .ssl_mode(self.tls.mode.into());
        if let Some(file) = &self.tls.ca {
            options = options.ssl_ca(file);
        }
        if let Some(file) = &self.tls.certificate {
            options = options.ssl_client_cert(file);
        }
        if let Some(file) = &self.tls.key {
            options = options.ssl_client_key(file);
        }
        // The server takes the proof of an empty password for a wrong one: send none at all.
        if self.password.is_empty() {
            options
        } else {
            options.password(&self.password)
        }
    }

    pub(super) fn database_options(&self) -> MySqlConnectOptions {
        self.server_options().database(&self.database)
    }
}

impl From<MySqlTlsMode> for MySqlSslMode {
    fn from(mode: MySqlTlsMode) -> Self {
        match mode {
            MySqlTlsMode::Disabled => Self::Disabled,
            MySqlTlsMode::Preferred => Self::Preferred,
            MySqlTlsMode::Required => Self::Required,
            MySqlTlsMode::VerifyCa => Self::VerifyCa,
            MySqlTlsMode::VerifyIdentity => Self::VerifyIdentity,
        }
    }
}

fn decoded(part: &'static str, text: &str) -> Result<String, InvalidDatabaseUrl> {
    percent_decode_str(text)
        .decode_utf8()
        .map(Into::into)
        .map_err(|_| InvalidDatabaseUrl::Part { part })
}

fn tls(url: &Url) -> Result<MySqlTls, InvalidDatabaseUrl> {
    let mut tls = MySqlTls::default();
    for (name, value) in url.query_pairs() {
        let file = || Some(PathBuf::from(value.as_ref()));
        match &*name {
            "ssl-mode" | "sslmode" => {
                tls.mode = value
                    .parse()
                    .map_err(|source| InvalidDatabaseUrl::TlsMode { source })?;
            }
            "ssl-ca" | "sslca" => tls.ca = file(),
            "ssl-cert" | "sslcert" => tls.certificate = file(),
            "ssl-key" | "sslkey" => tls.key = file(),
            // Connections are always utf8mb4.
            "charset" => {}
            // A misspelt ssl-mode must not mean that there is none.
            _ => return Err(InvalidDatabaseUrl::Parameter),
        }
    }
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_hold_everything() {
        let settings = MySqlSettings::from_url(
            "mysql://da%40rwin:p%40ss%3Aw%2Frd%3F%23%25%C3%BC@db.example:3307/my%2Ddb\
             ?ssl-mode=VERIFY_CA&ssl-ca=/etc/ca%20s.pem&ssl-cert=c&ssl-key=k&charset=utf8mb4",
        )
        .unwrap();
        assert_eq!(settings.name(), "db.example:3307/my-db");
        assert_eq!(settings.username, "da@rwin");
        assert_eq!(settings.password, "p@ss:w/rd?#%ü");
        let expected = MySqlTls {
            mode: MySqlTlsMode::VerifyCa,
            ca: Some("/etc/ca s.pem".into()),
            certificate: Some("c".into()),
            key: Some("k".into()),
        };
        assert_eq!(settings.tls, expected);
        assert!(!format!("{settings:?}").contains("p@ss"));

        let short = MySqlSettings::from_url("mariadb://root@[::1]/x").unwrap();
        assert_eq!((short.host.as_str(), short.port), ("::1", 3306));
        assert_eq!(
            (short.password.as_str(), short.tls),
            ("", MySqlTls::default())
        );
    }

    #[test]
    fn wrong_urls_are_refused_without_their_password() {
        use InvalidDatabaseUrl::{NotAUrl, Parameter, Part, Scheme};
        let cases = [
            ("", NotAUrl),
            ("canary", NotAUrl),
            ("mysql://u:canary@host:port/db", NotAUrl),
            ("postgres://u:canary@host/db", Scheme),
            ("mysql:u:canary@host/db", Part { part: "host" }),
            ("mysql://u:canary@host", Part { part: "database" }),
            ("mysql://:canary@host/db", Part { part: "user" }),
            ("mysql://u:canary%ff@host/db", Part { part: "password" }),
            ("mysql://u:canary@host/db?sslmod=required", Parameter),
        ];
        for (text, expected) in cases {
            let error = MySqlSettings::from_url(text).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(
                !format!("{error} {error:?}").contains("canary"),
                "{error:?}"
            );
        }
        let mode = MySqlSettings::from_url("mysql://u:canary@host/db?ssl-mode=canary");
        assert!(!format!("{:?}", mode.unwrap_err()).contains("canary"));
    }

    #[test]
    fn modes_are_written_as_mysql_does() {
        for (text, mode) in [
            ("DISABLED", MySqlTlsMode::Disabled),
            ("Preferred", MySqlTlsMode::Preferred),
            ("required", MySqlTlsMode::Required),
            ("verify-ca", MySqlTlsMode::VerifyCa),
            ("VERIFY_IDENTITY", MySqlTlsMode::VerifyIdentity),
        ] {
            assert_eq!(text.parse(), Ok(mode), "{text}");
        }
        assert_eq!("yes".parse::<MySqlTlsMode>(), Err(InvalidTlsMode));
    }
}
