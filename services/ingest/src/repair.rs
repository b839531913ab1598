//! Repairs of events that could not be folded: an operator's word, as an event.

use crate::append::{Appender, Context};
use bytes::Bytes;
use cairn_archive::{
    Position,
    envelope::Envelope,
    events::{Event, EventRepaired, Replacement, event_repaired::Remedy},
    fold::{EventOrder, Loaded, Stamp, StudyFold, StudyKey},
};
use cairn_service_api::{
    Error, ErrorKind,
    parked::{Repair, RepairRemedy},
};

/// Appends a repair of the event that stands at a position of this site's log.
pub(crate) async fn repair(appender: &Appender, repair: Repair) -> Result<Position, Error> {
    appender.check_clock()?;
    let Some(repaired) = appender.envelope_at(&repair.position).await? else {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no event at {}", repair.position)));
    };
    let mut objects = repaired.object_keys.clone();
    let event = Event::EventRepaired(Box::new(event(&repaired, repair)));
    check(&repaired, &event)?;
    objects.extend(event.object_keys());
    objects.sort_unstable();
    objects.dedup();
    let context = Context { causation: Some(repaired.id), objects, ..Context::default() };
    Ok(appender.append(&event, context).await?.position)
}

fn event(repaired: &Envelope, repair: Repair) -> EventRepaired {
    let remedy = match repair.remedy {
        RepairRemedy::Replace { event_type, payload } => Remedy::Replacement(Replacement { event_type, payload }),
        RepairRemedy::Dismiss => Remedy::Dismissed(true),
        RepairRemedy::FoldAgain => Remedy::FoldedAgain(true),
    };
    EventRepaired {
        tenant: repaired.tenant.clone(),
        study_instance_uid: repaired.study_instance_uid.clone(),
        event_id: Bytes::copy_from_slice(repaired.id.as_bytes()),
        event_site: repaired.site.to_string(),
        event_wall_ms: repaired.hlc.wall_ms,
        event_counter: repaired.hlc.counter,
        remedy: Some(remedy),
        repaired_by: repair.by,
        reason: repair.reason.into_bytes().into(),
        key_id: String::new(),
    }
}

/// Whether the repair can be folded itself.
fn check(repaired: &Envelope, event: &Event) -> Result<(), Error> {
    let key = StudyKey { tenant: repaired.tenant.clone(), study_instance_uid: repaired.study_instance_uid.clone() };
    let mut fold = StudyFold::new(key, Loaded::default());
    let folded = fold.apply(EventOrder::of(repaired), Stamp::default(), event.clone());
    folded.map_err(|why| Error::new(ErrorKind::Invalid, format!("the repair can't be folded: {why}")))
}
