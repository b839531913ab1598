//! The streaming header walker: a data set goes in, in whatever pieces it is received, and what the archive writes
//! down about it comes out, without a second look at the bytes.

mod sink;
#[cfg(test)]
mod tests;

pub use crate::inflate::InflateError as WalkError;
use crate::{
    finding::Finding,
    frames::FrameTable,
    header::Header,
    inflate::{InflateLimits, Inflater},
    parse::{Parser, Rules, Sink},
    tag::Tag,
    tags,
    transfer_syntax::TransferSyntax,
    uid::{Uid, UidError},
    vr::Vr,
};
use sink::WalkSink;

/// Version of what [`HeaderWalker`] makes of a data set; written into events.
pub const EXTRACTOR_VERSION: u32 = 1;

/// Bounds of a walk. All sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkLimits {
    /// A longer value is bulk data and not in the header, if its VR may stand behind a Bulk Data URI
    /// (PS3.18 section F.2.2: binary values, numbers, DS, IS, LT, ST, UC, UT, UN).
    pub bulk_over_bytes: u32,
    /// As `bulk_over_bytes`, for long texts (LT, ST, UC, UT), which readers want inline, and for the VRs that must
    /// be inline. At most 65,534.
    pub text_over_bytes: u32,
    /// Sequences open at once; deeper ones are bulk data.
    pub nesting_max: usize,
    /// The header; what does not fit is bulk data, but for the elements that identify the instance.
    pub header_bytes_max: usize,
    /// Bulk values listed, with paths of four words each on average.
    pub bulk_values_max: usize,
    /// Fragments listed; with more, frames are [`FrameTable::Derived`].
    pub fragments_max: usize,
    /// One offset table; a longer one is ignored.
    pub offset_table_bytes_max: usize,
    /// Findings listed, each kind at least once.
    pub findings_max: usize,
    /// Of a deflated data set.
    pub inflate: InflateLimits,
}

impl Default for WalkLimits {
    fn default() -> Self {
        Self {
            bulk_over_bytes: 1024,
            text_over_bytes: 65_534,
            nesting_max: 64,
            header_bytes_max: 16 << 20,
            bulk_values_max: 65_536,
            fragments_max: 1 << 20,
            offset_table_bytes_max: 8 << 20,
            findings_max: 64,
            inflate: InflateLimits::default(),
        }
    }
}

impl WalkLimits {
    fn rules(&self) -> Rules {
        use Vr::*;
        let mut whole_max = [0; Vr::ALL.len()];
        for vr in Vr::ALL {
            whole_max[*vr as usize] = match vr {
                SQ => 0,
                AE | AS | AT | CS | DA | DT | LO | LT | PN | SH | ST | TM | UC | UI | UR | UT => {
                    self.text_over_bytes.min(65_534)
                }
                _ => self.bulk_over_bytes.min(65_534),
            };
        }
        Rules { nesting_max: self.nesting_max, whole_max, expand_unknown: false }
    }
}

/// A value that is not in the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkEntry {
    /// Tags and 0-based item indices from the top: tag, item, tag, ..., tag.
    pub path: Box<[u32]>,
    /// The VR; `SQ` for a sequence that is not in the header, nested too deep or too large.
    pub vr: Vr,
    /// Offset of the value from the first byte of the data set; of a deflated data set, once inflated.
    pub offset: u64,
    /// Bytes of the value that are there. Encapsulated: from the first item tag to the end of the delimiter.
    pub length: u64,
    /// Whether the value is a sequence of fragments.
    pub encapsulated: bool,
    /// Whether numbers in it are written high byte first.
    pub big_endian: bool,
}

impl BulkEntry {
    /// The element's own tag.
    pub fn tag(&self) -> Tag {
        Tag(self.path.last().copied().unwrap_or_default())
    }
}

/// The UIDs that identify an instance and say what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Study Instance UID (0020,000D).
    pub study_instance_uid: Uid,
    /// Series Instance UID (0020,000E).
    pub series_instance_uid: Uid,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: Uid,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: Uid,
}

/// Why an instance cannot be identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The element is not in the data set, or not yet.
    #[error("{0:?} is missing")]
    Missing(Tag),
    /// The element is there and no UID.
    #[error("{0:?} is unusable: {1}")]
    Unusable(Tag, UidError),
}

/// Where top-level Pixel Data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelData {
    /// Pixel Data, Float Pixel Data or Double Float Pixel Data.
    pub tag: Tag,
    /// Offset of the value from the first byte of the data set.
    pub offset: u64,
    /// Bytes of the value that are there.
    pub length: u64,
    /// Whether it comes in fragments.
    pub encapsulated: bool,
}

/// What a walk found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    /// All elements but bulk data, in Explicit VR Little Endian: lengths of sequences and items defined, no group
    /// lengths, no delimiters. Read it with [`Header`].
    pub header: Vec<u8>,
    /// Values left out of the header, in order.
    pub bulk: Vec<BulkEntry>,
    /// Top-level Pixel Data; `None` also where the data set is deflated, whose bytes have no such offset.
    pub pixel_data: Option<PixelData>,
    /// Where the frames are; `None` without top-level Pixel Data.
    pub frames: Option<FrameTable>,
    /// What was tolerated.
    pub findings: Vec<Finding>,
    /// Bytes pushed.
    pub length: u64,
    /// Bytes of the data set once inflated; equals `length` unless it is deflated.
    pub inflated_length: u64,
}

