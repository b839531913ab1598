//! Values of rows: compact encodings that begin with their version.

use super::{
    RowError,
    codec::{Reader, Writer},
};
use crate::{
    digest::{HashSum, Leaf},
    fold::{
        Attributes, Chosen, Compared, Condition, Correction, Corrections, CorrectionsRevoked, Erasing, ErasureStep,
        EventOrder, Fact, FactRef, Identity, OpenChunks, Place, Places, Rejected, Remedy, Resend, Revoked, SeriesState,
        Stamp, StoredObject, StudyState, TablesAt, Trace, TraceKind, Variant, Verdict, Version,
    },
    ids::{Digest, EventId, ObjectKey},
    rejection::RejectionTitle,
};
use bytes::Bytes;
use cairn_dicom::{Tag, Uid};

const VERSION: u8 = 1;

/// A state row as two commits left it: what the last one wrote, and what was there before, so that a row which is
/// ahead of the committed offset (its commit was torn by a crash) can be read as of that offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped<T> {
    /// End of the batch that wrote `now`.
    pub stamp: Stamp,
    /// The state after it.
    pub now: T,
    /// The state before it.
    pub before: Option<T>,
}

impl<T> Stamped<T> {
    /// The state as of a committed offset; `true` if the row is ahead of that.
    pub fn as_of(self, committed: Stamp) -> (Option<T>, bool) {
        if self.stamp <= committed { (Some(self.now), false) } else { (self.before, true) }
    }
}

fn stamped(stamp: Stamp, now: &[u8], before: Option<&[u8]>) -> Bytes {
    let mut out = Writer::version(VERSION);
    out.varint(stamp.0).bytes(now);
    match before {
        Some(before) => out.u8(1).bytes(before),
        None => out.u8(0),
    };
    out.0.into()
}

