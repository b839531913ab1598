//! `cairn erasure report`: what was destroyed where, what was kept and why.

use super::{id_text, stage};
use crate::{cli::ReportForm, commands::Failure};
use cairn_archive::{
    envelope::rfc3339,
    events::{KeptBecause, KeptVersion},
};
use cairn_process::units::format_size;
use cairn_service_api::retention::{ErasedObject, ErasureReport};
use serde_json::{Value, json};
use std::fmt::Write;

/// Prints a report; it fails where something that was erased is still there.
pub(super) fn print(report: &ErasureReport, form: ReportForm) -> Result<(), Failure> {
    match form {
        ReportForm::Json => println!("{}", as_json(report)),
        ReportForm::Markdown => print!("{}", as_markdown(report)),
    }
    let objects = report.objects.iter().filter(|object| is_left(object)).count();
    let keys = report.keys.iter().filter(|key| key.is_destroyed == Some(false)).count();
    match (objects, keys) {
        (0, 0) => Ok(()),
        _ => Err(Failure::Differs(format!("{objects} objects that were erased are still there, and {keys} keys"))),
    }
}

fn is_left(object: &ErasedObject) -> bool {
    object.is_stored || object.is_answered == Some(true)
}

fn because(kept: &KeptVersion) -> &'static str {
    match KeptBecause::try_from(kept.because) {
        Ok(KeptBecause::Held) => "held",
        Ok(KeptBecause::StoredAgain) => "stored-again",
        Ok(KeptBecause::ReceivedAgain) => "received-again",
        Ok(KeptBecause::Incomplete) => "study-incomplete",
        Ok(KeptBecause::Unspecified) | Err(_) => "?",
    }
}

fn as_json(report: &ErasureReport) -> Value {
    let status = &report.status;
    let names = |sites: &[cairn_archive::SiteId]| sites.iter().map(ToString::to_string).collect::<Vec<_>>();
    let destroyed = status.destroyed.iter().map(|(site, at)| {
        json!({ "Site": site.to_string(), "At": rfc3339(at.at_ms), "Objects": at.objects, "Bytes": at.bytes, "Absent": at.absent })
    });
    let objects = report.objects.iter().map(|object| {
        json!({
            "SeriesInstanceUID": object.series_instance_uid,
            "SOPInstanceUID": object.sop_instance_uid,
            "StoreEvent": object.store_event.to_string(),
            "Object": object.key.to_string(),
            "InObjectStore": object.is_stored,
            "InIndex": object.is_answered,
        })
    });
    let kept = report.kept.iter().map(|kept| {
        json!({
            "SeriesInstanceUID": kept.series_instance_uid,
            "SOPInstanceUID": kept.sop_instance_uid,
            "StoreEvent": id_text(&kept.store_event_id),
            "Because": because(kept),
            "BecauseOf": id_text(&kept.because_of),
        })
    });
    let keys = report.keys.iter().map(|key| json!({ "Key": key.id.to_string(), "Destroyed": key.is_destroyed }));
    let kept_keys = report.kept_keys.iter();
    let kept_keys = kept_keys.map(|key| {
        json!({
            "Key": key.id.to_string(),
            "NeededBy": key.needed_by.to_string(),
            "MayBeUsedAt": key.may_be_used_at.as_ref().map(ToString::to_string),
        })
    });
    let keys_destroyed = report.keys_destroyed.iter();
    let keys_destroyed = keys_destroyed.map(|(site, at_ms)| json!({ "Site": site.as_str(), "At": rfc3339(*at_ms) }));
    json!({
        "Erasure": status.id.to_string(),
        "Stage": stage(status.stage),
        "StudyInstanceUID": status.study_instance_uid,
        "RequestedAt": rfc3339(status.requested_at_ms),
        "RequestedAtSite": status.site,
        "RequestedBy": status.requested_by,
        "Reason": report.reason,
        "WithdrawnBy": status.withdrawn_by,
        "ConfirmedBy": names(&status.confirmed),
        "WaitsFor": names(&status.waits_for),
        "ReadAtSite": report.at_site.to_string(),
        "ReadAt": rfc3339(report.at_ms),
        "Destroyed": destroyed.collect::<Vec<_>>(),
        "Erased": objects.collect::<Vec<_>>(),
        "Kept": kept.collect::<Vec<_>>(),
        "Keys": keys.collect::<Vec<_>>(),
        "KeptKeys": kept_keys.collect::<Vec<_>>(),
        "KeysDestroyed": keys_destroyed.collect::<Vec<_>>(),
    })
}

