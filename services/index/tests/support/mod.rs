//! A log and an index store in memory, with faults on demand, and events made of a few words.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses a part")]

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    EventId, Hlc, Incarnation, Offset, Partition, SiteId,
    envelope::Envelope,
    events::{
        Event, EventRepaired, InstanceProtected, InstanceStored, Object, Receipt, Replacement, ResendPolicy,
        SenderProfile, event_repaired::Remedy,
    },
    fold::StudyKey,
    index_rows::study_pk,
};
use cairn_dicom::{CharacterSet, dataset::DataSet, tags, transfer_syntax::Encoding};
use cairn_index::{IndexConfig, IndexService};
use cairn_service_api::{
    Index,
    index::{Change, GenerationStatus, Level, Query, QueryOptions, Returning, Role, Then},
};
use cairn_store_api::{
    CkRange, Commit, EventLog, Generation, IndexStore, Lives, LogBatch, LogRecord, Membership, Mutation, Page, Record,
    Row, StoreError, StoreErrorKind, Table, WholeLog,
};
use futures_util::StreamExt;
use prost::Message;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// An event log in memory.
pub struct MemoryLog {
    site: SiteId,
    lives: Lives,
    /// Another than its first, when set.
    pub incarnation: Mutex<Incarnation>,
    partitions: Vec<Mutex<Vec<LogRecord>>>,
    appended: watch::Sender<u64>,
}

impl MemoryLog {
    pub fn new(partitions: u16) -> Arc<Self> {
        Arc::new(Self {
            site: "main".parse().expect("valid"),
            lives: Lives::new(Incarnation(1)),
            incarnation: Mutex::new(Incarnation(1)),
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            appended: watch::channel(0).0,
        })
    }

    /// The same records in a log of their own, as after a restore; `keep` of each partition.
    pub fn restored(&self, keep: usize) -> Arc<Self> {
        let log = Self::new(self.partitions.len() as u16);
        for (to, from) in log.partitions.iter().zip(&self.partitions) {
            let from = from.lock().expect("not poisoned");
            *to.lock().expect("not poisoned") = from.iter().take(keep).cloned().collect();
        }
        log
    }

    /// Appends to the partition of the event's study.
    pub async fn put(&self, record: Record) -> (Partition, Offset) {
        let partition = Partition::of_study(&record.envelope.study_instance_uid, self.partitions());
        (partition, self.append(partition, vec![record]).await.expect("appends"))
    }

    pub fn len(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.lock().expect("not poisoned").len() as u64).sum()
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn site(&self) -> &SiteId {
        &self.site
    }
    fn lives(&self) -> &Lives {
        &self.lives
    }
    fn incarnation(&self) -> Incarnation {
        *self.incarnation.lock().expect("not poisoned")
    }
    fn partitions(&self) -> u16 {
        self.partitions.len() as u16
    }
    async fn append(&self, partition: Partition, records: Vec<Record>) -> Result<Offset, StoreError> {
        let first = {
            let mut log = self.partitions[usize::from(partition.0)].lock().expect("not poisoned");
            let first = log.len() as u64;
            let with_offset =
                |(record, offset)| LogRecord { offset: Offset(offset), appended_at_ms: 1_000 + offset, record };
            log.extend(records.into_iter().zip(first..).map(with_offset));
            first
        };
        self.appended.send_modify(|count| *count += 1);
        Ok(Offset(first))
    }
    async fn read(&self, partition: Partition, from: Offset, max: usize, bytes: usize) -> Result<LogBatch, StoreError> {
        let log = self.partitions[usize::from(partition.0)].lock().expect("not poisoned");
        let mut size = 0;
        let fits = |record: &&LogRecord| {
            let fits = size < bytes;
            size += record.record.payload.len();
            fits
        };
        let records = log.iter().skip(from.0 as usize).take(max).take_while(fits).cloned().collect();
        Ok(LogBatch { records, end: Offset(log.len() as u64) })
    }
    async fn end(&self, partition: Partition) -> Result<Offset, StoreError> {
        Ok(Offset(self.partitions[usize::from(partition.0)].lock().expect("not poisoned").len() as u64))
    }
    async fn wait_beyond(&self, partition: Partition, offset: Offset) -> Result<Offset, StoreError> {
        let mut appended = self.appended.subscribe();
        loop {
            let end = self.end(partition).await?;
            if end > offset {
                return Ok(end);
            }
            appended.changed().await.map_err(|_| StoreError::new(StoreErrorKind::Unavailable, "closed"))?;
        }
    }
    async fn offset_at(&self, partition: Partition, unix_ms: u64) -> Result<Offset, StoreError> {
        let log = self.partitions[usize::from(partition.0)].lock().expect("not poisoned");
        Ok(Offset(log.partition_point(|record| record.appended_at_ms < unix_ms) as u64))
    }
    async fn renew(&self, _: Incarnation, _: Vec<Offset>) -> Result<(), StoreError> {
        Err(StoreError::new(StoreErrorKind::Invalid, "this log has one life"))
    }
    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

type Key = (u32, u8, Bytes, Bytes);
type Ends = HashMap<(u32, u16), (Incarnation, Offset, Bytes)>;

/// What the store does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fault {
    #[default]
    None,
    /// The commits from this one on fail, nothing of them applied.
    FailFrom(u64),
    /// This commit applies so many of its mutations, not the offset, and all later ones fail: a crash in the middle.
    TearAt(u64, usize),
    /// Commits from this one on are applied, and said to be unknown.
    LoseAnswer(u64),
    /// Reads of rows panic.
    PanicAtReads,
}

