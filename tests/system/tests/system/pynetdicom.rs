//! Stock pynetdicom as client and as the receiver of C-MOVE: `python/store_find_get_move.py` says what it checks.

use crate::support::{Archive, Start, directory, free_port, python, repository, run, synthetic_files};

#[test]
fn pynetdicom_stores_finds_cancels_gets_and_moves() {
    let folder = directory();
    let files = folder.path().join("in");
    synthetic_files(&files, 41, 6);
    let receiver = free_port();
    let archive = Archive::start_with(
        &folder.path().join("data"),
        Start { arguments: vec!["--destination".into(), format!("MOVED=127.0.0.1:{receiver}")], ..Default::default() },
    );
    let script = repository().join("tests/system/python/store_find_get_move.py").display().to_string();
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    let said = run(python(), &[&script, &host, &port, &receiver.to_string(), &files.display().to_string()]);
    println!("{said}");
    assert!(said.contains("ok: C-MOVE to an unknown destination"), "{said}");
    archive.stop();
}
