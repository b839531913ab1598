//! A batch of events, by study, and the rows that folding it needs.

use super::patients::PatientFacts;
use crate::rows::{Identities, Rows, malformed};
use cairn_archive::{
    Incarnation, Partition, SiteId,
    envelope::Envelope,
    events::{Event, EventError, EventRepaired, event_repaired::Remedy},
    fold::{EventOrder, InstanceState, Loaded, Needs, PendingHeader, Poison, Stamp, StudyChange, StudyFold, StudyKey},
    ids::EventId,
    index_rows::{FactRow, HEADERS, Parked, TRACES, chunks, decode_trace, header_ck, study_pk},
    patients::PatientFact,
};
use cairn_dicom::Uid;
use cairn_service_api::Error;
use cairn_store_api::{CkRange, LogRecord};
use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// An event of a batch.
#[derive(Clone)]
pub(crate) struct ToFold {
    pub(crate) order: EventOrder,
    /// The stamp that its facts get.
    pub(crate) stamp: Stamp,
    pub(crate) event: Event,
    /// Parked before, and folded again because a repair says so.
    pub(crate) again: bool,
}

/// What of one study came in a batch.
#[derive(Clone, Default)]
pub(crate) struct OfStudy {
    pub(crate) events: Vec<ToFold>,
    pub(crate) needs: Needs,
}

/// An event that need not be parked any more.
#[derive(Clone)]
pub(crate) struct Settled {
    pub(crate) key: StudyKey,
    pub(crate) event: EventId,
    /// The repair that replaces or dismisses it; `None`: it was folded after all.
    pub(crate) by: Option<EventId>,
}

/// An event that is to be folded again.
pub(crate) struct Retrial {
    pub(crate) key: StudyKey,
    pub(crate) event: EventId,
    /// Where the repair stands that says so.
    pub(crate) stamp: Stamp,
}

/// What folding says of events that are or were poison.
#[derive(Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) parked: Vec<Parked>,
    pub(crate) settled: Vec<Settled>,
}

/// A batch of events, decoded.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) studies: BTreeMap<StudyKey, OfStudy>,
    pub(crate) outcome: Outcome,
    pub(crate) retrials: Vec<Retrial>,
    pub(crate) patients: PatientFacts,
    pub(crate) origins: Vec<cairn_archive::Position>,
}

impl Batch {
    /// Decodes records and groups them by study.
    pub(crate) fn decode(
        records: Vec<LogRecord>,
        incarnation: Incarnation,
        partition: Partition,
        partitions: u16,
    ) -> Self {
        let mut batch = Self::default();
        for LogRecord { offset, record, .. } in records {
            let stamp = Stamp::new(incarnation, offset);
            let envelope = record.envelope;
            let order = EventOrder::of(&envelope);
            batch.origins.extend(envelope.origin.clone());
            let checked = AssertUnwindSafe(|| check(&envelope, record.payload, partition, partitions));
            let checked = catch_unwind(checked).unwrap_or(Err(Poison::Defect));
            let key = StudyKey { tenant: envelope.tenant, study_instance_uid: envelope.study_instance_uid };
            match checked {
                Ok(Checked::OfNoStudy(None)) => {}
                Ok(Checked::OfNoStudy(Some(event))) => {
                    batch.outcome.settled.push(Settled { key, event, by: Some(order.id) });
                }
                Ok(Checked::AboutPatients(event)) => match PatientFact::read(order.clone(), &event) {
                    Some(Ok(fact)) => batch.patients.push((key.tenant, FactRow { fact, stamp })),
                    Some(Err(why)) => {
                        batch.outcome.parked.push(parked(order, stamp, why, envelope.kind.into_owned(), key))
                    }
                    None => {}
                },
                Ok(Checked::OfStudy(event)) => batch.add(key, ToFold { order, stamp, event, again: false }),
                Err(why) => batch.outcome.parked.push(parked(order, stamp, why, envelope.kind.into_owned(), key)),
            }
        }
        batch
    }

    /// Studies of which a site's keys are destroyed: what was sealed under them is to be nowhere there.
    pub(crate) fn shredded_at(&self, site: &SiteId) -> Vec<StudyKey> {
        let is_shredded = |to_fold: &ToFold| is_destroyed_at(site, &to_fold.event);
        let studies = self.studies.iter().filter(|(_, of)| of.events.iter().any(is_shredded));
        studies.map(|(key, _)| key.clone()).collect()
    }

