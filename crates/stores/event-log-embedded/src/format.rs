//! What stands in a segment file: groups, one after the other, each written and synced as one.
//!
//! All numbers are little-endian. Checksums are CRC32C over what follows them, begun from the log's own seed, so that
//! bytes of another log are no group of this one. A group states its place, so that a copy of it elsewhere is none.

use bytes::{Bytes, BytesMut};
use cairn_archive::{Offset, Partition};

/// Length of a group's head.
pub(crate) const GROUP_HEAD: usize = 48;
/// Length of a record's head.
pub(crate) const RECORD_HEAD: usize = 32;
/// Groups begin at multiples of this.
pub(crate) const ALIGN: usize = 8;
const GROUP_MAGIC: [u8; 4] = *b"CRNg";
/// Layout of a record's body.
const RECORD_VERSION: u16 = 1;

/// What a group is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupKind {
    /// First in its segment; its body is an [`Opening`].
    Opening = 1,
    /// Records.
    Records = 2,
    /// Nothing: proves that the group before it was synced.
    Marker = 3,
}

/// Head of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHead {
    /// What it is for.
    pub(crate) kind: GroupKind,
    /// Counts the groups of the log. A group is written only after the one before it was synced.
    pub(crate) sequence: u64,
    /// Segment that it stands in.
    pub(crate) segment: u64,
    /// Where it begins in the segment.
    pub(crate) position: u32,
    /// Length with head and padding.
    pub(crate) length: u32,
    /// When it was appended; never less than in the group before.
    pub(crate) time_ms: u64,
    /// How many records it holds.
    pub(crate) records: u32,
}

impl GroupHead {
    /// Writes the head over the first bytes of `group`, whose body is there already.
    pub(crate) fn write(&self, group: &mut [u8], seed: u32) {
        let body_crc = match self.kind {
            GroupKind::Records => 0, // each record has a checksum of its own
            _ => crc32c::crc32c_append(seed, &group[GROUP_HEAD..]),
        };
        let head = &mut group[..GROUP_HEAD];
        head[..4].copy_from_slice(&GROUP_MAGIC);
        head[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        head[16..20].copy_from_slice(&self.position.to_le_bytes());
        head[20..24].copy_from_slice(&self.length.to_le_bytes());
        head[24..32].copy_from_slice(&self.time_ms.to_le_bytes());
        head[32..36].copy_from_slice(&self.records.to_le_bytes());
        // The kind in the low byte; segments are counted in the rest.
        head[36..44].copy_from_slice(&(self.segment << 8 | self.kind as u64).to_le_bytes());
        head[44..48].copy_from_slice(&body_crc.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &head[8..]);
        head[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a head and the checksum of its body; `None` when these bytes are none.
    pub(crate) fn read(bytes: &[u8], seed: u32) -> Option<(Self, u32)> {
        let head: &[u8; GROUP_HEAD] = bytes.first_chunk()?;
        if head[..4] != GROUP_MAGIC || crc32c::crc32c_append(seed, &head[8..]) != u32_at(head, 4) {
            return None;
        }
        let kind_and_segment = u64_at(head, 36);
        let kind = match kind_and_segment as u8 {
            1 => GroupKind::Opening,
            2 => GroupKind::Records,
            3 => GroupKind::Marker,
            _ => return None,
        };
        let group = Self {
            kind,
            sequence: u64_at(head, 8),
            segment: kind_and_segment >> 8,
            position: u32_at(head, 16),
            length: u32_at(head, 20),
            time_ms: u64_at(head, 24),
            records: u32_at(head, 32),
        };
        let sound = group.length as usize >= GROUP_HEAD && (group.length as usize).is_multiple_of(ALIGN);
        sound.then_some((group, u32_at(head, 44)))
    }
}

/// What the first group of a segment says: a segment can be read without those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    /// Length of the file.
    pub(crate) capacity: u32,
    /// First offset of each partition in this segment.
    pub(crate) bases: Vec<u64>,
}

/// Length of the group that holds an opening.
pub(crate) fn opening_length(partitions: u16) -> usize {
    padded(GROUP_HEAD + 8 + 8 * usize::from(partitions))
}

impl Opening {
    /// The body, after room for the head.
    pub(crate) fn to_group(&self) -> Vec<u8> {
        let mut group = vec![0; GROUP_HEAD];
        group.extend_from_slice(&self.capacity.to_le_bytes());
        group.extend_from_slice(&(self.bases.len() as u32).to_le_bytes());
        self.bases.iter().for_each(|base| group.extend_from_slice(&base.to_le_bytes()));
        group.resize(padded(group.len()), 0);
        group
    }

    pub(crate) fn read(body: &[u8], partitions: u16) -> Option<Self> {
        let count = usize::from(partitions);
        if body.len() < 8 + 8 * count || u32_at(body, 4) as usize != count {
            return None;
        }
        let bases = body[8..8 + 8 * count].chunks_exact(8).map(|base| u64_at(base, 0)).collect();
        Some(Self { capacity: u32_at(body, 0), bases })
    }
}

/// Head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    /// Length of envelope and payload.
    pub(crate) body: u32,
    /// Length of the envelope.
    pub(crate) envelope: u32,
    pub(crate) offset: Offset,
    pub(crate) partition: Partition,
    pub(crate) time_ms: u64,
    crc: u32,
}

impl RecordHead {
    /// Reads a head, which is not verified yet.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; RECORD_HEAD] = bytes.first_chunk()?;
        let this = Self {
            body: u32_at(head, 0),
            crc: u32_at(head, 4),
            offset: Offset(u64_at(head, 8)),
            time_ms: u64_at(head, 16),
            partition: Partition(u16::from_le_bytes([head[24], head[25]])),
            envelope: u32_at(head, 28),
        };
        let version = u16::from_le_bytes([head[26], head[27]]);
        (version == RECORD_VERSION && this.envelope <= this.body).then_some(this)
    }

