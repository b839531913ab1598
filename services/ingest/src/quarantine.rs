//! Quarantine: what was refused, kept for a while so that people can see why. Bounded by entries, bytes, age and rate;
//! the oldest make room for the newest.
//!
//! One file per entry in one directory: magic and version, length of the facts (32 bits, little endian), the facts as
//! an encoded `Facts`, the kept bytes. A file is written under a name that ends in `.part`, synced, then renamed to
//! its id; `.part` files found at start are of a process that died, and are removed.

use crate::metrics;
use bytes::Bytes;
use cairn_archive::EventId;
use cairn_process::{disk::Disk, disk::DiskFile, units};
use cairn_service_api::{AnswerStream, Error, ErrorKind, ingest::QuarantineEntry};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

const MAGIC: &[u8; 8] = b"CAIRNQ\0\x01";
const PREFIX_BYTES: u64 = 12;
const FACTS_BYTES_MAX: u32 = 64 << 10;
const CHUNK_BYTES: u64 = 64 << 10;

/// Bounds of the quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuarantineConfig {
    /// Bytes kept of one input.
    #[serde(with = "units::size")]
    pub input_bytes_max: u64,
    /// Bytes kept in all.
    #[serde(with = "units::size")]
    pub total_bytes_max: u64,
    /// Inputs kept.
    pub entries_max: usize,
    /// Time that an input is kept.
    #[serde(with = "units::duration")]
    pub keep_for: Duration,
    /// Inputs taken per minute; the rest is counted, not kept.
    pub entries_per_minute_max: u32,
}

impl Default for QuarantineConfig {
    fn default() -> Self {
        Self {
            input_bytes_max: 1 << 20,
            total_bytes_max: 256 << 20,
            entries_max: 4_096,
            keep_for: Duration::from_secs(30 * 86_400),
            entries_per_minute_max: 60,
        }
    }
}

/// What is written down of an entry.
#[derive(Clone, PartialEq, Message)]
struct Facts {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    calling_ae_title: String,
    #[prost(uint64, tag = "3")]
    refused_at_ms: u64,
    #[prost(uint64, tag = "4")]
    length: u64,
    #[prost(bool, tag = "5")]
    complete: bool,
}

/// A refused input on its way into quarantine.
pub(crate) struct Refused {
    pub(crate) id: EventId,
    pub(crate) refused_at_ms: u64,
    pub(crate) reason: &'static str,
    pub(crate) calling_ae_title: String,
    pub(crate) bytes: Vec<Bytes>,
    pub(crate) complete: bool,
}

#[derive(Clone, Debug)]
struct Kept {
    facts: Facts,
    file_bytes: u64,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<EventId, Kept>,
    bytes: u64,
    /// Minute that `taken` is of, by the site's clock.
    minute: u64,
    taken: u32,
}

struct Inner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    config: QuarantineConfig,
    /// Held while an entry is written or removed, so that the bounds hold.
    changing: Mutex<()>,
    state: Mutex<State>,
}

/// The quarantine, in one directory. Cloning is cheap.
#[derive(Clone)]
pub struct Quarantine(Arc<Inner>);

impl Quarantine {
    /// Opens the quarantine in `dir`, which is made when it is not there. Blocking: reads the facts of every entry.
    pub fn open(disk: Arc<dyn Disk>, dir: PathBuf, config: QuarantineConfig) -> io::Result<Self> {
        create_durably(disk.as_ref(), &dir)?;
        let inner = Inner { disk, dir, config, changing: Mutex::default(), state: Mutex::default() };
        let mut state = State::default();
        for name in inner.disk.list(&inner.dir)? {
            match name.parse::<EventId>() {
                Ok(id) => {
                    // An entry that can't be read is left for people to look at, not counted.
                    if let Ok((kept, _)) = inner.read_facts(id) {
                        state.bytes += kept.file_bytes;
                        state.entries.insert(id, kept);
                    }
                }
                Err(_) if name.ends_with(".part") => inner.disk.remove(&inner.dir.join(&name))?,
                Err(_) => {}
            }
        }
        metrics::quarantined(state.entries.len(), state.bytes);
        *inner.state() = state;
        Ok(Self(Arc::new(inner)))
    }

