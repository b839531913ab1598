//! The service: what doors and operators call.

use crate::{
    append::{Appender, Context},
    compare::Comparer,
    config::{IngestConfig, ProfileConfig},
    crash::{Step, crash_point},
    in_flight::InFlight,
    others,
    quarantine::Quarantine,
    receipts::{OpenReceipt, Receipts},
    versions::{Key, Recent, Version},
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    EventId, Hlc, Position,
    events::{Event, ReceiptEnd, VersionChosen},
    ids::ReceiptId,
};
use cairn_dicom::Uid;
use cairn_process::clock::Clock;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Index, Ingest, Reason, Replication,
    correction::{Correction, CorrectionRevocation},
    index::{Detail, Selection},
    ingest::{Body, InstanceOffer, QuarantineEntry, Sender, Stored},
    parked::Repair,
    patients::{PatientRevocation, PatientStatement},
    rejection::Revocation,
};
use cairn_store_api::{EventLog, ObjectStore};
use futures_util::TryStreamExt;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::task::JoinSet;

/// Receipts tried again whenever another is closed.
const RETRIED_RECEIPTS: usize = 8;

/// The ingest service. Cloning is cheap; all clones are one service.
#[derive(Clone)]
pub struct IngestService(Arc<Service>);

pub(crate) struct Service {
    pub(crate) appender: Arc<Appender>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) index: Option<Arc<dyn Index>>,
    pub(crate) config: IngestConfig,
    pub(crate) quarantine: Quarantine,
    pub(crate) recent: Recent,
    pub(crate) in_flight: InFlight<Key>,
    pub(crate) comparer: Comparer,
    /// Turns of instances with a large header.
    pub(crate) large_headers: Arc<crate::intake::Turns>,
    receipts: Receipts,
    /// Looks at what other processes append.
    observing: Mutex<JoinSet<()>>,
    /// Asked whether other sites hold what was stored.
    replication: OnceLock<Arc<dyn Replication>>,
    /// Those of the configuration, and of other sites.
    profiles: RwLock<Arc<BTreeMap<String, ProfileConfig>>>,
    /// By an operator's wish nothing is taken from senders.
    read_only: AtomicBool,
}

impl IngestService {
    /// Opens the service: reads the end of the log, so that its clock goes on from there, and begins to compare versions
    /// that were left uncompared. `index` is asked for hints alone; without it, or while it is away, stores go on. Must be
    /// called within a Tokio runtime.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`: the log can't be read.
    pub async fn open(
        log: Arc<dyn EventLog>,
        objects: Arc<dyn ObjectStore>,
        index: Option<Arc<dyn Index>>,
        quarantine: Quarantine,
        clock: Arc<dyn Clock>,
        config: IngestConfig,
    ) -> Result<Self, Error> {
        let appender = Arc::new(Appender::open(log, clock, config.clone()).await?);
        let (comparer, pairs) = Comparer::new(&config.compare);
        let service = Arc::new(Service {
            appender,
            objects,
            index,
            quarantine,
            receipts: Receipts::new(config.receipts.clone()),
            recent: Recent::new(config.hint.recent_instances_max),
            in_flight: InFlight::default(),
            comparer,
            large_headers: Arc::new(crate::intake::Turns::new(config.large_headers_max)),
            profiles: RwLock::new(Arc::new(config.profiles.clone())),
            config,
            observing: Mutex::default(),
            replication: OnceLock::new(),
            read_only: AtomicBool::new(false),
        });
        service.comparer.start(pairs, Arc::downgrade(&service));
        Ok(Self(service))
    }

    /// Takes note of an event made elsewhere, so that events made here come after it.
    pub fn observe(&self, reading: Hlc) {
        self.0.appender.observe(reading);
    }

    /// Whom to ask whether other sites hold what was stored. Without it nothing can be confirmed.
    pub fn set_replication(&self, replication: Arc<dyn Replication>) {
        // Set once, by the one who opens.
        let _already = self.0.replication.set(replication);
    }

    /// Other profiles by calling AE title, for receipts that are opened from now on.
    pub fn set_profiles(&self, profiles: BTreeMap<String, ProfileConfig>) {
        *self.0.profiles.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(profiles);
    }

    /// Whether instances are refused from now on. What is under way is not.
    pub fn set_read_only(&self, read_only: bool) {
        self.0.read_only.store(read_only, Ordering::Relaxed);
    }

    /// Takes note of what other processes append to the same log from now on, until it is closed.
    pub fn observe_others(&self) {
        let observing = others::observe(&self.0.appender, self.0.config.clock.observe_interval);
        *self.0.observing.lock().unwrap_or_else(PoisonError::into_inner) = observing;
    }

