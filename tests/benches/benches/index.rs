//! The index by itself over the embedded store: events folded per second, and each query's time.
//!
//! `cargo bench -p cairn-benches --bench index -- [studies=1000,10000,100000] [instances=1] [header=2048] [rounds=30]
//! [dir=DIR]`: archives of so many studies, instances in each, bytes of header. The log makes its events up as they are
//! read; what that costs is told beside what folding costs.
#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    EventId, Hlc, Incarnation, Offset, Partition, SiteId,
    envelope::Envelope,
    events::{Event, InstanceProtected, InstanceStored, Object, Receipt, SenderProfile},
};
use cairn_benches::{Stretch, resident_mib};
use cairn_dicom::{
    CharacterSet, Tag, Vr,
    dataset::{DataSet, Value},
    tags,
    transfer_syntax::Encoding,
};
use cairn_index::{IndexConfig, IndexService};
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_service_api::{
    Index,
    index::{Detail, Level, Query, QueryOptions, Returning, Selection},
};
use cairn_store_api::{EventLog, IndexStore, LogBatch, LogRecord, Record, StoreError, StoreErrorKind};
use futures_util::StreamExt;
use prost::Message;
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

/// A number that looks random and is the same at every run.
fn mixed(n: u64, salt: u64) -> u64 {
    let mut x = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ salt.wrapping_mul(0xD1B5_4A32_D192_ED03);
    x = (x ^ (x >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 29)
}

const FAMILY: [&str; 24] = [
    "Garcia",
    "Mueller",
    "Rossi",
    "Novak",
    "Jensen",
    "Kowalski",
    "Papadopoulos",
    "Nagy",
    "Ivanova",
    "Haddad",
    "Cohen",
    "Okafor",
    "Nguyen",
    "Tanaka",
    "Kim",
    "Wang",
    "Silva",
    "Dubois",
    "Lindgren",
    "Virtanen",
    "Murphy",
    "Campbell",
    "Yilmaz",
    "Sato",
];
const GIVEN: [&str; 16] = [
    "Anna", "Bert", "Carla", "David", "Elena", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Klara", "Leo", "Maria",
    "Noah", "Olga", "Paul",
];
const WORDS: [&str; 12] = [
    "CT CHEST",
    "MR HEAD",
    "CT ABDOMEN",
    "XR HAND",
    "US LIVER",
    "MR KNEE",
    "CT HEAD",
    "PET WHOLE BODY",
    "XR CHEST PA",
    "MR SPINE",
    "MG SCREENING",
    "CT ANGIO",
];
const MODALITIES: [&str; 6] = ["CT", "MR", "CR", "US", "MG", "PT"];

fn name(patient: u64) -> String {
    let family = match mixed(patient, 1) % 1_000 {
        0 => "Doe".to_owned(),
        1..=10 => "Smith".to_owned(),
        _ => {
            let family = FAMILY[(mixed(patient, 2) % FAMILY.len() as u64) as usize];
            format!("{family}{}", ["", "son", "berg", "ova", "er"][(mixed(patient, 3) % 5) as usize])
        }
    };
    let given = GIVEN[(mixed(patient, 4) % GIVEN.len() as u64) as usize];
    format!("{}^{}", family.to_uppercase(), given.to_uppercase())
}

fn study_uid(study: u64) -> String {
    format!("1.2.826.0.1.3680043.10.1199.{}.{study}", mixed(study, 9) % 1_000_000)
}

/// Headers: those of the study and series by name, the rest of a scanner's.
struct Headers {
    filler: DataSet,
}

impl Headers {
    fn new(length: usize) -> Self {
        let mut filler = DataSet::new();
        // What no query names: parameters of the scan, in elements of the length that such have.
        let mut bytes = 450;
        let mut tag = Tag::new(0x0018, 0x9000);
        while bytes + 40 < length {
            let text = format!("{:032}", mixed(u64::from(tag.0), 5));
            filler.put(tag, Vr::LO, Value::Text(vec![text]));
            tag = Tag(tag.0 + 1);
            bytes += 40;
        }
        Self { filler }
    }

    fn make(&self, study: u64, instance: u64) -> Vec<u8> {
        let patient = mixed(study, 6) % (study * 6 / 10 + 1);
        let day = mixed(study, 7) % 3_650;
        let date = format!("{:04}{:02}{:02}", 2016 + day / 365, 1 + day % 365 / 31, 1 + day % 28);
        let time = mixed(study, 8) % 86_400;
        let mut set = self.filler.clone();
        for (tag, text) in [
            (tags::SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.2".to_owned()),
            (tags::SOP_INSTANCE_UID, format!("{}.1.{instance}", study_uid(study))),
            (tags::STUDY_INSTANCE_UID, study_uid(study)),
            (tags::SERIES_INSTANCE_UID, format!("{}.1", study_uid(study))),
            (tags::PATIENT_NAME, name(patient)),
            (tags::PATIENT_ID, format!("PID{patient:08}")),
            (tags::PATIENT_BIRTH_DATE, format!("19{:02}0{}1{}", patient % 100, 1 + patient % 9, patient % 10)),
            (tags::PATIENT_SEX, if patient.is_multiple_of(2) { "F" } else { "M" }.to_owned()),
            (tags::STUDY_DATE, date),
            (tags::STUDY_TIME, format!("{:02}{:02}{:02}", time / 3_600, time / 60 % 60, time % 60)),
            (tags::ACCESSION_NUMBER, format!("ACC{study:08}")),
            (tags::STUDY_DESCRIPTION, WORDS[(mixed(study, 10) % 12) as usize].to_owned()),
            (tags::REFERRING_PHYSICIAN_NAME, "REFERRER^ONE".to_owned()),
            (tags::STUDY_ID, study.to_string()),
            (tags::MODALITY, MODALITIES[(mixed(study, 11) % 6) as usize].to_owned()),
            (tags::SERIES_NUMBER, "1".to_owned()),
            (tags::SERIES_DESCRIPTION, "axial".to_owned()),
            (tags::INSTANCE_NUMBER, instance.to_string()),
            (tags::ROWS, "512".to_owned()),
        ] {
            set.put_text(tag, &text);
        }
        set.put(tags::ROWS, Vr::US, Value::Unsigned(vec![512]));
        set.encode(Encoding::ExplicitLittle, CharacterSet::DEFAULT).unwrap()
    }
}

/// A log that makes its events up: one study after the other, each with its instances.
struct MadeUpLog {
    site: SiteId,
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
        Self { site: "bench".parse().unwrap(), studies: of, instances, headers: Headers::new(header), more }
    }

    fn made_up(&self, partition: Partition) -> u64 {
        self.studies[usize::from(partition.0)].len() as u64 * self.instances
    }

    fn record(&self, study: u64, instance: u64) -> Record {
        let n = study * 100_000 + instance;
        let id = |kind: u16| {
            EventId::from_slice(&[&[1, 0x8f, 0x4d, 0x2e, 0, 0, 0x70, kind as u8][..], &n.to_be_bytes()].concat())
        };
        let uid = study_uid(study);
        let protected = InstanceProtected { header: self.headers.make(study, instance).into(), extractor_version: 1 };
        let digest = Bytes::copy_from_slice(&[mixed(n, 12).to_be_bytes(); 4].concat());
        let event = InstanceStored {
            tenant: "default".into(),
            study_instance_uid: uid.clone(),
            series_instance_uid: format!("{uid}.1"),
            sop_instance_uid: format!("{uid}.1.{instance}"),
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
            transfer_syntax_uid: "1.2.840.10008.1.2.1".into(),
            object: Some(Object {
                key: Bytes::copy_from_slice(id(1).unwrap().as_bytes()),
                length_bytes: 526_000,
                blake3: digest,
            }),
            data_set_offset: 340,
            pixel_data_offset: 1_500,
            receipt: Some(Receipt {
                receipt_id: vec![1; 16].into(),
                calling_ae_title: "SCANNER".into(),
                called_ae_title: "CAIRN".into(),
                peer_address: "127.0.0.1:104".into(),
                ..Receipt::default()
            }),
            sender_profile: Some(SenderProfile { issuer_of_patient_id: "HOSP".into(), ..SenderProfile::default() }),
            protected: protected.encode_to_vec().into(),
            ..InstanceStored::default()
        };
        Record {
            envelope: Envelope {
                id: id(0).unwrap(),
                kind: "cairn.instance.stored.v1".into(),
                site: self.site.clone(),
                study_instance_uid: uid,
                tenant: "default".into(),
                hlc: Hlc { wall_ms: 1_700_000_000_000 + n, counter: 0 },
                traceparent: None,
                correlation_id: None,
                causation_id: None,
                object_keys: Vec::new(),
                origin: None,
            },
            payload: Event::InstanceStored(Box::new(event)).encode(),
        }
    }
}

#[async_trait]
impl EventLog for MadeUpLog {
    fn site(&self) -> &SiteId {
        &self.site
    }
    fn incarnation(&self) -> Incarnation {
        Incarnation(1)
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
    let patient = |study: u64| mixed(study, 6) % (study * 6 / 10 + 1);
    use Level::{Instance, Patient, Series, Study};
    let many = rounds * 10;
    ask(index, "StudyInstanceUID", many, |r| query(Study, &[(tags::STUDY_INSTANCE_UID, &study_uid(some(r, 20)))], 101))
        .await;
    ask(index, "PatientID", many, |r| {
        query(Study, &[(tags::PATIENT_ID, &format!("PID{:08}", patient(some(r, 21))))], 101)
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
    let index = IndexService::open(log.clone(), store.clone(), IndexConfig::default()).await.unwrap();
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
    queries(&index, studies, rounds).await;
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
