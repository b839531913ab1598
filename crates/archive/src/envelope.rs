//! CloudEvents 1.0, binary mode: what travels in headers beside a payload, on every adapter.
//!
//! Small and ours, because a reader too old for a payload must still know which study it is about and which objects
//! it keeps alive.

pub mod compact;

use crate::{
    hlc::Hlc,
    ids::{EventId, IdError, ObjectKey, SiteId},
    position::Position,
};
use std::borrow::Cow;

/// What every event carries besides its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// `ce_id`: minted once, kept across retries and sites.
    pub id: EventId,
    /// `ce_type`, such as `cairn.instance.stored.v1`.
    pub kind: Cow<'static, str>,
    /// `ce_source`: the site at which it became a fact, as `/sites/{site}`.
    pub site: SiteId,
    /// `ce_subject`: the study, as `studies/{uid}`.
    pub study_instance_uid: String,
    /// `ce_cairntenant`.
    pub tenant: String,
    /// `ce_cairnhlc`, which is also `ce_time`: when, in the order of events.
    pub hlc: Hlc,
    /// `ce_traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
    /// `ce_correlationid`: what it belongs to, such as a receipt.
    pub correlation_id: Option<String>,
    /// `ce_causationid`: the event that led to it.
    pub causation_id: Option<EventId>,
    /// `ce_cairnobjects`: every object that the event names.
    pub object_keys: Vec<ObjectKey>,
    /// `ce_cairnorigin`: where it stands in its origin's log, when this is a copy from another site.
    pub origin: Option<Position>,
}

/// Why headers are not an envelope. Names the header, never its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A required header is not there.
    #[error("event header {0} is missing")]
    Missing(&'static str),
    /// A header does not read as what it should be.
    #[error("event header {0} is malformed")]
    Malformed(&'static str),
}

impl Envelope {
    /// `ce_type` of the envelope that stands in for one which can't be read. No event is of this type.
    pub const UNREADABLE: &'static str = "cairn.unreadable";

    /// Stands in for the envelope of a record at `at`, taken at `at_ms`, that has none which can be read: its place in the
    /// log is not skipped, and it is parked there. The same place has the same id for everyone who reads it.
    pub fn unreadable(at: &Position, at_ms: u64) -> Self {
        let hash = blake3::derive_key("cairn event id of an unreadable record 1", at.to_string().as_bytes());
        let id =
            hash.first_chunk().map_or(uuid::Uuid::nil(), |first| uuid::Builder::from_custom_bytes(*first).into_uuid());
        Self {
            id: EventId(id),
            kind: Self::UNREADABLE.into(),
            site: at.site.clone(),
            study_instance_uid: String::new(),
            tenant: String::new(),
            hlc: Hlc { wall_ms: at_ms, counter: 0 },
            traceparent: None,
            correlation_id: None,
            causation_id: None,
            object_keys: Vec::new(),
            origin: None,
        }
    }

    /// The headers in a fixed order: names and text values.
    pub fn to_headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", self.id.to_string()),
            ("ce_type", self.kind.to_string()),
            ("ce_source", format!("/sites/{}", self.site)),
            ("ce_subject", format!("studies/{}", self.study_instance_uid)),
            ("ce_time", rfc3339(self.hlc.wall_ms)),
            ("ce_cairnhlc", self.hlc.to_string()),
            ("ce_cairntenant", self.tenant.clone()),
            ("content-type", "application/protobuf".to_owned()),
        ];
        let mut optional = |name, value: Option<String>| headers.extend(value.map(|value| (name, value)));
        optional("ce_traceparent", self.traceparent.clone());
        optional("ce_correlationid", self.correlation_id.clone());
        optional("ce_causationid", self.causation_id.map(|id| id.to_string()));
        let keys: Vec<_> = self.object_keys.iter().map(ObjectKey::to_string).collect();
        optional("ce_cairnobjects", (!keys.is_empty()).then(|| keys.join(",")));
        optional("ce_cairnorigin", self.origin.as_ref().map(Position::to_string));
        headers
    }

    /// Reads headers; unknown ones are passed over.
    pub fn from_headers<'a>(headers: impl Fn(&str) -> Option<&'a str>) -> Result<Self, EnvelopeError> {
        let required = |name: &'static str| headers(name).ok_or(EnvelopeError::Missing(name));
        let malformed = |name| EnvelopeError::Malformed(name);
        if required("ce_specversion")? != "1.0" {
            return Err(malformed("ce_specversion"));
        }
        let site = required("ce_source")?.strip_prefix("/sites/").ok_or(malformed("ce_source"))?;
        let study = required("ce_subject")?.strip_prefix("studies/").ok_or(malformed("ce_subject"))?;
        let keys = headers("ce_cairnobjects").unwrap_or_default();
        let keys: Result<Vec<ObjectKey>, IdError> =
            keys.split(',').filter(|key| !key.is_empty()).map(str::parse).collect();
        Ok(Self {
            id: parse(required("ce_id")?, "ce_id")?,
            kind: known_kind(required("ce_type")?),
            site: parse(site, "ce_source")?,
            study_instance_uid: study.to_owned(),
            tenant: required("ce_cairntenant")?.to_owned(),
            hlc: parse(required("ce_cairnhlc")?, "ce_cairnhlc")?,
            traceparent: headers("ce_traceparent").map(str::to_owned),
            correlation_id: headers("ce_correlationid").map(str::to_owned),
            causation_id: headers("ce_causationid").map(|id| parse(id, "ce_causationid")).transpose()?,
            object_keys: keys.map_err(|_| malformed("ce_cairnobjects"))?,
            origin: headers("ce_cairnorigin").map(|origin| parse(origin, "ce_cairnorigin")).transpose()?,
        })
    }
}

