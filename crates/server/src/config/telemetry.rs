//! What the service says about itself, and where its traces go.

use ocibuild_registry::Secret;
use percent_encoding::percent_decode_str;
use tracing_subscriber::EnvFilter;

use super::registries::web_address;
use super::settings::{
    ENABLE_OTEL, LOG, LOG_FORMAT, OTEL_ENDPOINT, OTEL_HEADERS, OTEL_SERVICE_NAME,
};
use super::values::Reader;

/// Where traces go.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// The collector; None where no traces are sent (`ENABLE_OTEL`).
    pub otel: Option<Otel>,
}

/// A collector that takes OTLP over HTTP.
#[derive(Debug, Clone)]
pub struct Otel {
    /// Its URL, without the path of a signal (`OTEL_EXPORTER_OTLP_ENDPOINT`).
    pub endpoint: String,
    /// The name of the service (`OTEL_SERVICE_NAME`).
    pub service_name: String,
    /// Headers of every request (`OTEL_EXPORTER_OTLP_HEADERS`).
    pub headers: Vec<(String, Secret)>,
}

/// The form of the program's own messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

pub(super) fn read(reader: &mut Reader) -> Telemetry {
    let enabled = reader.read(&ENABLE_OTEL, switch);
    let otel = Otel {
        endpoint: reader.read(&OTEL_ENDPOINT, web_address),
        service_name: reader.string(&OTEL_SERVICE_NAME).unwrap_or_default(),
        headers: reader.list(&OTEL_HEADERS, header),
    };
    Telemetry {
        otel: enabled.then_some(otel),
    }
}

pub(super) fn read_log_filter(reader: &mut Reader) -> String {
    reader.read(&LOG, |text| {
        let filter = EnvFilter::builder().parse(text);
        filter.is_ok().then(|| text.to_owned())
    })
}

pub(super) fn read_log_format(reader: &mut Reader) -> LogFormat {
    reader.read(&LOG_FORMAT, |text| match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    })
}

pub(super) fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn header(text: &str) -> Option<(String, Secret)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim();
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
    let in_value = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    let valid = !name.is_empty() && name.bytes().all(in_name) && value.bytes().all(in_value);
    valid.then(|| (name.to_ascii_lowercase(), Secret::new(value)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, names_of_problems};

    #[test]
    fn traces_are_sent_outside_of_local_deployments() {
        for (vars, expected) in [
            (&[][..], false),
            (&[("ENV", "local")], false),
            (&[("ENV", "prod")], true),
            (&[("ENV", "stag")], true),
            (&[("ENABLE_OTEL", "TRUE")], true),
            (&[("ENV", "prod"), ("ENABLE_OTEL", "false")], false),
        ] {
            let telemetry = config(vars).unwrap().telemetry;
            assert_eq!(telemetry.otel.is_some(), expected, "{vars:?}");
        }
    }

    #[test]
    fn a_collector_has_headers() {
        let vars = [
            ("ENABLE_OTEL", "1"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c.example/otlp/"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "Authorization=Bearer%20t==,x-a = b",
            ),
        ];
        let otel = config(&vars).unwrap().telemetry.otel.unwrap();
        assert_eq!(otel.endpoint, "https://c.example/otlp");
        assert_eq!(otel.service_name, "artifact-builder");
        let headers = otel.headers.iter();
        let headers: Vec<_> = headers
            .map(|(name, value)| (name.as_str(), value.expose()))
            .collect();
        assert_eq!(headers, [("authorization", "Bearer t=="), ("x-a", "b")]);
    }

    #[test]
    fn wrong_values_are_refused_and_secrets_not_shown() {
        for (name, value) in [
            ("ENABLE_OTEL", "maybe"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hidden"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=hidden"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=hidden%0d%0aX: y"),
            ("OCIBUILD_LOG", "info,=,="),
            ("OCIBUILD_LOG_FORMAT", "xml"),
        ] {
            let error = config(&[(name, value)]).unwrap_err();
            assert_eq!(names_of_problems(&error), [name], "{value}");
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }
}
