//! Which attributes belong to which level of the query/retrieve information model.
//!
//! The Patient, General Study, Patient Study, General Series and General Equipment Modules and the clinical trial
//! modules of the same entities (PS3.3 sections C.7.1 to C.7.5, edition 2025c), less what varies from instance to
//! instance. Everything else is of the instance.

use cairn_dicom::{Tag, tags};

/// The entity that an attribute describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The patient.
    Patient,
    /// The study.
    Study,
    /// The series.
    Series,
    /// The SOP Instance.
    Instance,
}

use Level::{Patient, Series, Study};

/// In order of tags.
const LEVELS: &[(Tag, Level)] = &[
    (tags::STUDY_DATE, Study),
    (tags::SERIES_DATE, Series),
    (tags::STUDY_TIME, Study),
    (tags::SERIES_TIME, Series),
    (tags::ACCESSION_NUMBER, Study),
    (tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE, Study),
    (tags::MODALITY, Series),
    (tags::PRESENTATION_INTENT_TYPE, Series),
    (tags::MANUFACTURER, Series),
    (tags::INSTITUTION_NAME, Series),
    (tags::INSTITUTION_ADDRESS, Series),
    (tags::REFERRING_PHYSICIAN_NAME, Study),
    (tags::REFERRING_PHYSICIAN_IDENTIFICATION_SEQUENCE, Study),
    (tags::CONSULTING_PHYSICIAN_NAME, Study),
    (tags::CONSULTING_PHYSICIAN_IDENTIFICATION_SEQUENCE, Study),
    (tags::TIMEZONE_OFFSET_FROM_UTC, Study),
    (tags::STATION_NAME, Series),
    (tags::STUDY_DESCRIPTION, Study),
    (tags::PROCEDURE_CODE_SEQUENCE, Study),
    (tags::SERIES_DESCRIPTION, Series),
    (tags::SERIES_DESCRIPTION_CODE_SEQUENCE, Series),
    (tags::INSTITUTIONAL_DEPARTMENT_NAME, Series),
    (tags::PHYSICIANS_OF_RECORD, Study),
    (tags::PHYSICIANS_OF_RECORD_IDENTIFICATION_SEQUENCE, Study),
    (tags::PERFORMING_PHYSICIAN_NAME, Series),
    (tags::PERFORMING_PHYSICIAN_IDENTIFICATION_SEQUENCE, Series),
    (tags::NAME_OF_PHYSICIANS_READING_STUDY, Study),
    (tags::PHYSICIANS_READING_STUDY_IDENTIFICATION_SEQUENCE, Study),
    (tags::OPERATORS_NAME, Series),
    (tags::OPERATOR_IDENTIFICATION_SEQUENCE, Series),
    (tags::ADMITTING_DIAGNOSES_DESCRIPTION, Study),
    (tags::ADMITTING_DIAGNOSES_CODE_SEQUENCE, Study),
    (tags::MANUFACTURER_MODEL_NAME, Series),
    (tags::REFERENCED_STUDY_SEQUENCE, Study),
    (tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, Series),
    (tags::REFERENCED_PATIENT_SEQUENCE, Patient),
    (tags::PATIENT_NAME, Patient),
    (tags::PATIENT_ID, Patient),
    (tags::ISSUER_OF_PATIENT_ID, Patient),
    (tags::TYPE_OF_PATIENT_ID, Patient),
    (tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE, Patient),
    (tags::SOURCE_PATIENT_GROUP_IDENTIFICATION_SEQUENCE, Patient),
    (tags::GROUP_OF_PATIENTS_IDENTIFICATION_SEQUENCE, Patient),
    (tags::PATIENT_BIRTH_DATE, Patient),
    (tags::PATIENT_BIRTH_TIME, Patient),
    (tags::PATIENT_BIRTH_DATE_IN_ALTERNATIVE_CALENDAR, Patient),
    (tags::PATIENT_DEATH_DATE_IN_ALTERNATIVE_CALENDAR, Patient),
    (tags::PATIENT_ALTERNATIVE_CALENDAR, Patient),
    (tags::PATIENT_SEX, Patient),
    (tags::QUALITY_CONTROL_SUBJECT, Patient),
    (tags::STRAIN_DESCRIPTION, Patient),
    (tags::STRAIN_NOMENCLATURE, Patient),
    (tags::OTHER_PATIENT_IDS, Patient),
    (tags::OTHER_PATIENT_NAMES, Patient),
    (tags::OTHER_PATIENT_IDS_SEQUENCE, Patient),
    (tags::PATIENT_BIRTH_NAME, Patient),
    (tags::PATIENT_AGE, Study),
    (tags::PATIENT_SIZE, Study),
    (tags::PATIENT_SIZE_CODE_SEQUENCE, Study),
    (tags::MEASURED_AP_DIMENSION, Study),
    (tags::PATIENT_WEIGHT, Study),
    (tags::PATIENT_MOTHER_BIRTH_NAME, Patient),
    (tags::REFERENCED_PATIENT_PHOTO_SEQUENCE, Patient),
    (tags::MEDICAL_ALERTS, Study),
    (tags::ALLERGIES, Study),
    (tags::ETHNIC_GROUP, Patient),
    (tags::ETHNIC_GROUP_CODE_SEQUENCE, Patient),
    (tags::OCCUPATION, Study),
    (tags::SMOKING_STATUS, Study),
    (tags::ADDITIONAL_PATIENT_HISTORY, Study),
    (tags::PREGNANCY_STATUS, Study),
    (tags::LAST_MENSTRUAL_DATE, Study),
    (tags::PATIENT_RELIGIOUS_PREFERENCE, Study),
    (tags::PATIENT_SPECIES_DESCRIPTION, Patient),
    (tags::PATIENT_SPECIES_CODE_SEQUENCE, Patient),
    (tags::PATIENT_SEX_NEUTERED, Study),
    (tags::PATIENT_BREED_DESCRIPTION, Patient),
    (tags::PATIENT_BREED_CODE_SEQUENCE, Patient),
    (tags::BREED_REGISTRATION_SEQUENCE, Patient),
    (tags::RESPONSIBLE_PERSON, Patient),
    (tags::RESPONSIBLE_PERSON_ROLE, Patient),
    (tags::RESPONSIBLE_ORGANIZATION, Patient),
    (tags::PATIENT_COMMENTS, Patient),
    (tags::CLINICAL_TRIAL_SPONSOR_NAME, Patient),
    (tags::CLINICAL_TRIAL_PROTOCOL_ID, Patient),
    (tags::CLINICAL_TRIAL_PROTOCOL_NAME, Patient),
    (tags::CLINICAL_TRIAL_SITE_ID, Patient),
    (tags::CLINICAL_TRIAL_SITE_NAME, Patient),
    (tags::CLINICAL_TRIAL_SUBJECT_ID, Patient),
    (tags::CLINICAL_TRIAL_SUBJECT_READING_ID, Patient),
    (tags::CLINICAL_TRIAL_TIME_POINT_ID, Study),
    (tags::CLINICAL_TRIAL_TIME_POINT_DESCRIPTION, Study),
    (tags::PATIENT_IDENTITY_REMOVED, Patient),
    (tags::DEIDENTIFICATION_METHOD, Patient),
    (tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE, Patient),
    (tags::CLINICAL_TRIAL_SERIES_ID, Series),
    (tags::CLINICAL_TRIAL_SERIES_DESCRIPTION, Series),
    (tags::BODY_PART_EXAMINED, Series),
    (tags::DEVICE_SERIAL_NUMBER, Series),
    (tags::SOFTWARE_VERSIONS, Series),
    (tags::PROTOCOL_NAME, Series),
    (tags::PATIENT_POSITION, Series),
    (tags::STUDY_ID, Study),
    (tags::SERIES_NUMBER, Series),
    (tags::FRAME_OF_REFERENCE_UID, Series),
    (tags::LATERALITY, Series),
    (tags::POSITION_REFERENCE_INDICATOR, Series),
    (tags::REQUESTING_SERVICE, Study),
    (tags::REQUESTING_SERVICE_CODE_SEQUENCE, Study),
    (tags::REASON_FOR_VISIT, Study),
    (tags::REASON_FOR_VISIT_CODE_SEQUENCE, Study),
    (tags::ADMISSION_ID, Study),
    (tags::ISSUER_OF_ADMISSION_ID_SEQUENCE, Study),
    (tags::SERVICE_EPISODE_ID, Study),
    (tags::SERVICE_EPISODE_DESCRIPTION, Study),
    (tags::PATIENT_STATE, Study),
    (tags::PERFORMED_PROCEDURE_STEP_START_DATE, Series),
    (tags::PERFORMED_PROCEDURE_STEP_START_TIME, Series),
    (tags::PERFORMED_PROCEDURE_STEP_END_DATE, Series),
    (tags::PERFORMED_PROCEDURE_STEP_END_TIME, Series),
    (tags::PERFORMED_PROCEDURE_STEP_ID, Series),
    (tags::PERFORMED_PROCEDURE_STEP_DESCRIPTION, Series),
    (tags::PERFORMED_PROTOCOL_CODE_SEQUENCE, Series),
    (tags::REQUEST_ATTRIBUTES_SEQUENCE, Series),
    (tags::COMMENTS_ON_THE_PERFORMED_PROCEDURE_STEP, Series),
    (tags::REASON_FOR_PERFORMED_PROCEDURE_CODE_SEQUENCE, Study),
];

