use bytes::Bytes;
use cairn_dicom::{
    Uid,
    part10::Part10Reader,
    tags,
    walk::{HeaderWalker, WalkLimits},
};

/// Bytes of an instance's start that are looked at for who it is.
const KEPT_BYTES: usize = 64 * 1024;

/// Keeps the start of an instance while it passes, so that a refusal can name it. Chunks are shared, not copied.
#[derive(Default)]
pub(super) struct Sniffer {
    kept: Vec<Bytes>,
    bytes: usize,
}

impl Sniffer {
    pub(super) fn keep(&mut self, chunk: &Bytes) {
        if self.bytes < KEPT_BYTES && !chunk.is_empty() {
            let part = chunk.slice(..chunk.len().min(KEPT_BYTES - self.bytes));
            self.bytes += part.len();
            self.kept.push(part);
        }
    }

    /// SOP Class and SOP Instance UID: those of the data set, else those of File Meta Information.
    pub(super) fn identity(self) -> Option<(Uid, Uid)> {
        let mut file = Part10Reader::new(KEPT_BYTES);
        let mut chunks = self.kept.iter();
        let start = loop {
            match chunks.next() {
                Some(chunk) => {
                    if let Some(start) = file.push(chunk).ok()? {
                        break start;
                    }
                }
                None => break file.finish().ok()?,
            }
        };
        let from_meta = start.meta.sop_class_uid().zip(start.meta.sop_instance_uid());
        let mut walker = HeaderWalker::new(&start.transfer_syntax, WalkLimits::default());
        walker.push(&start.data_set).ok()?;
        for chunk in chunks {
            walker.push(chunk).ok()?;
        }
        let uid = |tag| walker.value(tag).and_then(|value| Uid::from_value(value).ok());
        uid(tags::SOP_CLASS_UID).zip(uid(tags::SOP_INSTANCE_UID)).or(from_meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_dicom::part10::{NewFileMeta, write_file_meta};

    fn meta() -> Vec<u8> {
        write_file_meta(&NewFileMeta {
            sop_class_uid: &"1.2.840.10008.5.1.4.1.1.2".parse().expect("a UID"),
            sop_instance_uid: &"1.2.3".parse().expect("a UID"),
            transfer_syntax_uid: "1.2.840.10008.1.2.1",
            source_ae_title: None,
        })
    }

    fn identity(file: &[u8], size: usize) -> Option<String> {
        let mut sniffer = Sniffer::default();
        file.chunks(size).for_each(|chunk| sniffer.keep(&Bytes::copy_from_slice(chunk)));
        sniffer.identity().map(|(_, instance)| instance.to_string())
    }

    #[test]
    fn the_data_set_says_who_it_is_else_file_meta() {
        let data_set = b"\x08\x00\x16\x00UI\x04\x001.2\0\x08\x00\x18\x00UI\x04\x001.9\0";
        let file = [meta(), data_set.to_vec()].concat();
        for size in [1, 7, 100, file.len()] {
            assert_eq!(identity(&file, size).as_deref(), Some("1.9"), "chunks of {size}");
        }
        let file = [meta(), b"\x10\x00\x10\x00PN\x02\x00A ".to_vec()].concat();
        assert_eq!(identity(&file, 50).as_deref(), Some("1.2.3"));
        assert_eq!(identity(b"not a DICOM file, but some text of some length that goes on", 9), None);
        assert_eq!(identity(b"", 1), None);
    }
}
