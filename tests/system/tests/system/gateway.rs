//! Doors in a process of their own: there is no store in it, and all it knows it knows by gRPC.

use crate::{
    stow::{data_set_of, data_set_over_http, stow},
    support::{Archive, Start, cairn, directory, eventually, free_port, run, synthetic_files},
};
use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, process::Command};

const PEERS: [&str; 3] = ["CAIRN__PEERS__INGEST", "CAIRN__PEERS__INDEX", "CAIRN__PEERS__RETRIEVAL"];

/// A gateway to one process that has all roles.
pub fn gateway(folder: &Path, peer: SocketAddr, more: Vec<(&str, String)>) -> Archive {
    let mut environment: Vec<(&str, String)> = PEERS.iter().map(|key| (*key, format!("[\"{peer}\"]"))).collect();
    environment.extend(more);
    let mut gateway = Archive::start_with(folder, Start { role: "gateway", environment, ..Start::default() });
    expect_that_others_are_away(&mut gateway);
    gateway
}

/// What is away is told to those who ask, and in the log.
fn expect_that_others_are_away(gateway: &mut Archive) {
    gateway.expect_in_log("a service failed");
    gateway.expect_in_log("an instance could not be stored");
    gateway.expect_in_log("could not be closed");
}

fn archive_at(data: &Path, grpc: SocketAddr) -> Archive {
    let arguments = vec!["--grpc".to_owned(), grpc.to_string()];
    Archive::start_with(data, Start { arguments, ..Start::default() })
}

pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn a_gateway_takes_finds_and_gives_back_and_outlives_what_is_behind_it() {
    let folder = directory();
    let data = folder.path().join("data");
    let files = synthetic_files(&folder.path().join("in"), 41, 4);
    let behind = loopback(free_port());
    // Before what it needs: the order of starting does not matter.
    let door = gateway(&folder.path().join("gateway"), behind, Vec::new());
    let (ready, why) = door.ready();
    assert!(!ready && why.contains("ingest: not ready"), "{why}");
    let made: Vec<_> = cairn_synthetic::studies(41, 4).collect();
    let refused = stow(door.http, &[&made[0].file]).unwrap();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.head.to_ascii_lowercase().contains("retry-after:"), "{}", refused.head);
    assert_eq!(door.get("/dicom-web/studies", "application/dicom+json").status, 503);
    let (host, port) = (door.dicom.ip().to_string(), door.dicom.port().to_string());
    let early = Command::new("storescu").args(["-v", "-aec", "CAIRN", &host, &port]).arg(&files[0]).output().unwrap();
    let said = String::from_utf8_lossy(&early.stderr).into_owned() + &String::from_utf8_lossy(&early.stdout);
    assert!(said.contains("OutOfResources") || said.contains("0xa700"), "{said}");

    let archive = archive_at(&data, behind);
    eventually("a gateway that has found its peers", || door.ready().0.then_some(()));
    run("storescu", &["-aec", "CAIRN", "+sd", &host, &port, &folder.path().join("in").display().to_string()]);
    archive.settled();
    let sent: BTreeSet<Vec<u8>> = files.iter().map(|file| data_set_of(&fs::read(file).unwrap())).collect();
    bring_back(&door, &folder.path().join("got"), &sent);
    let found = door.ok(&["query", "studies", "-o", "json"]);
    assert_eq!(found.lines().count(), 4, "commands reach the archive by its gateway: {found}");

    // kill -9 behind it: clean failures, and once it is back, all that was acknowledged, with the same gateway.
    archive.kill();
    assert_eq!(door.get("/dicom-web/studies", "application/dicom+json").status, 503);
    assert_eq!(stow(door.http, &[&made[0].file]).unwrap().status, 503);
    assert!(!door.ready().0);
    let archive = archive_at(&data, behind);
    eventually("a gateway that has found its peers again", || door.ready().0.then_some(()));
    archive.settled();
    bring_back(&door, &folder.path().join("again"), &sent);
    archive.stop();
    assert!(!door.ready().0);
    door.stop();
}

/// Everything, by C-GET and by WADO-RS, byte for byte.
fn bring_back(door: &Archive, folder: &Path, sent: &BTreeSet<Vec<u8>>) {
    fs::create_dir_all(folder).unwrap();
    let (host, port) = (door.dicom.ip().to_string(), door.dicom.port().to_string());
    let to = folder.display().to_string();
    let made: Vec<_> = cairn_synthetic::studies(41, 4).collect();
    for study in made.iter().map(|made| made.study_instance_uid.to_string()).collect::<BTreeSet<_>>() {
        let key = format!("StudyInstanceUID={study}");
        run(
            "getscu",
            &["-S", "+B", "-aec", "CAIRN", "-od", &to, "-k", "QueryRetrieveLevel=STUDY", "-k", &key, &host, &port],
        );
    }
    for made in &made {
        let over_http = data_set_over_http(door, &made.sop_instance_uid);
        assert!(over_http.len() == 1 && sent.contains(&over_http[0]), "by WADO-RS, byte for byte");
    }
    let got: BTreeSet<Vec<u8>> =
        fs::read_dir(folder).unwrap().map(|entry| data_set_of(&fs::read(entry.unwrap().path()).unwrap())).collect();
    let (missing, other) = (sent.difference(&got).count(), got.difference(sent).count());
    assert_eq!((missing, other), (0, 0), "of {}, by C-GET, byte for byte", sent.len());
}