/// Writing to a string does not fail.
macro_rules! line {
    ($out:expr, $($arguments:tt)*) => { let _written: std::fmt::Result = writeln!($out, $($arguments)*); };
}

fn as_markdown(report: &ErasureReport) -> String {
    let status = &report.status;
    let names = |sites: &[cairn_archive::SiteId]| sites.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut out = String::new();
    line!(out, "# Erasure {}\n", status.id);
    line!(out, "- Study: {}", status.study_instance_uid);
    line!(out, "- Stage: {}", stage(status.stage));
    line!(
        out,
        "- Requested: {} at {} by {}: {}",
        rfc3339(status.requested_at_ms),
        status.site,
        status.requested_by,
        report.reason
    );
    if !status.withdrawn_by.is_empty() {
        line!(out, "- Withdrawn by {}", status.withdrawn_by);
    }
    line!(out, "- Confirmed by: {}", names(&status.confirmed));
    if !status.waits_for.is_empty() {
        line!(out, "- Waits for: {}", names(&status.waits_for));
    }
    line!(out, "- Stores read: those of {}, {}", report.at_site, rfc3339(report.at_ms));
    line!(out, "\n## Destroyed\n\n| site | when | objects | bytes | not there |\n|---|---|---|---|---|");
    for (site, at) in &status.destroyed {
        line!(out, "| {site} | {} | {} | {} | {} |", rfc3339(at.at_ms), at.objects, format_size(at.bytes), at.absent);
    }
    line!(
        out,
        "\n## Erased: {} objects\n\n| SOP Instance | object | object store | index |\n|---|---|---|---|",
        report.objects.len()
    );
    for object in &report.objects {
        let stored = if object.is_stored { "STILL THERE" } else { "not there" };
        let answered = match object.is_answered {
            Some(true) => "STILL THERE",
            Some(false) => "not there",
            None => "not asked",
        };
        line!(out, "| {} | {} | {stored} | {answered} |", object.sop_instance_uid, object.key);
    }
    line!(
        out,
        "\n## Kept: {} versions\n\n| SOP Instance | store event | why | by |\n|---|---|---|---|",
        report.kept.len()
    );
    for kept in &report.kept {
        let (event, by) = (id_text(&kept.store_event_id), id_text(&kept.because_of));
        line!(out, "| {} | {event} | {} | {by} |", kept.sop_instance_uid, because(kept));
    }
    keys_as_markdown(report, &mut out);
    out
}

fn keys_as_markdown(report: &ErasureReport, out: &mut String) {
    line!(out, "\n## Keys destroyed: {}\n\n| key | key store |\n|---|---|", report.keys.len());
    for key in &report.keys {
        let found = match key.is_destroyed {
            Some(true) => "destroyed",
            Some(false) => "STILL THERE",
            None => "there is none",
        };
        line!(out, "| {} | {found} |", key.id);
    }
    for (site, at_ms) in &report.keys_destroyed {
        line!(out, "\n{site} says that it destroyed them at {}.", rfc3339(*at_ms));
    }
    line!(out, "\n## Keys kept: {}\n\n| key | event | why |\n|---|---|---|", report.kept_keys.len());
    for key in &report.kept_keys {
        let why = match &key.may_be_used_at {
            Some(site) => format!("{site} may have sealed more under it, and is not back"),
            None => "it is live under it, or can't be read".to_owned(),
        };
        line!(out, "| {} | {} | {why} |", key.id, key.needed_by);
    }
}
