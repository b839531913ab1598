//! Data sets, files, texts and keys.

use crate::bytes_of::{pieces, split_at_choice};
use bytes::Bytes;
use cairn_dicom::{
    CharacterSet, HeaderWalker, Tag, TransferSyntax, Vr, WalkLimits,
    convert::convert as convert_whole,
    dataset::{DataSet, DecodeLimits},
    header::Header,
    inflate::InflateLimits,
    json,
    matching::{Key, Keys, MatchOptions},
    part10::Part10Reader,
    walk as walk_whole,
};

const IMPLICIT: TransferSyntax = TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN;
const LITTLE: TransferSyntax = TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN;
const BIG: TransferSyntax = TransferSyntax::EXPLICIT_VR_BIG_ENDIAN;
const DEFLATED: TransferSyntax = TransferSyntax::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN;

/// Of a syntax with compressed pixels.
fn syntax(choice: u8) -> TransferSyntax {
    match choice % 5 {
        0 => LITTLE,
        1 => IMPLICIT,
        2 => BIG,
        3 => DEFLATED,
        _ => TransferSyntax::from_uid("1.2.840.10008.1.2.4.50"),
    }
}

/// Small bounds are met by small inputs.
fn limits(choice: u8) -> WalkLimits {
    let inflate = InflateLimits { ..InflateLimits::default() };
    match choice % 2 {
        0 => WalkLimits { inflate, ..WalkLimits::default() },
        _ => WalkLimits {
            bulk_over_bytes: 16,
            text_over_bytes: 32,
            nesting_max: 3,
            header_bytes_max: 200,
            bulk_values_max: 4,
            fragments_max: 3,
            offset_table_bytes_max: 32,
            findings_max: 8,
            inflate,
        },
    }
}

/// A walk is the same in one piece and in many; its header is bounded by the data set and is valid JSON.
pub(crate) fn walk(data: &[u8]) {
    let Some(([of, with, split], data)) = split_at_choice(data) else { return };
    let (syntax, limits) = (syntax(of), limits(with));
    let whole = walk_whole(data, &syntax, limits.clone());
    let mut walker = HeaderWalker::new(&syntax, limits);
    let pushed = pieces(data, split).try_for_each(|piece| walker.push(piece));
    let by_pieces = pushed.and_then(|()| walker.finish());
    assert_eq!(whole.is_err(), by_pieces.is_err());
    let (Ok(whole), Ok(by_pieces)) = (whole, by_pieces) else { return };
    assert_eq!(whole, by_pieces, "wherever it is split");
    // Each element may gain at most the longer head of another encoding, and undefined lengths.
    assert!(whole.header.len() as u64 <= 2 * whole.inflated_length + 64, "no more than it was made of");
    let _identity = whole.identity();
    let mut out = Vec::new();
    let bulk = whole.bulk.iter().map(|entry| json::Bulk { path: &entry.path, vr: entry.vr });
    json::write_header(&mut out, Header::new(&whole.header), CharacterSet::DEFAULT, bulk, |_, uri| uri.push('u'));
    serde_json::from_slice::<serde_json::Value>(&out).expect("valid JSON");
    if let Some(frames) = whole.frames {
        for frame in (0..frames.frames()).take(64) {
            for range in frames.ranges(frame).into_iter().flatten() {
                assert!(range.start <= range.end && range.end <= data.len() as u64, "a frame is within the data set");
            }
        }
    }
}

/// The start of a file is the same in one piece and in many, and no byte of the data set is lost.
pub(crate) fn part10(data: &[u8]) {
    let Some(([split], data)) = split_at_choice(data) else { return };
    let mut whole = Part10Reader::new(4096);
    let whole = match whole.push(data) {
        Ok(Some(start)) => Ok(start),
        Ok(None) => whole.finish(),
        Err(error) => Err(error),
    };
    let mut reader = Part10Reader::new(4096);
    let mut taken = 0;
    let mut found = None;
    for piece in pieces(data, split) {
        taken += piece.len();
        if let Some(outcome) = reader.push(piece).transpose() {
            found = Some(outcome);
            break;
        }
    }
    let by_pieces = found.unwrap_or_else(|| reader.finish());
    match (whole, by_pieces) {
        (Ok(whole), Ok(by_pieces)) => {
            assert_eq!(whole.data_set_offset, by_pieces.data_set_offset);
            assert_eq!(whole.meta, by_pieces.meta);
            let offset = usize::try_from(whole.data_set_offset).unwrap();
            assert_eq!(whole.data_set, data[offset..], "all that follows");
            assert_eq!(by_pieces.data_set, data[offset..taken], "all that was pushed");
        }
        (Err(_), Err(_)) => {}
        (whole, by_pieces) => panic!("{whole:?} in one piece, {by_pieces:?} in many"),
    }
}

