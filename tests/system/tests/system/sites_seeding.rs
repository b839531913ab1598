//! A site that is new, beside one that has served for long.

use crate::{
    sites::{Sites, made, store},
    stow::stow,
    support::run,
};

/// Its objects are brought there on a disk: what goes over the link is events, and what came since.
#[test]
fn a_new_site_that_was_given_the_objects_gets_events_alone() {
    let mut sites = Sites::prepare(&["east", "west"]);
    sites.start_site("east");
    let before = made(97, 3);
    store(sites.at("east"), &before);
    sites.stop_site("east");
    let (from, to) = (sites.site("east").data.join("objects"), sites.site("west").data.clone());
    std::fs::create_dir_all(&to).unwrap();
    run("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
    sites.start_site("east");
    let since = made(98, 1);
    let east = sites.at("east").http;
    let serving = std::thread::spawn(move || {
        since.iter().for_each(|sent| assert!(matches!(stow(east, &[&sent.file]).unwrap().status, 200 | 202)));
        since
    });
    sites.start_site("west");
    let since = serving.join().unwrap();
    sites.whole(&[before, since.clone()].concat());
    let sent = sites.at("east").metric("cairn_replication_objects_sent_total{peer=\"west\"}");
    assert_eq!(sent, since.len() as f64, "what is there already is not sent");
    sites.stop();
}
