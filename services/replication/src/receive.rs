//! What peers bring: objects first, then the events that name them.

use crate::{
    follow::Followed,
    metrics,
    named::{named, sealed_under},
    notes::Notes,
    reached::Origin,
    standing::Standing,
};
use bytes::Bytes;
use cairn_archive::{Incarnation, KeyId, Offset, Partition, SiteId};
use cairn_process::clock::Clock;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind,
    ingest::Body,
    replication::{Delivered, Delivery, Introduction, Mark, Meeting, Report},
};
use cairn_store_api::{EventLog, HandedKey, KeyRing, ObjectRef, ObjectStore, Record, StoreError, StoreErrorKind};
use futures_util::StreamExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
};

/// Takes what peers bring.
pub(crate) struct Receiver {
    /// Names this process among those of the site.
    process: u64,
    log: Arc<dyn EventLog>,
    objects: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    followed: Arc<[Followed]>,
    standing: Arc<Standing>,
    /// Who may bring anything; what each told last, and when that came.
    told: Mutex<BTreeMap<SiteId, Option<(u64, Report)>>>,
    /// One permit for each object under way.
    incoming: Semaphore,
    /// Of each partition, what was taken since the start. Held while events of it are taken.
    taken: Box<[Arc<tokio::sync::Mutex<Taken>>]>,
    /// Appends under way; they end with the receiver.
    appends: Mutex<JoinSet<()>>,
    /// Knows what is erased.
    notes: Arc<Notes>,
    /// `None`: this site has no key store.
    keys: Option<Arc<KeyRing>>,
}

/// Where what peers bring is kept.
pub(crate) struct Stores {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) keys: Option<Arc<KeyRing>>,
}

/// What was taken of a partition since the start of the process.
#[derive(Default)]
struct Taken {
    /// Whether everything that the log may have, beside what was taken, has been read.
    is_read: bool,
    /// First offset not taken, of each origin.
    origins: BTreeMap<Origin, Offset>,
    /// First offset of each peer's log that was not delivered since it was met.
    delivered: BTreeMap<Origin, Offset>,
}

impl Receiver {
    pub(crate) fn new(
        Stores { log, objects, notes, keys }: Stores,
        clock: Arc<dyn Clock>,
        followed: Arc<[Followed]>,
        standing: Arc<Standing>,
        told: BTreeMap<SiteId, Option<(u64, Report)>>,
        incoming_objects_max: usize,
    ) -> Self {
        let taken = followed.iter().map(|_| Arc::default()).collect();
        let incoming = Semaphore::new(incoming_objects_max);
        // The end of it is random.
        let process = uuid::Uuid::now_v7().as_u64_pair().1;
        Self {
            process,
            log,
            objects,
            clock,
            followed,
            standing,
            told: Mutex::new(told),
            incoming,
            taken,
            appends: Mutex::default(),
            notes,
            keys,
        }
    }

