//! What an event says, in words, and what came of it.

use super::history::{History, Told};
use crate::commands::corrections::keywords;
use cairn_archive::{
    EventId, correction,
    events::{
        AttributesCorrected, Comparison, Door, Event, InstanceStored, InstancesRejected, ObjectTier, Receipt,
        ReceiptClosed, ReceiptEnd, RejectionRevoked, event_repaired::Remedy,
    },
    fold::{Because, InstanceState},
    rejection::RejectionTitle,
};
use cairn_dicom::dictionary;
use cairn_process::units::format_size;

/// What an event says, and what it comes to.
pub fn of(told: &Told, history: &History) -> String {
    match &told.event {
        Event::InstanceStored(event) => stored(told.order.id, event, history),
        Event::InstanceReceivedAgain(event) => {
            let from = event.receipt.as_ref().map(sender).unwrap_or_default();
            format!("received again {from}: the bytes of {}", id(&event.store_event_id))
        }
        Event::ReceiptClosed(event) => closed(event),
        Event::VersionsCompared(event) => {
            let verdict = match event.comparison() {
                Comparison::AnotherEncoding => "have the same content, encoded otherwise",
                Comparison::Different => "differ in content",
                Comparison::NotComparable => "can't be compared, and count as different",
                Comparison::Unspecified => "were compared",
            };
            format!("{} and {} {verdict}", id(&event.first_store_event_id), id(&event.second_store_event_id))
        }
        Event::VersionChosen(event) => {
            format!("{} chose {} to be shown: {}", event.chosen_by, id(&event.store_event_id), text(&event.reason))
        }
        Event::InstancesRejected(event) => rejected(told.order.id, event, history),
        Event::RejectionRevoked(event) => revoked(event),
        Event::AttributesCorrected(event) => corrected(told.order.id, event, history),
        Event::CorrectionRevoked(event) => {
            let taken: Vec<String> = event.correction_event_ids.iter().map(|bytes| id(bytes)).collect();
            format!("{} took back the correction of {}: {}", event.revoked_by, taken.join(", "), text(&event.reason))
        }
        Event::EventRepaired(event) => {
            let remedy = match &event.remedy {
                Some(Remedy::Replacement(_)) => "replaced what could not be folded of",
                Some(Remedy::Dismissed(_)) => "dismissed",
                Some(Remedy::FoldedAgain(_)) => "had folded again",
                None => "repaired",
            };
            format!("{} {remedy} {}: {}", event.repaired_by, id(&event.event_id), text(&event.reason))
        }
        Event::ObjectDamaged(event) => format!("the bytes of {} were found damaged", id(&event.named_by_event_id)),
        Event::ObjectRepaired(event) => {
            format!("the bytes that {} is about are whole again", id(&event.damage_event_id))
        }
        Event::StudyMoved(event) => {
            let store = if event.tier() == ObjectTier::Cold { "cold" } else { "hot" };
            format!("{} had it moved to the {store} object store of {}", event.asked_by, event.site)
        }
        other => other.kind().to_owned(),
    }
}

