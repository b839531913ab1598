use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{CharacterSet, charset::CharsetFinding, tags, transfer_syntax::Encoding};

const ENCODINGS: [Encoding; 3] = [Encoding::ImplicitLittle, Encoding::ExplicitLittle, Encoding::ExplicitBig];

fn decode(bytes: &[u8], encoding: Encoding) -> Result<(DataSet, DecodeReport), DecodeError> {
    DataSet::decode(&Bytes::copy_from_slice(bytes), encoding, CharacterSet::DEFAULT, &DecodeLimits::default())
}

fn sample() -> DataSet {
    let mut code = DataSet::new();
    code.put_text(tags::CODE_VALUE, "T-A0100");
    code.put_text(tags::CODE_MEANING, "Gehirn");
    let mut set = DataSet::new();
    set.put_text(tags::PATIENT_NAME, "Yamada^Tarou=山田^太郎");
    set.put_text(tags::STUDY_INSTANCE_UID, "1.2.3");
    set.put_text(tags::MODALITIES_IN_STUDY, r"CT\MR");
    set.put_text(tags::OTHER_PATIENT_IDS, r"a\\b");
    set.put_empty(tags::STUDY_DATE);
    set.put(tags::ROWS, Vr::US, Value::Unsigned(vec![512]));
    set.put(tags::SMALLEST_IMAGE_PIXEL_VALUE, Vr::SS, Value::Signed(vec![-5]));
    set.put(tags::REFERENCE_PIXEL_X0, Vr::SL, Value::Signed(vec![-70_000]));
    set.put(tags::RECOMMENDED_DISPLAY_FRAME_RATE_IN_FLOAT, Vr::FL, Value::Float(vec![1.5]));
    set.put(tags::FRAME_INCREMENT_POINTER, Vr::AT, Value::Tags(vec![tags::FRAME_TIME]));
    set.put(tags::PIXEL_DATA, Vr::OW, Value::Bytes(Bytes::from_static(&[1, 2, 3, 4])));
    set.put(tags::ANATOMIC_REGION_SEQUENCE, Vr::SQ, Value::Sequence(vec![code, DataSet::new()]));
    set
}

#[test]
fn every_encoding_reads_back() {
    // Implicit VR can not say which of two VRs a value has.
    let vr_is_stated = |encoding: Encoding| encoding.is_explicit();
    for encoding in ENCODINGS {
        for charset in ["ISO_IR 192", r"\ISO 2022 IR 87"] {
            let charset = CharacterSet::parse(charset.as_bytes(), CharacterSet::DEFAULT).0;
            let mut wanted = sample();
            if !vr_is_stated(encoding) {
                wanted.remove(tags::SMALLEST_IMAGE_PIXEL_VALUE);
            }
            let bytes = wanted.encode(encoding, charset).expect("can be carried");
            let (mut found, report) = decode(&bytes, encoding).expect("well formed");
            assert_eq!(report, DecodeReport::default());
            let term = found.remove(tags::SPECIFIC_CHARACTER_SET).map(|e| e.value.texts().join("\\"));
            assert_eq!(term, Some(charset.to_value()));
            assert_eq!(found, wanted, "{encoding:?}");
        }
    }
}

#[test]
fn known_bytes_of_each_encoding() {
    let mut set = DataSet::new();
    set.put_text(tags::PATIENT_ID, "A1B");
    set.put(tags::ROWS, Vr::US, Value::Unsigned(vec![0x0102]));
    set.put(tags::PATIENT_ADDRESS, Vr::UC, Value::Empty);
    let encode = |encoding| set.encode(encoding, CharacterSet::DEFAULT).expect("ASCII");
    assert_eq!(
        encode(Encoding::ImplicitLittle),
        b"\x10\0\x20\0\x04\0\0\0A1B \x10\0\x40\x10\0\0\0\0\x28\0\x10\0\x02\0\0\0\x02\x01"
    );
    assert_eq!(
        encode(Encoding::ExplicitLittle),
        b"\x10\0\x20\0LO\x04\0A1B \x10\0\x40\x10UC\0\0\0\0\0\0\x28\0\x10\0US\x02\0\x02\x01"
    );
    assert_eq!(
        encode(Encoding::ExplicitBig),
        b"\0\x10\0\x20LO\0\x04A1B \0\x10\x10\x40UC\0\0\0\0\0\0\0\x28\0\x10US\0\x02\x01\x02"
    );
}

