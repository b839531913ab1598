use super::*;
use crate::{
    TransferSyntax, finding::FindingKind as F, parse::write, vr::Vr, walk::WalkLimits, walk::Walked, walk::walk,
};

fn element(tag: Tag, vr: Vr, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write::head(&mut out, tag, vr, value.len() as u32);
    out.extend_from_slice(value);
    out
}

fn image(rows: u16, columns: u16, bits: u16, frames: u32, photometric: &str, samples: u16) -> Vec<u8> {
    let mut text = frames.to_string();
    text.extend(" ".chars().take(text.len() % 2));
    [
        element(tags::SAMPLES_PER_PIXEL, Vr::US, &samples.to_le_bytes()),
        element(tags::PHOTOMETRIC_INTERPRETATION, Vr::CS, photometric.as_bytes()),
        element(tags::NUMBER_OF_FRAMES, Vr::IS, text.as_bytes()),
        element(tags::ROWS, Vr::US, &rows.to_le_bytes()),
        element(tags::COLUMNS, Vr::US, &columns.to_le_bytes()),
        element(tags::BITS_ALLOCATED, Vr::US, &bits.to_le_bytes()),
    ]
    .concat()
}

fn native(header: Vec<u8>, bytes: usize) -> (FrameTable, Vec<FindingKind>) {
    let offset = header.len() as u64 + 12;
    let walked = explicit(&[header, element(tags::PIXEL_DATA, Vr::OW, &vec![0; bytes])].concat());
    assert_eq!(walked.pixel_data.map(|data| (data.offset, data.length)), Some((offset, bytes as u64)));
    (walked.frames.expect("Pixel Data"), walked.findings.iter().map(|f| f.kind).collect())
}

fn explicit(bytes: &[u8]) -> Walked {
    walk(bytes, &TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN, WalkLimits::default()).expect("within limits")
}

#[test]
fn native_frames_come_from_the_image_size() {
    let (table, findings) = native(image(3, 5, 16, 4, "MONOCHROME2 ", 1), 120);
    assert_eq!((table.frames(), findings), (4, vec![]));
    assert!(matches!(table, FrameTable::Native { frame_length: 30, frames: 4, .. }));
    let first = table.ranges(0).expect("a frame")[0].clone();
    assert_eq!(table.ranges(3).expect("a frame")[0], first.start + 90..first.end + 90);
    assert_eq!(table.ranges(4), None);

    let (table, findings) = native(image(3, 5, 8, 3, "MONOCHROME2 ", 1), 46);
    assert_eq!((table.frames(), findings), (3, vec![]), "a pad byte is no surplus");
    let (table, findings) = native(image(3, 5, 16, 4, "MONOCHROME2 ", 1), 100);
    assert_eq!((table.frames(), findings), (3, vec![F::PixelDataTooShort]), "frames that are wholly there");
    let (table, findings) = native(image(3, 5, 16, 4, "MONOCHROME2 ", 1), 140);
    assert_eq!((table.frames(), findings), (4, vec![F::PixelDataTooLong]));
    let (table, findings) = native(image(0, 5, 16, 4, "MONOCHROME2 ", 1), 140);
    assert_eq!((table, findings), (FrameTable::Derived { frames: 4 }, vec![F::ImageSizeMissing]));
    let (table, _) = native(image(u16::MAX, u16::MAX, 0xFFF8, u32::MAX, "RGB ", u16::MAX), 140);
    assert_eq!(table.frames(), 0);
}

#[test]
fn one_bit_frames_that_begin_within_a_byte_are_derived() {
    let derived = FrameTable::Derived { frames: 3 };
    assert_eq!(native(image(3, 5, 1, 3, "MONOCHROME2 ", 1), 6), (derived, vec![]));
    let (table, findings) = native(image(4, 6, 1, 3, "MONOCHROME2 ", 1), 10);
    assert!(matches!(table, FrameTable::Native { frame_length: 3, frames: 3, .. }));
    assert_eq!(findings, []);
    let (table, _) = native(image(3, 5, 1, 1, "MONOCHROME2 ", 1), 2);
    assert!(matches!(table, FrameTable::Native { frame_length: 2, frames: 1, .. }), "a lone frame begins with a byte");
}

