//! C-STORE and STOW-RS of many instances.

use crate::{
    Bench, Outcome,
    dimse::{Association, Proposal},
    http::Http,
    measure::{Meter, latency},
    objects::{Template, number},
    server::{Kind, Server},
};
use cairn_benches::corpus::SOP_CLASS;
use std::{
    sync::Barrier,
    time::{Duration, Instant},
};

const BOUNDARY: &str = "cairn-bench-boundary";

/// The context of everything that is stored.
pub const STORAGE: &[Proposal<'_>] = &[Proposal { class: SOP_CLASS, as_scp: false }];

/// Stores instances `0..count` of a template on one association; gives the time of each.
pub fn store(server: &Server, calling: &str, template: &Template, count: u64) -> Outcome<Vec<Duration>> {
    let mut association = Association::request(server.dicom, calling, server.title(), STORAGE)?;
    let times = store_on(&mut association, template, 0..count)?;
    association.release()?;
    Ok(times)
}

/// The same on an association that is there.
pub fn store_on(
    association: &mut Association,
    template: &Template,
    instances: impl Iterator<Item = u64>,
) -> Outcome<Vec<Duration>> {
    let (mut message, places) = template.framed(association.maximum)?;
    let mut times = Vec::new();
    for instance in instances {
        number(&mut message, &places, instance);
        let begun = Instant::now();
        association.write(&message)?;
        association.stored()?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

/// Runs `work` with numbers `0..threads`, all beginning at once; gives all times.
pub fn at_once<F>(threads: u64, work: F) -> Outcome<Vec<Duration>>
where
    F: Fn(u64, &Barrier) -> Outcome<Vec<Duration>> + Sync,
{
    let barrier = Barrier::new(threads as usize);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|n| {
                scope.spawn({
                    let (work, barrier) = (&work, &barrier);
                    move || work(n, barrier)
                })
            })
            .collect();
        let mut all = Vec::new();
        for one in running {
            all.extend(one.join().map_err(|_| "a client panicked")??);
        }
        Ok(all)
    })
}

/// Rate, bytes and the row of a stretch in which so many instances of one size were stored. Gives the rate.
pub fn tell(
    bench: &mut Bench,
    what: &str,
    server: &Server,
    meter: Meter,
    count: u64,
    length: usize,
    times: Vec<Duration>,
) -> f64 {
    let load = meter.end(count);
    let rate = count as f64 / load.seconds;
    let result = format!("{rate:.0}/s, {:.0} MB/s", rate * length as f64 / 1e6);
    bench.report.row(what, server.kind, &result, &latency(times), &load);
    rate
}

/// C-STORE on 1, 4, 8 associations, each its own study.
pub fn c_store(bench: &mut Bench, kind: Kind) -> Outcome<()> {
    for (size, associations) in [("CT 526 kB", 1), ("CT 526 kB", 4), ("CT 526 kB", 8), ("2 kB", 1), ("2 kB", 8)] {
        let ct = size.starts_with("CT");
        let count = bench.scaled(if ct { 3_000 } else { 8_000 }) / associations;
        let server = bench.server(kind)?;
        let template = |n| if ct { Template::ct(n) } else { Template::small(n) };
        // The first store of a process pays for what later ones find there.
        store(&server, "BENCHWARM", &template(99)?, 20)?;
        let meter = Meter::begin(&server)?;
        let times = at_once(associations, |n, _| store(&server, &format!("BENCH{n}"), &template(n)?, count))?;
        let length = template(0)?.data_set.len();
        tell(
            bench,
            &format!("C-STORE {size}, {associations} associations"),
            &server,
            meter,
            count * associations,
            length,
            times,
        );
        server.settle()?;
        expect_stored(&server, &template(0)?, count)?;
        server.stop()?;
    }
    Ok(())
}

/// The archive says that a study has so many instances.
pub fn expect_stored(server: &Server, template: &Template, count: u64) -> Outcome<()> {
    let path =
        format!("/dicom-web/studies?StudyInstanceUID={}&includefield=NumberOfStudyRelatedInstances", template.study);
    let mut body = Vec::new();
    Http::connect(server.http)?.get(&path, "application/dicom+json", Some(&mut body))?;
    let answer: serde_json::Value = serde_json::from_slice(&body)?;
    let found = &answer[0]["00201208"]["Value"][0];
    let found = found.as_u64().or_else(|| found.as_str()?.parse().ok());
    if found != Some(count) {
        return Err(format!("{count} instances were acknowledged, the study has {found:?}").into());
    }
    Ok(())
}

/// Stores instances of a template by STOW-RS, `per_request` in each request.
fn stow(server: &Server, template: &Template, per_request: u64, requests: u64) -> Outcome<Vec<Duration>> {
    let mut client = Http::connect(server.http)?;
    let (mut part, places) = template.part(BOUNDARY)?;
    let end = format!("\r\n--{BOUNDARY}--\r\n");
    let mut times = Vec::new();
    for request in 0..requests {
        let begun = Instant::now();
        client.begin_store(BOUNDARY, per_request * part.len() as u64 + end.len() as u64)?;
        for instance in 0..per_request {
            number(&mut part, &places, request * per_request + instance);
            client.write(&part)?;
        }
        client.write(end.as_bytes())?;
        client.stored(per_request)?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

/// STOW-RS of CT slices, one and a hundred in a request, on one and four connections; one body of 2 GB.
pub fn stow_rs(bench: &mut Bench, kind: Kind) -> Outcome<()> {
    for (connections, per_request) in [(1, 1), (1, 100), (4, 1), (4, 100)] {
        let requests = bench.scaled(2_400).div_ceil(connections * per_request);
        let server = bench.server(kind)?;
        stow(&server, &Template::ct(99)?, 1, 20)?;
        let meter = Meter::begin(&server)?;
        let times = at_once(connections, |n, _| stow(&server, &Template::ct(n)?, per_request, requests))?;
        let what = format!("STOW-RS CT, {connections} connections, {per_request} a request");
        let count = requests * per_request * connections;
        tell(bench, &what, &server, meter, count, Template::ct(0)?.data_set.len(), times);
        server.settle()?;
        expect_stored(&server, &Template::ct(0)?, requests * per_request)?;
        server.stop()?;
    }
    // Orthanc holds a request's body in memory several times over.
    if kind != Kind::Orthanc {
        let count = bench.scaled(3_800);
        let server = bench.server(kind)?;
        let meter = Meter::begin(&server)?;
        let times = stow(&server, &Template::ct(0)?, count, 1)?;
        let length = Template::ct(0)?.data_set.len();
        let what = format!("STOW-RS, one body of {:.1} GB", count as f64 * length as f64 / 1e9);
        tell(bench, &what, &server, meter, count, length, times);
        server.stop()?;
    }
    Ok(())
}
