use proptest::prelude::*;

use super::*;
use crate::{Header, Tag, dictionary, normalise::Normaliser, parse::write, tags, walk::WalkLimits, walk::walk};

const NATIVE: [TransferSyntax; 4] = [
    TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN,
    TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN,
    TransferSyntax::EXPLICIT_VR_BIG_ENDIAN,
    TransferSyntax::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
];

fn canonical(bytes: &[u8], syntax: &TransferSyntax) -> Vec<u8> {
    let mut out = Vec::new();
    let mut normaliser = Normaliser::new(syntax, InflateLimits::default(), |piece: &[u8]| out.extend_from_slice(piece));
    for piece in bytes.chunks(100) {
        normaliser.push(piece).expect("within limits");
    }
    normaliser.finish().expect("within limits");
    out
}

fn element(tag: Tag, vr: Vr, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write::head(&mut out, tag, vr, value.len() as u32);
    out.extend_from_slice(value);
    out
}

fn item(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write::item(&mut out);
    out[4..8].copy_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
    out
}

fn sample() -> Vec<u8> {
    [
        element(tags::SOP_INSTANCE_UID, Vr::UI, b"1.2.3\0"),
        element(
            tags::REFERENCED_IMAGE_SEQUENCE,
            Vr::SQ,
            &[item(&element(tags::REFERENCED_FRAME_NUMBER, Vr::IS, b"7 ")), item(b"")].concat(),
        ),
        element(tags::REFERENCED_STUDY_SEQUENCE, Vr::SQ, b""),
        element(tags::ROWS, Vr::US, &[2, 1]),
        element(tags::PIXEL_REPRESENTATION, Vr::US, &[1, 0]),
        element(tags::SMALLEST_IMAGE_PIXEL_VALUE, Vr::SS, &[0xFE, 0xFF]),
        element(Tag::new(0x0029, 0x0010), Vr::LO, b"OURS"),
        element(Tag::new(0x0029, 0x1001), Vr::UL, &[1, 2, 3, 4]),
        element(tags::PIXEL_DATA, Vr::OW, &(0..10_001u16).flat_map(u16::to_le_bytes).collect::<Vec<_>>()),
    ]
    .concat()
}

#[test]
fn the_four_forms_are_what_the_standard_says() {
    let from = TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN;
    let big = convert(&sample(), &from, &TransferSyntax::EXPLICIT_VR_BIG_ENDIAN).expect("native");
    let head =
        b"\x00\x08\x00\x18UI\x00\x061.2.3\0\x00\x08\x11\x40SQ\0\0\xFF\xFF\xFF\xFF\xFF\xFE\xE0\x00\xFF\xFF\xFF\xFF\
        \x00\x08\x11\x60IS\x00\x027 \xFF\xFE\xE0\x0D\0\0\0\0\xFF\xFE\xE0\x00\xFF\xFF\xFF\xFF\xFF\xFE\xE0\x0D\0\0\0\0\
        \xFF\xFE\xE0\xDD\0\0\0\0\x00\x08\x11\x10SQ\0\0\0\0\0\0\x00\x28\x00\x10US\x00\x02\x01\x02";
    assert_eq!(&big[..head.len()], head);
    assert_eq!(&big[big.len() - 4..], &[0x27, 0x0F, 0x27, 0x10]);

    let implicit = convert(&sample(), &from, &TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN).expect("native");
    assert!(
        implicit.starts_with(b"\x08\x00\x18\x00\x06\0\0\x001.2.3\0\x08\x00\x40\x11\xFF\xFF\xFF\xFF\xFE\xFF\x00\xE0")
    );
    let back = convert(&implicit, &TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN, &from).expect("native");
    let header = walk(&back, &from, WalkLimits::default()).expect("within limits").header;
    let header = Header::new(&header);
    assert_eq!(
        header.get(tags::SMALLEST_IMAGE_PIXEL_VALUE).map(|e| e.vr),
        Some(Vr::SS),
        "as Pixel Representation says"
    );
    assert_eq!(header.get(Tag::new(0x0029, 0x1001)).map(|e| e.vr), Some(Vr::UN), "private VRs are lost on the way");
}

#[test]
fn values_too_long_for_their_vr_become_un() {
    let mut implicit = b"\x06\x30\x50\x00\x00\x00\x02\x00".to_vec();
    implicit.resize(8 + 0x20000, b'1');
    for to in [TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN, TransferSyntax::EXPLICIT_VR_BIG_ENDIAN] {
        let out = convert(&implicit, &TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN, &to).expect("native");
        assert_eq!(&out[4..8], b"UN\0\0");
        assert_eq!(canonical(&out, &to), canonical(&implicit, &TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN));
    }
}

