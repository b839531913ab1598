//! InstanceAvailability: of the site that answers, by what events say was moved to its cold object store.
//!
//! What a query asks of it is checked for what each answer stands for: an instance, a series, a study, and for a patient each
//! study. Of several instances the slowest counts.

use super::{run::Walk, seen::Seen};
use crate::rows::Identities;
use cairn_archive::{
    fold::{InstanceState, Stamp, StudyState, Version},
    plan::{View, is_universal},
};
use cairn_dicom::{Uid, tags};
use cairn_service_api::Error;

impl Walk {
    /// Where the log stood when this site moved the study to its cold object store; `None`: it is not there. What came since is
    /// where objects come in.
    pub(crate) fn cold_until(&self, state: &StudyState) -> Option<Stamp> {
        state.places.cold_until(&self.site)
    }

    /// Says of a study where it is.
    pub(crate) fn place_study(&self, study: &mut Seen) {
        if self.cold_until(&study.state).is_some() {
            study.view.put_availability(self.availability_of_cold);
        }
    }

    /// Says of a series where it is, unless nothing of its study was moved: then it is where that is.
    pub(crate) async fn place_series(&self, study: &Seen, series: &Uid, view: &mut View) -> Result<(), Error> {
        let Some(until) = self.cold_until(&study.state) else { return Ok(()) };
        let mut identities = Identities::new(&self.rows, &study.key, Some(series));
        while let Some((_, facts)) = identities.next().await? {
            let state = InstanceState::from_facts(facts);
            if state.shown_to(self.sees_rejected).is_some_and(|version| version.stamp < until) {
                view.put_availability(self.availability_of_cold);
                return Ok(());
            }
        }
        view.put_availability("ONLINE");
        Ok(())
    }

    /// Says the same of an instance.
    pub(crate) fn place_instance(&self, study: &Seen, version: &Version, view: &mut View) {
        if let Some(until) = self.cold_until(&study.state) {
            view.put_availability(if version.stamp < until { self.availability_of_cold } else { "ONLINE" });
        }
    }

    /// Whether what an answer stands for is where the query wants it.
    pub(crate) fn is_where_asked(&self, study: &Seen, view: &View) -> bool {
        let is_said = view.set.get(tags::INSTANCE_AVAILABILITY).is_some();
        let said = if is_said { view } else { &study.view };
        is_universal(&self.plan.availability) || said.matches(&self.plan.availability)
    }
}
