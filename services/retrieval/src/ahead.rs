//! Reading several instances ahead of whoever takes them, within bounds of bytes: a little of each retrieval's own, which
//! lets it go on however slow others are, and more of what all retrievals share.
//!
//! Room is given out in the order of the instances: one that comes later never holds what an earlier one waits for.
//! So who takes them must take the bytes of each, or drop them, before waiting for much later ones.

use crate::{config::RetrievalConfig, corrected::Corrected, read};
use bytes::Bytes;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind,
    index::InstanceRecord,
    retrieval::{Part, RetrievedInstance},
};
use cairn_store_api::ObjectStore;
use futures_util::{FutureExt, StreamExt, stream};
use std::{
    collections::VecDeque,
    future::Future,
    ops::Range,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// What a reader hands on: bytes with the room that they take, or how it ended.
enum Piece {
    Bytes(Bytes, Option<Room>),
    Failed(Error),
    End,
}

/// The room that some bytes take, given back when dropped.
struct Room {
    /// Of this retrieval's.
    of_retrieval: OwnedSemaphorePermit,
    /// Of what all share, if it is not the retrieval's own.
    shared: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// The part of it that so many bytes take.
    fn split(&mut self, bytes: usize) -> Option<Self> {
        let shared = match &mut self.shared {
            Some(shared) => Some(shared.split(bytes)?),
            None => None,
        };
        Some(Self { of_retrieval: self.of_retrieval.split(bytes)?, shared })
    }
}

/// An instance that is to be read: as it is stored, or corrected; or why it can't be had.
pub(crate) struct Opening {
    pub(crate) record: InstanceRecord,
    pub(crate) corrected: Result<Option<Corrected>, Error>,
}

/// The range of a file of this length that a part means.
pub(crate) fn range_of(length: u64, data_set_offset: u64, part: &Part) -> Result<Range<u64>, Error> {
    let range = match part {
        Part::File => 0..length,
        Part::DataSet => data_set_offset..length,
        Part::FileRange(range) => range.clone(),
    };
    if range.start > range.end || range.end > length {
        return Err(Error::new(ErrorKind::Invalid, "range is not within the instance"));
    }
    Ok(range)
}

/// The instances with their bytes, read ahead. Dropping the stream stops reading.
pub(crate) fn read_ahead(
    objects: Arc<dyn ObjectStore>,
    records: AnswerStream<Opening>,
    part: Part,
    shared: Arc<Semaphore>,
    config: &RetrievalConfig,
) -> AnswerStream<RetrievedInstance> {
    let (sender, receiver) = mpsc::channel(config.read_ahead_instances.max(1));
    let own_max = config.read_ahead_own_bytes.min(config.read_ahead_bytes).clamp(1 << 16, 1 << 30) as u32;
    let more = config.read_ahead_bytes.min(1 << 30).saturating_sub(u64::from(own_max));
    let reader = Reader {
        objects,
        own: Arc::new(Semaphore::new(own_max as usize)),
        more: Arc::new(Semaphore::new(more as usize)),
        shared,
        own_max,
        refill: (more / 4) as u32,
        lane: Lane::default(),
        whole_max: config.whole_bytes_max.min(u64::from(own_max)),
    };
    tokio::spawn(async move {
        let last = sender.clone();
        if AssertUnwindSafe(reader.run(records, part, sender)).catch_unwind().await.is_err() {
            // What is cut short must not look complete. A reader that went away needs no reason.
            let _ = last.send(Err(Error::new(ErrorKind::Internal, "a defect cut the retrieval short"))).await;
        }
    });
    Box::pin(stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) }))
}

struct Reader {
    objects: Arc<dyn ObjectStore>,
    /// Room that nobody else takes.
    own: Arc<Semaphore>,
    /// How much more this retrieval may take of what all share.
    more: Arc<Semaphore>,
    shared: Arc<Semaphore>,
    own_max: u32,
    /// Room that is waited for at least once there is none.
    refill: u32,
    whole_max: u64,
    lane: Lane,
}

type Reading = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Reads instances one after the other on a thread that ends when there are none: reading and verifying what the store has in
/// memory is work for a processor, and whoever sends the bytes has another.
#[derive(Clone, Default)]
struct Lane(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    readings: VecDeque<Reading>,
    is_running: bool,
}

impl Lane {
    fn add(&self, reading: Reading) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.readings.push_back(reading);
        if !std::mem::replace(&mut queue.is_running, true) {
            let lane = self.clone();
            tokio::task::spawn_blocking(move || lane.run());
        }
    }

    /// The next one; `None` ends the thread.
    fn next(&self) -> Option<Reading> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = queue.readings.pop_front();
        queue.is_running = next.is_some();
        next
    }

    fn run(self) {
        while let Some(mut reading) = self.next() {
            let polled = std::panic::catch_unwind(AssertUnwindSafe(|| reading.as_mut().now_or_never()));
            // One that waits for a disk, or for another machine, does so beside the next ones. One that failed by a defect is
            // dropped, which its instance shows.
            if matches!(polled, Ok(None)) {
                tokio::spawn(reading);
            }
        }
    }
}

