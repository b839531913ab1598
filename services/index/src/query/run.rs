//! From studies down to series and instances.

use super::{
    seen::Seen,
    studies::{Studies, places_of_instances},
};
use crate::{
    answering::{Answers, Ended},
    people::People,
    project::HeaderReader,
    rows::{Identities, Rows, series_of},
    service::Shared,
};
use cairn_archive::{
    SiteId,
    fold::{Identity, InstanceState, SeriesState, StudyKey, Version, applied},
    plan::{Plan, View, Wanted, answer, instance_view, is_universal, series_view},
    rejection::Titles,
};
use cairn_dicom::{Tag, Uid, dataset::DataSet, matching::Test, tags};
use cairn_service_api::Error;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

/// What a query works with.
pub(crate) struct Walk {
    pub(crate) rows: Rows,
    pub(crate) tenant: String,
    pub(crate) plan: Plan,
    /// What is rejected under these titles alone is seen too.
    pub(crate) sees_rejected: Titles,
    pub(crate) sort_max: usize,
    pub(crate) header_cache_bytes: u64,
    /// What is said of patients.
    pub(crate) people: Arc<People>,
    /// The site, which has some studies in its cold object store.
    pub(crate) site: SiteId,
    /// What is said of those.
    pub(crate) availability_of_cold: &'static str,
    /// Where the SOP Instances that a key names are, if one does.
    places: Option<BTreeMap<Uid, Vec<Identity>>>,
}

/// Answers, less those passed over, up to the limit.
pub(crate) struct Out {
    answers: Answers<DataSet>,
    skip: u64,
    left: Option<u64>,
}

impl Out {
    pub(crate) fn new(answers: Answers<DataSet>, skip: u64, limit: Option<u64>) -> Self {
        Self { answers, skip, left: limit }
    }

    /// Whether the limit is reached.
    pub(crate) fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// Whether the next answer is passed over; then it counts as given.
    pub(crate) fn passes_over(&mut self) -> bool {
        let passes = self.skip > 0;
        self.skip = self.skip.saturating_sub(1);
        passes
    }

    /// Gives an answer, made only if it is not passed over.
    pub(crate) async fn give(&mut self, make: impl FnOnce() -> Result<DataSet, Error>) -> Result<(), Ended> {
        if self.passes_over() {
            return Ok(());
        }
        self.put(make()?).await
    }

    /// Gives an answer that is not passed over.
    pub(crate) async fn put(&mut self, answer: DataSet) -> Result<(), Ended> {
        self.answers.give(answer).await?;
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(())
    }

    /// Answers to be found yet, those passed over included; `None`: all.
    fn left_to_find(&self) -> Option<u64> {
        self.left.map(|left| left.saturating_add(self.skip))
    }

    /// How many studies will be read at least, as far as is known.
    pub(crate) fn hint(&self) -> usize {
        let wanted = self.left.unwrap_or(16).saturating_add(self.skip);
        usize::try_from(wanted).unwrap_or(usize::MAX)
    }
}

/// A series among those of its study.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SeriesEntry {
    number: i64,
    pub(crate) uid: Uid,
}

/// An instance among those of its series.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InstanceEntry {
    number: i64,
    pub(crate) uid: Uid,
}

/// Keeps the smallest of what is offered.
struct Smallest<K, V> {
    kept: BTreeMap<K, V>,
    max: usize,
    more: bool,
}

impl<K: Ord, V> Smallest<K, V> {
    fn new(max: usize) -> Self {
        Self { kept: BTreeMap::new(), max: max.max(1), more: false }
    }

    fn offer(&mut self, key: K, value: V) {
        self.kept.insert(key, value);
        if self.kept.len() > self.max {
            self.kept.pop_last();
            self.more = true;
        }
    }
}