    /// Closes every open receipt and stops comparing. To be called when the doors have stopped; log and object store
    /// stay open.
    pub async fn close(&self) -> Result<(), Error> {
        self.0.comparer.stop().await;
        self.0.observing.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        let mut outcome = Ok(());
        for receipt in self.0.receipts.drain() {
            let end = receipt.ended().unwrap_or(ReceiptEnd::EndedByArchive);
            outcome = outcome.and(self.0.append_sums(&receipt, end).await);
        }
        outcome
    }
}

impl Service {
    fn check_writable(&self) -> Result<(), Error> {
        match self.read_only.load(Ordering::Relaxed) {
            true => Err(Error::because(ErrorKind::Unavailable, Reason::ReadOnly, "this site is read-only")),
            false => Ok(()),
        }
    }

    /// Waits until as many other sites as its sender wants hold an instance. A repeat is confirmed with its first copy: its
    /// event comes later in the same partition.
    async fn confirm(&self, receipt: &OpenReceipt, position: &Position) -> Result<u32, Error> {
        let wanted = receipt.sender.confirmed_sites.max(receipt.profile.confirmed_sites);
        if wanted == 0 {
            return Ok(0);
        }
        let nobody = || {
            let message = "other sites are to confirm it, and none are configured; it is stored here";
            Error::because(ErrorKind::Unavailable, Reason::NotConfirmed, message)
        };
        let replication = self.replication.get().ok_or_else(nobody)?;
        replication.confirm(position, wanted, self.config.confirm_timeout).await.map_err(|error| Error {
            // Whatever kept it from being confirmed, it is stored.
            kind: ErrorKind::Unavailable,
            reason: Reason::NotConfirmed,
            ..error
        })
    }
}

#[async_trait]
impl Ingest for IngestService {
    async fn open_receipt(&self, sender: Sender) -> Result<ReceiptId, Error> {
        let (service, clock) = (&self.0, self.0.appender.clock());
        let id = ReceiptId(service.appender.mint());
        let profiles = service.profiles.read().unwrap_or_else(PoisonError::into_inner).clone();
        let profile =
            service.config.profile(&profiles, &sender.calling_ae_title, sender.issuer_of_patient_id.as_deref());
        let idle = service.receipts.open(id, sender, profile, clock.unix_ms(), clock.elapsed())?;
        for receipt in idle {
            let end = receipt.ended().unwrap_or(ReceiptEnd::EndedByArchive);
            if let Err(error) = service.append_sums(&receipt, end).await {
                tracing::warn!(receipt = %receipt.id, %error, "the counts of a receipt that made room were lost");
            }
        }
        Ok(id)
    }

    #[tracing::instrument(name = "ingest.store", skip_all, fields(receipt = %receipt))]
    async fn store(&self, receipt: ReceiptId, offer: InstanceOffer, body: Body<'_>) -> Result<Stored, Error> {
        let service = &self.0;
        service.check_writable()?;
        let begun = service.appender.clock().elapsed();
        let receipt = service.receipts.use_one(receipt, begun)?;
        let outcome = service.store_instance(&receipt.0, &offer, body).await;
        let mut outcome = service.conclude(&receipt, outcome, begun).await;
        if let Ok(stored) = &mut outcome {
            stored.confirmed_sites = service.confirm(&receipt.0, &stored.position).await?;
            for rejection in &stored.rejections {
                let confirmed = service.confirm(&receipt.0, rejection).await?;
                stored.confirmed_sites = stored.confirmed_sites.min(confirmed);
            }
        }
        crash_point(Step::BeforeAnswer);
        outcome
    }

    async fn close_receipt(&self, receipt: ReceiptId, end: ReceiptEnd) -> Result<(), Error> {
        let receipt = self.0.receipts.close(receipt)?;
        self.0.append_sums(&receipt, end).await.inspect_err(|_| self.0.receipts.put_back(receipt, end))?;
        // The log takes events: those that it did not take before go too.
        for _ in 0..RETRIED_RECEIPTS {
            let Some((earlier, end)) = self.0.receipts.take_ended() else { break };
            if self.0.append_sums(&earlier, end).await.is_err() {
                self.0.receipts.put_back(earlier, end);
                break;
            }
        }
        Ok(())
    }

