//! Domain types as messages and back. Anything malformed is an `Invalid` error, never a panic.

use crate::{common, correction, error::malformed, index_proto, ingest_proto};
use bytes::Bytes;
use cairn_archive::{
    Digest, EventId, Incarnation, KeyId, ObjectKey, Offset, Partition, Position, PositionVector,
    events::{BulkDataEntry, FrameTable},
    rejection::{RejectionTitle, Titles},
    sealing::KeyBytes,
};
use cairn_dicom::{Tag, Uid};
use cairn_service_api::{
    Error,
    index::{
        Conflict, ConflictKind, ConflictVersion, Detail, IndexStatus, InstanceRecord, Level, Returning, Selection,
        StateDigest,
    },
    ingest::{StoreOutcome, Stored},
    retrieval::Part,
};
use cairn_store_api::{HandedKey, ObjectRef};
use prost::Message;

pub(crate) fn uid(text: &str) -> Result<Uid, Error> {
    text.parse().map_err(|_| malformed("UID"))
}

fn uids(texts: &[String]) -> Result<Vec<Uid>, Error> {
    texts.iter().map(|text| uid(text)).collect()
}

fn texts(uids: &[Uid]) -> Vec<String> {
    uids.iter().map(Uid::to_string).collect()
}

/// A key that one site hands to another; without bytes it is destroyed.
pub(crate) fn handed_key(id: &[u8], bytes: &[u8]) -> Result<HandedKey, Error> {
    let id = KeyId::from_slice(id).map_err(|_| malformed("key id"))?;
    let bytes = match bytes.is_empty() {
        true => None,
        false => Some(KeyBytes(bytes.try_into().map_err(|_| malformed("key"))?)),
    };
    Ok(HandedKey { id, bytes })
}

pub(crate) fn event_id(bytes: &[u8]) -> Result<EventId, Error> {
    EventId::from_slice(bytes).map_err(|_| malformed("event id"))
}

fn digest(bytes: &[u8]) -> Result<Digest, Error> {
    Digest::from_slice(bytes).map_err(|_| malformed("digest"))
}

