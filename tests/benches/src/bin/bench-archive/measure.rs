//! Percentiles, processor time and memory over a stretch, and the rows of the report.

use crate::{
    Outcome,
    server::{Kind, Server},
};
use cairn_benches::{Stretch, process::Process};
use std::{
    fmt::Write,
    time::{Duration, Instant},
};

/// The value under which this part of the times lies, in milliseconds.
pub fn percentile(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    let at = (times.len().saturating_sub(1) as f64 * part).round() as usize;
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// "p50 / p99" in milliseconds.
pub fn latency(mut times: Vec<Duration>) -> String {
    if times.is_empty() {
        return String::new();
    }
    format!("{:.2} / {:.2} ms", percentile(&mut times, 0.5), percentile(&mut times, 0.99))
}

/// A stretch of work on one server.
pub struct Meter {
    begun: Instant,
    server: Process,
    server_cpu: f64,
    engines: Process,
    engines_cpu: f64,
    own: Stretch,
    idle_mib: f64,
}

/// What it took.
pub struct Load {
    pub seconds: f64,
    server_ms: f64,
    engines_ms: Option<f64>,
    client_ms: f64,
    idle_mib: f64,
    pub peak_mib: f64,
}

impl Meter {
    /// From now on, with a new peak of memory.
    pub fn begin(server: &Server) -> Outcome<Self> {
        let process = server.process.clone();
        process.forget_peak()?;
        let (server_cpu, idle_mib) = (process.cpu_seconds(), process.resident_mib());
        let (engines, engines_cpu) = (server.engines.clone(), server.engines.cpu_seconds());
        let (begun, own) = (Instant::now(), Stretch::begin());
        Ok(Self { begun, server: process, server_cpu, engines, engines_cpu, own, idle_mib })
    }

    /// So far.
    pub fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Until now, for so many operations.
    pub fn end(self, operations: u64) -> Load {
        let seconds = self.begun.elapsed().as_secs_f64();
        let each = |seconds: f64| seconds * 1e3 / operations.max(1) as f64;
        Load {
            seconds,
            server_ms: each(self.server.cpu_seconds() - self.server_cpu),
            engines_ms: (!self.engines.is_none()).then(|| each(self.engines.cpu_seconds() - self.engines_cpu)),
            client_ms: each(self.own.cpu_seconds()),
            idle_mib: self.idle_mib,
            peak_mib: self.server.peak_mib(),
        }
    }
}

/// The table, printed as it grows.
#[derive(Default)]
pub struct Report {
    pub text: String,
}

impl Report {
    pub fn say(&mut self, line: &str) {
        println!("{line}");
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// A heading and the head of its table.
    pub fn section(&mut self, title: &str) {
        self.say(&format!("\n## {title}\n"));
        self.say(
            "| what | archive | result | p50 / p99 | server CPU each | engines' | client's | peak memory (before) |",
        );
        self.say("|---|---|---|---|---|---|---|---|");
    }

    /// A row with what a stretch took.
    pub fn row(&mut self, what: &str, kind: Kind, result: &str, latency: &str, load: &Load) {
        let mut line = format!("| {what} | {kind:?} | {result} | {latency} ");
        let engines = load.engines_ms.map(|each| format!("{each:.3} ms")).unwrap_or_default();
        // Writing to a string can't fail.
        let _written = write!(
            line,
            "| {:.3} ms | {engines} | {:.3} ms | {:.0} ({:.0}) MiB |",
            load.server_ms, load.client_ms, load.peak_mib, load.idle_mib
        );
        self.say(&line);
    }

    /// A row of a result alone.
    pub fn plain(&mut self, what: &str, kind: Kind, result: &str) {
        self.say(&format!("| {what} | {kind:?} | {result} | | | | | |"));
    }
}
