//! Folding a batch of events into one study.

use super::{
    Chosen, Compared, EventOrder, Fact, InstanceState, Resend, SeriesState, Stamp, StoredObject, StudyKey, StudyState,
    TablesAt, Verdict, Version,
    extract::{Profile, Told, fingerprint, series_elements, study_elements},
};
use crate::{
    digest::event_hash,
    events::{
        Comparison, Event, InstanceProtected, InstanceReceivedAgain, InstanceStored, InstanceStoredSide, Object,
        ReceiptClosed, ResendPolicy, frame_table::Layout,
    },
    ids::{Digest, EventId, ObjectKey},
};
use bytes::Bytes;
use cairn_dicom::{Uid, tags};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Frame and bulk data tables up to this many bytes stay in the version's row.
const TABLES_HERE_BYTES_MAX: usize = 256;

/// Why an event can't be folded. It is parked with this reason; later events apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// Its type is not known to this build.
    #[error("event type is not known to this build")]
    UnknownType,
    /// Its payload does not decode.
    #[error("event payload does not decode")]
    Undecodable,
    /// Its payload is about another study or tenant than its envelope says.
    #[error("event payload and envelope disagree")]
    Disagreement,
    /// It stands in another partition than its study's.
    #[error("event stands in the wrong partition")]
    WrongPartition,
    /// A UID in it can't be used.
    #[error("event has an unusable identifier")]
    BadIdentifier,
    /// Something that it must name is missing or malformed.
    #[error("event lacks a required field or has it malformed")]
    Malformed,
    /// It is encrypted under a key that this build can't open.
    #[error("event is encrypted")]
    Encrypted,
    /// What it would add to a row goes beyond the row's bounds.
    #[error("event is too large for the index")]
    TooLarge,
}

/// A SOP Instance within its study.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Series Instance UID.
    pub series: Uid,
    /// SOP Instance UID.
    pub instance: Uid,
}

/// Which rows of a study a batch touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Identities whose facts are needed, and their series.
    pub identities: BTreeSet<Identity>,
    /// Traces of which it must be known whether they were folded.
    pub traces: BTreeSet<EventId>,
}

impl Needs {
    /// Adds what folding an event touches.
    pub fn add(&mut self, id: EventId, event: &Event) {
        let identity = match event {
            Event::InstanceStored(event) => (&event.series_instance_uid, &event.sop_instance_uid),
            Event::VersionsCompared(event) => (&event.series_instance_uid, &event.sop_instance_uid),
            Event::VersionChosen(event) => (&event.series_instance_uid, &event.sop_instance_uid),
            Event::InstanceReceivedAgain(_) | Event::ReceiptClosed(_) => {
                self.traces.insert(id);
                return;
            }
        };
        if let (Ok(series), Ok(instance)) = (identity.0.parse(), identity.1.parse()) {
            self.identities.insert(Identity { series, instance });
        }
    }
}

/// An event that changes nothing shown but leaves a trace (I5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The event.
    pub order: EventOrder,
    /// Where the log stood; local.
    pub stamp: Stamp,
    /// What it says.
    pub kind: TraceKind,
}

/// What a trace says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceKind {
    /// The bytes of a stored version arrived again.
    ReceivedAgain {
        /// Which instance.
        identity: Identity,
        /// The store event whose object has the same bytes.
        store_event: EventId,
    },
    /// A receipt was closed: stored, repeated, refused.
    ReceiptClosed {
        /// Counts of the study.
        counts: [u32; 3],
    },
    /// The event was parked. Local: another build may fold it.
    Parked,
}

impl Trace {
    fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.order.id.as_bytes());
        match &self.kind {
            TraceKind::ReceivedAgain { identity, store_event } => {
                hasher.update(b"again").update(store_event.as_bytes());
                hasher.update(identity.series.as_str().as_bytes()).update(&[0]);
                hasher.update(identity.instance.as_str().as_bytes());
            }
            TraceKind::ReceiptClosed { counts } => {
                hasher.update(b"receipt");
                counts.iter().for_each(|count| {
                    hasher.update(&count.to_le_bytes());
                });
            }
            TraceKind::Parked => {}
        }
        *hasher.finalize().as_bytes()
    }
}

