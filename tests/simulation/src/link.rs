//! One direction of what connects two sites: what a site asks of another goes through it, and the answers come back.

use crate::site::Door;
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{PositionVector, SiteId};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Peer,
    ingest::Body,
    replication::{Delivered, Delivery, Introduction, Meeting, Report},
    site::Grounds,
};
use cairn_store_api::ObjectRef;
use cairn_synthetic::Random;
use futures_util::{StreamExt, TryStreamExt};
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// What is wrong with a link. Shares are in percent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Nothing comes through.
    pub requests_cut: bool,
    /// What is asked comes through, answers don't.
    pub answers_cut: bool,
    pub lost_requests: u64,
    pub lost_answers: u64,
    pub repeated: u64,
    /// Objects of which a byte is another when it arrives.
    pub flipped: u64,
    pub delay_ms_max: u64,
}

/// A link.
pub struct Link {
    to: Arc<Door>,
    faults: Mutex<Faults>,
    random: Mutex<Random>,
}

/// How long who asks waits for an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(2);

fn away(what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, what)
}

impl Link {
    pub fn new(to: Arc<Door>, seed: u64) -> Arc<Self> {
        Arc::new(Self { to, faults: Mutex::default(), random: Mutex::new(Random::new(seed)) })
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap()
    }

    fn strikes(&self, percent: u64) -> bool {
        self.random.lock().unwrap().below(100) < percent
    }

    async fn delay(&self) {
        let max = self.faults().delay_ms_max;
        let delay = self.random.lock().unwrap().below(max + 1);
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }

    async fn request_arrives(&self) -> Result<(), Error> {
        self.delay().await;
        let Faults { requests_cut, lost_requests, .. } = *self.faults();
        if requests_cut || self.strikes(lost_requests) {
            tokio::time::sleep(PATIENCE).await;
            return Err(away("no answer: the request was lost"));
        }
        Ok(())
    }

    async fn answer_arrives(&self) -> Result<(), Error> {
        self.delay().await;
        let Faults { answers_cut, lost_answers, .. } = *self.faults();
        if answers_cut || self.strikes(lost_answers) {
            tokio::time::sleep(PATIENCE).await;
            return Err(away("no answer: it was lost"));
        }
        Ok(())
    }

    /// Asks once, or twice when the network repeats it.
    async fn ask<T, F: Future<Output = Result<T, Error>>>(
        &self,
        call: impl Fn(Arc<dyn Peer>) -> F,
    ) -> Result<T, Error> {
        self.request_arrives().await?;
        let repeated = self.faults().repeated;
        if self.strikes(repeated) {
            let _first = self.to.call(&call).await;
        }
        let answer = self.to.call(&call).await;
        self.answer_arrives().await?;
        answer
    }
}

#[async_trait]
impl Peer for Link {
    async fn meet(&self, caller: Introduction) -> Result<Meeting, Error> {
        self.ask(|peer| {
            let caller = caller.clone();
            async move { peer.meet(caller).await }
        })
        .await
    }

    async fn missing(&self, objects: Vec<ObjectRef>) -> Result<Vec<u32>, Error> {
        self.ask(|peer| {
            let objects = objects.clone();
            async move { peer.missing(objects).await }
        })
        .await
    }

    async fn put_object(&self, object: ObjectRef, body: Body<'_>) -> Result<(), Error> {
        self.request_arrives().await?;
        let Faults { flipped, lost_requests, .. } = *self.faults();
        let (mut flip, cut) = (self.strikes(flipped), self.strikes(lost_requests));
        let (mut pieces, mut broken) = (Vec::new(), None);
        let mut body = body;
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => pieces.push(if std::mem::take(&mut flip) { flipped_bit(&piece) } else { piece }),
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        if cut {
            pieces.truncate(pieces.len() / 2);
            broken.get_or_insert(Error::new(ErrorKind::Aborted, "the sender stopped"));
        }
        let arrived: Vec<Result<Bytes, Error>> = pieces.into_iter().map(Ok).chain(broken.clone().map(Err)).collect();
        let taken = self.to.call(|peer| {
            let arrived = arrived.clone();
            async move { peer.put_object(object, Box::pin(futures_util::stream::iter(arrived))).await }
        });
        let taken = taken.await;
        self.answer_arrives().await?;
        match broken {
            Some(error) if error.kind != ErrorKind::Aborted => Err(error),
            Some(_) => Err(away("the connection broke")),
            None => taken,
        }
    }

    /// Bytes come whole, or the connection breaks before them.
    async fn read_object(&self, caller: &SiteId, object: ObjectRef) -> Result<AnswerStream<Bytes>, Error> {
        let pieces = self
            .ask(|peer| {
                let caller = caller.clone();
                async move { peer.read_object(&caller, object).await?.try_collect::<Vec<_>>().await }
            })
            .await?;
        Ok(Box::pin(futures_util::stream::iter(pieces.into_iter().map(Ok))))
    }

    async fn append(&self, delivery: Delivery) -> Result<Delivered, Error> {
        self.ask(|peer| {
            let delivery = delivery.clone();
            async move { peer.append(delivery).await }
        })
        .await
    }

    async fn tell(&self, process: u64, report: Report) -> Result<(), Error> {
        self.ask(|peer| {
            let report = report.clone();
            async move { peer.tell(process, report).await }
        })
        .await
    }

    async fn step_down(&self, successor: &SiteId, grounds: Grounds) -> Result<PositionVector, Error> {
        self.ask(|peer| {
            let (successor, grounds) = (successor.clone(), grounds.clone());
            async move { peer.step_down(&successor, grounds).await }
        })
        .await
    }
}

fn flipped_bit(piece: &Bytes) -> Bytes {
    let mut bytes = piece.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.into()
}
