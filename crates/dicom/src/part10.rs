//! DICOM files (PS3.10 chapter 7, edition 2025c): reading what comes before the data set, leniently and as a stream,
//! and the one layout that the archive writes.

use crate::{
    dictionary,
    finding::{Finding, FindingKind, Findings},
    parse::{head, write},
    tag::Tag,
    tags,
    transfer_syntax::TransferSyntax,
    uid::Uid,
    vr::Vr,
};

/// Our Implementation Class UID, made from a UUID (PS3.5 section B.2). Part of the frozen layout: it never changes with
/// the version.
pub const IMPLEMENTATION_CLASS_UID: &str = "2.25.209229085013845558460887371063474443432";
/// Our Implementation Version Name. Part of the frozen layout: the digit is that of the layout.
pub const IMPLEMENTATION_VERSION_NAME: &str = "CAIRN_0";

const PREAMBLE: usize = 128;
/// Bytes of the data set that tell its encoding where File Meta does not.
const LOOK_AHEAD: usize = 12;

/// What we write about an instance in front of its data set.
#[derive(Clone, Copy, Debug)]
pub struct NewFileMeta<'a> {
    /// Media Storage SOP Class UID (0002,0002).
    pub sop_class_uid: &'a Uid,
    /// Media Storage SOP Instance UID (0002,0003).
    pub sop_instance_uid: &'a Uid,
    /// Transfer Syntax UID (0002,0010).
    pub transfer_syntax_uid: &'a str,
    /// Source Application Entity Title (0002,0016), at most 16 characters.
    pub source_ae_title: Option<&'a str>,
}

/// Preamble, prefix and File Meta Information in the frozen layout: equal arguments give equal bytes in every version,
/// because the digest of a stored object covers them.
pub fn write_file_meta(meta: &NewFileMeta<'_>) -> Vec<u8> {
    let mut group = Vec::with_capacity(256);
    let mut element = |tag: Tag, vr: Vr, value: &[u8], pad: u8| {
        let padded = value.len() + value.len() % 2;
        write::head(&mut group, tag, vr, padded as u32);
        group.extend_from_slice(value);
        group.resize(group.len() + padded - value.len(), pad);
    };
    element(tags::FILE_META_INFORMATION_VERSION, Vr::OB, &[0, 1], 0);
    element(tags::MEDIA_STORAGE_SOP_CLASS_UID, Vr::UI, meta.sop_class_uid.as_str().as_bytes(), 0);
    element(tags::MEDIA_STORAGE_SOP_INSTANCE_UID, Vr::UI, meta.sop_instance_uid.as_str().as_bytes(), 0);
    element(tags::TRANSFER_SYNTAX_UID, Vr::UI, meta.transfer_syntax_uid.as_bytes(), 0);
    element(tags::IMPLEMENTATION_CLASS_UID, Vr::UI, IMPLEMENTATION_CLASS_UID.as_bytes(), 0);
    element(tags::IMPLEMENTATION_VERSION_NAME, Vr::SH, IMPLEMENTATION_VERSION_NAME.as_bytes(), b' ');
    if let Some(title) = meta.source_ae_title.filter(|title| !title.is_empty()) {
        let end = title.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= 16).last();
        element(tags::SOURCE_APPLICATION_ENTITY_TITLE, Vr::AE, &title.as_bytes()[..end.unwrap_or(0)], b' ');
    }
    let mut out = vec![0; PREAMBLE];
    out.extend_from_slice(b"DICM");
    write::head(&mut out, tags::FILE_META_INFORMATION_GROUP_LENGTH, Vr::UL, 4);
    out.extend_from_slice(&(group.len() as u32).to_le_bytes());
    out.extend_from_slice(&group);
    out
}

/// File Meta Information as it was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileMeta {
    bytes: Vec<u8>,
    elements: Vec<(Tag, std::ops::Range<usize>)>,
}

impl FileMeta {
    /// The elements of group 0002 as received; empty where there are none.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The value of an element, as received.
    pub fn value(&self, tag: Tag) -> Option<&[u8]> {
        let (_, range) = self.elements.iter().find(|(known, _)| *known == tag)?;
        self.bytes.get(range.clone())
    }

    /// Media Storage SOP Class UID, if there is a usable one.
    pub fn sop_class_uid(&self) -> Option<Uid> {
        self.uid(tags::MEDIA_STORAGE_SOP_CLASS_UID)
    }

