//! Queries by QIDO-RS and C-FIND over archives of growing size, how fast the index is rebuilt, and memory at rest.

use crate::{
    Bench, Outcome,
    asking::Finder,
    cluster::Engines,
    http::Http,
    measure::{Meter, latency},
    objects::{Template, scanner},
    server::{Kind, Place, Server, data},
    storing::{STORAGE, store_on},
    upkeep::words,
};
use cairn_archive::Partition;
use cairn_benches::corpus::{Headers, mixed, patient_of, study_uid};
use cairn_dicom::{Tag, tags};
use cairn_event_log_embedded::{EmbeddedEventLog, EventLogConfig};
use cairn_process::{clock::SystemClock, disk::RealDisk};
use cairn_store_api::EventLog;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Keys of one query.
type Keys = Vec<(&'static str, Tag, String)>;

/// A query's name, and its keys in a round.
type Asked<'a> = (&'static str, Box<dyn Fn(u64) -> Keys + 'a>);

/// The queries, by name; a round's number chooses what is looked for. `uid` gives a study's UID.
fn queries<'a>(studies: u64, uid: &'a dyn Fn(u64) -> String) -> Vec<Asked<'a>> {
    let some = move |round: u64, salt| mixed(round, salt) % studies;
    vec![
        ("StudyInstanceUID", Box::new(move |r| vec![("StudyInstanceUID", tags::STUDY_INSTANCE_UID, uid(some(r, 20)))])),
        (
            "AccessionNumber",
            Box::new(move |r| vec![("AccessionNumber", tags::ACCESSION_NUMBER, format!("ACC{:08}", some(r, 22)))]),
        ),
        (
            "PatientID",
            Box::new(move |r| vec![("PatientID", tags::PATIENT_ID, format!("PID{:08}", patient_of(some(r, 21))))]),
        ),
        ("PatientName=DOE*", Box::new(|_| vec![("PatientName", tags::PATIENT_NAME, "DOE*".into())])),
        ("PatientName=SMITH*", Box::new(|_| vec![("PatientName", tags::PATIENT_NAME, "SMITH*".into())])),
        (
            "StudyDate, a month",
            Box::new(|r| {
                let (year, month) = (2016 + r % 10, 1 + r % 11);
                vec![("StudyDate", tags::STUDY_DATE, format!("{year}{month:02}01-{year}{month:02}28"))]
            }),
        ),
        ("AccessionNumber=*ACC*", Box::new(|_| vec![("AccessionNumber", tags::ACCESSION_NUMBER, "*ACC*".into())])),
        (
            "a day and ModalitiesInStudy=CT",
            Box::new(|r| {
                let day = format!("{}{:02}{:02}", 2016 + r % 10, 1 + r % 11, 1 + r % 28);
                vec![
                    ("StudyDate", tags::STUDY_DATE, day),
                    ("ModalitiesInStudy", tags::MODALITIES_IN_STUDY, "CT".into()),
                ]
            }),
        ),
        ("work list, no key", Box::new(|_| Vec::new())),
    ]
}

const LIMIT: u64 = 101;

/// Longest time that filling an index may take.
const FILL_SECONDS_MAX: f64 = 1_800.0;

/// The site's name, as it is without configuration.
const SITE: &str = "main";

fn qido_path(keys: &Keys) -> String {
    let keys: String = keys.iter().map(|(name, _, value)| format!("&{name}={value}")).collect();
    format!("/dicom-web/studies?limit={LIMIT}&includefield=StudyDescription&includefield=ModalitiesInStudy{keys}")
}

/// Asks each query by both doors, `rounds` times.
fn ask_all(bench: &mut Bench, server: &Server, studies: u64, rounds: u64, uid: &dyn Fn(u64) -> String) -> Outcome<()> {
    for (name, keys) in queries(studies, uid) {
        let unique = ["StudyInstanceUID", "AccessionNumber", "PatientID"].contains(&name);
        let rounds = if unique { rounds * 4 } else { rounds };
        let mut client = Http::connect(server.http)?;
        let mut body = Vec::new();
        client.get(&qido_path(&keys(0)), "application/dicom+json", Some(&mut body))?;
        let answers = String::from_utf8_lossy(&body).matches("\"0020000D\"").count();
        if unique && answers == 0 {
            return Err(format!("QIDO-RS {name}: nothing found").into());
        }
        let (meter, mut times) = (Meter::begin(server)?, Vec::new());
        for round in 0..rounds {
            let path = qido_path(&keys(round));
            let begun = Instant::now();
            client.get(&path, "application/dicom+json", None)?;
            times.push(begun.elapsed());
        }
        let load = meter.end(rounds);
        bench.report.row(
            &format!("{studies} studies, QIDO-RS {name}"),
            server.kind,
            &format!("{answers} answers"),
            &latency(times),
            &load,
        );
        find(bench, server, &format!("{studies} studies, C-FIND {name}"), rounds, &keys)?;
    }
    Ok(())
}

