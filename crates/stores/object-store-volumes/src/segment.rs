//! Sorted, immutable files of the key index.

use crate::layout::{BLOCK, Block, Record, StoreSecret, Take};
use cairn_archive::ObjectKey;
use cairn_process::disk::{Disk, DiskFile};
use cairn_store_api::{StoreError, StoreErrorKind};
use std::{io, path::Path, sync::Arc};

const MAGIC: &[u8; 8] = b"CAIRNSEG";
const FOOTER_MAGIC: &[u8; 8] = b"CAIRNIDX";
/// Checksum, number of records and place of a block.
const BLOCK_HEAD: usize = 32 + 2 + 8;
/// Length and checksum of the footer, at the end of the file.
const TRAILER: u64 = 8 + 32;
const BITS_PER_KEY: u64 = 10;
const PROBES: u64 = 7;
/// Written at once.
const WRITE: usize = 256 * 1024;
/// Longest footer that is believed.
const FOOTER_MAX: u64 = 1 << 30;

pub(crate) fn file_name(number: u64) -> String {
    format!("index-{number:016x}")
}

pub(crate) fn file_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("index-").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Says "perhaps" for each key put in, and "no" for 99 of 100 others.
struct Bloom(Vec<u64>);

/// Two numbers that a key's bits follow from.
#[derive(Clone, Copy)]
pub(crate) struct KeyHash(u64, u64);

impl KeyHash {
    pub(crate) fn of(key: &ObjectKey) -> Self {
        let hash = blake3::hash(key.as_bytes());
        let mut take = Take(hash.as_bytes());
        Self(take.u64().unwrap_or(0), take.u64().unwrap_or(0) | 1)
    }
}

impl Bloom {
    fn bits(&self, KeyHash(a, b): KeyHash) -> impl Iterator<Item = (usize, u64)> + use<> {
        let bits = self.0.len() as u64 * 64;
        let bit = move |probe: u64| a.wrapping_add(probe.wrapping_mul(b)) % bits;
        (0..PROBES).map(bit).map(|bit| ((bit / 64) as usize, 1 << (bit % 64)))
    }

    fn insert(&mut self, hash: KeyHash) {
        for (word, bit) in self.bits(hash) {
            if let Some(word) = self.0.get_mut(word) {
                *word |= bit;
            }
        }
    }

    fn has(&self, hash: KeyHash) -> bool {
        self.bits(hash).all(|(word, bit)| self.0.get(word).is_some_and(|word| word & bit != 0))
    }
}

/// A segment that can be read: 16 bytes of memory for a block of records, 10 bits for a key.
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) records: u64,
    file: Arc<dyn DiskFile>,
    secret: StoreSecret,
    first_keys: Vec<ObjectKey>,
    bloom: Bloom,
}

fn damaged(number: u64) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("index segment {number} is damaged"))
}

