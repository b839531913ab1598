//! The HTTP/1.1 server loop: every connection bounded in number, in time and in memory.

mod stall;

use crate::{config::DicomWebConfig, metrics};
use axum::{Router, body::Body};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use stall::StallingWriter;
pub(crate) use stall::{StallClock, StallLimit};

/// Address of the peer of a request, as an extension of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// Serves `router` on `listener` until `drain` ends, then lets requests under way finish for `Timeouts::drain`.
///
/// # Errors
/// None of a single connection; the listener's own when it can't accept any more.
/// # Cancel safety
/// Dropped: every connection is cut.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &DicomWebConfig,
    drain: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let config = Arc::new(config.clone());
    let slots = Arc::new(Semaphore::new(config.limits.connections_max));
    let (draining, drain_seen) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(drain);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    wait_after_failed_accept(&error).await;
                    continue;
                }
            },
            () = &mut drain => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection ended unexpectedly");
                }
                metrics::open(connections.len());
                continue;
            }
        };
        metrics::open(connections.len() + 1);
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            metrics::connection_refused();
            connections.spawn(turn_away(stream, config.timeouts.retry_after));
            continue;
        };
        let (router, config, drain_seen) = (router.clone(), Arc::clone(&config), drain_seen.clone());
        connections.spawn(async move {
            serve_connection(stream, peer, router, &config, drain_seen).await;
            drop(slot);
        });
    }
    drop(listener);
    draining.send_replace(true);
    let ended = tokio::time::timeout(config.timeouts.drain, async { while connections.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tracing::warn!(connections = connections.len(), "drain ended before these connections did");
    }
    connections.shutdown().await;
    Ok(())
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    config: &DicomWebConfig,
    mut draining: watch::Receiver<bool>,
) {
    // Answers are written whole; without this the last segment of each waits for an acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(PeerAddress(peer));
        TowerToHyperService::new(router.clone()).call(request)
    });
    let (limits, timeouts) = (&config.limits, &config.timeouts);
    let writer = StallingWriter::new(stream, StallLimit::of(timeouts));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.header)
        .max_headers(limits.header_fields_max)
        .max_buf_size(limits.buffer_bytes.max(8192))
        .half_close(false)
        .serve_connection(TokioIo::new(writer), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = async { drop(draining.wait_for(|draining| *draining).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A connection beyond the bound is told so; it costs no more than one write.
async fn turn_away(mut stream: TcpStream, retry_after: Duration) {
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        retry_after.as_secs().max(1)
    );
    let written = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    if !matches!(tokio::time::timeout(Duration::from_secs(1), written).await, Ok(Ok(()))) {
        tracing::debug!("a connection beyond the bound went away before it was told");
    }
}

/// Out of descriptors or memory: accepting at once would fail again at once.
async fn wait_after_failed_accept(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(%error, "connections can't be accepted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
