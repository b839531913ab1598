//! Transfer syntaxes (PS3.5 chapter 10 and Annex A, PS3.6 Table A-1, edition 2025c).

use std::borrow::Cow;

use crate::{dictionary, uid::Uid};
use Encoding::*;
use PixelCoding::*;

/// How the data set itself is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Implicit VR, little endian.
    ImplicitLittle,
    /// Explicit VR, little endian.
    ExplicitLittle,
    /// Explicit VR, big endian (retired).
    ExplicitBig,
    /// Explicit VR, little endian, then deflated as a whole (PS3.5 section A.5).
    DeflatedExplicitLittle,
}

impl Encoding {
    /// Whether elements state their VR.
    pub const fn is_explicit(self) -> bool {
        !matches!(self, ImplicitLittle)
    }

    /// Whether numbers are written high byte first.
    pub const fn is_big_endian(self) -> bool {
        matches!(self, ExplicitBig)
    }

    /// Whether the whole data set is a deflate stream.
    pub const fn is_deflated(self) -> bool {
        matches!(self, DeflatedExplicitLittle)
    }
}

/// What becomes of top-level Pixel Data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelCoding {
    /// Plain samples in one value.
    Native,
    /// Plain samples, one frame or more in each fragment.
    Uncompressed,
    /// Fragments that give back exactly the samples that were coded.
    Lossless,
    /// Fragments that lost something.
    Lossy,
    /// Fragments of which the syntax alone does not say whether something was lost.
    LosslessOrLossy,
    /// Not in the data set: it names a place to fetch them from (JPIP).
    Referenced,
    /// Nothing is known: a private syntax, or one that holds no data set of this kind.
    Other,
}

/// A transfer syntax. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferSyntax {
    uid: Cow<'static, str>,
    /// How the data set is encoded.
    pub encoding: Encoding,
    /// How Pixel Data is encoded.
    pub pixels: PixelCoding,
    dimse: bool,
}

const fn ts(uid: &'static str, encoding: Encoding, pixels: PixelCoding, dimse: bool) -> TransferSyntax {
    TransferSyntax { uid: Cow::Borrowed(uid), encoding, pixels, dimse }
}

impl TransferSyntax {
    /// Implicit VR Little Endian, the one that every peer must take.
    pub const IMPLICIT_VR_LITTLE_ENDIAN: Self = ts("1.2.840.10008.1.2", ImplicitLittle, Native, true);
    /// Explicit VR Little Endian.
    pub const EXPLICIT_VR_LITTLE_ENDIAN: Self = ts("1.2.840.10008.1.2.1", ExplicitLittle, Native, true);
    /// Explicit VR Big Endian (retired).
    pub const EXPLICIT_VR_BIG_ENDIAN: Self = ts("1.2.840.10008.1.2.2", ExplicitBig, Native, true);
    /// Deflated Explicit VR Little Endian.
    pub const DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: Self =
        ts("1.2.840.10008.1.2.1.99", DeflatedExplicitLittle, Native, true);

    /// The syntax with this UID; one that is not known here gets [`TransferSyntax::unknown`].
    pub fn from_uid(uid: &str) -> Self {
        ALL.iter().find(|known| known.uid == uid).cloned().unwrap_or_else(|| match uid {
            // Not in the Standard but common in old archives: elements are little endian, Pixel Data big endian.
            "1.2.840.113619.5.2" => ts("1.2.840.113619.5.2", ImplicitLittle, Other, true),
            _ => Self::unknown(uid),
        })
    }

    /// A private syntax or one newer than this edition: Explicit VR Little Endian, as PS3.5 section A.4 demands of
    /// every encapsulated syntax; Pixel Data may be native or in fragments.
    pub fn unknown(uid: &str) -> Self {
        Self { uid: Cow::Owned(uid.to_owned()), encoding: ExplicitLittle, pixels: Other, dimse: true }
    }

    /// Every syntax of PS3.6 Table A-1, retired ones included.
    pub fn all() -> &'static [TransferSyntax] {
        &ALL
    }

    /// The UID.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The Standard's name; `None` for a private syntax.
    pub fn name(&self) -> Option<&'static str> {
        dictionary::uid_name(&self.uid)
    }

    /// Whether the Standard's registry has it.
    pub fn is_standard(&self) -> bool {
        dictionary::uid(&self.uid).is_some()
    }

    /// Whether this edition retired it.
    pub fn is_retired(&self) -> bool {
        dictionary::uid(&self.uid).is_some_and(|entry| entry.retired)
    }

    /// Whether a presentation context can carry data sets in it. Not so: RFC 2557 MIME and XML, which are no
    /// encodings of a data set; SMPTE ST 2110, which is real-time video beside DIMSE (PS3.22); Papyrus 3, a file
    /// format. JPIP syntaxes can be carried: such a data set names where its pixels are.
    pub const fn can_be_carried_by_dimse(&self) -> bool {
        self.dimse
    }

    /// Whether top-level Pixel Data comes in fragments; also true of unknown syntaxes, where it may.
    pub const fn may_be_encapsulated(&self) -> bool {
        matches!(self.pixels, Uncompressed | Lossless | Lossy | LosslessOrLossy | Other)
    }

    /// Whether the data set can be converted to another native syntax without touching a codec.
    pub const fn is_native(&self) -> bool {
        matches!(self.pixels, Native) && self.dimse
    }
}

