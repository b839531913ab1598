use crate::moved::Moved;
use async_trait::async_trait;
use cairn_conformance::object_store::{Faults, ObjectStoreBackend};
use cairn_object_store_tiered::TieredStore;
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::{
    clock::SystemClock,
    disk::{
        Disk,
        sim::{Event, Loss, SimDisk, Verdict},
    },
};
use cairn_store_api::{ObjectStore, StoreError};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
};

pub(crate) const HOT: &str = "/data/objects";
pub(crate) const COLD: &str = "/slow/objects";

/// Small, so that trials cross volumes and checkpoints.
fn volumes(disk: Arc<dyn Disk>, directory: &str) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let config = VolumeConfig {
        volume_bytes_first: 1 << 20,
        volume_bytes_max: 8 << 20,
        prewrite_bytes_min: 1 << 20,
        prewrite_bytes_max: 4 << 20,
        reserve_bytes: 1 << 20,
        checkpoint_changes: 16,
        shared_sync_bytes_max: 1 << 20,
        ..VolumeConfig::new(directory)
    };
    Ok(Arc::new(VolumeStore::open(disk, config, Arc::new(SystemClock::new()))?))
}

/// The two stores on one disk, and what they are together.
pub(crate) struct Opened {
    pub(crate) hot: Arc<dyn ObjectStore>,
    pub(crate) cold: Arc<dyn ObjectStore>,
    pub(crate) tiered: Arc<TieredStore>,
}

pub(crate) fn open(disk: &SimDisk) -> Result<Opened, StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let (hot, cold) = (volumes(disk.clone(), HOT)?, volumes(disk, COLD)?);
    let tiered = Arc::new(TieredStore::new(hot.clone(), cold.clone()));
    Ok(Opened { hot, cold, tiered })
}

/// Where in which volumes bytes are.
pub(crate) fn find(disk: &dyn Disk, directory: &str, bytes: &[u8]) -> Vec<(PathBuf, u64)> {
    let directory = Path::new(directory);
    let mut places = Vec::new();
    for name in disk.list(directory).unwrap().into_iter().filter(|name| name.starts_with("volume-")) {
        let path = directory.join(name);
        let file = disk.open(&path).unwrap();
        let mut content = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut content, 0).unwrap();
        let found = content.windows(bytes.len()).position(|window| window == bytes);
        places.extend(found.map(|at| (path, at as u64)));
    }
    places
}

/// Two stores on the simulated disk.
pub(crate) struct Simulated {
    disk: Mutex<SimDisk>,
    stalled: Arc<(Mutex<bool>, Condvar)>,
    /// Whether what is stored is moved to the cold store at once.
    moves: bool,
}

impl Simulated {
    pub(crate) fn new(moves: bool) -> Self {
        Self { disk: Mutex::new(SimDisk::new()), stalled: Arc::default(), moves }
    }

    fn disk(&self) -> SimDisk {
        self.disk.lock().unwrap().clone()
    }
}

#[async_trait]
impl ObjectStoreBackend for Simulated {
    async fn open(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        let Opened { tiered: store, cold, .. } = open(&self.disk())?;
        Ok(if self.moves { Arc::new(Moved { store, cold }) } else { store })
    }

    fn faults(&self) -> Faults {
        Faults { crash: true, full: true, damage: true, stall: true, exclusive: true }
    }

    async fn crash(&self) {
        let mut disk = self.disk.lock().unwrap();
        *disk = disk.crash(disk.operations(), Loss::Everything);
    }

    async fn fill(&self, full: bool) {
        let disk = self.disk();
        disk.set_capacity(if full { disk.allocated() + (8 << 20) } else { u64::MAX });
    }

    async fn damage(&self, bytes: &[u8]) {
        let disk = self.disk();
        let places = [HOT, COLD].map(|directory| find(&disk, directory, bytes)).concat();
        assert!(!places.is_empty(), "no volume holds these bytes");
        for (path, at) in places {
            disk.damage(&path, at, &[bytes[0] ^ 1]).unwrap();
        }
    }

    async fn stall(&self, stalled: bool) {
        *self.stalled.0.lock().unwrap() = stalled;
        self.stalled.1.notify_all();
        let gate = self.stalled.clone();
        self.disk().set_hook(move |event| {
            if let Event::Write(_) = event {
                let open = gate.1.wait_while(gate.0.lock().unwrap(), |stalled| *stalled);
                drop(open.unwrap());
            }
            Verdict::Proceed
        });
    }
}
