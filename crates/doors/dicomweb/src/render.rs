//! The DICOM JSON Model (PS3.18 Annex F, edition 2025c) of data sets and of stored headers.

use crate::problem::json_string;
use cairn_dicom::{
    CharacterSet, DataSet, Tag, Vr,
    dataset::{DecodeLimits, Value},
    transfer_syntax::Encoding,
};
use cairn_service_api::{Error, ErrorKind, index::InstanceRecord};
use std::fmt::Write;

/// Writes a data set as one JSON object.
pub(crate) fn write_data_set(set: &DataSet, json: &mut Vec<u8>) {
    let mut text = String::new();
    object(set, &[], "", &mut Vec::new(), &mut text);
    json.extend_from_slice(text.as_bytes());
}

/// Writes an instance's header as one JSON object, with a BulkDataURI under `prefix` for each value not in it.
pub(crate) fn write_record(record: &InstanceRecord, prefix: &str, json: &mut Vec<u8>) -> Result<(), Error> {
    let default = CharacterSet::parse(record.default_character_set.as_bytes(), CharacterSet::DEFAULT).0;
    let decoded = DataSet::decode(&record.header, Encoding::ExplicitLittle, default, &DecodeLimits::default());
    let (set, _) = decoded.map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
    let bulk: Vec<_> = record.bulk_data.iter().map(|entry| (entry.path.as_slice(), entry.vr)).collect();
    let mut text = String::new();
    object(&set, &bulk, prefix, &mut Vec::new(), &mut text);
    json.extend_from_slice(text.as_bytes());
    Ok(())
}

type Bulk<'a> = (&'a [u32], u32);

fn object(set: &DataSet, bulk: &[Bulk<'_>], prefix: &str, path: &mut Vec<u32>, json: &mut String) {
    let mut members: Vec<(Tag, String)> = Vec::new();
    for (place, vr) in bulk {
        if place.len() == path.len() + 1 && place.starts_with(path) {
            let uri: Vec<_> = place.iter().enumerate().map(|(at, part)| segment(at, *part)).collect();
            let uri = json_string(&format!("{prefix}/{}", uri.join("/")));
            let vr = Vr::from_bytes([(vr >> 8) as u8, *vr as u8]).unwrap_or(Vr::UN);
            members.push((Tag(place[path.len()]), format!("{{\"vr\":\"{vr}\",\"BulkDataURI\":{uri}}}")));
        }
    }
    for element in set.elements() {
        path.push(element.tag.0);
        let value = match &element.value {
            Value::Sequence(items) => {
                let items: Vec<_> = items
                    .iter()
                    .enumerate()
                    .map(|(at, item)| {
                        let mut text = String::new();
                        path.push(at as u32);
                        object(item, bulk, prefix, path, &mut text);
                        path.pop();
                        text
                    })
                    .collect();
                format!(",\"Value\":[{}]", items.join(","))
            }
            value => values(element.vr, value),
        };
        path.pop();
        members.push((element.tag, format!("{{\"vr\":\"{}\"{value}}}", element.vr)));
    }
    members.sort_by_key(|(tag, _)| *tag);
    json.push('{');
    for (at, (tag, text)) in members.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(json, "{comma}\"{tag}\":{text}");
    }
    json.push('}');
}

fn segment(at: usize, part: u32) -> String {
    if at.is_multiple_of(2) { Tag(part).to_string() } else { part.to_string() }
}

fn values(vr: Vr, value: &Value) -> String {
    let list: Vec<String> = match value {
        Value::Empty | Value::Sequence(_) | Value::Bytes(_) => Vec::new(),
        Value::Text(texts) => texts.iter().map(|text| one(vr, text)).collect(),
        Value::Signed(v) => v.iter().map(i64::to_string).collect(),
        Value::Unsigned(v) => v.iter().map(u64::to_string).collect(),
        Value::Float(v) => v.iter().map(f64::to_string).collect(),
        Value::Tags(v) => v.iter().map(|tag| json_string(&tag.to_string())).collect(),
    };
    if list.is_empty() { String::new() } else { format!(",\"Value\":[{}]", list.join(",")) }
}

fn one(vr: Vr, text: &str) -> String {
    if text.is_empty() {
        return "null".into();
    }
    match vr {
        Vr::PN => {
            let names = ["Alphabetic", "Ideographic", "Phonetic"];
            let groups = names.iter().zip(text.split('=')).filter(|(_, group)| !group.is_empty());
            let groups: Vec<_> = groups.map(|(name, group)| format!("\"{name}\":{}", json_string(group))).collect();
            format!("{{{}}}", groups.join(","))
        }
        _ => json_string(text),
    }
}
