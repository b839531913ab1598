//! Sharing partitions: a consumer group that assigns them and reads nothing. Shares move one by one (cooperative-sticky):
//! those that stay are followed on while others move.

use crate::{
    client::{self, failed},
    config::KafkaConfig,
    metrics,
};
use async_trait::async_trait;
use cairn_archive::Partition;
use cairn_store_api::{Membership, Release, ShareChange, StoreError};
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
    error::KafkaError,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc as sync_mpsc,
    },
    time::Duration,
};
use tokio::sync::mpsc;

const POLL: Duration = Duration::from_millis(100);
const HEARTBEAT_MAX: Duration = Duration::from_millis(500);

/// This process's part in a group.
pub(crate) struct GroupMembership {
    changes: mpsc::UnboundedReceiver<ShareChange>,
    left: Arc<AtomicBool>,
}

struct Group {
    partitions: u16,
    handover: Duration,
    // Bounded by what a rebalance is: each is handed over before the next.
    changes: mpsc::UnboundedSender<ShareChange>,
    left: Arc<AtomicBool>,
}

impl GroupMembership {
    pub(crate) fn join(config: &KafkaConfig, group: &str) -> Result<Self, StoreError> {
        let (sender, changes) = mpsc::unbounded_channel();
        let left = Arc::new(AtomicBool::new(false));
        let context = Group {
            partitions: config.partitions,
            handover: config.handover_timeout,
            changes: sender,
            left: left.clone(),
        };
        // A member hears of others who come and go with its next heartbeat: often, so that partitions wait for nobody long.
        let heartbeat = (config.session_timeout.as_millis() / 4).clamp(100, HEARTBEAT_MAX.as_millis());
        let mut client = client::consumer(config, group, Duration::from_millis(500));
        client
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("auto.offset.reset", "latest")
            .set("session.timeout.ms", config.session_timeout.as_millis().to_string())
            .set("heartbeat.interval.ms", heartbeat.to_string());
        let consumer = BaseConsumer::from_config_and_context(&client, context);
        let consumer: BaseConsumer<Group> = consumer.map_err(|error| failed("share log", &error))?;
        consumer.subscribe(&[&config.topic]).map_err(|error| failed("share log", &error))?;
        let run = move || {
            while !consumer.context().left.load(Ordering::Acquire) {
                // Nothing is read: what is assigned is paused.
                if let Some(Err(error)) = consumer.poll(POLL) {
                    tracing::debug!(%error, "sharing the log");
                }
            }
            // Dropped here, which leaves the group at once.
        };
        let thread = std::thread::Builder::new().name("cairn-log-share".into()).spawn(run);
        thread.map_err(|error| StoreError::io("share kafka log", &error))?;
        Ok(Self { changes, left })
    }
}

impl Drop for GroupMembership {
    fn drop(&mut self) {
        self.left.store(true, Ordering::Release);
    }
}

#[async_trait]
impl Membership for GroupMembership {
    async fn next(&mut self) -> Option<ShareChange> {
        self.changes.recv().await
    }
}

impl Group {
    /// The log's own partitions among those assigned.
    fn of(&self, list: &TopicPartitionList) -> Vec<Partition> {
        let partitions = list.elements().into_iter().filter_map(|element| u16::try_from(element.partition()).ok());
        let mut partitions: Vec<_> =
            partitions.filter(|partition| *partition < self.partitions).map(Partition).collect();
        partitions.sort_unstable();
        partitions
    }

    fn lost(&self, partitions: Vec<Partition>) {
        if partitions.is_empty() {
            return;
        }
        metrics::share_changed();
        let (released, wait) = sync_mpsc::channel::<()>();
        let release = Release::new(move || drop(released));
        if self.changes.send(ShareChange::Lost(partitions, release)).is_ok()
            && wait.recv_timeout(self.handover) == Err(sync_mpsc::RecvTimeoutError::Timeout)
        {
            tracing::warn!("partitions are given up although their followers did not stop in time");
        }
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::Context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::Context.error(error, reason);
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            self.lost(self.of(list));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(list) = rebalance else { return };
        // Before the client knows where to begin: it fetches nothing.
        let mut paused = TopicPartitionList::new();
        for element in list.elements() {
            let _ = paused.add_partition_offset(element.topic(), element.partition(), Offset::Invalid);
        }
        if let Err(error) = consumer.pause(&paused) {
            tracing::warn!(%error, "what is shared is also read");
        }
        let gained = self.of(list);
        if !gained.is_empty() {
            metrics::share_changed();
            // Whoever asked may be gone.
            let _ = self.changes.send(ShareChange::Gained(gained));
        }
    }
}
