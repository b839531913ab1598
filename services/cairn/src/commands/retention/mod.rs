//! `cairn hold` and `cairn erasure`: what is held, and what is erased.

mod report;

use super::{
    Failure, connection, index,
    query::parse_tag,
    table::{Cell, Rows},
};
use crate::cli::{Common, ErasureAction, GroundsArgs, HoldAction, ServerArgs};
use cairn_archive::{EventId, envelope::rfc3339, erasure::Stage};
use cairn_dicom::{Uid, dataset::DataSet, tags};
use cairn_service_api::{
    Index, Retention,
    index::{Level, Query, QueryOptions, Returning},
    retention::{ErasureGrounds, ErasureScope, NewHold},
};
use cairn_service_grpc::client::RetentionClient;
use futures_util::TryStreamExt;

pub async fn hold(action: HoldAction) -> Result<(), Failure> {
    match action {
        HoldAction::Place { patient, issuer, mut studies, query, grounds } => {
            if !query.is_empty() {
                studies.extend(found(&grounds.common.server, &query).await?);
                studies.sort();
                studies.dedup();
                if studies.is_empty() && patient.is_none() {
                    return Err(Failure::failed("no study matches"));
                }
            }
            let GroundsArgs { common, reason, by } = grounds;
            let hold = NewHold {
                tenant: common.server.tenant.clone(),
                patient: patient.map(|id| (id, issuer)),
                studies,
                query: query.join(" "),
                by,
                reason,
            };
            println!("{}", client(&common.server)?.place_hold(hold).await?);
            Ok(())
        }
        HoldAction::Release { id, grounds } => {
            let server = grounds.common.server.clone();
            Ok(client(&server)?.release_hold(id, given(grounds)).await?)
        }
        HoldAction::List { common } => list_holds(&common).await,
    }
}

pub async fn erasure(action: ErasureAction) -> Result<(), Failure> {
    match action {
        ErasureAction::Request { study, series, instances, delay, grounds } => {
            let server = grounds.common.server.clone();
            let scope = ErasureScope { tenant: server.tenant.clone(), study, series, instances };
            let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            for id in client(&server)?.request_erasure(scope, delay_ms, given(grounds)).await? {
                println!("{id}");
            }
            Ok(())
        }
        ErasureAction::Withdraw { id, grounds } => {
            let server = grounds.common.server.clone();
            Ok(client(&server)?.withdraw_erasure(id, given(grounds)).await?)
        }
        ErasureAction::List { common } => list_erasures(&common).await,
        ErasureAction::Report { id, form, server } => report::print(&client(&server)?.erasure_report(id).await?, form),
    }
}

fn client(server: &ServerArgs) -> Result<RetentionClient, Failure> {
    Ok(RetentionClient::new(&connection(server)?)?)
}

pub(super) fn given(grounds: GroundsArgs) -> ErasureGrounds {
    ErasureGrounds { by: grounds.by, reason: grounds.reason }
}

/// Studies that match now.
pub(super) async fn found(server: &ServerArgs, keys: &[String]) -> Result<Vec<Uid>, Failure> {
    let mut identifier = DataSet::default();
    identifier.put_empty(tags::STUDY_INSTANCE_UID);
    for key in keys {
        let (name, value) = key.split_once('=').ok_or_else(|| Failure::usage(format!("{key:?} is not KEY=VALUE")))?;
        if value.is_empty() {
            return Err(Failure::usage(format!("{name} has no value: it would match everything")));
        }
        identifier.put_text(parse_tag(name)?, value);
    }
    let query = Query {
        tenant: server.tenant.clone(),
        level: Level::Study,
        identifier,
        options: QueryOptions::default(),
        sees_rejected: cairn_archive::rejection::Titles::ALL,
        returning: Returning::Keys,
        offset: 0,
        limit: None,
        generation: None,
    };
    let mut found = index(server)?.query(query).await?;
    let mut studies = Vec::new();
    while let Some(answer) = found.try_next().await? {
        let study = answer.texts(tags::STUDY_INSTANCE_UID).first().and_then(|uid| uid.parse().ok());
        studies.push(study.ok_or_else(|| Failure::failed("an answer names no study"))?);
    }
    Ok(studies)
}

async fn list_holds(common: &Common) -> Result<(), Failure> {
    let columns = [
        ("Hold", 36),
        ("Placed", 24),
        ("Site", 10),
        ("By", 12),
        ("Studies", 8),
        ("PatientID", 16),
        ("IssuerOfPatientID", 17),
        ("Query", 24),
        ("Reason", 40),
    ];
    let mut rows = Rows::new(common.output, &columns);
    let mut holds = client(&common.server)?.holds().await?;
    while let Some(one) = holds.try_next().await? {
        let (patient, issuer) = one.hold.patient.unzip();
        let text = |text: String| if text.is_empty() { Cell::Absent } else { text.into() };
        let reason = if one.is_unreadable {
            "it can't be read here, and holds everything".into()
        } else {
            text(one.hold.reason)
        };
        rows.cells(&[
            one.id.to_string().into(),
            rfc3339(one.placed_at_ms).into(),
            one.site.into(),
            text(one.hold.by),
            (one.hold.studies.len() as u64).into(),
            text(patient.unwrap_or_default()),
            text(issuer.flatten().unwrap_or_default()),
            text(one.hold.query),
            reason,
        ])?;
    }
    rows.flush()
}

async fn list_erasures(common: &Common) -> Result<(), Failure> {
    let columns = [
        ("Erasure", 36),
        ("Stage", 10),
        ("StudyInstanceUID", 44),
        ("Versions", 8),
        ("Erased", 8),
        ("Kept", 8),
        ("Requested", 24),
        ("DelayMs", 10),
        ("By", 12),
        ("Confirmed", 20),
        ("WaitsFor", 20),
        ("DestroyedAt", 20),
    ];
    let mut rows = Rows::new(common.output, &columns);
    let mut erasures = client(&common.server)?.erasures().await?;
    let names = |sites: Vec<String>| if sites.is_empty() { Cell::Absent } else { sites.join(" ").into() };
    while let Some(one) = erasures.try_next().await? {
        let sites = |sites: &[cairn_archive::SiteId]| sites.iter().map(ToString::to_string).collect();
        rows.cells(&[
            one.id.to_string().into(),
            stage(one.stage).into(),
            one.study_instance_uid.into(),
            one.versions.into(),
            one.erased.into(),
            one.kept.into(),
            rfc3339(one.requested_at_ms).into(),
            Cell::Milliseconds(one.delay_ms),
            one.requested_by.into(),
            names(sites(&one.confirmed)),
            names(sites(&one.waits_for)),
            names(one.destroyed.iter().map(|(site, _)| site.to_string()).collect()),
        ])?;
    }
    rows.flush()
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Unknown => "unknown",
        Stage::Void => "void",
        Stage::Withdrawn => "withdrawn",
        Stage::Requested => "requested",
        Stage::Erased => "erased",
    }
}

/// An id as text, of bytes that are one.
fn id_text(bytes: &[u8]) -> String {
    EventId::from_slice(bytes).map(|id| id.to_string()).unwrap_or_default()
}
