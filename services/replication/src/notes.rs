//! What is noted down between restarts: how far this log was read, and how far each peer is. Everything here can be had
//! again from the logs, so a note that is old, or lost, costs time alone.

use crate::{
    reached::{Origin, Reached, Totals},
    sites::Seen,
};
use bytes::Bytes;
use cairn_archive::{EventId, Incarnation, ObjectKey, Offset, Partition, SiteId};
use cairn_service_api::{
    Error, ErrorKind,
    replication::{Report, Risk},
};
use cairn_store_api::{CkRange, Commit, Generation, IndexStore, Mutation, StoreErrorKind, Table};
use prost::Message;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The only table, and the only filling of it.
const TABLE: Table = Table { id: 1, name: "replication" };
const GENERATION: Generation = Generation(1);
/// Longest list of notes of one kind: peers are few.
const NOTES_MAX: usize = 1024;
/// Commits of what is erased are of no partition of the log.
const ERASED_COMMITS: Partition = Partition(u16::MAX);
/// Notes of erased objects that are written at once.
const ERASED_AT_ONCE: usize = 512;

/// A summed-up partition, as it is written down.
#[derive(Clone, PartialEq, Message)]
struct ReachedNote {
    #[prost(uint64, tag = "1")]
    to: u64,
    #[prost(bytes = "bytes", tag = "2")]
    last: Bytes,
    #[prost(message, repeated, tag = "3")]
    origins: Vec<OriginNote>,
    #[prost(message, repeated, tag = "4")]
    totals: Vec<TotalsNote>,
}

#[derive(Clone, PartialEq, Message)]
struct OriginNote {
    #[prost(string, tag = "1")]
    site: String,
    #[prost(uint32, tag = "2")]
    incarnation: u32,
    #[prost(uint64, tag = "3")]
    end: u64,
    #[prost(bytes = "bytes", tag = "4")]
    last: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct TotalsNote {
    #[prost(string, tag = "1")]
    site: String,
    #[prost(uint64, tag = "2")]
    events: u64,
    #[prost(uint64, tag = "3")]
    instances: u64,
    #[prost(uint64, tag = "4")]
    bytes: u64,
    #[prost(uint32, tag = "5")]
    incarnation: u32,
}

/// What a peer told, as it is written down.
#[derive(Clone, PartialEq, Message)]
struct ToldNote {
    #[prost(uint64, tag = "1")]
    came_at_ms: u64,
    #[prost(uint64, tag = "2")]
    at_ms: u64,
    #[prost(uint64, tag = "3")]
    events: u64,
    #[prost(uint64, tag = "4")]
    instances: u64,
    #[prost(uint64, tag = "5")]
    bytes: u64,
    #[prost(uint64, optional, tag = "6")]
    oldest_ms: Option<u64>,
}

/// How far events about sites are known, as it is written down.
#[derive(Clone, PartialEq, Message)]
struct SeenNote {
    #[prost(uint64, tag = "1")]
    to: u64,
    #[prost(bytes = "bytes", tag = "2")]
    last: Bytes,
    #[prost(uint64, repeated, tag = "3")]
    at: Vec<u64>,
}

/// Why the log was found to have strayed, as it is written down.
#[derive(Clone, PartialEq, Message)]
struct StrayedNote {
    #[prost(uint32, tag = "1")]
    incarnation: u32,
    #[prost(string, tag = "2")]
    why: String,
}

/// What was noted of one partition.
#[derive(Default)]
pub(crate) struct PartitionNotes {
    pub(crate) own: Reached,
    pub(crate) peers: BTreeMap<SiteId, Reached>,
}

/// The notes, in an index store of their own.
pub(crate) struct Notes {
    store: Arc<dyn IndexStore>,
    incarnation: Incarnation,
    /// Offset that is committed for each partition, and what was written with it by this process.
    committed: Mutex<BTreeMap<Partition, (Offset, Vec<Mutation>)>>,
    /// How many times it was noted what is erased; `None`: that is to be read.
    erased: tokio::sync::Mutex<Option<Offset>>,
}

impl Notes {
    pub(crate) async fn open(store: Arc<dyn IndexStore>, incarnation: Incarnation) -> Result<Self, Error> {
        let offsets = store.offsets(GENERATION).await?;
        let of_this_life = offsets.into_iter().filter(|(of, ..)| *of == incarnation);
        let committed = of_this_life.map(|(_, partition, offset, _)| (partition, (offset, Vec::new()))).collect();
        Ok(Self { store, incarnation, committed: Mutex::new(committed), erased: tokio::sync::Mutex::default() })
    }