#[test]
fn undefined_lengths_and_un_are_read() {
    let explicit = b"\x08\0\x18\x22UN\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff\x08\0\0\x01\x02\0\0\0T \xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0";
    let (set, _) = decode(explicit, Encoding::ExplicitLittle).expect("well formed");
    assert_eq!(set.items(tags::ANATOMIC_REGION_SEQUENCE)[0].text(tags::CODE_VALUE), Some("T"));
    let known = b"\x10\0\x20\0UN\0\0\x02\0\0\0A ";
    let (set, _) = decode(known, Encoding::ExplicitLittle).expect("well formed");
    assert_eq!(set.text(tags::PATIENT_ID), Some("A"));
    let no_sequence = b"\x08\0\x18\x22UN\0\0\x02\0\0\0A ";
    let (set, _) = decode(no_sequence, Encoding::ExplicitLittle).expect("well formed");
    assert_eq!(set.elements()[0].value, Value::Bytes(Bytes::from_static(b"A ")));
}

#[test]
fn each_item_is_read_in_its_own_character_set() {
    // In the item ISO_IR 100, around it ISO_IR 192, which the second item inherits.
    let mut bytes = [
        &b"\x08\0\x05\0\x0a\0\0\0ISO_IR 192\x08\0\x18\x22\x42\0\0\0"[..],
        b"\xfe\xff\0\xe0\x1c\0\0\0\x08\0\x05\0\x0a\0\0\0ISO_IR 100\x08\0\x04\x01\x02\0\0\0\xe9 ",
        b"\xfe\xff\0\xe0\x0a\0\0\0\x08\0\x04\x01\x02\0\0\0\xc3\xa9",
        b"\xfe\xff\0\xe0\0\0\0\0",
    ]
    .concat();
    bytes[22] = (bytes.len() - 26) as u8;
    let (set, report) = decode(&bytes, Encoding::ImplicitLittle).expect("well formed");
    let items = set.items(tags::ANATOMIC_REGION_SEQUENCE);
    assert_eq!(items.iter().map(|i| i.text(tags::CODE_MEANING)).collect::<Vec<_>>(), [Some("é"), Some("é"), None]);
    assert_eq!(report, DecodeReport::default());
}

#[test]
fn oddities_are_reported_by_tag() {
    let bytes = b"\x08\0\x05\0\x0a\0\0\0ISO-IR 192\x10\0\x10\0\x02\0\0\0\xe9 ";
    let (set, report) = decode(bytes, Encoding::ImplicitLittle).expect("well formed");
    assert_eq!(set.text(tags::PATIENT_NAME), Some("\u{FFFD}"));
    assert_eq!(report.charset, [CharsetFinding::Misspelled]);
    assert_eq!(report.lossy, [tags::PATIENT_NAME]);
}

#[test]
fn an_order_that_is_wrong_is_put_right() {
    let bytes =
        b"\x10\0\x20\0\x02\0\0\0A \x10\0\x10\0\x02\0\0\0\xe9 \x08\0\x05\0\x0a\0\0\0ISO_IR 100\x10\0\x20\0\x02\0\0\0B ";
    let (set, report) = decode(bytes, Encoding::ImplicitLittle).expect("well formed");
    assert_eq!(set.text(tags::PATIENT_NAME), Some("é"));
    assert_eq!(set.text(tags::PATIENT_ID), Some("A"));
    assert_eq!(set.elements().len(), 3);
    assert_eq!(report, DecodeReport::default());
}