/// An index store in memory.
#[derive(Default)]
pub struct MemoryStore {
    rows: Mutex<BTreeMap<Key, Bytes>>,
    offsets: Mutex<Ends>,
    pointer: Mutex<Bytes>,
    commits: Mutex<u64>,
    pub fault: Mutex<Fault>,
    /// Reads of rows under this partition key panic, so many more times.
    pub panics: Mutex<(Bytes, u32)>,
    /// Commits of this generation, beyond so many, wait.
    pub hold: Mutex<Option<(u32, u64)>>,
    held: Mutex<HashMap<u32, u64>>,
    /// One commit is applied at a time.
    alone: Mutex<()>,
    exact: bool,
}

impl MemoryStore {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// One whose rows can be taken at their word, as long as it has no fault.
    pub fn exact() -> Arc<Self> {
        Arc::new(Self { exact: true, ..Self::default() })
    }

    pub fn commits(&self) -> u64 {
        *self.commits.lock().expect("not poisoned")
    }

    /// Reads of a study's rows panic from now on, so many times.
    pub fn panic_at(&self, study: &str, times: u32) {
        let key = StudyKey { tenant: "default".into(), study_instance_uid: study.into() };
        *self.panics.lock().expect("not poisoned") = (study_pk(&key), times);
    }

    fn read(&self, pk: &[u8]) {
        let mut panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        if panics.1 > 0 && panics.0 == pk {
            panics.1 -= 1;
            drop(panics);
            panic!("a defect at this study");
        }
    }

    /// Changes the rows of a table, in every generation.
    pub fn edit(&self, table: u8, edit: impl Fn(&Bytes) -> Bytes) {
        let mut rows = self.rows.lock().expect("not poisoned");
        rows.iter_mut().filter(|((_, of, ..), _)| *of == table).for_each(|(_, value)| *value = edit(value));
    }

    /// Rows of a generation, for comparing.
    pub fn dump(&self, generation: u32) -> BTreeMap<(u8, Bytes, Bytes), Bytes> {
        let rows = self.rows.lock().expect("not poisoned");
        let of = rows.iter().filter(|((of, ..), _)| *of == generation);
        of.map(|((_, table, pk, ck), value)| ((*table, pk.clone(), ck.clone()), value.clone())).collect()
    }
}

