//! Trials of [`Commitments`]: on a scripted service, and on a client of it.

use async_trait::async_trait;
use cairn_archive::{
    commitment::{FailureReason, Reference, State, Within},
    events::{CommitmentReporting, Door},
};
use cairn_service_api::{
    AnswerStream, Commitments, Error, ErrorKind, Reason,
    commitment::{Commitment, Outcome, Reported, Request, Selection, Transaction},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use libtest_mimic::Trial;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// What the scripted service answers, and what it was asked.
#[derive(Default)]
pub struct Script {
    commitment: Option<Commitment>,
    outcomes: Vec<Outcome>,
    requests: Vec<Request>,
    asked: Vec<(Transaction, Duration)>,
    selections: Vec<Selection>,
    reported: Vec<(Transaction, Reported)>,
    failure: Option<Error>,
}

/// A service that answers as it is told.
#[derive(Default)]
pub struct Scripted(Mutex<Script>);

impl Scripted {
    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    fn answer<T>(&self, answer: impl FnOnce(&mut Script) -> T) -> Result<T, Error> {
        let mut script = self.script();
        match script.failure.clone() {
            Some(failure) => Err(failure),
            None => Ok(answer(&mut script)),
        }
    }
}

#[async_trait]
impl Commitments for Scripted {
    async fn request_commitment(&self, request: Request) -> Result<Commitment, Error> {
        self.answer(|script| {
            script.requests.push(request);
            script.commitment.clone().unwrap()
        })
    }

    async fn commitment(&self, transaction: &Transaction, wait: Duration) -> Result<Commitment, Error> {
        self.answer(|script| {
            script.asked.push((transaction.clone(), wait));
            script.commitment.clone().unwrap()
        })
    }

    async fn commitment_outcomes(&self, _: &Transaction) -> Result<AnswerStream<Outcome>, Error> {
        let outcomes = self.answer(|script| script.outcomes.clone())?;
        Ok(Box::pin(stream::iter(outcomes.into_iter().map(Ok))))
    }

    async fn commitments(&self, selection: Selection) -> Result<AnswerStream<Commitment>, Error> {
        let commitment = self.answer(|script| {
            script.selections.push(selection);
            script.commitment.clone()
        })?;
        let broken = Error::new(ErrorKind::Corrupt, "a note can't be read");
        Ok(Box::pin(stream::iter(commitment.into_iter().map(Ok).chain([Err(broken)]))))
    }

    async fn commitment_reported(&self, transaction: &Transaction, reported: Reported) -> Result<(), Error> {
        self.answer(|script| script.reported.push((transaction.clone(), reported)))
    }
}

/// A scripted service as its callers hold it, and what stops what is between.
pub type Reached = (Arc<dyn Commitments>, BoxFuture<'static, ()>);

type Run = fn(Arc<Scripted>, Arc<dyn Commitments>) -> BoxFuture<'static, ()>;

macro_rules! table {
    ($($name:ident;)*) => {
        [$((stringify!($name), (|scripted, commitments| $name(scripted, commitments).boxed()) as Run)),*]
    };
}

/// The trials, as `services::{name}::commitment::{what}`.
pub fn trials(
    name: &str,
    reach: impl Fn(Arc<Scripted>) -> BoxFuture<'static, Reached> + Clone + Send + 'static,
) -> Vec<Trial> {
    let table = table! {
        a_request_arrives_whole_and_is_answered_whole;
        every_state_comes_back;
        outcomes_come_in_order;
        lists_break_off_with_their_reason;
        what_came_of_a_report_arrives;
        every_failure_comes_back_as_it_was;
    };
    let trial = |(what, run): (&str, Run)| {
        let reach = reach.clone();
        crate::trial(format!("services::{name}::commitment::{what}"), move || async move {
            let scripted = Arc::new(Scripted::default());
            let (commitments, stop) = reach(scripted.clone()).await;
            run(scripted, commitments).await;
            stop.await;
        })
    };
    table.into_iter().map(trial).collect()
}

fn transaction() -> Transaction {
    Transaction { tenant: "hospital".into(), requester: "PACS 1".into(), transaction_uid: "1.9".parse().unwrap() }
}

fn references() -> Vec<Reference> {
    let reference = |instance: &str, within| Reference {
        sop_class_uid: "1.2.1".parse().unwrap(),
        sop_instance_uid: instance.parse().unwrap(),
        within,
    };
    let within = Within { study_instance_uid: "1.4".parse().unwrap(), series_instance_uid: "1.4.1".parse().unwrap() };
    vec![reference("1.3.2", None), reference("1.3.1", Some(within))]
}

fn commitment(state: State) -> Commitment {
    Commitment {
        transaction: transaction(),
        state,
        door: Door::Dicomweb,
        requested_at_ms: 1 << 40,
        references: 9,
        confirmed_sites: 2,
        decided_at_ms: Some(2 << 40),
        committed: 6,
        failed: vec![(FailureReason::NO_SUCH_OBJECT_INSTANCE, 2), (FailureReason::PROCESSING_FAILURE, 1)],
        reported_at_ms: None,
        report_failure: Some("connection refused".into()),
    }
}

async fn a_request_arrives_whole_and_is_answered_whole(scripted: Arc<Scripted>, commitments: Arc<dyn Commitments>) {
    scripted.script().commitment = Some(commitment(State::Pending));
    let request = Request {
        transaction: transaction(),
        called_ae_title: "CAIRN".into(),
        door: Door::Dimse,
        peer_address: "192.0.2.7:51234".into(),
        references: references(),
        confirmed_sites: 1,
        reporting: CommitmentReporting::SameAssociation,
    };
    let answer = commitments.request_commitment(request.clone()).await.unwrap();
    assert_eq!(answer, commitment(State::Pending));
    assert_eq!(scripted.script().requests, [request]);
}

async fn every_state_comes_back(scripted: Arc<Scripted>, commitments: Arc<dyn Commitments>) {
    for state in [State::Pending, State::Unreported, State::Decided, State::Reported, State::GivenUp] {
        let expected = Commitment { decided_at_ms: None, report_failure: None, ..commitment(state) };
        scripted.script().commitment = Some(expected.clone());
        let wait = Duration::from_millis(1_234);
        assert_eq!(commitments.commitment(&transaction(), wait).await.unwrap(), expected);
        assert_eq!(scripted.script().asked.pop(), Some((transaction(), wait)));
    }
}

async fn outcomes_come_in_order(scripted: Arc<Scripted>, commitments: Arc<dyn Commitments>) {
    let failures = [Some(FailureReason::CLASS_INSTANCE_CONFLICT), None];
    let outcomes: Vec<_> =
        references().into_iter().zip(failures).map(|(reference, failure)| Outcome { reference, failure }).collect();
    scripted.script().outcomes = outcomes.clone();
    let found: Vec<_> =
        commitments.commitment_outcomes(&transaction()).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(found, outcomes);
}

async fn lists_break_off_with_their_reason(scripted: Arc<Scripted>, commitments: Arc<dyn Commitments>) {
    scripted.script().commitment = Some(commitment(State::GivenUp));
    let all = Selection { tenant: "hospital".into(), ..Selection::default() };
    let one = Selection {
        requester: Some(String::new()),
        transaction_uid: Some("1.9".parse().unwrap()),
        state: Some(State::GivenUp),
        ..all.clone()
    };
    for selection in [all, one] {
        let mut found = commitments.commitments(selection.clone()).await.unwrap();
        assert_eq!(found.next().await.unwrap().unwrap(), commitment(State::GivenUp));
        assert_eq!(found.next().await.unwrap().unwrap_err().kind, ErrorKind::Corrupt);
        assert!(found.next().await.is_none());
        assert_eq!(scripted.script().selections.pop(), Some(selection));
    }
}

async fn what_came_of_a_report_arrives(scripted: Arc<Scripted>, commitments: Arc<dyn Commitments>) {
    for what in [Reported::Taken, Reported::NotTaken] {
        commitments.commitment_reported(&transaction(), what).await.unwrap();
        assert_eq!(scripted.script().reported.pop(), Some((transaction(), what)));
    }
}

async fn every_failure_comes_back_as_it_was(scripted: Arc<Scripted>, commitments: Arc<dyn Commitments>) {
    for (kind, reason) in [
        (ErrorKind::NotFound, Reason::Unspecified),
        (ErrorKind::Conflict, Reason::Unspecified),
        (ErrorKind::Exhausted, Reason::TooLarge),
        (ErrorKind::Invalid, Reason::Unspecified),
    ] {
        scripted.script().failure = Some(Error::because(kind, reason, "no"));
        let failed = commitments.commitment(&transaction(), Duration::ZERO).await.unwrap_err();
        assert_eq!((failed.kind, failed.reason, failed.message.as_str()), (kind, reason, "no"));
        assert_eq!(commitments.commitments(Selection::default()).await.err().map(|error| error.kind), Some(kind));
    }
}