/// An authority, and a certificate of its own for each name.
pub fn certificates(folder: &Path, names: &[&str]) {
    fs::create_dir_all(folder).unwrap();
    let at = |name: &str| folder.join(name).display().to_string();
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let authority = ["req", "-x509", "-subj", "/CN=authority", "-keyout", &at("ca.key"), "-out", &at("ca.pem")];
    run("openssl", &[&authority[..], &curve[..]].concat());
    for name in names {
        let extensions = folder.join(format!("{name}.ext"));
        fs::write(&extensions, format!("subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:{name}\n")).unwrap();
        let (key, request, made) = (at(&format!("{name}.key")), at(&format!("{name}.csr")), at(&format!("{name}.pem")));
        let subject = format!("/CN={name}");
        let ask = ["req", "-new", "-subj", &subject, "-keyout", &key, "-out", &request];
        run("openssl", &[&ask[..], &curve[..5]].concat());
        let extensions = extensions.display().to_string();
        let (ca, ca_key) = (at("ca.pem"), at("ca.key"));
        let sign = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "2"];
        run("openssl", &[&sign[..], &["-extfile", &extensions, "-out", &made]].concat());
    }
}

/// The section that makes a process the one of that name.
pub fn section(folder: &Path, name: &str) -> String {
    let at = |name: &str| folder.join(name).display().to_string();
    let (certificate, key) = (at(&format!("{name}.pem")), at(&format!("{name}.key")));
    format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\nauthority = {:?}\n", at("ca.pem"))
}

#[test]
fn only_processes_of_the_same_authority_talk_to_each_other() {
    let folder = directory();
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    certificates(&ours, &["archive", "gateway"]);
    certificates(&theirs, &["gateway"]);
    let config = folder.path().join("archive.toml");
    fs::write(&config, section(&ours, "archive")).unwrap();
    let behind = loopback(free_port());
    let arguments = vec!["--grpc".into(), behind.to_string(), "--config".into(), config.display().to_string()];
    let archive = Archive::start_with(&folder.path().join("data"), Start { arguments, ..Start::default() });
    let with = |name: &str, from: Option<&Path>| {
        let file = folder.path().join(format!("{name}.toml"));
        let peers = format!("[peers]\ningest = [\"{behind}\"]\nindex = [\"{behind}\"]\nretrieval = [\"{behind}\"]\n");
        fs::write(&file, peers + &from.map(|from| section(from, "gateway")).unwrap_or_default()).unwrap();
        let arguments = vec!["--config".into(), file.display().to_string()];
        let start = Start { role: "gateway", arguments, ..Start::default() };
        let mut gateway = Archive::start_with(&folder.path().join(name), start);
        expect_that_others_are_away(&mut gateway);
        gateway
    };
    let gateway = with("known", Some(&ours));
    eventually("a gateway that is let in", || gateway.ready().0.then_some(()));
    let made = cairn_synthetic::one_study(43, 0);
    assert_eq!(stow(gateway.http, &[&made[0].file]).unwrap().status, 200);
    for (name, from) in [("stranger", Some(theirs.as_path())), ("plain", None)] {
        let stranger = with(name, from);
        let (ready, why) = stranger.ready();
        assert!(!ready, "{name}: {why}");
        assert_eq!(stow(stranger.http, &[&made[0].file]).unwrap().status, 503, "{name}");
        stranger.stop();
    }
    let ask = |more: &[&str]| {
        let mut command = Command::new(cairn());
        command.args(["query", "studies", "--server", &format!("https://{behind}")]).args(more).output().unwrap()
    };
    assert_eq!(ask(&[]).status.code(), Some(5), "without a certificate");
    let at = |name: &str| ours.join(name).display().to_string();
    let files = [at("gateway.pem"), at("gateway.key"), at("ca.pem")];
    let [certificate, key, authority] = &files;
    let asked = ask(&["--tls-certificate", certificate, "--tls-key", key, "--tls-authority", authority]);
    assert!(asked.status.success(), "{asked:?}");
    gateway.stop();
    archive.stop();
}
