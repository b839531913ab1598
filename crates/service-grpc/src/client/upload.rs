//! Calls that stream what is borrowed: a body that its caller still holds.

use crate::streams::IN_FLIGHT;
use cairn_service_api::Error;
use futures_util::{Stream, StreamExt, future::pending, stream::poll_fn};
use std::{sync::Arc, task::Poll, time::Duration};
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// What fills the stream of a call's messages.
pub(super) struct Upload<M> {
    sender: mpsc::Sender<M>,
    connection: Arc<Connection>,
}

/// What the connection did with the stream.
#[derive(Default)]
struct Connection {
    asked: Notify,
    took: Notify,
}

/// The stream of a call's messages, and what fills it.
pub(super) fn upload<M: Send + 'static>() -> (Upload<M>, impl Stream<Item = M> + Send + 'static) {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let connection = Arc::<Connection>::default();
    let (upload, mut messages) = (Upload { sender, connection: connection.clone() }, ReceiverStream::new(receiver));
    let messages = poll_fn(move |context| {
        connection.asked.notify_one();
        let polled = messages.poll_next_unpin(context);
        if matches!(polled, Poll::Ready(Some(_))) {
            connection.took.notify_one();
        }
        polled
    });
    (upload, messages)
}

impl<M> Upload<M> {
    /// Makes the call with the stream, which `pump` fills. It begins once the connection asks for the first message: until
    /// then another process can have what is sent.
    ///
    /// The call has failed as `Unavailable` when the connection takes nothing and there is no answer for `silence_max`.
    ///
    /// # Errors
    /// What `pump` says: what is sent broke off, which is why the server answers as it does. Say that, not what the server
    /// made of it.
    pub(super) async fn drive<T, P: Future<Output = Result<(), Error>>>(
        self,
        call: impl Future<Output = Result<T, Status>>,
        silence_max: Option<Duration>,
        pump: impl FnOnce(mpsc::Sender<M>) -> P,
    ) -> Result<Result<T, Status>, Error> {
        let Self { sender, connection } = self;
        let sending = async {
            connection.asked.notified().await;
            pump(sender).await
        };
        let mut call = std::pin::pin!(call);
        let answer = async {
            tokio::select! {
                // Look at the call first: one that was not sent has not begun.
                biased;
                answer = &mut call => Ok(answer),
                sent = sending => {
                    sent?;
                    Ok(call.await)
                }
            }
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            status = silence(&connection.took, silence_max) => Ok(Err(status)),
        }
    }
}

/// Ends when nothing was taken for `max`.
async fn silence(took: &Notify, max: Option<Duration>) -> Status {
    let Some(max) = max else { return pending().await };
    while timeout(max, took.notified()).await.is_ok() {}
    Status::unavailable(format!("nothing was taken and no answer came within {max:?}"))
}
