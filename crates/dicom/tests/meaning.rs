//! What the header of every file of the developer data set means, where that is present: text, JSON, data sets.

#[allow(dead_code, reason = "of the table only the names of the files are used here")]
mod common;

use bytes::Bytes;
use cairn_dicom::{
    CharacterSet, DataSet, WalkLimits, Walked,
    dataset::DecodeLimits,
    json::{Bulk, write_data_set, write_header},
    part10::Part10Reader,
    tags,
    transfer_syntax::Encoding,
    walk,
};
use common::{Row, data_directory};
use serde_json::Value as Json;

fn walked(directory: &std::path::Path, file: &str) -> Option<Walked> {
    let bytes = std::fs::read(directory.join(file)).expect("a file of the table");
    let mut reader = Part10Reader::default();
    let start = match reader.push(&bytes) {
        Ok(Some(start)) => start,
        Ok(None) => reader.finish().ok()?,
        Err(_) => return None,
    };
    Some(walk(&start.data_set, &start.transfer_syntax, WalkLimits::default()).expect("within limits"))
}

fn data_set(header: &[u8]) -> DataSet {
    let bytes = Bytes::copy_from_slice(header);
    DataSet::decode(&bytes, Encoding::ExplicitLittle, CharacterSet::DEFAULT, &DecodeLimits::default())
        .expect("a header is well formed")
        .0
}

fn json_of(walked: &Walked, bulk: bool) -> String {
    let mut out = Vec::new();
    let bulk = walked.bulk.iter().filter(|_| bulk).map(|b| Bulk { path: &b.path, vr: b.vr });
    write_header(&mut out, walked.header(), CharacterSet::DEFAULT, bulk, |_, uri| uri.push_str("bulk"));
    String::from_utf8(out).expect("UTF-8")
}

/// Attributes in ascending order, each with its VR, none of group 0002 and no group lengths.
fn assert_model(object: &Json, file: &str) {
    let object = object.as_object().expect("an object");
    for (tag, attribute) in object {
        assert!(tag.len() == 8 && !tag.ends_with("0000") && !tag.starts_with("0002"), "{file} {tag}");
        let attribute = attribute.as_object().expect("an object");
        let forms = ["Value", "BulkDataURI", "InlineBinary"].iter().filter(|form| attribute.contains_key(**form));
        assert!(forms.count() <= 1 && attribute["vr"].is_string(), "{file} {tag}");
        if attribute["vr"] == "SQ" {
            let items = attribute.get("Value").and_then(Json::as_array).into_iter().flatten();
            items.for_each(|item| assert_model(item, file));
        }
    }
}

fn references(json: &str) -> usize {
    json.matches("\"BulkDataURI\"").count()
}

#[test]
fn the_json_of_every_header_is_valid_and_the_same_from_memory() {
    let Some(directory) = data_directory() else { return };
    let mut files = 0;
    for row in Row::all(&directory) {
        let Some(walked) = walked(&directory, &row.file) else { continue };
        files += 1;
        let json = json_of(&walked, true);
        let model: Json = serde_json::from_str(&json).expect(&row.file);
        assert_model(&model, &row.file);
        assert_eq!(
            references(&json),
            walked.bulk.iter().filter(|b| !b.tag().is_group_length()).count(),
            "{}",
            row.file
        );
        let mut from_memory = Vec::new();
        write_data_set(&mut from_memory, &data_set(&walked.header));
        let from_memory: Json = serde_json::from_slice(&from_memory).expect(&row.file);
        let from_header: Json = serde_json::from_str(&json_of(&walked, false)).expect(&row.file);
        assert_eq!(from_memory, from_header, "{}", row.file);
    }
    println!("{files} files");
    assert!(files >= 545);
}

