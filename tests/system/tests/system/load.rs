//! Senders that go on while an archive is disturbed, and the reckoning afterwards.

use crate::{
    cluster::Cluster,
    stow::{Sent, data_set_of, stow},
    support::{Archive, SOON, eventually},
};
use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A sender's pause: what counts is that clients are at work, and all that they send is looked at in the end.
const PACE: Duration = Duration::from_millis(50);

/// Senders at work. Each sends its instances in turn, again until they are acknowledged, as a modality would.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Sent>>>,
    refused: Arc<AtomicUsize>,
    senders: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `senders`, each with studies of its own; each sends until stopped.
    pub fn start(door: SocketAddr, seed: u64, senders: u64) -> Self {
        let (stop, acknowledged, refused) = <(Arc<AtomicBool>, Arc<Mutex<Vec<Sent>>>, Arc<AtomicUsize>)>::default();
        let sender = |number: u64| {
            let (stop, acknowledged, refused) = (stop.clone(), acknowledged.clone(), refused.clone());
            std::thread::spawn(move || {
                for made in cairn_synthetic::studies(seed * 100 + number, 10_000) {
                    let sent = Sent::new(made.file, made.sop_instance_uid);
                    while !stop.load(Ordering::Relaxed) {
                        match stow(door, &[&sent.file]) {
                            Ok(answer) if matches!(answer.status, 200 | 202) => {
                                acknowledged.lock().unwrap().push(sent.clone());
                                std::thread::sleep(PACE);
                                break;
                            }
                            Ok(answer) => {
                                // Without room: until there is some.
                                assert!(matches!(answer.status, 503 | 507), "{answer:?}");
                                let head = answer.head.to_ascii_lowercase();
                                assert!(answer.status == 507 || head.contains("retry-after:"), "{head}");
                            }
                            // Its connection died: nothing was said.
                            Err(_) => {}
                        }
                        refused.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            })
        };
        let senders = (0..senders).map(sender).collect();
        Self { stop, acknowledged, refused, senders }
    }

    /// Acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Tries that were refused, or got no answer, so far.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Waits until one more is refused, or gets no answer.
    pub fn is_refused(&self) {
        let before = self.refused();
        eventually("a store that is refused", || (self.refused() > before).then_some(()));
    }

    /// Waits until `more` are acknowledged from now on, and fails if one is refused meanwhile.
    pub fn goes_on_unharmed(&self, more: usize) {
        let before = self.refused();
        self.goes_on(more);
        assert_eq!(self.refused() - before, 0, "stores must not notice");
    }

    /// One that is acknowledged.
    pub fn any(&self) -> Sent {
        self.acknowledged.lock().unwrap().first().expect("one is acknowledged").clone()
    }

    /// Waits until `more` are acknowledged from now on.
    pub fn goes_on(&self, more: usize) {
        let before = self.acknowledged();
        let begun = Instant::now();
        // Longer than any pause that a client or a process makes between tries.
        while self.acknowledged() < before + more {
            assert!(begun.elapsed() < 2 * SOON, "stores did not go on: {before} acknowledged");
            assert!(!self.senders.iter().any(JoinHandle::is_finished), "a sender failed");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it; gives what was acknowledged.
    pub fn stop(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        self.senders.into_iter().for_each(|sender| sender.join().expect("a sender failed"));
        std::mem::take(&mut self.acknowledged.lock().unwrap())
    }
}

/// Every acknowledged instance is found and given back byte for byte, by the study.
pub fn all_there(cluster: &Cluster, acknowledged: &[Sent]) {
    cluster.wait_ready();
    cluster.of_role("index").for_each(Archive::settled);
    there(cluster.door(), acknowledged);
}

/// The same at one archive that has folded all.
pub fn there(door: &Archive, acknowledged: &[Sent]) {
    let (mut found, mut got) = (HashSet::new(), HashSet::new());
    for sent in acknowledged {
        let uid = sent.sop_instance_uid.as_ref().unwrap().as_str();
        if !found.contains(uid) {
            let of_one = instances(door, &format!("/dicom-web/instances?SOPInstanceUID={uid}"));
            let [(study, _)] = &of_one[..] else { panic!("{uid} was acknowledged and is found as {of_one:?}") };
            let path = format!("/dicom-web/studies/{study}");
            found.extend(instances(door, &format!("{path}/instances")).into_iter().map(|(_, uid)| uid));
            got.extend(files(door, &path).iter().map(|file| data_set_of(file)));
        }
        assert!(found.contains(uid), "{uid} was acknowledged and is not found in its study");
        assert!(got.contains(&data_set_of(&sent.file)), "{uid} was acknowledged and is not there as sent");
    }
}

/// Study and SOP Instance UIDs that a query gives.
fn instances(door: &Archive, query: &str) -> Vec<(String, String)> {
    let found = door.get(query, "application/dicom+json");
    if found.status == 204 {
        return Vec::new();
    }
    assert_eq!(found.status, 200, "{found:?}");
    let found: Vec<serde_json::Value> = serde_json::from_slice(&found.body).unwrap();
    let value = |of: &serde_json::Value, tag: &str| of[tag]["Value"][0].as_str().unwrap().to_owned();
    found.iter().map(|each| (value(each, "0020000D"), value(each, "00080018"))).collect()
}

/// The files of a study, by WADO-RS as they are stored.
fn files(door: &Archive, path: &str) -> Vec<Vec<u8>> {
    let answer = door.get(path, "multipart/related; type=\"application/dicom\"; transfer-syntax=*");
    assert_eq!(answer.status, 200, "{}", answer.head);
    let boundary = answer.head.split("boundary=").nth(1).unwrap().split(['\r', ';']).next().unwrap().trim_matches('"');
    let (delimiter, body) = (format!("\r\n--{boundary}"), [b"\r\n", &answer.body[..]].concat());
    let mut places: Vec<usize> = memchr::memmem::find_iter(&body, &delimiter).collect();
    places.dedup();
    let part = |between: &[usize]| {
        let part = &body[between[0] + delimiter.len()..between[1]];
        part[memchr::memmem::find(part, b"\r\n\r\n").unwrap() + 4..].to_vec()
    };
    places.windows(2).map(part).collect()
}
