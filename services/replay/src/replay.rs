//! The log, or a part of it, to another archive.

use crate::{
    Destination, Filter, LogReader, Pace, Patience, Start, Stopped,
    journal::{self, Journal, Notes, Progress},
    outlet::{Outlet, Taken, Untaken},
    select::Candidate,
};
use bytes::Bytes;
use cairn_archive::{Partition, Position, SiteId, events::Event};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Index, Retrieval,
    index::{Detail, InstanceRecord},
    retrieval::Part,
};
use cairn_store_api::LogRecord;
use futures_util::{StreamExt, stream};
use serde_json::json;
use std::{collections::BTreeSet, future::Future, path::Path, pin::Pin, sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Events read after which the journal says how far it is, though none of them was selected.
const READ_BETWEEN_CHECKPOINTS: u64 = 1 << 16;
/// What is under way when the operator ends a run is waited for so long.
const LAST_PATIENCE: Duration = Duration::from_secs(20);

/// A replay as it is asked for.
pub struct Replay<'a> {
    /// The log.
    pub log: &'a dyn LogReader,
    /// The index.
    pub index: Arc<dyn Index>,
    /// Gives the instances, with whatever corrections there are.
    pub retrieval: Arc<dyn Retrieval>,
    /// Where to.
    pub destination: Destination,
    /// What the journal calls it.
    pub destination_name: String,
    /// What.
    pub filter: Filter,
    /// Connections at once.
    pub connections: usize,
    /// How fast.
    pub pace: Pace,
    /// How often something is tried.
    pub patience: Patience,
    /// For the index to fold what the log had at the start.
    pub index_timeout: Duration,
}

/// What became of what was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that the log has, those that earlier runs read included.
    pub events: u64,
    /// Events read, by earlier runs too.
    pub read: u64,
    /// Instances that the destination stored, by earlier runs too; the counts below are like that.
    pub stored: u64,
    /// Instances that it stored with a warning.
    pub warned: u64,
    /// Instances that it refused.
    pub refused: u64,
    /// Instances that this archive could not give.
    pub unsent: u64,
    /// Instances that would be sent.
    pub noted: u64,
    /// Selected versions that are not shown, passed over by this run.
    pub not_shown: u64,
    /// Instances that earlier runs dealt with.
    pub before: u64,
    /// Bytes sent by this run.
    pub bytes: u64,
}

impl Counts {
    fn add(&mut self, result: &str) {
        *match result {
            "stored" => &mut self.stored,
            "warned" => &mut self.warned,
            "refused" => &mut self.refused,
            "unsent" => &mut self.unsent,
            "noted" => &mut self.noted,
            _ => &mut self.not_shown,
        } += 1;
    }
}

/// What became of one instance.
struct Outcome {
    result: &'static str,
    detail: String,
    bytes: u64,
}

/// A task has ended; its outlet can be used on.
struct Done {
    outlet: Box<dyn Outlet>,
    candidate: Candidate,
    outcome: Result<Outcome, Stopped>,
}

/// What every task needs.
struct Shared {
    index: Arc<dyn Index>,
    retrieval: Arc<dyn Retrieval>,
    pace: Pace,
    patience: Patience,
    all_versions: bool,
}

struct Run<'a> {
    shared: Arc<Shared>,
    filter: &'a Filter,
    idle: Vec<Box<dyn Outlet>>,
    running: JoinSet<Done>,
    /// SOP Instance UIDs under way: versions of one instance go one after the other, in their order.
    busy: BTreeSet<String>,
    progress: Vec<Progress>,
    checkpoints: Vec<u64>,
    read_since_checkpoint: u64,
    journal: Journal,
    counts: Counts,
    stop: Pin<&'a mut (dyn Future<Output = ()> + Send)>,
    on: &'a mut (dyn FnMut(&Counts) + Send),
}

