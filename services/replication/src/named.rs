//! What an event names, beside its meaning.

use crate::notes::Notes;
use cairn_archive::{
    Digest, KeyId, ObjectKey,
    events::{Event, InstanceStored, Object},
    sealing::keys_of,
};
use cairn_service_api::Error;
use cairn_store_api::{ObjectRef, ObjectStore, Record, StoreError};
use std::collections::BTreeSet;

/// What an event names.
pub(crate) struct Named {
    /// SOP Instance UID, where it stores an instance.
    pub(crate) sop_instance_uid: Option<String>,
    /// Objects whose length and digest it says.
    pub(crate) objects: Vec<ObjectRef>,
    /// Objects that only the envelope tells: of an event that this build can't read, or a repair.
    pub(crate) keys: Vec<ObjectKey>,
}

/// Reads what a record names. One that can't be read names what its envelope says.
pub(crate) fn named(record: &Record) -> Named {
    let keys = &record.envelope.object_keys;
    match Event::decode(&record.envelope.kind, record.payload.clone()) {
        Ok(Event::CommitmentRequested(requested)) => {
            let objects = requested.side_object.iter().filter_map(object_ref).collect();
            Named { sop_instance_uid: None, objects, keys: Vec::new() }
        }
        Ok(Event::InstanceStored(stored)) => {
            let InstanceStored { object, side_object, sop_instance_uid, .. } = *stored;
            let objects: Vec<_> = object.iter().chain(&side_object).filter_map(object_ref).collect();
            let keys = keys.iter().filter(|key| objects.iter().all(|object| object.key != **key)).copied().collect();
            Named { sop_instance_uid: Some(sop_instance_uid), objects, keys }
        }
        _ => Named { sop_instance_uid: None, objects: Vec::new(), keys: keys.clone() },
    }
}

/// The keys that events are sealed under, each once.
pub(crate) fn sealed_under(records: &[Record]) -> BTreeSet<KeyId> {
    records.iter().flat_map(|record| keys_of(&record.envelope.kind, &record.payload)).collect()
}

fn object_ref(object: &Object) -> Option<ObjectRef> {
    let key = ObjectKey::from_slice(&object.key).ok()?;
    Some(ObjectRef { key, length: object.length_bytes, digest: Digest(object.blake3.as_ref().try_into().ok()?) })
}

impl Named {
    /// Takes out what is erased, and gives its keys.
    ///
    /// # Errors
    /// That of the notes.
    pub(crate) async fn without_erased(mut self, notes: &Notes) -> Result<(Self, Vec<ObjectKey>), Error> {
        let mut erased = Vec::new();
        let all = self.objects.iter().map(|object| object.key).chain(self.keys.iter().copied());
        for key in all.collect::<Vec<_>>() {
            if notes.is_erased(&key).await? {
                erased.push(key);
            }
        }
        self.objects.retain(|object| !erased.contains(&object.key));
        self.keys.retain(|key| !erased.contains(key));
        Ok((self, erased))
    }

    /// Every object, with length and digest; those that the event does not say are the store's.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn all(self, store: &dyn ObjectStore) -> Result<Vec<ObjectRef>, StoreError> {
        let mut objects = self.objects;
        for key in self.keys {
            objects.push(store.stat(key).await?.object);
        }
        Ok(objects)
    }
}
