//! Where the task table is: on MySQL or MariaDB if somebody says where, else in a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ocibuild_store::{MySqlSettings, MySqlTls};

use super::settings::{
    DATABASE_CA, DATABASE_TLS, DATABASE_URL, MYSQL_DATABASE, MYSQL_HOST, MYSQL_PASSWORD,
    MYSQL_PORT, MYSQL_USERNAME, Setting,
};
use super::values::{Reader, Values};

/// Where the task table is.
#[derive(Debug, Clone)]
pub enum Database {
    /// In this file.
    Sqlite(PathBuf),
    /// On a MySQL or MariaDB server.
    MySql(MySqlSettings),
}

/// How long a request waits for a connection: clients expect their answer within seconds.
const TIMEOUT: Duration = Duration::from_secs(3);
const CONNECTIONS: u32 = 16;
/// The SQLite file inside the data folder.
const FILE: &str = "tasks.db";

/// The settings that count together with `MYSQL_HOST` only.
const BESIDE_HOST: [&Setting; 4] = [
    &MYSQL_PORT,
    &MYSQL_DATABASE,
    &MYSQL_USERNAME,
    &MYSQL_PASSWORD,
];

pub(super) fn read(reader: &mut Reader, data: &Path) -> Database {
    // What is wrong is said even where it would not count.
    let settings = MySqlSettings {
        host: reader.string(&MYSQL_HOST).unwrap_or_default(),
        port: reader.read(&MYSQL_PORT, |text| {
            MYSQL_PORT.kind.number(text)?.try_into().ok()
        }),
        database: reader.string(&MYSQL_DATABASE).unwrap_or_default(),
        username: reader.string(&MYSQL_USERNAME).unwrap_or_default(),
        password: reader.string(&MYSQL_PASSWORD).unwrap_or_default(),
        tls: read_tls(reader),
        timeout: TIMEOUT,
        connections: CONNECTIONS,
    };
    if reader.values.text(&DATABASE_URL).is_some() {
        let tls = &settings.tls;
        let database = reader.optional(&DATABASE_URL, |text| from_url(text, data, tls));
        return database.unwrap_or_else(|| Database::Sqlite(data.join(FILE)));
    }
    match settings.host.is_empty() {
        true => Database::Sqlite(data.join(FILE)),
        false => Database::MySql(settings),
    }
}

fn read_tls(reader: &mut Reader) -> MySqlTls {
    MySqlTls {
        mode: reader.read(&DATABASE_TLS, |text| text.parse().ok()),
        ca: reader.path(&DATABASE_CA),
        ..MySqlTls::default()
    }
}

/// Says what of the values counts for nothing here.
pub(super) fn note(values: &Values) -> Option<String> {
    let given = |setting: &&Setting| values.given(setting).is_some();
    if given(&&DATABASE_URL) {
        return given(&&MYSQL_HOST).then(|| "DATABASE_URL wins over MYSQL_HOST".to_owned());
    }
    let alone = BESIDE_HOST.into_iter().find(given);
    let alone = alone.filter(|_| !given(&&MYSQL_HOST))?;
    Some(format!(
        "{} counts for nothing without MYSQL_HOST: the task table is in SQLite",
        alone.name
    ))
}

fn from_url(text: &str, data: &Path, tls: &MySqlTls) -> Option<Database> {
    if let Some(path) = text.strip_prefix("sqlite://") {
        let is_file = !path.is_empty() && !path.contains(['?', '#']) && !path.ends_with('/');
        return is_file.then(|| Database::Sqlite(data.join(path)));
    }
    let settings = MySqlSettings::from_url(text).ok()?;
    // What the URL says of TLS wins over the variables.
    let says_nothing = settings.tls == MySqlTls::default();
    Some(Database::MySql(MySqlSettings {
        tls: if says_nothing {
            tls.clone()
        } else {
            settings.tls
        },
        timeout: TIMEOUT,
        connections: CONNECTIONS,
        ..settings
    }))
}

#[cfg(test)]
mod tests {
    use ocibuild_store::MySqlTlsMode;

