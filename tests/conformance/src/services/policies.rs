//! Trials of [`Policies`]: on a scripted service, and on a client of it.

use async_trait::async_trait;
use cairn_archive::{
    EventId, HoldId,
    fold::PatientIdentity,
    holds::HeldBy,
    policies::{Action, Policy, State},
};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Policies,
    policies::{Fate, Forecast, ForecastStudy, Halted, NewPolicy, PolicyRun, PolicyStatus, Sums, WhatIf},
    retention::ErasureGrounds,
    survey::FoundStudy,
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use libtest_mimic::Trial;
use std::sync::{Arc, Mutex};

/// What the scripted service was asked.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Adopt(NewPolicy),
    Withdraw(String, String, ErasureGrounds),
    WhatIf(WhatIf, u64),
    AcceptClock(ErasureGrounds),
}

/// What the scripted service answers, and what it was asked.
#[derive(Default)]
pub struct Script {
    policies: Vec<PolicyStatus>,
    forecast: Vec<Forecast>,
    asked: Vec<Asked>,
    failure: Option<Error>,
}

/// A service that answers as it is told.
#[derive(Default)]
pub struct Scripted(Mutex<Script>);

impl Scripted {
    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    fn answer<T>(&self, asked: Option<Asked>, answer: impl FnOnce(&mut Script) -> T) -> Result<T, Error> {
        let mut script = self.script();
        script.asked.extend(asked);
        match script.failure.clone() {
            Some(failure) => Err(failure),
            None => Ok(answer(&mut script)),
        }
    }
}

fn id(n: u8) -> EventId {
    EventId::from_slice(&[n; 16]).unwrap()
}

/// Answers that break off.
fn broken_off<T: Send + 'static>(answers: Vec<T>) -> AnswerStream<T> {
    let broken = Error::new(ErrorKind::Unavailable, "the log is away");
    Box::pin(stream::iter(answers.into_iter().map(Ok).chain([Err(broken)])))
}

#[async_trait]
impl Policies for Scripted {
    async fn adopt_policy(&self, policy: NewPolicy) -> Result<u32, Error> {
        self.answer(Some(Asked::Adopt(policy)), |_| 7)
    }

    async fn withdraw_policy(&self, tenant: &str, name: &str, grounds: ErasureGrounds) -> Result<(), Error> {
        self.answer(Some(Asked::Withdraw(tenant.to_owned(), name.to_owned(), grounds)), |_| ())
    }

    async fn policies(&self) -> Result<AnswerStream<PolicyStatus>, Error> {
        self.answer(None, |script| broken_off(script.policies.clone()))
    }

    async fn what_if(&self, of: WhatIf, studies_max: u64) -> Result<AnswerStream<Forecast>, Error> {
        self.answer(Some(Asked::WhatIf(of, studies_max)), |script| broken_off(script.forecast.clone()))
    }

    async fn accept_clock(&self, grounds: ErasureGrounds) -> Result<(), Error> {
        self.answer(Some(Asked::AcceptClock(grounds)), |_| ())
    }
}

