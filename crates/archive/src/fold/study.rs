//! Folding a batch of events into one study.

use super::{
    Chosen, Compared, EventOrder, Fact, Inserted, InstanceState, SeriesState, Stamp, StudyKey, StudyState, Verdict,
    Version,
    condition::{Condition, read_damage, read_repair},
    correction,
    erasing::{Erasing, ErasureStep, read_erased},
    event::{Identity, Poison, Trace, TraceKind, event_id, identity, version_of},
    extract::{Profile, Told, fingerprint, series_elements, study_elements},
    moved::read_moved,
    rejection::{Rejected, Revoked, read_rejection, read_revocation},
    repair::{Repair, replacement},
};
use crate::{
    digest::event_hash,
    events::{
        Comparison, ErasedSeries, Event, EventRepaired, InstanceProtected, InstanceReceivedAgain, InstanceStored,
        InstancesRejected, ReceiptClosed, RejectionRevoked, event_repaired,
    },
    ids::EventId,
    sealing::is_shredded,
};
use bytes::Bytes;
use cairn_dicom::{Uid, tags};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

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
            Event::ObjectDamaged(event) => (&event.series_instance_uid, &event.sop_instance_uid),
            Event::ObjectRepaired(event) => (&event.series_instance_uid, &event.sop_instance_uid),
            Event::InstancesRejected(event) => {
                self.traces.insert(id);
                let named = read_rejection(event).map(|(_, _, named)| named).unwrap_or_default();
                self.identities.extend(named.into_iter().map(|(identity, _)| identity));
                return;
            }
            Event::RejectionRevoked(event) => {
                self.traces.insert(id);
                self.identities.extend(read_revocation(event).map(|(_, named)| named).unwrap_or_default());
                return;
            }
            Event::ErasureRequested(_) | Event::VersionsErased(_) => {
                self.traces.insert(id);
                let named = read_erased(series_of(event)).unwrap_or_default();
                self.identities.extend(named.into_iter().map(|(identity, _)| identity));
                return;
            }
            Event::AttributesCorrected(_)
            | Event::CorrectionRevoked(_)
            | Event::ErasureWithdrawn(_)
            | Event::ErasureConfirmed(_)
            | Event::ObjectsDestroyed(_)
            | Event::StudyMoved(_)
            | Event::KeysJudged(_)
            | Event::KeysDestroyed(_) => {
                self.traces.insert(id);
                return;
            }
            Event::EventRepaired(event) => {
                self.traces.insert(id);
                if let Some(event_repaired::Remedy::Replacement(by)) = &event.remedy
                    && let Ok(by) = replacement(event, by)
                {
                    self.add(id, &by);
                }
                return;
            }
            Event::HoldPlaced(_)
            | Event::HoldReleased(_)
            | Event::PolicyAdopted(_)
            | Event::MovePolicyAdopted(_)
            | Event::PolicyWithdrawn(_)
            | Event::SitePromoted(_)
            | Event::SiteDemoted(_)
            | Event::SiteReadOnlySet(_)
            | Event::SiteDeclaredDead(_)
            | Event::SendersConfigured(_)
            | Event::CheckpointSigned(_)
            | Event::RangeSealed(_)
            | Event::PatientsMerged(_)
            | Event::PatientsLinked(_)
            | Event::PatientUpdated(_)
            | Event::PatientFactRevoked(_)
            | Event::CommitmentRequested(_)
            | Event::CommitmentDecided(_)
            | Event::CommitmentReported(_) => {
                return;
            }
        };
        if let (Ok(series), Ok(instance)) = (identity.0.parse(), identity.1.parse()) {
            self.identities.insert(Identity { series, instance });
        }
    }
}