#[async_trait]
impl IndexStore for MemoryStore {
    fn is_exact(&self) -> bool {
        self.exact
    }
    async fn get(
        &self,
        generation: Generation,
        table: Table,
        pk: &[u8],
        ck: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        self.read(pk);
        let key = (generation.0, table.id, Bytes::copy_from_slice(pk), Bytes::copy_from_slice(ck));
        Ok(self.rows.lock().expect("not poisoned").get(&key).cloned())
    }
    async fn get_many(
        &self,
        generation: Generation,
        table: Table,
        keys: &[(Bytes, Bytes)],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        keys.iter().for_each(|(pk, _)| self.read(pk));
        let rows = self.rows.lock().expect("not poisoned");
        Ok(keys.iter().map(|(pk, ck)| rows.get(&(generation.0, table.id, pk.clone(), ck.clone())).cloned()).collect())
    }
    async fn scan(
        &self,
        generation: Generation,
        table: Table,
        pk: &[u8],
        range: &CkRange,
        reverse: bool,
        max: usize,
    ) -> Result<Page, StoreError> {
        // As an adapter does that waits for a disk.
        tokio::task::yield_now().await;
        assert!(*self.fault.lock().expect("not poisoned") != Fault::PanicAtReads, "a defect");
        self.read(pk);
        let pk = Bytes::copy_from_slice(pk);
        let rows = self.rows.lock().expect("not poisoned");
        let from = (generation.0, table.id, pk.clone(), range.from.clone().unwrap_or_default());
        let inside = |((g, t, p, ck), _): &(&Key, &Bytes)| {
            (*g, *t) == (generation.0, table.id) && *p == pk && range.to.as_ref().is_none_or(|to| ck < to)
        };
        let row = |((_, _, _, ck), value): (&Key, &Bytes)| Row { ck: ck.clone(), value: value.clone() };
        let mut found: Vec<Row> = if reverse {
            let all: Vec<_> = rows.range(from..).take_while(inside).collect();
            all.into_iter().rev().take(max + 1).map(row).collect()
        } else {
            rows.range(from..).take_while(inside).take(max + 1).map(row).collect()
        };
        let more = found.len() > max;
        found.truncate(max);
        Ok(Page { rows: found, more })
    }
    async fn commit(&self, generation: Generation, commit: Commit) -> Result<(), StoreError> {
        let beyond = |hold: Option<(u32, u64)>, commits| hold.is_some_and(|(of, n)| of == generation.0 && commits > n);
        let own = {
            let mut held = self.held.lock().expect("not poisoned");
            let own = held.entry(generation.0).or_default();
            *own += 1;
            *own
        };
        while beyond(*self.hold.lock().expect("not poisoned"), own) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _alone = self.alone.lock().expect("not poisoned");
        let number = {
            let mut commits = self.commits.lock().expect("not poisoned");
            *commits += 1;
            *commits
        };
        let unknown = || StoreError::new(StoreErrorKind::Unavailable, "outcome unknown");
        let fault = *self.fault.lock().expect("not poisoned");
        let applied = match fault {
            Fault::FailFrom(from) if number >= from => return Err(unknown()),
            Fault::TearAt(at, _) if number > at => return Err(unknown()),
            Fault::TearAt(at, applied) if number == at => applied,
            _ => usize::MAX,
        };
        let key = (generation.0, commit.partition.0);
        {
            let offsets = self.offsets.lock().expect("not poisoned");
            let (incarnation, offset) = offsets
                .get(&key)
                .map_or((Incarnation(0), Offset(0)), |(incarnation, offset, _)| (*incarnation, *offset));
            if commit.from != offset || commit.incarnation < incarnation {
                return Err(StoreError::new(StoreErrorKind::Conflict, "not the committed offset"));
            }
        }
        let mut rows = self.rows.lock().expect("not poisoned");
        let mut changed = std::collections::HashSet::new();
        for mutation in commit.mutations.iter().take(applied) {
            let (table, pk, ck, value) = match mutation {
                Mutation::Put { table, pk, ck, value } => (table, pk, ck, Some(value)),
                Mutation::Delete { table, pk, ck } => (table, pk, ck, None),
            };
            assert!(changed.insert((table.id, pk.clone(), ck.clone())), "row of {} changed twice", table.name);
            assert!(pk.len() <= 1024 && ck.len() <= 1024);
            let key = (generation.0, table.id, pk.clone(), ck.clone());
            match value {
                Some(value) => rows.insert(key, value.clone()),
                None => rows.remove(&key),
            };
        }
        if applied != usize::MAX {
            return Err(unknown());
        }
        self.offsets.lock().expect("not poisoned").insert(key, (commit.incarnation, commit.to, commit.note));
        match fault {
            Fault::LoseAnswer(from) if number >= from => Err(unknown()),
            _ => Ok(()),
        }
    }
    async fn offsets(
        &self,
        generation: Generation,
    ) -> Result<Vec<(Incarnation, Partition, Offset, Bytes)>, StoreError> {
        let offsets = self.offsets.lock().expect("not poisoned");
        let of = offsets.iter().filter(|((of, _), _)| *of == generation.0);
        Ok(of.map(|((_, p), (i, offset, note))| (*i, Partition(*p), *offset, note.clone())).collect())
    }
    async fn pointer(&self) -> Result<Bytes, StoreError> {
        Ok(self.pointer.lock().expect("not poisoned").clone())
    }
    async fn compare_and_set_pointer(&self, expected: &[u8], new: Bytes) -> Result<bool, StoreError> {
        let mut pointer = self.pointer.lock().expect("not poisoned");
        let same = *pointer == expected;
        if same {
            *pointer = new;
        }
        Ok(same)
    }
    async fn drop_generation(&self, generation: Generation) -> Result<(), StoreError> {
        self.rows.lock().expect("not poisoned").retain(|(of, ..), _| *of != generation.0);
        self.offsets.lock().expect("not poisoned").retain(|(of, _), _| *of != generation.0);
        Ok(())
    }
    async fn sync(&self, _close: bool) -> Result<(), StoreError> {
        Ok(())
    }
}