#[test]
fn what_cannot_be_converted_is_refused() {
    let (from, to) = (TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN, TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN);
    let jpeg = TransferSyntax::from_uid("1.2.840.10008.1.2.4.50");
    assert!(matches!(convert(b"", &from, &jpeg), Err(ConvertError::TargetNotNative)));
    let compressed = b"\xE0\x7F\x10\x00OB\0\0\xFF\xFF\xFF\xFF\xFE\xFF\x00\xE0\0\0\0\0\xFE\xFF\xDD\xE0\0\0\0\0";
    assert_eq!(convert(compressed, &jpeg, &to), Err(ConvertError::PixelDataNotNative));
    assert_eq!(convert(compressed, &from, &to), Err(ConvertError::PixelDataNotNative));
    // A report that was sent in a compressed syntax has nothing compressed in it.
    let report = element(tags::SOP_INSTANCE_UID, Vr::UI, b"1.2.3\0");
    assert!(convert(&report, &jpeg, &to).is_ok());
    let mut deep = Vec::new();
    for _ in 0..1200 {
        deep.extend_from_slice(b"\x08\x00\x40\x11SQ\0\0\xFF\xFF\xFF\xFF\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF");
    }
    assert_eq!(convert(&deep, &from, &to), Err(ConvertError::NestingTooDeep));
}

#[test]
fn a_deflated_data_set_comes_out_in_bounded_pieces() {
    let from = TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN;
    let pixels = element(tags::PIXEL_DATA, Vr::OW, &vec![3; 8_000_000]);
    let deflated = convert(&pixels, &from, &TransferSyntax::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN).expect("native");
    assert!(deflated.len() < 100_000 && deflated.len().is_multiple_of(2));
    let syntax = TransferSyntax::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN;
    let mut converter = Converter::new(&syntax, &from, ConvertLimits::default()).expect("native");
    let (mut left, mut out, mut all, mut most) = (&deflated[..], Vec::new(), Vec::new(), 0);
    while !left.is_empty() {
        left = &left[converter.push(left, &mut out).expect("native")..];
        most = most.max(out.len());
        all.append(&mut out);
    }
    while converter.finish(&mut out).expect("native").is_none() {
        most = most.max(out.len());
        all.append(&mut out);
    }
    all.append(&mut out);
    assert_eq!(all, pixels);
    assert!(most <= OUT_ENOUGH + 64 * 1024, "{most}");
}

#[test]
fn padding_group_lengths_and_fragmentation_make_no_difference() {
    let syntax = TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN;
    let plain = [element(tags::PATIENT_ID, Vr::LO, b"A1"), element(tags::PIXEL_DATA, Vr::OB, &[1, 2, 3, 0])].concat();
    let padded = [
        element(Tag(0x0010_0000), Vr::UL, &[10, 0, 0, 0]),
        element(tags::PATIENT_ID, Vr::LO, b"A1  \0\0"),
        element(tags::PIXEL_DATA, Vr::OB, &[1, 2, 3]),
        b"\0".to_vec(),
        element(tags::DATA_SET_TRAILING_PADDING, Vr::OB, &[0; 64]),
    ]
    .concat();
    assert_eq!(canonical(&plain, &syntax), canonical(&padded, &syntax));
    let other = [element(tags::PATIENT_ID, Vr::LO, b"A 1"), element(tags::PIXEL_DATA, Vr::OB, &[1, 2, 3, 0])].concat();
    assert_ne!(canonical(&plain, &syntax), canonical(&other, &syntax));

    let jpeg = TransferSyntax::from_uid("1.2.840.10008.1.2.4.50");
    let fragments = |table: &[u8], parts: &[&[u8]]| {
        let mut out = b"\xE0\x7F\x10\x00OB\0\0\xFF\xFF\xFF\xFF".to_vec();
        out.extend(item(table));
        out.extend(parts.iter().flat_map(|part| item(part)));
        out.extend_from_slice(b"\xFE\xFF\xDD\xE0\0\0\0\0");
        out
    };
    let one = canonical(&fragments(&[], &[&[1, 2, 3, 4]]), &jpeg);
    assert_eq!(one, canonical(&fragments(&[0; 4], &[&[1, 2], &[3, 4]]), &jpeg));
    assert_ne!(one, canonical(&fragments(&[0; 4], &[&[1, 2], &[3, 5]]), &jpeg));
}

/// A private sequence keeps its VR in one encoding and is UN in another.
#[test]
fn a_private_sequence_is_one_whatever_it_is_called() {
    let from = TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN;
    let inside = item(&element(Tag::new(0x0029, 0x1002), Vr::SH, b"ab"));
    let named = element(Tag::new(0x0029, 0x1001), Vr::SQ, &inside);
    let implicit = convert(&named, &from, &TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN).expect("native");
    let unnamed = element(Tag::new(0x0029, 0x1001), Vr::UN, &item(b"\x29\x00\x02\x10\x02\0\0\0ab"));
    let expected = canonical(&named, &from);
    assert_eq!(canonical(&implicit, &TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN), expected);
    assert_eq!(canonical(&unnamed, &from), expected);
}

