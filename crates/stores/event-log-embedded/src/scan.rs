//! Reading a segment from its start, as recovery does: which groups count, and why it ends where it does.

use crate::{
    format::{self, GROUP_HEAD, GroupHead, GroupKind, Opening, RECORD_HEAD, RecordHead},
    index::{Place, SegmentIndex},
};
use cairn_process::disk::DiskFile;
use std::{io, sync::Arc};

/// Read at once; a record that is longer takes its own length.
const WINDOW: usize = 1 << 20;

/// Bytes of a file that are at hand.
struct Window<'a> {
    file: &'a dyn DiskFile,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn DiskFile) -> io::Result<Self> {
        // Segments are shorter than 4 GiB.
        Ok(Self { file, length: file.len()?.min(u64::from(u32::MAX)), start: 0, bytes: Vec::new() })
    }

    /// The bytes at `at`; `None` when the file ends before their end.
    fn get(&mut self, at: u64, length: usize) -> io::Result<Option<&[u8]>> {
        let end = at + length as u64;
        if end > self.length {
            return Ok(None);
        }
        if at < self.start || end > self.start + self.bytes.len() as u64 {
            let take = (self.length - at).min(length.max(WINDOW) as u64) as usize;
            self.bytes.resize(take, 0);
            self.start = at;
            self.file.read_exact_at(&mut self.bytes, at)?;
        }
        let from = (at - self.start) as usize;
        Ok(Some(&self.bytes[from..from + length]))
    }
}

/// What a segment's scan needs to know of the log.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) segment: u64,
    pub(crate) seed: u32,
    pub(crate) partitions: u16,
    /// First offset of each partition and time so far, from the segment before.
    pub(crate) bases: &'a Arc<[u64]>,
    pub(crate) floor_ms: u64,
    /// Sequence of the first group; `None`: whatever it says.
    pub(crate) sequence: Option<u64>,
}

/// Why a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// What follows, up to here (exclusive), is no group that was finished; zeros from there on.
    Tail(u32),
    /// What follows was durable and is damaged.
    Damaged,
}

/// What a scan found.
pub(crate) struct Scan {
    /// From the opening; `None` when the segment was never opened.
    pub(crate) capacity: Option<u32>,
    pub(crate) index: SegmentIndex,
    /// Where the next group belongs.
    pub(crate) end: u32,
    pub(crate) next_sequence: u64,
    /// Place of the last group and what it was.
    pub(crate) last: Option<(u32, GroupKind)>,
    pub(crate) stop: Stop,
}

/// Reads the head of a segment: its opening, if it has one.
pub(crate) fn opening(file: &dyn DiskFile, context: Context<'_>) -> io::Result<Option<(GroupHead, Opening)>> {
    let mut bytes = vec![0; format::opening_length(context.partitions)];
    if file.len()? < bytes.len() as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut bytes, 0)?;
    let Some((head, crc)) = GroupHead::read(&bytes, context.seed) else { return Ok(None) };
    let sound = head.kind == GroupKind::Opening
        && head.segment == context.segment
        && head.position == 0
        && head.length as usize == bytes.len()
        && crc32c::crc32c_append(context.seed, &bytes[GROUP_HEAD..]) == crc;
    let opening = Opening::read(&bytes[GROUP_HEAD..], context.partitions);
    Ok(opening.filter(|_| sound).map(|opening| (head, opening)))
}

/// Reads a segment from its start.
pub(crate) fn scan(file: &dyn DiskFile, context: Context<'_>) -> io::Result<Scan> {
    let mut scanner = Scanner {
        context,
        window: Window::new(file)?,
        index: SegmentIndex::new(context.bases.clone(), context.floor_ms),
        next: context.bases.to_vec(),
        end: 0,
        sequence: context.sequence.unwrap_or(0),
        last: None,
        time_ms: context.floor_ms,
        places: Vec::new(),
        broken: None,
    };
    // A segment is made with its whole length before the one before it is sealed: a shorter one was cut.
    let opened = opening(file, context)?;
    let capacity = opened.as_ref().map(|(_, opening)| opening.capacity);
    let least = capacity.map_or(format::opening_length(context.partitions) as u64, u64::from);
    let cut = scanner.window.length < least;
    let fits = |head: &GroupHead, opening: &Opening| {
        context.sequence.is_none_or(|sequence| sequence == head.sequence)
            && opening.bases[..] == context.bases[..]
            && head.time_ms >= context.floor_ms
    };
    let mismatch = match opened {
        Some((head, opening)) if fits(&head, &opening) => {
            scanner.sequence = head.sequence;
            scanner.passed(&head);
            while scanner.group()? {}
            false
        }
        opened => opened.is_some(),
    };
    let stop = match scanner.tail()? {
        Stop::Tail(_) if cut || mismatch => Stop::Damaged,
        stop => stop,
    };
    if stop == Stop::Damaged {
        scanner.keep_sound_records();
    }
    let Scanner { index, end, sequence: next_sequence, last, .. } = scanner;
    Ok(Scan { capacity, index, end, next_sequence, last, stop })
}