    /// Media Storage SOP Instance UID, if there is a usable one.
    pub fn sop_instance_uid(&self) -> Option<Uid> {
        self.uid(tags::MEDIA_STORAGE_SOP_INSTANCE_UID)
    }

    /// Transfer Syntax UID, if there is a usable one.
    pub fn transfer_syntax_uid(&self) -> Option<Uid> {
        self.uid(tags::TRANSFER_SYNTAX_UID)
    }

    /// Implementation Class UID of who wrote the file, if there is a usable one.
    pub fn implementation_class_uid(&self) -> Option<Uid> {
        self.uid(tags::IMPLEMENTATION_CLASS_UID)
    }

    /// Implementation Version Name of who wrote the file, without padding.
    pub fn implementation_version_name(&self) -> Option<&str> {
        let text = std::str::from_utf8(self.value(tags::IMPLEMENTATION_VERSION_NAME)?).ok()?;
        Some(text.trim_matches(['\0', ' '])).filter(|text| !text.is_empty())
    }

    fn uid(&self, tag: Tag) -> Option<Uid> {
        Uid::from_value(self.value(tag)?).ok()
    }
}

/// What comes before a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part10Start {
    /// File Meta Information.
    pub meta: FileMeta,
    /// Offset in the file at which the data set begins.
    pub data_set_offset: u64,
    /// Bytes of the data set that were already pushed.
    pub data_set: Vec<u8>,
    /// How the data set is encoded, as File Meta says or, where it says nothing, as the bytes look.
    pub transfer_syntax: TransferSyntax,
    /// What was tolerated.
    pub findings: Vec<Finding>,
}

/// Why bytes are no DICOM file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Part10Error {
    /// Neither a file nor a bare data set.
    #[error("not a DICOM file")]
    NotDicom,
    /// File Meta Information is longer than the bound given.
    #[error("file meta information is longer than {0} bytes")]
    MetaTooLarge(usize),
}

/// Reads the start of a file from pieces of it. Preamble, prefix, group length and all of File Meta may be missing.
#[derive(Debug)]
pub struct Part10Reader {
    bytes: Vec<u8>,
    meta_bytes_max: usize,
}

impl Default for Part10Reader {
    fn default() -> Self {
        Self::new(1 << 20)
    }
}

impl Part10Reader {
    /// A reader that takes up to this much File Meta Information. It holds no more than that and one piece.
    pub fn new(meta_bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), meta_bytes_max }
    }

    /// Takes the next bytes of the file; `Some` once the data set has been reached. The reader is used up then.
    ///
    /// # Errors
    /// See [`Part10Error`]. The reader is used up.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Part10Start>, Part10Error> {
        self.bytes.extend_from_slice(bytes);
        self.read(false)
    }

    /// The file is over before `push` gave a result.
    ///
    /// # Errors
    /// See [`Part10Error`].
    pub fn finish(mut self) -> Result<Part10Start, Part10Error> {
        self.read(true)?.ok_or(Part10Error::NotDicom)
    }

    fn read(&mut self, at_end: bool) -> Result<Option<Part10Start>, Part10Error> {
        if self.bytes.len() < PREAMBLE + 4 && !at_end {
            return Ok(None);
        }
        let mut findings = Findings::new(16);
        let start = match self.bytes.get(PREAMBLE..PREAMBLE + 4) {
            Some(b"DICM") => PREAMBLE + 4,
            _ => {
                findings.add(FindingKind::PreambleMissing, None);
                if self.bytes.starts_with(b"DICM") { 4 } else { 0 }
            }
        };
        let Some(group) = read_group(&self.bytes, start, at_end, &mut findings) else {
            return if self.bytes.len() - start.min(self.bytes.len()) > self.meta_bytes_max {
                Err(Part10Error::MetaTooLarge(self.meta_bytes_max))
            } else {
                Ok(None)
            };
        };
        if group.end - start > self.meta_bytes_max {
            return Err(Part10Error::MetaTooLarge(self.meta_bytes_max));
        }
        let meta =
            FileMeta { bytes: self.bytes.get(start..group.end).unwrap_or_default().to_vec(), elements: group.elements };
        let data_set = self.bytes.split_off(group.end.min(self.bytes.len()));
        let transfer_syntax = match meta.transfer_syntax_uid() {
            Some(uid) => TransferSyntax::from(&uid),
            None => {
                let kind = if meta.bytes.is_empty() {
                    FindingKind::FileMetaMissing
                } else {
                    FindingKind::TransferSyntaxMissing
                };
                findings.add(kind, None);
                // With File Meta it is a DICOM file, and the default syntax is the best that can be done.
                let default = (!meta.bytes.is_empty()).then_some(TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN);
                guess_syntax(&data_set).or(default).ok_or(Part10Error::NotDicom)?
            }
        };
        let (data_set_offset, findings) = (group.end as u64, findings.into_vec());
        Ok(Some(Part10Start { meta, data_set_offset, data_set, transfer_syntax, findings }))
    }
}