    /// Adds an event of a study.
    pub(crate) fn add(&mut self, key: StudyKey, event: ToFold) {
        if let Event::EventRepaired(repair) = &event.event
            && let (Some(Remedy::FoldedAgain(_)), Some(repaired)) = (&repair.remedy, repaired(repair))
        {
            self.retrials.push(Retrial { key: key.clone(), event: repaired, stamp: event.stamp });
        }
        let of = self.studies.entry(key).or_default();
        of.needs.add(event.order.id, &event.event);
        of.events.push(event);
    }
}

fn is_destroyed_at(site: &SiteId, event: &Event) -> bool {
    matches!(event, Event::KeysDestroyed(destroyed) if destroyed.site == site.as_str())
}

fn parked(order: EventOrder, stamp: Stamp, why: Poison, kind: String, key: StudyKey) -> Parked {
    let StudyKey { tenant, study_instance_uid } = key;
    Parked { order, stamp, why, kind, tenant, study_instance_uid, build: BUILD.to_owned() }
}

/// Version of this build.
pub(crate) const BUILD: &str = env!("CARGO_PKG_VERSION");

fn repaired(repair: &EventRepaired) -> Option<EventId> {
    EventId::from_slice(&repair.event_id).ok()
}

/// An event that can be folded as far as its envelope says.
pub(crate) enum Checked {
    /// It is about a study.
    OfStudy(Event),
    /// It is about patients, whose facts are of no study.
    AboutPatients(Event),
    /// It is about none: about sites, objects or storage commitment, the count of a receipt's inputs that named no study (the log
    /// keeps it, no projection shows it), or
    /// the dismissal of an event whose envelope names none.
    OfNoStudy(Option<EventId>),
}

/// Decodes an event.
pub(crate) fn check(
    envelope: &Envelope,
    payload: bytes::Bytes,
    partition: Partition,
    partitions: u16,
) -> Result<Checked, Poison> {
    if envelope.kind == Envelope::UNREADABLE {
        return Err(Poison::Unreadable);
    }
    let event = Event::decode(&envelope.kind, payload).map_err(|error| match error {
        EventError::UnknownType => Poison::UnknownType,
        EventError::Undecodable(_) => Poison::Undecodable,
    })?;
    if event.study_instance_uid() != envelope.study_instance_uid || event.tenant() != envelope.tenant {
        return Err(Poison::Disagreement);
    }
    if envelope.study_instance_uid.parse::<Uid>().is_err() {
        return match event {
            event if event.is_of_patients() && envelope.study_instance_uid.is_empty() => {
                of_patients(event, partition, partitions)
            }
            event if event.is_of_no_study() => Ok(Checked::OfNoStudy(None)),
            Event::ReceiptClosed(_) if envelope.study_instance_uid.is_empty() => Ok(Checked::OfNoStudy(None)),
            Event::EventRepaired(repair) if matches!(repair.remedy, Some(Remedy::Dismissed(_))) => {
                repaired(&repair).map(|event| Checked::OfNoStudy(Some(event))).ok_or(Poison::Malformed)
            }
            _ => Err(Poison::BadIdentifier),
        };
    }
    // A row has one writing partition: an event elsewhere would have two projectors write it.
    if Partition::of_study(&envelope.study_instance_uid, partitions) != partition {
        return Err(Poison::WrongPartition);
    }
    Ok(Checked::OfStudy(event))
}

/// Facts about patients have one writing partition, as a study has.
fn of_patients(event: Event, partition: Partition, partitions: u16) -> Result<Checked, Poison> {
    match Partition::of_study("", partitions) == partition {
        true => Ok(Checked::AboutPatients(event)),
        false => Err(Poison::WrongPartition),
    }
}