#[test]
fn native_chrominance_may_be_sub_sampled_or_not() {
    let (table, findings) = native(image(2, 4, 8, 2, "YBR_FULL_422", 3), 32);
    assert!(matches!(table, FrameTable::Native { frame_length: 16, .. }));
    assert_eq!(findings, []);
    let (table, findings) = native(image(2, 4, 8, 2, "YBR_FULL_422", 3), 48);
    assert!(matches!(table, FrameTable::Native { frame_length: 24, .. }));
    assert_eq!(findings, []);
}

const JPEG: &str = "1.2.840.10008.1.2.4.50";

/// A codestream's bytes from its beginning to its end, cut into this many pieces.
fn stream(pieces: usize) -> Vec<Vec<u8>> {
    let bytes = [&[0xFF, 0xD8, 0xFF, 0xE0][..], &[1; 20], &[0xFF, 0xD9]].concat();
    bytes.chunks(26usize.div_ceil(pieces)).map(<[u8]>::to_vec).collect()
}

fn fragment(bytes: &[u8]) -> Vec<u8> {
    let mut out = b"\xFE\xFF\x00\xE0".to_vec();
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
    out
}

fn encapsulated(uid: &str, frames: u32, before: &[u8], table: &[u32], fragments: &[Vec<u8>]) -> (Walked, Vec<u8>) {
    let table: Vec<u8> = table.iter().flat_map(|offset| offset.to_le_bytes()).collect();
    let mut bytes = image(2, 4, 8, frames, "MONOCHROME2 ", 1);
    bytes.extend_from_slice(before);
    bytes.extend_from_slice(b"\xE0\x7F\x10\x00OB\0\0\xFF\xFF\xFF\xFF");
    bytes.extend(fragment(&table));
    bytes.extend(fragments.iter().flat_map(|bytes| fragment(bytes)));
    bytes.extend_from_slice(b"\xFE\xFF\xDD\xE0\0\0\0\0");
    let walked = walk(&bytes, &TransferSyntax::from_uid(uid), WalkLimits::default()).expect("within limits");
    (walked, bytes)
}

fn frame(walked: &Walked, bytes: &[u8], index: u32) -> Option<Vec<u8>> {
    let ranges = walked.frames.as_ref()?.ranges(index)?;
    Some(ranges.into_iter().flat_map(|range| bytes[range.start as usize..range.end as usize].to_vec()).collect())
}

fn all_frames(walked: &Walked, bytes: &[u8]) -> Vec<Vec<u8>> {
    (0..walked.frames.as_ref().map_or(0, FrameTable::frames)).filter_map(|n| frame(walked, bytes, n)).collect()
}

