//! Objects stored and deleted on a simulated disk, with the number of operations done when each was acknowledged.

use bytes::Bytes;
use cairn_archive::ObjectKey;
use cairn_conformance::object_store::{bytes, key, put, read};
use cairn_object_store_volumes::{RecoveryReport, VolumeConfig, VolumeStore};
use cairn_process::clock::SystemClock;
use cairn_process::disk::Disk;
use cairn_process::disk::sim::{Event, Loss, SimDisk, Verdict};
use cairn_store_api::{ObjectInfo, ObjectStore, StoreError, StoreErrorKind};
use futures_util::future::join_all;
use std::{
    collections::BTreeMap,
    future::Future,
    path::Path,
    sync::{Arc, Mutex},
};

pub(crate) const DIRECTORY: &str = "/data/objects";

pub(crate) fn is_file(path: &Path, prefix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

pub(crate) fn block_on<T>(run: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run)
}

/// What to do.
#[derive(Clone)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    seed: u64,
    lengths: &'static [usize],
    rounds: u64,
    writers: u64,
    /// Closed and opened again between rounds.
    reopen: bool,
    /// Everything of the round before is deleted, so that whole volumes go.
    empty: bool,
    pub(crate) config: VolumeConfig,
}

impl Workload {
    /// Small objects over several volumes, checkpoints and merges.
    pub(crate) fn small(seed: u64) -> Self {
        let config = VolumeConfig {
            volume_bytes_first: 64 << 10,
            volume_bytes_max: 256 << 10,
            prewrite_bytes_min: 64 << 10,
            prewrite_bytes_max: 128 << 10,
            reserve_bytes: 0,
            checkpoint_changes: 6,
            segments_merged: 2,
            held_object_bytes_max: 128 << 10,
            write_buffer_bytes: 64 << 10,
            ..VolumeConfig::new(DIRECTORY)
        };
        let lengths = &[0, 1, 700, 5000, 20_000, 70_000];
        Self { name: "small", seed, lengths, rounds: 5, writers: 5, reopen: false, empty: false, config }
    }

    /// Objects larger than a volume, each synced by its writer.
    pub(crate) fn spanning(seed: u64) -> Self {
        let mut workload = Self::small(seed);
        workload.config.shared_sync_bytes_max = 100_000;
        Self { name: "spanning", lengths: &[300, 150_000, 400_000], rounds: 3, writers: 3, ..workload }
    }

    /// Closed in between.
    pub(crate) fn reopened(seed: u64) -> Self {
        Self { name: "reopened", reopen: true, ..Self::small(seed) }
    }

    /// Hardly anything stays.
    pub(crate) fn emptied(seed: u64) -> Self {
        Self { name: "emptied", empty: true, rounds: 9, ..Self::small(seed) }
    }

    pub(crate) fn run(&self) -> Run {
        self.run_with(|_| Verdict::Proceed)
    }

    pub(crate) fn run_with(&self, hook: impl Fn(Event<'_>) -> Verdict + Send + Sync + 'static) -> Run {
        let disk = SimDisk::new();
        disk.set_hook(hook);
        self.run_over(disk.clone(), Arc::new(disk))
    }

    /// Runs on a disk made from the recorded one.
    pub(crate) fn run_on<D: Disk + 'static>(&self, over: impl FnOnce(SimDisk) -> D) -> Run {
        let disk = SimDisk::new();
        self.run_over(disk.clone(), Arc::new(over(disk)))
    }

    fn run_over(&self, disk: SimDisk, over: Arc<dyn Disk>) -> Run {
        let mut run = Run { workload: self.clone(), disk, objects: BTreeMap::new(), refused: 0 };
        block_on(self.perform(over, &mut run));
        run
    }

