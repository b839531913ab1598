//! From another archive: listed, fetched, and every instance that was listed accounted for.

use super::sender;
use crate::{
    cli::ImportArgs,
    commands::{
        Failure, index, ingest,
        query::parse_tag,
        replay::{agent, bar, interrupted, pace, patience, remote, stopped},
        table::one,
    },
};
use cairn_archive::events::ReceiptEnd;
use cairn_dicom::{dataset::DataSet, tags};
use cairn_replay::{
    Notes, Stopped,
    import::{self, Import, Imported, Source},
    report,
};
use cairn_service_api::Ingest;
use std::{sync::Arc, time::Duration};

/// For the index to fold what came by C-MOVE.
const INDEX_TIMEOUT: Duration = Duration::from_secs(60);
/// Study Instance UIDs in one question.
const STUDIES_AT_ONCE: usize = 50;

pub(super) async fn run(args: ImportArgs) -> Result<(), Failure> {
    let (source, source_name) = source(&args)?;
    let keys = keys(&args)?;
    let client = ingest(&args.server)?;
    let receipt = client.open_receipt(sender(&args)).await?;
    let notes = Notes::new(args.resume.as_deref());
    let import = Import {
        source,
        source_name,
        keys,
        tenant: args.server.tenant.clone(),
        ingest: Arc::new(client.clone()),
        receipt,
        index: Arc::new(index(&args.server)?),
        studies_at_once: args.transfers.into(),
        pace: pace(&args.talk),
        patience: patience(&args.talk),
        index_timeout: INDEX_TIMEOUT,
    };
    let bar = bar(args.quiet, "{bar:30} {pos}/{len} studies, {msg}, {eta} left");
    let mut on = |imported: &Imported| {
        bar.set_length(imported.studies);
        bar.set_position(imported.studies_done);
        bar.set_message(format!("{} instances, {} missing", imported.listed, imported.missing));
    };
    let imported = import::run(import, &notes, args.report.as_deref(), interrupted(), &mut on).await;
    bar.finish_and_clear();
    let end = match &imported {
        Err(Stopped::Interrupted) => ReceiptEnd::Aborted,
        _ => ReceiptEnd::Completed,
    };
    let closed = client.close_receipt(receipt, end).await;
    let imported = imported.map_err(|error| stopped(error, Some(&notes)))?;
    closed?;
    one(args.output, &imported.counts().map(|(name, count)| (name, count.to_string())))?;
    let files =
        args.report.as_deref().map(|path| report::files(path).map(|file| file.display().to_string()).join(", "));
    match (imported.is_whole(), files) {
        (true, _) => Ok(()),
        (false, Some(files)) => Err(Failure::Differs(format!("not all that was listed is here: {files}"))),
        (false, None) => Err(Failure::Differs("not all that was listed is here; --report FILE names each".into())),
    }
}

/// From where, and what the journal calls it.
fn source(args: &ImportArgs) -> Result<(Source, String), Failure> {
    match (&args.from_dimse, &args.move_to, &args.from_dicomweb) {
        (Some(archive), to, _) => {
            let (name, remote) = (format!("{}@{}", archive.title, archive.address), remote(archive, &args.talk));
            Ok(match to {
                Some(title) => (Source::Move(remote, title.clone()), name),
                None => (Source::Get(remote), name),
            })
        }
        (None, _, Some(url)) => Ok((Source::Web(agent(url, &args.talk)?), url.clone())),
        (None, _, None) => Err(Failure::usage("from where?")),
    }
}

/// One question for each date range and modality: archives differ in what several values of a key mean. A list of UIDs is the
/// same to all of them.
fn keys(args: &ImportArgs) -> Result<Vec<DataSet>, Failure> {
    let mut base = DataSet::new();
    for key in &args.keys {
        let (name, value) = key.split_once('=').ok_or_else(|| Failure::usage(format!("{key:?} is not KEY=VALUE")))?;
        base.put_text(parse_tag(name)?, value);
    }
    for study in &args.study {
        let parsed = study.parse::<cairn_dicom::Uid>();
        parsed.map_err(|error| Failure::usage(format!("--study {study}: {error}")))?;
    }
    let mut all = vec![base];
    let mut each = |tag, values: Vec<String>| {
        if !values.is_empty() {
            all = all
                .iter()
                .flat_map(|keys| {
                    values.iter().map(move |value| {
                        let mut keys = keys.clone();
                        keys.put_text(tag, value);
                        keys
                    })
                })
                .collect();
        }
    };
    each(tags::STUDY_DATE, args.study_date.clone());
    each(tags::MODALITIES_IN_STUDY, args.modality.clone());
    each(tags::STUDY_INSTANCE_UID, args.study.chunks(STUDIES_AT_ONCE).map(|some| some.join("\\")).collect());
    Ok(all)
}