fn read_stamped<T>(
    bytes: &[u8],
    what: &'static str,
    read: impl Fn(&mut Reader<'_>) -> Result<T, RowError>,
) -> Result<Stamped<T>, RowError> {
    let mut reader = Reader::new(bytes, VERSION, what)?;
    let stamp = Stamp(reader.varint()?);
    let part = |bytes: &[u8]| {
        let mut reader = Reader::new(bytes, VERSION, what)?;
        let state = read(&mut reader)?;
        reader.end()?;
        Ok(state)
    };
    let now = part(reader.bytes()?)?;
    let before = if reader.u8()? == 1 { Some(part(reader.bytes()?)?) } else { None };
    reader.end()?;
    Ok(Stamped { stamp, now, before })
}

/// The state alone that the last commit left.
fn read_now<T>(
    bytes: &[u8],
    what: &'static str,
    read: impl Fn(&mut Reader<'_>) -> Result<T, RowError>,
) -> Result<T, RowError> {
    let mut reader = Reader::new(bytes, VERSION, what)?;
    reader.varint()?;
    let mut reader = Reader::new(reader.bytes()?, VERSION, what)?;
    let state = read(&mut reader)?;
    reader.end()?;
    Ok(state)
}

/// Orders are written once each and named by number: most attributes come from one event.
fn write_attributes(out: &mut Writer, attributes: &Attributes) {
    let mut orders: Vec<&EventOrder> = Vec::new();
    let mut number = |order| match orders.iter().position(|known| *known == order) {
        Some(at) => at as u64,
        None => {
            orders.push(order);
            orders.len() as u64 - 1
        }
    };
    let mut body = Writer::default();
    body.varint(attributes.variants.len() as u64);
    for variant in &attributes.variants {
        body.varint(number(&variant.order)).varint(u64::from(variant.tag.0)).bytes(&variant.element);
    }
    body.varint(attributes.cuts.len() as u64);
    for (tag, order) in &attributes.cuts {
        body.varint(number(order)).varint(u64::from(tag.0));
    }
    body.varint(attributes.seen.len() as u64);
    for (fingerprint, order) in &attributes.seen {
        body.varint(number(order)).fixed(fingerprint);
    }
    out.varint(orders.len() as u64);
    orders.iter().for_each(|order| {
        out.order(order);
    });
    out.fixed(&body.0);
}

/// Elements share the row's memory.
fn read_attributes(row: &Bytes, reader: &mut Reader<'_>) -> Result<Attributes, RowError> {
    let count = reader.count()?;
    let orders: Vec<EventOrder> = (0..count).map(|_| reader.order()).collect::<Result<_, _>>()?;
    let numbered = |reader: &mut Reader<'_>| {
        let at: usize = reader.number()?;
        orders.get(at).cloned().ok_or(reader.bad())
    };
    let mut attributes = Attributes::default();
    let count = reader.count()?;
    attributes.variants.reserve(count);
    for _ in 0..count {
        let order = numbered(reader)?;
        let tag = Tag(reader.number()?);
        attributes.variants.push(Variant { tag, element: row.slice_ref(reader.bytes()?), order });
    }
    for _ in 0..reader.count()? {
        let order = numbered(reader)?;
        attributes.cuts.push((Tag(reader.number()?), order));
    }
    for _ in 0..reader.count()? {
        let order = numbered(reader)?;
        attributes.seen.push((reader.array()?, order));
    }
    Ok(attributes)
}

/// A study's row: the new state, written by the batch that ends at `stamp`, and the one before.
pub fn encode_study(stamp: Stamp, now: &StudyState, before: Option<&StudyState>) -> Bytes {
    stamped(stamp, &study(now), before.map(study).as_deref())
}

fn study(state: &StudyState) -> Vec<u8> {
    let mut out = Writer::version(VERSION);
    out.varint(state.series).varint(state.shown).varint(state.versions);
    for set in [&state.modalities, &state.sop_classes] {
        out.varint(set.len() as u64);
        set.iter().for_each(|text| {
            out.text(text);
        });
    }
    for sum in [&state.events, &state.facts, &state.series_hashes] {
        out.fixed(&sum.to_bytes());
    }
    write_attributes(&mut out, &state.attributes);
    out.varint(state.hidden).varint(state.bytes).varint(state.received_at_ms);
    for set in [&state.senders, &state.institutions, &state.body_parts] {
        out.varint(set.len() as u64);
        set.iter().for_each(|text| {
            out.text(text);
        });
    }
    write_corrections(&mut out, &state.corrections);
    // Most rows end here.
    let is_moved = !state.places.0.is_empty();
    if is_moved || !state.corrections.gone.is_empty() {
        out.varint(state.corrections.gone.len() as u64);
        state.corrections.gone.iter().for_each(|id| {
            out.fixed(id.as_bytes());
        });
    }
    if is_moved {
        write_places(&mut out, &state.places);
    }
    out.0
}

fn write_places(out: &mut Writer, places: &Places) {
    out.varint(places.0.len() as u64);
    for (site, place) in &places.0 {
        out.text(site.as_str()).order(&place.order).varint(place.stamp.0);
        out.u8(u8::from(place.is_cold));
    }
}

fn read_places(reader: &mut Reader<'_>) -> Result<Places, RowError> {
    let mut places = Places::default();
    for _ in 0..reader.count()? {
        let site = reader.text()?.parse().map_err(|_| reader.bad())?;
        places
            .0
            .insert(site, Place { order: reader.order()?, stamp: Stamp(reader.varint()?), is_cold: reader.u8()? == 1 });
    }
    Ok(places)
}

fn write_corrections(out: &mut Writer, corrections: &Corrections) {
    out.varint(corrections.said.len() as u64);
    for correction in &corrections.said {
        write_by(out.order(&correction.order), correction.by);
        for uid in [&correction.series, &correction.instance] {
            out.text(uid.as_ref().map_or("", Uid::as_str));
        }
        out.bytes(&correction.elements);
    }
    out.varint(corrections.revoked.len() as u64);
    for revoked in &corrections.revoked {
        write_by(out.order(&revoked.order), revoked.by);
        out.varint(revoked.corrections.len() as u64);
        revoked.corrections.iter().for_each(|id| {
            out.fixed(id.as_bytes());
        });
    }
}

fn read_corrections(row: &Bytes, reader: &mut Reader<'_>) -> Result<Corrections, RowError> {
    let mut corrections = Corrections::default();
    for _ in 0..reader.count()? {
        let (order, by) = (reader.order()?, read_by(reader)?);
        let mut uid = || match reader.text()? {
            "" => Ok(None),
            text => text.parse::<Uid>().map(Some).map_err(|_| RowError::Malformed("studies")),
        };
        let (series, instance) = (uid()?, uid()?);
        let elements = row.slice_ref(reader.bytes()?);
        corrections.said.push(Correction { order, by, series, instance, elements });
    }
    for _ in 0..reader.count()? {
        let (order, by) = (reader.order()?, read_by(reader)?);
        let count = reader.count()?;
        let revoked = (0..count).map(|_| reader.event_id()).collect::<Result<_, _>>()?;
        corrections.revoked.push(CorrectionsRevoked { order, by, corrections: revoked });
    }
    // Most rows end here.
    if !reader.rest().is_empty() {
        let count = reader.count()?;
        corrections.gone = (0..count).map(|_| reader.event_id()).collect::<Result<_, _>>()?;
    }
    Ok(corrections)
}

/// Reads a study's row.
pub fn decode_study(bytes: &Bytes) -> Result<Stamped<StudyState>, RowError> {
    read_stamped(bytes, "studies", |reader| read_study(bytes, reader))
}

/// Reads of a study's row what is now.
pub fn decode_study_now(bytes: &Bytes) -> Result<StudyState, RowError> {
    read_now(bytes, "studies", |reader| read_study(bytes, reader))
}

fn read_study(row: &Bytes, reader: &mut Reader<'_>) -> Result<StudyState, RowError> {
    let mut state = StudyState {
        series: reader.varint()?,
        shown: reader.varint()?,
        versions: reader.varint()?,
        ..StudyState::default()
    };
    for set in [&mut state.modalities, &mut state.sop_classes] {
        for _ in 0..reader.count()? {
            set.insert(reader.text()?.to_owned());
        }
    }
    for sum in [&mut state.events, &mut state.facts, &mut state.series_hashes] {
        *sum = HashSum::from_bytes(&reader.array()?);
    }
    state.attributes = read_attributes(row, reader)?;
    // Rows of fold version 2 end here.
    if !reader.rest().is_empty() {
        state.hidden = reader.varint()?;
    }
    // And those of version 5 here.
    if !reader.rest().is_empty() {
        (state.bytes, state.received_at_ms) = (reader.varint()?, reader.varint()?);
        for set in [&mut state.senders, &mut state.institutions, &mut state.body_parts] {
            for _ in 0..reader.count()? {
                set.insert(reader.text()?.to_owned());
            }
        }
    }
    // And those of version 7 here.
    if !reader.rest().is_empty() {
        state.corrections = read_corrections(row, reader)?;
    }
    if !reader.rest().is_empty() {
        state.places = read_places(reader)?;
    }
    Ok(state)
}

/// A series' row.
pub fn encode_series(stamp: Stamp, now: &SeriesState, before: Option<&SeriesState>) -> Bytes {
    stamped(stamp, &series(now), before.map(series).as_deref())
}

fn series(state: &SeriesState) -> Vec<u8> {
    let mut out = Writer::version(VERSION);
    out.varint(state.shown).varint(state.versions).varint(state.open.from.0);
    for count in [state.open.chunks, state.open.headers, state.open.bytes] {
        out.varint(u64::from(count));
    }
    write_attributes(&mut out, &state.attributes);
    out.0
}

/// Reads a series' row.
pub fn decode_series(bytes: &Bytes) -> Result<Stamped<SeriesState>, RowError> {
    read_stamped(bytes, "series", |reader| {
        let (shown, versions) = (reader.varint()?, reader.varint()?);
        let open = OpenChunks {
            from: Stamp(reader.varint()?),
            chunks: reader.number()?,
            headers: reader.number()?,
            bytes: reader.number()?,
        };
        Ok(SeriesState { shown, versions, open, attributes: read_attributes(bytes, reader)? })
    })
}

/// A leaf's row.
pub fn encode_leaf(stamp: Stamp, now: &Leaf, before: Option<&Leaf>) -> Bytes {
    stamped(stamp, &leaf(now), before.map(leaf).as_deref())
}

fn leaf(leaf: &Leaf) -> Vec<u8> {
    let mut out = Writer::version(VERSION);
    out.fixed(&leaf.events.to_bytes()).fixed(&leaf.state.to_bytes());
    out.varint(leaf.studies).varint(leaf.series).varint(leaf.instances);
    out.0
}

/// Reads a leaf's row.
pub fn decode_leaf(bytes: &[u8]) -> Result<Stamped<Leaf>, RowError> {
    read_stamped(bytes, "leaves", |reader| {
        Ok(Leaf {
            events: HashSum::from_bytes(&reader.array()?),
            state: HashSum::from_bytes(&reader.array()?),
            studies: reader.varint()?,
            series: reader.varint()?,
            instances: reader.varint()?,
        })
    })
}

fn write_object(out: &mut Writer, object: &StoredObject) {
    out.fixed(object.key.as_bytes()).varint(object.length).fixed(&object.digest.0);
}

fn read_object(reader: &mut Reader<'_>) -> Result<StoredObject, RowError> {
    Ok(StoredObject {
        key: ObjectKey::from_slice(reader.take(16)?).map_err(|_| reader.bad())?,
        length: reader.varint()?,
        digest: Digest(reader.array()?),
    })
}

/// A fact's row.
pub fn encode_fact(fact: FactRef<'_>) -> Bytes {
    let mut out = Writer::version(VERSION);
    match fact {
        FactRef::Stored(version) => {
            out.varint(version.stamp.0).order(&version.order);
            write_version(out.u8(0), version);
        }
        FactRef::Compared(compared) => {
            out.varint(compared.stamp.0).order(&compared.order).u8(1);
            write_by(&mut out, compared.by);
            out.fixed(compared.first.as_bytes()).fixed(compared.second.as_bytes()).u8(compared.verdict as u8);
        }
        FactRef::Chosen(chosen) => {
            out.varint(chosen.stamp.0).order(&chosen.order).u8(2);
            write_by(&mut out, chosen.by);
            out.fixed(chosen.store_event.as_bytes());
        }
        FactRef::Rejected(rejected) => {
            out.varint(rejected.stamp.0).order(&rejected.order).u8(3);
            write_by(&mut out, rejected.by);
            out.u8(rejected.title as u8).varint(rejected.store_events.len() as u64);
            rejected.store_events.iter().for_each(|id| {
                out.fixed(id.as_bytes());
            });
        }
        FactRef::Revoked(revoked) => {
            out.varint(revoked.stamp.0).order(&revoked.order).u8(4);
            write_by(&mut out, revoked.by);
            out.fixed(revoked.rejection.as_bytes());
        }
        FactRef::Condition(condition) => {
            out.varint(condition.stamp.0).order(&condition.order).u8(5);
            write_by(&mut out, condition.by);
            out.fixed(condition.store_event.as_bytes()).text(&condition.site).u8(u8::from(condition.damaged));
        }
        FactRef::Erasing(erasing) => {
            out.varint(erasing.stamp.0).order(&erasing.order).u8(6);
            write_by(&mut out, erasing.by);
            out.u8(u8::from(erasing.is_done)).varint(erasing.store_events.len() as u64);
            erasing.store_events.iter().for_each(|id| {
                out.fixed(id.as_bytes());
            });
        }
    }
    out.0.into()
}

/// The repair that says so, if one does.
fn write_by(out: &mut Writer, by: Option<EventId>) {
    match by {
        Some(by) => out.u8(1).fixed(by.as_bytes()),
        None => out.u8(0),
    };
}

fn read_by(reader: &mut Reader<'_>) -> Result<Option<EventId>, RowError> {
    Ok(if reader.u8()? == 1 { Some(reader.event_id()?) } else { None })
}

fn write_version(out: &mut Writer, version: &Version) {
    write_object(out, &version.object);
    let mut flags = version.resend as u8;
    flags |= u8::from(version.has_header) << 2;
    flags |= u8::from(version.side_object.is_some()) << 3;
    flags |= u8::from(version.instance_number.is_some()) << 4;
    flags |= match version.tables {
        TablesAt::Nowhere => 0,
        TablesAt::Here(_) => 1 << 5,
        TablesAt::Apart => 2 << 5,
    };
    flags |= u8::from(version.by.is_some()) << 7;
    out.u8(flags);
    if let Some(by) = version.by {
        out.fixed(by.as_bytes());
    }
    out.varint(version.data_set_offset).varint(version.pixel_data_offset).varint(u64::from(version.frames));
    if let Some(number) = version.instance_number {
        // Small numbers of either sign are short.
        out.varint(((number << 1) ^ (number >> 63)) as u64);
    }
    for text in [
        &version.sop_class_uid,
        &version.transfer_syntax_uid,
        &version.calling_ae_title,
        &version.issuer_of_patient_id,
        &version.default_character_set,
        &version.time_zone,
    ] {
        out.text(text);
    }
    if let Some(object) = &version.side_object {
        write_object(out, object);
    }
    if let TablesAt::Here(tables) = &version.tables {
        out.bytes(tables);
    }
    if version.is_shredded {
        out.u8(1);
    }
}

fn read_version(reader: &mut Reader<'_>, order: EventOrder, stamp: Stamp) -> Result<Version, RowError> {
    let object = read_object(reader)?;
    let flags = reader.u8()?;
    let by = if flags & 1 << 7 != 0 { Some(reader.event_id()?) } else { None };
    let (data_set_offset, pixel_data_offset, frames) = (reader.varint()?, reader.varint()?, reader.number()?);
    let instance_number = if flags & 1 << 4 != 0 {
        let folded = reader.varint()?;
        Some((folded >> 1) as i64 ^ -((folded & 1) as i64))
    } else {
        None
    };
    let mut text = || reader.text().map(str::to_owned);
    let (sop_class_uid, transfer_syntax_uid, calling_ae_title) = (text()?, text()?, text()?);
    let (issuer_of_patient_id, default_character_set, time_zone) = (text()?, text()?, text()?);
    let side_object = if flags & 1 << 3 != 0 { Some(read_object(reader)?) } else { None };
    let tables = match flags >> 5 & 3 {
        0 => TablesAt::Nowhere,
        1 => TablesAt::Here(Bytes::copy_from_slice(reader.bytes()?)),
        2 => TablesAt::Apart,
        _ => return Err(reader.bad()),
    };
    let resend = match flags & 3 {
        0 => Resend::Keep,
        1 => Resend::SupersedeSameSource,
        2 => Resend::Refuse,
        _ => return Err(reader.bad()),
    };
    // Most rows end here.
    let is_shredded = !reader.rest().is_empty() && reader.u8()? == 1;
    Ok(Version {
        order,
        stamp,
        by,
        object,
        sop_class_uid,
        transfer_syntax_uid,
        data_set_offset,
        pixel_data_offset,
        frames,
        instance_number,
        side_object,
        calling_ae_title,
        issuer_of_patient_id,
        default_character_set,
        time_zone,
        resend,
        has_header: flags & 1 << 2 != 0,
        is_shredded,
        tables,
    })
}

/// Reads a fact's row.
pub fn decode_fact(bytes: &[u8]) -> Result<Fact, RowError> {
    let mut reader = Reader::new(bytes, VERSION, "facts")?;
    let stamp = Stamp(reader.varint()?);
    let order = reader.order()?;
    let fact = match reader.u8()? {
        0 => Fact::Stored(Box::new(read_version(&mut reader, order, stamp)?)),
        1 => {
            let by = read_by(&mut reader)?;
            let (first, second) = (reader.event_id()?, reader.event_id()?);
            let verdict = match reader.u8()? {
                0 => Verdict::AnotherEncoding,
                1 => Verdict::Different,
                _ => return Err(reader.bad()),
            };
            Fact::Compared(Compared { order, stamp, by, first, second, verdict })
        }
        2 => {
            let by = read_by(&mut reader)?;
            Fact::Chosen(Chosen { order, stamp, by, store_event: reader.event_id()? })
        }
        3 => {
            let by = read_by(&mut reader)?;
            let title = reader.u8()?;
            let title = RejectionTitle::ALL.into_iter().find(|known| *known as u8 == title).ok_or(reader.bad())?;
            let count = reader.count()?;
            let store_events = (0..count).map(|_| reader.event_id()).collect::<Result<_, _>>()?;
            Fact::Rejected(Rejected { order, stamp, by, title, store_events })
        }
        4 => {
            let by = read_by(&mut reader)?;
            Fact::Revoked(Revoked { order, stamp, by, rejection: reader.event_id()? })
        }
        5 => {
            let by = read_by(&mut reader)?;
            let (store_event, site) = (reader.event_id()?, reader.text()?.to_owned());
            let damaged = match reader.u8()? {
                0 => false,
                1 => true,
                _ => return Err(reader.bad()),
            };
            Fact::Condition(Condition { order, stamp, by, store_event, site, damaged })
        }
        6 => {
            let by = read_by(&mut reader)?;
            let is_done = reader.u8()? == 1;
            let count = reader.count()?;
            let store_events = (0..count).map(|_| reader.event_id()).collect::<Result<_, _>>()?;
            Fact::Erasing(Erasing { order, stamp, by, is_done, store_events })
        }
        _ => return Err(reader.bad()),
    };
    reader.end()?;
    Ok(fact)
}

/// A trace's row.
pub fn encode_trace(trace: &Trace) -> Bytes {
    let mut out = Writer::version(VERSION);
    out.varint(trace.stamp.0).order(&trace.order);
    match &trace.kind {
        TraceKind::ReceivedAgain { identity, store_event } => {
            out.u8(0).text(identity.series.as_str()).text(identity.instance.as_str()).fixed(store_event.as_bytes());
        }
        TraceKind::ReceiptClosed { counts } => {
            out.u8(1);
            counts.iter().for_each(|count| {
                out.varint(u64::from(*count));
            });
        }
        TraceKind::Repaired { event, remedy, content } => {
            out.u8(2).fixed(event.as_bytes()).u8(*remedy as u8).fixed(content);
        }
        TraceKind::Rejected { note } => {
            out.u8(3).fixed(note.as_bytes());
        }
        TraceKind::Revoked { rejection } => {
            out.u8(4).fixed(rejection.as_bytes());
        }
        TraceKind::Moved => {
            out.u8(8);
        }
        TraceKind::Corrected => {
            out.u8(6);
        }
        TraceKind::CorrectionRevoked => {
            out.u8(7);
        }
        TraceKind::Erasure { step, of } => {
            out.u8(5).u8(*step as u8).fixed(of.as_bytes());
        }
    }
    out.0.into()
}

/// Reads a trace's row.
pub fn decode_trace(bytes: &[u8]) -> Result<Trace, RowError> {
    let mut reader = Reader::new(bytes, VERSION, "traces")?;
    let stamp = Stamp(reader.varint()?);
    let order = reader.order()?;
    let kind = match reader.u8()? {
        0 => {
            let mut uid = || reader.text()?.parse().map_err(|_| RowError::Malformed("traces"));
            let identity = Identity { series: uid()?, instance: uid()? };
            TraceKind::ReceivedAgain { identity, store_event: reader.event_id()? }
        }
        1 => TraceKind::ReceiptClosed { counts: [reader.number()?, reader.number()?, reader.number()?] },
        2 => {
            let (event, remedy) = (reader.event_id()?, read_remedy(&mut reader)?);
            TraceKind::Repaired { event, remedy, content: reader.array()? }
        }
        3 => TraceKind::Rejected { note: reader.event_id()? },
        4 => TraceKind::Revoked { rejection: reader.event_id()? },
        5 => {
            let step = reader.u8()?;
            let step = ErasureStep::ALL.into_iter().find(|known| *known as u8 == step).ok_or(reader.bad())?;
            TraceKind::Erasure { step, of: reader.event_id()? }
        }
        6 => TraceKind::Corrected,
        7 => TraceKind::CorrectionRevoked,
        8 => TraceKind::Moved,
        _ => return Err(reader.bad()),
    };
    reader.end()?;
    Ok(Trace { order, stamp, kind })
}

fn read_remedy(reader: &mut Reader<'_>) -> Result<Remedy, RowError> {
    match reader.u8()? {
        0 => Ok(Remedy::Replaced),
        1 => Ok(Remedy::Dismissed),
        2 => Ok(Remedy::Retried),
        _ => Err(reader.bad()),
    }
}
