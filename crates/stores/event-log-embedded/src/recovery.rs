//! Opening a log: what is there, what of it counts, and whether it is whole.

use crate::{
    config::EventLogConfig,
    files::{self, Name},
    format::{self, GROUP_HEAD, GroupHead, GroupKind},
    index::{IndexFile, SegmentIndex, Summary},
    meta::{META, Meta},
    scan::{self, Context, Scan, Stop},
};
use cairn_process::disk::{Disk, DiskFile, create_dir_durable};
use cairn_store_api::{StoreError, StoreErrorKind};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What an opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Sealed segments.
    pub segments_sealed: u64,
    /// Segments read from their start: the open one, and those whose index was lost.
    pub segments_scanned: u64,
    /// Bytes after the last finished group that were cut.
    pub bytes_cut: u64,
    /// Indexes of sealed segments that were missing or damaged and were made anew; never needed after a mere crash.
    pub indexes_rebuilt: u64,
    /// What is damaged, if anything: what stands before it is readable, and appends are refused.
    pub damage: Option<String>,
}

/// A log as opened.
pub(crate) struct Recovered {
    pub(crate) meta: Meta,
    pub(crate) sealed: Vec<Summary>,
    pub(crate) open: OpenSegment,
    pub(crate) index: SegmentIndex,
    /// First offset of each partition that can't be given, when there is damage.
    pub(crate) damaged_from: Option<Arc<[u64]>>,
    pub(crate) report: Recovery,
}

/// The segment that is written.
pub(crate) struct OpenSegment {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) capacity: u32,
    /// Where the next group goes.
    pub(crate) end: u32,
    pub(crate) next_sequence: u64,
    /// Whether the last group holds records, and no later group proves that it was synced.
    pub(crate) unproven: bool,
}

/// A sealed segment, and where the next one goes on.
struct Sealed {
    summary: Summary,
    ends: Arc<[u64]>,
    next_sequence: u64,
}

struct Recoverer<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    config: &'a EventLogConfig,
    meta: Meta,
    segments: BTreeSet<u64>,
    indexes: BTreeSet<u64>,
    sealed: Vec<Summary>,
    bases: Arc<[u64]>,
    floor_ms: u64,
    sequence: u64,
    damaged_from: Option<Arc<[u64]>>,
    report: Recovery,
}

/// Opens the log in `dir`, or creates it there.
pub(crate) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    config: &EventLogConfig,
    unix_ms: u64,
) -> Result<Recovered, StoreError> {
    let (mut segments, mut indexes) = (BTreeSet::new(), BTreeSet::new());
    let mut has_meta = false;
    for name in disk.list(dir).map_err(|error| StoreError::io("list event log directory", &error))? {
        match Name::of(&name) {
            Name::Segment(number) => _ = segments.insert(number),
            Name::Index(number) => _ = indexes.insert(number),
            Name::Unfinished => {
                disk.remove(&dir.join(&name)).map_err(|error| StoreError::io("remove unfinished file", &error))?;
            }
            Name::Other => has_meta |= name == META,
        }
    }
    let meta =
        if has_meta { Meta::load(disk, dir)? } else { create(disk, dir, config, unix_ms, &mut segments, &indexes)? };
    meta.check(config)?;
    let bases: Arc<[u64]> = vec![0; usize::from(config.partitions)].into();
    let recoverer = Recoverer {
        disk,
        dir,
        config,
        meta,
        segments,
        indexes,
        sealed: Vec::new(),
        bases,
        floor_ms: 0,
        sequence: 0,
        damaged_from: None,
        report: Recovery::default(),
    };
    recoverer.run()
}

/// Makes the directory of a log, durably.
pub(crate) fn create_dir(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    create_dir_durable(disk, dir).map_err(|error| StoreError::io("create event log directory", &error))
}

