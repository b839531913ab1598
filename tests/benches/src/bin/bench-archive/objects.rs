//! The instances that are sent, encoded once; only the last digits of the SOP Instance UID differ between two.

use crate::{
    Outcome,
    dimse::{Command, EXPLICIT, element, frame, pdv_head},
};
use cairn_benches::{
    corpus::{Headers, SOP_CLASS, mixed},
    noise,
};
use cairn_dicom::{
    CharacterSet, Tag, Vr,
    dataset::{DataSet, Value},
    part10::{NewFileMeta, write_file_meta},
    tags,
    transfer_syntax::Encoding,
};

/// Digits that stand for an instance's number until it is patched.
const PLACE: &str = "9999999999";
const DIGITS: usize = PLACE.len();

/// An instance whose number is still open.
#[derive(Clone)]
pub struct Template {
    /// The data set, with pixels.
    pub data_set: Vec<u8>,
    pub study: String,
    pub series: String,
    /// Where the number stands in the data set.
    at: usize,
}

/// Writes an instance's number at each of these places.
pub fn number(bytes: &mut [u8], places: &[usize], instance: u64) {
    let digits = format!("{}", 1_000_000_000 + instance);
    for place in places {
        bytes[*place..*place + DIGITS].copy_from_slice(digits.as_bytes());
    }
}

fn place(bytes: &[u8], uid: &str) -> Outcome<usize> {
    let found = bytes.windows(uid.len()).position(|window| window == uid.as_bytes());
    Ok(found.ok_or("no SOP Instance UID")? + uid.len() - DIGITS)
}

impl Template {
    /// Made from a data set; study, series and instance get UIDs under this number.
    pub fn new(mut set: DataSet, study: u64) -> Outcome<Self> {
        // Of even length: padding would move with the number.
        let root = format!("1.2.826.0.1.3680043.10.1199.7.{}", 10_000_000 + study);
        let series = format!("{root}.1");
        set.put_text(tags::STUDY_INSTANCE_UID, &root);
        set.put_text(tags::SERIES_INSTANCE_UID, &series);
        set.put_text(tags::SOP_INSTANCE_UID, &format!("{series}.{PLACE}"));
        let data_set = set.encode(Encoding::ExplicitLittle, CharacterSet::DEFAULT)?;
        let at = place(&data_set, &format!("{series}.{PLACE}"))?;
        Ok(Self { data_set, study: root, series, at })
    }

    /// A CT slice of 526 kB: 512 x 512 x 16 bits of noise under a scanner's header.
    pub fn ct(study: u64) -> Outcome<Self> {
        Self::new(picture(study, 512, noise(512 * 512 * 2)), study)
    }

    /// An instance of 2 kB.
    pub fn small(study: u64) -> Outcome<Self> {
        Self::new(Headers::of_length(1_800).data_set(study, 1), study)
    }

    pub fn sop_instance(&self, instance: u64) -> String {
        format!("{}.{}", self.series, 1_000_000_000 + instance)
    }

    /// The data set of one instance.
    pub fn instance(&self, instance: u64) -> Vec<u8> {
        let mut bytes = self.data_set.clone();
        number(&mut bytes, &[self.at], instance);
        bytes
    }

    /// Whether these bytes are the data set of that instance.
    pub fn is(&self, bytes: &[u8], instance: u64) -> bool {
        bytes.len() == self.data_set.len() && self.instance(instance) == bytes
    }

    /// File Meta Information, its number still open.
    pub fn file_meta(&self) -> Outcome<Vec<u8>> {
        Ok(write_file_meta(&NewFileMeta {
            sop_class_uid: &SOP_CLASS.parse()?,
            sop_instance_uid: &format!("{}.{PLACE}", self.series).parse()?,
            transfer_syntax_uid: EXPLICIT,
            source_ae_title: None,
        }))
    }

    /// The C-STORE request.
    fn command(&self) -> Vec<u8> {
        let command = Command::default()
            .put(element::SOP_CLASS, SOP_CLASS.as_bytes())
            .number(element::FIELD, 1)
            .number(element::MESSAGE_ID, 1)
            .number(element::PRIORITY, 0)
            .number(element::DATA_SET, 0)
            .put(element::SOP_INSTANCE, format!("{}.{PLACE}", self.series).as_bytes());
        command.encode()
    }

    /// The whole C-STORE message on context 1 and the places of its number.
    pub fn framed(&self, maximum: usize) -> Outcome<(Vec<u8>, Vec<usize>)> {
        let mut out = Vec::with_capacity(self.data_set.len() + 4_096);
        frame(&mut out, 1, true, &self.command(), maximum);
        let uid = format!("{}.{PLACE}", self.series);
        let mut places = vec![place(&out, &uid)?];
        let begin = out.len();
        frame(&mut out, 1, false, &self.data_set, maximum);
        places.push(begin + place(&out[begin..], &uid)?);
        Ok((out, places))
    }

    /// The file as a part of a STOW-RS body, with the boundary before it, and the places of its number.
    pub fn part(&self, boundary: &str) -> Outcome<(Vec<u8>, Vec<usize>)> {
        let mut out = format!("\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n").into_bytes();
        let uid = format!("{}.{PLACE}", self.series);
        let mut places = Vec::new();
        for bytes in [self.file_meta()?, self.data_set.clone()] {
            places.push(out.len() + place(&bytes, &uid)?);
            out.extend_from_slice(&bytes);
        }
        Ok((out, places))
    }
}

/// A large multi-frame instance that is never whole in memory: a head, and pixels that repeat a block of noise.
pub struct MultiFrame {
    /// The data set up to its pixels.
    head: Template,
    pub pixels: usize,
}