impl Walk {
    pub(crate) fn new(
        people: Arc<People>,
        (rows, tenant): (Rows, String),
        mut plan: Plan,
        sees_rejected: Titles,
        shared: &Shared,
    ) -> Self {
        let (config, is_away) = (&shared.config, shared.cold_is_away.load(Ordering::Relaxed));
        if !sees_rejected.is_empty() {
            plan.way = plan.way.with_rejected();
        }
        Self {
            rows,
            tenant,
            people,
            plan,
            sees_rejected,
            sort_max: config.sort_rows_max,
            header_cache_bytes: config.header_cache_bytes,
            site: shared.log.site().clone(),
            availability_of_cold: if is_away { "OFFLINE" } else { "NEARLINE" },
            places: None,
        }
    }

    /// Begins with the studies.
    pub(crate) async fn begin(&mut self, hint: usize) -> Result<Studies, Error> {
        if let Some(uids) = uids(&self.plan.instance, tags::SOP_INSTANCE_UID) {
            self.places = Some(places_of_instances(&self.rows, &self.tenant, &uids).await?);
        }
        let hidden_too = !self.sees_rejected.is_empty();
        Studies::new(self.rows.clone(), &self.tenant, &self.plan.way, hint, hidden_too).await
    }

    /// Whether every study that the way leads to matches.
    pub(crate) fn checks_nothing(&self) -> bool {
        self.sees_rejected.is_empty()
            && [&self.plan.study, &self.plan.series, &self.plan.instance, &self.plan.availability]
                .into_iter()
                .all(is_universal)
    }

    /// Whether some series, and some instance in it, matches.
    pub(crate) async fn matches_below(&self, study: &Seen) -> Result<bool, Error> {
        if is_universal(&self.plan.series) && is_universal(&self.plan.instance) {
            return Ok(true);
        }
        let mut after = None;
        loop {
            let (series, more) = self.series(study, after.as_ref(), self.sort_max).await?;
            for (entry, (_, _)) in &series {
                if self.matches_in_series(study, &entry.uid).await? {
                    return Ok(true);
                }
            }
            match series.last() {
                Some((last, _)) if more => after = Some(last.clone()),
                _ => return Ok(false),
            }
        }
    }

