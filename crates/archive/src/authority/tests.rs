use super::*;
use crate::events::{SiteDeclaredDead, SiteDemoted, SiteReadOnlySet};
use proptest::prelude::*;

/// What a site did, as the generator says it.
#[derive(Clone, Debug)]
enum Act {
    Promote,
    Demote,
    SetReadOnly {
        site: usize,
        read_only: bool,
    },
    DeclareDead {
        site: usize,
        dead: bool,
    },
    /// Everything that the site does not have from another.
    Fetch {
        from: usize,
    },
}

const SITES: [&str; 3] = ["east", "north", "west"];

struct Site {
    name: SiteId,
    log: Vec<(Envelope, Position, Bytes)>,
    authority: Authority,
    own: u64,
}

impl Site {
    fn new(name: &str) -> Self {
        Self { name: name.parse().unwrap(), log: Vec::new(), authority: Authority::default(), own: 0 }
    }

    fn take(&mut self, record: (Envelope, Position, Bytes)) {
        self.authority.include(&record.0, &record.1, record.2.clone()).unwrap();
        self.log.push(record);
    }

    fn holds(&self) -> PositionVector {
        let mut vector = PositionVector::default();
        self.log.iter().for_each(|(_, position, _)| vector.include(position));
        vector
    }

    fn append(&mut self, number: u128, wall_ms: u64, event: &Event) {
        let hlc = Hlc { wall_ms: wall_ms.max(self.authority.last().wall_ms + 1), counter: 0 };
        let envelope = Envelope {
            id: EventId(uuid::Uuid::from_u128(number)),
            kind: event.kind().into(),
            site: self.name.clone(),
            study_instance_uid: String::new(),
            tenant: String::new(),
            hlc,
            traceparent: None,
            correlation_id: None,
            causation_id: None,
            object_keys: Vec::new(),
            origin: None,
        };
        let (site, incarnation, offset) = (self.name.clone(), Incarnation(1), Offset(self.own));
        let position = Position { site, incarnation, partition: partition(64), offset };
        self.own += 1;
        self.take((envelope, position, event.encode()));
    }

    fn promoted(&self) -> Event {
        let end = |((site, incarnation, partition), end): (&(SiteId, Incarnation, Partition), &Offset)| OriginEnd {
            site: site.to_string(),
            incarnation: incarnation.0,
            partition: partition.0.into(),
            end: end.0,
        };
        Event::SitePromoted(SitePromoted {
            site: self.name.to_string(),
            epoch: self.authority.epoch() + 1,
            holds: self.holds().0.iter().map(end).collect(),
            ..SitePromoted::default()
        })
    }

    fn under(&self) -> Bytes {
        self.authority.current().map(|current| Bytes::copy_from_slice(current.id.as_bytes())).unwrap_or_default()
    }

    fn read_only_set(&self, site: &str, read_only: bool) -> Event {
        let promotion_event_id = self.under();
        Event::SiteReadOnlySet(SiteReadOnlySet {
            site: site.into(),
            read_only,
            promotion_event_id,
            ..SiteReadOnlySet::default()
        })
    }

    fn declared_dead(&self, site: &str, dead: bool) -> Event {
        let promotion_event_id = self.under();
        let said = SiteDeclaredDead { site: site.into(), dead, promotion_event_id, ..SiteDeclaredDead::default() };
        Event::SiteDeclaredDead(said)
    }

    fn dead(&self) -> Vec<String> {
        self.authority.dead().iter().map(|dead| dead.site.to_string()).collect()
    }

    fn demoted(&self) -> Event {
        let promotion_event_id = self.under();
        Event::SiteDemoted(SiteDemoted { site: self.name.to_string(), promotion_event_id, ..SiteDemoted::default() })
    }
}

fn fetch(sites: &mut [Site], to: usize, from: usize) {
    for record in sites[from].log.clone() {
        if !sites[to].log.iter().any(|(known, ..)| known.id == record.0.id) {
            sites[to].take(record);
        }
    }
}

fn acts() -> impl Strategy<Value = Vec<(usize, Act, u64)>> {
    let act = prop_oneof![
        Just(Act::Promote),
        Just(Act::Demote),
        (0..3_usize, any::<bool>()).prop_map(|(site, dead)| Act::DeclareDead { site, dead }),
        (0..3_usize, any::<bool>()).prop_map(|(site, read_only)| Act::SetReadOnly { site, read_only }),
        (0..3_usize).prop_map(|from| Act::Fetch { from }),
    ];
    proptest::collection::vec((0..3_usize, act, 0..50_u64), 1..40)
}

fn played(acts: &[(usize, Act, u64)]) -> Vec<Site> {
    let mut sites: Vec<Site> = SITES.iter().map(|name| Site::new(name)).collect();
    for (number, (at, act, wall_ms)) in (1..).zip(acts) {
        match act {
            Act::Fetch { from } => fetch(&mut sites, *at, *from),
            act => {
                let site = &mut sites[*at];
                let event = match act {
                    Act::Promote => site.promoted(),
                    Act::Demote => site.demoted(),
                    Act::SetReadOnly { site: of, read_only } => site.read_only_set(SITES[*of], *read_only),
                    Act::DeclareDead { site: of, dead } => site.declared_dead(SITES[*of], *dead),
                    Act::Fetch { .. } => unreachable!(),
                };
                site.append(number, *wall_ms, &event);
            }
        }
    }
    sites
}

