//! What corrections, and revocations of them, say of a study.

use super::{
    EventOrder, Identity, PatientIdentity, Poison, Version,
    event::event_id,
    extract::{default_character_set, select},
};
use crate::{
    correction::{InForce, decode, modifications},
    events::{AttributesCorrected, CorrectionProtected, CorrectionRevoked, KeysJudged},
    ids::EventId,
    sealing::is_shredded,
};
use bytes::Bytes;
use cairn_dicom::{Uid, rewrite::rewrite, tags};
use prost::Message;

/// Attributes are to be given out with other values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// The event.
    pub order: EventOrder,
    /// The repair that says so in place of the event itself.
    pub by: Option<EventId>,
    /// Only of this series.
    pub series: Option<Uid>,
    /// Only of this instance.
    pub instance: Option<Uid>,
    /// The new values in Explicit VR Little Endian and UTF-8.
    pub elements: Bytes,
}

impl Correction {
    /// The event that says so.
    fn said_by(&self) -> EventId {
        self.by.unwrap_or(self.order.id)
    }

    /// Whether it is about an instance.
    pub fn is_about(&self, identity: &Identity) -> bool {
        self.series.as_ref().is_none_or(|series| *series == identity.series)
            && self.instance.as_ref().is_none_or(|instance| *instance == identity.instance)
    }
}

/// Corrections are taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorrectionsRevoked {
    /// The event.
    pub order: EventOrder,
    /// The repair that says so in place of the event itself.
    pub by: Option<EventId>,
    /// Which.
    pub corrections: Vec<EventId>,
}

/// All corrections of a study, and what was taken back, each in event order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corrections {
    pub(crate) said: Vec<Correction>,
    pub(crate) revoked: Vec<CorrectionsRevoked>,
    /// Events that say what is gone with its key, in the order of their ids.
    pub(crate) gone: Vec<EventId>,
}

/// Adds to a list what stands in no place of it yet, or counts in its place: the event itself, else the first of its repairs.
fn insert<T>(list: &mut Vec<T>, item: T, place: impl Fn(&T) -> (&EventOrder, Option<EventId>)) -> bool {
    match list.binary_search_by(|other| place(other).0.cmp(place(&item).0)) {
        Ok(at) => match list.get_mut(at) {
            Some(known) if place(&item).1 < place(known).1 => {
                *known = item;
                true
            }
            _ => false,
        },
        Err(at) => {
            list.insert(at, item);
            true
        }
    }
}

impl Corrections {
    /// Adds a correction. Returns whether that changes anything: what is gone with its key stays gone, should it still be read.
    pub fn insert(&mut self, correction: Correction) -> bool {
        if self.gone.binary_search(&correction.said_by()).is_ok() {
            return false;
        }
        insert(&mut self.said, correction, |correction| (&correction.order, correction.by))
    }

    /// Takes corrections back, before or after they come here. Returns whether that changes anything.
    pub fn revoke(&mut self, revoked: CorrectionsRevoked) -> bool {
        insert(&mut self.revoked, revoked, |revoked| (&revoked.order, revoked.by))
    }

    /// What these events say is gone with its key, read before or after or not at all. Returns whether that changes anything.
    pub(super) fn forget(&mut self, events: Vec<EventId>) -> bool {
        let known = self.gone.len();
        self.gone.extend(events);
        self.gone.sort_unstable();
        self.gone.dedup();
        self.said.retain(|correction| self.gone.binary_search(&correction.said_by()).is_err());
        self.gone.len() > known
    }

    /// Whether nothing was ever said.
    pub fn is_empty(&self) -> bool {
        self.said.is_empty() && self.revoked.is_empty() && self.gone.is_empty()
    }

    /// Whether a correction was taken back.
    pub fn is_revoked(&self, correction: EventId) -> bool {
        self.revoked.iter().any(|revoked| revoked.corrections.contains(&correction))
    }

    /// Those that count for an instance, in event order.
    pub fn of(&self, identity: &Identity) -> impl Iterator<Item = &Correction> {
        let said = self.said.iter().filter(move |correction| correction.is_about(identity));
        said.filter(|correction| !self.is_revoked(correction.order.id))
    }

