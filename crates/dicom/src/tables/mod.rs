//! The Standard's tables as static data, written by `tools/dicom-tables`. Reached through
//! [`crate::dictionary`], [`crate::tags`] and [`crate::sop_class`].

#[rustfmt::skip]
pub(crate) mod elements;
#[rustfmt::skip]
pub(crate) mod storage_classes;
#[rustfmt::skip]
#[allow(missing_docs, reason = "the names are the Standard's keywords")]
pub mod tags;
#[rustfmt::skip]
pub(crate) mod uids;

use crate::tag::Tag;
use crate::vr::Vr;

/// One element of PS3.6 chapters 6 to 9.
#[derive(Clone, Copy, Debug)]
pub struct Element {
    /// The tag; of a repeating group, its first.
    pub tag: Tag,
    /// The VRs that the Standard allows, in its order; none for item and sequence delimiters.
    pub vrs: &'static [Vr],
    /// Value Multiplicity, as the Standard writes it: `1`, `1-n`, `2-2n`.
    pub vm: &'static str,
    /// The keyword.
    pub keyword: &'static str,
    /// Whether this edition retired it.
    pub retired: bool,
}

const fn e(tag: u32, vrs: &'static [Vr], vm: &'static str, keyword: &'static str, retired: u8) -> Element {
    Element { tag: Tag(tag), vrs, vm, keyword, retired: retired == 1 }
}

/// An element whose tag has free digits, such as `(60xx,3000)`.
#[derive(Debug)]
pub(crate) struct Repeating {
    pub(crate) mask: u32,
    pub(crate) element: Element,
}

/// One UID of PS3.6 Annex A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UidEntry {
    /// The UID.
    pub uid: &'static str,
    /// The Standard's name of it.
    pub name: &'static str,
    /// What it identifies.
    pub kind: UidKind,
    /// Whether this edition retired it.
    pub retired: bool,
}

/// What a UID of PS3.6 Annex A identifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the Standard's")]
pub enum UidKind {
    SopClass,
    MetaSopClass,
    TransferSyntax,
    WellKnownSopInstance,
    FrameOfReference,
    CodingScheme,
    Other,
}

/// A Storage SOP Class (PS3.4 section B.5, the retired ones and those of other industries included).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageClass {
    /// SOP Class UID.
    pub uid: &'static str,
    /// The Standard's name of it.
    pub name: &'static str,
    /// Whether this edition retired it.
    pub retired: bool,
    /// Which entities its instances belong to.
    pub model: InformationModel,
}

/// Which entities the instances of a Storage SOP Class belong to (PS3.3 section A.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InformationModel {
    /// A patient, a study and a series.
    PatientStudySeries,
    /// None of them: hanging protocols, colour palettes, implant templates, defined protocols, inventories.
    NonPatient,
}