/// The first segment comes before the meta file and is not written to before it: a log without one holds nothing.
fn create(
    disk: &dyn Disk,
    dir: &Path,
    config: &EventLogConfig,
    unix_ms: u64,
    segments: &mut BTreeSet<u64>,
    indexes: &BTreeSet<u64>,
) -> Result<Meta, StoreError> {
    let used = |number: &u64| -> Result<bool, StoreError> {
        let failed = |error| StoreError::io("read segment", &error);
        let file = disk.open(&dir.join(files::segment_name(*number))).map_err(failed)?;
        let mut start = [0; 8];
        let length = file.len().map_err(failed)?.min(8) as usize;
        file.read_exact_at(&mut start[..length], 0).map_err(failed)?;
        Ok(start != [0; 8])
    };
    if !indexes.is_empty() || segments.iter().any(|number| used(number).unwrap_or(true)) {
        return Err(StoreError::new(StoreErrorKind::Corrupt, "event log has records but its meta file is missing"));
    }
    files::prepare_segment(disk, dir, 0, config.segment_bytes, config.reserve_bytes)
        .map_err(|error| StoreError::io("create first segment", &error))?;
    segments.insert(0);
    let meta = Meta::new(config, unix_ms);
    meta.store(disk, dir)?;
    Ok(meta)
}

