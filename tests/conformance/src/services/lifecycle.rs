//! Trials of [`Lifecycle`]: on a scripted service, and on a client of it.

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    Digest, EventId, ObjectKey,
    events::{Damage, DamageFoundBy},
};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Lifecycle,
    lifecycle::{DamagedObject, FixityStatus, NamedObject, Round, SecondCopies},
    orphans::{Orphan, OrphanLook, OrphansKept, OrphansStatus},
};
use cairn_store_api::{ObjectInfo, ObjectRef};
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
    orphans_status: Option<OrphansStatus>,
    orphans: Vec<Orphan>,
    looks: u32,
    released: Vec<u64>,
    read: Vec<ObjectKey>,
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

    async fn orphans_status(&self) -> Result<OrphansStatus, Error> {
        self.answer(|script| script.orphans_status.clone().unwrap())
    }

    async fn orphans(&self) -> Result<AnswerStream<Orphan>, Error> {
        let orphans = self.answer(|script| script.orphans.clone())?;
        Ok(Box::pin(stream::iter(orphans.into_iter().map(Ok))))
    }

    async fn look_for_orphans(&self) -> Result<(), Error> {
        self.answer(|script| script.looks += 1)
    }

    async fn release_orphans(&self, look: u64) -> Result<(), Error> {
        self.answer(|script| script.released.push(look))
    }

    async fn read_orphan(&self, key: ObjectKey) -> Result<AnswerStream<Bytes>, Error> {
        self.answer(|script| script.read.push(key))?;
        let broken = Error::new(ErrorKind::Corrupt, "damaged");
        Ok(Box::pin(stream::iter([Ok(Bytes::from_static(b"DI")), Ok(Bytes::from_static(b"CM")), Err(broken)])))
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
        orphans_come_whole_and_in_order;
        what_is_asked_of_orphans_arrives_and_their_bytes_break_off_with_their_reason;
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
        copies: None,
    };
    let last_whole = Some(Round { number: 6, ended_at_ms: Some(8), ..round });
    let late = FixityStatus { round: Some(round), last_whole, period_is_kept: false, damaged: 2, ..early.clone() };
    let late = FixityStatus { copies: Some(SecondCopies { behind_events: 3, made_anew: 4, is_away: true }), ..late };
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

async fn orphans_come_whole_and_in_order(scripted: Arc<Scripted>, lifecycle: Arc<dyn Lifecycle>) {
    let last = OrphanLook {
        number: 1,
        began_at_ms: 2,
        ended_at_ms: 3,
        events: 4,
        objects: u64::MAX,
        removed: 5,
        removed_bytes: 6,
    };
    let never = OrphansStatus {
        site: "east".parse().unwrap(),
        at_ms: 9,
        last: None,
        orphans: 0,
        bytes: 0,
        kept: None,
        grace: Duration::from_millis(1),
    };
    let reasons = [OrphansKept::TooMany, OrphansKept::NewLife, OrphansKept::UnreadableRecords];
    let looked =
        reasons.map(|kept| OrphansStatus { last: Some(last), orphans: 7, bytes: 8, kept: Some(kept), ..never.clone() });
    for status in looked.into_iter().chain([never]) {
        scripted.script().orphans_status = Some(status.clone());
        assert_eq!(lifecycle.orphans_status().await.unwrap(), status);
    }
    let orphan = |n: u8| {
        let info = ObjectInfo { object: named(n).object, put_ended_at_ms: u64::from(n) << 40 };
        Orphan { info, found_at_ms: u64::from(n), look: u64::from(n) << 50 }
    };
    scripted.script().orphans = vec![orphan(0), orphan(1), orphan(255)];
    let found: Vec<_> = lifecycle.orphans().await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(found, [orphan(0), orphan(1), orphan(255)]);
}

async fn what_is_asked_of_orphans_arrives_and_their_bytes_break_off_with_their_reason(
    scripted: Arc<Scripted>,
    lifecycle: Arc<dyn Lifecycle>,
) {
    lifecycle.look_for_orphans().await.unwrap();
    lifecycle.release_orphans(u64::MAX).await.unwrap();
    let key = named(9).object.key;
    let mut bytes = lifecycle.read_orphan(key).await.unwrap();
    assert_eq!(bytes.next().await.unwrap().unwrap().as_ref(), b"DI");
    assert_eq!(bytes.next().await.unwrap().unwrap().as_ref(), b"CM");
    assert_eq!(bytes.next().await.unwrap().unwrap_err().kind, ErrorKind::Corrupt);
    let script = scripted.script();
    assert_eq!((script.looks, script.released.as_slice(), script.read.as_slice()), (1, &[u64::MAX][..], &[key][..]));
}

async fn every_failure_comes_back_as_it_was(scripted: Arc<Scripted>, lifecycle: Arc<dyn Lifecycle>) {
    for kind in [ErrorKind::Unavailable, ErrorKind::Corrupt, ErrorKind::Conflict] {
        scripted.script().failure = Some(Error::new(kind, "because"));
        let failures = [
            lifecycle.fixity().await.err(),
            lifecycle.damaged().await.err(),
            lifecycle.scrub().await.err(),
            lifecycle.suspect(named(1), DamageFoundBy::Commitment).await.err(),
            lifecycle.orphans_status().await.err(),
            lifecycle.orphans().await.err(),
            lifecycle.look_for_orphans().await.err(),
            lifecycle.release_orphans(1).await.err(),
            lifecycle.read_orphan(named(1).object.key).await.err(),
        ];
        for failure in failures {
            let failure = failure.unwrap();
            assert_eq!((failure.kind, failure.message.as_str()), (kind, "because"));
        }
    }
}
