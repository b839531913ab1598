//! What is noted down between restarts. Everything here can be had again from log and objects, so a note that is old, or
//! lost, costs reading alone.

use bytes::Bytes;
use cairn_archive::{Incarnation, ObjectKey, Offset, Partition};
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::{CkRange, Commit, Generation, IndexStore, Mutation, Table};
use prost::Message;
use std::sync::Arc;
use tokio::sync::Mutex;

/// The only table, and the only filling of it.
const TABLE: Table = Table { id: 1, name: "lifecycle" };
const GENERATION: Generation = Generation(1);
/// Every commit is of it: notes are few, and each is for itself.
const PARTITION: Partition = Partition(0);
const INCARNATION: Incarnation = Incarnation(1);

/// Which notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The round under way, under no key.
    Round,
    /// The last round that came to its end, under no key.
    LastRound,
    /// What is damaged, by object key.
    Damaged,
    /// Transactions of storage commitment, by name.
    Transaction,
    /// Those of them that are not done, by name.
    OpenTransaction,
    /// How far events about storage commitment are known, under no key.
    TransactionsRead,
    /// How far the log was read for holds and erasures, by partition.
    Followed,
    /// Objects that are erased, by key.
    Erased,
    /// How far the log was read for second copies, by partition.
    Copied,
    /// How long lifecycle of this site has been at work, under no key.
    Worked,
    /// How long it had been when it learnt of the request of an erasure, or of a site's death, by the id of the event.
    Learnt,
    /// The wall clock when it was last found right, under no key.
    Clock,
    /// The last run of a policy, by tenant and name.
    PolicyRun,
    /// Studies that wait to be moved to another tier, by tenant and study. These can't be had again: what waits is lost with the notes,
    /// and stays where it is until somebody asks again.
    Move,
    /// The last sealed range that an event names, by partition.
    RangeNamed,
    /// Objects that no event names, by key.
    Orphan,
    /// The last look for them, under no key.
    OrphanLook,
    /// Which of them an operator released, under no key.
    OrphansReleased,
}

impl Kind {
    fn key(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Round => b"round",
            Self::LastRound => b"last-round",
            Self::Damaged => b"damaged",
            Self::Transaction => b"transaction",
            Self::OpenTransaction => b"open-transaction",
            Self::TransactionsRead => b"transactions-read",
            Self::Followed => b"followed",
            Self::Erased => b"erased",
            Self::Copied => b"copied",
            Self::Worked => b"worked",
            Self::Learnt => b"learnt",
            Self::Clock => b"clock",
            Self::PolicyRun => b"policy-run",
            Self::Move => b"move",
            Self::RangeNamed => b"range-named",
            Self::Orphan => b"orphan",
            Self::OrphanLook => b"orphan-look",
            Self::OrphansReleased => b"orphans-released",
        })
    }
}

/// A change of one note.
pub(crate) enum Change {
    Put(Kind, Bytes, Bytes),
    Remove(Kind, Bytes),
}

impl Change {
    pub(crate) fn put(kind: Kind, key: &[u8], note: &impl Message) -> Self {
        Self::Put(kind, Bytes::copy_from_slice(key), note.encode_to_vec().into())
    }

    pub(crate) fn remove(kind: Kind, key: &[u8]) -> Self {
        Self::Remove(kind, Bytes::copy_from_slice(key))
    }
}

/// The notes, in an index store of their own.
pub(crate) struct Notes {
    store: Arc<dyn IndexStore>,
    /// Commits are numbered, so that one that was lost shows. `None`: the number is to be read.
    committed: Mutex<Option<Offset>>,
}

impl Notes {
    pub(crate) fn new(store: Arc<dyn IndexStore>) -> Self {
        Self { store, committed: Mutex::default() }
    }

    pub(crate) async fn get<N: Message + Default>(&self, kind: Kind, key: &[u8]) -> Result<Option<N>, Error> {
        let found = self.store.get(GENERATION, TABLE, &kind.key(), key).await?;
        found.map(|note| N::decode(note).map_err(|_| malformed())).transpose()
    }

    /// Notes of a kind after `after`, in the order of their keys, `max` at most.
    pub(crate) async fn page<N: Message + Default>(
        &self,
        kind: Kind,
        after: Option<Bytes>,
        max: usize,
    ) -> Result<Vec<(Bytes, N)>, Error> {
        // The first key after one is that key with a zero behind it.
        let from = after.map(|key| [key.as_ref(), &[0]].concat().into());
        let range = CkRange { from, ..CkRange::default() };
        let page = self.store.scan(GENERATION, TABLE, &kind.key(), &range, false, max).await?;
        page.rows.into_iter().map(|row| Ok((row.ck, N::decode(row.value).map_err(|_| malformed())?))).collect()
    }

    /// Makes changes, all or none.
    pub(crate) async fn change(&self, changes: Vec<Change>) -> Result<(), Error> {
        let mutations = changes.into_iter().map(|change| match change {
            Change::Put(kind, ck, value) => Mutation::Put { table: TABLE, pk: kind.key(), ck, value },
            Change::Remove(kind, ck) => Mutation::Delete { table: TABLE, pk: kind.key(), ck },
        });
        let mutations = mutations.collect();
        let mut committed = self.committed.lock().await;
        let from = match *committed {
            Some(offset) => offset,
            None => {
                let offset = self.store.offset(GENERATION, PARTITION).await?;
                offset.map_or(Offset(0), |(_, offset, _)| offset)
            }
        };
        // Should this fail, or be dropped, nobody knows the number.
        *committed = None;
        let to = from.next();
        let commit = Commit {
            incarnation: INCARNATION,
            partition: PARTITION,
            from,
            to,
            note: Bytes::new(),
            mutations,
            purge: false,
        };
        self.store.commit(GENERATION, commit).await?;
        *committed = Some(to);
        Ok(())
    }

    /// Whether an object is erased.
    pub(crate) async fn is_erased(&self, key: &ObjectKey) -> Result<bool, Error> {
        Ok(self.store.get(GENERATION, TABLE, &Kind::Erased.key(), key.as_bytes()).await?.is_some())
    }

    pub(crate) async fn close(&self) -> Result<(), Error> {
        Ok(self.store.sync(true).await?)
    }
}

pub(crate) fn malformed() -> Error {
    Error::new(ErrorKind::Corrupt, "a note of lifecycle can't be read")
}