fn value_of(vr: Vr) -> BoxedStrategy<Vec<u8>> {
    match vr {
        _ if vr.is_text() => "[A-Za-z0-9.^ ]{0,40}"
            .prop_map(move |mut text| {
                if text.len() % 2 == 1 {
                    text.push(if vr == Vr::UI { '\0' } else { ' ' });
                }
                text.into_bytes()
            })
            .boxed(),
        Vr::SQ => Just(Vec::new()).boxed(),
        _ => {
            let unit = vr.unit_bytes().max(2);
            prop_oneof![9 => 0usize..20, 1 => 2000usize..3000]
                .prop_flat_map(move |n| prop::collection::vec(any::<u8>(), n * unit))
                .boxed()
        }
    }
}

/// Elements that any encoding can hold, in order.
fn data_set(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let public: Vec<(Tag, Vr)> = [
        "ImageType",
        "SOPInstanceUID",
        "StudyDate",
        "PatientName",
        "PatientComments",
        "SliceThickness",
        "Rows",
        "RedPaletteColorLookupTableData",
        "PixelData",
        "RecommendedDisplayFrameRate",
        "FrameIncrementPointer",
        "SelectorULValue",
        "SelectorFDValue",
        "SelectorSVValue",
        "FloatPixelData",
        "ReferencedImageSequence",
        "LongCodeValue",
        "URNCodeValue",
        "TotalBlockCount",
        "WaveformSequence",
    ]
    .iter()
    .filter_map(|keyword| {
        let tag = dictionary::tag_of(keyword)?;
        Some((tag, dictionary::vr_of(tag)?))
    })
    .chain([
        (Tag::new(0x0029, 0x0010), Vr::LO),
        (Tag::new(0x0029, 0x1001), Vr::SH),
        (Tag::new(0x0029, 0x1002), Vr::US),
        (Tag::new(0x0029, 0x1003), Vr::FD),
        (Tag::new(0x0029, 0x1004), Vr::UN),
        (Tag::new(0x0029, 0x1005), Vr::SQ),
        (Tag::new(0x0029, 0x1006), Vr::OB),
    ])
    .collect();
    prop::sample::subsequence(public.clone(), 0..=public.len())
        .prop_flat_map(move |mut chosen| {
            chosen.sort_unstable();
            let elements: Vec<_> = chosen
                .into_iter()
                .map(|(tag, vr)| match vr {
                    Vr::SQ if depth > 0 => prop::collection::vec(data_set(depth - 1), 0..3)
                        .prop_map(move |items| {
                            let items: Vec<u8> = items.iter().flat_map(|bytes| item(bytes)).collect();
                            element(tag, Vr::SQ, &items)
                        })
                        .boxed(),
                    _ => value_of(vr).prop_map(move |value| element(tag, vr, &value)).boxed(),
                })
                .collect();
            elements.prop_map(|elements| elements.concat())
        })
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn there_and_back_is_the_same_content(bytes in data_set(2)) {
        let from = TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN;
        let expected = canonical(&bytes, &from);
        for to in &NATIVE {
            let there = convert(&bytes, &from, to).expect("native");
            prop_assert_eq!(&canonical(&there, to), &expected, "to {:?}", to.name());
            for other in &NATIVE {
                let on = convert(&there, to, other).expect("native");
                prop_assert_eq!(&canonical(&on, other), &expected, "{:?} to {:?}", to.name(), other.name());
            }
        }
    }

    #[test]
    fn explicit_there_and_back_keeps_every_vr_and_value(bytes in data_set(2)) {
        let (little, big) = (TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN, TransferSyntax::EXPLICIT_VR_BIG_ENDIAN);
        let there = convert(&bytes, &little, &big).expect("native");
        let back = convert(&there, &big, &little).expect("native");
        prop_assert_eq!(back, convert(&bytes, &little, &little).expect("native"));
    }

    /// Noise converts or is refused; it never panics, and never grows beyond a few bytes an element.
    #[test]
    fn noise_is_converted_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), from in 0usize..4, to in 0usize..3) {
        if let Ok(out) = convert(&bytes, &NATIVE[from], &NATIVE[to]) {
            prop_assert!(from == 3 || out.len() <= 4 * bytes.len() + 16);
        }
        canonical_or_nothing(&bytes, &NATIVE[from]);
    }
}

fn canonical_or_nothing(bytes: &[u8], syntax: &TransferSyntax) {
    let mut normaliser = Normaliser::new(syntax, InflateLimits::default(), |_: &[u8]| ());
    if normaliser.push(bytes).is_ok() {
        let _ = normaliser.finish();
    }
}
