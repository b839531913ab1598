//! The whole archive as a real process under load; in the same run Orthanc beside it, or Cairn's processes over real engines.
//!
//! `bench-archive [--peers] [--engines DIR] [--only NAME,...] [--studies 1000,10000,100000] [--quick] [--dir DIR] [--cairn FILE] [--out FILE]`
//! prints a table in Markdown. Workloads: `machine`, `c-store`, `stow`, `multi-frame`, `retrieve`, `freshness`, `queries`,
//! `sizes`, `at-rest`, `commitment`, `upkeep` (takes 20 GB of disk for a while), `sites` (two of them), `many-large` (takes 20 GB of disk), `objects` (with `--engines`, the directory of engines that
//! `tools/engines` has started). Figures are told, nothing is asserted of them; but an answer other
//! than success, an instance that is not there or other bytes end that workload with an error, and the bench with status 1.
#![forbid(unsafe_code)]
#![allow(missing_docs, unreachable_pub, reason = "an executable: nothing outside sees its items")]

mod asking;
#[cfg_attr(not(feature = "cluster"), path = "no_cluster.rs")]
mod cluster;
mod committing;
mod dimse;
mod http;
mod large;
mod machine;
mod measure;
mod objects;
mod querying;
mod retrieving;
mod server;
mod sites;
mod storing;
mod upkeep;

use cluster::Engines;
use measure::Report;
use server::{Kind, Place, Server};
use std::{error::Error, path::PathBuf, process::ExitCode};

/// What everything here gives.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A run.
pub struct Bench {
    pub report: Report,
    pub place: Place,
    /// Sizes of archives that are queried.
    pub studies: Vec<u64>,
    /// A tenth of everything, to see that it runs.
    pub quick: bool,
}

impl Bench {
    /// A server on an empty directory.
    pub fn server(&self, kind: Kind) -> Outcome<Server> {
        Server::start(&self.place, kind, None)
    }

    /// A number of operations, a tenth of it in a quick run.
    pub fn scaled(&self, full: u64) -> u64 {
        if self.quick { full.div_ceil(10) } else { full }
    }
}

/// A name to choose it by, a heading, the archives that it is of, and what it does with each.
type Workload = (&'static str, &'static str, &'static [Kind], fn(&mut Bench, Kind) -> Outcome<()>);

const ALL: &[Kind] = &[Kind::Cairn, Kind::Orthanc, Kind::Cluster];
const OURS: &[Kind] = &[Kind::Cairn, Kind::Cluster];
const ALONE: &[Kind] = &[Kind::Cairn];

const WORKLOADS: &[Workload] = &[
    ("c-store", "C-STORE", ALL, storing::c_store),
    ("stow", "STOW-RS", ALL, storing::stow_rs),
    ("multi-frame", "A large multi-frame instance", ALL, large::multi_frame),
    ("retrieve", "Studies back", ALL, retrieving::studies),
    ("freshness", "Freshness", ALL, retrieving::freshness),
    ("queries", "Queries, stored by C-STORE", ALL, querying::stored),
    ("sizes", "Rebuild and queries by size", OURS, querying::sizes),
    ("at-rest", "Memory at rest", ALONE, querying::at_rest),
    ("commitment", "Storage commitment", ALONE, committing::slices),
    ("upkeep", "While lifecycle is at work", ALONE, upkeep::beside),
    ("sites", "Two sites in step", OURS, sites::in_step),
    ("many-large", "Many large instances at once", ALONE, large::many_large),
    ("objects", "What the object store takes", &[Kind::Cluster], cluster::objects),
];

struct Arguments {
    bench: Bench,
    peers: bool,
    only: Option<Vec<String>>,
    out: Option<PathBuf>,
}

fn arguments() -> Outcome<Arguments> {
    let place = Place { cairn: "target/release/cairn".into(), dir: std::env::temp_dir(), engines: None };
    let bench = Bench { report: Report::default(), place, studies: vec![1_000, 10_000, 100_000], quick: false };
    let mut parsed = Arguments { bench, peers: false, only: None, out: None };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--peers" => parsed.peers = true,
            "--quick" => parsed.bench.quick = true,
            "--only" => parsed.only = Some(value()?.split(',').map(str::to_owned).collect()),
            "--out" => parsed.out = Some(value()?.into()),
            "--dir" => parsed.bench.place.dir = value()?.into(),
            "--engines" => parsed.bench.place.engines = Some(Engines::at(value()?.as_ref())?),
            "--cairn" => parsed.bench.place.cairn = value()?.into(),
            "--studies" => parsed.bench.studies = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            _ => {
                return Err(format!(
                    "{name} is not known; see the head of tests/benches/src/bin/bench-archive/main.rs"
                )
                .into());
            }
        }
    }
    let known = |name: &String| name == "machine" || WORKLOADS.iter().any(|(own, ..)| own == name);
    match parsed.only.iter().flatten().find(|name| !known(name)) {
        Some(name) => Err(format!("no workload {name}").into()),
        None => Ok(parsed),
    }
}

fn run() -> Outcome<bool> {
    let Arguments { mut bench, peers, only, out } = arguments()?;
    let chosen = |name: &str| only.as_ref().is_none_or(|only| only.iter().any(|own| own == name));
    std::fs::create_dir_all(&bench.place.dir)?;
    machine::head(&mut bench.report, &bench.place.dir);
    if chosen("machine") {
        machine::limits(&mut bench.report, &bench.place.dir)?;
    }
    let mut there = vec![Kind::Cairn];
    there.extend(peers.then_some(Kind::Orthanc));
    there.extend(bench.place.engines.is_some().then_some(Kind::Cluster));
    let mut well = true;
    for (name, title, kinds, run) in WORKLOADS.iter().filter(|(name, ..)| chosen(name)) {
        bench.report.section(title);
        for kind in kinds.iter().filter(|kind| there.contains(kind)) {
            if let Err(error) = run(&mut bench, *kind) {
                bench.report.plain(&format!("**{name} failed**"), *kind, &error.to_string().replace('\n', " "));
                well = false;
            }
        }
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    bench.report.say(&format!("\nLoad average at the end: {}", load.trim()));
    if let Some(out) = out {
        std::fs::write(out, &bench.report.text)?;
    }
    Ok(well)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-archive: {error}");
            ExitCode::FAILURE
        }
    }
}
