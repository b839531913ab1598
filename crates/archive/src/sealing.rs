//! Patient attributes in events, sealed: encrypted by AES-256-GCM (NIST SP 800-38D) under the key that the event names. An event
//! is copied to places from which nothing can be taken back; the key is not, so what the event says of a patient is gone
//! everywhere once its key is destroyed.
//!
//! A sealed field is a nonce of 12 bytes, the ciphertext, and a tag of 16 bytes. The tag is over the key's id and the event's
//! too, so that no field can be put into another event. Here alone it is known which fields of which events are sealed.

use crate::{
    events::{Event, EventRepaired, InstanceProtected, PatientProtected, Replacement, event_repaired::Remedy},
    ids::{EventId, KeyId},
};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use bytes::Bytes;
use cairn_dicom::{header::Header, tags};
use prost::Message;
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Bytes by which a field grows when it is sealed: nonce and tag.
pub const SEALED_BYTES: usize = NONCE_LEN + 16;

/// A nonce. Drawn at random: no key seals nearly as many fields as would make two of them alike.
pub type SealingNonce = [u8; NONCE_LEN];

/// The bytes of a key of AES-256.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBytes(pub [u8; 32]);

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBytes(..)")
    }
}

/// What could not be sealed, or is not what was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed field is not what was sealed under this key")]
pub struct SealError;

/// A key, ready for use.
pub struct SealingKey {
    id: KeyId,
    cipher: LessSafeKey,
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SealingKey {
    /// Of these bytes.
    ///
    /// # Errors
    /// The cipher refuses them.
    pub fn new(id: KeyId, bytes: &KeyBytes) -> Result<Self, SealError> {
        let cipher = UnboundKey::new(&AES_256_GCM, &bytes.0).map_err(|_| SealError)?;
        Ok(Self { id, cipher: LessSafeKey::new(cipher) })
    }

    /// Names it.
    pub fn id(&self) -> KeyId {
        self.id
    }

    fn aad(&self, event: EventId) -> Aad<[u8; 32]> {
        let mut aad = [0; 32];
        let (key, id) = aad.split_at_mut(16);
        key.copy_from_slice(self.id.as_bytes());
        id.copy_from_slice(event.as_bytes());
        Aad::from(aad)
    }

    fn seal(&self, event: EventId, nonce: SealingNonce, plain: &[u8]) -> Result<Bytes, SealError> {
        let mut sealed = Vec::with_capacity(plain.len() + SEALED_BYTES);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let text = sealed.get_mut(NONCE_LEN..).ok_or(SealError)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.cipher.seal_in_place_separate_tag(nonce, self.aad(event), text).map_err(|_| SealError)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed.into())
    }

    fn open(&self, event: EventId, sealed: &[u8]) -> Result<Bytes, SealError> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealError)?;
        let mut opened = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.cipher.open_in_place(nonce, self.aad(event), &mut opened).map_err(|_| SealError)?.len();
        opened.truncate(length);
        Ok(opened.into())
    }
}

/// What is known of the key of an event.
#[derive(Clone, Debug)]
pub enum Opening {
    /// It is here.
    Key(Arc<SealingKey>),
    /// It is destroyed: what was sealed under it is gone.
    Destroyed,
}

/// Whom a key is for: one patient in one study, so that what is erased of either takes no key that something else needs.
/// Hashes that stay in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The study.
    pub study: [u8; 32],
    patient: [u8; 32],
}

impl Subject {
    fn new(tenant: &str, study_instance_uid: &str, patient: &[&[u8]]) -> Self {
        Self { study: study_of(tenant, study_instance_uid), patient: hash(patient) }
    }
}

/// The study of a [`Subject`].
pub fn study_of(tenant: &str, study_instance_uid: &str) -> [u8; 32] {
    hash(&[tenant.as_bytes(), study_instance_uid.as_bytes()])
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}

/// Whether events of this type may have something sealed.
pub fn may_be_sealed(kind: &str) -> bool {
    const KINDS: [&str; 12] = [
        "cairn.instance.stored.v1",
        "cairn.instance.version-chosen.v1",
        "cairn.rejection.revoked.v1",
        "cairn.attributes.corrected.v1",
        "cairn.correction.revoked.v1",
        "cairn.event.repaired.v1",
        "cairn.erasure.requested.v1",
        "cairn.erasure.withdrawn.v1",
        "cairn.patient.merged.v1",
        "cairn.patient.linked.v1",
        "cairn.patient.updated.v1",
        "cairn.patient.fact-revoked.v1",
    ];
    KINDS.contains(&kind)
}

