//! `cairn drill`: rehearses the loss of a site, and leaves a report.

mod asked;
mod checks;
mod dicom;
mod execute;
mod html;
mod journal;
mod markdown;
mod put_back;
mod ready;
mod report;
mod sides;
mod signature;
mod svg;
mod verification;
mod workload;

use super::{Failure, table::Rows};
use crate::{
    cli::{DrillAction, RunArgs, ServerArgs},
    process::Signals,
    signing::{Key, sha256},
};
use cairn_archive::{EventId, envelope::rfc3339};
use cairn_lifecycle::Signer;
use cairn_process::clock::{Clock, SystemClock};
use cairn_service_api::replication::PeerStatus;
use checks::{Check, Finding};
use execute::Drill;
use journal::{Journal, Place};
use report::{Objective, Outcome, Report, SCHEMA, Site, Verdict, millis, seconds};
use sides::{Facts, Side};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::sync::watch;

pub async fn run(action: DrillAction) -> Result<(), Failure> {
    match action {
        DrillAction::Run(args) => drill(*args).await,
        DrillAction::End { journal, catch_up_timeout, server } => end(&journal, catch_up_timeout, &server).await,
        DrillAction::Key { file } => {
            print!("{}", Key::make(&file)?);
            eprintln!("{} is the private key: whoever has it signs reports", file.display());
            Ok(())
        }
        DrillAction::Verify { directory, public_key } => {
            signature::verify(&directory, &public_key)?.iter().for_each(|line| println!("{line}"));
            Ok(())
        }
    }
}

async fn drill(args: RunArgs) -> Result<(), Failure> {
    let clock = SystemClock::new();
    let original = Side::original(&args.common.server).await?;
    if original.name == args.peer {
        return Err(Failure::usage(format!("{} is the site that is asked: name another", args.peer)));
    }
    let facts = original.facts(|| clock.unix_ms()).await?;
    let peer = checks::peer(&facts, &args.peer)
        .ok_or_else(|| Failure::usage(format!("{} is no peer of {}", args.peer, original.name)))?;
    let addresses = args.peer_server.clone().map_or_else(|| peer.addresses.clone(), |address| vec![address]);
    let standby = Side::at(&args.common.server, &addresses).await?;
    if standby.name != args.peer {
        return Err(Failure::usage(format!("site {} answers at {}", standby.name, standby.addresses.join(", "))));
    }
    let there = standby.facts(|| clock.unix_ms()).await?;
    let rpo = args.rpo.unwrap_or(peer.rpo_target);
    let checks = checks::all(&facts, &there, rpo);
    show(&args, &checks)?;
    if !checks::may(&checks) {
        return Err(Failure::failed("the drill is refused: nothing was done"));
    }
    steps(&args, &facts, &original, &standby);
    if !args.execute {
        eprintln!("Nothing was done: --execute --yes {} --key FILE does it.", args.peer);
        return Ok(());
    }
    if args.yes.as_ref() != Some(&args.peer) {
        return Err(Failure::usage(format!("nothing was done: if that is meant, add --yes {}", args.peer)));
    }
    let key = args.key.as_deref().ok_or_else(|| Failure::usage("--key names what signs the report"))?;
    let key = Key::read(key)?;
    let begun_ms = clock.unix_ms();
    let directory = directory(&args, begun_ms)?;
    let id = EventId(uuid::Uuid::now_v7());
    let report = prepared(&args, (&facts, &there), (&original, &standby), checks, rpo, (begun_ms, id), &key);
    execute((original, standby), &args, &directory, report, &key, id).await
}

/// The checks, a line each.
fn show(args: &RunArgs, checks: &[Check]) -> Result<(), Failure> {
    let mut rows = Rows::new(args.common.output, &[("Check", 15), ("Result", 7), ("What", 60)]);
    for Check { name, finding, what } in checks {
        let result = match finding {
            Finding::Good => "ok",
            Finding::Note => "note",
            Finding::Refused => "REFUSED",
        };
        rows.row(&[(*name).to_owned(), result.to_owned(), what.clone()])?;
    }
    rows.flush()
}

