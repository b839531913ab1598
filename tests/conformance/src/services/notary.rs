//! Trials of [`Notary`]: on a scripted service, and on a client of it.

use async_trait::async_trait;
use cairn_archive::{Offset, Partition, Position};
use cairn_service_api::{
    Error, ErrorKind, Notary,
    notary::{LogSealing, NotaryStatus, SealedPartition, SignedCheckpoint},
};
use futures_util::{FutureExt, future::BoxFuture};
use libtest_mimic::Trial;
use std::sync::{Arc, Mutex, MutexGuard};

/// What the scripted service answers, and what it was asked.
#[derive(Default)]
pub struct Script {
    status: Option<NotaryStatus>,
    asked: Vec<String>,
    failure: Option<Error>,
}

/// A service that answers as it is told.
#[derive(Default)]
pub struct Scripted(Mutex<Script>);

impl Scripted {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    fn answer<T>(&self, asked: String, answer: impl FnOnce(&Script) -> T) -> Result<T, Error> {
        let mut script = self.script();
        script.asked.push(asked);
        match script.failure.clone() {
            Some(failure) => Err(failure),
            None => Ok(answer(&script)),
        }
    }
}

#[async_trait]
impl Notary for Scripted {
    async fn notary(&self) -> Result<NotaryStatus, Error> {
        self.answer("status".into(), |script| script.status.clone().unwrap())
    }

    async fn checkpoint(&self, accept_breaks: bool) -> Result<SignedCheckpoint, Error> {
        self.answer(format!("checkpoint {accept_breaks}"), |_| signed(3))
    }

    async fn prove_event(&self, position: &Position, with_payload: bool) -> Result<String, Error> {
        self.answer(format!("event {position} {with_payload}"), |_| "a proof\n".into())
    }

    async fn prove_consistency(&self, older: &str, newer: Option<&str>) -> Result<String, Error> {
        self.answer(format!("consistency {older:?} {newer:?}"), |_| "another\n".into())
    }

    async fn sealed(&self) -> Result<LogSealing, Error> {
        self.answer("sealed".into(), |_| sealed())
    }

    async fn seal(&self) -> Result<(), Error> {
        self.answer("seal".into(), |_| ())
    }
}

fn sealed() -> LogSealing {
    let partition = |number: u16| {
        let (at, n) = (|n: u64| Offset(u64::MAX - u64::from(number) * n), u64::from(number));
        let partition = Partition(number);
        SealedPartition { partition, ranges: n, bytes: n << 50, sealed_to: at(3), log_begin: at(2), log_end: at(1) }
    };
    let trouble = Some("why".into());
    LogSealing { site: "east".parse().unwrap(), partitions: (0..3).map(partition).collect(), trouble }
}

fn signed(n: u64) -> SignedCheckpoint {
    SignedCheckpoint { number: n, at_ms: n << 40, events: n << 50, breaks: n + 1, document: format!("{n}\n\u{2014}\n") }
}

/// A scripted service as its callers hold it, and what stops what is between.
pub type Reached = (Arc<dyn Notary>, BoxFuture<'static, ()>);

type Run = fn(Arc<Scripted>, Arc<dyn Notary>) -> BoxFuture<'static, ()>;

macro_rules! table {
    ($($name:ident;)*) => {
        [$((stringify!($name), (|scripted, notary| $name(scripted, notary).boxed()) as Run)),*]
    };
}

/// The trials, as `services::{name}::notary::{what}`.
pub fn trials(
    name: &str,
    reach: impl Fn(Arc<Scripted>) -> BoxFuture<'static, Reached> + Clone + Send + 'static,
) -> Vec<Trial> {
    let table = table! {
        how_far_it_is_comes_whole;
        what_is_asked_for_arrives_and_is_answered;
        every_failure_comes_back_as_it_was;
    };
    let trial = |(what, run): (&str, Run)| {
        let reach = reach.clone();
        crate::trial(format!("services::{name}::notary::{what}"), move || async move {
            let scripted = Arc::new(Scripted::default());
            let (notary, stop) = reach(scripted.clone()).await;
            run(scripted, notary).await;
            stop.await;
        })
    };
    table.into_iter().map(trial).collect()
}

async fn how_far_it_is_comes_whole(scripted: Arc<Scripted>, notary: Arc<dyn Notary>) {
    let full = NotaryStatus {
        site: "east".parse().unwrap(),
        at_ms: 7,
        has_key: true,
        events: (u64::MAX, 9),
        latest: Some(signed(5)),
        exported: Some(0),
        trouble: Some(String::new()),
    };
    let bare = NotaryStatus { has_key: false, latest: None, exported: None, trouble: None, ..full.clone() };
    for status in [full, bare] {
        scripted.script().status = Some(status.clone());
        assert_eq!(notary.notary().await.unwrap(), status);
    }
}

async fn what_is_asked_for_arrives_and_is_answered(scripted: Arc<Scripted>, notary: Arc<dyn Notary>) {
    let position = "east/3/7/18446744073709551615".parse().unwrap();
    assert_eq!(notary.checkpoint(true).await.unwrap(), signed(3));
    assert_eq!(notary.checkpoint(false).await.unwrap(), signed(3));
    assert_eq!(notary.prove_event(&position, true).await.unwrap(), "a proof\n");
    assert_eq!(notary.prove_consistency("old\n", None).await.unwrap(), "another\n");
    assert_eq!(notary.prove_consistency("", Some("")).await.unwrap(), "another\n");
    assert_eq!(notary.sealed().await.unwrap(), sealed());
    notary.seal().await.unwrap();
    let asked = [
        "checkpoint true",
        "checkpoint false",
        "event east/3/7/18446744073709551615 true",
        "consistency \"old\\n\" None",
        "consistency \"\" Some(\"\")",
        "sealed",
        "seal",
    ];
    assert_eq!(scripted.script().asked, asked);
}

async fn every_failure_comes_back_as_it_was(scripted: Arc<Scripted>, notary: Arc<dyn Notary>) {
    for kind in [ErrorKind::NotFound, ErrorKind::Conflict, ErrorKind::Invalid, ErrorKind::Corrupt] {
        scripted.script().failure = Some(Error::new(kind, "why"));
        let position = "east/3/7/0".parse().unwrap();
        let failures = [
            notary.notary().await.err(),
            notary.checkpoint(false).await.err(),
            notary.prove_event(&position, false).await.err(),
            notary.prove_consistency("", None).await.err(),
            notary.sealed().await.err(),
            notary.seal().await.err(),
        ];
        for failure in failures {
            let failure = failure.unwrap();
            assert_eq!((failure.kind, failure.message.as_str()), (kind, "why"));
        }
    }
}