/// The level that an attribute belongs to; UIDs and computed attributes of a level included.
pub fn level_of(tag: Tag) -> Level {
    match tag {
        tags::STUDY_INSTANCE_UID
        | tags::MODALITIES_IN_STUDY
        | tags::SOP_CLASSES_IN_STUDY
        | tags::NUMBER_OF_STUDY_RELATED_SERIES
        | tags::NUMBER_OF_STUDY_RELATED_INSTANCES => Study,
        tags::NUMBER_OF_PATIENT_RELATED_STUDIES
        | tags::NUMBER_OF_PATIENT_RELATED_SERIES
        | tags::NUMBER_OF_PATIENT_RELATED_INSTANCES => Patient,
        tags::SERIES_INSTANCE_UID | tags::NUMBER_OF_SERIES_RELATED_INSTANCES => Series,
        _ => LevelWalk::default().level_of(tag),
    }
}

/// Levels of the elements of a data set, asked in the order of their tags.
#[derive(Default)]
pub(crate) struct LevelWalk {
    at: usize,
}

impl LevelWalk {
    /// The level of an attribute kept per patient, study or series; cheap when tags ascend.
    pub(crate) fn level_of(&mut self, tag: Tag) -> Level {
        if self.at > 0 && LEVELS.get(self.at - 1).is_some_and(|(before, _)| *before >= tag) {
            self.at = 0;
        }
        while LEVELS.get(self.at).is_some_and(|(at, _)| *at < tag) {
            self.at += 1;
        }
        match LEVELS.get(self.at) {
            Some((at, level)) if *at == tag => *level,
            _ => Level::Instance,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_a_walk_finds_what_a_search_finds() {
        assert!(LEVELS.is_sorted_by(|a, b| a.0 < b.0));
        let mut walk = LevelWalk::default();
        for tag in [0x0008_0020, 0x0008_0060, 0x0010_0010, 0x0010_0010, 0x0008_0020, 0x0028_0010, 0xFFFF_FFFF, 0] {
            let expected = LEVELS.iter().find(|(t, _)| t.0 == tag).map_or(Level::Instance, |(_, level)| *level);
            assert_eq!(walk.level_of(Tag(tag)), expected, "{tag:08X}");
        }
        assert_eq!(level_of(tags::PATIENT_NAME), Level::Patient);
        assert_eq!(level_of(tags::SERIES_INSTANCE_UID), Level::Series);
        assert_eq!(level_of(tags::ROWS), Level::Instance);
    }
}
