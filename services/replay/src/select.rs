//! Which instances of the log are meant.

use cairn_archive::{
    Digest, Position,
    envelope::rfc3339,
    events::{InstanceProtected, InstanceStored},
};
use cairn_dicom::{CharacterSet, Tag, Uid, Vr, header::Header, tags};
use cairn_service_api::{DEFAULT_TENANT, index::Selection as Instances};
use prost::Message;
use serde::{Deserialize, Serialize};

/// A selection as it is asked for. Lists of one kind are alternatives, kinds restrict each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Whose instances.
    pub tenant: String,
    /// Appended here at this time or later, in milliseconds since the Unix epoch.
    pub from_ms: Option<u64>,
    /// Appended here before this time.
    pub to_ms: Option<u64>,
    /// Study Instance UIDs.
    pub studies: Vec<String>,
    /// Modality (0008,0060).
    pub modalities: Vec<String>,
    /// Calling AE titles.
    pub calling_aes: Vec<String>,
    /// Expression of the Common Expression Language that must hold.
    pub expression: Option<String>,
    /// Versions that are not shown too.
    pub all_versions: bool,
}

/// Variables of an expression, and what each is.
pub const VARIABLES: &[(&str, &str)] = &[
    ("study_uid", "Study Instance UID"),
    ("series_uid", "Series Instance UID"),
    ("sop_uid", "SOP Instance UID"),
    ("sop_class", "SOP Class UID"),
    ("transfer_syntax", "Transfer Syntax UID, as stored"),
    ("size", "bytes of the stored file (a number)"),
    ("calling_ae", "calling AE title"),
    ("called_ae", "called AE title"),
    ("stored_at", "when it was stored, as text: 2026-01-31T12:00:00.000Z"),
    ("issuer", "issuer of Patient ID that applies"),
    ("modality", "Modality"),
    ("patient_id", "Patient ID"),
    ("study_date", "Study Date, YYYYMMDD"),
    ("accession_number", "Accession Number"),
    ("station", "Station Name"),
    ("institution", "Institution Name"),
];

/// Those that are in the header alone.
const OF_HEADER: [(&str, Tag, Vr); 6] = [
    ("modality", tags::MODALITY, Vr::CS),
    ("patient_id", tags::PATIENT_ID, Vr::LO),
    ("study_date", tags::STUDY_DATE, Vr::DA),
    ("accession_number", tags::ACCESSION_NUMBER, Vr::SH),
    ("station", tags::STATION_NAME, Vr::SH),
    ("institution", tags::INSTITUTION_NAME, Vr::LO),
];

/// Why an expression can't be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("expression: {0}")]
pub struct FilterError(String);

/// A selection, ready to be asked.
pub struct Filter {
    selection: Selection,
    program: Option<cel::Program>,
    needs_header: bool,
}

/// A store event of the log.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) position: Position,
    pub(crate) stored_at_ms: u64,
    pub(crate) event: Box<InstanceStored>,
}

impl Candidate {
    /// The version, and no other, to ask the index or retrieval for.
    pub(crate) fn instances(&self) -> Option<Instances> {
        let digest = Digest::from_slice(&self.event.object.as_ref()?.blake3).ok()?;
        let uid = |text: &str| text.parse::<Uid>().ok().map(|uid| vec![uid]);
        Some(Instances {
            tenant: if self.event.tenant.is_empty() { DEFAULT_TENANT.into() } else { self.event.tenant.clone() },
            studies: uid(&self.event.study_instance_uid)?,
            series: uid(&self.event.series_instance_uid)?,
            instances: uid(&self.event.sop_instance_uid)?,
            version: Some(digest),
            ..Instances::default()
        })
    }

    /// The header, where the event has it.
    pub(crate) fn header(&self) -> Option<bytes::Bytes> {
        if self.event.side_object.is_some() {
            return None;
        }
        let protected = InstanceProtected::decode(self.event.protected.clone()).ok()?;
        Some(protected.header)
    }
}

