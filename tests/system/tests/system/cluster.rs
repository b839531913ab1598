//! An archive of many processes over real engines: one Kafka broker, one Cassandra node, one SeaweedFS, that all tests of
//! this kind share, each with a topic, a bucket and a keyspace of its own.

use crate::support::{Archive, Start, cairn, directory, eventually, free_port, repository};
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};
use tempfile::TempDir;

/// Tests that only use the engines share them; one that stops an engine has all of them to itself.
static ENGINES: RwLock<()> = RwLock::new(());

/// The engines, while no test stops them.
pub fn engines() -> RwLockReadGuard<'static, ()> {
    ENGINES.read().unwrap_or_else(PoisonError::into_inner)
}

/// The engines, for a test that stops them. All run again when it is dropped.
pub struct OwnEngines {
    _all: RwLockWriteGuard<'static, ()>,
}

impl OwnEngines {
    /// Waits for the tests that use them.
    pub fn take() -> Self {
        Self { _all: ENGINES.write().unwrap_or_else(PoisonError::into_inner) }
    }

    /// `tools/engines VERB ENGINE`, which must end well.
    pub fn tool(&self, verb: &str, engine: &str) {
        assert!(tool(&[verb, engine]), "tools/engines {verb} {engine}");
    }
}

impl Drop for OwnEngines {
    fn drop(&mut self) {
        // Whatever the test left: stopped, killed or halted.
        for verb in ["resume", "start"] {
            tool(&[verb]);
        }
    }
}

fn unique_name(folder: &TempDir) -> String {
    let name = folder.path().file_name().unwrap().to_string_lossy().to_lowercase();
    name.chars().filter(char::is_ascii_alphanumeric).collect()
}

fn tool(arguments: &[&str]) -> bool {
    Command::new(repository().join("tools/engines")).args(arguments).status().unwrap().success()
}

pub fn endpoint(key: &str) -> String {
    std::env::var(key).unwrap_or_else(|_| panic!("{key} is missing: `make test` starts the engines, or `make engines`"))
}

/// Processes of each role.
#[derive(Clone, Copy)]
pub struct Size {
    pub ingest: usize,
    pub index: usize,
    pub retrieval: usize,
    pub lifecycle: usize,
}

impl Size {
    /// Two of each, where there can be.
    pub const TWO: Self = Self { ingest: 2, index: 2, retrieval: 2, lifecycle: 1 };
}

