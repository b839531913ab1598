//! What is asked of policies.

use super::clock::Watch;
use crate::{
    config::PoliciesConfig,
    notes::{Kind, Notes, malformed},
    retention::{RetentionService, TEXT_BYTES_MAX},
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    events::{Event, MovePolicyAdopted, PolicyAction, PolicyAdopted, PolicyProtected, PolicyWithdrawn},
    policies::{Action, Policy, State},
};
use cairn_expression::Expression;
use cairn_process::clock::Clock;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Index, Policies, Tiering,
    policies::{Forecast, Halted, NewPolicy, PolicyRun, PolicyStatus, Sums, WhatIf},
    retention::ErasureGrounds,
    survey::VARIABLES,
};
use futures_util::stream;
use prost::Message;
use std::{sync::Arc, time::Duration};

/// Characters of a policy's name at most.
const NAME_MAX: usize = 64;

/// Policies of a site.
pub struct PolicyService {
    pub(super) retention: Arc<RetentionService>,
    pub(super) index: Option<Arc<dyn Index>>,
    pub(super) tiering: Arc<dyn Tiering>,
    pub(super) notes: Arc<Notes>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) watch: Watch,
    pub(super) config: PoliciesConfig,
}

/// What policies work on.
pub(crate) struct With {
    pub(crate) retention: Arc<RetentionService>,
    pub(crate) index: Option<Arc<dyn Index>>,
    pub(crate) tiering: Arc<dyn Tiering>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The last run of a policy, as it is written down.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RunNote {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(uint64, tag = "2")]
    at_ms: u64,
    /// Place in [`HALTED`], from 1; 0: it is not.
    #[prost(uint32, tag = "3")]
    halted: u32,
    #[prost(uint64, tag = "4")]
    asked: u64,
    /// Time at work when it ran.
    #[prost(uint64, tag = "5")]
    worked_ms: u64,
    #[prost(uint64, tag = "6")]
    studies: u64,
    #[prost(uint64, tag = "7")]
    undecided: u64,
    #[prost(uint64, tag = "8")]
    matching: u64,
    #[prost(uint64, tag = "9")]
    due: u64,
    #[prost(uint64, tag = "10")]
    due_bytes: u64,
    #[prost(uint64, tag = "11")]
    held: u64,
    #[prost(uint64, tag = "12")]
    under_way: u64,
    #[prost(uint64, tag = "13")]
    left_alone: u64,
    #[prost(uint64, tag = "14")]
    taken_back: u64,
}

const HALTED: [Halted; 6] =
    [Halted::TooMany, Halted::Clock, Halted::NoAuthority, Halted::Unreadable, Halted::Index, Halted::NoColdStore];

impl RunNote {
    /// What a policy's note is under.
    pub(super) fn key(policy: &Policy) -> Vec<u8> {
        [policy.tenant.as_bytes(), &[0], policy.name.as_bytes()].concat()
    }

    pub(super) fn new(run: &PolicyRun, worked: Duration) -> Self {
        let Sums { studies, undecided, matching, due, due_bytes, held, under_way, left_alone } = run.sums;
        let halted = (1_u32..).zip(HALTED).find(|(_, halted)| run.halted == Some(*halted));
        Self {
            version: run.version,
            at_ms: run.at_ms,
            halted: halted.map_or(0, |(place, _)| place),
            asked: run.asked,
            worked_ms: u64::try_from(worked.as_millis()).unwrap_or(u64::MAX),
            studies,
            undecided,
            matching,
            due,
            due_bytes,
            held,
            under_way,
            left_alone,
            taken_back: run.taken_back,
        }
    }

    pub(super) fn worked(&self) -> Duration {
        Duration::from_millis(self.worked_ms)
    }

    pub(super) fn run(&self) -> Result<PolicyRun, Error> {
        let Self { studies, undecided, matching, due, due_bytes, held, under_way, left_alone, .. } = *self;
        let halted = match self.halted.checked_sub(1) {
            None => None,
            Some(place) => Some(*HALTED.get(place as usize).ok_or_else(malformed)?),
        };
        Ok(PolicyRun {
            version: self.version,
            at_ms: self.at_ms,
            halted,
            sums: Sums { studies, undecided, matching, due, due_bytes, held, under_way, left_alone },
            asked: self.asked,
            taken_back: self.taken_back,
        })
    }
}

impl PolicyService {
    pub(crate) fn new(with: With, config: PoliciesConfig) -> Self {
        let With { retention, index, tiering, notes, clock } = with;
        let watch = Watch::new(notes.clone(), clock.clone(), &config);
        Self { retention, index, tiering, notes, clock, watch, config }
    }

    pub(super) async fn last_run(&self, policy: &Policy) -> Result<Option<RunNote>, Error> {
        self.notes.get(Kind::PolicyRun, &RunNote::key(policy)).await
    }

    fn check(&self, policy: &NewPolicy) -> Result<(), Error> {
        let invalid = |message: String| Err(Error::new(ErrorKind::Invalid, message));
        let is_of_name = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
        if policy.name.is_empty() || policy.name.len() > NAME_MAX || !policy.name.chars().all(is_of_name) {
            return invalid(format!("a policy's name has letters, digits, - and _, {NAME_MAX} at most"));
        }
        if policy.studies_max == 0 {
            return invalid(
                "a policy without a bound on the studies that one run acts on may erase, or move, everything".into(),
            );
        }
        if policy.studies_max > self.config.studies_max {
            return invalid(format!("one run acts on {} studies at most", self.config.studies_max));
        }
        if [&policy.grounds.by, &policy.grounds.reason].into_iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return invalid(format!("a text is longer than {TEXT_BYTES_MAX} bytes"));
        }
        compiled(&policy.expression).map(drop)
    }
}

