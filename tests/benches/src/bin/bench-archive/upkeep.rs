//! How fast instances come in while lifecycle is at work: studies are moved to a cold store, erased ones give their room back, and everything is
//! read. Each stretch has one beside it in which nothing else is done, in the same run.

use crate::{
    Bench, Outcome,
    measure::{Meter, latency},
    objects::Template,
    server::{Kind, Server},
    storing::{at_once, store, tell},
};
use std::time::Instant;

/// Slices of a study that lifecycle works at.
const WORKED: u64 = 2_000;
/// Slices that come in meanwhile, on this many associations.
const COMING: u64 = 2_000;
const ASSOCIATIONS: u64 = 4;
/// Pairs of stretches.
const PAIRS: u64 = 3;

/// What lifecycle does meanwhile, by a command about a study.
type Work = (&'static str, fn(&str) -> Vec<String>);

const WORK: &[Work] = &[
    ("a study of 1 GB is moved to a cold directory", |study| words(&["tier", "move", "--study", study])),
    ("a study of 1 GB is erased", |study| words(&["erasure", "request", "--reason", "a benchmark", "--study", study])),
];

/// Words of a command.
pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Stores beside each kind of work, and reads everything.
pub fn beside(bench: &mut Bench, kind: Kind) -> Outcome<()> {
    let cold = tempfile::tempdir_in(&bench.place.dir)?;
    let config = format!(
        "[tiers]\ncold = \"directory\"\ndirectory = {:?}\n[lifecycle.erasure]\ndelay = \"100ms\"\nlook_interval = \"100ms\"\n\
         [lifecycle.fixity]\nbytes_per_second_max = \"16GiB\"\n",
        cold.path().join("cold")
    );
    let server = Server::start_configured(&bench.place, &config)?;
    let mut studies = 0..;
    let mut next = || studies.next().unwrap_or_default();
    for (what, command) in WORK {
        let (mut alone, mut beside) = (0.0, 0.0);
        for _ in 0..PAIRS {
            let worked = Template::ct(next())?;
            store(&server, "BENCH", &worked, bench.scaled(WORKED))?;
            server.settle()?;
            alone += come_in(bench, &server, "nothing else is done", &mut next)?;
            server.asked(&bench.place, &command(&worked.study))?;
            beside += come_in(bench, &server, what, &mut next)?;
        }
        bench.report.plain(
            &format!("C-STORE while {what}"),
            kind,
            &format!("{:.0} % of its rate", beside / alone * 100.0),
        );
    }
    scrubbed(bench, &server, kind)?;
    server.stop()?;
    Ok(())
}

/// Stores slices; gives the rate.
fn come_in(bench: &mut Bench, server: &Server, what: &str, next: &mut impl FnMut() -> u64) -> Outcome<f64> {
    let templates = (0..ASSOCIATIONS).map(|_| Template::ct(next())).collect::<Outcome<Vec<_>>>()?;
    let count = bench.scaled(COMING) / ASSOCIATIONS;
    let meter = Meter::begin(server)?;
    let times = at_once(ASSOCIATIONS, |n, _| store(server, "BENCH", &templates[n as usize], count))?;
    let (length, what) =
        (templates[0].data_set.len(), format!("C-STORE CT 526 kB, {ASSOCIATIONS} associations, while {what}"));
    Ok(tell(bench, &what, server, meter, count * ASSOCIATIONS, length, times))
}

/// Reads all that was stored, as fast as it may be.
fn scrubbed(bench: &mut Bench, server: &Server, kind: Kind) -> Outcome<()> {
    server.settle()?;
    for round in ["first", "again"] {
        let (meter, begun) = (Meter::begin(server)?, Instant::now());
        let said = server.asked(&bench.place, &words(&["fixity", "scrub", "-o", "json"]))?;
        let took = begun.elapsed();
        let said: serde_json::Value = serde_json::from_str(said.lines().next_back().unwrap_or_default())?;
        let (objects, bytes) = (said["RoundObjects"].as_u64().unwrap_or(0), said["RoundBytes"].as_u64().unwrap_or(0));
        let load = meter.end(objects);
        let rate = format!("{:.0} MB/s of {:.1} GB", bytes as f64 / 1e6 / load.seconds, bytes as f64 / 1e9);
        bench.report.row(&format!("everything read, {round}"), kind, &rate, &latency(vec![took]), &load);
    }
    Ok(())
}
