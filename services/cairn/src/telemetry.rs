//! Logs, traces and metrics of the process. Logs go to standard error, so that standard output stays for results.

use crate::{
    commands::Failure,
    config::{LogFormat, TelemetryConfig},
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// What keeps telemetry going; spans not sent yet are sent when it is shut down.
pub struct Telemetry {
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
    traces: Option<SdkTracerProvider>,
}

/// Upper bounds of latency histograms, in seconds.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// What a library repeats at ERROR each second while a server is away. Its user says so once; who names the target in
/// `telemetry.log` gets it.
const QUIET: &str = "scylla::cluster::metadata::cc_establisher=off";

/// Starts logs, traces (when an endpoint is configured) and metrics.
///
/// # Errors
/// A filter or an endpoint that can't be used.
pub fn start(config: &TelemetryConfig, site: &str) -> Result<Telemetry, Failure> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.log));
    let filter = filter.map_err(|error| Failure::failed(format!("telemetry.log: {error}")))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let traces = config.otlp_endpoint.as_deref().map(|endpoint| exporter(endpoint, site)).transpose()?;
    let spans = traces.as_ref().map(|provider| {
        // What libraries do, the exporter's own calls above all, is not of interest.
        let ours = Targets::new().with_target("cairn", tracing::Level::INFO);
        tracing_opentelemetry::layer().with_tracer(provider.tracer("cairn")).with_filter(ours)
    });
    tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).try_init().map_err(Failure::failed)?;
    let metrics = PrometheusBuilder::new()
        .set_buckets_for_metric(metrics_exporter_prometheus::Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| Failure::failed(format!("metrics: {error}")))?;
    describe_metrics();
    std::panic::set_hook(Box::new(note_panic));
    metrics::gauge!("cairn_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(Telemetry { metrics, traces })
}

/// Tells of a defect: where it is, and its text only if that is the program's own, because a text made at run time may hold
/// what a data set said.
fn note_panic(panic: &std::panic::PanicHookInfo<'_>) {
    metrics::counter!("cairn_panics_total").increment(1);
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let what = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(its text is left out)");
    tracing::error!(%place, what, "a defect ended a task");
}

/// Every metric, for people and for help texts.
const METRICS: &str = include_str!("../METRICS.md");

/// Where those of stores begin that an embedded archive does not have.
const OF_A_CLUSTER: &str = "## With stores of a cluster";

/// Gives each metric its help text. Those without labels are there from the start, so that a rate has a beginning.
fn describe_metrics() {
    let (here, of_a_cluster) = METRICS.split_once(OF_A_CLUSTER).unwrap_or((METRICS, ""));
    describe_table(here, true);
    describe_table(of_a_cluster, false);
}

fn describe_table(table: &'static str, from_the_start: bool) {
    for line in table.lines().filter(|line| line.starts_with("| cairn_")) {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let mut cell = || cells.next().unwrap_or_default();
        let (name, kind, labels, what) = (cell(), cell(), cell(), cell());
        match kind {
            "counter" => metrics::describe_counter!(name, what),
            "gauge" => metrics::describe_gauge!(name, what),
            _ => metrics::describe_histogram!(name, what),
        }
        match (kind, labels) {
            ("counter", "") if from_the_start => metrics::counter!(name).increment(0),
            ("gauge", "") if from_the_start => metrics::gauge!(name).increment(0.0),
            _ => {}
        }
    }
}

fn exporter(endpoint: &str, site: &str) -> Result<SdkTracerProvider, Failure> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| Failure::failed(format!("telemetry.otlp_endpoint: {error}")))?;
    let resource = Resource::builder()
        .with_service_name("cairn")
        .with_attribute(opentelemetry::KeyValue::new("cairn.site", site.to_owned()))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

impl Telemetry {
    /// Sends what is left.
    pub fn shutdown(self) {
        if let Some(traces) = self.traces
            && let Err(error) = traces.shutdown()
        {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}