impl Segment {
    /// Opens a segment and checks its footer.
    pub(crate) fn open(
        disk: &dyn Disk,
        directory: &Path,
        number: u64,
        secret: StoreSecret,
    ) -> Result<Self, StoreError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => damaged(number),
            _ => StoreError::io("opening an index segment", &error),
        };
        let file = disk.open(&directory.join(file_name(number))).map_err(failed)?;
        let length = file.len().map_err(failed)?;
        let mut trailer = [0; TRAILER as usize];
        let at = length.checked_sub(TRAILER).ok_or_else(|| damaged(number))?;
        file.read_exact_at(&mut trailer, at).map_err(failed)?;
        let mut take = Take(&trailer);
        let size = take.u64().filter(|size| *size <= at.min(FOOTER_MAX)).ok_or_else(|| damaged(number))?;
        let mut footer = vec![0; size as usize];
        file.read_exact_at(&mut footer, at - size).map_err(failed)?;
        if blake3::keyed_hash(&secret.0, &footer) != blake3::Hash::from_slice(take.0).map_err(|_| damaged(number))? {
            return Err(damaged(number));
        }
        let (records, first_keys, bloom) = decode_footer(number, &footer).ok_or_else(|| damaged(number))?;
        Ok(Self { number, records, file, secret, first_keys, bloom })
    }

    /// Whether the filter says "perhaps".
    pub(crate) fn may_have(&self, hash: KeyHash) -> bool {
        self.bloom.has(hash)
    }

    /// The record of a key.
    pub(crate) fn get(&self, key: &ObjectKey, hash: KeyHash) -> Result<Option<Record>, StoreError> {
        if !self.bloom.has(hash) {
            return Ok(None);
        }
        let Some(block) = self.first_keys.partition_point(|first| first <= key).checked_sub(1) else { return Ok(None) };
        Ok(self.read(block)?.into_iter().find(|record| record.key() == Some(*key)))
    }

    fn read(&self, number: usize) -> Result<Vec<Record>, StoreError> {
        let mut block: Block = [0; BLOCK as usize];
        let read = self.file.read_exact_at(&mut block, number as u64 * BLOCK);
        match read {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged(self.number)),
            other => other.map_err(|error| StoreError::io("reading an index segment", &error))?,
        }
        decode_block(&self.secret, self.number, number, &block).ok_or_else(|| damaged(self.number))
    }

    /// Reads records with keys after the one given, in key order.
    pub(crate) fn cursor(self: &Arc<Self>, after: Option<ObjectKey>) -> Cursor {
        let block = after.map_or(0, |after| self.first_keys.partition_point(|first| *first <= after).saturating_sub(1));
        Cursor { segment: self.clone(), after, block, records: Vec::new().into_iter() }
    }
}

/// Reads a segment block by block.
pub(crate) struct Cursor {
    segment: Arc<Segment>,
    after: Option<ObjectKey>,
    block: usize,
    records: std::vec::IntoIter<Record>,
}

impl Cursor {
    /// A key that no record left is before; nothing is read for it. `None` at the end.
    pub(crate) fn bound(&self) -> Option<ObjectKey> {
        let next = self.records.as_slice().first().and_then(Record::key);
        next.or_else(|| Some((*self.segment.first_keys.get(self.block)?).max(self.after?)))
            .or_else(|| self.segment.first_keys.get(self.block).copied())
    }

    /// Reads so far that `bound` is the key of the next record.
    pub(crate) fn settle(&mut self) -> Result<(), StoreError> {
        while self.records.as_slice().is_empty() && self.block < self.segment.first_keys.len() {
            let mut records = self.segment.read(self.block)?;
            self.block += 1;
            if let Some(after) = self.after {
                records.retain(|record| record.key() > Some(after));
            }
            self.records = records.into_iter();
        }
        Ok(())
    }

    pub(crate) fn is_settled(&self) -> bool {
        !self.records.as_slice().is_empty()
    }

    pub(crate) fn next(&mut self) -> Option<Record> {
        self.records.next()
    }
}

fn decode_footer(number: u64, footer: &[u8]) -> Option<(u64, Vec<ObjectKey>, Bloom)> {
    let mut take = Take(footer);
    if take.bytes(8)? != FOOTER_MAGIC || take.u64()? != number {
        return None;
    }
    let (records, blocks) = (take.u64()?, take.u64()?);
    let first_keys = (0..blocks).map(|_| take.key()).collect::<Option<_>>()?;
    let words = take.u64()?;
    let bloom = (0..words).map(|_| take.u64()).collect::<Option<Vec<_>>>()?;
    (!bloom.is_empty()).then_some((records, first_keys, Bloom(bloom)))
}

fn decode_block(secret: &StoreSecret, segment: u64, number: usize, block: &Block) -> Option<Vec<Record>> {
    let mut take = Take(block);
    let checksum = take.bytes(32)?;
    if blake3::keyed_hash(&secret.0, take.0).as_bytes() != checksum {
        return None;
    }
    let (count, place) = (take.u16()?, take.u64()?);
    if place != place_of(segment, number) {
        return None;
    }
    (0..count).map(|_| Record::decode(&mut take)).collect()
}

