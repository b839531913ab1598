use crate::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{Digest, ObjectKey};
use futures_core::Stream;
use std::{ops::Range, pin::Pin};

/// Bytes of an object in order, in bounded chunks. An error ends the stream.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// What an event says of an object: enough to read it and to know that what was read is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// Key.
    pub key: ObjectKey,
    /// Length in bytes.
    pub length: u64,
    /// BLAKE3-256 of all bytes.
    pub digest: Digest,
}

/// What the store knows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Key, length and digest.
    pub object: ObjectRef,
    /// When its put ended, in milliseconds since the Unix epoch by the site's clock.
    pub put_ended_at_ms: u64,
}

/// Objects in key order.
#[derive(Clone, Debug, Default)]
pub struct ObjectPage {
    /// At most as many as asked for.
    pub objects: Vec<ObjectInfo>,
    /// Whether there are more after the last.
    pub more: bool,
}

/// Room of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSpace {
    /// Bytes that can still be stored before puts are refused; `None` when the store has no known bound.
    pub available: Option<u64>,
    /// Bytes held by objects.
    pub used: u64,
}

/// Write-once objects named by keys that the caller mints.
///
/// * OS-01 When `finish` returns, the object is durable: it survives a crash of process and machine.
/// * OS-02 Length and digest are of exactly the bytes written.
/// * OS-03 An object is readable only after `finish`; a writer dropped or failed before leaves nothing readable.
/// * OS-04 A put under a present key is `Conflict`, at `put` or at `finish`, and the bytes there stay as they are.
/// * OS-05 A read gives the bytes of the range asked for, verified against the digest given: wrong bytes are never
///   yielded, `Corrupt` is. A range verifies at the price of a range (64 KiB groups).
/// * OS-06 A read of an absent or deleted key is `NotFound`; of a range outside the object, or with another length or
///   digest than stored, `Invalid`.
/// * OS-07 `list` gives every finished object once, in key order, with the time its put ended.
/// * OS-08 `delete` makes the key `NotFound`, frees its room sooner or later, and is `Ok` for an absent key.
/// * OS-09 Memory held per writer and reader is bounded whatever the object's length.
/// * OS-10 Writers wait for each other's syncs, never for each other's bytes.
/// * OS-11 When room runs out a put is `Exhausted`, at `put` or in a `write`, before anything durable is harmed, and
///   puts go on once there is room.
/// * OS-12 Reopened after a crash, the store has every finished object and no other, in bounded time.
/// * OS-13 While a store that keeps state in its process is open no second process can open it for writing: `Conflict`.
/// * OS-14 A repair brings the bytes of an object again, whether they are damaged here, missing or whole: after `finish`
///   they are durable and read as OS-05 says. Other bytes than length and digest say are `Corrupt` at `finish`, and what is
///   there stays; under a key with another length or digest a repair is `Conflict`.
/// * OS-15 `finish_as` is `finish` for bytes that are what is said; other bytes are `Corrupt`, and nothing is kept of them.
/// * OS-16 What a store has put away, as a rule of an S3 bucket may, reads as `Archived`; `restore` asks that it be readable again,
///   which it is later.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// Begins an object of unknown length; `length_hint` is what the sender announced, and is not trusted.
    async fn put(&self, key: ObjectKey, length_hint: Option<u64>) -> Result<Box<dyn ObjectWriter>, StoreError>;

    /// Begins to bring the bytes of an object again that is damaged or missing here.
    async fn repair(&self, object: &ObjectRef) -> Result<Box<dyn ObjectWriter>, StoreError>;

    /// Opens `range` of the object for reading. Chunks are at most 1 MiB.
    ///
    /// # Cancel safety
    /// Dropping the stream closes the read.
    async fn read(&self, object: &ObjectRef, range: Range<u64>) -> Result<ByteStream, StoreError>;

    /// What the store knows of an object.
    async fn stat(&self, key: ObjectKey) -> Result<ObjectInfo, StoreError>;

    /// Objects with keys greater than `after`, in key order.
    async fn list(&self, after: Option<ObjectKey>, max: usize) -> Result<ObjectPage, StoreError>;

    /// Removes an object.
    async fn delete(&self, key: ObjectKey) -> Result<(), StoreError>;

    /// Asks that an object be readable again that is `Archived`. A store that puts nothing away has nothing to do.
    async fn restore(&self, _key: ObjectKey) -> Result<(), StoreError> {
        Ok(())
    }

    /// Room left.
    async fn space(&self) -> Result<StoreSpace, StoreError>;

    /// Length of the store's files, with room in them that no object holds; `None` when it has none on this machine.
    async fn file_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// Stops taking puts, waits for those under way, and closes files.
    async fn close(&self) -> Result<(), StoreError>;
}

/// An object on its way in. Dropping it leaves nothing readable.
#[async_trait]
pub trait ObjectWriter: Send {
    /// Adds bytes. They are hashed and written while more are received; nothing is spooled.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;

    /// Makes the object durable and readable.
    async fn finish(self: Box<Self>) -> Result<ObjectInfo, StoreError>;

    /// The same, if what was written has this length and digest.
    async fn finish_as(self: Box<Self>, length: u64, digest: Digest) -> Result<ObjectInfo, StoreError>;
}
