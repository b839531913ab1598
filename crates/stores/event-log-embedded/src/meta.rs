//! What a log is, in a small text file, written once.

use crate::{config::EventLogConfig, files};
use cairn_archive::{Incarnation, SiteId};
use cairn_process::disk::Disk;
use cairn_store_api::{StoreError, StoreErrorKind};
use std::path::Path;

/// Name of the file.
pub(crate) const META: &str = "meta";
const TITLE: &str = "cairn event log";
/// Layout of all files of the log.
const VERSION: u32 = 1;
/// Longer files are damaged.
const LENGTH_MAX: u64 = 4096;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) site: SiteId,
    pub(crate) incarnation: Incarnation,
    pub(crate) partitions: u16,
    /// Where checksums begin from.
    pub(crate) seed: u32,
}

impl Meta {
    /// For a log created at this time.
    pub(crate) fn new(config: &EventLogConfig, unix_ms: u64) -> Self {
        let what = format!("{}/{}/{unix_ms}", config.site, config.incarnation.0);
        Self {
            site: config.site.clone(),
            incarnation: config.incarnation,
            partitions: config.partitions,
            seed: crc32c::crc32c(what.as_bytes()),
        }
    }

    fn to_text(&self) -> String {
        let Self { site, incarnation, partitions, seed } = self;
        let text = format!(
            "{TITLE}\nversion = {VERSION}\nsite = {site}\nincarnation = {}\npartitions = {partitions}\nseed = {seed}\n",
            incarnation.0
        );
        format!("{text}crc32c = {}\n", crc32c::crc32c(text.as_bytes()))
    }

    fn parse(text: &str) -> Option<Self> {
        let (head, crc) = text.split_once("crc32c = ")?;
        if crc.strip_suffix('\n')?.parse() != Ok(crc32c::crc32c(head.as_bytes())) {
            return None;
        }
        let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        if head.lines().next() != Some(TITLE) || value("version")?.parse() != Ok(VERSION) {
            return None;
        }
        Some(Self {
            site: value("site")?.parse().ok()?,
            incarnation: Incarnation(value("incarnation")?.parse().ok()?),
            partitions: value("partitions")?.parse().ok()?,
            seed: value("seed")?.parse().ok()?,
        })
    }

    /// Reads the file.
    pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<Self, StoreError> {
        let failed = |error| StoreError::io("read event log meta", &error);
        let file = disk.open(&dir.join(META)).map_err(failed)?;
        let mut bytes = vec![0; file.len().map_err(failed)?.min(LENGTH_MAX) as usize];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        let meta = std::str::from_utf8(&bytes).ok().and_then(Self::parse);
        meta.ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt, "event log meta is damaged or of another version"))
    }

    /// Writes the file, durable on return.
    pub(crate) fn store(&self, disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
        files::write_new(disk, dir, META, self.to_text().as_bytes())
            .map_err(|error| StoreError::io("write event log meta", error.io()))
    }

    /// Whether this is the log that the configuration means.
    pub(crate) fn check(&self, config: &EventLogConfig) -> Result<(), StoreError> {
        let invalid = |what: String| Err(StoreError::new(StoreErrorKind::Invalid, what));
        if self.site != config.site {
            return invalid(format!("event log belongs to site {}, not {}", self.site, config.site));
        }
        if self.partitions != config.partitions {
            return invalid(format!("event log has {} partitions, not {}", self.partitions, config.partitions));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_and_any_changed_byte_is_seen() {
        let meta = Meta::new(&EventLogConfig::new("main".parse().expect("valid")), 1_767_225_600_123);
        let text = meta.to_text();
        assert_eq!(Meta::parse(&text), Some(meta));
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            assert_eq!(std::str::from_utf8(&changed).ok().and_then(Meta::parse), None, "byte {at}");
        }
    }
}
