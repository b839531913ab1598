//! dcmtk's tools as clients: storescu, findscu, movescu, getscu, echoscu.

use crate::{
    stow::data_set_of,
    support::{Archive, Start, Tool, directory, free_port, run, synthetic_files},
};
use std::{collections::BTreeSet, fs, path::Path};

/// The data set bytes of a Part 10 file.
fn data_set(path: &Path) -> Vec<u8> {
    data_set_of(&fs::read(path).unwrap())
}

fn data_sets(folder: &Path) -> BTreeSet<Vec<u8>> {
    fs::read_dir(folder).unwrap().map(|entry| data_set(&entry.unwrap().path())).collect()
}

#[test]
fn what_storescu_sends_findscu_finds_and_getscu_and_movescu_bring_back() {
    let folder = directory();
    let files = synthetic_files(&folder.path().join("in"), 11, 6);
    let (got, moved) = (folder.path().join("got"), folder.path().join("moved"));
    fs::create_dir_all(&got).unwrap();
    fs::create_dir_all(&moved).unwrap();
    let receiver = free_port();
    let destination = format!("MOVED=127.0.0.1:{receiver}");
    let archive = Archive::start_with(
        &folder.path().join("data"),
        Start { arguments: vec!["--destination".into(), destination], ..Default::default() },
    );
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    run("echoscu", &["-aec", "CAIRN", &host, &port]);
    run(
        "storescu",
        &["-aec", "CAIRN", "-aet", "DCMTK", "+sd", &host, &port, &folder.path().join("in").display().to_string()],
    );

    archive.settled();
    let sent: BTreeSet<Vec<u8>> = files.iter().map(|file| data_set(file)).collect();
    let studies: BTreeSet<String> =
        cairn_synthetic::studies(11, 6).map(|made| made.study_instance_uid.to_string()).collect();
    let level = "QueryRetrieveLevel=STUDY";
    let found = run(
        "findscu",
        &["-v", "-S", "-aet", "DCMTK", "-aec", "CAIRN", "-k", level, "-k", "StudyInstanceUID", &host, &port],
    );
    for study in &studies {
        assert!(found.contains(study.as_str()), "{study} is not in\n{found}");
        let key = format!("StudyInstanceUID={study}");
        let to = got.display().to_string();
        run("getscu", &["-S", "-aec", "CAIRN", "-od", &to, "-k", level, "-k", &key, &host, &port]);
    }
    assert_eq!(data_sets(&got), sent, "by C-GET, byte for byte");

    let scp = Tool::start(
        "storescp",
        &["-aet", "MOVED", "--bit-preserving", "+xa", "-od", &moved.display().to_string(), &receiver.to_string()],
        receiver,
    );
    for study in &studies {
        let key = format!("StudyInstanceUID={study}");
        run("movescu", &["-S", "-aec", "CAIRN", "-aem", "MOVED", "-k", level, "-k", &key, &host, &port]);
    }
    drop(scp);
    assert_eq!(data_sets(&moved), sent, "by C-MOVE, byte for byte");
    archive.stop();
}
