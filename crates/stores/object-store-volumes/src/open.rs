//! Opening: what the last checkpoint knows, then what the journals say since. Without a usable checkpoint all
//! journals are read, and the index is made anew.

use crate::buffers::Buffers;
use crate::cache::HashCache;
use crate::chunks::Chunks;
use crate::commit::Committer;
use crate::config::VolumeConfig;
use crate::journal::{self, first_block, has_body};
use crate::layout::{BLOCK, BODY, Entry, JournalBlock, Record, StoreSecret, decode_begin, decode_header};
use crate::maintain::{Checkpoint, Maintainer, is_curable};
use crate::manifest::{Manifest, NEW_NAME};
use crate::read::is_whole;
use crate::segment::{self, Segment};
use crate::shared::Shared;
use crate::volumes::{self, Holdings, Place, Volumes};
use crate::write::BEHIND_DATA;
use cairn_process::clock::Clock;
use cairn_process::disk::{Disk, create_dir_durable};
use cairn_store_api::{StoreError, StoreErrorKind};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex},
};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// What opening a store found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The last end was orderly: no journal was read.
    pub clean: bool,
    /// There was no usable checkpoint: the index was made anew from all journals.
    pub rebuilt: bool,
    /// Bytes of volumes looked through for their journal.
    pub bytes_scanned: u64,
    /// Records read from journals.
    pub records_replayed: u64,
    /// Objects of the last shared sync, whose bytes were checked.
    pub objects_checked: u64,
    /// Those among them that were not whole: their sync had not succeeded, so nobody was told that they are stored.
    pub objects_dropped: u64,
    /// Blocks of the journal that were written durably and can't be read any more: what they said is lost.
    pub blocks_lost: u64,
}

pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) committer: Committer,
    pub(crate) maintainer: Maintainer,
    pub(crate) report: RecoveryReport,
}

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    config: Arc<VolumeConfig>,
    clock: Arc<dyn Clock>,
) -> Result<Opened, StoreError> {
    let failed = |error: io::Error| StoreError::io("opening the object store", &error);
    create_dir_durable(&*disk, &config.directory).map_err(failed)?;
    let guard = disk.lock(&config.directory.join("lock")).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            StoreError::new(StoreErrorKind::Conflict, "object store is open in another process")
        }
        _ => failed(error),
    })?;
    let names = disk.list(&config.directory).map_err(failed)?;
    let found: BTreeSet<u32> = names.iter().filter_map(|name| volumes::file_id(name)).collect();
    let manifest = Manifest::read(&*disk, &config.directory).map_err(failed)?;
    let secret = match &manifest {
        Some(manifest) => manifest.secret,
        None => secret_of(&*disk, &config, &found)?,
    };
    let (manifest, segments) = usable(&*disk, &config, manifest, secret)?;
    let report = RecoveryReport {
        clean: manifest.clean,
        rebuilt: manifest.place.is_none() && !found.is_empty(),
        ..RecoveryReport::default()
    };
    let shared = Arc::new(Shared {
        volumes: Arc::new(Volumes::new(disk.clone(), config.clone(), secret)),
        index: Default::default(),
        queue: Default::default(),
        buffers: Buffers::new(config.held_object_bytes_max + BEHIND_DATA),
        maintenance: Default::default(),
        cache: HashCache::new(config.hash_cache_bytes),
        chunks: Arc::new(Chunks::new(config.read_buffer_bytes_kept)),
        writers: Arc::new(Semaphore::new(config.writers_max)),
        typical: Default::default(),
        totals: Mutex::new((manifest.objects, manifest.bytes)),
        left: Mutex::default(),
        poison: Mutex::default(),
        lock: Mutex::new(Some(guard)),
        config,
        disk,
        clock,
    });
    shared.index.set_segments(segments, false);
    remove_leftovers(&shared, &manifest, &names);
    let complete = !report.rebuilt || found.iter().copied().eq(0..found.len() as u32);
    let mut maintainer = Maintainer::new(shared.clone(), manifest.clone());
    let recovery = Recovery {
        shared: &shared,
        manifest: &manifest,
        report,
        held: Vec::new(),
        complete,
        group: manifest.group,
        cut: BTreeSet::new(),
        ends: BTreeMap::new(),
    };
    let (committer, report) = recovery.run(&found, &mut maintainer)?;
    if report.blocks_lost > 0 {
        tracing::error!(
            blocks = report.blocks_lost,
            "journal blocks of the object store are damaged: objects are missing"
        );
    }
    Ok(Opened { shared, committer, maintainer, report })
}

