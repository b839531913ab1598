//! What benches measure with.
#![forbid(unsafe_code)]

pub mod corpus;
pub mod process;

use bytes::Bytes;
use process::Process;
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
        Self { begun: Instant::now(), cpu: Process::own().cpu_seconds() }
    }

    /// Seconds so far.
    pub fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Seconds of processor time so far, of all threads.
    pub fn cpu_seconds(&self) -> f64 {
        Process::own().cpu_seconds() - self.cpu
    }
}

/// Resident memory of this process in MiB.
pub fn resident_mib() -> f64 {
    Process::own().resident_mib()
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
