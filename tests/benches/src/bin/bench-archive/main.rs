//! The whole archive as a real process under load, and Orthanc beside it in the same run.
//!
//! `bench-archive [--peers] [--only NAME,...] [--studies 1000,10000,100000] [--quick] [--dir DIR] [--cairn FILE] [--out FILE]`
//! prints a table in Markdown. Workloads: `machine`, `c-store`, `stow`, `multi-frame`, `retrieve`, `freshness`, `queries`,
//! `sizes`, `at-rest`, `many-large` (takes 20 GB of disk). Figures are told, nothing is asserted of them; but an answer other
//! than success, an instance that is not there or other bytes end that workload with an error, and the bench with status 1.
#![forbid(unsafe_code)]
#![allow(missing_docs, unreachable_pub, reason = "an executable: nothing outside sees its items")]

mod asking;
mod dimse;
mod http;
mod large;
mod machine;
mod measure;
mod objects;
mod querying;
mod retrieving;
mod server;
mod storing;

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

type Alone = fn(&mut Bench) -> Outcome<()>;
type Beside = fn(&mut Bench, Kind) -> Outcome<()>;

enum Run {
    /// Cairn alone.
    Alone(Alone),
    /// Also Orthanc, if it is asked for.
    Beside(Beside),
}

const WORKLOADS: &[(&str, &str, Run)] = &[
    ("c-store", "C-STORE", Run::Beside(storing::c_store)),
    ("stow", "STOW-RS", Run::Beside(storing::stow_rs)),
    ("multi-frame", "A large multi-frame instance", Run::Beside(large::multi_frame)),
    ("retrieve", "Studies back", Run::Beside(retrieving::studies)),
    ("freshness", "Freshness", Run::Beside(retrieving::freshness)),
    ("queries", "Queries, stored by C-STORE", Run::Beside(querying::stored)),
    ("sizes", "Rebuild and queries by size", Run::Alone(querying::sizes)),
    ("at-rest", "Memory at rest", Run::Alone(querying::at_rest)),
    ("many-large", "Many large instances at once", Run::Alone(large::many_large)),
];

struct Arguments {
    bench: Bench,
    peers: bool,
    only: Option<Vec<String>>,
    out: Option<PathBuf>,
}

fn arguments() -> Outcome<Arguments> {
    let place = Place { cairn: "target/release/cairn".into(), dir: std::env::temp_dir() };
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
    let mut well = true;
    for (name, title, run) in WORKLOADS.iter().filter(|(name, ..)| chosen(name)) {
        bench.report.section(title);
        let outcomes = match run {
            Run::Alone(run) => vec![(Kind::Cairn, run(&mut bench))],
            Run::Beside(run) => {
                let kinds = if peers { &[Kind::Cairn, Kind::Orthanc][..] } else { &[Kind::Cairn] };
                kinds.iter().map(|kind| (*kind, run(&mut bench, *kind))).collect()
            }
        };
        for (kind, error) in outcomes.into_iter().filter_map(|(kind, outcome)| Some((kind, outcome.err()?))) {
            bench.report.plain(&format!("**{name} failed**"), kind, &error.to_string().replace('\n', " "));
            well = false;
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