/// An instance in a few words; empty texts are left out of its header.
#[derive(Clone, Debug)]
pub struct Spec {
    pub n: u64,
    pub at: u64,
    pub tenant: &'static str,
    pub study: String,
    pub series: String,
    pub instance: String,
    pub content: u8,
    pub ae: &'static str,
    pub issuer: &'static str,
    pub policy: ResendPolicy,
    pub set: DataSet,
}

impl Spec {
    pub fn new(n: u64, study: u64, series: u64, instance: u64) -> Self {
        let mut set = DataSet::new();
        for (tag, text) in [
            (tags::PATIENT_NAME, "DOE^JANE"),
            (tags::PATIENT_ID, "P1"),
            (tags::STUDY_DATE, "20240102"),
            (tags::STUDY_TIME, "1030"),
            (tags::ACCESSION_NUMBER, "ACC1"),
            (tags::STUDY_DESCRIPTION, "CT CHEST"),
            (tags::MODALITY, "CT"),
            (tags::SERIES_DESCRIPTION, "axial"),
        ] {
            set.put_text(tag, text);
        }
        set.put_text(tags::SERIES_NUMBER, &series.to_string());
        set.put_text(tags::INSTANCE_NUMBER, &instance.to_string());
        Self {
            n,
            at: n,
            tenant: "default",
            study: format!("1.2.{study}"),
            series: format!("1.2.{study}.{series}"),
            instance: format!("1.2.{study}.{series}.{instance}"),
            content: 1,
            ae: "SCANNER",
            issuer: "",
            policy: ResendPolicy::Keep,
            set,
        }
    }

    pub fn with(mut self, tag: cairn_dicom::Tag, text: &str) -> Self {
        self.set.put_text(tag, text);
        self
    }

    pub fn event_id(&self) -> EventId {
        event_id(self.n)
    }

    pub fn record(&self) -> Record {
        let header = self.set.encode(Encoding::ExplicitLittle, CharacterSet::UTF_8).expect("encodes");
        let protected = InstanceProtected { header: header.into(), extractor_version: 1 };
        let event = Event::InstanceStored(Box::new(InstanceStored {
            tenant: self.tenant.into(),
            study_instance_uid: self.study.clone(),
            series_instance_uid: self.series.clone(),
            sop_instance_uid: self.instance.clone(),
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
            transfer_syntax_uid: "1.2.840.10008.1.2.1".into(),
            object: Some(Object {
                key: event_id(self.n + (1 << 40)).as_bytes().to_vec().into(),
                length_bytes: 1000,
                blake3: vec![self.content; 32].into(),
            }),
            receipt: Some(Receipt { calling_ae_title: self.ae.into(), ..Receipt::default() }),
            sender_profile: Some(SenderProfile {
                issuer_of_patient_id: self.issuer.into(),
                resend_policy: self.policy.into(),
                ..SenderProfile::default()
            }),
            protected: protected.encode_to_vec().into(),
            ..InstanceStored::default()
        }));
        record(self.n, self.at, &event)
    }
}

pub fn event_id(n: u64) -> EventId {
    format!("018f4d2e-9c3a-7000-8000-{n:012x}").parse().expect("valid")
}