fn parse<T: std::str::FromStr>(text: &str, name: &'static str) -> Result<T, EnvelopeError> {
    text.parse().map_err(|_| EnvelopeError::Malformed(name))
}

fn known_kind(kind: &str) -> Cow<'static, str> {
    match crate::events::EVENT_TYPES.iter().find(|known| **known == kind) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(kind.to_owned()),
    }
}

/// RFC 3339 in UTC with milliseconds, by the proleptic Gregorian calendar.
pub fn rfc3339(unix_ms: u64) -> String {
    let (days, ms) = ((unix_ms / 86_400_000) as i64, unix_ms % 86_400_000);
    // Days since 0000-03-01 in eras of 400 years: leap days then fall at the end of each year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            id: "018f4d2e-9c3a-7000-8000-000000000001".parse().expect("valid"),
            kind: "cairn.instance.stored.v1".into(),
            site: "main".parse().expect("valid"),
            study_instance_uid: "1.2.3".into(),
            tenant: "default".into(),
            hlc: Hlc { wall_ms: 1_767_225_600_123, counter: 4 },
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            correlation_id: None,
            causation_id: None,
            object_keys: vec!["018f4d2e-9c3a-7000-8000-000000000002".parse().expect("valid")],
            origin: Some("other/1/3/9".parse().expect("valid")),
        }
    }

    #[test]
    fn headers_read_back() {
        let headers = envelope().to_headers();
        let find = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str());
        assert_eq!(Envelope::from_headers(find), Ok(envelope()));
        assert_eq!(find("ce_time"), Some("2026-01-01T00:00:00.123Z"));
    }

    #[test]
    fn a_missing_or_malformed_header_is_named_without_its_value() {
        let headers = envelope().to_headers();
        for (missing, _) in
            headers.iter().filter(|(n, _)| matches!(*n, "ce_id" | "ce_type" | "ce_subject" | "ce_cairnhlc"))
        {
            let find = |name: &str| headers.iter().find(|(n, _)| n == &name && n != missing).map(|(_, v)| v.as_str());
            assert_eq!(Envelope::from_headers(find), Err(EnvelopeError::Missing(missing)));
        }
    }

    #[test]
    fn what_stands_in_for_an_unreadable_one_is_of_its_place_alone() {
        let at = |text: &str| Envelope::unreadable(&text.parse().expect("valid"), 7);
        assert_eq!(at("main/1/3/9"), at("main/1/3/9"));
        assert_ne!(at("main/1/3/9").id, at("main/1/3/10").id);
        assert!(!crate::events::EVENT_TYPES.contains(&Envelope::UNREADABLE));
        let headers = at("main/1/3/9").to_headers();
        let find = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str());
        assert_eq!(Envelope::from_headers(find), Ok(at("main/1/3/9")), "it can be passed on");
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(rfc3339(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }
}
