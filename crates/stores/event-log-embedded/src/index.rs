//! Where each record of a segment stands: in memory for the open segment, in a file of its own for a sealed one.

use crate::format::{u32_at, u64_at};
use cairn_process::disk::{Disk, DiskFile};
use std::{io, path::Path, sync::Arc};

const MAGIC: [u8; 4] = *b"CRNi";
const VERSION: u16 = 1;
const HEAD: usize = 56;
const PARTITION_ENTRY: usize = 16;
const PLACE: usize = 8;
const TIME: usize = 12;

/// Place of a record in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: u32,
    /// Head and body.
    pub(crate) length: u32,
}

/// From which position on groups bear this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeMark {
    pub(crate) time_ms: u64,
    pub(crate) position: u32,
}

/// Index of a segment, as it grows.
#[derive(Clone, Debug)]
pub(crate) struct SegmentIndex {
    /// Time of the last group before this segment.
    pub(crate) floor_ms: u64,
    /// First offset of each partition.
    pub(crate) bases: Arc<[u64]>,
    /// Places of each partition's records, in offset order.
    pub(crate) places: Vec<Vec<Place>>,
    /// One mark for each time at which groups were appended.
    pub(crate) times: Vec<TimeMark>,
}

impl SegmentIndex {
    pub(crate) fn new(bases: Arc<[u64]>, floor_ms: u64) -> Self {
        let places = bases.iter().map(|_| Vec::new()).collect();
        Self { floor_ms, bases, places, times: Vec::new() }
    }

    /// First offset after those indexed.
    pub(crate) fn end(&self, partition: usize) -> u64 {
        self.bases[partition] + self.places[partition].len() as u64
    }

    pub(crate) fn ends(&self) -> Arc<[u64]> {
        (0..self.bases.len()).map(|partition| self.end(partition)).collect()
    }

    pub(crate) fn last_ms(&self) -> u64 {
        self.times.last().map_or(self.floor_ms, |mark| mark.time_ms)
    }

    /// Takes note of a group of records at this position.
    pub(crate) fn mark_time(&mut self, time_ms: u64, position: u32) {
        if self.times.last().is_none_or(|mark| mark.time_ms < time_ms) {
            self.times.push(TimeMark { time_ms, position });
        }
    }

    /// The bytes of the index file.
    pub(crate) fn to_bytes(&self, segment: u64, next_sequence: u64, end: u32, seed: u32) -> Vec<u8> {
        let crc = |bytes: &[u8]| crc32c::crc32c_append(seed, bytes);
        let sections: Vec<Vec<u8>> = self.places.iter().map(|places| section(places)).collect();
        let times: Vec<u8> = self.times.iter().flat_map(|mark| time_bytes(*mark)).collect();
        let mut bytes = Vec::with_capacity(HEAD + sections.iter().map(|s| s.len() + PARTITION_ENTRY).sum::<usize>());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&segment.to_le_bytes());
        bytes.extend_from_slice(&self.floor_ms.to_le_bytes());
        bytes.extend_from_slice(&self.last_ms().to_le_bytes());
        bytes.extend_from_slice(&next_sequence.to_le_bytes());
        bytes.extend_from_slice(&end.to_le_bytes());
        bytes.extend_from_slice(&(self.bases.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.times.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc(&times).to_le_bytes());
        for (partition, section) in sections.iter().enumerate() {
            bytes.extend_from_slice(&self.bases[partition].to_le_bytes());
            bytes.extend_from_slice(&(self.places[partition].len() as u32).to_le_bytes());
            bytes.extend_from_slice(&crc(section).to_le_bytes());
        }
        let head_crc = crc(&bytes[8..]);
        bytes[4..8].copy_from_slice(&head_crc.to_le_bytes());
        sections.iter().for_each(|section| bytes.extend_from_slice(section));
        bytes.extend_from_slice(&times);
        bytes
    }
}

fn section(places: &[Place]) -> Vec<u8> {
    let pair = |place: &Place| (u64::from(place.length) << 32 | u64::from(place.position)).to_le_bytes();
    places.iter().flat_map(pair).collect()
}

