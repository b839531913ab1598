//! Policies: what is done with studies by itself, and what that would be.

use crate::{AnswerStream, Error, retention::ErasureGrounds, survey::FoundStudy};
use async_trait::async_trait;
use cairn_archive::{
    EventId,
    holds::HeldBy,
    policies::{Action, Policy, State},
};

/// A policy to be adopted: a new one, or another version of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewPolicy {
    /// Whose studies.
    pub tenant: String,
    /// Its name: letters, digits, `-` and `_`, 64 at most.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// The expression that must hold, over [`crate::survey::VARIABLES`].
    pub expression: String,
    /// Milliseconds that each site lets pass before what it asks for is erased, at least; of one that moves, for which a study is left
    /// alone after it was recalled.
    pub delay_ms: u64,
    /// Studies that one run acts on at most; where more match it acts on none. 0: without a bound, and refused.
    pub studies_max: u64,
    /// Who decides, and why.
    pub grounds: ErasureGrounds,
}

/// Why a policy does nothing, though it is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halted {
    /// More studies match than one run may act on.
    TooMany,
    /// The wall clock can't be right. Until it is, or somebody says so, ages are not known.
    Clock,
    /// Another site has authority, or none.
    NoAuthority,
    /// Events about policies, holds or erasures are here that this build can't read.
    Unreadable,
    /// The index could not be asked, or is behind the log.
    Index,
    /// It moves to a cold object store, and the site has none.
    NoColdStore,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRun {
    /// Version of the policy.
    pub version: u32,
    /// When, in milliseconds since the Unix epoch by the site's clock.
    pub at_ms: u64,
    /// Why nothing was done; `None`: it was.
    pub halted: Option<Halted>,
    /// What there was.
    pub sums: Sums,
    /// Studies of which it asked that they be erased, or moved.
    pub asked: u64,
    /// Erasures that this policy had asked for and that were withdrawn, because their studies are not meant any more.
    pub taken_back: u64,
}

/// What there is for a policy, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Studies gone past.
    pub studies: u64,
    /// Studies for which its expression is neither true nor false.
    pub undecided: u64,
    /// Studies for which it holds.
    pub matching: u64,
    /// Those of them that it would act on.
    pub due: u64,
    /// Bytes of these.
    pub due_bytes: u64,
    /// Those that are held.
    pub held: u64,
    /// Those of which that is asked already.
    pub under_way: u64,
    /// Those whose erasure somebody withdrew after this version was adopted; of a policy that moves, those that were recalled lately.
    pub left_alone: u64,
}

/// A version of a policy, and how it fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    /// As it was adopted.
    pub policy: Policy,
    /// What became of it.
    pub state: State,
    /// Its last run here; `None`: there was none.
    pub last_run: Option<PolicyRun>,
}

/// Which policy to look ahead for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhatIf {
    /// One that is in force.
    Named {
        /// Whose.
        tenant: String,
        /// Its name.
        name: String,
    },
    /// One that is not adopted.
    Expression {
        /// Whose studies.
        tenant: String,
        /// The expression.
        expression: String,
        /// What it would do.
        action: Action,
    },
}

/// What would become of a study for which a policy's expression holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It would be acted on.
    Due,
    /// It is held.
    Held(HeldBy),
    /// This erasure is asked for already.
    UnderWay(EventId),
    /// This erasure was withdrawn after the policy was adopted, which therefore leaves the study alone.
    LeftAlone(EventId),
    /// It waits to be moved already.
    Waiting,
    /// It was recalled lately, and is left alone.
    Recalled,
}

/// A study, and what would become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForecastStudy {
    /// The study.
    pub study: FoundStudy,
    /// What would become of it.
    pub fate: Fate,
}

/// A part of a forecast. Sums add up; the last part has all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Sums up to here.
    pub sums: Sums,
    /// Studies that were found since the part before; none beyond those asked for.
    pub studies: Vec<ForecastStudy>,
}

/// Policies.
#[async_trait]
pub trait Policies: Send + Sync {
    /// Adopts a policy, in the place of an older version if there is one; gives its version. Only the site with authority does.
    ///
    /// # Errors
    /// `Invalid`: its expression can't be used, it has no bound, or a text is too long. `Conflict`: this site has no authority.
    /// `Exhausted`: as many are in force as may be.
    async fn adopt_policy(&self, policy: NewPolicy) -> Result<u32, Error>;

    /// Withdraws a policy: what it asked for already stays asked for. Only the site with authority does.
    ///
    /// # Errors
    /// `NotFound`: no such policy is in force. `Conflict`: this site has no authority.
    async fn withdraw_policy(&self, tenant: &str, name: &str, grounds: ErasureGrounds) -> Result<(), Error>;

    /// Every version of every policy, by name and the order of adoption.
    async fn policies(&self) -> Result<AnswerStream<PolicyStatus>, Error>;

    /// What a policy would do now, without doing it: studies, `studies_max` at most, and what they sum up to.
    ///
    /// # Errors
    /// `Invalid`: the expression can't be used. `NotFound`: no such policy is in force.
    async fn what_if(&self, of: WhatIf, studies_max: u64) -> Result<AnswerStream<Forecast>, Error>;

    /// Takes the operator's word that the wall clock is right now, although it went on by more than it may by itself, or is
    /// behind events that a wrong clock made.
    async fn accept_clock(&self, grounds: ErasureGrounds) -> Result<(), Error>;
}
