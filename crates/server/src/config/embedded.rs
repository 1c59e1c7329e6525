//! The registry that the service runs itself.

use std::net::SocketAddr;
use std::time::Duration;

use ocibuild_registry::server::{Accounts, GarbagePolicy, Quota};

use super::error::Problem;
use super::settings::{
    EMBEDDED_ACCOUNTS, EMBEDDED_GC, EMBEDDED_GC_GRACE, EMBEDDED_GC_UNTAGGED, EMBEDDED_QUOTA,
    EMBEDDED_REGISTRY, EMBEDDED_REPOSITORY_QUOTA,
};
use super::values::Reader;
use super::{access, limits, telemetry};

/// The registry that the service runs itself.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// Where it listens (`OCIBUILD_EMBEDDED_REGISTRY`).
    pub address: SocketAddr,
    /// Who may do what in it (`OCIBUILD_EMBEDDED_ACCOUNTS`); without accounts everybody may do
    /// everything.
    pub accounts: Option<Accounts>,
    /// What may be in it (`OCIBUILD_EMBEDDED_QUOTA`, `OCIBUILD_EMBEDDED_REPOSITORY_QUOTA`).
    pub quota: Quota,
    /// How often garbage is collected (`OCIBUILD_EMBEDDED_GC`); never where there is none.
    pub collected_every: Option<Duration>,
    /// What counts as garbage (`OCIBUILD_EMBEDDED_GC_GRACE`, `OCIBUILD_EMBEDDED_GC_UNTAGGED`).
    pub garbage: GarbagePolicy,
}

/// Reads all of it, so that what is wrong is said also where no registry is run.
pub(super) fn read(reader: &mut Reader) -> Option<Embedded> {
    let address = reader.optional(&EMBEDDED_REGISTRY, |text| text.parse().ok());
    let accounts = accounts(reader);
    let quota = Quota {
        total: reader.optional_number(&EMBEDDED_QUOTA),
        repository: reader.optional_number(&EMBEDDED_REPOSITORY_QUOTA),
    };
    let every = limits::time(reader, &EMBEDDED_GC);
    let garbage = GarbagePolicy {
        grace: limits::time(reader, &EMBEDDED_GC_GRACE),
        untagged: reader.read(&EMBEDDED_GC_UNTAGGED, telemetry::switch),
    };
    Some(Embedded {
        address: address?,
        accounts,
        quota,
        collected_every: Some(every).filter(|every| !every.is_zero()),
        garbage,
    })
}

fn accounts(reader: &mut Reader) -> Option<Accounts> {
    let path = reader.path(&EMBEDDED_ACCOUNTS)?;
    let name = EMBEDDED_ACCOUNTS.name;
    match access::read_file(&path).map(|text| Accounts::parse(&text)) {
        Ok(Ok(accounts)) => return Some(accounts),
        Ok(Err(source)) => reader.add(Problem::Accounts { name, path, source }),
        Err(source) => reader.add(Problem::File { name, path, source }),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, names_of_problems};
    use super::*;

    const ADDRESS: (&str, &str) = ("OCIBUILD_EMBEDDED_REGISTRY", "127.0.0.1:5001");

    #[test]
    fn nothing_is_limited_and_garbage_goes_daily_unless_somebody_says_otherwise() {
        assert!(config(&[]).unwrap().embedded.is_none());
        let usual = config(&[ADDRESS]).unwrap().embedded.unwrap();
        assert_eq!((usual.accounts, usual.quota), (None, Quota::default()));
        let day = Duration::from_secs(86_400);
        assert_eq!(usual.collected_every, Some(day));
        assert_eq!((usual.garbage.grace, usual.garbage.untagged), (day, false));
        let said = config(&[
            ADDRESS,
            ("OCIBUILD_EMBEDDED_QUOTA", "10G"),
            ("OCIBUILD_EMBEDDED_REPOSITORY_QUOTA", "1M"),
            ("OCIBUILD_EMBEDDED_GC", "0"),
            ("OCIBUILD_EMBEDDED_GC_GRACE", "15m"),
            ("OCIBUILD_EMBEDDED_GC_UNTAGGED", "true"),
        ]);
        let said = said.unwrap().embedded.unwrap();
        assert_eq!(said.quota.total, Some(10 << 30));
        assert_eq!(said.quota.repository, Some(1 << 20));
        assert_eq!(said.collected_every, None);
        assert_eq!(said.garbage.grace, Duration::from_secs(900));
        assert!(said.garbage.untagged);
    }

    #[test]
    fn accounts_that_cannot_be_read_are_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("accounts");
        let problem = |text: &str| {
            std::fs::write(&file, text).unwrap();
            config(&[
                ADDRESS,
                ("OCIBUILD_EMBEDDED_ACCOUNTS", file.to_str().unwrap()),
            ])
        };
        let read = problem("# people\npull * *\npush team ann hidden\n").unwrap();
        assert!(read.embedded.unwrap().accounts.is_some());
        let error = problem("push * ann hidden\nown * ann hidden\n").unwrap_err();
        assert_eq!(names_of_problems(&error), ["OCIBUILD_EMBEDDED_ACCOUNTS"]);
        let text = error.to_string();
        assert!(
            text.contains("line 2") && !text.contains("hidden"),
            "{text}"
        );
        std::fs::remove_file(&file).unwrap();
        let missing = ("OCIBUILD_EMBEDDED_ACCOUNTS", file.to_str().unwrap());
        assert!(config(&[missing]).is_err());
    }
}