    /// What was noted of a partition in this life of the log; nothing, if it was another.
    pub(crate) async fn partition(&self, partition: Partition) -> Result<PartitionNotes, Error> {
        let mut notes = PartitionNotes::default();
        if !self.committed().contains_key(&partition) {
            return Ok(notes);
        }
        let (pk, all) = (partition_key(partition), CkRange::default());
        for row in self.store.scan(GENERATION, TABLE, &pk, &all, false, NOTES_MAX).await?.rows {
            let note = ReachedNote::decode(row.value).map_err(|_| malformed())?;
            match row.ck.as_ref() {
                [] => notes.own = reached_from(note)?,
                site => drop(notes.peers.insert(site_from(site)?, reached_from(note)?)),
            }
        }
        Ok(notes)
    }

    /// How far events about sites are known.
    pub(crate) async fn sites(&self) -> Result<Seen, Error> {
        let page = self.store.scan(GENERATION, TABLE, &sites_key(), &CkRange::default(), false, 1).await?;
        let Some(row) = page.rows.into_iter().next() else { return Ok(Seen::default()) };
        let SeenNote { to, last, at } = SeenNote::decode(row.value).map_err(|_| malformed())?;
        let last = (!last.is_empty()).then(|| id_from(&last)).transpose()?;
        Ok(Seen { to: Offset(to), last, at: at.into_iter().map(Offset).collect() })
    }

