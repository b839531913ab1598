//! What Linux's `/proc` tells of a process. Where there is none, everything is 0.

use std::{fs, io};

/// A process by its id.
#[derive(Clone, Debug)]
pub struct Process(String);

impl Process {
    /// The process with this id.
    pub fn of(id: u32) -> Self {
        Self(format!("/proc/{id}"))
    }

    /// This process.
    pub fn own() -> Self {
        Self("/proc/self".into())
    }

    /// Processor time in seconds, of all its threads. Its grain is 10 ms.
    pub fn cpu_seconds(&self) -> f64 {
        const TICKS: f64 = 100.0;
        let stat = fs::read_to_string(format!("{}/stat", self.0)).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
        ticks.sum::<f64>() / TICKS
    }

    /// Resident memory in MiB.
    pub fn resident_mib(&self) -> f64 {
        self.status("VmRSS:")
    }

    /// Most resident memory in MiB, since the process began or since [`Process::forget_peak`].
    pub fn peak_mib(&self) -> f64 {
        self.status("VmHWM:")
    }

    /// Begins a new peak.
    ///
    /// # Errors
    /// The system's.
    pub fn forget_peak(&self) -> io::Result<()> {
        fs::write(format!("{}/clear_refs", self.0), "5")
    }

    fn status(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("{}/status", self.0)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or(0.0) / 1024.0
    }
}