    async fn perform(&self, disk: Arc<dyn Disk>, run: &mut Run) {
        let mut store = open(disk.clone(), &self.config).unwrap();
        for round in 0..self.rounds {
            let first = self.seed * 1000 + round * self.writers;
            let numbers = first..first + self.writers;
            let puts = numbers.clone().map(|number| self.put(&store, &run.disk, number));
            for fate in join_all(puts).await {
                run.refused += u64::from(fate.acknowledged.is_none());
                run.objects.insert(fate.number, fate);
            }
            // One that is never finished, and some are deleted.
            let mut dropped = store.put(key(self.seed * 1000 + 900 + round), None).await;
            if let Ok(writer) = &mut dropped {
                writer.write(bytes(1, 90_000)).await.unwrap_or_default();
            }
            let before = numbers.start.saturating_sub(self.writers)..numbers.start;
            let doomed = if self.empty { before } else { numbers };
            for number in doomed.filter(|number| self.empty || number % 3 == 0) {
                let Some(fate) = run.objects.get_mut(&number) else { continue };
                fate.deleting = Some(run.disk.operations());
                match store.delete(key(number)).await {
                    Ok(()) => fate.deleted = Some(run.disk.operations()),
                    Err(_) => run.refused += 1,
                }
            }
            if self.reopen {
                drop(dropped);
                store.close().await.unwrap();
                drop(store);
                store = open(disk.clone(), &self.config).unwrap();
            }
        }
        if !self.reopen {
            self.check_readable(&store, run).await;
        }
    }

    async fn put(&self, store: &VolumeStore, disk: &SimDisk, number: u64) -> Fate {
        let content = self.content(number);
        let mut fate = Fate { number, finishing: usize::MAX, acknowledged: None, deleting: None, deleted: None };
        let stored = async {
            let mut writer = store.put(key(number), None).await?;
            for piece in content.chunks(30_000) {
                writer.write(content.slice_ref(piece)).await?;
            }
            fate.finishing = disk.operations();
            writer.finish().await
        };
        if let Ok(info) = stored.await {
            fate.acknowledged = Some((disk.operations(), info));
        }
        fate
    }

    /// What was acknowledged reads well while the store is open, whatever failed.
    async fn check_readable(&self, store: &VolumeStore, run: &Run) {
        for fate in run.objects.values().filter(|fate| fate.deleting.is_none()) {
            if let Some((_, info)) = fate.acknowledged {
                assert!(read(store, &info.object).await.unwrap() == self.content(fate.number));
            }
        }
    }

    pub(crate) fn content(&self, number: u64) -> Bytes {
        bytes(number, self.lengths[(number / 3) as usize % self.lengths.len()])
    }
}

pub(crate) fn open(disk: Arc<dyn Disk>, config: &VolumeConfig) -> Result<VolumeStore, StoreError> {
    VolumeStore::open(disk, config.clone(), Arc::new(SystemClock::new()))
}

/// What became of an object, in numbers of operations.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub(crate) number: u64,
    finishing: usize,
    pub(crate) acknowledged: Option<(usize, ObjectInfo)>,
    deleting: Option<usize>,
    deleted: Option<usize>,
}

impl Fate {
    pub(crate) fn deleting(&self) -> Option<usize> {
        self.deleting
    }
}

pub(crate) struct Run {
    pub(crate) workload: Workload,
    pub(crate) disk: SimDisk,
    pub(crate) objects: BTreeMap<u64, Fate>,
    pub(crate) refused: u64,
}

impl Run {
    pub(crate) fn operations(&self) -> usize {
        self.disk.operations()
    }

    /// Opens what a crash left and looks at everything.
    pub(crate) fn check(&self, at: usize, loss: Loss) -> Result<RecoveryReport, String> {
        let disk = self.disk.crash(at, loss);
        block_on(self.check_disk(disk, at, 1)).map_err(|what| format!("crash at {at}, {loss:?}: {what}"))
    }

    /// A second crash at points of the restart after the first, if that had to decide about anything. Gives whether so.
    pub(crate) fn check_twice(&self, at: usize, loss: Loss) -> Result<bool, String> {
        let first = self.disk.crash(at, loss);
        let report =
            block_on(self.check_disk(first.clone(), at, 1)).map_err(|what| format!("crash at {at}: {what}"))?;
        if report.objects_checked == 0 {
            return Ok(false);
        }
        let last = first.operations();
        for again in (0..last).step_by(if report.objects_dropped > 0 { 3 } else { 11 }).chain([last]) {
            for second in [Loss::Everything, Loss::Nothing, Loss::Seeded(again as u64)] {
                let checked = block_on(self.check_disk(first.crash(again, second), at, 2));
                checked.map_err(|what| format!("crash at {at}, {loss:?}, then at {again}, {second:?}: {what}"))?;
            }
        }
        Ok(report.objects_dropped > 0)
    }

