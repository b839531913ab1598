//! `cairn receipts`: what came in each association, STOW-RS request or import, and what became of it.

use super::{
    Failure, connection, index,
    table::{Cell, Rows},
};
use crate::cli::{Common, Output, ReceiptsAction, ServerArgs};
use cairn_archive::{
    EventId,
    envelope::rfc3339,
    events::{Door, Event, InstanceReceivedAgain, InstanceStored, ReceiptClosed, ReceiptEnd},
    ids::ReceiptId,
};
use cairn_process::clock::{Clock, SystemClock};
use cairn_service_api::{Index, index::ConflictKind};
use cairn_service_grpc::log_proto::{ReadRequest, ReadResponse, Start};
use futures_util::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};

/// How far back is looked where nothing is said.
const DAY_MS: u64 = 24 * 3600 * 1000;

pub async fn run(action: ReceiptsAction) -> Result<(), Failure> {
    match action {
        ReceiptsAction::List { common, since, ae, refused, limit } => {
            let receipts = closed(&common.server, since).await?.into_values();
            let wanted = |receipt: &Summed| {
                ae.as_ref().is_none_or(|ae| receipt.calling_ae == *ae) && (!refused || receipt.refused > 0)
            };
            let mut receipts: Vec<_> = receipts.filter(wanted).collect();
            receipts.sort_by_key(|receipt| std::cmp::Reverse((receipt.ended_at_ms, receipt.id)));
            receipts.truncate(if limit == 0 { usize::MAX } else { limit });
            list(common.output, &receipts)
        }
        ReceiptsAction::Show { receipt, common, since } => show(&common, receipt, since).await,
    }
}

/// A receipt over all its studies.
struct Summed {
    id: ReceiptId,
    door: Door,
    calling_ae: String,
    peer: String,
    opened_at_ms: u64,
    ended_at_ms: u64,
    end: ReceiptEnd,
    tenant: String,
    studies: BTreeSet<String>,
    stored: u64,
    repeated: u64,
    refused: u64,
}

impl Summed {
    fn of(id: ReceiptId, event: &ReceiptClosed, ended_at_ms: u64) -> Self {
        let receipt = event.receipt.clone().unwrap_or_default();
        Self {
            id,
            door: receipt.door(),
            calling_ae: receipt.calling_ae_title,
            peer: receipt.peer_address,
            opened_at_ms: event.opened_at_ms,
            ended_at_ms,
            end: event.end(),
            tenant: event.tenant.clone(),
            studies: BTreeSet::new(),
            stored: 0,
            repeated: 0,
            refused: 0,
        }
    }

    fn add(&mut self, event: &ReceiptClosed, ended_at_ms: u64) {
        if ended_at_ms > self.ended_at_ms || event.end() != ReceiptEnd::Unspecified {
            (self.ended_at_ms, self.end) = (self.ended_at_ms.max(ended_at_ms), event.end());
        }
        if !event.study_instance_uid.is_empty() {
            self.studies.insert(event.study_instance_uid.clone());
        }
        self.stored += u64::from(event.stored);
        self.repeated += u64::from(event.repeated);
        self.refused += u64::from(event.refused);
    }
}

/// Reads events of some types that the log took since a time.
async fn read(
    server: &ServerArgs,
    since_ms: u64,
    types: &[&str],
    belongs_to: Option<ReceiptId>,
    mut each: impl FnMut(ReadResponse),
) -> Result<(), Failure> {
    let mut log = connection(server)?.event_log()?;
    let request = ReadRequest {
        start: Start::Time.into(),
        time_ms: since_ms,
        types: types.iter().map(|kind| (*kind).to_owned()).collect(),
        correlation_id: belongs_to.map(|receipt| receipt.to_string()).unwrap_or_default(),
        ..ReadRequest::default()
    };
    let mut events = log.read(request).await.map_err(super::events::status)?.into_inner();
    while let Some(event) = events.message().await.map_err(super::events::status)? {
        each(event);
    }
    Ok(())
}

fn since(given: Option<u64>) -> u64 {
    given.unwrap_or_else(|| SystemClock::new().unix_ms().saturating_sub(DAY_MS))
}

/// What was summed up since a time, by receipt.
async fn closed(server: &ServerArgs, from: Option<u64>) -> Result<BTreeMap<ReceiptId, Summed>, Failure> {
    let mut receipts = BTreeMap::new();
    let kind = Event::ReceiptClosed(ReceiptClosed::default()).kind();
    read(server, since(from), &[kind], None, |read| {
        let Ok(Event::ReceiptClosed(event)) = Event::decode(kind, read.payload) else { return };
        let id = event.receipt.as_ref().and_then(|receipt| ReceiptId::from_slice(&receipt.receipt_id).ok());
        let Some(id) = id else { return };
        let at = read.appended_at_ms;
        receipts.entry(id).or_insert_with(|| Summed::of(id, &event, at)).add(&event, at);
    })
    .await?;
    Ok(receipts)
}

fn door(door: Door) -> &'static str {
    match door {
        Door::Dimse => "C-STORE",
        Door::Dicomweb => "STOW-RS",
        Door::Import => "import",
        Door::Grpc => "gRPC",
        Door::Unspecified => "?",
    }
}

