use super::{frames::of_record, instances::uids_of, parts::OnePart, record};
use crate::{
    door::Door,
    media_type::Packing,
    problem::{Answer, Problem},
    request::Call,
    respond::{OCTET_STREAM, Representation, slice, whole_or_slice},
};
use cairn_dicom::{CharacterSet, Tag, TransferSyntax, Vr, header::Header, tags};
use cairn_service_api::index::{Detail, InstanceRecord};
use std::sync::Arc;

/// Types of encapsulated documents that are named as what they are. Others are bytes: a browser must not run them.
const DOCUMENT_TYPES: &[&str] = &["application/pdf", "model/stl", "model/obj", "model/mtl"];

/// Deepest path of a bulk data element: tag, item, tag, item, ..., tag.
const PATH_LENGTH_MAX: usize = 65;

/// `/pixeldata`: all frames of an instance.
pub(crate) async fn pixel_data(door: Arc<Door>, call: Call) -> Answer {
    call.no_other_parameters()?;
    let record = record(&door, &call, Detail::Tables).await?;
    all_frames(&door, &call, record).await
}

async fn all_frames(door: &Door, call: &Call, record: InstanceRecord) -> Answer {
    match record.frames {
        0 => Err(Problem::not_found()),
        frames if frames as usize > door.config.limits.frames_max => {
            Err(Problem::bad_request("there are more frames than one request gives; ask for some of them"))
        }
        frames => of_record(door, call, record, (1..=frames).collect()).await,
    }
}

/// The value of an element that is not in the metadata, by the path in its BulkDataURI.
pub(crate) async fn bulk_data(door: Arc<Door>, call: Call) -> Answer {
    call.no_other_parameters()?;
    let path = element_path(call.rest.get(1..).unwrap_or_default()).ok_or_else(Problem::not_found)?;
    let record = record(&door, &call, Detail::Header).await?;
    if path == [tags::PIXEL_DATA.0] && has_fragments(&record) {
        return all_frames(&door, &call, record).await;
    }
    let own_type = if path == [tags::ENCAPSULATED_DOCUMENT.0] { document_type(&record) } else { OCTET_STREAM };
    let fitting = call.accept.alternatives().iter().find_map(|alternative| {
        let offered = [own_type, OCTET_STREAM].into_iter().find(|offered| alternative.media_type.covers(offered))?;
        Some((alternative.packing.unwrap_or(Packing::Single), offered))
    });
    let text = format!("this value is given as {own_type}, alone or in multipart/related");
    let (packing, media_type) = fitting.ok_or_else(|| Problem::not_acceptable(text))?;
    let (length, data) = door.within(door.services.retrieval.bulk_data(&record, &path)).await?;
    let name: Vec<_> = path.iter().map(u32::to_string).collect();
    let entity = format!("{}-{}", record.object.digest, name.join("."));
    match packing {
        Packing::Single => {
            let etag = Some(format!("\"{entity}\""));
            let representation = Representation { content_type: media_type.into(), etag, length: Some(length) };
            let open = async |range: Option<std::ops::Range<u64>>| Ok(whole_or_slice(data, range));
            representation.answer(&door, &call, open).await
        }
        Packing::Multipart => {
            let location = format!("{}/{}", call.address.path(&uids_of(&record)), call.rest.join("/"));
            let message =
                OnePart::new(&format!("{entity} {media_type}"), media_type, media_type, length, Some(&location));
            let representation = Representation {
                content_type: message.content_type.clone(),
                etag: Some(format!("\"{entity}-parts\"")),
                length: Some(message.length()),
            };
            let open = async |range| message.open(range, async |range| Ok(slice(data, range))).await;
            representation.answer(&door, &call, open).await
        }
    }
}

/// Whether Pixel Data is encapsulated. What says so may be in a side object; then the transfer syntax does.
fn has_fragments(record: &InstanceRecord) -> bool {
    let mut entries = record.bulk_data.iter().filter(|entry| entry.path == [tags::PIXEL_DATA.0]);
    entries.next().map_or_else(|| !TransferSyntax::from(&record.transfer_syntax_uid).is_native(), |e| e.encapsulated)
}

/// Reads `tag/item/tag/.../tag`, items counted from 0.
fn element_path(segments: &[String]) -> Option<Vec<u32>> {
    if segments.len().is_multiple_of(2) || segments.len() > PATH_LENGTH_MAX {
        return None;
    }
    let numbers = segments.iter().enumerate().map(|(at, text)| match at.is_multiple_of(2) {
        true => Tag::parse_hex(text).map(|tag| tag.0),
        false => text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten(),
    });
    numbers.collect()
}

/// MIME Type of Encapsulated Document, if it is one of those that are named.
fn document_type(record: &InstanceRecord) -> &'static str {
    let element = Header::new(&record.header).get(tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT);
    let text = element.map(|element| CharacterSet::DEFAULT.decode(Vr::LO, element.text()).text).unwrap_or_default();
    let named = DOCUMENT_TYPES.iter().find(|known| text.trim().eq_ignore_ascii_case(known));
    named.copied().unwrap_or(OCTET_STREAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_elements() {
        let path = |text: &str| element_path(&text.split('/').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(path("00420011"), Some(vec![0x0042_0011]));
        assert_eq!(path("00400275/0/00400007"), Some(vec![0x0040_0275, 0, 0x0040_0007]));
        for bad in ["", "00400275/0", "00400275/x/00400007", "0040/0/00400007", "00400275/+0/00400007"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }
}
