//! The notary at work.

use super::{
    export::{Exports, There},
    prove::{Prover, malformed},
    sign::Signer,
    trees::{Kept, LatestNote, Trees},
};
use crate::{append::Appender, config::NotaryConfig, metrics, sealing::Sealing};
use async_trait::async_trait;
use cairn_archive::{
    Offset, Partition, Position, authority,
    events::{CheckpointSigned, Event},
    notary::{Break, Checkpoint, LifeBegun, Note, PublicKey, TreeHead, body_hash},
};
use cairn_process::disk::Disk;
use cairn_service_api::{
    Error, ErrorKind, Notary,
    notary::{LogSealing, NotaryStatus, SignedCheckpoint},
};
use cairn_store_api::{EventLog, IndexStore, LogRecord};
use std::sync::{Arc, Mutex, PoisonError};

/// A checkpoint and where its event stands.
#[derive(Clone)]
struct Signed {
    checkpoint: Checkpoint,
    note: Note,
    /// `None`: its event was not seen in this log.
    offset: Option<Offset>,
}

impl Signed {
    fn read(document: &str, offset: Option<Offset>) -> Option<Self> {
        let note = Note::parse(document).ok()?;
        Some(Self { checkpoint: Checkpoint::parse(&note.body).ok()?, note, offset })
    }

    /// What an event says, if it is of this kind.
    fn of(record: &LogRecord) -> Option<(Self, CheckpointSigned)> {
        let (envelope, payload) = (&record.record.envelope, record.record.payload.clone());
        if envelope.kind != "cairn.checkpoint.signed.v1" {
            return None;
        }
        let Ok(Event::CheckpointSigned(event)) = Event::decode(&envelope.kind, payload) else { return None };
        let signed = Self::read(std::str::from_utf8(&event.document).ok()?, Some(record.offset))?;
        let is_own = signed.checkpoint.site == envelope.site && signed.checkpoint.number == event.number;
        is_own.then_some((signed, event))
    }

    fn told(&self) -> SignedCheckpoint {
        let Checkpoint { number, at_ms, ref breaks, .. } = self.checkpoint;
        let (events, breaks) = (self.checkpoint.events(), breaks.len() as u64);
        SignedCheckpoint { number, at_ms, events, breaks, document: self.note.to_text() }
    }
}

/// What others may know while the notary works.
#[derive(Clone, Default)]
struct Known {
    latest: Option<Signed>,
    exported: Option<u64>,
    events: u64,
    trouble: Option<String>,
}

/// The notary of a site. One process has it.
pub struct NotaryService {
    log: Arc<dyn EventLog>,
    appender: Arc<Appender>,
    sealing: Arc<Sealing>,
    kept: Kept,
    signer: Option<Arc<dyn Signer>>,
    exports: Option<Exports>,
    config: NotaryConfig,
    /// Held while trees grow and something is signed.
    trees: tokio::sync::Mutex<Trees>,
    known: Mutex<Known>,
}

impl NotaryService {
    /// Goes on from what was kept in `store`.
    ///
    /// # Errors
    /// That of the store.
    pub(crate) async fn open(
        log: Arc<dyn EventLog>,
        store: Arc<dyn IndexStore>,
        disk: Arc<dyn Disk>,
        appender: Arc<Appender>,
        sealing: Arc<Sealing>,
        signer: Option<Arc<dyn Signer>>,
        config: NotaryConfig,
    ) -> Result<Self, Error> {
        let kept = Kept::new(store);
        let latest = kept.latest().await?;
        let latest = latest.and_then(|note| Signed::read(&note.document, note.offset.map(Offset)));
        let exports = config.export_directory.clone().map(|directory| Exports { disk, directory });
        let trees = tokio::sync::Mutex::new(Trees::new(log.clone(), kept.clone()));
        let known = Mutex::new(Known { latest, ..Known::default() });
        Ok(Self { log, appender, sealing, kept, signer, exports, config, trees, known })
    }

    /// Who seals the log.
    pub(crate) fn sealing(&self) -> &Arc<Sealing> {
        &self.sealing
    }

