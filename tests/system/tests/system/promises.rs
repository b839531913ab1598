//! What lifecycle promises, over the engines: committed is what is there, rejected is hidden, corrected is found by its right
//! name, held stays, erased is nowhere, and history can be proved.

use crate::{
    cluster::{Cluster, Size, engines},
    commitment::{Scu, failed, module, post, reference, store, studies},
    load::all_there,
    sites::rows,
    stow::{Sent, data_set_over_http},
    support::{Archive, cairn, directory, eventually},
};
use cairn_synthetic::Generated;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

fn sent(made: &[Generated]) -> Vec<Sent> {
    made.iter().map(|made| Sent::new(made.file.clone(), made.sop_instance_uid.clone())).collect()
}

fn found(door: &Archive, query: &str) -> usize {
    let answer = door.get(&format!("/dicom-web/studies?{query}"), "application/dicom+json");
    match answer.status {
        204 => 0,
        200 => serde_json::from_slice::<Vec<Value>>(&answer.body).unwrap().len(),
        other => panic!("{other}: {}", answer.head),
    }
}

/// A requester is told what is there, by DIMSE and by DICOMweb.
fn is_committed(cluster: &Cluster, made: &[Generated]) {
    let mut asked: Vec<_> = made.iter().map(reference).collect();
    let missing = (asked[0].0.clone(), "2.25.717171".to_owned());
    asked.push(missing.clone());
    let said = Scu::start(cluster.door(), "SAME", "2.25.7101", &asked, json!({"stay": true})).end();
    assert_eq!(failed(&said["report"]), BTreeSet::from([(missing.1, 0x0112)]), "{said}");
    assert_eq!(said["report"]["committed"].as_array().unwrap().len(), made.len());
    let whole: Vec<_> = made.iter().map(reference).collect();
    let answer = post(cluster.door(), "2.25.7102", &module(&whole));
    assert!(matches!(answer.status, 200 | 202), "{answer:?}");
    let result = eventually("a result", || {
        let path = "/dicom-web/commitment-requests/2.25.7102";
        let answer = cluster.door().get(path, "application/dicom+json");
        (answer.status == 200).then(|| serde_json::from_slice::<Value>(&answer.body).unwrap())
    });
    assert_eq!(result["00081199"]["Value"].as_array().unwrap().len(), made.len(), "{result}");
    assert!(result.get("00081198").is_none(), "{result}");
}

/// A correction finds a study by its right name, until it is taken back.
fn is_corrected(cluster: &Cluster, study: &str) {
    let ingest = cluster.process("ingest-0");
    ingest.ok(&["correct", study, "PatientName=Right^Name", "--why", "typed wrongly"]);
    let right = format!("StudyInstanceUID={study}&PatientName=Right^Name");
    let finds = |count| eventually("a name as it is now", || (found(cluster.door(), &right) == count).then_some(()));
    finds(1);
    // A list may see a commit of the index in parts.
    let correction = eventually("a correction in the list", || {
        rows(cluster.process("index-0"), &["corrections", "list", study]).pop()
    });
    ingest.ok(&["corrections", "revoke", correction["Position"].as_str().unwrap(), "--why", "it was right"]);
    finds(0);
}

/// What is held is not erased; what is erased is nowhere, though lifecycle is killed meanwhile.
fn is_erased(cluster: &mut Cluster, study: &str, files: &[Sent]) {
    let request = ["erasure", "request", "--reason", "a trial", "--study", study];
    let lifecycle = cluster.process("lifecycle-0");
    let hold = lifecycle.ok(&["hold", "place", "--study", study, "--reason", "a court asks"]).trim().to_owned();
    let refused = lifecycle.command(&request);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains(&hold), "{refused:?}");
    lifecycle.ok(&["hold", "release", &hold, "--reason", "it has decided"]);
    let id = lifecycle.ok(&request).trim().to_owned();
    cluster.kill("lifecycle-0");
    cluster.start_process("lifecycle-0");
    cluster.wait_ready();
    let lifecycle = cluster.process("lifecycle-0");
    let row = destroyed(lifecycle, "Erasure", &id);
    assert_eq!((&row["Erased"], &row["Kept"]), (&files.len().into(), &0.into()), "{row}");
    let report: Value = serde_json::from_str(&lifecycle.ok(&["erasure", "report", &id, "--form", "json"])).unwrap();
    let erased = report["Erased"].as_array().unwrap();
    assert_eq!(erased.len(), files.len(), "{report}");
    assert!(erased.iter().all(|one| one["InObjectStore"] == false && one["InIndex"] == false), "{report}");
    assert_eq!(found(cluster.door(), &format!("StudyInstanceUID={study}")), 0);
    assert!(
        files.iter().all(|sent| data_set_over_http(cluster.door(), sent.sop_instance_uid.as_ref().unwrap()).is_empty())
    );
}