/// Sends what is selected; goes on where the journal says that an earlier run stopped. `stop` ends it early.
///
/// # Errors
/// [`Stopped`]. Whatever was done is in the journal.
pub async fn run(
    replay: Replay<'_>,
    notes: &Notes,
    stop: impl Future<Output = ()> + Send,
    on: &mut (dyn FnMut(&Counts) + Send),
) -> Result<Counts, Stopped> {
    let extent = replay.log.describe().await?;
    let selection = replay.filter.selection().clone();
    let head = json!({
        "replay": 1,
        "destination": replay.destination_name,
        "selection": selection,
        "site": extent.site.as_str(),
        "incarnation": extent.incarnation,
        "ends": extent.ends.iter().map(|end| end.0).collect::<Vec<_>>(),
    });
    let matching = ["replay", "destination", "selection", "site", "incarnation"];
    let (journal, head, went_on) = Journal::open(notes.path(), &head, &matching)?;
    let ends: Vec<u64> = serde_json::from_value(head["ends"].clone()).unwrap_or_default();
    replay.index.wait_for(&extent.end, replay.index_timeout).await?;
    let stop = std::pin::pin!(stop);
    let mut run = Run {
        shared: Arc::new(Shared {
            index: replay.index,
            retrieval: replay.retrieval,
            pace: replay.pace,
            patience: replay.patience,
            all_versions: selection.all_versions,
        }),
        filter: &replay.filter,
        idle: (0..replay.connections.max(1)).map(|_| replay.destination.open()).collect(),
        running: JoinSet::new(),
        busy: BTreeSet::new(),
        progress: vec![Progress::default(); ends.len()],
        checkpoints: vec![0; ends.len()],
        read_since_checkpoint: 0,
        journal,
        counts: Counts { events: ends.iter().sum(), ..Counts::default() },
        stop,
        on,
    };
    if went_on {
        run.load(notes.path())?;
    }
    let read = run.read(replay.log, &extent.site, extent.incarnation, &ends).await;
    let drained = run.drain(read.is_err()).await;
    run.checkpoint()?;
    for outlet in &mut run.idle {
        outlet.close().await;
    }
    // Why it ended first counts.
    read.and(drained)?;
    Ok(run.counts)
}

