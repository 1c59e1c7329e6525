//! What builds and requests may take, and how long things are kept.

use std::time::Duration;

use super::settings::{
    BUILD_MEMORY, BUILD_TIMEOUT, CONTEXT_MAX_AGE, LEASE, LOG_MAX_AGE, LOG_MAX_TOTAL, MAX_ATTEMPTS,
    MAX_BUILDS, MAX_BUILDS_PER_APP, MAX_CONTEXT, MAX_DOCKERFILE, MAX_LOG, SHUTDOWN_GRACE,
    STORE_MAX, STORE_MIN_FREE, Setting,
};
use super::values::Reader;

/// What builds and requests may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many builds run at once (`OCIBUILD_MAX_BUILDS`).
    pub max_builds: usize,
    /// How many of one application run at once (`OCIBUILD_MAX_BUILDS_PER_APP`).
    pub max_builds_per_app: Option<u32>,
    /// How long one build may take (`OCIBUILD_BUILD_TIMEOUT`).
    pub build_timeout: Duration,
    /// The memory of one build in bytes (`OCIBUILD_BUILD_MEMORY`).
    pub build_memory: Option<u64>,
    /// The size of the store in bytes (`OCIBUILD_STORE_MAX`).
    pub store_max: Option<u64>,
    /// The free space that builds leave on its disk, in bytes (`OCIBUILD_STORE_MIN_FREE`).
    pub store_min_free: Option<u64>,
    /// How often a build is begun whose worker disappears (`OCIBUILD_MAX_ATTEMPTS`).
    pub max_attempts: u32,
    /// The size of an uploaded Dockerfile in bytes (`OCIBUILD_MAX_DOCKERFILE`).
    pub dockerfile_bytes: usize,
    /// The size of an uploaded context in bytes (`OCIBUILD_MAX_CONTEXT`).
    pub context_bytes: u64,
    /// The size of one log in bytes (`OCIBUILD_MAX_LOG`).
    pub log_bytes: u64,
}

/// How long replicas are waited for.
#[derive(Debug, Clone)]
pub struct Timing {
    /// How long a build belongs to a replica that gives no sign of life (`OCIBUILD_LEASE`).
    pub lease: Duration,
    /// How long running builds may go on once the service is to end
    /// (`OCIBUILD_SHUTDOWN_GRACE`).
    pub shutdown_grace: Duration,
}

/// How long things are kept.
#[derive(Debug, Clone)]
pub struct Retention {
    /// The age of a log (`OCIBUILD_LOG_MAX_AGE`).
    pub log_age: Duration,
    /// The size of all logs in bytes (`OCIBUILD_LOG_MAX_TOTAL`).
    pub log_total_bytes: u64,
    /// The age of an uploaded context (`OCIBUILD_CONTEXT_MAX_AGE`).
    pub context_age: Duration,
}

pub(super) fn read(reader: &mut Reader) -> Limits {
    Limits {
        max_builds: count(reader, &MAX_BUILDS) as usize,
        max_builds_per_app: reader
            .optional_number(&MAX_BUILDS_PER_APP)
            .and_then(|number| number.try_into().ok()),
        build_timeout: time(reader, &BUILD_TIMEOUT),
        build_memory: reader.optional_number(&BUILD_MEMORY),
        store_max: reader.optional_number(&STORE_MAX),
        store_min_free: reader.optional_number(&STORE_MIN_FREE),
        max_attempts: count(reader, &MAX_ATTEMPTS),
        dockerfile_bytes: reader.read(&MAX_DOCKERFILE, |text| {
            MAX_DOCKERFILE.kind.number(text)?.try_into().ok()
        }),
        context_bytes: reader.number(&MAX_CONTEXT),
        log_bytes: reader.number(&MAX_LOG),
    }
}

pub(super) fn read_timing(reader: &mut Reader) -> Timing {
    Timing {
        lease: time(reader, &LEASE),
        shutdown_grace: time(reader, &SHUTDOWN_GRACE),
    }
}

pub(super) fn read_retention(reader: &mut Reader) -> Retention {
    Retention {
        log_age: time(reader, &LOG_MAX_AGE),
        log_total_bytes: reader.number(&LOG_MAX_TOTAL),
        context_age: time(reader, &CONTEXT_MAX_AGE),
    }
}

fn count(reader: &mut Reader, setting: &'static Setting) -> u32 {
    reader.read(setting, |text| setting.kind.number(text)?.try_into().ok())
}

pub(super) fn time(reader: &mut Reader, setting: &'static Setting) -> Duration {
    Duration::from_secs(reader.number(setting))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, names_of_problems};
    use super::*;

    #[test]
    fn defaults_are_these() {
        let config = config(&[]).unwrap();
        let limits = config.limits;
        assert_eq!((limits.max_builds, limits.max_builds_per_app), (2, None));
        assert_eq!(limits.build_timeout, Duration::from_secs(3600));
        assert_eq!((limits.build_memory, limits.max_attempts), (None, 3));
        assert_eq!(
            (
                limits.dockerfile_bytes,
                limits.context_bytes,
                limits.log_bytes
            ),
            (1 << 20, 1 << 30, 64 << 20)
        );
        assert_eq!(config.timing.lease, Duration::from_secs(15));
        assert_eq!(config.timing.shutdown_grace, Duration::from_secs(25));
        let kept = config.retention;
        assert_eq!(kept.log_age, Duration::from_secs(30 * 86_400));
        assert_eq!(kept.log_total_bytes, 10 << 30);
        assert_eq!(kept.context_age, Duration::from_secs(86_400));
    }

    #[test]
    fn numbers_alone_have_a_unit() {
        let config = config(&[
            ("OCIBUILD_BUILD_TIMEOUT", "90"),
            ("OCIBUILD_LOG_MAX_AGE", "2"),
            ("OCIBUILD_BUILD_MEMORY", "512Mi"),
            ("OCIBUILD_MAX_BUILDS_PER_APP", "1"),
            ("OCIBUILD_SHUTDOWN_GRACE", "0"),
        ])
        .unwrap();
        assert_eq!(config.limits.build_timeout, Duration::from_secs(90));
        assert_eq!(config.retention.log_age, Duration::from_secs(2 * 86_400));
        assert_eq!(config.limits.build_memory, Some(512 << 20));
        assert_eq!(config.limits.max_builds_per_app, Some(1));
        assert_eq!(config.timing.shutdown_grace, Duration::ZERO);
    }

    #[test]
    fn what_would_make_no_sense_is_refused() {
        for (name, value) in [
            ("OCIBUILD_MAX_BUILDS", "0"),
            ("OCIBUILD_MAX_BUILDS", "-1"),
            ("OCIBUILD_MAX_BUILDS", "1001"),
            ("OCIBUILD_MAX_BUILDS_PER_APP", "0"),
            ("OCIBUILD_BUILD_TIMEOUT", "0"),
            ("OCIBUILD_BUILD_TIMEOUT", "18446744073709551615"),
            ("OCIBUILD_BUILD_TIMEOUT", "soon"),
            ("OCIBUILD_BUILD_MEMORY", "512"),
            ("OCIBUILD_MAX_ATTEMPTS", "0"),
            ("OCIBUILD_MAX_LOG", "1X"),
            ("OCIBUILD_LEASE", "2"),
            ("OCIBUILD_CONTEXT_MAX_AGE", "24"),
        ] {
            let error = config(&[(name, value)]).unwrap_err();
            assert_eq!(names_of_problems(&error), [name], "{value}");
            assert!(error.to_string().contains(&format!("{value:?}")), "{error}");
        }
    }
}