#[test]
fn what_a_set_cannot_carry_goes_out_as_utf_8() {
    let set = sample();
    let latin = CharacterSet::parse(b"ISO_IR 100", CharacterSet::DEFAULT).0;
    let refused = set.encode(Encoding::ExplicitLittle, latin);
    assert_eq!(refused, Err(EncodeError::NotEncodable(tags::PATIENT_NAME)));
    let (_, used) = set.encode_preferring(Encoding::ExplicitLittle, latin).expect("UTF-8 carries all");
    assert_eq!(used, CharacterSet::UTF_8);
    let japanese = CharacterSet::parse(br"\ISO 2022 IR 87", CharacterSet::DEFAULT).0;
    let (_, used) = set.encode_preferring(Encoding::ExplicitLittle, japanese).expect("can be carried");
    assert_eq!(used, japanese);
}

#[test]
fn a_value_too_long_for_its_vr_is_written_as_un() {
    let mut set = DataSet::new();
    set.put_text(tags::PATIENT_COMMENTS, &"x".repeat(70_001));
    let bytes = set.encode(Encoding::ExplicitLittle, CharacterSet::DEFAULT).expect("ASCII");
    assert_eq!(&bytes[4..12], b"UN\0\0\x72\x11\x01\0");
    let (found, _) = decode(&bytes, Encoding::ExplicitLittle).expect("well formed");
    assert_eq!(found, set);
}

/// Values in UN are little endian in a big endian data set too (PS3.5 section 6.2.2).
#[test]
fn a_long_number_list_is_the_same_through_un() {
    let mut set = DataSet::new();
    set.put(tags::ROWS, Vr::US, Value::Unsigned((0..40_000).collect()));
    for encoding in ENCODINGS {
        let bytes = set.encode(encoding, CharacterSet::DEFAULT).expect("no text");
        assert_eq!(decode(&bytes, encoding).expect("well formed").0, set, "{encoding:?}");
    }
}

/// A private sequence, and one under a tag that the dictionary knows as something else.
#[test]
fn a_sequence_that_the_dictionary_does_not_know_stays_one() {
    let mut item = DataSet::new();
    item.put_text(tags::CODE_VALUE, "é");
    let mut set = DataSet::new();
    for tag in [tags::PATIENT_ID, Tag::new(0x0009, 0x1001)] {
        set.put(tag, Vr::SQ, Value::Sequence(vec![item.clone(), DataSet::new()]));
    }
    for encoding in ENCODINGS {
        let bytes = set.encode(encoding, CharacterSet::UTF_8).expect("UTF-8 carries all");
        let (mut found, _) = decode(&bytes, encoding).expect("well formed");
        found.remove(tags::SPECIFIC_CHARACTER_SET);
        assert_eq!(found, set, "{encoding:?}");
    }
}

/// What is no whole number of units has no byte order; an odd number of bytes in words is padded within its last word.
#[test]
fn odd_numbers_of_bytes_are_the_same_in_either_byte_order() {
    let mut set = DataSet::new();
    set.put(tags::REFERENCE_PIXEL_X0, Vr::SL, Value::Bytes(Bytes::from_static(&[1, 2, 3, 4, 5, 6])));
    set.put(tags::PIXEL_DATA, Vr::OW, Value::Bytes(Bytes::from_static(&[1, 2, 3])));
    for encoding in ENCODINGS {
        let bytes = set.encode(encoding, CharacterSet::DEFAULT).expect("no text");
        let (found, _) = decode(&bytes, encoding).expect("well formed");
        let value = |tag| found.get(tag).map(|element| element.value.clone());
        assert_eq!(value(tags::REFERENCE_PIXEL_X0), Some(Value::Bytes(Bytes::from_static(&[1, 2, 3, 4, 5, 6]))));
        assert_eq!(value(tags::PIXEL_DATA), Some(Value::Bytes(Bytes::from_static(&[1, 2, 3, 0]))), "{encoding:?}");
    }
}

#[test]
fn another_value_under_the_tag_of_a_sequence_breaks_no_reader() {
    let mut set = DataSet::new();
    set.put(tags::ANATOMIC_REGION_SEQUENCE, Vr::LO, Value::Text(vec!["no item".into()]));
    set.put_text(tags::PATIENT_ID, "A");
    let read = |encoding| {
        let bytes = set.encode(encoding, CharacterSet::DEFAULT).expect("ASCII");
        decode(&bytes, encoding).expect("well formed").0
    };
    assert_eq!(read(Encoding::ExplicitLittle), set);
    let implicit = read(Encoding::ImplicitLittle);
    assert_eq!(
        implicit.get(tags::ANATOMIC_REGION_SEQUENCE).map(|element| &element.value),
        Some(&Value::Sequence(vec![]))
    );
    assert_eq!(implicit.text(tags::PATIENT_ID), Some("A"));
}