    /// Follows the log, and signs when it is time, for ever. Without a key there is nothing to do.
    pub(crate) async fn run(&self) {
        if self.signer.is_none() {
            return;
        }
        loop {
            let done = self.turn().await;
            if let Err(error) = &done {
                tracing::warn!(%error, "notary: no checkpoint is signed or exported");
            }
            self.know(|known| known.trouble = done.err().map(|error| error.message));
            metrics::notary(&self.status_now());
            tokio::time::sleep(self.config.follow_interval).await;
        }
    }

    pub(super) async fn turn(&self) -> Result<(), Error> {
        let mut trees = self.trees.lock().await;
        self.follow(&mut trees).await?;
        if self.is_due(&trees) {
            self.sign(&mut trees, false).await?;
        }
        self.export().await
    }

    /// The interval has passed since the latest one, whichever way the clock went, and something came since.
    fn is_due(&self, trees: &Trees) -> bool {
        let interval = u64::try_from(self.config.interval.as_millis()).unwrap_or(u64::MAX);
        match self.known().latest {
            None => trees.events() > 0,
            // One event more is its own.
            Some(latest) => {
                let since = self.appender.now_ms().abs_diff(latest.checkpoint.at_ms);
                since >= interval && trees.events() != latest.checkpoint.events() + 1
            }
        }
    }

    fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.log.partitions()).map(Partition)
    }

    /// Brings all trees up to the log, and learns of checkpoints in it.
    async fn follow(&self, trees: &mut Trees) -> Result<(), Error> {
        for partition in self.partitions() {
            self.follow_partition(trees, partition).await?;
        }
        Ok(())
    }

    async fn follow_partition(&self, trees: &mut Trees, partition: Partition) -> Result<(), Error> {
        let (site, mut found) = (self.log.site().clone(), None);
        let latest = self.known().latest.map_or(0, |latest| latest.checkpoint.number);
        let caught_up = trees.catch_up(partition, |record| {
            self.appender.observe(&record.record.envelope);
            let signed = Signed::of(record).map(|(signed, _)| signed);
            let newest = found.as_ref().map_or(latest, |found: &Signed| found.checkpoint.number);
            // The same one again: where its event stands may not have been known.
            found = signed
                .filter(|signed| signed.checkpoint.site == site && signed.checkpoint.number >= newest)
                .or(found.take());
        });
        caught_up.await?;
        if let Some(found) = found {
            self.learn(found).await?;
        }
        self.know(|known| known.events = trees.events());
        Ok(())
    }

    async fn learn(&self, signed: Signed) -> Result<(), Error> {
        let offset = signed.offset.map(|offset| offset.0);
        self.kept.keep_latest(&LatestNote { document: signed.note.to_text(), offset }).await?;
        self.know(|known| known.latest = Some(signed));
        Ok(())
    }

    /// Signs what the log is now; its event is in the log on return.
    async fn sign(&self, trees: &mut Trees, accept_breaks: bool) -> Result<Signed, Error> {
        let signer = self.signer()?;
        let latest = self.known().latest;
        let heads = self.heads(trees)?;
        let breaks = self.breaks(latest.as_ref(), &heads, accept_breaks).await?;
        let lives = self.log.lives();
        let later_lives = lives.later().iter();
        let mut checkpoint = Checkpoint {
            site: self.log.site().clone(),
            number: latest.as_ref().map_or(0, |latest| latest.checkpoint.number) + 1,
            at_ms: self.appender.now_ms(),
            previous: latest.as_ref().map(|latest| body_hash(&latest.note.body)),
            first_life: lives.first(),
            later_lives: later_lives
                .map(|life| LifeBegun { incarnation: life.incarnation, begins: life.begins.clone() })
                .collect(),
            breaks,
            trees: heads,
        };
        self.number(&mut checkpoint, accept_breaks).await?;
        let key = PublicKey { name: checkpoint.site.to_string(), bytes: signer.public() };
        let note = Note::signed(checkpoint.body(), &key, |bytes| signer.sign(bytes));
        let event = CheckpointSigned {
            site: checkpoint.site.to_string(),
            number: checkpoint.number,
            document: note.to_text().into(),
            previous_offset: latest.and_then(|latest| latest.offset).map(|offset| offset.0),
        };
        let (_, offset) = self.appender.append_after(&Event::CheckpointSigned(event), None).await?;
        tracing::info!(number = checkpoint.number, events = checkpoint.events(), "notary: a checkpoint is signed");
        let signed = Signed { checkpoint, note, offset: Some(offset) };
        self.learn(signed.clone()).await?;
        self.follow_partition(trees, authority::partition(self.log.partitions())).await?;
        Ok(signed)
    }

    fn signer(&self) -> Result<&Arc<dyn Signer>, Error> {
        let none = || Error::new(ErrorKind::Invalid, "there is no key to sign with: lifecycle.notary.key is not set");
        self.signer.as_ref().ok_or_else(none)
    }

    fn heads(&self, trees: &Trees) -> Result<Vec<TreeHead>, Error> {
        let head = |partition| trees.head(partition).map(|(size, root)| TreeHead { size, root });
        let heads: Option<Vec<_>> = self.partitions().map(head).collect();
        heads.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the trees of the log are being made anew"))
    }

    /// Partitions that do not go on from the latest checkpoint. A new life of the log that began before its end says why;
    /// anything else somebody must look at first.
    async fn breaks(&self, latest: Option<&Signed>, heads: &[TreeHead], accepted: bool) -> Result<Vec<Break>, Error> {
        let Some(Signed { checkpoint: latest, .. }) = latest else { return Ok(Vec::new()) };
        let prover = Prover { log: &*self.log, kept: &self.kept };
        let (mut breaks, lives) = (Vec::new(), self.log.lives());
        for ((partition, before), now) in self.partitions().zip(&latest.trees).zip(heads) {
            if prover.begins_with(partition, *before, *now).await? {
                continue;
            }
            let begun = lives.later().iter().filter(|life| life.incarnation > latest.newest_life());
            let mut begins = begun.filter_map(|life| life.begins.get(usize::from(partition.0)));
            if !accepted && !begins.any(|begin| begin.0 < before.size) {
                let message = format!(
                    "partition {} of the log does not go on from checkpoint {}, which had {} events of it: the log was altered, or restored from a backup",
                    partition.0, latest.number, before.size
                );
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            breaks.push(Break { partition, before: *before });
        }
        Ok(breaks)
    }

    /// A number that no exported checkpoint has. One that has shows that the log was restored from a backup, and went on.
    async fn number(&self, checkpoint: &mut Checkpoint, accepted: bool) -> Result<(), Error> {
        let Some(exports) = &self.exports else { return Ok(()) };
        loop {
            let (exports, name) = (exports.clone(), checkpoint.file_name());
            match blocking(move || exports.look(&name, &[])).await? {
                There::Nothing => return Ok(()),
                _ if accepted => checkpoint.number += 1,
                _ => {
                    let message = format!(
                        "checkpoint {} was exported, and is not in the log: it was restored from a backup",
                        checkpoint.number
                    );
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
            }
        }
    }

    /// Writes what the directory lacks, from the oldest on.
    async fn export(&self) -> Result<(), Error> {
        let (Some(exports), Known { latest: Some(latest), exported, .. }) = (&self.exports, self.known()) else {
            return Ok(());
        };
        if exported == Some(latest.checkpoint.number) {
            return Ok(());
        }
        let mut lacking = vec![];
        let mut next = Some(latest.clone());
        while let Some(signed) = next {
            if self.is_exported(exports, &signed).await? {
                break;
            }
            next = self.before(&signed).await?;
            // Those of years are many: they are read again when it is their turn.
            lacking.push(signed.offset);
        }
        for offset in lacking.into_iter().rev() {
            let signed = match offset {
                Some(offset) => self.at(offset).await?.map(|(signed, _)| signed),
                None => Some(latest.clone()),
            };
            let Some(signed) = signed else { continue };
            let (exports, name, document) = (exports.clone(), signed.checkpoint.file_name(), signed.note.to_text());
            blocking(move || exports.write(&name, document.as_bytes())).await?;
            self.know(|known| known.exported = Some(signed.checkpoint.number));
        }
        self.know(|known| known.exported = Some(latest.checkpoint.number));
        Ok(())
    }

    async fn is_exported(&self, exports: &Exports, signed: &Signed) -> Result<bool, Error> {
        let (exports, name, document) = (exports.clone(), signed.checkpoint.file_name(), signed.note.to_text());
        let number = signed.checkpoint.number;
        match blocking(move || exports.look(&name, document.as_bytes())).await? {
            There::Nothing => Ok(false),
            There::Same => Ok(true),
            There::Other => {
                let message = format!("another checkpoint {number} was exported than the log has");
                Err(Error::new(ErrorKind::Conflict, message))
            }
        }
    }

    /// The checkpoint that one goes on from, if the log has it where it is said to be.
    async fn before(&self, signed: &Signed) -> Result<Option<Signed>, Error> {
        let Some((_, event)) = (match signed.offset {
            Some(offset) => self.at(offset).await?,
            None => None,
        }) else {
            return Ok(None);
        };
        let Some(offset) = event.previous_offset else { return Ok(None) };
        let before = self.at(Offset(offset)).await?.map(|(before, _)| before);
        Ok(before.filter(|before| signed.checkpoint.previous == Some(body_hash(&before.note.body))))
    }

    async fn at(&self, offset: Offset) -> Result<Option<(Signed, CheckpointSigned)>, Error> {
        let partition = authority::partition(self.log.partitions());
        let batch = self.log.read(partition, offset, 1, 1).await?;
        Ok(batch.records.first().and_then(Signed::of))
    }

    fn known(&self) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn know(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn status_now(&self) -> NotaryStatus {
        let Known { latest, exported, events, trouble } = self.known();
        NotaryStatus {
            site: self.log.site().clone(),
            at_ms: self.appender.now_ms(),
            has_key: self.signer.is_some(),
            events: (events, events),
            latest: latest.as_ref().map(Signed::told),
            exported,
            trouble,
        }
    }

    fn latest(&self) -> Result<Signed, Error> {
        let none = || Error::new(ErrorKind::NotFound, "there is no checkpoint yet: `cairn audit checkpoint` makes one");
        self.known().latest.ok_or_else(none)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    done.map_err(|error| Error::new(ErrorKind::Unavailable, format!("the directory of exported checkpoints: {error}")))
}

#[async_trait]
impl Notary for NotaryService {
    async fn notary(&self) -> Result<NotaryStatus, Error> {
        let mut in_log = 0;
        for partition in self.partitions() {
            in_log += self.log.end(partition).await?.0;
        }
        let status = self.status_now();
        Ok(NotaryStatus { events: (status.events.0, in_log), ..status })
    }

    async fn checkpoint(&self, accept_breaks: bool) -> Result<SignedCheckpoint, Error> {
        self.signer()?;
        let mut trees = self.trees.lock().await;
        self.follow(&mut trees).await?;
        let signed = self.sign(&mut trees, accept_breaks).await?;
        self.export().await?;
        Ok(signed.told())
    }

    async fn prove_event(&self, position: &Position, with_payload: bool) -> Result<String, Error> {
        let prover = Prover { log: &*self.log, kept: &self.kept };
        Ok(prover.event(position, self.latest()?.note, with_payload).await?.to_text())
    }

    async fn prove_consistency(&self, older: &str, newer: Option<&str>) -> Result<String, Error> {
        let older = Note::parse(older).map_err(malformed)?;
        let newer = newer.map_or_else(|| Ok(self.latest()?.note), |newer| Note::parse(newer).map_err(malformed))?;
        let prover = Prover { log: &*self.log, kept: &self.kept };
        Ok(prover.consistency(older, newer).await?.to_text())
    }

    async fn sealed(&self) -> Result<LogSealing, Error> {
        let partitions = self.sealing.sealed().await?;
        Ok(LogSealing { site: self.log.site().clone(), partitions, trouble: self.sealing.trouble() })
    }

    async fn seal(&self) -> Result<(), Error> {
        self.sealing.turn(true).await
    }
}
