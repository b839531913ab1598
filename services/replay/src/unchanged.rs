//! The log to another Cairn, as events unchanged: each keeps its identity and its origin.
//!
//! A site believes that it holds everything of an origin up to the last event that it has of it. So what goes is the log from its
//! beginning on, up to its end or to a time, and nothing is left out: a part chosen otherwise would leave gaps that no one
//! would ever close. What the other site holds already, it says; that is passed over, which is also how a run that was
//! stopped goes on.

use crate::{LogExtent, LogReader, Pace, Patience, Start, Stopped};
use bytes::Bytes;
use cairn_archive::{
    Digest, Incarnation, KeyId, ObjectKey, Offset, Partition, Position, SiteId,
    events::{Event, InstanceStored, Object, event_repaired::Remedy},
    rejection::Titles,
    sealing::keys_of,
};
use cairn_dicom::Uid;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Peer, Retrieval,
    index::InstanceRecord,
    replication::{Delivery, Introduction, Mark, Meeting},
    retrieval::Part,
};
use cairn_store_api::{ObjectRef, Record};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Mutex,
};

/// Events and bytes of payload of one delivery.
const DELIVERY_EVENTS: usize = 256;
const DELIVERY_BYTES: usize = 1 << 20;
/// Objects on their way at once, within a partition.
const OBJECTS_AT_ONCE: usize = 4;

/// A replay as it is asked for.
pub struct Unchanged<'a> {
    /// The log.
    pub log: &'a dyn LogReader,
    /// Gives the objects as they are stored.
    pub retrieval: &'a dyn Retrieval,
    /// The other site.
    pub peer: &'a dyn Peer,
    /// Events that this log took at this time or later are left for another time, in milliseconds since the Unix epoch.
    pub to_ms: Option<u64>,
    /// Partitions under way at once.
    pub partitions_at_once: usize,
    /// How fast; what is counted are store events.
    pub pace: Pace,
    /// How often something is tried.
    pub patience: Patience,
}

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that the log has.
    pub events: u64,
    /// Events dealt with.
    pub read: u64,
    /// Events delivered.
    pub delivered: u64,
    /// Events that the other site held.
    pub held: u64,
    /// Objects sent.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What the other site holds: first offset that it does not, by origin.
type Held = BTreeMap<(SiteId, Incarnation, Partition), Offset>;

struct Run<'a> {
    unchanged: &'a Unchanged<'a>,
    extent: LogExtent,
    meeting: Meeting,
    held: Held,
    counts: Mutex<Counts>,
    on: Mutex<&'a mut (dyn FnMut(&Counts) + Send)>,
}

/// Sends what the other site does not hold. `stop` ends it early.
///
/// # Errors
/// [`Stopped`]; what was answered is durable there.
pub async fn run(
    unchanged: Unchanged<'_>,
    stop: impl Future<Output = ()> + Send,
    on: &mut (dyn FnMut(&Counts) + Send),
) -> Result<Counts, Stopped> {
    let extent = unchanged.log.describe().await?;
    let partitions = u16::try_from(extent.ends.len()).map_err(|_| Stopped::Refused("too many partitions".into()))?;
    let caller = Introduction {
        site: extent.site.clone(),
        incarnation: Incarnation(extent.incarnation),
        partitions,
        marks: Vec::new(),
    };
    let meeting = unchanged.peer.meet(caller).await.map_err(|error| match error.kind {
        ErrorKind::Unavailable => Stopped::Unreachable(error.message),
        _ => Stopped::Refused(error.message),
    })?;
    check(&unchanged, &extent, &meeting).await?;
    let end = |mark: &Mark| ((mark.site.clone(), mark.incarnation, mark.partition), mark.end);
    let held = meeting.holds.iter().map(end).collect();
    let counts = Counts { events: extent.ends.iter().map(|end| end.0).sum(), ..Counts::default() };
    let run = Run { unchanged: &unchanged, extent, meeting, held, counts: Mutex::new(counts), on: Mutex::new(on) };
    let sending = stream::iter((0..partitions).map(Partition).map(Ok))
        .try_for_each_concurrent(unchanged.partitions_at_once.max(1), |partition| run.partition(partition));
    tokio::select! {
        biased;
        () = stop => return Err(Stopped::Interrupted),
        sent = sending => sent?,
    }
    Ok(run.note(|_| {}))
}

