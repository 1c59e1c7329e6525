//! How spans reach the collector: in batches, from a thread of their own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter as Otlp, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};

use crate::config::Otel;

/// How long the collector may take.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// How long spans wait for others.
const GATHER: Duration = Duration::from_secs(2);
/// How many spans wait at most; the rest is dropped.
const WAITING_SPANS: usize = 8192;
/// How often an unreachable collector is worth a line.
const COMPLAINT: Duration = Duration::from_secs(60);

/// Why no traces can be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExporterError {
    /// The HTTP client cannot be made.
    #[error("cannot make the client of the collector")]
    Client(#[source] reqwest::Error),
    /// The exporter does not take its settings.
    #[error("cannot send traces")]
    Build(#[source] ExporterBuildError),
    /// The thread that makes them is gone.
    #[error("the client of the collector was not made")]
    Lost,
}

/// Makes what sends spans to a collector.
pub(super) fn provider(otel: &Otel) -> Result<SdkTracerProvider, ExporterError> {
    let batch = BatchConfigBuilder::default()
        .with_max_queue_size(WAITING_SPANS)
        .with_scheduled_delay(GATHER)
        .build();
    let processor = BatchSpanProcessor::builder(Sent::to(exporter(otel)?))
        .with_batch_config(batch)
        .build();
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder_empty()
        .with_service_name(otel.service_name.clone())
        .with_attribute(version);
    Ok(SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .with_resource(resource.build())
        .with_span_processor(processor)
        .build())
}

fn exporter(otel: &Otel) -> Result<Otlp, ExporterError> {
    // A client that blocks has a runtime of its own, which cannot be made within another one.
    let client = std::thread::spawn(|| {
        reqwest::blocking::Client::builder()
            .timeout(TIME_LIMIT)
            // The headers may be secrets of the collector, and of nobody else.
            .redirect(reqwest::redirect::Policy::none())
            .build()
    });
    let client = client.join().map_err(|_| ExporterError::Lost)?;
    let headers = otel.headers.iter();
    let headers: HashMap<_, _> = headers
        .map(|(name, value)| (name.clone(), value.expose().to_owned()))
        .collect();
    Otlp::builder()
        .with_http()
        .with_http_client(client.map_err(ExporterError::Client)?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", otel.endpoint))
        .with_timeout(TIME_LIMIT)
        .with_headers(headers)
        .build()
        .map_err(ExporterError::Build)
}

/// An exporter that complains now and then only.
#[derive(Debug)]
struct Sent {
    exporter: Otlp,
    complained: Mutex<Option<Instant>>,
}

impl Sent {
    fn to(exporter: Otlp) -> Self {
        Self {
            exporter,
            complained: Mutex::default(),
        }
    }
}

/// Tells whether it is time for a line.
fn is_due(complained: &mut Option<Instant>, now: Instant) -> bool {
    let due = complained.is_none_or(|last| now.duration_since(last) >= COMPLAINT);
    if due {
        *complained = Some(now);
    }
    due
}

impl SpanExporter for Sent {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        if result.is_err() {
            let mut complained = self
                .complained
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            // The error may repeat the URL of the collector, and what stands in it.
            if is_due(&mut complained, Instant::now()) {
                tracing::warn!("the collector of traces does not take spans; they are dropped");
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_rare() {
        let (mut complained, begin) = (None, Instant::now());
        let second = Duration::from_secs(1);
        assert!(is_due(&mut complained, begin));
        assert!(!is_due(&mut complained, begin + second));
        assert!(!is_due(&mut complained, begin + COMPLAINT - second));
        assert!(is_due(&mut complained, begin + COMPLAINT));
        assert!(!is_due(&mut complained, begin + COMPLAINT + second));
    }
}