    /// The same, as they are applied to a version.
    pub fn in_force(&self, identity: &Identity, version: &Version) -> Vec<InForce> {
        let in_force = |correction: &Correction| InForce {
            event: correction.order.id,
            at_ms: correction.order.hlc.wall_ms,
            site: correction.order.site.to_string(),
            elements: correction.elements.clone(),
            source: version.calling_ae_title.clone(),
        };
        self.of(identity).map(in_force).collect()
    }

    /// A version's header as it is given out. One that is not at hand stays so.
    pub fn apply(&self, identity: &Identity, version: &Version, header: Bytes) -> Bytes {
        if header.is_empty() || self.said.is_empty() {
            return header;
        }
        applied(version, header, &self.in_force(identity, version))
    }

    /// Whom an instance names, as corrections have it; `None`: nobody, or its header is not at hand.
    pub fn patient(&self, identity: &Identity, version: &Version, header: &[u8]) -> Option<PatientIdentity> {
        let set = select(header, default_character_set(&version.default_character_set), |tag| tag == tags::PATIENT_ID);
        let id = set.texts(tags::PATIENT_ID).join("\\");
        let issuer = self.issuer(identity).unwrap_or_else(|| version.issuer_of_patient_id.clone());
        (!id.is_empty()).then_some(PatientIdentity { issuer, id })
    }

    /// The issuer of Patient ID that a correction gives an instance, perhaps none: `Some("")`.
    pub(crate) fn issuer(&self, identity: &Identity) -> Option<String> {
        let sets: Vec<_> = self.of(identity).filter_map(|correction| decode(&correction.elements)).collect();
        let set = sets.iter().rev().find(|set| set.get(tags::ISSUER_OF_PATIENT_ID).is_some())?;
        Some(set.text(tags::ISSUER_OF_PATIENT_ID).unwrap_or_default().to_owned())
    }

    /// What of the canonical state they are.
    pub(crate) fn hash(&self, hasher: &mut blake3::Hasher) {
        let mut bytes = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        for correction in &self.said {
            bytes(correction.order.id.as_bytes());
            bytes(correction.series.as_ref().map_or("", Uid::as_str).as_bytes());
            bytes(correction.instance.as_ref().map_or("", Uid::as_str).as_bytes());
            bytes(&correction.elements);
        }
        for revoked in &self.revoked {
            bytes(revoked.order.id.as_bytes());
            revoked.corrections.iter().for_each(|id| bytes(id.as_bytes()));
        }
    }
}

/// A version's header as it is given out. One that is not at hand stays so.
pub fn applied(version: &Version, header: Bytes, in_force: &[InForce]) -> Bytes {
    if header.is_empty() || in_force.is_empty() {
        return header;
    }
    rewrite(&header, &modifications(in_force), default_character_set(&version.default_character_set))
}

/// What a correction says; `None`: that is gone with its key.
pub(super) fn read_correction(
    order: EventOrder,
    by: Option<EventId>,
    event: &AttributesCorrected,
) -> Result<Option<Correction>, Poison> {
    if is_shredded(&event.key_id, &event.protected) {
        return Ok(None);
    }
    if !event.key_id.is_empty() {
        return Err(Poison::Encrypted);
    }
    let protected = CorrectionProtected::decode(event.protected.clone()).map_err(|_| Poison::Undecodable)?;
    // A later build may correct what this one can't: then it is parked, not passed over.
    if decode(&protected.elements).is_none() {
        return Err(Poison::Malformed);
    }
    let scope = |text: &str| match text {
        "" => Ok(None),
        text => text.parse::<Uid>().map(Some).map_err(|_| Poison::BadIdentifier),
    };
    let (series, instance) = (scope(&event.series_instance_uid)?, scope(&event.sop_instance_uid)?);
    Ok(Some(Correction { order, by, series, instance, elements: protected.elements }))
}

/// Events that say what is gone with its key.
pub(super) fn read_gone(event: &KeysJudged) -> Result<Vec<EventId>, Poison> {
    event.correction_event_ids.iter().map(|id| event_id(id)).collect()
}

/// What a revocation of corrections says.
pub(super) fn read_revocation(
    order: EventOrder,
    by: Option<EventId>,
    event: &CorrectionRevoked,
) -> Result<CorrectionsRevoked, Poison> {
    let mut corrections: Vec<EventId> =
        event.correction_event_ids.iter().map(|id| event_id(id)).collect::<Result<_, _>>()?;
    corrections.sort_unstable();
    corrections.dedup();
    Ok(CorrectionsRevoked { order, by, corrections })
}