/// Tells a block of one segment from those of others.
fn place_of(segment: u64, number: usize) -> u64 {
    segment.rotate_left(32) ^ number as u64 ^ u64::from_le_bytes(*MAGIC)
}

/// Writes a segment of records in key order.
pub(crate) struct SegmentWriter<'a> {
    disk: &'a dyn Disk,
    directory: &'a Path,
    number: u64,
    secret: StoreSecret,
    file: Arc<dyn DiskFile>,
    written: u64,
    pending: Vec<u8>,
    block: Vec<u8>,
    in_block: u16,
    first_keys: Vec<ObjectKey>,
    records: u64,
    bloom: Bloom,
}

impl<'a> SegmentWriter<'a> {
    /// A new file for at most `records_max` records.
    pub(crate) fn create(
        disk: &'a dyn Disk,
        directory: &'a Path,
        number: u64,
        secret: StoreSecret,
        records_max: u64,
    ) -> io::Result<Self> {
        let file = disk.create_new(&directory.join(file_name(number)))?;
        let bloom = Bloom(vec![0; (records_max * BITS_PER_KEY).div_ceil(64).max(1) as usize]);
        let (pending, block, first_keys) = (Vec::with_capacity(WRITE), Vec::new(), Vec::new());
        let (written, in_block, records) = (0, 0, 0);
        Ok(Self {
            disk,
            directory,
            number,
            secret,
            file,
            written,
            pending,
            block,
            in_block,
            first_keys,
            records,
            bloom,
        })
    }

    pub(crate) fn push(&mut self, record: &Record) -> io::Result<()> {
        let Some(key) = record.key() else { return Ok(()) };
        let before = self.block.len();
        record.encode(&mut self.block);
        if self.block.len() > BLOCK as usize - BLOCK_HEAD {
            let record = self.block.split_off(before);
            self.end_block()?;
            self.block = record;
        }
        if self.in_block == 0 {
            self.first_keys.push(key);
        }
        self.in_block += 1;
        self.records += 1;
        self.bloom.insert(KeyHash::of(&key));
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        let mut body = Vec::with_capacity(BLOCK as usize - 32);
        body.extend(self.in_block.to_le_bytes());
        body.extend(place_of(self.number, self.first_keys.len().saturating_sub(1)).to_le_bytes());
        body.append(&mut self.block);
        body.resize(BLOCK as usize - 32, 0);
        self.pending.extend(blake3::keyed_hash(&self.secret.0, &body).as_bytes());
        self.pending.extend(body);
        self.in_block = 0;
        if self.pending.len() >= WRITE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.pending, self.written)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Makes the file durable; its name becomes so with the directory.
    pub(crate) fn finish(mut self) -> Result<Segment, StoreError> {
        let failed = |error: io::Error| StoreError::io("writing an index segment", &error);
        if self.in_block > 0 {
            self.end_block().map_err(failed)?;
        }
        let mut footer = Vec::new();
        footer.extend(FOOTER_MAGIC);
        footer.extend(self.number.to_le_bytes());
        footer.extend(self.records.to_le_bytes());
        footer.extend((self.first_keys.len() as u64).to_le_bytes());
        self.first_keys.iter().for_each(|key| footer.extend(key.as_bytes()));
        footer.extend((self.bloom.0.len() as u64).to_le_bytes());
        self.bloom.0.iter().for_each(|word| footer.extend(word.to_le_bytes()));
        let checksum = blake3::keyed_hash(&self.secret.0, &footer);
        let size = footer.len() as u64;
        self.pending.append(&mut footer);
        self.pending.extend(size.to_le_bytes());
        self.pending.extend(checksum.as_bytes());
        self.flush().and_then(|()| self.file.sync_data()).map_err(failed)?;
        Segment::open(self.disk, self.directory, self.number, self.secret)
    }
}
