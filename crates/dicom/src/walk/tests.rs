use proptest::prelude::*;

use super::*;
use crate::finding::{FindingKind, FindingKind as F};

fn limits() -> WalkLimits {
    WalkLimits::default()
}

/// An element in Explicit VR Little Endian.
fn element(tag: Tag, vr: Vr, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    crate::parse::write::head(&mut out, tag, vr, value.len() as u32);
    out.extend_from_slice(value);
    out
}

fn implicit(tag: Tag, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&tag.group().to_le_bytes());
    out.extend_from_slice(&tag.element().to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
    out
}

fn delimiter(tag: u32) -> Vec<u8> {
    implicit(Tag(tag), b"")
}

fn item(value: &[u8]) -> Vec<u8> {
    implicit(Tag(0xFFFE_E000), value)
}

const ITEM_OPEN: &[u8] = b"\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF";

/// A sequence of undefined length.
fn open_sequence(tag: Tag, items: &[u8]) -> Vec<u8> {
    let mut out = element(tag, Vr::SQ, b"");
    out[8..12].fill(0xFF);
    out.extend_from_slice(items);
    out.extend(delimiter(0xFFFE_E0DD));
    out
}

fn uids() -> Vec<u8> {
    [
        element(tags::SOP_CLASS_UID, Vr::UI, b"1.2.840.10008.5.1.4.1.1.2\0"),
        element(tags::SOP_INSTANCE_UID, Vr::UI, b"1.2.3.4\0"),
        element(tags::STUDY_INSTANCE_UID, Vr::UI, b"1.2.3\0"),
        element(tags::SERIES_INSTANCE_UID, Vr::UI, b"1.2.30\0\0"),
    ]
    .concat()
}

fn image(rows: u16, columns: u16, bits: u16, frames: &str) -> Vec<u8> {
    [
        element(tags::SAMPLES_PER_PIXEL, Vr::US, &1u16.to_le_bytes()),
        element(tags::NUMBER_OF_FRAMES, Vr::IS, frames.as_bytes()),
        element(tags::ROWS, Vr::US, &rows.to_le_bytes()),
        element(tags::COLUMNS, Vr::US, &columns.to_le_bytes()),
        element(tags::BITS_ALLOCATED, Vr::US, &bits.to_le_bytes()),
    ]
    .concat()
}

/// Walks it whole and in small pieces, which must agree.
fn walked(bytes: &[u8], syntax: &TransferSyntax) -> Walked {
    let whole = walk(bytes, syntax, limits()).expect("within limits");
    for piece in [1, 5, 64] {
        assert_eq!(in_pieces(bytes, syntax, piece), whole, "in pieces of {piece}");
    }
    whole
}

fn in_pieces(bytes: &[u8], syntax: &TransferSyntax, piece: usize) -> Walked {
    let mut walker = HeaderWalker::new(syntax, limits());
    for part in bytes.chunks(piece) {
        walker.push(part).expect("within limits");
    }
    walker.finish().expect("within limits")
}

fn explicit(bytes: &[u8]) -> Walked {
    walked(bytes, &TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN)
}