struct Group {
    elements: Vec<(Tag, std::ops::Range<usize>)>,
    end: usize,
}

/// Reads elements of group 0002 for as long as there are any; `None` if more bytes are needed.
fn read_group(bytes: &[u8], start: usize, at_end: bool, findings: &mut Findings) -> Option<Group> {
    let mut group = Group { elements: Vec::new(), end: start };
    let mut stated_end = None;
    loop {
        let rest = bytes.get(group.end..).unwrap_or_default();
        if rest.len() < LOOK_AHEAD && !at_end {
            return None;
        }
        let in_group = rest.starts_with(&[2, 0]) && rest.len() >= 8;
        // Where the stated length says so the group is over, unless more of it plainly follows: what comes next may be
        // deflated and look like anything.
        let plain = rest.get(4..6).is_some_and(|b| head::vr_of_letters(b[0], b[1]).is_some());
        if !in_group || (stated_end == Some(group.end) && !plain) {
            break;
        }
        let implicit = !plain;
        let form = head::Form { explicit: !implicit, big: false };
        let read = head::read(rest, form, u64::MAX, false).ok();
        let Some(head) = read.filter(|head| head.length != head::UNDEFINED) else {
            findings.add(FindingKind::FileMetaDamaged, None);
            break;
        };
        if implicit {
            findings.add(FindingKind::FileMetaDamaged, None);
        }
        let value = group.end + usize::from(head.size);
        let end = value.checked_add(head.length as usize)?;
        if bytes.len() < end {
            if !at_end {
                return None;
            }
            findings.add(FindingKind::FileMetaDamaged, None);
            break;
        }
        if head.tag == tags::FILE_META_INFORMATION_GROUP_LENGTH && head.length == 4 {
            let length = bytes.get(value..end).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_le_bytes(*b));
            stated_end = end.checked_add(length as usize);
        }
        group.elements.push((head.tag, value - start..end - start));
        group.end = end;
    }
    if !group.elements.is_empty() && stated_end != Some(group.end) {
        findings.add(FindingKind::FileMetaLengthWrong, None);
    }
    Some(group)
}

