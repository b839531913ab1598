//! What is damaged or gone: said as an event, noted down, and made whole again from another copy where there is one.

use super::pace::Pace;
use crate::{
    append::Appender,
    copies::Copying,
    metrics,
    notes::{Change, Kind, Notes, malformed},
};
use bytes::Bytes;
use cairn_archive::{
    Digest, EventId, ObjectKey,
    events::{Damage, DamageFoundBy, Event, Object, ObjectDamaged, ObjectRepaired, object_repaired::Source},
};
use cairn_dicom::Uid;
use cairn_service_api::{
    Error, ErrorKind, Index, Replication,
    index::{Detail, Selection},
    lifecycle::{DamagedObject, NamedObject},
    replication::{Outcome, Suspects},
};
use cairn_store_api::{ObjectRef, ObjectStore, StoreError, StoreErrorKind};
use futures_util::StreamExt;
use prost::Message;
use std::sync::Arc;
use tokio::sync::watch;

/// Notes that are read at once.
const PAGE: usize = 256;

/// An object that is damaged or gone, as it is written down.
#[derive(Clone, PartialEq, Message)]
struct DamagedNote {
    #[prost(uint64, tag = "1")]
    length: u64,
    #[prost(bytes = "bytes", tag = "2")]
    blake3: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    named_by: Bytes,
    #[prost(string, tag = "4")]
    tenant: String,
    #[prost(string, tag = "5")]
    study: String,
    #[prost(string, tag = "6")]
    series: String,
    #[prost(string, tag = "7")]
    instance: String,
    #[prost(int32, tag = "8")]
    damage: i32,
    #[prost(int32, tag = "9")]
    found_by: i32,
    #[prost(uint64, tag = "10")]
    found_at_ms: u64,
    #[prost(bytes = "bytes", tag = "11")]
    event: Bytes,
    #[prost(uint64, optional, tag = "12")]
    tried_at_ms: Option<u64>,
    #[prost(string, tag = "13")]
    failure: String,
}

/// Why an object can't be looked at.
const PUT_AWAY: &str = "the object is put away: it must be restored before it can be read";

/// What a look at an object found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is what it should be.
    Whole,
    Damaged(Damage),
    /// It is there, and nobody knows more: to restore everything in order to look at it would be dear.
    PutAway,
}

/// Who else may have the bytes of an object.
#[derive(Clone, Default)]
pub(crate) struct Copies {
    /// Knows other objects of this site with the same bytes.
    pub(crate) index: Option<Arc<dyn Index>>,
    /// Has second copies.
    pub(crate) second: Option<Arc<Copying>>,
    /// Knows other sites.
    pub(crate) replication: Option<Arc<dyn Replication>>,
}

/// What is damaged or gone.
pub(crate) struct Damages {
    objects: Arc<dyn ObjectStore>,
    notes: Arc<Notes>,
    appender: Arc<Appender>,
    copies: Copies,
    pace: Pace,
    /// How many there are.
    count: watch::Sender<u64>,
    /// One object at a time: whoever comes upon it, its damage is one event.
    turn: tokio::sync::Mutex<()>,
}

impl Damages {
    pub(crate) async fn open(
        objects: Arc<dyn ObjectStore>,
        notes: Arc<Notes>,
        appender: Arc<Appender>,
        copies: Copies,
    ) -> Result<Self, Error> {
        let (pace, turn) = (Pace::default(), tokio::sync::Mutex::default());
        let this = Self { objects, notes, appender, copies, pace, count: watch::Sender::new(0), turn };
        let (mut count, mut after) = (0, None);
        loop {
            let page = this.page(after).await?;
            let Some(last) = page.last() else { break };
            (count, after) = (count + page.len() as u64, Some(last.named.object.key));
        }
        this.count.send_replace(count);
        Ok(this)
    }

    /// How many objects are damaged or gone.
    pub(crate) fn count(&self) -> u64 {
        *self.count.borrow()
    }

    /// What is damaged or gone after an object, in the order of keys.
    pub(crate) async fn page(&self, after: Option<ObjectKey>) -> Result<Vec<DamagedObject>, Error> {
        let after = after.map(|key| Bytes::copy_from_slice(key.as_bytes()));
        let page = self.notes.page(Kind::Damaged, after, PAGE).await?;
        page.into_iter().map(|(key, note)| damaged_from(&key, note)).collect()
    }