impl Run<'_> {
    /// What earlier runs did.
    fn load(&mut self, path: &Path) -> Result<(), Stopped> {
        for line in journal::lines(path)? {
            let line = line?;
            let place = |name: &str| -> Option<(usize, u64)> { serde_json::from_value(line.get(name)?.clone()).ok() };
            if let Some((partition, to)) = place("done")
                && let Some(progress) = self.progress.get_mut(partition)
            {
                progress.was_done_to(to);
            }
            if let Some((partition, offset)) = place("at")
                && let Some(progress) = self.progress.get_mut(partition)
            {
                progress.was_done(offset);
                self.counts.add(line["result"].as_str().unwrap_or_default());
                self.counts.before += 1;
            }
        }
        self.counts.read = self.progress.iter().map(Progress::begun_to).sum();
        Ok(())
    }

    async fn read(
        &mut self,
        log: &dyn LogReader,
        site: &SiteId,
        incarnation: u32,
        ends: &[u64],
    ) -> Result<(), Stopped> {
        let selection = self.filter.selection();
        let (from_ms, to_ms) = (selection.from_ms, selection.to_ms);
        for (at, end) in ends.iter().enumerate() {
            let Ok(number) = u16::try_from(at) else { break };
            let begun_to = self.progress[at].begun_to();
            if begun_to >= *end {
                continue;
            }
            let start = match from_ms {
                Some(from) if begun_to == 0 => Start::Time(from),
                _ => Start::Offset(cairn_archive::Offset(begun_to)),
            };
            let mut records = log.read(Partition(number), start).await?;
            while let Some(record) = records.next().await {
                let record = record?;
                let is_beyond = record.offset.0 >= *end || to_ms.is_some_and(|to| record.appended_at_ms >= to);
                if is_beyond {
                    break;
                }
                let position = Position {
                    site: site.clone(),
                    incarnation: cairn_archive::Incarnation(incarnation),
                    partition: Partition(number),
                    offset: record.offset,
                };
                self.step(at, position, record).await?;
            }
            // What is left is not selected.
            self.progress[at].begin(end - 1, false);
            self.counts.read = self.progress.iter().map(Progress::begun_to).sum();
        }
        Ok(())
    }

    /// Deals with one event: what is selected is handed to a task.
    async fn step(&mut self, at: usize, position: Position, record: LogRecord) -> Result<(), Stopped> {
        let candidate = self.selected(position, record).await?;
        let offset = candidate.as_ref().map_or_else(|offset| *offset, |candidate| candidate.position.offset.0);
        let candidate = candidate.ok();
        if let Some(candidate) = &candidate {
            self.make_room(&candidate.event.sop_instance_uid).await?;
        }
        let has_work = self.progress[at].begin(offset, candidate.is_some());
        self.read_since_checkpoint += 1;
        self.counts.read = self.progress.iter().map(Progress::begun_to).sum();
        if let (true, Some(candidate)) = (has_work, candidate)
            && let Some(mut outlet) = self.idle.pop()
        {
            self.busy.insert(candidate.event.sop_instance_uid.clone());
            let shared = self.shared.clone();
            self.running.spawn(async move {
                let outcome = shared.send(outlet.as_mut(), &candidate).await;
                Done { outlet, candidate, outcome }
            });
        }
        if self.read_since_checkpoint >= READ_BETWEEN_CHECKPOINTS {
            self.checkpoint()?;
        }
        (self.on)(&self.counts);
        Ok(())
    }

    /// The event as a candidate if it is selected, else its offset.
    async fn selected(&self, position: Position, record: LogRecord) -> Result<Result<Candidate, u64>, Stopped> {
        let offset = position.offset.0;
        let envelope = record.record.envelope;
        // What can't be read is parked, and was never shown.
        let Ok(Event::InstanceStored(event)) = Event::decode(&envelope.kind, record.record.payload) else {
            return Ok(Err(offset));
        };
        let candidate = Candidate { position, stored_at_ms: envelope.hlc.wall_ms, event };
        if !self.filter.may_select(&candidate) {
            return Ok(Err(offset));
        }
        let header = match candidate.header() {
            Some(header) => header,
            None if self.filter.needs_header() => self.shared.header(&candidate).await?,
            None => Bytes::new(),
        };
        let selects = self.filter.selects(&candidate, &header);
        let is_selected = selects.map_err(|error| Stopped::Refused(format!("{}: {error}", candidate.position)))?;
        Ok(if is_selected { Ok(candidate) } else { Err(offset) })
    }

    /// Waits until an outlet is free and no other version of the instance is under way.
    async fn make_room(&mut self, sop_instance_uid: &str) -> Result<(), Stopped> {
        while self.idle.is_empty() || self.busy.contains(sop_instance_uid) {
            tokio::select! {
                biased;
                () = &mut self.stop => return Err(Stopped::Interrupted),
                done = self.running.join_next() => match done {
                    Some(done) => self.ended(done)?,
                    None => return Err(Stopped::Refused("no connection is left".into())),
                },
            }
        }
        // Also where there is always room.
        let mut now = std::pin::pin!(tokio::task::yield_now());
        tokio::select! {
            biased;
            () = &mut self.stop => return Err(Stopped::Interrupted),
            () = &mut now => {}
        }
        Ok(())
    }

    fn ended(&mut self, done: Result<Done, tokio::task::JoinError>) -> Result<(), Stopped> {
        let Done { outlet, candidate, outcome } =
            done.map_err(|_| Stopped::Refused("a task of the replay has ended".into()))?;
        self.idle.push(outlet);
        let event = &candidate.event;
        self.busy.remove(&event.sop_instance_uid);
        let outcome = outcome?;
        self.counts.add(outcome.result);
        self.counts.bytes += outcome.bytes;
        let (partition, offset) = (candidate.position.partition.0, candidate.position.offset.0);
        if outcome.result != "not-shown" {
            let digest = event.object.as_ref().map(|object| object.blake3.iter().map(|b| format!("{b:02x}")).collect());
            self.journal.write(&json!({
                "at": [partition, offset],
                "study": event.study_instance_uid,
                "series": event.series_instance_uid,
                "sop": event.sop_instance_uid,
                "class": event.sop_class_uid,
                "blake3": digest.unwrap_or_else(String::new),
                "result": outcome.result,
                "detail": outcome.detail,
            }))?;
        }
        if let Some(progress) = self.progress.get_mut(usize::from(partition)) {
            progress.end(offset);
        }
        if self.journal.is_due() {
            self.checkpoint()?;
        }
        (self.on)(&self.counts);
        Ok(())
    }

    /// Makes durable what was done, then says how far all is done.
    fn checkpoint(&mut self) -> Result<(), Stopped> {
        self.read_since_checkpoint = 0;
        self.journal.sync()?;
        for (partition, (progress, checkpoint)) in self.progress.iter().zip(&mut self.checkpoints).enumerate() {
            let done_to = progress.done_to();
            if done_to > *checkpoint {
                *checkpoint = done_to;
                self.journal.write(&json!({ "done": [partition, done_to] }))?;
            }
        }
        self.journal.sync()?;
        Ok(())
    }

    /// Waits for what is under way; not for ever, if the run ends early.
    async fn drain(&mut self, ends_early: bool) -> Result<(), Stopped> {
        let mut first = Ok(());
        let deadline = tokio::time::Instant::now() + LAST_PATIENCE;
        let mut ends_early = ends_early;
        loop {
            let next = async {
                match ends_early {
                    true => tokio::time::timeout_at(deadline, self.running.join_next()).await.unwrap_or(None),
                    false => self.running.join_next().await,
                }
            };
            let done = tokio::select! {
                biased;
                () = &mut self.stop, if !ends_early => {
                    (first, ends_early) = (first.and(Err(Stopped::Interrupted)), true);
                    continue;
                }
                done = next => done,
            };
            let Some(done) = done else { break };
            let ended = self.ended(done);
            ends_early |= ended.is_err();
            first = first.and(ended);
        }
        self.running.abort_all();
        first
    }
}

