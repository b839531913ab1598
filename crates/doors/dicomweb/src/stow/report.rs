use crate::{
    multipart::BodyError,
    problem::{Answer, Problem, json_string, status_of},
    request::{Address, CONFIRMED_SITES, PathUids, READ_AFTER},
};
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use cairn_archive::PositionVector;
use cairn_dicom::Uid;
use cairn_service_api::{
    Error, ErrorKind, Reason,
    ingest::{StoreOutcome, Stored},
};
use std::{fmt::Write, time::Duration};

/// Failure Reason (PS3.18 Table I.2-2, PS3.4 Table B.2-1, edition 2025c); those in the Cxxx range beyond C000 and C122
/// are ours and the same as in C-STORE.
mod reason {
    pub(super) const OUT_OF_RESOURCES: u16 = 0xA700;
    pub(super) const DOES_NOT_MATCH: u16 = 0xA900;
    pub(super) const CANNOT_UNDERSTAND: u16 = 0xC000;
    pub(super) const BAD_IDENTIFIER: u16 = 0xC001;
    pub(super) const TOO_LARGE: u16 = 0xC003;
    pub(super) const CONFLICT_REFUSED: u16 = 0xC004;
    pub(super) const TRANSFER_SYNTAX: u16 = 0xC122;
    pub(super) const PROCESSING_FAILURE: u16 = 0x0110;
    pub(super) const NOT_AUTHORIZED: u16 = 0x0124;
}

/// Warning Reason: coercion of data elements, which is what C-STORE answers too when another version is there.
const WARNING: u16 = 0xB000;

/// Why one instance was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    reason: u16,
    /// Status of a request in which every instance failed like this.
    status: StatusCode,
    text: String,
}

impl Failure {
    pub(super) fn of(error: &Error) -> Self {
        let reason = match (error.kind, error.reason) {
            (_, Reason::TooLarge) => reason::TOO_LARGE,
            (_, Reason::DoesNotMatch) => reason::DOES_NOT_MATCH,
            (_, Reason::BadIdentifier) => reason::BAD_IDENTIFIER,
            (_, Reason::TransferSyntax) => reason::TRANSFER_SYNTAX,
            (ErrorKind::Conflict, _) => reason::CONFLICT_REFUSED,
            (ErrorKind::Exhausted | ErrorKind::Unavailable, _) => reason::OUT_OF_RESOURCES,
            (ErrorKind::Denied, _) => reason::NOT_AUTHORIZED,
            (ErrorKind::Invalid | ErrorKind::Aborted, _) => reason::CANNOT_UNDERSTAND,
            _ => reason::PROCESSING_FAILURE,
        };
        // An instance that can't be taken as it is makes a conflict, not a bad request.
        let status = match status_of(error) {
            StatusCode::BAD_REQUEST | StatusCode::NOT_ACCEPTABLE => StatusCode::CONFLICT,
            StatusCode::TOO_MANY_REQUESTS => StatusCode::SERVICE_UNAVAILABLE,
            other => other,
        };
        // The fault itself is in the log; the client can do nothing with it.
        let text = match error.kind {
            ErrorKind::Internal | ErrorKind::Corrupt => {
                tracing::error!(%error, "an instance could not be stored");
                "an internal error occurred".to_owned()
            }
            _ => error.message.clone(),
        };
        Self { reason, status, text }
    }

    pub(super) fn unsupported_part() -> Self {
        Self {
            reason: reason::CANNOT_UNDERSTAND,
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            text: "the part is not application/dicom".into(),
        }
    }
}

/// What became of a request's instances: the Store Instances Response Module (PS3.18 section I.2, edition 2025c).
pub(super) struct Report {
    address: Address,
    target: PathUids,
    referenced: Vec<(u32, String)>,
    failed: Vec<(u32, String)>,
    unidentified: Vec<(u32, String)>,
    oversized: Vec<u32>,
    warnings: bool,
    statuses: Vec<StatusCode>,
    positions: PositionVector,
    /// The least number of other sites that hold any of the instances stored.
    confirmed_sites: Option<u32>,
    bytes: usize,
}

impl Report {
    pub(super) fn new(address: Address, target: PathUids) -> Self {
        Self {
            address,
            target,
            referenced: Vec::new(),
            failed: Vec::new(),
            unidentified: Vec::new(),
            oversized: Vec::new(),
            warnings: false,
            statuses: Vec::new(),
            positions: PositionVector::default(),
            confirmed_sites: None,
            bytes: 0,
        }
    }

    /// Bytes that the answer has so far, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// This instance went over the bound; whatever ingest says of it, that is why.
    pub(super) fn oversized(&mut self, number: u32) {
        self.oversized.push(number);
    }