/// What is going to be done, step by step.
fn steps(args: &RunArgs, facts: &Facts, original: &Side, standby: &Side) {
    let (here, there) = (&original.name, &standby.name);
    let peers = facts.replication.peers.iter().map(|peer| peer.site.to_string()).collect::<Vec<_>>().join(", ");
    let dicom = args.dicom.as_ref().map_or(String::new(), |address| {
        let store = if args.store { ", C-STORE of a synthetic instance, which stays" } else { "" };
        format!("; C-ECHO and C-FIND at {address} by the AE titles of {here}{store}")
    });
    let lines = [
        format!("1. {here} sends nothing more to {peers}, {there} nothing to {here}; what is at risk is measured"),
        format!("2. {there} is promoted (epoch {}): senders may go on storing at both sites", facts.site.epoch + 1),
        format!("3. {there} is asked until it answers queries and retrievals{dicom}"),
        format!("4. {} callers work with {there} for {}", args.callers, seconds(millis(args.workload))),
        format!(
            "5. both states are compared, and the bytes of {} instances at {there} with what {here} knows",
            args.sample
        ),
        format!(
            "6. links go on; {here} takes authority back (epoch {}); each gets what the other took",
            facts.site.epoch + 2
        ),
        "7. both states are compared again; a signed report is written".to_owned(),
    ];
    lines.iter().for_each(|line| eprintln!("{line}"));
}

/// A directory of its own for the report.
fn directory(args: &RunArgs, begun_ms: u64) -> Result<PathBuf, Failure> {
    let stamp: String = rfc3339(begun_ms).chars().filter(|c| c.is_ascii_digit() || *c == 'T').take(15).collect();
    let named = || PathBuf::from("drills").join(format!("{stamp}Z-{}", args.peer));
    let directory = args.report.clone().unwrap_or_else(named);
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", directory.display()));
    fs::create_dir_all(&directory).map_err(failed)?;
    if fs::read_dir(&directory).map_err(failed)?.next().is_some() {
        return Err(Failure::failed(format!(
            "{} is not empty: a report has a directory of its own",
            directory.display()
        )));
    }
    Ok(directory)
}

fn site(side: &Side, facts: &Facts) -> Site {
    let senders = facts.site.senders.iter().find(|senders| senders.site == side.name.as_str());
    Site {
        name: side.name.to_string(),
        addresses: side.addresses.clone(),
        version: facts.site.version.clone(),
        fold_version: facts.index.fold_version,
        studies: facts.index.studies,
        instances: facts.index.instances,
        ae_titles: senders.map(|senders| senders.ae_titles.clone()).unwrap_or_default(),
        epoch: facts.site.epoch,
    }
}

/// A report of a drill that has not begun.
fn prepared(
    args: &RunArgs,
    (here, there): (&Facts, &Facts),
    (original, standby): (&Side, &Side),
    checks: Vec<Check>,
    rpo: Duration,
    (begun_ms, id): (u64, EventId),
    key: &Key,
) -> Report {
    let others = here.replication.peers.iter().filter(|PeerStatus { site, .. }| *site != standby.name);
    let other_sites: Vec<String> = others.map(|peer| peer.site.to_string()).collect();
    Report {
        schema: SCHEMA,
        drill: id.to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
        decided_by: args.by.clone(),
        reason: args.reason.clone(),
        begun: rfc3339(begun_ms),
        ended: String::new(),
        verdict: Verdict { outcome: Outcome::Failed, because: Vec::new() },
        original: site(original, here),
        standby: site(standby, there),
        not_tested: not_tested(args, here, &other_sites),
        other_sites,
        checks,
        recovery_time: Objective { target_ms: millis(args.rto), measured_ms: None },
        recovery_point: Objective { target_ms: millis(rpo), measured_ms: None },
        at_risk_at_isolation: None,
        phases: Vec::new(),
        readiness: Vec::new(),
        at_risk: Vec::new(),
        workload: None,
        isolated: None,
        sample: None,
        afterwards: None,
        put_back: false,
        interrupted: false,
        troubles: Vec::new(),
        signed_by: key.fingerprint(),
        files: BTreeMap::new(),
    }
}

/// What a reader might take for granted, and was not looked at.
fn not_tested(args: &RunArgs, facts: &Facts, other_sites: &[String]) -> Vec<String> {
    let mut not = vec![
        "The original site was not switched off: it went on, and its senders could store there.".to_owned(),
        "Senders were not pointed at another address: network, name service and their own configuration are not part of it.".to_owned(),
        "Power, disks, certificates that expire, and people other than who ran this.".to_owned(),
    ];
    if args.dicom.is_none() {
        not.push("DICOM: no association was made with the standby site (--dicom).".into());
    } else if !args.store {
        not.push("Storing at the standby site (--store).".into());
    }
    if facts.index.studies == 0 {
        not.push("Retrieval: there was no study.".into());
    }
    if !other_sites.is_empty() {
        not.push(format!("Other sites ({}): they were not asked anything.", other_sites.join(", ")));
    }
    not
}