/// Rows of a study as they were at the committed offset.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The study; `None`: nothing of it is folded, and the rest is empty.
    pub study: Option<StudyState>,
    /// Whether rows were found that a torn commit left: then derived rows can't be diffed.
    pub torn: bool,
    /// Series that [`Needs`] names, those that are there.
    pub series: Vec<(Uid, SeriesState)>,
    /// Facts of the identities that [`Needs`] names, those that are there.
    pub instances: Vec<(Identity, InstanceState)>,
    /// Those of the traces asked for that were folded.
    pub traces: HashSet<EventId>,
}

#[derive(Clone, Debug, Default)]
struct SeriesFold {
    before: Option<SeriesState>,
    now: SeriesState,
    pending: Vec<PendingHeader>,
}

#[derive(Clone, Debug, Default)]
struct InstanceFold {
    before_hash: Option<[u8; 32]>,
    before_shown: Option<EventId>,
    is_new: bool,
    touched: bool,
    state: InstanceState,
}

/// A header to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingHeader {
    /// Where the log stood.
    pub stamp: Stamp,
    /// The store event.
    pub id: EventId,
    /// The header.
    pub header: Bytes,
}

/// A series as a batch changed it.
#[derive(Clone, Debug)]
pub struct SeriesChange {
    /// Series Instance UID.
    pub uid: Uid,
    /// Before the batch.
    pub before: Option<SeriesState>,
    /// After it; the caller settles `open`.
    pub after: SeriesState,
    /// Headers to keep, in log order.
    pub pending: Vec<PendingHeader>,
}

/// A study as a batch changed it.
#[derive(Clone, Debug)]
pub struct StudyChange {
    /// Which.
    pub key: StudyKey,
    /// Before the batch.
    pub before: Option<StudyState>,
    /// Whether derived rows must be written whatever `before` says.
    pub torn: bool,
    /// After it.
    pub after: StudyState,
    /// Series touched.
    pub series: Vec<SeriesChange>,
    /// New facts.
    pub facts: Vec<(Identity, Fact)>,
    /// Tables kept in rows of their own.
    pub tables: Vec<(EventId, Bytes)>,
    /// Identities stored for the first time.
    pub new_identities: Vec<Identity>,
    /// Identities touched, with their states.
    pub instances: Vec<(Identity, InstanceState)>,
    /// New traces.
    pub traces: Vec<Trace>,
}

/// A study that a batch of events is folded into.
#[derive(Clone, Debug)]
pub struct StudyFold {
    key: StudyKey,
    before: Option<StudyState>,
    torn: bool,
    now: StudyState,
    series: BTreeMap<Uid, SeriesFold>,
    instances: HashMap<Identity, InstanceFold>,
    known_traces: HashSet<EventId>,
    facts: Vec<(Identity, Fact)>,
    tables: Vec<(EventId, Bytes)>,
    traces: Vec<Trace>,
    headers: HashMap<EventId, Bytes>,
    changed: bool,
}

impl StudyFold {
    /// Begins with what was committed.
    pub fn new(key: StudyKey, loaded: Loaded) -> Self {
        let series = loaded
            .series
            .into_iter()
            .map(|(uid, state)| (uid, SeriesFold { before: Some(state.clone()), now: state, pending: Vec::new() }));
        let instances = loaded.instances.into_iter().map(|(identity, state)| {
            let before_hash = state.hash(identity.series.as_str(), identity.instance.as_str());
            let before_shown = state.shown().map(|version| version.order.id);
            let is_new = state.versions().is_empty();
            (identity, InstanceFold { before_hash, before_shown, is_new, touched: false, state })
        });
        Self {
            key,
            torn: loaded.torn,
            now: loaded.study.clone().unwrap_or_default(),
            before: loaded.study,
            series: series.collect(),
            instances: instances.collect(),
            known_traces: loaded.traces,
            facts: Vec::new(),
            tables: Vec::new(),
            traces: Vec::new(),
            headers: HashMap::new(),
            changed: false,
        }
    }