    /// Reads an object from end to end, no faster than `per_second` bytes.
    ///
    /// # Errors
    /// The store's, where it does not say what the object is.
    /// # Cancel safety
    /// Nothing is changed.
    pub(crate) async fn look(&self, object: &ObjectRef, per_second: u64) -> Result<Look, Error> {
        match self.read(object, per_second).await {
            Ok(()) => {
                metrics::read(object.length);
                Ok(Look::Whole)
            }
            Err(error) => match error.kind() {
                StoreErrorKind::NotFound => Ok(Look::Damaged(Damage::Gone)),
                StoreErrorKind::Corrupt | StoreErrorKind::Invalid => Ok(Look::Damaged(Damage::Bytes)),
                StoreErrorKind::Archived => Ok(Look::PutAway),
                _ => Err(error.into()),
            },
        }
    }

    /// The same for those who must know; `None`: it is what it should be.
    ///
    /// # Errors
    /// Also `Unavailable`: it is put away.
    /// # Cancel safety
    /// Nothing is changed.
    pub(crate) async fn inspect(&self, object: &ObjectRef, per_second: u64) -> Result<Option<Damage>, Error> {
        match self.look(object, per_second).await? {
            Look::Whole => Ok(None),
            Look::Damaged(damage) => Ok(Some(damage)),
            Look::PutAway => Err(Error::new(ErrorKind::Unavailable, PUT_AWAY)),
        }
    }

    async fn read(&self, object: &ObjectRef, per_second: u64) -> Result<(), StoreError> {
        let mut bytes = self.objects.read(object, 0..object.length).await?;
        while let Some(chunk) = bytes.next().await {
            self.pace.take(chunk?.len() as u64, per_second).await;
        }
        Ok(())
    }

    /// Takes note of an object that `damage` was found of, and tries to have it whole again; gives whether it is.
    ///
    /// # Errors
    /// The log's, or that of the notes: it is found again.
    /// # Cancel safety
    /// What was begun may be done or not.
    pub(crate) async fn found(
        &self,
        named: &NamedObject,
        damage: Damage,
        found_by: DamageFoundBy,
    ) -> Result<bool, Error> {
        let _turn = self.turn.lock().await;
        let key = named.object.key;
        if self.notes.is_erased(&key).await? {
            // It is not there because it is not to be.
            return Ok(false);
        }
        let known = self.notes.get::<DamagedNote>(Kind::Damaged, key.as_bytes()).await?;
        let damaged = match known {
            Some(note) => damaged_from(key.as_bytes(), note)?,
            None => self.write_down(named, damage, found_by).await?,
        };
        self.mend(damaged).await
    }

    /// Takes note of an object that could be read from end to end, should it have been damaged before.
    ///
    /// # Errors
    /// The log's, or that of the notes.
    pub(crate) async fn is_whole(&self, object: &ObjectRef) -> Result<(), Error> {
        if self.count() == 0 {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        match self.notes.get::<DamagedNote>(Kind::Damaged, object.key.as_bytes()).await? {
            Some(note) => self.repaired(&damaged_from(object.key.as_bytes(), note)?, Source::ReadableAgain(true)).await,
            None => Ok(()),
        }
    }

    /// Looks after the second copy of an object that is whole.
    ///
    /// # Errors
    /// The stores', or that of the notes.
    pub(crate) async fn look_after_copy(&self, object: &ObjectRef, per_second: u64) -> Result<(), Error> {
        match &self.copies.second {
            Some(second) => second.look_after(object, per_second).await,
            None => Ok(()),
        }
    }

    /// Whether this site has bytes of an object, wherever.
    ///
    /// # Errors
    /// The stores'.
    pub(crate) async fn is_stored(&self, key: ObjectKey) -> Result<bool, Error> {
        match (self.objects.stat(key).await, &self.copies.second) {
            (Ok(_), _) => Ok(true),
            (Err(error), _) if error.kind() != StoreErrorKind::NotFound => Err(error.into()),
            (Err(_), Some(second)) => Ok(second.has(key).await?),
            (Err(_), None) => Ok(false),
        }
    }

    /// Destroys an object that is noted as erased, and its second copy; it is not damaged or gone any more. Nobody brings it again meanwhile: who
    /// began before is waited for.
    ///
    /// # Errors
    /// The store's, or that of the notes.
    pub(crate) async fn destroy(&self, key: ObjectKey) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        // First, because that store may be away: then nothing is done.
        if let Some(second) = &self.copies.second {
            second.destroy(key).await?;
        }
        self.objects.delete(key).await?;
        if self.count() > 0 && self.notes.get::<DamagedNote>(Kind::Damaged, key.as_bytes()).await?.is_some() {
            self.notes.change(vec![Change::remove(Kind::Damaged, key.as_bytes())]).await?;
            self.count.send_modify(|count| *count = count.saturating_sub(1));
        }
        Ok(())
    }

