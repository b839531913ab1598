//! Conflicts: identities with several versions, and SOP Instance UIDs in several places.

use crate::{
    answering::{Answers, Ended, answering},
    rows::{Rows, malformed},
    service::Shared,
};
use cairn_archive::{
    fold::{Identity, InstanceState, Relation, StudyKey, Version},
    index_rows::{BY_INSTANCE, CONFLICTS, RowError, by_instance_pk, read_by_instance_ck, read_conflict_ck, tenant_pk},
};
use cairn_dicom::Uid;
use cairn_service_api::{
    AnswerStream, Error,
    index::{Conflict, ConflictKind, ConflictVersion},
};
use cairn_store_api::CkRange;
use std::sync::Arc;

/// Lists conflicts: those under one identity by study, then SOP Instance UIDs that are in several places.
///
/// The second part goes through every SOP Instance UID of the tenant, because each study's rows are written by its own
/// partition and only their reader sees that two are of one UID.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    tenant: String,
    include_other_encodings: bool,
) -> Result<AnswerStream<Conflict>, Error> {
    let place = shared.place().await?;
    let shared = shared.clone();
    Ok(answering(shared.config.answers_ahead_max, Some(place), move |answers| async move {
        let pinned = shared.pinned(None).await?;
        of_identities(&pinned.rows, &tenant, include_other_encodings, &answers).await?;
        elsewhere(&pinned.rows, &tenant, &answers).await?;
        Ok(shared.was_there(&pinned).await?)
    }))
}

async fn of_identities(
    rows: &Rows,
    tenant: &str,
    include_other_encodings: bool,
    answers: &Answers<Conflict>,
) -> Result<(), Ended> {
    let mut pages = rows.pages(CONFLICTS, tenant_pk(tenant), CkRange::default());
    while let Some(page) = pages.next().await? {
        for row in page {
            let (study, identity) = read_conflict_ck(&row.ck).map_err(malformed)?;
            let key = StudyKey { tenant: tenant.to_owned(), study_instance_uid: study.to_string() };
            let state = rows.instance(&key, &identity, None).await?;
            let kind = match state.relation() {
                Relation::Same => continue,
                Relation::AnotherEncoding if !include_other_encodings => continue,
                Relation::AnotherEncoding => ConflictKind::AnotherEncoding,
                Relation::NotComparedYet => ConflictKind::NotComparedYet,
                Relation::Content => ConflictKind::Content,
            };
            answers.give(conflict(kind, vec![(study, identity, state)])?).await?;
        }
    }
    Ok(())
}

async fn elsewhere(rows: &Rows, tenant: &str, answers: &Answers<Conflict>) -> Result<(), Ended> {
    for bucket in 0..cairn_archive::index_rows::INSTANCE_BUCKETS {
        let mut pages = rows.pages(BY_INSTANCE, by_instance_pk(tenant, bucket), CkRange::default());
        let mut places: Vec<(Uid, Identity)> = Vec::new();
        while let Some(page) = pages.next().await? {
            for row in page {
                let (instance, study, series) = read_by_instance_ck(&row.ck).map_err(malformed)?;
                if places.first().is_some_and(|(_, identity)| identity.instance != instance) {
                    give_places(rows, tenant, std::mem::take(&mut places), answers).await?;
                }
                // One UID in thousands of places is a defect of its sender; the first ones show it.
                if places.len() < PLACES_MAX {
                    places.push((study, Identity { series, instance }));
                }
            }
        }
        give_places(rows, tenant, places, answers).await?;
    }
    Ok(())
}

/// Places of one SOP Instance UID listed at most.
const PLACES_MAX: usize = 256;

async fn give_places(
    rows: &Rows,
    tenant: &str,
    places: Vec<(Uid, Identity)>,
    answers: &Answers<Conflict>,
) -> Result<(), Ended> {
    if places.len() < 2 {
        return Ok(());
    }
    let mut states = Vec::with_capacity(places.len());
    for (study, identity) in places {
        let key = StudyKey { tenant: tenant.to_owned(), study_instance_uid: study.to_string() };
        let state = rows.instance(&key, &identity, None).await?;
        // A row here is a hint.
        if state.shown().is_some() {
            states.push((study, identity, state));
        }
    }
    if states.len() > 1 {
        answers.give(conflict(ConflictKind::Elsewhere, states)?).await?;
    }
    Ok(())
}

/// A conflict named after the place that was stored to first, its versions in event order.
fn conflict(kind: ConflictKind, places: Vec<(Uid, Identity, InstanceState)>) -> Result<Conflict, Error> {
    let mut versions: Vec<(&Uid, &Identity, &Version, bool)> = places
        .iter()
        .flat_map(|(study, identity, state)| {
            let shown = state.shown().map(|version| version.order.id);
            state.versions().iter().map(move |version| (study, identity, version, shown == Some(version.order.id)))
        })
        .collect();
    versions.sort_by(|a, b| a.2.order.cmp(&b.2.order));
    let missing = || malformed(RowError::Malformed("facts"));
    let (study, identity, ..) = versions.first().ok_or_else(missing)?;
    let (study, identity) = ((*study).clone(), (*identity).clone());
    let versions = versions.into_iter().map(|(study, identity, version, shown)| {
        Ok(ConflictVersion {
            store_event: version.order.id,
            digest: version.object.digest,
            transfer_syntax_uid: version.transfer_syntax_uid.parse().map_err(|_| missing())?,
            stored_at_ms: version.order.hlc.wall_ms,
            calling_ae_title: version.calling_ae_title.clone(),
            study_instance_uid: study.clone(),
            series_instance_uid: identity.series.clone(),
            shown,
        })
    });
    Ok(Conflict {
        study_instance_uid: study,
        series_instance_uid: identity.series,
        sop_instance_uid: identity.instance,
        kind,
        versions: versions.collect::<Result<_, Error>>()?,
    })
}
