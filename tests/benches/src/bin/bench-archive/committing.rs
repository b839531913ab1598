//! Storage commitment of many CT slices, each of which is read back before the archive promises to keep it.

use crate::{
    Bench, Outcome,
    http::Http,
    measure::{Meter, latency},
    objects::Template,
    server::{Kind, Server},
    storing::store,
};
use cairn_benches::corpus::SOP_CLASS;
use serde_json::{Value, json};
use std::time::Instant;

/// How often the same is asked for, each time under a transaction of its own.
const ROUNDS: u64 = 5;

/// Stores slices; asks for them at once, before anything has settled, and again.
pub fn slices(bench: &mut Bench, kind: Kind) -> Outcome<()> {
    let slices = bench.scaled(2_000);
    let template = Template::ct(1)?;
    let server = bench.server(kind)?;
    store(&server, "BENCH", &template, slices)?;
    let body = request(&template, slices);
    for (what, rounds) in [("just stored", 0..1), ("again", 1..1 + ROUNDS)] {
        let (meter, mut times) = (Meter::begin(&server)?, Vec::new());
        let operations = rounds.end - rounds.start;
        for transaction in rounds {
            let begun = Instant::now();
            committed(&server, transaction, &body, slices)?;
            times.push(begun.elapsed());
        }
        let load = meter.end(operations * slices);
        let read = (operations * slices) as f64 * template.data_set.len() as f64;
        let rate = format!("{:.0} MB/s read back", read / 1e6 / load.seconds);
        bench.report.row(&format!("{slices} CT slices, {what}, by DICOMweb"), kind, &rate, &latency(times), &load);
    }
    server.stop()?;
    Ok(())
}

fn request(template: &Template, slices: u64) -> Vec<u8> {
    let item = |instance| {
        json!({
            "00081150": { "vr": "UI", "Value": [SOP_CLASS] },
            "00081155": { "vr": "UI", "Value": [template.sop_instance(instance)] },
        })
    };
    let items: Vec<Value> = (0..slices).map(item).collect();
    json!({ "00081199": { "vr": "SQ", "Value": items } }).to_string().into_bytes()
}

/// The answer to a request says that all of it is committed.
fn committed(server: &Server, transaction: u64, body: &[u8], slices: u64) -> Outcome<()> {
    let mut told = Vec::new();
    let path = format!("/dicom-web/commitment-requests/2.25.{}", 1_000 + transaction);
    let status = Http::connect(server.http)?.post(&path, body, &mut told)?;
    let told: Value = serde_json::from_slice(&told).unwrap_or_default();
    let items = |sequence: &str| told[sequence]["Value"].as_array().map_or(0, Vec::len) as u64;
    let (committed, failed) = (items("00081199"), items("00081198"));
    if status != 200 || failed > 0 || committed != slices {
        return Err(format!("status {status}: {committed} of {slices} committed, {failed} not").into());
    }
    Ok(())
}