    /// Folds one event in. One that was folded before changes nothing.
    ///
    /// # Errors
    /// [`Poison`]: nothing was changed.
    pub fn apply(&mut self, order: EventOrder, stamp: Stamp, event: Event) -> Result<(), Poison> {
        if event.study_instance_uid() != self.key.study_instance_uid || event.tenant() != self.key.tenant {
            return Err(Poison::Disagreement);
        }
        match event {
            Event::InstanceStored(event) => self.stored(order, stamp, *event),
            Event::InstanceReceivedAgain(event) => self.received_again(order, stamp, &event),
            Event::ReceiptClosed(event) => {
                self.receipt_closed(order, stamp, &event);
                Ok(())
            }
            Event::VersionsCompared(event) => {
                let identity = identity(&event.series_instance_uid, &event.sop_instance_uid)?;
                let verdict = match Comparison::try_from(event.comparison) {
                    Ok(Comparison::AnotherEncoding) => Verdict::AnotherEncoding,
                    Ok(Comparison::Different | Comparison::NotComparable) => Verdict::Different,
                    Ok(Comparison::Unspecified) | Err(_) => return Err(Poison::Malformed),
                };
                let first = event_id(&event.first_store_event_id)?;
                let second = event_id(&event.second_store_event_id)?;
                self.fact(identity, Fact::Compared(Compared { order, stamp, first, second, verdict }));
                Ok(())
            }
            Event::VersionChosen(event) => {
                let identity = identity(&event.series_instance_uid, &event.sop_instance_uid)?;
                let store_event = event_id(&event.store_event_id)?;
                self.fact(identity, Fact::Chosen(Chosen { order, stamp, store_event }));
                Ok(())
            }
        }
    }

    fn stored(&mut self, order: EventOrder, stamp: Stamp, event: InstanceStored) -> Result<(), Poison> {
        let identity = identity(&event.series_instance_uid, &event.sop_instance_uid)?;
        if !event.key_id.is_empty() {
            return Err(Poison::Encrypted);
        }
        let protected = InstanceProtected::decode(event.protected.clone()).map_err(|_| Poison::Undecodable)?;
        let (version, tables) = version_of(order, stamp, event, &protected.header)?;
        let id = version.order.id;
        if !self.fact(identity.clone(), Fact::Stored(Box::new(version))) {
            return Ok(());
        }
        if let Some(tables) = tables {
            self.tables.push((id, tables));
        }
        let series = self.series.entry(identity.series).or_default();
        series.now.versions += 1;
        self.now.versions += 1;
        if !protected.header.is_empty() {
            series.pending.push(PendingHeader { stamp, id, header: protected.header.clone() });
            self.headers.insert(id, protected.header);
        }
        Ok(())
    }

    /// Adds a fact about an identity; tells whether it is new.
    fn fact(&mut self, identity: Identity, fact: Fact) -> bool {
        let instance = self
            .instances
            .entry(identity.clone())
            .or_insert_with(|| InstanceFold { is_new: true, ..InstanceFold::default() });
        if !instance.state.insert(fact.clone()) {
            return false;
        }
        instance.touched = true;
        self.now.events.add(&event_hash(&fact.order().id));
        self.changed = true;
        self.facts.push((identity, fact));
        true
    }

    fn received_again(&mut self, order: EventOrder, stamp: Stamp, event: &InstanceReceivedAgain) -> Result<(), Poison> {
        let identity = identity(&event.series_instance_uid, &event.sop_instance_uid)?;
        let store_event = event_id(&event.store_event_id)?;
        self.trace(Trace { order, stamp, kind: TraceKind::ReceivedAgain { identity, store_event } });
        Ok(())
    }

    fn receipt_closed(&mut self, order: EventOrder, stamp: Stamp, event: &ReceiptClosed) {
        let counts = [event.stored, event.repeated, event.refused];
        self.trace(Trace { order, stamp, kind: TraceKind::ReceiptClosed { counts } });
    }

    fn trace(&mut self, trace: Trace) {
        if !self.known_traces.insert(trace.order.id) {
            return;
        }
        self.now.events.add(&event_hash(&trace.order.id));
        self.now.facts.add(&trace.hash());
        self.changed = true;
        self.traces.push(trace);
    }

    /// Whether a version that was shown is not shown any more: then the attributes can't be had by adding, and the
    /// study has to be gone through by [`StudyFold::rescan`] before it is finished.
    pub fn needs_rescan(&self) -> bool {
        self.instances.values().any(|instance| {
            let shown = || instance.state.shown().map(|version| version.order.id);
            instance.touched && instance.before_shown.is_some() && instance.before_shown != shown()
        })
    }

    /// Begins to go through the whole study.
    pub fn rescan(mut self) -> Rescan {
        self.now.attributes = Default::default();
        self.now.modalities.clear();
        self.now.sop_classes.clear();
        (self.now.shown, self.now.series) = (0, 0);
        for series in self.series.values_mut() {
            series.now.attributes = Default::default();
            series.now.shown = 0;
        }
        Rescan { fold: self, told: HashSet::new() }
    }

