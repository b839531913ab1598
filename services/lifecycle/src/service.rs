//! The lifecycle service: what it works on, and what it answers.

use crate::{
    append::Appender,
    commitment::{Committing, With},
    config::LifecycleConfig,
    copies::Copying,
    fixity::{Copies, Damages, Rounds},
    metrics,
    notary::{NotaryService, Signer},
    notes::Notes,
    orphans::{self, Orphans},
    policies::{self, PolicyService},
    retention::{self, RetentionService},
    sealing::Sealing,
    tiering::{self, TieringService},
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{ObjectKey, events::DamageFoundBy};
use cairn_process::{clock::Clock, disk::Disk};
use cairn_service_api::{
    AnswerStream, Commitments, Error, Index, Lifecycle, Replication,
    commitment::{Commitment, Outcome, Reported, Reporter, Request, Selection, Transaction},
    lifecycle::{DamagedObject, FixityStatus, NamedObject},
    orphans::{Orphan, OrphansStatus},
};
use cairn_store_api::{EventLog, IndexStore, KeyRing, ObjectStore, Tiers};
use futures_util::{StreamExt, stream};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::task::JoinSet;

/// How often gauges are set.
const MEASURED_EVERY: Duration = Duration::from_secs(5);

/// What the service has behind it.
pub struct Behind {
    /// The site's log as it is stored: what is sealed stays so.
    pub log: Arc<dyn EventLog>,
    /// The same, opened by the keys that it is sealed under.
    pub opened_log: Arc<dyn EventLog>,
    /// What it is sealed under; `None`: there is no key store here.
    pub keys: Option<Arc<KeyRing>>,
    /// The site's objects.
    pub objects: Arc<dyn ObjectStore>,
    /// The same as the two stores that it is made of; `None`: it is one.
    pub tiers: Option<Arc<dyn Tiers>>,
    /// Where second copies are kept; `None`: there are none.
    pub copies: Option<Arc<dyn ObjectStore>>,
    /// Its own notes.
    pub notes: Arc<dyn IndexStore>,
    /// Where instances are; `None`: other copies of this site are not known.
    pub index: Option<Arc<dyn Index>>,
    /// Other sites; `None`: there are none.
    pub replication: Option<Arc<dyn Replication>>,
    /// Tells those who asked for storage commitment; `None`: they are told on their own association, or ask.
    pub reporter: Option<Arc<dyn Reporter>>,
    /// The site's clock.
    pub clock: Arc<dyn Clock>,
    /// The disk that checkpoints are exported to.
    pub disk: Arc<dyn Disk>,
    /// Who signs checkpoints; `None`: nobody.
    pub signer: Option<Arc<dyn Signer>>,
}

/// The lifecycle service of a site. One process has it.
pub struct LifecycleService {
    appender: Arc<Appender>,
    notes: Arc<Notes>,
    damages: Arc<Damages>,
    rounds: Arc<Rounds>,
    copying: Option<Arc<Copying>>,
    notary: Arc<NotaryService>,
    committing: Committing,
    retention: Arc<RetentionService>,
    policies: Arc<PolicyService>,
    tiering: Arc<TieringService>,
    orphans: Arc<Orphans>,
    config: LifecycleConfig,
    tasks: Mutex<JoinSet<()>>,
}

impl LifecycleService {
    /// Reads its notes and goes to work.
    ///
    /// # Errors
    /// That of the notes.
    pub async fn open(behind: Behind, config: LifecycleConfig) -> Result<Arc<Self>, Error> {
        let Behind { log, opened_log, keys, objects, tiers, copies, notes, .. } = behind;
        let Behind { index, replication, reporter, clock, disk, signer, .. } = behind;
        let store = notes.clone();
        let notes = Arc::new(Notes::new(notes));
        let appender = Arc::new(Appender::new(opened_log.clone(), clock.clone()));
        let of_sealing = (log.clone(), objects.clone(), notes.clone(), appender.clone());
        let sealing = Sealing::new(of_sealing.0, of_sealing.1, of_sealing.2, of_sealing.3, config.sealing.clone());
        let of_notary = (log.clone(), appender.clone(), Arc::new(sealing), config.notary.clone());
        let notary =
            NotaryService::open(of_notary.0, store, disk, of_notary.1, of_notary.2, signer, of_notary.3).await?;
        let copying = copies.map(|second| {
            let (both, config) = ((objects.clone(), second), config.copies.clone());
            Arc::new(Copying::new(log.clone(), both, notes.clone(), config))
        });
        let copies = Copies { index: index.clone(), second: copying.clone(), replication: replication.clone() };
        let damages = Damages::open(objects.clone(), notes.clone(), appender.clone(), copies).await?;
        let damages = Arc::new(damages);
        let retaining = retention::With {
            log: opened_log,
            keys,
            objects: objects.clone(),
            notes: notes.clone(),
            appender: appender.clone(),
            damages: damages.clone(),
            index: index.clone(),
            replication: replication.clone(),
            clock: clock.clone(),
        };
        let retention = Arc::new(RetentionService::new(retaining, config.erasure.clone()));
        let moving = tiering::With {
            tiers,
            index: index.clone(),
            notes: notes.clone(),
            appender: appender.clone(),
            damages: damages.clone(),
            clock: clock.clone(),
        };
        let tiering = Arc::new(TieringService::open(moving, config.tiering.clone()).await?);
        let deciding = policies::With {
            retention: retention.clone(),
            index: index.clone(),
            tiering: tiering.clone(),
            notes: notes.clone(),
            clock,
        };
        let policies = Arc::new(PolicyService::new(deciding, config.policies.clone()));
        let with = orphans::With {
            log: log.clone(),
            objects: objects.clone(),
            notes: notes.clone(),
            appender: appender.clone(),
            damages: damages.clone(),
            sealing: notary.sealing().clone(),
            retention: retention.clone(),
        };
        let orphans = Arc::new(Orphans::new(with, config.orphans.clone()));
        let with = With {
            log: log.clone(),
            objects: objects.clone(),
            notes: notes.clone(),
            appender: appender.clone(),
            damages: damages.clone(),
            index,
            replication,
            reporter,
        };
        let committing = Committing::open(with, config.commitment.clone()).await?;
        let (of_damages, fixity) = (damages.clone(), config.fixity.clone());
        let rounds = Rounds::open(log, objects, notes.clone(), appender.clone(), of_damages, fixity).await?;
        let (rounds, notary, tasks) = (Arc::new(rounds), Arc::new(notary), Mutex::default());
        let this = Arc::new(Self {
            appender,
            notes,
            damages,
            rounds,
            copying,
            notary,
            committing,
            retention,
            policies,
            tiering,
            orphans,
            config,
            tasks,
        });
        this.go_to_work();
        Ok(this)
    }

    /// The notary of the site.
    pub fn notary(&self) -> &Arc<NotaryService> {
        &self.notary
    }

    /// Holds and erasures of the site.
    pub fn retention(&self) -> &Arc<RetentionService> {
        &self.retention
    }

    /// Policies of the site.
    pub fn policies(&self) -> &Arc<PolicyService> {
        &self.policies
    }

    /// Tiering of the site.
    pub fn tiering(&self) -> &Arc<TieringService> {
        &self.tiering
    }

    fn go_to_work(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        self.committing.go_to_work(&mut tasks);
        let rounds = self.rounds.clone();
        tasks.spawn(async move { rounds.run().await });
        if let Some(copying) = self.copying.clone() {
            tasks.spawn(async move { copying.run().await });
        }
        let retention = self.retention.clone();
        tasks.spawn(async move { retention.run().await });
        let policies = self.policies.clone();
        tasks.spawn(async move { policies.run().await });
        let tiering = self.tiering.clone();
        tasks.spawn(async move { tiering.run().await });
        let (tiering, every) = (self.tiering.clone(), self.config.tiering.look_interval);
        tasks.spawn(async move {
            loop {
                if let Err(error) = tiering.measure().await {
                    tracing::warn!(%error, "tiers could not be looked at");
                }
                tokio::time::sleep(every).await;
            }
        });
        let (damages, every) = (self.damages.clone(), self.config.fixity.repair_interval);
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                if let Err(error) = damages.try_all().await {
                    tracing::warn!(%error, "damaged objects could not be looked at again");
                }
            }
        });
        let notary = self.notary.clone();
        tasks.spawn(async move { notary.run().await });
        let sealing = self.notary.sealing().clone();
        tasks.spawn(async move { sealing.run().await });
        let orphans = self.orphans.clone();
        tasks.spawn(async move { orphans.run().await });
        let status = Status::of(self);
        tasks.spawn(async move {
            loop {
                metrics::measured(&status.now());
                tokio::time::sleep(MEASURED_EVERY).await;
            }
        });
    }

    /// Stops working, and closes its notes.
    ///
    /// # Errors
    /// That of the notes.
    pub async fn close(&self) -> Result<(), Error> {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        self.notes.close().await
    }
}

