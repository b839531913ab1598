//! Storage SOP Classes (PS3.4 section B.5, edition 2025c).

use crate::tables::storage_classes::STORAGE_CLASSES;
pub use crate::tables::{InformationModel, StorageClass};

/// Every Storage SOP Class of the Standard's registry, retired ones included, in byte order of the UID.
pub fn storage_classes() -> &'static [StorageClass] {
    &STORAGE_CLASSES
}

/// The Storage SOP Class with this UID; `None` for private and unknown classes and for other services.
pub fn storage_class(uid: &str) -> Option<&'static StorageClass> {
    STORAGE_CLASSES.binary_search_by(|class| class.uid.cmp(uid)).ok().map(|at| &STORAGE_CLASSES[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_without_a_patient_are_told_from_the_rest() {
        let model = |uid| storage_class(uid).map(|class| class.model);
        assert_eq!(model("1.2.840.10008.5.1.4.1.1.2"), Some(InformationModel::PatientStudySeries));
        assert_eq!(model("1.2.840.10008.5.1.4.38.1"), Some(InformationModel::NonPatient), "Hanging Protocol");
        assert_eq!(model("1.2.840.10008.5.1.4.39.1"), Some(InformationModel::NonPatient), "Color Palette");
        assert_eq!(model("1.2.840.10008.1.3.10"), None, "Media Storage Directory is never sent");
        assert_eq!(model("1.2.840.10008.1.20.1"), None, "Storage Commitment stores nothing");
        assert!(STORAGE_CLASSES.windows(2).all(|w| w[0].uid < w[1].uid));
    }
}
