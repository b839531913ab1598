//! A log that was restored from a backup: what other sites hold of it that it lacks, and where its new life begins.

use cairn_archive::{EventId, Incarnation, Offset, Partition, Position, SiteId};
use cairn_service_api::{
    Error, ErrorKind, Peer,
    replication::{Introduction, Mark},
};
use cairn_store_api::EventLog;
use std::collections::BTreeMap;

/// Records of another site's log that are looked at first; then twice as many, and so on.
const LOOK_RECORDS: u64 = 256;
const LOOK_RECORDS_MAX: u64 = 16_384;
/// Records, and bytes of them, of this log that are read at once.
const READ_RECORDS: usize = 1_024;
const READ_BYTES: usize = 8 << 20;

/// The log of another site, read from outside.
#[async_trait::async_trait]
pub trait Elsewhere: Send + Sync {
    /// First offset of a partition that is not durable yet.
    async fn end(&self, partition: Partition) -> Result<Offset, Error>;

    /// Origins and ids of those events of a partition from `from` up to `to` (not past its end) that came from other sites,
    /// in the order of the log.
    async fn origins(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<(Position, EventId)>, Error>;
}

/// One of those that hold what this site had.
pub struct Holder<'a> {
    /// Its name.
    pub site: SiteId,
    /// How it is asked what it holds.
    pub peer: &'a dyn Peer,
    /// Its log.
    pub log: &'a dyn Elsewhere,
}

/// What another site holds of a partition and this log lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Partition.
    pub partition: Partition,
    /// Who holds it.
    pub held_by: SiteId,
    /// Events of this site that it holds and this log has not.
    pub events: u64,
    /// The first place of a life that this log knows in which that site has another event; `None`: it has none.
    pub differs_at: Option<Offset>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// By partition and holder; nothing when nobody holds what this log lacks.
    pub lost: Vec<Lost>,
    /// Life that the log can begin: higher than any that another site has heard of.
    pub incarnation: Incarnation,
    /// Where it begins: after what others hold as of the present life.
    pub begins: Vec<Offset>,
    /// Events of this log that stand from there on, and are of the new life.
    pub events_of_new_life: u64,
}

