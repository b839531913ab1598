//! In which of its object stores each site has a study.

use super::{EventOrder, Poison, Stamp};
use crate::{
    events::{ObjectTier, StudyMoved},
    ids::SiteId,
};
use std::collections::BTreeMap;

/// Where a site has what it has of a study.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The event that says so.
    pub order: EventOrder,
    /// Where the log stood: what came before it was moved, and what came after it was not. Local.
    pub stamp: Stamp,
    /// Whether it is in the cold store; else it came back from there.
    pub is_cold: bool,
}

/// By site, what was said last: a maximum in the order of events, so that any order of arrival gives the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(pub BTreeMap<SiteId, Place>);

impl Places {
    /// Takes in what a site says of itself.
    pub(super) fn insert(&mut self, site: SiteId, place: Place) {
        let known = self.0.entry(site).or_insert_with(|| place.clone());
        if known.order < place.order {
            *known = place;
        }
    }

    /// Where the log stood when this site last said that what it had is in its cold store, if that is what it said last.
    pub fn cold_until(&self, site: &SiteId) -> Option<Stamp> {
        self.0.get(site).filter(|place| place.is_cold).map(|place| place.stamp)
    }
}

/// Which site has it where.
pub(super) fn read_moved(order: EventOrder, stamp: Stamp, event: &StudyMoved) -> Result<(SiteId, Place), Poison> {
    let site = event.site.parse().map_err(|_| Poison::Malformed)?;
    match event.tier() {
        ObjectTier::Hot => Ok((site, Place { order, stamp, is_cold: false })),
        ObjectTier::Cold => Ok((site, Place { order, stamp, is_cold: true })),
        ObjectTier::Unspecified => Err(Poison::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        events::Event,
        fold::{EventOrder, Loaded, Stamp, StudyFold, StudyKey, StudyState},
        hlc::Hlc,
        index_rows::{decode_study, encode_study},
    };

    fn moved(n: u64, site: &str, tier: ObjectTier) -> (EventOrder, Event) {
        let id = format!("018f4d2e-9c3a-7000-8000-{n:012x}").parse().expect("valid");
        let order = EventOrder { hlc: Hlc { wall_ms: n, counter: 0 }, site: site.parse().expect("valid"), id };
        let event = StudyMoved {
            tenant: "default".into(),
            study_instance_uid: "1.2.3".into(),
            site: site.into(),
            tier: tier.into(),
            asked_by: "operator".into(),
        };
        (order, Event::StudyMoved(event))
    }

    fn folded<'a>(events: impl IntoIterator<Item = &'a (EventOrder, Event)>) -> StudyState {
        let key = StudyKey { tenant: "default".into(), study_instance_uid: "1.2.3".into() };
        let mut fold = StudyFold::new(key, Loaded::default());
        for (stamp, (order, event)) in (1..).zip(events) {
            fold.apply(order.clone(), Stamp(stamp), event.clone()).expect("folds");
        }
        fold.finish().expect("something changed").after
    }

    #[test]
    fn the_last_word_of_each_site_counts_in_any_order_of_arrival() {
        let events = [
            moved(1, "east", ObjectTier::Cold),
            moved(2, "east", ObjectTier::Hot),
            moved(3, "west", ObjectTier::Hot),
            moved(4, "west", ObjectTier::Cold),
        ];
        let (there, back) = (folded(&events), folded(events.iter().rev()));
        let cold = |state: &StudyState, site: &str| state.places.cold_until(&site.parse().expect("valid"));
        let sites = ["east", "west", "north"];
        assert_eq!(sites.map(|site| cold(&there, site)), [None, Some(Stamp(4)), None]);
        // Where this log has it.
        assert_eq!(sites.map(|site| cold(&back, site)), [None, Some(Stamp(1)), None]);
        // A repeat changes nothing, and what is in a row comes back.
        assert_eq!(folded(events.iter().chain(&events)), there);
        let row = encode_study(Stamp(4), &there, None);
        assert_eq!(decode_study(&row).expect("reads").now.places, there.places);
    }

    #[test]
    fn where_a_site_has_a_study_is_no_part_of_its_state() {
        let key = StudyKey { tenant: "default".into(), study_instance_uid: "1.2.3".into() };
        let cold = folded(&[moved(1, "east", ObjectTier::Cold)]);
        assert_eq!(cold.hash(&key), StudyState::default().hash(&key));
        assert_ne!(cold.events, StudyState::default().events);
    }

    #[test]
    fn an_unknown_store_is_poison() {
        let (order, event) = moved(1, "east", ObjectTier::Unspecified);
        let key = StudyKey { tenant: "default".into(), study_instance_uid: "1.2.3".into() };
        assert_eq!(StudyFold::new(key, Loaded::default()).apply(order, Stamp(1), event), Err(Poison::Malformed));
    }
}