    /// Tries again to have everything whole.
    ///
    /// # Errors
    /// The log's, the notes' or the object store's.
    pub(crate) async fn try_all(&self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self.page(after).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.named.object.key);
            for damaged in page {
                let _turn = self.turn.lock().await;
                // It may have been done meanwhile.
                let key = damaged.named.object.key;
                let is_noted = self.notes.get::<DamagedNote>(Kind::Damaged, key.as_bytes()).await?.is_some();
                if is_noted && !self.notes.is_erased(&key).await? {
                    self.mend(damaged).await?;
                }
            }
        }
    }

    async fn write_down(
        &self,
        named: &NamedObject,
        damage: Damage,
        found_by: DamageFoundBy,
    ) -> Result<DamagedObject, Error> {
        let event = Event::ObjectDamaged(ObjectDamaged {
            tenant: named.tenant.clone(),
            study_instance_uid: named.study_instance_uid.clone(),
            series_instance_uid: named.series_instance_uid.clone(),
            sop_instance_uid: named.sop_instance_uid.clone(),
            site: self.appender.site().to_string(),
            object: Some(object_to(&named.object)),
            named_by_event_id: copied(named.named_by.as_bytes()),
            damage: damage.into(),
            found_by: found_by.into(),
        });
        let event = self.appender.append(&event, named.named_by).await?;
        let found_at_ms = self.appender.now_ms();
        let damaged = DamagedObject { named: named.clone(), damage, found_by, found_at_ms, event, tried: None };
        let object_key = named.object.key;
        tracing::error!(%object_key, ?damage, ?found_by, "an object is damaged or gone");
        metrics::damaged(damage);
        self.notes.change(vec![note_of(&damaged)]).await?;
        self.count.send_modify(|count| *count += 1);
        Ok(damaged)
    }

    /// Looks for a copy of an object, and has it whole again if there is one; gives whether it is.
    async fn mend(&self, damaged: DamagedObject) -> Result<bool, Error> {
        let outcome = match self.look(&damaged.named.object, u64::MAX).await? {
            Look::Whole => Ok(Source::ReadableAgain(true)),
            Look::PutAway => Err(PUT_AWAY.to_owned()),
            Look::Damaged(_) => self.bring_again(&damaged.named).await,
        };
        match outcome {
            Ok(source) => {
                self.repaired(&damaged, source).await?;
                Ok(true)
            }
            Err(failure) => {
                let object_key = damaged.named.object.key;
                tracing::error!(%object_key, failure, "a damaged object can't be had again");
                let damaged = DamagedObject { tried: Some((self.appender.now_ms(), failure)), ..damaged };
                self.notes.change(vec![note_of(&damaged)]).await?;
                Ok(false)
            }
        }
    }

    async fn repaired(&self, damaged: &DamagedObject, source: Source) -> Result<(), Error> {
        let named = &damaged.named;
        let from = match &source {
            Source::OtherSite(_) => "site",
            Source::OtherObjectKey(key) if key.as_ref() == named.object.key.as_bytes() => "copy",
            Source::OtherObjectKey(_) => "object",
            Source::ReadableAgain(_) => "itself",
        };
        let event = Event::ObjectRepaired(ObjectRepaired {
            tenant: named.tenant.clone(),
            study_instance_uid: named.study_instance_uid.clone(),
            series_instance_uid: named.series_instance_uid.clone(),
            sop_instance_uid: named.sop_instance_uid.clone(),
            site: self.appender.site().to_string(),
            object: Some(object_to(&named.object)),
            named_by_event_id: copied(named.named_by.as_bytes()),
            damage_event_id: copied(damaged.event.as_bytes()),
            source: Some(source),
        });
        self.appender.append(&event, damaged.event).await?;
        self.notes.change(vec![Change::remove(Kind::Damaged, named.object.key.as_bytes())]).await?;
        self.count.send_modify(|count| *count = count.saturating_sub(1));
        tracing::warn!(object_key = %named.object.key, from, "an object that was damaged or gone is whole again");
        metrics::repaired(from);
        Ok(())
    }

    /// Brings the bytes from wherever they are; or why not.
    async fn bring_again(&self, named: &NamedObject) -> Result<Source, String> {
        let mut why = Vec::new();
        if let Some(second) = &self.copies.second {
            match second.give_back(&named.object).await {
                // The object under the same key in the second store.
                Ok(()) => return Ok(Source::OtherObjectKey(copied(named.object.key.as_bytes()))),
                Err(error) => why.push(format!("second copy: {error}")),
            }
        }
        match self.copied_here(named).await {
            Ok(Some(key)) => return Ok(Source::OtherObjectKey(copied(key.as_bytes()))),
            Ok(None) => why.push("this site has no other copy".to_owned()),
            Err(error) => why.push(format!("other copies of this site: {error}")),
        }
        match self.copied_from_another_site(&named.object).await {
            Ok(Some(source)) => return Ok(source),
            Ok(None) => why.push("there is no other site".to_owned()),
            Err(error) => why.push(error.message),
        }
        Err(why.join("; "))
    }

    /// From another object of this site that the index says has the same bytes.
    async fn copied_here(&self, named: &NamedObject) -> Result<Option<ObjectKey>, Error> {
        let uid = |text: &str| text.parse::<Uid>().ok().map(|uid| vec![uid]);
        let (study, series) = (uid(&named.study_instance_uid), uid(&named.series_instance_uid));
        let (Some(index), Some(studies), Some(series), Some(instances)) =
            (&self.copies.index, study, series, uid(&named.sop_instance_uid))
        else {
            return Ok(None);
        };
        let (tenant, version) = (named.tenant.clone(), Some(named.object.digest));
        let selection =
            Selection { tenant, studies, series, instances, version, all_versions: true, ..Selection::default() };
        let mut versions = index.instances(selection, Detail::Location).await?;
        while let Some(version) = versions.next().await {
            let other = version?.object;
            if other.key != named.object.key && self.copy(&other, &named.object).await.is_ok() {
                return Ok(Some(other.key));
            }
        }
        Ok(None)
    }

    /// The store keeps only bytes that are what they should be.
    async fn copy(&self, from: &ObjectRef, to: &ObjectRef) -> Result<(), StoreError> {
        let mut bytes = self.objects.read(from, 0..from.length).await?;
        let mut writer = self.objects.repair(to).await?;
        while let Some(chunk) = bytes.next().await {
            writer.write(chunk?).await?;
        }
        writer.finish().await.map(|_| ())
    }

    async fn copied_from_another_site(&self, object: &ObjectRef) -> Result<Option<Source>, Error> {
        let Some(replication) = &self.copies.replication else { return Ok(None) };
        let mut inspected = replication.repair(Suspects::Known(*object)).await?;
        match inspected.next().await.transpose()?.map(|inspected| inspected.outcome) {
            Some(Outcome::Repaired { from }) => Ok(Some(Source::OtherSite(from.to_string()))),
            Some(Outcome::Whole) => Ok(Some(Source::ReadableAgain(true))),
            Some(Outcome::Lost(why)) => Err(Error::new(ErrorKind::NotFound, why)),
            None => Err(Error::new(ErrorKind::Unavailable, "replication said nothing of it")),
        }
    }
}

