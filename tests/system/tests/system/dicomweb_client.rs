//! Stock dicomweb-client as client: `python/dicomweb.py` says what it checks.

use crate::support::{Archive, directory, python, repository, run, synthetic_files};

#[test]
fn dicomweb_client_stores_searches_and_retrieves() {
    let folder = directory();
    let files = folder.path().join("in");
    synthetic_files(&files, 43, 5);
    let archive = Archive::start(&folder.path().join("data"));
    let script = repository().join("tests/system/python/dicomweb.py").display().to_string();
    let url = format!("http://{}/dicom-web", archive.http);
    let said = run(python(), &[&script, &url, &files.display().to_string()]);
    println!("{said}");
    assert!(said.contains("ok: everything"), "{said}");
    archive.stop();
}
