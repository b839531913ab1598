//! Reading: from wherever an object is, also when it is moved meanwhile.

use crate::Both;
use cairn_store_api::{ByteStream, ObjectRef, StoreError, StoreErrorKind, Tier};
use futures_util::{StreamExt, stream};
use std::{ops::Range, sync::Arc};

/// How often one read goes on in the other store: it was moved there, or its bytes here are damaged.
const SWITCHES_MAX: u32 = 16;

fn other(tier: Tier) -> Tier {
    match tier {
        Tier::Hot => Tier::Cold,
        Tier::Cold => Tier::Hot,
    }
}

/// Whether the other store may still have the bytes.
fn may_be_elsewhere(error: &StoreError) -> bool {
    matches!(error.kind(), StoreErrorKind::NotFound | StoreErrorKind::Corrupt | StoreErrorKind::Invalid)
}

/// A read under way.
struct Reading {
    both: Arc<Both>,
    object: ObjectRef,
    /// What is still to be given.
    left: Range<u64>,
    tier: Tier,
    bytes: ByteStream,
    switches: u32,
}

/// Opens a range of an object, the hot store first.
pub(crate) async fn open(both: Arc<Both>, object: ObjectRef, range: Range<u64>) -> Result<ByteStream, StoreError> {
    let (tier, bytes) = find(&both, &object, range.clone()).await?;
    let reading = Reading { both, object, left: range, tier, bytes, switches: 0 };
    Ok(Box::pin(stream::unfold(Some(reading), |reading| async move { next(reading?).await })))
}

async fn find(both: &Both, object: &ObjectRef, range: Range<u64>) -> Result<(Tier, ByteStream), StoreError> {
    let hot = match both.store(Tier::Hot).read(object, range.clone()).await {
        Err(error) if may_be_elsewhere(&error) => error,
        opened => return Ok((Tier::Hot, opened?)),
    };
    match both.store(Tier::Cold).read(object, range.clone()).await {
        Ok(bytes) => Ok((Tier::Cold, bytes)),
        // What is hot and damaged is no less so because the cold store is away or does not have it.
        Err(_) if hot.kind() != StoreErrorKind::NotFound => Err(hot),
        // It may have been moved to the hot store meanwhile.
        Err(error) if error.kind() == StoreErrorKind::NotFound => {
            Ok((Tier::Hot, both.store(Tier::Hot).read(object, range).await?))
        }
        Err(error) => Err(error),
    }
}

async fn next(mut reading: Reading) -> Option<(Result<bytes::Bytes, StoreError>, Option<Reading>)> {
    loop {
        let error = match reading.bytes.next().await? {
            Ok(chunk) => {
                reading.left.start += chunk.len() as u64;
                return Some((Ok(chunk), Some(reading)));
            }
            Err(error) => error,
        };
        if !may_be_elsewhere(&error) || reading.switches == SWITCHES_MAX {
            return Some((Err(error), None));
        }
        reading.switches += 1;
        if !reading.go_on_in(other(reading.tier)).await
            // Moved twice it is here again, though not where it was.
            && (error.kind() != StoreErrorKind::NotFound || !reading.go_on_in(reading.tier).await)
        {
            return Some((Err(error), None));
        }
    }
}

impl Reading {
    /// Opens what is left in a store; gives whether that could be done.
    async fn go_on_in(&mut self, tier: Tier) -> bool {
        let Ok(bytes) = self.both.store(tier).read(&self.object, self.left.clone()).await else { return false };
        (self.bytes, self.tier) = (bytes, tier);
        true
    }
}