fn copied(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn object_to(object: &ObjectRef) -> Object {
    let ObjectRef { key, length, digest } = object;
    Object { key: copied(key.as_bytes()), length_bytes: *length, blake3: copied(&digest.0) }
}

fn note_of(damaged: &DamagedObject) -> Change {
    let NamedObject { object, named_by, tenant, study_instance_uid, series_instance_uid, sop_instance_uid } =
        &damaged.named;
    let (tried_at_ms, failure) = damaged.tried.clone().unzip();
    let note = DamagedNote {
        length: object.length,
        blake3: copied(&object.digest.0),
        named_by: copied(named_by.as_bytes()),
        tenant: tenant.clone(),
        study: study_instance_uid.clone(),
        series: series_instance_uid.clone(),
        instance: sop_instance_uid.clone(),
        damage: damaged.damage.into(),
        found_by: damaged.found_by.into(),
        found_at_ms: damaged.found_at_ms,
        event: copied(damaged.event.as_bytes()),
        tried_at_ms,
        failure: failure.unwrap_or_default(),
    };
    Change::put(Kind::Damaged, object.key.as_bytes(), &note)
}

fn damaged_from(key: &[u8], note: DamagedNote) -> Result<DamagedObject, Error> {
    let id = |bytes: &[u8]| EventId::from_slice(bytes).map_err(|_| malformed());
    let object = ObjectRef {
        key: ObjectKey::from_slice(key).map_err(|_| malformed())?,
        length: note.length,
        digest: Digest::from_slice(&note.blake3).map_err(|_| malformed())?,
    };
    let named = NamedObject {
        object,
        named_by: id(&note.named_by)?,
        tenant: note.tenant,
        study_instance_uid: note.study,
        series_instance_uid: note.series,
        sop_instance_uid: note.instance,
    };
    Ok(DamagedObject {
        named,
        damage: Damage::try_from(note.damage).map_err(|_| malformed())?,
        found_by: DamageFoundBy::try_from(note.found_by).map_err(|_| malformed())?,
        found_at_ms: note.found_at_ms,
        event: id(&note.event)?,
        tried: note.tried_at_ms.map(|at| (at, note.failure)),
    })
}