async fn execute(
    (original, standby): (Side, Side),
    args: &RunArgs,
    directory: &Path,
    report: Report,
    key: &Key,
    id: EventId,
) -> Result<(), Failure> {
    let place = |side: &Side| Place { site: side.name.to_string(), addresses: side.addresses.clone() };
    let grounds = (args.by.clone(), args.reason.clone());
    let journal = Journal::new(directory, report.drill.clone(), place(&original), place(&standby), grounds);
    journal.write()?;
    eprintln!("Drill {id}. Should it be cut short: cairn drill end {}", journal.path().display());
    let (stopping, stop) = watch::channel(false);
    let signals = Signals::listen()?;
    let listening = tokio::spawn(async move {
        signals.wait().await;
        stopping.send_replace(true);
        // Once it is told, it ends in order; who can't wait has kill -9, and `cairn drill end`.
        std::future::pending::<()>().await;
    });
    let seed = id.0.as_u64_pair().1;
    let mut report = Drill::new(args, (original, standby), journal, report, stop, seed).run().await;
    listening.abort();
    report.ended = rfc3339(SystemClock::new().unix_ms());
    report.verdict = report.judge();
    write(directory, &mut report, key)?;
    print(&report, directory, args)?;
    let why = report.verdict.because.join("; ");
    match report.verdict.outcome {
        Outcome::Passed => Ok(()),
        Outcome::Failed => Err(Failure::Failed(why)),
        Outcome::Interrupted => Err(Failure::Interrupted),
        Outcome::Differs => Err(Failure::Differs(why)),
        Outcome::ObjectiveMissed => Err(Failure::Objective(why)),
        Outcome::Partial => Err(Failure::Partial(why)),
    }
}

/// Writes the report in its three forms, and the signature.
fn write(directory: &Path, report: &mut Report, key: &Key) -> Result<(), Failure> {
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, bytes).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
    };
    for (name, text) in [("report.md", markdown::page(report)), ("report.html", html::page(report))] {
        write(name, text.as_bytes())?;
        report.files.insert(name.to_owned(), sha256(text.as_bytes()));
    }
    let json = serde_json::to_vec_pretty(report).map_err(Failure::failed)?;
    write(signature::SIGNED, &json)?;
    write(signature::SIGNATURE, &key.sign(&json))
}

/// The outcome, on standard output.
fn print(report: &Report, directory: &Path, args: &RunArgs) -> Result<(), Failure> {
    let measured = |objective: &Objective| objective.measured_ms.map_or("-".to_owned(), seconds);
    let state = |of: fn(&report::Comparison) -> &report::StateOf| {
        report.afterwards.as_ref().map_or("-".to_owned(), |found| of(found).state_digest.clone())
    };
    super::table::one(
        args.common.output,
        &[
            ("Verdict", report.verdict.outcome.words().to_owned()),
            ("RecoveryTime", measured(&report.recovery_time)),
            ("RecoveryPoint", measured(&report.recovery_point)),
            ("OriginalState", state(|found| &found.original)),
            ("StandbyState", state(|found| &found.standby)),
            ("Report", directory.join("report.html").display().to_string()),
        ],
    )
}

/// Ends a drill that was cut short.
async fn end(path: &Path, within: Duration, server: &ServerArgs) -> Result<(), Failure> {
    let mut journal = Journal::read(path)?;
    let begun = Instant::now();
    if journal.ended {
        eprintln!("Drill {} has ended: there is nothing to put back.", journal.drill);
        return Ok(());
    }
    let (here, there) = (journal.original.clone(), journal.standby.clone());
    let original = Side::at(server, &here.addresses).await?;
    let standby = Side::at(server, &there.addresses).await?;
    for (side, place) in [(&original, &here), (&standby, &there)] {
        if side.name.as_str() != place.site {
            return Err(Failure::failed(format!("site {} answers where {} should", side.name, place.site)));
        }
    }
    let done = put_back::all(&original, &standby, &mut journal, within, begun).await?;
    put_back::catch_up(&original, &standby, begun + within).await?;
    put_back::say(begun, "each site has what the other took");
    let authority = if done.took_over { "authority is back" } else { "authority had not gone" };
    println!("Drill {} is ended: {} links go on, {authority}.", journal.drill, done.resumed);
    Ok(())
}