    pub(super) fn stored(&mut self, number: u32, stored: &Stored) {
        [&stored.position].into_iter().chain(&stored.rejections).for_each(|at| self.positions.include(at));
        let least = self.confirmed_sites.unwrap_or(u32::MAX);
        self.confirmed_sites = Some(least.min(stored.confirmed_sites));
        crate::metrics::instance(match stored.outcome {
            StoreOutcome::New => "stored",
            StoreOutcome::Repeat => "repeated",
            StoreOutcome::Conflict { .. } | StoreOutcome::ElsewhereToo => "conflict",
        });
        let uids = PathUids {
            study: Some(stored.study_instance_uid.clone()),
            series: Some(stored.series_instance_uid.clone()),
            instance: Some(stored.sop_instance_uid.clone()),
        };
        let mut item = identity_json(&stored.sop_class_uid, &stored.sop_instance_uid);
        write_element(&mut item, "00081190", "UR", &[json_string(&self.address.retrieve_url(&uids))]);
        let comment = match stored.outcome {
            StoreOutcome::New | StoreOutcome::Repeat => None,
            StoreOutcome::Conflict { shown: true } => Some("another version is there; this one is shown"),
            StoreOutcome::Conflict { shown: false } => Some("another version is there; it stays the one shown"),
            StoreOutcome::ElsewhereToo => Some("the same SOP Instance UID is in another study or series too"),
        };
        if comment.is_some() {
            self.warnings = true;
            write_element(&mut item, "00081196", "US", &[WARNING.to_string()]);
        }
        let findings = stored.findings.iter().map(|(code, tag)| format!("{code} {tag}"));
        let texts: Vec<_> = comment.into_iter().map(str::to_owned).chain(findings).collect();
        write_comments(&mut item, &texts);
        self.add(|report| &mut report.referenced, number, item);
    }

    /// `identity`: SOP Class and SOP Instance UID, where the bytes said them.
    pub(super) fn refused(&mut self, number: u32, failure: Failure, identity: Option<(Uid, Uid)>) {
        let failure = match self.oversized.contains(&number) {
            true => Failure::of(&Error::because(ErrorKind::Invalid, Reason::TooLarge, "the instance is too large")),
            false => failure,
        };
        crate::metrics::instance("refused");
        if !self.statuses.contains(&failure.status) {
            self.statuses.push(failure.status);
        }
        let mut item = identity.as_ref().map(|(class, instance)| identity_json(class, instance)).unwrap_or_default();
        write_element(&mut item, "00081197", "US", &[failure.reason.to_string()]);
        write_comments(&mut item, &[failure.text]);
        match identity {
            Some(_) => self.add(|report| &mut report.failed, number, item),
            None => self.add(|report| &mut report.unidentified, number, item),
        }
    }

    fn add(&mut self, list: impl Fn(&mut Self) -> &mut Vec<(u32, String)>, number: u32, item: String) {
        self.bytes += item.len() + 32;
        list(self).push((number, item));
    }

    /// The answer; `read` says whether the body was read to its end.
    pub(super) fn into_answer(
        mut self,
        read: Result<(), BodyError>,
        media_type: &'static str,
        retry_after: Duration,
    ) -> Answer {
        let any_stored = !self.referenced.is_empty();
        if let Err(error) = read {
            let problem = Problem::from(error);
            if !any_stored {
                return Err(problem);
            }
            // Something was stored, so the client must learn what: the broken rest is one failure more.
            let failure = Failure { reason: reason::CANNOT_UNDERSTAND, status: problem.status, text: problem.detail };
            self.refused(u32::MAX, failure, None);
        }
        let any_failed = !self.failed.is_empty() || !self.unidentified.is_empty();
        let status = match (any_stored, self.statuses.as_slice()) {
            (true, _) if any_failed || self.warnings => StatusCode::ACCEPTED,
            (true, _) => StatusCode::OK,
            (false, [only]) => *only,
            (false, _) => StatusCode::CONFLICT,
        };
        let (positions, confirmed_sites) = (self.positions.to_string(), self.confirmed_sites);
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
        }
        if let (true, Ok(token)) = (any_stored, HeaderValue::try_from(positions)) {
            headers.insert(READ_AFTER, token);
        }
        if let Some(sites) = confirmed_sites {
            headers.insert(CONFIRMED_SITES, HeaderValue::from(sites));
        }
        Ok(response)
    }

    fn json(mut self) -> String {
        let mut json = String::with_capacity(self.bytes + 256);
        if self.target.study.is_some() {
            write_element(&mut json, "00081190", "UR", &[json_string(&self.address.retrieve_url(&self.target))]);
        }
        let lists =
            [("00081198", &mut self.failed), ("00081199", &mut self.referenced), ("0008119A", &mut self.unidentified)];
        for (tag, items) in lists {
            if !items.is_empty() {
                items.sort_by_key(|(number, _)| *number);
                let items: Vec<_> = std::mem::take(items).into_iter().map(|(_, item)| format!("{{{item}}}")).collect();
                write_element(&mut json, tag, "SQ", &items);
            }
        }
        format!("{{{json}}}")
    }
}

fn identity_json(class: &Uid, instance: &Uid) -> String {
    let mut item = String::with_capacity(512);
    write_element(&mut item, "00081150", "UI", &[json_string(class.as_str())]);
    write_element(&mut item, "00081155", "UI", &[json_string(instance.as_str())]);
    item
}

/// Free text on one instance, in a private block: the module has no element for it.
fn write_comments(item: &mut String, texts: &[String]) {
    if !texts.is_empty() {
        write_element(item, "00990010", "LO", &[json_string("CAIRN")]);
        write_element(item, "00991001", "UC", &texts.iter().map(|text| json_string(text)).collect::<Vec<_>>());
    }
}

/// Adds one attribute in the DICOM JSON Model (PS3.18 section F.2).
fn write_element(json: &mut String, tag: &str, vr: &str, values: &[String]) {
    let comma = if json.is_empty() { "" } else { "," };
    // Writing to a String can't fail.
    let _ = write!(json, "{comma}\"{tag}\":{{\"vr\":\"{vr}\",\"Value\":[{}]}}", values.join(","));
}