impl MultiFrame {
    /// So many frames of 512 x 512 x 16 bits.
    pub fn new(study: u64, frames: usize) -> Outcome<Self> {
        let pixels = frames * 512 * 512 * 2;
        let mut set = picture(study, 512, Default::default());
        set.remove(tags::PIXEL_DATA);
        set.put_text(tags::NUMBER_OF_FRAMES, &frames.to_string());
        let mut head = Template::new(set, study)?;
        head.data_set.extend_from_slice(&[0xE0, 0x7F, 0x10, 0x00, b'O', b'W', 0, 0]);
        head.data_set.extend_from_slice(&u32::try_from(pixels)?.to_le_bytes());
        Ok(Self { head, pixels })
    }

    pub fn template(&self) -> &Template {
        &self.head
    }

    pub fn length(&self) -> usize {
        self.head.data_set.len() + self.pixels
    }

    /// Writes the C-STORE message of one instance on context 1.
    pub fn send(&self, instance: u64, maximum: usize, mut write: impl FnMut(&[u8]) -> Outcome<()>) -> Outcome<()> {
        let room = maximum - 6;
        let mut command = self.head.command();
        let at = place(&command, &format!("{}.{PLACE}", self.head.series))?;
        number(&mut command, &[at], instance);
        let mut out = Vec::new();
        frame(&mut out, 1, true, &command, maximum);
        let first = self.head.data_set.len();
        pdv_head(&mut out, 1, 0, first);
        out.extend_from_slice(&self.head.instance(instance));
        write(&out)?;
        // The same full P-DATA-TFs again and again, in writes of about a megabyte.
        let full = noise(room);
        let each = (1 << 20) / maximum + 1;
        let mut block = Vec::new();
        for _ in 0..each {
            pdv_head(&mut block, 1, 0, room);
            block.extend_from_slice(&full);
        }
        let mut left = self.pixels;
        while left > room {
            let count = each.min((left - 1) / room);
            write(&block[..count * (maximum + 6)])?;
            left -= count * room;
        }
        let mut last = Vec::new();
        pdv_head(&mut last, 1, 2, left);
        last.extend_from_slice(&full[..left]);
        write(&last)
    }

    /// The head of its STOW-RS part, all before the pixels.
    pub fn part_head(&self, boundary: &str, instance: u64) -> Outcome<Vec<u8>> {
        let (mut head, places) = self.head.part(boundary)?;
        number(&mut head, &places, instance);
        Ok(head)
    }
}

/// A CT slice's data set: 250 elements, among them sequences and private ones.
fn picture(study: u64, side: u16, pixels: bytes::Bytes) -> DataSet {
    let mut set = Headers::with(scanner()).data_set(study, 1);
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::ROWS, side.into()),
        (tags::COLUMNS, side.into()),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, 16),
        (tags::HIGH_BIT, 15),
        (tags::PIXEL_REPRESENTATION, 0),
    ] {
        set.put(tag, Vr::US, Value::Unsigned(vec![value]));
    }
    set.put_text(tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2");
    set.put(tags::PIXEL_DATA, Vr::OW, Value::Bytes(pixels));
    set
}

/// What a scanner writes beside what queries name: about 225 elements.
pub fn scanner() -> DataSet {
    let mut set = DataSet::new();
    set.put_text(tags::IMAGE_POSITION_PATIENT, "-249.51171875\\-401.01171875\\-583.5");
    set.put_text(tags::IMAGE_ORIENTATION_PATIENT, "1\\0\\0\\0\\1\\0");
    set.put_text(tags::PIXEL_SPACING, "0.9765625\\0.9765625");
    set.put_text(tags::WINDOW_CENTER, "40\\-500");
    set.put_text(tags::WINDOW_WIDTH, "400\\1500");
    set.put_text(tags::MANUFACTURER, "CAIRN SYNTHETIC");
    let vrs = [Vr::DS, Vr::LO, Vr::IS, Vr::SH, Vr::US, Vr::FD, Vr::CS];
    for n in 0..204_u64 {
        let vr = vrs[(n % 7) as usize];
        // Scan parameters in a group of the Standard, the rest private behind its creator.
        let tag = if n < 120 { Tag::new(0x0018, 0x9000 + n as u16) } else { Tag::new(0x0043, 0x1000 + n as u16) };
        let value = match vr {
            Vr::US => Value::Unsigned(vec![mixed(n, 31) % 65_536]),
            Vr::FD => Value::Float(vec![n as f64 / 7.0]),
            Vr::DS => Value::text(vr, &format!("{}.{:04}", n, mixed(n, 32) % 10_000)),
            Vr::IS => Value::text(vr, &(mixed(n, 33) % 100_000).to_string()),
            Vr::CS => Value::text(vr, "ORIGINAL\\PRIMARY\\AXIAL"),
            _ => Value::text(vr, &format!("PARAMETER {n:05}")),
        };
        set.put(tag, vr, value);
    }
    set.put(Tag::new(0x0043, 0x0010), Vr::LO, Value::text(Vr::LO, "CAIRN BENCH"));
    for n in 0..4_u16 {
        let mut item = DataSet::new();
        item.put_text(tags::CODE_VALUE, &format!("C{n}"));
        item.put_text(tags::CODING_SCHEME_DESIGNATOR, "99CAIRN");
        item.put_text(tags::CODE_MEANING, "Synthetic code");
        set.put(Tag::new(0x0040, 0xA170 + n), Vr::SQ, Value::Sequence(vec![item]));
    }
    set
}
