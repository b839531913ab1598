//! The stores under the roles of this process. Alone knows adapters.

pub mod cluster;
pub mod keys;
mod tiers;

use crate::{
    commands::Failure,
    config::{Config, IndexKind, LogKind, ObjectsKind, StoresConfig},
    endpoints::Endpoints,
    roles::Roles,
};
use cairn_archive::{Offset, Partition};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_ingest::{Quarantine, QuarantineConfig};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::{
    clock::{Clock, SystemClock},
    disk::{Disk, RealDisk},
};
use cairn_sealed_log::SealedEventLog;
use cairn_store_api::{
    EventLog, IndexStore, KeyRing, Membership, ObjectStore, SealedLog, StoreError, StoreErrorKind, Tiers, WholeLog,
};
use std::{path::Path, sync::Arc};

/// The stores, open; those that no role here uses are `None`.
pub struct Stores {
    /// As services see it: what they append is sealed, what they read is opened.
    pub log: Option<Arc<dyn EventLog>>,
    /// As it is stored.
    pub log_as_stored: Option<Arc<dyn EventLog>>,
    /// What events are sealed under. A log that several processes share has none yet.
    pub keys: Option<Arc<KeyRing>>,
    /// Joins those who share the log's partitions.
    pub join: Option<Join>,
    pub objects: Option<Arc<dyn ObjectStore>>,
    /// The same as the two stores that it is made of, where it is.
    pub tiers: Option<Arc<dyn Tiers>>,
    /// For second copies; opened when it is wanted.
    pub copies: Option<Arc<dyn ObjectStore>>,
    pub index: Option<Arc<dyn IndexStore>>,
    /// Replication's, where there are other sites: of this process alone, whatever the other stores are.
    pub notes: Option<Arc<dyn IndexStore>>,
    /// Lifecycle's: of this process alone, too.
    pub lifecycle_notes: Option<Arc<dyn IndexStore>>,
    /// Ingest's.
    pub quarantine: Option<Quarantine>,
    pub clock: Arc<dyn Clock>,
}

/// Begins to share the partitions of a log with the other index processes.
pub type Join = Box<dyn FnOnce() -> Result<Box<dyn Membership>, StoreError> + Send + Sync>;

/// Whether all of them are in this machine's data directory: they open at once or not at all.
pub fn are_embedded(stores: &StoresConfig) -> bool {
    (stores.log, stores.objects, stores.index) == (LogKind::Embedded, ObjectsKind::Volumes, IndexKind::Embedded)
}

