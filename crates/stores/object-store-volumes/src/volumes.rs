//! Volume files: which there are, who may write where in them, and what they take on the disk.

mod reservation;

pub(crate) use reservation::Reservation;

use crate::config::VolumeConfig;
use crate::layout::{BLOCK, BODY, Block, Entry, Extent, StoreSecret, encode_begin, encode_header};
use crate::lock;
use cairn_process::disk::{Disk, DiskFile};
use cairn_store_api::{StoreError, StoreErrorKind};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Zeros that are written ahead in one step, then synced.
const PREWRITE_STEP: u64 = 4 * 1024 * 1024;
/// Fewer bytes are not worth telling the system to write back: the sync that follows does it.
const WRITEBACK_MIN: u64 = 64 * 1024;
/// No volume: what the first one follows.
pub(crate) const NO_VOLUME: u32 = u32::MAX;

pub(crate) struct Volumes {
    disk: Arc<dyn Disk>,
    config: Arc<VolumeConfig>,
    secret: StoreSecret,
    state: Mutex<State>,
    /// Held while zeros are written to the spare in front: nobody may use it meanwhile. Taken after `state`.
    prewriting: Mutex<()>,
    files: Mutex<HashMap<u32, Arc<dyn DiskFile>>>,
    /// Whether room had run out when it was last asked for.
    low: AtomicBool,
}

#[derive(Default)]
struct State {
    active: Option<Active>,
    /// Volumes with a header alone, in the order of their use.
    spares: VecDeque<Spare>,
    next: u32,
    /// All volumes that were ever active.
    volumes: BTreeMap<u32, Volume>,
    /// Bytes given out since the last checkpoint.
    fresh: u64,
    /// A restart reads the journals of this volume and later ones.
    replayed_from: u32,
}

/// The volume that room is taken from.
struct Active {
    id: u32,
    file: Arc<dyn DiskFile>,
    capacity: u64,
    prewritten: u64,
    /// From here on nothing was given out.
    frontier: u64,
    /// The frontier never goes back beyond this: a restart looks for the journal from here on.
    floor: u64,
    /// Room behind the frontier that was given back.
    gaps: Vec<Extent>,
    /// Where the journal in this volume ends; 0 when it has none.
    last_journal: u64,
}

struct Spare {
    id: u32,
    file: Arc<dyn DiskFile>,
    capacity: u64,
    prewritten: Arc<AtomicU64>,
}

/// What is known of a volume for ever.
#[derive(Default)]
struct Volume {
    capacity: u64,
    /// Bytes of finished objects.
    live: u64,
    /// Extents of objects on their way in.
    in_flight: u64,
    /// Unused room, until it is given back to the disk.
    unused: Vec<Extent>,
}

/// Capacity and live bytes of each volume.
pub(crate) type Holdings = BTreeMap<u32, (u64, u64)>;

/// Where the journal went on when the index was written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) volume: u32,
    pub(crate) frontier: u64,
    pub(crate) last_journal: u64,
}

/// Bytes to be written, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) volume: u32,
    pub(crate) offset: u64,
    pub(crate) bytes: &'a [u8],
}

impl Piece<'_> {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// A block that the journal may write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JournalPlace {
    pub(crate) volume: u32,
    pub(crate) offset: u64,
    pub(crate) previous: u64,
}

pub(crate) fn file_name(id: u32) -> String {
    format!("volume-{id:08x}")
}

pub(crate) fn file_id(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("volume-").filter(|digits| digits.len() == 8)?;
    u32::from_str_radix(digits, 16).ok()
}

impl Volumes {
    pub(crate) fn new(disk: Arc<dyn Disk>, config: Arc<VolumeConfig>, secret: StoreSecret) -> Self {
        let (state, prewriting, files, low) = Default::default();
        Self { disk, config, secret, state, prewriting, files, low }
    }

    pub(crate) fn secret(&self) -> &StoreSecret {
        &self.secret
    }

    pub(crate) fn path(&self, id: u32) -> PathBuf {
        self.config.directory.join(file_name(id))
    }

    /// Takes over the volumes that a restart found: capacity and live bytes, and the next free number.
    pub(crate) fn restore(&self, volumes: &Holdings, next: u32) {
        let mut state = lock(&self.state);
        let known = |(id, (capacity, live)): (&u32, &(u64, u64))| {
            (*id, Volume { capacity: *capacity, live: *live, ..Volume::default() })
        };
        state.volumes = volumes.iter().map(known).collect();
        state.next = next;
    }

