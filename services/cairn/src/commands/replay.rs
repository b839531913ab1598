//! `cairn replay`: the log, or a part of it, to another archive; reconciled at the end.

use super::{Failure, connection, index, retrieval, server_address, table::one};
use crate::cli::{ReplayAction, ReplayArgs, ReplayRun, Selected, Talk};
use async_trait::async_trait;
use cairn_archive::{KeyId, Partition};
use cairn_dicomweb::agent::{Agent, AgentConfig};
use cairn_dimse::{Implementation, Limits, scu::Remote};
use cairn_process::units::format_size;
use cairn_replay::{
    Destination, Filter, LogExtent, LogReader, Notes, Pace, Patience, Selection, Start, Stopped,
    reconcile::{self, Reconcile, Reconciled},
    replay::{self, Counts, Replay},
    report, unchanged,
};
use cairn_service_api::{AnswerStream, Error, Retrieval};
use cairn_service_grpc::client::{LogClient, PeerClient, ReadFrom};
use cairn_store_api::{HandedKey, LogRecord};
use indicatif::{ProgressBar, ProgressStyle};
use std::{path::Path, sync::Arc, time::Duration};

/// For the index to fold what the log had when a run began.
const INDEX_TIMEOUT: Duration = Duration::from_secs(60);

pub async fn run(args: ReplayArgs) -> Result<(), Failure> {
    match args.action {
        Some(ReplayAction::Reconcile { run }) => reconcile_alone(&run).await,
        None if args.run.to_cairn.is_some() => to_cairn(&args.run).await,
        None => to_archive(&args.run).await,
    }
}

/// The log of the archive that the arguments name.
struct Log(LogClient);

#[async_trait]
impl LogReader for Log {
    async fn describe(&self) -> Result<LogExtent, Error> {
        let described = self.0.describe().await?;
        let (site, incarnation) = (described.site, described.incarnation);
        let end = |partition| described.end.0.get(&(site.clone(), incarnation, Partition(partition))).copied();
        let ends = (0..described.partitions).map(|partition| end(partition).unwrap_or_default()).collect();
        Ok(LogExtent { incarnation: incarnation.0, ends, end: described.end.clone(), site: site.clone() })
    }

    async fn read(&self, partition: Partition, start: Start) -> Result<AnswerStream<LogRecord>, Error> {
        self.0.read(partition, read_from(start)).await
    }

    async fn read_as_stored(&self, partition: Partition, start: Start) -> Result<AnswerStream<LogRecord>, Error> {
        self.0.read_as_stored(partition, read_from(start)).await
    }

    async fn keys(&self, ids: &[KeyId]) -> Result<Vec<HandedKey>, Error> {
        self.0.keys(ids).await
    }
}

fn read_from(start: Start) -> ReadFrom {
    match start {
        Start::Offset(offset) => ReadFrom::Offset(offset),
        Start::Time(time_ms) => ReadFrom::Time(time_ms),
    }
}

/// Another archive over DIMSE.
pub fn remote(archive: &crate::cli::RemoteAe, talk: &Talk) -> Box<Remote> {
    Box::new(Remote {
        address: archive.address.clone(),
        called: archive.title.clone(),
        calling: talk.calling.clone(),
        limits: Limits::default(),
        implementation: Implementation::default(),
    })
}

/// Another archive over DICOMweb.
///
/// # Errors
/// An address, a header or a file that can't be used.
pub fn agent(url: &str, talk: &Talk) -> Result<Agent, Failure> {
    let mut config = AgentConfig::to(url);
    for header in &talk.header {
        let (name, value) =
            header.split_once(':').ok_or_else(|| Failure::usage(format!("header {header:?} is not NAME: VALUE")))?;
        config.headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let read =
        |path: &Path| std::fs::read(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())));
    if let Some(path) = &talk.bearer_token_file {
        let token = String::from_utf8(read(path)?).map_err(|_| Failure::usage("the bearer token is no text"))?;
        config.headers.push(("Authorization".into(), format!("Bearer {}", token.trim())));
    }
    config.authority = talk.https_authority.as_deref().map(read).transpose()?;
    Agent::new(config).map_err(Failure::usage)
}

pub fn patience(talk: &Talk) -> Patience {
    Patience { attempts: talk.attempts, ..Patience::default() }
}

pub fn pace(talk: &Talk) -> Pace {
    Pace::new(talk.rate, talk.bytes_per_second)
}

