//! A study as whoever asks sees it.

use super::run::Walk;
use crate::{
    people::{People, PeopleOfStudy},
    rows::Identities,
};
use cairn_archive::{
    fold::{InstanceState, Rescan, SeriesState, StudyKey, StudyState},
    plan::{View, study_view},
};
use cairn_dicom::Uid;
use cairn_service_api::Error;
use std::collections::BTreeMap;

/// A study, with something to see.
pub(crate) struct Seen {
    pub(crate) key: StudyKey,
    pub(crate) state: StudyState,
    /// As keys see it.
    pub(crate) view: View,
    /// Its series, where they are not as they stand in their rows.
    pub(crate) series: Option<BTreeMap<Uid, SeriesState>>,
    /// What is said of its patients.
    pub(crate) people: PeopleOfStudy,
}

impl Seen {
    /// As everybody sees it.
    pub(crate) fn as_rows_say(key: StudyKey, state: StudyState) -> Self {
        Self { view: study_view(&key, &state), key, state, series: None, people: PeopleOfStudy::default() }
    }

    /// Applies what is said of its patients: what of the study's own counts, and whoever is the same patient matches.
    pub(crate) async fn tell(&mut self, people: &People) -> Result<(), Error> {
        self.people = people.of_study(&self.state).await?;
        let own = self.state.patient();
        for (patient, resolution) in self.people.iter() {
            let trimmed = patient.trimmed();
            if *patient == own {
                self.view.tell(&resolution.applied(&trimmed));
                self.view.put_linked(&resolution.linked(&trimmed));
            }
            for same in std::iter::once(trimmed.clone()).chain(resolution.linked(&trimmed)) {
                resolution.members(&same).iter().for_each(|member| self.view.also(member));
            }
        }
        Ok(())
    }
}

impl Walk {
    /// The study as whoever asks sees it; `None`: there is nothing to see.
    ///
    /// Rows say what everybody is shown. For who sees more, a study of which something is hidden is gone through: attributes
    /// and counts then come of the instances that are seen, as they would in rows of their own.
    pub(crate) async fn see(&self, key: StudyKey, state: StudyState) -> Result<Option<Seen>, Error> {
        let mut seen = match self.sees_rejected.is_empty() || state.hidden == 0 {
            true => Seen::as_rows_say(key, state),
            false => {
                let (state, series) = self.go_through(&key, state).await?;
                Seen { series: Some(series), ..Seen::as_rows_say(key, state) }
            }
        };
        if seen.state.shown == 0 {
            return Ok(None);
        }
        seen.tell(&self.people).await?;
        self.place_study(&mut seen);
        if self.plan.counts_patient {
            super::patients::count(self, &seen.key, &seen.state, &mut seen.view).await?;
        }
        Ok(Some(seen))
    }

    async fn go_through(
        &self,
        key: &StudyKey,
        state: StudyState,
    ) -> Result<(StudyState, BTreeMap<Uid, SeriesState>), Error> {
        let mut told = Rescan::otherwise_seen(key.clone(), state);
        let mut headers = self.headers(key);
        let mut identities = Identities::new(&self.rows, key, None);
        while let Some((identity, facts)) = identities.next().await? {
            let state = InstanceState::from_facts(facts);
            if let Some(version) = state.shown_to(self.sees_rejected) {
                let header = headers.header(&identity.series, version).await?;
                told.tell(&identity, version, &header);
            }
        }
        Ok(told.into_seen())
    }
}
