//! In place of the cluster, for an executable without the clients of its engines.

use crate::{Bench, Outcome, server::Kind};
use cairn_archive::SiteId;
use cairn_benches::process::Process;
use cairn_store_api::EventLog;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// There are none.
pub enum Engines {}

/// Where a cluster's processes find one another.
pub struct Prepared {
    pub file: PathBuf,
    pub grpc: Vec<(&'static str, String)>,
}

impl Engines {
    pub fn at(_folder: &Path) -> Outcome<Self> {
        Err("--engines needs an executable built with the feature `cluster`: make bench-cluster".into())
    }

    pub fn process(&self) -> Process {
        match *self {}
    }

    pub fn prepare(&self, _cairn: &Path, _dir: &Path, _more: &str) -> Outcome<Prepared> {
        match *self {}
    }

    pub async fn log(&self, _dir: &Path, _site: SiteId) -> Outcome<Arc<dyn EventLog>> {
        match *self {}
    }
}

pub fn objects(_bench: &mut Bench, _kind: Kind) -> Outcome<()> {
    Err("there are no engines".into())
}