/// What a status is made of.
struct Status {
    appender: Arc<Appender>,
    damages: Arc<Damages>,
    rounds: Arc<Rounds>,
    copying: Option<Arc<Copying>>,
    period: Duration,
}

impl Status {
    fn of(service: &LifecycleService) -> Self {
        let LifecycleService { appender, damages, rounds, copying, config, .. } = service;
        let (appender, damages, rounds) = (appender.clone(), damages.clone(), rounds.clone());
        Self { appender, damages, rounds, copying: copying.clone(), period: config.fixity.period }
    }

    fn now(&self) -> FixityStatus {
        let known = self.rounds.known();
        FixityStatus {
            site: self.appender.site().clone(),
            at_ms: self.appender.now_ms(),
            round: known.round,
            last_whole: known.last_whole,
            period: self.period,
            bytes_per_second: known.bytes_per_second,
            period_is_kept: known.period_is_kept,
            damaged: self.damages.count(),
            copies: self.copying.as_ref().map(|copying| copying.known()),
        }
    }
}

#[async_trait]
impl Lifecycle for LifecycleService {
    async fn fixity(&self) -> Result<FixityStatus, Error> {
        Ok(Status::of(self).now())
    }

    async fn damaged(&self) -> Result<AnswerStream<DamagedObject>, Error> {
        let damages = self.damages.clone();
        let pages = stream::try_unfold((damages, None), |(damages, after)| async move {
            let page = damages.page(after).await?;
            let Some(last) = page.last().map(|damaged| damaged.named.object.key) else { return Ok::<_, Error>(None) };
            Ok(Some((stream::iter(page.into_iter().map(Ok)), (damages, Some(last)))))
        });
        Ok(Box::pin(futures_util::TryStreamExt::try_flatten(pages).fuse()))
    }