proptest! {
    /// I11, I12: sites that hold the same events say the same, in whatever order and however often they came.
    #[test]
    fn what_counts_is_a_function_of_the_set_of_events(acts in acts(), order in any::<prop::sample::Index>()) {
        let mut sites = played(&acts);
        for (to, from) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
            fetch(&mut sites, to, from);
        }
        let mut turned = sites[0].log.clone();
        let middle = order.index(turned.len() + 1);
        turned.rotate_left(middle);
        turned.extend(sites[0].log.iter().rev().cloned().collect::<Vec<_>>());
        let mut other = Authority::default();
        for (envelope, position, payload) in turned {
            other.include(&envelope, &position, payload).unwrap();
        }
        prop_assert_eq!(&other, &sites[0].authority);
        prop_assert_eq!(&sites[1].authority, &sites[0].authority);
        prop_assert_eq!(&sites[2].authority, &sites[0].authority);
    }

    /// What the site with authority held when it was promoted, and counted then, counts for ever; what is beyond never does.
    #[test]
    fn the_site_promoted_last_is_never_overruled_by_what_it_did_not_hold(acts in acts()) {
        let mut sites = played(&acts);
        for (to, from) in [(0, 1), (0, 2)] {
            fetch(&mut sites, to, from);
        }
        let Some(current) = sites[0].authority.current().cloned() else { return Ok(()) };
        prop_assert!(!current.is_void);
        let mut before = Authority::default();
        for (envelope, position, payload) in sites[0].log.iter().filter(|record| current.holds.contains(&record.1)) {
            before.include(envelope, position, payload.clone()).unwrap();
        }
        let all = &sites[0].authority;
        for set in before.read_only.values() {
            let decision = Decision { under: set.under, position: &set.position };
            prop_assert_eq!(before.is_void(decision), all.is_void(decision));
        }
        for promotion in before.promotions.values() {
            let now = all.promotions.values().find(|other| other.id == promotion.id).unwrap();
            prop_assert_eq!(promotion.is_void, now.is_void);
        }
        for set in all.read_only.values().filter(|set| set.under != Some(current.id)) {
            if !current.holds.contains(&set.position) {
                let decision = Decision { under: set.under, position: &set.position };
                prop_assert!(all.is_void(decision));
            }
        }
    }
}

/// East is cut off, goes on deciding, and comes back after west was promoted.
#[test]
fn what_a_cut_off_primary_decided_is_void_when_it_returns() {
    let mut sites = [Site::new("east"), Site::new("west")];
    let promoted = sites[0].promoted();
    sites[0].append(1, 10, &promoted);
    let set = sites[0].read_only_set("west", true);
    sites[0].append(2, 20, &set);
    fetch(&mut sites, 1, 0);
    let (east, west): (SiteId, SiteId) = ("east".parse().unwrap(), "west".parse().unwrap());
    assert!(sites[1].authority.is_read_only(&west), "decided while both were in step");

    let cleared = sites[0].read_only_set("west", false);
    sites[0].append(3, 30, &cleared);
    assert!(!sites[0].authority.is_read_only(&west));
    let promoted = sites[1].promoted();
    sites[1].append(4, 25, &promoted);
    // About itself a site may say what it likes, whoever has authority.
    let own = sites[0].read_only_set("east", true);
    sites[0].append(5, 60, &own);

    fetch(&mut sites, 0, 1);
    fetch(&mut sites, 1, 0);
    for site in &sites {
        let authority = &site.authority;
        assert_eq!((authority.epoch(), authority.primary()), (2, Some(&west)));
        assert!(authority.is_read_only(&west), "east was not primary any more when it said otherwise");
        assert!(authority.is_read_only(&east));
    }
    let given_up = sites[1].demoted();
    sites[1].append(6, 70, &given_up);
    assert_eq!((sites[1].authority.epoch(), sites[1].authority.primary()), (2, None));
}

/// A site is thought lost, by one that is not primary any more, and by the one that is.
#[test]
fn a_site_is_dead_when_who_has_authority_says_so_until_it_says_otherwise() {
    let mut sites = [Site::new("east"), Site::new("west")];
    let promoted = sites[0].promoted();
    sites[0].append(1, 10, &promoted);
    fetch(&mut sites, 1, 0);
    let promoted = sites[1].promoted();
    sites[1].append(2, 20, &promoted);
    let (stale, right) = (sites[0].declared_dead("north", true), sites[1].declared_dead("south", true));
    sites[0].append(3, 30, &stale);
    sites[1].append(4, 30, &right);
    assert_eq!(sites[0].dead(), ["north"]);
    fetch(&mut sites, 0, 1);
    fetch(&mut sites, 1, 0);
    assert!(sites.iter().all(|site| site.dead() == ["south"]), "east was not primary any more");
    let back = sites[1].declared_dead("south", false);
    sites[1].append(5, 40, &back);
    assert!(sites[1].dead().is_empty());
}

/// Both sites are promoted while the link is cut.
#[test]
fn of_two_promotions_with_one_number_the_later_counts_at_both() {
    let mut sites = [Site::new("east"), Site::new("west")];
    let (east, west) = (sites[0].promoted(), sites[1].promoted());
    sites[0].append(1, 10, &east);
    sites[1].append(2, 20, &west);
    let set = sites[0].read_only_set("west", true);
    sites[0].append(3, 30, &set);
    fetch(&mut sites, 0, 1);
    fetch(&mut sites, 1, 0);
    for site in &sites {
        assert_eq!(site.authority.primary().map(SiteId::as_str), Some("west"));
        assert!(!site.authority.is_read_only(&"west".parse().unwrap()));
        assert_eq!(site.authority.promotions().map(|promotion| promotion.is_void).collect::<Vec<_>>(), [false, true]);
    }
}

#[test]
fn a_site_can_say_of_itself_alone_that_it_was_promoted() {
    let mut site = Site::new("east");
    let Event::SitePromoted(mut promoted) = site.promoted() else { unreachable!() };
    promoted.site = "west".into();
    site.append(1, 10, &Event::SitePromoted(promoted));
    assert_eq!(site.authority.epoch(), 0);
}