/// Secret of a store without a manifest: of the first volume that has a readable header, or a new one.
fn secret_of(disk: &dyn Disk, config: &VolumeConfig, found: &BTreeSet<u32>) -> Result<StoreSecret, StoreError> {
    let mut damaged = false;
    for id in found {
        let mut block = [0; BLOCK as usize];
        let file = disk.open(&config.directory.join(volumes::file_name(*id)));
        match file.and_then(|file| file.read_exact_at(&mut block, 0)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(error) => return Err(StoreError::io("opening a volume", &error)),
        }
        if let Some((_, _, secret)) = decode_header(&block) {
            return Ok(secret);
        }
        damaged |= block.iter().any(|byte| *byte != 0);
    }
    if damaged {
        return Err(StoreError::new(
            StoreErrorKind::Corrupt,
            "neither the manifest nor any volume of the object store can be read",
        ));
    }
    let chance: Vec<u8> = (0..4).flat_map(|_| Uuid::now_v7().into_bytes()).collect();
    Ok(StoreSecret(*blake3::hash(&chance).as_bytes()))
}

/// The manifest and its segments, if all of them can be read; else an empty one, from which everything is rebuilt.
fn usable(
    disk: &dyn Disk,
    config: &VolumeConfig,
    manifest: Option<Manifest>,
    secret: StoreSecret,
) -> Result<(Manifest, Vec<Arc<Segment>>), StoreError> {
    let Some(manifest) = manifest.filter(|manifest| manifest.place.is_some()) else {
        return Ok((Manifest::empty(secret), Vec::new()));
    };
    let open = |number: &u64| Segment::open(disk, &config.directory, *number, secret).map(Arc::new);
    match manifest.segments.iter().map(open).collect::<Result<Vec<_>, _>>() {
        Ok(segments) => Ok((manifest, segments)),
        Err(error) if is_curable(&error) => {
            tracing::warn!(%error, "the object index is made anew from the volumes");
            Ok((Manifest { next_segment: manifest.next_segment, ..Manifest::empty(secret) }, Vec::new()))
        }
        Err(error) => Err(error),
    }
}

/// Removes what an interrupted write left. Failing to is no harm.
fn remove_leftovers(shared: &Shared, manifest: &Manifest, names: &[String]) {
    let unused = |name: &&String| {
        segment::file_number(name).is_some_and(|number| !manifest.segments.contains(&number)) || *name == NEW_NAME
    };
    for name in names.iter().filter(unused) {
        if let Err(error) = shared.disk.remove(&shared.config.directory.join(name)) {
            tracing::warn!(name, %error, "a file that is not used can't be removed");
        }
    }
}

struct Recovery<'a> {
    shared: &'a Arc<Shared>,
    manifest: &'a Manifest,
    report: RecoveryReport,
    /// Blocks of the last group seen so far.
    held: Vec<JournalBlock>,
    /// Number of that group.
    group: u64,
    /// Whether no volume that is to be read was removed, so that all groups must be there.
    complete: bool,
    /// Groups some of whose blocks are missing.
    cut: BTreeSet<u64>,
    /// Last block of the journal of each volume.
    ends: BTreeMap<u32, u64>,
}

fn failed(error: io::Error) -> StoreError {
    StoreError::io("reading the journals of the object store", &error)
}

