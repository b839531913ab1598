//! A study of CT slices back by C-GET, C-MOVE and WADO-RS, its metadata, and how soon what was stored is found.

use crate::{
    Bench, Outcome,
    asking::{Returned, Sink, get_study, move_study},
    dimse::Association,
    http::Http,
    measure::{Meter, latency},
    objects::{Template, number},
    server::{Kind, Server},
    storing::{STORAGE, store},
};
use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    time::{Duration, Instant},
};

const FILES: &str = "multipart/related; type=\"application/dicom\"; transfer-syntax=*";
const JSON: &str = "application/dicom+json";

/// Whole studies of 300 CT slices.
pub fn studies(bench: &mut Bench, kind: Kind) -> Outcome<()> {
    let sink = Sink::open()?;
    let server = Server::start(&bench.place, kind, Some(sink.address))?;
    let (template, slices) = (Template::ct(1)?, bench.scaled(300));
    store(&server, "BENCH", &template, slices)?;
    server.settle()?;
    same_bytes(&server, &template, slices)?;
    let rounds = 8;
    for way in ["C-GET", "C-MOVE", "WADO-RS"] {
        let (meter, mut firsts, mut bytes) = (Meter::begin(&server)?, Vec::new(), 0);
        for _ in 0..rounds {
            let returned = match way {
                "C-GET" => get_study(&server, &template.study, None)?,
                "C-MOVE" => moved(&server, &sink, &template.study)?,
                _ => {
                    let mut client = Http::connect(server.http)?;
                    let answer = client.get(&format!("/dicom-web/studies/{}", template.study), FILES, None)?;
                    Returned { instances: slices, bytes: answer.length, first: answer.first_byte }
                }
            };
            if returned.instances != slices || returned.bytes < slices * template.data_set.len() as u64 {
                return Err(format!("{way}: {returned:?} of {slices} slices").into());
            }
            firsts.push(returned.first);
            bytes += returned.bytes;
        }
        let load = meter.end(rounds * slices);
        let rate = format!("{:.0} MB/s", bytes as f64 / 1e6 / load.seconds);
        let what = format!("{slices} CT slices by {way}; first byte");
        bench.report.row(&what, kind, &rate, &latency(firsts), &load);
    }
    metadata(bench, &server, &template, slices)?;
    let larger = bench.scaled(2_000);
    let template = Template::small(2)?;
    store(&server, "BENCH", &template, larger)?;
    metadata(bench, &server, &template, larger)?;
    server.stop()?;
    Ok(())
}

fn moved(server: &Server, sink: &Sink, study: &str) -> Outcome<Returned> {
    let begun = Instant::now();
    move_study(server, study)?;
    let (returned, first) = sink.next()?;
    Ok(Returned { first: first.duration_since(begun), ..returned })
}

/// Every slice comes back by C-GET as the bytes that were sent.
fn same_bytes(server: &Server, template: &Template, slices: u64) -> Outcome<()> {
    let mut found = vec![false; slices as usize];
    // Which slice it is, its last digits say.
    let prefix = format!("{}.1", template.series);
    let mut check = |bytes: &[u8]| {
        let at = bytes.windows(prefix.len()).position(|window| window == prefix.as_bytes());
        let digits = at.and_then(|at| bytes.get(at + prefix.len()..at + prefix.len() + 9));
        let instance = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
        if let Some(instance) = instance.filter(|instance| *instance < found.len()) {
            found[instance] = template.is(bytes, instance as u64);
        }
    };
    get_study(server, &template.study, Some(&mut check))?;
    let missing = found.iter().filter(|same| !**same).count();
    if missing > 0 && server.kind != Kind::Orthanc {
        return Err(format!("{missing} of {slices} slices did not come back as they were sent").into());
    }
    Ok(())
}

fn metadata(bench: &mut Bench, server: &Server, template: &Template, instances: u64) -> Outcome<()> {
    server.settle()?;
    let path = format!("/dicom-web/studies/{}/metadata", template.study);
    let mut body = Vec::new();
    let mut client = Http::connect(server.http)?;
    client.get(&path, JSON, Some(&mut body))?;
    let answer: serde_json::Value = serde_json::from_slice(&body)?;
    if answer.as_array().map(Vec::len) != Some(instances as usize) {
        return Err(format!("metadata of {instances} instances has {:?}", answer.as_array().map(Vec::len)).into());
    }
    let rounds = if server.kind != Kind::Orthanc { 50 } else { 5 };
    let (meter, mut times) = (Meter::begin(server)?, Vec::new());
    for _ in 0..rounds {
        let begun = Instant::now();
        client.get(&path, JSON, None)?;
        times.push(begun.elapsed());
    }
    let load = meter.end(rounds);
    let what = format!("/metadata of {instances} instances");
    bench.report.row(&what, server.kind, &format!("{:.1} MB", body.len() as f64 / 1e6), &latency(times), &load);
    Ok(())
}

/// How long after its acknowledgement an instance is found, while 200 a second are stored.
pub fn freshness(bench: &mut Bench, kind: Kind) -> Outcome<()> {
    let server = bench.server(kind)?;
    let (template, done) = (Template::small(1)?, AtomicBool::new(false));
    let seconds = if bench.quick { 2 } else { 10 };
    let meter = Meter::begin(&server)?;
    let (acknowledged, to_find) = sync_channel::<(u64, Instant)>(1);
    let times = std::thread::scope(|scope| -> Outcome<Vec<Duration>> {
        let (server, template, done) = (&server, &template, &done);
        let storing = scope.spawn(move || -> Outcome<()> {
            let mut association = Association::request(server.dicom, "BENCH", server.title(), STORAGE)?;
            let (mut message, places) = template.framed(association.maximum)?;
            let begun = Instant::now();
            for instance in 0..seconds * 200 {
                std::thread::sleep(
                    (begun + Duration::from_millis(5 * instance)).saturating_duration_since(Instant::now()),
                );
                number(&mut message, &places, instance);
                association.write(&message)?;
                association.stored()?;
                // Whoever asks takes the next once it has found the last.
                let _busy = acknowledged.try_send((instance, Instant::now()));
            }
            done.store(true, Ordering::Relaxed);
            drop(acknowledged);
            association.release()
        });
        let mut client = Http::connect(server.http)?;
        let mut times = Vec::new();
        while let Ok((instance, acknowledged)) = to_find.recv() {
            // One that waited in the channel says nothing of the archive.
            if acknowledged.elapsed() > Duration::from_millis(1) && !done.load(Ordering::Relaxed) {
                continue;
            }
            let path = format!("/dicom-web/instances?SOPInstanceUID={}", template.sop_instance(instance));
            while client.get(&path, JSON, None)?.length < 10 {
                if acknowledged.elapsed() > Duration::from_secs(10) {
                    return Err(format!("instance {instance} was acknowledged and not found for ten seconds").into());
                }
            }
            times.push(acknowledged.elapsed());
        }
        storing.join().map_err(|_| "the storing client panicked")??;
        Ok(times)
    })?;
    let count = times.len();
    let load = meter.end(seconds * 200);
    bench.report.row(
        "found by QIDO-RS after the acknowledgement, 200/s",
        kind,
        &format!("{count} looked for"),
        &latency(times),
        &load,
    );
    server.stop()?;
    Ok(())
}
