use super::*;
use proptest::prelude::*;

const ENCODINGS: [Encoding; 3] = [Encoding::ImplicitLittle, Encoding::ExplicitLittle, Encoding::ExplicitBig];

fn set(texts: &[(Tag, &str)]) -> DataSet {
    let mut set = DataSet::new();
    texts.iter().for_each(|(tag, text)| set.put_text(*tag, text));
    set
}

fn modification(texts: &[(Tag, &str)]) -> Modification {
    Modification {
        elements: set(texts),
        at: "20261128040000.000000+0000".into(),
        by: "CAIRN west".into(),
        source: "CT1".into(),
    }
}

fn image() -> DataSet {
    let mut image = set(&[
        (tags::STUDY_DATE, "20260101"),
        (tags::PATIENT_NAME, "WRONG^NAME"),
        (tags::PATIENT_ID, "P1"),
        (tags::STUDY_INSTANCE_UID, "1.2.3"),
    ]);
    let code = set(&[(tags::CODE_VALUE, "T-A0100"), (tags::PATIENT_NAME, "WITHIN^ITEM")]);
    image.put(tags::PROCEDURE_CODE_SEQUENCE, Vr::SQ, Value::Sequence(vec![code]));
    image.put(tags::ROWS, Vr::US, Value::Unsigned(vec![2]));
    image.put(tags::PIXEL_DATA, Vr::OW, Value::Bytes(Bytes::from_static(&[1, 2, 3, 4, 5, 6, 7, 8])));
    image
}

/// The bytes to give out, the data set pushed in pieces of so many bytes.
fn given(
    stored: &[u8],
    encoding: Encoding,
    modifications: &[Modification],
    default: CharacterSet,
    step: usize,
) -> Vec<u8> {
    let mut rewriter = Rewriter::new(encoding, modifications.to_vec(), default);
    for piece in stored.chunks(step) {
        if !rewriter.push(piece) {
            break;
        }
    }
    let mut out = Vec::new();
    for piece in rewriter.finish().pieces {
        match piece {
            Piece::Made(bytes) => out.extend_from_slice(&bytes),
            Piece::Stored(range) => {
                let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(stored.len());
                out.extend_from_slice(&stored[range.start as usize..end]);
            }
        }
    }
    out
}

fn read(bytes: &[u8], encoding: Encoding) -> DataSet {
    let bytes = Bytes::copy_from_slice(bytes);
    let (set, report) =
        DataSet::decode(&bytes, encoding, CharacterSet::DEFAULT, &DecodeLimits::default()).expect("well formed");
    assert_eq!(report.lossy, []);
    set
}

/// What the last item of the Original Attributes Sequence says that values were.
fn previous(set: &DataSet, item: usize) -> &DataSet {
    &set.items(tags::ORIGINAL_ATTRIBUTES_SEQUENCE)[item].items(tags::MODIFIED_ATTRIBUTES_SEQUENCE)[0]
}

#[test]
fn new_values_are_given_out_with_what_they_were_in_every_encoding() {
    let modifications = [
        modification(&[(tags::PATIENT_NAME, "RIGHT^NAME"), (tags::ACCESSION_NUMBER, "A7"), (tags::PATIENT_ID, "")]),
        modification(&[(tags::PATIENT_NAME, "BETTER^NAME")]),
    ];
    for encoding in ENCODINGS {
        let stored = image().encode(encoding, CharacterSet::DEFAULT).expect("encodes");
        let out = given(&stored, encoding, &modifications, CharacterSet::DEFAULT, 7);
        let found = read(&out, encoding);
        assert_eq!(found.text(tags::PATIENT_NAME), Some("BETTER^NAME"), "{encoding:?}");
        assert_eq!(found.text(tags::ACCESSION_NUMBER), Some("A7"));
        assert_eq!(found.get(tags::PATIENT_ID).map(|element| &element.value), Some(&Value::Empty));
        assert_eq!(found.items(tags::ORIGINAL_ATTRIBUTES_SEQUENCE).len(), 2);
        let first = previous(&found, 0);
        assert_eq!(first.text(tags::PATIENT_NAME), Some("WRONG^NAME"));
        assert_eq!(first.text(tags::PATIENT_ID), Some("P1"));
        assert_eq!(first.get(tags::ACCESSION_NUMBER).map(|element| &element.value), Some(&Value::Empty));
        assert_eq!(previous(&found, 1), &set(&[(tags::PATIENT_NAME, "RIGHT^NAME")]));
        let item = &found.items(tags::ORIGINAL_ATTRIBUTES_SEQUENCE)[0];
        assert_eq!(item.text(tags::MODIFYING_SYSTEM), Some("CAIRN west"));
        assert_eq!(item.text(tags::ATTRIBUTE_MODIFICATION_DATE_TIME), Some("20261128040000.000000+0000"));
        assert_eq!(item.text(tags::SOURCE_OF_PREVIOUS_VALUES), Some("CT1"));
        assert_eq!(item.text(tags::REASON_FOR_THE_ATTRIBUTE_MODIFICATION), Some("CORRECT"));
        // All else is as it was, to the byte.
        let mut rest = found;
        for tag in [tags::PATIENT_NAME, tags::PATIENT_ID, tags::ACCESSION_NUMBER, tags::ORIGINAL_ATTRIBUTES_SEQUENCE] {
            rest.remove(tag);
        }
        let mut expected = image();
        expected.remove(tags::PATIENT_NAME);
        expected.remove(tags::PATIENT_ID);
        assert_eq!(rest, expected);
        assert!(out.ends_with(&stored[stored.len() - 16..]));
        for step in [1, 2, 3, 1_000] {
            assert_eq!(given(&stored, encoding, &modifications, CharacterSet::DEFAULT, step), out, "{step}");
        }
    }
}

