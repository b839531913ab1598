//! Two sites: what is stored at one is brought to the other meanwhile.

use crate::{
    Bench, Outcome,
    dimse::Association,
    http::Http,
    measure::Meter,
    objects::Template,
    server::{Kind, Server, free_port},
    storing::{STORAGE, at_once, expect_stored, store, store_on, tell},
};
use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

const ASSOCIATIONS: u64 = 4;

/// What a site says of its peer.
#[derive(Clone, Debug, Default)]
struct Told {
    at_risk: f64,
    age: f64,
    /// Upper bounds of the delay in seconds, and how many events had at most that.
    delays: Vec<(f64, f64)>,
}

impl Told {
    fn ask(http: &mut Http) -> Outcome<Self> {
        let mut body = Vec::new();
        http.get("/metrics", "*/*", Some(&mut body))?;
        let text = String::from_utf8(body)?;
        let mut told = Self::default();
        for line in text.lines().filter(|line| line.starts_with("cairn_replication_")) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let value: f64 = value.parse()?;
            match name.split_once('{').map_or(name, |(name, _)| name) {
                "cairn_replication_at_risk_events" => told.at_risk = value,
                "cairn_replication_rpo_seconds" => told.age = value,
                "cairn_replication_delay_seconds_bucket" => {
                    let bound = name.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
                    told.delays.push((bound.and_then(|bound| bound.parse().ok()).unwrap_or(f64::INFINITY), value));
                }
                _ => {}
            }
        }
        Ok(told)
    }

    /// The bound under which this part of the delays since `before` lies.
    fn delay(&self, before: &Self, part: f64) -> f64 {
        let before = |at: usize| before.delays.get(at).map_or(0.0, |(_, count)| *count);
        let since: Vec<_> =
            self.delays.iter().enumerate().map(|(at, (bound, count))| (*bound, count - before(at))).collect();
        let all = since.iter().map(|(_, count)| *count).fold(0.0, f64::max);
        since.iter().find(|(_, count)| *count >= all * part).map_or(0.0, |(bound, _)| *bound)
    }
}

/// Two sites that keep each other in step.
struct Sites {
    a: Server,
    b: Server,
}

impl Sites {
    fn start(bench: &Bench, kind: Kind) -> Outcome<Self> {
        let (at_a, at_b) = (free_port()?, free_port()?);
        let a = Server::start_site(&bench.place, kind, ("a", at_a), ("b", at_b))?;
        let b = Server::start_site(&bench.place, kind, ("b", at_b), ("a", at_a))?;
        let sites = Self { a, b };
        // The first store of a process pays for what later ones find there, and the sites have met then.
        store(&sites.a, "BENCHWARM", &Template::ct(99)?, 20)?;
        sites.wait_until_in_step()?;
        Ok(sites)
    }

