//! What is known of an instance's other versions, and how a new one relates to them. A hint for the answer: what
//! decides is the fold over the log.

use cairn_archive::{Digest, EventId, Position, events::ResendPolicy};
use cairn_dicom::Uid;
use cairn_service_api::index::InstanceRecord;
use cairn_store_api::ObjectRef;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

/// What identifies an instance (study, series, SOP Instance UID), and what it is.
pub(crate) use cairn_dicom::walk::Identity;

/// A version that is in the archive.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Version {
    pub(crate) study_instance_uid: Uid,
    pub(crate) series_instance_uid: Uid,
    pub(crate) object: ObjectRef,
    pub(crate) data_set_offset: u64,
    pub(crate) transfer_syntax_uid: Uid,
    pub(crate) store_event: EventId,
    /// Of the store event, where this process appended it.
    pub(crate) position: Option<Position>,
    /// Calling AE title of its sender, where known.
    pub(crate) calling_ae_title: Option<String>,
    pub(crate) issuer_of_patient_id: String,
    /// Whether it is the one shown; not known of those that only this process remembers.
    pub(crate) shown: bool,
    /// Whether it is neither rejected nor damaged nor to be erased; not known of those that only this process remembers.
    pub(crate) live: bool,
}

impl Version {
    fn is_of(&self, identity: &Identity) -> bool {
        self.study_instance_uid == identity.study_instance_uid
            && self.series_instance_uid == identity.series_instance_uid
    }
}

impl From<InstanceRecord> for Version {
    fn from(record: InstanceRecord) -> Self {
        Self {
            study_instance_uid: record.study_instance_uid,
            series_instance_uid: record.series_instance_uid,
            object: record.object,
            data_set_offset: record.data_set_offset,
            transfer_syntax_uid: record.transfer_syntax_uid,
            store_event: record.store_event,
            position: None,
            calling_ae_title: None,
            issuer_of_patient_id: record.issuer_of_patient_id,
            shown: record.shown,
            live: record.rejected.is_empty() && !record.damaged && !record.is_to_be_erased,
        }
    }
}

/// Where a new version comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) calling_ae_title: &'a str,
    pub(crate) issuer_of_patient_id: &'a str,
}

/// How a new version relates to those known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Relation {
    /// Nothing is known under its SOP Instance UID.
    New,
    /// These bytes are there.
    SameBytes(Box<Version>),
    /// Other bytes are there under the same identity.
    OtherBytes {
        /// In event order, as far as known.
        earlier: Vec<Version>,
        /// Whether the new one will be shown.
        shown: bool,
    },
    /// The SOP Instance UID is in another study or series.
    Elsewhere,
}

/// How an instance with these bytes relates to the versions known under its SOP Instance UID.
pub(crate) fn relate(
    identity: &Identity,
    digest: Digest,
    known: &[Version],
    source: Source<'_>,
    policy: ResendPolicy,
) -> Relation {
    let mut own: Vec<_> = known.iter().filter(|version| version.is_of(identity)).cloned().collect();
    if let Some(same) = own.iter().find(|version| version.object.digest == digest) {
        return Relation::SameBytes(Box::new(same.clone()));
    }
    own.sort_by_key(|version| version.store_event);
    match own.iter().find(|version| version.shown).or(own.first()) {
        Some(shown) => {
            let shown = policy == ResendPolicy::SupersedeSameSource && is_same_source(shown, source);
            Relation::OtherBytes { shown, earlier: own }
        }
        None if known.is_empty() => Relation::New,
        None => Relation::Elsewhere,
    }
}

fn is_same_source(version: &Version, source: Source<'_>) -> bool {
    let same = |a: &str, b: &str| !a.is_empty() && a == b;
    version.calling_ae_title.as_deref().is_some_and(|title| same(title, source.calling_ae_title))
        || same(&version.issuer_of_patient_id, source.issuer_of_patient_id)
}

/// Joins what this process remembers with what the index says.
pub(crate) fn join(recent: Vec<Version>, indexed: Vec<Version>) -> Vec<Version> {
    let mut known = indexed;
    for remembered in recent {
        match known.iter_mut().find(|version| version.store_event == remembered.store_event) {
            Some(version) => {
                version.position = remembered.position;
                version.calling_ae_title = remembered.calling_ae_title;
            }
            None => known.push(remembered),
        }
    }
    known
}

/// (tenant, SOP Instance UID)
pub(crate) type Key = (String, Uid);

/// What this process stored lately, which the index may not have folded yet. Bounded; the oldest is forgotten first.
pub(crate) struct Recent {
    table: Mutex<Table>,
    instances_max: usize,
}

#[derive(Default)]
struct Table {
    by_key: HashMap<Key, Vec<Version>>,
    in_order: VecDeque<Key>,
}

impl Recent {
    pub(crate) fn new(instances_max: usize) -> Self {
        Self { table: Mutex::default(), instances_max }
    }

    pub(crate) fn get(&self, key: &Key) -> Vec<Version> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.by_key.get(key).cloned().unwrap_or_default()
    }

    pub(crate) fn remember(&self, key: Key, version: Version) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if self.instances_max == 0 {
            return;
        }
        while table.in_order.len() >= self.instances_max {
            let Some(oldest) = table.in_order.pop_front() else { break };
            if let Some(versions) = table.by_key.get_mut(&oldest) {
                // Versions of a key were remembered in this order.
                versions.drain(..versions.len().min(1));
                if versions.is_empty() {
                    table.by_key.remove(&oldest);
                }
            }
        }
        table.in_order.push_back(key.clone());
        table.by_key.entry(key).or_default().push(version);
    }
}

#[cfg(test)]
mod tests;
