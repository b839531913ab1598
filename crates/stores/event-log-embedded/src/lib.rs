//! The event log of one machine.
//!
//! All partitions share one sequence of segment files. One thread writes: it drains a bounded queue, writes what it
//! found as one group, syncs once, and answers all callers. While it syncs the next group gathers, so that a caller
//! alone pays for one sync and many callers share one. A record is shown to readers only after its sync.
//!
//! # What is on the disk
//!
//! `meta` says what the log is. `N.segment` is prewritten to its whole length, so that a sync writes data alone; it
//! begins with an opening (which offsets its partitions begin at), followed by groups of records. `N.index` is written
//! once a segment is full, and says where each partition's records are and when they were appended; only a small
//! summary of each is kept in memory. The order is: next segment durable, index durable, opening durable. So recovery
//! reads the last segment alone, however long the log is.
//!
//! # Torn or damaged
//!
//! A group is written only once the one before it was synced. So at most the last group can be unfinished: a group
//! that fails its checksums while a later one is there was durable and is damaged. The former is cut silently, the
//! latter is `Corrupt`: what stands before is given, nothing from there on, and appends are refused. Closing and
//! recovery end the log with a marker, which proves the last group of records too. Between a crash and the next
//! opening a damaged last group can't be told from an unfinished one.
//!
//! A device is relied on to leave alone those bytes of a sector that a write does not change.
//!
//! # Why not a storage engine
//!
//! An engine's own journal would do, but its durability could only be believed: here every write and sync goes through
//! [`Disk`], is recorded in tests, and recovery runs on every prefix and on seeded tears of what was not synced. And
//! its journal replay takes more memory than a whole idle process of ours may. What an engine is for (updates, deletes,
//! compaction) a log does not have.
#![forbid(unsafe_code)]

mod cache;
mod config;
mod files;
mod format;
mod index;
mod log;
mod meta;
mod reader;
mod recovery;
mod scan;
mod shared;
mod writer;

pub use config::EventLogConfig;
pub use log::EmbeddedEventLog;
pub use recovery::Recovery;

#[allow(unused_imports, reason = "named by the documentation above")]
use cairn_process::disk::Disk;
