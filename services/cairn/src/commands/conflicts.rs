//! `cairn conflicts`: versions that contradict each other, and the operator's choice.

use super::{Failure, index, ingest, table::Rows};
use crate::cli::{ConflictsAction, ConflictsArgs, Output, ServerArgs};
use cairn_archive::envelope::rfc3339;
use cairn_dicom::Uid;
use cairn_service_api::{
    Index, Ingest,
    index::{Conflict, ConflictKind, ConflictVersion},
};
use futures_util::{StreamExt, TryStreamExt};

pub async fn run(args: ConflictsArgs) -> Result<(), Failure> {
    match args.action {
        ConflictsAction::List { all, output } => list(&args.server, all, output).await,
        ConflictsAction::Show { sop_instance_uid, output } => show(&args.server, &sop_instance_uid, output).await,
        ConflictsAction::Choose { sop_instance_uid, version, reason, by } => {
            choose(&args.server, &sop_instance_uid, &version, &reason, &by).await
        }
    }
}

fn kind(conflict: &Conflict) -> &'static str {
    match conflict.kind {
        ConflictKind::Content => "content",
        ConflictKind::NotComparedYet => "not-compared-yet",
        ConflictKind::AnotherEncoding => "another-encoding",
        ConflictKind::Elsewhere => "elsewhere",
    }
}

async fn list(server: &ServerArgs, all: bool, output: Output) -> Result<(), Failure> {
    let columns =
        [("Kind", 16), ("Versions", 8), ("SOPInstanceUID", 44), ("SeriesInstanceUID", 44), ("StudyInstanceUID", 44)];
    let mut rows = Rows::new(output, &columns);
    let mut found = index(server)?.conflicts(&server.tenant, all).await?;
    while let Some(conflict) = found.next().await {
        let conflict = conflict?;
        rows.row(&[
            kind(&conflict).into(),
            conflict.versions.len().to_string(),
            conflict.sop_instance_uid.to_string(),
            conflict.series_instance_uid.to_string(),
            conflict.study_instance_uid.to_string(),
        ])?;
    }
    rows.flush()
}

async fn of_instance(server: &ServerArgs, sop_instance_uid: &str) -> Result<Vec<Conflict>, Failure> {
    let uid: Uid = sop_instance_uid.parse().map_err(Failure::usage)?;
    let found: Vec<Conflict> = index(server)?.conflicts(&server.tenant, true).await?.try_collect().await?;
    let of_it: Vec<Conflict> = found.into_iter().filter(|conflict| conflict.sop_instance_uid == uid).collect();
    if of_it.is_empty() {
        return Err(Failure::failed(format!("{uid} has no conflicting versions")));
    }
    Ok(of_it)
}

async fn show(server: &ServerArgs, sop_instance_uid: &str, output: Output) -> Result<(), Failure> {
    if let Output::Json | Output::Csv = output {
        return versions(&of_instance(server, sop_instance_uid).await?, output);
    }
    for conflict in of_instance(server, sop_instance_uid).await? {
        println!("{} of {}", kind(&conflict), conflict.sop_instance_uid);
        for version in &conflict.versions {
            let shown = if version.shown { "shown " } else { "kept  " };
            println!("  {shown} {}  blake3 {}", rfc3339(version.stored_at_ms), version.digest);
            println!("         event {}  from {}", version.store_event, version.calling_ae_title);
            println!("         transfer syntax {}", version.transfer_syntax_uid);
            println!("         study {}  series {}", version.study_instance_uid, version.series_instance_uid);
        }
    }
    Ok(())
}

/// A row per version.
fn versions(conflicts: &[Conflict], output: Output) -> Result<(), Failure> {
    let columns = [
        "Kind",
        "Shown",
        "StoredAt",
        "Blake3",
        "Event",
        "CallingAETitle",
        "TransferSyntaxUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
    ];
    let mut rows = Rows::new(output, &columns.map(|name| (name, 0)));
    for conflict in conflicts {
        for version in &conflict.versions {
            rows.row(&[
                kind(conflict).into(),
                if version.shown { "yes" } else { "no" }.into(),
                rfc3339(version.stored_at_ms),
                version.digest.to_string(),
                version.store_event.to_string(),
                version.calling_ae_title.clone(),
                version.transfer_syntax_uid.to_string(),
                version.study_instance_uid.to_string(),
                version.series_instance_uid.to_string(),
                conflict.sop_instance_uid.to_string(),
            ])?;
        }
    }
    rows.flush()
}

async fn choose(
    server: &ServerArgs,
    sop_instance_uid: &str,
    version: &str,
    reason: &str,
    by: &str,
) -> Result<(), Failure> {
    let wanted = version.to_ascii_lowercase();
    let named = |version: &ConflictVersion| {
        version.digest.to_string().starts_with(&wanted) || version.store_event.to_string() == wanted
    };
    let conflicts = of_instance(server, sop_instance_uid).await?;
    let mut versions: Vec<_> = conflicts.iter().flat_map(|conflict| &conflict.versions).filter(|v| named(v)).collect();
    versions.dedup_by_key(|version| version.store_event);
    let [version] = versions[..] else {
        return Err(Failure::failed(format!("{} versions are named by {wanted:?}: name one", versions.len())));
    };
    let sop_instance_uid = sop_instance_uid.parse().map_err(Failure::failed)?;
    let identity = (version.study_instance_uid.clone(), version.series_instance_uid.clone(), sop_instance_uid);
    let position = ingest(server)?.choose_version(&server.tenant, identity, version.store_event, by, reason).await?;
    println!("version {} is shown from {position} on", version.digest);
    Ok(())
}