/// Reads what folding needs of the studies of a batch, as of the committed offset.
pub(crate) async fn load(
    rows: &Rows,
    studies: &BTreeMap<StudyKey, OfStudy>,
    committed: Stamp,
) -> Result<Vec<Loaded>, Error> {
    let keys: Vec<StudyKey> = studies.keys().cloned().collect();
    let found = rows.studies(&keys).await?;
    let mut all = Vec::with_capacity(keys.len());
    for ((key, of), row) in studies.iter().zip(found) {
        let Some(row) = row else {
            all.push(Loaded::default());
            continue;
        };
        let (study, torn) = row.as_of(committed);
        let mut loaded = Loaded { study, torn, ..Loaded::default() };
        if loaded.study.is_some() {
            load_study(rows, key, &of.needs, committed, &mut loaded).await?;
        }
        all.push(loaded);
    }
    Ok(all)
}

/// The same of one study.
pub(crate) async fn load_one(rows: &Rows, key: &StudyKey, of: &OfStudy, committed: Stamp) -> Result<Loaded, Error> {
    let one = BTreeMap::from([(key.clone(), OfStudy { events: Vec::new(), needs: of.needs.clone() })]);
    Ok(load(rows, &one, committed).await?.pop().unwrap_or_default())
}

async fn load_study(
    rows: &Rows,
    key: &StudyKey,
    needs: &Needs,
    committed: Stamp,
    loaded: &mut Loaded,
) -> Result<(), Error> {
    let series: BTreeSet<Uid> = needs.identities.iter().map(|identity| identity.series.clone()).collect();
    let series: Vec<Uid> = series.into_iter().collect();
    for (uid, row) in rows.some_series(key, &series).await? {
        if let (Some(state), _) = row.as_of(committed) {
            loaded.series.push((uid, state));
        }
    }
    for identity in &needs.identities {
        if !loaded.series.iter().any(|(uid, _)| *uid == identity.series) {
            continue;
        }
        let state = rows.instance(key, identity, Some(committed)).await?;
        if !state.is_empty() {
            loaded.instances.push((identity.clone(), state));
        }
    }
    let traces: Vec<EventId> = needs.traces.iter().copied().collect();
    let pk = study_pk(key);
    let asked: Vec<_> = traces.iter().map(|id| (pk.clone(), bytes::Bytes::copy_from_slice(id.as_bytes()))).collect();
    let found = rows.get_many(TRACES, &asked).await?;
    for (id, row) in traces.into_iter().zip(found).filter_map(|(id, row)| Some((id, row?))) {
        let trace = decode_trace(&row).map_err(malformed)?;
        if trace.stamp < committed {
            loaded.traces.insert(id);
        }
    }
    Ok(())
}

/// Folds the events of one study. What can't be folded is parked.
pub(crate) fn fold(key: StudyKey, loaded: Loaded, of: OfStudy, outcome: &mut Outcome) -> StudyFold {
    let mut fold = StudyFold::new(key.clone(), loaded);
    for ToFold { order, stamp, event, again } in of.events {
        let kind = event.kind();
        let remedy = match &event {
            Event::EventRepaired(repair) if !matches!(repair.remedy, Some(Remedy::FoldedAgain(_))) => repaired(repair),
            _ => None,
        };
        match fold.apply(order.clone(), stamp, event) {
            Ok(()) if again => outcome.settled.push(Settled { key: key.clone(), event: order.id, by: None }),
            Ok(()) => {
                let settled = remedy.map(|event| Settled { key: key.clone(), event, by: Some(order.id) });
                outcome.settled.extend(settled);
            }
            // It stays parked, at its own place.
            Err(why) if again => tracing::warn!(event = %order.id, %why, "an event that is tried again stays parked"),
            Err(why) => outcome.parked.push(parked(order, stamp, why, kind.into(), key.clone())),
        }
    }
    fold
}