    /// Settles the batch. `None`: nothing changed.
    pub fn finish(mut self) -> Option<StudyChange> {
        if !self.changed {
            return None;
        }
        let mut newly_shown = Vec::new();
        for (identity, instance) in self.instances.iter().filter(|(_, instance)| instance.touched) {
            if instance.before_shown.is_none()
                && let Some(version) = instance.state.shown()
            {
                newly_shown.push((identity.clone(), version.clone()));
            }
        }
        for (identity, version) in newly_shown {
            let header = self.headers.get(&version.order.id).cloned().unwrap_or_default();
            self.show(&identity, &version, &header);
        }
        Some(self.settle())
    }

    /// Adds a shown version to the counts and attributes of its series and study.
    fn show(&mut self, identity: &Identity, version: &Version, header: &[u8]) {
        let series = self.series.entry(identity.series.clone()).or_default();
        series.now.shown += 1;
        if series.now.shown == 1 {
            self.now.series += 1;
        }
        self.now.shown += 1;
        StudyState::insert_distinct(&mut self.now.sop_classes, &version.sop_class_uid);
        let profile = Profile {
            issuer_of_patient_id: &version.issuer_of_patient_id,
            default_character_set: &version.default_character_set,
            time_zone: &version.time_zone,
        };
        let told = Told::read(header);
        let of_series = fingerprint(&told.series, &profile);
        if !series.now.attributes.has_seen(&of_series, &version.order) {
            let elements = series_elements(&told.series, &profile);
            if let Some((_, modality)) = elements.iter().find(|(tag, _)| *tag == tags::MODALITY) {
                let text = String::from_utf8_lossy(modality.get(8..).unwrap_or_default()).into_owned();
                for value in text.split('\\') {
                    StudyState::insert_distinct(&mut self.now.modalities, value.trim_matches([' ', '\0']));
                }
            }
            series.now.attributes.merge(of_series, &version.order, elements);
        }
        let of_study = fingerprint(&told.study, &profile);
        if !self.now.attributes.has_seen(&of_study, &version.order) {
            let elements = study_elements(&told.study, &profile);
            self.now.attributes.merge(of_study, &version.order, elements);
        }
    }

    fn settle(mut self) -> StudyChange {
        let mut new_identities = Vec::new();
        let mut instances = Vec::new();
        for (identity, instance) in self.instances {
            if !instance.touched {
                continue;
            }
            if let Some(before) = instance.before_hash {
                self.now.facts.subtract(&before);
            }
            let hash = instance.state.hash(identity.series.as_str(), identity.instance.as_str());
            if let Some(hash) = hash {
                self.now.facts.add(&hash);
            }
            if instance.is_new && !instance.state.versions().is_empty() {
                new_identities.push(identity.clone());
            }
            instances.push((identity, instance.state));
        }
        let mut series = Vec::new();
        for (uid, fold) in self.series {
            if fold.before.as_ref() == Some(&fold.now) && fold.pending.is_empty() {
                continue;
            }
            if let Some(before) = &fold.before {
                self.now.series_hashes.subtract(&before.hash(uid.as_str()));
            }
            self.now.series_hashes.add(&fold.now.hash(uid.as_str()));
            series.push(SeriesChange { uid, before: fold.before, after: fold.now, pending: fold.pending });
        }
        StudyChange {
            key: self.key,
            before: self.before,
            torn: self.torn,
            after: self.now,
            series,
            facts: self.facts,
            tables: self.tables,
            new_identities,
            instances,
            traces: self.traces,
        }
    }
}

/// Going through a whole study because a version is not shown any more.
pub struct Rescan {
    fold: StudyFold,
    told: HashSet<Identity>,
}

impl Rescan {
    /// What the batch holds of a series that has to be there before it is finished; `None`: load it.
    pub fn add_series(&mut self, uid: Uid, state: SeriesState) {
        let series = self.fold.series.entry(uid).or_insert_with(|| SeriesFold {
            before: Some(state.clone()),
            now: state.clone(),
            pending: Vec::new(),
        });
        series.now.attributes = Default::default();
        series.now.shown = 0;
    }