/// What an event has of its own that is sealed, and where it names the key.
///
/// What holds say is not: a hold that can't be read holds everything, and nothing tells when nobody needs the key of one any more.
fn sealed_fields(event: &mut Event) -> Option<(&mut String, &mut Bytes)> {
    match event {
        Event::InstanceStored(event) => Some((&mut event.key_id, &mut event.protected)),
        Event::VersionChosen(event) => Some((&mut event.key_id, &mut event.reason)),
        Event::RejectionRevoked(event) => Some((&mut event.key_id, &mut event.reason)),
        Event::AttributesCorrected(event) => Some((&mut event.key_id, &mut event.protected)),
        Event::CorrectionRevoked(event) => Some((&mut event.key_id, &mut event.reason)),
        Event::EventRepaired(event) => Some((&mut event.key_id, &mut event.reason)),
        Event::ErasureRequested(event) => Some((&mut event.key_id, &mut event.reason)),
        Event::ErasureWithdrawn(event) => Some((&mut event.key_id, &mut event.reason)),
        Event::PatientsMerged(event) => Some((&mut event.key_id, &mut event.protected)),
        Event::PatientsLinked(event) => Some((&mut event.key_id, &mut event.protected)),
        Event::PatientUpdated(event) => Some((&mut event.key_id, &mut event.protected)),
        Event::PatientFactRevoked(event) => Some((&mut event.key_id, &mut event.protected)),
        _ => None,
    }
}

/// The event that a repair puts in the place of another, where something of that is sealed.
fn replacement(event: &EventRepaired) -> Option<Event> {
    let Some(Remedy::Replacement(by)) = &event.remedy else { return None };
    let mut inner = Event::decode(&by.event_type, by.payload.clone()).ok()?;
    let is_repair = matches!(inner, Event::EventRepaired(_));
    (!is_repair && sealed_fields(&mut inner).is_some()).then_some(inner)
}

fn replace(repair: &mut EventRepaired, inner: &Event) {
    if let Some(Remedy::Replacement(Replacement { payload, .. })) = &mut repair.remedy {
        *payload = inner.encode();
    }
}

/// Whom an event that is not sealed should be sealed for; `None`: it has nothing that may be a patient's.
pub fn subject(event: &Event) -> Option<Subject> {
    let of_study = |reason: &Bytes, key_id: &str| {
        (key_id.is_empty() && !reason.is_empty()).then(|| Subject::new(event.tenant(), event.study_instance_uid(), &[]))
    };
    match event {
        Event::InstanceStored(stored) => {
            if !stored.key_id.is_empty() {
                return None;
            }
            let header = InstanceProtected::decode(stored.protected.clone()).ok()?.header;
            if header.is_empty() {
                // It is in an object of its own, which is destroyed as the instance's is.
                return None;
            }
            let id = Header::new(&header).get(tags::PATIENT_ID).map(|id| id.value).unwrap_or_default();
            let issuer = stored.sender_profile.as_ref().map(|profile| profile.issuer_of_patient_id.as_bytes());
            Some(Subject::new(&stored.tenant, &stored.study_instance_uid, &[issuer.unwrap_or_default(), id]))
        }
        Event::VersionChosen(event) => of_study(&event.reason, &event.key_id),
        Event::RejectionRevoked(event) => of_study(&event.reason, &event.key_id),
        Event::AttributesCorrected(event) => of_study(&event.protected, &event.key_id),
        Event::CorrectionRevoked(event) => of_study(&event.reason, &event.key_id),
        Event::ErasureRequested(event) => of_study(&event.reason, &event.key_id),
        Event::ErasureWithdrawn(event) => of_study(&event.reason, &event.key_id),
        Event::PatientsMerged(event) => of_patient(&event.tenant, &event.protected, &event.key_id),
        Event::PatientsLinked(event) => of_patient(&event.tenant, &event.protected, &event.key_id),
        Event::PatientUpdated(event) => of_patient(&event.tenant, &event.protected, &event.key_id),
        Event::PatientFactRevoked(event) => of_patient(&event.tenant, &event.protected, &event.key_id),
        Event::EventRepaired(event) => {
            let inner = replacement(event).as_ref().and_then(subject);
            inner.or_else(|| of_study(&event.reason, &event.key_id))
        }
        _ => None,
    }
}