fn kinds(walked: &Walked) -> Vec<FindingKind> {
    walked.findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn identifiers_are_there_before_pixel_data() {
    let mut walker = HeaderWalker::new(&TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN, limits());
    walker.push(&uids()[..60]).expect("within limits");
    assert!(!walker.identifiers_seen() && !walker.identifiers_passed());
    assert_eq!(walker.identity(), Err(IdentityError::Missing(tags::STUDY_INSTANCE_UID)));
    walker.push(&uids()[60..]).expect("within limits");
    assert!(walker.identifiers_seen());
    let identity = walker.identity().expect("all four");
    assert_eq!(identity.series_instance_uid.as_str(), "1.2.30");
    walker.push(&element(tags::ROWS, Vr::US, b"\0\x02")).expect("within limits");
    assert!(walker.identifiers_passed());
    assert_eq!(walker.finish().expect("within limits").identity(), Ok(identity));
}

#[test]
fn a_missing_or_unusable_uid_is_named_without_its_value() {
    let bytes = [element(tags::SOP_INSTANCE_UID, Vr::UI, b"Smith^John"), uids()].concat();
    let error = explicit(&bytes).identity().expect_err("no UID");
    assert!(matches!(error, IdentityError::Unusable(tags::SOP_INSTANCE_UID, _)));
    assert!(!error.to_string().contains("Smith"));
    assert_eq!(explicit(b"").identity(), Err(IdentityError::Missing(tags::STUDY_INSTANCE_UID)));
}

#[test]
fn a_uid_that_breaks_the_rules_is_noted() {
    for (uid, strict) in [
        ("1.2.840.0.10", true),
        ("0", true),
        ("1.02", false),
        ("01.2", false),
        ("1..2", false),
        ("1.2.", false),
        ("1.00", false),
    ] {
        let padded = if uid.len() % 2 == 1 { format!("{uid}\0") } else { uid.into() };
        let walked = explicit(&element(tags::STUDY_INSTANCE_UID, Vr::UI, padded.as_bytes()));
        assert_eq!(kinds(&walked).contains(&F::UidNotStrict), !strict, "{uid}");
        assert_eq!(uid.parse::<Uid>().expect("a UID").is_strict(), strict);
    }
}

#[test]
fn long_values_are_listed_and_not_kept() {
    let text = vec![b'x'; 3000];
    let bytes = [
        element(tags::IMAGE_COMMENTS, Vr::LT, &text),
        element(tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA, Vr::OW, &[7; 3000]),
        open_sequence(tags::ICON_IMAGE_SEQUENCE, &item(&element(tags::PIXEL_DATA, Vr::OB, &[1; 2000]))),
    ]
    .concat();
    let walked = explicit(&bytes);
    assert_eq!(walked.value(tags::IMAGE_COMMENTS), Some(&text[..]));
    let places: Vec<_> = walked.bulk.iter().map(|bulk| (&bulk.path[..], bulk.vr, bulk.length)).collect();
    assert_eq!(
        places,
        [(&[0x0028_1201][..], Vr::OW, 3000), (&[tags::ICON_IMAGE_SEQUENCE.0, 0, tags::PIXEL_DATA.0][..], Vr::OB, 2000)]
    );
    for bulk in &walked.bulk {
        let range = bulk.offset as usize..(bulk.offset + bulk.length) as usize;
        assert!(bytes[range].iter().all(|b| *b == 7 || *b == 1));
    }
    assert_eq!(walked.pixel_data, None, "only top-level Pixel Data counts");
    let icon = walked.header().first_item(tags::ICON_IMAGE_SEQUENCE).expect("an item");
    assert_eq!(icon.elements().count(), 0);
    assert_eq!(kinds(&walked), []);
}

#[test]
fn sequences_are_kept_with_defined_lengths() {
    let inner =
        open_sequence(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, &item(&element(tags::CODE_VALUE, Vr::SH, b"A1")));
    let items = [ITEM_OPEN, &inner, &delimiter(0xFFFE_E00D), &item(b"")].concat();
    let defined = element(
        tags::REFERENCED_IMAGE_SEQUENCE,
        Vr::SQ,
        &[
            item(&element(
                tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
                Vr::SQ,
                &item(&element(tags::CODE_VALUE, Vr::SH, b"A1")),
            )),
            item(b""),
        ]
        .concat(),
    );
    let walked = explicit(&[open_sequence(tags::REFERENCED_IMAGE_SEQUENCE, &items), uids()].concat());
    assert_eq!(walked.header, [defined, uids()].concat());
    assert_eq!(walked.findings.iter().map(|f| f.kind).collect::<Vec<_>>(), [F::ElementOrder]);
}

#[test]
fn implicit_big_endian_and_deflated_give_the_same_header() {
    let explicit_bytes = [uids(), element(tags::ROWS, Vr::US, &[0, 2])].concat();
    let expected = explicit(&explicit_bytes).header;
    let pairs: [(Tag, &[u8]); 4] = [
        (tags::SOP_CLASS_UID, b"1.2.840.10008.5.1.4.1.1.2\0"),
        (tags::SOP_INSTANCE_UID, b"1.2.3.4\0"),
        (tags::STUDY_INSTANCE_UID, b"1.2.3\0"),
        (tags::SERIES_INSTANCE_UID, b"1.2.30\0\0"),
    ];
    let mut little: Vec<u8> = pairs.iter().flat_map(|(tag, value)| implicit(*tag, value)).collect();
    little.extend(implicit(tags::ROWS, &[0, 2]));
    assert_eq!(walked(&little, &TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN).header, expected);

    let mut big = Vec::new();
    for (tag, vr, value) in
        pairs.iter().map(|(tag, value)| (*tag, "UI", *value)).chain([(tags::ROWS, "US", &[2u8, 0][..])])
    {
        big.extend_from_slice(&tag.0.to_be_bytes());
        big.extend_from_slice(vr.as_bytes());
        big.extend_from_slice(&(value.len() as u16).to_be_bytes());
        big.extend_from_slice(value);
    }
    let from_big = walked(&big, &TransferSyntax::EXPLICIT_VR_BIG_ENDIAN);
    assert_eq!((from_big.header, from_big.findings), (expected.clone(), vec![]));
    let mislabelled = explicit(&big);
    assert_eq!((mislabelled.header.clone(), kinds(&mislabelled)), (expected.clone(), vec![F::MixedByteOrder]));

    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, &explicit_bytes).expect("writes to memory");
    let deflated = encoder.finish().expect("writes to memory");
    let inflated = walked(&deflated, &TransferSyntax::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN);
    assert_eq!(inflated.header, expected);
    assert_eq!((inflated.length, inflated.inflated_length), (deflated.len() as u64, explicit_bytes.len() as u64));
}

