//! Two and three sites that keep each other in step: real processes, each a whole archive, every direction between two of
//! them through a [`Link`] of its own.

use crate::{
    disk_full::storescu,
    load::{Load, there},
    sites_link::Link,
    stow::{Sent, data_set_of, data_set_over_http, stow},
    support::{Archive, Start, directory, eventually},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// One site, and how it is started.
pub struct Site {
    pub data: PathBuf,
    /// Sites that it is told of.
    pub peers: Vec<&'static str>,
    pub partitions: u16,
    pub rpo_target: &'static str,
    /// Limit of what goes to each peer.
    pub bytes_per_second: Option<u64>,
    pub environment: Vec<(&'static str, String)>,
    /// Sections of its configuration that are its own.
    pub configured: &'static str,
    /// What runs it, if it is not run at once.
    pub within: Vec<String>,
    /// Lines of its log that are expected beside warnings.
    pub expected: Vec<&'static str>,
    archive: Option<Archive>,
}

/// Sites, and the links between them.
pub struct Sites {
    sites: BTreeMap<&'static str, Site>,
    links: BTreeMap<(&'static str, &'static str), Link>,
    /// The last one to go: what is said of a failure is in it.
    pub folder: TempDir,
}

/// How one site is kept in step, as `cairn replication status` says at another.
#[derive(Debug)]
pub struct Status {
    pub link: String,
    pub events: u64,
    pub instances: u64,
    pub age: Duration,
    /// Instances that the peer has and this site has not, as the peer told.
    pub told_instances: Option<u64>,
    pub told_ago: Option<Duration>,
}

pub fn rows(archive: &Archive, arguments: &[&str]) -> Vec<Value> {
    let text = archive.ok(&[arguments, &["-o", "json"]].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Sites {
    /// Sites that know each other, none started.
    pub fn prepare(names: &[&'static str]) -> Self {
        let folder = directory();
        let site = |name: &'static str| Site {
            data: folder.path().join(name),
            peers: names.iter().copied().filter(|other| *other != name).collect(),
            partitions: 8,
            rpo_target: "1min",
            bytes_per_second: None,
            environment: Vec::new(),
            configured: "",
            within: Vec::new(),
            expected: Vec::new(),
            archive: None,
        };
        let sites: BTreeMap<_, _> = names.iter().map(|name| (*name, site(name))).collect();
        let pairs = names.iter().flat_map(|from| names.iter().map(move |to| (*from, *to)));
        let links = pairs.filter(|(from, to)| from != to).map(|pair| (pair, Link::new())).collect();
        Self { sites, links, folder }
    }

    /// The same, all started and met.
    pub fn start(names: &[&'static str]) -> Self {
        let mut sites = Self::prepare(names);
        names.iter().for_each(|name| sites.start_site(name));
        sites.in_step();
        sites
    }

    pub fn site(&mut self, name: &str) -> &mut Site {
        self.sites.get_mut(name).unwrap()
    }

    /// One that runs.
    pub fn at(&self, name: &str) -> &Archive {
        self.sites[name].archive.as_ref().expect("it runs")
    }

    pub fn link(&self, from: &'static str, to: &'static str) -> &Link {
        &self.links[&(from, to)]
    }

    /// Something happens to both directions between two sites.
    pub fn between(&self, one: &'static str, other: &'static str, happens: impl Fn(&Link)) {
        happens(self.link(one, other));
        happens(self.link(other, one));
    }

    fn configuration(&self, name: &'static str) -> String {
        let site = &self.sites[name];
        let mut text = format!(
            "[site]\nname = \"{name}\"\n[data]\npartitions = {}\n\
             [grpc]\nkeepalive_interval = \"1 s\"\nkeepalive_timeout = \"2 s\"\n\
             [peers]\nsites_interval = \"100 ms\"\nconnect_timeout = \"1 s\"\nanswer_timeout = \"3 s\"\npause_max = \"200 ms\"\n\
             [ingest.compare]\nsearch_interval = \"200 ms\"\n\
             [replication]\nretry_pause = \"50 ms\"\nretry_pause_max = \"500 ms\"\n\
             first_meetings_wait = \"1 s\"\ntell_interval = \"100 ms\"\ntell_timeout = \"2 s\"\nnotes_interval = \"100 ms\"\n",
            site.partitions
        );
        for peer in &site.peers {
            let (address, target) = (self.link(name, peer).address(), site.rpo_target);
            text += &format!("[replication.peers.{peer}]\naddresses = [\"{address}\"]\nrpo_target = \"{target}\"\n");
            text +=
                &site.bytes_per_second.map_or_else(String::new, |limit| format!("bytes_per_second = \"{limit} B\"\n"));
        }
        text + site.configured
    }

    /// Starts one, or starts it again.
    pub fn start_site(&mut self, name: &'static str) {
        let path = self.folder.path().join(format!("{name}.toml"));
        fs::write(&path, self.configuration(name)).unwrap();
        let site = self.site(name);
        let arguments = vec!["--config".into(), path.display().to_string()];
        let (environment, within) = (site.environment.clone(), site.within.clone());
        let start = Start { arguments, environment, within, ..Start::default() };
        let archive = Archive::start_with(&site.data, start);
        let address = archive.grpc;
        site.archive = Some(archive);
        self.lead_to(name, Some(address));
    }

    fn lead_to(&self, name: &str, address: Option<std::net::SocketAddr>) {
        self.links.iter().filter(|((_, to), _)| *to == name).for_each(|(_, link)| link.lead_to(address));
    }

    /// kill -9 of one.
    pub fn kill(&mut self, name: &'static str) {
        self.lead_to(name, None);
        self.site(name).archive.take().expect("it runs").kill();
    }

    /// SIGTERM to one; returns when it has ended in order, with nothing worse than warnings in its log.
    pub fn stop_site(&mut self, name: &'static str) {
        self.lead_to(name, None);
        let site = self.site(name);
        let mut archive = site.archive.take().expect("it runs");
        [&[" WARN "], &site.expected[..]].concat().into_iter().for_each(|text| archive.expect_in_log(text));
        archive.stop();
    }

    pub fn stop(mut self) {
        let running: Vec<_> = self.running().map(|(name, _)| name).collect();
        running.into_iter().for_each(|name| self.stop_site(name));
    }

    fn running(&self) -> impl Iterator<Item = (&'static str, &Archive)> {
        self.sites.iter().filter_map(|(name, site)| Some((*name, site.archive.as_ref()?)))
    }

    /// How a site is kept in step by another.
    pub fn status(&self, at: &str, of: &str) -> Status {
        let output = self.at(at).command(&["replication", "status", "-o", "json"]);
        // 7: over the target.
        assert!(matches!(output.status.code(), Some(0 | 7)), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let row = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(|row| row["Site"] == of);
        let row = row.expect("it is a peer");
        let number = |name: &str| row[name].as_u64();
        Status {
            link: row["Link"].as_str().unwrap().to_owned(),
            events: number("EventsAtRisk").unwrap(),
            instances: number("InstancesAtRisk").unwrap(),
            age: Duration::from_millis(number("RecoveryPointAgeMs").unwrap()),
            told_instances: number("ToldInstances"),
            told_ago: number("ToldAgoMs").map(Duration::from_millis),
        }
    }

    /// SOP Instance UIDs of what one site is not known to have at another.
    pub fn at_risk(&self, at: &str, of: &str) -> BTreeSet<String> {
        let rows = rows(self.at(at), &["replication", "at-risk", of]);
        let stored = rows.iter().filter(|row| row["Type"] == "cairn.instance.stored.v1");
        stored.map(|row| row["SOPInstanceUID"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until nothing is at risk at any site that runs, and all of them make the same of it.
    pub fn in_step(&self) {
        let running: Vec<_> = self.running().collect();
        let pairs: Vec<_> = running
            .iter()
            .flat_map(|(at, archive)| running.iter().map(move |(of, other)| (*at, *archive, *of, *other)))
            .filter(|(at, _, of, _)| at != of && self.sites[at].peers.contains(of))
            .collect();
        let mut said = String::new();
        // What sites find out by themselves of conflicts may come meanwhile: it is the same in the end.
        eventually("sites in step", || {
            said.clear();
            for (at, _, of, _) in &pairs {
                let status = self.status(at, of);
                if status.link != "up" || status.events > 0 {
                    return None;
                }
            }
            running.iter().for_each(|(_, archive)| archive.settled());
            for (_, archive, _, other) in &pairs {
                let verified = archive.command(&["replication", "verify", "--with", &format!("http://{}", other.grpc)]);
                if verified.status.code() != Some(0) {
                    assert_eq!(verified.status.code(), Some(4), "{verified:?}");
                    return None;
                }
            }
            Some(())
        });
        for (at, archive, of, _) in pairs {
            archive.ok(&["replication", "status"]);
            assert!(rows(archive, &["replication", "at-risk", of]).is_empty(), "{at} lists something at risk");
        }
    }

    /// Everything of this is at one site byte for byte.
    pub fn there(&self, at: &str, acknowledged: &[Sent]) {
        self.at(at).settled();
        there(self.at(at), acknowledged);
    }

    /// Waits until all are in step; everything acknowledged is then at each of them byte for byte.
    pub fn whole(&self, acknowledged: &[Sent]) {
        self.in_step();
        self.running().for_each(|(_, archive)| there(archive, acknowledged));
    }
}

/// Instances of a seed.
pub fn made(seed: u64, studies: u32) -> Vec<Sent> {
    cairn_synthetic::studies(seed, studies).map(|made| Sent::new(made.file, made.sop_instance_uid)).collect()
}

/// Stores all by STOW-RS; each must be acknowledged.
pub fn store(archive: &Archive, files: &[Sent]) {
    for sent in files {
        let answer = stow(archive.http, &[&sent.file]).unwrap();
        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
    }
}

/// Stores all by C-STORE.
fn store_by_dimse(archive: &Archive, folder: &Path, files: &[Sent]) {
    for sent in files {
        let path = folder.join("one.dcm");
        fs::write(&path, &sent.file).unwrap();
        let said = storescu(archive, &path);
        let status = said.lines().find_map(|line| line.split("DIMSE Status").nth(1)).expect(&said);
        // A version beside another is kept, with a warning.
        assert!(status.contains("0x0000") || status.contains("0xb000"), "{status}");
    }
}

pub fn uids(files: &[Sent]) -> BTreeSet<String> {
    files.iter().map(|sent| sent.sop_instance_uid.as_ref().unwrap().to_string()).collect()
}

/// The same instance with other bytes.
fn stored_differently(sent: &Sent, with: u8) -> Sent {
    let mut other = sent.clone();
    *other.file.last_mut().unwrap() ^= with;
    other
}

/// Every version of an instance is there, and no other.
fn versions_are(archive: &Archive, versions: &[&Sent]) {
    let uid = versions[0].sop_instance_uid.as_ref().unwrap();
    let there: BTreeSet<_> = data_set_over_http(archive, uid).into_iter().collect();
    let sent: BTreeSet<_> = versions.iter().map(|version| data_set_of(&version.file)).collect();
    assert!(there == sent, "{uid}: {} versions of {}", there.len(), sent.len());
}

/// Conflicts once all are compared: the same everywhere.
fn conflicts(sites: &Sites) -> BTreeSet<String> {
    let listed = |archive: &Archive| {
        let rows = rows(archive, &["conflicts", "list"]);
        assert!(rows.iter().all(|row| row["Kind"] == "content"), "{rows:?}");
        rows.iter().map(|row| row["SOPInstanceUID"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let mut all = sites.running().map(|(_, archive)| listed(archive));
    let first = all.next().unwrap();
    assert!(all.all(|other| other == first), "conflicts are not the same everywhere");
    first
}

#[test]
fn what_both_sites_take_at_once_is_the_same_at_both() {
    let sites = Sites::start(&["east", "west"]);
    let (east, west) = (sites.at("east"), sites.at("west"));
    let (of_east, of_west) = (made(81, 1), made(82, 2));
    // The same two instances with other bytes, and two that are the same at both.
    let differently: Vec<_> = of_east[..2].iter().map(|sent| stored_differently(sent, 1)).collect();
    let repeated = &of_east[2..4];
    std::thread::scope(|scope| {
        scope.spawn(|| store_by_dimse(east, sites.folder.path(), &of_east));
        scope.spawn(|| {
            store(west, &differently);
            store(west, repeated);
            store(west, &of_west);
        });
    });
    // Once more, where they came from the other site.
    sites.in_step();
    store(west, repeated);
    store_by_dimse(east, sites.folder.path(), &of_west[..2]);
    sites.whole(&[&of_east[2..], &of_west[..]].concat());
    eventually("conflicts that are compared", || {
        let listed = [east, west].map(|archive| rows(archive, &["conflicts", "list"]));
        listed.iter().all(|rows| rows.len() == 2 && rows.iter().all(|row| row["Kind"] == "content")).then_some(())
    });
    sites.in_step();
    assert_eq!(conflicts(&sites), uids(&differently));
    for archive in [east, west] {
        for (one, other) in of_east.iter().zip(&differently) {
            versions_are(archive, &[one, other]);
        }
    }
    sites.stop();
}

#[test]
fn three_sites_come_to_the_same_while_one_of_them_can_not_be_reached() {
    let sites = Sites::start(&["east", "north", "west"]);
    let names = ["east", "north", "west"];
    sites.between("east", "west", Link::cut);
    sites.between("north", "west", Link::cut);
    let of: Vec<_> = (83..86).map(|seed| made(seed, 1)).collect();
    let shared = made(86, 1).swap_remove(0);
    let versions: Vec<_> = (1..4).map(|with| stored_differently(&shared, with)).collect();
    std::thread::scope(|scope| {
        for ((name, files), version) in names.iter().zip(&of).zip(&versions) {
            let archive = sites.at(name);
            scope.spawn(move || {
                store(archive, files);
                store(archive, std::slice::from_ref(version));
            });
        }
    });
    let nothing_lacks = |at: &str, of: &str| (sites.status(at, of).events == 0).then_some(());
    eventually("two sites in step", || nothing_lacks("east", "north").and(nothing_lacks("north", "east")));
    // What came from the other one is at risk too, as far as is known here.
    let (east, north) = (sites.at_risk("east", "west"), sites.at_risk("north", "west"));
    let expected = &(&uids(&of[0]) | &uids(&of[1])) | &uids(&versions[..1]);
    assert_eq!((&east, &north), (&expected, &expected));
    assert_eq!(sites.at_risk("west", "east"), &uids(&of[2]) | &uids(&versions[..1]));
    // It hears of everything by one of them alone.
    sites.between("north", "west", Link::heal);
    eventually("what came by another site", || {
        nothing_lacks("north", "west").and(nothing_lacks("west", "north")).and(nothing_lacks("north", "east"))
    });
    sites.there("west", &of.concat());
    sites.between("east", "west", Link::heal);
    sites.whole(&of.concat());
    eventually("a conflict that is compared", || {
        let listed = names.map(|name| rows(sites.at(name), &["conflicts", "list"]));
        listed.iter().all(|rows| rows.len() == 1 && rows[0]["Kind"] == "content").then_some(())
    });
    sites.in_step();
    assert_eq!(conflicts(&sites), uids(&versions[..1]));
    for name in names {
        versions_are(sites.at(name), &versions.iter().collect::<Vec<_>>());
    }
    sites.stop();
}

#[test]
fn a_paused_peer_gets_nothing_until_it_is_resumed() {
    let sites = Sites::start(&["east", "west"]);
    let (east, west) = (sites.at("east"), sites.at("west"));
    east.ok(&["replication", "pause", "west"]);
    let (of_east, of_west) = (made(87, 1), made(88, 1));
    store(east, &of_east);
    store(west, &of_west);
    // The other direction goes on.
    eventually("what the other site has", || (sites.status("west", "east").events == 0).then_some(()));
    let status = sites.status("east", "west");
    assert_eq!((status.link.as_str(), status.instances), ("paused", of_east.len() as u64), "{status:?}");
    assert_eq!(sites.at_risk("east", "west"), uids(&of_east));
    west.settled();
    let uid = of_east[0].sop_instance_uid.as_ref().unwrap();
    assert!(data_set_over_http(west, uid).is_empty(), "sent although it is paused");
    let unknown = east.command(&["replication", "pause", "south"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    east.ok(&["replication", "resume", "west"]);
    sites.whole(&[of_east, of_west].concat());
    sites.stop();
}

/// Waits until a link is refused for a reason.
pub fn refused(sites: &Sites, at: &str, of: &str, why: &str) {
    eventually(&format!("a link that is refused: {why}"), || {
        let link = sites.status(at, of).link;
        assert!(link != "up", "{at} is in step with {of}");
        (link.starts_with("refused: ") && link.contains(why)).then_some(())
    });
}

#[test]
fn a_site_that_is_not_known_is_refused_until_it_is() {
    let mut sites = Sites::prepare(&["east", "south", "west"]);
    sites.site("west").peers = vec!["south"];
    for name in ["east", "west"] {
        sites.start_site(name);
    }
    let files = made(89, 1);
    store(sites.at("east"), &files);
    refused(&sites, "east", "west", "site east is no peer of west");
    assert_eq!(sites.at_risk("east", "west"), uids(&files));
    sites.stop_site("west");
    sites.site("west").peers = vec!["east"];
    sites.start_site("west");
    sites.whole(&files);
    sites.stop();
}

#[test]
fn sites_whose_logs_are_divided_differently_refuse_each_other() {
    let mut sites = Sites::prepare(&["east", "west"]);
    sites.site("west").partitions = 16;
    for name in ["east", "west"] {
        sites.start_site(name);
    }
    let (of_east, of_west) = (made(90, 1), made(91, 1));
    store(sites.at("east"), &of_east);
    store(sites.at("west"), &of_west);
    refused(&sites, "east", "west", "east has 8 partitions, west has 16");
    refused(&sites, "west", "east", "west has 16 partitions, east has 8");
    for (at, of, files) in [("east", "west", &of_east), ("west", "east", &of_west)] {
        assert_eq!(sites.at_risk(at, of), uids(files));
        sites.there(at, files);
    }
    sites.stop();
}

#[test]
fn figures_at_risk_are_exact_as_soon_as_a_store_is_acknowledged() {
    let sites = Sites::start(&["east", "west"]);
    sites.between("east", "west", Link::cut);
    let files = made(92, 1);
    for (number, sent) in files.iter().enumerate() {
        store(sites.at("east"), std::slice::from_ref(sent));
        assert_eq!(sites.status("east", "west").instances, number as u64 + 1);
    }
    sites.between("east", "west", Link::heal);
    let load = Load::start(sites.at("west").http, 93, 2);
    load.goes_on(10);
    sites.whole(&[files, load.stop()].concat());
    sites.stop();
}
