//! The object store is slow, busy, full, hangs up, loses its answers, or dies, while clients send.

use crate::{
    cluster::{Cluster, OwnEngines, Size, endpoint, engines},
    disk_full::storescu,
    load::{Load, all_there},
    s3_proxy::{Fault, Proxy},
    stow::{Sent, data_set_over_http},
    support::{Archive, eventually, rounds},
};
use std::{fs, time::Duration};

/// A cluster whose requests to the bucket give up soon, on one bucket for all its processes.
fn cluster_at(proxy: &Proxy) -> Cluster {
    let endpoint = proxy.endpoint();
    Cluster::start(
        Size::TWO,
        &[
            ("CAIRN__S3__ENDPOINT", &endpoint),
            ("CAIRN__S3__DEADLINE", "3 s"),
            ("CAIRN__S3__ATTEMPT_TIMEOUT", "2 s"),
            ("CAIRN__S3__BACKOFF_MAX", "500 ms"),
        ],
    )
}

/// The status of reading one that is found.
pub fn is_read(archive: &Archive, sent: &Sent) -> u16 {
    let uid = sent.sop_instance_uid.as_ref().unwrap();
    let found = archive.get(&format!("/dicom-web/instances?SOPInstanceUID={uid}"), "application/dicom+json");
    assert_eq!(found.status, 200, "queries go on without the object store: {found:?}");
    let found: serde_json::Value = serde_json::from_slice(&found.body).unwrap();
    let value = |tag: &str| found[0][tag]["Value"][0].as_str().unwrap().to_owned();
    let path = format!("/dicom-web/studies/{}/series/{}/instances/{uid}", value("0020000D"), value("0020000E"));
    archive.get(&path, "multipart/related; type=\"application/dicom\"").status
}

/// One that was stored, once it is found.
pub fn found(cluster: &Cluster, load: &Load) -> Sent {
    let stored = load.any();
    let uid = stored.sop_instance_uid.as_ref().unwrap();
    eventually("an instance that is found", || (!data_set_over_http(cluster.door(), uid).is_empty()).then_some(()));
    stored
}

/// What was stored before is found, and can't be read.
fn fails_cleanly(cluster: &Cluster, stored: &Sent) {
    let status = is_read(cluster.door(), stored);
    assert_eq!(status, 503, "a read that can't be answered now");
    refused_by_storescu(cluster);
}

/// C-STORE is answered A700.
pub fn refused_by_storescu(cluster: &Cluster) {
    let file = cluster.folder.path().join("refused.dcm");
    fs::write(&file, cairn_synthetic::one_study(99, 0).remove(0).file).unwrap();
    let said = storescu(cluster.door(), &file);
    let said = said.lines().find_map(|line| line.split("DIMSE Status").nth(1)).expect(&said);
    assert!(said.contains("0xa700"), "{said}");
}

#[test]
fn the_object_store_refuses_stalls_hangs_up_and_loses_answers_and_nothing_acknowledged_is_lost() {
    let _engines = engines();
    for round in 0..rounds(1) {
        let proxy = Proxy::start(&endpoint("CAIRN_TEST_S3"), round);
        let cluster = cluster_at(&proxy);
        let load = Load::start(cluster.door().http, 300 + round, 3);
        load.goes_on(6);
        let stored = found(&cluster, &load);
        for away in [Fault::SlowDown, Fault::HangUp] {
            proxy.set(&[away]);
            load.is_refused();
            fails_cleanly(&cluster, &stored);
            proxy.set(&[Fault::None]);
            load.goes_on(3);
            assert_eq!(is_read(cluster.door(), &stored), 200, "after {away:?}");
        }
        proxy.set(&[Fault::Full]);
        load.is_refused();
        proxy.set(&[Fault::None]);
        load.goes_on(3);
        // What only disturbs goes unnoticed: tries are repeated, and what was written is found by reading back.
        for disturbed in [Fault::Lost, Fault::Late(Duration::from_millis(200))] {
            let before = proxy.faults();
            proxy.set(&[disturbed]);
            load.goes_on_unharmed(3);
            assert!(proxy.faults() > before, "{disturbed:?} was tried");
        }
        let late = Fault::Late(Duration::from_millis(50));
        proxy.set(&[Fault::None, Fault::None, Fault::SlowDown, Fault::Lost, Fault::HangUp, late]);
        load.goes_on(20);
        proxy.set(&[Fault::None]);
        let read_back: f64 = cluster.of_role("ingest").map(read_back).sum();
        assert!(read_back > 0.0, "lost answers were read back");
        let (refused, faults) = (load.refused(), proxy.faults());
        let acknowledged = load.stop();
        println!("{} acknowledged, {refused} refused, {faults} faults, {read_back} read back", acknowledged.len());
        all_there(&cluster, &acknowledged);
        cluster.stop(true);
    }
}

fn read_back(ingest: &Archive) -> f64 {
    ["there", "not-there"]
        .iter()
        .map(|found| ingest.metric(&format!("cairn_object_store_s3_read_back_total{{found=\"{found}\"}}")))
        .sum()
}

#[test]
fn the_object_store_is_killed_and_started_again_and_stores_go_on() {
    let engines = OwnEngines::take();
    let limits = [("CAIRN__S3__DEADLINE", "3 s"), ("CAIRN__S3__ATTEMPT_TIMEOUT", "2 s")];
    let cluster = Cluster::start(Size::TWO, &limits);
    for round in 0..rounds(1) {
        let load = Load::start(cluster.door().http, 330 + round, 3);
        load.goes_on(6);
        let stored = found(&cluster, &load);
        engines.tool("kill", "s3");
        load.is_refused();
        fails_cleanly(&cluster, &stored);
        engines.tool("start", "s3");
        load.goes_on(6);
        all_there(&cluster, &load.stop());
    }
    cluster.stop(true);
}
