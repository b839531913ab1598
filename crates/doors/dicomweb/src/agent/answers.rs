//! Answers in the DICOM JSON Model (PS3.18 annex F), as far as a user agent needs them.

use super::AgentError;
use cairn_dicom::{Tag, Uid, tags};
use serde_json::{Map, Value};

/// One answer of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Found(Map<String, Value>);

impl Found {
    /// The first value of an attribute as text; `None` when there is none.
    pub fn text(&self, tag: Tag) -> Option<String> {
        match values(&self.0, tag).first()? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The first value of an attribute as UID.
    pub fn uid(&self, tag: Tag) -> Option<Uid> {
        self.text(tag)?.parse().ok()
    }
}

fn values(object: &Map<String, Value>, tag: Tag) -> &[Value] {
    let attribute = object.get(&format!("{:08X}", tag.0));
    let values = attribute.and_then(|attribute| attribute.get("Value")).and_then(Value::as_array);
    values.map(Vec::as_slice).unwrap_or_default()
}

/// How the server answered for one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StowAnswer {
    /// It is stored; with the Warning Reason (0008,1196) if there is one.
    Stored(Option<u16>),
    /// It is not: Failure Reason (0008,1197), or the HTTP status where the answer has none.
    Refused(u16),
}

/// Reads the Store Instances Response Module (PS3.18 section I.2). Servers leave out much of it.
pub(super) fn read_store_answer(status: u16, body: &[u8]) -> Result<StowAnswer, AgentError> {
    let module = match serde_json::from_slice(body) {
        Ok(Value::Object(module)) => module,
        // Older servers give a list of one.
        Ok(Value::Array(mut list)) => match list.pop() {
            Some(Value::Object(module)) => module,
            _ => Map::new(),
        },
        _ => Map::new(),
    };
    let reason = |sequence, tag| {
        let item = values(&module, sequence).first().and_then(Value::as_object)?;
        values(item, tag).first().and_then(Value::as_u64).and_then(|reason| u16::try_from(reason).ok())
    };
    let is_in = |sequence| !values(&module, sequence).is_empty();
    if is_in(tags::FAILED_SOP_SEQUENCE) {
        return Ok(StowAnswer::Refused(reason(tags::FAILED_SOP_SEQUENCE, tags::FAILURE_REASON).unwrap_or(status)));
    }
    match status {
        200 => Ok(StowAnswer::Stored(reason(tags::REFERENCED_SOP_SEQUENCE, tags::WARNING_REASON))),
        202 if is_in(tags::REFERENCED_SOP_SEQUENCE) => {
            Ok(StowAnswer::Stored(Some(reason(tags::REFERENCED_SOP_SEQUENCE, tags::WARNING_REASON).unwrap_or(0xB000))))
        }
        // Nothing says that it was stored.
        202 | 400 | 406 | 409 | 413 | 415 | 422 => Ok(StowAnswer::Refused(status)),
        _ => Err(AgentError::Status(status)),
    }
}

pub(super) fn read_search(body: &[u8]) -> Result<Vec<Found>, AgentError> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let found: Vec<Map<String, Value>> = serde_json::from_slice(body)
        .map_err(|_| AgentError::Unusable("an answer is not a list of DICOM JSON objects"))?;
    Ok(found.into_iter().map(Found).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_an_instance_is_read_from_what_servers_say() {
        let read = |status, body: &str| read_store_answer(status, body.as_bytes());
        let stored = r#"{"00081199":{"vr":"SQ","Value":[{"00081155":{"vr":"UI","Value":["1.2"]}}]}}"#;
        assert!(matches!(read(200, stored), Ok(StowAnswer::Stored(None))));
        let warned = r#"{"00081199":{"vr":"SQ","Value":[{"00081196":{"vr":"US","Value":[45056]}}]}}"#;
        assert!(matches!(read(202, warned), Ok(StowAnswer::Stored(Some(0xB000)))));
        let failed = r#"{"00081198":{"vr":"SQ","Value":[{"00081197":{"vr":"US","Value":[43264]}}]}}"#;
        assert!(matches!(read(409, failed), Ok(StowAnswer::Refused(0xA900))));
        assert!(matches!(read(202, "{}"), Ok(StowAnswer::Refused(202))), "nothing says that it was stored");
        assert!(matches!(read(415, "no JSON"), Ok(StowAnswer::Refused(415))));
        assert!(matches!(read(503, ""), Err(error) if error.is_passing()));
        assert!(matches!(read(401, ""), Err(error) if !error.is_passing()));
    }
}