fn id(bytes: &[u8]) -> String {
    EventId::from_slice(bytes).map_or_else(|_| "an event without a name".to_owned(), |id| format!("event {id}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// By which door and from whom.
fn sender(receipt: &Receipt) -> String {
    let door = match receipt.door() {
        Door::Dimse => "by C-STORE",
        Door::Dicomweb => "by STOW-RS",
        Door::Import => "by import",
        Door::Grpc => "by gRPC",
        Door::Unspecified => "by an unknown door",
    };
    let from = [&receipt.calling_ae_title, &receipt.peer_address].into_iter().filter(|text| !text.is_empty());
    let from: Vec<&str> = from.map(String::as_str).collect();
    if from.is_empty() { door.to_owned() } else { format!("{door} from {}", from.join(" at ")) }
}

fn stored(event: EventId, stored: &InstanceStored, history: &History) -> String {
    let class = dictionary::uid_name(&stored.sop_class_uid).unwrap_or(&stored.sop_class_uid);
    let from = stored.receipt.as_ref().map(sender).unwrap_or_default();
    let size = format_size(stored.object.as_ref().map_or(0, |object| object.length_bytes));
    let state = history.instance(&stored.series_instance_uid, &stored.sop_instance_uid);
    let standing = state.map_or_else(String::new, |state| standing(event, state));
    format!("stored {from}: {class}, {size}; {standing}")
}

/// What a version is now, and why.
fn standing(event: EventId, state: &InstanceState) -> String {
    if state.is_erased(event) {
        return "erased".to_owned();
    }
    let Some(version) = state.version(event) else { return "a repair says what it is".to_owned() };
    let titles: Vec<&str> = state.titles(version).iter().map(RejectionTitle::code).collect();
    if !titles.is_empty() {
        return format!("hidden: rejected under {}", titles.join(", "));
    }
    match state.shown_because() {
        Some((shown, because)) if shown.order.id == event => match because {
            Because::First => "shown: the first that is not rejected".to_owned(),
            Because::Corrects(other) => format!("shown: a correction of event {other} by its source"),
            Because::Chosen(choice) => format!("shown: chosen by event {choice}"),
            Because::Whole(other) => format!("shown: the same bytes as those of event {other}, which are damaged"),
        },
        Some((shown, _)) => format!("kept, not shown: event {} is", shown.order.id),
        None => "kept, not shown".to_owned(),
    }
}

fn closed(event: &ReceiptClosed) -> String {
    let end = match event.end() {
        ReceiptEnd::Completed => "was completed",
        ReceiptEnd::Aborted => "was cut by the sender",
        ReceiptEnd::EndedByArchive => "was ended by the archive",
        ReceiptEnd::Unspecified => "went on",
    };
    let from = event.receipt.as_ref().map(sender).unwrap_or_default();
    format!("a transfer {from} {end}: {} stored, {} repeated, {} refused", event.stored, event.repeated, event.refused)
}

fn rejected(event: EventId, rejected: &InstancesRejected, history: &History) -> String {
    let note = rejected.note.clone().unwrap_or_default();
    let meaning = RejectionTitle::of_code(&note.title_code).map_or("", RejectionTitle::meaning);
    let named = || rejected.series.iter().flat_map(|series| &series.instances);
    let all = named().filter(|instance| instance.store_event_ids.is_empty()).count();
    let hides = match all {
        0 => "what was stored of them before".to_owned(),
        all => format!("what was stored of them before, and whatever is stored of {all} of them"),
    };
    let taken_back = history.events.iter().find(|told| match &told.event {
        Event::RejectionRevoked(revoked) => revoked.rejection_event_id == event.as_bytes()[..],
        _ => false,
    });
    let counts = taken_back.map_or_else(String::new, |by| format!("; taken back by event {}", by.order.id));
    let (count, code, note) = (named().count(), &note.title_code, &note.sop_instance_uid);
    format!("note {note} rejected {count} instances as {code} {meaning}: hides {hides}{counts}")
}

fn corrected(event: EventId, corrected: &AttributesCorrected, history: &History) -> String {
    let (elements, reason) = correction::said(corrected).unwrap_or_default();
    let attributes = keywords(&elements);
    let of = [(&corrected.sop_instance_uid, "instance"), (&corrected.series_instance_uid, "series")];
    let of = of.into_iter().find(|(uid, _)| !uid.is_empty());
    let of = of.map_or_else(|| "the study".to_owned(), |(uid, what)| format!("{what} {uid}"));
    let taken_back = history.events.iter().find(|told| match &told.event {
        Event::CorrectionRevoked(revoked) => {
            revoked.correction_event_ids.iter().any(|id| id[..] == event.as_bytes()[..])
        }
        _ => false,
    });
    let counts = taken_back.map_or_else(String::new, |by| format!("; taken back by event {}", by.order.id));
    format!("{} corrected {attributes} of {of}: {}{counts}", corrected.corrected_by, reason)
}

fn revoked(event: &RejectionRevoked) -> String {
    format!("{} took back {}: {}", event.revoked_by, id(&event.rejection_event_id), text(&event.reason))
}
