//! Trials of [`Lifecycle`]: on a scripted service, and on a client of it.

use async_trait::async_trait;
use cairn_archive::{
    Digest, EventId, ObjectKey,
    events::{Damage, DamageFoundBy},
};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Lifecycle,
    lifecycle::{DamagedObject, FixityStatus, NamedObject, Round},
};
use cairn_store_api::ObjectRef;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use libtest_mimic::Trial;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// What the scripted service answers, and what it was asked.
#[derive(Default)]
pub struct Script {
    fixity: Option<FixityStatus>,
    damaged: Vec<DamagedObject>,
    scrubs: u32,
    suspects: Vec<(NamedObject, DamageFoundBy)>,
    whole: bool,
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
impl Lifecycle for Scripted {
    async fn fixity(&self) -> Result<FixityStatus, Error> {
        self.answer(|script| script.fixity.clone().unwrap())
    }

    async fn damaged(&self) -> Result<AnswerStream<DamagedObject>, Error> {
        let damaged = self.answer(|script| script.damaged.clone())?;
        let broken = Error::new(ErrorKind::Corrupt, "a note can't be read");
        Ok(Box::pin(stream::iter(damaged.into_iter().map(Ok).chain([Err(broken)]))))
    }

    async fn scrub(&self) -> Result<(), Error> {
        self.answer(|script| script.scrubs += 1)
    }

    async fn suspect(&self, named: NamedObject, found_by: DamageFoundBy) -> Result<bool, Error> {
        self.answer(|script| {
            script.suspects.push((named, found_by));
            script.whole
        })
    }
}

/// A scripted service as its callers hold it, and what stops what is between.
pub type Reached = (Arc<dyn Lifecycle>, BoxFuture<'static, ()>);

type Run = fn(Arc<Scripted>, Arc<dyn Lifecycle>) -> BoxFuture<'static, ()>;

macro_rules! table {
    ($($name:ident;)*) => {
        [$((stringify!($name), (|scripted, lifecycle| $name(scripted, lifecycle).boxed()) as Run)),*]
    };
}

/// The trials, as `services::{name}::lifecycle::{what}`.
pub fn trials(
    name: &str,
    reach: impl Fn(Arc<Scripted>) -> BoxFuture<'static, Reached> + Clone + Send + 'static,
) -> Vec<Trial> {
    let table = table! {
        how_far_everything_is_read_comes_whole;
        what_is_damaged_comes_in_order_and_breaks_off_with_its_reason;
        what_is_asked_for_arrives;
        every_failure_comes_back_as_it_was;
    };
    let trial = |(what, run): (&str, Run)| {
        let reach = reach.clone();
        crate::trial(format!("services::{name}::lifecycle::{what}"), move || async move {
            let scripted = Arc::new(Scripted::default());
            let (lifecycle, stop) = reach(scripted.clone()).await;
            run(scripted, lifecycle).await;
            stop.await;
        })
    };
    table.into_iter().map(trial).collect()
}

fn named(n: u8) -> NamedObject {
    let key = ObjectKey::from_slice(&[n; 16]).unwrap();
    let text = |text: &str| if n == 0 { String::new() } else { format!("{text}{n}") };
    NamedObject {
        object: ObjectRef { key, length: u64::from(n) << 56, digest: Digest([n.wrapping_add(1); 32]) },
        named_by: EventId::from_slice(&[n.wrapping_add(2); 16]).unwrap(),
        tenant: text("hospital-"),
        study_instance_uid: text("1.2.3."),
        series_instance_uid: text("1.2.4."),
        sop_instance_uid: text("1.2.5."),
    }
}

async fn how_far_everything_is_read_comes_whole(scripted: Arc<Scripted>, lifecycle: Arc<dyn Lifecycle>) {
    let round = Round {
        number: 7,
        began_at_ms: 1,
        ended_at_ms: None,
        events: 2,
        events_total: u64::MAX,
        objects: 3,
        bytes: 4,
        damaged: 5,
        repaired: 6,
    };
    let early = FixityStatus {
        site: "east".parse().unwrap(),
        at_ms: 9,
        round: None,
        last_whole: None,
        period: Duration::from_millis(1),
        bytes_per_second: u64::MAX,
        period_is_kept: true,
        damaged: 0,
    };
    let last_whole = Some(Round { number: 6, ended_at_ms: Some(8), ..round });
    let late = FixityStatus { round: Some(round), last_whole, period_is_kept: false, damaged: 2, ..early.clone() };
    for status in [early, late] {
        scripted.script().fixity = Some(status.clone());
        assert_eq!(lifecycle.fixity().await.unwrap(), status);
    }
}

async fn what_is_damaged_comes_in_order_and_breaks_off_with_its_reason(
    scripted: Arc<Scripted>,
    lifecycle: Arc<dyn Lifecycle>,
) {
    let one = |n: u8, damage, found_by, tried| DamagedObject {
        named: named(n),
        damage,
        found_by,
        found_at_ms: u64::from(n),
        event: EventId::from_slice(&[n; 16]).unwrap(),
        tried,
    };
    let damaged = vec![
        one(0, Damage::Gone, DamageFoundBy::Scrub, None),
        one(1, Damage::Bytes, DamageFoundBy::Retrieval, Some((3, "nobody has it".to_owned()))),
        one(255, Damage::Bytes, DamageFoundBy::Commitment, Some((0, String::new()))),
    ];
    scripted.script().damaged = damaged.clone();
    let answers: Vec<_> = lifecycle.damaged().await.unwrap().collect().await;
    let (failed, found) = answers.split_last().unwrap();
    let found: Vec<_> = found.iter().map(|found| found.clone().unwrap()).collect();
    assert_eq!(found, damaged);
    assert_eq!(failed.as_ref().unwrap_err().kind, ErrorKind::Corrupt);
}

async fn what_is_asked_for_arrives(scripted: Arc<Scripted>, lifecycle: Arc<dyn Lifecycle>) {
    lifecycle.scrub().await.unwrap();
    assert_eq!(scripted.script().scrubs, 1);
    for whole in [true, false] {
        scripted.script().whole = whole;
        assert_eq!(lifecycle.suspect(named(9), DamageFoundBy::Retrieval).await.unwrap(), whole);
    }
    assert_eq!(scripted.script().suspects, vec![(named(9), DamageFoundBy::Retrieval); 2]);
}

async fn every_failure_comes_back_as_it_was(scripted: Arc<Scripted>, lifecycle: Arc<dyn Lifecycle>) {
    for kind in [ErrorKind::Unavailable, ErrorKind::Corrupt, ErrorKind::Conflict] {
        scripted.script().failure = Some(Error::new(kind, "because"));
        let failures = [
            lifecycle.fixity().await.err(),
            lifecycle.damaged().await.err(),
            lifecycle.scrub().await.err(),
            lifecycle.suspect(named(1), DamageFoundBy::Commitment).await.err(),
        ];
        for failure in failures {
            let failure = failure.unwrap();
            assert_eq!((failure.kind, failure.message.as_str()), (kind, "because"));
        }
    }
}
