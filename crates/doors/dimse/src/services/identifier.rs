//! Identifiers of queries and retrievals (PS3.4 sections C.4 and C.6).

use super::status;
use crate::{Association, AssociationError, Message, Status, negotiate::QueryRoot};
use cairn_archive::rejection::Titles;
use cairn_dicom::{
    CharacterSet, Tag, Uid,
    dataset::{DataSet, DecodeLimits, Value},
    tags,
};
use cairn_service_api::{
    Error, ErrorKind, Reason,
    index::{Level, Selection},
};

/// An identifier as received.
pub(super) struct Identifier {
    pub(super) level: Level,
    /// Without Query/Retrieve Level, Specific Character Set, group lengths and other elements that are no keys.
    pub(super) keys: DataSet,
    /// In which the request's text was, and answers should be.
    pub(super) character_set: CharacterSet,
}

/// Why an identifier can't be used.
pub(super) struct Unusable {
    pub(super) status: Status,
    pub(super) error: Error,
}

fn mismatch(tag: Tag, message: &str) -> Unusable {
    let error = Error::because(ErrorKind::Invalid, Reason::DoesNotMatch, message).about(tag);
    Unusable { status: Status::DOES_NOT_MATCH_SOP_CLASS, error }
}

/// Receives the identifier of a request and reads it.
pub(super) async fn receive(
    association: &mut Association,
    message: &Message,
    root: QueryRoot,
    bytes_max: usize,
    default: CharacterSet,
) -> Result<Result<Identifier, Unusable>, AssociationError> {
    if !message.command.has_data_set {
        return Ok(Err(mismatch(tags::QUERY_RETRIEVE_LEVEL, "request without an identifier")));
    }
    let Some(bytes) = association.data_within(bytes_max).await? else {
        let error = Error::because(ErrorKind::Invalid, Reason::TooLarge, "identifier is too large");
        return Ok(Err(Unusable { status: status::own::TOO_LARGE, error }));
    };
    let encoding = message.context.transfer_syntax.encoding;
    let limits = DecodeLimits { elements_max: 1 << 16, ..DecodeLimits::default() };
    let keys = match DataSet::decode(&bytes, encoding, default, &limits) {
        Ok((keys, _)) => keys,
        Err(error) => {
            let error = Error::because(ErrorKind::Invalid, Reason::CannotUnderstand, error.to_string());
            return Ok(Err(Unusable { status: Status::CANNOT_UNDERSTAND, error }));
        }
    };
    Ok(read(keys, root, default))
}

fn read(mut keys: DataSet, root: QueryRoot, default: CharacterSet) -> Result<Identifier, Unusable> {
    let level = match keys.text(tags::QUERY_RETRIEVE_LEVEL) {
        Some("PATIENT") if root != QueryRoot::Study => Level::Patient,
        Some("STUDY") => Level::Study,
        Some("SERIES") if root != QueryRoot::PatientStudyOnly => Level::Series,
        Some("IMAGE") if root != QueryRoot::PatientStudyOnly => Level::Instance,
        _ => return Err(mismatch(tags::QUERY_RETRIEVE_LEVEL, "query/retrieve level is not one of the SOP Class")),
    };
    let term = keys.texts(tags::SPECIFIC_CHARACTER_SET).join("\\");
    let (character_set, _) = CharacterSet::parse(term.as_bytes(), default);
    for no_key in [tags::QUERY_RETRIEVE_LEVEL, tags::SPECIFIC_CHARACTER_SET, tags::QUERY_RETRIEVE_VIEW] {
        keys.remove(no_key);
    }
    let keys = keys.elements().iter().filter(|element| !element.tag.is_group_length()).cloned().collect();
    Ok(Identifier { level, keys, character_set })
}

/// The unique key of a level (PS3.4 section C.6.1.1).
pub(super) fn unique_key(level: Level) -> Tag {
    match level {
        Level::Patient => tags::PATIENT_ID,
        Level::Study => tags::STUDY_INSTANCE_UID,
        Level::Series => tags::SERIES_INSTANCE_UID,
        Level::Instance => tags::SOP_INSTANCE_UID,
    }
}

/// Levels above `level` in the information model, from the top.
fn levels_above(root: QueryRoot, level: Level) -> impl Iterator<Item = Level> {
    let top = if root == QueryRoot::Study { Level::Study } else { Level::Patient };
    [Level::Patient, Level::Study, Level::Series].into_iter().filter(move |above| *above >= top && *above < level)
}

impl Identifier {
    /// Without relational queries every level above must be named by one value of its unique key (PS3.4 sections
    /// C.4.1.2.1 and C.4.2.2.1).
    pub(super) fn check_hierarchy(&self, root: QueryRoot) -> Result<(), Unusable> {
        for above in levels_above(root, self.level) {
            let tag = unique_key(above);
            match self.keys.texts(tag) {
                [one] if !one.is_empty() && !one.contains(['*', '?']) => {}
                _ => return Err(mismatch(tag, "unique key of a level above is not a single value")),
            }
        }
        Ok(())
    }

    /// The instances that a retrieval asks for.
    ///
    /// Keys other than unique ones are not looked at (PS3.4 section C.4.2.1.4).
    pub(super) fn selection(&self, tenant: &str, sees_rejected: Titles) -> Result<Selection, Unusable> {
        let mut selection = Selection { tenant: tenant.to_owned(), sees_rejected, ..Selection::default() };
        if self.keys.text(unique_key(self.level)).is_none() {
            return Err(mismatch(unique_key(self.level), "unique key of the level has no value"));
        }
        selection.studies = self.uids(Level::Study)?;
        selection.series = self.uids(Level::Series)?;
        selection.instances = self.uids(Level::Instance)?;
        if let Some(id) = self.keys.text(tags::PATIENT_ID) {
            if id.contains(['*', '?']) || self.keys.texts(tags::PATIENT_ID).len() > 1 {
                return Err(mismatch(tags::PATIENT_ID, "patient ID is not a single value"));
            }
            let issuer = self.keys.text(tags::ISSUER_OF_PATIENT_ID).map(str::to_owned);
            selection.patient = Some((id.to_owned(), issuer));
        }
        Ok(selection)
    }

    /// The UIDs given for a level at or above the request's; what is below says nothing.
    fn uids(&self, level: Level) -> Result<Vec<Uid>, Unusable> {
        let tag = unique_key(level);
        if level > self.level {
            return Ok(Vec::new());
        }
        let texts = self.keys.texts(tag).iter().filter(|text| !text.is_empty());
        let uids = texts.map(|text| text.parse().map_err(|_| mismatch(tag, "value is not a UID")));
        uids.collect()
    }

    /// Whether an answer lacks a key that was asked for: it is not supported (status FF01).
    pub(super) fn lacks(&self, answer: &DataSet) -> bool {
        self.keys.elements().iter().any(|key| answer.get(key.tag).is_none() && !filled_by_door(key.tag))
    }

    /// Makes a key a return key alone.
    pub(super) fn empty(&mut self, tag: Tag) {
        if let Some(vr) = self.keys.get(tag).map(|element| element.vr) {
            self.keys.put(tag, vr, Value::Empty);
        }
    }
}

/// Elements that the door puts in each answer itself.
pub(super) fn filled_by_door(tag: Tag) -> bool {
    tag == tags::RETRIEVE_AE_TITLE
}

/// The name of a level in (0008,0052).
pub(super) fn level_name(level: Level) -> &'static str {
    match level {
        Level::Patient => "PATIENT",
        Level::Study => "STUDY",
        Level::Series => "SERIES",
        Level::Instance => "IMAGE",
    }
}