fn list(output: Output, receipts: &[Summed]) -> Result<(), Failure> {
    let columns = [
        ("Receipt", 36),
        ("By", 8),
        ("CallingAE", 16),
        ("Peer", 21),
        ("Opened", 24),
        ("Ended", 24),
        ("End", 10),
        ("Studies", 8),
        ("Stored", 8),
        ("Repeated", 8),
        ("Refused", 8),
    ];
    let text = |text: &str| if text.is_empty() { Cell::Absent } else { text.to_owned().into() };
    let mut rows = Rows::new(output, &columns);
    for receipt in receipts {
        let end = match receipt.end {
            ReceiptEnd::Completed => "completed",
            ReceiptEnd::Aborted => "aborted",
            ReceiptEnd::EndedByArchive => "by-archive",
            ReceiptEnd::Unspecified => "open",
        };
        rows.cells(&[
            receipt.id.to_string().into(),
            door(receipt.door).into(),
            text(&receipt.calling_ae),
            text(&receipt.peer),
            rfc3339(receipt.opened_at_ms).into(),
            rfc3339(receipt.ended_at_ms).into(),
            end.into(),
            (receipt.studies.len() as u64).into(),
            receipt.stored.into(),
            receipt.repeated.into(),
            receipt.refused.into(),
        ])?;
    }
    rows.flush()
}

/// An instance that came.
struct Came {
    at_ms: u64,
    study: String,
    series: String,
    instance: String,
    repeated: bool,
    /// The store event whose version it is.
    store_event: Option<EventId>,
}

async fn show(common: &Common, id: ReceiptId, from: Option<u64>) -> Result<(), Failure> {
    let receipts = closed(&common.server, from).await?;
    let none = || Failure::failed(format!("no receipt {id} ended since then: --since looks further back"));
    let receipt = receipts.get(&id).ok_or_else(none)?;
    let mut came = came_in(common, receipt).await?;
    came.sort_by(|a, b| (a.at_ms, &a.study, &a.instance).cmp(&(b.at_ms, &b.study, &b.instance)));
    let relations = relations(&common.server, receipt).await?;
    let columns = [
        ("Came", 24),
        ("Outcome", 9),
        ("Conflict", 12),
        ("StudyInstanceUID", 44),
        ("SeriesInstanceUID", 44),
        ("SOPInstanceUID", 44),
        ("StoreEvent", 36),
    ];
    let mut rows = Rows::new(common.output, &columns);
    for one in came {
        let conflict = one.store_event.and_then(|event| relations.get(&event)).copied();
        rows.cells(&[
            rfc3339(one.at_ms).into(),
            if one.repeated { "repeated" } else { "stored" }.into(),
            conflict.map_or(Cell::Absent, Cell::from),
            one.study.into(),
            one.series.into(),
            one.instance.into(),
            one.store_event.map_or(Cell::Absent, |event| event.to_string().into()),
        ])?;
    }
    rows.flush()?;
    match receipt.refused {
        0 => Ok(()),
        refused => Err(Failure::Partial(format!("{refused} inputs were refused: `cairn quarantine list` has them"))),
    }
}

/// What came in a receipt, by its events.
async fn came_in(common: &Common, receipt: &Summed) -> Result<Vec<Came>, Failure> {
    let stored = Event::InstanceStored(Box::default()).kind();
    let again = Event::InstanceReceivedAgain(Box::default()).kind();
    let mut came = Vec::new();
    // Its events were taken after it was opened: by the same clock.
    read(&common.server, receipt.opened_at_ms, &[stored, again], Some(receipt.id), |read| {
        let at_ms = read.appended_at_ms;
        let id = read.headers.get("ce_id").and_then(|id| id.parse::<EventId>().ok());
        let kind = read.headers.get("ce_type").cloned().unwrap_or_default();
        let (study, series, instance, repeated, store_event) = match Event::decode(&kind, read.payload) {
            Ok(Event::InstanceStored(event)) => {
                let InstanceStored { study_instance_uid, series_instance_uid, sop_instance_uid, .. } = *event;
                (study_instance_uid, series_instance_uid, sop_instance_uid, false, id)
            }
            Ok(Event::InstanceReceivedAgain(event)) => {
                let InstanceReceivedAgain {
                    study_instance_uid,
                    series_instance_uid,
                    sop_instance_uid,
                    store_event_id,
                    ..
                } = *event;
                let of = EventId::from_slice(&store_event_id).ok();
                (study_instance_uid, series_instance_uid, sop_instance_uid, true, of)
            }
            _ => return,
        };
        came.push(Came { at_ms, study, series, instance, repeated, store_event });
    })
    .await?;
    Ok(came)
}

/// How versions of the receipt's studies relate to others, by store event, where they differ.
async fn relations(server: &ServerArgs, receipt: &Summed) -> Result<BTreeMap<EventId, &'static str>, Failure> {
    let mut relations = BTreeMap::new();
    let mut conflicts = index(server)?.conflicts(&receipt.tenant, true).await?;
    while let Some(conflict) = conflicts.try_next().await? {
        if !receipt.studies.contains(conflict.study_instance_uid.as_str()) {
            continue;
        }
        let kind = match conflict.kind {
            ConflictKind::Content => "content",
            ConflictKind::NotComparedYet => "not-compared",
            ConflictKind::AnotherEncoding => "encoding",
            ConflictKind::Elsewhere => "elsewhere",
        };
        relations.extend(conflict.versions.iter().map(|version| (version.store_event, kind)));
    }
    Ok(relations)
}
