//! What Linux's `/proc` tells of processes. Where there is none, everything is 0.

use std::{fs, io};

/// A process by its id, or several that are measured as one.
#[derive(Clone, Debug, Default)]
pub struct Process(Vec<String>);

impl Process {
    /// The process with this id.
    pub fn of(id: u32) -> Self {
        Self(vec![format!("/proc/{id}")])
    }

    /// All of these together.
    pub fn all(ids: impl IntoIterator<Item = u32>) -> Self {
        Self(ids.into_iter().map(|id| format!("/proc/{id}")).collect())
    }

    /// This process.
    pub fn own() -> Self {
        Self(vec!["/proc/self".into()])
    }

    /// Whether it is none.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Processor time in seconds, of all its threads. Its grain is 10 ms.
    pub fn cpu_seconds(&self) -> f64 {
        self.0.iter().map(|process| cpu_seconds(process)).sum()
    }

    /// Resident memory in MiB.
    pub fn resident_mib(&self) -> f64 {
        self.0.iter().map(|process| status(process, "VmRSS:")).sum()
    }

    /// Most resident memory in MiB, since the process began or since [`Process::forget_peak`]; of several, the sum of each
    /// one's most.
    pub fn peak_mib(&self) -> f64 {
        self.0.iter().map(|process| status(process, "VmHWM:")).sum()
    }

    /// Begins a new peak.
    ///
    /// # Errors
    /// The system's.
    pub fn forget_peak(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|process| fs::write(format!("{process}/clear_refs"), "5"))
    }
}

fn cpu_seconds(process: &str) -> f64 {
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS
}

fn status(process: &str, field: &str) -> f64 {
    let status = fs::read_to_string(format!("{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