/// The event that a policy is in force.
fn adopted(policy: NewPolicy, version: u32, promotion_event_id: Bytes) -> Event {
    let NewPolicy { tenant, name, action, expression, delay_ms, studies_max, grounds } = policy;
    let protected = PolicyProtected { expression, reason: grounds.reason }.encode_to_vec().into();
    let (adopted_by, key_id) = (grounds.by, String::new());
    match action {
        Action::Erase => Event::PolicyAdopted(PolicyAdopted {
            tenant,
            name,
            version,
            promotion_event_id,
            action: PolicyAction::Erase.into(),
            delay_ms,
            studies_max,
            adopted_by,
            key_id,
            protected,
        }),
        Action::Move => Event::MovePolicyAdopted(MovePolicyAdopted {
            tenant,
            name,
            version,
            promotion_event_id,
            rest_ms: delay_ms,
            studies_max,
            adopted_by,
            key_id,
            protected,
        }),
    }
}

/// The expression of a policy.
fn compiled(expression: &str) -> Result<Expression, Error> {
    Expression::compile(expression, VARIABLES).map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))
}

fn unknown() -> Error {
    Error::new(ErrorKind::NotFound, "no such policy is in force here")
}

#[async_trait]
impl Policies for PolicyService {
    async fn adopt_policy(&self, policy: NewPolicy) -> Result<u32, Error> {
        self.check(&policy)?;
        let mut turn = self.retention.turn_with_authority().await?;
        let known = turn.known();
        let is_another = |other: &&Policy| other.tenant != policy.tenant || other.name != policy.name;
        if known.policies.in_force(&known.authority).filter(is_another).count() >= self.config.policies_max {
            let message = format!("{} policies are in force, and no more may be", self.config.policies_max);
            return Err(Error::new(ErrorKind::Exhausted, message));
        }
        let version = known.policies.next_version(&policy.tenant, &policy.name);
        let name = policy.name.clone();
        let adopted = adopted(policy, version, known.under());
        turn.append(&adopted, None).await?;
        tracing::info!(policy = %name, version, "a policy is adopted");
        Ok(version)
    }

    async fn withdraw_policy(&self, tenant: &str, name: &str, grounds: ErasureGrounds) -> Result<(), Error> {
        if [&grounds.by, &grounds.reason].into_iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(Error::new(ErrorKind::Invalid, format!("a text is longer than {TEXT_BYTES_MAX} bytes")));
        }
        let mut turn = self.retention.turn_with_authority().await?;
        let known = turn.known();
        let mut in_force = known.policies.in_force(&known.authority);
        if !in_force.any(|policy| policy.tenant == tenant && policy.name == name) {
            return Err(unknown());
        }
        let withdrawn = PolicyWithdrawn {
            tenant: tenant.to_owned(),
            name: name.to_owned(),
            promotion_event_id: known.under(),
            withdrawn_by: grounds.by,
            reason: grounds.reason.into_bytes().into(),
            key_id: String::new(),
        };
        drop(in_force);
        turn.append(&Event::PolicyWithdrawn(withdrawn), None).await?;
        tracing::info!(policy = %name, "a policy is withdrawn");
        Ok(())
    }

    async fn policies(&self) -> Result<AnswerStream<PolicyStatus>, Error> {
        let known: Vec<(Policy, State)> = {
            let turn = self.retention.follower.turn().await?;
            let known = turn.known();
            known.policies.all(&known.authority).map(|(policy, state)| (policy.clone(), state)).collect()
        };
        let mut all = Vec::with_capacity(known.len());
        for (policy, state) in known {
            let last = self.last_run(&policy).await?.filter(|last| last.version == policy.version);
            let last_run = last.map(|last| last.run()).transpose()?;
            all.push(Ok(PolicyStatus { policy, state, last_run }));
        }
        Ok(Box::pin(stream::iter(all)))
    }

    async fn what_if(&self, of: WhatIf, studies_max: u64) -> Result<AnswerStream<Forecast>, Error> {
        match of {
            WhatIf::Expression { tenant, expression, action } => {
                compiled(&expression)?;
                let fates = self.fates(&tenant, action, None).await?;
                self.forecast(&tenant, &expression, fates, studies_max).await
            }
            WhatIf::Named { tenant, name } => {
                let policy = {
                    let turn = self.retention.follower.turn().await?;
                    let known = turn.known();
                    let mut in_force = known.policies.in_force(&known.authority);
                    in_force.find(|policy| policy.tenant == tenant && policy.name == name).cloned()
                };
                let policy = policy.ok_or_else(unknown)?;
                let fates = self.fates(&tenant, policy.action, Some(&policy)).await?;
                self.forecast(&tenant, &policy.expression, fates, studies_max).await
            }
        }
    }

    async fn accept_clock(&self, grounds: ErasureGrounds) -> Result<(), Error> {
        // Everything that the log has is read before.
        let _turn = self.retention.follower.turn().await?;
        self.watch.accept(self.retention.follower.appender.newest()).await?;
        tracing::warn!(by = %grounds.by, "the wall clock is taken to be right");
        Ok(())
    }
}
