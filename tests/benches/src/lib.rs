//! What benches measure with.
#![forbid(unsafe_code)]

use bytes::Bytes;
use std::time::Instant;

/// Wall and processor time of this process over a stretch of work.
#[derive(Debug)]
pub struct Stretch {
    begun: Instant,
    cpu: f64,
}

impl Stretch {
    /// From now on.
    pub fn begin() -> Self {
        Self { begun: Instant::now(), cpu: cpu_seconds() }
    }

    /// Seconds so far.
    pub fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Seconds of processor time so far, of all threads.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds() - self.cpu
    }
}

/// Processor time of this process, from Linux's `/proc`; 0 elsewhere. Its grain is 10 ms.
fn cpu_seconds() -> f64 {
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS
}

/// Resident memory in MiB, from Linux's `/proc`; 0 elsewhere.
pub fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// Bytes that no compression or deduplication on the way makes cheaper.
pub fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(length);
    bytes.into()
}
