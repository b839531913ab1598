//! Several processes of one service: calls go round them; one that fails is passed over for a while, and what may be
//! asked again is asked of another.

use super::connection::{Connection, Wire};
use crate::error::{from_status, is_lost, is_not_sent};
use cairn_service_api::{Error, ErrorKind, Reason};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

/// Whether a call may be made again elsewhere when its outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It changes nothing, or nothing that matters when done twice.
    Safe,
    /// Only when it surely was not sent.
    Unsent,
}

pub(super) struct Peers<C> {
    all: Arc<[Peer<C>]>,
    next: Arc<AtomicUsize>,
    answer_timeout: Duration,
}

impl<C> Clone for Peers<C> {
    fn clone(&self) -> Self {
        Self { all: self.all.clone(), next: self.next.clone(), answer_timeout: self.answer_timeout }
    }
}

struct Peer<C> {
    address: String,
    client: C,
    state: Mutex<State>,
    pause: Duration,
    pause_max: Duration,
}

#[derive(Default)]
struct State {
    /// Passed over until then, and for how long the next time.
    down: Option<(Instant, Duration)>,
}

impl<C> Peer<C> {
    fn is_down(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.down.is_some_and(|(until, _)| Instant::now() < until)
    }

    fn failed(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = match state.down {
            // Calls that were under way together count once.
            Some((until, _)) if Instant::now() < until => return,
            Some((_, pause)) => (pause * 2).min(self.pause_max),
            None => self.pause,
        };
        state.down = Some((Instant::now() + pause, pause));
    }

    fn answered(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).down = None;
    }
}

impl<C: Clone> Peers<C> {
    pub(super) fn new(connection: &Connection, client: impl Fn(Wire) -> C) -> Result<Self, Error> {
        let (pause, pause_max) = (connection.pause, connection.pause_max);
        let peer = |(address, wire)| Peer { address, client: client(wire), state: Mutex::default(), pause, pause_max };
        let all = connection.wires()?.into_iter().map(peer).collect();
        Ok(Self { all, next: Arc::default(), answer_timeout: connection.answer_timeout })
    }

    /// All of them, each once, those that answer ahead of those that failed of late.
    pub(super) fn order(&self) -> Vec<usize> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut order: Vec<_> = (0..self.all.len()).map(|n| first.wrapping_add(n) % self.all.len()).collect();
        order.sort_by_key(|peer| self.all.get(*peer).is_some_and(Peer::is_down));
        order
    }

    pub(super) fn client(&self, peer: usize) -> Option<C> {
        self.all.get(peer).map(|peer| peer.client.clone())
    }

    pub(super) fn is_down(&self, peer: usize) -> bool {
        self.all.get(peer).is_none_or(Peer::is_down)
    }

    /// Takes note of how a call ended, and gives its failure as the service would.
    pub(super) fn failure(&self, peer: usize, status: Status) -> Error {
        let Some(peer) = self.all.get(peer) else { return from_status(status) };
        let lost = is_lost(&status);
        let mut error = from_status(status);
        if lost {
            peer.failed();
            error.message = format!("{}: {}", peer.address, error.message);
        } else {
            peer.answered();
        }
        error
    }

    pub(super) fn answered(&self, peer: usize) {
        if let Some(peer) = self.all.get(peer) {
            peer.answered();
        }
    }

    /// Calls one process, or others after it where that is safe. Gives the answer and who gave it.
    pub(super) async fn call_any<T, F>(&self, again: Again, call: impl Fn(C) -> F) -> Result<(usize, T), Error>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + self.answer_timeout;
        let mut last = Error::new(ErrorKind::Unavailable, "no process to call");
        for (at, peer) in self.order().into_iter().filter_map(|at| Some((at, self.all.get(at)?))) {
            let Ok(outcome) = timeout_at(deadline, call(peer.client.clone())).await else {
                peer.failed();
                let message = format!("{}: no answer within {:?}", peer.address, self.answer_timeout);
                return Err(Error::new(ErrorKind::Unavailable, message));
            };
            let status = match outcome {
                Ok(answer) => {
                    peer.answered();
                    return Ok((at, answer));
                }
                Err(status) => status,
            };
            let unsent = is_not_sent(&status);
            last = self.failure(at, status);
            // One that starts or drains says that it can't just now; another may. A position that is not folded in time is
            // not folded anywhere.
            let is_so_everywhere =
                matches!(last.reason, Reason::NotYetIndexed | Reason::NotConfirmed | Reason::ReadOnly);
            let cannot = last.kind == ErrorKind::Unavailable && !is_so_everywhere;
            if !(unsent || cannot && again == Again::Safe) {
                break;
            }
        }
        Err(last)
    }

    /// The same, without saying who answered.
    pub(super) async fn call<T, F>(&self, again: Again, call: impl Fn(C) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        self.call_any(again, call).await.map(|(_, answer)| answer.into_inner())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }
}

/// Calls a method with a request that is made again for each attempt.
macro_rules! call {
    ($peers:expr, $again:expr, $method:ident, $request:expr) => {{
        let request = $request;
        $peers
            .call($again, |mut client| {
                let request = request.clone();
                async move { client.$method(request).await }
            })
            .await
    }};
}
pub(super) use call;
