//! Cairn as processes over engines that run already, each cluster with a topic, a bucket and a keyspace of its own; and what
//! the object store takes without Cairn.

use crate::{
    Bench, Outcome,
    http::Http,
    measure::Meter,
    objects::Template,
    server::{Kind, free_port},
    storing::{at_once, store, tell},
};
use cairn_archive::SiteId;
use cairn_benches::process::Process;
use cairn_event_log_kafka::{KafkaConfig, KafkaEventLog};
use cairn_store_api::EventLog;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Instant,
};

/// A set of engines that `tools/engines` has started.
pub struct Engines {
    folder: PathBuf,
    endpoints: BTreeMap<String, String>,
    process: Process,
}

/// Where a cluster's processes find one another.
pub struct Prepared {
    pub file: PathBuf,
    /// Role and address of each; the one with doors first.
    pub grpc: Vec<(&'static str, String)>,
}

impl Engines {
    /// Those in this directory.
    pub fn at(folder: &Path) -> Outcome<Self> {
        let folder = folder.canonicalize()?;
        let text = fs::read_to_string(folder.join("endpoints.env"))?;
        let endpoints = text.lines().filter_map(|line| line.split_once('='));
        let endpoints = endpoints.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Ok(Self { process: running(&folder)?, folder, endpoints })
    }

    pub fn process(&self) -> Process {
        self.process.clone()
    }

    fn endpoint(&self, key: &str) -> Outcome<&str> {
        let found = self.endpoints.get(&format!("CAIRN_TEST_{key}"));
        Ok(found.ok_or_else(|| format!("the engines' endpoints.env has no CAIRN_TEST_{key}"))?)
    }

    /// The configuration of the cluster of a directory, with `more` in it; made with its stores if it isn't there.
    pub fn prepare(&self, cairn: &Path, dir: &Path, more: &str) -> Outcome<Prepared> {
        let mut grpc = Vec::new();
        for role in ["ingest", "index", "retrieval"] {
            grpc.push((role, format!("127.0.0.1:{}", free_port()?)));
        }
        let (file, name) = (dir.join("cairn.toml"), name_of(dir));
        let made = file.exists();
        let credentials = dir.join("credentials.toml");
        let (id, secret) = (self.endpoint("S3_ACCESS_KEY")?, self.endpoint("S3_SECRET_KEY")?);
        fs::write(&credentials, format!("access_key_id = {id:?}\nsecret_access_key = {secret:?}\n"))?;
        let mut text = format!(
            "[stores]\nlog = \"kafka\"\nobjects = \"s3\"\nindex = \"cql\"\n\
             [kafka]\nbrokers = {:?}\ntopic = {name:?}\nreplication_factor = 1\nmin_insync_replicas = 1\n\
             [s3]\nendpoint = {:?}\nbucket = {name:?}\ncredentials_file = {credentials:?}\n\
             [cql]\ncontact_points = [{:?}]\nkeyspace = {name:?}\ncopies = 1\n\
             [index]\nbatch_events_max = 8192\nbatch_bytes_max = \"16 MiB\"\n[peers]\n",
            self.endpoint("KAFKA")?,
            self.endpoint("S3")?,
            self.endpoint("CQL")?,
        );
        text.extend(grpc.iter().map(|(role, address)| format!("{role} = [{address:?}]\n")));
        text += more;
        fs::write(&file, text)?;
        if !made {
            let output = Command::new(cairn).args(["stores", "create", "--config"]).arg(&file).output()?;
            if !output.status.success() {
                return Err(format!("stores create: {}", String::from_utf8_lossy(&output.stderr)).into());
            }
        }
        Ok(Prepared { file, grpc })
    }

    /// The log of the cluster of a directory.
    pub async fn log(&self, dir: &Path, site: SiteId) -> Outcome<Arc<dyn EventLog>> {
        let config = KafkaConfig {
            brokers: self.endpoint("KAFKA")?.into(),
            topic: name_of(dir),
            replication_factor: 1,
            min_insync_replicas: 1,
            ..KafkaConfig::default()
        };
        Ok(Arc::new(KafkaEventLog::open(config, site).await?))
    }

    /// Addresses to put `count` objects at, by path and query, signed beforehand: signing costs nothing where it is measured.
    fn signed(&self, bucket: &str, folder: &str, count: u64) -> Outcome<Vec<String>> {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/engines.d/s3.py");
        let mut command = Command::new("python3");
        let output = command.arg(program).arg(&self.folder).args([bucket, folder, &count.to_string()]).output()?;
        if !output.status.success() {
            return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }
}

/// Processes whose environment says that they are an engine of this set.
fn running(folder: &Path) -> Outcome<Process> {
    let mark = format!("CAIRN_ENGINE_INSTANCE={}/", folder.display());
    let mut ids = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark.as_bytes())) {
            ids.push(id);
        }
    }
    if ids.is_empty() {
        return Err(format!("no engine runs in {}: tools/engines start", folder.display()).into());
    }
    Ok(Process::all(ids))
}

/// What the cluster of a directory is called in the engines.
fn name_of(dir: &Path) -> String {
    let name = dir.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    format!("bench{}", name.chars().filter(char::is_ascii_alphanumeric).collect::<String>())
}

const AT_ONCE: u64 = 8;

/// The same sizes, as many at once: put into the object store by a client that does nothing else, then sent to Cairn.
pub fn objects(bench: &mut Bench, kind: Kind) -> Outcome<()> {
    for (size, count) in [("CT 526 kB", bench.scaled(3_000)), ("2 kB", bench.scaled(8_000))] {
        let template = |n| if size.starts_with("CT") { Template::ct(n) } else { Template::small(n) };
        let server = bench.server(kind)?;
        store(&server, "BENCHWARM", &template(99)?, 20)?;
        let engines = bench.place.engines.as_ref().ok_or("there are no engines")?;
        let (each, bucket) = (count / AT_ONCE, name_of(server.folder()));
        let signed: Vec<_> =
            (0..AT_ONCE).map(|n| engines.signed(&bucket, &format!("raw-{n}"), each)).collect::<Outcome<_>>()?;
        let host = engines.endpoint("S3")?.rsplit('/').next().unwrap_or_default().to_owned();
        let bytes = template(0)?.data_set;
        let address = host.parse()?;
        let meter = Meter::begin(&server)?;
        let times = at_once(AT_ONCE, |n, _| {
            let mut client = Http::connect(address)?;
            let put = |path: &String| {
                let begun = Instant::now();
                client.put(&host, path, &bytes)?;
                Ok(begun.elapsed())
            };
            signed[n as usize].iter().map(put).collect()
        })?;
        let count = each * AT_ONCE;
        let raw = tell(
            bench,
            &format!("{size} put into SeaweedFS, {AT_ONCE} at once"),
            &server,
            meter,
            count,
            bytes.len(),
            times,
        );
        let meter = Meter::begin(&server)?;
        let times = at_once(AT_ONCE, |n, _| store(&server, &format!("BENCH{n}"), &template(n)?, each))?;
        let what = format!("{size} by C-STORE, {AT_ONCE} associations");
        let ours = tell(bench, &what, &server, meter, count, bytes.len(), times);
        bench.report.plain(&format!("{size}: of what SeaweedFS takes"), kind, &format!("{:.0} %", 100.0 * ours / raw));
        server.settle()?;
        server.stop()?;
    }
    Ok(())
}