    use super::super::tests::{config, names_of_problems};
    use super::*;

    fn mysql(vars: &[(&str, &str)]) -> MySqlSettings {
        match config(vars).unwrap().database {
            Database::MySql(settings) => settings,
            Database::Sqlite(file) => panic!("SQLite at {}", file.display()),
        }
    }

    #[test]
    fn a_url_holds_everything() {
        let settings = mysql(&[(
            "DATABASE_URL",
            "mysql://us%40er:p%2Fw%20d@db.example:3307/tasks",
        )]);
        assert_eq!(settings.name(), "db.example:3307/tasks");
        assert_eq!(
            (settings.username.as_str(), settings.password.as_str()),
            ("us@er", "p/w d")
        );
        let settings = mysql(&[("DATABASE_URL", "mariadb://root@[::1]/tasks")]);
        assert_eq!(settings.name(), "::1:3306/tasks");
    }

    #[test]
    fn sqlite_files_have_a_place() {
        for (vars, expected) in [
            (&[][..], "/data/tasks.db"),
            (&[("DATABASE_URL", "sqlite://other.db")], "/data/other.db"),
            (&[("DATABASE_URL", "sqlite:///var/t.db")], "/var/t.db"),
            (&[("MYSQL_PASSWORD", "p")], "/data/tasks.db"),
        ] {
            let database = config(vars).unwrap().database;
            assert!(
                matches!(&database, Database::Sqlite(file) if file == Path::new(expected)),
                "{database:?}"
            );
        }
    }

    #[test]
    fn a_password_keeps_its_spaces() {
        let settings = mysql(&[("MYSQL_HOST", " db "), ("MYSQL_PASSWORD", " p ")]);
        assert_eq!(
            (settings.host.as_str(), settings.password.as_str()),
            ("db", " p ")
        );
    }

    #[test]
    fn the_url_wins_and_that_is_said() {
        let both = [
            ("DATABASE_URL", "mysql://root@one/tasks"),
            ("MYSQL_HOST", "two"),
        ];
        assert_eq!(mysql(&both).host, "one");
        let notes = |vars| config(vars).unwrap().notes;
        assert_eq!(notes(&both), ["DATABASE_URL wins over MYSQL_HOST"]);
        assert!(notes(&both[..1]).is_empty() && notes(&both[1..]).is_empty());
        let [note] = &notes(&[("MYSQL_PASSWORD", "hidden")])[..] else {
            panic!("one note")
        };
        assert!(note.starts_with("MYSQL_PASSWORD counts for nothing") && !note.contains("hidden"));
    }

    #[test]
    fn wrong_urls_are_refused_and_not_shown() {
        for url in [
            "hidden",
            "postgres://u:hidden@db/x",
            "mysql://u:hidden@",
            "mysql://u:hidden@db/x?ssl-mode=hidden",
            "mysql://u:hidden@db/x?other=1",
            "mysql://u:hidden%ff@db/x",
            "mysql://u:hidden@db:port/x",
            "sqlite://",
            "sqlite://dir/",
            "sqlite://hidden?mode=ro",
        ] {
            let error = config(&[("DATABASE_URL", url)]).unwrap_err();
            assert_eq!(names_of_problems(&error), ["DATABASE_URL"], "{url}");
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }

    #[test]
    fn tls_has_five_modes() {
        let url = "mysql://u@db/x?ssl-mode=required";
        for (mode, expected) in [
            ("", MySqlTlsMode::Preferred),
            ("VERIFY_IDENTITY", MySqlTlsMode::VerifyIdentity),
            ("verify-ca", MySqlTlsMode::VerifyCa),
        ] {
            let mode = ("OCIBUILD_DATABASE_TLS", mode);
            assert_eq!(mysql(&[mode, ("MYSQL_HOST", "db")]).tls.mode, expected);
            let required = mysql(&[mode, ("DATABASE_URL", url)]).tls.mode;
            assert_eq!(required, MySqlTlsMode::Required);
        }
        assert!(config(&[("OCIBUILD_DATABASE_TLS", "yes")]).is_err());
    }
}
