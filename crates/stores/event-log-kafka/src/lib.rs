//! The event log of a cluster: a topic of Apache Kafka.
//!
//! * [`create_topic`] is the administrative step; [`KafkaEventLog::open`] checks what it made and refuses a topic whose
//!   settings don't keep the port's promises.
//! * An append has succeeded once the brokers reported each record (idempotent producer, `acks=all`). A failure other than
//!   `Invalid` means that the outcome is unknown.
//! * Readers see what all in-sync replicas have. Offsets are the topic's own: without transactions, compaction and
//!   retention they begin at 0 and have no gaps. They are kept by whoever follows the log.
//! * A record that something else than an archive wrote into the topic is given at its offset, with an envelope that says that
//!   it has none ([`cairn_archive::Envelope::unreadable`]): followers park it and go on.
//! * [`KafkaEventLog::open_alone`] opens it for a new life to be begun; every other opening is of no use from then on.
//! * [`KafkaEventLog::join`] shares the partitions among processes, as [`cairn_store_api::Membership`]: it says who follows
//!   what and nothing else.
//! * Append times are the brokers' (`LogAppendTime`). They never decrease while the brokers' clocks don't step back.
//! * Records of one append are adjacent among those of one process; another process's may come between where batches end.
#![forbid(unsafe_code)]

mod append;
mod client;
mod config;
mod ends;
mod lives;
mod log;
mod membership;
mod metrics;
mod record;
mod scan;
mod shared;
mod tail;
mod topic;
mod watch;

pub use config::{Compression, KafkaConfig};
pub use log::KafkaEventLog;
pub use topic::{Life, create_topic};
