//! The `InstanceStored` event: all that the index and retrieval will ever need to know of an instance.

use crate::{intake::Received, receipts::OpenReceipt};
use bytes::Bytes;
use cairn_archive::events::{
    BulkDataEntry, Finding, FragmentedFrames, FrameTable, InstanceProtected, InstanceStored, InstanceStoredSide,
    NativeFrames, Object, frame_table::Layout,
};
use cairn_dicom::{
    Tag, TransferSyntax, Vr, Walked,
    charset::CharacterSet,
    tags,
    walk::{BulkEntry, EXTRACTOR_VERSION},
};
use cairn_store_api::ObjectRef;
use prost::Message;

/// Encoded size that the fields outside of header and tables may take, at most.
const ENVELOPE_MARGIN: usize = 4 << 10;

/// Makes the event of an instance whose object is `object`.
pub(crate) fn stored_event(
    received: Received,
    object: &ObjectRef,
    receipt: &OpenReceipt,
    issuer_in_data_set: Option<String>,
) -> InstanceStored {
    let Received { identity, walked, .. } = received;
    let sender_profile = receipt.profile_in_event(issuer_in_data_set);
    let mut from = receipt.in_event();
    if from.implementation_class_uid.is_empty() {
        let uid = received.file_meta.implementation_class_uid();
        from.implementation_class_uid = uid.map(|uid| uid.to_string()).unwrap_or_default();
        let name = received.file_meta.implementation_version_name();
        from.implementation_version_name = name.unwrap_or_default().to_owned();
    }
    let pixel_data = walked.pixel_data.map(|pixel_data| received.data_set_offset + pixel_data.offset);
    let big_endian = TransferSyntax::from(&received.transfer_syntax_uid).encoding.is_big_endian();
    let header = Bytes::from(walked.header);
    let protected = InstanceProtected { header, extractor_version: EXTRACTOR_VERSION };
    InstanceStored {
        tenant: receipt.sender.tenant.clone(),
        study_instance_uid: identity.study_instance_uid.to_string(),
        series_instance_uid: identity.series_instance_uid.to_string(),
        sop_instance_uid: identity.sop_instance_uid.to_string(),
        sop_class_uid: identity.sop_class_uid.to_string(),
        transfer_syntax_uid: received.transfer_syntax_uid.to_string(),
        object: Some(object_in_event(object)),
        data_set_offset: received.data_set_offset,
        pixel_data_offset: pixel_data.unwrap_or(0),
        frame_table: walked.frames.as_ref().map(frame_table_in_event),
        bulk_data: walked.bulk.iter().map(|entry| bulk_in_event(entry, big_endian)).collect(),
        side_object: None,
        received_file_meta: Bytes::copy_from_slice(received.file_meta.as_bytes()),
        receipt: Some(from),
        sender_profile: Some(sender_profile),
        findings: findings_in_event(&received.findings),
        key_id: String::new(),
        protected: protected.encode_to_vec().into(),
    }
}

/// Takes header and tables out of an event that would be too large: the bytes of its side object.
pub(crate) fn split_side(event: &mut InstanceStored, event_bytes_max: u64) -> Option<Bytes> {
    let max = usize::try_from(event_bytes_max).unwrap_or(usize::MAX).saturating_sub(ENVELOPE_MARGIN);
    if event.encoded_len() <= max {
        return None;
    }
    let protected = InstanceProtected::decode(event.protected.clone()).ok();
    event.protected =
        InstanceProtected { header: Bytes::new(), extractor_version: EXTRACTOR_VERSION }.encode_to_vec().into();
    let side = InstanceStoredSide {
        protected,
        frame_table: event.frame_table.take(),
        bulk_data: std::mem::take(&mut event.bulk_data),
    };
    Some(side.encode_to_vec().into())
}

pub(crate) fn object_in_event(object: &ObjectRef) -> Object {
    Object {
        key: Bytes::copy_from_slice(object.key.as_bytes()),
        length_bytes: object.length,
        blake3: Bytes::copy_from_slice(&object.digest.0),
    }
}

