//! The listener: accepts connections, gives each a task of its own, and drains.

mod gate;
#[cfg(test)]
mod tests;

use crate::{
    Association, AssociationError,
    acceptor::{Accepted, accept},
    association::Transport,
    door::Door,
    metrics,
    pdu::{Abort, AssociateRj},
};
use gate::{ConnectionPlace, Gate};
use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

/// How far the server has got with stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// No new association; those that stand may end.
    Draining,
    /// What still stands is aborted.
    Aborting,
}

/// A listener with a door behind it.
pub struct Server {
    listener: TcpListener,
    door: Arc<Door>,
    gate: Arc<Gate>,
}

impl Server {
    /// A server on a socket that is bound already.
    pub fn new(listener: TcpListener, door: impl Into<Arc<Door>>) -> Self {
        let door = door.into();
        let gate = Gate::new(&door.limits);
        Self { listener, door, gate }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`, then takes no more associations, lets those that stand go on for up to `grace`, and
    /// aborts the rest. Returns when all connections are closed.
    pub async fn serve(self, shutdown: impl Future<Output = ()>, grace: Duration) {
        let (phase, _) = watch::channel(Phase::Serving);
        let mut tasks = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => self.admit(stream, address, &mut tasks, &phase),
                    Err(error) => {
                        // Out of file descriptors, most likely: without a pause this would spin.
                        tracing::warn!(%error, "could not accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(ended) = tasks.join_next() => report_panic(ended),
            }
        }
        drop(self.listener);
        phase.send_replace(Phase::Draining);
        if timeout(grace, drain(&mut tasks)).await.is_err() {
            phase.send_replace(Phase::Aborting);
            let last = self.door.limits.close_timeout + self.door.limits.receipt_timeout;
            if timeout(last, drain(&mut tasks)).await.is_err() {
                tasks.shutdown().await;
            }
        }
    }

    /// Gives a connection its task. Reads nothing: the accept loop never waits for a peer.
    fn admit(&self, stream: TcpStream, address: SocketAddr, tasks: &mut JoinSet<()>, phase: &watch::Sender<Phase>) {
        let Some(place) = self.gate.connect(address.ip().to_canonical()) else {
            metrics::connection_refused();
            tracing::warn!(%address, "connection closed: as many as are allowed are open");
            return;
        };
        let accepted_at = Instant::now();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "connection lost");
            return;
        }
        let connection = Connection {
            door: Arc::clone(&self.door),
            gate: Arc::clone(&self.gate),
            address,
            phase: phase.subscribe(),
            _place: place,
        };
        tasks.spawn(connection.run(Box::new(stream), accepted_at));
    }
}

async fn drain(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        report_panic(ended);
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        // The association said A-ABORT when it was dropped; nobody else is concerned.
        tracing::error!("a connection's task panicked");
    }
}

struct Connection {
    door: Arc<Door>,
    gate: Arc<Gate>,
    address: SocketAddr,
    phase: watch::Receiver<Phase>,
    _place: ConnectionPlace,
}

impl Connection {
    async fn run(mut self, transport: Box<dyn Transport>, accepted_at: Instant) {
        let address = self.address;
        let mut place = None;
        let door = Arc::clone(&self.door);
        let partners = door.partners();
        let phase = self.phase.clone();
        let accepting = accept(
            transport,
            Some(address),
            accepted_at,
            &partners.policy,
            &door.limits,
            &door.implementation,
            |request| {
                if *phase.borrow() != Phase::Serving {
                    return Err(AssociateRj::TEMPORARY_CONGESTION);
                }
                place = Some(self.gate.associate(&request.calling_ae_title)?);
                Ok(())
            },
        );
        let accepted = tokio::select! {
            accepted = accepting => accepted,
            () = aborting(&mut self.phase) => return,
        };
        metrics::association_asked(accepted.as_ref().map(|_| ()));
        match accepted {
            Ok(Accepted { association, profile }) => {
                let calling = association.peer().calling_ae_title.clone();
                tracing::debug!(%address, calling_ae_title = %calling, "association accepted");
                let session = door.session(partners, profile);
                self.converse(association, session).await;
            }
            Err(AssociationError::Closed) => tracing::debug!(%address, "connection closed before an association"),
            Err(error) => tracing::info!(%address, %error, "no association"),
        }
        drop(place);
    }

    async fn converse(&mut self, mut association: Association, mut session: crate::door::Session) {
        let ended = tokio::select! {
            ended = session.converse(&mut association) => Some(ended),
            () = aborting(&mut self.phase) => None,
        };
        let calling = association.peer().calling_ae_title.clone();
        metrics::association_ended(ended.as_ref());
        match &ended {
            Some(Ok(()) | Err(AssociationError::Released)) => {
                // Once release is confirmed, the receipt is closed.
                session.close(&ended).await;
                association.confirm_release().await;
                tracing::debug!(address = %self.address, calling_ae_title = %calling, "association released");
            }
            Some(Err(error)) => {
                tracing::info!(address = %self.address, calling_ae_title = %calling, %error, "association ended");
                tokio::join!(association.fail(error), session.close(&ended));
            }
            None => {
                tracing::info!(address = %self.address, calling_ae_title = %calling, "association aborted to stop");
                tokio::join!(association.abort(Abort::SERVICE_USER), session.close(&ended));
            }
        }
    }
}

/// Until the server aborts what stands.
async fn aborting(phase: &mut watch::Receiver<Phase>) {
    if phase.wait_for(|phase| *phase == Phase::Aborting).await.is_err() {
        std::future::pending::<()>().await;
    }
}
