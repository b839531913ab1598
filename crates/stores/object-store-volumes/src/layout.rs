//! Bytes of blocks and records. All numbers are little endian. See the crate's documentation for the tables.

use cairn_archive::{Digest, ObjectKey};
use cairn_store_api::ObjectInfo;
use std::sync::Arc;

/// Unit of everything in a volume. A durable block is never written again, so no tear can harm it.
pub(crate) const BLOCK: u64 = 4096;
/// Where the first record of a volume can be: after its header and its begin block.
pub(crate) const BODY: u64 = 2 * BLOCK;
/// Pieces of one object, so that its record fits a block.
pub(crate) const EXTENTS_MAX: usize = 200;
/// Bytes of a block before its content.
const HEAD: usize = 24;
/// Bytes of a journal block before its records.
const JOURNAL_HEAD: usize = HEAD + 40;
/// Bytes of records in one journal block.
pub(crate) const RECORDS_BYTES: usize = BLOCK as usize - JOURNAL_HEAD;

const HEADER_MAGIC: &[u8; 8] = b"CAIRNVOL";
const BEGIN_MAGIC: &[u8; 8] = b"CAIRNBEG";
const JOURNAL_MAGIC: &[u8; 8] = b"CAIRNJRN";
pub(crate) const VERSION: u16 = 1;

pub(crate) type Block = [u8; BLOCK as usize];

/// Secret of the store. Blocks are authenticated with it, so that no content of an object can pass for a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreSecret(pub(crate) [u8; 32]);

impl StoreSecret {
    fn mac(&self, block: &Block) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&block[..8]).update(&block[HEAD..]);
        let mut mac = [0; 16];
        mac.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        mac
    }

    fn seal(&self, block: &mut Block) {
        let mac = self.mac(block);
        block[8..HEAD].copy_from_slice(&mac);
    }

    fn is_sealed(&self, block: &Block) -> bool {
        // Compared in full whatever the first difference is; the secret is not worth less on a local disk.
        let mac = self.mac(block);
        mac.iter().zip(&block[8..HEAD]).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

/// Reads numbers off the front of bytes; `None` once they run out.
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

impl<'a> Take<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn secret(&mut self) -> Option<StoreSecret> {
        self.array().map(StoreSecret)
    }

    pub(crate) fn key(&mut self) -> Option<ObjectKey> {
        ObjectKey::from_slice(self.bytes(16)?).ok()
    }
}

/// A run of blocks in a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) volume: u32,
    /// In bytes; a multiple of the block.
    pub(crate) offset: u64,
    /// In bytes; a multiple of the block.
    pub(crate) length: u64,
}

impl Extent {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// A finished object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) info: ObjectInfo,
    /// Volume whose journal has the record.
    pub(crate) home: u32,
    /// Whether the bytes were durable before the record was written.
    pub(crate) synced: bool,
    pub(crate) extents: Vec<Extent>,
}

impl Entry {
    pub(crate) fn key(&self) -> ObjectKey {
        self.info.object.key
    }
}

/// What a journal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// An object is finished.
    Put(Arc<Entry>),
    /// An object, whose record is in the volume given, is deleted.
    Delete(ObjectKey, u32),
    /// A restart decided about this group, which a crash had left in doubt: what is missing of it was never acknowledged.
    Settled(u64),
}

impl Record {
    pub(crate) fn key(&self) -> Option<ObjectKey> {
        match self {
            Self::Put(entry) => Some(entry.key()),
            Self::Delete(key, _) => Some(*key),
            Self::Settled(_) => None,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Put(entry) => {
                out.push(1);
                out.extend(entry.key().as_bytes());
                out.extend(entry.info.object.length.to_le_bytes());
                out.extend(entry.info.object.digest.0);
                out.extend(entry.info.put_ended_at_ms.to_le_bytes());
                out.extend(entry.home.to_le_bytes());
                out.push(u8::from(entry.synced));
                out.extend((entry.extents.len() as u16).to_le_bytes());
                for extent in &entry.extents {
                    out.extend(extent.volume.to_le_bytes());
                    out.extend(((extent.offset / BLOCK) as u32).to_le_bytes());
                    out.extend(((extent.length / BLOCK) as u32).to_le_bytes());
                }
            }
            Self::Delete(key, home) => {
                out.push(2);
                out.extend(key.as_bytes());
                out.extend(home.to_le_bytes());
            }
            Self::Settled(group) => {
                out.push(3);
                out.extend(group.to_le_bytes());
            }
        }
    }

    pub(crate) fn decode(bytes: &mut Take<'_>) -> Option<Self> {
        match bytes.u8()? {
            1 => {
                let key = bytes.key()?;
                let length = bytes.u64()?;
                let digest = Digest(bytes.array()?);
                let put_ended_at_ms = bytes.u64()?;
                let (home, synced, count) = (bytes.u32()?, bytes.u8()? != 0, bytes.u16()?);
                let extents = (0..count).map(|_| {
                    let (volume, offset, length) = (bytes.u32()?, bytes.u32()?, bytes.u32()?);
                    Some(Extent { volume, offset: u64::from(offset) * BLOCK, length: u64::from(length) * BLOCK })
                });
                let extents = extents.collect::<Option<_>>()?;
                let object = cairn_store_api::ObjectRef { key, length, digest };
                Some(Self::Put(Arc::new(Entry { info: ObjectInfo { object, put_ended_at_ms }, home, synced, extents })))
            }
            2 => Some(Self::Delete(bytes.key()?, bytes.u32()?)),
            3 => Some(Self::Settled(bytes.u64()?)),
            _ => None,
        }
    }
}