/// A running cluster.
pub struct Cluster {
    environment: Vec<(&'static str, String)>,
    pub folder: TempDir,
    config: PathBuf,
    addresses: BTreeMap<String, SocketAddr>,
    /// By name: `ingest-0`, `index-1`, and so on.
    pub processes: BTreeMap<String, Archive>,
    /// Its doors.
    pub gateway: Option<Archive>,
}

impl Cluster {
    /// Makes its stores and starts it; returns when all of it is ready. `more` is set in the environment of each process.
    pub fn start(size: Size, more: &[(&'static str, &str)]) -> Self {
        Self::start_configured(size, more, "")
    }

    /// The same, with further tables of its configuration file.
    pub fn start_configured(size: Size, more: &[(&'static str, &str)], tables: &str) -> Self {
        let mut cluster = Self::prepare(size);
        let file = fs::read_to_string(&cluster.config).unwrap();
        fs::write(&cluster.config, file + tables).unwrap();
        cluster.environment = more.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        cluster.create_stores();
        cluster.processes = cluster.launch_all();
        cluster.start_gateway();
        cluster.wait_ready();
        cluster
    }

    fn prepare(size: Size) -> Self {
        let folder = directory();
        let roles = [
            ("ingest", size.ingest),
            ("index", size.index),
            ("retrieval", size.retrieval),
            ("lifecycle", size.lifecycle),
        ];
        let mut addresses = BTreeMap::new();
        for (role, count) in roles {
            for number in 0..count {
                addresses.insert(format!("{role}-{number}"), SocketAddr::from(([127, 0, 0, 1], free_port())));
            }
        }
        let config = folder.path().join("cairn.toml");
        let unique = unique_name(&folder);
        let of = |role: &str| {
            let of_role = addresses.iter().filter(|(name, _)| name.starts_with(role));
            format!("{:?}", of_role.map(|(_, address)| address.to_string()).collect::<Vec<_>>())
        };
        let credentials = folder.path().join("credentials.toml");
        let (id, secret) = (endpoint("CAIRN_TEST_S3_ACCESS_KEY"), endpoint("CAIRN_TEST_S3_SECRET_KEY"));
        fs::write(&credentials, format!("access_key_id = {id:?}\nsecret_access_key = {secret:?}\n")).unwrap();
        let text = format!(
            "[stores]\nlog = \"kafka\"\nobjects = \"s3\"\nindex = \"cql\"\n\
             [kafka]\nbrokers = {:?}\ntopic = \"{unique}\"\npartitions = 8\nreplication_factor = 1\nmin_insync_replicas = 1\n\
             [s3]\nendpoint = {:?}\nbucket = \"{unique}\"\ncredentials_file = {credentials:?}\n\
             [cql]\ncontact_points = [{:?}]\nkeyspace = \"{unique}\"\ncopies = 1\n\
             [peers]\ningest = {}\nindex = {}\nretrieval = {}\nlifecycle = {}\n",
            endpoint("CAIRN_TEST_KAFKA"),
            endpoint("CAIRN_TEST_S3"),
            endpoint("CAIRN_TEST_CQL"),
            of("ingest"),
            of("index"),
            of("retrieval"),
            of("lifecycle"),
        );
        fs::write(&config, text).unwrap();
        Self { environment: Vec::new(), folder, config, addresses, processes: BTreeMap::new(), gateway: None }
    }

    /// `cairn stores create`.
    pub fn create_stores(&self) {
        let mut command = Command::new(cairn());
        command.args(["stores", "create", "--config"]).arg(&self.config).envs(self.environment.iter().cloned());
        let made = command.output().unwrap();
        assert!(made.status.success(), "cairn stores create: {made:?}");
    }

    /// Names of all its processes but the gateway.
    pub fn names(&self) -> Vec<String> {
        self.addresses.keys().cloned().collect()
    }

    /// Those of one role that run.
    pub fn of_role(&self, role: &'static str) -> impl Iterator<Item = &Archive> {
        self.processes.iter().filter(move |(name, _)| name.starts_with(role)).map(|(_, process)| process)
    }

    /// Name of its topic, its bucket and its keyspace.
    pub fn name(&self) -> String {
        unique_name(&self.folder)
    }

    /// Starts one, or starts it again.
    pub fn start_process(&mut self, name: &str) {
        let process = self.launch(name);
        self.processes.insert(name.to_owned(), process);
    }

    /// All at once, as an orchestrator does.
    fn launch_all(&self) -> BTreeMap<String, Archive> {
        let names = self.names();
        std::thread::scope(|scope| {
            let launched: Vec<_> = names.iter().map(|name| scope.spawn(move || self.launch(name))).collect();
            names.iter().cloned().zip(launched.into_iter().map(|process| process.join().unwrap())).collect()
        })
    }

    fn launch(&self, name: &str) -> Archive {
        let grpc = self.addresses[name].to_string();
        let config = self.config.display().to_string();
        let arguments = vec!["--config".into(), config, "--grpc".into(), grpc];
        let role = name.split('-').next().unwrap();
        let start = Start { role, arguments, environment: self.environment.clone(), ..Start::default() };
        Archive::start_with(&self.folder.path().join(name), start)
    }

    /// Starts the process that keeps another site in step, where the environment names one; gives where that can call it.
    pub fn start_replication(&mut self) -> SocketAddr {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        self.addresses.insert("replication-0".into(), address);
        self.start_process("replication-0");
        address
    }

    /// Starts its doors.
    pub fn start_gateway(&mut self) {
        let arguments = vec!["--config".into(), self.config.display().to_string()];
        let environment = self.environment.clone();
        let start = Start { role: "gateway", arguments, environment, ..Start::default() };
        self.gateway = Some(Archive::start_with(&self.folder.path().join("gateway"), start));
    }

    /// kill -9 of one process.
    pub fn kill(&mut self, name: &str) {
        self.processes.remove(name).expect("it runs").kill();
    }

    /// One that runs.
    pub fn process(&self, name: &str) -> &Archive {
        &self.processes[name]
    }

    /// SIGTERM to one; returns when it has ended in order.
    pub fn stop_process(&mut self, name: &str) {
        let mut process = self.processes.remove(name).expect("it runs");
        process.expect_in_log(" WARN ");
        process.stop();
    }

    /// Its doors.
    pub fn door(&self) -> &Archive {
        self.gateway.as_ref().expect("it runs")
    }

    /// Waits until every process can do its work.
    pub fn wait_ready(&self) {
        for process in self.processes.values().chain(&self.gateway) {
            let name = process.data.file_name().unwrap().display();
            eventually(&format!("{name} that is ready"), || process.ready().0.then_some(()));
        }
    }

    /// Stops its doors, then the others at once. While something was `away`, lines at WARN are expected; at ERROR never.
    pub fn stop(mut self, away: bool) {
        let stop = |mut process: Archive| {
            if away {
                process.expect_in_log(" WARN ");
            }
            process.stop();
        };
        self.gateway.take().into_iter().for_each(stop);
        std::thread::scope(|scope| {
            for process in std::mem::take(&mut self.processes).into_values() {
                scope.spawn(move || stop(process));
            }
        });
    }
}
