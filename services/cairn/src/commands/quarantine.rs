//! `cairn quarantine`: inputs that were refused, and their bytes.

use super::{Failure, ingest, table::Rows};
use crate::cli::{QuarantineAction, QuarantineArgs};
use cairn_archive::envelope::rfc3339;
use cairn_service_api::Ingest;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

pub async fn run(args: QuarantineArgs) -> Result<(), Failure> {
    let ingest = ingest(&args.server)?;
    match args.action {
        QuarantineAction::List { output } => {
            let columns = [("Id", 36), ("Refused", 24), ("From", 16), ("Bytes", 12), ("Whole", 5), ("Reason", 24)];
            let mut rows = Rows::new(output, &columns);
            let mut entries = ingest.quarantine().await?;
            while let Some(entry) = entries.next().await {
                let entry = entry?;
                let whole = if entry.complete { "yes" } else { "no" };
                rows.row(&[
                    entry.id.to_string(),
                    rfc3339(entry.refused_at_ms),
                    entry.calling_ae_title,
                    entry.length.to_string(),
                    whole.into(),
                    entry.reason,
                ])?;
            }
            rows.flush()
        }
        QuarantineAction::Get { id, to } => {
            let mut bytes = ingest.quarantined_bytes(id.parse().map_err(Failure::usage)?).await?;
            let mut file = tokio::fs::File::create_new(&to).await.map_err(Failure::failed)?;
            while let Some(chunk) = bytes.next().await {
                file.write_all(&chunk?).await.map_err(Failure::failed)?;
            }
            file.flush().await.map_err(Failure::failed)?;
            println!("{}", to.display());
            Ok(())
        }
    }
}