fn time_bytes(mark: TimeMark) -> [u8; TIME] {
    let mut bytes = [0; TIME];
    bytes[..8].copy_from_slice(&mark.time_ms.to_le_bytes());
    bytes[8..].copy_from_slice(&mark.position.to_le_bytes());
    bytes
}

/// What stays in memory of a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) bases: Arc<[u64]>,
    pub(crate) floor_ms: u64,
    pub(crate) last_ms: u64,
}

/// The index file of a sealed segment, its head read and verified.
pub(crate) struct IndexFile {
    file: Arc<dyn DiskFile>,
    seed: u32,
    head: Vec<u8>,
}

impl IndexFile {
    /// Opens an index file. `InvalidData` when it is damaged.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, segment: u64, partitions: u16, seed: u32) -> io::Result<Self> {
        let file = disk.open(path)?;
        let mut head = vec![0; HEAD + PARTITION_ENTRY * usize::from(partitions)];
        read(file.as_ref(), &mut head, 0)?;
        let sound = head[..4] == MAGIC
            && u32_at(&head, 4) == crc32c::crc32c_append(seed, &head[8..])
            && u64_at(&head, 8) == segment
            && u32_at(&head, 44) == (u32::from(VERSION) << 16 | u32::from(partitions));
        if sound { Ok(Self { file, seed, head }) } else { Err(damaged()) }
    }

    fn partitions(&self) -> usize {
        (self.head.len() - HEAD) / PARTITION_ENTRY
    }

    fn count(&self, partition: usize) -> usize {
        u32_at(&self.head, HEAD + partition * PARTITION_ENTRY + 8) as usize
    }

    fn base(&self, partition: usize) -> u64 {
        u64_at(&self.head, HEAD + partition * PARTITION_ENTRY)
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary {
            bases: (0..self.partitions()).map(|partition| self.base(partition)).collect(),
            floor_ms: u64_at(&self.head, 16),
            last_ms: u64_at(&self.head, 24),
        }
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        u64_at(&self.head, 32)
    }

    /// First offset of each partition after this segment.
    pub(crate) fn ends(&self) -> Arc<[u64]> {
        (0..self.partitions()).map(|partition| self.base(partition) + self.count(partition) as u64).collect()
    }

    /// Places of one partition's records.
    pub(crate) fn places(&self, partition: usize) -> io::Result<Vec<Place>> {
        let at = self.head.len() + PLACE * (0..partition).map(|before| self.count(before)).sum::<usize>();
        let bytes = self.section(at, self.count(partition) * PLACE, HEAD + partition * PARTITION_ENTRY + 12)?;
        let place = |bytes: &[u8]| Place { position: u32_at(bytes, 0), length: u32_at(bytes, 4) };
        Ok(bytes.chunks_exact(PLACE).map(place).collect())
    }

    /// Times of the groups.
    pub(crate) fn times(&self) -> io::Result<Vec<TimeMark>> {
        let places: usize = (0..self.partitions()).map(|partition| self.count(partition)).sum();
        let bytes = self.section(self.head.len() + PLACE * places, u32_at(&self.head, 48) as usize * TIME, 52)?;
        let mark = |bytes: &[u8]| TimeMark { time_ms: u64_at(bytes, 0), position: u32_at(bytes, 8) };
        Ok(bytes.chunks_exact(TIME).map(mark).collect())
    }

    fn section(&self, at: usize, length: usize, crc_at: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        read(self.file.as_ref(), &mut bytes, at as u64)?;
        let sound = crc32c::crc32c_append(self.seed, &bytes) == u32_at(&self.head, crc_at);
        if sound { Ok(bytes) } else { Err(damaged()) }
    }
}

fn read(file: &dyn DiskFile, bytes: &mut [u8], at: u64) -> io::Result<()> {
    file.read_exact_at(bytes, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(),
        _ => error,
    })
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "segment index is damaged")
}
