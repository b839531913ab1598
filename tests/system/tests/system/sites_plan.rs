//! What `cairn replication plan` says of an outage, and an outage that is measured.

use crate::{
    sites::{Sites, made, rows, store},
    sites_link::Link,
    stow::Sent,
    support::{Archive, SOON},
};
use serde_json::Value;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Instances a second that are stored, and as many that can be sent.
const RATE: u64 = 10;
const SENT: u64 = 25;
const OUTAGE: Duration = Duration::from_secs(4);

/// What the plan says at a site.
fn plan(archive: &Archive, arguments: &[String]) -> (Option<i32>, Value) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = archive.command(&[&["replication", "plan", "-o", "json"], &arguments[..]].concat());
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}")))
}

fn arguments(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().flat_map(|(name, value)| [format!("--{name}"), value.clone()]).collect()
}

/// Stores at a known rate until told to stop.
fn store_at_a_rate(archive: &Archive, files: &[Sent], stored: &AtomicU64, stop: &AtomicBool) {
    let begun = Instant::now();
    for (number, sent) in (0_u32..).zip(files) {
        let due = begun + number * Duration::from_secs(1) / RATE as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if stop.load(Ordering::SeqCst) {
            return;
        }
        store(archive, std::slice::from_ref(sent));
        stored.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn an_outage_takes_as_long_to_catch_up_as_was_planned() {
    let mut sites = Sites::prepare(&["east", "west"]);
    let files: Vec<Sent> = (0..).flat_map(|seed| made(6_500 + seed, 1)).take(600).collect();
    let mean = files.iter().map(|sent| sent.file.len() as u64).sum::<u64>() / files.len() as u64;
    let limit = SENT * mean;
    assert!(limit >= 64 << 10, "{mean} bytes an instance");
    sites.site("east").bytes_per_second = Some(limit);
    ["east", "west"].into_iter().for_each(|name| sites.start_site(name));
    sites.in_step();
    let (east, stored, stop) = (sites.at("east"), AtomicU64::new(0), AtomicBool::new(false));
    let at_risk = || sites.status("east", "west").instances;
    std::thread::scope(|scope| {
        sites.between("east", "west", Link::cut);
        let begun = Instant::now();
        scope.spawn(|| store_at_a_rate(east, &files, &stored, &stop));
        std::thread::sleep(OUTAGE);
        // What the machine really did.
        let (outage, backlog) = (begun.elapsed(), at_risk());
        sites.between("east", "west", Link::heal);
        let (healed, stored_before) = (Instant::now(), stored.load(Ordering::SeqCst));
        while at_risk() > 1 {
            assert!(healed.elapsed() < SOON, "{} instances are at risk", at_risk());
        }
        let (measured, stored_meanwhile) = (healed.elapsed(), stored.load(Ordering::SeqCst) - stored_before);
        stop.store(true, Ordering::SeqCst);

        let rate = stored_meanwhile as f64 / measured.as_secs_f64();
        let outage_ms = (backlog as f64 / rate * 1000.0) as u64;
        let given =
            [("outage", format!("{outage_ms}ms")), ("rate", rate.to_string()), ("instance-bytes", format!("{mean} B"))];
        let (_, said) = plan(east, &arguments(&given));
        assert_eq!((&said["Site"], &said["BandwidthAtItsEnd"]), (&"west".into(), &limit.into()));
        let planned = Duration::from_millis(said["CatchUpMs"].as_u64().expect("it ends"));
        println!(
            "outage {outage:?}, {backlog} instances, then {rate:.1}/s: planned {planned:?}, measured {measured:?}"
        );
        // No faster than the limit lets it, but for the last instances under way; and what else takes time is little.
        assert!(measured.as_secs_f64() > planned.as_secs_f64() * 0.7 - 0.5, "{measured:?}, planned {planned:?}");
        assert!(measured.as_secs_f64() < planned.as_secs_f64() * 1.6 + 3.0, "{measured:?}, planned {planned:?}");
    });
    let count = usize::try_from(stored.load(Ordering::SeqCst)).unwrap();
    sites.whole(&files[..count]);

    // What the archive says itself: nothing is stored now, of instances as large as these.
    let (status, said) = plan(east, &arguments(&[("outage", "1h".into()), ("measure-for", "100ms".into())]));
    assert_eq!(
        (status, &said["BacklogBytes"], &said["CatchUpMs"], &said["DiskHolds"]),
        (Some(0), &0.into(), &0.into(), &true.into())
    );
    let bytes = files[..count].iter().map(|sent| sent.file.len() as u64).sum::<u64>();
    let shown = rows(east, &["replication", "status"]).remove(0);
    assert!(said["InstanceBytes"].as_u64().unwrap().abs_diff(bytes / count as u64) < 4096, "{said} {shown}");
    // Without an archive; and more than can be sent.
    let given = [
        ("outage", "1h".into()),
        ("rate", "10".into()),
        ("instance-bytes", "512 KiB".into()),
        ("bandwidth", "4 MiB".into()),
    ];
    let (status, said) = plan(east, &[arguments(&given), vec!["--offline".into()]].concat());
    assert_eq!((status, &said["CatchUpMs"], &said["Sustained"]), (Some(7), &Value::Null, &false.into()));
    assert_eq!(said["RequiredBytesPerSecond"].as_u64(), Some(10 << 20));
    sites.stop();
}