/// First block of a volume.
pub(crate) fn encode_header(secret: &StoreSecret, volume: u32, capacity: u64) -> Block {
    let mut block = [0; BLOCK as usize];
    block[..8].copy_from_slice(HEADER_MAGIC);
    let mut body = Vec::with_capacity(64);
    body.extend(VERSION.to_le_bytes());
    body.extend(volume.to_le_bytes());
    body.extend(capacity.to_le_bytes());
    body.extend(secret.0);
    block[HEAD..HEAD + body.len()].copy_from_slice(&body);
    secret.seal(&mut block);
    block
}

/// Volume, capacity and the store's secret.
pub(crate) fn decode_header(block: &Block) -> Option<(u32, u64, StoreSecret)> {
    let mut take = Take(&block[HEAD..]);
    let (version, volume, capacity, secret) = (take.u16()?, take.u32()?, take.u64()?, take.secret()?);
    (block.starts_with(HEADER_MAGIC) && secret.is_sealed(block) && version == VERSION)
        .then_some((volume, capacity, secret))
}

/// Second block of a volume, written when it comes into use. `last_journal` is where the journal of the volume before
/// ends.
pub(crate) fn encode_begin(secret: &StoreSecret, volume: u32, before: u32, last_journal: u64) -> Block {
    let mut block = [0; BLOCK as usize];
    block[..8].copy_from_slice(BEGIN_MAGIC);
    block[HEAD..HEAD + 4].copy_from_slice(&volume.to_le_bytes());
    block[HEAD + 4..HEAD + 8].copy_from_slice(&before.to_le_bytes());
    block[HEAD + 8..HEAD + 16].copy_from_slice(&last_journal.to_le_bytes());
    secret.seal(&mut block);
    block
}

/// The volume before, and where its journal ends.
pub(crate) fn decode_begin(secret: &StoreSecret, volume: u32, block: &Block) -> Option<(u32, u64)> {
    let mut take = Take(&block[HEAD..]);
    let own = take.u32()? == volume;
    let (before, last_journal) = (take.u32()?, take.u64()?);
    (own && block.starts_with(BEGIN_MAGIC) && secret.is_sealed(block)).then_some((before, last_journal))
}

/// A block of the journal. All records of one shared sync are a group, in one block or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JournalBlock {
    pub(crate) volume: u32,
    pub(crate) offset: u64,
    pub(crate) group: u64,
    /// Which of the group's blocks this is, and how many they are.
    pub(crate) index: u32,
    pub(crate) blocks: u32,
    /// Offset of the block before in this volume; 0 for the first.
    pub(crate) previous: u64,
    pub(crate) records: Vec<Record>,
}

impl JournalBlock {
    pub(crate) fn encode(&self, secret: &StoreSecret) -> Block {
        let mut block = [0; BLOCK as usize];
        block[..8].copy_from_slice(JOURNAL_MAGIC);
        let mut body = Vec::with_capacity(BLOCK as usize);
        body.extend(self.volume.to_le_bytes());
        body.extend(((self.offset / BLOCK) as u32).to_le_bytes());
        body.extend(self.group.to_le_bytes());
        body.extend(self.index.to_le_bytes());
        body.extend(self.blocks.to_le_bytes());
        body.extend(self.previous.to_le_bytes());
        body.extend((self.records.len() as u64).to_le_bytes());
        self.records.iter().for_each(|record| record.encode(&mut body));
        block[HEAD..HEAD + body.len()].copy_from_slice(&body);
        secret.seal(&mut block);
        block
    }

    /// `None` for anything else than the block that was written here.
    pub(crate) fn decode(secret: &StoreSecret, volume: u32, offset: u64, block: &Block) -> Option<Self> {
        if !block.starts_with(JOURNAL_MAGIC) || !secret.is_sealed(block) {
            return None;
        }
        let mut take = Take(&block[HEAD..]);
        let place = (take.u32()?, u64::from(take.u32()?) * BLOCK);
        let (group, index, blocks, previous, count) = (take.u64()?, take.u32()?, take.u32()?, take.u64()?, take.u64()?);
        let records = (0..count).map(|_| Record::decode(&mut take)).collect::<Option<_>>()?;
        (place == (volume, offset)).then_some(Self { volume, offset, group, index, blocks, previous, records })
    }
}

/// Deals records to blocks in order; gives the number of records of each.
pub(crate) fn split_records(records: &[Record]) -> Vec<usize> {
    let (mut counts, mut room, mut bytes) = (Vec::new(), 0, Vec::new());
    for record in records {
        bytes.clear();
        record.encode(&mut bytes);
        match counts.last_mut() {
            Some(count) if bytes.len() <= room => *count += 1,
            _ => {
                counts.push(1);
                room = RECORDS_BYTES;
            }
        }
        room -= bytes.len();
    }
    counts
}

#[cfg(test)]
mod tests;
