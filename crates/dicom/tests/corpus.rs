//! Every file of the developer data set is walked, where that is present.

mod common;

use cairn_dicom::{
    FrameTable, InflateLimits, TransferSyntax, WalkLimits, Walked, convert::convert, header::Header,
    part10::Part10Reader, part10::Part10Start, tags, walk,
};
use common::{Row, data_directory};

fn start(bytes: &[u8]) -> Option<Part10Start> {
    let mut reader = Part10Reader::default();
    match reader.push(bytes) {
        Ok(Some(start)) => Some(start),
        Ok(None) => reader.finish().ok(),
        Err(_) => None,
    }
}

fn assert_readable(header: Header<'_>) {
    let mut elements = header.elements();
    for element in elements.by_ref() {
        for item in element.items() {
            assert_readable(item);
        }
    }
    assert!(elements.is_at_end());
}

fn check(row: &Row, start: &Part10Start, walked: &Walked) {
    let file = &row.file;
    assert_readable(walked.header());
    let uid =
        |tag| walked.header().text(tag).map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default();
    // Pixel Data without its end: the table's reader gave up, the walker has what was before it.
    if file.ends_with("emri_small_jpeg_2k_lossless_too_short.dcm") {
        assert!(walked.identity().is_ok() && walked.frames.as_ref().is_some_and(|frames| frames.frames() == 10));
        return;
    }
    assert_eq!(uid(tags::STUDY_INSTANCE_UID), row.study_uid, "{file}");
    assert_eq!(uid(tags::SERIES_INSTANCE_UID), row.series_uid, "{file}");
    assert_eq!(uid(tags::SOP_INSTANCE_UID), row.sop_instance_uid, "{file}");
    if !row.transfer_syntax_uid.is_empty() {
        assert_eq!(start.transfer_syntax.uid(), row.transfer_syntax_uid, "{file}");
    }
    for (tag, expected) in [(tags::ROWS, &row.rows), (tags::COLUMNS, &row.columns)] {
        let number = walked.header().u16(tag).map(|n| n.to_string()).unwrap_or_default();
        assert_eq!(&number, expected, "{file} {tag:?}");
    }
    assert_eq!(walked.length, start.data_set.len() as u64, "{file}");
    if let Some(FrameTable::Fragmented(frames)) = &walked.frames {
        let mut end = 0;
        for range in frames.ranges() {
            assert!(range.start >= end && range.end <= walked.length, "{file}");
            end = range.end;
        }
    }
}

#[test]
fn every_file_is_walked_and_its_uids_are_those_of_the_manifest() {
    let Some(directory) = data_directory() else { return };
    let (mut files, mut identified, mut framed) = (0, 0, 0);
    for row in Row::all(&directory) {
        let bytes = std::fs::read(directory.join(&row.file)).expect("a file of the manifest");
        files += 1;
        let Some(start) = start(&bytes) else {
            assert!(row.sop_class_uid.is_empty(), "{} is a DICOM file", row.file);
            continue;
        };
        let walked = walk(&start.data_set, &start.transfer_syntax, WalkLimits::default()).expect("within limits");
        check(&row, &start, &walked);
        identified += u32::from(walked.identity().is_ok());
        framed += u32::from(walked.frames.is_some_and(|frames| !matches!(frames, FrameTable::Derived { .. })));
    }
    println!("{files} files walked, {identified} identified, {framed} with a frame table");
    assert!(identified >= 500 && framed >= 414);
}

#[test]
fn how_a_file_is_cut_changes_nothing() {
    let Some(directory) = data_directory() else { return };
    for row in Row::all(&directory).into_iter().step_by(7) {
        let bytes = std::fs::read(directory.join(&row.file)).expect("a file of the manifest");
        let Some(start) = start(&bytes) else { continue };
        let whole = walk(&start.data_set, &start.transfer_syntax, WalkLimits::default()).expect("within limits");
        for piece in [1, 3, 17, 1000, 4096] {
            let cut = walk_in_pieces(&start.data_set, &start.transfer_syntax, piece);
            assert_eq!(cut, whole, "{} in pieces of {piece}", row.file);
        }
    }
}

fn walk_in_pieces(bytes: &[u8], syntax: &TransferSyntax, piece: usize) -> Walked {
    let mut walker = cairn_dicom::HeaderWalker::new(syntax, WalkLimits::default());
    for part in bytes.chunks(piece) {
        walker.push(part).expect("within limits");
    }
    walker.finish().expect("within limits")
}

fn canonical(bytes: &[u8], syntax: &TransferSyntax) -> Vec<u8> {
    let mut out = Vec::new();
    let mut normaliser =
        cairn_dicom::Normaliser::new(syntax, InflateLimits::default(), |piece: &[u8]| out.extend_from_slice(piece));
    normaliser.push(bytes).expect("within limits");
    normaliser.finish().expect("within limits");
    out
}

#[test]
fn native_files_convert_to_every_native_syntax_and_stay_the_same() {
    let Some(directory) = data_directory() else { return };
    let mut converted = 0;
    for row in Row::all(&directory) {
        let bytes = std::fs::read(directory.join(&row.file)).expect("a file of the manifest");
        let Some(start) = start(&bytes).filter(|start| start.transfer_syntax.is_native()) else { continue };
        let expected = canonical(&start.data_set, &start.transfer_syntax);
        for to in TransferSyntax::all().iter().filter(|syntax| syntax.is_native()) {
            let there = convert(&start.data_set, &start.transfer_syntax, to).expect("native");
            assert!(canonical(&there, to) == expected, "{} to {:?}", row.file, to.name());
            let walked = walk(&there, to, WalkLimits::default()).expect("within limits");
            assert_eq!(
                walked.header().get(tags::SOP_INSTANCE_UID).map(|e| e.text().to_vec()).unwrap_or_default(),
                row.sop_instance_uid.as_bytes(),
                "{}",
                row.file
            );
        }
        converted += 1;
    }
    println!("{converted} files converted to each native syntax");
    assert!(converted > 300);
}