    /// Length of the whole record.
    pub(crate) fn length(&self) -> usize {
        RECORD_HEAD + self.body as usize
    }
}

/// Whether `frame`, head and body, is what was written.
pub(crate) fn verify_record(head: &RecordHead, frame: &[u8], seed: u32) -> bool {
    frame.len() == head.length() && crc32c::crc32c_append(seed, &frame[8..]) == head.crc
}

/// Begins a record: room for its head. The envelope follows, then [`end_record`].
pub(crate) fn begin_record(buffer: &mut BytesMut) -> usize {
    let start = buffer.len();
    buffer.resize(start + RECORD_HEAD, 0);
    start
}

/// Ends the record begun at `start`, all but what [`stamp_record`] adds. `envelope` is the length of its envelope.
pub(crate) fn end_record(buffer: &mut BytesMut, start: usize, partition: Partition, envelope: usize) {
    let body = (buffer.len() - start - RECORD_HEAD) as u32;
    let head = &mut buffer[start..start + RECORD_HEAD];
    head[..4].copy_from_slice(&body.to_le_bytes());
    head[24..26].copy_from_slice(&partition.0.to_le_bytes());
    head[26..28].copy_from_slice(&RECORD_VERSION.to_le_bytes());
    head[28..32].copy_from_slice(&(envelope as u32).to_le_bytes());
}

/// Gives a record its place and time, and its checksum.
pub(crate) fn stamp_record(frame: &mut [u8], offset: Offset, time_ms: u64, seed: u32) {
    frame[8..16].copy_from_slice(&offset.0.to_le_bytes());
    frame[16..24].copy_from_slice(&time_ms.to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Envelope and payload of a verified record, without a copy.
pub(crate) fn split_record(head: &RecordHead, frame: Bytes) -> (Bytes, Bytes) {
    let payload = RECORD_HEAD + head.envelope as usize;
    (frame.slice(RECORD_HEAD..payload), frame.slice(payload..))
}

/// The next multiple of [`ALIGN`].
pub(crate) fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGN)
}

/// Four bytes at `at`, which must be there.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// Eight bytes at `at`, which must be there.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
