use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{Position, PositionVector, SiteId};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Peer, Replication,
    ingest::Body,
    replication::{AtRisk, Delivered, Delivery, Inspected, Introduction, Meeting, ReplicationStatus, Report, Suspects},
    site::{Decision, Grounds, SiteStatus},
};
use cairn_store_api::ObjectRef;
use futures_util::{StreamExt, stream};
use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::watch;

/// A site that answers as it is told and keeps what it was given.
pub struct Scripted {
    script: Mutex<Script>,
    arrivals: watch::Sender<Vec<Arrival>>,
}

/// What it answers, and what it was given.
pub(super) struct Script {
    /// Every call fails so, before anything else.
    pub(super) failure: Option<Error>,
    pub(super) meeting: Meeting,
    pub(super) missing: Vec<u32>,
    /// Objects are there already: their bytes are not read.
    pub(super) has_all: bool,
    pub(super) delivered: Delivered,
    pub(super) status: ReplicationStatus,
    pub(super) at_risk: Vec<AtRisk>,
    /// The end of what is at risk.
    pub(super) at_risk_failure: Option<Error>,
    pub(super) introductions: Vec<Introduction>,
    pub(super) offered: Vec<ObjectRef>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) reports: Vec<Report>,
    pub(super) asked_at_risk: Vec<SiteId>,
    pub(super) pauses: Vec<(SiteId, bool)>,
    /// In whose name it was told.
    pub(super) processes: Vec<u64>,
    pub(super) confirmations: Vec<(Position, u32, Duration)>,
    /// Who asked for the bytes of which object; what it gets, and how that ends.
    pub(super) asked_for: Vec<(SiteId, ObjectRef)>,
    pub(super) object: Vec<Bytes>,
    pub(super) object_failure: Option<Error>,
    pub(super) suspects: Vec<Suspects>,
    pub(super) inspected: Vec<Inspected>,
    pub(super) stepped_down: PositionVector,
    pub(super) successors: Vec<(SiteId, Grounds)>,
    pub(super) site: Option<SiteStatus>,
    pub(super) decisions: Vec<(Decision, Grounds)>,
}

/// An object, or as much of it as came.
#[derive(Clone)]
pub(super) struct Arrival {
    pub(super) object: ObjectRef,
    pub(super) bytes: Vec<u8>,
    /// Its body said that this is all.
    pub(super) whole: bool,
}

/// Keeps an arrival also when the call is dropped.
struct Arriving<'a>(Option<Arrival>, &'a watch::Sender<Vec<Arrival>>);

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        let arrival = self.0.take();
        self.1.send_modify(|arrivals| arrivals.extend(arrival));
    }
}

impl Scripted {
    pub(super) fn new(meeting: Meeting, status: ReplicationStatus) -> Self {
        let script = Script {
            failure: None,
            meeting,
            missing: Vec::new(),
            has_all: false,
            delivered: Delivered { repeated: 0 },
            status,
            at_risk: Vec::new(),
            at_risk_failure: None,
            introductions: Vec::new(),
            offered: Vec::new(),
            deliveries: Vec::new(),
            reports: Vec::new(),
            asked_at_risk: Vec::new(),
            pauses: Vec::new(),
            processes: Vec::new(),
            confirmations: Vec::new(),
            asked_for: Vec::new(),
            object: Vec::new(),
            object_failure: None,
            suspects: Vec::new(),
            inspected: Vec::new(),
            stepped_down: PositionVector::default(),
            successors: Vec::new(),
            site: None,
            decisions: Vec::new(),
        };
        Self { script: Mutex::new(script), arrivals: watch::Sender::default() }
    }

    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// The next call.
    fn called(&self) -> Result<MutexGuard<'_, Script>, Error> {
        let script = self.script();
        script.failure.clone().map_or(Ok(()), Err)?;
        Ok(script)
    }

    /// What arrived of an object, once the calls that bring it have ended at the site, each.
    pub(super) async fn arrivals(&self, object: &ObjectRef) -> Vec<Arrival> {
        let of_it = |arrival: &&Arrival| arrival.object == *object;
        let mut arrivals = self.arrivals.subscribe();
        let arrivals = arrivals.wait_for(|arrivals| arrivals.iter().any(|arrival| of_it(&arrival))).await.unwrap();
        arrivals.iter().filter(of_it).cloned().collect()
    }
}