    /// The version of an identity that is shown, by the batch if that touched it, else by what was stored.
    pub fn shown(&self, identity: &Identity, stored: &InstanceState) -> Option<Version> {
        let state = self.fold.instances.get(identity).map_or(stored, |instance| &instance.state);
        state.shown().cloned()
    }

    /// The header that the batch brought of a version.
    pub fn header(&self, store_event: EventId) -> Option<Bytes> {
        self.fold.headers.get(&store_event).cloned()
    }

    /// Identities that the batch brought and that were not told yet.
    pub fn left(&self) -> Vec<Identity> {
        self.fold.instances.keys().filter(|identity| !self.told.contains(identity)).cloned().collect()
    }

    /// Tells one identity's shown version with its header. Each identity once, all of the study.
    pub fn tell(&mut self, identity: &Identity, version: &Version, header: &[u8]) {
        if self.told.insert(identity.clone()) {
            self.fold.show(identity, version, header);
        }
    }

    /// Settles the batch.
    pub fn finish(self) -> Option<StudyChange> {
        self.fold.changed.then(|| self.fold.settle())
    }
}

fn identity(series: &str, instance: &str) -> Result<Identity, Poison> {
    let uid = |text: &str| text.parse::<Uid>().map_err(|_| Poison::BadIdentifier);
    Ok(Identity { series: uid(series)?, instance: uid(instance)? })
}

fn event_id(bytes: &[u8]) -> Result<EventId, Poison> {
    EventId::from_slice(bytes).map_err(|_| Poison::Malformed)
}

fn object(object: &Object) -> Result<StoredObject, Poison> {
    Ok(StoredObject {
        key: ObjectKey::from_slice(&object.key).map_err(|_| Poison::Malformed)?,
        length: object.length_bytes,
        digest: Digest::from_slice(&object.blake3).map_err(|_| Poison::Malformed)?,
    })
}

/// A version as its store event says, and its tables where they need a row of their own.
fn version_of(
    order: EventOrder,
    stamp: Stamp,
    event: InstanceStored,
    header: &[u8],
) -> Result<(Version, Option<Bytes>), Poison> {
    for uid in [&event.sop_class_uid, &event.transfer_syntax_uid] {
        uid.parse::<Uid>().map_err(|_| Poison::BadIdentifier)?;
    }
    let stored = object(event.object.as_ref().ok_or(Poison::Malformed)?)?;
    let side_object = event.side_object.as_ref().map(object).transpose()?;
    let told = Told::read(header);
    let counted = event.frame_table.as_ref().and_then(|table| table.layout.as_ref()).map(|layout| match layout {
        Layout::Native(native) => native.frames,
        Layout::Fragmented(fragmented) => u32::try_from(fragmented.range_ends.len()).unwrap_or(u32::MAX),
        Layout::DerivedFrames(frames) => *frames,
    });
    let has_pixels = event.pixel_data_offset > 0 || counted.is_some();
    let frames = if has_pixels { told.frames.or(counted).unwrap_or(1).max(1) } else { 0 };
    let receipt = event.receipt.unwrap_or_default();
    let profile = event.sender_profile.unwrap_or_default();
    let resend = match profile.resend_policy() {
        ResendPolicy::SupersedeSameSource => Resend::SupersedeSameSource,
        ResendPolicy::Refuse => Resend::Refuse,
        ResendPolicy::Keep | ResendPolicy::Unspecified => Resend::Keep,
    };
    let side = InstanceStoredSide { protected: None, frame_table: event.frame_table, bulk_data: event.bulk_data };
    let tables = Bytes::from(side.encode_to_vec());
    let (tables, apart) = match tables.len() {
        0 => (TablesAt::Nowhere, None),
        length if length <= TABLES_HERE_BYTES_MAX => (TablesAt::Here(tables), None),
        _ => (TablesAt::Apart, Some(tables)),
    };
    let version = Version {
        order,
        stamp,
        object: stored,
        sop_class_uid: event.sop_class_uid,
        transfer_syntax_uid: event.transfer_syntax_uid,
        data_set_offset: event.data_set_offset,
        pixel_data_offset: event.pixel_data_offset,
        frames,
        instance_number: told.instance_number,
        side_object,
        calling_ae_title: receipt.calling_ae_title,
        issuer_of_patient_id: profile.issuer_of_patient_id,
        default_character_set: profile.default_character_set,
        time_zone: profile.time_zone,
        resend,
        has_header: !header.is_empty(),
        tables,
    };
    Ok((version, apart))
}