#[test]
fn bad_bytes_are_refused() {
    use DecodeError::*;
    let explicit = |bytes: &[u8]| decode(bytes, Encoding::ExplicitLittle).map(|_| ());
    assert_eq!(explicit(b"\x10\0\x20\0LO\x04\0A"), Err(Truncated(0)));
    assert_eq!(explicit(b"\x10\0\x20"), Err(Truncated(0)));
    assert_eq!(explicit(b"\x10\0\x20\0??\x04\0A"), Err(UnknownVr(0)));
    assert_eq!(explicit(b"\x10\0\x20\0UT\0\0\xff\xff\xff\xff"), Err(UndefinedLength(0)));
    assert_eq!(explicit(b"\x08\0\x18\x22SQ\0\0\x08\0\0\0\x10\0\x20\0\0\0\0\0"), Err(NoItem(12)));
    assert_eq!(explicit(b"\x08\0\x18\x22SQ\0\0\xff\xff\xff\xff"), Err(Truncated(12)));
    assert_eq!(explicit(b"\xfe\xff\x0d\xe0\0\0\0\0"), Err(NoItem(0)));
    let too_long = b"\x08\0\x18\x22SQ\0\0\x08\0\0\0\xfe\xff\0\xe0\x10\0\0\0\x10\0\x20\0LO\0\0";
    assert_eq!(explicit(too_long), Err(TooLong(12)));
    let deep = b"\x08\0\x18\x22SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff".repeat(10_000);
    assert_eq!(explicit(&deep), Err(TooDeep(32)));
    let limits = DecodeLimits { elements_max: 2, ..DecodeLimits::default() };
    let three = Bytes::from_static(b"\x10\0\x10\0LO\0\0\x10\0\x20\0LO\0\0\x10\0\x30\0LO\0\0");
    let found = DataSet::decode(&three, Encoding::ExplicitLittle, CharacterSet::DEFAULT, &limits);
    assert_eq!(found.map(|_| ()), Err(TooMany(2)));
}

fn any_set() -> impl Strategy<Value = DataSet> {
    let text = prop::sample::select(vec![
        tags::PATIENT_NAME,
        tags::PATIENT_ID,
        tags::STUDY_DESCRIPTION,
        tags::PATIENT_COMMENTS,
    ]);
    let leaf = prop::collection::vec((text, "[a-zé山^]{0,8}"), 0..4).prop_map(|pairs| {
        let mut set = DataSet::new();
        pairs.iter().for_each(|(tag, text)| set.put_text(*tag, text));
        set
    });
    leaf.prop_recursive(3, 16, 3, |inner| {
        (inner.clone(), prop::collection::vec(inner, 0..3)).prop_map(|(mut set, items)| {
            set.put(tags::ANATOMIC_REGION_SEQUENCE, Vr::SQ, Value::Sequence(items));
            set
        })
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for encoding in ENCODINGS {
            let _ = decode(&bytes, encoding);
        }
    }

    #[test]
    fn what_is_written_reads_back(set in any_set(), encoding in prop::sample::select(ENCODINGS.to_vec())) {
        let bytes = set.encode(encoding, CharacterSet::UTF_8).expect("UTF-8 carries all");
        let (mut found, _) = decode(&bytes, encoding).expect("well formed");
        found.remove(tags::SPECIFIC_CHARACTER_SET);
        prop_assert_eq!(found, set);
    }

    #[test]
    fn a_cut_is_refused_or_ends_between_elements(set in any_set(), cut in any::<prop::sample::Index>()) {
        let bytes = set.encode(Encoding::ExplicitLittle, CharacterSet::UTF_8).expect("UTF-8 carries all");
        let cut = cut.index(bytes.len());
        if let Ok((found, _)) = decode(&bytes[..cut], Encoding::ExplicitLittle) {
            prop_assert!(found.elements().len() <= set.elements().len());
        }
    }
}
