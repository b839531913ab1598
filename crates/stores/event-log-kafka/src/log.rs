use crate::{
    append::Appender,
    client::{self, Context, failed},
    config::KafkaConfig,
    ends::Ends,
    lives::Note,
    membership::GroupMembership,
    metrics,
    scan::Scans,
    shared::Shared,
    tail::{self, Tail},
    topic::{self, Life, Said},
    watch::Watch,
};
use async_trait::async_trait;
use cairn_archive::{Incarnation, Offset, Partition, SiteId};
use cairn_store_api::{EventLog, Lives, LogBatch, LogRecord, Membership, Record, StoreError, StoreErrorKind};
use rdkafka::{config::FromClientConfigAndContext, consumer::BaseConsumer};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

/// An event log in a topic.
///
/// It is open in as many processes as there are. Dropping it ends its threads; [`EventLog::close`] also waits for appends.
pub struct KafkaEventLog {
    config: Arc<KafkaConfig>,
    life: Life,
    lives: Lives,
    /// By which a new life may be begun in this opening.
    claim: Mutex<Option<uuid::Uuid>>,
    shared: Arc<Shared>,
    appender: Arc<Appender>,
    ends: Arc<Ends>,
    tail: Arc<Tail>,
    scans: Arc<Scans>,
    serving: Mutex<Vec<JoinHandle<()>>>,
}

impl KafkaEventLog {
    /// Opens the log of a topic that [`crate::create_topic`] has made, once its settings are found to keep the log's promises.
    /// Brokers may have lost the beginnings of partitions: whoever opens it asks, and reads that elsewhere or goes no further
    /// (EL-17).
    ///
    /// # Errors
    /// `NotFound` without the topic; `Invalid` when it is of another site, has another number of partitions, or its settings
    /// don't keep what is acknowledged, and this is not accepted by the configuration; `Corrupt` when the topic does not say
    /// what it is; `Unavailable` when the brokers can't be reached.
    pub async fn open(config: KafkaConfig, site: SiteId) -> Result<Self, StoreError> {
        config.check()?;
        let said = topic::check(&config, &site).await?;
        if said.told.claim.is_some() {
            let what =
                "a new life of the log is being begun; if that was cut short, `cairn site renew` goes on with it";
            return Err(StoreError::new(StoreErrorKind::Unavailable, what));
        }
        Self::open_as(config, said, None)
    }

    /// Opens the log for a new life to be begun. Every other opening, in whichever process, is of no use from then on; nobody
    /// opens it until the life was begun, or this was closed without. Takes as long as it takes to be sure of that:
    /// `life_lease`, `append_timeout` and `request_timeout` together.
    ///
    /// # Errors
    /// As [`Self::open`]; `Conflict` when another does the same.
    /// # Cancel safety
    /// Dropped, nobody can open the log until this was done again.
    pub async fn open_alone(config: KafkaConfig, site: SiteId) -> Result<Self, StoreError> {
        config.check()?;
        let life = topic::check(&config, &site).await?.life;
        let claim = uuid::Uuid::now_v7();
        topic::write(&config, &life, &Note::Claim(claim)).await?;
        tokio::time::sleep(config.life_lease + config.append_timeout + config.request_timeout).await;
        let said = topic::said(&config, &site).await?;
        if said.told.claim != Some(claim) {
            return Err(StoreError::new(StoreErrorKind::Conflict, "somebody else begins a new life of the log"));
        }
        Self::open_as(config, said, Some(claim))
    }

    fn open_as(config: KafkaConfig, said: Said, claim: Option<uuid::Uuid>) -> Result<Self, StoreError> {
        let Said { life, told, end } = said;
        let shared = Arc::new(Shared::new(life.partitions, config.life_lease));
        let config = Arc::new(config);
        let client = client::consumer(&config, "cairn-tail", tail::WAIT);
        let consumer = BaseConsumer::from_config_and_context(&client, Context);
        let consumer: Arc<BaseConsumer<Context>> = Arc::new(consumer.map_err(|error| failed("kafka log", &error))?);
        let ends = Arc::new(Ends::start(consumer.clone(), config.topic.clone(), config.request_timeout)?);
        let appender = Arc::new(Appender::new(config.clone(), shared.clone())?);
        let scans = Arc::new(Scans::new(config.clone(), life.clone())?);
        let tail = Tail::start(config.clone(), life.clone(), shared.clone(), consumer)?;
        let watch = Watch {
            ends: ends.clone(),
            shared: shared.clone(),
            partition: Partition(life.partitions),
            end,
            lease: config.life_lease,
        };
        let serving = Mutex::new(vec![tokio::spawn(scans.clone().serve()), tokio::spawn(watch.run())]);
        let (lives, claim) = (told.lives, Mutex::new(claim));
        tracing::info!(topic = config.topic, incarnation = lives.newest().0, log = %life.id, "kafka log is open");
        Ok(Self { config, life, lives, claim, shared, appender, ends, tail, scans, serving })
    }

    /// What the topic says it is.
    pub fn life(&self) -> &Life {
        &self.life
    }

    /// Joins those who share the log's partitions as `group`, such as the index processes of one generation. Leaves when
    /// dropped. Offsets are not the group's: only who follows what.
    ///
    /// # Errors
    /// `Unavailable` when the client can't be made.
    pub fn join(&self, group: &str) -> Result<Box<dyn Membership>, StoreError> {
        Ok(Box::new(GroupMembership::join(&self.config, group)?))
    }

