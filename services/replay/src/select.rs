//! Which instances of the log are meant.

use cairn_archive::{
    Digest, Position,
    envelope::rfc3339,
    events::{InstanceProtected, InstanceStored},
};
use cairn_dicom::{CharacterSet, Tag, Uid, Vr, header::Header, tags};
use cairn_expression::{Expression, ExpressionError, Kind, Value, Variable};
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

const fn text(name: &'static str, meaning: &'static str) -> Variable {
    Variable { name, kind: Kind::Text, meaning }
}

/// Variables of an expression, and what each is.
pub const VARIABLES: &[Variable] = &[
    text("study_uid", "Study Instance UID"),
    text("series_uid", "Series Instance UID"),
    text("sop_uid", "SOP Instance UID"),
    text("sop_class", "SOP Class UID"),
    text("transfer_syntax", "Transfer Syntax UID, as stored"),
    Variable { name: "size", kind: Kind::Number, meaning: "bytes of the stored file (a number)" },
    text("calling_ae", "calling AE title"),
    text("called_ae", "called AE title"),
    text("stored_at", "when it was stored, as text: 2026-01-31T12:00:00.000Z"),
    text("issuer", "issuer of Patient ID that applies"),
    text("modality", "Modality"),
    text("patient_id", "Patient ID"),
    text("study_date", "Study Date, YYYYMMDD"),
    text("accession_number", "Accession Number"),
    text("station", "Station Name"),
    text("institution", "Institution Name"),
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

/// A selection, ready to be asked.
pub struct Filter {
    selection: Selection,
    expression: Option<Expression>,
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
    pub fn new(selection: Selection) -> Result<Self, ExpressionError> {
        let compile = |text| Expression::compile(text, VARIABLES);
        let expression = selection.expression.as_deref().map(compile).transpose()?;
        let of_header = |expression: &Expression| OF_HEADER.iter().any(|(name, _, _)| expression.uses(name));
        let needs_header = !selection.modalities.is_empty() || expression.as_ref().is_some_and(of_header);
        Ok(Self { selection, expression, needs_header })
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
    pub(crate) fn selects(&self, candidate: &Candidate, header: &[u8]) -> Result<bool, ExpressionError> {
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
        let Some(expression) = &self.expression else { return Ok(true) };
        let event = &candidate.event;
        let receipt = event.receipt.clone().unwrap_or_default();
        let profile = event.sender_profile.clone().unwrap_or_default();
        let size = event.object.as_ref().map_or(0, |object| i64::try_from(object.length_bytes).unwrap_or(i64::MAX));
        expression.holds(|variable| {
            Value::Text(match variable.name {
                "size" => return Value::Number(size),
                "study_uid" => event.study_instance_uid.clone(),
                "series_uid" => event.series_instance_uid.clone(),
                "sop_uid" => event.sop_instance_uid.clone(),
                "sop_class" => event.sop_class_uid.clone(),
                "transfer_syntax" => event.transfer_syntax_uid.clone(),
                "calling_ae" => receipt.calling_ae_title.clone(),
                "called_ae" => receipt.called_ae_title.clone(),
                "stored_at" => rfc3339(candidate.stored_at_ms),
                "issuer" => profile.issuer_of_patient_id.clone(),
                name => match OF_HEADER.into_iter().find(|(known, _, _)| *known == name) {
                    Some((_, tag, vr)) => text(tag, vr),
                    None => return Value::Unknown,
                },
            })
        })
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