impl Recovery<'_> {
    fn run(
        mut self,
        found: &BTreeSet<u32>,
        maintainer: &mut Maintainer,
    ) -> Result<(Committer, RecoveryReport), StoreError> {
        let used = self.classify(found)?;
        if !self.manifest.clean {
            let last = used.last().copied();
            for id in used.iter().copied() {
                for block in self.blocks(id, Some(id) == last)? {
                    self.take(block)?;
                }
                if self.shared.index.changes() >= self.shared.config.checkpoint_changes && self.report.rebuilt {
                    self.write_down(maintainer, None)?;
                }
            }
        }
        let group = self.group;
        let (dropped, unsettled) = self.settle_last(used.clone())?;
        if let Some(last) = used.last() {
            self.go_on(*last)?;
        }
        let mut committer = Committer::new(self.shared.clone(), group);
        if !dropped.is_empty() || unsettled {
            let mut records = dropped;
            records.push(Record::Settled(group));
            self.unless_full(committer.write_group(&mut records, &[], BTreeSet::new()))?;
            records.into_iter().try_for_each(|record| self.shared.apply(record))?;
        }
        self.report.blocks_lost += self.cut.len() as u64;
        // Before anything is written the manifest must say that the end was not orderly.
        if self.manifest.clean || self.manifest.place.is_none() {
            let written = self.write_down(maintainer, Some(committer.group()));
            self.unless_full(written)?;
        }
        self.shared.volumes.set_replayed_from(maintainer.replayed_from());
        Ok((committer, self.report))
    }

    /// Tells volumes in use from spares; gives those whose journal may have news.
    fn classify(&self, found: &BTreeSet<u32>) -> Result<BTreeSet<u32>, StoreError> {
        let volumes = &self.shared.volumes;
        let from = self.manifest.place.as_ref().map_or(0, |place| place.volume);
        let mut known: Holdings = self
            .manifest
            .volumes
            .iter()
            .filter(|(id, _)| found.contains(id))
            .map(|(id, known)| (*id, *known))
            .collect();
        let missing = self.manifest.volumes.iter().filter(|(id, (_, live))| *live > 0 && !found.contains(id));
        for (volume, _) in missing {
            tracing::error!(volume, "a volume of the object store is missing");
        }
        let (mut used, mut spares) = (BTreeSet::new(), Vec::new());
        for id in found.range(from..).rev().copied() {
            let header = decode_header(&first_block(volumes, id).map_err(failed)?).filter(|(number, ..)| *number == id);
            let begin = volumes.read_block(id, BLOCK).map_err(failed)?;
            let begun = begin.and_then(|block| decode_begin(volumes.secret(), id, &block)).is_some();
            // Volumes are used in order, so a later one in use says that this one was; the clean manifest knows them all.
            let begun = known.contains_key(&id)
                || !self.manifest.clean && (begun || !used.is_empty() || has_body(volumes, id).map_err(failed)?);
            let length = volumes.file(id).and_then(|file| file.len()).map_err(failed)?;
            let capacity =
                header.map_or(length.max(self.shared.config.volume_bytes_first), |(_, capacity, _)| capacity);
            if begun {
                known.entry(id).or_insert((capacity, 0));
                used.insert(id);
            } else if header.is_some() {
                spares.push((id, capacity));
            } else {
                // Its creation was cut off.
                volumes.remove(id).map_err(failed)?;
            }
        }
        // A number never comes back, though the last volume was lost: what the journal says of one is of that one alone.
        let last = found.last().max(self.manifest.volumes.keys().next_back());
        volumes.restore(&known, last.map_or(0, |last| last.saturating_add(1)));
        for (id, capacity) in spares.into_iter().rev() {
            volumes.file(id).and_then(|file| volumes.restore_spare(id, file, capacity)).map_err(failed)?;
        }
        Ok(used)
    }

    /// The journal blocks of a volume that the manifest does not know.
    fn blocks(&mut self, id: u32, last: bool) -> Result<Vec<JournalBlock>, StoreError> {
        let volumes = &self.shared.volumes;
        let from = self.manifest.place.as_ref().filter(|place| place.volume == id).map_or(BODY, |place| place.frontier);
        if self.report.rebuilt && !last {
            return journal::read_all(volumes, id).map_err(failed);
        }
        let scan = journal::scan(volumes, id, from).map_err(failed)?;
        self.report.bytes_scanned += scan.bytes;
        Ok(scan.blocks)
    }

    fn take(&mut self, block: JournalBlock) -> Result<(), StoreError> {
        if block.group <= self.manifest.group || block.group < self.group {
            return Ok(());
        }
        let end = self.ends.entry(block.volume).or_default();
        *end = block.offset.max(*end);
        if block.group > self.group {
            // Its first block was written after the sync of the group before.
            self.apply_held()?;
            if self.complete {
                self.report.blocks_lost += block.group - self.group - 1;
            }
            self.group = block.group;
        }
        self.held.push(block);
        Ok(())
    }

    fn apply_held(&mut self) -> Result<(), StoreError> {
        if self.is_cut() {
            self.cut.insert(self.group);
        }
        for record in std::mem::take(&mut self.held).into_iter().flat_map(|block| block.records) {
            if let Record::Settled(group) = record {
                self.cut.remove(&group);
            }
            self.report.records_replayed += 1;
            self.leave_old(&record)?;
            self.shared.apply(record)?;
        }
        Ok(())
    }

    /// The process may have ended before the room of what a record deletes or replaces was given back.
    fn leave_old(&self, record: &Record) -> Result<(), StoreError> {
        let Some(old) = record.key().map(|key| self.shared.index.get(key)).transpose()?.flatten() else {
            return Ok(());
        };
        match record {
            // A record that was written again, of the same bytes.
            Record::Put(entry) if entry.extents == old.extents => {}
            _ => self.shared.leave(&old),
        }
        Ok(())
    }

    /// Whether blocks of the last group are missing.
    fn is_cut(&self) -> bool {
        self.held.first().is_some_and(|first| self.held.len() as u64 != u64::from(first.blocks))
    }

    /// Decides about the last group, whose sync may not have succeeded: objects that are whole stay. Gives deletions for
    /// the others, and whether blocks are missing. `volumes` are those whose journals were read.
    fn settle_last(&mut self, mut volumes: BTreeSet<u32>) -> Result<(Vec<Record>, bool), StoreError> {
        let cut = self.is_cut();
        let mut dropped = Vec::new();
        let records: Vec<Record> = self.held.iter().flat_map(|block| block.records.clone()).collect();
        for record in &records {
            let Record::Put(entry) = record else { continue };
            if entry.synced {
                continue;
            }
            self.report.objects_checked += 1;
            if self.is_whole(entry)? {
                volumes.extend(entry.extents.iter().map(|extent| extent.volume));
            } else {
                self.report.objects_dropped += 1;
                dropped.push(Record::Delete(entry.key(), entry.home));
            }
        }
        // After the end of a process alone, what was read may be in memory only. Before anybody sees it, or anything
        // that follows from it is written, it must be durable.
        if !self.manifest.clean {
            self.shared.volumes.sync(&volumes).map_err(failed)?;
        }
        let gone: BTreeSet<_> = dropped.iter().filter_map(Record::key).collect();
        self.held.iter_mut().for_each(|block| {
            block.records.retain(|record| record.key().is_none_or(|key| !gone.contains(&key)));
        });
        self.apply_held()?;
        if cut {
            self.cut.remove(&self.group);
        }
        Ok((dropped, cut))
    }

    fn is_whole(&self, entry: &Arc<Entry>) -> Result<bool, StoreError> {
        is_whole(&self.shared.volumes, entry, self.shared.config.read_chunk_bytes)
    }

    /// A full disk is no reason not to read what is there.
    fn unless_full(&self, written: Result<(), StoreError>) -> Result<(), StoreError> {
        match written {
            Err(error) if error.kind() == StoreErrorKind::Exhausted => {
                self.shared.only_read(&error);
                Ok(())
            }
            other => other,
        }
    }

    /// Goes on writing in the last volume: after its journal, as a record is written after all room of its object was
    /// taken. What comes later belongs to nobody any more.
    fn go_on(&self, volume: u32) -> Result<(), StoreError> {
        let known = self.manifest.place.as_ref().filter(|place| place.volume == volume);
        let known = known.cloned().unwrap_or(Place { volume, frontier: BODY, last_journal: 0 });
        let place =
            self.ends.get(&volume).map_or(known, |last| Place { volume, frontier: last + BLOCK, last_journal: *last });
        self.shared.volumes.restore_active(&place).map_err(failed)
    }

    /// Writes the index down. Without a group it says nothing about journals: they are all read again after a crash.
    fn write_down(&self, maintainer: &mut Maintainer, group: Option<u64>) -> Result<(), StoreError> {
        let Some(table) = self.shared.index.freeze() else { return Ok(()) };
        let (objects, bytes) = self.shared.totals();
        let place = group.and_then(|_| self.shared.volumes.checkpoint());
        maintainer.write_checkpoint(&Checkpoint {
            group: group.unwrap_or(0),
            place,
            table,
            objects,
            bytes,
            last: false,
        })
    }
}
