//! Two sites whose connections are by mutual TLS: a site is who its certificate says.

use crate::{
    gateway::{certificates, loopback, section},
    support::{Archive, Start, directory, eventually, free_port},
};
use std::{fs, net::SocketAddr, path::Path};

/// One site, that has `certificate`, and knows the other by these settings.
fn start(
    folder: &Path,
    name: &str,
    certificate: &str,
    own: SocketAddr,
    other: (&str, SocketAddr, &str, bool),
) -> Archive {
    let (site, address, more, verify) = other;
    let file = folder.join(format!("{name}.toml"));
    let text = format!(
        "[site]\nname = \"{name}\"\n[data]\npartitions = 8\n[replication]\nretry_pause = \"50ms\"\ntell_interval = \"100ms\"\nverify_site_certificate = {verify}\n\
         [replication.peers.{site}]\naddresses = [\"{address}\"]\n{more}\n"
    );
    fs::write(&file, text + &section(&folder.join("certificates"), certificate)).unwrap();
    let arguments = vec!["--grpc".into(), own.to_string(), "--config".into(), file.display().to_string()];
    let mut archive = Archive::start_with(&folder.join(name), Start { arguments, ..Start::default() });
    archive.expect_in_log(" WARN ");
    archive
}

/// What a gauge of a peer says.
fn gauge(archive: &Archive, name: &str, peer: &str) -> Option<String> {
    let text = String::from_utf8(archive.get("/metrics", "*/*").body).unwrap();
    let of = format!("cairn_replication_{name}{{peer=\"{peer}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&of)).map(str::to_owned)
}

#[test]
fn a_site_is_who_its_certificate_says() {
    let folder = directory();
    certificates(&folder.path().join("certificates"), &["east", "west", "south"]);
    let (east_at, west_at) = (loopback(free_port()), loopback(free_port()));
    let is = |archive: &Archive, name: &str, peer: &str, value: &str| {
        eventually(&format!("{name} of {peer}"), || {
            (gauge(archive, name, peer).as_deref() == Some(value)).then_some(())
        });
    };
    let east = start(folder.path(), "east", "east", east_at, ("west", west_at, "", true));
    // Of the same authority, and another's.
    let west = start(folder.path(), "west", "south", west_at, ("east", east_at, "", true));
    is(&west, "peer_refused", "east", "1");
    is(&east, "peer_up", "west", "1");
    let log = west.log();
    assert!(log.contains("does not name site west: it has to have the DNS name west"), "{log}");
    west.stop();
    let west = start(folder.path(), "west", "west", west_at, ("east", east_at, "", true));
    is(&west, "peer_up", "east", "1");
    is(&west, "peer_refused", "east", "0");
    west.stop();
    east.stop();
    // The other name is one that is agreed on; or nobody looks.
    for (names, verify) in [("certificate_names = [\"other\", \"south\"]", true), ("", false)] {
        let east = start(folder.path(), "east", "east", east_at, ("west", west_at, names, verify));
        let west = start(folder.path(), "west", "south", west_at, ("east", east_at, "", true));
        is(&west, "peer_up", "east", "1");
        west.stop();
        east.stop();
    }
}
