//! `cairn stores`: makes what the shared stores of a cluster need, and says whether they can be used.

use super::{Failure, load};
use crate::{
    cli::{StoresAction, StoresArgs},
    config::{Config, IndexKind, LogKind, ObjectsKind},
    stores::cluster,
};
use cairn_process::clock::{Clock, SystemClock};
use std::sync::Arc;

pub async fn run(args: StoresArgs) -> Result<(), Failure> {
    match args.action {
        StoresAction::Create { source } => create(&load(&source)?.config).await,
        StoresAction::Check { source } => check(&load(&source)?.config).await,
    }
}

/// Topic, bucket and keyspace. Run again, it does what was left undone.
async fn create(config: &Config) -> Result<(), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let embedded = || "in the data directory, made when first opened".to_owned();
    let log = match config.stores.log {
        LogKind::Embedded => embedded(),
        LogKind::Kafka => cluster::create_log(config).await?,
    };
    println!("log: {log}");
    let objects = match config.stores.objects {
        ObjectsKind::Volumes => embedded(),
        ObjectsKind::S3 => cluster::create_objects(config, &clock).await?,
    };
    println!("objects: {objects}");
    let index = match config.stores.index {
        IndexKind::Embedded => embedded(),
        IndexKind::Cql => cluster::create_index(config).await?,
    };
    println!("index: {index}");
    Ok(())
}

/// Opens each store of a cluster as a process would, and closes it.
async fn check(config: &Config) -> Result<(), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    if config.stores.log == LogKind::Kafka {
        let (log, _join) = cluster::log(config).await?;
        println!("log: {} partitions, incarnation {}", log.partitions(), log.incarnation().0);
        log.close().await.map_err(Failure::failed)?;
    }
    if config.stores.objects == ObjectsKind::S3 {
        let objects = cluster::objects(config, &clock).await?;
        println!("objects: the bucket refuses to write over what is there");
        objects.close().await.map_err(Failure::failed)?;
    }
    if config.stores.index == IndexKind::Cql {
        let index = cluster::index(config).await?;
        println!("index: the schema is of this version");
        index.sync(true).await.map_err(Failure::failed)?;
    }
    println!("the stores can be used");
    Ok(())
}
