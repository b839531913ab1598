//! Trials of [`Retention`]: on a scripted service, and on a client of it.

use async_trait::async_trait;
use cairn_archive::{
    EventId, HoldId, KeyId, ObjectKey,
    erasure::{Destroyed, Stage},
    events::{KeptBecause, KeptVersion},
};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Retention,
    retention::{
        ErasedKey, ErasedObject, ErasureGrounds, ErasureReport, ErasureScope, ErasureStatus, HoldInForce, KeptKey,
        NewHold,
    },
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use libtest_mimic::Trial;
use std::sync::{Arc, Mutex};

/// What the scripted service was asked.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Place(NewHold),
    Release(HoldId, ErasureGrounds),
    Request(ErasureScope, u64, ErasureGrounds),
    Withdraw(EventId, ErasureGrounds),
    Report(EventId),
}

/// What the scripted service answers, and what it was asked.
#[derive(Default)]
pub struct Script {
    holds: Vec<HoldInForce>,
    erasures: Vec<ErasureStatus>,
    report: Option<ErasureReport>,
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

fn hold_id(n: u8) -> HoldId {
    HoldId::from_slice(&[n; 16]).unwrap()
}

/// Answers that break off.
fn broken_off<T: Send + 'static>(answers: Vec<T>) -> AnswerStream<T> {
    let broken = Error::new(ErrorKind::Unavailable, "the log is away");
    Box::pin(stream::iter(answers.into_iter().map(Ok).chain([Err(broken)])))
}

#[async_trait]
impl Retention for Scripted {
    async fn place_hold(&self, hold: NewHold) -> Result<HoldId, Error> {
        self.answer(Some(Asked::Place(hold)), |_| hold_id(7))
    }

    async fn release_hold(&self, id: HoldId, grounds: ErasureGrounds) -> Result<(), Error> {
        self.answer(Some(Asked::Release(id, grounds)), |_| ())
    }

    async fn holds(&self) -> Result<AnswerStream<HoldInForce>, Error> {
        self.answer(None, |script| broken_off(script.holds.clone()))
    }

    async fn request_erasure(
        &self,
        scope: ErasureScope,
        delay_ms: u64,
        grounds: ErasureGrounds,
    ) -> Result<Vec<EventId>, Error> {
        self.answer(Some(Asked::Request(scope, delay_ms, grounds)), |_| vec![id(1), id(2)])
    }

    async fn withdraw_erasure(&self, id: EventId, grounds: ErasureGrounds) -> Result<(), Error> {
        self.answer(Some(Asked::Withdraw(id, grounds)), |_| ())
    }

    async fn erasures(&self) -> Result<AnswerStream<ErasureStatus>, Error> {
        self.answer(None, |script| broken_off(script.erasures.clone()))
    }

    async fn erasure_report(&self, id: EventId) -> Result<ErasureReport, Error> {
        self.answer(Some(Asked::Report(id)), |script| script.report.clone().unwrap())
    }
}