fn find(bench: &mut Bench, server: &Server, what: &str, rounds: u64, keys: &dyn Fn(u64) -> Keys) -> Outcome<()> {
    let mut finder = Finder::open(server)?;
    // A list without a limit takes Orthanc seconds.
    let (meter, mut times, mut firsts, mut count) = (Meter::begin(server)?, Vec::new(), Vec::new(), 0);
    for round in 0..rounds {
        let keys = keys(round);
        let mut all = vec![(tags::QUERY_RETRIEVE_LEVEL, "STUDY")];
        all.extend(keys.iter().map(|(_, tag, value)| (*tag, value.as_str())));
        for tag in [
            tags::STUDY_INSTANCE_UID,
            tags::STUDY_DATE,
            tags::PATIENT_NAME,
            tags::STUDY_DESCRIPTION,
            tags::MODALITIES_IN_STUDY,
        ] {
            if !all.iter().any(|(own, _)| *own == tag) {
                all.push((tag, ""));
            }
        }
        let begun = Instant::now();
        let (found, first) = finder.find(&all, LIMIT)?;
        times.push(begun.elapsed());
        firsts.push(first);
        count += found;
    }
    finder.close()?;
    let load = meter.end(rounds);
    let result = format!("{:.1} answers, first {}", count as f64 / rounds as f64, latency(firsts));
    bench.report.row(what, server.kind, &result, &latency(times), &load);
    Ok(())
}

/// A thousand studies of one instance of 2 kB, stored by C-STORE, then queried.
pub fn stored(bench: &mut Bench, kind: Kind) -> Outcome<()> {
    let server = bench.server(kind)?;
    let studies = bench.scaled(1_000);
    let headers = Headers::of_length(1_800);
    let mut association = crate::dimse::Association::request(server.dicom, "BENCH", server.title(), STORAGE)?;
    let mut uids = Vec::new();
    for study in 0..studies {
        let template = Template::new(headers.data_set(study, 1), study)?;
        store_on(&mut association, &template, 0..1)?;
        uids.push(template.study);
    }
    association.release()?;
    server.settle()?;
    ask_all(bench, &server, studies, 25, &|study| uids[study as usize].clone())?;
    server.stop()?;
    Ok(())
}

/// Appends so many studies to a log as ingest would have; gives the bytes of one event.
async fn fill(log: Arc<dyn EventLog>, studies: u64, instances: u64, headers: &Headers) -> Outcome<usize> {
    let (site, partitions) = (SITE.parse()?, log.partitions());
    let mut bytes = 0;
    // Studies come one after the other; what of 500 goes to one partition is appended at once.
    for first in (0..studies).step_by(500) {
        let mut of = vec![Vec::new(); usize::from(partitions)];
        for study in first..studies.min(first + 500) {
            let partition = Partition::of_study(&study_uid(study), partitions);
            for instance in 1..=instances {
                let record = headers.record(&site, study, instance)?;
                bytes = record.payload.len();
                of[usize::from(partition.0)].push(record);
            }
        }
        let appends = of.into_iter().zip(0..).filter(|(records, _)| !records.is_empty());
        let appends = appends.map(|(records, partition)| log.append(Partition(partition), records));
        for appended in futures_util::future::join_all(appends).await {
            appended?;
        }
    }
    log.close().await?;
    Ok(bytes)
}

/// The log that a server on this directory will have.
async fn log_of(place: &Place, kind: Kind, dir: &Path) -> Outcome<Arc<dyn EventLog>> {
    if let Some(engines) = place.engines.as_ref().filter(|_| kind == Kind::Cluster) {
        engines.prepare(&place.cairn, dir, "")?;
        return engines.log(dir, SITE.parse()?).await;
    }
    let at = data(dir).join("log");
    std::fs::create_dir_all(&at)?;
    let (disk, clock) = (Arc::new(RealDisk), Arc::new(SystemClock::new()));
    Ok(Arc::new(EmbeddedEventLog::open(disk, clock, at, EventLogConfig::new(SITE.parse()?)).await?))
}

