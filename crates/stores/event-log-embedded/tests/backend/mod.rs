//! Where the log lives in trials. Segments are small, so that trials cross many.

use async_trait::async_trait;
use cairn_archive::{Incarnation, SiteId};
use cairn_conformance::event_log::{EventLogBackend, Faults};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_process::{
    clock::SystemClock,
    disk::{
        Disk, RealDisk,
        sim::{Loss, SimDisk},
    },
};
use cairn_store_api::{EventLog, StoreError};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

pub(crate) const RECORD_BYTES_MAX: u32 = 128 << 10;

pub(crate) fn config(site: SiteId, incarnation: Incarnation, partitions: u16) -> EventLogConfig {
    EventLogConfig {
        incarnation,
        partitions,
        segment_bytes: 704 << 10,
        record_bytes_max: RECORD_BYTES_MAX,
        append_bytes_max: 512 << 10,
        group_bytes_max: 128 << 10,
        reserve_bytes: 0,
        ..EventLogConfig::new(site)
    }
}

/// The segment in which a payload stands, and where.
fn find(disk: &dyn Disk, dir: &Path, payload: &[u8]) -> Option<(PathBuf, u64)> {
    let segments = disk.list(dir).ok()?.into_iter().filter(|name| name.ends_with(".segment"));
    segments.map(|name| dir.join(name)).find_map(|path| {
        let file = disk.open(&path).ok()?;
        let mut bytes = vec![0; file.len().ok()? as usize];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let at = bytes.windows(payload.len()).position(|window| window == payload)?;
        Some((path, at as u64))
    })
}

/// On the machine's disk, which can't lose power here.
pub(crate) struct OnDisk {
    dir: tempfile::TempDir,
}

impl OnDisk {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("temporary directory") }
    }
}

#[async_trait]
impl EventLogBackend for OnDisk {
    async fn open(
        &self,
        site: &SiteId,
        incarnation: Incarnation,
        partitions: u16,
    ) -> Result<Arc<dyn EventLog>, StoreError> {
        let config = config(site.clone(), incarnation, partitions);
        let dir = self.dir.path().join("log");
        let log = EmbeddedEventLog::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), dir, config).await?;
        Ok(Arc::new(log))
    }

    fn record_bytes_max(&self) -> usize {
        RECORD_BYTES_MAX as usize
    }

    fn faults(&self) -> Faults {
        Faults { damage: true, exclusive: true, ..Faults::default() }
    }

    async fn crash(&self) {
        unreachable!("not declared");
    }

    async fn fill(&self, _full: bool) {
        unreachable!("not declared");
    }

    async fn damage(&self, payload: &[u8]) {
        let dir = self.dir.path().join("log");
        let (path, at) = find(&RealDisk, &dir, payload).expect("payload is stored");
        let file = RealDisk.open(&path).expect("segment");
        file.write_all_at(&[!payload[5]], at + 5).expect("written");
    }
}

/// On a disk in memory that loses what was not synced.
pub(crate) struct Simulated {
    disk: Mutex<SimDisk>,
    crashes: AtomicU64,
}

impl Simulated {
    pub(crate) fn new() -> Self {
        Self { disk: Mutex::new(SimDisk::new()), crashes: AtomicU64::new(0) }
    }

    fn disk(&self) -> SimDisk {
        self.disk.lock().expect("not poisoned").clone()
    }
}

#[async_trait]
impl EventLogBackend for Simulated {
    async fn open(
        &self,
        site: &SiteId,
        incarnation: Incarnation,
        partitions: u16,
    ) -> Result<Arc<dyn EventLog>, StoreError> {
        let config = config(site.clone(), incarnation, partitions);
        let (disk, clock) = (Arc::new(self.disk()), Arc::new(SystemClock::new()));
        Ok(Arc::new(EmbeddedEventLog::open(disk, clock, PathBuf::from("/site/log"), config).await?))
    }

    fn record_bytes_max(&self) -> usize {
        RECORD_BYTES_MAX as usize
    }

    fn faults(&self) -> Faults {
        Faults { crash: true, full: true, damage: true, exclusive: true }
    }

    async fn crash(&self) {
        let mut disk = self.disk.lock().expect("not poisoned");
        let losses = [Loss::Everything, Loss::Seeded(1), Loss::Seeded(2), Loss::Seeded(3), Loss::Nothing];
        let loss = losses[self.crashes.fetch_add(1, Ordering::Relaxed) as usize % losses.len()];
        let crashed = disk.crash(disk.operations(), loss);
        // What still runs on the old disk can do nothing any more.
        disk.set_hook(|_| cairn_process::disk::sim::Verdict::Fail(std::io::ErrorKind::BrokenPipe));
        *disk = crashed;
    }

    async fn fill(&self, full: bool) {
        let disk = self.disk();
        disk.set_capacity(if full { disk.allocated() } else { u64::MAX });
    }

    async fn damage(&self, payload: &[u8]) {
        let disk = self.disk();
        let (path, at) = find(&disk, Path::new("/site/log"), payload).expect("payload is stored");
        disk.damage(&path, at + 5, &[!payload[5]]).expect("damaged");
    }
}