#[test]
fn undeclared_encodings_are_read_element_by_element() {
    let implicit_bytes = [implicit(tags::SOP_INSTANCE_UID, b"1.2.3.4\0"), implicit(tags::ROWS, &[0, 2])].concat();
    let expected =
        [element(tags::SOP_INSTANCE_UID, Vr::UI, b"1.2.3.4\0"), element(tags::ROWS, Vr::US, &[0, 2])].concat();
    assert_eq!(explicit(&implicit_bytes).header, expected);
    let as_implicit = walked(&expected, &TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN);
    assert_eq!((as_implicit.header.clone(), as_implicit.findings[0].kind), (expected, F::MixedVrEncoding));
}

#[test]
fn a_length_that_spells_a_vr_is_a_length() {
    let dvh_data = Tag::new(0x3004, 0x0058);
    let long = "1.25\\10\\".repeat(2665).into_bytes();
    let value = &long[..usize::from(u16::from_le_bytes(*b"DS"))];
    for end in [&[][..], &implicit(Tag::new(0x3004, 0x0060), &[])] {
        let bytes = [implicit(tags::SOP_INSTANCE_UID, b"1.2.3.4\0"), implicit(dvh_data, value), end.to_vec()].concat();
        let walk = walked(&bytes, &TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN);
        assert_eq!(kinds(&walk), vec![]);
        // Broken off within the value, it is a long value all the same.
        let cut = walked(&bytes[..20_000], &TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN);
        assert_eq!(kinds(&cut), [F::TruncatedElement]);
    }
    // An odd number is no length, so these are letters whatever follows.
    let out_of_order = [element(tags::MODALITY, Vr::CS, b"CT"), element(tags::SOP_INSTANCE_UID, Vr::UI, b"1.2.3.4\0")];
    let walk = walked(&out_of_order.concat(), &TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN);
    assert_eq!(walk.value(tags::MODALITY), Some(&b"CT"[..]));
    // An empty explicit value is one, also where an implicit one follows or nothing does.
    for end in [&[][..], &implicit(Tag::new(0x3004, 0x0060), &[]), &element(Tag::new(0x3004, 0x0060), Vr::SQ, &[])] {
        let empty = element(dvh_data, Vr::DS, &[]);
        let bytes = [implicit(tags::SOP_INSTANCE_UID, b"1.2.3.4\0"), empty.clone(), end.to_vec()].concat();
        let walk = walked(&bytes, &TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN);
        assert_eq!(walk.findings[0], Finding { kind: F::MixedVrEncoding, tag: Some(dvh_data) });
        assert!(walk.header.windows(empty.len()).any(|window| window == empty));
    }
}

#[test]
fn a_sequence_as_un_is_implicit_inside() {
    let content = item(&implicit(tags::REFERENCED_SOP_INSTANCE_UID, b"1.2\0"));
    let expected = element(
        tags::REFERENCED_IMAGE_SEQUENCE,
        Vr::SQ,
        &item(&element(tags::REFERENCED_SOP_INSTANCE_UID, Vr::UI, b"1.2\0")),
    );
    assert_eq!(explicit(&element(tags::REFERENCED_IMAGE_SEQUENCE, Vr::UN, &content)).header, expected);
    let mut open = element(tags::REFERENCED_IMAGE_SEQUENCE, Vr::UN, b"");
    open[8..12].fill(0xFF);
    open.extend_from_slice(&content);
    open.extend(delimiter(0xFFFE_E0DD));
    assert_eq!(explicit(&open).header, expected);
}