impl Filter {
    /// Compiles the expression.
    ///
    /// # Errors
    /// It is none, or names a variable that there is not.
    pub fn new(selection: Selection) -> Result<Self, FilterError> {
        let program = selection.expression.as_deref().map(cel::Program::compile).transpose();
        let program = program.map_err(|error| FilterError(error.to_string()))?;
        let in_expression =
            |name: &str| program.as_ref().is_some_and(|program| program.references().has_variable(name));
        let needs_header = !selection.modalities.is_empty() || OF_HEADER.iter().any(|(name, _, _)| in_expression(name));
        let filter = Self { selection, program, needs_header };
        // What is not a truth value for an instance without any attribute, or names something unknown, is found now.
        let mut context = cel::Context::default();
        for (name, _) in VARIABLES {
            match *name {
                "size" => context.add_variable_from_value(*name, 0_i64),
                _ => context.add_variable_from_value(*name, String::new()),
            }
        }
        filter.holds(&context)?;
        Ok(filter)
    }

    /// As it was asked for.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Whether [`Filter::selects`] wants the header.
    pub(crate) fn needs_header(&self) -> bool {
        self.needs_header
    }

    /// Whether an event may be selected, as far as its header is not asked.
    pub(crate) fn may_select(&self, candidate: &Candidate) -> bool {
        let Selection { studies, calling_aes, tenant, .. } = &self.selection;
        let event = &candidate.event;
        let calling = event.receipt.as_ref().map(|receipt| receipt.calling_ae_title.as_str()).unwrap_or_default();
        (studies.is_empty() || studies.contains(&event.study_instance_uid))
            && (calling_aes.is_empty() || calling_aes.iter().any(|title| title == calling))
            && *tenant == event.tenant
    }

    /// Whether an event is selected that may be. `header` is its header, if it is wanted.
    ///
    /// # Errors
    /// The expression has no truth value for it.
    pub(crate) fn selects(&self, candidate: &Candidate, header: &[u8]) -> Result<bool, FilterError> {
        let header = Header::new(header);
        let set = header.text(tags::SPECIFIC_CHARACTER_SET).unwrap_or_default();
        let assumed = candidate.event.sender_profile.as_ref().map(|profile| profile.default_character_set.as_bytes());
        let (default, _) = CharacterSet::parse(assumed.unwrap_or_default(), CharacterSet::DEFAULT);
        let (set, _) = CharacterSet::parse(set, default);
        let text = |tag, vr| set.decode(vr, header.text(tag).unwrap_or_default()).text.trim().to_owned();
        let modalities = &self.selection.modalities;
        if !modalities.is_empty() && !modalities.contains(&text(tags::MODALITY, Vr::CS)) {
            return Ok(false);
        }
        if self.program.is_none() {
            return Ok(true);
        }
        let event = &candidate.event;
        let receipt = event.receipt.clone().unwrap_or_default();
        let issuer = event.sender_profile.as_ref().map(|profile| profile.issuer_of_patient_id.clone());
        let size = event.object.as_ref().map_or(0, |object| i64::try_from(object.length_bytes).unwrap_or(i64::MAX));
        let mut context = cel::Context::default();
        for (name, value) in [
            ("study_uid", event.study_instance_uid.clone()),
            ("series_uid", event.series_instance_uid.clone()),
            ("sop_uid", event.sop_instance_uid.clone()),
            ("sop_class", event.sop_class_uid.clone()),
            ("transfer_syntax", event.transfer_syntax_uid.clone()),
            ("calling_ae", receipt.calling_ae_title),
            ("called_ae", receipt.called_ae_title),
            ("stored_at", rfc3339(candidate.stored_at_ms)),
            ("issuer", issuer.unwrap_or_default()),
        ] {
            context.add_variable_from_value(name, value);
        }
        for (name, tag, vr) in OF_HEADER {
            context.add_variable_from_value(name, text(tag, vr));
        }
        context.add_variable_from_value("size", size);
        self.holds(&context)
    }