/// Waits until what is erased of a row of this kind is destroyed.
fn destroyed(lifecycle: &Archive, column: &str, value: &str) -> Value {
    eventually("what is erased is destroyed", || {
        let row = rows(lifecycle, &["erasure", "list"]).into_iter().find(|row| row[column] == value)?;
        (row["DestroyedAt"] == "main").then_some(row)
    })
}

/// A policy looks ahead, and erases what is due.
fn follows_its_policy(cluster: &Cluster, study: &str) {
    let lifecycle = cluster.process("lifecycle-0");
    let expression = format!("study_uid == '{study}'");
    let sums = rows(lifecycle, &["policy", "what-if", "--where", &expression]).pop().unwrap();
    assert_eq!((&sums["Matching"], &sums["Due"]), (&1.into(), &1.into()), "{sums}");
    lifecycle.ok(&["policy", "adopt", "trial", "--where", &expression, "--reason", "a trial", "--most", "1"]);
    destroyed(lifecycle, "StudyInstanceUID", study);
    assert_eq!(found(cluster.door(), &format!("StudyInstanceUID={study}")), 0);
}

/// A checkpoint of the log is verified by its file alone.
fn is_proved(cluster: &Cluster, folder: &Path, public: &Path) {
    let checkpoint = folder.join("checkpoint").display().to_string();
    cluster.process("lifecycle-0").ok(&["audit", "checkpoint", "--out", &checkpoint]);
    let mut verify = Command::new(cairn());
    verify.args(["audit", "verify", "--public-key"]).arg(public).arg(&checkpoint);
    let verified = verify.output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn lifecycle_keeps_its_promises_over_the_engines() {
    let _engines = engines();
    let folder = directory();
    let (private, public) = (folder.path().join("key.pem"), folder.path().join("public.pem"));
    let key = Command::new(cairn()).args(["audit", "key"]).arg(&private).output().unwrap();
    assert!(key.status.success(), "{key:?}");
    std::fs::write(&public, key.stdout).unwrap();
    let tables = format!(
        "[ae.SAME]\ncommitment_report = \"same-association\"\n\
         [lifecycle.erasure]\ndelay = \"300ms\"\nlook_interval = \"50ms\"\n\
         [lifecycle.policies]\ninterval = \"200ms\"\nlook_interval = \"50ms\"\n\
         [lifecycle.commitment]\ninstances_wait = \"1s\"\n\
         [lifecycle.notary]\nkey = {private:?}\n"
    );
    let size = Size { ingest: 1, index: 1, retrieval: 1, lifecycle: 1 };
    let mut cluster = Cluster::start_configured(size, &[], &tables);
    let made = studies(71, 4);
    store(cluster.door(), &made);
    all_there(&cluster, &sent(&made));
    let mut by_study: BTreeMap<String, Vec<Generated>> = BTreeMap::new();
    for one in &made {
        by_study.entry(one.study_instance_uid.to_string()).or_default().push(one.clone());
    }
    let [(kept, _), (erased, files), (due, _), ..] = &by_study.iter().collect::<Vec<_>>()[..] else { panic!("few") };
    is_committed(&cluster, &made);
    is_corrected(&cluster, kept);
    is_erased(&mut cluster, erased, &sent(files));
    follows_its_policy(&cluster, due);
    is_proved(&cluster, folder.path(), &public);
    let said = rows(cluster.process("lifecycle-0"), &["fixity", "scrub"]).pop().unwrap();
    assert_eq!(said["DamagedObjects"], 0, "{said}");
    let said = cluster.process("index-0").ok(&["index", "rebuild", "-o", "json"]);
    let certificate: Value = serde_json::from_str(said.lines().next_back().unwrap()).unwrap();
    assert_eq!(certificate["Compared"], "equal", "{certificate}");
    let gone = [erased.as_str(), due.as_str()];
    let left = made.iter().filter(|one| !gone.contains(&one.study_instance_uid.as_str()));
    all_there(&cluster, &sent(&left.cloned().collect::<Vec<_>>()));
    cluster.stop(true);
}
