//! `cairn orphans`: objects that no event names.

use super::{
    Failure, connection,
    table::{Cell, Rows, one},
};
use crate::cli::{Common, OrphansAction, ServerArgs};
use bytes::Bytes;
use cairn_archive::envelope::rfc3339;
use cairn_service_api::{
    AnswerStream, Lifecycle,
    orphans::{Orphan, OrphanLook, OrphansKept, OrphansStatus},
};
use cairn_service_grpc::client::LifecycleClient;
use futures_util::TryStreamExt;
use std::{fs::File, io::Write, path::Path, time::Duration};

pub async fn run(action: OrphansAction) -> Result<(), Failure> {
    match action {
        OrphansAction::Status { common } => {
            let status = client(&common.server)?.orphans_status().await?;
            show(&common, &status)?;
            judge(&status)
        }
        OrphansAction::List { common } => list(&common).await,
        OrphansAction::Look { common, poll } => look(&common, poll).await,
        OrphansAction::Release { common, look } => {
            client(&common.server)?.release_orphans(look).await?;
            Ok(())
        }
        OrphansAction::Export { common, directory } => export(&common, &directory).await,
    }
}

fn client(server: &ServerArgs) -> Result<LifecycleClient, Failure> {
    Ok(LifecycleClient::new(&connection(server)?)?)
}

fn show(common: &Common, status: &OrphansStatus) -> Result<(), Failure> {
    let of = |what: fn(&OrphanLook) -> Cell| status.last.as_ref().map_or(Cell::Absent, what);
    one(
        common.output,
        &[
            ("Site", status.site.to_string().into()),
            ("Orphans", status.orphans.into()),
            ("Bytes", Cell::Size(status.bytes)),
            ("Kept", status.kept.map_or(Cell::Absent, |kept| why(kept).into())),
            ("GraceMs", status.grace.into()),
            ("Look", of(|look| look.number.into())),
            ("LookBegan", of(|look| rfc3339(look.began_at_ms).into())),
            ("LookEnded", of(|look| rfc3339(look.ended_at_ms).into())),
            ("LookEvents", of(|look| look.events.into())),
            ("LookObjects", of(|look| look.objects.into())),
            ("LookRemoved", of(|look| look.removed.into())),
            ("LookRemovedBytes", of(|look| Cell::Size(look.removed_bytes))),
        ],
    )
}

fn why(kept: OrphansKept) -> &'static str {
    match kept {
        OrphansKept::TooMany => "too many",
        OrphansKept::NewLife => "new life of the log",
        OrphansKept::UnreadableRecords => "records of the log that can't be read",
    }
}

fn judge(status: &OrphansStatus) -> Result<(), Failure> {
    match status.kept {
        None => Ok(()),
        Some(kept) => Err(Failure::Differs(format!("orphans are kept until they are released: {}", why(kept)))),
    }
}

async fn list(common: &Common) -> Result<(), Failure> {
    let mut orphans = client(&common.server)?.orphans().await?;
    let columns = [("Object", 36), ("Bytes", 10), ("Stored", 24), ("Found", 24), ("Look", 6)];
    let mut rows = Rows::new(common.output, &columns);
    while let Some(Orphan { info, found_at_ms, look }) = orphans.try_next().await? {
        rows.cells(&[
            info.object.key.to_string().into(),
            Cell::Size(info.object.length),
            rfc3339(info.put_ended_at_ms).into(),
            rfc3339(found_at_ms).into(),
            look.into(),
        ])?;
    }
    rows.flush()
}

async fn look(common: &Common, poll: Duration) -> Result<(), Failure> {
    let client = client(&common.server)?;
    let number = |status: &OrphansStatus| status.last.map_or(0, |look| look.number);
    let before = number(&client.orphans_status().await?);
    client.look_for_orphans().await?;
    loop {
        let status = client.orphans_status().await?;
        if number(&status) > before {
            show(common, &status)?;
            return judge(&status);
        }
        tokio::time::sleep(poll).await;
    }
}

async fn export(common: &Common, directory: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(directory).map_err(Failure::failed)?;
    let client = client(&common.server)?;
    let mut orphans = client.orphans().await?;
    let (mut written, mut there) = (0_u64, 0_u64);
    while let Some(orphan) = orphans.try_next().await? {
        let key = orphan.info.object.key;
        let path = directory.join(format!("{key}.dcm"));
        if path.exists() {
            there += 1;
            continue;
        }
        write(client.read_orphan(key).await?, &path).await?;
        written += 1;
    }
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(Failure::failed)?;
    one(common.output, &[("Written", Cell::from(written)), ("ThereAlready", there.into())])
}

/// Under its name the file is whole.
async fn write(mut bytes: AnswerStream<Bytes>, path: &Path) -> Result<(), Failure> {
    let unfinished = path.with_extension("part");
    let mut file = File::create(&unfinished).map_err(Failure::failed)?;
    while let Some(chunk) = bytes.try_next().await? {
        file.write_all(&chunk).map_err(Failure::failed)?;
    }
    file.sync_all().and_then(|()| std::fs::rename(&unfinished, path)).map_err(Failure::failed)
}
