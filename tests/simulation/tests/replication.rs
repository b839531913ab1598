//! I11, I12 and I1 between sites: whatever happens to links and sites, once all is well again they are the same.
//!
//! `CAIRN_SEEDS=FROM..TO` runs other seeds than the default.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use cairn_archive::{Incarnation, Offset, Partition, Position, PositionVector, SiteId, fold::PatientIdentity};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Peer, Reason, Replication,
    ingest::Body,
    patients::PatientChange,
    replication::{Delivered, Delivery, Introduction, Link, Meeting, Report},
    site::{Decision, Grounds},
};
use cairn_simulation::{instances::Instance, link::Faults, site::PARTITIONS, world::World};
use cairn_store_api::{EventLog, ObjectRef};
use futures_util::FutureExt;
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

const STEPS: u64 = 120;

fn seeds(default: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("CAIRN_SEEDS") else { return default };
    let (from, to) = text.split_once("..").expect("CAIRN_SEEDS is FROM..TO");
    from.parse().unwrap()..to.parse().unwrap()
}

/// Runs on virtual time, on one thread.
fn simulate<F: Future<Output = ()>>(seed: u64, run: impl FnOnce() -> F) {
    println!("seed {seed}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(run());
}

async fn happen(seed: u64, sites: usize, ring: bool) {
    let mut world = World::new(seed, sites, ring).await;
    for _ in 0..STEPS {
        world.step().await;
    }
    world.heal().await;
    world.settle().await;
    world.check().await;
    assert!(!world.acknowledged.is_empty());
}

#[test]
fn two_sites_come_to_the_same_whatever_happened() {
    for seed in seeds(0..40) {
        simulate(seed, || happen(seed, 2, false));
    }
}

#[test]
fn three_sites_come_to_the_same_whatever_happened() {
    for seed in seeds(1_000..1_025) {
        simulate(seed, || happen(seed, 3, false));
    }
}

/// Holds and erasures at any site at any time: nothing is destroyed that a site had not confirmed, or held when it did.
async fn hold_and_erase(seed: u64, sites: usize) -> usize {
    let mut world = World::erasing(seed, sites).await;
    for step in 0..STEPS {
        world.step().await;
        if step % 2 == 0 {
            world.hold_or_erase().await;
        }
    }
    world.heal().await;
    world.come_to_rest().await;
    world.check().await;
    world.check_erasures()
}

#[test]
fn what_is_held_or_erased_at_both_sides_of_a_cut_comes_to_the_same() {
    let erased = AtomicU32::new(0);
    for (from, sites) in [(4_000, 2), (5_000, 3)] {
        for seed in seeds(from..from + 20) {
            simulate(seed, || async {
                let count = hold_and_erase(seed, sites).await;
                erased.fetch_add(count.try_into().unwrap(), Ordering::Relaxed);
            });
        }
    }
    assert!(erased.into_inner() > 0, "nothing was ever erased");
}

#[test]
fn what_one_site_takes_goes_round_a_ring_once() {
    simulate(7, || async {
        let mut world = World::new(7, 3, true).await;
        for number in 0..10 {
            world.store(0, Instance { study: number % 3, number, version: 0 }).await;
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        let ends: Vec<usize> = world.sites.iter().map(|site| site.log.records().iter().map(Vec::len).sum()).collect();
        assert_eq!(ends[0], ends[1]);
        assert_eq!(ends[0], ends[2]);
        world.check().await;
    });
}

/// Of two merges that would close a cycle, made at two sites that are cut off from each other, the earlier counts at both.
#[test]
fn patients_merged_both_ways_while_cut_off_come_to_the_same() {
    simulate(11, || async {
        let mut world = World::new(11, 2, false).await;
        world.links.values().for_each(|link| link.faults().requests_cut = true);
        let who = |id: &str| PatientIdentity { issuer: String::new(), id: id.into() };
        let merge =
            |prior: &str, surviving: &str| PatientChange::Merge { prior: who(prior), surviving: who(surviving) };
        world.sites[0].say_of_patients(merge("A", "B")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let back = world.sites[1].say_of_patients(merge("B", "A")).await.unwrap();
        world.sites[1].say_of_patients(merge("C", "A")).await.unwrap();
        world.heal().await;
        world.settle().await;
        world.check().await;
        for site in &world.sites {
            let patients = site.patients();
            assert_eq!(patients.members(&who("C")), [who("A"), who("B"), who("C")]);
            assert_eq!(patients.survivor(&who("C")), &who("B"), "the later merge is void");
        }
        world.sites[1].revoke_patient_fact(back).await.unwrap();
        world.settle().await;
        world.check().await;
    });
}

/// What was confirmed by another site is there when that is all that is left.
#[test]
fn what_was_confirmed_survives_the_loss_of_its_site() {
    for seed in seeds(2_000..2_020) {
        simulate(seed, || async move {
            let mut world = World::new(seed, 3, false).await;
            let mut confirmed = Vec::new();
            for number in 0..30 {
                for link in world.links.values() {
                    *link.faults() = match world.random.below(3) {
                        0 => Faults { requests_cut: true, ..Faults::default() },
                        1 => Faults { lost_requests: 20, lost_answers: 20, repeated: 20, ..Faults::default() },
                        _ => Faults::default(),
                    };
                }
                let instance = Instance { study: number % 3, number, version: 0 };
                match world.sites[0].store(instance, 1).await {
                    Ok(stored) => {
                        assert!(stored.confirmed_sites >= 1);
                        confirmed.push(stored.digest);
                    }
                    Err(error) => {
                        assert_eq!((error.kind, error.reason), (ErrorKind::Unavailable, Reason::NotConfirmed));
                    }
                }
            }
            assert!(!confirmed.is_empty());
            world.sites[0].crash();
            let left: Vec<_> = world.sites[1..].iter().flat_map(|site| site.objects.backup().into_values()).collect();
            for digest in confirmed {
                assert!(left.iter().any(|(info, _)| info.object.digest == digest), "what was confirmed is gone");
            }
            // And a sender that tries again hears of success once it can be had.
            world.heal().await;
            let again = world.sites[0].store(Instance { study: 0, number: 0, version: 0 }, 2).await.unwrap();
            assert_eq!(again.confirmed_sites, 2);
            let refused = world.sites[0].store(Instance { study: 0, number: 0, version: 0 }, 3).await.unwrap_err();
            assert_eq!(refused.reason, Reason::NotConfirmed);
        });
    }
}

/// A damaged object is not shipped, and holds back its own partition alone.
#[test]
fn a_damaged_object_is_never_shipped() {
    simulate(3, || async {
        let mut world = World::new(3, 2, false).await;
        world.links[&(0, 1)].faults().requests_cut = true;
        for number in 1..9 {
            world.store(0, Instance { study: number, number, version: 0 }).await;
        }
        let damaged = *world.sites[0].objects.backup().keys().next().unwrap();
        world.sites[0].objects.set_damaged(damaged, true);
        world.heal().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let status = world.sites[0].status().await;
        let [peer] = &status.peers[..] else { panic!("one peer") };
        assert!(format!("{:?}", peer.link).contains("is damaged here"), "{:?}", peer.link);
        assert!(world.sites[1].objects.bytes(damaged).is_none());
        assert!((1..8).contains(&peer.risk.instances), "others got on: {:?}", peer.risk);
        world.sites[0].objects.set_damaged(damaged, false);
        world.settle().await;
        world.check().await;
    });
}

/// A full disk at the peer is waited for.
#[test]
fn a_full_peer_is_waited_for() {
    simulate(4, || async {
        let mut world = World::new(4, 2, false).await;
        world.sites[1].objects.set_full(true);
        for number in 0..5 {
            world.store(0, Instance { study: number, number, version: 0 }).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        let risk = world.sites[0].status().await.peers[0].risk;
        assert_eq!(risk.instances, 5);
        assert!(risk.age(world.sites[0].status().await.at_ms) >= Duration::from_secs(59));
        world.sites[1].objects.set_full(false);
        world.settle().await;
        world.check().await;
    });
}

/// A link has the bandwidth that is set for it, and no more.
#[test]
fn bandwidth_is_bounded() {
    simulate(5, || async {
        let mut world = World::new(5, 2, false).await;
        world.sites[0].crash();
        world.sites[0].bytes_per_second = Some(500);
        world.start(0).await;
        for number in 1..11 {
            world.store(0, Instance { study: number, number, version: 0 }).await;
        }
        let bytes: u64 = world.sites[0].objects.backup().values().map(|(info, _)| info.object.length).sum();
        let begun = tokio::time::Instant::now();
        world.settle().await;
        let (took, least) = (begun.elapsed(), Duration::from_secs(bytes / 500));
        assert!(took > least * 9 / 10 && took < least * 2, "{bytes} bytes took {took:?}");
        world.check().await;
    });
}

/// A copy that is older than what was delivered there gets the rest again, also when nothing else happens meanwhile.
#[test]
fn a_copy_that_was_restored_from_a_backup_is_sent_the_rest_again() {
    simulate(6, || async {
        let mut world = World::new(6, 2, false).await;
        for number in 1..20 {
            world.store(0, Instance { study: number % 4, number, version: 0 }).await;
        }
        world.settle().await;
        let backup = world.sites[1].backup();
        for number in 20..40 {
            world.store(0, Instance { study: number % 4, number, version: 0 }).await;
        }
        world.settle().await;
        // So fast that no connection notices.
        world.sites[1].crash();
        world.sites[1].restore(backup);
        world.start(1).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.settle().await;
        world.check().await;
    });
}

/// A site that lost events of its own, which another site holds, is told so, and nothing of it is believed.
#[test]
fn a_site_that_lost_its_own_events_is_refused() {
    simulate(8, || async {
        let mut world = World::new(8, 2, false).await;
        let backup = world.sites[1].backup();
        for number in 1..20 {
            world.store(1, Instance { study: number % 4, number, version: 0 }).await;
        }
        world.settle().await;
        world.sites[1].crash();
        world.sites[1].restore(backup);
        world.start(1).await;
        // It takes others in their places.
        for number in 20..40 {
            world.store(1, Instance { study: number % 4, number, version: 0 }).await;
        }
        let before = world.sites[0].log.records();
        tokio::time::sleep(Duration::from_secs(60)).await;
        for site in 0..2 {
            let status = world.sites[site].status().await;
            let link = format!("{:?}", status.peers[0].link);
            assert!(link.contains("Refused") && link.contains("restored from a backup"), "{link}");
        }
        assert_eq!(world.sites[0].log.records(), before);
        // Nor does it decide anything: what it says that it holds would be believed of what it lost.
        let promote = Decision::Promote { force: true };
        let refused = world.sites[1].replication().decide(promote.clone(), Grounds::default()).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Conflict);
        world.sites[0].replication().decide(promote, Grounds::default()).await.unwrap();
        assert!(world.sites[1].status().await.peers[0].risk.instances >= 20);
    });
}

/// It begins a new life, is brought what it lost, and what it took meanwhile goes to the others.
#[test]
fn a_site_that_lost_its_own_events_begins_a_new_life() {
    for stores_between in [false, true] {
        simulate(8, || async move {
            let mut world = World::new(8, 3, false).await;
            for number in 1..6 {
                world.store(1, Instance { study: number % 4, number, version: 0 }).await;
            }
            world.settle().await;
            let backup = world.sites[1].backup();
            for number in 6..20 {
                world.store(1, Instance { study: number % 4, number, version: 0 }).await;
            }
            world.settle().await;
            world.restore(1, backup).await;
            if stores_between {
                for number in 20..60 {
                    world.store(1, Instance { study: number % 4, number, version: 0 }).await;
                }
            }
            let found = world.renew(1).await;
            let lost: u64 =
                found.lost.iter().filter(|lost| lost.held_by == world.sites[0].name).map(|l| l.events).sum();
            // Each store is an event, and the receipt's end another.
            assert_eq!(lost, 14 * 2);
            assert_eq!(found.events_of_new_life > 0, stores_between);
            world.settle().await;
            world.check().await;
            assert_eq!(world.sites[1].status().await.incarnation, Incarnation(2));
            for number in 60..80 {
                world.store(number as usize % 3, Instance { study: number % 4, number, version: 0 }).await;
            }
            world.settle().await;
            world.check().await;
        });
    }
}

async fn restores_happen(seed: u64, sites: usize) {
    let mut world = World::new(seed, sites, false).await;
    let mut renewed = 0;
    for _ in 0..3 {
        let site = world.random.below(sites as u64) as usize;
        let steps = |world: &mut World, most: u64| world.random.below(most);
        for _ in 0..steps(&mut world, 40) {
            world.step().await;
        }
        let backup = world.sites[site].backup();
        for _ in 0..steps(&mut world, 60) {
            world.step().await;
        }
        world.restore(site, backup).await;
        for _ in 0..steps(&mut world, 30) {
            world.step().await;
        }
        renewed += u32::from(!world.renew(site).await.lost.is_empty());
        for _ in 0..steps(&mut world, 30) {
            world.step().await;
        }
    }
    world.heal().await;
    world.settle().await;
    world.check().await;
    println!("{renewed} new lives");
}

#[test]
fn sites_that_are_restored_from_backups_come_to_the_same() {
    for seed in seeds(3_000..3_040) {
        simulate(seed, || restores_happen(seed, 2));
    }
    for seed in seeds(4_000..4_030) {
        simulate(seed, || restores_happen(seed, 3));
    }
}

/// Reads a long log before it says what it holds; the first time it does not answer at all.
struct SlowToMeet(Arc<dyn Peer>, AtomicU32);

#[async_trait::async_trait]
impl Peer for SlowToMeet {
    async fn meet(&self, caller: Introduction) -> Result<Meeting, Error> {
        if self.1.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(Error::new(ErrorKind::Unavailable, "replication is starting"));
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        self.0.meet(caller).await
    }

    async fn missing(&self, objects: Vec<ObjectRef>) -> Result<Vec<u32>, Error> {
        self.0.missing(objects).await
    }

    async fn put_object(&self, object: ObjectRef, body: Body<'_>) -> Result<(), Error> {
        self.0.put_object(object, body).await
    }

    async fn read_object(&self, caller: &SiteId, object: ObjectRef) -> Result<AnswerStream<Bytes>, Error> {
        self.0.read_object(caller, object).await
    }

    async fn append(&self, delivery: Delivery) -> Result<Delivered, Error> {
        self.0.append(delivery).await
    }

    async fn tell(&self, process: u64, report: Report) -> Result<(), Error> {
        self.0.tell(process, report).await
    }

    async fn step_down(&self, successor: &SiteId, grounds: Grounds) -> Result<PositionVector, Error> {
        self.0.step_down(successor, grounds).await
    }
}

/// Reports go there all the time, in the name of whoever was met before: that must not begin the meeting anew each time.
#[test]
fn a_peer_that_takes_long_to_meet_is_met() {
    simulate(11, || async {
        let mut world = World::new(11, 2, false).await;
        world.sites[0].crash();
        let slow = SlowToMeet(world.links[&(0, 1)].clone(), AtomicU32::new(0));
        let name = world.sites[1].name.clone();
        world.sites[0].start(vec![(name, Arc::new(slow))]).await;
        world.store(0, Instance { study: 1, number: 1, version: 0 }).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.sites[0].status().await.peers[0].link, Link::Up);
        world.settle().await;
        world.check().await;
    });
}

/// What a site was brought does not go back to who brought it.
#[test]
fn nothing_is_echoed() {
    simulate(9, || async {
        let mut world = World::new(9, 2, false).await;
        for number in 1..40 {
            world.store((number % 2) as usize, Instance { study: number % 4, number, version: 0 }).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.settle().await;
        let all: usize = world.sites[0].log.records().iter().map(Vec::len).sum();
        let mut delivered = 0;
        for site in &world.sites {
            delivered += site.status().await.peers[0].events_delivered as usize;
        }
        assert_eq!(delivered, all);
    });
}

/// Who delivers may give up while an append is under way, and a log may have an event twice: neither is taken twice.
#[test]
fn a_delivery_that_was_given_up_is_taken_once() {
    simulate(10, || async {
        let mut world = World::new(10, 2, false).await;
        world.links[&(0, 1)].faults().requests_cut = true;
        world.store(0, Instance { study: 1, number: 1, version: 0 }).await;
        let (site, to) = (world.sites[0].name.clone(), world.sites[1].replication().clone());
        let incarnation = Incarnation(1);
        let caller = Introduction { site: site.clone(), incarnation, partitions: PARTITIONS, marks: Vec::new() };
        let process = to.meet(caller).await.unwrap().process;
        for (info, bytes) in world.sites[0].objects.backup().into_values() {
            to.put_object(info.object, Box::pin(futures_util::stream::iter([Ok(bytes)]))).await.unwrap();
        }
        let (partition, records) =
            (0..).map(Partition).zip(world.sites[0].log.records()).find(|(_, records)| !records.is_empty()).unwrap();
        let copy = |record: &cairn_store_api::LogRecord| {
            let mut copy = record.record.clone();
            copy.envelope.origin = Some(Position { site: site.clone(), incarnation, partition, offset: record.offset });
            copy
        };
        let records: Vec<_> = records.iter().map(copy).collect();
        let count = records.len();
        let to_offset = Offset(count as u64);
        let (from, site) = (Offset(0), site.clone());
        let twice = [records.clone(), records].concat();
        let (erased, keys) = (Vec::new(), Vec::new());
        let delivery =
            Delivery { process, site, incarnation, partition, from, to: to_offset, records: twice, erased, keys };
        let given_up = to.append(delivery.clone()).now_or_never();
        assert!(given_up.is_none(), "it was not under way");
        assert_eq!(to.append(delivery).await.unwrap(), Delivered { repeated: 2 * count as u32 });
        assert_eq!(world.sites[1].log.end(partition).await.unwrap(), to_offset);
    });
}
