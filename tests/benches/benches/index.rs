//! The index by itself over the embedded store: events folded per second, and each query's time.
//!
//! `cargo bench -p cairn-benches --bench index -- [studies=1000,10000,100000] [instances=1] [header=2048] [rounds=30]
//! [dir=DIR] [queries=yes]`: archives of so many studies, instances in each, bytes of header; surveys alone with `queries=no`. The log makes its events up as they are
//! read; what that costs is told beside what folding costs.
#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use cairn_archive::{Incarnation, Offset, Partition, SiteId};
use cairn_benches::{
    Stretch,
    corpus::{Headers, mixed, patient_of, study_uid},
    resident_mib,
};
use cairn_dicom::{Tag, dataset::DataSet, tags};
use cairn_index::{IndexConfig, IndexService};
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_service_api::{
    Index,
    index::{Detail, Level, Query, QueryOptions, Returning, Selection},
    survey::Survey,
};
use cairn_store_api::{EventLog, IndexStore, Lives, LogBatch, LogRecord, Record, StoreError, StoreErrorKind, WholeLog};
use futures_util::StreamExt;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

fn option(name: &str, default: &str) -> String {
    let found = std::env::args().find_map(|argument| Some(argument.strip_prefix(name)?.strip_prefix('=')?.to_owned()));
    found.unwrap_or_else(|| default.to_owned())
}

/// A log that makes its events up: one study after the other, each with its instances.
struct MadeUpLog {
    site: SiteId,
    lives: Lives,
    /// Numbers of the studies of each partition.
    studies: Vec<Vec<u32>>,
    instances: u64,
    headers: Headers,
    more: watch::Sender<Vec<LogRecord>>,
}

const PARTITIONS: u16 = 64;

impl MadeUpLog {
    fn new(studies: u32, instances: u64, header: usize) -> Self {
        let mut of = vec![Vec::new(); usize::from(PARTITIONS)];
        for study in 0..studies {
            of[usize::from(Partition::of_study(&study_uid(study.into()), PARTITIONS).0)].push(study);
        }
        let (more, _) = watch::channel(Vec::new());
        let (site, lives) = ("bench".parse().unwrap(), Lives::new(Incarnation(1)));
        Self { site, lives, studies: of, instances, headers: Headers::of_length(header), more }
    }

    fn made_up(&self, partition: Partition) -> u64 {
        self.studies[usize::from(partition.0)].len() as u64 * self.instances
    }

    fn record(&self, study: u64, instance: u64) -> Record {
        self.headers.record(&self.site, study, instance).unwrap()
    }
}

#[async_trait]
impl EventLog for MadeUpLog {
    fn site(&self) -> &SiteId {
        &self.site
    }
    fn lives(&self) -> &Lives {
        &self.lives
    }
    fn partitions(&self) -> u16 {
        PARTITIONS
    }
    async fn append(&self, _: Partition, _: Vec<Record>) -> Result<Offset, StoreError> {
        Err(StoreError::new(StoreErrorKind::Invalid, "made up"))
    }
    async fn read(&self, partition: Partition, from: Offset, max: usize, bytes: usize) -> Result<LogBatch, StoreError> {
        let end = self.made_up(partition);
        let (mut records, mut size) = (Vec::new(), 0);
        for at in from.0..end.min(from.0 + max as u64) {
            let study = self.studies[usize::from(partition.0)][(at / self.instances) as usize];
            let record = self.record(study.into(), 1 + at % self.instances);
            size += record.payload.len();
            records.push(LogRecord { offset: Offset(at), appended_at_ms: 0, record });
            if size > bytes {
                break;
            }
        }
        Ok(LogBatch { records, end: Offset(end) })
    }
    async fn end(&self, partition: Partition) -> Result<Offset, StoreError> {
        Ok(Offset(self.made_up(partition)))
    }
    async fn wait_beyond(&self, partition: Partition, offset: Offset) -> Result<Offset, StoreError> {
        let mut more = self.more.subscribe();
        loop {
            let end = self.end(partition).await?;
            if end > offset {
                return Ok(end);
            }
            let _ = more.changed().await;
        }
    }
    async fn offset_at(&self, partition: Partition, _: u64) -> Result<Offset, StoreError> {
        self.end(partition).await
    }
    async fn renew(&self, _: Incarnation, _: Vec<Offset>) -> Result<(), StoreError> {
        Err(StoreError::new(StoreErrorKind::Invalid, "this log has one life"))
    }
    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn query(level: Level, keys: &[(Tag, &str)], limit: u64) -> Query {
    let mut identifier = DataSet::new();
    keys.iter().for_each(|(tag, text)| identifier.put_text(*tag, text));
    Query {
        tenant: "default".into(),
        level,
        identifier,
        options: QueryOptions { fuzzy_person_names: true, ..QueryOptions::default() },
        returning: Returning::DefaultAnd(vec![tags::STUDY_DESCRIPTION, tags::MODALITY]),
        offset: 0,
        limit: Some(limit),
        generation: None,
        sees_rejected: Default::default(),
    }
}

fn percentile(times: &mut [Duration], of: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * of) as usize].as_secs_f64() * 1_000.0
}

