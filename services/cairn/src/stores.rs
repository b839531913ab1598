//! The stores under the roles of this process. Alone knows adapters.

use crate::{
    commands::Failure,
    config::{Config, IndexKind, LogKind, ObjectsKind},
    endpoints::Endpoints,
    roles::Roles,
};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_ingest::{Quarantine, QuarantineConfig};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::{
    clock::{Clock, SystemClock},
    disk::{Disk, RealDisk},
};
use cairn_store_api::{EventLog, IndexStore, ObjectStore, StoreError, StoreErrorKind};
use std::{path::Path, sync::Arc};

/// The stores, open; those that no role here uses are `None`.
pub struct Stores {
    pub log: Option<Arc<dyn EventLog>>,
    pub objects: Option<Arc<dyn ObjectStore>>,
    pub index: Option<Arc<dyn IndexStore>>,
    /// Ingest's.
    pub quarantine: Option<Quarantine>,
    pub clock: Arc<dyn Clock>,
}

impl Stores {
    /// Opens those that the roles use, creating what is not there.
    pub async fn open(config: &Config, roles: Roles) -> Result<Self, Failure> {
        let directory = &config.data.directory;
        let mut stores =
            Self { log: None, objects: None, index: None, quarantine: None, clock: Arc::new(SystemClock::new()) };
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        std::fs::create_dir_all(directory)
            .map_err(|error| Failure::failed(format!("{}: {error}", directory.display())))?;
        if roles.log() {
            stores.log = Some(log(config, &disk, &stores.clock).await?);
        }
        if roles.objects() {
            stores.objects = Some(objects(config, &disk, &stores.clock).await?);
        }
        if roles.index {
            stores.index = Some(index(config).await?);
        }
        if roles.ingest {
            let kept =
                QuarantineConfig { total_bytes_max: config.data.quarantine_bytes, ..QuarantineConfig::default() };
            let quarantine = Quarantine::open(disk, directory.join("quarantine"), kept);
            let failed = |error| Failure::failed(format!("{} quarantine: {error}", directory.display()));
            stores.quarantine = Some(quarantine.map_err(failed)?);
        }
        Ok(stores)
    }

    /// Closes them, so that the next start has nothing to recover.
    pub async fn close(&self) {
        let mut closed = Vec::new();
        if let Some(index) = &self.index {
            closed.push(("index", index.sync(true).await));
        }
        if let Some(log) = &self.log {
            closed.push(("log", log.close().await));
        }
        if let Some(objects) = &self.objects {
            closed.push(("objects", objects.close().await));
        }
        for (store, outcome) in closed {
            if let Err(error) = outcome {
                tracing::warn!(store, %error, "store did not close in order; the next start recovers it");
            }
        }
    }
}

fn failed(directory: &Path, what: &str, error: StoreError) -> Failure {
    let running = Endpoints::read(directory).filter(|_| error.kind() == StoreErrorKind::Conflict);
    Failure::failed(match running {
        Some(running) => {
            let whose = format!("process {}, gRPC on {}", running.pid, running.grpc);
            format!("{} is in use by a running archive ({whose})", directory.display())
        }
        None => format!("{} {what}: {error}", directory.display()),
    })
}

async fn log(config: &Config, disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>) -> Result<Arc<dyn EventLog>, Failure> {
    let directory = &config.data.directory;
    match config.stores.log {
        LogKind::Embedded => {
            let log_config = EventLogConfig {
                partitions: config.data.partitions,
                reserve_bytes: config.data.reserve_bytes,
                ..EventLogConfig::new(config.site.name.parse().map_err(Failure::failed)?)
            };
            let log = EmbeddedEventLog::open(disk.clone(), clock.clone(), directory.join("log"), log_config);
            Ok(Arc::new(log.await.map_err(|error| failed(directory, "log", error))?))
        }
    }
}

async fn objects(
    config: &Config,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn ObjectStore>, Failure> {
    let directory = &config.data.directory;
    match config.stores.objects {
        ObjectsKind::Volumes => {
            let volumes = VolumeConfig {
                volume_bytes_max: config.data.volume_bytes,
                prewrite_bytes_min: config.data.prewritten_bytes,
                reserve_bytes: config.data.reserve_bytes,
                ..VolumeConfig::new(directory.join("objects"))
            };
            let (disk, clock) = (disk.clone(), clock.clone());
            let objects = tokio::task::spawn_blocking(move || VolumeStore::open(disk, volumes, clock));
            let objects = objects.await.map_err(Failure::failed)?;
            Ok(Arc::new(objects.map_err(|error| failed(directory, "objects", error))?))
        }
    }
}

async fn index(config: &Config) -> Result<Arc<dyn IndexStore>, Failure> {
    let directory = &config.data.directory;
    match config.stores.index {
        IndexKind::Embedded => {
            // What is stored up to the reserve can be folded within it.
            let index_config =
                IndexStoreConfig { reserve_bytes: config.data.reserve_bytes / 4, ..IndexStoreConfig::default() };
            let index = EmbeddedIndexStore::open(directory.join("index"), index_config);
            Ok(Arc::new(index.await.map_err(|error| failed(directory, "index", error))?))
        }
    }
}