    async fn fresh_end(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.shared.check()?;
        self.shared.check_partition(partition)?;
        let known = self.shared.known_end(partition);
        let end = self.ends.end(partition).await?;
        self.shared.check()?;
        if end < known {
            // A new leader may say so for a moment; a log that was cut says so for ever.
            let what =
                format!("kafka log: partition {} ends at {} and was known to go to {}", partition.0, end.0, known.0);
            return Err(StoreError::new(StoreErrorKind::Unavailable, what));
        }
        self.shared.learn_end(partition, end);
        Ok(self.shared.known_end(partition))
    }

    async fn records(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<LogRecord>, StoreError> {
        if from < self.shared.known_begin(partition) {
            return Err(gone(partition, from));
        }
        // Nothing is given from beyond damage, for as long as it is there.
        if let Some(damaged) = self.shared.damage_before(partition, from) {
            self.scans.read(partition, damaged, 1, 1).await?;
            self.shared.damage_is_gone(partition);
        }
        if let Some(records) = self.tail.read(partition, from, records_max, bytes_max) {
            metrics::read("memory", records.len());
            return Ok(records);
        }
        let known = self.shared.known_end(partition);
        if from >= known && from >= self.fresh_end(partition).await? {
            return Ok(Vec::new());
        }
        match self.scans.read(partition, from, records_max, bytes_max).await {
            Ok(records) => {
                metrics::read("brokers", records.len());
                Ok(records)
            }
            Err(_) if from < self.fresh_begin(partition).await? => Err(gone(partition, from)),
            Err(error) => {
                if error.kind() == StoreErrorKind::Corrupt {
                    tracing::error!(partition = partition.0, offset = from.0, %error, "the log is damaged");
                    self.shared.found_damage(partition, from);
                }
                Err(error)
            }
        }
    }

    async fn fresh_begin(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.shared.check_partition(partition)?;
        let begin = self.ends.beginning(partition).await?;
        self.shared.learn_begin(partition, begin);
        Ok(self.shared.known_begin(partition))
    }

    async fn finish(&self) -> Result<(), StoreError> {
        self.stop();
        let appender = self.appender.clone();
        client::blocking(move || {
            appender.flush();
            Ok(())
        })
        .await
    }

    fn stop(&self) {
        self.shared.close();
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|serving| serving.abort());
    }
}

impl Drop for KafkaEventLog {
    fn drop(&mut self) {
        self.stop();
    }
}

fn gone(partition: Partition, from: Offset) -> StoreError {
    let what = format!("kafka log: partition {} has lost what stood at {}", partition.0, from.0);
    StoreError::new(StoreErrorKind::NotFound, what)
}

#[async_trait]
impl EventLog for KafkaEventLog {
    fn site(&self) -> &SiteId {
        &self.life.site
    }

    fn lives(&self) -> &Lives {
        &self.lives
    }

    fn partitions(&self) -> u16 {
        self.life.partitions
    }

    async fn append(&self, partition: Partition, records: Vec<Record>) -> Result<Offset, StoreError> {
        if let Err(refused) = self.shared.check() {
            // Callers who try again at once must not keep the log from hearing that it may go on.
            tokio::task::yield_now().await;
            return Err(refused);
        }
        self.shared.check_partition(partition)?;
        if records.is_empty() {
            return self.fresh_end(partition).await;
        }
        self.appender.append(partition, records).await
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<LogBatch, StoreError> {
        self.shared.check()?;
        self.shared.check_partition(partition)?;
        let records = self.records(partition, from, records_max, bytes_max).await?;
        self.shared.check()?;
        if let Some(last) = records.last() {
            self.shared.learn_end(partition, last.offset.next());
        }
        Ok(LogBatch { records, end: self.shared.known_end(partition) })
    }

    async fn end(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.fresh_end(partition).await
    }

    async fn beginning(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.shared.check()?;
        self.fresh_begin(partition).await
    }

    async fn wait_beyond(&self, partition: Partition, offset: Offset) -> Result<Offset, StoreError> {
        let mut end = self.shared.watch(partition)?;
        loop {
            self.shared.check()?;
            let known = *end.borrow_and_update();
            if known > offset {
                return Ok(known);
            }
            if !self.tail.is_following(partition) {
                let fresh = self.fresh_end(partition).await?;
                self.tail.follow(partition, fresh)?;
                continue;
            }
            // Following may have begun anew in between, which nobody tells.
            let _again = tokio::time::timeout(tail::RENEWED, end.changed()).await;
        }
    }

    async fn offset_at(&self, partition: Partition, unix_ms: u64) -> Result<Offset, StoreError> {
        // The end comes first: what is appended after it is not passed over.
        let end = self.fresh_end(partition).await?;
        Ok(self.ends.at(partition, unix_ms).await?.unwrap_or(end))
    }

    async fn renew(&self, incarnation: Incarnation, begins: Vec<Offset>) -> Result<(), StoreError> {
        self.shared.check()?;
        let mut ends = Vec::with_capacity(usize::from(self.life.partitions));
        for partition in (0..self.life.partitions).map(Partition) {
            ends.push(self.fresh_end(partition).await?);
        }
        let lives = self.lives.renewed(incarnation, begins.clone(), &ends)?;
        let not_alone = |what: &str| StoreError::new(StoreErrorKind::Conflict, format!("kafka log: {what}"));
        let claim = *self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        let claim = claim.ok_or_else(|| not_alone("others may have it open"))?;
        self.finish().await?;
        topic::write(&self.config, &self.life, &Note::Life { claim, incarnation, begins }).await?;
        // Released by that, if it counts.
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).take();
        match topic::said(&self.config, &self.life.site).await?.told.lives == lives {
            true => Ok(()),
            false => Err(not_alone("somebody else begins a new life")),
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.finish().await?;
        let claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner).take();
        match claim {
            Some(claim) => topic::write(&self.config, &self.life, &Note::Release(claim)).await,
            None => Ok(()),
        }
    }
}
