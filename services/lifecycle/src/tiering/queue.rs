//! What waits to be moved, in its order: a study at most once, what is recalled first.

use bytes::Bytes;
use cairn_dicom::Uid;
use cairn_service_api::{Error, tiering::QueuedMove};
use cairn_store_api::Tier;
use prost::Message;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::notes::malformed;

/// A study that waits, as it is written down under [`key`].
#[derive(Clone, PartialEq, Message)]
pub(super) struct MoveNote {
    /// The order in which it was asked.
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(bool, tag = "2")]
    to_cold: bool,
    #[prost(string, tag = "3")]
    by: String,
    #[prost(uint64, tag = "4")]
    asked_at_ms: u64,
}

/// A study.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Study {
    pub(super) tenant: String,
    pub(super) uid: Uid,
}

impl Study {
    /// What its note is under.
    pub(super) fn key(&self) -> Vec<u8> {
        [self.tenant.as_bytes(), &[0], self.uid.as_str().as_bytes()].concat()
    }

    fn from_key(key: &[u8]) -> Option<Self> {
        let (tenant, uid) = std::str::from_utf8(key).ok()?.split_once('\0')?;
        Some(Self { tenant: tenant.to_owned(), uid: uid.parse().ok()? })
    }
}

/// Hot before cold, then in the order in which it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    to: Tier,
    number: u64,
}

/// A study that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) study: Study,
    by: String,
    asked_at_ms: u64,
    is_under_way: bool,
    /// Whether an event says where it is moved to.
    is_said: bool,
    failure: String,
    /// It is not tried before the clock that nobody sets shows this.
    not_before: Duration,
}

/// A study whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) place: Place,
    pub(super) study: Study,
    pub(super) by: String,
    /// Whether an event says where it is moved to.
    pub(super) is_said: bool,
}

impl Turn {
    pub(super) fn to(&self) -> Tier {
        self.place.to
    }
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Place, Waiting>,
    places: HashMap<Study, Place>,
    next: u64,
}

impl Queue {
    /// Takes in what was noted down.
    ///
    /// # Errors
    /// The note can't be read.
    pub(super) fn resume(&mut self, key: &[u8], note: MoveNote) -> Result<(), Error> {
        let study = Study::from_key(key).ok_or_else(malformed)?;
        let place = Place { to: if note.to_cold { Tier::Cold } else { Tier::Hot }, number: note.number };
        self.next = self.next.max(note.number.saturating_add(1));
        self.put(place, study, note.by, note.asked_at_ms);
        Ok(())
    }

    fn put(&mut self, place: Place, study: Study, by: String, asked_at_ms: u64) {
        if let Some(before) = self.places.insert(study.clone(), place) {
            self.waiting.remove(&before);
        }
        let (failure, not_before) = (String::new(), Duration::ZERO);
        let (is_under_way, is_said) = (false, false);
        self.waiting.insert(place, Waiting { study, by, asked_at_ms, is_under_way, is_said, failure, not_before });
    }

    /// Whether a study waits to be moved there already.
    pub(super) fn has(&self, study: &Study, to: Tier) -> bool {
        self.places.get(study).is_some_and(|place| place.to == to)
    }

    /// Whether a study waits at all.
    pub(super) fn waits(&self, study: &Study) -> bool {
        self.places.contains_key(study)
    }

    /// The note of a study that is to wait.
    pub(super) fn note(&mut self, to: Tier, by: &str, asked_at_ms: u64) -> MoveNote {
        let number = self.next;
        self.next = number.saturating_add(1);
        MoveNote { number, to_cold: to == Tier::Cold, by: by.to_owned(), asked_at_ms }
    }

    /// The first one whose turn may come now.
    pub(super) fn begin(&mut self, now: Duration) -> Option<Turn> {
        let (place, waiting) = self.waiting.iter_mut().find(|(_, waiting)| waiting.not_before <= now)?;
        waiting.is_under_way = true;
        let Waiting { study, by, is_said, .. } = waiting.clone();
        Some(Turn { place: *place, study, by, is_said })
    }

    /// An event says where it is moved to. After a restart another one does.
    pub(super) fn said(&mut self, turn: &Turn) {
        if let Some(waiting) = self.waiting.get_mut(&turn.place) {
            waiting.is_said = true;
        }
    }

    /// It failed, and comes again later.
    pub(super) fn failed(&mut self, turn: &Turn, failure: String, not_before: Duration) {
        if let Some(waiting) = self.waiting.get_mut(&turn.place) {
            (waiting.is_under_way, waiting.failure, waiting.not_before) = (false, failure, not_before);
        }
    }

    /// Whether nobody asked for something else of it meanwhile.
    pub(super) fn is_as_begun(&self, turn: &Turn) -> bool {
        self.places.get(&turn.study) == Some(&turn.place)
    }

    /// It is done.
    pub(super) fn done(&mut self, turn: &Turn) {
        if self.is_as_begun(turn) {
            self.places.remove(&turn.study);
            self.waiting.remove(&turn.place);
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many wait to be moved to each: hot, cold.
    pub(super) fn counts(&self) -> (u64, u64) {
        let to_hot = self.waiting.keys().filter(|place| place.to == Tier::Hot).count() as u64;
        (to_hot, self.waiting.len() as u64 - to_hot)
    }

    /// All that waits, in its order.
    pub(super) fn all(&self) -> Vec<QueuedMove> {
        let queued = |(place, (at, waiting)): (u64, (&Place, &Waiting))| QueuedMove {
            place,
            tenant: waiting.study.tenant.clone(),
            study_instance_uid: waiting.study.uid.clone(),
            to: at.to,
            by: waiting.by.clone(),
            asked_at_ms: waiting.asked_at_ms,
            is_under_way: waiting.is_under_way,
            failure: waiting.failure.clone(),
        };
        (1..).zip(&self.waiting).map(queued).collect()
    }
}

/// The bytes that a note is written under.
pub(super) fn key(study: &Study) -> Bytes {
    study.key().into()
}