/// A scripted service as its callers hold it, and what stops what is between.
pub type Reached = (Arc<dyn Policies>, BoxFuture<'static, ()>);

type Run = fn(Arc<Scripted>, Arc<dyn Policies>) -> BoxFuture<'static, ()>;

macro_rules! table {
    ($($name:ident;)*) => {
        [$((stringify!($name), (|scripted, policies| $name(scripted, policies).boxed()) as Run)),*]
    };
}

/// The trials, as `services::{name}::policies::{what}`.
pub fn trials(
    name: &str,
    reach: impl Fn(Arc<Scripted>) -> BoxFuture<'static, Reached> + Clone + Send + 'static,
) -> Vec<Trial> {
    let table = table! {
        policies_come_whole_in_every_state;
        a_forecast_comes_whole_and_breaks_off_with_its_reason;
        what_is_asked_for_arrives;
        every_failure_comes_back_as_it_was;
    };
    let trial = |(what, run): (&str, Run)| {
        let reach = reach.clone();
        crate::trial(format!("services::{name}::policies::{what}"), move || async move {
            let scripted = Arc::new(Scripted::default());
            let (policies, stop) = reach(scripted.clone()).await;
            run(scripted, policies).await;
            stop.await;
        })
    };
    table.into_iter().map(trial).collect()
}

fn grounds() -> ErasureGrounds {
    ErasureGrounds { by: "operator".into(), reason: "a trial".into() }
}

fn sums(n: u64) -> Sums {
    Sums {
        studies: n,
        undecided: n + 1,
        matching: n + 2,
        due: n + 3,
        due_bytes: u64::MAX - n,
        held: n + 4,
        under_way: n + 5,
        left_alone: n + 6,
    }
}

async fn policies_come_whole_in_every_state(scripted: Arc<Scripted>, policies: Arc<dyn Policies>) {
    let policy = |n: u32| Policy {
        event: id(n as u8),
        tenant: "default".into(),
        name: "mammograms".into(),
        version: n,
        action: if n.is_multiple_of(2) { Action::Erase } else { Action::Move },
        delay_ms: 5,
        studies_max: 500,
        expression: "'MG' in modalities".into(),
        reason: "a trial".into(),
        by: "operator".into(),
        site: "east".parse().unwrap(),
        at_ms: u64::from(n) << 40,
    };
    let halted = [
        None,
        Some(Halted::TooMany),
        Some(Halted::Clock),
        Some(Halted::NoAuthority),
        Some(Halted::Unreadable),
        Some(Halted::Index),
        Some(Halted::NoColdStore),
    ];
    let run = |n: u32| {
        let halted = halted.get(n as usize).copied()?;
        Some(PolicyRun { version: n, at_ms: 9, halted, sums: sums(n.into()), asked: 3, taken_back: 4 })
    };
    let states = [State::InForce, State::Replaced, State::Withdrawn("another".into()), State::Void].into_iter().cycle();
    let all: Vec<_> =
        (0..8).zip(states).map(|(n, state)| PolicyStatus { policy: policy(n), state, last_run: run(n) }).collect();
    scripted.script().policies = all.clone();
    let answers: Vec<_> = policies.policies().await.unwrap().collect().await;
    let (failed, found) = answers.split_last().unwrap();
    assert_eq!(found.iter().map(|found| found.clone().unwrap()).collect::<Vec<_>>(), all);
    assert_eq!(failed.as_ref().unwrap_err().kind, ErrorKind::Unavailable);
}

async fn a_forecast_comes_whole_and_breaks_off_with_its_reason(scripted: Arc<Scripted>, policies: Arc<dyn Policies>) {
    let fates = [
        Fate::Due,
        Fate::Held(HeldBy::Hold(HoldId::from_slice(&[1; 16]).unwrap())),
        Fate::Held(HeldBy::Unreadable(id(2))),
        Fate::UnderWay(id(3)),
        Fate::LeftAlone(id(4)),
        Fate::Waiting,
        Fate::Recalled,
    ];
    let study = |(n, fate): (u8, Fate)| ForecastStudy {
        study: FoundStudy {
            study_instance_uid: format!("1.2.{n}").parse().unwrap(),
            patients: vec![PatientIdentity { issuer: "EAST".into(), id: format!("ID{n}") }; n.into()],
            study_date: (n > 0).then_some(20_260_101),
            modalities: vec!["CT".into(), "SR".into()],
            instances: 1,
            versions: 2,
            bytes: 3,
            received_at_ms: u64::from(n),
            is_cold: n % 2 == 1,
            recalled_at_ms: u64::from(n) << 41,
        },
        fate,
    };
    let forecast = vec![
        Forecast { sums: sums(1), studies: (0..).zip(fates).map(study).collect() },
        Forecast { sums: sums(2), studies: Vec::new() },
    ];
    scripted.script().forecast = forecast.clone();
    let of = WhatIf::Named { tenant: "default".into(), name: "mammograms".into() };
    let answers: Vec<_> = policies.what_if(of, 5).await.unwrap().collect().await;
    let (failed, found) = answers.split_last().unwrap();
    assert_eq!(found.iter().map(|found| found.clone().unwrap()).collect::<Vec<_>>(), forecast);
    assert_eq!(failed.as_ref().unwrap_err().kind, ErrorKind::Unavailable);
}

async fn what_is_asked_for_arrives(scripted: Arc<Scripted>, policies: Arc<dyn Policies>) {
    let policy = NewPolicy {
        tenant: "default".into(),
        name: "mammograms".into(),
        action: Action::Move,
        expression: "'MG' in modalities".into(),
        delay_ms: 5,
        studies_max: 500,
        grounds: grounds(),
    };
    let expression = WhatIf::Expression { tenant: "default".into(), expression: "true".into(), action: Action::Move };
    assert_eq!(policies.adopt_policy(policy.clone()).await.unwrap(), 7);
    policies.withdraw_policy("default", "mammograms", grounds()).await.unwrap();
    drop(policies.what_if(expression.clone(), u64::MAX).await.unwrap());
    policies.accept_clock(grounds()).await.unwrap();
    let expected = [
        Asked::Adopt(policy),
        Asked::Withdraw("default".into(), "mammograms".into(), grounds()),
        Asked::WhatIf(expression, u64::MAX),
        Asked::AcceptClock(grounds()),
    ];
    assert_eq!(scripted.script().asked, expected);
}

async fn every_failure_comes_back_as_it_was(scripted: Arc<Scripted>, policies: Arc<dyn Policies>) {
    for kind in [ErrorKind::Unavailable, ErrorKind::NotFound, ErrorKind::Invalid] {
        scripted.script().failure = Some(Error::new(kind, "because"));
        let of = WhatIf::Expression { tenant: "default".into(), expression: "true".into(), action: Action::Erase };
        let failures = [
            policies.adopt_policy(NewPolicy::default()).await.err(),
            policies.withdraw_policy("default", "a", grounds()).await.err(),
            policies.policies().await.err(),
            policies.what_if(of, 1).await.err(),
            policies.accept_clock(grounds()).await.err(),
        ];
        for failure in failures {
            let failure = failure.unwrap();
            assert_eq!((failure.kind, failure.message.as_str()), (kind, "because"));
        }
    }
}
