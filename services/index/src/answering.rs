//! Answers of queries and listings as streams, and how many are made at the same time.

use cairn_service_api::{AnswerStream, Error, ErrorKind};
use futures_core::Stream;
use futures_util::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, mpsc::error::TrySendError};

/// A place among the queries, given up while the reader of the answers is behind: readers that stall keep nobody from
/// asking. How many may stall is bounded by the doors' own limits.
pub(crate) struct Place {
    queries: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Waits for a place.
    pub(crate) async fn take(queries: &Arc<Semaphore>) -> Result<Self, Error> {
        let permit = queries.clone().acquire_owned().await.map_err(|_| closing())?;
        Ok(Self { queries: queries.clone(), permit: Some(permit) })
    }
}

/// The index ends.
pub(crate) fn closing() -> Error {
    Error::new(ErrorKind::Unavailable, "the index is closing")
}

/// Where a query puts its answers. A reader that went away ends the query.
pub(crate) struct Answers<T> {
    to: mpsc::Sender<Result<T, Error>>,
    /// `None` for work that takes no place.
    place: Option<tokio::sync::Mutex<Place>>,
}

/// The reader went away, or the work failed and said so.
pub(crate) enum Ended {
    /// Nobody reads any more.
    Dropped,
    /// It failed.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl<T: Send + 'static> Answers<T> {
    /// Gives one answer; waits while the reader is behind, without a place among the queries.
    pub(crate) async fn give(&self, answer: T) -> Result<(), Ended> {
        let answer = match self.to.try_send(Ok(answer)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Ended::Dropped),
            Err(TrySendError::Full(answer)) => answer,
        };
        let Some(place) = &self.place else { return self.to.send(answer).await.map_err(|_| Ended::Dropped) };
        let mut place = place.lock().await;
        place.permit = None;
        self.to.send(answer).await.map_err(|_| Ended::Dropped)?;
        place.permit = Some(place.queries.clone().acquire_owned().await.map_err(|_| closing())?);
        Ok(())
    }
}

/// Work that panicked. Its reader must not take the answers so far for all.
fn died() -> Ended {
    Ended::Failed(Error::new(ErrorKind::Internal, "a defect of the index cut the answers short"))
}

/// Runs work and gives its answers as a stream; dropping the stream ends the work. Work that panics ends the stream with an
/// error.
///
/// Work that is done at once needs no task: most questions are about one instance or study, and handing those to another
/// thread would cost more than answering them. The rest goes on in a task of its own.
pub(crate) fn answering<T, F>(
    ahead: usize,
    place: Option<Place>,
    work: impl FnOnce(Answers<T>) -> F + Send + 'static,
) -> AnswerStream<T>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Ended>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(ahead.max(1));
    let work = work(Answers { to: sender.clone(), place: place.map(tokio::sync::Mutex::new) });
    let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind().map(|ended| ended.unwrap_or_else(|_| Err(died()))));
    let begun = (&mut work).now_or_never();
    match begun {
        Some(Ok(()) | Err(Ended::Dropped)) => {}
        // Answers may have filled the channel to the last place, so this needs one of its own.
        Some(Err(Ended::Failed(error))) => drop(tokio::spawn(async move { sender.send(Err(error)).await })),
        // The task holds the place and the generation; nothing is left behind once the stream is dropped.
        None => drop(tokio::spawn(go_on(work, sender))),
    }
    Box::pin(Receiver(receiver))
}

async fn go_on<T>(work: impl Future<Output = Result<(), Ended>>, sender: mpsc::Sender<Result<T, Error>>) {
    tokio::select! {
        outcome = work => {
            if let Err(Ended::Failed(error)) = outcome {
                // A reader that went away needs no reason.
                let _ = sender.send(Err(error)).await;
            }
        }
        () = sender.closed() => {}
    }
}

struct Receiver<T>(mpsc::Receiver<Result<T, Error>>);

impl<T> Stream for Receiver<T> {
    type Item = Result<T, Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}