fn kinds(walked: &Walked) -> Vec<FindingKind> {
    walked.findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn a_true_basic_table_is_used_and_a_lying_one_ignored() {
    let fragments = [stream(2), stream(1), stream(3)].concat();
    // Items of 8 + 13, 8 + 13 | 8 + 26 | 8 + 9, 8 + 9, 8 + 8.
    let frames = vec![stream(1).concat(); 3];
    for (table, findings) in [
        (&[0, 42, 76][..], &[][..]),
        (&[], &[]),
        (&[0, 21, 76], &[F::BasicOffsetTableInvalid]),
        (&[0, 42, 77], &[F::BasicOffsetTableInvalid]),
        (&[0, 42], &[F::BasicOffsetTableInvalid]),
        (&[42, 0, 76], &[F::BasicOffsetTableInvalid]),
        (&[0, 42, u32::MAX], &[F::BasicOffsetTableInvalid]),
    ] {
        let (walked, bytes) = encapsulated(JPEG, 3, b"", table, &fragments);
        let kinds: Vec<_> = kinds(&walked).into_iter().filter(|kind| *kind != F::OddLength).collect();
        assert_eq!(kinds, findings, "{table:?}");
        assert_eq!(all_frames(&walked, &bytes), frames, "{table:?}");
    }
}

#[test]
fn an_extended_table_gives_lengths_without_padding() {
    let padded = [stream(1).concat(), vec![0, 0]].concat();
    let table = |offsets: [u64; 2], lengths: [u64; 2]| {
        let bytes = |numbers: [u64; 2]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>();
        [
            element(tags::EXTENDED_OFFSET_TABLE, Vr::OV, &bytes(offsets)),
            element(tags::EXTENDED_OFFSET_TABLE_LENGTHS, Vr::OV, &bytes(lengths)),
        ]
        .concat()
    };
    let fragments = [padded.clone(), padded];
    let (walked, bytes) = encapsulated(JPEG, 2, &table([0, 36], [27, 28]), &[], &fragments);
    assert_eq!(all_frames(&walked, &bytes).iter().map(Vec::len).collect::<Vec<_>>(), [27, 28]);
    assert_eq!(kinds(&walked), []);
    for (offsets, lengths) in [([0, 35], [27, 27]), ([0, 36], [27, 29]), ([0, 36], [27, 1]), ([36, 0], [27, 27])] {
        let (walked, bytes) = encapsulated(JPEG, 2, &table(offsets, lengths), &[], &fragments);
        assert_eq!(kinds(&walked), [F::ExtendedOffsetTableInvalid]);
        assert_eq!(all_frames(&walked, &bytes).len(), 2, "one fragment a frame");
    }
}

#[test]
fn without_tables_fragments_or_marks_tell() {
    let (walked, bytes) = encapsulated(JPEG, 1, b"", &[], &stream(5));
    assert_eq!(all_frames(&walked, &bytes), [stream(1).concat()], "one frame, all fragments");
    // The second fragment of the first frame happens to begin as a stream does.
    let unlucky = [vec![0xFF, 0xD8, 0xFF, 0xE0, 1, 1], vec![0xFF, 0xD8, 0xFF, 0xD9], stream(1).concat()];
    let (walked, bytes) = encapsulated(JPEG, 2, b"", &[], &unlucky);
    assert_eq!(all_frames(&walked, &bytes), [unlucky[..2].concat(), unlucky[2].clone()]);
    let (walked, _) = encapsulated(JPEG, 4, b"", &[], &[stream(1), stream(2)].concat());
    assert_eq!(walked.frames, Some(FrameTable::Derived { frames: 4 }));
    assert!(kinds(&walked).contains(&F::FramesNotSeparable));
    let (walked, _) = encapsulated("1.2.840.10008.1.2.4.102", 40, b"", &[], &[vec![0; 50]]);
    assert_eq!((walked.frames.clone(), kinds(&walked).len()), (Some(FrameTable::Derived { frames: 40 }), 0), "video");
    let rle = [&[1, 0, 0, 0, 64, 0, 0, 0][..], &[0; 80]].concat();
    let (walked, bytes) = encapsulated("1.2.840.10008.1.2.5", 2, b"", &[], &[rle.clone(), vec![9; 10], rle.clone()]);
    assert_eq!(all_frames(&walked, &bytes), [[&rle[..], &[9; 10]].concat(), rle]);
}

#[test]
fn fragments_beyond_the_limit_make_frames_derived() {
    let limits = WalkLimits { fragments_max: 3, ..WalkLimits::default() };
    let (_, bytes) = encapsulated(JPEG, 5, b"", &[], &vec![stream(1).concat(); 5]);
    let walked = walk(&bytes, &TransferSyntax::from_uid(JPEG), limits).expect("within limits");
    assert_eq!(
        (walked.frames.clone(), kinds(&walked)),
        (Some(FrameTable::Derived { frames: 5 }), vec![F::TooManyFragments])
    );
}

#[test]
fn a_table_survives_being_written_as_ranges() {
    let fragments = [stream(2), stream(1), stream(3)].concat();
    let (walked, _) = encapsulated(JPEG, 3, b"", &[], &fragments);
    let Some(FrameTable::Fragmented(frames)) = walked.frames else { panic!("fragmented") };
    assert_eq!(frames.ends().collect::<Vec<_>>(), [2, 3, 6]);
    assert_eq!(FragmentedFrames::new(frames.ranges(), frames.ends()), Some(frames.clone()));
    assert_eq!(FragmentedFrames::new(frames.ranges(), [2, 3]), None, "a range without a frame");
    assert_eq!(FragmentedFrames::new(frames.ranges(), [3, 2, 6]), None);
    assert_eq!(FragmentedFrames::new([5..6, 4..5], [1, 2]), None, "not ascending");
}
