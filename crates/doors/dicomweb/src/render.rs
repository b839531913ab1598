//! The metadata of stored instances in the DICOM JSON Model (PS3.18 Annex F, edition 2025c).

use cairn_dicom::{
    CharacterSet, Tag, Vr,
    header::Header,
    json::{Bulk, HeaderSeries},
};
use cairn_service_api::index::InstanceRecord;
use std::fmt::Write;

/// Writes instances' headers as one JSON object each, with a comma in front of each, and with a BulkDataURI under `prefix` for
/// each value not in it.
pub(crate) fn write_records(records: &[InstanceRecord], prefix: impl Fn(&InstanceRecord) -> String) -> Vec<u8> {
    let mut series = HeaderSeries::with_capacity(records.iter().map(|record| record.header.len() * 3 + 64).sum());
    for record in records {
        series.separate(b',');
        write_record(&mut series, record, &prefix(record));
    }
    series.into_bytes()
}

fn write_record<'r>(series: &mut HeaderSeries<'r>, record: &'r InstanceRecord, prefix: &str) {
    let default = CharacterSet::parse(record.default_character_set.as_bytes(), CharacterSet::DEFAULT).0;
    let bulk = record.bulk_data.iter().map(|entry| {
        let letters = [(entry.vr >> 8) as u8, entry.vr as u8];
        Bulk { path: &entry.path, vr: Vr::from_bytes(letters).unwrap_or(Vr::UN) }
    });
    series.write(Header::new(&record.header), default, bulk, |bulk, uri| {
        uri.push_str(prefix);
        write_path(uri, bulk.path);
    });
}

/// Writes the path of an element as the bulk data resource reads it: `/GGGGEEEE/item/GGGGEEEE`.
fn write_path(uri: &mut String, path: &[u32]) {
    for (at, part) in path.iter().enumerate() {
        // Writing to a String can't fail.
        let _ = match at.is_multiple_of(2) {
            true => write!(uri, "/{}", Tag(*part)),
            false => write!(uri, "/{part}"),
        };
    }
}
