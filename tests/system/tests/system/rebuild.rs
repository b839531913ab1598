//! The index of a cluster, rebuilt by two processes while clients store and ask.

use crate::{
    cluster::{Cluster, Size, engines},
    load::{Load, all_there},
    support::Archive,
};

/// What `cairn index rebuild -o json` says.
fn certificate(index: &Archive) -> serde_json::Value {
    let said = index.ok(&["index", "rebuild", "-o", "json"]);
    serde_json::from_str(said.lines().next_back().expect("a certificate")).expect("JSON")
}

#[test]
fn two_index_processes_rebuild_under_load_and_the_certificate_says_equal() {
    let _engines = engines();
    let cluster = Cluster::start(Size { ingest: 2, index: 2, retrieval: 1, lifecycle: 0 }, &[]);
    let load = Load::start(cluster.door().http, 76, 3);
    load.goes_on(30);
    let (stored, refused) = (load.acknowledged(), load.refused());
    let certificate = certificate(cluster.process("index-0"));
    load.goes_on(10);
    assert_eq!(load.refused(), refused, "stores must not notice");
    println!("{certificate} while {} instances were stored", load.acknowledged() - stored);
    assert_eq!(certificate["Compared"], "equal");
    assert_eq!(certificate["Role"], "serving");
    assert_eq!(certificate["State"], certificate["ServingState"]);
    assert_eq!(certificate["Events"], certificate["ServingEvents"]);
    assert_ne!(certificate["Events"].as_str().unwrap().trim_matches('0'), "", "it held something");
    // The one before was followed too: it serves again with all there is.
    cluster.process("index-1").ok(&["index", "rollback"]);
    load.goes_on_unharmed(10);
    all_there(&cluster, &load.stop());
    cluster.stop(true);
}