#[test]
fn what_others_changed_before_stays_in_the_sequence() {
    for encoding in ENCODINGS {
        let stored = image().encode(encoding, CharacterSet::DEFAULT).expect("encodes");
        let once = given(&stored, encoding, &[modification(&[(tags::PATIENT_ID, "P2")])], CharacterSet::DEFAULT, 9);
        // Once with an undefined length, once with a defined one.
        let defined = read(&once, encoding).encode(encoding, CharacterSet::DEFAULT).expect("encodes");
        for stored in [once, defined] {
            let again =
                given(&stored, encoding, &[modification(&[(tags::PATIENT_ID, "P3")])], CharacterSet::DEFAULT, 9);
            let found = read(&again, encoding);
            assert_eq!(found.text(tags::PATIENT_ID), Some("P3"));
            assert_eq!(previous(&found, 0).text(tags::PATIENT_ID), Some("P1"));
            assert_eq!(previous(&found, 1).text(tags::PATIENT_ID), Some("P2"));
        }
    }
}

#[test]
fn group_lengths_that_would_be_wrong_are_left_out() {
    let encoding = Encoding::ExplicitLittle;
    let mut stored = b"\x08\x00\x00\x00UL\x04\x00\x0A\0\0\0\x08\x00\x60\x00CS\x02\x00CT".to_vec();
    stored.extend_from_slice(b"\x10\x00\x00\x00UL\x04\x00\x0A\0\0\0\x10\x00\x10\x00PN\x02\x00AB");
    stored.extend_from_slice(b"\xE0\x7F\x10\x00OW\0\0\x02\0\0\0\x01\x02");
    let out = given(&stored, encoding, &[modification(&[(tags::PATIENT_NAME, "LONGER")])], CharacterSet::DEFAULT, 5);
    assert!(!out.windows(6).any(|bytes| bytes == b"\x00\x00UL\x04\x00"), "{out:02X?}");
    let found = read(&out, encoding);
    assert_eq!(found.text(tags::PATIENT_NAME), Some("LONGER"));
    assert_eq!(found.text(tags::MODALITY), Some("CT"));
    assert_eq!(previous(&found, 0).text(tags::PATIENT_NAME), Some("AB"));
}

#[test]
fn what_stands_out_of_order_or_twice_is_written_once() {
    let encoding = Encoding::ExplicitLittle;
    let name =
        |name: &str| set(&[(tags::PATIENT_NAME, name)]).encode(encoding, CharacterSet::DEFAULT).expect("encodes");
    let others = set(&[(tags::STUDY_INSTANCE_UID, "1.2")]).encode(encoding, CharacterSet::DEFAULT).expect("encodes");
    let stored = [others, name("AB"), name("CD")].concat();
    let out = given(&stored, encoding, &[modification(&[(tags::PATIENT_NAME, "NEW")])], CharacterSet::DEFAULT, 3);
    assert_eq!(out.windows(4).filter(|tag| *tag == [0x10, 0, 0x10, 0]).count(), 2, "the new one and the previous one");
    let found = read(&out, encoding);
    assert_eq!(found.text(tags::PATIENT_NAME), Some("NEW"));
    assert_eq!(previous(&found, 0).text(tags::PATIENT_NAME), Some("AB"));
}

