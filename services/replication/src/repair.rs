//! Objects that are damaged or missing here: found where events name them, and brought again from a site that has them.

use crate::{
    metrics,
    named::{Named, named},
    send::Here,
};
use cairn_archive::{ObjectKey, Offset, Partition, SiteId};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Peer,
    replication::{Inspected, Outcome, Suspects},
};
use cairn_store_api::{LogRecord, ObjectRef, ObjectStore, StoreError, StoreErrorKind};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;

/// Records, and bytes of them, that are read at once.
const READ_RECORDS: usize = 64;
const READ_BYTES: usize = 256 << 10;

/// Repairs objects of this site, one at a time.
pub(crate) struct Mender {
    site: SiteId,
    objects: Arc<dyn ObjectStore>,
    peers: Vec<Source>,
    silence_max: Duration,
    turn: tokio::sync::Mutex<()>,
}

struct Source {
    site: SiteId,
    peer: Arc<dyn Peer>,
    /// Objects that came from there.
    repaired: AtomicU64,
}

impl Mender {
    pub(crate) fn new(
        site: SiteId,
        objects: Arc<dyn ObjectStore>,
        peers: Vec<(SiteId, Arc<dyn Peer>)>,
        silence_max: Duration,
    ) -> Self {
        let source = |(site, peer)| Source { site, peer, repaired: AtomicU64::new(0) };
        let peers = peers.into_iter().map(source).collect();
        Self { site, objects, peers, silence_max, turn: tokio::sync::Mutex::default() }
    }

    /// Objects that came from a peer since the start.
    pub(crate) fn repaired_from(&self, site: &SiteId) -> u64 {
        let source = self.peers.iter().find(|source| source.site == *site);
        source.map_or(0, |source| source.repaired.load(Ordering::Relaxed))
    }

    /// Reads an object; if it is damaged or missing, it is brought again from the first peer that gives it.
    ///
    /// # Errors
    /// The store's; `Conflict` when something else is here under its key.
    /// # Cancel safety
    /// It is repaired or as it was.
    pub(crate) async fn mend(&self, object: ObjectRef) -> Result<Outcome, Error> {
        let _turn = self.turn.lock().await;
        if self.is_whole(&object).await? {
            return Ok(Outcome::Whole);
        }
        let mut why = Vec::new();
        for source in &self.peers {
            match self.fetch(&*source.peer, object).await {
                Ok(()) => {
                    source.repaired.fetch_add(1, Ordering::Relaxed);
                    metrics::repaired(&source.site);
                    let key = object.key;
                    tracing::warn!(object = %key, from = %source.site, "an object was damaged or missing: it is repaired");
                    return Ok(Outcome::Repaired { from: source.site.clone() });
                }
                Err(error) => why.push(format!("{}: {error}", source.site)),
            }
        }
        Ok(Outcome::Lost(why.join("; ")))
    }

