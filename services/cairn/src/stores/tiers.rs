//! The object store as services have it: one, or a hot and a cold one.

use super::{cluster, objects};
use crate::{
    commands::Failure,
    config::{ColdKind, Config},
};
use cairn_object_store_tiered::{AwayStore, Open, TieredStore};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::{clock::Clock, disk::Disk};
use cairn_store_api::{ObjectStore, StoreError, StoreErrorKind, Tiers};
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::Path,
    sync::Arc,
};
use uuid::Uuid;

/// File that says which cold store it is, in its directory; and in the data directory, which one this archive has.
const ID_FILE: &str = "cold-store.id";

/// The objects.
pub struct Opened {
    pub objects: Arc<dyn ObjectStore>,
    /// The same as two stores, where they are.
    pub tiers: Option<Arc<dyn Tiers>>,
}

/// Opens them. A cold store that is away is waited for only a little.
pub async fn open(config: &Config, disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>) -> Result<Opened, Failure> {
    let hot = objects(config, disk, clock).await?;
    let Some(open) = cold(config, disk, clock) else { return Ok(Opened { objects: hot, tiers: None }) };
    let away = Arc::new(AwayStore::new(open, config.tiers.open_pause));
    match tokio::time::timeout(config.tiers.open_wait, away.opened()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the cold store is away: what is in it can't be had until it is back"),
        Err(_) => tracing::warn!("the cold store does not answer: what is in it can't be had until it does"),
    }
    let both = Arc::new(TieredStore::new(hot, away));
    Ok(Opened { objects: both.clone(), tiers: Some(both) })
}

/// How the cold store is opened, if there is one.
fn cold(config: &Config, disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>) -> Option<Open> {
    let (config, disk, clock) = (Arc::new(config.clone()), disk.clone(), clock.clone());
    match config.tiers.cold {
        ColdKind::None => None,
        ColdKind::Directory => Some(Box::new(move || {
            let (config, disk, clock) = (config.clone(), disk.clone(), clock.clone());
            Box::pin(async move {
                let opened = tokio::task::spawn_blocking(move || of_directory(&config, disk, clock)).await;
                opened.map_err(|error| StoreError::new(StoreErrorKind::Internal, error.to_string()))?
            })
        })),
        ColdKind::S3 => Some(Box::new(move || {
            let (config, clock) = (config.clone(), clock.clone());
            Box::pin(async move {
                let opened = cluster::cold_objects(&config, &clock).await;
                opened.map_err(|failure| StoreError::new(StoreErrorKind::Unavailable, failure.to_string()))
            })
        })),
    }
}

fn of_directory(
    config: &Config,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let missing = || StoreError::new(StoreErrorKind::Invalid, "tiers.directory is missing");
    let directory = config.tiers.directory.as_deref().ok_or_else(missing)?;
    identify(&config.data.directory, directory)?;
    let volumes = VolumeConfig {
        volume_bytes_max: config.data.volume_bytes,
        // Nobody waits for what is moved there.
        prewrite_bytes_min: 16 << 20,
        prewrite_bytes_max: 64 << 20,
        reserve_bytes: config.tiers.reserve_bytes,
        ..VolumeConfig::new(directory.join("objects"))
    };
    Ok(Arc::new(VolumeStore::open(disk, volumes, clock)?))
}

/// Whether the directory is the cold store of this archive. An empty place under a mount point is not taken for it: everything
/// that is cold would seem to be gone.
fn identify(data: &Path, directory: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| StoreError::io(&format!("{}", directory.display()), &error);
    let known = read_id(&data.join(ID_FILE)).map_err(failed)?;
    let there = read_id(&directory.join(ID_FILE)).map_err(failed)?;
    let away =
        |what: &str| Err(StoreError::new(StoreErrorKind::Unavailable, format!("{} {what}", directory.display())));
    match (known, there) {
        (Some(known), Some(there)) if known == there => Ok(()),
        (Some(_), Some(_)) => away("is another cold store than this archive's"),
        (Some(_), None) => away("is not this archive's cold store: its disk may not be mounted"),
        (None, Some(there)) => write_id(data, &there).map_err(failed),
        (None, None) => {
            let id = Uuid::new_v4().to_string();
            fs::create_dir_all(directory).and_then(|()| write_id(directory, &id)).map_err(failed)?;
            write_id(data, &id).map_err(failed)
        }
    }
}

fn read_id(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(id) => Ok(Some(id.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whole or not at all.
fn write_id(directory: &Path, id: &str) -> io::Result<()> {
    let (path, begun) = (directory.join(ID_FILE), directory.join(format!("{ID_FILE}.new")));
    let mut file = File::create(&begun)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    fs::rename(begun, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_empty_place_where_the_cold_store_was_is_not_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let (data, cold, other) = (folder.path().join("data"), folder.path().join("cold"), folder.path().join("other"));
        fs::create_dir_all(&data).unwrap();
        fs::create_dir_all(&other).unwrap();
        identify(&data, &cold).unwrap();
        identify(&data, &cold).unwrap();
        fs::rename(&cold, folder.path().join("unmounted")).unwrap();
        fs::create_dir_all(&cold).unwrap();
        let away = |found: Result<(), StoreError>| found.unwrap_err().kind() == StoreErrorKind::Unavailable;
        assert!(away(identify(&data, &cold)));
        write_id(&other, "of another archive").unwrap();
        assert!(away(identify(&data, &other)));
        fs::remove_dir(&cold).unwrap();
        fs::rename(folder.path().join("unmounted"), &cold).unwrap();
        identify(&data, &cold).unwrap();
    }
}