/// A data set in memory that can be written reads back as it was written.
pub(crate) fn data_set(data: &[u8]) {
    let Some(([of, _, to], data)) = split_at_choice(data) else { return };
    let from = syntax(of % 3).encoding;
    let limits = DecodeLimits::default();
    let decode = |bytes: &[u8], encoding| {
        DataSet::decode(&Bytes::copy_from_slice(bytes), encoding, CharacterSet::DEFAULT, &limits)
    };
    let Ok((first, _)) = decode(data, from) else { return };
    let mut out = Vec::new();
    json::write_data_set(&mut out, &first);
    serde_json::from_slice::<serde_json::Value>(&out).expect("valid JSON");
    let to = syntax(to % 3).encoding;
    let Ok(written) = first.encode(to, CharacterSet::DEFAULT) else { return };
    assert!(written.len() <= 3 * data.len() + 64, "no more than it was made of");
    let (second, report) = decode(&written, to).expect("what was written can be read");
    if !report.lossy.is_empty() {
        // Bytes of another VR, which Implicit VR has for text: what means nothing there can't be written again.
        return;
    }
    let again = second.encode(to, CharacterSet::DEFAULT).expect("and written again");
    assert_eq!(written, again, "stable");
}

/// Native forms convert back and forth to the same bytes.
pub(crate) fn convert(data: &[u8]) {
    let Some(([of, with, _], data)) = split_at_choice(data) else { return };
    let (from, to) = (syntax(of), syntax(with % 3));
    let Ok(first) = convert_whole(data, &from, &to) else { return };
    // What is read once is well-formed: there and back is no change. Fragments pass only where nothing changes.
    let Ok(canonical) = convert_whole(&first, &to, &LITTLE) else { return };
    // A first group such as 0500H is taken for 0005H in the other byte order: senders mistake it, data sets begin low.
    if !canonical.first_chunk().is_some_and(|[low, high]: &[u8; 2]| *low >= 8 && *high == 0) {
        return;
    }
    for other in [IMPLICIT, BIG] {
        let Ok(there) = convert_whole(&canonical, &LITTLE, &other) else { return };
        let again = convert_whole(&there, &other, &other).expect("to itself");
        assert_eq!(there, again, "to the same syntax nothing changes");
    }
    let big = convert_whole(&canonical, &LITTLE, &BIG).expect("converts");
    assert_eq!(convert_whole(&big, &BIG, &LITTLE).expect("back"), canonical, "LE to BE to LE");
}

/// Text that was read without loss, and that the set can carry, reads back as the same.
pub(crate) fn charset(data: &[u8]) {
    let Some(([length, vr], data)) = split_at_choice(data) else { return };
    let (name, text) = data.split_at(data.len().min(usize::from(length)));
    let vr = [Vr::PN, Vr::LO, Vr::SH, Vr::UC, Vr::LT, Vr::ST, Vr::UT][usize::from(vr % 7)];
    let (set, _) = CharacterSet::parse(name, CharacterSet::DEFAULT);
    let decoded = set.decode(vr, text);
    assert!(decoded.text.len() <= 8 * text.len() + 16, "no more than it was made of");
    let text = decoded.text.into_owned();
    if let Ok(encoded) = set.encode(vr, &text) {
        let back = set.decode(vr, &encoded);
        assert_eq!(back.text, text, "{set:?} {vr:?}");
    }
    let (again, _) = CharacterSet::parse(set.to_value().as_bytes(), CharacterSet::DEFAULT);
    assert_eq!(again.to_value(), set.to_value());
}

/// A key matches everything only if it is empty or nothing but wild cards; what cannot be used is refused.
pub(crate) fn matching(data: &[u8]) {
    let Some(([vr, flags], data)) = split_at_choice(data) else { return };
    let vr = Vr::ALL[usize::from(vr) % Vr::ALL.len()];
    let options = MatchOptions {
        fuzzy_person_names: flags & 1 != 0,
        combined_date_time: flags & 2 != 0,
        time_zone_adjustment: flags & 4 != 0,
        empty_value: flags & 8 != 0,
        multiple_values: flags & 16 != 0,
        assumed_offset: None,
    };
    let text = String::from_utf8_lossy(data);
    let nothing = |text: &str| text.chars().all(|c| matches!(c, ' ' | '\0' | '*' | '\\' | ',' | '^' | '=' | '"'));
    if vr != Vr::SQ
        && let Ok(key) = Key::of_text(Tag::new(0x0009, 0x1001), vr, &text, &options)
    {
        assert!(!key.is_universal() || nothing(&text), "{text:?} of {vr:?} matches everything");
        let _ = (key.matches_texts(&[text.as_ref(), "", "19990101-", "DOE^JOHN"]), key.folded_prefix());
        for trigram in key.required_trigrams() {
            assert!(trigram.chars().count() == 3, "{trigram:?}");
        }
    }
    let limits = DecodeLimits::default();
    let identifier = Bytes::copy_from_slice(data);
    let Ok((set, _)) = DataSet::decode(&identifier, LITTLE.encoding, CharacterSet::DEFAULT, &limits) else { return };
    if let Ok(keys) = Keys::parse(&set, &options) {
        let _ = keys.matches(&set);
    }
    let _ = cairn_archive::plan::plan(&set, &options);
}
