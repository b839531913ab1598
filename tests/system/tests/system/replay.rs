//! `cairn replay` to other archives: another Cairn, dcmtk, and one that refuses and loses.

use crate::{
    stow::data_set_of,
    support::{Archive, Start, Tool, cairn, directory, eventually, free_port, python, repository, synthetic_files},
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Status, standard output and standard error.
pub fn read(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs a command that ends well; gives its rows.
pub fn counts(archive: &Archive, arguments: &[&str]) -> Vec<Value> {
    let (status, out, error) = read(archive.command(&[arguments, &["--quiet", "-o", "json"]].concat()));
    assert_eq!(status, 0, "{arguments:?}\n{out}{error}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn dimse(archive: &Archive) -> String {
    format!("CAIRN@{}", archive.dicom)
}

pub fn web(archive: &Archive) -> String {
    format!("http://{}/dicom-web", archive.http)
}

/// An archive with the studies of a seed; gives the number of instances.
pub fn filled(folder: &Path, name: &str, seed: u64, studies: u32, start: Start<'_>) -> (Archive, usize) {
    let files = folder.join(format!("{name}-files"));
    let number = synthetic_files(&files, seed, studies).len();
    let archive = Archive::start_with(&folder.join(name), start);
    archive.ok(&["import", "--quiet", "--ae", "CT1", &shown(&files)]);
    archive.settled();
    (archive, number)
}

/// Asserts that an archive has what another has, each data set byte by byte.
pub fn has_all_of(archive: &Archive, other: &Archive, instances: usize) {
    let reconcile = ["replay", "reconcile", "--to-stow", &web(archive), "--compare-bytes", "--settle", "30s"];
    let rows = counts(other, &reconcile);
    assert_eq!(rows[0]["Found"], instances.to_string(), "{rows:?}");
    assert_eq!(rows[0]["Expected"], rows[0]["Found"], "{rows:?}");
}

#[test]
fn to_another_cairn_by_c_store_and_by_stow_all_or_a_part() {
    let folder = directory();
    let (here, instances) = filled(folder.path(), "here", 61, 6, Start::default());
    let by_dimse = Archive::start(&folder.path().join("by-dimse"));
    let by_stow = Archive::start(&folder.path().join("by-stow"));
    let rows = counts(&here, &["replay", "--to-dimse", &dimse(&by_dimse)]);
    assert_eq!(rows[0]["Stored"], instances.to_string(), "{rows:?}");
    assert_eq!(rows[1]["Found"], instances.to_string(), "{rows:?}");
    has_all_of(&by_dimse, &here, instances);

    // A part, by a study and by what an expression says: the rest follows.
    let studies: BTreeSet<String> =
        cairn_synthetic::studies(61, 6).map(|made| made.study_instance_uid.to_string()).collect();
    let first = studies.first().unwrap();
    let of_first = cairn_synthetic::studies(61, 6).filter(|made| made.study_instance_uid.to_string() == *first).count();
    let (selected, stow) = (["--study", first.as_str()], ["replay", "--to-stow", &web(&by_stow)]);
    let rows = counts(&here, &[&["replay", "--dry-run"], &selected[..]].concat());
    assert_eq!(rows[0]["WouldBeSent"], of_first.to_string(), "{rows:?}");
    let rows = counts(&here, &[&stow[..], &selected, &["--compare-bytes"]].concat());
    assert_eq!(rows[1]["Found"], of_first.to_string(), "{rows:?}");
    let expression = format!("study_uid != '{first}' && calling_ae == 'CT1' && size > 0 && modality != ''");
    let rows = counts(&here, &[&stow[..], &["--where", &expression]].concat());
    assert_eq!(rows[0]["Stored"], (instances - of_first).to_string(), "{rows:?}");
    has_all_of(&by_stow, &here, instances);
    for archive in [here, by_dimse, by_stow] {
        archive.stop();
    }
}

#[test]
fn to_storescp_byte_for_byte() {
    let folder = directory();
    let (here, _) = filled(folder.path(), "here", 62, 3, Start::default());
    let (port, to) = (free_port(), folder.path().join("received"));
    fs::create_dir_all(&to).unwrap();
    let arguments = ["-aet", "MOVED", "--bit-preserving", "+xa", "-od", &shown(&to), &port.to_string()];
    let scp = Tool::start("storescp", &arguments, port);
    // It takes one association at a time.
    let to_it = ["--to-dimse", &format!("MOVED@127.0.0.1:{port}"), "--connections", "1", "--no-reconcile"];
    counts(&here, &[&["replay"], &to_it[..]].concat());
    drop(scp);
    let data_sets = |folder: &Path| -> BTreeSet<Vec<u8>> {
        fs::read_dir(folder).unwrap().map(|entry| data_set_of(&fs::read(entry.unwrap().path()).unwrap())).collect()
    };
    assert_eq!(data_sets(&to), data_sets(&folder.path().join("here-files")));
    here.stop();
}

#[test]
fn what_is_refused_and_what_is_lost_is_named() {
    let folder = directory();
    let (here, instances) = filled(folder.path(), "here", 63, 5, Start::default());
    let (port, notes, report) = (free_port(), folder.path().join("notes"), folder.path().join("report"));
    let script = shown(&repository().join("tests/system/python/faithless_scp.py"));
    let arguments = [script.as_str(), &port.to_string(), "4", "5", &shown(&notes)];
    let scp = Tool::start(&shown(&python()), &arguments, port);
    let to = format!("FAITHLESS@127.0.0.1:{port}");
    let replay = ["replay", "--quiet", "--to-dimse", &to, "--settle", "100ms", "--report", &shown(&report)];
    let (status, out, error) = read(here.command(&replay));
    assert_eq!(status, 4, "{out}{error}");
    let said = fs::read_to_string(&notes).unwrap();
    let mut expected: Vec<String> =
        said.lines().map(|line| line.replace("lost", "missing")).map(|line| line.replace(' ', ",")).collect();
    expected.sort();
    assert!(expected.len() >= instances / 4, "{said}");
    let csv = fs::read_to_string(report.with_extension("csv")).unwrap();
    let mut named: Vec<String> = csv
        .lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            assert_eq!(cells[4], if cells[3] == "refused" { "A900H" } else { "" }, "{line}");
            format!("{},{}", cells[3], cells[2])
        })
        .collect();
    named.sort();
    assert_eq!(named, expected, "each by its name\n{csv}");
    let json: Value = serde_json::from_slice(&fs::read(report.with_extension("json")).unwrap()).unwrap();
    assert_eq!(json["instances"].as_array().unwrap().len(), expected.len());
    assert_eq!(json["Found"], instances - expected.len());
    drop(scp);
    here.stop();
}

fn slowly(here: &Archive, to: &str, journal: &Path) -> Child {
    Command::new(cairn())
        .args(["replay", "--quiet", "--connections", "2", "--rate", "15", "--to-stow", to])
        .args(["--no-reconcile", "--journal", &shown(journal)])
        .env("CAIRN_SERVER", format!("http://{}", here.grpc))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn killed_or_interrupted_it_goes_on_and_leaves_nothing_out() {
    let folder = directory();
    let (here, instances) = filled(folder.path(), "here", 64, 12, Start::default());
    let there = Archive::start(&folder.path().join("there"));
    let (to, journal) = (web(&there), folder.path().join("journal"));
    let mut killed = slowly(&here, &to, &journal);
    eventually("some instances there", || (there.stored() >= 5.0).then_some(()));
    killed.kill().unwrap();
    killed.wait().unwrap();
    let before = there.stored();
    assert!(before < instances as f64, "it was killed in the middle");

    let interrupted = slowly(&here, &to, &journal);
    eventually("some more instances there", || (there.stored() >= before + 3.0).then_some(()));
    assert!(Command::new("kill").args(["-INT", &interrupted.id().to_string()]).status().unwrap().success());
    let (status, _, error) = read(interrupted.wait_with_output().unwrap());
    assert_eq!(status, 130, "{error}");
    assert!(error.contains("--journal") && error.contains("goes on"), "{error}");
    let before = there.stored();
    assert!(before < instances as f64, "it was interrupted in the middle");

    let resume = ["replay", "--to-stow", &to, "--journal", &shown(&journal)];
    let rows = counts(&here, &resume);
    assert_eq!(rows[0]["Stored"], instances.to_string(), "all runs together: {rows:?}");
    let done_before: u64 = rows[0]["OfThemBefore"].as_str().unwrap().parse().unwrap();
    assert!(done_before >= 5 && done_before as f64 <= before, "{rows:?}");
    assert_eq!(rows[1]["Found"], instances.to_string(), "{rows:?}");
    has_all_of(&there, &here, instances);
    // There is nothing left to do; another selection is another run.
    let rows = counts(&here, &resume);
    assert_eq!(rows[0]["Bytes"], "0", "{rows:?}");
    let (status, _, error) = read(here.command(&[&resume[..], &["--modality", "CT"]].concat()));
    assert!(status == 2 && error.contains("of another run"), "{status} {error}");
    here.stop();
    there.stop();
}

#[test]
fn to_another_site_as_events_unchanged() {
    let folder = directory();
    let site = |name: &str| vec![("CAIRN__SITE__NAME", name.to_owned())];
    let start = Start { environment: site("here"), ..Start::default() };
    let (here, instances) = filled(folder.path(), "here", 65, 4, start);
    let mut environment = site("there");
    environment.push(("CAIRN__REPLICATION__PEERS__HERE__ADDRESSES", format!("[\"{}\"]", here.grpc)));
    let mut there = Archive::start_with(&folder.path().join("there"), Start { environment, ..Start::default() });
    // What it would send, the other one does not take: it knows of no sites.
    there.expect_in_log("replication does not get on");
    let to = format!("http://{}", there.grpc);
    let rows = counts(&here, &["replay", "--to-cairn", &to, "--to", "@1"]);
    assert_eq!(rows[0]["Delivered"], "0", "{rows:?}");
    let rows = counts(&here, &["replay", "--to-cairn", &to, "--rate", "1000"]);
    assert_eq!(rows[0]["Delivered"], rows[0]["Events"], "{rows:?}");
    assert_eq!(rows[0]["Objects"], instances.to_string(), "{rows:?}");
    there.settled();
    here.ok(&["replication", "verify", "--with", &to]);
    let again = counts(&here, &["replay", "--to-cairn", &to]);
    assert_eq!(again[0]["Delivered"], "0", "{again:?}");
    assert_eq!(again[0]["HeldThere"], rows[0]["Events"], "{again:?}");
    // What would leave gaps is refused, and nobody who does not know the site takes anything of it.
    for part in [&["--modality", "CT"][..], &["--from", "@1"], &["--where", "size > 1"], &["--all-versions"]] {
        let (status, _, error) = read(here.command(&[&["replay", "--to-cairn", &to], part].concat()));
        assert!(status == 2 && error.contains("--to-stow"), "{part:?}: {status} {error}");
    }
    let (status, _, error) = read(there.command(&["replay", "--to-cairn", &format!("http://{}", here.grpc)]));
    assert!(status != 0 && !error.is_empty(), "{status} {error}");
    here.stop();
    there.stop();
}

#[test]
fn what_can_not_be_used_is_exit_status_2_and_who_is_not_there_is_5() {
    let run = |arguments: &[&str]| read(Command::new(cairn()).args(arguments).output().unwrap());
    let dimse = "A@127.0.0.1:1";
    for wrong in [
        &["replay"][..],
        &["replay", "--to-dimse", "nowhere"],
        &["replay", "--to-dimse", "LONGER THAN 16 CHARACTERS@127.0.0.1:1"],
        &["replay", "--to-dimse", dimse, "--to-stow", "http://127.0.0.1:1"],
        &["replay", "--to-stow", "somewhere"],
        &["replay", "--to-stow", "http://127.0.0.1:1", "--header", "none"],
        &["replay", "--to-dimse", dimse, "--where", "colour == 'red'"],
        &["replay", "--to-dimse", dimse, "--where", "size >"],
        &["replay", "--to-dimse", dimse, "--from", "yesterday"],
        &["replay", "--to-dimse", dimse, "--rate", "0"],
        &["replay", "reconcile", "--to-dimse", dimse, "--journal", "/nonexistent"],
        &["import", "--from-dimse", "nowhere"],
        &["import", "x", "--from-dimse", dimse],
        &["import", "x", "--study", "1.2"],
        &["import", "--from-dimse", dimse, "--study", "not.a.uid"],
        &["import", "--from-dimse", dimse, "-k", "Nonsense=1"],
        &["import", "--from-dicomweb", "http://127.0.0.1:1", "--move-to", "CAIRN"],
    ] {
        let (status, out, error) = run(wrong);
        assert!(status == 2 && out.is_empty() && !error.is_empty(), "{wrong:?}: {status} {out} {error}");
    }
    let folder = directory();
    let (here, _) = filled(folder.path(), "here", 66, 1, Start::default());
    for nobody in [["--to-dimse", dimse], ["--to-stow", "http://127.0.0.1:1"], ["--to-cairn", "http://127.0.0.1:1"]] {
        let replay = [&["replay", "--quiet", "--attempts", "2"], &nobody[..]].concat();
        let (status, out, error) = read(here.command(&replay));
        assert!(
            status == 5 && error.contains("goes on") | error.contains("go on"),
            "{nobody:?}: {status} {out} {error}"
        );
    }
    here.stop();
}
