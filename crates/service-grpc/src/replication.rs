//! What sites ask of each other, and operators of replication, as messages and back.

use crate::{
    convert::{copied, event_id, handed_key, object_from, object_to, position_from, position_to},
    error::malformed,
    replication_proto as pb,
};
use cairn_archive::{Incarnation, ObjectKey, Offset, Partition, Position, SiteId, envelope::Envelope};
use cairn_service_api::{
    Error, ErrorKind,
    replication::{
        AtRisk, Delivered, Delivery, Held, Inspected, Introduction, Link, Mark, Meeting, Outcome, PeerStatus,
        ReplicationStatus, Report, Risk, Suspects,
    },
    schedule::{Rule, Schedule},
};
use cairn_store_api::{HandedKey, Record};
use std::time::Duration;

pub(crate) fn site(name: &str) -> Result<SiteId, Error> {
    name.parse().map_err(|_| malformed("site"))
}

fn partition(number: u32) -> Result<Partition, Error> {
    number.try_into().map(Partition).map_err(|_| malformed("partition"))
}

fn partitions(count: u32) -> Result<u16, Error> {
    count.try_into().map_err(|_| malformed("number of partitions"))
}

fn mark_to(mark: &Mark) -> pb::Mark {
    let Mark { site, incarnation, partition, end, last } = mark;
    let end = Position { site: site.clone(), incarnation: *incarnation, partition: *partition, offset: *end };
    pb::Mark { end: Some(position_to(&end)), last_event_id: copied(last.as_bytes()) }
}

fn mark_from(mark: pb::Mark) -> Result<Mark, Error> {
    let end = position_from(mark.end.ok_or_else(|| malformed("position"))?)?;
    let Position { site, incarnation, partition, offset } = end;
    Ok(Mark { site, incarnation, partition, end: offset, last: event_id(&mark.last_event_id)? })
}

pub(crate) fn introduction_to(caller: &Introduction) -> pb::MeetRequest {
    pb::MeetRequest {
        site: caller.site.to_string(),
        incarnation: caller.incarnation.0,
        partitions: caller.partitions.into(),
        marks: caller.marks.iter().map(mark_to).collect(),
    }
}