/// Starts Cairn on a log and waits until its index has folded it.
fn rebuild(
    bench: &mut Bench,
    kind: Kind,
    (studies, instances): (u64, u64),
    headers: &Headers,
    what: &str,
) -> Outcome<Server> {
    let dir: TempDir = tempfile::tempdir_in(&bench.place.dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let bytes = runtime.block_on(async {
        let log = log_of(&bench.place, kind, dir.path()).await?;
        fill(log, studies, instances, headers).await
    })?;
    drop(runtime);
    let events = studies * instances;
    let engines = bench.place.engines.as_ref().map(Engines::process).unwrap_or_default();
    let (begun, engines_before) = (Instant::now(), engines.cpu_seconds());
    let server = Server::start_in(&bench.place, kind, dir, None)?;
    let meter = Meter::begin(&server)?;
    loop {
        match server.behind() {
            Ok(0) => break,
            // A busy index may be late with its status.
            Ok(_) | Err(_) if meter.seconds() < FILL_SECONDS_MAX => {}
            Ok(left) => return Err(format!("{left} of {events} events are left").into()),
            Err(error) => return Err(error),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // From the process's begin, all its processor time and all its memory.
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), server.process.cpu_seconds());
    let load = meter.end(events);
    let each = |seconds: f64| seconds * 1e6 / events as f64;
    let mut result = format!("{:.0} events/s, {:.1} us of CPU each", events as f64 / seconds, each(cpu));
    if kind == Kind::Cluster {
        result += &format!(", the engines' {:.1} us", each(engines.cpu_seconds() - engines_before));
    }
    let what = format!("index of {studies} studies of {instances}, {what}, events of {bytes} B");
    bench.report.row(&what, kind, &result, "", &load);
    Ok(server)
}

/// Rebuilds and queries at each size.
pub fn sizes(bench: &mut Bench, kind: Kind) -> Outcome<()> {
    let full = Headers::with(scanner());
    let studies = bench.scaled(2_000);
    drop(rebuild(bench, kind, (studies, 10), &full, "full CT headers")?);
    let headers = Headers::of_length(2_048);
    for studies in bench.studies.clone() {
        // A million studies of ten would take 40 GB.
        let instances = if studies >= 1_000_000 { 1 } else { 10 };
        let server = rebuild(bench, kind, (studies, instances), &headers, "2 kB headers")?;
        ask_all(bench, &server, studies, 50, &study_uid)?;
        if kind == Kind::Cairn {
            looks_ahead(bench, &server, studies)?;
            let disk = server.disk_bytes() as f64 / 1e6;
            let what = format!("{studies} studies of {instances}: log and index on the disk");
            bench.report.plain(&what, kind, &format!("{disk:.0} MB"));
        }
        server.stop()?;
    }
    Ok(())
}

/// A policy's what-if, which evaluates its expression over all studies.
fn looks_ahead(bench: &mut Bench, server: &Server, studies: u64) -> Outcome<()> {
    let expression = "('CT' in modalities || study_age_days > 3650) && study_uid == '1.2.3'";
    let (meter, begun) = (Meter::begin(server)?, Instant::now());
    let said = server.asked(&bench.place, &words(&["policy", "what-if", "--where", expression, "-o", "json"]))?;
    let took = begun.elapsed();
    let sums: serde_json::Value = serde_json::from_str(said.lines().next_back().unwrap_or_default())?;
    if sums["Studies"] != studies {
        return Err(format!("what-if went through other than {studies} studies: {sums}").into());
    }
    let load = meter.end(studies);
    let rate = format!("{:.0} studies/s", studies as f64 / load.seconds);
    bench.report.row(&format!("what-if over {studies} studies"), server.kind, &rate, &latency(vec![took]), &load);
    Ok(())
}

/// Memory at rest: a new archive, and one with 10,000 studies after a restart.
pub fn at_rest(bench: &mut Bench, kind: Kind) -> Outcome<()> {
    let server = bench.server(kind)?;
    std::thread::sleep(Duration::from_secs(1));
    bench.report.plain("at rest, new", kind, &format!("{:.1} MiB resident", server.process.resident_mib()));
    server.stop()?;
    let studies = bench.scaled(10_000);
    let server = rebuild(bench, kind, (studies, 10), &Headers::of_length(2_048), "2 kB headers")?;
    let before = server.process.resident_mib();
    let begun = Instant::now();
    let dir = server.stop()?;
    let stopped = begun.elapsed();
    let begun = Instant::now();
    let server = Server::start_in(&bench.place, kind, dir, None)?;
    let started = begun.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    let result = format!(
        "{:.1} MiB resident; {before:.1} before; stopped in {:.2} s, ready in {:.2} s",
        server.process.resident_mib(),
        stopped.as_secs_f64(),
        started.as_secs_f64()
    );
    bench.report.plain(&format!("at rest, {studies} studies of 10, restarted"), kind, &result);
    server.stop()?;
    Ok(())
}