    /// Notes down how far a partition was read, how far peers are in it, and what they told; and what of it is about sites.
    pub(crate) async fn note(
        &self,
        partition: Partition,
        own: &Reached,
        peers: impl Iterator<Item = (SiteId, Reached)>,
        told: impl Iterator<Item = (u64, Report)>,
        sites: Option<Seen>,
        strayed: Option<String>,
    ) -> Result<(), Error> {
        let put = |pk: Bytes, ck: Bytes, value: Vec<u8>| Mutation::Put { table: TABLE, pk, ck, value: value.into() };
        let reached =
            |ck: Bytes, reached: &Reached| put(partition_key(partition), ck, reached_to(reached).encode_to_vec());
        let told = told.map(|(came_at_ms, report)| {
            let Risk { events, instances, bytes, oldest_ms } = report.risk;
            let note = ToldNote { came_at_ms, at_ms: report.at_ms, events, instances, bytes, oldest_ms };
            put(told_key(), report.site.to_string().into(), note.encode_to_vec())
        });
        let strayed = strayed.map(|why| {
            let note = StrayedNote { incarnation: self.incarnation.0, why };
            put(strayed_key(), Bytes::new(), note.encode_to_vec())
        });
        let peers = peers.map(|(site, of)| reached(site.to_string().into(), &of));
        let sites = sites.map(|Seen { to, last, at }| {
            let last = last.as_ref().map(id_to).unwrap_or_default();
            let note = SeenNote { to: to.0, last, at: at.into_iter().map(|offset| offset.0).collect() };
            put(sites_key(), Bytes::new(), note.encode_to_vec())
        });
        let own_row = reached(Bytes::new(), own);
        let mutations: Vec<_> = std::iter::once(own_row).chain(peers).chain(told).chain(sites).chain(strayed).collect();
        let (from, written) = self.committed().get(&partition).cloned().unwrap_or_default();
        if mutations == written {
            return Ok(());
        }
        let note = own.last.as_ref().map(id_to).unwrap_or_default();
        let to = own.to.max(from);
        let (incarnation, mutations_now) = (self.incarnation, mutations.clone());
        let commit = Commit { incarnation, partition, from, to, note, mutations: mutations_now, purge: false };
        match self.store.commit(GENERATION, commit).await {
            Ok(()) => {
                self.committed().insert(partition, (to, mutations));
                Ok(())
            }
            // The outcome of the one before may be other than was thought: the next one goes on from what is.
            Err(error) if error.kind() == StoreErrorKind::Conflict => {
                let offset = self.store.offset(GENERATION, partition).await?;
                let offset =
                    offset.filter(|(of, ..)| *of == self.incarnation).map_or(Offset(0), |(_, offset, _)| offset);
                self.committed().insert(partition, (offset, Vec::new()));
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an object is erased, as far as this site's log was read, or as another site said.
    pub(crate) async fn is_erased(&self, key: &ObjectKey) -> Result<bool, Error> {
        Ok(self.store.get(GENERATION, TABLE, &erased_key(), key.as_bytes()).await?.is_some())
    }

    /// Notes down that objects are erased.
    pub(crate) async fn note_erased(&self, keys: &[ObjectKey]) -> Result<(), Error> {
        let mut erased = self.erased.lock().await;
        for some in keys.chunks(ERASED_AT_ONCE) {
            let from = match *erased {
                Some(offset) => offset,
                None => {
                    let offset = self.store.offset(GENERATION, ERASED_COMMITS).await?;
                    let of_this_life = offset.filter(|(of, ..)| *of == self.incarnation);
                    of_this_life.map_or(Offset(0), |(_, offset, _)| offset)
                }
            };
            // Should this fail, or be dropped, nobody knows the number.
            *erased = None;
            let put = |key: &ObjectKey| {
                let ck = Bytes::copy_from_slice(key.as_bytes());
                Mutation::Put { table: TABLE, pk: erased_key(), ck, value: Bytes::from_static(&[1]) }
            };
            let (incarnation, partition, to) = (self.incarnation, ERASED_COMMITS, from.next());
            let (note, mutations) = (Bytes::new(), some.iter().map(put).collect());
            self.store
                .commit(GENERATION, Commit { incarnation, partition, from, to, note, mutations, purge: false })
                .await?;
            *erased = Some(to);
        }
        Ok(())
    }

    /// Why the log was found to have strayed in its present life, if it was.
    pub(crate) async fn strayed(&self) -> Result<Option<String>, Error> {
        let Some(row) = self.store.get(GENERATION, TABLE, &strayed_key(), &[]).await? else { return Ok(None) };
        let note = StrayedNote::decode(row).map_err(|_| malformed())?;
        Ok((note.incarnation == self.incarnation.0).then_some(note.why))
    }

    /// What each peer told last, and when that came.
    pub(crate) async fn told(&self) -> Result<BTreeMap<SiteId, (u64, Report)>, Error> {
        let page = self.store.scan(GENERATION, TABLE, &told_key(), &CkRange::default(), false, NOTES_MAX).await?;
        let mut told = BTreeMap::new();
        for row in page.rows {
            let site = site_from(&row.ck)?;
            let ToldNote { came_at_ms, at_ms, events, instances, bytes, oldest_ms } =
                ToldNote::decode(row.value).map_err(|_| malformed())?;
            let risk = Risk { events, instances, bytes, oldest_ms };
            told.insert(site.clone(), (came_at_ms, Report { site, at_ms, risk }));
        }
        Ok(told)
    }

    fn committed(&self) -> std::sync::MutexGuard<'_, BTreeMap<Partition, (Offset, Vec<Mutation>)>> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn close(&self) -> Result<(), Error> {
        Ok(self.store.sync(true).await?)
    }
}

fn malformed() -> Error {
    Error::new(ErrorKind::Corrupt, "a note of replication can't be read")
}

fn partition_key(partition: Partition) -> Bytes {
    Bytes::copy_from_slice(&partition.0.to_be_bytes())
}

fn told_key() -> Bytes {
    Bytes::from_static(b"told")
}

fn sites_key() -> Bytes {
    Bytes::from_static(b"sites")
}

fn erased_key() -> Bytes {
    Bytes::from_static(b"erased")
}

fn strayed_key() -> Bytes {
    Bytes::from_static(b"strayed")
}

fn site_from(text: &[u8]) -> Result<SiteId, Error> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)
}

fn id_from(bytes: &[u8]) -> Result<EventId, Error> {
    EventId::from_slice(bytes).map_err(|_| malformed())
}

fn id_to(id: &EventId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn reached_to(reached: &Reached) -> ReachedNote {
    let origin = |((site, incarnation), (end, last)): (&Origin, &(Offset, EventId))| OriginNote {
        site: site.to_string(),
        incarnation: incarnation.0,
        end: end.0,
        last: id_to(last),
    };
    let totals = |((site, incarnation), totals): (&Origin, &Totals)| TotalsNote {
        site: site.to_string(),
        incarnation: incarnation.0,
        events: totals.events,
        instances: totals.instances,
        bytes: totals.bytes,
    };
    ReachedNote {
        to: reached.to.0,
        last: reached.last.as_ref().map(id_to).unwrap_or_default(),
        origins: reached.origins.iter().map(origin).collect(),
        totals: reached.totals.iter().map(totals).collect(),
    }
}

fn reached_from(note: ReachedNote) -> Result<Reached, Error> {
    let mut reached = Reached { to: Offset(note.to), ..Reached::default() };
    if !note.last.is_empty() {
        reached.last = Some(id_from(&note.last)?);
    }
    for origin in note.origins {
        let key = (site_from(origin.site.as_bytes())?, Incarnation(origin.incarnation));
        reached.origins.insert(key, (Offset(origin.end), id_from(&origin.last)?));
    }
    for totals in note.totals {
        let TotalsNote { site, events, instances, bytes, incarnation } = totals;
        // Notes of builds that knew of one life don't say which.
        let origin = (site_from(site.as_bytes())?, Incarnation(incarnation.max(1)));
        reached.totals.insert(origin, Totals { events, instances, bytes });
    }
    Ok(reached)
}
