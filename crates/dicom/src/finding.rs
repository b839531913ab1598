//! Deviations from the Standard that were tolerated while reading. They never carry a value from the data set.

use std::fmt;

use crate::tag::Tag;

macro_rules! findings {
    ($($name:ident = $code:literal, $text:literal;)+) => {
        /// What was tolerated. Codes are written down in events and never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FindingKind {
            $(#[doc = $text] $name,)+
        }

        impl FindingKind {
            /// Every kind.
            pub const ALL: &[FindingKind] = &[$(FindingKind::$name,)+];

            /// Stable code, such as `odd-length`.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// One sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

findings! {
    OddLength = "odd-length", "a value has an odd length";
    PadByteNotCounted = "pad-byte-not-counted", "a pad byte follows a value of odd length, outside of it";
    ElementOrder = "element-order", "elements are not in ascending order of tag";
    RepeatedElement = "repeated-element", "an element occurs twice; the first counts";
    MixedVrEncoding = "mixed-vr-encoding", "an element has explicit VR where implicit was declared, or the reverse";
    MixedByteOrder = "mixed-byte-order", "byte order differs from what was declared";
    UnknownVr = "unknown-vr", "a VR is not one of the Standard's; the value is kept as UN";
    ReservedBytesNotZero = "reserved-bytes-not-zero", "the reserved bytes after a VR are not zero";
    FileMetaInDataSet = "file-meta-in-data-set", "a group 0002 element stands in the data set; not in the header";
    CommandGroupInDataSet = "command-group-in-data-set", "a group 0000 element stands in the data set; not in the header";
    UnexpectedItem = "unexpected-item", "an item stands outside of any sequence; skipped";
    UnexpectedDelimiter = "unexpected-delimiter", "a delimiter stands where nothing is open, or lengths are defined";
    DelimiterWithLength = "delimiter-with-length", "a delimiter has a length other than zero";
    MissingItemDelimiter = "missing-item-delimiter", "an item of undefined length has no delimiter";
    MissingSequenceDelimiter = "missing-sequence-delimiter", "a sequence of undefined length has no delimiter";
    ContainerLengthWrong = "container-length-wrong", "an item or sequence is longer or shorter than it states";
    ElementExceedsContainer = "element-exceeds-container", "an element is longer than the item around it; cut there";
    NotASequence = "not-a-sequence", "a sequence has no items in its value; kept as bytes";
    SequenceDamaged = "sequence-damaged", "the rest of a sequence cannot be read; skipped";
    UndefinedLengthNotAllowed = "undefined-length-not-allowed", "undefined length with a VR that does not allow it";
    NestingTooDeep = "nesting-too-deep", "a sequence is nested deeper than is read; kept as bulk data";
    TruncatedElement = "truncated-element", "the data set ends within an element";
    TruncatedSequence = "truncated-sequence", "the data set ends within a sequence";
    TruncatedPixelData = "truncated-pixel-data", "the data set ends within encapsulated Pixel Data";
    TrailingBytes = "trailing-bytes", "bytes that are no elements follow the data set";
    Unreadable = "unreadable", "the rest of the data set cannot be read as elements";
    PixelDataTooShort = "pixel-data-too-short", "Pixel Data holds fewer bytes than its frames need";
    PixelDataTooLong = "pixel-data-too-long", "Pixel Data holds more bytes than its frames need";
    PixelDataEncapsulated = "pixel-data-encapsulated", "Pixel Data is in fragments though the syntax is native";
    PixelDataNative = "pixel-data-native", "Pixel Data is not in fragments though the syntax says so";
    ImageSizeMissing = "image-size-missing", "there is Pixel Data but no usable image size";
    NumberOfFramesInvalid = "number-of-frames-invalid", "Number of Frames is not a positive number";
    BasicOffsetTableInvalid = "basic-offset-table-invalid", "the Basic Offset Table is wrong; ignored";
    ExtendedOffsetTableInvalid = "extended-offset-table-invalid", "the Extended Offset Table is wrong; ignored";
    FramesNotSeparable = "frames-not-separable", "fragments cannot be told apart into frames";
    HeaderTooLarge = "header-too-large", "the header is over its limit; the rest of it is kept as bulk data";
    TooManyBulkValues = "too-many-bulk-values", "more bulk values than are listed";
    TooManyFragments = "too-many-fragments", "more fragments than are listed";
    ZlibWrapped = "zlib-wrapped", "a deflated data set has a zlib header";
    NotDeflated = "not-deflated", "a data set is not deflated though the syntax says so";
    DeflateDamaged = "deflate-damaged", "a deflated data set cannot be inflated to its end";
    UidNotStrict = "uid-not-strict", "an identifying UID breaks the rules of PS3.5 section 9.1";
    PreambleMissing = "preamble-missing", "a file has no preamble";
    FileMetaMissing = "file-meta-missing", "a file has no File Meta Information";
    FileMetaLengthWrong = "file-meta-length-wrong", "the File Meta group length is missing or wrong";
    FileMetaDamaged = "file-meta-damaged", "File Meta Information is not Explicit VR Little Endian or breaks off";
    TransferSyntaxMissing = "transfer-syntax-missing", "File Meta names no transfer syntax; taken from the bytes";
}

/// One deviation and the element it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Finding {
    /// What was tolerated.
    pub kind: FindingKind,
    /// The element concerned, where one can be named.
    pub tag: Option<Tag>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag {
            Some(tag) => write!(f, "{tag:?}: {}", self.kind.text()),
            None => f.write_str(self.kind.text()),
        }
    }
}

/// Of one kind, more say no more.
const SAME_KIND_MAX: usize = 8;

/// A bounded list of findings, each pair of kind and tag once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    max: usize,
}

impl Findings {
    pub(crate) fn new(max: usize) -> Self {
        Self { list: Vec::new(), max }
    }

    #[cold]
    pub(crate) fn add(&mut self, kind: FindingKind, tag: Option<Tag>) {
        let finding = Finding { kind, tag };
        let same_kind = self.list.iter().filter(|known| known.kind == kind).count();
        // Past the bound a kind is still named once, so that none goes unseen.
        let room = same_kind == 0 || (same_kind < SAME_KIND_MAX && self.list.len() < self.max);
        if room && !self.list.contains(&finding) {
            self.list.push(finding);
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Finding> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_the_list_is_bounded() {
        let mut codes: Vec<_> = FindingKind::ALL.iter().map(|kind| kind.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), FindingKind::ALL.len());

        let mut findings = Findings::new(8);
        for element in 0..1000 {
            findings.add(FindingKind::OddLength, Some(Tag::new(8, element)));
        }
        findings.add(FindingKind::Unreadable, None);
        assert_eq!(findings.into_vec().len(), 9);
    }
}
