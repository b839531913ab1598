//! Some sites, the links between them, and what happened.

use crate::{
    instances::{Instance, Note},
    link::{Faults, Link},
    retention::erased_objects,
    site::{Backup, Site},
};
use bytes::Bytes;
use cairn_archive::{
    EventId, ObjectKey, Offset, Partition, Position, events::Event, fold::PatientIdentity, rejection::RejectionTitle,
};
use cairn_dicom::{DataSet, tags};
use cairn_replication::renew::Found;
use cairn_service_api::{
    Peer, Replication,
    correction::Correction,
    patients::PatientChange,
    site::{Decision, Grounds, SiteStatus},
};
use cairn_store_api::LogRecord;
use cairn_synthetic::Random;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Sites and links.
pub struct World {
    pub sites: Vec<Site>,
    /// By (from, to).
    pub links: BTreeMap<(usize, usize), Arc<Link>>,
    pub random: Random,
    /// What was acknowledged: digest of the object, by the site and the identity.
    pub acknowledged: BTreeSet<([u8; 32], usize)>,
}

impl World {
    /// Sites that all know each other, or that stand in a ring in which each sends to the next alone.
    pub async fn new(seed: u64, count: usize, ring: bool) -> Self {
        let sites = (0..count).map(|n| Site::new(&format!("site-{n}"))).collect();
        Self::of(sites, seed, ring).await
    }