/// What comes of a name in a data set of this character set.
fn renamed(charset: &str, default: CharacterSet, before: &str, name: &str) -> (String, DataSet, bool) {
    let encoding = Encoding::ExplicitLittle;
    let own = CharacterSet::parse(charset.as_bytes(), default).0;
    let mut stored = set(&[(tags::PATIENT_NAME, before), (tags::STUDY_DESCRIPTION, "Schädel")]);
    if charset.is_empty() && default == CharacterSet::DEFAULT {
        stored.put_text(tags::STUDY_DESCRIPTION, "HEAD");
    }
    let mut bytes = stored.encode(encoding, own).expect("encodes");
    if charset.is_empty() && default != CharacterSet::DEFAULT {
        // Not named, as its sender does.
        bytes.drain(..8 + default.to_value().len().next_multiple_of(2));
    }
    let modifications = [modification(&[(tags::PATIENT_NAME, name)])];
    let mut rewriter = Rewriter::new(encoding, modifications.to_vec(), default);
    rewriter.push(&bytes);
    let is_whole = rewriter.finish().is_whole;
    let out = given(&bytes, encoding, &modifications, default, 1_000);
    let (found, _) = DataSet::decode(&out.clone().into(), encoding, default, &DecodeLimits::default()).expect("reads");
    let named = found.text(tags::SPECIFIC_CHARACTER_SET).map(|_| found.texts(tags::SPECIFIC_CHARACTER_SET).join("\\"));
    assert_eq!(previous(&found, 0).text(tags::PATIENT_NAME), Some(before));
    assert_eq!(found.text(tags::STUDY_DESCRIPTION), stored.text(tags::STUDY_DESCRIPTION));
    (named.unwrap_or_default(), found, is_whole)
}

#[test]
fn new_values_stand_beside_old_ones_in_any_character_set() {
    let latin = CharacterSet::parse(b"ISO_IR 100", CharacterSet::DEFAULT).0;
    for (charset, default, before, name, expected) in [
        ("", CharacterSet::DEFAULT, "A^B", "C^D", ""),
        ("", CharacterSet::DEFAULT, "A^B", "Müller^Jürgen", "ISO_IR 192"),
        ("", latin, "Größe", "Muller", ""),
        ("", latin, "Größe", "Müller", "ISO_IR 100"),
        ("ISO_IR 100", CharacterSet::DEFAULT, "Größe", "Müller", "ISO_IR 100"),
        ("ISO_IR 100", CharacterSet::DEFAULT, "Größe", "Wałęsa^Lech", r"ISO 2022 IR 100\ISO 2022 IR 101"),
        ("ISO_IR 100", CharacterSet::DEFAULT, "Größe", "Yamada^Tarou=山田^太郎", r"ISO 2022 IR 100\ISO 2022 IR 87"),
        ("ISO_IR 192", CharacterSet::DEFAULT, "Größe", "Nguyễn", "ISO_IR 192"),
        ("GB18030", CharacterSet::DEFAULT, "Größe", "Nguyễn", "GB18030"),
    ] {
        let (named, found, is_whole) = renamed(charset, default, before, name);
        assert_eq!((named.as_str(), is_whole), (expected, true), "{charset} {name}");
        assert_eq!(found.text(tags::PATIENT_NAME), Some(name), "{charset}");
    }
    let (named, found, is_whole) = renamed("ISO_IR 100", CharacterSet::DEFAULT, "Größe", "Nguyễn");
    assert_eq!((named.as_str(), found.text(tags::PATIENT_NAME), is_whole), ("ISO_IR 100", Some("Nguy?n"), false));
}

#[test]
fn a_header_at_hand_has_every_character() {
    let latin = CharacterSet::parse(b"ISO_IR 100", CharacterSet::DEFAULT).0;
    let header: Bytes = set(&[(tags::PATIENT_NAME, "Größe"), (tags::STUDY_DESCRIPTION, "Schädel")])
        .encode(Encoding::ExplicitLittle, latin)
        .expect("encodes")
        .into();
    let out = rewrite(&header, &[modification(&[(tags::PATIENT_NAME, "Nguyễn")])], CharacterSet::DEFAULT);
    let found = read(&out, Encoding::ExplicitLittle);
    assert_eq!(found.text(tags::PATIENT_NAME), Some("Nguyễn"));
    assert_eq!(found.text(tags::STUDY_DESCRIPTION), Some("Schädel"));
    assert_eq!(previous(&found, 0).text(tags::PATIENT_NAME), Some("Größe"));
    let original = crate::Header::new(&out).first_item(tags::ORIGINAL_ATTRIBUTES_SEQUENCE);
    assert!(original.is_some(), "lengths are defined, as those of every header");
    assert_eq!(crate::Header::new(&out).elements().count(), 4, "with its character set");
}

proptest! {
    /// Whatever the bytes are: pieces lie within them, cuts change nothing.
    #[test]
    fn any_bytes_are_given_out_alike_however_they_come(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        begin in any::<bool>(),
        step in 1..40_usize,
    ) {
        let stored = if begin { image().encode(Encoding::ExplicitLittle, CharacterSet::DEFAULT).expect("encodes") } else { Vec::new() };
        let stored = [&stored[..stored.len().min(40)], &bytes].concat();
        let modifications = [modification(&[(tags::PATIENT_NAME, "NEW")])];
        for encoding in ENCODINGS {
            let whole = given(&stored, encoding, &modifications, CharacterSet::DEFAULT, usize::MAX);
            let cut = given(&stored, encoding, &modifications, CharacterSet::DEFAULT, step);
            prop_assert_eq!(whole, cut);
        }
    }
}
