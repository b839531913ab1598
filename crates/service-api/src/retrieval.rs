//! Retrieval: streaming instances, frames, metadata and bulk data. Every byte is verified before it leaves.

use crate::{
    AnswerStream, Error,
    index::{InstanceRecord, Selection},
};
use async_trait::async_trait;
use bytes::Bytes;

/// Which part of a stored instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The whole Part 10 file, as stored.
    File,
    /// The data set alone, as received.
    DataSet,
    /// A range of the file, in bytes.
    FileRange(std::ops::Range<u64>),
}

/// An instance with its bytes on the way.
pub struct RetrievedInstance {
    /// What it is. Tables are filled.
    pub record: InstanceRecord,
    /// Its bytes, in chunks of at most 1 MiB.
    pub bytes: AnswerStream<Bytes>,
}

/// One frame on the way.
pub struct Frame {
    /// Frame number, from 1.
    pub number: u32,
    /// Length in bytes.
    pub length: u64,
    /// Its bytes: native ones, little endian whatever the stored syntax; or the concatenated fragments of one compressed
    /// frame.
    pub bytes: AnswerStream<Bytes>,
}

/// The retrieval service.
#[async_trait]
pub trait Retrieval: Send + Sync {
    /// The shown instances of a selection with their bytes, in the index's order; several are read ahead, within a
    /// configured number of bytes. A damaged one yields `Corrupt` in its own `bytes`, before any wrong byte.
    async fn instances(&self, selection: Selection, part: Part) -> Result<AnswerStream<RetrievedInstance>, Error>;

    /// The records of a selection with headers and complete tables (side objects are read).
    async fn metadata(&self, selection: Selection) -> Result<AnswerStream<InstanceRecord>, Error>;

    /// Opens a part of one instance that the caller has the record of.
    async fn open(&self, record: &InstanceRecord, part: Part) -> Result<AnswerStream<Bytes>, Error>;

    /// Frames by number, in the order asked for; a frame that does not exist is `NotFound` before anything is yielded.
    async fn frames(&self, record: &InstanceRecord, numbers: &[u32]) -> Result<AnswerStream<Frame>, Error>;

    /// The value of an element that is not in the header, by its path (tag, item, tag, ..., tag); for encapsulated
    /// Pixel Data the fragments as stored. Native values are little endian whatever the stored syntax.
    ///
    /// Gives the length and the bytes.
    async fn bulk_data(&self, record: &InstanceRecord, path: &[u32]) -> Result<(u64, AnswerStream<Bytes>), Error>;
}