/// A scripted service as its callers hold it, and what stops what is between.
pub type Reached = (Arc<dyn Retention>, BoxFuture<'static, ()>);

type Run = fn(Arc<Scripted>, Arc<dyn Retention>) -> BoxFuture<'static, ()>;

macro_rules! table {
    ($($name:ident;)*) => {
        [$((stringify!($name), (|scripted, retention| $name(scripted, retention).boxed()) as Run)),*]
    };
}

/// The trials, as `services::{name}::retention::{what}`.
pub fn trials(
    name: &str,
    reach: impl Fn(Arc<Scripted>) -> BoxFuture<'static, Reached> + Clone + Send + 'static,
) -> Vec<Trial> {
    let table = table! {
        holds_come_whole_and_break_off_with_their_reason;
        erasures_come_whole_at_every_stage;
        a_report_comes_whole;
        what_is_asked_for_arrives;
        every_failure_comes_back_as_it_was;
    };
    let trial = |(what, run): (&str, Run)| {
        let reach = reach.clone();
        crate::trial(format!("services::{name}::retention::{what}"), move || async move {
            let scripted = Arc::new(Scripted::default());
            let (retention, stop) = reach(scripted.clone()).await;
            run(scripted, retention).await;
            stop.await;
        })
    };
    table.into_iter().map(trial).collect()
}

fn hold(n: u8) -> NewHold {
    NewHold {
        tenant: "default".into(),
        patient: match n {
            0 => None,
            1 => Some(("ID1".into(), None)),
            _ => Some(("ID1".into(), Some(String::new()))),
        },
        studies: (0..n).map(|n| format!("1.2.{n}").parse().unwrap()).collect(),
        query: "PatientName=DOE*".into(),
        by: "operator".into(),
        reason: "a court asks".into(),
    }
}

fn grounds() -> ErasureGrounds {
    ErasureGrounds { by: "operator".into(), reason: "a trial".into() }
}

fn status(stage: Stage) -> ErasureStatus {
    ErasureStatus {
        id: id(3),
        tenant: "default".into(),
        study_instance_uid: "1.2.3".into(),
        stage,
        versions: 9,
        site: "east".into(),
        requested_at_ms: u64::MAX,
        delay_ms: 7,
        requested_by: "operator".into(),
        withdrawn_by: "another".into(),
        confirmed: vec!["east".parse().unwrap()],
        waits_for: vec!["west".parse().unwrap(), "north".parse().unwrap()],
        erased: 4,
        kept: 5,
        destroyed: vec![("east".parse().unwrap(), Destroyed { at_ms: 1, objects: 2, bytes: 3, absent: 4 })],
    }
}

async fn holds_come_whole_and_break_off_with_their_reason(scripted: Arc<Scripted>, retention: Arc<dyn Retention>) {
    let one = |n: u8| HoldInForce {
        id: hold_id(n),
        hold: hold(n),
        is_unreadable: n == 1,
        site: "east".into(),
        placed_at_ms: u64::from(n) << 40,
    };
    let holds: Vec<_> = (0..3).map(one).collect();
    scripted.script().holds = holds.clone();
    let answers: Vec<_> = retention.holds().await.unwrap().collect().await;
    let (failed, found) = answers.split_last().unwrap();
    assert_eq!(found.iter().map(|found| found.clone().unwrap()).collect::<Vec<_>>(), holds);
    assert_eq!(failed.as_ref().unwrap_err().kind, ErrorKind::Unavailable);
}

async fn erasures_come_whole_at_every_stage(scripted: Arc<Scripted>, retention: Arc<dyn Retention>) {
    let stages = [Stage::Unknown, Stage::Void, Stage::Withdrawn, Stage::Requested, Stage::Erased];
    let erasures: Vec<_> = stages.into_iter().map(status).collect();
    scripted.script().erasures = erasures.clone();
    let answers: Vec<_> = retention.erasures().await.unwrap().collect().await;
    let (failed, found) = answers.split_last().unwrap();
    assert_eq!(found.iter().map(|found| found.clone().unwrap()).collect::<Vec<_>>(), erasures);
    assert_eq!(failed.as_ref().unwrap_err().kind, ErrorKind::Unavailable);
}

async fn a_report_comes_whole(scripted: Arc<Scripted>, retention: Arc<dyn Retention>) {
    let object = |n: u8, is_answered| ErasedObject {
        series_instance_uid: "1.2.3.4".into(),
        sop_instance_uid: format!("1.2.3.4.{n}"),
        store_event: id(n),
        key: ObjectKey::from_slice(&[n; 16]).unwrap(),
        is_stored: n == 1,
        is_answered,
    };
    let kept = |because: KeptBecause| KeptVersion {
        series_instance_uid: "1.2.3.4".into(),
        sop_instance_uid: "1.2.3.4.9".into(),
        store_event_id: vec![9; 16].into(),
        because: because.into(),
        because_of: vec![8; 16].into(),
    };
    let kept_key = |n: u8, site: Option<&str>| KeptKey {
        id: KeyId::from_slice(&[n; 16]).unwrap(),
        needed_by: id(n),
        may_be_used_at: site.map(|site| site.parse().unwrap()),
    };
    let report = ErasureReport {
        keys: [Some(true), Some(false), None]
            .map(|is_destroyed| ErasedKey { id: KeyId::from_slice(&[5; 16]).unwrap(), is_destroyed })
            .to_vec(),
        kept_keys: vec![kept_key(6, None), kept_key(7, Some("south"))],
        keys_destroyed: vec![("east".parse().unwrap(), 6), ("west".parse().unwrap(), 7)],
        at_site: "west".parse().unwrap(),
        at_ms: 5,
        status: status(Stage::Erased),
        reason: "the patient asks".into(),
        objects: vec![object(0, None), object(1, Some(true)), object(2, Some(false))],
        kept: vec![
            kept(KeptBecause::Held),
            kept(KeptBecause::StoredAgain),
            kept(KeptBecause::ReceivedAgain),
            kept(KeptBecause::Incomplete),
        ],
    };
    scripted.script().report = Some(report.clone());
    assert_eq!(retention.erasure_report(id(3)).await.unwrap(), report);
    assert_eq!(scripted.script().asked, [Asked::Report(id(3))]);
}

async fn what_is_asked_for_arrives(scripted: Arc<Scripted>, retention: Arc<dyn Retention>) {
    let scope = ErasureScope {
        tenant: "default".into(),
        study: "1.2.3".parse().unwrap(),
        series: vec!["1.2.3.4".parse().unwrap()],
        instances: vec!["1.2.3.4.5".parse().unwrap(), "1.2.3.4.6".parse().unwrap()],
    };
    let mut asked = Vec::new();
    for n in 0..3 {
        assert_eq!(retention.place_hold(hold(n)).await.unwrap(), hold_id(7));
        asked.push(Asked::Place(hold(n)));
    }
    retention.release_hold(hold_id(7), grounds()).await.unwrap();
    assert_eq!(retention.request_erasure(scope.clone(), 9, grounds()).await.unwrap(), [id(1), id(2)]);
    retention.withdraw_erasure(id(1), grounds()).await.unwrap();
    asked.push(Asked::Release(hold_id(7), grounds()));
    asked.push(Asked::Request(scope, 9, grounds()));
    asked.push(Asked::Withdraw(id(1), grounds()));
    assert_eq!(scripted.script().asked, asked);
}

async fn every_failure_comes_back_as_it_was(scripted: Arc<Scripted>, retention: Arc<dyn Retention>) {
    let scope = ErasureScope {
        tenant: "default".into(),
        study: "1.2.3".parse().unwrap(),
        series: Vec::new(),
        instances: Vec::new(),
    };
    for kind in [ErrorKind::Unavailable, ErrorKind::NotFound, ErrorKind::Conflict] {
        scripted.script().failure = Some(Error::new(kind, "because"));
        let failures = [
            retention.place_hold(hold(1)).await.err(),
            retention.release_hold(hold_id(1), grounds()).await.err(),
            retention.holds().await.err(),
            retention.request_erasure(scope.clone(), 0, grounds()).await.err(),
            retention.withdraw_erasure(id(1), grounds()).await.err(),
            retention.erasures().await.err(),
            retention.erasure_report(id(1)).await.err(),
        ];
        for failure in failures {
            let failure = failure.unwrap();
            assert_eq!((failure.kind, failure.message.as_str()), (kind, "because"));
        }
    }
}