impl Shared {
    /// The header of an instance that has too large a one for its event.
    async fn header(&self, candidate: &Candidate) -> Result<Bytes, Stopped> {
        let Some(selection) = candidate.instances() else { return Ok(Bytes::new()) };
        let record = self.retrieval.metadata(selection).await?.next().await.transpose()?;
        Ok(record.map(|record| record.header).unwrap_or_default())
    }

    async fn send(&self, outlet: &mut dyn Outlet, candidate: &Candidate) -> Result<Outcome, Stopped> {
        let unsent = |detail: String| Outcome { result: "unsent", detail, bytes: 0 };
        self.pace.instances(1).await;
        let mut attempt = 0;
        loop {
            let (record, bytes) = match self.open(outlet.part(), candidate).await {
                Ok(Some((record, _))) if !record.shown && !self.all_versions => {
                    return Ok(Outcome { result: "not-shown", detail: String::new(), bytes: 0 });
                }
                Ok(Some(opened)) => opened,
                Ok(None) => return Ok(unsent("the index does not know it".into())),
                Err(error) if !error.kind.is_retryable() => return Ok(unsent(error.message)),
                Err(error) if !self.patience.wait(&mut attempt).await => return Err(error.into()),
                Err(_) => continue,
            };
            let length = record.given_length().unwrap_or(record.object.length);
            let done = |result, detail, bytes| Ok(Outcome { result, detail, bytes });
            match outlet.send(&record, self.pace.paced(bytes)).await {
                Ok(Taken::Stored) => return done("stored", String::new(), length),
                Ok(Taken::Warned(detail)) => return done("warned", detail, length),
                Ok(Taken::Refused(detail)) => return done("refused", detail, 0),
                Ok(Taken::Noted) => return done("noted", String::new(), 0),
                Err(Untaken::Hopeless(what)) => return Err(Stopped::Refused(what)),
                Err(Untaken::Source(error)) if !error.kind.is_retryable() => return Ok(unsent(error.message)),
                Err(_) if self.patience.attempts > attempt + 1 => {
                    self.patience.wait(&mut attempt).await;
                }
                Err(Untaken::Source(error)) => return Err(error.into()),
                Err(Untaken::Busy(detail)) => return done("refused", detail, 0),
                Err(Untaken::Unreachable(what)) => return Err(Stopped::Unreachable(what)),
            }
        }
    }

    /// The version that the event stored, with the bytes that the outlet wants.
    async fn open(
        &self,
        part: Option<Part>,
        candidate: &Candidate,
    ) -> Result<Option<(InstanceRecord, AnswerStream<Bytes>)>, Error> {
        let unusable = || Error::new(ErrorKind::Invalid, "its event names no instance that can be asked for");
        let selection = candidate.instances().ok_or_else(unusable)?;
        // Of several events with the same bytes the index gives one, the one shown before others: that is as good.
        let Some(part) = part else {
            let record = self.index.instances(selection, Detail::Location).await?.next().await.transpose()?;
            return Ok(record.map(|record| (record, Box::pin(stream::empty()) as AnswerStream<Bytes>)));
        };
        let mut instances = self.retrieval.instances(selection, part).await?;
        let instance = instances.next().await.transpose()?;
        Ok(instance.map(|instance| (instance.record, kept(instance.bytes, instances))))
    }
}

/// The bytes of one answer: they come only as long as the answers are there.
fn kept<T: Send + 'static>(bytes: AnswerStream<Bytes>, answers: AnswerStream<T>) -> AnswerStream<Bytes> {
    Box::pin(stream::unfold((bytes, answers), |(mut bytes, answers)| async {
        let piece = bytes.next().await?;
        Some((piece, (bytes, answers)))
    }))
}