    fn wait_until_in_step(&self) -> Outcome<Told> {
        let mut http = Http::connect(self.a.replication.1)?;
        let deadline = Instant::now() + Duration::from_secs(300);
        // What is told is of a moment ago: twice the interval at which it is measured.
        std::thread::sleep(Duration::from_millis(200));
        loop {
            let told = Told::ask(&mut http)?;
            if told.at_risk == 0.0 {
                return Ok(told);
            }
            if Instant::now() > deadline {
                return Err("not in step within five minutes".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Samples what is told while `work` is done: the greatest age, and how large the backlog was at most.
    fn watched<T: Send>(&self, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<(T, Vec<f64>, f64)> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let working = scope.spawn(|| {
                let outcome = work();
                done.store(true, Ordering::Release);
                outcome
            });
            let mut http = Http::connect(self.a.replication.1)?;
            let (mut ages, mut backlog) = (Vec::new(), 0.0_f64);
            while !done.load(Ordering::Acquire) {
                let told = Told::ask(&mut http)?;
                ages.push(told.age);
                backlog = backlog.max(told.at_risk);
                std::thread::sleep(Duration::from_millis(50));
            }
            let outcome = working.join().map_err(|_| "a client panicked")??;
            ages.sort_by(f64::total_cmp);
            Ok((outcome, ages, backlog))
        })
    }

    fn pause(&self, bench: &Bench, wanted: &str) -> Outcome<()> {
        let data = &self.a.replication.0;
        let status =
            Command::new(&bench.place.cairn).args(["replication", wanted, "b", "--data"]).arg(data).status()?;
        if status.success() { Ok(()) } else { Err(format!("`cairn replication {wanted}`: {status}").into()) }
    }
}

fn at(ages: &[f64], part: f64) -> f64 {
    ages.get(((ages.len().max(1) - 1) as f64 * part).round() as usize).copied().unwrap_or_default()
}

/// Stores at `rate` instances a second on each association, until `until` says so; gives how many.
fn store_at(server: &Server, n: u64, rate: f64, until: &(dyn Fn() -> bool + Sync)) -> Outcome<u64> {
    let template = Template::ct(n)?;
    let mut association = Association::request(server.dicom, &format!("BENCH{n}"), server.title(), STORAGE)?;
    let (begun, mut stored) = (Instant::now(), 0);
    while !until() {
        let due = Duration::from_secs_f64(stored as f64 / rate);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        store_on(&mut association, &template, stored..stored + 1)?;
        stored += 1;
    }
    association.release()?;
    Ok(stored)
}

/// As fast as it goes; then at half of that; then with a backlog to catch up meanwhile.
pub fn in_step(bench: &mut Bench, kind: Kind) -> Outcome<()> {
    let sites = Sites::start(bench, kind)?;
    let rate = as_fast_as_it_goes(bench, kind, &sites)?;
    catching_up(bench, kind, &sites, rate / 2.0)
}

/// Gives the rate at which both sites took instances.
fn as_fast_as_it_goes(bench: &mut Bench, kind: Kind, sites: &Sites) -> Outcome<f64> {
    let count = bench.scaled(if kind == Kind::Cluster { 1_200 } else { 6_000 }) / ASSOCIATIONS;
    let before = Told::ask(&mut Http::connect(sites.a.replication.1)?)?;
    let (here, there) = (Meter::begin(&sites.a)?, Meter::begin(&sites.b)?);
    let begun = Instant::now();
    let (times, ages, backlog) = sites
        .watched(|| at_once(ASSOCIATIONS, |n, _| store(&sites.a, &format!("BENCH{n}"), &Template::ct(n)?, count)))?;
    let stored_in = begun.elapsed().as_secs_f64();
    let after = sites.wait_until_in_step()?;
    let rate = (count * ASSOCIATIONS) as f64 / begun.elapsed().as_secs_f64();
    let length = Template::ct(0)?.data_set.len();
    let all = count * ASSOCIATIONS;
    tell(
        bench,
        &format!("CT 526 kB at one site, {ASSOCIATIONS} associations, until both have all"),
        &sites.a,
        here,
        all,
        length,
        times,
    );
    tell(bench, "the same, at the other site", &sites.b, there, all, length, Vec::new());
    let result = format!(
        "{:.0}/s acknowledged; delay p50 <= {:.3} s, p99 <= {:.3} s; recovery point p99 {:.2} s, at most {:.2} s; backlog at most {backlog:.0} events",
        all as f64 / stored_in,
        after.delay(&before, 0.5),
        after.delay(&before, 0.99),
        at(&ages, 0.99),
        at(&ages, 1.0),
    );
    bench.report.plain("the same, recovery point", kind, &result);
    for n in 0..ASSOCIATIONS {
        sites.b.settle()?;
        expect_stored(&sites.b, &Template::ct(n)?, count)?;
    }
    Ok(rate)
}

fn catching_up(bench: &mut Bench, kind: Kind, sites: &Sites, rate: f64) -> Outcome<()> {
    let seconds = if bench.quick { 2 } else { 15 };
    let each = rate / ASSOCIATIONS as f64;
    let done = AtomicBool::new(false);
    let until = || done.load(Ordering::Acquire);
    let caught_up = std::thread::scope(|scope| {
        let (sites, until) = (&sites, &until);
        let storing: Vec<_> =
            (0..ASSOCIATIONS).map(|n| scope.spawn(move || store_at(&sites.a, 10 + n, each, until))).collect();
        let outcome = (|| {
            // In step at this rate, then apart, then in step again while the rate stays.
            let before = Told::ask(&mut Http::connect(sites.a.replication.1)?)?;
            let ((), ages, _) = sites.watched(|| {
                std::thread::sleep(Duration::from_secs(seconds));
                Ok(())
            })?;
            let during = Told::ask(&mut Http::connect(sites.a.replication.1)?)?;
            let delay = during.delay(&before, 0.99);
            let result = format!(
                "delay p99 <= {delay:.3} s, recovery point p99 {:.2} s, at most {:.2} s",
                at(&ages, 0.99),
                at(&ages, 1.0)
            );
            bench.report.plain(&format!("at half of that rate, {rate:.0}/s, for {seconds} s"), kind, &result);
            sites.pause(bench, "pause")?;
            std::thread::sleep(Duration::from_secs(seconds));
            let idle = sites.a.process.resident_mib();
            let backlog = Told::ask(&mut Http::connect(sites.a.replication.1)?)?.at_risk;
            sites.pause(bench, "resume")?;
            let (resumed, mut http) = (Instant::now(), Http::connect(sites.a.replication.1)?);
            // What comes in meanwhile is always at risk for a moment: caught up is what is younger than the target.
            while Told::ask(&mut http)?.age > 1.0 {
                std::thread::sleep(Duration::from_millis(20));
                if resumed.elapsed() > Duration::from_secs(300) {
                    return Err("not caught up within five minutes".into());
                }
            }
            let took = resumed.elapsed().as_secs_f64();
            let faster = (backlog / took + rate) / rate;
            let result = format!(
                "{backlog:.0} events in {took:.1} s while {rate:.0}/s came in: {faster:.1} times as fast; memory {idle:.0} MiB with the backlog"
            );
            bench.report.plain(&format!("a backlog of {seconds} s caught up"), kind, &result);
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })();
        done.store(true, Ordering::Release);
        for one in storing {
            one.join().map_err(|_| "a client panicked")??;
        }
        outcome
    });
    caught_up?;
    sites.wait_until_in_step()?;
    Ok(())
}