/// How a run that stopped is told. What to type to go on is said where there is a journal.
pub fn stopped(stopped: Stopped, notes: Option<&Notes>) -> Failure {
    match notes {
        Some(notes) if notes.lasts() => {
            eprintln!("cairn: the same command goes on from here, with --journal {}", notes.path().display());
        }
        Some(_) => eprintln!("cairn: without --journal FILE a run can not go on where it stopped"),
        None => eprintln!("cairn: the same command goes on from here: the other site says what it holds"),
    }
    match stopped {
        Stopped::Interrupted => Failure::Interrupted,
        Stopped::Unreachable(what) => Failure::OtherUnreachable(format!("the other archive: {what}")),
        Stopped::Away(what) => Failure::Unreachable(what),
        other @ Stopped::Journal(cairn_replay::JournalError::OfAnother { .. }) => Failure::usage(other),
        other => Failure::failed(other),
    }
}

/// Ends with the next Ctrl-C or SIGTERM.
pub async fn interrupted() {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
    let terminated = async {
        match &mut terminate {
            Some(terminate) => _ = terminate.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

pub fn bar(quiet: bool, template: &str) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

fn filter(run: &ReplayRun) -> Result<Filter, Failure> {
    let Selected { from, to, study, modality, calling_ae, expression, all_versions } = &run.selected;
    let selection = Selection {
        tenant: run.server.tenant.clone(),
        from_ms: *from,
        to_ms: *to,
        studies: study.clone(),
        modalities: modality.clone(),
        calling_aes: calling_ae.clone(),
        expression: expression.clone(),
        all_versions: *all_versions,
    };
    Filter::new(selection).map_err(Failure::usage)
}

/// Where to, and what the journal calls it.
fn destination(run: &ReplayRun) -> Result<(Destination, String), Failure> {
    match (&run.to_dimse, &run.to_stow) {
        (Some(archive), _) => {
            Ok((Destination::Dimse(remote(archive, &run.talk)), format!("{}@{}", archive.title, archive.address)))
        }
        (None, Some(url)) => Ok((Destination::Web(agent(url, &run.talk)?), url.clone())),
        (None, None) => Err(Failure::usage("where to? --to-dimse AE@HOST:PORT, --to-stow URL or --to-cairn URL")),
    }
}

async fn to_archive(run: &ReplayRun) -> Result<(), Failure> {
    let filter = filter(run)?;
    let (destination, name) = match (run.dry_run, destination(run)) {
        (true, Err(_)) => (Destination::Nowhere, String::new()),
        (true, Ok((_, name))) => (Destination::Nowhere, name),
        (false, known) => known?,
    };
    if run.dry_run && run.journal.is_some() {
        return Err(Failure::usage("a dry run leaves no journal: --journal does not go with --dry-run"));
    }
    let notes = Notes::new(run.journal.as_deref());
    let counts = send(run, filter, destination.clone(), name, &notes).await?;
    tell(run, &counts)?;
    if run.dry_run {
        return Ok(());
    }
    if !run.no_reconcile {
        return reconcile(run, destination, &notes).await;
    }
    match counts.refused + counts.unsent {
        0 => Ok(()),
        lost => Err(Failure::Differs(format!("{lost} instances are not at the destination"))),
    }
}

async fn send(
    run: &ReplayRun,
    filter: Filter,
    destination: Destination,
    destination_name: String,
    notes: &Notes,
) -> Result<Counts, Failure> {
    let log = Log(LogClient::new(&connection(&run.server)?)?);
    let replay = Replay {
        log: &log,
        index: Arc::new(index(&run.server)?),
        retrieval: Arc::new(retrieval(&run.server)?),
        destination,
        destination_name,
        filter,
        connections: run.connections.into(),
        pace: pace(&run.talk),
        patience: patience(&run.talk),
        index_timeout: INDEX_TIMEOUT,
    };
    let bar = bar(run.quiet, "{bar:30} {percent}% of the log, {msg}, {eta} left");
    let mut on = |counts: &Counts| {
        bar.set_length(counts.events);
        bar.set_position(counts.read);
        let sent = counts.stored + counts.warned + counts.noted;
        bar.set_message(format!("{sent} sent ({}), {} refused", format_size(counts.bytes), counts.refused));
    };
    let counts = replay::run(replay, notes, interrupted(), &mut on).await;
    bar.finish_and_clear();
    counts.map_err(|error| stopped(error, Some(notes)))
}

fn tell(run: &ReplayRun, counts: &Counts) -> Result<(), Failure> {
    let mut fields = vec![("Events", counts.read)];
    match run.dry_run {
        true => fields.push(("WouldBeSent", counts.noted)),
        false => fields.extend([("Stored", counts.stored), ("Warned", counts.warned), ("Refused", counts.refused)]),
    }
    fields.extend([("Unsent", counts.unsent), ("NotShown", counts.not_shown)]);
    if counts.before > 0 {
        fields.push(("OfThemBefore", counts.before));
    }
    fields.push(("Bytes", counts.bytes));
    let fields: Vec<_> = fields.into_iter().map(|(name, count)| (name, count.to_string())).collect();
    one(run.output, &fields)
}

async fn reconcile(run: &ReplayRun, destination: Destination, notes: &Notes) -> Result<(), Failure> {
    let compare_bytes: Option<Arc<dyn Retrieval>> = match run.compare_bytes {
        true => Some(Arc::new(retrieval(&run.server)?)),
        false => None,
    };
    let reconcile = Reconcile {
        destination,
        tenant: run.server.tenant.clone(),
        compare_bytes,
        settle: run.settle,
        patience: patience(&run.talk),
    };
    let bar = bar(run.quiet, "{spinner} reconciled {pos} instances, {msg}");
    let mut on = |reconciled: &Reconciled| {
        bar.set_position(reconciled.expected);
        bar.set_message(format!("{} missing", reconciled.missing));
    };
    let report = run.report.as_deref();
    let reconciled = reconcile::run(reconcile, notes, report, interrupted(), &mut on).await;
    bar.finish_and_clear();
    let reconciled = reconciled.map_err(|error| stopped(error, Some(notes)))?;
    one(run.output, &reconciled.counts().map(|(name, count)| (name, count.to_string())))?;
    let files = report.map(|path| report::files(path).map(|file| file.display().to_string()).join(", "));
    match (reconciled.is_whole(), files) {
        (true, _) => Ok(()),
        (false, Some(files)) => Err(Failure::Differs(format!("not all is there as it should be: {files}"))),
        (false, None) => Err(Failure::Differs("not all is there as it should be; --report PATH names each".into())),
    }
}

/// By the journal of a run, or by what a run would send.
async fn reconcile_alone(run: &ReplayRun) -> Result<(), Failure> {
    let (destination, name) = destination(run)?;
    let filter = filter(run)?;
    let notes = match &run.journal {
        Some(path) if !path.exists() => {
            return Err(Failure::usage(format!("{}: there is no such journal", path.display())));
        }
        Some(path) => Notes::new(Some(path)),
        None => {
            let notes = Notes::new(None);
            send(run, filter, Destination::Nowhere, name, &notes).await?;
            notes
        }
    };
    reconcile(run, destination, &notes).await
}

/// As events unchanged: all, or all before a time.
async fn to_cairn(run: &ReplayRun) -> Result<(), Failure> {
    let Selected { from, to, study, modality, calling_ae, expression, all_versions } = &run.selected;
    let is_part = from.is_some() || expression.is_some() || *all_versions;
    if is_part || !study.is_empty() || !modality.is_empty() || !calling_ae.is_empty() {
        return Err(Failure::usage(
            "events go unchanged from the beginning of the log on, with --to at most: the other site takes what it has of \
             an origin for all there is. A part goes by --to-stow or --to-dimse, as instances",
        ));
    }
    let there = crate::cli::ServerArgs { server: run.to_cairn.clone(), ..run.server.clone() };
    let log = Log(LogClient::new(&connection(&run.server)?)?);
    let (retrieval, peer) = (retrieval(&run.server)?, PeerClient::new(&connection(&there)?)?);
    let unchanged = unchanged::Unchanged {
        log: &log,
        retrieval: &retrieval,
        peer: &peer,
        to_ms: *to,
        partitions_at_once: run.connections.into(),
        pace: pace(&run.talk),
        patience: patience(&run.talk),
    };
    let bar = bar(run.quiet, "{bar:30} {percent}% of the log, {msg}, {eta} left");
    let mut on = |counts: &unchanged::Counts| {
        bar.set_length(counts.events);
        bar.set_position(counts.read);
        bar.set_message(format!("{} delivered ({})", counts.delivered, format_size(counts.bytes)));
    };
    let counts = unchanged::run(unchanged, interrupted(), &mut on).await;
    bar.finish_and_clear();
    let counts = counts.map_err(|error| match error {
        Stopped::Refused(what) => Failure::failed(format!("{}: {what}", server_address(&there))),
        other => stopped(other, None),
    })?;
    let fields = [
        ("Events", counts.read),
        ("Delivered", counts.delivered),
        ("HeldThere", counts.held),
        ("Objects", counts.objects),
        ("Bytes", counts.bytes),
    ];
    one(run.output, &fields.map(|(name, count)| (name, count.to_string())))
}