async fn ask(index: &IndexService, what: &str, rounds: u64, make: impl Fn(u64) -> Query) {
    let (mut first, mut whole, mut found) = (Vec::new(), Vec::new(), 0);
    let stretch = Stretch::begin();
    for round in 0..rounds {
        let begun = Instant::now();
        let mut answers = index.query(make(round)).await.unwrap();
        let mut count = 0;
        while let Some(answer) = answers.next().await {
            answer.unwrap();
            if count == 0 {
                first.push(begun.elapsed());
            }
            count += 1;
        }
        whole.push(begun.elapsed());
        found += count;
    }
    let cpu = stretch.cpu_seconds() / rounds as f64 * 1e3;
    let first = if first.is_empty() { 0.0 } else { percentile(&mut first, 0.5) };
    println!(
        "  {what:34} p50 {:8.3} ms  p99 {:8.3} ms  first {first:8.3} ms  cpu {cpu:7.3} ms  {:6.1} answers",
        percentile(&mut whole, 0.5),
        percentile(&mut whole, 0.99),
        found as f64 / rounds as f64
    );
}

async fn queries(index: &IndexService, studies: u32, rounds: u64) {
    let some = |round: u64, salt| mixed(round, salt) % u64::from(studies);
    use Level::{Instance, Patient, Series, Study};
    let many = rounds * 10;
    ask(index, "StudyInstanceUID", many, |r| query(Study, &[(tags::STUDY_INSTANCE_UID, &study_uid(some(r, 20)))], 101))
        .await;
    ask(index, "PatientID", many, |r| {
        query(Study, &[(tags::PATIENT_ID, &format!("PID{:08}", patient_of(some(r, 21))))], 101)
    })
    .await;
    ask(index, "AccessionNumber", many, |r| {
        query(Study, &[(tags::ACCESSION_NUMBER, &format!("ACC{:08}", some(r, 22)))], 101)
    })
    .await;
    ask(index, "SOPInstanceUID, instance level", many, |r| {
        query(Instance, &[(tags::SOP_INSTANCE_UID, &format!("{}.1.1", study_uid(some(r, 23))))], 101)
    })
    .await;
    ask(index, "series of a study", many, |r| {
        query(Series, &[(tags::STUDY_INSTANCE_UID, &study_uid(some(r, 24)))], 101)
    })
    .await;
    ask(index, "patients, limit 101", rounds, |_| query(Patient, &[], 101)).await;
    ask(index, "PatientName=DOE*", rounds, |_| query(Study, &[(tags::PATIENT_NAME, "DOE*")], 101)).await;
    ask(index, "PatientName=SMITH*", rounds, |_| query(Study, &[(tags::PATIENT_NAME, "SMITH*")], 101)).await;
    ask(index, "PatientName=smith anna (fuzzy)", rounds, |_| query(Study, &[(tags::PATIENT_NAME, "smith anna")], 101))
        .await;
    ask(index, "PatientName=*son*", rounds, |_| query(Study, &[(tags::PATIENT_NAME, "*SON*")], 101)).await;
    ask(index, "PatientName=*BERG^H*", rounds, |_| query(Study, &[(tags::PATIENT_NAME, "*BERG^H*")], 101)).await;
    ask(index, "AccessionNumber=*ACC*", rounds, |_| query(Study, &[(tags::ACCESSION_NUMBER, "*ACC*")], 101)).await;
    ask(index, "AccessionNumber=*0012*", rounds, |_| query(Study, &[(tags::ACCESSION_NUMBER, "*0012*")], 101)).await;
    ask(index, "AccessionNumber=*98765*", rounds, |_| query(Study, &[(tags::ACCESSION_NUMBER, "*98765*")], 101)).await;
    ask(index, "StudyDescription=*CHEST*", rounds, |_| query(Study, &[(tags::STUDY_DESCRIPTION, "*CHEST*")], 101))
        .await;
    ask(index, "month", rounds, |r| {
        let (year, month) = (2016 + r % 10, 1 + r % 12);
        let last = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][(month - 1) as usize];
        query(Study, &[(tags::STUDY_DATE, &format!("{year}{month:02}01-{year}{month:02}{last}"))], 101)
    })
    .await;
    ask(index, "one day + ModalitiesInStudy=CT", rounds, |r| {
        query(Study, &[(tags::STUDY_DATE, &format!("201{}0305", 6 + r % 4)), (tags::MODALITIES_IN_STUDY, "CT")], 101)
    })
    .await;
    ask(index, "work list, limit 101", rounds, |_| query(Study, &[], 101)).await;
    ask(index, "work list, offset 1000", rounds, |_| Query { offset: 1_000, ..query(Study, &[], 101) }).await;
    let mut times = Vec::new();
    for round in 0..rounds {
        let begun = Instant::now();
        let selection = Selection {
            tenant: "default".into(),
            studies: vec![study_uid(some(round, 25)).parse().unwrap()],
            ..Selection::default()
        };
        let count = index.instances(selection, Detail::Header).await.unwrap().count().await;
        times.push(begun.elapsed() / count.max(1) as u32);
    }
    println!("  records with headers, each         p50 {:8.3} ms", percentile(&mut times, 0.5));
}

