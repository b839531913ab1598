//! Streams that a task fills, ending with their reader.

use cairn_service_api::{Error, ErrorKind};
use futures_util::FutureExt;
use std::{future::Future, panic::AssertUnwindSafe};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Messages in flight per stream: enough to keep both ends busy, few enough to bound memory.
pub(crate) const IN_FLIGHT: usize = 4;

/// A stream filled by `produce`; dropping the stream cancels `produce`, also while it waits for something else. Should
/// `produce` panic, the stream ends with an error, which `failure` words: what is cut short must not look complete.
pub(crate) fn filled_by<T, E, F, Fut>(failure: fn(Error) -> E, produce: F) -> ReceiverStream<Result<T, E>>
where
    T: Send + 'static,
    E: Send + 'static,
    F: FnOnce(mpsc::Sender<Result<T, E>>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let gone = sender.clone();
    let work = AssertUnwindSafe(produce(sender)).catch_unwind();
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = work => ended,
            () = gone.closed() => return,
        };
        if ended.is_err() {
            let error = Error::new(ErrorKind::Internal, "a defect cut the answers short");
            // A reader that went away needs no reason.
            let _ = gone.send(Err(failure(error))).await;
        }
    });
    ReceiverStream::new(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    #[tokio::test]
    async fn a_panic_is_an_error_at_the_end_of_the_stream() {
        let stream = filled_by(std::convert::identity, |sender| async move {
            sender.send(Ok(1)).await.expect("read");
            panic!("a defect");
        });
        let given: Vec<Result<i32, Error>> = stream.collect().await;
        assert!(matches!(&given[..], [Ok(1), Err(error)] if error.kind == ErrorKind::Internal), "{given:?}");
    }
}
