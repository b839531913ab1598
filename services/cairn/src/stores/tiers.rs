//! The object store as services have it: one, or a hot and a cold one; and the one for second copies.

use super::{cluster, objects};
use crate::{
    commands::Failure,
    config::{ColdKind, Config, S3Config},
};
use cairn_object_store_tiered::{AwayStore, Open, TieredStore};
use cairn_object_store_volumes::{VolumeConfig, VolumeStore};
use cairn_process::{clock::Clock, disk::Disk};
use cairn_store_api::{ObjectStore, StoreError, StoreErrorKind, Tiers};
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use uuid::Uuid;

/// The objects.
pub struct Opened {
    pub objects: Arc<dyn ObjectStore>,
    /// The same as two stores, where they are.
    pub tiers: Option<Arc<dyn Tiers>>,
}

/// Opens them. A cold store that is away is waited for only a little.
pub async fn open(config: &Config, disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>) -> Result<Opened, Failure> {
    let hot = objects(config, disk, clock).await?;
    let Some(open) = Further::cold(config).opener(disk, clock) else {
        return Ok(Opened { objects: hot, tiers: None });
    };
    let away = Arc::new(AwayStore::new("the cold object store", open, config.tiers.open_pause));
    match tokio::time::timeout(config.tiers.open_wait, away.opened()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the cold store is away: what is in it can't be had until it is back"),
        Err(_) => tracing::warn!("the cold store does not answer: what is in it can't be had until it does"),
    }
    let both = Arc::new(TieredStore::new(hot, away));
    Ok(Opened { objects: both.clone(), tiers: Some(both) })
}

/// The store for second copies, if there is one. It is opened when it is wanted.
pub fn copies(config: &Config, disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>) -> Option<Arc<dyn ObjectStore>> {
    let open = Further::copies(config).opener(disk, clock)?;
    Some(Arc::new(AwayStore::new("the object store for copies", open, config.copies.open_pause)))
}

/// A further object store of this archive.
struct Further {
    kind: ColdKind,
    /// Key of its table in the configuration.
    key: &'static str,
    /// File that says which store it is, in its directory; and in the data directory, which one this archive has.
    id_file: &'static str,
    data: PathBuf,
    directory: Option<PathBuf>,
    volume_bytes: u64,
    reserve_bytes: u64,
    s3: S3Config,
}

impl Further {
    fn cold(config: &Config) -> Self {
        let tiers = &config.tiers;
        Self {
            kind: tiers.cold,
            key: "tiers",
            id_file: "cold-store.id",
            data: config.data.directory.clone(),
            directory: tiers.directory.clone(),
            volume_bytes: config.data.volume_bytes,
            reserve_bytes: tiers.reserve_bytes,
            s3: tiers.s3.clone(),
        }
    }

    fn copies(config: &Config) -> Self {
        let copies = &config.copies;
        Self {
            kind: copies.to,
            key: "copies",
            id_file: "copies-store.id",
            directory: copies.directory.clone(),
            reserve_bytes: copies.reserve_bytes,
            s3: copies.s3.clone(),
            ..Self::cold(config)
        }
    }

    /// How it is opened, if there is one.
    fn opener(self, disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>) -> Option<Open> {
        let (this, disk, clock) = (Arc::new(self), disk.clone(), clock.clone());
        match this.kind {
            ColdKind::None => None,
            ColdKind::Directory => Some(Box::new(move || {
                let (this, disk, clock) = (this.clone(), disk.clone(), clock.clone());
                Box::pin(async move {
                    let opened = tokio::task::spawn_blocking(move || this.of_directory(disk, clock)).await;
                    opened.map_err(|error| StoreError::new(StoreErrorKind::Internal, error.to_string()))?
                })
            })),
            ColdKind::S3 => Some(Box::new(move || {
                let (this, clock) = (this.clone(), clock.clone());
                Box::pin(async move {
                    let opened = cluster::further_objects(this.key, &this.s3, &clock).await;
                    opened.map_err(|failure| StoreError::new(StoreErrorKind::Unavailable, failure.to_string()))
                })
            })),
        }
    }

    fn of_directory(&self, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Result<Arc<dyn ObjectStore>, StoreError> {
        let missing = || StoreError::new(StoreErrorKind::Invalid, format!("{}.directory is missing", self.key));
        let directory = self.directory.as_deref().ok_or_else(missing)?;
        identify(&self.data, directory, self.id_file)?;
        let volumes = VolumeConfig {
            volume_bytes_max: self.volume_bytes,
            // Nobody waits for what is brought there.
            prewrite_bytes_min: 16 << 20,
            prewrite_bytes_max: 64 << 20,
            reserve_bytes: self.reserve_bytes,
            ..VolumeConfig::new(directory.join("objects"))
        };
        Ok(Arc::new(VolumeStore::open(disk, volumes, clock)?))
    }
}

/// Whether the directory is the further store of this archive that a file names. An empty place under a mount point is not taken for it: everything
/// that is in it would seem to be gone.
fn identify(data: &Path, directory: &Path, id_file: &str) -> Result<(), StoreError> {
    let failed = |error: io::Error| StoreError::io(&format!("{}", directory.display()), &error);
    let known = read_id(&data.join(id_file)).map_err(failed)?;
    let there = read_id(&directory.join(id_file)).map_err(failed)?;
    let away =
        |what: &str| Err(StoreError::new(StoreErrorKind::Unavailable, format!("{} {what}", directory.display())));
    match (known, there) {
        (Some(known), Some(there)) if known == there => Ok(()),
        (Some(_), Some(_)) => away("is of another archive"),
        (Some(_), None) => away("is not what this archive had there: its disk may not be mounted"),
        (None, Some(there)) => write_id(data, id_file, &there).map_err(failed),
        (None, None) => {
            let id = Uuid::new_v4().to_string();
            fs::create_dir_all(directory).and_then(|()| write_id(directory, id_file, &id)).map_err(failed)?;
            write_id(data, id_file, &id).map_err(failed)
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
fn write_id(directory: &Path, file: &str, id: &str) -> io::Result<()> {
    let (path, begun) = (directory.join(file), directory.join(format!("{file}.new")));
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
        identify(&data, &cold, "id").unwrap();
        identify(&data, &cold, "id").unwrap();
        fs::rename(&cold, folder.path().join("unmounted")).unwrap();
        fs::create_dir_all(&cold).unwrap();
        let away = |found: Result<(), StoreError>| found.unwrap_err().kind() == StoreErrorKind::Unavailable;
        assert!(away(identify(&data, &cold, "id")));
        write_id(&other, "id", "of another archive").unwrap();
        assert!(away(identify(&data, &other, "id")));
        fs::remove_dir(&cold).unwrap();
        fs::rename(folder.path().join("unmounted"), &cold).unwrap();
        identify(&data, &cold, "id").unwrap();
    }
}