/// How a bare data set looks to be encoded; `None` if it looks like none.
pub fn guess_syntax(data_set: &[u8]) -> Option<TransferSyntax> {
    let b = data_set.first_chunk::<8>()?;
    let little = Tag::new(u16::from_le_bytes([b[0], b[1]]), u16::from_le_bytes([b[2], b[3]]));
    let big = Tag::new(u16::from_be_bytes([b[0], b[1]]), u16::from_be_bytes([b[2], b[3]]));
    let is_first = |tag: Tag| (0x0004..0x0040).contains(&tag.group());
    if head::vr_of_letters(b[4], b[5]).is_some() {
        return match (is_first(little), is_first(big)) {
            (true, _) => Some(TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN),
            (_, true) => Some(TransferSyntax::EXPLICIT_VR_BIG_ENDIAN),
            _ => None,
        };
    }
    let length = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
    let known = little.is_group_length() || dictionary::element(little).is_some();
    (is_first(little) && known && (length < 1 << 16 || length == head::UNDEFINED))
        .then_some(TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_meta(source: Option<&str>) -> Vec<u8> {
        let class = "1.2.840.10008.5.1.4.1.1.2".parse().expect("a UID");
        let instance = "1.2.3.4".parse().expect("a UID");
        write_file_meta(&NewFileMeta {
            sop_class_uid: &class,
            sop_instance_uid: &instance,
            transfer_syntax_uid: "1.2.840.10008.1.2.1",
            source_ae_title: source,
        })
    }

    /// Written down for years: if this fails, the code is wrong, not the bytes.
    #[test]
    fn the_layout_is_frozen() {
        let mut golden = vec![0u8; 128];
        golden.extend_from_slice(
            b"DICM\x02\x00\x00\x00UL\x04\x00\xa0\x00\x00\x00\
            \x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01\
            \x02\x00\x02\x00UI\x1a\x001.2.840.10008.5.1.4.1.1.2\x00\
            \x02\x00\x03\x00UI\x08\x001.2.3.4\x00\
            \x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\x00\
            \x02\x00\x12\x00UI\x2c\x002.25.209229085013845558460887371063474443432\
            \x02\x00\x13\x00SH\x08\x00CAIRN_0 ",
        );
        assert_eq!(new_meta(None), golden);
        golden[140] += 14;
        golden.extend_from_slice(b"\x02\x00\x16\x00AE\x06\x00CT_01 ");
        assert_eq!(new_meta(Some("CT_01")), golden);
    }

    fn read(bytes: &[u8], piece: usize) -> Result<Part10Start, Part10Error> {
        let mut reader = Part10Reader::new(1000);
        for (n, part) in bytes.chunks(piece).enumerate() {
            if let Some(mut start) = reader.push(part)? {
                start.data_set.extend_from_slice(bytes.get((n + 1) * piece..).unwrap_or_default());
                return Ok(start);
            }
        }
        reader.finish()
    }

    const ELEMENT: &[u8] = b"\x08\x00\x16\x00UI\x04\x001.2\0";

    #[test]
    fn what_we_write_reads_back_however_it_is_cut() {
        let mut file = new_meta(Some("CT_01"));
        let offset = file.len() as u64;
        file.extend_from_slice(ELEMENT);
        for piece in 1..file.len() + 1 {
            let start = read(&file, piece).expect("a file");
            assert_eq!((start.data_set_offset, &start.data_set[..]), (offset, ELEMENT));
            assert_eq!(start.transfer_syntax, TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN);
            assert_eq!(start.meta.as_bytes(), &file[132..offset as usize]);
            assert_eq!(start.meta.implementation_version_name(), Some(IMPLEMENTATION_VERSION_NAME));
            assert_eq!(start.meta.sop_instance_uid().map(|u| u.to_string()), Some("1.2.3.4".into()));
            assert_eq!(start.findings, []);
        }
    }

    #[test]
    fn files_without_one_part_or_another_are_read() {
        let file = [&new_meta(None), ELEMENT].concat();
        let kinds = |bytes: &[u8]| {
            let start = read(bytes, 50).expect("a file");
            assert_eq!(start.data_set, ELEMENT);
            start.findings.iter().map(|finding| finding.kind).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&file[128..]), [FindingKind::PreambleMissing]);
        assert_eq!(kinds(&file[132..]), [FindingKind::PreambleMissing]);
        assert_eq!(kinds(ELEMENT), [FindingKind::PreambleMissing, FindingKind::FileMetaMissing]);
        let without_length = [&file[..132], &file[144..]].concat();
        assert_eq!(kinds(&without_length), [FindingKind::FileMetaLengthWrong]);
        let mut wrong_length = file.clone();
        wrong_length[140] += 1;
        assert_eq!(kinds(&wrong_length), [FindingKind::FileMetaLengthWrong]);
    }

    #[test]
    fn other_files_and_endless_meta_are_refused() {
        assert_eq!(read(b"", 1), Err(Part10Error::NotDicom));
        assert_eq!(read(&[0xFF; 4000], 100), Err(Part10Error::NotDicom));
        assert_eq!(read(b"GIF89a and so on and so forth", 100), Err(Part10Error::NotDicom));
        let mut endless = vec![0; 128];
        endless.extend_from_slice(b"DICM\x02\x00\x01\x00OB\x00\x00\xF0\xFF\xFF\xFF");
        endless.resize(5000, 0);
        assert_eq!(read(&endless, 100), Err(Part10Error::MetaTooLarge(1000)));
        assert!(read(&endless, 10_000).is_err());
    }

    #[test]
    fn a_bare_data_set_shows_its_encoding() {
        assert_eq!(guess_syntax(ELEMENT), Some(TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN));
        assert_eq!(guess_syntax(b"\x00\x08\x00\x16UI\x00\x041.2\0"), Some(TransferSyntax::EXPLICIT_VR_BIG_ENDIAN));
        assert_eq!(guess_syntax(b"\x08\x00\x16\x00\x04\0\0\x001.2\0"), Some(TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN));
    }
}