impl Recoverer<'_> {
    fn run(mut self) -> Result<Recovered, StoreError> {
        self.seal()?;
        let number = self.sealed.len() as u64;
        let file = match self.disk.open(&self.path(number)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.without_segment(number),
            Err(error) => return Err(StoreError::io("open segment", &error)),
        };
        let scan = self.scan(number, file.as_ref())?;
        let capacity = scan.capacity.unwrap_or(self.config.segment_bytes);
        let mut open = OpenSegment {
            number,
            file,
            capacity,
            end: scan.end,
            next_sequence: scan.next_sequence,
            unproven: scan.last.is_some_and(|(_, kind)| kind == GroupKind::Records),
        };
        let later = self.segments.contains(&(number + 1)) && self.is_opened(number + 1)?;
        match scan.stop {
            Stop::Tail(last_used) if !later && self.damaged_from.is_none() => {
                self.report.bytes_cut = u64::from(last_used - scan.end);
                self.settle(&mut open, &scan, last_used).map_err(|error| StoreError::io("settle segment", &error))?;
            }
            _ => self.damage(number, scan.index.ends()),
        }
        self.remove_prepared(number)?;
        Ok(self.done(open, scan.index))
    }

    /// Takes the sealed segments, in order, as far as there are any.
    fn seal(&mut self) -> Result<(), StoreError> {
        loop {
            let number = self.sealed.len() as u64;
            if !self.segments.contains(&number) {
                if self.indexes.contains(&number) {
                    self.damage(number, self.bases.clone());
                } else {
                    return Ok(());
                }
            }
            let index = match self.indexes.contains(&number) {
                true => self.load(number)?,
                false => None,
            };
            match index {
                Some(sealed) => self.push(sealed),
                None if !self.rebuild(number)? => return Ok(()),
                None => {}
            }
        }
    }

    fn push(&mut self, sealed: Sealed) {
        (self.floor_ms, self.sequence, self.bases) = (sealed.summary.last_ms, sealed.next_sequence, sealed.ends);
        self.sealed.push(sealed.summary);
        self.report.segments_sealed += 1;
    }

    /// The index of a segment, if it is sound and goes on where the one before ended.
    fn load(&self, number: u64) -> Result<Option<Sealed>, StoreError> {
        let path = self.dir.join(files::index_name(number));
        match IndexFile::open(self.disk, &path, number, self.meta.partitions, self.meta.seed) {
            Ok(index) => {
                let summary = index.summary();
                let follows = summary.bases == self.bases && summary.floor_ms == self.floor_ms;
                let sealed = Sealed { summary, ends: index.ends(), next_sequence: index.next_sequence() };
                Ok(follows.then_some(sealed))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(StoreError::io("read segment index", &error)),
        }
    }

    /// Makes the index of a segment anew, if a later segment shows that it was sealed; `false` when it is the open one,
    /// or damaged.
    fn rebuild(&mut self, number: u64) -> Result<bool, StoreError> {
        if !self.segments.contains(&number) || self.damaged_from.is_some() {
            return Ok(false);
        }
        let file = self.disk.open(&self.path(number)).map_err(|error| StoreError::io("open segment", &error))?;
        if !self.indexes.contains(&number) && !self.segments.contains(&(number + 1)) {
            return Ok(false);
        }
        let scan = self.scan(number, file.as_ref())?;
        let whole = matches!(scan.stop, Stop::Tail(last_used) if last_used == scan.end) && scan.end > 0;
        if !whole || !self.is_opened(number + 1)? {
            self.report.segments_scanned -= 1; // scanned again as the open one
            return Ok(false);
        }
        let bytes = scan.index.to_bytes(number, scan.next_sequence, scan.end, self.meta.seed);
        files::write_new(self.disk, self.dir, &files::index_name(number), &bytes)
            .map_err(|error| StoreError::io("write segment index", error.io()))?;
        self.report.indexes_rebuilt += 1;
        let (floor_ms, last_ms) = (scan.index.floor_ms, scan.index.last_ms());
        let summary = Summary { bases: scan.index.bases.clone(), floor_ms, last_ms };
        self.push(Sealed { summary, ends: scan.index.ends(), next_sequence: scan.next_sequence });
        Ok(true)
    }

    fn scan(&mut self, number: u64, file: &dyn DiskFile) -> Result<Scan, StoreError> {
        self.report.segments_scanned += 1;
        scan::scan(file, self.context(number)).map_err(|error| StoreError::io("scan segment", &error))
    }

    fn context(&self, segment: u64) -> Context<'_> {
        Context {
            segment,
            seed: self.meta.seed,
            partitions: self.meta.partitions,
            bases: &self.bases,
            floor_ms: self.floor_ms,
            sequence: Some(self.sequence),
        }
    }

    /// Whether a segment was opened.
    fn is_opened(&self, number: u64) -> Result<bool, StoreError> {
        let failed = |error| StoreError::io("read segment", &error);
        if !self.segments.contains(&number) {
            return Ok(false);
        }
        let file = self.disk.open(&self.path(number)).map_err(failed)?;
        Ok(scan::opening(file.as_ref(), self.context(number)).map_err(failed)?.is_some())
    }

    /// Makes what will be readable durable, and what will not be unreadable for ever.
    fn settle(&self, open: &mut OpenSegment, scan: &Scan, last_used: u32) -> io::Result<()> {
        let file = open.file.clone();
        if scan.capacity.is_none() {
            files::fill(file.as_ref(), open.capacity)?;
            open.capacity = u32::try_from(file.len()?).unwrap_or(u32::MAX);
        }
        if let Some((position, _)) = scan.last {
            // It may be in memory alone, and after a failed sync a further one would not write it: write it again.
            let mut group = vec![0; (scan.end - position) as usize];
            file.read_exact_at(&mut group, u64::from(position))?;
            file.write_all_at(&group, u64::from(position))?;
        }
        zero(file.as_ref(), scan.end, last_used)?;
        file.sync_data()?;
        self.disk.sync_dir(self.dir)?;
        if open.end == 0 {
            write_opening(open, &scan.index, self.meta.seed)?;
        } else if open.unproven && open.end as usize + GROUP_HEAD <= open.capacity as usize {
            write_marker(open, scan.index.last_ms(), self.meta.seed)?;
        }
        Ok(())
    }

    /// A segment that was prepared but not opened is made anew when it is needed.
    fn remove_prepared(&self, open: u64) -> Result<(), StoreError> {
        if self.damaged_from.is_some() {
            return Ok(());
        }
        for number in self.segments.iter().filter(|number| **number > open) {
            self.disk.remove(&self.path(*number)).map_err(|error| StoreError::io("remove segment", &error))?;
        }
        Ok(())
    }

    fn without_segment(mut self, number: u64) -> Result<Recovered, StoreError> {
        self.damage(number, self.bases.clone());
        let file = Arc::new(Missing);
        let open = OpenSegment { number, file, capacity: 0, end: 0, next_sequence: self.sequence, unproven: false };
        let index = SegmentIndex::new(self.bases.clone(), self.floor_ms);
        Ok(self.done(open, index))
    }

    /// Takes note of damage in a segment; the first counts.
    fn damage(&mut self, segment: u64, from: Arc<[u64]>) {
        if self.damaged_from.is_none() {
            self.report.damage = Some(format!("segment {segment} of the event log is damaged or missing"));
            self.damaged_from = Some(from);
        }
    }

    fn done(self, open: OpenSegment, index: SegmentIndex) -> Recovered {
        let Self { meta, sealed, damaged_from, report, .. } = self;
        Recovered { meta, sealed, open, index, damaged_from, report }
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(files::segment_name(segment))
    }
}

