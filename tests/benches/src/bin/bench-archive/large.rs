//! One multi-frame instance of 209 MB, and many of 300 MB at once.

use crate::{
    Bench, Outcome,
    dimse::Association,
    http::Http,
    measure::{Load, Meter, latency},
    objects::MultiFrame,
    server::{Kind, Server},
    storing::STORAGE,
};
use cairn_benches::noise;
use std::time::Instant;

const BOUNDARY: &str = "cairn-bench-boundary";

fn by_c_store(server: &Server, calling: &str, object: &MultiFrame, instance: u64) -> Outcome<()> {
    let mut association = Association::request(server.dicom, calling, server.title(), STORAGE)?;
    object.send(instance, association.maximum, |bytes| association.write(bytes))?;
    association.stored()?;
    association.release()
}

fn by_stow(server: &Server, object: &MultiFrame, instance: u64) -> Outcome<()> {
    let mut client = Http::connect(server.http)?;
    let head = object.part_head(BOUNDARY, instance)?;
    let end = format!("\r\n--{BOUNDARY}--\r\n");
    client.begin_store(BOUNDARY, (head.len() + object.pixels + end.len()) as u64)?;
    client.write(&head)?;
    let block = noise(1 << 20);
    let mut left = object.pixels;
    while left > 0 {
        let length = left.min(block.len());
        client.write(&block[..length])?;
        left -= length;
    }
    client.write(end.as_bytes())?;
    client.stored(1)
}

fn tell(bench: &mut Bench, what: &str, kind: Kind, load: &Load, bytes: f64) {
    bench.report.row(what, kind, &format!("{:.0} MB/s", bytes / 1e6 / load.seconds), "", load);
}

/// Stores a multi-frame instance by both doors, then asks for one frame, metadata and the whole.
pub fn multi_frame(bench: &mut Bench, kind: Kind) -> Outcome<()> {
    let frames = bench.scaled(400) as usize;
    let object = MultiFrame::new(1, frames)?;
    let server = bench.server(kind)?;
    let bytes = object.length() as f64;
    for (door, rounds) in [("C-STORE", 5), ("STOW-RS", 5)] {
        let meter = Meter::begin(&server)?;
        for round in 0..rounds {
            match door {
                "C-STORE" => by_c_store(&server, "BENCH", &object, round)?,
                _ => by_stow(&server, &object, 10 + round)?,
            }
        }
        let load = meter.end(rounds);
        tell(bench, &format!("{door} of {:.0} MB", bytes / 1e6), kind, &load, bytes * rounds as f64);
    }
    server.settle()?;
    let template = object.template();
    let at = format!(
        "/dicom-web/studies/{}/series/{}/instances/{}",
        template.study,
        template.series,
        template.sop_instance(1)
    );
    let mut client = Http::connect(server.http)?;
    // Orthanc takes a second for each.
    let rounds = if kind != Kind::Orthanc { 200 } else { 5 };
    let octets = "multipart/related; type=\"application/octet-stream\"; transfer-syntax=*";
    let asked =
        [("one frame", "frames", octets, 512 * 512 * 2), ("its metadata", "metadata", "application/dicom+json", 1)];
    for (what, resource, accept, least) in asked {
        let (meter, mut times) = (Meter::begin(&server)?, Vec::new());
        for round in 0..rounds {
            let number = if resource == "frames" { format!("/{}", 1 + (round * 37) % frames) } else { String::new() };
            let begun = Instant::now();
            let answer = client.get(&format!("{at}/{resource}{number}"), accept, None)?;
            times.push(begun.elapsed());
            if answer.length < least {
                return Err(format!("{what}: {} bytes only", answer.length).into());
            }
        }
        let load = meter.end(rounds as u64);
        bench.report.row(&format!("{what} of {frames}, by WADO-RS"), kind, "", &latency(times), &load);
    }
    let meter = Meter::begin(&server)?;
    for _ in 0..3 {
        let length = client.get(&at, "multipart/related; type=\"application/dicom\"; transfer-syntax=*", None)?.length;
        if (length as f64) < bytes {
            return Err(format!("the instance came back with {length} bytes").into());
        }
    }
    let load = meter.end(3);
    tell(bench, "the whole, by WADO-RS", kind, &load, bytes * 3.0);
    server.stop()?;
    Ok(())
}

/// 64 associations that each send an instance of 300 MB at once.
pub fn many_large(bench: &mut Bench, kind: Kind) -> Outcome<()> {
    let associations = 64;
    let frames = bench.scaled(572) as usize;
    let object = MultiFrame::new(1, frames)?;
    let server = bench.server(kind)?;
    let meter = Meter::begin(&server)?;
    std::thread::scope(|scope| -> Outcome<()> {
        let (server, object) = (&server, &object);
        let sending = move |n| by_c_store(server, "BENCH", object, n);
        let running: Vec<_> = (0..associations).map(|n| scope.spawn(move || sending(n))).collect();
        running.into_iter().try_for_each(|one| one.join().map_err(|_| "a client panicked")?)
    })?;
    let load = meter.end(associations);
    let bytes = object.length() as f64;
    let what = format!("C-STORE of {:.0} MB on {associations} associations at once", bytes / 1e6);
    tell(bench, &what, kind, &load, bytes * associations as f64);
    server.settle()?;
    crate::storing::expect_stored(&server, object.template(), associations)?;
    server.stop()?;
    Ok(())
}
