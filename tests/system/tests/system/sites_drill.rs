//! Drills: said before they are done, put back whatever happens, and told in a report that can't be changed.

use crate::{
    sites::{Sites, made, store},
    support::{Archive, cairn, eventually},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

/// Two sites with titles of their own, in step, with something in them.
fn prepared(seed: u64) -> Sites {
    let mut sites = Sites::prepare(&["east", "west"]);
    for (name, title) in [("east", "EAST"), ("west", "WEST")] {
        sites.site(name).environment = vec![("CAIRN__DICOM__AE_TITLE", title.into())];
        sites.start_site(name);
    }
    store(sites.at("east"), &made(seed, 3));
    store(sites.at("west"), &made(seed + 1, 1));
    sites.in_step();
    sites
}

/// A key in the folder of the sites; gives it, and its public half.
fn key(sites: &Sites) -> (String, String) {
    let path = |name: &str| sites.folder.path().join(name);
    let made = sites.at("east").ok(&["drill", "key", path("key.pem").to_str().unwrap()]);
    fs::write(path("public.pem"), made).unwrap();
    (path("key.pem").display().to_string(), path("public.pem").display().to_string())
}

/// What is asked of east: to be replaced by west, with its report in this folder.
fn arguments(sites: &Sites, report: &str, key: &str, more: &[&str]) -> (Vec<String>, PathBuf) {
    let folder = sites.folder.path().join(report);
    let run = ["drill", "run", "west", "--execute", "--yes", "west", "--sample", "20", "--key", key];
    let report = ["--report", folder.to_str().unwrap()];
    let all = [&run[..], &report, more].concat();
    (all.into_iter().map(ToOwned::to_owned).collect(), folder)
}

fn run(archive: &Archive, arguments: &[String]) -> Output {
    archive.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn site(archive: &Archive) -> Value {
    serde_json::from_str(&archive.ok(&["site", "status", "-o", "json"])).unwrap()
}

#[track_caller]
fn ends_with(output: &Output, status: i32) {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
}

fn report(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("report.json")).unwrap()).unwrap()
}

/// Waits until west has authority by a drill, that goes on.
fn under_way(sites: &Sites, drill: &mut Child) {
    eventually("a drill under way", || {
        assert!(drill.try_wait().unwrap().is_none(), "the drill has ended");
        (site(sites.at("west"))["primary"] == "west").then_some(())
    });
    assert_eq!(sites.status("east", "west").link, "paused");
    assert_eq!(sites.status("west", "east").link, "paused");
}

