//! Holds and erasures at several sites, and what must hold of them whatever happened.

use crate::{instances::Instance, site::Site, world::World};
use cairn_archive::{
    ObjectKey, SiteId,
    erasure::Stage,
    events::{ErasureConfirmed, Event, HoldPlaced, VersionsErased},
    hlc::Hlc,
};
use cairn_lifecycle::LifecycleConfig;
use cairn_service_api::{
    Retention,
    retention::{ErasureGrounds, ErasureScope, NewHold},
};
use cairn_store_api::Record;
use futures_util::TryStreamExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Within it every site has confirmed and destroyed what can be, once all is well.
const LONG: Duration = Duration::from_secs(600);
/// Nobody waits longer for a decision.
const PATIENCE: Duration = Duration::from_secs(2);

/// Erases soon, and does nothing else that takes long.
fn config() -> LifecycleConfig {
    let mut config = LifecycleConfig::default();
    config.erasure.delay = Duration::from_secs(5);
    config.erasure.dead_site_delay = Duration::from_secs(20);
    config.erasure.look_interval = Duration::from_secs(1);
    config.sealing.enabled = false;
    config.orphans.enabled = false;
    config
}

impl World {
    /// Sites that hold and erase.
    pub async fn erasing(seed: u64, count: usize) -> Self {
        let sites = (0..count).map(|n| Site::with_lifecycle(&format!("site-{n}"), config())).collect();
        Self::of(sites, seed, false).await
    }

    /// Something is held or released, asked to be erased or withdrawn, if it can be.
    pub async fn hold_or_erase(&mut self) {
        let site = self.random.below(self.sites.len() as u64) as usize;
        let (study, act) = (self.random.below(6), self.random.below(8));
        let Some(retention) = self.sites[site].retention() else { return };
        let study = Instance { study, number: 1, version: 0 }.uids().0;
        let grounds = ErasureGrounds { by: "operator".into(), reason: "simulated".into() };
        let acted = async {
            match act {
                0 => {
                    let hold = NewHold { tenant: "default".into(), studies: vec![study], ..NewHold::default() };
                    retention.place_hold(NewHold { by: "operator".into(), ..hold }).await.map(drop)
                }
                1..=2 => match retention.holds().await?.try_next().await? {
                    Some(held) => retention.release_hold(held.id, grounds).await,
                    None => Ok(()),
                },
                3 => {
                    let open = retention.erasures().await?.try_filter(|found| {
                        let is_open = found.stage == Stage::Requested;
                        async move { is_open }
                    });
                    match Box::pin(open).try_next().await? {
                        Some(found) => retention.withdraw_erasure(found.id, grounds).await,
                        None => Ok(()),
                    }
                }
                _ => {
                    let scope =
                        ErasureScope { tenant: "default".into(), study, series: Vec::new(), instances: Vec::new() };
                    retention.request_erasure(scope, 0, grounds).await.map(drop)
                }
            }
        };
        let _refused_or_given_up = tokio::time::timeout(PATIENCE, acted).await;
    }

    /// Lets what was begun come to its end, once all is well.
    pub async fn come_to_rest(&self) {
        self.settle().await;
        tokio::time::sleep(LONG).await;
        for site in &self.sites {
            site.rest().await;
        }
        self.settle().await;
    }

    /// What must hold of holds and erasures; gives how many erasures took effect.
    pub fn check_erasures(&self) -> usize {
        let told = Told::of(&self.sites[0]);
        for erased in &told.erased {
            self.check_confirmed(&told, erased);
        }
        told.erased.len()
    }

    /// Every site confirmed it, or was declared dead; and none held any of it before.
    fn check_confirmed(&self, told: &Told, (erased, at): &(VersionsErased, Hlc)) {
        let confirmations: BTreeMap<_, _> = told
            .confirmed
            .iter()
            .filter(|(confirmed, ..)| confirmed.erasure_event_id == erased.erasure_event_id)
            .map(|(_, site, hlc)| (site, hlc))
            .collect();
        for site in self.sites.iter().map(|site| &site.name) {
            let Some(confirmed_at) = confirmations.get(site) else {
                let was_dead = told.dead.iter().any(|(dead, declared_at)| dead == site && declared_at < at);
                assert!(was_dead, "something is destroyed that {site} never confirmed");
                continue;
            };
            let held = told.placed.iter().find(|(placed, by, placed_at)| {
                let is_held = placed.study_instance_uids.contains(&erased.study_instance_uid);
                // Until it is released somewhere, validly or not: of that other tests.
                is_held && by == site && placed_at < *confirmed_at && !told.released.contains(&placed.hold_id[..])
            });
            assert!(held.is_none() || erased.series.is_empty(), "what {site} held is erased: {held:?}");
        }
    }
}

/// What a log tells of holds and erasures, with the site that said it and its place in the order of events.
#[derive(Default)]
struct Told {
    placed: Vec<(HoldPlaced, SiteId, Hlc)>,
    released: BTreeSet<Vec<u8>>,
    confirmed: Vec<(ErasureConfirmed, SiteId, Hlc)>,
    erased: Vec<(VersionsErased, Hlc)>,
    dead: Vec<(SiteId, Hlc)>,
}

impl Told {
    fn of(site: &Site) -> Self {
        let mut told = Self::default();
        for record in records(site) {
            let (by, hlc) = (record.envelope.site.clone(), record.envelope.hlc);
            match Event::decode(&record.envelope.kind, record.payload) {
                Ok(Event::HoldPlaced(event)) => told.placed.push((event, by, hlc)),
                Ok(Event::HoldReleased(event)) => drop(told.released.insert(event.hold_id.to_vec())),
                Ok(Event::ErasureConfirmed(event)) => told.confirmed.push((event, by, hlc)),
                Ok(Event::VersionsErased(event)) => told.erased.push((*event, hlc)),
                Ok(Event::SiteDeclaredDead(event)) if event.dead => told.dead.push((event.site.parse().unwrap(), hlc)),
                _ => {}
            }
        }
        told
    }
}

fn records(site: &Site) -> impl Iterator<Item = Record> {
    site.log.records().into_iter().flatten().map(|read| read.record)
}

/// Objects that are erased by what a site's log says.
pub(crate) fn erased_objects(site: &Site) -> BTreeSet<ObjectKey> {
    let mut keys = BTreeSet::new();
    for (erased, _) in Told::of(site).erased {
        let versions = erased.series.iter().flat_map(|series| &series.instances).flat_map(|found| &found.versions);
        keys.extend(versions.flat_map(|version| &version.object_keys).map(|key| ObjectKey::from_slice(key).unwrap()));
    }
    keys
}