impl Reader {
    async fn run(
        self,
        mut records: AnswerStream<Opening>,
        part: Part,
        instances: mpsc::Sender<Result<RetrievedInstance, Error>>,
    ) {
        loop {
            let record = tokio::select! {
                biased;
                () = instances.closed() => return,
                record = records.next() => record,
            };
            let opening = match record {
                None => return,
                Some(Ok(opening)) => opening,
                Some(Err(error)) => {
                    let _ = instances.send(Err(error)).await;
                    return;
                }
            };
            let (length, bytes) = match self.open(&opening, &part) {
                Ok(opened) => opened,
                Err(error) => {
                    let _ = instances.send(Err(error)).await;
                    return;
                }
            };
            // Bounded by the room that each piece holds.
            let (pieces, receiver) = mpsc::unbounded_channel();
            let instance = RetrievedInstance { record: opening.record, bytes: taken(receiver) };
            if instances.send(Ok(instance)).await.is_err() {
                return;
            }
            if length <= self.whole_max {
                let Some(room) = self.room(length, &pieces).await else { continue };
                self.lane.add(Box::pin(hand_on_whole(bytes, room, pieces)));
            } else {
                self.hand_on(bytes, pieces).await;
            }
        }
    }

    /// The bytes of an instance, and how many. Nothing is read yet.
    fn open(&self, opening: &Opening, part: &Part) -> Result<(u64, AnswerStream<Bytes>), Error> {
        let record = &opening.record;
        let (range, bytes) = match &opening.corrected {
            Ok(None) => {
                let range = range_of(record.object.length, record.data_set_offset, part)?;
                (range.clone(), read::open_later(self.objects.clone(), record.object, range))
            }
            Ok(Some(corrected)) => {
                let range = corrected.range_of(part)?;
                (range.clone(), corrected.open(self.objects.clone(), range))
            }
            Err(error) => {
                let error = error.clone();
                (0..0, Box::pin(stream::once(async { Err(error) })) as AnswerStream<Bytes>)
            }
        };
        Ok((range.end - range.start, bytes))
    }

    /// Room for so many bytes; `None` when nobody wants them any more.
    async fn room(&self, length: u64, pieces: &mpsc::UnboundedSender<Piece>) -> Option<Room> {
        let length = length.min(u64::from(self.own_max)) as u32;
        if let Some(room) = self.room_now(length) {
            return Some(room);
        }
        // Waits for more than it needs: the next ones then come to a thread that is awake already.
        let several = length.max(self.refill);
        let shared = async {
            let of_retrieval = self.more.clone().acquire_many_owned(several).await.ok()?;
            let shared = self.shared.clone().acquire_many_owned(several).await.ok()?;
            Room { of_retrieval, shared: Some(shared) }.split(length as usize)
        };
        tokio::select! {
            biased;
            () = pieces.closed() => None,
            own = self.own.clone().acquire_many_owned(length) => Some(Room { of_retrieval: own.ok()?, shared: None }),
            room = shared => room,
        }
    }

    /// Room that need not be waited for.
    fn room_now(&self, length: u32) -> Option<Room> {
        if let Ok(own) = self.own.clone().try_acquire_many_owned(length) {
            return Some(Room { of_retrieval: own, shared: None });
        }
        let of_retrieval = self.more.clone().try_acquire_many_owned(length).ok()?;
        let shared = self.shared.clone().try_acquire_many_owned(length).ok()?;
        Some(Room { of_retrieval, shared: Some(shared) })
    }

    /// Reads a large instance, piece by piece, each once there is room.
    async fn hand_on(&self, mut bytes: AnswerStream<Bytes>, pieces: mpsc::UnboundedSender<Piece>) {
        while let Some(chunk) = bytes.next().await {
            let piece = match chunk {
                Ok(chunk) => {
                    let Some(room) = self.room(chunk.len() as u64, &pieces).await else { return };
                    Piece::Bytes(chunk, Some(room))
                }
                Err(error) => {
                    let _ = pieces.send(Piece::Failed(error));
                    return;
                }
            };
            if pieces.send(piece).is_err() {
                return;
            }
        }
        let _ = pieces.send(Piece::End);
    }
}

/// Reads a small instance for which there is room.
async fn hand_on_whole(mut bytes: AnswerStream<Bytes>, mut room: Room, pieces: mpsc::UnboundedSender<Piece>) {
    while let Some(chunk) = bytes.next().await {
        let piece = match chunk {
            Ok(chunk) => {
                let held = room.split(chunk.len());
                Piece::Bytes(chunk, held)
            }
            Err(error) => {
                let _ = pieces.send(Piece::Failed(error));
                return;
            }
        };
        if pieces.send(piece).is_err() {
            return;
        }
    }
    let _ = pieces.send(Piece::End);
}

/// The bytes as they were handed on. A reader that died without an end is a failure, never a short instance.
fn taken(pieces: mpsc::UnboundedReceiver<Piece>) -> AnswerStream<Bytes> {
    Box::pin(stream::unfold(Some(pieces), |pieces| async move {
        let mut pieces = pieces?;
        match pieces.recv().await {
            Some(Piece::Bytes(bytes, room)) => {
                drop(room);
                Some((Ok(bytes), Some(pieces)))
            }
            Some(Piece::Failed(error)) => Some((Err(error), None)),
            Some(Piece::End) => None,
            None => Some((Err(Error::new(ErrorKind::Internal, "reading ahead was cut short")), None)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_reading_that_waits_or_fails_by_a_defect_keeps_no_other_from_being_read() {
        let lane = Lane::default();
        let (go_on, waited) = oneshot::channel();
        let (first_done, first) = oneshot::channel();
        lane.add(Box::pin(async move {
            let _ = waited.await;
            let _ = first_done.send(());
        }));
        lane.add(Box::pin(async { panic!("a defect, on purpose") }));
        let (second_done, second) = oneshot::channel();
        lane.add(Box::pin(async move { second_done.send(()).unwrap_or_default() }));
        second.await.expect("the last one was read");
        go_on.send(()).expect("the first one waits");
        first.await.expect("the first one was read");
        let (third_done, third) = oneshot::channel();
        lane.add(Box::pin(async move { third_done.send(()).unwrap_or_default() }));
        third.await.expect("the lane begins again");
    }
}