impl Walked {
    /// The header's elements.
    pub fn header(&self) -> Header<'_> {
        Header::new(&self.header)
    }

    /// The UIDs, or which of them is missing or unusable.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        identity(|tag| self.value(tag))
    }

    /// The value of a top-level element as it was received, with padding, numbers little endian; `None` if it is not
    /// in the header.
    pub fn value(&self, tag: Tag) -> Option<&[u8]> {
        self.header().get(tag).map(|element| element.value)
    }
}

fn identity<'a>(value: impl Fn(Tag) -> Option<&'a [u8]>) -> Result<Identity, IdentityError> {
    let uid = |tag| match value(tag).map(Uid::from_value) {
        None | Some(Err(UidError::Empty)) => Err(IdentityError::Missing(tag)),
        Some(Err(error)) => Err(IdentityError::Unusable(tag, error)),
        Some(Ok(uid)) => Ok(uid),
    };
    Ok(Identity {
        study_instance_uid: uid(tags::STUDY_INSTANCE_UID)?,
        series_instance_uid: uid(tags::SERIES_INSTANCE_UID)?,
        sop_instance_uid: uid(tags::SOP_INSTANCE_UID)?,
        sop_class_uid: uid(tags::SOP_CLASS_UID)?,
    })
}

/// Walks one data set. Push its bytes in any pieces, then `finish`.
///
/// Memory is bounded by [`WalkLimits`] whatever the bytes claim; time is linear in the bytes. Nothing panics and
/// nothing short of an inflation bomb is an error: a data set that breaks off or turns to nonsense gives what was
/// readable, with findings.
pub struct HeaderWalker {
    parser: Parser<WalkSink>,
    inflater: Option<Box<Inflater>>,
    received: u64,
}

impl HeaderWalker {
    /// A walker for a data set in this syntax.
    pub fn new(syntax: &TransferSyntax, limits: WalkLimits) -> Self {
        let rules = limits.rules();
        let inflater = syntax.encoding.is_deflated().then(|| Box::new(Inflater::new(limits.inflate.clone())));
        Self { inflater, received: 0, parser: Parser::new(syntax.encoding, rules, WalkSink::new(limits, syntax)) }
    }

    /// Takes the next bytes of the data set.
    ///
    /// # Errors
    /// Only a deflated data set can fail, by inflating beyond its limits; the walk is over then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), WalkError> {
        self.received += bytes.len() as u64;
        match &mut self.inflater {
            None => self.parser.push(bytes),
            Some(inflater) => inflater.push(bytes, |piece| self.parser.push(piece))?,
        }
        Ok(())
    }

    /// Whether all four identifying UIDs have been read. They come before anything large.
    pub fn identifiers_seen(&self) -> bool {
        self.parser.sink.identifiers_seen()
    }

    /// Whether the place of the last of them has gone by, so that what is missing now will stay missing.
    pub fn identifiers_passed(&self) -> bool {
        self.parser.last_at_root() > tags::SERIES_INSTANCE_UID
    }

    /// The UIDs as far as they have been read.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        identity(|tag| self.parser.sink.marked(tag))
    }

    /// The value of an identifying element (class, instance, study or series UID, Patient ID, Issuer of Patient ID,
    /// Specific Character Set, Timezone Offset From UTC), if it has been read.
    pub fn value(&self, tag: Tag) -> Option<&[u8]> {
        self.parser.sink.marked(tag)
    }

    /// Bytes of memory that what was found so far takes, about.
    pub fn memory(&self) -> usize {
        self.parser.sink.memory()
    }

    /// The data set is over.
    ///
    /// # Errors
    /// As [`HeaderWalker::push`].
    pub fn finish(mut self) -> Result<Walked, WalkError> {
        let deflated = self.inflater.is_some();
        let mut late = Vec::new();
        if let Some(mut inflater) = self.inflater.take() {
            inflater.finish(|piece| self.parser.push(piece))?;
            late.extend(inflater.finding());
        }
        let inflated_length = self.parser.end();
        let mut sink = self.parser.sink;
        for kind in late {
            sink.found(kind, None);
        }
        sink.check_uids();
        let frames = sink.frames(deflated);
        let out = sink.into_parts();
        Ok(Walked {
            header: out.header,
            bulk: out.bulk,
            pixel_data: out.pixel_data.filter(|_| !deflated),
            frames,
            findings: out.findings.into_vec(),
            length: self.received,
            inflated_length,
        })
    }
}

/// Walks a data set that is wholly at hand.
///
/// # Errors
/// As [`HeaderWalker::push`].
pub fn walk(data_set: &[u8], syntax: &TransferSyntax, limits: WalkLimits) -> Result<Walked, WalkError> {
    let mut walker = HeaderWalker::new(syntax, limits);
    walker.push(data_set)?;
    walker.finish()
}