#[test]
fn ten_thousand_levels_are_passed_over_and_identifiers_found() {
    let depth = 10_000;
    let mut deep = Vec::new();
    for _ in 0..depth {
        deep.extend_from_slice(&open_sequence(tags::REFERENCED_IMAGE_SEQUENCE, b"")[..12]);
        deep.extend_from_slice(ITEM_OPEN);
    }
    for _ in 0..depth {
        deep.extend(delimiter(0xFFFE_E00D));
        deep.extend(delimiter(0xFFFE_E0DD));
    }
    let start = deep.len();
    deep.extend(element(tags::STUDY_INSTANCE_UID, Vr::UI, b"1.2.3\0"));
    let walked = explicit(&deep);
    assert_eq!(walked.header().text(tags::STUDY_INSTANCE_UID), Some(&b"1.2.3"[..]));
    assert_eq!(kinds(&walked), [F::NestingTooDeep]);
    let [bulk] = &walked.bulk[..] else { panic!("one bulk entry") };
    assert_eq!((bulk.vr, bulk.path.len()), (Vr::SQ, 2 * 64 + 1));
    // It ends where the 64 levels around it begin to.
    assert_eq!(bulk.offset + bulk.length, (start - 64 * 16) as u64);
}

#[test]
fn a_header_over_its_limit_turns_into_bulk_and_identifiers_stay() {
    let entries = vec![item(&element(tags::CODE_VALUE, Vr::SH, b"0123456789")); 100].concat();
    let bytes = [open_sequence(tags::REFERENCED_IMAGE_SEQUENCE, &entries), uids()].concat();
    let small = WalkLimits { header_bytes_max: 300, ..limits() };
    let walked = walk(&bytes, &TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN, small).expect("within limits");
    assert!(walked.header.len() <= 300 && walked.identity().is_ok());
    let [bulk] = &walked.bulk[..] else { panic!("one bulk entry") };
    assert_eq!((bulk.vr, bulk.tag(), bulk.offset), (Vr::SQ, tags::REFERENCED_IMAGE_SEQUENCE, 12));
    assert_eq!(bulk.length, entries.len() as u64 + 8);
    assert!(kinds(&walked).contains(&F::HeaderTooLarge));
}

#[test]
fn bulk_values_over_their_limit_are_counted_as_a_finding_and_pixel_data_is_listed() {
    let values: Vec<u8> = (0..20).flat_map(|n| element(Tag::new(0x0029, 0x1000 + n), Vr::OB, &[1; 1026])).collect();
    let bytes = [uids(), image(4, 4, 8, "2 "), values, element(tags::PIXEL_DATA, Vr::OB, &[5; 32])].concat();
    let small = WalkLimits { bulk_values_max: 5, ..limits() };
    let walked = walk(&bytes, &TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN, small).expect("within limits");
    assert_eq!(walked.bulk.len(), 6);
    assert_eq!(walked.bulk.last().map(|bulk| (bulk.tag(), bulk.length)), Some((tags::PIXEL_DATA, 32)));
    assert!(kinds(&walked).contains(&F::TooManyBulkValues));
}

