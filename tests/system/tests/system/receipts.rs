//! Whether everything came: what each association and request brought, and what another archive has beside it.

use crate::{
    replay::{dimse, filled, web},
    sites::{made, rows, store},
    stow::stow,
    support::{Archive, Start, directory, run, synthetic_files},
};
use serde_json::Value;

fn said(archive: &Archive, status: i32, arguments: &[&str]) -> Vec<Value> {
    let output = archive.command(&[arguments, &["-o", "json"]].concat());
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_association_and_request_says_what_it_brought() {
    let folder = directory();
    let archive = Archive::start(&folder.path().join("data"));
    let files = synthetic_files(&folder.path().join("in"), 171, 2);
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    let all = folder.path().join("in").display().to_string();
    let send = || run("storescu", &["-aet", "CT1", "-aec", "CAIRN", "+sd", &host, &port, &all]);
    send();
    archive.settled();
    // Again, beside something that is refused and something that conflicts.
    send();
    let mut other = std::fs::read(&files[0]).unwrap();
    let last = other.len() - 1;
    other[last] ^= 1;
    let refused = stow(archive.http, &[&other, b"no DICOM at all"]).unwrap();
    assert!(refused.status == 202, "{refused:?}");
    archive.settled();

    let listed = rows(&archive, &["receipts", "list"]);
    let [request, again, first] = &listed[..] else { panic!("three of {listed:?}") };
    let number = |count: usize| Value::from(count);
    assert_eq!(
        (&first["By"], &first["CallingAE"], &first["End"]),
        (&"C-STORE".into(), &"CT1".into(), &"completed".into())
    );
    assert_eq!(
        (&first["Stored"], &first["Repeated"], &first["Refused"]),
        (&number(files.len()), &number(0), &number(0))
    );
    assert_eq!((&again["Stored"], &again["Repeated"]), (&number(0), &number(files.len())), "{again}");
    assert_eq!((&request["By"], &request["Stored"], &request["Refused"]), (&"STOW-RS".into(), &number(1), &number(1)));
    assert_eq!(rows(&archive, &["receipts", "list", "--ae", "CT1"]).len(), 2);
    assert_eq!(rows(&archive, &["receipts", "list", "--refused"]), std::slice::from_ref(request));
    assert!(rows(&archive, &["receipts", "list", "--since", "2999-01-01T00:00:00Z"]).is_empty());

    let came =
        |receipt: &Value, status| said(&archive, status, &["receipts", "show", receipt["Receipt"].as_str().unwrap()]);
    let stored = came(first, 0);
    assert!(stored.len() == files.len() && stored.iter().all(|one| one["Outcome"] == "stored"), "{stored:?}");
    let repeated = came(again, 0);
    assert!(repeated.len() == files.len() && repeated.iter().all(|one| one["Outcome"] == "repeated"), "{repeated:?}");
    let [one] = &came(request, 3)[..] else { panic!("one came of the request") };
    assert!(one["Conflict"] == "content" || one["Conflict"] == "not-compared", "{one}");
    archive.stop();
}

#[test]
fn another_archive_is_compared_with_what_is_here() {
    let folder = directory();
    let (source, instances) = filled(folder.path(), "source", 172, 3, Start::default());
    let here = Archive::start(&folder.path().join("here"));
    let (by_find, by_web) = (dimse(&source), web(&source));
    for from in [&by_find, &by_web] {
        let missing = said(&here, 4, &["reconcile", from]);
        assert_eq!(missing.len(), instances, "{missing:?}");
        assert!(missing.iter().all(|one| one["Difference"] == "missing-here"), "{missing:?}");
    }
    here.ok(&["import", "--from-dimse", &by_find]);
    // One of another study, which the source has not.
    let own = made(173, 1);
    store(&here, &own);
    here.settled();
    for from in [&by_find, &by_web] {
        assert!(said(&here, 0, &["reconcile", from]).is_empty());
        let beside = said(&here, 4, &["reconcile", "--both-ways", from]);
        assert_eq!(beside.len(), own.len(), "{beside:?}");
        assert!(beside.iter().all(|one| one["Difference"] == "missing-there"), "{beside:?}");
        assert!(said(&here, 0, &["reconcile", "-k", "StudyDate=18000101-18001231", from]).is_empty());
    }
    // By its title in the configuration.
    let config = folder.path().join("here.toml");
    std::fs::write(&config, format!("[ae.CAIRN]\naddress = \"{}\"\n", source.dicom)).unwrap();
    assert!(said(&here, 0, &["reconcile", "CAIRN", "--config", &config.display().to_string()]).is_empty());
    let unknown = here.command(&["reconcile", "NOBODY", "--config", &config.display().to_string()]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    source.stop();
    let away = here.command(&["reconcile", "--attempts", "1", &by_find]);
    assert_eq!(away.status.code(), Some(5), "{away:?}");
    here.stop();
}