pub(crate) fn copied(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

pub(crate) fn object_to(object: &ObjectRef) -> common::Object {
    common::Object { key: copied(object.key.as_bytes()), length_bytes: object.length, blake3: copied(&object.digest.0) }
}

pub(crate) fn object_key(bytes: &[u8]) -> Result<ObjectKey, Error> {
    ObjectKey::from_slice(bytes).map_err(|_| malformed("object key"))
}

pub(crate) fn object_from(object: common::Object) -> Result<ObjectRef, Error> {
    Ok(ObjectRef { key: object_key(&object.key)?, length: object.length_bytes, digest: digest(&object.blake3)? })
}

pub(crate) fn position_to(position: &Position) -> common::Position {
    common::Position {
        site: position.site.to_string(),
        incarnation: position.incarnation.0,
        partition: position.partition.0.into(),
        offset: position.offset.0,
    }
}

pub(crate) fn position_from(position: common::Position) -> Result<Position, Error> {
    Ok(Position {
        site: position.site.parse().map_err(|_| malformed("site"))?,
        incarnation: Incarnation(position.incarnation),
        partition: Partition(position.partition.try_into().map_err(|_| malformed("partition"))?),
        offset: Offset(position.offset),
    })
}

pub(crate) fn vector_to(vector: &PositionVector) -> common::PositionVector {
    let ends = vector.0.iter().map(|((site, incarnation, partition), offset)| common::Position {
        site: site.to_string(),
        incarnation: incarnation.0,
        partition: partition.0.into(),
        offset: offset.0,
    });
    common::PositionVector { ends: ends.collect() }
}

pub(crate) fn vector_from(vector: common::PositionVector) -> Result<PositionVector, Error> {
    let mut ends = PositionVector::default();
    for end in vector.ends {
        let Position { site, incarnation, partition, offset } = position_from(end)?;
        ends.0.insert((site, incarnation, partition), offset);
    }
    Ok(ends)
}

pub(crate) fn titles_to(titles: Titles) -> Vec<String> {
    titles.iter().map(|title| title.code().to_owned()).collect()
}

pub(crate) fn titles_from(codes: &[String]) -> Result<Titles, Error> {
    let title = |code: &String| RejectionTitle::of_code(code).ok_or_else(|| malformed("title of a rejection note"));
    codes.iter().map(title).collect()
}

pub(crate) fn selection_to(selection: &Selection) -> common::Selection {
    let (patient_id, issuer) = match &selection.patient {
        Some((id, issuer)) => (Some(id.clone()), issuer.clone()),
        None => (None, None),
    };
    common::Selection {
        tenant: selection.tenant.clone(),
        patient_id,
        issuer_of_patient_id: issuer,
        study_instance_uids: texts(&selection.studies),
        series_instance_uids: texts(&selection.series),
        sop_instance_uids: texts(&selection.instances),
        version_blake3: selection.version.map(|digest| copied(&digest.0)).unwrap_or_default(),
        all_versions: selection.all_versions,
        sees_rejected: titles_to(selection.sees_rejected),
        as_stored: selection.as_stored,
    }
}

pub(crate) fn selection_from(selection: Option<common::Selection>) -> Result<Selection, Error> {
    let selection = selection.ok_or_else(|| malformed("selection"))?;
    let version = &selection.version_blake3;
    Ok(Selection {
        tenant: selection.tenant,
        patient: selection.patient_id.map(|id| (id, selection.issuer_of_patient_id)),
        studies: uids(&selection.study_instance_uids)?,
        series: uids(&selection.series_instance_uids)?,
        instances: uids(&selection.sop_instance_uids)?,
        version: if version.is_empty() { None } else { Some(digest(version)?) },
        all_versions: selection.all_versions,
        sees_rejected: titles_from(&selection.sees_rejected)?,
        as_stored: selection.as_stored,
    })
}

pub(crate) fn record_to(record: &InstanceRecord) -> common::InstanceRecord {
    common::InstanceRecord {
        study_instance_uid: record.study_instance_uid.to_string(),
        series_instance_uid: record.series_instance_uid.to_string(),
        sop_instance_uid: record.sop_instance_uid.to_string(),
        sop_class_uid: record.sop_class_uid.to_string(),
        transfer_syntax_uid: record.transfer_syntax_uid.to_string(),
        store_event_id: copied(record.store_event.as_bytes()),
        object: Some(object_to(&record.object)),
        data_set_offset: record.data_set_offset,
        pixel_data_offset: record.pixel_data_offset,
        shown: record.shown,
        frames: record.frames,
        frame_table: record.frame_table.as_ref().map(|table| table.encode_to_vec().into()).unwrap_or_default(),
        bulk_data: record.bulk_data.iter().map(|entry| entry.encode_to_vec().into()).collect(),
        header: record.header.clone(),
        side_object: record.side_object.as_ref().map(object_to),
        default_character_set: record.default_character_set.clone(),
        issuer_of_patient_id: record.issuer_of_patient_id.clone(),
        rejected: titles_to(record.rejected),
        damaged: record.damaged,
        to_be_erased: record.is_to_be_erased,
        cold: record.is_cold,
        corrections: record.corrections.iter().map(correction::in_force_to).collect(),
        corrected_length: record.corrected_length,
    }
}

pub(crate) fn record_from(record: Option<common::InstanceRecord>) -> Result<InstanceRecord, Error> {
    let record = record.ok_or_else(|| malformed("instance record"))?;
    let table = record.frame_table;
    let entries = record.bulk_data.into_iter().map(BulkDataEntry::decode).collect::<Result<_, _>>();
    Ok(InstanceRecord {
        study_instance_uid: uid(&record.study_instance_uid)?,
        series_instance_uid: uid(&record.series_instance_uid)?,
        sop_instance_uid: uid(&record.sop_instance_uid)?,
        sop_class_uid: uid(&record.sop_class_uid)?,
        transfer_syntax_uid: uid(&record.transfer_syntax_uid)?,
        store_event: event_id(&record.store_event_id)?,
        object: object_from(record.object.ok_or_else(|| malformed("object"))?)?,
        data_set_offset: record.data_set_offset,
        pixel_data_offset: record.pixel_data_offset,
        shown: record.shown,
        frames: record.frames,
        frame_table: match table.is_empty() {
            true => None,
            false => Some(FrameTable::decode(table).map_err(|_| malformed("frame table"))?),
        },
        bulk_data: entries.map_err(|_| malformed("bulk data entry"))?,
        header: record.header,
        side_object: record.side_object.map(object_from).transpose()?,
        default_character_set: record.default_character_set,
        issuer_of_patient_id: record.issuer_of_patient_id,
        rejected: titles_from(&record.rejected)?,
        damaged: record.damaged,
        is_to_be_erased: record.to_be_erased,
        is_cold: record.cold,
        corrections: record.corrections.into_iter().map(correction::in_force_from).collect::<Result<_, _>>()?,
        corrected_length: record.corrected_length,
    })
}

pub(crate) fn level_to(level: Level) -> index_proto::Level {
    match level {
        Level::Patient => index_proto::Level::Patient,
        Level::Study => index_proto::Level::Study,
        Level::Series => index_proto::Level::Series,
        Level::Instance => index_proto::Level::Instance,
    }
}

pub(crate) fn level_from(level: i32) -> Result<Level, Error> {
    match index_proto::Level::try_from(level) {
        Ok(index_proto::Level::Patient) => Ok(Level::Patient),
        Ok(index_proto::Level::Study) => Ok(Level::Study),
        Ok(index_proto::Level::Series) => Ok(Level::Series),
        Ok(index_proto::Level::Instance) => Ok(Level::Instance),
        Ok(index_proto::Level::Unspecified) | Err(_) => Err(malformed("level")),
    }
}

pub(crate) fn returning_to(returning: &Returning) -> (index_proto::Returning, Vec<u32>) {
    match returning {
        Returning::Keys => (index_proto::Returning::Keys, Vec::new()),
        Returning::DefaultAnd(tags) => (index_proto::Returning::DefaultAnd, tags.iter().map(|tag| tag.0).collect()),
        Returning::All => (index_proto::Returning::All, Vec::new()),
    }
}

pub(crate) fn returning_from(returning: i32, include: Vec<u32>) -> Result<Returning, Error> {
    match index_proto::Returning::try_from(returning) {
        Ok(index_proto::Returning::Keys) => Ok(Returning::Keys),
        Ok(index_proto::Returning::DefaultAnd) => Ok(Returning::DefaultAnd(include.into_iter().map(Tag).collect())),
        Ok(index_proto::Returning::All) => Ok(Returning::All),
        Ok(index_proto::Returning::Unspecified) | Err(_) => Err(malformed("returning")),
    }
}

pub(crate) fn detail_to(detail: Detail) -> index_proto::Detail {
    match detail {
        Detail::Location => index_proto::Detail::Location,
        Detail::Tables => index_proto::Detail::Tables,
        Detail::Header => index_proto::Detail::Header,
    }
}

pub(crate) fn detail_from(detail: i32) -> Result<Detail, Error> {
    match index_proto::Detail::try_from(detail) {
        Ok(index_proto::Detail::Location) => Ok(Detail::Location),
        Ok(index_proto::Detail::Tables) => Ok(Detail::Tables),
        Ok(index_proto::Detail::Header) => Ok(Detail::Header),
        Ok(index_proto::Detail::Unspecified) | Err(_) => Err(malformed("detail")),
    }
}

pub(crate) fn conflict_to(conflict: &Conflict) -> index_proto::ConflictsResponse {
    let version = |version: &ConflictVersion| index_proto::ConflictVersion {
        store_event_id: copied(version.store_event.as_bytes()),
        blake3: copied(&version.digest.0),
        transfer_syntax_uid: version.transfer_syntax_uid.to_string(),
        stored_at_ms: version.stored_at_ms,
        calling_ae_title: version.calling_ae_title.clone(),
        study_instance_uid: version.study_instance_uid.to_string(),
        series_instance_uid: version.series_instance_uid.to_string(),
        shown: version.shown,
    };
    let kind = match conflict.kind {
        ConflictKind::Content => index_proto::ConflictKind::Content,
        ConflictKind::NotComparedYet => index_proto::ConflictKind::NotComparedYet,
        ConflictKind::AnotherEncoding => index_proto::ConflictKind::AnotherEncoding,
        ConflictKind::Elsewhere => index_proto::ConflictKind::Elsewhere,
    };
    index_proto::ConflictsResponse {
        study_instance_uid: conflict.study_instance_uid.to_string(),
        series_instance_uid: conflict.series_instance_uid.to_string(),
        sop_instance_uid: conflict.sop_instance_uid.to_string(),
        kind: kind.into(),
        versions: conflict.versions.iter().map(version).collect(),
    }
}

pub(crate) fn conflict_from(conflict: index_proto::ConflictsResponse) -> Result<Conflict, Error> {
    let version = |version: index_proto::ConflictVersion| -> Result<ConflictVersion, Error> {
        Ok(ConflictVersion {
            store_event: event_id(&version.store_event_id)?,
            digest: digest(&version.blake3)?,
            transfer_syntax_uid: uid(&version.transfer_syntax_uid)?,
            stored_at_ms: version.stored_at_ms,
            calling_ae_title: version.calling_ae_title,
            study_instance_uid: uid(&version.study_instance_uid)?,
            series_instance_uid: uid(&version.series_instance_uid)?,
            shown: version.shown,
        })
    };
    let kind = match index_proto::ConflictKind::try_from(conflict.kind) {
        Ok(index_proto::ConflictKind::Content) => ConflictKind::Content,
        Ok(index_proto::ConflictKind::NotComparedYet) => ConflictKind::NotComparedYet,
        Ok(index_proto::ConflictKind::AnotherEncoding) => ConflictKind::AnotherEncoding,
        Ok(index_proto::ConflictKind::Elsewhere) => ConflictKind::Elsewhere,
        Ok(index_proto::ConflictKind::Unspecified) | Err(_) => return Err(malformed("conflict kind")),
    };
    Ok(Conflict {
        study_instance_uid: uid(&conflict.study_instance_uid)?,
        series_instance_uid: uid(&conflict.series_instance_uid)?,
        sop_instance_uid: uid(&conflict.sop_instance_uid)?,
        kind,
        versions: conflict.versions.into_iter().map(version).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn status_to(status: &IndexStatus) -> index_proto::StatusResponse {
    index_proto::StatusResponse {
        generation: status.generation,
        folded: Some(vector_to(&status.folded)),
        log_end: Some(vector_to(&status.log_end)),
        lag_events: status.lag_events,
        oldest_unfolded_ms: status.oldest_unfolded_ms,
        parked: status.parked,
        incomplete_studies: status.incomplete_studies,
        studies: status.studies,
        series: status.series,
        instances: status.instances,
        fold_version: status.fold_version,
    }
}

pub(crate) fn status_from(status: index_proto::StatusResponse) -> Result<IndexStatus, Error> {
    Ok(IndexStatus {
        generation: status.generation,
        folded: vector_from(status.folded.unwrap_or_default())?,
        log_end: vector_from(status.log_end.unwrap_or_default())?,
        lag_events: status.lag_events,
        oldest_unfolded_ms: status.oldest_unfolded_ms,
        parked: status.parked,
        incomplete_studies: status.incomplete_studies,
        studies: status.studies,
        series: status.series,
        instances: status.instances,
        fold_version: status.fold_version,
    })
}

pub(crate) fn state_digest_to(digest: &StateDigest) -> index_proto::StateDigest {
    index_proto::StateDigest {
        fold_version: digest.fold_version,
        events: copied(&digest.events),
        state: copied(&digest.state),
        studies: digest.studies,
    }
}

pub(crate) fn state_digest_from(found: Option<index_proto::StateDigest>) -> Result<StateDigest, Error> {
    let found = found.ok_or_else(|| malformed("state digest"))?;
    Ok(StateDigest {
        fold_version: found.fold_version,
        events: digest(&found.events)?.0,
        state: digest(&found.state)?.0,
        studies: found.studies,
    })
}

pub(crate) fn stored_to(stored: &Stored) -> ingest_proto::StoreResponse {
    use ingest_proto::StoreOutcome as Wire;
    let outcome = match stored.outcome {
        StoreOutcome::New => Wire::New,
        StoreOutcome::Repeat => Wire::Repeat,
        StoreOutcome::Conflict { shown: true } => Wire::ConflictShown,
        StoreOutcome::Conflict { shown: false } => Wire::ConflictKept,
        StoreOutcome::ElsewhereToo => Wire::ElsewhereToo,
    };
    let finding = |(code, tag): &(String, Tag)| ingest_proto::Finding { code: code.clone(), tag: tag.0 };
    ingest_proto::StoreResponse {
        study_instance_uid: stored.study_instance_uid.to_string(),
        series_instance_uid: stored.series_instance_uid.to_string(),
        sop_instance_uid: stored.sop_instance_uid.to_string(),
        sop_class_uid: stored.sop_class_uid.to_string(),
        blake3: copied(&stored.digest.0),
        length_bytes: stored.length,
        position: Some(position_to(&stored.position)),
        outcome: outcome.into(),
        findings: stored.findings.iter().map(finding).collect(),
        confirmed_sites: stored.confirmed_sites,
        rejections: stored.rejections.iter().map(position_to).collect(),
    }
}

pub(crate) fn stored_from(stored: ingest_proto::StoreResponse) -> Result<Stored, Error> {
    use ingest_proto::StoreOutcome as Wire;
    Ok(Stored {
        study_instance_uid: uid(&stored.study_instance_uid)?,
        series_instance_uid: uid(&stored.series_instance_uid)?,
        sop_instance_uid: uid(&stored.sop_instance_uid)?,
        sop_class_uid: uid(&stored.sop_class_uid)?,
        digest: digest(&stored.blake3)?,
        length: stored.length_bytes,
        position: position_from(stored.position.ok_or_else(|| malformed("position"))?)?,
        outcome: match Wire::try_from(stored.outcome) {
            Ok(Wire::New) => StoreOutcome::New,
            Ok(Wire::Repeat) => StoreOutcome::Repeat,
            Ok(Wire::ConflictShown) => StoreOutcome::Conflict { shown: true },
            Ok(Wire::ConflictKept) => StoreOutcome::Conflict { shown: false },
            Ok(Wire::ElsewhereToo) => StoreOutcome::ElsewhereToo,
            Ok(Wire::Unspecified) | Err(_) => return Err(malformed("outcome")),
        },
        findings: stored.findings.into_iter().map(|finding| (finding.code, Tag(finding.tag))).collect(),
        confirmed_sites: stored.confirmed_sites,
        rejections: stored.rejections.into_iter().map(position_from).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn part_to(part: &Part) -> crate::retrieval_proto::Part {
    use crate::retrieval_proto::{Range, part};
    let part = match part {
        Part::File => part::Part::File(true),
        Part::DataSet => part::Part::DataSet(true),
        Part::FileRange(range) => part::Part::FileRange(Range { start: range.start, end: range.end }),
    };
    crate::retrieval_proto::Part { part: Some(part) }
}

pub(crate) fn part_from(part: Option<crate::retrieval_proto::Part>) -> Result<Part, Error> {
    use crate::retrieval_proto::part;
    match part.and_then(|part| part.part) {
        Some(part::Part::File(_)) => Ok(Part::File),
        Some(part::Part::DataSet(_)) => Ok(Part::DataSet),
        Some(part::Part::FileRange(range)) => Ok(Part::FileRange(range.start..range.end)),
        None => Err(malformed("part")),
    }
}
