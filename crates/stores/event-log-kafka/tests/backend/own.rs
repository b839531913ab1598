//! A broker that one trial at a time may harm.

use super::{config, quick_to_renew};
use async_trait::async_trait;
use cairn_archive::{Incarnation, SiteId};
use cairn_conformance::event_log::{EventLogBackend, Faults};
use cairn_event_log_kafka::{Compression, KafkaConfig, KafkaEventLog, create_topic};
use cairn_store_api::{EventLog, StoreError};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// A set of engines with one broker or more, gone when dropped.
pub(crate) struct Engines {
    dir: PathBuf,
}

impl Engines {
    pub(crate) fn start(name: &str, brokers: usize) -> Self {
        let engines = Self { dir: Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kafka-{name}")) };
        engines.run(&["wipe", "kafka"]);
        engines.run(&["start", "kafka", "--brokers", &brokers.to_string()]);
        engines
    }

    /// Runs `tools/engines` on this set.
    pub(crate) fn run(&self, arguments: &[&str]) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        let status =
            Command::new(root.join("tools/engines")).args(arguments).env("CAIRN_ENGINES_DIR", &self.dir).status();
        assert!(status.expect("tools/engines runs").success(), "tools/engines {arguments:?}");
    }

    pub(crate) fn brokers(&self) -> String {
        let text = fs::read_to_string(self.dir.join("endpoints.env")).expect("endpoints");
        let line = text.lines().find_map(|line| line.strip_prefix("CAIRN_TEST_KAFKA=")).expect("brokers");
        line.to_owned()
    }

    fn damage(&self, topic: &str, payload: &[u8]) {
        let (path, at) = find(&self.dir, topic, payload).expect("payload is stored");
        let file = fs::OpenOptions::new().write(true).open(path).expect("segment");
        std::os::unix::fs::FileExt::write_all_at(&file, &[!payload[5]], at + 5).expect("written");
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        self.run(&["wipe", "kafka"]);
    }
}

/// The segment of the topic in which a payload stands, and where.
fn find(dir: &Path, topic: &str, payload: &[u8]) -> Option<(PathBuf, u64)> {
    fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).find_map(|path| {
        if path.is_dir() {
            return find(&path, topic, payload);
        }
        let of_topic = dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(topic));
        let segment = of_topic && path.extension().is_some_and(|extension| extension == "log");
        let bytes = segment.then(|| fs::read(&path).ok())??;
        let at = bytes.windows(payload.len()).position(|window| window == payload)?;
        Some((path, at as u64))
    })
}

static ENGINES: LazyLock<Arc<Mutex<Option<Engines>>>> = LazyLock::new(Arc::default);

/// Wipes the broker, if a trial started it.
pub(crate) fn wipe() {
    if let Ok(mut engines) = ENGINES.try_lock() {
        drop(engines.take());
    }
}

pub(crate) struct OwnBroker {
    topic: KafkaConfig,
    engines: Mutex<Option<OwnedMutexGuard<Option<Engines>>>>,
}

impl OwnBroker {
    pub(crate) fn new() -> Self {
        // Where the brokers are is known once it is this trial's turn.
        let topic = KafkaConfig { compression: Compression::None, ..config("", 0) };
        Self { topic, engines: Mutex::default() }
    }

    async fn brokers(&self) -> String {
        let mut mine = self.engines.lock().await;
        if mine.is_none() {
            *mine = Some(ENGINES.clone().lock_owned().await);
        }
        let engines = mine.as_mut().expect("this trial's turn");
        engines.get_or_insert_with(|| Engines::start("conformance", 1)).brokers()
    }

    async fn with<T>(&self, act: impl FnOnce(&Engines) -> T) -> T {
        let mine = self.engines.lock().await;
        act(mine.as_ref().and_then(|engines| engines.as_ref()).expect("a log was opened"))
    }
}

#[async_trait]
impl EventLogBackend for OwnBroker {
    async fn open(
        &self,
        site: &SiteId,
        incarnation: Incarnation,
        partitions: u16,
    ) -> Result<Arc<dyn EventLog>, StoreError> {
        let config = KafkaConfig { partitions, brokers: self.brokers().await, ..self.topic.clone() };
        create_topic(&config, site, incarnation).await?;
        Ok(Arc::new(KafkaEventLog::open(config, site.clone()).await?))
    }

    async fn open_to_renew(&self, site: &SiteId, partitions: u16) -> Result<Arc<dyn EventLog>, StoreError> {
        let config = KafkaConfig { partitions, brokers: self.brokers().await, ..self.topic.clone() };
        Ok(Arc::new(KafkaEventLog::open_alone(quick_to_renew(config), site.clone()).await?))
    }

    fn record_bytes_max(&self) -> usize {
        self.topic.record_bytes_max as usize
    }

    /// Not a full disk: a broker without room goes away, and appends are `Unavailable`. Not one opening alone: many processes share
    /// a topic by design.
    fn faults(&self) -> Faults {
        Faults { crash: true, damage: true, ..Faults::default() }
    }

    /// The broker's process is killed. That its records are synced before they are acknowledged is checked by the topic's
    /// settings; a loss of power can't be made here.
    async fn crash(&self) {
        self.with(|engines| {
            engines.run(&["kill", "kafka"]);
            engines.run(&["start", "kafka"]);
        })
        .await;
    }

    async fn fill(&self, _full: bool) {
        unreachable!("not declared");
    }

    async fn damage(&self, payload: &[u8]) {
        self.with(|engines| engines.damage(&self.topic.topic, payload)).await;
    }
}