pub(crate) fn findings_in_event(findings: &[(&'static str, Option<Tag>)]) -> Vec<Finding> {
    let finding = |(code, tag): &(&'static str, Option<Tag>)| Finding {
        code: (*code).to_owned(),
        tag: tag.map_or(0, |tag| tag.0),
    };
    findings.iter().map(finding).collect()
}

/// Issuer of Patient ID as the data set names it, decoded; `None` where it does not.
pub(crate) fn issuer_in_data_set(walked: &Walked, default_character_set: &str) -> Option<String> {
    let value = walked.value(tags::ISSUER_OF_PATIENT_ID)?;
    let (default, _) = CharacterSet::parse(default_character_set.as_bytes(), CharacterSet::DEFAULT);
    let named = walked.value(tags::SPECIFIC_CHARACTER_SET).unwrap_or_default();
    let (set, _) = CharacterSet::parse(named, default);
    let decoded = set.decode(Vr::LO, value);
    let issuer = decoded.text.trim_matches(['\0', ' ']);
    (!issuer.is_empty()).then(|| issuer.to_owned())
}

fn frame_table_in_event(table: &cairn_dicom::FrameTable) -> FrameTable {
    let layout = match table {
        cairn_dicom::FrameTable::Native { first_offset, frame_length, frames } => Layout::Native(NativeFrames {
            first_offset: *first_offset,
            frame_length_bytes: *frame_length,
            frames: *frames,
        }),
        cairn_dicom::FrameTable::Fragmented(fragmented) => {
            let mut made = FragmentedFrames { range_ends: fragmented.ends().collect(), ..FragmentedFrames::default() };
            let mut end = 0;
            for range in fragmented.ranges() {
                made.range_start_gaps.push(range.start - end);
                made.range_lengths.push(range.end - range.start);
                end = range.end;
            }
            Layout::Fragmented(made)
        }
        cairn_dicom::FrameTable::Derived { frames } => Layout::DerivedFrames(*frames),
    };
    FrameTable { layout: Some(layout) }
}

/// `big_endian`: whether the transfer syntax says so. A value in it that is not (written as UN, or in a data set that
/// says the wrong byte order) goes by UN, so that nobody turns its bytes.
fn bulk_in_event(entry: &BulkEntry, big_endian: bool) -> BulkDataEntry {
    let as_written = big_endian && !entry.big_endian && entry.vr.unit_bytes() > 1;
    let vr = if as_written { Vr::UN } else { entry.vr };
    let [a, b] = vr.as_str().as_bytes() else { return BulkDataEntry::default() };
    BulkDataEntry {
        path: entry.path.to_vec(),
        vr: u32::from(*a) << 8 | u32::from(*b),
        offset: entry.offset,
        length_bytes: entry.length,
        encapsulated: entry.encapsulated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_dicom::{HeaderWalker, WalkLimits};

    fn element(tag: Tag, vr: &str, value: &[u8]) -> Vec<u8> {
        let mut out = [&tag.group().to_be_bytes()[..], &tag.element().to_be_bytes(), vr.as_bytes()].concat();
        match vr {
            "UI" | "US" => out.extend((value.len() as u16).to_be_bytes()),
            _ => out.extend([&[0, 0][..], &(value.len() as u32).to_be_bytes()].concat()),
        }
        [out, value.to_vec()].concat()
    }

    #[test]
    fn a_value_written_as_un_in_big_endian_is_not_turned() {
        for (vr, expected) in [("OW", "OW"), ("UN", "UN")] {
            let bytes = [
                element(tags::SOP_CLASS_UID, "UI", b"1.2\0"),
                element(tags::SOP_INSTANCE_UID, "UI", b"1.3\0"),
                element(tags::BITS_ALLOCATED, "US", &[0, 16]),
                element(tags::PIXEL_DATA, vr, &[1, 2, 3, 4]),
            ];
            let mut walker = HeaderWalker::new(&TransferSyntax::EXPLICIT_VR_BIG_ENDIAN, WalkLimits::default());
            walker.push(&bytes.concat()).unwrap();
            let walked = walker.finish().unwrap();
            let pixels = walked.bulk.iter().find(|entry| entry.tag() == tags::PIXEL_DATA).unwrap();
            assert_eq!(bulk_in_event(pixels, true).vr.to_be_bytes()[2..], *expected.as_bytes());
        }
    }
}