struct Scanner<'a> {
    context: Context<'a>,
    window: Window<'a>,
    index: SegmentIndex,
    /// Offset of each partition's next record.
    next: Vec<u64>,
    end: u32,
    sequence: u64,
    last: Option<(u32, GroupKind)>,
    time_ms: u64,
    /// Of the group at hand: those that are sound, from its start.
    places: Vec<(u16, Place)>,
    /// Time and position of a group that is damaged after its head.
    broken: Option<(u64, u32)>,
}

impl Scanner<'_> {
    fn passed(&mut self, head: &GroupHead) {
        self.last = Some((self.end, head.kind));
        self.end += head.length;
        self.sequence += 1;
        self.time_ms = head.time_ms;
    }

    /// Takes the group at `end`; `false` when there is none.
    fn group(&mut self) -> io::Result<bool> {
        let seed = self.context.seed;
        let Some(bytes) = self.window.get(u64::from(self.end), GROUP_HEAD)? else { return Ok(false) };
        let Some((head, body_crc)) = GroupHead::read(bytes, seed) else { return Ok(false) };
        let placed = head.position == self.end && head.segment == self.context.segment;
        let within = u64::from(head.position) + u64::from(head.length) <= self.window.length;
        if !placed || head.sequence != self.sequence || head.time_ms < self.time_ms {
            return Ok(false);
        }
        self.places.clear();
        let whole = match head.kind {
            GroupKind::Opening => false,
            GroupKind::Marker => head.length as usize == GROUP_HEAD && body_crc == crc32c::crc32c_append(seed, &[]),
            GroupKind::Records => self.records(&head)?,
        };
        if !whole || !within {
            self.broken = Some((head.time_ms, head.position));
            return Ok(false);
        }
        if head.kind == GroupKind::Records {
            self.take_places(head.time_ms, head.position);
        }
        self.passed(&head);
        Ok(true)
    }

    fn take_places(&mut self, time_ms: u64, position: u32) {
        self.index.mark_time(time_ms, position);
        for (partition, place) in self.places.drain(..) {
            self.index.places[usize::from(partition)].push(place);
            self.next[usize::from(partition)] += 1;
        }
    }

    /// Of a group that was durable and is damaged, what stands before the damage is given.
    fn keep_sound_records(&mut self) {
        if let Some((time_ms, position)) = self.broken {
            self.take_places(time_ms, position);
        }
    }

    /// Verifies the records of a group and takes their places.
    fn records(&mut self, group: &GroupHead) -> io::Result<bool> {
        let group_end = u64::from(group.position) + u64::from(group.length);
        let mut at = u64::from(group.position) + GROUP_HEAD as u64;
        let mut next = self.next.clone();
        for _ in 0..group.records {
            let Some(bytes) = self.window.get(at, RECORD_HEAD)? else { return Ok(false) };
            let Some(head) = RecordHead::read(bytes) else { return Ok(false) };
            let end = at + head.length() as u64;
            let Some(expected) = next.get_mut(usize::from(head.partition.0)).filter(|_| end <= group_end) else {
                return Ok(false);
            };
            if head.offset.0 != *expected || head.time_ms != group.time_ms {
                return Ok(false);
            }
            *expected += 1;
            match self.window.get(at, head.length())? {
                Some(frame) if format::verify_record(&head, frame, self.context.seed) => {}
                _ => return Ok(false),
            }
            // Positions and lengths are within the group, whose own are u32.
            self.places.push((head.partition.0, Place { position: at as u32, length: head.length() as u32 }));
            at = end;
        }
        Ok(format::padded(at as usize) as u64 == group_end)
    }

    /// Looks at what follows the last group that counts. A group is written only once the one before it was synced:
    /// so a later group proves that what should stand here was durable.
    fn tail(&mut self) -> io::Result<Stop> {
        let mut last_used = self.end;
        let mut at = u64::from(self.end);
        while at < self.window.length {
            let take = (self.window.length - at).min(WINDOW as u64) as usize;
            let Some(bytes) = self.window.get(at, take)? else { break };
            if !is_zero(bytes) {
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                last_used = (at + used as u64) as u32;
                let torn = |head: &GroupHead| head.position == self.end && head.sequence == self.sequence;
                let later = bytes.chunks(format::ALIGN).enumerate().any(|(chunk, _)| {
                    let from = chunk * format::ALIGN;
                    let head = GroupHead::read(&bytes[from..], self.context.seed).map(|(head, _)| head);
                    head.is_some_and(|head| u64::from(head.position) == at + from as u64 && !torn(&head))
                });
                if later {
                    return Ok(Stop::Damaged);
                }
            }
            // Windows overlap by a head, so that none is missed between two.
            at += if take == WINDOW { (WINDOW - GROUP_HEAD) as u64 } else { take as u64 };
        }
        Ok(Stop::Tail(last_used))
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
}