    async fn choose_version(
        &self,
        tenant: &str,
        identity: (Uid, Uid, Uid),
        store_event: EventId,
        chosen_by: &str,
        reason: &str,
    ) -> Result<Position, Error> {
        self.0.appender.check_clock()?;
        let event = Event::VersionChosen(VersionChosen {
            tenant: tenant.to_owned(),
            study_instance_uid: identity.0.to_string(),
            series_instance_uid: identity.1.to_string(),
            sop_instance_uid: identity.2.to_string(),
            store_event_id: Bytes::copy_from_slice(store_event.as_bytes()),
            chosen_by: chosen_by.to_owned(),
            reason: Bytes::copy_from_slice(reason.as_bytes()),
            key_id: String::new(),
        });
        let version = self.0.version_of(tenant, &identity, store_event).await?;
        let objects = version.iter().map(|version| version.object.key).collect();
        let context = Context { causation: Some(store_event), objects, ..Context::default() };
        Ok(self.0.appender.append(&event, context).await?.position)
    }

    async fn repair(&self, repair: Repair) -> Result<Position, Error> {
        crate::repair::repair(&self.0.appender, repair).await
    }

    async fn revoke_rejection(&self, revocation: Revocation) -> Result<Position, Error> {
        crate::rejection::revoke(&self.0.appender, revocation).await
    }

    async fn correct(&self, correction: Correction) -> Result<Position, Error> {
        self.0.correct(correction).await
    }

    async fn revoke_correction(&self, revocation: CorrectionRevocation) -> Result<Position, Error> {
        crate::correction::revoke(&self.0.appender, revocation).await
    }

    async fn say_of_patients(&self, statement: PatientStatement) -> Result<Position, Error> {
        self.0.say_of_patients(statement).await
    }

    async fn revoke_patient_fact(&self, revocation: PatientRevocation) -> Result<Position, Error> {
        crate::patients::revoke(&self.0.appender, revocation).await
    }

    async fn quarantine(&self) -> Result<AnswerStream<QuarantineEntry>, Error> {
        let entries = self.0.quarantine.list(self.0.appender.clock().unix_ms()).await?;
        Ok(Box::pin(futures_util::stream::iter(entries.into_iter().map(Ok))))
    }

    async fn quarantined_bytes(&self, id: EventId) -> Result<AnswerStream<Bytes>, Error> {
        self.0.quarantine.read(id).await
    }

    async fn ready(&self) -> Result<(), Error> {
        self.0.appender.check_clock()?;
        self.0.check_room().await?;
        self.0.appender.check_log().await
    }
}

impl Service {
    async fn check_room(&self) -> Result<(), Error> {
        let space = self.objects.space().await?;
        if space.available.is_some_and(|available| available < self.config.reserved_room) {
            let message = "object store has less room than is reserved";
            return Err(Error::because(ErrorKind::Exhausted, Reason::OutOfRoom, message));
        }
        Ok(())
    }

    /// The version that an operator means; `None` if there is no index to ask.
    async fn version_of(
        &self,
        tenant: &str,
        (study, series, instance): &(Uid, Uid, Uid),
        store_event: EventId,
    ) -> Result<Option<Version>, Error> {
        let Some(index) = &self.index else { return Ok(None) };
        let selection = Selection {
            tenant: tenant.to_owned(),
            studies: vec![study.clone()],
            series: vec![series.clone()],
            instances: vec![instance.clone()],
            all_versions: true,
            ..Selection::default()
        };
        let records: Vec<_> = index.instances(selection, Detail::Location).await?.try_collect().await?;
        let found = records.into_iter().find(|record| record.store_event == store_event).map(Version::from);
        let missing = || Error::new(ErrorKind::NotFound, format!("the instance has no version of event {store_event}"));
        found.ok_or_else(missing).map(Some)
    }

    /// Sums up a receipt: one event per study, each a fact at most once however often this is called.
    async fn append_sums(&self, receipt: &OpenReceipt, end: ReceiptEnd) -> Result<(), Error> {
        let sums = receipt.sums(end);
        if sums.is_empty() {
            return Ok(());
        }
        crash_point(Step::BeforeReceiptAppend);
        let (studies, events): (Vec<_>, Vec<_>) = sums.into_iter().unzip();
        let context = receipt.context();
        let events = events.into_iter().map(|event| (event, context.clone())).collect();
        let mut outcome = Ok(());
        for (study, appended) in studies.iter().zip(self.appender.append_all(events).await) {
            match appended {
                Ok(_) => receipt.forget(study),
                Err(not_appended) => outcome = Err(not_appended.into()),
            }
        }
        crash_point(Step::AfterReceiptAppend);
        outcome
    }
}