/// Makes the index of a sealed segment anew, from the segment. `Corrupt` when that is damaged too.
pub(crate) fn rebuild_index(
    disk: &dyn Disk,
    dir: &Path,
    meta: &Meta,
    segment: u64,
    summary: &Summary,
) -> Result<(), StoreError> {
    let context = Context {
        segment,
        seed: meta.seed,
        partitions: meta.partitions,
        bases: &summary.bases,
        floor_ms: summary.floor_ms,
        sequence: None,
    };
    let failed = |error| StoreError::io("scan segment", &error);
    let file = disk.open(&dir.join(files::segment_name(segment))).map_err(failed)?;
    let scan = scan::scan(file.as_ref(), context).map_err(failed)?;
    if scan.stop != Stop::Tail(scan.end) || scan.index.last_ms() != summary.last_ms {
        let what = format!("segment {segment} of the event log and its index are damaged");
        return Err(StoreError::new(StoreErrorKind::Corrupt, what));
    }
    let bytes = scan.index.to_bytes(segment, scan.next_sequence, scan.end, meta.seed);
    files::write_new(disk, dir, &files::index_name(segment), &bytes)
        .map_err(|error| StoreError::io("write segment index", error.io()))
}

/// Writes zeros over a range.
pub(crate) fn zero(file: &dyn DiskFile, from: u32, to: u32) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = from;
    while at < to {
        let take = (to - at).min(ZEROS.len() as u32);
        file.write_all_at(&ZEROS[..take as usize], u64::from(at))?;
        at += take;
    }
    Ok(())
}

/// Proves that the last group was synced, durable on return. There must be room.
pub(crate) fn write_marker(open: &mut OpenSegment, time_ms: u64, seed: u32) -> io::Result<()> {
    let head = GroupHead {
        kind: GroupKind::Marker,
        sequence: open.next_sequence,
        segment: open.number,
        position: open.end,
        length: GROUP_HEAD as u32,
        time_ms,
        records: 0,
    };
    let mut group = [0; GROUP_HEAD];
    head.write(&mut group, seed);
    open.file.write_all_at(&group, u64::from(open.end))?;
    open.file.sync_data()?;
    open.end += head.length;
    open.next_sequence += 1;
    open.unproven = false;
    Ok(())
}

/// Writes the opening of a segment, durable on return.
pub(crate) fn write_opening(open: &mut OpenSegment, index: &SegmentIndex, seed: u32) -> io::Result<()> {
    let mut group = format::Opening { capacity: open.capacity, bases: index.bases.to_vec() }.to_group();
    let head = GroupHead {
        kind: GroupKind::Opening,
        sequence: open.next_sequence,
        segment: open.number,
        position: 0,
        length: group.len() as u32,
        time_ms: index.floor_ms,
        records: 0,
    };
    head.write(&mut group, seed);
    open.file.write_all_at(&group, 0)?;
    open.file.sync_data()?;
    open.end = head.length;
    open.next_sequence += 1;
    Ok(())
}

/// Stands for a segment that is not there.
struct Missing;

impl DiskFile for Missing {
    fn read_exact_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn write_all_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn start_writeback(&self, _offset: u64, _length: u64) {}

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn set_len(&self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn preallocate(&self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn punch_hole(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}