    /// Bytes that an entry keeps at most.
    pub(crate) fn input_bytes_max(&self) -> usize {
        usize::try_from(self.0.config.input_bytes_max).unwrap_or(usize::MAX)
    }

    /// Keeps a refused input; tells whether it did. It is counted in any case, and never fails the caller.
    pub(crate) async fn keep(&self, refused: Refused) -> bool {
        let inner = self.0.clone();
        let kept = match inner.admit(refused.refused_at_ms) {
            true => tokio::task::spawn_blocking(move || inner.write(&refused)).await,
            false => Ok(Ok(false)),
        };
        let kept = match kept {
            Ok(Ok(kept)) => kept,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a refused input could not be kept in quarantine");
                false
            }
            Err(_) => false,
        };
        if !kept {
            metrics::not_quarantined();
        }
        kept
    }

    /// Entries, newest first; those past their time are removed.
    pub(crate) async fn list(&self, now_ms: u64) -> Result<Vec<QuarantineEntry>, Error> {
        let inner = self.0.clone();
        let listed = tokio::task::spawn_blocking(move || {
            let changing = inner.changing.lock().unwrap_or_else(PoisonError::into_inner);
            inner.make_room(now_ms, 0)?;
            drop(changing);
            let entry = |(id, kept): (&EventId, &Kept)| QuarantineEntry {
                id: *id,
                refused_at_ms: kept.facts.refused_at_ms,
                reason: kept.facts.reason.clone(),
                calling_ae_title: kept.facts.calling_ae_title.clone(),
                length: kept.facts.length,
                complete: kept.facts.complete,
            };
            Ok::<_, io::Error>(inner.state().entries.iter().rev().map(entry).collect())
        });
        finished(listed.await)
    }

    /// The kept bytes of an entry.
    pub(crate) async fn read(&self, id: EventId) -> Result<AnswerStream<Bytes>, Error> {
        if !self.0.state().entries.contains_key(&id) {
            return Err(Error::new(ErrorKind::NotFound, format!("quarantine has no entry {id}")));
        }
        let inner = self.0.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let (kept, file) = inner.read_facts(id)?;
            Ok((kept.file_bytes.saturating_sub(kept.facts.length), kept.file_bytes, file))
        });
        let (start, end, file) = finished(opened.await)?;
        let chunks = futures_util::stream::try_unfold((start, file), move |(at, file)| async move {
            if at >= end {
                return Ok(None);
            }
            let length = (end - at).min(CHUNK_BYTES);
            let read = tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; length as usize];
                file.read_exact_at(&mut chunk, at)?;
                Ok((Bytes::from(chunk), file))
            });
            let (chunk, file) = finished(read.await)?;
            Ok(Some((chunk, (at + length, file))))
        });
        Ok(Box::pin(chunks))
    }
}

/// Makes a directory, and the names of all that had to be made for it durable.
fn create_durably(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let missing: Vec<_> = dir.ancestors().take_while(|ancestor| disk.list(ancestor).is_err()).collect();
    disk.create_dir_all(dir)?;
    missing.iter().filter_map(|made| made.parent()).try_for_each(|parent| disk.sync_dir(parent))
}