    async fn is_whole(&self, object: &ObjectRef) -> Result<bool, Error> {
        let read = async {
            let mut bytes = self.objects.read(object, 0..object.length).await?;
            while let Some(chunk) = bytes.next().await {
                chunk?;
            }
            Ok::<_, StoreError>(())
        };
        match read.await {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), StoreErrorKind::Corrupt | StoreErrorKind::NotFound) => Ok(false),
            Err(error) if error.kind() == StoreErrorKind::Invalid => {
                Err(Error::new(ErrorKind::Conflict, format!("object {} has other bytes here", object.key)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Brings an object. The store keeps it only if it is what its event says.
    async fn fetch(&self, peer: &dyn Peer, object: ObjectRef) -> Result<(), Error> {
        let silent = |_| Error::new(ErrorKind::Unavailable, format!("nothing came within {:?}", self.silence_max));
        let asked = timeout(self.silence_max, peer.read_object(&self.site, object)).await;
        let mut bytes = asked.map_err(silent)??;
        let mut writer = self.objects.repair(&object).await?;
        let mut length = 0;
        while let Some(chunk) = timeout(self.silence_max, bytes.next()).await.map_err(silent)? {
            let chunk = chunk?;
            length += chunk.len() as u64;
            if length > object.length {
                return Err(Error::new(ErrorKind::Corrupt, "more bytes came than the object has"));
            }
            writer.write(chunk).await?;
        }
        writer.finish().await?;
        Ok(())
    }
}

/// Looks at objects, and repairs what is damaged or missing.
///
/// # Errors
/// `NotFound`: no event names one.
pub(crate) async fn run(here: Arc<Here>, suspects: Suspects) -> Result<AnswerStream<Inspected>, Error> {
    let partitions = match &suspects {
        Suspects::Known(object) => {
            let inspected = inspect(&here, object.key, Some(*object)).await?;
            return Ok(Box::pin(stream::once(std::future::ready(Ok(inspected)))));
        }
        Suspects::Study(study) => vec![Partition::of_study(study, here.log.partitions())],
        Suspects::Object(_) => (0..here.log.partitions()).map(Partition).collect(),
    };
    let suspects = Arc::new(suspects);
    let looked_at =
        stream::iter(partitions).flat_map(move |partition| named_in(here.clone(), partition, suspects.clone()));
    let mut inspected = Box::pin(looked_at);
    // That there is none at all is said at once.
    let first = inspected.next().await;
    let first = first.ok_or_else(|| Error::new(ErrorKind::NotFound, "no event names such an object"))?;
    Ok(Box::pin(stream::once(std::future::ready(first)).chain(inspected)))
}

/// What events of a partition name of what is meant, each looked at.
fn named_in(
    here: Arc<Here>,
    partition: Partition,
    suspects: Arc<Suspects>,
) -> impl Stream<Item = Result<Inspected, Error>> + Send + 'static {
    let reading = here.clone();
    let batches = stream::try_unfold(Offset(0), move |from| {
        let (here, suspects) = (reading.clone(), suspects.clone());
        async move {
            let batch = here.log.read(partition, from, READ_RECORDS, READ_BYTES).await?;
            let Some(last) = batch.records.last() else { return Ok::<_, Error>(None) };
            let next = last.offset.next();
            let found: Vec<_> = batch.records.iter().flat_map(|record| meant(record, &suspects)).collect();
            Ok(Some((stream::iter(found.into_iter().map(Ok)), next)))
        }
    });
    let notes = here.notes.clone();
    let left = batches.try_flatten().try_filter_map(move |(key, object)| {
        let notes = notes.clone();
        // What is erased is not to be there.
        async move { Ok(if notes.is_erased(&key).await? { None } else { Some((key, object)) }) }
    });
    left.and_then(move |(key, object)| {
        let here = here.clone();
        async move { inspect(&here, key, object).await }
    })
}

/// Of the objects that an event names those that are meant, with what the event says of each.
fn meant(record: &LogRecord, suspects: &Suspects) -> Vec<(ObjectKey, Option<ObjectRef>)> {
    let envelope = &record.record.envelope;
    let is_meant = match suspects {
        Suspects::Study(study) => envelope.study_instance_uid == *study,
        Suspects::Object(key) => envelope.object_keys.contains(key),
        Suspects::Known(_) => false,
    };
    if !is_meant {
        return Vec::new();
    }
    let Named { objects, keys, .. } = named(&record.record);
    let objects = objects.into_iter().map(|object| (object.key, Some(object)));
    let all = objects.chain(keys.into_iter().map(|key| (key, None)));
    all.filter(|(key, _)| !matches!(suspects, Suspects::Object(only) if only != key)).collect()
}

async fn inspect(here: &Here, key: ObjectKey, object: Option<ObjectRef>) -> Result<Inspected, Error> {
    let object = match object {
        Some(object) => object,
        // Its event can't be read, so the store alone says what it should be.
        None => match here.objects.stat(key).await {
            Ok(info) => info.object,
            Err(error) if error.kind() == StoreErrorKind::NotFound => {
                let why = "it is not here, and its event does not say what it is".to_owned();
                return Ok(Inspected { key, length: 0, outcome: Outcome::Lost(why) });
            }
            Err(error) => return Err(error.into()),
        },
    };
    Ok(Inspected { key, length: object.length, outcome: here.mender.mend(object).await? })
}
