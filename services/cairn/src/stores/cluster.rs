//! Stores that several processes share. Those that this executable was built without are refused where the
//! configuration is checked, and here.

use crate::{
    commands::Failure,
    config::{Config, StoresConfig},
    stores::Join,
};
use cairn_process::clock::Clock;
use cairn_store_api::{EventLog, IndexStore, ObjectStore, StoreError, StoreErrorKind};
use std::sync::Arc;

fn failed(store: &str, error: &StoreError) -> Failure {
    let remedy = match error.kind() {
        StoreErrorKind::NotFound | StoreErrorKind::Invalid => "; `cairn stores create` makes what is missing",
        _ => "",
    };
    Failure::failed(format!("{store}: {error}{remedy}"))
}

/// Opens a store; waits for one that can't be reached.
#[cfg_attr(not(any(feature = "kafka", feature = "s3", feature = "cql")), allow(dead_code, reason = "none to open"))]
async fn reached<T, F: Future<Output = Result<T, StoreError>>>(
    config: &StoresConfig,
    store: &str,
    open: impl Fn() -> F,
) -> Result<T, Failure> {
    let mut pause = config.open_pause;
    loop {
        // The futures of client libraries are deep.
        match Box::pin(open()).await {
            Ok(there) => return Ok(there),
            Err(error) if error.kind() == StoreErrorKind::Unavailable => {
                tracing::warn!(store, %error, "a store can't be reached and is tried again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(config.open_pause_max);
            }
            Err(error) => return Err(failed(store, &error)),
        }
    }
}

#[cfg(feature = "kafka")]
mod kafka {
    use super::*;
    use cairn_archive::{Incarnation, SiteId};
    use cairn_event_log_kafka::{KafkaEventLog, create_topic};

    fn site(config: &Config) -> Result<SiteId, Failure> {
        config.site.name.parse().map_err(Failure::failed)
    }

    /// The log, and how the index follows its share of it.
    pub async fn log(config: &Config) -> Result<(Arc<dyn EventLog>, Join), Failure> {
        let site = site(config)?;
        let open = || KafkaEventLog::open(config.kafka.clone(), site.clone());
        let log = Arc::new(reached(&config.stores, "kafka", open).await?);
        let (joining, group) = (log.clone(), format!("{}.index", config.kafka.topic));
        Ok((log, Box::new(move || joining.join(&group))))
    }

    /// The log, for a new life to be begun; `alone`: no other process appends to it from then on.
    pub async fn log_to_renew(config: &Config, alone: bool) -> Result<Arc<dyn EventLog>, Failure> {
        if !alone {
            return Ok(log(config).await?.0);
        }
        let log = KafkaEventLog::open_alone(config.kafka.clone(), site(config)?).await;
        Ok(Arc::new(log.map_err(|error| failed("kafka", &error))?))
    }

    /// Makes the topic.
    pub async fn create_log(config: &Config) -> Result<String, Failure> {
        let site = site(config)?;
        let create = || create_topic(&config.kafka, &site, Incarnation(1));
        let life = reached(&config.stores, "kafka", create).await?;
        let (topic, partitions, id) = (&config.kafka.topic, life.partitions, life.id);
        Ok(format!("topic {topic} of {partitions} partitions, incarnation {}, log {id}", life.incarnation.0))
    }
}

#[cfg(feature = "s3")]
mod s3 {
    use super::*;
    use cairn_object_store_s3::{S3Config, S3Store};

    /// The objects.
    pub async fn objects(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn ObjectStore>, Failure> {
        Ok(Arc::new(open(config, &config.s3, clock).await?))
    }

    /// Further objects, under a key of the configuration. Whoever wants them waits, not the process: they may be away for long.
    pub async fn further_objects(
        key: &str,
        s3: &S3Config,
        clock: &Arc<dyn Clock>,
    ) -> Result<Arc<dyn ObjectStore>, Failure> {
        let opened = Box::pin(S3Store::open(s3.clone(), clock.clone())).await;
        Ok(Arc::new(opened.map_err(|error| failed(&format!("{key}.s3"), &error))?))
    }

    async fn open(config: &Config, s3: &S3Config, clock: &Arc<dyn Clock>) -> Result<S3Store, Failure> {
        reached(&config.stores, "s3", || S3Store::open(s3.clone(), clock.clone())).await
    }

    /// Makes the bucket.
    pub async fn create_objects(config: &Config, clock: &Arc<dyn Clock>) -> Result<String, Failure> {
        let s3 = S3Config { create_bucket: true, ..config.s3.clone() };
        let objects = open(config, &s3, clock).await?;
        objects.close().await.map_err(|error| failed("s3", &error))?;
        Ok(format!("bucket {}", s3.bucket))
    }
}

#[cfg(feature = "cql")]
mod cql {
    use super::*;
    use cairn_index_store_cql::CqlIndexStore;

    /// The index's rows.
    pub async fn index(config: &Config) -> Result<Arc<dyn IndexStore>, Failure> {
        Ok(Arc::new(reached(&config.stores, "cql", || CqlIndexStore::open(config.cql.clone())).await?))
    }

    /// Makes the keyspace and its tables, or brings them to this version.
    pub async fn create_index(config: &Config) -> Result<String, Failure> {
        let version = reached(&config.stores, "cql", || CqlIndexStore::migrate(config.cql.clone())).await?;
        Ok(format!("keyspace {}, schema version {version}", config.cql.keyspace))
    }
}

/// What is there of a store that this executable was built without.
#[cfg(not(all(feature = "kafka", feature = "s3", feature = "cql")))]
macro_rules! not_built {
    ($module:ident, $feature:literal, $($call:ident($($argument:ident: $of:ty),*) -> $gives:ty;)*) => {
        #[cfg(not(feature = $feature))]
        mod $module {
            use super::*;
            $(pub async fn $call($($argument: $of),*) -> Result<$gives, Failure> {
                $(let _ = $argument;)*
                Err(Failure::failed(concat!("this executable was built without ", $feature)))
            })*
        }
    };
}
#[cfg(not(all(feature = "kafka", feature = "s3", feature = "cql")))]
not_built!(kafka, "kafka",
    log(config: &Config) -> (Arc<dyn EventLog>, Join);
    log_to_renew(config: &Config, alone: bool) -> Arc<dyn EventLog>;
    create_log(config: &Config) -> String;);
#[cfg(not(all(feature = "kafka", feature = "s3", feature = "cql")))]
not_built!(s3, "s3",
    objects(config: &Config, clock: &Arc<dyn Clock>) -> Arc<dyn ObjectStore>;
    further_objects(key: &str, s3: &S3Config, clock: &Arc<dyn Clock>) -> Arc<dyn ObjectStore>;
    create_objects(config: &Config, clock: &Arc<dyn Clock>) -> String;);
#[cfg(not(all(feature = "kafka", feature = "s3", feature = "cql")))]
not_built!(cql, "cql",
    index(config: &Config) -> Arc<dyn IndexStore>;
    create_index(config: &Config) -> String;);

pub use cql::{create_index, index};
pub use kafka::{create_log, log, log_to_renew};
pub use s3::{create_objects, further_objects, objects};