/// Goes through all studies, as a policy does and its forecast.
async fn survey(index: &IndexService, expression: &str) {
    let stretch = Stretch::begin();
    let at_ms = 1_900_000_000_000;
    let survey = Survey { tenant: "default".into(), expression: expression.into(), at_ms };
    let mut parts = index.survey(survey).await.unwrap();
    let (mut studies, mut found, mut undecided) = (0, 0, 0);
    while let Some(part) = parts.next().await {
        let part = part.unwrap();
        studies += part.studies;
        undecided += part.undecided;
        found += part.found.len();
    }
    let (wall, cpu) = (stretch.seconds(), stretch.cpu_seconds());
    println!(
        "  survey {expression:60} {wall:6.2} s for {studies} studies ({:.1} us of CPU each), {found} found, {undecided} undecided",
        cpu / studies as f64 * 1e6
    );
}

async fn run(studies: u32, dir: &Path) {
    let (instances, header) = (option("instances", "1").parse().unwrap(), option("header", "2048").parse().unwrap());
    let rounds = option("rounds", "30").parse().unwrap();
    let log = Arc::new(MadeUpLog::new(studies, instances, header));
    let events = u64::from(studies) * instances;
    println!("{studies} studies of {instances} instances, headers of {} bytes", log.record(0, 1).payload.len());
    let making = Stretch::begin();
    let sample = events.min(20_000);
    for study in 0..sample {
        std::hint::black_box(log.record(study, 1));
    }
    let making = making.cpu_seconds() / sample as f64;
    let config = IndexStoreConfig {
        memtable_bytes: option("memtable", "8").parse::<u64>().unwrap() << 20,
        ..IndexStoreConfig::default()
    };
    let store: Arc<dyn IndexStore> = Arc::new(EmbeddedIndexStore::open(dir.to_owned(), config).await.unwrap());
    let filling = Stretch::begin();
    let share = Box::new(WholeLog::new(log.partitions()));
    let index = IndexService::open(log.clone(), store.clone(), share, IndexConfig::default()).await.unwrap();
    let end = index.status().await.unwrap().log_end;
    while index.wait_for(&end, Duration::from_secs(30)).await.is_err() {
        let status = index.status().await.unwrap();
        eprintln!("  {} events left, {:.0} MiB resident", status.lag_events, resident_mib());
    }
    let (wall, cpu) = (filling.seconds(), filling.cpu_seconds());
    println!(
        "  filled: {:.0} events/s, {:.1} us of CPU an event (making one up: {:.1} us), {:.0} MiB resident",
        events as f64 / wall,
        cpu / events as f64 * 1e6,
        making * 1e6,
        resident_mib()
    );
    let begun = Instant::now();
    let (digest, _) = index.digest().await.unwrap();
    println!("  digest of {} studies: {:.3} ms", digest.studies, begun.elapsed().as_secs_f64() * 1e3);
    for expression in
        ["received_days > 3650 && 'CT' in modalities", "study_age_days > 3650 && patient_age_years > 40", "true"]
    {
        survey(&index, expression).await;
    }
    if option("queries", "yes") == "yes" {
        queries(&index, studies, rounds).await;
    }
    println!("  {:.0} MiB resident", resident_mib());
    index.close().await.unwrap();
    store.sync(true).await.unwrap();
}

fn main() {
    let sizes: Vec<u32> = option("studies", "1000,10000").split(',').map(|size| size.parse().unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for studies in sizes {
        let parent = option("dir", &std::env::temp_dir().to_string_lossy());
        let dir = tempfile::tempdir_in(parent).unwrap();
        runtime.block_on(run(studies, dir.path()));
    }
}
