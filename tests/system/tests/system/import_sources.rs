//! `cairn import` from other archives: another Cairn by each way, and dcmtk's dcmqrscp.

use crate::{
    replay::{counts, dimse, filled, has_all_of, read, shown, web},
    support::{Archive, Start, Tool, directory, free_port, run},
};
use std::{collections::BTreeSet, fs};

#[test]
fn from_another_cairn_by_wado_by_c_get_and_by_c_move() {
    let folder = directory();
    let port = free_port();
    let destination = vec!["--destination".to_owned(), format!("BY-MOVE=127.0.0.1:{port}")];
    let start = Start { arguments: destination, ..Start::default() };
    let (source, instances) = filled(folder.path(), "source", 71, 6, start);
    let here = |name: &str, arguments: &[&str]| {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Archive::start_with(&folder.path().join(name), Start { arguments, ..Start::default() })
    };
    let by_web = here("by-web", &[]);
    let by_get = here("by-get", &[]);
    let by_move = here("by-move", &["--ae-title", "BY-MOVE", "--dicom", &format!("127.0.0.1:{port}")]);
    let report = folder.path().join("report");
    let said = shown(&report);
    let (from_web, from_dimse) = (web(&source), dimse(&source));
    for (archive, from) in [
        (&by_web, &["--from-dicomweb", from_web.as_str()][..]),
        (&by_get, &["--from-dimse", &from_dimse]),
        (&by_move, &["--from-dimse", &from_dimse, "--move-to", "BY-MOVE"]),
    ] {
        let import = [&["import", "--report", &said], from].concat();
        let rows = counts(archive, &import);
        assert_eq!(rows[0]["Stored"], instances.to_string(), "{from:?}: {rows:?}");
        assert_eq!((&rows[0]["Studies"], &rows[0]["Missing"]), (&"6".into(), &"0".into()), "{from:?}: {rows:?}");
        let csv = fs::read_to_string(report.with_extension("csv")).unwrap();
        assert_eq!(csv.lines().filter(|line| line.contains(",stored,")).count(), instances, "{from:?}\n{csv}");
        has_all_of(archive, &source, instances);
    }
    // Again: all of it is there.
    for (archive, from) in [(&by_web, ["--from-dicomweb", from_web.as_str()]), (&by_get, ["--from-dimse", &from_dimse])]
    {
        let rows = counts(archive, &[&["import"], &from[..]].concat());
        assert_eq!(rows[0]["Repeated"], instances.to_string(), "{from:?}: {rows:?}");
    }
    for archive in [source, by_web, by_get, by_move] {
        archive.stop();
    }
}

#[test]
fn a_part_by_study_or_date_and_a_journal_that_is_gone_on_with() {
    let folder = directory();
    let (source, instances) = filled(folder.path(), "source", 72, 5, Start::default());
    let here = Archive::start(&folder.path().join("here"));
    let studies: BTreeSet<String> =
        cairn_synthetic::studies(72, 5).map(|made| made.study_instance_uid.to_string()).collect();
    let (from, journal) = (web(&source), folder.path().join("journal"));
    let two: Vec<&str> = studies.iter().take(2).map(String::as_str).collect();
    let rows = counts(&here, &["import", "--from-dicomweb", &from, "--study", two[0], "--study", two[1]]);
    let of_two = cairn_synthetic::studies(72, 5).filter(|made| two.contains(&made.study_instance_uid.as_str())).count();
    assert_eq!((&rows[0]["Studies"], &rows[0]["Stored"]), (&"2".into(), &of_two.to_string().into()), "{rows:?}");
    let none = counts(&here, &["import", "--from-dicomweb", &from, "--study-date", "18000101-18001231"]);
    assert_eq!(none[0]["Studies"], "0", "{none:?}");

    // With one study of it done, the journal is cut as a kill would leave it; the list of studies stays.
    let all = ["import", "--from-dimse", &dimse(&source), "--transfers", "1", "--journal", &shown(&journal)];
    let rows = counts(&here, &all);
    assert_eq!(rows[0]["Repeated"], of_two.to_string(), "{rows:?}");
    let text = fs::read_to_string(&journal).unwrap();
    let end = text.match_indices('\n').nth(1).unwrap().0;
    fs::write(&journal, &text[..end + 40]).unwrap();
    let rows = counts(&here, &all);
    assert_eq!((&rows[0]["Studies"], &rows[0]["StudiesDone"]), (&"5".into(), &"5".into()), "{rows:?}");
    assert_eq!(rows[0]["Listed"], instances.to_string(), "{rows:?}");
    let (status, _, error) = read(here.command(&["import", "--from-dicomweb", &from, "--journal", &shown(&journal)]));
    assert!(status == 2 && error.contains("of another run"), "{status} {error}");
    has_all_of(&here, &source, instances);
    source.stop();
    here.stop();
}