#[test]
fn broken_sequences_do_not_swallow_what_follows() {
    let code = element(tags::CODE_VALUE, Vr::SH, b"A1");
    let sequence =
        |bytes: &[u8]| [&element(tags::REFERENCED_IMAGE_SEQUENCE, Vr::SQ, b"")[..8], &[0xFF; 4], bytes].concat();
    let cases: [(Vec<u8>, FindingKind); 7] = [
        // No sequence delimiter.
        (sequence(&item(&code)), F::MissingSequenceDelimiter),
        // No item delimiter.
        (sequence(&[ITEM_OPEN, &code, &delimiter(0xFFFE_E0DD)].concat()), F::MissingItemDelimiter),
        // Delimiters although lengths are defined.
        (
            element(
                tags::REFERENCED_IMAGE_SEQUENCE,
                Vr::SQ,
                &[item(&[&code[..], &delimiter(0xFFFE_E00D)].concat()), delimiter(0xFFFE_E0DD)].concat(),
            ),
            F::UnexpectedDelimiter,
        ),
        // An item longer than its sequence says.
        (
            {
                let mut bytes = element(tags::REFERENCED_IMAGE_SEQUENCE, Vr::SQ, &item(&code));
                bytes[8] -= 4;
                bytes
            },
            F::ContainerLengthWrong,
        ),
        // An element longer than its item says.
        (sequence(&[&item(b"")[..4], &[6, 0, 0, 0], &code, &delimiter(0xFFFE_E0DD)].concat()), F::ContainerLengthWrong),
        // No items in it.
        (element(tags::REFERENCED_IMAGE_SEQUENCE, Vr::SQ, b"no items at all!"), F::NotASequence),
        // An item outside.
        ([item(&code), delimiter(0xFFFE_E0DD)].concat(), F::UnexpectedItem),
    ];
    for (bytes, kind) in cases {
        let bytes = [bytes, element(tags::STUDY_INSTANCE_UID, Vr::UI, b"1.2.3\0")].concat();
        let walked = explicit(&bytes);
        assert_eq!(walked.header().text(tags::STUDY_INSTANCE_UID), Some(&b"1.2.3"[..]), "{kind:?}");
        assert!(kinds(&walked).contains(&kind), "{kind:?}: {:?}", walked.findings);
    }
}

#[test]
fn odd_lengths_padding_and_strange_vrs_are_tolerated() {
    let study = element(tags::STUDY_INSTANCE_UID, Vr::UI, b"1.2.3\0");
    let odd = element(tags::SOP_INSTANCE_UID, Vr::UI, b"1.2");
    let odd_padded = [&odd[..], b"\0"].concat();
    let mut strange = element(tags::SOP_INSTANCE_UID, Vr::UI, b"1.2\0");
    strange[4..6].copy_from_slice(b"??");
    let mut future = element(tags::SOP_INSTANCE_UID, Vr::UT, b"1.2\0");
    future[4..6].copy_from_slice(b"ZZ");
    let zeros = vec![0; 500];
    for (bytes, expected) in [
        ([&odd[..], &study].concat(), &[F::OddLength][..]),
        ([&odd_padded[..], &study].concat(), &[F::OddLength, F::PadByteNotCounted]),
        ([&strange[..], &study].concat(), &[F::UnknownVr]),
        ([&future[..], &study].concat(), &[F::UnknownVr]),
        ([&element(tags::SOP_INSTANCE_UID, Vr::UI, b"1.2\0")[..], &study, &zeros].concat(), &[F::TrailingBytes]),
        (
            [
                &element(Tag(0x0002_0010), Vr::UI, b"1.2\0")[..],
                &element(tags::SOP_INSTANCE_UID, Vr::UI, b"1.2\0"),
                &study,
            ]
            .concat(),
            &[F::FileMetaInDataSet],
        ),
    ] {
        let walked = explicit(&bytes);
        assert_eq!(kinds(&walked), expected);
        for (tag, uid) in [(tags::STUDY_INSTANCE_UID, &b"1.2.3"[..]), (tags::SOP_INSTANCE_UID, b"1.2")] {
            assert_eq!(walked.header().text(tag), Some(uid), "{expected:?}");
        }
        assert_eq!(walked.length, bytes.len() as u64);
    }
}

#[test]
fn group_lengths_and_trailing_padding_are_left_out() {
    let bytes = [
        element(Tag(0x0008_0000), Vr::UL, &[9, 0, 0, 0]),
        uids(),
        element(Tag(0x0020_0000), Vr::UL, &[9, 0, 0, 0]),
        element(tags::DATA_SET_TRAILING_PADDING, Vr::OB, &[0; 100]),
    ]
    .concat();
    let walked = explicit(&bytes);
    assert_eq!((walked.header.clone(), kinds(&walked)), (uids(), vec![]));
}

#[test]
fn pixel_data_is_found_under_any_vr() {
    let mut bytes = [image(4, 4, 8, "1 "), element(tags::PIXEL_DATA, Vr::UT, &[5; 16])].concat();
    assert_eq!(explicit(&bytes).pixel_data.map(|data| data.length), Some(16));
    let start = bytes.len() - 28;
    bytes.splice(start..start + 12, *b"\xE0\x7F\x10\0UI\x10\0");
    assert_eq!(explicit(&bytes).pixel_data.map(|data| data.length), Some(16));
}