/// A fact about patients is of no study, and sealed for the first whom it names.
fn of_patient(tenant: &str, protected: &Bytes, key_id: &str) -> Option<Subject> {
    if !key_id.is_empty() || protected.is_empty() {
        return None;
    }
    let first = PatientProtected::decode(protected.clone()).ok()?.patients.into_iter().next()?;
    Some(Subject::new(tenant, "", &[first.issuer_of_patient_id.as_bytes(), first.patient_id.as_bytes()]))
}

/// Seals what may be a patient's in an event that has a [`subject`]. The second nonce is for what a repair puts in the place of
/// another event.
///
/// # Errors
/// The cipher's.
pub fn seal(event: &mut Event, id: EventId, key: &SealingKey, nonces: [SealingNonce; 2]) -> Result<(), SealError> {
    let [own, of_inner] = nonces;
    if let Event::EventRepaired(repair) = event
        && let Some(mut inner) = replacement(repair)
        && subject(&inner).is_some()
    {
        seal_own(&mut inner, id, key, of_inner)?;
        replace(repair, &inner);
    }
    seal_own(event, id, key, own)
}

fn seal_own(event: &mut Event, id: EventId, key: &SealingKey, nonce: SealingNonce) -> Result<(), SealError> {
    if let Some((key_id, field)) = sealed_fields(event)
        && !field.is_empty()
    {
        *field = key.seal(id, nonce, field)?;
        *key_id = key.id().to_string();
    }
    Ok(())
}

/// The keys that an event of this type and payload is sealed under. What can't be read is under none.
pub fn keys_of(kind: &str, payload: &Bytes) -> Vec<KeyId> {
    if !may_be_sealed(kind) {
        return Vec::new();
    }
    Event::decode(kind, payload.clone()).map(|mut event| keys_of_event(&mut event)).unwrap_or_default()
}

fn keys_of_event(event: &mut Event) -> Vec<KeyId> {
    let own = |event: &mut Event| sealed_fields(event).and_then(|(key_id, _)| key_id.parse::<KeyId>().ok());
    let mut inner = match event {
        Event::EventRepaired(repair) => replacement(repair),
        _ => None,
    };
    let mut keys: Vec<KeyId> = own(event).into_iter().chain(inner.as_mut().and_then(own)).collect();
    keys.dedup();
    keys
}

/// Opens the payload of an event with the keys that [`keys_of`] names: it is then as it was before it was sealed. Where a key is
/// destroyed the field is empty, and still names the key. What is not what was sealed stays as it is.
pub fn open(kind: &str, id: EventId, payload: Bytes, keys: &BTreeMap<KeyId, Opening>) -> Bytes {
    let Ok(mut event) = Event::decode(kind, payload.clone()) else { return payload };
    if open_event(&mut event, id, keys) { event.encode() } else { payload }
}

fn open_event(event: &mut Event, id: EventId, keys: &BTreeMap<KeyId, Opening>) -> bool {
    let mut is_changed = false;
    if let Event::EventRepaired(repair) = event
        && let Some(mut inner) = replacement(repair)
        && open_event(&mut inner, id, keys)
    {
        replace(repair, &inner);
        is_changed = true;
    }
    let Some((key_id, field)) = sealed_fields(event) else { return is_changed };
    let Some(opening) = key_id.parse().ok().and_then(|id: KeyId| keys.get(&id)) else { return is_changed };
    match opening {
        Opening::Destroyed => {
            *field = Bytes::new();
            true
        }
        Opening::Key(key) => match key.open(id, field) {
            Ok(opened) => {
                *field = opened;
                key_id.clear();
                true
            }
            Err(SealError) => is_changed,
        },
    }
}

/// The payload of an event that is no repair, without what of it is sealed, or would be: the same whatever became of its key.
pub fn without_sealed(kind: &str, payload: &Bytes) -> Bytes {
    match Event::decode(kind, payload.clone()) {
        Ok(mut event) => match sealed_fields(&mut event) {
            Some((key_id, field)) => {
                key_id.clear();
                *field = Bytes::new();
                event.encode()
            }
            None => payload.clone(),
        },
        Err(_) => payload.clone(),
    }
}

/// Whether what an instance's event says of its patient is gone with its key.
pub fn is_shredded(key_id: &str, protected: &[u8]) -> bool {
    !key_id.is_empty() && protected.is_empty()
}

#[cfg(test)]
mod tests;