#[test]
fn what_the_source_lists_and_does_not_give_or_this_archive_refuses_is_named() {
    let folder = directory();
    let (source, instances) = filled(folder.path(), "source", 73, 3, Start::default());
    // No instance is as small as what is taken here.
    let environment = vec![("CAIRN__INGEST__DEFAULT_PROFILE__OBJECT_BYTES_MAX", "300 B".to_owned())];
    let here = Archive::start_with(&folder.path().join("here"), Start { environment, ..Start::default() });
    let report = folder.path().join("report");
    let said = shown(&report);
    for from in [["--from-dicomweb", &web(&source)], ["--from-dimse", &dimse(&source)]] {
        let import = [&["import", "--quiet", "-o", "json", "--report", &said], &from[..]].concat();
        let (status, out, error) = read(here.command(&import));
        assert_eq!(status, 4, "{from:?} {out}{error}");
        let csv = fs::read_to_string(report.with_extension("csv")).unwrap();
        assert_eq!(csv.lines().filter(|line| line.contains(",refused,")).count(), instances, "{from:?}\n{csv}");
    }
    source.stop();
    drop(here);
}

#[test]
fn from_dcmqrscp_by_c_get_and_by_c_move() {
    let folder = directory();
    let (port, receiver) = (free_port(), free_port());
    let files = crate::support::synthetic_files(&folder.path().join("files"), 74, 3);
    let area = folder.path().join("area");
    fs::create_dir_all(&area).unwrap();
    let config = folder.path().join("dcmqrscp.cfg");
    let text = format!(
        "NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n\
         HostTable BEGIN\nhere = (BY-MOVE, 127.0.0.1, {receiver})\nHostTable END\n\
         VendorTable BEGIN\nVendorTable END\n\
         AETable BEGIN\nPACS {} RW (200, 1024mb) ANY\nAETable END\n",
        shown(&area)
    );
    fs::write(&config, text).unwrap();
    let pacs = Tool::start("dcmqrscp", &["-c", &shown(&config)], port);
    run("storescu", &["-aec", "PACS", "+sd", "127.0.0.1", &port.to_string(), &shown(&folder.path().join("files"))]);
    let arguments = ["--ae-title", "BY-MOVE", "--dicom", &format!("127.0.0.1:{receiver}")].map(str::to_owned).to_vec();
    let here = Archive::start_with(&folder.path().join("here"), Start { arguments, ..Start::default() });
    let from = ["import", "--from-dimse", &format!("PACS@127.0.0.1:{port}")];
    let rows = counts(&here, &[&from[..], &["--move-to", "BY-MOVE"]].concat());
    assert_eq!(rows[0]["Stored"], files.len().to_string(), "{rows:?}");
    let there = Archive::start(&folder.path().join("there"));
    let rows = counts(&there, &from);
    assert_eq!(rows[0]["Stored"], files.len().to_string(), "{rows:?}");
    drop(pacs);
    // It may have encoded them anew.
    let rows = counts(&here, &["replay", "reconcile", "--to-stow", &web(&there), "--settle", "30s"]);
    assert_eq!(rows[0]["Found"], files.len().to_string(), "{rows:?}");
    here.stop();
    there.stop();
}