fn begin(archive: &Archive, arguments: &[String]) -> Child {
    let mut command = Command::new(cairn());
    command.args(arguments).env("CAIRN_SERVER", format!("http://{}", archive.grpc));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_drill_is_said_and_not_done_and_refused_where_senders_would_be_treated_otherwise() {
    let mut sites = prepared(301);
    let (east, before) = (sites.at("east"), site(sites.at("east")));
    let said = east.command(&["drill", "run", "west", "-o", "json"]);
    ends_with(&said, 0);
    let checks = String::from_utf8(said.stdout).unwrap();
    assert!(checks.lines().count() > 8 && !checks.contains("REFUSED"), "{checks}");
    assert!(String::from_utf8(said.stderr).unwrap().contains("Nothing was done"));
    let (key, _) = key(&sites);
    let (arguments, folder) = arguments(&sites, "refused", &key, &["--workload", "1s"]);
    for (without, status) in [("--yes", 2), ("--key", 2)] {
        let at = arguments.iter().position(|argument| argument == without).unwrap();
        let rest = [&arguments[..at], &arguments[at + 2..]].concat();
        ends_with(&run(east, &rest), status);
    }
    let other: Vec<_> =
        arguments.iter().map(|word| if word == "west" { "east".into() } else { word.clone() }).collect();
    ends_with(&run(east, &other), 2);
    for field in ["epoch", "primary", "promotions"] {
        assert_eq!(site(east)[field], before[field], "nothing was done");
    }
    sites.in_step();
    // Patients without an issuer would be those of another hospital.
    sites.stop_site("west");
    let issuer = ("CAIRN__INGEST__DEFAULT_PROFILE__ISSUER_OF_PATIENT_ID", "ELSEWHERE".to_owned());
    sites.site("west").environment.push(issuer);
    sites.start_site("west");
    sites.in_step();
    let refused = run(sites.at("east"), &arguments);
    ends_with(&refused, 1);
    let checks = String::from_utf8(refused.stdout).unwrap();
    assert!(checks.contains("defaults for senders differ in issuer_of_patient_id"), "{checks}");
    assert!(!folder.exists() && site(sites.at("west"))["epoch"] == 0, "nothing was done");
    sites.stop();
}

#[test]
fn a_drill_ends_as_it_began_and_its_report_is_as_it_was_signed() {
    let sites = prepared(303);
    let (east, west) = (sites.at("east"), sites.at("west"));
    east.ok(&["site", "promote", "--reason", "it is the first", "--yes", "east"]);
    sites.in_step();
    let (key, public) = key(&sites);
    let (dicom, server) = (west.dicom.to_string(), format!("http://{}", west.grpc));
    let doors = ["--dicom", &dicom, "--store", "--peer-server", &server];
    let more = [&doors[..], &["--workload", "1s", "--by", "Ann", "--reason", "autumn"]].concat();
    let (arguments, folder) = arguments(&sites, "passed", &key, &more);
    let done = run(east, &arguments);
    ends_with(&done, 0);
    let found = report(&folder);
    assert_eq!((&found["verdict"]["outcome"], &found["put_back"]), (&"passed".into(), &true.into()), "{found}");
    let readiness = found["readiness"].as_array().unwrap();
    for what in ["has authority", "retrieval", "C-ECHO, called EAST", "C-FIND, called EAST", "C-STORE, called EAST"] {
        let ready = readiness.iter().find(|ready| ready["what"] == what).expect(what);
        assert!(ready["after_ms"].as_u64() <= found["recovery_time"]["measured_ms"].as_u64(), "{ready}");
    }
    assert!(found["recovery_point"]["measured_ms"].as_u64().unwrap() < 60_000);
    let operations = found["workload"]["operations"].as_array().unwrap();
    assert!(operations.iter().all(|each| each["count"].as_u64() > Some(0) && each["failed"] == 0), "{operations:?}");
    // A study may be one instance.
    assert!(found["sample"]["equal"].as_u64() >= Some(4) && found["sample"]["differences"] == Value::Array(vec![]));
    assert_eq!(found["afterwards"]["original"], found["afterwards"]["standby"]);
    sites.in_step();
    for archive in [east, west] {
        let site = site(archive);
        assert_eq!((&site["primary"], &site["epoch"]), (&"east".into(), &3.into()));
        let promotions = site["promotions"].as_array().unwrap();
        assert!(promotions[..2].iter().all(|each| each["drill"] == found["drill"] && each["decided_by"] == "Ann"));
    }
    // No study is named, and no patient.
    for name in ["report.json", "report.md", "report.html"] {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        assert!(!text.contains("2.25.") && !text.contains("SYNTHETIC") && !text.contains('^'), "{name}");
    }
    let verify = ["drill", "verify", folder.to_str().unwrap(), "--public-key", &public];
    ends_with(&east.command(&verify), 0);
    for name in ["report.json", "report.html"] {
        let (path, whole) = (folder.join(name), fs::read(folder.join(name)).unwrap());
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 1;
        fs::write(&path, changed).unwrap();
        ends_with(&east.command(&verify), 4);
        fs::write(&path, whole).unwrap();
    }
    let journal = folder.join("journal.json");
    ends_with(&east.command(&["drill", "end", journal.to_str().unwrap()]), 0);
    sites.stop();
}

#[test]
fn a_drill_that_is_cut_short_is_put_back() {
    let sites = prepared(305);
    let (east, west) = (sites.at("east"), sites.at("west"));
    let (key, public) = key(&sites);
    // Missed: nobody is that fast.
    let (missed, folder) = arguments(&sites, "missed", &key, &["--rto", "1ms", "--workload", "200ms"]);
    ends_with(&run(east, &missed), 7);
    assert_eq!(report(&folder)["verdict"]["outcome"], "objective-missed");
    sites.in_step();
    // SIGINT ends it in order.
    let (long, folder) = arguments(&sites, "interrupted", &key, &["--workload", "10min"]);
    let mut drill = begin(east, &long);
    under_way(&sites, &mut drill);
    store(west, &made(307, 1));
    let pid = drill.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(drill.wait().unwrap().code(), Some(130));
    let found = report(&folder);
    assert_eq!((&found["verdict"]["outcome"], &found["put_back"]), (&"interrupted".into(), &true.into()), "{found}");
    ends_with(&east.command(&["drill", "verify", folder.to_str().unwrap(), "--public-key", &public]), 0);
    assert_eq!(site(east)["primary"], "east");
    sites.in_step();
    // kill -9 leaves it as it is, until somebody ends it.
    let (long, folder) = arguments(&sites, "killed", &key, &["--workload", "10min"]);
    let mut drill = begin(east, &long);
    under_way(&sites, &mut drill);
    drill.kill().unwrap();
    drill.wait().unwrap();
    store(east, &made(308, 1));
    store(west, &made(309, 1));
    assert!(sites.status("east", "west").events > 0 && sites.status("west", "east").events > 0);
    assert_eq!(site(west)["primary"], "west");
    let end = ["drill", "end", folder.join("journal.json").to_str().unwrap()].map(ToOwned::to_owned);
    ends_with(&run(east, &end), 0);
    assert!(sites.status("east", "west").link == "up" && sites.status("west", "east").link == "up");
    let epoch = site(east)["epoch"].clone();
    assert_eq!(site(east)["primary"], "east");
    sites.in_step();
    // Once more changes nothing.
    ends_with(&run(east, &end), 0);
    assert_eq!(site(west)["epoch"], epoch);
    sites.stop();
}
