//! `cairn import`: files, folders and DICOMDIRs into a running archive, over gRPC; or what another archive has.

mod find;
mod journal;
mod source;

use super::{
    Failure, ingest,
    table::{csv_field, one},
};
use crate::cli::{ImportArgs, Output};
use bytes::Bytes;
use cairn_archive::{
    events::{Door, ReceiptEnd},
    ids::ReceiptId,
};
use cairn_replay::Pace;
use cairn_service_api::{
    Error, ErrorKind, Ingest,
    ingest::{Body, InstanceOffer, OfferedForm, Sender, StoreOutcome, Stored},
};
use cairn_service_grpc::client::IngestClient;
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use journal::Journal;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};
use tokio::{fs::File, io::AsyncReadExt};

/// Bytes per read of a file, and per message to the archive.
const CHUNK_BYTES: usize = 256 * 1024;

/// Counts of an import; they add up to the files found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    stored: u64,
    repeated: u64,
    conflicts: u64,
    not_dicom: u64,
    failed: u64,
    before: u64,
}

pub async fn run(args: ImportArgs) -> Result<(), Failure> {
    if args.paths.is_empty() {
        return source::run(args).await;
    }
    let files = find::files(&args.paths)?;
    let mut journal = args.resume.as_deref().map(Journal::open).transpose().map_err(Failure::failed)?;
    let mut counts = Counts::default();
    let (before, waiting): (Vec<PathBuf>, Vec<PathBuf>) =
        files.into_iter().partition(|file| journal.as_ref().is_some_and(|journal| journal.has(file)));
    counts.before = before.len() as u64;
    let mut report = args.report.as_deref().map(fs::File::create).transpose().map_err(Failure::failed)?;
    if let Some(report) = &mut report {
        writeln!(report, "file,result,sop_instance_uid,detail").map_err(Failure::failed)?;
    }
    let client = ingest(&args.server)?;
    let receipt = client.open_receipt(sender(&args)).await?;
    let bar = progress(args.quiet, waiting.len());
    let pace = Pace::new(args.talk.rate, args.talk.bytes_per_second);
    let mut results = stream::iter(waiting.into_iter().map(|file| {
        let (client, pace) = (client.clone(), pace.clone());
        async move { (store(&client, receipt, &file, &pace).await, file) }
    }))
    .buffer_unordered(args.transfers.into());
    let mut interrupted = false;
    loop {
        let next = tokio::select! {
            next = results.next() => next,
            _ = tokio::signal::ctrl_c() => { interrupted = true; None }
        };
        let Some((result, file)) = next else { break };
        bar.inc(1);
        if let Err(error) = &result
            && error.kind == ErrorKind::Unavailable
        {
            return Err(Failure::Unreachable(error.message.clone()));
        }
        let line = counts.add(&file, &result);
        if let (Some(journal), Ok(_)) = (&mut journal, &result) {
            journal.add(&file).map_err(Failure::failed)?;
        }
        if let Some(report) = &mut report {
            writeln!(report, "{line}").map_err(Failure::failed)?;
        }
    }
    drop(results);
    bar.finish_and_clear();
    let end = if interrupted { ReceiptEnd::Aborted } else { ReceiptEnd::Completed };
    client.close_receipt(receipt, end).await?;
    counts.conclude(interrupted, args.output)
}

fn sender(args: &ImportArgs) -> Sender {
    Sender {
        tenant: args.server.tenant.clone(),
        door: Door::Import,
        calling_ae_title: args.ae.clone(),
        issuer_of_patient_id: args.issuer.clone(),
        ..Sender::default()
    }
}

fn progress(quiet: bool, files: usize) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files, {per_sec}, {eta} left");
    ProgressBar::new(files as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

async fn store(client: &IngestClient, receipt: ReceiptId, path: &Path, pace: &Pace) -> Result<Stored, Error> {
    pace.instances(1).await;
    let read = |error: std::io::Error| Error::new(ErrorKind::Invalid, format!("file can't be read: {error}"));
    let file = File::open(path).await.map_err(read)?;
    let length = file.metadata().await.map_err(read)?.len();
    let offer = InstanceOffer { form: OfferedForm::File, length_hint: Some(length), study_instance_uid: None };
    client.store(receipt, offer, pace.paced(body(file))).await
}

fn body(file: File) -> Body<'static> {
    Box::pin(stream::try_unfold(file, |mut file| async move {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk).await;
        // The archive keeps nothing of an instance whose bytes broke off.
        read.map_err(|error| Error::new(ErrorKind::Aborted, format!("file can't be read: {error}")))?;
        Ok((!chunk.is_empty()).then(|| (Bytes::from(chunk), file)))
    }))
}

impl Counts {
    /// Counts a result; gives its line of the report.
    fn add(&mut self, file: &Path, result: &Result<Stored, Error>) -> String {
        let (name, uid, detail) = match result {
            Ok(stored) => {
                let name = match stored.outcome {
                    StoreOutcome::New => "stored",
                    StoreOutcome::Repeat => "repeated",
                    StoreOutcome::Conflict { .. } | StoreOutcome::ElsewhereToo => "conflict",
                };
                let codes: Vec<&str> = stored.findings.iter().map(|(code, _)| code.as_str()).collect();
                (name, stored.sop_instance_uid.to_string(), codes.join(" "))
            }
            Err(error) if error.reason == cairn_service_api::Reason::CannotUnderstand => {
                ("not-dicom", String::new(), error.message.clone())
            }
            Err(error) => ("failed", String::new(), error.message.clone()),
        };
        *match name {
            "stored" => &mut self.stored,
            "repeated" => &mut self.repeated,
            "conflict" => &mut self.conflicts,
            "not-dicom" => &mut self.not_dicom,
            _ => &mut self.failed,
        } += 1;
        [csv_field(&file.display().to_string()), name.into(), uid, csv_field(&detail)].join(",")
    }

    fn conclude(self, interrupted: bool, output: Output) -> Result<(), Failure> {
        let Self { stored, repeated, conflicts, not_dicom, failed, before } = self;
        if let Output::Json | Output::Csv = output {
            let counts = [
                ("Stored", stored),
                ("Repeated", repeated),
                ("Conflicts", conflicts),
                ("NotDicom", not_dicom),
                ("Failed", failed),
                ("StoredBefore", before),
            ];
            one(output, &counts.map(|(name, count)| (name, count.to_string())))?;
        } else {
            println!(
                "stored {stored}, repeated {repeated}, conflicts {conflicts}, not DICOM {not_dicom}, failed {failed}"
            );
            if before > 0 {
                println!("stored by an earlier run: {before}");
            }
        }
        match (interrupted, failed) {
            (true, _) => Err(Failure::Interrupted),
            (false, 0) => Ok(()),
            (false, failed) => Err(Failure::Partial(format!("{failed} files were not stored"))),
        }
    }
}
