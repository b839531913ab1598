//! `cairn audit`: proof that history was not altered.

mod log;
mod verify;

use super::{
    Failure, connection,
    table::{Cell, one},
};
use crate::{
    cli::{AuditAction, Common, ServerArgs},
    signing::{Key, of_file},
};
use cairn_archive::{Position, envelope::rfc3339};
use cairn_service_api::{Error, ErrorKind, Notary};
use cairn_service_grpc::client::NotaryClient;
use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
};

/// Longer files are none of ours.
const FILE_BYTES_MAX: u64 = 16 << 20;

pub async fn run(action: AuditAction) -> Result<(), Failure> {
    match action {
        AuditAction::Key { file } => {
            print!("{}", Key::make(&file)?);
            eprintln!("{} is the private key: whoever has it signs checkpoints", file.display());
            Ok(())
        }
        AuditAction::Status { common } => status(&common).await,
        AuditAction::Checkpoint { accept_breaks, out, common } => {
            checkpoint(&common, accept_breaks, out.as_deref()).await
        }
        AuditAction::Prove { event, with_payload, out, server } => {
            prove(&server, &event, with_payload, out.as_deref()).await
        }
        AuditAction::ProveConsistency { older, newer, out, server } => {
            prove_consistency(&server, &older, newer.as_deref(), out.as_deref()).await
        }
        AuditAction::Verify { files, public_key } => verify::files(&files, &public_key),
        AuditAction::VerifyLog { checkpoint, public_key, source } => {
            log::verify(&checkpoint, &public_key, &source).await
        }
    }
}

fn client(server: &ServerArgs) -> Result<NotaryClient, Failure> {
    Ok(NotaryClient::new(&connection(server)?)?)
}

async fn status(common: &Common) -> Result<(), Failure> {
    let status = client(&common.server)?.notary().await?;
    let latest = status.latest.as_ref();
    one(
        common.output,
        &[
            ("Site", status.site.to_string().into()),
            ("HasKey", Cell::Flag(status.has_key)),
            ("EventsInTrees", status.events.0.into()),
            ("EventsInLog", status.events.1.into()),
            ("Checkpoint", latest.map_or(Cell::Absent, |latest| latest.number.into())),
            ("CheckpointTime", latest.map_or(Cell::Absent, |latest| rfc3339(latest.at_ms).into())),
            ("CheckpointEvents", latest.map_or(Cell::Absent, |latest| latest.events.into())),
            ("Exported", status.exported.map_or(Cell::Absent, Cell::from)),
            ("Trouble", status.trouble.clone().map_or(Cell::Absent, Cell::from)),
        ],
    )?;
    status.trouble.map_or(Ok(()), |trouble| Err(Failure::Objective(trouble)))
}

async fn checkpoint(common: &Common, accept_breaks: bool, out: Option<&Path>) -> Result<(), Failure> {
    let signed = client(&common.server)?.checkpoint(accept_breaks).await.map_err(differs)?;
    if let Some(path) = out {
        write(path, &signed.document)?;
    }
    one(
        common.output,
        &[
            ("Checkpoint", Cell::from(signed.number)),
            ("Time", rfc3339(signed.at_ms).into()),
            ("Events", signed.events.into()),
            ("Breaks", signed.breaks.into()),
        ],
    )
}

async fn prove(server: &ServerArgs, event: &Position, payload: bool, out: Option<&Path>) -> Result<(), Failure> {
    let document = client(server)?.prove_event(event, payload).await.map_err(differs)?;
    give(out, &document)
}

async fn prove_consistency(
    server: &ServerArgs,
    older: &Path,
    newer: Option<&Path>,
    out: Option<&Path>,
) -> Result<(), Failure> {
    let (older, newer) = (read(older)?, newer.map(read).transpose()?);
    let proof = client(server)?.prove_consistency(&older, newer.as_deref()).await;
    give(out, &proof.map_err(differs)?)
}

/// What the log is not: a difference, and no failure.
fn differs(error: Error) -> Failure {
    match error.kind {
        ErrorKind::Conflict | ErrorKind::Corrupt => Failure::Differs(error.message),
        _ => error.into(),
    }
}

fn give(out: Option<&Path>, document: &str) -> Result<(), Failure> {
    match out {
        Some(path) => write(path, document),
        None => std::io::stdout().write_all(document.as_bytes()).map_err(Failure::failed),
    }
}

/// Proofs are kept: what is there is not written over.
fn write(path: &Path, document: &str) -> Result<(), Failure> {
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(document.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| of_file(path, error))
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 > FILE_BYTES_MAX => Err(of_file(path, "longer than any proof")),
        Ok(_) => Ok(text),
        // Not UTF-8: no document of ours, whatever it was.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(Failure::Differs(format!("{}: no proof and no checkpoint", path.display())))
        }
        Err(error) => Err(of_file(path, error)),
    }
}
