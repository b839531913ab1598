//! Trials of [`Tiering`]: on a scripted service, and on a client of it.

use async_trait::async_trait;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Tiering,
    tiering::{NewMoves, QueuedMove, TierStatus, TieringStatus},
};
use cairn_store_api::{StoreSpace, Tier};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use libtest_mimic::Trial;
use std::sync::{Arc, Mutex};

/// What the scripted service answers, and what it was asked.
#[derive(Default)]
pub struct Script {
    status: TieringStatus,
    moves: Vec<QueuedMove>,
    asked: Vec<NewMoves>,
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
impl Tiering for Scripted {
    async fn tiering(&self) -> Result<TieringStatus, Error> {
        self.answer(|script| script.status.clone())
    }

    async fn move_studies(&self, moves: NewMoves) -> Result<u64, Error> {
        self.answer(|script| {
            script.asked.push(moves);
            7
        })
    }

    async fn moves(&self) -> Result<AnswerStream<QueuedMove>, Error> {
        self.answer(|script| {
            let broken = Error::new(ErrorKind::Unavailable, "the notes are away");
            let moves = script.moves.clone();
            Box::pin(stream::iter(moves.into_iter().map(Ok).chain([Err(broken)]))) as AnswerStream<QueuedMove>
        })
    }
}

/// A scripted service as its callers hold it, and what stops what is between.
pub type Reached = (Arc<dyn Tiering>, BoxFuture<'static, ()>);

type Run = fn(Arc<Scripted>, Arc<dyn Tiering>) -> BoxFuture<'static, ()>;

macro_rules! table {
    ($($name:ident;)*) => {
        [$((stringify!($name), (|scripted, tiering| $name(scripted, tiering).boxed()) as Run)),*]
    };
}

/// The trials, as `services::{name}::tiering::{what}`.
pub fn trials(
    name: &str,
    reach: impl Fn(Arc<Scripted>) -> BoxFuture<'static, Reached> + Clone + Send + 'static,
) -> Vec<Trial> {
    let table = table! {
        a_status_comes_whole;
        what_waits_comes_whole_and_breaks_off_with_its_reason;
        what_is_asked_for_arrives;
        every_failure_comes_back_as_it_was;
    };
    let trial = |(what, run): (&str, Run)| {
        let reach = reach.clone();
        crate::trial(format!("services::{name}::tiering::{what}"), move || async move {
            let scripted = Arc::new(Scripted::default());
            let (tiering, stop) = reach(scripted.clone()).await;
            run(scripted, tiering).await;
            stop.await;
        })
    };
    table.into_iter().map(trial).collect()
}

async fn a_status_comes_whole(scripted: Arc<Scripted>, tiering: Arc<dyn Tiering>) {
    assert_eq!(tiering.tiering().await.unwrap(), TieringStatus::default());
    let space = StoreSpace { available: None, used: u64::MAX };
    let status = TieringStatus {
        tiers: vec![
            TierStatus { tier: Tier::Hot, space: Ok(space) },
            TierStatus { tier: Tier::Hot, space: Ok(StoreSpace { available: Some(3), used: 0 }) },
            TierStatus { tier: Tier::Cold, space: Err("it is not mounted".into()) },
        ],
        to_cold: 1,
        to_hot: 2,
        studies_moved: 3,
        objects_moved: 4,
        bytes_moved: 5,
    };
    scripted.script().status = status.clone();
    assert_eq!(tiering.tiering().await.unwrap(), status);
}

async fn what_waits_comes_whole_and_breaks_off_with_its_reason(scripted: Arc<Scripted>, tiering: Arc<dyn Tiering>) {
    let queued = |place: u64, to: Tier, failure: &str| QueuedMove {
        place,
        tenant: "default".into(),
        study_instance_uid: format!("1.2.{place}").parse().unwrap(),
        to,
        by: "operator".into(),
        asked_at_ms: place << 40,
        is_under_way: place == 1,
        failure: failure.into(),
    };
    let all = vec![queued(1, Tier::Hot, ""), queued(2, Tier::Cold, "the cold store is away")];
    scripted.script().moves = all.clone();
    let answers: Vec<_> = tiering.moves().await.unwrap().collect().await;
    let (failed, found) = answers.split_last().unwrap();
    assert_eq!(found.iter().map(|found| found.clone().unwrap()).collect::<Vec<_>>(), all);
    assert_eq!(failed.as_ref().unwrap_err().kind, ErrorKind::Unavailable);
}

fn moves() -> NewMoves {
    let studies = vec!["1.2.3".parse().unwrap(), "1.2.4".parse().unwrap()];
    NewMoves { tenant: "default".into(), studies, to: Tier::Cold, by: "operator".into() }
}

async fn what_is_asked_for_arrives(scripted: Arc<Scripted>, tiering: Arc<dyn Tiering>) {
    let back = NewMoves { to: Tier::Hot, studies: Vec::new(), ..moves() };
    assert_eq!(tiering.move_studies(moves()).await.unwrap(), 7);
    assert_eq!(tiering.move_studies(back.clone()).await.unwrap(), 7);
    assert_eq!(scripted.script().asked, [moves(), back]);
}

async fn every_failure_comes_back_as_it_was(scripted: Arc<Scripted>, tiering: Arc<dyn Tiering>) {
    for kind in [ErrorKind::Invalid, ErrorKind::Exhausted, ErrorKind::Unavailable, ErrorKind::Internal] {
        scripted.script().failure = Some(Error::new(kind, "it can't be done"));
        let failures =
            [tiering.tiering().await.err(), tiering.move_studies(moves()).await.err(), tiering.moves().await.err()];
        for failure in failures {
            assert_eq!(failure.unwrap().kind, kind);
        }
    }
}