#[test]
fn a_cut_data_set_gives_what_was_there() {
    let bytes = [uids(), image(4, 4, 8, "2 "), element(tags::PIXEL_DATA, Vr::OB, &[5; 32])].concat();
    for length in 0..bytes.len() {
        let walked = in_pieces(&bytes[..length], &TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN, 7);
        assert_eq!(walked.length, length as u64);
        let there = walked.pixel_data.map_or(0, |data| data.length);
        assert_eq!(walked.frames.map_or(0, |frames| frames.frames()), (there / 16) as u32);
    }
}

/// Anything, but made of the parts of data sets, so that it gets past the first element.
fn rubble() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop_oneof![
        Just(0xFFFE_E000u32),
        Just(0xFFFE_E00D),
        Just(0xFFFE_E0DD),
        Just(0x0008_1140),
        Just(0x7FE0_0010),
        Just(0x7FE0_0001),
        Just(0x0028_0010),
        Just(0x0008_0018),
        Just(0x0009_0010),
        Just(0x0009_1001),
        any::<u32>(),
    ];
    let length = prop_oneof![Just(u32::MAX), 0u32..40, any::<u32>(), 1000u32..70_000];
    let vr = prop_oneof![
        Just(*b"SQ"),
        Just(*b"UN"),
        Just(*b"OB"),
        Just(*b"OW"),
        Just(*b"UI"),
        Just(*b"US"),
        Just(*b"??"),
        any::<[u8; 2]>()
    ];
    let part = (tag, vr, length, any::<[bool; 2]>(), prop::collection::vec(any::<u8>(), 0..24)).prop_map(
        |(tag, vr, length, [explicit, big], rest)| {
            let tag = Tag(tag);
            let mut out = Vec::new();
            let u16s = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
            out.extend_from_slice(&u16s(tag.group()));
            out.extend_from_slice(&u16s(tag.element()));
            if explicit && tag.group() != 0xFFFE {
                out.extend_from_slice(&vr);
                if Vr::from_bytes(vr).is_some_and(|vr| !vr.has_long_length()) {
                    out.extend_from_slice(&u16s(length as u16));
                    out.extend_from_slice(&rest);
                    return out;
                }
                out.extend_from_slice(&[0, 0]);
            }
            out.extend_from_slice(&if big { length.to_be_bytes() } else { length.to_le_bytes() });
            out.extend_from_slice(&rest);
            out
        },
    );
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

fn any_syntax() -> impl Strategy<Value = TransferSyntax> {
    prop_oneof![
        Just(TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN),
        Just(TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN),
        Just(TransferSyntax::EXPLICIT_VR_BIG_ENDIAN),
        Just(TransferSyntax::from_uid("1.2.840.10008.1.2.4.50")),
        Just(TransferSyntax::from_uid("1.2.840.10008.1.2.5")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_pieces_give_one_answer(
        bytes in rubble(),
        syntax in any_syntax(),
        cuts in prop::collection::vec(1usize..40, 1..12),
    ) {
        let whole = walk(&bytes, &syntax, limits()).expect("within limits");
        let mut walker = HeaderWalker::new(&syntax, limits());
        let mut at = 0;
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(bytes.len());
            walker.push(&bytes[at..end]).expect("within limits");
            at = end;
            if at == bytes.len() {
                break;
            }
        }
        prop_assert_eq!(walker.finish().expect("within limits"), whole);
    }

    #[test]
    fn what_comes_out_is_bounded_and_well_formed(bytes in rubble(), syntax in any_syntax()) {
        let walked = walk(&bytes, &syntax, limits()).expect("within limits");
        prop_assert_eq!(walked.length, bytes.len() as u64);
        // A head grows by 4 bytes at most.
        prop_assert!(walked.header.len() <= 2 * bytes.len());
        fn check(header: Header<'_>) -> bool {
            let mut elements = header.elements();
            elements.by_ref().all(|element| element.items().all(check)) && elements.is_at_end()
        }
        prop_assert!(check(walked.header()));
        for bulk in &walked.bulk {
            prop_assert!(bulk.offset + bulk.length <= bytes.len() as u64);
        }
        if let Some(FrameTable::Fragmented(frames)) = &walked.frames {
            prop_assert!(frames.ranges().all(|range| range.end <= bytes.len() as u64));
        }
    }

    #[test]
    fn raw_noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600), syntax in any_syntax()) {
        walk(&bytes, &syntax, limits()).expect("within limits");
        let _ = walk(&bytes, &TransferSyntax::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, limits());
    }
}