    /// Whether some instance of the series matches.
    async fn matches_in_series(&self, study: &Seen, series: &Uid) -> Result<bool, Error> {
        let key = &study.key;
        if is_universal(&self.plan.instance) {
            return Ok(true);
        }
        let mut headers = self.headers(key);
        let keys = self.instance_tags();
        let check = |tag| keys.contains(&tag);
        if let Some(identities) = self.places_in(key, series) {
            for identity in identities {
                let state = self.rows.instance(key, &identity, None).await?;
                if self.instance(&mut headers, study, (&identity, &state), &check).await?.is_some() {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        let mut identities = Identities::new(&self.rows, key, Some(series));
        while let Some((identity, facts)) = identities.next().await? {
            let state = InstanceState::from_facts(facts);
            if self.instance(&mut headers, study, (&identity, &state), &check).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The identities in a series that a SOP Instance UID key names, if there is such a key.
    fn places_in(&self, key: &StudyKey, series: &Uid) -> Option<Vec<Identity>> {
        let places = self.places.as_ref()?.get(key.study_instance_uid.as_str()).cloned().unwrap_or_default();
        Some(places.into_iter().filter(|identity| identity.series == *series).collect())
    }

    fn instance_tags(&self) -> Vec<Tag> {
        let keys = &self.plan.instance;
        keys.keys
            .iter()
            .map(|key| key.tag)
            .chain(keys.combined.iter().flat_map(|pair| [pair.date, pair.time]))
            .collect()
    }

    /// The version of an identity that is seen with its attributes, if it matches.
    async fn instance(
        &self,
        headers: &mut HeaderReader,
        study: &Seen,
        (identity, state): (&Identity, &InstanceState),
        wanted: &(impl Fn(Tag) -> bool + Sync),
    ) -> Result<Option<(Version, View)>, Error> {
        let Some(version) = state.shown_to(self.sees_rejected) else { return Ok(None) };
        let header = headers.header(&identity.series, version).await?;
        let in_force = study.people.in_force(&study.state.corrections, identity, version, &header);
        let header = applied(version, header, &in_force);
        let mut view = instance_view(identity.instance.as_str(), version, &header, wanted);
        self.place_instance(study, version, &mut view);
        Ok(view.matches(&self.plan.instance).then(|| (version.clone(), view)))
    }

    /// Series of a study with instances to see that match by themselves, by number, then UID, after one; and whether
    /// there are more.
    pub(crate) async fn series(
        &self,
        study: &Seen,
        after: Option<&SeriesEntry>,
        max: usize,
    ) -> Result<(Vec<(SeriesEntry, (SeriesState, View))>, bool), Error> {
        let mut smallest = Smallest::new(max);
        let mut offer = |uid: Uid, state: SeriesState| {
            // Of a study that was not gone through, what of it is seen its instances say.
            if state.shown == 0 && (self.sees_rejected.is_empty() || state.versions == 0) {
                return;
            }
            let view = series_view(uid.as_str(), &state, &study.view.set);
            let entry = SeriesEntry { number: number(&view.set, tags::SERIES_NUMBER), uid };
            if after.is_none_or(|after| entry > *after) && view.matches(&self.plan.series) {
                smallest.offer(entry, (state, view));
            }
        };
        match (&study.series, uids(&self.plan.series, tags::SERIES_INSTANCE_UID)) {
            (Some(series), _) => series.iter().for_each(|(uid, state)| offer(uid.clone(), state.clone())),
            (None, Some(uids)) => {
                for (uid, row) in self.rows.some_series(&study.key, &uids).await? {
                    offer(uid, row.now);
                }
            }
            (None, None) => {
                let mut pages = self.rows.series(&study.key);
                while let Some(page) = pages.next().await? {
                    for row in page {
                        let (uid, state) = series_of(&row)?;
                        offer(uid, state);
                    }
                }
            }
        }
        Ok((smallest.kept.into_iter().collect(), smallest.more))
    }

    /// Instances of a series that are seen, by number, then UID, after one; and whether there are more. Keys are not checked.
    pub(crate) async fn instances(
        &self,
        key: &StudyKey,
        series: &Uid,
        after: Option<&InstanceEntry>,
    ) -> Result<(Vec<(InstanceEntry, InstanceState)>, bool), Error> {
        let mut smallest = Smallest::new(self.sort_max);
        let mut offer = |identity: Identity, state: InstanceState| {
            let Some(version) = state.shown_to(self.sees_rejected) else { return };
            let entry = InstanceEntry { number: version.instance_number.unwrap_or(i64::MAX), uid: identity.instance };
            if after.is_none_or(|after| entry > *after) {
                smallest.offer(entry, state);
            }
        };
        if let Some(places) = self.places_in(key, series) {
            for identity in places {
                let state = self.rows.instance(key, &identity, None).await?;
                offer(identity, state);
            }
        } else {
            let mut identities = Identities::new(&self.rows, key, Some(series));
            while let Some((identity, facts)) = identities.next().await? {
                offer(identity, InstanceState::from_facts(facts));
            }
        }
        Ok((smallest.kept.into_iter().collect(), smallest.more))
    }
}

fn number(set: &DataSet, tag: Tag) -> i64 {
    set.text(tag).and_then(|text| text.trim_start_matches('+').parse().ok()).unwrap_or(i64::MAX)
}

/// UIDs that a key names.
pub(crate) fn uids(keys: &cairn_dicom::matching::Keys, tag: Tag) -> Option<Vec<Uid>> {
    keys.keys.iter().find(|key| key.tag == tag).and_then(|key| match &key.test {
        Test::Uids(uids) => Some(uids.clone()),
        _ => None,
    })
}

/// Answers at study level.
pub(crate) async fn studies(mut walk: Walk, wanted: &Wanted, out: &mut Out) -> Result<(), Ended> {
    let mut studies = walk.begin(out.hint()).await?;
    let checks_nothing = walk.checks_nothing();
    if checks_nothing {
        out.skip = studies.pass_over(out.skip).await?;
    }
    studies.expect(out.left_to_find());
    while let Some((key, state)) = studies.next().await? {
        if checks_nothing && out.passes_over() {
            continue;
        }
        if let Some(study) = walk.see(key, state).await?
            && study.view.matches(&walk.plan.study)
            && walk.is_where_asked(&study, &study.view)
            && walk.matches_below(&study).await?
        {
            out.give(|| Ok(answer(wanted, &walk.plan.study, &[&study.view.set]))).await?;
            if out.is_full() {
                return Ok(());
            }
        }
        studies.expect(out.left_to_find());
    }
    Ok(())
}

/// Answers at series level: by study, number, then UID.
pub(crate) async fn series(mut walk: Walk, wanted: &Wanted, out: &mut Out) -> Result<(), Ended> {
    let mut studies = walk.begin(out.hint()).await?;
    while let Some((key, state)) = studies.next().await? {
        let Some(study) = walk.see(key, state).await? else { continue };
        if !study.view.matches(&walk.plan.study) {
            continue;
        }
        let mut after = None;
        loop {
            let (found, more) = walk.series(&study, after.as_ref(), walk.sort_max).await?;
            for (entry, (_, view)) in &found {
                let mut view = view.clone();
                walk.place_series(&study, &entry.uid, &mut view).await?;
                if walk.is_where_asked(&study, &view) && walk.matches_in_series(&study, &entry.uid).await? {
                    out.give(|| Ok(answer(wanted, &walk.plan.series, &[&study.view.set, &view.set]))).await?;
                    if out.is_full() {
                        return Ok(());
                    }
                }
            }
            match found.last() {
                Some((last, _)) if more => after = Some(last.clone()),
                _ => break,
            }
        }
    }
    Ok(())
}

/// Answers at instance level: by study, series, number, then UID.
pub(crate) async fn instances(mut walk: Walk, wanted: &Wanted, out: &mut Out) -> Result<(), Ended> {
    let mut studies = walk.begin(out.hint()).await?;
    while let Some((key, state)) = studies.next().await? {
        let Some(study) = walk.see(key, state).await? else { continue };
        if !study.view.matches(&walk.plan.study) {
            continue;
        }
        let mut after = None;
        loop {
            let (found, more) = walk.series(&study, after.as_ref(), walk.sort_max).await?;
            for (entry, (_, view)) in &found {
                instances_of(&walk, &study, (&entry.uid, view), wanted, out).await?;
                if out.is_full() {
                    return Ok(());
                }
            }
            match found.last() {
                Some((last, _)) if more => after = Some(last.clone()),
                _ => break,
            }
        }
    }
    Ok(())
}

async fn instances_of(
    walk: &Walk,
    study: &Seen,
    series: (&Uid, &View),
    wanted: &Wanted,
    out: &mut Out,
) -> Result<(), Ended> {
    let tags = walk.instance_tags();
    let select = |tag| wanted.wants(tag) || tags.contains(&tag);
    let mut headers = walk.headers(&study.key);
    let mut after = None;
    loop {
        let (found, more) = walk.instances(&study.key, series.0, after.as_ref()).await?;
        for (entry, state) in &found {
            let identity = Identity { series: series.0.clone(), instance: entry.uid.clone() };
            let Some((_, view)) = walk.instance(&mut headers, study, (&identity, state), &select).await? else {
                continue;
            };
            if !walk.is_where_asked(study, &view) {
                continue;
            }
            out.give(|| Ok(answer(wanted, &walk.plan.instance, &[&study.view.set, &series.1.set, &view.set]))).await?;
            if out.is_full() {
                return Ok(());
            }
        }
        match found.last() {
            Some((last, _)) if more => after = Some(last.clone()),
            _ => return Ok(()),
        }
    }
}