/// Compares this site's log, which nobody may append to meanwhile, with what other sites hold of it.
///
/// # Errors
/// `Conflict`: a site was sent events that were stored after the backup, in the places of others that another site holds;
/// or it does not go with this one. The stores' and the peers'.
pub async fn find(log: &dyn EventLog, holders: &[Holder<'_>]) -> Result<Found, Error> {
    let partitions = log.partitions();
    let floor = |partition| log.lives().range(log.incarnation(), partition).map_or(Offset(0), |life| life.start);
    let mut found = Found {
        lost: Vec::new(),
        incarnation: Incarnation(log.incarnation().0 + 1),
        begins: (0..partitions).map(Partition).map(floor).collect(),
        events_of_new_life: 0,
    };
    for holder in holders {
        let (site, incarnation) = (log.site().clone(), log.incarnation());
        let meeting = holder.peer.meet(Introduction { site, incarnation, partitions, marks: Vec::new() }).await?;
        if (&meeting.site, meeting.partitions) != (&holder.site, partitions) {
            let message = format!("{} answers as {} with {} partitions", holder.site, meeting.site, meeting.partitions);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let mut marks: BTreeMap<Partition, Vec<Mark>> = BTreeMap::new();
        for mark in meeting.holds.into_iter().filter(|mark| mark.site == *log.site()) {
            found.incarnation = found.incarnation.max(Incarnation(mark.incarnation.0 + 1));
            marks.entry(mark.partition).or_default().push(mark);
        }
        for (partition, marks) in marks {
            let (same_before, lost) = compare(log, holder, partition, &marks).await?;
            found.lost.extend(lost);
            if let Some(begin) = found.begins.get_mut(usize::from(partition.0)) {
                *begin = same_before.max(*begin);
            }
        }
    }
    for (partition, begin) in (0..).map(Partition).zip(&found.begins) {
        let end = log.end(partition).await?;
        found.events_of_new_life += own_events(log, partition, *begin, end).await?;
        let differs = |lost: &&Lost| lost.partition == partition && lost.differs_at.is_some_and(|at| at < *begin);
        if let Some(lost) = found.lost.iter().find(differs) {
            return Err(forked(lost));
        }
    }
    Ok(found)
}

fn forked(lost: &Lost) -> Error {
    let Lost { partition, held_by, .. } = lost;
    let message = format!(
        "another site was sent what was stored in partition {} after the backup, in the places of events that {held_by} \
         holds: restore that site from before it was sent them, or fill it anew",
        partition.0
    );
    Error::new(ErrorKind::Conflict, message)
}

/// Up to where a holder has the same as this log, in its lives, and what it has beside.
async fn compare(
    log: &dyn EventLog,
    holder: &Holder<'_>,
    partition: Partition,
    marks: &[Mark],
) -> Result<(Offset, Option<Lost>), Error> {
    let mut same_before = Offset(0);
    let mut strayed: Vec<Incarnation> = Vec::new();
    for mark in marks {
        let Some(of_life) = log.lives().range(mark.incarnation, partition) else {
            strayed.push(mark.incarnation);
            continue;
        };
        if mark.end <= of_life.end {
            match event_at(log, partition, mark.end.0.checked_sub(1).map(Offset)).await? {
                Some(there) if there == mark.last => same_before = same_before.max(mark.end),
                _ => strayed.push(mark.incarnation),
            }
        }
    }
    if strayed.is_empty() {
        return Ok((same_before, None));
    }
    let (same, lost) = look_back(log, holder, partition, strayed).await?;
    Ok((same_before.max(same), Some(lost)))
}

/// Reads a holder's log from its end back to where this log is the same again, in each of these lives; gives where that
/// is, and what of this site comes after it.
async fn look_back(
    log: &dyn EventLog,
    holder: &Holder<'_>,
    partition: Partition,
    mut strayed: Vec<Incarnation>,
) -> Result<(Offset, Lost), Error> {
    let (mut to, mut step) = (holder.log.end(partition).await?, LOOK_RECORDS);
    let mut lost = Lost { partition, held_by: holder.site.clone(), events: 0, differs_at: None };
    let mut same_before = Offset(0);
    while to > Offset(0) && !strayed.is_empty() {
        let from = Offset(to.0.saturating_sub(step));
        for (origin, id) in holder.log.origins(partition, from, to).await?.into_iter().rev() {
            if origin.site != *log.site() || !strayed.contains(&origin.incarnation) {
                continue;
            }
            let of_life = log.lives().range(origin.incarnation, partition);
            if event_at(log, partition, Some(origin.offset)).await? != Some(id) {
                lost.events += 1;
                let known = of_life.is_some_and(|of_life| of_life.contains(&origin.offset));
                let first = lost.differs_at.map_or(origin.offset, |at| at.min(origin.offset));
                lost.differs_at = if known { Some(first) } else { lost.differs_at };
            } else if of_life.is_some() {
                // Of a life that this log has forgotten, it has the event under another origin.
                same_before = same_before.max(origin.offset.next());
                strayed.retain(|incarnation| *incarnation != origin.incarnation);
            }
        }
        (to, step) = (from, (step * 2).min(LOOK_RECORDS_MAX));
    }
    Ok((same_before, lost))
}

async fn event_at(log: &dyn EventLog, partition: Partition, at: Option<Offset>) -> Result<Option<EventId>, Error> {
    let Some(at) = at.filter(|_| partition.0 < log.partitions()) else { return Ok(None) };
    if log.end(partition).await? <= at {
        return Ok(None);
    }
    Ok(log.read(partition, at, 1, 1).await?.records.first().map(|record| record.record.envelope.id))
}

/// Events that became facts here, between two offsets.
async fn own_events(log: &dyn EventLog, partition: Partition, from: Offset, to: Offset) -> Result<u64, Error> {
    let (mut events, mut from) = (0, from);
    while from < to {
        let batch = log.read(partition, from, READ_RECORDS, READ_BYTES).await?;
        let Some(last) = batch.records.last() else { break };
        let before = batch.records.iter().filter(|record| record.offset < to);
        events += before.filter(|record| record.record.envelope.origin.is_none()).count() as u64;
        from = last.offset.next();
    }
    Ok(events)
}
