//! Reading objects. The store verifies every byte against the digest that the event recorded; what does not verify
//! ends the stream before any wrong byte.

use crate::metrics;
use bytes::Bytes;
use cairn_service_api::{AnswerStream, Error, ErrorKind};
use cairn_store_api::{ByteStream, ObjectRef, ObjectStore, StoreError, StoreErrorKind};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{ops::Range, sync::Arc};

/// Opens a range of an object.
pub(crate) async fn open(
    objects: &dyn ObjectStore,
    object: &ObjectRef,
    range: Range<u64>,
) -> Result<AnswerStream<Bytes>, Error> {
    if range.is_empty() {
        return Ok(Box::pin(stream::empty()));
    }
    let length = range.end - range.start;
    let bytes = objects.read(object, range).await.map_err(|error| damaged(object, &error))?;
    Ok(whole(bytes, *object, length))
}

/// As `open`, but nothing is read before the first poll, and a failure to open is the stream's first item.
pub(crate) fn open_later(objects: Arc<dyn ObjectStore>, object: ObjectRef, range: Range<u64>) -> AnswerStream<Bytes> {
    let opened = async move { open(objects.as_ref(), &object, range).await };
    Box::pin(stream::once(opened).try_flatten())
}

/// Several ranges of an object, one after the other.
pub(crate) fn open_ranges(
    objects: Arc<dyn ObjectStore>,
    object: ObjectRef,
    ranges: Vec<Range<u64>>,
) -> AnswerStream<Bytes> {
    let bytes = stream::iter(ranges).flat_map(move |range| open_later(objects.clone(), object, range));
    Box::pin(end_at_error(bytes.boxed()))
}

/// A stream that is as long as was asked for, or ends with an error.
fn whole(bytes: ByteStream, object: ObjectRef, length: u64) -> AnswerStream<Bytes> {
    let state = Some((bytes, length));
    Box::pin(stream::unfold(state, move |state| async move {
        let (mut bytes, left) = state?;
        match bytes.next().await {
            Some(Ok(chunk)) => {
                let left = left.saturating_sub(chunk.len() as u64);
                Some((Ok(chunk), Some((bytes, left))))
            }
            Some(Err(error)) => Some((Err(damaged(&object, &error)), None)),
            None if left == 0 => None,
            None => {
                let error = StoreError::new(StoreErrorKind::Unavailable, "object store ended a read early");
                Some((Err(damaged(&object, &error)), None))
            }
        }
    }))
}

/// Ends a stream with its first error.
pub(crate) fn end_at_error(
    bytes: AnswerStream<Bytes>,
) -> impl futures_core::Stream<Item = Result<Bytes, Error>> + Send {
    stream::unfold(Some(bytes), |bytes| async move {
        let mut bytes = bytes?;
        let item = bytes.next().await?;
        let rest = item.is_ok().then_some(bytes);
        Some((item, rest))
    })
}

/// All bytes of a range, which the caller has bounded.
pub(crate) async fn collect(
    objects: &dyn ObjectStore,
    object: &ObjectRef,
    range: Range<u64>,
) -> Result<Vec<Bytes>, Error> {
    open(objects, object, range).await?.try_collect().await
}

/// What a store's failure means for bytes that an event says are there. Damage is logged and counted here, once.
pub(crate) fn damaged(object: &ObjectRef, error: &StoreError) -> Error {
    let kind = match error.kind() {
        StoreErrorKind::Corrupt | StoreErrorKind::NotFound | StoreErrorKind::Invalid => ErrorKind::Corrupt,
        _ => return Error::from(error.clone()),
    };
    metrics::corrupt();
    tracing::error!(object_key = %object.key, cause = ?error.kind(), "a stored object is damaged or gone");
    Error::new(kind, format!("object {} is damaged: {error}", object.key))
}