    /// Goes on in the volume that was in use.
    pub(crate) fn restore_active(&self, place: &Place) -> io::Result<()> {
        let file = self.file(place.volume)?;
        let length = file.len()?;
        let mut state = lock(&self.state);
        let capacity = state.volumes.get(&place.volume).map_or(0, |volume| volume.capacity);
        // A file that grew by being written may have holes before its end.
        let prewritten = if length >= capacity { capacity } else { place.frontier };
        state.active = Some(Active {
            id: place.volume,
            capacity,
            prewritten,
            file,
            frontier: place.frontier,
            floor: place.frontier,
            gaps: Vec::new(),
            last_journal: place.last_journal,
        });
        Ok(())
    }

    /// Takes over a volume that was never used.
    pub(crate) fn restore_spare(&self, id: u32, file: Arc<dyn DiskFile>, capacity: u64) -> io::Result<()> {
        let prewritten = Arc::new(AtomicU64::new(file.len()?.min(capacity)));
        lock(&self.state).spares.push_back(Spare { id, file, capacity, prewritten });
        Ok(())
    }

    /// An open volume file.
    pub(crate) fn file(&self, id: u32) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = lock(&self.files);
        if let Some(file) = files.get(&id) {
            return Ok(file.clone());
        }
        let file = self.disk.open(&self.path(id))?;
        while files.len() >= self.config.files_open_max {
            let Some(other) = files.keys().next().copied() else { break };
            files.remove(&other);
        }
        files.insert(id, file.clone());
        Ok(file)
    }

    /// Writes pieces in their order, those that lie side by side at once.
    pub(crate) fn write(&self, pieces: &[Piece<'_>]) -> io::Result<()> {
        for run in pieces.chunk_by(|one, next| (one.volume, one.end()) == (next.volume, next.offset)) {
            let ([first, ..], [.., last]) = (run, run) else { continue };
            let file = self.file(first.volume)?;
            let length = last.end() - first.offset;
            let past_cache = if self.config.direct_writes {
                let slices: Vec<&[u8]> = run.iter().map(|piece| piece.bytes).collect();
                file.write_direct_at(&slices, first.offset)?
            } else {
                run.iter().try_for_each(|piece| file.write_all_at(piece.bytes, piece.offset))?;
                false
            };
            if !past_cache && self.config.early_writeback && length >= WRITEBACK_MIN {
                file.start_writeback(first.offset, length);
            }
        }
        Ok(())
    }

    /// Whether zeros were written to all of these places, so that no room can be missing there.
    pub(crate) fn is_prewritten(&self, places: &[Extent]) -> bool {
        let state = lock(&self.state);
        let written = |active: &Active, place: &Extent| place.volume == active.id && place.end() <= active.prewritten;
        state.active.as_ref().is_some_and(|active| places.iter().all(|place| written(active, place)))
    }

    pub(crate) fn sync(&self, volumes: &BTreeSet<u32>) -> io::Result<()> {
        volumes.iter().try_for_each(|id| self.file(*id)?.sync_data())
    }

    fn create(&self, state: &mut State) -> io::Result<Spare> {
        let id = state.next;
        let capacity = self.config.volume_bytes_first.checked_shl(id.min(40)).unwrap_or(u64::MAX);
        let capacity = capacity.clamp(self.config.volume_bytes_first, self.config.volume_bytes_max);
        // A file of this name that a failed attempt left holds nothing.
        let file = match self.disk.create_new(&self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open(&self.path(id))?,
            other => other?,
        };
        file.write_all_at(&encode_header(&self.secret, id, capacity), 0)?;
        file.sync_data()?;
        self.disk.sync_dir(&self.config.directory)?;
        state.next += 1;
        Ok(Spare { id, file, capacity, prewritten: Arc::new(AtomicU64::new(BLOCK)) })
    }

    /// Puts the next volume to use.
    fn activate<'a>(&self, state: &'a mut State) -> io::Result<&'a mut Active> {
        let guard = lock(&self.prewriting);
        if state.spares.is_empty() {
            let spare = self.create(state)?;
            state.spares.push_back(spare);
        }
        let Some(spare) = state.spares.front() else { return Err(io::ErrorKind::NotFound.into()) };
        let before = state.active.as_ref().map_or((NO_VOLUME, 0), |active| (active.id, active.last_journal));
        let begin = encode_begin(&self.secret, spare.id, before.0, before.1);
        spare.file.write_all_at(&begin, BLOCK)?;
        drop(guard);
        if let Some(full) = state.active.take() {
            let volume = state.volumes.entry(full.id).or_default();
            volume.unused.extend(full.gaps);
            let length = full.capacity.max(full.prewritten).saturating_sub(full.frontier);
            volume.unused.push(Extent { volume: full.id, offset: full.frontier, length });
        }
        let Some(Spare { id, file, capacity, prewritten }) = state.spares.pop_front() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        state.volumes.insert(id, Volume { capacity, ..Volume::default() });
        lock(&self.files).insert(id, file.clone());
        let prewritten = prewritten.load(Ordering::Relaxed);
        let gaps = Vec::new();
        Ok(state.active.insert(Active {
            id,
            file,
            capacity,
            prewritten,
            frontier: BODY,
            floor: BODY,
            gaps,
            last_journal: 0,
        }))
    }

    /// Takes blocks for the journal. A full disk is noticed here, before any of them is written.
    pub(crate) fn take_journal(&self, count: usize) -> Result<Vec<JournalPlace>, StoreError> {
        let failed = |error: io::Error| StoreError::io("making room for the journal", &error);
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let mut places = Vec::with_capacity(count);
        for _ in 0..count {
            let active = match &mut state.active {
                Some(active) if active.capacity.saturating_sub(active.frontier) >= BLOCK => active,
                _ => self.activate(state).map_err(failed)?,
            };
            if active.frontier + BLOCK > active.prewritten {
                active.file.write_all_at(&[0; BLOCK as usize], active.frontier).map_err(failed)?;
            }
            places.push(JournalPlace { volume: active.id, offset: active.frontier, previous: active.last_journal });
            active.last_journal = active.frontier;
            active.frontier += BLOCK;
            state.fresh += BLOCK;
        }
        Ok(places)
    }

    /// Counts extents as a finished object's.
    pub(crate) fn add_live(&self, entry: &Entry) {
        let mut state = lock(&self.state);
        for extent in &entry.extents {
            state.volumes.entry(extent.volume).or_default().live += extent.length;
        }
    }

    /// Capacity of all volumes, in use, full or spare.
    pub(crate) fn capacity(&self) -> u64 {
        let state = lock(&self.state);
        let spares = state.spares.iter().map(|spare| spare.capacity);
        state.volumes.values().map(|volume| volume.capacity).chain(spares).sum()
    }

    /// Counts extents as nobody's.
    pub(crate) fn remove_live(&self, entry: &Entry) {
        let mut state = lock(&self.state);
        for extent in &entry.extents {
            if let Some(volume) = state.volumes.get_mut(&extent.volume) {
                volume.live = volume.live.saturating_sub(extent.length);
            }
        }
    }

    /// Gives the room of a deleted object back to the disk.
    pub(crate) fn punch(&self, extents: &[Extent]) -> io::Result<()> {
        extents.iter().try_for_each(|extent| match self.file(extent.volume) {
            Ok(file) => file.punch_hole(extent.offset, extent.length),
            // The whole volume is gone already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        })
    }

    /// Gives unused room of volumes that nobody writes any more back to the disk.
    pub(crate) fn punch_unused(&self) -> io::Result<()> {
        let unused: Vec<Extent> =
            lock(&self.state).volumes.values_mut().flat_map(|volume| std::mem::take(&mut volume.unused)).collect();
        self.punch(&unused)
    }

    /// A volume that holds no object, is not written, and may go once its journal is of no use.
    pub(crate) fn empty(&self) -> Option<u32> {
        let state = lock(&self.state);
        let active = state.active.as_ref()?.id;
        let before = state.volumes.range(..state.replayed_from);
        let mut empty = before.filter(|(id, volume)| **id != active && volume.live == 0 && volume.in_flight == 0);
        empty.next().map(|(id, _)| *id)
    }

    /// A written manifest says that a restart reads the journals from this volume on.
    pub(crate) fn set_replayed_from(&self, volume: u32) {
        lock(&self.state).replayed_from = volume;
    }

    pub(crate) fn has(&self, id: u32) -> bool {
        lock(&self.state).volumes.contains_key(&id)
    }

    /// Removes a volume's file. The name may come back after a crash; it then holds no object either.
    pub(crate) fn remove(&self, id: u32) -> io::Result<()> {
        lock(&self.files).remove(&id);
        lock(&self.state).volumes.remove(&id);
        self.disk.remove(&self.path(id))?;
        self.disk.sync_dir(&self.config.directory)
    }

    /// Where the journal goes on, with what each volume holds; begins a new count of fresh bytes. `None` before the
    /// first use.
    pub(crate) fn checkpoint(&self) -> Option<(Place, Holdings)> {
        let mut state = lock(&self.state);
        let active = state.active.as_mut()?;
        active.floor = active.frontier;
        let place = Place { volume: active.id, frontier: active.frontier, last_journal: active.last_journal };
        state.fresh = 0;
        Some((place, state.volumes.iter().map(|(id, volume)| (*id, (volume.capacity, volume.live))).collect()))
    }

    /// Bytes given out since the last checkpoint.
    pub(crate) fn fresh(&self) -> u64 {
        lock(&self.state).fresh
    }

    /// Bytes that can be stored before the reserve is touched.
    pub(crate) fn room(&self) -> Result<u64, StoreError> {
        self.room_of(&lock(&self.state))
    }

    fn room_of(&self, state: &State) -> Result<u64, StoreError> {
        let free = self.disk.available(&self.config.directory);
        let free = free.map_err(|error| StoreError::io("asking for free room", &error))?;
        let room = free.saturating_add(ahead(state)).saturating_sub(self.config.reserve_bytes);
        self.low.store(room == 0, Ordering::Relaxed);
        Ok(room)
    }

    /// Whether room had run out when it was last asked for.
    pub(crate) fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    fn check_room(&self, state: &State, needed: u64) -> Result<(), StoreError> {
        if self.room_of(state)? >= needed {
            return Ok(());
        }
        Err(StoreError::new(StoreErrorKind::Exhausted, "no room left on the object store's disk"))
    }

    /// Writes some zeros ahead of the writers if there are too few; tells whether there is more to do. While objects
    /// come in (`busy`) the disk is theirs, but for what they need next.
    pub(crate) fn prewrite(&self, held: u64, busy: bool) -> io::Result<Prewritten> {
        let mut state = lock(&self.state);
        let free = self.disk.available(&self.config.directory)?.saturating_sub(self.config.reserve_bytes);
        let (min, max) = (self.config.prewrite_bytes_min, self.config.prewrite_bytes_max);
        let idle_target = held.clamp(min, max.max(min)).min(free / self.config.prewrite_free_share);
        let target = if busy { idle_target.min(self.config.prewrite_bytes_busy) } else { idle_target };
        if free < PREWRITE_STEP || ahead(&state) >= idle_target {
            return Ok(Prewritten::Enough);
        }
        if ahead(&state) >= target {
            return Ok(Prewritten::EnoughWhileBusy);
        }
        let unfinished = |spare: &&Spare| spare.prewritten.load(Ordering::Relaxed) < spare.capacity;
        if !state.spares.iter().any(|spare| unfinished(&spare)) {
            let spare = self.create(&mut state)?;
            state.spares.push_back(spare);
        }
        let Some(spare) = state.spares.iter().find(unfinished) else { return Ok(Prewritten::Enough) };
        let (file, prewritten) = (spare.file.clone(), spare.prewritten.clone());
        let end = (prewritten.load(Ordering::Relaxed) + PREWRITE_STEP).min(spare.capacity);
        let guard = lock(&self.prewriting);
        drop(state);
        // Objects are written in whole blocks.
        file.preallocate_uncached(end)?;
        prewritten.store(end, Ordering::Relaxed);
        drop(guard);
        // Not while others are kept out. If it comes into use meanwhile, this sync is as good as theirs.
        file.sync_data()?;
        Ok(Prewritten::Some)
    }

    /// Leaves no file open.
    pub(crate) fn close_files(&self) {
        let mut state = lock(&self.state);
        state.active = None;
        state.spares.clear();
        lock(&self.files).clear();
    }

    /// Reads from an object's run of bytes. `false`: some of it is not in memory, and the disk was not to be waited for.
    pub(crate) fn read_run(
        &self,
        entry: &Entry,
        mut at: u64,
        mut buffer: &mut [u8],
        patience: Patience,
    ) -> io::Result<bool> {
        for extent in &entry.extents {
            if buffer.is_empty() {
                break;
            }
            if at >= extent.length {
                at -= extent.length;
                continue;
            }
            let now = (extent.length - at).min(buffer.len() as u64) as usize;
            let (front, rest) = std::mem::take(&mut buffer).split_at_mut(now);
            match patience {
                Patience::Full => self.file(extent.volume)?.read_exact_at(front, extent.offset + at)?,
                Patience::None => {
                    let open = lock(&self.files).get(&extent.volume).cloned();
                    let Some(file) = open else { return Ok(false) };
                    if !file.read_at_once(front, extent.offset + at)? {
                        return Ok(false);
                    }
                }
            }
            buffer = rest;
            at = 0;
        }
        if buffer.is_empty() { Ok(true) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Reads a block; `None` past the end of the file.
    pub(crate) fn read_block(&self, id: u32, offset: u64) -> io::Result<Option<Block>> {
        let mut block = [0; BLOCK as usize];
        match self.file(id)?.read_exact_at(&mut block, offset) {
            Ok(()) => Ok(Some(block)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// What is not in memory is left to a thread that may.
    None,
    Full,
}

/// What came of writing ahead.
pub(crate) enum Prewritten {
    /// Some zeros were written; there may be more to do.
    Some,
    /// There are enough until nothing comes in any more.
    EnoughWhileBusy,
    /// There are enough.
    Enough,
}

/// Prewritten room that was not given out.
fn ahead(state: &State) -> u64 {
    let active = state.active.as_ref().map_or(0, |active| active.prewritten.saturating_sub(active.frontier));
    let spares = state.spares.iter().map(|spare| spare.prewritten.load(Ordering::Relaxed)).sum::<u64>();
    active.saturating_add(spares)
}