/// Settles a study, going through all of it where a version that was shown is not shown any more.
pub(crate) async fn settle(
    rows: &Rows,
    key: &StudyKey,
    fold: StudyFold,
    committed: Stamp,
) -> Result<Option<StudyChange>, Error> {
    if !fold.needs_rescan() {
        return Ok(fold.finish());
    }
    let mut rescan = fold.rescan();
    let mut series = rows.series(key);
    while let Some(page) = series.next().await? {
        for row in page {
            let uid = crate::rows::series_of(&row)?.0;
            let stamped = cairn_archive::index_rows::decode_series(&row.value).map_err(malformed)?;
            if let (Some(state), _) = stamped.as_of(committed) {
                rescan.add_series(uid, state);
            }
        }
    }
    let mut headers = HeaderReader::new(rows.clone(), key.clone(), 4 << 20);
    let mut identities = Identities::new(rows, key, None);
    while let Some((identity, facts)) = identities.next().await? {
        let facts = facts.into_iter().filter(|fact| crate::rows::committed(fact, Some(committed)));
        let stored = InstanceState::from_facts(facts);
        let Some(version) = rescan.shown(&identity, &stored) else { continue };
        let header = match rescan.header(&version) {
            Some(header) => header,
            None => headers.header(&identity.series, &version).await?,
        };
        rescan.tell(&identity, &version, &header);
    }
    for identity in rescan.left() {
        let Some(version) = rescan.shown(&identity, &InstanceState::default()) else { continue };
        let header = rescan.header(&version).unwrap_or_default();
        rescan.tell(&identity, &version, &header);
    }
    Ok(rescan.finish())
}

/// Chunks looked into for one header.
const CHUNKS_TRIED_MAX: usize = 64;

/// Headers of a study's versions, from chunks; the latest ones stay decompressed within a bound.
pub(crate) struct HeaderReader {
    rows: Rows,
    key: StudyKey,
    chunks: Vec<Chunk>,
    bytes_max: usize,
}

struct Chunk {
    series: Uid,
    bytes: usize,
    headers: Vec<PendingHeader>,
}

impl HeaderReader {
    pub(crate) fn new(rows: Rows, key: StudyKey, bytes_max: u64) -> Self {
        Self { rows, key, chunks: Vec::new(), bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX) }
    }

    /// The header of a version; empty if none is kept.
    pub(crate) async fn header(
        &mut self,
        series: &Uid,
        version: &cairn_archive::fold::Version,
    ) -> Result<bytes::Bytes, Error> {
        if !version.has_header {
            return Ok(bytes::Bytes::new());
        }
        let find = |chunk: &Chunk| {
            let headers = &chunk.headers;
            let at = headers.binary_search_by_key(&version.stamp, |header| header.stamp).ok()?;
            headers.get(at).filter(|header| header.id == version.said_by()).map(|header| header.header.clone())
        };
        if let Some(at) = self.chunks.iter().position(|chunk| chunk.series == *series && find(chunk).is_some()) {
            let found = self.chunks.get(at).and_then(find).unwrap_or_default();
            // The latest used is the last to go.
            let chunk = self.chunks.remove(at);
            self.chunks.push(chunk);
            return Ok(found);
        }
        let series_prefix = header_ck(series.as_str(), Stamp(0));
        let range = CkRange {
            from: Some(series_prefix),
            to: Some(header_ck(series.as_str(), Stamp(version.stamp.0.saturating_add(1)))),
        };
        // The last chunk that begins at or before the version; another one only where a crash left a chunk that its
        // successor does not know of.
        let page = self
            .rows
            .store
            .scan(self.rows.generation, crate::rows::table(HEADERS), &study_pk(&self.key), &range, true, 1)
            .await?;
        let mut page = page;
        let mut tried = 0;
        let (chunk, found) = loop {
            let Some(row) = page.rows.first() else { return Ok(bytes::Bytes::new()) };
            let headers = chunks::decode(&row.value).map_err(malformed)?;
            let bytes = headers.iter().map(|header| header.header.len()).sum();
            let chunk = Chunk { series: series.clone(), bytes, headers };
            if let Some(found) = find(&chunk) {
                break (chunk, found);
            }
            tried += 1;
            if !page.more || tried >= CHUNKS_TRIED_MAX {
                return Ok(bytes::Bytes::new());
            }
            let before = CkRange { from: range.from.clone(), to: Some(row.ck.clone()) };
            page = self
                .rows
                .store
                .scan(self.rows.generation, crate::rows::table(HEADERS), &study_pk(&self.key), &before, true, 1)
                .await?;
        };
        self.chunks.push(chunk);
        while self.chunks.len() > 1 && self.chunks.iter().map(|chunk| chunk.bytes).sum::<usize>() > self.bytes_max {
            self.chunks.remove(0);
        }
        Ok(found)
    }
}