/// Whether the two logs can be of one installation, and the other one holds nothing of ours that we do not.
async fn check(unchanged: &Unchanged<'_>, extent: &LogExtent, meeting: &Meeting) -> Result<(), Stopped> {
    let refused = |why: String| Err(Stopped::Refused(why));
    let there = &meeting.site;
    if *there == extent.site {
        return refused(format!("{there} answers there too: it is this site, or has its name"));
    }
    if usize::from(meeting.partitions) != extent.ends.len() {
        return refused(format!("{there} has {} partitions, this site has {}", meeting.partitions, extent.ends.len()));
    }
    for mark in meeting.holds.iter().filter(|mark| mark.site == extent.site) {
        let Some(last) = mark.end.0.checked_sub(1) else { continue };
        let mut records = unchanged.log.read_as_stored(mark.partition, Start::Offset(Offset(last))).await?;
        let envelope = records.next().await.transpose()?.map(|record| record.record.envelope);
        let life = envelope.as_ref().and_then(|envelope| envelope.origin.as_ref()).filter(|at| at.site == extent.site);
        let life = life.map(|origin| origin.incarnation);
        let is_lacked = match &envelope {
            Some(envelope) if life == Some(mark.incarnation) => envelope.id != mark.last,
            // Of a life before the present one; what that had beyond its end was lost with a disk.
            _ => mark.incarnation.0 >= extent.incarnation,
        };
        if is_lacked {
            return refused(format!(
                "{there} holds events of this site that its log has not: it was restored from a backup"
            ));
        }
    }
    Ok(())
}

impl Run<'_> {
    /// Changes the counts, and tells of them.
    fn note(&self, change: impl FnOnce(&mut Counts)) -> Counts {
        let mut counts = self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut counts);
        let counts = counts.clone();
        (self.on.lock().unwrap_or_else(std::sync::PoisonError::into_inner))(&counts);
        counts
    }

    fn holds(&self, origin: &Position) -> bool {
        let held = self.held.get(&(origin.site.clone(), origin.incarnation, origin.partition));
        held.is_some_and(|end| origin.offset < *end)
    }

    async fn partition(&self, partition: Partition) -> Result<(), Stopped> {
        let end = self.extent.ends.get(usize::from(partition.0)).copied().unwrap_or_default();
        let mut records = self.unchanged.log.read_as_stored(partition, Start::Offset(Offset(0))).await?;
        let (mut batch, mut bytes, mut delivered_to, mut read_to) = (Vec::new(), 0, Offset(0), Offset(0));
        while read_to < end {
            let Some(record) = records.next().await.transpose()? else { break };
            if record.offset >= end || self.unchanged.to_ms.is_some_and(|to| record.appended_at_ms >= to) {
                break;
            }
            read_to = record.offset.next();
            let without = || Stopped::Refused("the log gives an event without its origin".into());
            let is_held = self.holds(record.record.envelope.origin.as_ref().ok_or_else(without)?);
            self.note(|counts| {
                counts.read += 1;
                counts.held += u64::from(is_held);
            });
            if is_held {
                continue;
            }
            bytes += record.record.payload.len();
            batch.push(record.record);
            if batch.len() >= DELIVERY_EVENTS || bytes >= DELIVERY_BYTES {
                self.deliver(partition, delivered_to, read_to, std::mem::take(&mut batch)).await?;
                (bytes, delivered_to) = (0, read_to);
            }
        }
        if !batch.is_empty() {
            self.deliver(partition, delivered_to, read_to, batch).await?;
        }
        Ok(())
    }

    /// Delivers events, their objects before them; tried again while that may help. Sent twice, they are a repeat.
    async fn deliver(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
        records: Vec<Record>,
    ) -> Result<(), Stopped> {
        let mut attempt = 0;
        loop {
            match self.try_to_deliver(partition, from, to, &records).await {
                Ok(()) => return Ok(()),
                Err(error) if !error.kind.is_retryable() => return Err(error.into()),
                Err(error) if !self.unchanged.patience.wait(&mut attempt).await => {
                    return Err(Stopped::Unreachable(error.message));
                }
                Err(_) => {}
            }
        }
    }

    async fn try_to_deliver(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
        records: &[Record],
    ) -> Result<(), Error> {
        let mut objects = Vec::new();
        for record in records {
            objects.extend(named(record)?);
        }
        if !objects.is_empty() {
            let missing = self.unchanged.peer.missing(objects.iter().map(|(object, _)| *object).collect()).await?;
            let missing = missing.into_iter().filter_map(|at| objects.get(usize::try_from(at).ok()?));
            let sending = stream::iter(missing.map(Ok));
            sending
                .try_for_each_concurrent(OBJECTS_AT_ONCE, |(object, event)| self.send_object(*object, event))
                .await?;
        }
        let sealed_under = records.iter().flat_map(|record| keys_of(&record.envelope.kind, &record.payload));
        let ids: Vec<KeyId> = sealed_under.collect::<BTreeSet<_>>().into_iter().collect();
        let keys = if ids.is_empty() { Vec::new() } else { self.unchanged.log.keys(&ids).await? };
        let count = records.len() as u64;
        let delivery = Delivery {
            process: self.meeting.process,
            site: self.extent.site.clone(),
            incarnation: Incarnation(self.extent.incarnation),
            partition,
            from,
            to,
            records: records.to_vec(),
            erased: Vec::new(),
            keys,
        };
        self.unchanged.peer.append(delivery).await?;
        self.note(|counts| counts.delivered += count);
        Ok(())
    }

    async fn send_object(&self, object: ObjectRef, event: &InstanceStored) -> Result<(), Error> {
        self.unchanged.pace.instances(1).await;
        let bytes: AnswerStream<Bytes> = self.unchanged.retrieval.open(&record_of(object, event)?, Part::File).await?;
        self.unchanged.peer.put_object(object, self.unchanged.pace.paced(bytes)).await?;
        self.note(|counts| {
            counts.objects += 1;
            counts.bytes += object.length;
        });
        Ok(())
    }
}