pub fn record(n: u64, at: u64, event: &Event) -> Record {
    Record {
        envelope: Envelope {
            id: event_id(n),
            kind: event.kind().into(),
            site: "main".parse().expect("valid"),
            study_instance_uid: event.study_instance_uid().to_owned(),
            tenant: event.tenant().to_owned(),
            hlc: Hlc { wall_ms: at, counter: 0 },
            traceparent: None,
            correlation_id: None,
            causation_id: None,
            object_keys: Vec::new(),
            origin: None,
        },
        payload: event.encode(),
    }
}

/// A repair of an event.
pub fn repair(n: u64, of: &Record, remedy: Remedy) -> Record {
    let event = EventRepaired {
        tenant: of.envelope.tenant.clone(),
        study_instance_uid: of.envelope.study_instance_uid.clone(),
        event_id: of.envelope.id.as_bytes().to_vec().into(),
        event_site: of.envelope.site.to_string(),
        event_wall_ms: of.envelope.hlc.wall_ms,
        event_counter: of.envelope.hlc.counter,
        remedy: Some(remedy),
        ..EventRepaired::default()
    };
    record(n, 500 + n, &Event::EventRepaired(Box::new(event)))
}

/// The payload of another record stands in.
pub fn replaced(by: &Record) -> Remedy {
    Remedy::Replacement(Replacement { event_type: by.envelope.kind.to_string(), payload: by.payload.clone() })
}

/// Small batches, small pages, small sorting room: so that every bound is met in small tests.
pub fn small() -> IndexConfig {
    IndexConfig {
        batch_events_max: 7,
        linger: Duration::from_millis(0),
        retry_pause: Duration::from_millis(1),
        page_rows_max: 3,
        sort_rows_max: 2,
        answers_ahead_max: 2,
        header_cache_bytes: 64,
        pointer_poll: Duration::from_millis(10),
        elsewhere_poll: Duration::from_millis(1),
        compare_every: Duration::from_millis(20),
        drop_grace: Duration::from_millis(300),
        ..IndexConfig::default()
    }
}

/// How a generation is, if it is there.
pub async fn generation(index: &dyn Index, number: u32) -> Option<GenerationStatus> {
    let all = index.generations().await.expect("generations");
    all.into_iter().find(|status| status.generation == number)
}

/// Waits until a generation is as wanted.
pub async fn until(index: &dyn Index, number: u32, wanted: impl Fn(&GenerationStatus) -> bool) -> GenerationStatus {
    let found = async {
        loop {
            if let Some(status) = generation(index, number).await.filter(|status| wanted(status)) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("in time")
}

/// Fills a new generation and waits until what comes then has come.
pub async fn rebuilt(index: &dyn Index, then: Then) -> GenerationStatus {
    let begun = index.manage(Change::Rebuild { then }).await.expect("begins");
    let role = match then {
        Then::Serve => Role::Serving,
        Then::Wait => Role::Filling,
        Then::Drop => Role::Dropping,
    };
    until(index, begun.generation, |status| status.role == role && status.certificate.is_some()).await
}

/// All of a log's partitions, followed here.
pub fn whole(log: &dyn EventLog) -> Box<dyn Membership> {
    Box::new(WholeLog::new(log.partitions()))
}

/// Waits until everything in the log is folded.
pub async fn settled(index: &IndexService) {
    let end = index.status().await.expect("status").log_end;
    index.wait_for(&end, Duration::from_secs(20)).await.expect("folds in time");
}

pub fn query(level: Level, keys: &[(cairn_dicom::Tag, &str)]) -> Query {
    let mut identifier = DataSet::new();
    for (tag, text) in keys {
        if text.is_empty() { identifier.put_empty(*tag) } else { identifier.put_text(*tag, text) }
    }
    Query {
        tenant: "default".into(),
        level,
        identifier,
        options: QueryOptions::default(),
        returning: Returning::DefaultAnd(Vec::new()),
        offset: 0,
        limit: None,
        generation: None,
        sees_rejected: Default::default(),
    }
}

pub async fn answers(index: &IndexService, query: Query) -> Vec<DataSet> {
    let stream = index.query(query).await.expect("usable");
    stream.map(|answer| answer.expect("answers")).collect().await
}

/// One attribute of each answer.
pub async fn texts(index: &IndexService, query: Query, tag: cairn_dicom::Tag) -> Vec<String> {
    answers(index, query).await.iter().map(|set| set.text(tag).unwrap_or_default().to_owned()).collect()
}