    /// What a peer told last, and when that came.
    pub(crate) fn told(&self, peer: &SiteId) -> Option<(u64, Report)> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get(peer).cloned().flatten()
    }

    fn check_peer(&self, site: &SiteId) -> Result<(), Error> {
        match self.told.lock().unwrap_or_else(PoisonError::into_inner).contains_key(site) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Denied, format!("site {site} is no peer of {}", self.log.site()))),
        }
    }

    /// What the caller knows of this site must be of this process: the one before may have had a longer log.
    fn check_process(&self, met: u64) -> Result<(), Error> {
        match met == self.process {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Conflict, "another process of this site was met")),
        }
    }

    /// Waits until the log has been read as far as it went when the process began: only then it is known what is held.
    async fn read_to_the_end(&self, followed: &Followed) -> Result<(), Error> {
        followed.wait_for(self.log.end(followed.place.partition).await?).await;
        Ok(())
    }

    pub(crate) async fn meet(&self, caller: Introduction) -> Result<Meeting, Error> {
        self.check_peer(&caller.site)?;
        let partitions = self.log.partitions();
        if caller.partitions != partitions {
            let message =
                format!("{} has {} partitions, {} has {partitions}", caller.site, caller.partitions, self.log.site());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let mut meeting = Meeting {
            process: self.process,
            site: self.log.site().clone(),
            incarnation: self.log.incarnation(),
            partitions,
            holds: Vec::new(),
            strayed: Vec::new(),
        };
        for followed in self.followed.iter() {
            self.read_to_the_end(followed).await?;
            meeting.holds.extend(followed.reached().marks(followed.place.partition));
        }
        for taken in &self.taken {
            // It goes on from what is held, which may be further than what it delivered.
            taken.lock().await.delivered.remove(&(caller.site.clone(), caller.incarnation));
        }
        for mark in caller.marks {
            if !self.has(&mark).await? {
                meeting.strayed.push(mark.partition);
            }
        }
        match meeting.strayed.is_empty() {
            true => self.standing.met(&caller.site),
            false => drop(self.standing.strayed(&caller.site)),
        }
        Ok(meeting)
    }

    /// Whether this site's log has what a mark of it says.
    async fn has(&self, mark: &Mark) -> Result<bool, Error> {
        let Some(followed) = self.followed.get(usize::from(mark.partition.0)) else { return Ok(false) };
        Ok(mark.site == *self.log.site() && followed.agrees(mark).await?)
    }

    pub(crate) async fn missing(&self, objects: Vec<ObjectRef>) -> Result<Vec<u32>, Error> {
        let mut missing = Vec::new();
        for (index, object) in (0..).zip(objects) {
            // What is erased is not to come.
            if self.notes.is_erased(&object.key).await? {
                continue;
            }
            match self.holds(&object).await {
                Ok(true) => {}
                Ok(false) => missing.push(index),
                Err(error) => return Err(error),
            }
        }
        Ok(missing)
    }

    /// Whether an object is here, and is the one that is meant.
    async fn holds(&self, object: &ObjectRef) -> Result<bool, Error> {
        match self.objects.stat(object.key).await {
            Ok(info) if info.object == *object => Ok(true),
            Ok(_) => Err(Error::new(ErrorKind::Conflict, format!("object {} has other bytes here", object.key))),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn put_object(&self, object: ObjectRef, mut body: Body<'_>) -> Result<(), Error> {
        let full = || Error::new(ErrorKind::Exhausted, "too many objects on their way in");
        let _turn = self.incoming.try_acquire().map_err(|_| full())?;
        if self.notes.is_erased(&object.key).await? || self.holds(&object).await? {
            return Ok(());
        }
        let not_as_said = || {
            metrics::refused_object();
            Error::new(ErrorKind::Corrupt, format!("object {} is not what was said when it arrived", object.key))
        };
        let mut writer = self.objects.put(object.key, Some(object.length)).await?;
        let mut length = 0_u64;
        while let Some(chunk) = body.next().await {
            let chunk: Bytes = chunk?;
            length += chunk.len() as u64;
            if length > object.length {
                return Err(not_as_said());
            }
            writer.write(chunk).await?;
        }
        match writer.finish_as(object.length, object.digest).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == StoreErrorKind::Corrupt => Err(not_as_said()),
            // Another delivery of the same object was faster.
            Err(error) if error.kind() == StoreErrorKind::Conflict && self.holds(&object).await? => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes of an object for a peer that has lost them.
    pub(crate) async fn read_object(&self, caller: &SiteId, object: ObjectRef) -> Result<AnswerStream<Bytes>, Error> {
        self.check_peer(caller)?;
        let key = object.key;
        let failed = move |error: StoreError| match error.kind() {
            StoreErrorKind::NotFound | StoreErrorKind::Invalid => {
                Error::new(ErrorKind::NotFound, format!("object {key} is not there"))
            }
            StoreErrorKind::Corrupt => Error::new(ErrorKind::Corrupt, format!("object {key} is damaged there too")),
            _ => error.into(),
        };
        let bytes = self.objects.read(&object, 0..object.length).await.map_err(failed)?;
        Ok(Box::pin(bytes.map(move |chunk| chunk.map_err(failed))))
    }

    pub(crate) async fn append(&self, delivery: Delivery) -> Result<Delivered, Error> {
        self.check_peer(&delivery.site)?;
        self.check_process(delivery.process)?;
        let Delivery { site, incarnation, partition, from, to, records, erased, keys, .. } = delivery;
        let unknown = || Error::new(ErrorKind::Invalid, format!("there is no partition {}", partition.0));
        let place = usize::from(partition.0);
        let (followed, taken) = self.followed.get(place).zip(self.taken.get(place)).ok_or_else(unknown)?;
        let mut taken = taken.clone().lock_owned().await;
        if !taken.is_read {
            self.read_to_the_end(followed).await?;
            taken.is_read = true;
        }
        taken.check_goes_on(&site, incarnation, from)?;
        let (fresh, origins) = taken.fresh(followed, records, self.log.partitions())?;
        if fresh.iter().filter_map(|record| record.envelope.origin.as_ref()).any(|origin| followed.place.lacks(origin))
        {
            return Err(Error::new(ErrorKind::Conflict, self.standing.strayed(&site)));
        }
        let (count, repeated) = (fresh.len(), origins.repeated);
        self.notes.note_erased(&erased).await?;
        for record in &fresh {
            self.check_objects(record).await?;
        }
        self.take_keys(keys, &fresh).await?;
        // On a task of its own: given up by its caller an append goes on, and the next delivery must know what it took.
        let (log, peer) = (self.log.clone(), (site.clone(), incarnation));
        let append = async move {
            if !fresh.is_empty() {
                // When it fails nobody knows what is there, but the log itself.
                taken.is_read = false;
                log.append(partition, fresh).await?;
                taken.is_read = true;
            }
            taken.origins.extend(origins.ends);
            taken.delivered.insert(peer, to);
            Ok::<_, StoreError>(())
        };
        let (reply, appended) = oneshot::channel();
        {
            let mut appends = self.appends.lock().unwrap_or_else(PoisonError::into_inner);
            while appends.try_join_next().is_some() {}
            // Who gave it up hears nothing.
            appends.spawn(async move { drop(reply.send(append.await)) });
        }
        appended.await.map_err(|_| Error::new(ErrorKind::Unavailable, "replication is stopping"))??;
        metrics::received(&site, count, repeated);
        Ok(Delivered { repeated })
    }

    /// Whether everything that an event names is here, and is what it says (I1); but what is erased, which the peer's log says
    /// further on.
    async fn check_objects(&self, record: &Record) -> Result<(), Error> {
        let (named, _) = named(record).without_erased(&self.notes).await?;
        for object in named.objects {
            if !self.holds(&object).await? {
                return Err(Error::new(ErrorKind::NotFound, format!("object {} is not here", object.key)));
            }
        }
        for key in named.keys {
            self.objects.stat(key).await?;
        }
        Ok(())
    }

    /// Takes the keys that events are sealed under: they are durable here before the events are.
    async fn take_keys(&self, handed: Vec<HandedKey>, fresh: &[Record]) -> Result<(), Error> {
        let needed: Vec<KeyId> = sealed_under(fresh).into_iter().collect();
        match &self.keys {
            _ if needed.is_empty() => Ok(()),
            Some(keys) => Ok(keys.take(handed, &needed).await?),
            None => {
                let message = format!("events are sealed, and {} has no key store", self.log.site());
                Err(Error::new(ErrorKind::Invalid, message))
            }
        }
    }

    /// Takes note of what a peer has that is not known to be here.
    pub(crate) fn tell(&self, process: u64, report: Report) -> Result<(), Error> {
        self.check_peer(&report.site)?;
        self.check_process(process)?;
        let (site, now) = (report.site.clone(), self.clock.unix_ms());
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(site, Some((now, report)));
        Ok(())
    }
}

/// What becomes taken with a delivery.
struct Coming {
    ends: BTreeMap<Origin, Offset>,
    repeated: u32,
}

impl Taken {
    /// A delivery must begin no later than where the one before it ended: what lies between would be missing for ever.
    fn check_goes_on(&self, site: &SiteId, incarnation: Incarnation, from: Offset) -> Result<(), Error> {
        match self.delivered.get(&(site.clone(), incarnation)) {
            Some(end) if from > *end => {
                let message = format!("a delivery from {site} begins at {}, after {}", from.0, end.0);
                Err(Error::new(ErrorKind::Conflict, message))
            }
            _ => Ok(()),
        }
    }

    /// The records that are not here, which must be of this partition and come in the order of their origins.
    fn fresh(
        &self,
        followed: &Followed,
        records: Vec<Record>,
        partitions: u16,
    ) -> Result<(Vec<Record>, Coming), Error> {
        let invalid = |what: &str| Err(Error::new(ErrorKind::Invalid, format!("an event that was delivered {what}")));
        let mut coming = Coming { ends: BTreeMap::new(), repeated: 0 };
        let mut seen: BTreeMap<Origin, BTreeSet<Offset>> = BTreeMap::new();
        let mut fresh = Vec::with_capacity(records.len());
        for record in records {
            let Some(origin) = record.envelope.origin.clone() else { return invalid("has no origin") };
            let of_study = Partition::of_study(&record.envelope.study_instance_uid, partitions);
            if of_study != followed.place.partition || origin.partition != of_study {
                return invalid("is of another partition");
            }
            let key = (origin.site, origin.incarnation);
            let seen = seen.entry(key.clone()).or_default();
            let latest = seen.last().copied();
            // A log may have an event twice.
            if !seen.insert(origin.offset) {
                coming.repeated += 1;
                continue;
            }
            if latest.is_some_and(|latest| latest > origin.offset) {
                return invalid("is not in the order of its origin");
            }
            let read = followed.reached().origins.get(&key).map_or(Offset(0), |(end, _)| *end);
            let held = read.max(self.origins.get(&key).copied().unwrap_or_default());
            if origin.offset < held {
                coming.repeated += 1;
                continue;
            }
            coming.ends.insert(key, origin.offset.next());
            fresh.push(record);
        }
        Ok((fresh, coming))
    }
}