/// The objects that an event names, each with the store event that says what it is.
fn named(record: &Record) -> Result<Vec<(ObjectRef, InstanceStored)>, Error> {
    let stored = match Event::decode(&record.envelope.kind, record.payload.clone()) {
        Ok(Event::InstanceStored(stored)) => Some(*stored),
        Ok(Event::EventRepaired(repaired)) => match repaired.remedy {
            Some(Remedy::Replacement(by)) => match Event::decode(&by.event_type, by.payload) {
                Ok(Event::InstanceStored(stored)) => Some(*stored),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    let objects: Vec<_> = stored
        .iter()
        .flat_map(|stored| {
            let both = stored.object.iter().chain(&stored.side_object);
            both.filter_map(object_ref).map(|object| (object, stored.clone()))
        })
        .collect();
    let has = |key: &ObjectKey| objects.iter().any(|(object, _)| object.key == *key);
    match record.envelope.object_keys.iter().find(|key| !has(key)) {
        None => Ok(objects),
        Some(key) => {
            let message =
                format!("event {} names object {key} in a way that this build can not read", record.envelope.id);
            Err(Error::new(ErrorKind::Invalid, message))
        }
    }
}

fn object_ref(object: &Object) -> Option<ObjectRef> {
    let key = ObjectKey::from_slice(&object.key).ok()?;
    Some(ObjectRef { key, length: object.length_bytes, digest: Digest::from_slice(&object.blake3).ok()? })
}

/// What retrieval is asked for an object by.
fn record_of(object: ObjectRef, event: &InstanceStored) -> Result<InstanceRecord, Error> {
    let uid = |text: &str| {
        let unusable =
            |_| Error::new(ErrorKind::Invalid, format!("object {} is of an event with an unusable UID", object.key));
        text.parse::<Uid>().map_err(unusable)
    };
    Ok(InstanceRecord {
        study_instance_uid: uid(&event.study_instance_uid)?,
        series_instance_uid: uid(&event.series_instance_uid)?,
        sop_instance_uid: uid(&event.sop_instance_uid)?,
        sop_class_uid: uid(&event.sop_class_uid)?,
        transfer_syntax_uid: uid(&event.transfer_syntax_uid)?,
        store_event: cairn_archive::EventId::from_slice(&[0; 16])
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?,
        object,
        data_set_offset: 0,
        pixel_data_offset: 0,
        shown: false,
        rejected: Titles::default(),
        damaged: false,
        is_to_be_erased: false,
        is_cold: false,
        frames: 0,
        frame_table: None,
        bulk_data: Vec::new(),
        header: Bytes::new(),
        side_object: None,
        default_character_set: String::new(),
        issuer_of_patient_id: String::new(),
        corrections: Vec::new(),
        corrected_length: None,
    })
}