fn finished<T>(outcome: Result<io::Result<T>, tokio::task::JoinError>) -> Result<T, Error> {
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::new(ErrorKind::Unavailable, format!("quarantine: {error}"))),
        Err(_) => Err(Error::new(ErrorKind::Internal, "quarantine: reading was cut short")),
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more may be taken in this minute.
    fn admit(&self, now_ms: u64) -> bool {
        let mut state = self.state();
        let minute = now_ms / 60_000;
        if state.minute != minute {
            (state.minute, state.taken) = (minute, 0);
        }
        let admitted = state.taken < self.config.entries_per_minute_max;
        state.taken += u32::from(admitted);
        admitted
    }

    fn write(&self, refused: &Refused) -> io::Result<bool> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self.config.input_bytes_max;
        let mut pieces = Vec::new();
        for piece in &refused.bytes {
            let taken = (piece.len() as u64).min(left);
            pieces.push(piece.slice(..taken as usize));
            left -= taken;
        }
        let given: u64 = refused.bytes.iter().map(|piece| piece.len() as u64).sum();
        let length = self.config.input_bytes_max - left;
        let facts = Facts {
            reason: refused.reason.to_owned(),
            calling_ae_title: refused.calling_ae_title.clone(),
            refused_at_ms: refused.refused_at_ms,
            length,
            complete: refused.complete && given == length,
        };
        let encoded = facts.encode_to_vec();
        let file_bytes = PREFIX_BYTES + encoded.len() as u64 + length;
        if !self.make_room(refused.refused_at_ms, file_bytes)? {
            return Ok(false);
        }
        let mut head = MAGIC.to_vec();
        head.extend((encoded.len() as u32).to_le_bytes());
        head.extend(encoded);
        self.write_file(refused.id, &head, &pieces)?;
        let mut state = self.state();
        state.bytes += file_bytes;
        state.entries.insert(refused.id, Kept { facts, file_bytes });
        metrics::quarantined(state.entries.len(), state.bytes);
        Ok(true)
    }

    fn write_file(&self, id: EventId, head: &[u8], pieces: &[Bytes]) -> io::Result<()> {
        let part = self.dir.join(format!("{id}.part"));
        let file = self.disk.create_new(&part)?;
        let written = (|| {
            file.write_all_at(head, 0)?;
            let mut at = head.len() as u64;
            for piece in pieces {
                file.write_all_at(piece, at)?;
                at += piece.len() as u64;
            }
            file.sync_data()?;
            self.disk.rename(&part, &self.dir.join(id.to_string()))?;
            self.disk.sync_dir(&self.dir)
        })();
        if written.is_err() {
            // Best effort: what is left is removed at the next start.
            let _ = self.disk.remove(&part);
        }
        written
    }

    /// Removes what is past its time, and the oldest until `wanted` bytes fit. `false`: they never fit.
    fn make_room(&self, now_ms: u64, wanted: u64) -> io::Result<bool> {
        if wanted > self.config.total_bytes_max || self.config.entries_max == 0 {
            return Ok(false);
        }
        let keep_ms = u64::try_from(self.config.keep_for.as_millis()).unwrap_or(u64::MAX);
        loop {
            let state = self.state();
            let over = state.bytes + wanted > self.config.total_bytes_max
                || (wanted > 0 && state.entries.len() >= self.config.entries_max);
            let oldest = state.entries.iter().next().map(|(id, kept)| (*id, kept.facts.refused_at_ms));
            drop(state);
            let Some((id, refused_at_ms)) = oldest else { return Ok(true) };
            if !over && now_ms.saturating_sub(refused_at_ms) <= keep_ms {
                return Ok(true);
            }
            match self.disk.remove(&self.dir.join(id.to_string())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut state = self.state();
            if let Some(removed) = state.entries.remove(&id) {
                state.bytes = state.bytes.saturating_sub(removed.file_bytes);
            }
            metrics::quarantined(state.entries.len(), state.bytes);
        }
    }

    fn read_facts(&self, id: EventId) -> io::Result<(Kept, Arc<dyn DiskFile>)> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "quarantine entry is damaged");
        let file = self.disk.open(&self.dir.join(id.to_string()))?;
        let mut prefix = [0; PREFIX_BYTES as usize];
        file.read_exact_at(&mut prefix, 0)?;
        let (magic, length) = prefix.split_at(MAGIC.len());
        let length = u32::from_le_bytes(length.try_into().map_err(|_| damaged())?);
        if magic != MAGIC || length > FACTS_BYTES_MAX {
            return Err(damaged());
        }
        let mut encoded = vec![0; length as usize];
        file.read_exact_at(&mut encoded, PREFIX_BYTES)?;
        let facts = Facts::decode(encoded.as_slice()).map_err(|_| damaged())?;
        let file_bytes = PREFIX_BYTES + u64::from(length) + facts.length;
        if file.len()? < file_bytes {
            return Err(damaged());
        }
        Ok((Kept { facts, file_bytes }, file))
    }
}

#[cfg(test)]
mod tests;
