//! Where spans go: an OTLP exporter by the standard variables.

use std::time::Duration;

use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use volley_wire::access::ServerAccess;

/// How long one export may take, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// The variables that turn traces on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Files (PEM) for collectors behind TLS: who signed theirs, and ours for one that asks.
const CA: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
const CERTIFICATE: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"];
const KEY: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"];

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("traces: {0}; mend OTEL_EXPORTER_OTLP_ENDPOINT and its kin, or unset them")]
pub struct ExportError(String);

/// Sends spans.
#[derive(Debug)]
pub struct Export {
    exporter: SpanExporter,
    /// The part of traces that begin here that is kept, in 2^64ths; traces that clients began are theirs to sample.
    sampled: u64,
}

impl Export {
    /// As the environment says; `None` when it asks for no traces.
    ///
    /// # Errors
    /// When what it says cannot be meant.
    pub fn from_env() -> Result<Option<Self>, ExportError> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        let first = |names: [&str; 2]| names.into_iter().find_map(set);
        let Some(endpoint) = first(ENDPOINTS).filter(|_| !disabled) else { return Ok(None) };
        let ratio = match set("OTEL_TRACES_SAMPLER").as_deref() {
            Some("always_off" | "parentbased_always_off") => 0.0,
            Some("traceidratio" | "parentbased_traceidratio") => match set("OTEL_TRACES_SAMPLER_ARG") {
                None => 1.0,
                Some(text) => {
                    text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or_else(|| {
                        ExportError(format!("OTEL_TRACES_SAMPLER_ARG '{text}' is not a number from 0 to 1"))
                    })?
                }
            },
            _ => 1.0,
        };
        let identity = match (first(CERTIFICATE), first(KEY)) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            _ => {
                return Err(ExportError(
                    "a client's certificate needs its key, and the key its certificate".to_owned(),
                ));
            }
        };
        let access = ServerAccess { ca: first(CA).map(Into::into), identity, ..ServerAccess::open(&endpoint) };
        let connector = access.connector().map_err(|error| ExportError(error.to_string()))?;
        let client = HyperClient::new(connector, EXPORT_TIMEOUT, None);
        let exporter = SpanExporter::builder().with_http().with_http_client(client).build();
        let mut exporter = exporter.map_err(|error| ExportError(error.to_string()))?;
        let service = set("OTEL_SERVICE_NAME").unwrap_or_else(|| "volley".to_owned());
        exporter.set_resource(&Resource::builder().with_service_name(service).build());
        Ok(Some(Self { exporter, sampled: (ratio * u64::MAX as f64) as u64 }))
    }

    /// Whether a trace that begins here is kept, by a number that is spread evenly.
    pub(crate) fn samples(&self, number: u64) -> bool {
        number <= self.sampled && self.sampled > 0
    }

    /// Sends spans; what cannot be sent is dropped, for nothing depends on it.
    pub(crate) async fn send(&self, spans: Vec<SpanData>) {
        let count = spans.len();
        if let Err(error) = self.exporter.export(spans).await {
            tracing::warn!(%error, count, "spans were not taken");
        }
    }
}