    async fn scrub(&self) -> Result<(), Error> {
        self.rounds.ask();
        Ok(())
    }

    async fn suspect(&self, named: NamedObject, found_by: DamageFoundBy) -> Result<bool, Error> {
        match self.damages.inspect(&named.object, u64::MAX).await? {
            None => self.damages.is_whole(&named.object).await.map(|()| true),
            Some(damage) => self.damages.found(&named, damage, found_by).await,
        }
    }

    async fn orphans_status(&self) -> Result<OrphansStatus, Error> {
        self.orphans.status().await
    }

    async fn orphans(&self) -> Result<AnswerStream<Orphan>, Error> {
        Ok(self.orphans.list())
    }

    async fn look_for_orphans(&self) -> Result<(), Error> {
        self.orphans.ask();
        Ok(())
    }

    async fn release_orphans(&self, look: u64) -> Result<(), Error> {
        self.orphans.release(look).await
    }

    async fn read_orphan(&self, key: ObjectKey) -> Result<AnswerStream<Bytes>, Error> {
        self.orphans.read(key).await
    }
}

#[async_trait]
impl Commitments for LifecycleService {
    async fn request_commitment(&self, request: Request) -> Result<Commitment, Error> {
        self.committing.request_commitment(request).await
    }

    async fn commitment(&self, transaction: &Transaction, wait: Duration) -> Result<Commitment, Error> {
        self.committing.commitment(transaction, wait).await
    }

    async fn commitment_outcomes(&self, transaction: &Transaction) -> Result<AnswerStream<Outcome>, Error> {
        self.committing.commitment_outcomes(transaction).await
    }

    async fn commitments(&self, selection: Selection) -> Result<AnswerStream<Commitment>, Error> {
        self.committing.commitments(selection).await
    }

    async fn commitment_reported(&self, transaction: &Transaction, reported: Reported) -> Result<(), Error> {
        self.committing.commitment_reported(transaction, reported).await
    }
}
