//! Values of data sets in Explicit VR Big Endian as little endian: what leaves without its data set is little endian
//! (PS3.18 section 8.7.3, edition 2025c).

use crate::read;
use bytes::Bytes;
use cairn_archive::events::BulkDataEntry;
use cairn_dicom::{Swapper, TransferSyntax, Vr};
use cairn_service_api::{AnswerStream, Error, index::InstanceRecord};
use cairn_store_api::{ObjectRef, ObjectStore};
use futures_util::{StreamExt, stream};
use std::{ops::Range, sync::Arc};

/// A value in an object.
#[derive(Clone)]
pub(crate) struct StoredValue {
    /// Where it is in the object.
    pub(crate) range: Range<u64>,
    /// Bytes of a unit to be turned round; 1: none.
    pub(crate) unit: u64,
}

/// Bytes of a unit of this value that is stored the other way round; 1: it is little endian, or has no byte order.
pub(crate) fn unit_of(record: &InstanceRecord, entry: &BulkDataEntry) -> u64 {
    let big = TransferSyntax::from(&record.transfer_syntax_uid).encoding.is_big_endian();
    let [.., first, second] = entry.vr.to_be_bytes();
    let vr = Vr::from_bytes([first, second]).filter(|_| big && !entry.encapsulated);
    vr.map_or(1, |vr| vr.unit_bytes() as u64)
}

/// A range of a value (in the object), little endian; nothing is read before the first poll.
pub(crate) fn open_later(
    objects: Arc<dyn ObjectStore>,
    object: ObjectRef,
    value: &StoredValue,
    range: Range<u64>,
) -> AnswerStream<Bytes> {
    if value.unit <= 1 {
        return read::open_later(objects, object, range);
    }
    // Whole units, of which the ends are cut off again: a frame may end within one.
    let before = range.start.saturating_sub(value.range.start) % value.unit;
    let end = range.end.saturating_sub(value.range.start).next_multiple_of(value.unit);
    let units = range.start - before..value.range.start.saturating_add(end).min(value.range.end);
    let bytes = read::open_later(objects, object, units);
    let state =
        Turning { bytes, swapper: Swapper::new(value.unit as usize), skip: before, left: range.end - range.start };
    Box::pin(stream::unfold(Some(state), |state| async move {
        let mut turning = state?;
        match turning.next().await {
            Ok(None) => None,
            Ok(Some(bytes)) => Some((Ok(bytes), Some(turning))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

struct Turning {
    bytes: AnswerStream<Bytes>,
    swapper: Swapper,
    skip: u64,
    left: u64,
}

impl Turning {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.left > 0 {
            let mut out = Vec::new();
            let last = match self.bytes.next().await {
                Some(chunk) => {
                    self.swapper.push(&chunk?, &mut out);
                    false
                }
                None => {
                    self.swapper.finish(&mut out);
                    true
                }
            };
            let mut out = Bytes::from(out);
            let skipped = self.skip.min(out.len() as u64);
            let _ = out.split_to(skipped as usize);
            out.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.skip -= skipped;
            self.left -= out.len() as u64;
            if !out.is_empty() {
                return Ok(Some(out));
            }
            if last {
                break;
            }
        }
        Ok(None)
    }
}