impl From<&Uid> for TransferSyntax {
    fn from(uid: &Uid) -> Self {
        Self::from_uid(uid.as_str())
    }
}

#[rustfmt::skip]
static ALL: [TransferSyntax; 63] = [
    ts("1.2.840.10008.1.2", ImplicitLittle, Native, true),
    ts("1.2.840.10008.1.2.1", ExplicitLittle, Native, true),
    ts("1.2.840.10008.1.2.1.98", ExplicitLittle, Uncompressed, true),
    ts("1.2.840.10008.1.2.1.99", DeflatedExplicitLittle, Native, true),
    ts("1.2.840.10008.1.2.2", ExplicitBig, Native, true),
    ts("1.2.840.10008.1.2.4.50", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.51", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.52", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.53", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.54", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.55", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.56", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.57", ExplicitLittle, Lossless, true),
    ts("1.2.840.10008.1.2.4.58", ExplicitLittle, Lossless, true),
    ts("1.2.840.10008.1.2.4.59", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.60", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.61", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.62", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.63", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.64", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.65", ExplicitLittle, Lossless, true),
    ts("1.2.840.10008.1.2.4.66", ExplicitLittle, Lossless, true),
    ts("1.2.840.10008.1.2.4.70", ExplicitLittle, Lossless, true),
    ts("1.2.840.10008.1.2.4.80", ExplicitLittle, Lossless, true),
    ts("1.2.840.10008.1.2.4.81", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.90", ExplicitLittle, Lossless, true),
    ts("1.2.840.10008.1.2.4.91", ExplicitLittle, LosslessOrLossy, true),
    ts("1.2.840.10008.1.2.4.92", ExplicitLittle, Lossless, true),
    ts("1.2.840.10008.1.2.4.93", ExplicitLittle, LosslessOrLossy, true),
    ts("1.2.840.10008.1.2.4.94", ExplicitLittle, Referenced, true),
    ts("1.2.840.10008.1.2.4.95", DeflatedExplicitLittle, Referenced, true),
    ts("1.2.840.10008.1.2.4.100", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.100.1", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.101", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.101.1", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.102", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.102.1", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.103", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.103.1", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.104", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.104.1", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.105", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.105.1", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.106", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.106.1", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.107", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.108", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.110", ExplicitLittle, Lossless, true),
    ts("1.2.840.10008.1.2.4.111", ExplicitLittle, Lossy, true),
    ts("1.2.840.10008.1.2.4.112", ExplicitLittle, LosslessOrLossy, true),
    ts("1.2.840.10008.1.2.4.201", ExplicitLittle, Lossless, true),
    ts("1.2.840.10008.1.2.4.202", ExplicitLittle, Lossless, true),
    ts("1.2.840.10008.1.2.4.203", ExplicitLittle, LosslessOrLossy, true),
    ts("1.2.840.10008.1.2.4.204", ExplicitLittle, Referenced, true),
    ts("1.2.840.10008.1.2.4.205", DeflatedExplicitLittle, Referenced, true),
    ts("1.2.840.10008.1.2.5", ExplicitLittle, Lossless, true),
    ts("1.2.840.10008.1.2.6.1", ExplicitLittle, Other, false),
    ts("1.2.840.10008.1.2.6.2", ExplicitLittle, Other, false),
    ts("1.2.840.10008.1.2.7.1", ExplicitLittle, Other, false),
    ts("1.2.840.10008.1.2.7.2", ExplicitLittle, Other, false),
    ts("1.2.840.10008.1.2.7.3", ExplicitLittle, Other, false),
    ts("1.2.840.10008.1.2.8.1", ExplicitLittle, Lossless, true),
    ts("1.2.840.10008.1.20", ImplicitLittle, Native, false),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dictionary::UidKind;

    #[test]
    fn the_table_is_that_of_the_standard() {
        let registered = dictionary::uids().iter().filter(|entry| entry.kind == UidKind::TransferSyntax);
        let ours: Vec<_> = ALL.iter().map(TransferSyntax::uid).collect();
        assert_eq!(registered.clone().count(), ours.len());
        for entry in registered {
            assert!(ours.contains(&entry.uid), "{}", entry.name);
            let syntax = TransferSyntax::from_uid(entry.uid);
            assert_eq!(syntax.encoding.is_deflated(), entry.name.contains("Deflate") && !entry.name.contains("Frame"));
            assert_eq!(syntax.encoding.is_big_endian(), entry.name.contains("Big Endian"));
            assert_eq!(syntax.encoding.is_explicit(), !entry.name.contains("Implicit"));
            if entry.name.contains("Lossless") && !entry.name.contains("Near") {
                assert_eq!(syntax.pixels, Lossless, "{}", entry.name);
            }
        }
    }

    #[test]
    fn constants_and_table_agree() {
        for constant in [
            TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN,
            TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN,
            TransferSyntax::EXPLICIT_VR_BIG_ENDIAN,
            TransferSyntax::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
        ] {
            assert_eq!(TransferSyntax::from_uid(constant.uid()), constant);
            assert!(constant.is_native());
        }
    }

    #[test]
    fn an_unknown_syntax_is_read_as_encapsulated_ones_are() {
        let private = TransferSyntax::from_uid("1.2.3.4");
        assert_eq!((private.encoding, private.pixels), (ExplicitLittle, Other));
        assert!(private.can_be_carried_by_dimse() && private.may_be_encapsulated() && !private.is_native());
        assert_eq!(private.name(), None);
    }
}