impl Stores {
    /// Opens those that the roles use, creating what is not there in the data directory. Stores of a cluster that can't be
    /// reached are waited for.
    ///
    /// # Cancel safety
    /// Dropped, it leaves what it opened closed.
    pub async fn open(config: &Config, roles: Roles) -> Result<Self, Failure> {
        let directory = &config.data.directory;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let mut stores = Self {
            log: None,
            log_as_stored: None,
            keys: None,
            join: None,
            objects: None,
            tiers: None,
            copies: None,
            index: None,
            notes: None,
            lifecycle_notes: None,
            quarantine: None,
            clock: clock.clone(),
        };
        if roles.objects() {
            let tiers::Opened { objects, tiers } = tiers::open(config, &disk, &clock).await?;
            (stores.objects, stores.tiers) = (Some(objects), tiers);
        }
        if roles.log() {
            let (log, join) = log(config, &disk, &clock).await?;
            let log = with_ranges(log, stores.objects.clone(), config, &disk, &clock).await?;
            stores.join = roles.index.then_some(join);
            // Whoever has the log has its keys: nobody else makes some meanwhile.
            stores.keys = keys::ring(config, &disk).await?;
            stores.log = Some(Arc::new(SealedLog::new(log.clone(), stores.keys.clone())));
            stores.log_as_stored = Some(log);
        }
        if roles.index {
            stores.index = Some(index(config).await?);
        }
        if roles.replication && !config.replication.peers.is_empty() {
            stores.notes = Some(notes(config, "replication").await?);
        }
        if roles.lifecycle {
            stores.lifecycle_notes = Some(notes(config, "lifecycle").await?);
            stores.copies = tiers::copies(config, &disk, &clock);
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
        if let Some(copies) = &self.copies {
            closed.push(("copies", copies.close().await));
        }
        if let Some(keys) = &self.keys {
            closed.push(("keys", keys.store().close().await));
        }
        for (store, outcome) in closed {
            if let Err(error) = outcome {
                tracing::warn!(store, %error, "store did not close in order; the next start recovers it");
            }
        }
    }
}

fn failed(directory: &Path, what: &str, error: StoreError) -> Failure {
    let is_running = |endpoints: &Endpoints| endpoints.are_of_a_living_process();
    let running = Endpoints::read(directory).filter(|_| error.kind() == StoreErrorKind::Conflict).filter(is_running);
    Failure::failed(match running {
        Some(running) => {
            let whose = format!("process {}, gRPC on {}", running.pid, running.grpc);
            format!("{} is in use by a running archive ({whose})", directory.display())
        }
        None => format!("{} {what}: {error}", directory.display()),
    })
}

/// Opens the log for a new life to be begun; `alone`: nobody else appends to it from then on.
pub async fn log_to_renew(config: &Config, alone: bool) -> Result<Arc<dyn EventLog>, Failure> {
    match config.stores.log {
        // Nobody else can have it open.
        LogKind::Embedded => log_alone(config).await,
        LogKind::Kafka => cluster::log_to_renew(config, alone).await,
    }
}

/// Opens the log and nothing else, to read all of it as it is stored.
pub async fn log_alone(config: &Config) -> Result<Arc<dyn EventLog>, Failure> {
    let (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>) = (Arc::new(RealDisk), Arc::new(SystemClock::new()));
    let log = log(config, &disk, &clock).await?.0;
    with_ranges(log, None, config, &disk, &clock).await
}

/// The log, which reads out of sealed ranges what it has lost. Who has no use for objects opens them only if it has.
async fn with_ranges(
    log: Arc<dyn EventLog>,
    objects_here: Option<Arc<dyn ObjectStore>>,
    config: &Config,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn EventLog>, Failure> {
    // A log of files of its own has everything, or does not open.
    if config.stores.log == LogKind::Embedded {
        return Ok(log);
    }
    let failed = |error: StoreError| Failure::failed(format!("log: {error}"));
    let ranges_in = match objects_here {
        Some(objects) => objects,
        None if !has_lost(&*log).await.map_err(failed)? => return Ok(log),
        None => tiers::open(config, disk, clock).await?.objects,
    };
    Ok(Arc::new(SealedEventLog::open(log, ranges_in).await.map_err(failed)?))
}

async fn has_lost(log: &dyn EventLog) -> Result<bool, StoreError> {
    for partition in (0..log.partitions()).map(Partition) {
        if log.beginning(partition).await? > Offset(0) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn log(
    config: &Config,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
) -> Result<(Arc<dyn EventLog>, Join), Failure> {
    let directory = &config.data.directory;
    match config.stores.log {
        LogKind::Embedded => {
            let log_config = EventLogConfig {
                partitions: config.data.partitions,
                reserve_bytes: config.data.reserve_bytes,
                ..EventLogConfig::new(config.site.name.parse().map_err(Failure::failed)?)
            };
            let log = EmbeddedEventLog::open(disk.clone(), clock.clone(), directory.join("log"), log_config);
            let log = log.await.map_err(|error| failed(directory, "log", error))?;
            let partitions = log.partitions();
            Ok((Arc::new(log), Box::new(move || Ok(Box::new(WholeLog::new(partitions))))))
        }
        LogKind::Kafka => cluster::log(config).await,
    }
}

/// The objects, where they come in.
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
        ObjectsKind::S3 => cluster::objects(config, clock).await,
    }
}

/// A few rows, written again and again.
async fn notes(config: &Config, of: &str) -> Result<Arc<dyn IndexStore>, Failure> {
    let directory = config.data.directory.join(of);
    let bounds = IndexStoreConfig {
        cache_bytes: 1 << 20,
        memtable_bytes: 1 << 20,
        reserve_bytes: config.data.reserve_bytes / 4,
        ..IndexStoreConfig::default()
    };
    let store = EmbeddedIndexStore::open(directory.clone(), bounds).await;
    Ok(Arc::new(store.map_err(|error| failed(&directory, "notes", error))?))
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
        IndexKind::Cql => cluster::index(config).await,
    }
}
