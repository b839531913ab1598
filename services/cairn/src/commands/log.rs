//! `cairn log`: what of the log is in the object store, too.

use super::{
    Failure, connection,
    table::{Cell, Rows},
};
use crate::cli::{Common, LogAction, ServerArgs};
use cairn_service_api::{Error, ErrorKind, Notary};
use cairn_service_grpc::client::NotaryClient;

pub async fn run(action: LogAction) -> Result<(), Failure> {
    match action {
        LogAction::Status { common } => status(&common).await,
        LogAction::Seal { common } => {
            client(&common.server)?.seal().await.map_err(differs)?;
            status(&common).await
        }
    }
}

fn client(server: &ServerArgs) -> Result<NotaryClient, Failure> {
    Ok(NotaryClient::new(&connection(server)?)?)
}

async fn status(common: &Common) -> Result<(), Failure> {
    let sealed = client(&common.server)?.sealed().await?;
    let columns = [("Partition", 9), ("Ranges", 6), ("Bytes", 10), ("SealedTo", 10), ("LogBegin", 10), ("LogEnd", 10)];
    let mut rows = Rows::new(common.output, &columns);
    for of in &sealed.partitions {
        rows.cells(&[
            u64::from(of.partition.0).into(),
            of.ranges.into(),
            Cell::Size(of.bytes),
            of.sealed_to.0.into(),
            of.log_begin.0.into(),
            of.log_end.0.into(),
        ])?;
    }
    rows.flush()?;
    sealed.trouble.map_or(Ok(()), |trouble| Err(Failure::Objective(trouble)))
}

/// What the log is not: a difference, and no failure.
fn differs(error: Error) -> Failure {
    match error.kind {
        ErrorKind::Conflict => Failure::Differs(error.message),
        _ => error.into(),
    }
}