    /// The process ends, and after a restart the machine crashes: what the restart showed is there to stay.
    pub(crate) fn check_killed(&self, at: usize) -> Result<(), String> {
        let killed = self.disk.kill(at);
        let shown = block_on(async {
            let store = open(Arc::new(killed.clone()), &self.workload.config).map_err(|error| error.to_string())?;
            let page = store.list(None, 1000).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(page.objects)
        })?;
        block_on(async {
            let after = killed.crash(killed.operations(), Loss::Everything);
            let store = open(Arc::new(after.clone()), &self.workload.config).map_err(|error| error.to_string())?;
            for info in shown {
                let found = read(&store, &info.object).await;
                found.map_err(|error| format!("killed at {at}: {} was shown: {error}", info.object.key))?;
            }
            drop(store);
            self.check_disk(after, at, 1).await.map_err(|what| format!("killed at {at}, then a crash: {what}"))
        })
        .map(drop)
    }

    async fn check_disk(&self, disk: SimDisk, at: usize, own: u128) -> Result<RecoveryReport, String> {
        let store = open(Arc::new(disk), &self.workload.config).map_err(|error| format!("opening: {error}"))?;
        let report = store.recovery();
        if report.blocks_lost > 0 {
            return Err(format!("journal blocks are missing: {report:?}"));
        }
        for fate in self.objects.values() {
            self.check_object(&store, fate, at).await.map_err(|what| format!("{fate:?}: {what}, {report:?}"))?;
        }
        self.check_list(&store).await?;
        // The store goes on.
        let content = bytes(77, 10_000);
        let more = put(&store, ObjectKey(uuid::Uuid::from_u128(own)), &content, 10_000)
            .await
            .map_err(|error| format!("a put: {error}"))?;
        let found = read(&store, &more.object).await.map_err(|error| format!("a read: {error}"))?;
        if found != content { Err("a new object has other bytes".to_owned()) } else { Ok(report) }
    }

    async fn check_object(&self, store: &VolumeStore, fate: &Fate, at: usize) -> Result<(), String> {
        let info = match store.stat(key(fate.number)).await {
            Ok(info) => Some(info),
            Err(error) if error.kind() == StoreErrorKind::NotFound => None,
            Err(error) => return Err(error.to_string()),
        };
        let Some(info) = info else {
            let acknowledged = fate.acknowledged.is_some_and(|(acknowledged, _)| acknowledged <= at);
            let deleting = fate.deleting.is_some_and(|deleting| deleting <= at);
            return if acknowledged && !deleting { Err("an acknowledged object is gone".to_owned()) } else { Ok(()) };
        };
        if fate.finishing > at {
            return Err("an object is there that nobody finished".to_owned());
        }
        if fate.deleted.is_some_and(|deleted| deleted <= at) {
            return Err("a deleted object is back".to_owned());
        }
        if fate.acknowledged.is_some_and(|(_, acknowledged)| acknowledged != info) {
            return Err(format!("told {info:?}"));
        }
        let found = read(store, &info.object).await.map_err(|error| error.to_string())?;
        if found != self.workload.content(fate.number) { Err("other bytes".to_owned()) } else { Ok(()) }
    }

    /// All that is listed is known, readable, and counted.
    async fn check_list(&self, store: &VolumeStore) -> Result<(), String> {
        let page = store.list(None, 1000).await.map_err(|error| format!("listing: {error}"))?;
        let mut bytes = 0;
        for info in &page.objects {
            let known = self.objects.keys().any(|number| key(*number) == info.object.key);
            // A check before may have put one of its own, with a number as key.
            let own = info.object.key.0.get_version_num() == 0;
            if !known && !own {
                return Err(format!("{} is there and was never finished", info.object.key));
            }
            bytes += info.object.length;
        }
        let used = store.space().await.map_err(|error| format!("asking for room: {error}"))?.used;
        if used != bytes { Err(format!("{used} bytes are counted, {bytes} are there")) } else { Ok(()) }
    }
}

/// Whether some crash of a run violates something when the syncs that `left_out` names do nothing.
pub(crate) fn fails(workload: Workload, left_out: impl Fn(Event<'_>) -> bool + Send + Sync + 'static) -> bool {
    let count = Arc::new(Mutex::new(0));
    let counted = count.clone();
    let run = workload.run_with(move |event| {
        if left_out(event) {
            *counted.lock().unwrap() += 1;
            Verdict::Pretend
        } else {
            Verdict::Proceed
        }
    });
    assert!(*count.lock().unwrap() > 0, "nothing was left out");
    match super::check_all(&run) {
        Ok(_) => false,
        Err(violation) => {
            println!("noticed: {violation}");
            true
        }
    }
}
