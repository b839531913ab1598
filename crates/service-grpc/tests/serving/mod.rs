//! A server that runs, for tests.

use cairn_service_grpc::server::{Served, Server, ServerConfig};
use std::net::SocketAddr;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Serves on loopback, at a free port unless told.
pub(crate) async fn serve(served: Served, config: ServerConfig, at: Option<SocketAddr>) -> Serving {
    let server = Server::new(served, config).await.expect("server");
    let at = at.unwrap_or_else(|| "127.0.0.1:0".parse().expect("address"));
    let listener = TcpListener::bind(at).await.expect("port");
    let address = listener.local_addr().expect("address");
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = server.serve(listener, async move {
        let _dropped = stopped.await;
    });
    Serving { address, stop, task: tokio::spawn(async move { serving.await.expect("serves") }) }
}

impl Serving {
    pub(crate) async fn stop(self) {
        let _already_gone = self.stop.send(());
        self.task.await.expect("ends");
    }
}
