//! What would become of studies for which an expression holds.

use super::service::PolicyService;
use crate::retention::Known;
use cairn_archive::{
    EventId,
    erasure::Stage,
    holds::Lookup,
    policies::{Action, Policy, REQUESTED_BY},
};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind,
    policies::{Fate, Forecast, ForecastStudy, Sums},
    survey::{FoundStudy, Survey, Surveyed},
};
use cairn_store_api::Tier;
use futures_util::TryStreamExt;
use std::collections::{HashMap, HashSet};

/// What decides about studies, as it was when it was looked at.
pub(super) enum Fates {
    Erasing(Erasing),
    Moving(Moving),
}

/// What decides whether studies are moved. What is held may be: nothing of it goes.
pub(super) struct Moving {
    /// Study Instance UIDs of those that wait already.
    waiting: HashSet<String>,
    at_ms: u64,
    rest_ms: u64,
}

impl Moving {
    fn of(&self, study: &FoundStudy) -> Fate {
        if self.waiting.contains(study.study_instance_uid.as_str()) {
            return Fate::Waiting;
        }
        let is_rested = self.at_ms.saturating_sub(study.recalled_at_ms) >= self.rest_ms;
        if study.recalled_at_ms == 0 || is_rested { Fate::Due } else { Fate::Recalled }
    }
}

/// What decides whether studies are asked to be erased.
pub(super) struct Erasing {
    held: Lookup,
    /// By Study Instance UID.
    asked: HashMap<String, Fate>,
    /// Likewise, what the policy asked for that has not taken effect: a study of many instances is asked for by several requests.
    own: HashMap<String, Vec<EventId>>,
}

impl Erasing {
    /// Of a tenant's studies, under a policy if it is one.
    pub(super) fn new(known: &Known, tenant: &str, policy: Option<&Policy>) -> Self {
        let held = known.holds.lookup(&known.authority, tenant);
        let (mut asked, mut own) = (HashMap::new(), HashMap::<String, Vec<EventId>>::new());
        for (id, erasure) in known.erasures.iter() {
            let Some(requested) = erasure.requested().filter(|requested| requested.tenant == tenant) else { continue };
            let study = &requested.study_instance_uid;
            let is_own = policy.is_some_and(|policy| requested.by.strip_prefix(REQUESTED_BY) == Some(&policy.name));
            let is_of_version = policy.is_some_and(|policy| requested.at_ms >= policy.at_ms);
            let by_itself = erasure.withdrawn_by(&known.authority).is_some_and(|by| by.starts_with(REQUESTED_BY));
            let fate = match erasure.stage(&known.authority) {
                Stage::Requested => Fate::UnderWay(id),
                Stage::Withdrawn if is_own && is_of_version && !by_itself => Fate::LeftAlone(id),
                _ => continue,
            };
            if is_own && matches!(fate, Fate::UnderWay(_)) {
                own.entry(study.clone()).or_default().push(id);
            }
            let told = asked.entry(study.clone()).or_insert(fate);
            if matches!(fate, Fate::UnderWay(_)) {
                *told = fate;
            }
        }
        Self { held, asked, own }
    }

    fn of(&self, study: &FoundStudy) -> Fate {
        let uid = study.study_instance_uid.as_str();
        let held = || self.held.held(uid, &study.patients).map(Fate::Held);
        self.asked.get(uid).copied().or_else(held).unwrap_or(Fate::Due)
    }
}

impl Fates {
    /// What the policy asked for, of studies that were not found meanwhile.
    pub(super) fn not_found(self, found: &HashSet<String>) -> Vec<EventId> {
        let Self::Erasing(erasing) = self else { return Vec::new() };
        erasing.own.into_iter().filter(|(study, _)| !found.contains(study)).flat_map(|(_, ids)| ids).collect()
    }

    /// Whether the policy asked for a study's erasure.
    pub(super) fn is_own(&self, study: &FoundStudy) -> bool {
        matches!(self, Self::Erasing(erasing) if erasing.own.contains_key(study.study_instance_uid.as_str()))
    }

    /// What would become of a study; `None`: it is as the policy would have it.
    fn of(&self, study: &FoundStudy) -> Option<Fate> {
        match self {
            Self::Erasing(erasing) => Some(erasing.of(study)),
            Self::Moving(moving) => (!study.is_cold).then(|| moving.of(study)),
        }
    }

    /// Takes in a part of a survey; gives its studies with what would become of each.
    pub(super) fn add(&self, sums: &mut Sums, part: Surveyed) -> Vec<ForecastStudy> {
        sums.studies += part.studies;
        sums.undecided += part.undecided;
        let fate = |study: FoundStudy| {
            let fate = self.of(&study)?;
            sums.matching += 1;
            match fate {
                Fate::Due => {
                    sums.due += 1;
                    sums.due_bytes += study.bytes;
                }
                Fate::Held(_) => sums.held += 1,
                Fate::UnderWay(_) | Fate::Waiting => sums.under_way += 1,
                Fate::LeftAlone(_) | Fate::Recalled => sums.left_alone += 1,
            }
            Some(ForecastStudy { study, fate })
        };
        part.found.into_iter().filter_map(fate).collect()
    }
}

impl PolicyService {
    /// What decides about a tenant's studies now.
    pub(super) async fn fates(&self, tenant: &str, action: Action, policy: Option<&Policy>) -> Result<Fates, Error> {
        match action {
            Action::Erase => {
                let turn = self.retention.follower.turn().await?;
                Ok(Fates::Erasing(Erasing::new(turn.known(), tenant, policy)))
            }
            Action::Move => {
                let mut moves = self.tiering.moves().await?;
                let mut waiting = HashSet::new();
                while let Some(queued) = moves.try_next().await? {
                    if queued.to == Tier::Cold && queued.tenant == tenant {
                        waiting.insert(queued.study_instance_uid.to_string());
                    }
                }
                let rest_ms = policy.map_or(0, |policy| policy.delay_ms);
                Ok(Fates::Moving(Moving { waiting, at_ms: self.clock.unix_ms(), rest_ms }))
            }
        }
    }

    /// Goes through all studies of a tenant now.
    pub(super) async fn survey(&self, tenant: &str, expression: &str) -> Result<AnswerStream<Surveyed>, Error> {
        let index = self.index.as_ref();
        let index = index.ok_or_else(|| Error::new(ErrorKind::Unavailable, "there is no index here to ask"))?;
        let (tenant, expression) = (tenant.to_owned(), expression.to_owned());
        index.survey(Survey { tenant, expression, at_ms: self.clock.unix_ms() }).await
    }

    /// What would become of them, part by part, with studies up to a number.
    pub(super) async fn forecast(
        &self,
        tenant: &str,
        expression: &str,
        fates: Fates,
        studies_max: u64,
    ) -> Result<AnswerStream<Forecast>, Error> {
        let (mut sums, mut left) = (Sums::default(), usize::try_from(studies_max).unwrap_or(usize::MAX));
        let parts = self.survey(tenant, expression).await?.map_ok(move |part| {
            let mut studies = fates.add(&mut sums, part);
            studies.truncate(left);
            left -= studies.len();
            Forecast { sums, studies }
        });
        Ok(Box::pin(parts))
    }
}