#[async_trait]
impl Peer for Scripted {
    async fn meet(&self, caller: Introduction) -> Result<Meeting, Error> {
        let mut script = self.called()?;
        script.introductions.push(caller);
        Ok(script.meeting.clone())
    }

    async fn missing(&self, objects: Vec<ObjectRef>) -> Result<Vec<u32>, Error> {
        let mut script = self.called()?;
        script.offered.extend(objects);
        Ok(script.missing.clone())
    }

    async fn put_object(&self, object: ObjectRef, mut body: Body<'_>) -> Result<(), Error> {
        if self.called()?.has_all {
            return Ok(());
        }
        let mut arriving = Arriving(Some(Arrival { object, bytes: Vec::new(), whole: false }), &self.arrivals);
        while let Some(chunk) = body.next().await {
            arriving.0.as_mut().unwrap().bytes.extend_from_slice(&chunk?);
        }
        arriving.0.as_mut().unwrap().whole = true;
        Ok(())
    }

    async fn read_object(&self, caller: &SiteId, object: ObjectRef) -> Result<AnswerStream<Bytes>, Error> {
        let mut script = self.called()?;
        script.asked_for.push((caller.clone(), object));
        let end = script.object_failure.clone().map(Err);
        let chunks: Vec<_> = script.object.iter().cloned().map(Ok).chain(end).collect();
        Ok(Box::pin(stream::iter(chunks)))
    }

    async fn append(&self, delivery: Delivery) -> Result<Delivered, Error> {
        let mut script = self.called()?;
        script.deliveries.push(delivery);
        Ok(script.delivered.clone())
    }

    async fn tell(&self, process: u64, report: Report) -> Result<(), Error> {
        self.called()?.processes.push(process);
        self.called()?.reports.push(report);
        Ok(())
    }

    async fn step_down(&self, successor: &SiteId, grounds: Grounds) -> Result<PositionVector, Error> {
        let mut script = self.called()?;
        script.successors.push((successor.clone(), grounds));
        Ok(script.stepped_down.clone())
    }
}

#[async_trait]
impl Replication for Scripted {
    async fn status(&self) -> Result<ReplicationStatus, Error> {
        Ok(self.called()?.status.clone())
    }

    async fn at_risk(&self, peer: &SiteId) -> Result<AnswerStream<AtRisk>, Error> {
        let mut script = self.called()?;
        script.asked_at_risk.push(peer.clone());
        let end = script.at_risk_failure.clone().map(Err);
        let answers: Vec<_> = script.at_risk.iter().cloned().map(Ok).chain(end).collect();
        Ok(Box::pin(stream::iter(answers)))
    }

    async fn confirm(&self, position: &Position, sites: u32, timeout: Duration) -> Result<u32, Error> {
        self.called()?.confirmations.push((position.clone(), sites, timeout));
        Ok(sites + 1)
    }

    async fn repair(&self, suspects: Suspects) -> Result<AnswerStream<Inspected>, Error> {
        let mut script = self.called()?;
        script.suspects.push(suspects);
        let answers: Vec<_> = script.inspected.iter().cloned().map(Ok).collect();
        Ok(Box::pin(stream::iter(answers)))
    }

    async fn set_paused(&self, peer: &SiteId, paused: bool) -> Result<(), Error> {
        self.called()?.pauses.push((peer.clone(), paused));
        Ok(())
    }

    async fn site(&self) -> Result<SiteStatus, Error> {
        self.called()?.site.clone().ok_or_else(|| Error::new(ErrorKind::NotFound, "not said"))
    }

    async fn decide(&self, decision: Decision, grounds: Grounds) -> Result<SiteStatus, Error> {
        self.called()?.decisions.push((decision, grounds));
        self.site().await
    }
}