/// What an event about an erasure names.
fn series_of(event: &Event) -> &[ErasedSeries] {
    match event {
        Event::ErasureRequested(event) => &event.series,
        Event::VersionsErased(event) => &event.series,
        _ => &[],
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
    before_shown: Option<(EventId, EventId)>,
    before_hidden: bool,
    before_versions: u64,
    before_bytes: u64,
    is_new: bool,
    /// Events of the batch.
    new: Vec<EventId>,
    state: InstanceState,
}

/// A header to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingHeader {
    /// Where the log stood.
    pub stamp: Stamp,
    /// The event that says so: [`Version::said_by`].
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

/// An identity as a batch changed it.
#[derive(Clone, Debug)]
pub struct InstanceChange {
    /// Which.
    pub identity: Identity,
    /// After the batch.
    pub state: InstanceState,
    /// The batch's events about it, each a fact of `state`, unless a later one of them counts instead.
    pub new: Vec<EventId>,
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
    /// Tables kept in rows of their own.
    pub tables: Vec<(EventId, Bytes)>,
    /// Identities stored for the first time.
    pub new_identities: Vec<Identity>,
    /// Identities touched.
    pub instances: Vec<InstanceChange>,
    /// New traces.
    pub traces: Vec<Trace>,
}

/// Which instance was received again, and which store event has its bytes.
fn repeat_of(event: &InstanceReceivedAgain) -> Result<(Identity, EventId), Poison> {
    Ok((identity(&event.series_instance_uid, &event.sop_instance_uid)?, event_id(&event.store_event_id)?))
}

/// What names a version: the event whose place it has, and the one that says what it is.
fn names(version: &Version) -> (EventId, EventId) {
    (version.order.id, version.said_by())
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
    tables: Vec<(EventId, Bytes)>,
    traces: Vec<Trace>,
    headers: HashMap<EventId, (Bytes, Told)>,
    /// Whether the batch corrects something, or takes that back.
    corrected: bool,
    /// What was shown last: mostly the next one says the same of series and study.
    last: Option<(Uid, Version, Told)>,
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
            let before_shown = state.shown().map(names);
            let (before_hidden, before_versions) = (state.is_hidden(), state.versions().len() as u64);
            let (is_new, new, before_bytes) = (state.versions().is_empty(), Vec::new(), state.bytes());
            let fold = InstanceFold {
                before_hash,
                before_shown,
                before_hidden,
                before_versions,
                before_bytes,
                is_new,
                new,
                state,
            };
            (identity, fold)
        });
        Self {
            key,
            torn: loaded.torn,
            now: loaded.study.clone().unwrap_or_default(),
            before: loaded.study,
            series: series.collect(),
            instances: instances.collect(),
            known_traces: loaded.traces,
            tables: Vec::new(),
            traces: Vec::new(),
            headers: HashMap::new(),
            corrected: false,
            last: None,
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
        self.fold(order, stamp, None, event)
    }

    /// Folds an event in, or what stands in for it `by` a repair.
    fn fold(&mut self, order: EventOrder, stamp: Stamp, by: Option<EventId>, event: Event) -> Result<(), Poison> {
        match event {
            Event::InstanceStored(event) => self.stored(order, stamp, by, *event),
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
                self.fact(identity, Fact::Compared(Compared { order, stamp, by, first, second, verdict }));
                Ok(())
            }
            Event::VersionChosen(event) => {
                let identity = identity(&event.series_instance_uid, &event.sop_instance_uid)?;
                let store_event = event_id(&event.store_event_id)?;
                self.fact(identity, Fact::Chosen(Chosen { order, stamp, by, store_event }));
                Ok(())
            }
            Event::ObjectDamaged(event) => {
                let (identity, store_event) = read_damage(&event)?;
                let fact = Condition { order, stamp, by, store_event, site: event.site, damaged: true };
                self.fact(identity, Fact::Condition(fact));
                Ok(())
            }
            Event::ObjectRepaired(event) => {
                let (identity, store_event) = read_repair(&event)?;
                let fact = Condition { order, stamp, by, store_event, site: event.site, damaged: false };
                self.fact(identity, Fact::Condition(fact));
                Ok(())
            }
            Event::InstancesRejected(event) => self.rejected(order, stamp, by, &event),
            Event::RejectionRevoked(event) => self.revoked(order, stamp, by, &event),
            Event::AttributesCorrected(event) => {
                let correction = correction::read_correction(order.clone(), by, &event)?;
                let is_new = correction.is_some_and(|correction| self.now.corrections.insert(correction));
                self.correction(order, stamp, by, TraceKind::Corrected, is_new);
                Ok(())
            }
            Event::CorrectionRevoked(event) => {
                let revoked = correction::read_revocation(order.clone(), by, &event)?;
                let is_new = self.now.corrections.revoke(revoked);
                self.correction(order, stamp, by, TraceKind::CorrectionRevoked, is_new);
                Ok(())
            }
            Event::ErasureRequested(_) => {
                let of = by.unwrap_or(order.id);
                self.erasing(order, stamp, by, &event, (ErasureStep::Requested, of))
            }
            Event::VersionsErased(ref erased) => {
                let of = event_id(&erased.erasure_event_id)?;
                self.erasing(order, stamp, by, &event, (ErasureStep::Erased, of))
            }
            Event::ErasureWithdrawn(event) => {
                self.step(order, stamp, by, ErasureStep::Withdrawn, &event.erasure_event_id)
            }
            Event::ErasureConfirmed(event) => {
                self.step(order, stamp, by, ErasureStep::Confirmed, &event.erasure_event_id)
            }
            Event::ObjectsDestroyed(event) => {
                self.step(order, stamp, by, ErasureStep::Destroyed, &event.versions_erased_event_id)
            }
            Event::KeysJudged(event) => {
                let gone = correction::read_gone(&event)?;
                self.step(order, stamp, by, ErasureStep::KeysJudged, &event.versions_erased_event_id)?;
                let is_new = self.now.corrections.forget(gone);
                (self.corrected, self.changed) = (self.corrected | is_new, self.changed | is_new);
                Ok(())
            }
            Event::KeysDestroyed(event) => {
                self.step(order, stamp, by, ErasureStep::KeysDestroyed, &event.keys_judged_event_id)
            }
            Event::StudyMoved(event) => {
                let (site, place) = read_moved(order.clone(), stamp, &event)?;
                self.now.places.insert(site, place);
                if by.is_none() {
                    self.trace(Trace { order, stamp, kind: TraceKind::Moved });
                }
                Ok(())
            }
            Event::EventRepaired(event) => self.repaired(order, stamp, &event),
            // Of no study.
            Event::HoldPlaced(_)
            | Event::HoldReleased(_)
            | Event::PolicyAdopted(_)
            | Event::MovePolicyAdopted(_)
            | Event::PolicyWithdrawn(_)
            | Event::SitePromoted(_)
            | Event::SiteDemoted(_)
            | Event::SiteReadOnlySet(_)
            | Event::SiteDeclaredDead(_)
            | Event::SendersConfigured(_)
            | Event::CheckpointSigned(_)
            | Event::RangeSealed(_)
            | Event::PatientsMerged(_)
            | Event::PatientsLinked(_)
            | Event::PatientUpdated(_)
            | Event::PatientFactRevoked(_)
            | Event::CommitmentRequested(_)
            | Event::CommitmentDecided(_)
            | Event::CommitmentReported(_) => Err(Poison::Disagreement),
        }
    }

    /// A repair is a trace. What it puts in the place of another event is a fact in that place, with the repair's stamp;
    /// that event's own hash is no part of E, since it was not folded.
    fn repaired(&mut self, order: EventOrder, stamp: Stamp, event: &EventRepaired) -> Result<(), Poison> {
        let repair = Repair::read(event)?;
        if self.known_traces.contains(&order.id) {
            return Ok(());
        }
        match repair.replacement {
            // The trace says what such an event would.
            Some(Event::InstanceReceivedAgain(again)) => drop(repeat_of(&again)?),
            None | Some(Event::ReceiptClosed(_)) => {}
            Some(event) => self.fold(repair.event, stamp, Some(order.id), event)?,
        }
        self.trace(Trace { order, stamp, kind: repair.trace });
        Ok(())
    }

    /// A rejection is a fact about each instance that it names, and a trace that stands for the event.
    fn rejected(
        &mut self,
        order: EventOrder,
        stamp: Stamp,
        by: Option<EventId>,
        event: &InstancesRejected,
    ) -> Result<(), Poison> {
        let (title, note, named) = read_rejection(event)?;
        for (identity, store_events) in named {
            let fact = Rejected { order: order.clone(), stamp, by, title, store_events };
            self.fact(identity, Fact::Rejected(fact));
        }
        if by.is_none() {
            self.trace(Trace { order, stamp, kind: TraceKind::Rejected { note } });
        }
        Ok(())
    }

    /// So is taking one back.
    fn revoked(
        &mut self,
        order: EventOrder,
        stamp: Stamp,
        by: Option<EventId>,
        event: &RejectionRevoked,
    ) -> Result<(), Poison> {
        let (rejection, named) = read_revocation(event)?;
        for identity in named {
            self.fact(identity, Fact::Revoked(Revoked { order: order.clone(), stamp, by, rejection }));
        }
        if by.is_none() {
            self.trace(Trace { order, stamp, kind: TraceKind::Revoked { rejection } });
        }
        Ok(())
    }

    /// A correction, or its revocation, is of the whole study, and a trace stands for the event.
    fn correction(&mut self, order: EventOrder, stamp: Stamp, by: Option<EventId>, kind: TraceKind, is_new: bool) {
        self.corrected |= is_new;
        self.changed |= is_new;
        if by.is_none() {
            self.trace(Trace { order, stamp, kind });
        }
    }

    /// And what an erasure names.
    fn erasing(
        &mut self,
        order: EventOrder,
        stamp: Stamp,
        by: Option<EventId>,
        event: &Event,
        (step, of): (ErasureStep, EventId),
    ) -> Result<(), Poison> {
        let is_done = step == ErasureStep::Erased;
        for (identity, store_events) in read_erased(series_of(event))? {
            self.fact(identity, Fact::Erasing(Erasing { order: order.clone(), stamp, by, is_done, store_events }));
        }
        if by.is_none() {
            self.trace(Trace { order, stamp, kind: TraceKind::Erasure { step, of } });
        }
        Ok(())
    }

    /// What else comes of an erasure is a trace.
    fn step(
        &mut self,
        order: EventOrder,
        stamp: Stamp,
        by: Option<EventId>,
        step: ErasureStep,
        of: &[u8],
    ) -> Result<(), Poison> {
        let of = event_id(of)?;
        if by.is_none() {
            self.trace(Trace { order, stamp, kind: TraceKind::Erasure { step, of } });
        }
        Ok(())
    }

    fn stored(
        &mut self,
        order: EventOrder,
        stamp: Stamp,
        by: Option<EventId>,
        event: InstanceStored,
    ) -> Result<(), Poison> {
        let identity = identity(&event.series_instance_uid, &event.sop_instance_uid)?;
        let is_shredded = is_shredded(&event.key_id, &event.protected);
        if !event.key_id.is_empty() && !is_shredded {
            return Err(Poison::Encrypted);
        }
        let protected = InstanceProtected::decode(event.protected.clone()).map_err(|_| Poison::Undecodable)?;
        let (told, order_id) = (Told::read(&protected.header), order.id);
        let at_ms = order.hlc.wall_ms;
        let (mut version, tables) = version_of(order, stamp, by, event, &told, !protected.header.is_empty())?;
        version.is_shredded = is_shredded;
        let said_by = version.said_by();
        let inserted = self.fact(identity.clone(), Fact::Stored(Box::new(version)));
        if inserted == Inserted::Not {
            return Ok(());
        }
        self.now.received_at_ms = self.now.received_at_ms.max(at_ms);
        if let Some(tables) = tables {
            self.tables.push((said_by, tables));
        }
        let is_erased = self.instances.get(&identity).is_some_and(|instance| instance.state.is_erased(order_id));
        let series = self.series.entry(identity.series).or_default();
        if !protected.header.is_empty() && !is_erased {
            series.pending.push(PendingHeader { stamp, id: said_by, header: protected.header.clone() });
            self.headers.insert(said_by, (protected.header, told));
        }
        Ok(())
    }

    /// Adds a fact about an identity. Its series has a row from then on, by which its facts are found again.
    fn fact(&mut self, identity: Identity, fact: Fact) -> Inserted {
        self.series.entry(identity.series.clone()).or_default();
        let instance = self
            .instances
            .entry(identity.clone())
            .or_insert_with(|| InstanceFold { is_new: true, ..InstanceFold::default() });
        let (id, said_by, is_whole_event) = (fact.order().id, fact.as_ref().said_by(), fact.as_ref().is_whole_event());
        let inserted = instance.state.insert(fact);
        if inserted == Inserted::Not {
            return inserted;
        }
        instance.new.push(said_by);
        if said_by == id && is_whole_event {
            self.now.events.add(&event_hash(&id));
        }
        self.changed = true;
        inserted
    }

    fn received_again(&mut self, order: EventOrder, stamp: Stamp, event: &InstanceReceivedAgain) -> Result<(), Poison> {
        let (identity, store_event) = repeat_of(event)?;
        self.now.received_at_ms = self.now.received_at_ms.max(order.hlc.wall_ms);
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
        if !trace.is_local() {
            self.now.facts.add(&trace.hash());
        }
        self.changed = true;
        self.traces.push(trace);
    }

    /// Whether a version that was shown is not shown any more or says something else, or one is shown that the batch did not bring: then the attributes
    /// can't be had by adding, and the study has to be gone through by [`StudyFold::rescan`] before it is finished.
    pub fn needs_rescan(&self) -> bool {
        let was_shown = self.before.as_ref().is_some_and(|before| before.shown > 0);
        if self.corrected && was_shown {
            return true;
        }
        self.instances.values().filter(|instance| !instance.new.is_empty()).any(|instance| {
            let shown = instance.state.shown().map(names);
            match instance.before_shown {
                Some(_) => instance.before_shown != shown,
                None => shown.is_some_and(|(_, said_by)| !instance.new.contains(&said_by)),
            }
        })
    }

    /// Begins to go through the whole study.
    pub fn rescan(mut self) -> Rescan {
        self.now.attributes = Default::default();
        self.now.modalities.clear();
        self.now.sop_classes.clear();
        self.now.senders.clear();
        self.now.institutions.clear();
        self.now.body_parts.clear();
        (self.now.shown, self.now.series) = (0, 0);
        for series in self.series.values_mut() {
            series.now.attributes = Default::default();
            series.now.shown = 0;
        }
        self.last = None;
        Rescan { fold: self, told: HashSet::new() }
    }

    /// Settles the batch. `None`: nothing changed.
    pub fn finish(mut self) -> Option<StudyChange> {
        if !self.changed {
            return None;
        }
        let mut newly_shown = Vec::new();
        for (identity, instance) in self.instances.iter().filter(|(_, instance)| !instance.new.is_empty()) {
            if instance.before_shown.is_none()
                && let Some(version) = instance.state.shown()
            {
                newly_shown.push((identity.clone(), version.clone()));
            }
        }
        // The earliest first, so that the others find said what they say.
        newly_shown.sort_by(|(_, a), (_, b)| a.order.cmp(&b.order));
        for (identity, version) in newly_shown {
            let (header, told) = self.headers.remove(&version.said_by()).unwrap_or_default();
            let told = self.corrected_told(&identity, &version, header).unwrap_or(told);
            self.show(&identity, version, told);
        }
        Some(self.settle())
    }

    /// What a version tells once it is corrected; `None` if it is not.
    fn corrected_told(&self, identity: &Identity, version: &Version, header: Bytes) -> Option<Told> {
        let corrections = &self.now.corrections;
        corrections.of(identity).next()?;
        let header = corrections.apply(identity, version, header);
        Some(Told { issuer: corrections.issuer(identity), ..Told::read(&header) })
    }

    /// Adds a shown version to the counts and attributes of its series and study.
    fn show(&mut self, identity: &Identity, version: Version, told: Told) {
        let series = self.series.entry(identity.series.clone()).or_default();
        series.now.shown += 1;
        if series.now.shown == 1 {
            self.now.series += 1;
        }
        self.now.shown += 1;
        StudyState::insert_distinct(&mut self.now.sop_classes, &version.sop_class_uid);
        StudyState::insert_described(&mut self.now.senders, &version.calling_ae_title);
        let profile = Profile::of(&version, &told);
        let is_alike =
            |(_, last, of): &&(Uid, Version, Told)| last.order <= version.order && Profile::of(last, of) == profile;
        let last = self.last.as_ref().filter(is_alike);
        let same_series =
            last.is_some_and(|(series, _, last)| *series == identity.series && last.series == told.series);
        let same_study = last.is_some_and(|(_, _, last)| last.study == told.study);
        if !same_series {
            let of_series = fingerprint(&told.series, &profile);
            if !series.now.attributes.has_seen(&of_series, &version.order) {
                let elements = series_elements(&told.series, &profile);
                for (tag, element) in &elements {
                    match *tag {
                        tags::MODALITY => values(element)
                            .for_each(|value| StudyState::insert_distinct(&mut self.now.modalities, value)),
                        tags::INSTITUTION_NAME => values(element)
                            .for_each(|value| StudyState::insert_described(&mut self.now.institutions, value)),
                        tags::BODY_PART_EXAMINED => values(element)
                            .for_each(|value| StudyState::insert_described(&mut self.now.body_parts, value)),
                        _ => {}
                    }
                }
                series.now.attributes.merge(of_series, &version.order, elements);
            }
        }
        if !same_study {
            let of_study = fingerprint(&told.study, &profile);
            if !self.now.attributes.has_seen(&of_study, &version.order) {
                let elements = study_elements(&told.study, &profile);
                self.now.attributes.merge(of_study, &version.order, elements);
            }
        }
        self.last = Some((identity.series.clone(), version, told));
    }

    fn settle(mut self) -> StudyChange {
        let mut new_identities = Vec::new();
        let mut instances = Vec::new();
        for (identity, instance) in self.instances {
            if instance.new.is_empty() {
                continue;
            }
            if let Some(before) = instance.before_hash {
                self.now.facts.subtract(&before);
            }
            let hash = instance.state.hash(identity.series.as_str(), identity.instance.as_str());
            if let Some(hash) = hash {
                self.now.facts.add(&hash);
            }
            match (instance.before_hidden, instance.state.is_hidden()) {
                (false, true) => self.now.hidden += 1,
                (true, false) => self.now.hidden -= 1,
                _ => {}
            }
            self.now.bytes = self.now.bytes + instance.state.bytes() - instance.before_bytes;
            let versions = instance.state.versions().len() as u64;
            self.now.versions = self.now.versions + versions - instance.before_versions;
            if let Some(series) = self.series.get_mut(&identity.series) {
                series.now.versions = series.now.versions + versions - instance.before_versions;
            }
            if instance.is_new && versions > 0 {
                new_identities.push(identity.clone());
            }
            instances.push(InstanceChange { identity, state: instance.state, new: instance.new });
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
            tables: self.tables,
            new_identities,
            instances,
            traces: self.traces,
        }
    }
}

