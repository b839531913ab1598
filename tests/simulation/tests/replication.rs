//! I11, I12 and I1 between sites: whatever happens to links and sites, once all is well again they are the same.
//!
//! `CAIRN_SEEDS=FROM..TO` runs other seeds than the default.
#![allow(clippy::unwrap_used)]

use cairn_simulation::{instances::Instance, world::World};
use std::{ops::Range, time::Duration};

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