fn round_trip(set: &DataSet, encoding: Encoding) -> DataSet {
    let bytes = set.encode(encoding, CharacterSet::UTF_8).expect("UTF-8 carries all");
    let limits = DecodeLimits::default();
    let (mut found, _) =
        DataSet::decode(&Bytes::from(bytes), encoding, CharacterSet::DEFAULT, &limits).expect("what was written");
    found.remove(tags::SPECIFIC_CHARACTER_SET);
    found
}

fn json(set: &DataSet) -> Json {
    let mut out = Vec::new();
    write_data_set(&mut out, set);
    serde_json::from_slice(&out).expect("valid JSON")
}

/// Without what writing changes: character sets in items, and the length of binary values that was odd.
fn comparable(mut object: Json) -> Json {
    if let Some(object) = object.as_object_mut() {
        object.remove("00080005");
        object.remove("InlineBinary");
        object.values_mut().for_each(|value| *value = comparable(value.take()));
    }
    if let Some(values) = object.as_array_mut() {
        values.iter_mut().for_each(|value| *value = comparable(value.take()));
    }
    object
}

#[test]
fn every_header_reads_back_from_every_encoding() {
    let Some(directory) = data_directory() else { return };
    for row in Row::all(&directory) {
        let Some(walked) = walked(&directory, &row.file) else { continue };
        let set = data_set(&walked.header);
        let once = round_trip(&set, Encoding::ExplicitLittle);
        assert_eq!(comparable(json(&once)), comparable(json(&set)), "{}", row.file);
        assert_eq!(json(&round_trip(&once, Encoding::ExplicitBig)), json(&once), "{}", row.file);
        assert_eq!(json(&round_trip(&once, Encoding::ExplicitLittle)), json(&once), "{}", row.file);
    }
}

/// As other readers decode them (checked by hand; the last one no reader at hand decodes right).
#[test]
fn names_in_every_character_set() {
    let Some(directory) = data_directory() else { return };
    for (file, name) in [
        ("pydicom/charset_files/chrArab.dcm", "قباني^لنزار"),
        ("pydicom/charset_files/chrFren.dcm", "Buc^Jérôme"),
        ("pydicom/charset_files/chrFrenMulti.dcm", "Buc^Jérôme"),
        ("pydicom/charset_files/chrGerm.dcm", "Äneas^Rüdiger"),
        ("pydicom/charset_files/chrGreek.dcm", "Διονυσιος"),
        ("pydicom/charset_files/chrH31.dcm", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("pydicom/charset_files/chrH32.dcm", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("pydicom/charset_files/chrHbrw.dcm", "שרון^דבורה"),
        ("pydicom/charset_files/chrI2.dcm", "Hong^Gildong=洪^吉洞=홍^길동"),
        ("pydicom/charset_files/chrJapMulti.dcm", "やまだ^たろう"),
        ("pydicom/charset_files/chrJapMultiExplicitIR6.dcm", "やまだ^たろう"),
        ("pydicom/charset_files/chrKoreanMulti.dcm", "김희중"),
        ("pydicom/charset_files/chrRuss.dcm", "Люкceмбypг"),
        ("pydicom/charset_files/chrX1.dcm", "Wang^XiaoDong=王^小東="),
        ("pydicom/charset_files/chrX2.dcm", "Wang^XiaoDong=王^小东="),
        ("synthetic/charset/cyr2022.dcm", "Ivanov^Иван"),
        ("synthetic/charset/gbk.dcm", "Zhang^Wei=张^伟"),
        ("synthetic/charset/latin2.dcm", "Łukasz^Żółć"),
        ("synthetic/charset/latin4.dcm", "Ķēniņš^Ģirts"),
        ("synthetic/charset/latin5.dcm", "Şahin^İğde"),
        ("synthetic/charset/thai.dcm", "สมชาย^ใจดี"),
        ("fo-dicom/charset/chrGB2312.dcm", "Zhang^XiaoDong=张^小东="),
    ] {
        let walked = walked(&directory, &format!("files/{file}")).expect(file);
        assert_eq!(data_set(&walked.header).text(tags::PATIENT_NAME), Some(name), "{file}");
    }
}
