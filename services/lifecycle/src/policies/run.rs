//! Runs: in its time each policy asks for what it would do.

use super::service::{PolicyService, RunNote};
use crate::{metrics, notes::Change, notes::Kind, retention::Turn};
use cairn_archive::{
    EventId, Partition,
    policies::{Action, Policy, REQUESTED_BY},
};
use cairn_service_api::{
    Error, ErrorKind, Retention,
    policies::{Fate, Halted, PolicyRun, Sums},
    retention::{ErasureGrounds, ErasureScope},
    survey::FoundStudy,
    tiering::NewMoves,
};
use cairn_store_api::Tier;
use futures_util::TryStreamExt;
use std::collections::{BTreeMap, HashSet};

/// Studies of one partition that are looked up in the log at once.
const STUDIES_AT_ONCE: usize = 64;

/// What there is for a policy.
struct Due {
    sums: Sums,
    /// Studies that it would act on; none beyond its bound.
    studies: Vec<FoundStudy>,
    /// Erasures that it asked for of studies that it does not mean any more.
    not_meant: Vec<EventId>,
}

/// What stands in the way of policies, or does not.
struct Standing {
    may_decide: bool,
    is_unreadable: bool,
    clock_is_right: bool,
}

impl PolicyService {
    /// Does what is to be done, again and again. Stores and services that are away are waited for.
    ///
    /// # Cancel safety
    /// The next start goes on from what the log says, and from the notes.
    pub(crate) async fn run(&self) {
        loop {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "policies are held up");
            }
            tokio::time::sleep(self.config.look_interval).await;
        }
    }

    /// Does what is to be done now.
    pub(super) async fn look(&self) -> Result<(), Error> {
        // Looked at also where there is nothing to do: what is right today tells what is wrong tomorrow.
        let (standing, policies) = {
            let turn = self.retention.follower.turn().await?;
            let is_right = self.watch.is_right(self.retention.follower.appender.newest()).await?;
            let known = turn.known();
            let policies: Vec<Policy> = known.policies.in_force(&known.authority).cloned().collect();
            (self.standing(&turn, is_right).await?, policies)
        };
        metrics::policies_in_force(policies.len());
        for policy in policies {
            // One that fails keeps no other from its run.
            if let Err(error) = self.turn_of(&policy, &standing).await {
                tracing::warn!(policy = %policy.name, %error, "a policy is held up");
            }
        }
        Ok(())
    }

    async fn turn_of(&self, policy: &Policy, standing: &Standing) -> Result<(), Error> {
        match self.halted(policy, standing).await? {
            Some(halted) => self.note_halted(policy, halted).await,
            None if self.is_due(policy).await? => self.run_policy(policy).await,
            None => Ok(()),
        }
    }

    async fn standing(&self, turn: &Turn<'_>, clock_is_right: bool) -> Result<Standing, Error> {
        let others = self.retention.others(turn).await?;
        let known = turn.known();
        Ok(Standing {
            may_decide: known.may_decide(self.retention.own(), &others).is_ok(),
            is_unreadable: known.is_unreadable() || known.policies.unreadable().next().is_some(),
            clock_is_right,
        })
    }

    /// Why a policy does nothing now. What is moved is a site's own: that needs no authority.
    async fn halted(&self, policy: &Policy, standing: &Standing) -> Result<Option<Halted>, Error> {
        Ok(match policy.action {
            Action::Erase if !standing.may_decide => Some(Halted::NoAuthority),
            Action::Move if self.tiering.tiering().await?.tiers.is_empty() => Some(Halted::NoColdStore),
            _ if standing.is_unreadable => Some(Halted::Unreadable),
            _ if !standing.clock_is_right => Some(Halted::Clock),
            _ => None,
        })
    }

    /// Whether a policy's time has come, by time at work, which no clock that is set changes.
    async fn is_due(&self, policy: &Policy) -> Result<bool, Error> {
        let Some(last) = self.last_run(policy).await?.filter(|last| last.version == policy.version) else {
            return Ok(true);
        };
        // What stood in the way of the last one may be gone.
        let waits = last.run()?.halted.is_none_or(|halted| halted == Halted::TooMany);
        Ok(!waits || self.retention.worked.now().await?.saturating_sub(last.worked()) >= self.config.interval)
    }

    async fn run_policy(&self, policy: &Policy) -> Result<(), Error> {
        let Due { sums, studies, not_meant } = match self.due(policy).await {
            Ok(found) => found,
            Err(error) if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Exhausted) => {
                tracing::warn!(policy = %policy.name, %error, "a policy waits for the index");
                return self.note_halted(policy, Halted::Index).await;
            }
            // A newer build may have adopted what this one can't evaluate.
            Err(error) if error.kind == ErrorKind::Invalid => {
                return self.note_halted(policy, Halted::Unreadable).await;
            }
            Err(error) => return Err(error),
        };
        let mut run = PolicyRun { version: policy.version, at_ms: self.clock.unix_ms(), sums, ..PolicyRun::default() };
        run.taken_back = self.take_back(policy, not_meant).await?;
        if sums.due > policy.studies_max {
            run.halted = Some(Halted::TooMany);
            tracing::error!(
                policy = %policy.name, due = sums.due, bound = policy.studies_max,
                "a policy does nothing: more studies match than one run may act on"
            );
        } else {
            run.asked = match policy.action {
                Action::Erase => self.ask_for(policy, studies).await?,
                Action::Move => self.ask_to_move(policy, studies).await?,
            };
            tracing::info!(policy = %policy.name, matching = sums.matching, asked = run.asked, taken_back = run.taken_back, "a policy ran");
        }
        metrics::policy_ran(policy, run.asked, run.halted.is_some());
        self.note_run(policy, &run).await
    }

    /// What there is for a policy once the index knows all that the log has.
    async fn due(&self, policy: &Policy) -> Result<Due, Error> {
        let fates = self.fates(&policy.tenant, policy.action, Some(policy)).await?;
        let ends = self.retention.follower.turn().await?.known().held.clone();
        if let Some(index) = &self.index {
            index.wait_for(&ends, self.config.index_wait).await?;
        }
        let mut parts = self.survey(&policy.tenant, &policy.expression).await?;
        let (mut sums, mut studies, mut meant_still) = (Sums::default(), Vec::new(), HashSet::new());
        while let Some(part) = parts.try_next().await? {
            let own = part.found.iter().filter(|study| fates.is_own(study));
            meant_still.extend(own.map(|study| study.study_instance_uid.to_string()));
            let found = fates.add(&mut sums, part).into_iter().filter(|one| one.fate == Fate::Due);
            if sums.due <= policy.studies_max {
                studies.extend(found.map(|one| one.study));
            }
        }
        Ok(Due { sums, studies, not_meant: fates.not_found(&meant_still) })
    }

    /// Asks that studies be moved to the cold store; how many wait now that did not.
    async fn ask_to_move(&self, policy: &Policy, due: Vec<FoundStudy>) -> Result<u64, Error> {
        let studies = due.into_iter().map(|study| study.study_instance_uid).collect();
        let by = format!("{REQUESTED_BY}{}", policy.name);
        self.tiering.move_studies(NewMoves { tenant: policy.tenant.clone(), studies, to: Tier::Cold, by }).await
    }

    /// Withdraws what the policy asked for of studies that it does not mean any more, as where something of one came meanwhile;
    /// how many.
    async fn take_back(&self, policy: &Policy, not_meant: Vec<EventId>) -> Result<u64, Error> {
        let mut taken_back = 0;
        for erasure in not_meant {
            let reason = format!("policy {}, version {}, does not mean it any more", policy.name, policy.version);
            let grounds = ErasureGrounds { by: format!("{REQUESTED_BY}{}", policy.name), reason };
            match self.retention.withdraw_erasure(erasure, grounds).await {
                Ok(()) => taken_back += 1,
                // It took effect, or was withdrawn by somebody.
                Err(error) if error.kind == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Ok(taken_back)
    }

    /// Asks that studies be erased; how many it was asked of.
    async fn ask_for(&self, policy: &Policy, due: Vec<FoundStudy>) -> Result<u64, Error> {
        let follower = &self.retention.follower;
        let mut by_partition: BTreeMap<u16, Vec<FoundStudy>> = BTreeMap::new();
        for study in due {
            let partition = Partition::of_study(study.study_instance_uid.as_str(), follower.log.partitions());
            by_partition.entry(partition.0).or_default().push(study);
        }
        let mut asked = 0;
        for (partition, studies) in by_partition {
            for studies in studies.chunks(STUDIES_AT_ONCE) {
                let uids: Vec<&str> = studies.iter().map(|study| study.study_instance_uid.as_str()).collect();
                let facts = follower.studies(&policy.tenant, Partition(partition), &uids).await?;
                for (study, facts) in studies.iter().zip(facts) {
                    // The log may know more than the index did.
                    let is_as_found = facts.received_at_ms() <= study.received_at_ms && !facts.is_incomplete();
                    if is_as_found && self.ask_for_one(policy, study, &facts).await? {
                        asked += 1;
                    }
                }
            }
        }
        Ok(asked)
    }

    async fn ask_for_one(
        &self,
        policy: &Policy,
        study: &FoundStudy,
        facts: &cairn_archive::erasure::StudyFacts,
    ) -> Result<bool, Error> {
        let scope = ErasureScope {
            tenant: policy.tenant.clone(),
            study: study.study_instance_uid.clone(),
            series: Vec::new(),
            instances: Vec::new(),
        };
        let grounds = ErasureGrounds {
            by: format!("{REQUESTED_BY}{}", policy.name),
            reason: format!("policy {}, version {}", policy.name, policy.version),
        };
        let mut turn = self.retention.turn_with_authority().await?;
        match self.retention.ask(&mut turn, facts, scope, policy.delay_ms, grounds).await {
            Ok(_) => Ok(true),
            // Held since, or nothing is left of it.
            Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Notes down that a policy is halted, where that is new.
    async fn note_halted(&self, policy: &Policy, halted: Halted) -> Result<(), Error> {
        // At another site that is as it should be.
        metrics::policy_ran(policy, 0, !matches!(halted, Halted::NoAuthority | Halted::NoColdStore));
        let last = self.last_run(policy).await?.filter(|last| last.version == policy.version);
        let before = last.map(|last| last.run()).transpose()?;
        if before.as_ref().is_some_and(|before| before.halted == Some(halted)) {
            return Ok(());
        }
        tracing::warn!(policy = %policy.name, why = ?halted, "a policy does nothing");
        let run = PolicyRun { version: policy.version, at_ms: self.clock.unix_ms(), ..PolicyRun::default() };
        self.note_run(policy, &PolicyRun { halted: Some(halted), ..run }).await
    }

    async fn note_run(&self, policy: &Policy, run: &PolicyRun) -> Result<(), Error> {
        let note = RunNote::new(run, self.retention.worked.now().await?);
        self.notes.change(vec![Change::put(Kind::PolicyRun, &RunNote::key(policy), &note)]).await
    }
}
