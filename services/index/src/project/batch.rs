//! A batch of events, by study, and the rows that folding it needs.

use crate::rows::{Identities, Rows, malformed};
use cairn_archive::{
    Incarnation, Partition,
    envelope::Envelope,
    events::{Event, EventError},
    fold::{
        EventOrder, InstanceState, Loaded, Needs, PendingHeader, Poison, Stamp, StudyChange, StudyFold, StudyKey,
        TraceKind,
    },
    ids::EventId,
    index_rows::{HEADERS, TRACES, chunks, decode_trace, header_ck, study_pk},
};
use cairn_dicom::Uid;
use cairn_service_api::Error;
use cairn_store_api::{CkRange, LogRecord};
use std::collections::{BTreeMap, BTreeSet};

/// An event that can't be folded.
pub(crate) struct Parked {
    pub(crate) order: EventOrder,
    pub(crate) stamp: Stamp,
    pub(crate) why: Poison,
    pub(crate) envelope: Envelope,
}

/// What of one study came in a batch.
#[derive(Default)]
pub(crate) struct OfStudy {
    pub(crate) events: Vec<(EventOrder, Stamp, Event)>,
    pub(crate) needs: Needs,
}

/// A batch of events, decoded.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) studies: BTreeMap<StudyKey, OfStudy>,
    pub(crate) parked: Vec<Parked>,
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
            match check(&envelope, record.payload, partition, partitions) {
                Ok(None) => {}
                Ok(Some(event)) => {
                    let key = StudyKey { tenant: envelope.tenant, study_instance_uid: envelope.study_instance_uid };
                    let of = batch.studies.entry(key).or_default();
                    of.needs.add(order.id, &event);
                    of.events.push((order, stamp, event));
                }
                Err(why) => batch.parked.push(Parked { order, stamp, why, envelope }),
            }
        }
        batch
    }
}

/// The event, if it is about a study.
fn check(
    envelope: &Envelope,
    payload: bytes::Bytes,
    partition: Partition,
    partitions: u16,
) -> Result<Option<Event>, Poison> {
    let event = Event::decode(&envelope.kind, payload).map_err(|error| match error {
        EventError::UnknownType => Poison::UnknownType,
        EventError::Undecodable(_) => Poison::Undecodable,
    })?;
    if event.study_instance_uid() != envelope.study_instance_uid || event.tenant() != envelope.tenant {
        return Err(Poison::Disagreement);
    }
    if envelope.study_instance_uid.is_empty() && matches!(event, Event::ReceiptClosed(_)) {
        // A receipt's refused inputs that named no study: the log keeps their count, no projection shows it.
        return Ok(None);
    }
    envelope.study_instance_uid.parse::<Uid>().map_err(|_| Poison::BadIdentifier)?;
    // A row has one writing partition: an event elsewhere would have two projectors write it.
    if Partition::of_study(&envelope.study_instance_uid, partitions) != partition {
        return Err(Poison::WrongPartition);
    }
    Ok(Some(event))
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
        if trace.stamp < committed && trace.kind != TraceKind::Parked {
            loaded.traces.insert(id);
        }
    }
    Ok(())
}

/// Folds the events of one study. What can't be folded is parked.
pub(crate) fn fold(key: StudyKey, loaded: Loaded, of: OfStudy, parked: &mut Vec<Parked>) -> StudyFold {
    let mut fold = StudyFold::new(key.clone(), loaded);
    for (order, stamp, event) in of.events {
        let kind = event.kind();
        if let Err(why) = fold.apply(order.clone(), stamp, event) {
            let envelope = Envelope {
                id: order.id,
                kind: kind.into(),
                site: order.site.clone(),
                study_instance_uid: key.study_instance_uid.clone(),
                tenant: key.tenant.clone(),
                hlc: order.hlc,
                traceparent: None,
                correlation_id: None,
                causation_id: None,
                object_keys: Vec::new(),
                origin: None,
            };
            parked.push(Parked { order, stamp, why, envelope });
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
        let header = match rescan.header(version.order.id) {
            Some(header) => header,
            None => headers.header(&identity.series, &version).await?,
        };
        rescan.tell(&identity, &version, &header);
    }
    for identity in rescan.left() {
        let Some(version) = rescan.shown(&identity, &InstanceState::default()) else { continue };
        let header = rescan.header(version.order.id).unwrap_or_default();
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
            headers.get(at).filter(|header| header.id == version.order.id).map(|header| header.header.clone())
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
