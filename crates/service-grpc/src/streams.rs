//! Streams that a task fills, ending with their reader.

use std::future::Future;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Messages in flight per stream: enough to keep both ends busy, few enough to bound memory.
pub(crate) const IN_FLIGHT: usize = 4;

/// A stream filled by `produce`; dropping the stream cancels `produce`, also while it waits for something else.
pub(crate) fn filled_by<T, F, Fut>(produce: F) -> ReceiverStream<T>
where
    T: Send + 'static,
    F: FnOnce(mpsc::Sender<T>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let gone = sender.clone();
    let work = produce(sender);
    tokio::spawn(async move {
        tokio::select! {
            () = work => {}
            () = gone.closed() => {}
        }
    });
    ReceiverStream::new(receiver)
}
