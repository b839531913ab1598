//! The embedded stores of one data directory.

use crate::{commands::Failure, config::Config, endpoints::Endpoints};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_ingest::{Quarantine, QuarantineConfig};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::{
    clock::{Clock, SystemClock},
    disk::{Disk, RealDisk},
};
use cairn_store_api::{EventLog, IndexStore, ObjectStore, StoreError, StoreErrorKind};
use std::sync::Arc;

/// The stores, open.
pub struct Stores {
    pub log: Arc<dyn EventLog>,
    pub objects: Arc<dyn ObjectStore>,
    pub index: Arc<dyn IndexStore>,
    pub quarantine: Quarantine,
    pub clock: Arc<dyn Clock>,
}

impl Stores {
    /// Opens them, creating what is not there.
    pub async fn open(config: &Config) -> Result<Self, Failure> {
        let directory = &config.data.directory;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let opening = |what: &str, error: StoreError| {
            let running = Endpoints::read(directory).filter(|_| error.kind() == StoreErrorKind::Conflict);
            Failure::failed(match running {
                Some(running) => {
                    let whose = format!("process {}, DICOM on {}", running.pid, running.dicom);
                    format!("{} is in use by a running archive ({whose})", directory.display())
                }
                None => format!("{} {what}: {error}", directory.display()),
            })
        };
        std::fs::create_dir_all(directory)
            .map_err(|error| Failure::failed(format!("{}: {error}", directory.display())))?;

        let site = config.site.name.parse().map_err(Failure::failed)?;
        let log_config = EventLogConfig {
            partitions: config.data.partitions,
            reserve_bytes: config.data.reserve_bytes,
            ..EventLogConfig::new(site)
        };
        let log = EmbeddedEventLog::open(disk.clone(), clock.clone(), directory.join("log"), log_config);
        let log = log.await.map_err(|error| opening("log", error))?;

        let volumes = VolumeConfig {
            volume_bytes_max: config.data.volume_bytes,
            prewrite_bytes_min: config.data.prewritten_bytes,
            reserve_bytes: config.data.reserve_bytes,
            ..VolumeConfig::new(directory.join("objects"))
        };
        let (opened_disk, opened_clock) = (disk.clone(), clock.clone());
        let objects = tokio::task::spawn_blocking(move || VolumeStore::open(opened_disk, volumes, opened_clock));
        let objects = objects.await.map_err(Failure::failed)?.map_err(|error| opening("objects", error))?;

        // What is stored up to the reserve can be folded within it.
        let index_config =
            IndexStoreConfig { reserve_bytes: config.data.reserve_bytes / 4, ..IndexStoreConfig::default() };
        let index = EmbeddedIndexStore::open(directory.join("index"), index_config);
        let index = index.await.map_err(|error| opening("index", error))?;

        let kept = QuarantineConfig { total_bytes_max: config.data.quarantine_bytes, ..QuarantineConfig::default() };
        let quarantine = Quarantine::open(disk, directory.join("quarantine"), kept)
            .map_err(|error| Failure::failed(format!("{} quarantine: {error}", directory.display())))?;
        Ok(Self { log: Arc::new(log), objects: Arc::new(objects), index: Arc::new(index), quarantine, clock })
    }

    /// Closes them, so that the next start has nothing to recover.
    pub async fn close(&self) {
        let closed = [
            ("index", self.index.sync(true).await),
            ("log", self.log.close().await),
            ("objects", self.objects.close().await),
        ];
        for (store, outcome) in closed {
            if let Err(error) = outcome {
                tracing::warn!(store, %error, "store did not close in order; the next start recovers it");
            }
        }
    }
}
