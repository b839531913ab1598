//! Side objects: header and tables of instances for which they did not fit in the event. A few are kept in memory.

use crate::{read, service::Service};
use bytes::{Bytes, BytesMut};
use cairn_archive::{ObjectKey, correction::modifications, events::InstanceStoredSide, fold::default_character_set};
use cairn_dicom::rewrite::rewrite;
use cairn_service_api::{Error, ErrorKind, index::InstanceRecord};
use cairn_store_api::ObjectRef;
use futures_util::TryStreamExt;
use prost::Message;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// The side objects read last, bounded by their encoded size.
#[derive(Default)]
pub(crate) struct SideCache(Mutex<VecDeque<(ObjectRef, Arc<InstanceStoredSide>)>>);

impl SideCache {
    fn get(&self, key: ObjectKey) -> Option<Arc<InstanceStoredSide>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(object, _)| object.key == key)?;
        let entry = kept.remove(at)?;
        let side = entry.1.clone();
        kept.push_front(entry);
        Some(side)
    }

    fn keep(&self, object: ObjectRef, side: Arc<InstanceStoredSide>, bytes_max: u64) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, _)| other.key != object.key);
        kept.push_front((object, side));
        while kept.iter().map(|(object, _)| object.length).sum::<u64>() > bytes_max {
            kept.pop_back();
        }
    }
}

impl Service {
    /// A side object, verified and decoded.
    pub(crate) async fn side(&self, object: &ObjectRef) -> Result<Arc<InstanceStoredSide>, Error> {
        if let Some(side) = self.sides.get(object.key) {
            return Ok(side);
        }
        if object.length > self.config.side_object_bytes_max {
            return Err(Error::new(ErrorKind::Exhausted, "header and tables of the instance are over the bound"));
        }
        let mut chunks = read::open(self.objects.as_ref(), object, 0..object.length).await?;
        let mut encoded = BytesMut::with_capacity(usize::try_from(object.length).unwrap_or_default());
        while let Some(chunk) = chunks.try_next().await? {
            encoded.extend_from_slice(&chunk);
        }
        let side = InstanceStoredSide::decode(encoded.freeze());
        let side =
            side.map_err(|error| Error::new(ErrorKind::Internal, format!("side object {}: {error}", object.key)))?;
        let side = Arc::new(side);
        self.sides.keep(*object, side.clone(), self.config.side_cache_bytes);
        Ok(side)
    }

    /// Fills tables, and the header where asked for, from the instance's side object, if it has one.
    pub(crate) async fn complete(&self, record: &mut InstanceRecord, with_header: bool) -> Result<(), Error> {
        let Some(object) = record.side_object else { return Ok(()) };
        let side = self.side(&object).await?;
        if record.frame_table.is_none() {
            record.frame_table.clone_from(&side.frame_table);
        }
        if record.bulk_data.is_empty() {
            record.bulk_data.clone_from(&side.bulk_data);
        }
        if with_header && record.header.is_empty() {
            let default = default_character_set(&record.default_character_set);
            let header = side_header(&side);
            record.header = match record.corrections.as_slice() {
                [] => header,
                corrections => rewrite(&header, &modifications(corrections), default),
            };
        }
        Ok(())
    }
}

pub(crate) fn side_header(side: &InstanceStoredSide) -> Bytes {
    side.protected.as_ref().map(|protected| protected.header.clone()).unwrap_or_default()
}