    fn holds(&self, context: &cel::Context<'_, '_>) -> Result<bool, FilterError> {
        let Some(program) = &self.program else { return Ok(true) };
        match program.execute(context) {
            Ok(cel::Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err(FilterError("it is neither true nor false".into())),
            // Other errors may show the value of a variable, which may be a patient's.
            Err(cel::ExecutionError::UndeclaredReference(name)) => {
                let known: Vec<_> = VARIABLES.iter().map(|(name, _)| *name).collect();
                Err(FilterError(format!("there is no {name}; there are {}", known.join(", "))))
            }
            Err(cel::ExecutionError::NoSuchOverload(overload)) => {
                Err(FilterError(format!("{} does not go with what it is applied to", overload.function())))
            }
            Err(_) => Err(FilterError("it can not be evaluated".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_archive::events::{Object, Receipt};

    fn candidate() -> Candidate {
        let event = InstanceStored {
            tenant: "default".into(),
            study_instance_uid: "1.2".into(),
            series_instance_uid: "1.2.1".into(),
            sop_instance_uid: "1.2.1.1".into(),
            object: Some(Object { length_bytes: 1000, ..Object::default() }),
            receipt: Some(Receipt { calling_ae_title: "CT1".into(), ..Receipt::default() }),
            ..InstanceStored::default()
        };
        let position = "main/1/3/9".parse().expect("valid");
        Candidate { position, stored_at_ms: 1_767_225_600_123, event: Box::new(event) }
    }

    /// Modality MR, Patient ID `Ä` in ISO_IR 100.
    const HEADER: &[u8] = b"\x08\0\x05\0CS\x0a\0ISO_IR 100\x08\0\x60\0CS\x02\0MR\x10\0\x20\0LO\x02\0\xc4 ";

    fn selects(selection: Selection) -> bool {
        let filter = Filter::new(Selection { tenant: "default".into(), ..selection }).expect("usable");
        filter.may_select(&candidate()) && filter.selects(&candidate(), HEADER).expect("a truth value")
    }

    fn by(expression: &str) -> bool {
        selects(Selection { expression: Some(expression.into()), ..Selection::default() })
    }

    #[test]
    fn kinds_restrict_each_other_and_an_expression_sees_its_variables() {
        assert!(selects(Selection::default()));
        assert!(selects(Selection { studies: vec!["9".into(), "1.2".into()], ..Selection::default() }));
        assert!(!selects(Selection { studies: vec!["9".into()], ..Selection::default() }));
        assert!(selects(Selection {
            modalities: vec!["MR".into()],
            calling_aes: vec!["CT1".into()],
            ..Selection::default()
        }));
        assert!(!selects(Selection {
            modalities: vec!["MR".into()],
            calling_aes: vec!["X".into()],
            ..Selection::default()
        }));
        assert!(by("size > 999 && modality == 'MR' && calling_ae.startsWith('CT')"));
        assert!(by("patient_id == 'Ä' && stored_at < '2026-01-02' && stored_at > '2026'"));
        assert!(!by("modality in ['CT', 'PT'] || study_uid == ''"));
    }

    #[test]
    fn an_expression_that_can_not_be_used_is_refused_before_anything_is_sent() {
        for bad in ["size >", "colour == 'red'", "size", "size == 'large' + 1", "modality && true"] {
            let selection = Selection { expression: Some(bad.into()), ..Selection::default() };
            assert!(Filter::new(selection).is_err(), "{bad}");
        }
        let needs = |expression: &str| {
            let selection = Selection { expression: Some(expression.into()), ..Selection::default() };
            Filter::new(selection).expect("usable").needs_header()
        };
        assert!(needs("modality == 'CT'") && !needs("size > 1"));
    }
}