pub(crate) fn introduction_from(request: pb::MeetRequest) -> Result<Introduction, Error> {
    Ok(Introduction {
        site: site(&request.site)?,
        incarnation: Incarnation(request.incarnation),
        partitions: partitions(request.partitions)?,
        marks: request.marks.into_iter().map(mark_from).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn meeting_to(meeting: &Meeting) -> pb::MeetResponse {
    pb::MeetResponse {
        process: meeting.process,
        site: meeting.site.to_string(),
        incarnation: meeting.incarnation.0,
        partitions: meeting.partitions.into(),
        holds: meeting.holds.iter().map(mark_to).collect(),
        strayed: meeting.strayed.iter().map(|partition| partition.0.into()).collect(),
    }
}

pub(crate) fn meeting_from(response: pb::MeetResponse) -> Result<Meeting, Error> {
    Ok(Meeting {
        process: response.process,
        site: site(&response.site)?,
        incarnation: Incarnation(response.incarnation),
        partitions: partitions(response.partitions)?,
        holds: response.holds.into_iter().map(mark_from).collect::<Result<_, _>>()?,
        strayed: response.strayed.into_iter().map(partition).collect::<Result<_, _>>()?,
    })
}

fn object_key(bytes: &[u8]) -> Result<ObjectKey, Error> {
    ObjectKey::from_slice(bytes).map_err(|_| malformed("object key"))
}

fn event_to(record: Record) -> pb::Event {
    let header = |(name, value): (&str, String)| pb::Header { name: name.to_owned(), value };
    let headers = record.envelope.to_headers().into_iter().map(header).collect();
    pb::Event { headers, payload: record.payload }
}

fn event_from(event: pb::Event) -> Result<Record, Error> {
    let find = |name: &str| event.headers.iter().find(|header| header.name == name).map(|header| header.value.as_str());
    let envelope = Envelope::from_headers(find).map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?;
    Ok(Record { envelope, payload: event.payload })
}

pub(crate) fn delivery_to(delivery: Delivery) -> pb::AppendRequest {
    pb::AppendRequest {
        process: delivery.process,
        site: delivery.site.to_string(),
        incarnation: delivery.incarnation.0,
        partition: delivery.partition.0.into(),
        from: delivery.from.0,
        to: delivery.to.0,
        events: delivery.records.into_iter().map(event_to).collect(),
        erased_object_keys: delivery.erased.iter().map(|key| copied(key.as_bytes())).collect(),
        keys: delivery.keys.iter().map(key_to).collect(),
    }
}

fn key_to(key: &HandedKey) -> pb::Key {
    let bytes = key.bytes.as_ref().map(|bytes| copied(&bytes.0)).unwrap_or_default();
    pb::Key { id: copied(key.id.as_bytes()), bytes }
}

pub(crate) fn delivery_from(request: pb::AppendRequest) -> Result<Delivery, Error> {
    Ok(Delivery {
        process: request.process,
        site: site(&request.site)?,
        incarnation: Incarnation(request.incarnation),
        partition: partition(request.partition)?,
        from: Offset(request.from),
        to: Offset(request.to),
        records: request.events.into_iter().map(event_from).collect::<Result<_, _>>()?,
        erased: request.erased_object_keys.iter().map(|key| object_key(key)).collect::<Result<_, _>>()?,
        keys: request.keys.iter().map(|key| handed_key(&key.id, &key.bytes)).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn delivered_to(delivered: &Delivered) -> pb::AppendResponse {
    pb::AppendResponse { repeated_events: delivered.repeated }
}

pub(crate) fn delivered_from(response: pb::AppendResponse) -> Result<Delivered, Error> {
    Ok(Delivered { repeated: response.repeated_events })
}

fn risk_to(risk: &Risk) -> pb::Risk {
    let Risk { events, instances, bytes, oldest_ms } = *risk;
    pb::Risk { events, instances, bytes, oldest_ms }
}

/// Never read as nothing when it is not there: no risk is what a peer has to say.
fn risk_from(risk: Option<pb::Risk>) -> Result<Risk, Error> {
    let pb::Risk { events, instances, bytes, oldest_ms } = risk.ok_or_else(|| malformed("risk"))?;
    Ok(Risk { events, instances, bytes, oldest_ms })
}

/// `process`: the one that was met; 0 where it is told on.
pub(crate) fn report_to(process: u64, report: &Report) -> pb::TellRequest {
    pb::TellRequest { site: report.site.to_string(), at_ms: report.at_ms, risk: Some(risk_to(&report.risk)), process }
}

pub(crate) fn report_from(request: pb::TellRequest) -> Result<Report, Error> {
    Ok(Report { site: site(&request.site)?, at_ms: request.at_ms, risk: risk_from(request.risk)? })
}

fn link_to(link: &Link) -> (pb::Link, String) {
    match link {
        Link::Connecting => (pb::Link::Connecting, String::new()),
        Link::Up => (pb::Link::Up, String::new()),
        Link::Paused => (pb::Link::Paused, String::new()),
        Link::Failing(why) => (pb::Link::Failing, why.clone()),
        Link::Refused(why) => (pb::Link::Refused, why.clone()),
    }
}

fn link_from(link: i32, why: String) -> Result<Link, Error> {
    match pb::Link::try_from(link) {
        Ok(pb::Link::Connecting) => Ok(Link::Connecting),
        Ok(pb::Link::Up) => Ok(Link::Up),
        Ok(pb::Link::Paused) => Ok(Link::Paused),
        Ok(pb::Link::Failing) => Ok(Link::Failing(why)),
        Ok(pb::Link::Refused) => Ok(Link::Refused(why)),
        Ok(pb::Link::Unspecified) | Err(_) => Err(malformed("link")),
    }
}

fn schedule_to(schedule: &Schedule) -> pb::Schedule {
    let rule = |rule: &Rule| pb::Rule {
        days: rule.days.into(),
        from: rule.from.into(),
        to: rule.to.into(),
        bytes_per_second: rule.bytes_per_second,
    };
    let Schedule { always, rules, utc_offset_minutes } = schedule;
    pb::Schedule { always: *always, rules: rules.iter().map(rule).collect(), utc_offset_minutes: *utc_offset_minutes }
}

fn schedule_from(schedule: pb::Schedule) -> Result<Schedule, Error> {
    let minute = |minute: u32| minute.try_into().map_err(|_| malformed("time of day"));
    let rule = |rule: pb::Rule| {
        let days = rule.days.try_into().map_err(|_| malformed("days"))?;
        let (from, to) = (minute(rule.from)?, minute(rule.to)?);
        Ok::<_, Error>(Rule { days, from, to, bytes_per_second: rule.bytes_per_second })
    };
    let rules = schedule.rules.into_iter().map(rule).collect::<Result<_, _>>()?;
    Ok(Schedule { always: schedule.always, rules, utc_offset_minutes: schedule.utc_offset_minutes })
}

fn peer_to(peer: &PeerStatus) -> pb::PeerStatus {
    let (link, why) = link_to(&peer.link);
    pb::PeerStatus {
        site: peer.site.to_string(),
        addresses: peer.addresses.clone(),
        link: link.into(),
        why,
        answered_at_ms: peer.answered_at_ms,
        risk: Some(risk_to(&peer.risk)),
        rpo_target_ms: peer.rpo_target.as_millis().try_into().unwrap_or(u64::MAX),
        events_delivered: peer.events_delivered,
        objects_sent: peer.objects_sent,
        bytes_sent: peer.bytes_sent,
        told: peer.told.as_ref().map(|(_, report)| report_to(0, report)),
        told_at_ms: peer.told.as_ref().map_or(0, |(at_ms, _)| *at_ms),
        schedule: Some(schedule_to(&peer.schedule)),
        objects_repaired: peer.objects_repaired,
    }
}

fn peer_from(peer: pb::PeerStatus) -> Result<PeerStatus, Error> {
    let told_at_ms = peer.told_at_ms;
    Ok(PeerStatus {
        site: site(&peer.site)?,
        addresses: peer.addresses,
        link: link_from(peer.link, peer.why)?,
        answered_at_ms: peer.answered_at_ms,
        risk: risk_from(peer.risk)?,
        rpo_target: Duration::from_millis(peer.rpo_target_ms),
        schedule: schedule_from(peer.schedule.unwrap_or_default())?,
        objects_repaired: peer.objects_repaired,
        events_delivered: peer.events_delivered,
        objects_sent: peer.objects_sent,
        bytes_sent: peer.bytes_sent,
        told: peer.told.map(|report| Ok::<_, Error>((told_at_ms, report_from(report)?))).transpose()?,
    })
}

pub(crate) fn status_to(status: &ReplicationStatus) -> pb::StatusResponse {
    pb::StatusResponse {
        site: status.site.to_string(),
        incarnation: status.incarnation.0,
        at_ms: status.at_ms,
        own: Some(pb::Held { events: status.own.events, instances: status.own.instances, bytes: status.own.bytes }),
        available_bytes: status.available_bytes,
        peers: status.peers.iter().map(peer_to).collect(),
    }
}

pub(crate) fn status_from(response: pb::StatusResponse) -> Result<ReplicationStatus, Error> {
    let own = response.own.unwrap_or_default();
    Ok(ReplicationStatus {
        site: site(&response.site)?,
        incarnation: Incarnation(response.incarnation),
        at_ms: response.at_ms,
        own: Held { events: own.events, instances: own.instances, bytes: own.bytes },
        available_bytes: response.available_bytes,
        peers: response.peers.into_iter().map(peer_from).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn at_risk_to(event: AtRisk) -> pb::AtRiskResponse {
    pb::AtRiskResponse {
        position: Some(position_to(&event.position)),
        acknowledged_at_ms: event.acknowledged_at_ms,
        event_id: copied(event.event.as_bytes()),
        kind: event.kind,
        study_instance_uid: event.study_instance_uid,
        sop_instance_uid: event.sop_instance_uid.unwrap_or_default(),
        bytes: event.bytes,
    }
}

pub(crate) fn at_risk_from(event: pb::AtRiskResponse) -> Result<AtRisk, Error> {
    Ok(AtRisk {
        position: position_from(event.position.ok_or_else(|| malformed("position"))?)?,
        acknowledged_at_ms: event.acknowledged_at_ms,
        event: event_id(&event.event_id)?,
        kind: event.kind,
        study_instance_uid: event.study_instance_uid,
        sop_instance_uid: (!event.sop_instance_uid.is_empty()).then_some(event.sop_instance_uid),
        bytes: event.bytes,
    })
}

fn key(bytes: &[u8]) -> Result<ObjectKey, Error> {
    ObjectKey::from_slice(bytes).map_err(|_| malformed("object key"))
}

pub(crate) fn suspects_to(suspects: &Suspects) -> pb::RepairRequest {
    use pb::repair_request::Suspects as Wire;
    let suspects = match suspects {
        Suspects::Study(study) => Wire::StudyInstanceUid(study.clone()),
        Suspects::Object(key) => Wire::ObjectKey(copied(key.as_bytes())),
        Suspects::Known(object) => Wire::Object(object_to(object)),
    };
    pb::RepairRequest { suspects: Some(suspects) }
}

pub(crate) fn suspects_from(request: pb::RepairRequest) -> Result<Suspects, Error> {
    use pb::repair_request::Suspects as Wire;
    match request.suspects.ok_or_else(|| malformed("choice of objects"))? {
        Wire::StudyInstanceUid(study) => Ok(Suspects::Study(study)),
        Wire::ObjectKey(bytes) => Ok(Suspects::Object(key(&bytes)?)),
        Wire::Object(object) => Ok(Suspects::Known(object_from(object)?)),
    }
}

pub(crate) fn inspected_to(inspected: Inspected) -> pb::RepairResponse {
    let (outcome, from, why) = match inspected.outcome {
        Outcome::Whole => (pb::Outcome::Whole, String::new(), String::new()),
        Outcome::Repaired { from } => (pb::Outcome::Repaired, from.to_string(), String::new()),
        Outcome::Lost(why) => (pb::Outcome::Lost, String::new(), why),
    };
    let object_key = copied(inspected.key.as_bytes());
    pb::RepairResponse { object_key, length_bytes: inspected.length, outcome: outcome.into(), from, why }
}

pub(crate) fn inspected_from(response: pb::RepairResponse) -> Result<Inspected, Error> {
    let outcome = match pb::Outcome::try_from(response.outcome) {
        Ok(pb::Outcome::Whole) => Outcome::Whole,
        Ok(pb::Outcome::Repaired) => Outcome::Repaired { from: site(&response.from)? },
        Ok(pb::Outcome::Lost) => Outcome::Lost(response.why),
        Ok(pb::Outcome::Unspecified) | Err(_) => return Err(malformed("outcome")),
    };
    Ok(Inspected { key: key(&response.object_key)?, length: response.length_bytes, outcome })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn mark() -> pb::Mark {
        let end = crate::common::Position { site: "south".into(), incarnation: 1, partition: 2, offset: 3 };
        pb::Mark { end: Some(end), last_event_id: copied(&[7; 16]) }
    }

    fn refuses<T: std::fmt::Debug>(result: Result<T, Error>, what: &str) {
        let error = result.expect_err(what);
        assert_eq!(error.kind, ErrorKind::Invalid, "{what}");
        assert!(error.message.contains(what), "{error}, not {what}");
    }

    #[test]
    fn a_malformed_introduction_or_meeting_is_refused() {
        let request = pb::MeetRequest { site: "north".into(), incarnation: 1, partitions: 64, marks: vec![mark()] };
        assert!(introduction_from(request.clone()).is_ok());
        refuses(introduction_from(pb::MeetRequest { site: "no/rth".into(), ..request.clone() }), "site");
        refuses(introduction_from(pb::MeetRequest { partitions: 1 << 16, ..request.clone() }), "number of partitions");
        let bad = |mark| introduction_from(pb::MeetRequest { marks: vec![mark], ..request.clone() });
        refuses(bad(pb::Mark { end: None, ..mark() }), "position");
        refuses(bad(pb::Mark { last_event_id: Bytes::from_static(b"id"), ..mark() }), "event id");
        let response = pb::MeetResponse { site: "south".into(), strayed: vec![1 << 16], ..pb::MeetResponse::default() };
        refuses(meeting_from(response), "partition");
    }

    #[test]
    fn a_malformed_delivery_is_refused() {
        let request = pb::AppendRequest { site: "north".into(), partition: 65_535, ..pb::AppendRequest::default() };
        assert!(delivery_from(request.clone()).is_ok());
        refuses(delivery_from(pb::AppendRequest { partition: 65_536, ..request.clone() }), "partition");
        let header = |name: &str, value: &str| pb::Header { name: name.into(), value: value.into() };
        let with = |headers| {
            let events = vec![pb::Event { headers, payload: Bytes::new() }];
            delivery_from(pb::AppendRequest { events, ..request.clone() })
        };
        refuses(with(Vec::new()), "ce_specversion is missing");
        let id = header("ce_id", "a secret");
        refuses(
            with(vec![
                header("ce_specversion", "1.0"),
                header("ce_source", "/sites/a"),
                header("ce_subject", "studies/1"),
                id,
            ]),
            "ce_id is malformed",
        );
    }

    #[test]
    fn a_malformed_status_is_refused() {
        let report = pb::TellRequest { site: "a".into(), at_ms: 1, risk: Some(pb::Risk::default()), process: 2 };
        assert!(report_from(report.clone()).is_ok());
        // It would read as if nothing were at risk.
        let silent = pb::TellRequest { risk: None, ..report };
        refuses(report_from(silent.clone()), "risk");
        let peer = pb::PeerStatus {
            site: "a".into(),
            link: pb::Link::Up.into(),
            risk: Some(pb::Risk::default()),
            ..pb::PeerStatus::default()
        };
        assert!(peer_from(peer.clone()).is_ok());
        refuses(peer_from(pb::PeerStatus { risk: None, ..peer.clone() }), "risk");
        refuses(peer_from(pb::PeerStatus { told: Some(silent), ..peer.clone() }), "risk");
        for link in [0, 77] {
            refuses(peer_from(pb::PeerStatus { link, ..peer.clone() }), "link");
        }
        refuses(at_risk_from(pb::AtRiskResponse::default()), "position");
    }
}
