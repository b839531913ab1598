//! What a log is, in a small text file: written when it is created, and whole again when a new life begins.

use crate::{config::EventLogConfig, files};
use cairn_archive::{Incarnation, Offset, SiteId};
use cairn_process::disk::Disk;
use cairn_store_api::{Life, Lives, StoreError, StoreErrorKind};
use std::path::Path;

/// Name of the file.
pub(crate) const META: &str = "meta";
const TITLE: &str = "cairn event log";
/// Layout of all files of the log.
const VERSION: u32 = 1;
/// The same, of a log of several lives: a build that does not know of them must not open it.
const VERSION_OF_LIVES: u32 = 2;
/// Longer files are damaged.
const LENGTH_MAX: u64 = 16 << 20;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) site: SiteId,
    pub(crate) lives: Lives,
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
            lives: Lives::new(config.incarnation),
            partitions: config.partitions,
            seed: crc32c::crc32c(what.as_bytes()),
        }
    }

    fn to_text(&self) -> String {
        let Self { site, lives, partitions, seed } = self;
        let version = if lives.later().is_empty() { VERSION } else { VERSION_OF_LIVES };
        let mut text = format!(
            "{TITLE}\nversion = {version}\nsite = {site}\nincarnation = {}\npartitions = {partitions}\nseed = {seed}\n",
            lives.first().0
        );
        for Life { incarnation, begins } in lives.later() {
            text += &format!("life = {}", incarnation.0);
            begins.iter().for_each(|begin| text += &format!(" {}", begin.0));
            text += "\n";
        }
        format!("{text}crc32c = {}\n", crc32c::crc32c(text.as_bytes()))
    }

    fn parse(text: &str) -> Option<Self> {
        let (head, crc) = text.split_once("crc32c = ")?;
        if crc.strip_suffix('\n')?.parse() != Ok(crc32c::crc32c(head.as_bytes())) {
            return None;
        }
        let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        let version = value("version")?.parse().ok()?;
        if head.lines().next() != Some(TITLE) || ![VERSION, VERSION_OF_LIVES].contains(&version) {
            return None;
        }
        let mut lives = Lives::new(Incarnation(value("incarnation")?.parse().ok()?));
        for line in head.lines().filter_map(|line| line.strip_prefix("life = ")) {
            let mut numbers = line.split(' ').map(str::parse::<u64>);
            let incarnation = Incarnation(numbers.next()?.ok()?.try_into().ok()?);
            let begins: Vec<_> = numbers.map(|begin| begin.map(Offset)).collect::<Result<_, _>>().ok()?;
            // Where they begin was checked against the ends when they did.
            let ends = vec![Offset(u64::MAX); begins.len()];
            lives = lives.renewed(incarnation, begins, &ends).ok()?;
        }
        Some(Self {
            site: value("site")?.parse().ok()?,
            lives,
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
        let created = Meta::new(&EventLogConfig::new("main".parse().expect("valid")), 1_767_225_600_123);
        let (begins, ends) = ([Offset(3), Offset(0)], [Offset(3), Offset(7)]);
        let lives = created.lives.renewed(Incarnation(2), begins.to_vec(), &ends).expect("valid");
        let renewed = Meta { lives, partitions: 2, ..created.clone() };
        for meta in [created, renewed] {
            is_read_back(meta);
        }
    }

    fn is_read_back(meta: Meta) {
        let text = meta.to_text();
        assert_eq!(Meta::parse(&text), Some(meta));
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            assert_eq!(std::str::from_utf8(&changed).ok().and_then(Meta::parse), None, "byte {at}");
        }
    }
}