    /// The same of these sites.
    pub async fn of(sites: Vec<Site>, seed: u64, ring: bool) -> Self {
        let count = sites.len();
        let mut random = Random::new(seed);
        let mut links = BTreeMap::new();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                if !ring || to == (from + 1) % count || from == (to + 1) % count {
                    links.insert((from, to), Link::new(sites[to].door.clone(), random.next()));
                }
            }
        }
        let mut world = Self { sites, links, random, acknowledged: BTreeSet::new() };
        if ring {
            // Who is not next is known, and can bring things, but nothing goes there.
            for ((from, to), link) in &world.links {
                link.faults().requests_cut = *to != (from + 1) % count;
            }
        }
        for site in 0..count {
            world.start(site).await;
        }
        world
    }

    pub async fn start(&mut self, site: usize) {
        let to = self.links.iter().filter(|((from, _), _)| *from == site);
        let peers = to.map(|((_, to), link)| (self.sites[*to].name.clone(), link.clone() as Arc<dyn Peer>)).collect();
        self.sites[site].start(peers).await;
    }

    /// Stores an instance at a site, and takes note if that was acknowledged.
    pub async fn store(&mut self, site: usize, instance: Instance) {
        if let Ok(stored) = self.sites[site].store(instance, 0).await {
            self.acknowledged.insert((stored.digest.0, site));
        }
    }

    /// A site is lost with what no other holds, and restored from a backup; it comes back with its links whole.
    pub async fn restore(&mut self, site: usize, backup: Backup) {
        self.sites[site].crash();
        self.sites[site].restore(backup);
        let left: BTreeSet<_> = self.sites.iter().flat_map(|site| events(site).into_values()).collect();
        let left: BTreeSet<_> = left.into_iter().filter_map(|(_, digest)| digest).collect();
        self.acknowledged.retain(|(digest, at)| *at != site || left.contains(digest));
        for ((from, to), link) in &self.links {
            if *from == site || *to == site {
                *link.faults() = Faults::default();
            }
        }
        for site in 0..self.sites.len() {
            if !self.sites[site].is_up() {
                self.start(site).await;
            }
        }
        // Longer than it waits to have met all.
        tokio::time::sleep(Duration::from_secs(6)).await;
    }

    /// What an operator does then.
    pub async fn renew(&mut self, site: usize) -> Found {
        self.sites[site].crash();
        for other in 0..self.sites.len() {
            if other != site && !self.sites[other].is_up() {
                self.start(other).await;
            }
        }
        let others: Vec<_> = self.sites.iter().filter(|other| other.name != self.sites[site].name).collect();
        let found = self.sites[site].renew(&others).await.unwrap();
        self.start(site).await;
        found
    }

    /// One random thing happens.
    pub async fn step(&mut self) {
        let sites = self.sites.len() as u64;
        let site = self.random.below(sites) as usize;
        match self.random.below(30) {
            20 => self.decide(site).await,
            21..=22 => self.reject(site).await,
            23 => self.revoke(site).await,
            24..=25 => self.correct(site).await,
            26 => self.revoke_correction(site).await,
            27..=28 => self.say_of_patients(site).await,
            29 => self.revoke_patient_fact(site).await,
            0..=11 => {
                let instance = Instance {
                    study: self.random.below(6),
                    number: self.random.below(12),
                    version: self.random.below(3) as u8,
                };
                self.store(site, instance).await;
            }
            12..=15 => {
                let at = self.random.below(self.links.len() as u64) as usize;
                let faults = self.some_faults();
                if let Some(link) = self.links.values().nth(at) {
                    *link.faults() = faults;
                }
            }
            16 => self.sites[site].crash(),
            17 => {
                let skew = self.random.below(12 * 3_600_000) as i64 - 6 * 3_600_000;
                self.sites[site].set_skew(skew);
            }
            _ => {
                let pause = self.random.below(3_000);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
        for site in 0..self.sites.len() {
            if !self.sites[site].is_up() && self.random.below(4) == 0 {
                self.start(site).await;
            }
        }
    }

    /// A rejection note comes, about what is there, comes later or never, of several studies or one.
    async fn reject(&mut self, site: usize) {
        let about = (0..=self.random.below(3)).map(|_| Instance {
            study: self.random.below(6),
            number: self.random.below(12),
            version: 0,
        });
        let about = about.collect();
        let title = RejectionTitle::ALL[self.random.below(4) as usize];
        let note = Note { number: self.random.below(40), title, about };
        if let Ok(stored) = self.sites[site].store_file(note.file(), 0).await {
            assert!(!stored.rejections.is_empty());
            self.acknowledged.insert((stored.digest.0, site));
        }
    }

    /// A rejection that has come to a site is taken back there.
    async fn revoke(&mut self, site: usize) {
        let kind = Event::InstancesRejected(Box::default()).kind();
        if let Some(position) = self.one_of_kind(site, kind) {
            let _refused_while_down = self.sites[site].revoke(position).await;
        }
    }

    /// Where an event of a kind stands in a site's log, one of them; `None`: there is none.
    fn one_of_kind(&mut self, site: usize, kind: &str) -> Option<Position> {
        let mut found = Vec::new();
        for (partition, records) in (0..).map(Partition).zip(self.sites[site].log.records()) {
            let of_kind = records.into_iter().filter(|found| found.record.envelope.kind == kind);
            found.extend(of_kind.map(|found| (partition, found.offset)));
        }
        if found.is_empty() {
            return None;
        }
        let (partition, offset) = found[self.random.below(found.len() as u64) as usize];
        let site = &self.sites[site];
        Some(Position { site: site.name.clone(), incarnation: site.log.lives_now().newest(), partition, offset })
    }

    /// The patient of a study is corrected, or that of a series or an instance in it, whether they are there or not.
    async fn correct(&mut self, site: usize) {
        let instance = Instance { study: self.random.below(6), number: self.random.below(12), version: 0 };
        let (study, series, sop) = instance.uids();
        let (series, sop) = match self.random.below(3) {
            0 => (None, None),
            1 => (Some(series), None),
            _ => (Some(series), Some(sop)),
        };
        let mut elements = DataSet::new();
        elements.put_text(tags::PATIENT_ID, &format!("P{}", self.random.below(4)));
        if self.random.below(2) == 0 {
            elements.put_text(tags::PATIENT_NAME, &format!("RIGHT^{}", self.random.below(4)));
        }
        let correction = Correction {
            tenant: "default".into(),
            study,
            series,
            instance: sop,
            elements,
            by: "operator".into(),
            reason: "simulated".into(),
        };
        let _refused_while_down = self.sites[site].correct(correction).await;
    }

    /// A correction that has come to a site is taken back there.
    async fn revoke_correction(&mut self, site: usize) {
        let kind = Event::AttributesCorrected(Box::default()).kind();
        if let Some(position) = self.one_of_kind(site, kind) {
            let _refused_while_down = self.sites[site].revoke_correction(position).await;
        }
    }

    /// Patients whom corrections name are merged, linked or updated.
    async fn say_of_patients(&mut self, site: usize) {
        let who = |number: u64| PatientIdentity { issuer: String::new(), id: format!("P{number}") };
        let (one, other) = (who(self.random.below(4)), who(self.random.below(4)));
        let change = match self.random.below(4) {
            0..=1 => PatientChange::Merge { prior: one, surviving: other },
            2 => PatientChange::Link { one, other },
            _ => {
                let mut elements = DataSet::new();
                elements.put_text(tags::PATIENT_NAME, &format!("UPDATED^{}", self.random.below(4)));
                PatientChange::Update { patient: one, elements }
            }
        };
        let _refused_while_down_or_void = self.sites[site].say_of_patients(change).await;
    }

    /// What has come to a site of patients is taken back there.
    async fn revoke_patient_fact(&mut self, site: usize) {
        let kinds =
            [Event::PatientsMerged(Default::default()).kind(), Event::PatientUpdated(Default::default()).kind()];
        let kind = kinds[self.random.below(2) as usize];
        if let Some(position) = self.one_of_kind(site, kind) {
            let _refused_while_down = self.sites[site].revoke_patient_fact(position).await;
        }
    }

    /// Something is decided about sites, if it can be.
    async fn decide(&mut self, site: usize) {
        let other = self.random.below(self.sites.len() as u64) as usize;
        let decision = match self.random.below(7) {
            0..=1 => Decision::Promote { force: true },
            2 => Decision::TakeOver,
            3 => Decision::Demote,
            4 => {
                let dead = self.random.below(3) != 0;
                Decision::DeclareDead { site: self.sites[other].name.clone(), dead }
            }
            _ => {
                let read_only = self.random.below(2) == 0;
                Decision::SetReadOnly { site: self.sites[other].name.clone(), read_only }
            }
        };
        if self.sites[site].is_up() {
            let replication = self.sites[site].replication().clone();
            let deciding = replication.decide(decision, Grounds::default());
            let _refused_or_given_up = tokio::time::timeout(Duration::from_secs(2), deciding).await;
        }
    }

    fn some_faults(&mut self) -> Faults {
        match self.random.below(4) {
            0 => Faults::default(),
            1 => Faults { requests_cut: true, ..Faults::default() },
            2 => Faults { answers_cut: true, ..Faults::default() },
            _ => Faults {
                lost_requests: self.random.below(30),
                lost_answers: self.random.below(30),
                repeated: self.random.below(50),
                flipped: self.random.below(20),
                delay_ms_max: self.random.below(500),
                ..Faults::default()
            },
        }
    }

    /// Every site is up, every link is whole.
    pub async fn heal(&mut self) {
        for link in self.links.values() {
            *link.faults() = Faults::default();
        }
        for site in 0..self.sites.len() {
            if !self.sites[site].is_up() {
                self.start(site).await;
            }
        }
    }

    /// Waits until no site has anything at risk.
    pub async fn settle(&self) {
        for _ in 0..10_000 {
            let mut at_risk = 0;
            for site in &self.sites {
                at_risk += site.status().await.peers.iter().map(|peer| peer.risk.events).sum::<u64>();
            }
            let ends: BTreeSet<_> =
                self.sites.iter().map(|site| site.log.records().iter().map(Vec::len).collect::<Vec<_>>()).collect();
            if at_risk == 0 && ends.len() == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for site in &self.sites {
            println!("{:#?}", site.status().await);
        }
        panic!("the sites do not come into step");
    }

    /// Everything that must hold once the sites are in step.
    pub async fn check(&self) {
        let first = events(&self.sites[0]);
        for site in &self.sites {
            let own = events(site);
            assert!(own.keys().eq(first.keys()), "{} has other events", site.name);
            assert_eq!(own, first, "{} has other bytes of an event", site.name);
            let known = known_of_sites(site).await;
            assert_eq!(known, known_of_sites(&self.sites[0]).await, "{} knows other things of sites", site.name);
            check_log(site);
            check_objects(site);
        }
        let digests: BTreeSet<_> = first.values().filter_map(|(_, digest)| *digest).collect();
        for (digest, site) in &self.acknowledged {
            assert!(digests.contains(digest), "what {} acknowledged is gone", self.sites[*site].name);
        }
        let (digest, conflicts) = self.sites[0].folded().await;
        for site in &self.sites[1..] {
            let (other, listed) = site.folded().await;
            assert_eq!(other, digest, "{} folds to another state", site.name);
            assert_eq!(listed, conflicts, "{} lists other conflicts", site.name);
        }
    }
}

/// Who has authority, what was decided and by whom.
async fn known_of_sites(site: &Site) -> SiteStatus {
    let status = site.replication().site().await.unwrap();
    SiteStatus { site: "any".parse().unwrap(), at_ms: 0, read_only: false, ..status }
}

type Events = BTreeMap<EventId, (Bytes, Option<[u8; 32]>)>;

/// Payloads of a site's events, and the digests of what they store.
fn events(site: &Site) -> Events {
    let records = site.log.records();
    let event = |record: &LogRecord| {
        let record = &record.record;
        let digest = match cairn_archive::events::Event::decode(&record.envelope.kind, record.payload.clone()) {
            Ok(cairn_archive::events::Event::InstanceStored(stored)) => {
                stored.object.and_then(|object| object.blake3.as_ref().try_into().ok())
            }
            _ => None,
        };
        (record.envelope.id, (record.payload.clone(), digest))
    };
    records.iter().flatten().map(event).collect()
}

/// No event twice; of each origin a partition has a prefix, in order.
fn check_log(site: &Site) {
    let mut seen = BTreeSet::new();
    for records in site.log.records() {
        let mut origins: BTreeMap<_, Offset> = BTreeMap::new();
        for LogRecord { record, .. } in records {
            assert!(seen.insert(record.envelope.id), "{} has an event twice", site.name);
            let Some(origin) = record.envelope.origin else { continue };
            let before = origins.insert((origin.site, origin.incarnation), origin.offset);
            assert!(before.is_none_or(|before| before < origin.offset), "{} has events out of order", site.name);
        }
    }
}

/// I1: every object that an event names is there, with the bytes that the event says; but what is erased, which is not.
pub fn check_objects(site: &Site) {
    let erased = erased_objects(site);
    for key in &erased {
        assert!(site.objects.bytes(*key).is_none(), "{} has an object that is erased", site.name);
    }
    for LogRecord { record, .. } in site.log.records().into_iter().flatten() {
        if record.envelope.object_keys.iter().any(|key| erased.contains(key)) {
            continue;
        }
        for key in &record.envelope.object_keys {
            assert!(site.objects.bytes(*key).is_some(), "I1: {} has an event without its bytes", site.name);
        }
        let Ok(cairn_archive::events::Event::InstanceStored(stored)) =
            cairn_archive::events::Event::decode(&record.envelope.kind, record.payload.clone())
        else {
            continue;
        };
        let object = stored.object.unwrap();
        let bytes = site.objects.bytes(ObjectKey::from_slice(&object.key).unwrap()).unwrap();
        assert_eq!(object.blake3.as_ref(), blake3::hash(&bytes).as_bytes(), "I1: {} has other bytes", site.name);
    }
}
