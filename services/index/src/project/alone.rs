//! Folding each study of a batch alone, after the batch as a whole met a defect again and again: what can't be folded
//! is parked, so that one study's events keep no other's waiting.

use super::{
    batch::{self, OfStudy, Outcome, ToFold},
    follow::{Context, one_study},
    generation::Project,
    write::Changes,
};
use cairn_archive::{
    fold::{Poison, StudyKey},
    index_rows::Parked,
};
use cairn_service_api::{Error, ErrorKind};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;

/// Whether folding failed by something else than a store that is away: trying again may not help.
pub(crate) fn is_defect(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Internal | ErrorKind::Invalid)
}

/// What a panic is told as.
pub(crate) fn defect() -> Error {
    Error::new(ErrorKind::Internal, "folding met a defect of this build")
}

/// Folds the events of one study, alone. Those that meet a defect are parked; the others are folded.
///
/// # Errors
/// A store that is away: nothing is parked for that.
pub(crate) async fn fold(
    project: &Project,
    context: &Context<'_>,
    key: StudyKey,
    of: OfStudy,
) -> Result<(Changes, Outcome), Error> {
    if let Some(all) = attempt(project, context, &key, of.clone()).await? {
        return Ok(all);
    }
    let (mut good, mut parked) = (Vec::new(), Vec::new());
    for event in of.events {
        let (order, stamp, kind, again) = (event.order.clone(), event.stamp, event.event.kind(), event.again);
        good.push(event);
        if attempt(project, context, &key, these(&good)).await?.is_none() {
            good.pop();
            // One that was parked before stays so.
            if !again {
                parked.push((order, stamp, kind));
            }
        }
    }
    let (changes, mut outcome) = attempt(project, context, &key, these(&good)).await?.unwrap_or_default();
    let park = |(order, stamp, kind): (_, _, &'static str)| Parked {
        order,
        stamp,
        why: Poison::Defect,
        kind: kind.into(),
        tenant: key.tenant.clone(),
        study_instance_uid: key.study_instance_uid.clone(),
        build: batch::BUILD.into(),
    };
    outcome.parked.extend(parked.into_iter().map(park));
    Ok((changes, outcome))
}

/// Some of a study's events, and what they need.
fn these(events: &[ToFold]) -> OfStudy {
    let mut of = OfStudy { events: events.to_vec(), ..OfStudy::default() };
    events.iter().for_each(|event| of.needs.add(event.order.id, &event.event));
    of
}

/// Folds them all; `None`: that met a defect. The index store answers, or it would not have come to this, so an answer
/// that can't be used is about this study.
async fn attempt(
    project: &Project,
    context: &Context<'_>,
    key: &StudyKey,
    of: OfStudy,
) -> Result<Option<(Changes, Outcome)>, Error> {
    match AssertUnwindSafe(one_study(project, context, key.clone(), of, None)).catch_unwind().await {
        Ok(Ok((changes, outcome))) if changes.fit() => Ok(Some((changes, outcome))),
        Ok(Err(error)) if !is_defect(&error) => Err(error),
        Ok(_) | Err(_) => Ok(None),
    }
}
