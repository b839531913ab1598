//! Which roles and doors a process has, and what that asks of its configuration.

use crate::{
    cli::DoorName,
    commands::Failure,
    config::{ColdKind, Config, ConfigError, IndexKind, LogKind, ObjectsKind},
};

/// The roles and doors of one process. What it does not have itself it reaches at the configured peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// What people call it.
    pub name: &'static str,
    pub ingest: bool,
    pub index: bool,
    pub retrieval: bool,
    pub lifecycle: bool,
    /// Where the configuration has other sites.
    pub replication: bool,
    pub dimse: bool,
    pub dicomweb: bool,
}

impl Roles {
    const NONE: Self = Self {
        name: "gateway",
        ingest: false,
        index: false,
        retrieval: false,
        lifecycle: false,
        replication: false,
        dimse: false,
        dicomweb: false,
    };

    /// Everything in one process.
    pub const ALL: Self = Self {
        name: "serve",
        ingest: true,
        index: true,
        retrieval: true,
        lifecycle: true,
        replication: true,
        dimse: true,
        dicomweb: true,
    };

    /// The doors alone.
    pub fn gateway(doors: &[DoorName]) -> Self {
        Self::NONE.with(doors)
    }

    /// Ingest, and doors beside it.
    pub fn ingest(doors: &[DoorName]) -> Self {
        Self { name: "ingest", ingest: true, ..Self::NONE }.with(doors)
    }

    /// The index.
    pub fn index() -> Self {
        Self { name: "index", index: true, ..Self::NONE }
    }

    /// Retrieval, and doors beside it.
    pub fn retrieval(doors: &[DoorName]) -> Self {
        Self { name: "retrieval", retrieval: true, ..Self::NONE }.with(doors)
    }

    /// Lifecycle.
    pub fn lifecycle() -> Self {
        Self { name: "lifecycle", lifecycle: true, ..Self::NONE }
    }

    /// Replication.
    pub fn replication() -> Self {
        Self { name: "replication", replication: true, ..Self::NONE }
    }

    fn with(self, doors: &[DoorName]) -> Self {
        Self { dimse: doors.contains(&DoorName::Dimse), dicomweb: doors.contains(&DoorName::Dicomweb), ..self }
    }

    /// Whether it has a door.
    pub fn doors(self) -> bool {
        self.dimse || self.dicomweb
    }

    /// Whether it reads or writes the log itself.
    pub fn log(self) -> bool {
        self.ingest || self.index || self.lifecycle || self.replication
    }

    /// Whether it reads or writes objects itself.
    pub fn objects(self) -> bool {
        self.ingest || self.retrieval || self.lifecycle || self.replication
    }

    /// Whether it keeps anything in the data directory.
    pub fn data(self) -> bool {
        self.log() || self.objects()
    }

    /// Whether the configuration is enough for it: stores that others use too must be such as others can reach, and what
    /// it does not have itself must be somewhere.
    ///
    /// # Errors
    /// Exit status 64, naming the key.
    pub fn check(self, config: &Config) -> Result<(), Failure> {
        let apart = |what: &str, key: &str, kind: &str| {
            let message = format!("`cairn {}` shares its {what} with other processes, which {kind:?} can't", self.name);
            Err(Failure::Config(ConfigError::new(key, message)))
        };
        let alone = self.ingest && self.index && self.retrieval;
        if self.log() && !alone && config.stores.log == LogKind::Embedded {
            return apart("log", "stores.log", "embedded");
        }
        if self.objects() && !alone && config.stores.objects == ObjectsKind::Volumes {
            return apart("objects", "stores.objects", "volumes");
        }
        if self.objects() && !alone && config.tiers.cold == ColdKind::Directory {
            return apart("cold objects", "tiers.cold", "directory");
        }
        if self.index && !alone && config.stores.index == IndexKind::Embedded {
            return apart("index", "stores.index", "embedded");
        }
        if self == Self::replication() && config.replication.peers.is_empty() {
            let message = "`cairn replication` needs the name and the addresses of at least one other site";
            return Err(Failure::Config(ConfigError::new("replication.peers", message)));
        }
        let (peers, doors) = (&config.peers, self.doors());
        for (needed, here, addresses, key) in [
            (doors, self.ingest, &peers.ingest, "peers.ingest"),
            (doors || self.retrieval, self.index, &peers.index, "peers.index"),
            (doors, self.retrieval, &peers.retrieval, "peers.retrieval"),
        ] {
            if needed && !here && addresses.is_empty() {
                let message = format!("`cairn {}` needs the HOST:PORT of at least one", self.name);
                return Err(Failure::Config(ConfigError::new(key, message)));
            }
        }
        Ok(())
    }
}