/// Values of a text element with a short length, in UTF-8 as the series' part has them.
fn values(element: &[u8]) -> impl Iterator<Item = &str> {
    let text = std::str::from_utf8(element.get(8..).unwrap_or_default()).unwrap_or_default();
    text.split('\\').map(|value| value.trim_matches([' ', '\0']))
}

/// Going through a whole study because a version is not shown any more, or because somebody sees it otherwise.
pub struct Rescan {
    fold: StudyFold,
    told: HashSet<Identity>,
}

impl Rescan {
    /// Begins to go through a study as somebody sees it who is shown more or else.
    pub fn otherwise_seen(key: StudyKey, state: StudyState) -> Self {
        StudyFold::new(key, Loaded { study: Some(state), ..Loaded::default() }).rescan()
    }

    /// What was told: the study, and its series of which something was.
    pub fn into_seen(self) -> (StudyState, BTreeMap<Uid, SeriesState>) {
        (self.fold.now, self.fold.series.into_iter().map(|(uid, series)| (uid, series.now)).collect())
    }

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
    pub fn header(&self, version: &Version) -> Option<Bytes> {
        self.fold.headers.get(&version.said_by()).map(|(header, _)| header.clone())
    }

    /// Identities that the batch brought and that were not told yet.
    pub fn left(&self) -> Vec<Identity> {
        self.fold.instances.keys().filter(|identity| !self.told.contains(identity)).cloned().collect()
    }

    /// Tells one identity's shown version with its header as it was stored. Each identity once, all of the study.
    pub fn tell(&mut self, identity: &Identity, version: &Version, header: &[u8]) {
        if self.told.insert(identity.clone()) {
            let corrected = self.fold.corrected_told(identity, version, Bytes::copy_from_slice(header));
            self.fold.show(identity, version.clone(), corrected.unwrap_or_else(|| Told::read(header)));
        }
    }

    /// Settles the batch.
    pub fn finish(self) -> Option<StudyChange> {
        self.fold.changed.then(|| self.fold.settle())
    }
}
