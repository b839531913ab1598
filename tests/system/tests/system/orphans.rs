//! An object that no event names, because the process died between the two: found, kept for a time, its bytes had, removed.

use crate::{
    sites::{made, rows, store},
    stow::{data_set_over_http, stow},
    support::{Archive, Start, directory},
};
use serde_json::Value;
use std::{fs, path::Path};

fn started(data: &Path, grace: &str) -> Archive {
    let environment = vec![("CAIRN__LIFECYCLE__ORPHANS__GRACE", grace.to_owned())];
    Archive::start_with(data, Start { environment, ..Start::default() })
}

/// How many orphans a look leaves, and how many it removes.
fn look(archive: &Archive) -> (u64, u64) {
    let said: Value = serde_json::from_str(&archive.ok(&["orphans", "look", "-o", "json"])).unwrap();
    (said["Orphans"].as_u64().unwrap(), said["LookRemoved"].as_u64().unwrap())
}

#[test]
fn what_a_killed_store_left_is_found_kept_had_again_and_removed() {
    let folder = directory();
    let data = folder.path().join("data");
    let (kept, unfinished) = (made(301, 1), made(302, 1).remove(0));
    let archive = Archive::start(&data);
    store(&archive, &kept);
    archive.stop();
    let environment = vec![("CAIRN_CRASH_AT", "after-object-finish".to_owned())];
    let mut dying = Archive::start_with(&data, Start { environment, ..Start::default() });
    assert!(stow(dying.http, &[&unfinished.file]).is_err());
    assert!(!dying.wait().success());
    drop(dying);

    let archive = started(&data, "1d");
    assert_eq!(look(&archive), (1, 0));
    assert_eq!(look(&archive), (1, 0), "its time has not come");
    let listed = rows(&archive, &["orphans", "list"]);
    let exported = folder.path().join("exported");
    archive.ok(&["orphans", "export", exported.to_str().unwrap()]);
    let file = exported.join(format!("{}.dcm", listed[0]["Object"].as_str().unwrap()));
    assert_eq!(fs::read(&file).unwrap().len() as u64, listed[0]["Bytes"].as_u64().unwrap());
    archive.stop();

    let archive = started(&data, "0s");
    assert_eq!(look(&archive), (0, 1));
    archive.ok(&["import", exported.to_str().unwrap()]);
    archive.settled();
    for sent in kept.iter().chain([&unfinished]) {
        assert_eq!(data_set_over_http(&archive, sent.sop_instance_uid.as_ref().unwrap()).len(), 1);
    }
    assert_eq!(look(&archive), (0, 0), "what was imported is named");
    archive.ok(&["fixity", "scrub"]);
    archive.stop();
}
