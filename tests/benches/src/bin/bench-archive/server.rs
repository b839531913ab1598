//! The archives under measurement, as real processes on free ports, each with a directory of its own.

use crate::{Outcome, cluster::Engines, http::Http};
use cairn_benches::process::Process;
use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Which archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Cairn,
    Orthanc,
    /// Cairn as processes over real engines: ingest with the doors, index, retrieval.
    Cluster,
}

/// How archives are started.
pub struct Place {
    pub cairn: PathBuf,
    /// Where their directories are made.
    pub dir: PathBuf,
    /// What a cluster's stores are in.
    pub engines: Option<Engines>,
}

/// A running archive. Dropping it kills it and removes its data; it also dies with this process.
pub struct Server {
    pub kind: Kind,
    /// All of its processes.
    pub process: Process,
    /// Those of the engines below it.
    pub engines: Process,
    pub dicom: SocketAddr,
    pub http: SocketAddr,
    /// Data directory of the process that replicates, and its HTTP listener.
    pub replication: (PathBuf, SocketAddr),
    children: Vec<Child>,
    dir: TempDir,
}

/// The AE title that C-MOVE sends to.
pub const SINK: &str = "SINK";

impl Server {
    /// Starts one on an empty directory; returns when it is ready. `sink` is where [`SINK`] listens.
    pub fn start(place: &Place, kind: Kind, sink: Option<SocketAddr>) -> Outcome<Self> {
        Self::start_in(place, kind, tempfile::tempdir_in(&place.dir)?, sink)
    }

    /// Starts one on what a directory holds.
    pub fn start_in(place: &Place, kind: Kind, dir: TempDir, sink: Option<SocketAddr>) -> Outcome<Self> {
        let mut engines = Process::default();
        let mut ports = None;
        let commands = match kind {
            Kind::Cairn => vec![cairn(place, &data(dir.path()), &["serve"], sink)],
            Kind::Orthanc => {
                let (dicom, http) = (free_port()?, free_port()?);
                ports = Some((dicom, http));
                let file = dir.path().join("orthanc.json");
                fs::write(&file, orthanc(&data(dir.path()), dicom, http, sink).to_string())?;
                let mut command = contained("/usr/sbin/Orthanc".as_ref());
                // Without it every DIMSE response waits 40 ms for the peer's delayed acknowledgement.
                command.env("TCP_NODELAY", "1").arg(file);
                vec![command]
            }
            Kind::Cluster => {
                let under = place.engines.as_ref().ok_or("a cluster needs --engines")?;
                engines = under.process();
                cluster(place, under, &dir, sink, None)?
            }
        };
        Self::run(kind, commands, ports, engines, dir)
    }

    /// Starts a site that keeps another one in step; returns when it is ready.
    pub fn start_site(place: &Place, kind: Kind, (name, grpc): (&str, u16), (peer, at): (&str, u16)) -> Outcome<Self> {
        let dir = tempfile::tempdir_in(&place.dir)?;
        let config = format!(
            "[site]\nname = \"{name}\"\n[replication]\ntell_interval = \"100ms\"\n\
             [replication.peers.{peer}]\naddresses = [\"127.0.0.1:{at}\"]\n"
        );
        if kind == Kind::Cluster {
            let engines = place.engines.as_ref().ok_or("a cluster needs --engines")?;
            let grpc = format!("127.0.0.1:{grpc}");
            let commands = cluster(place, engines, &dir, None, Some((&config, &grpc)))?;
            return Self::run(kind, commands, None, engines.process(), dir);
        }
        let file = dir.path().join("cairn.toml");
        fs::write(&file, config)?;
        let (file, grpc) = (file.to_string_lossy().into_owned(), format!("127.0.0.1:{grpc}"));
        let arguments = ["serve", "--config", &file, "--grpc", &grpc];
        let command = cairn(place, &data(dir.path()), &arguments, None);
        Self::run(Kind::Cairn, vec![command], None, Process::default(), dir)
    }

    /// Starts one process with a configuration on an empty directory; returns when it is ready.
    pub fn start_configured(place: &Place, config: &str) -> Outcome<Self> {
        let dir = tempfile::tempdir_in(&place.dir)?;
        let file = dir.path().join("cairn.toml");
        fs::write(&file, config)?;
        let command = cairn(place, &data(dir.path()), &["serve", "--config", &file.to_string_lossy()], None);
        Self::run(Kind::Cairn, vec![command], None, Process::default(), dir)
    }

    fn run(
        kind: Kind,
        commands: Vec<Command>,
        ports: Option<(u16, u16)>,
        engines: Process,
        dir: TempDir,
    ) -> Outcome<Self> {
        let (mut children, mut failed) = (Vec::new(), None);
        for mut command in commands {
            let log = fs::File::options().create(true).append(true).open(dir.path().join("stderr"))?;
            match command.stderr(log).spawn() {
                Ok(child) => children.push(child),
                Err(error) => failed = Some(error.into()),
            }
        }
        let process = Process::all(children.iter().map(Child::id));
        let outcome = failed.map_or_else(|| wait_until_ready(&mut children, &data(dir.path()), ports), Err);
        let none = SocketAddr::from(([0; 4], 0));
        let replication = (data(dir.path()), none);
        let mut server = Self { kind, process, engines, dicom: none, http: none, replication, children, dir };
        match outcome {
            Ok((dicom, http)) => {
                (server.dicom, server.http, server.replication.1) = (dicom, http, http);
                let apart = server.folder().join(REPLICATION);
                if apart.exists() {
                    let at = || listener(&apart, "http").ok_or("replication says not where it listens");
                    server.replication = (apart.clone(), at()?);
                }
                Ok(server)
            }
            Err(error) => {
                let log = fs::read_to_string(server.dir.path().join("stderr")).unwrap_or_default();
                Err(format!("{kind:?} did not start: {error}\n{log}").into())
            }
        }
    }

    /// Its AE title.
    pub fn title(&self) -> &'static str {
        match self.kind {
            Kind::Cairn | Kind::Cluster => "CAIRN",
            Kind::Orthanc => "ORTHANC",
        }
    }

    /// Where it is asked by gRPC.
    pub fn grpc(&self) -> Option<SocketAddr> {
        listener(&data(self.dir.path()), "grpc")
    }

    /// What a command of Cairn says that it must do.
    pub fn asked(&self, place: &Place, words: &[String]) -> Outcome<String> {
        let grpc = self.grpc().ok_or("it says not where it listens")?;
        let mut command = Command::new(&place.cairn);
        let done = command.args(words).env("CAIRN_SERVER", format!("http://{grpc}")).stdin(Stdio::null()).output()?;
        match done.status.success() {
            true => Ok(String::from_utf8(done.stdout)?),
            false => Err(format!("cairn {words:?}: {done:?}").into()),
        }
    }

    /// Its directory.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Stops it in order; gives its directory.
    pub fn stop(mut self) -> Outcome<TempDir> {
        let ids = self.children.iter().map(|child| child.id().to_string());
        Command::new("kill").arg("-TERM").args(ids).status()?;
        let deadline = Instant::now() + Duration::from_secs(60);
        for child in &mut self.children {
            while child.try_wait()?.is_none() {
                if Instant::now() > deadline {
                    return Err(format!("{:?} did not stop within a minute of SIGTERM", self.kind).into());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir()?);
        Ok(dir)
    }

    /// Bytes that its directory takes.
    pub fn disk_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let mut folders = vec![self.dir.path().to_owned()];
        let mut bytes = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(about) if about.is_dir() => folders.push(entry.path()),
                    Ok(about) => bytes += about.blocks() * 512,
                    Err(_) => {}
                }
            }
        }
        bytes
    }

    /// Events that its index has still to fold (Cairn's `/readyz`).
    pub fn behind(&self) -> Outcome<u64> {
        let mut body = Vec::new();
        Http::connect(self.http)?.get("/readyz", "*/*", Some(&mut body))?;
        let text = String::from_utf8(body)?;
        let count = text.lines().find_map(|line| line.strip_prefix("index: ok ")?.split(' ').next()?.parse().ok());
        count.ok_or_else(|| format!("not ready: {text}").into())
    }

    /// Waits until what was stored can be found.
    pub fn settle(&self) -> Outcome<()> {
        while self.kind != Kind::Orthanc && self.behind()? > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It has ended by itself where it was stopped in order.
            let _ended = (child.kill(), child.wait());
        }
    }
}

/// The data directory within a server's directory.
pub fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// A command that dies with this process.
fn contained(executable: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).stdin(Stdio::null()).stdout(Stdio::null()).arg(executable);
    command
}

/// A process of Cairn with doors.
fn cairn(place: &Place, data: &Path, arguments: &[&str], sink: Option<SocketAddr>) -> Command {
    let mut command = contained(&place.cairn);
    command.args(arguments).arg("--data").arg(data);
    if !arguments.contains(&"--grpc") {
        command.args(["--grpc", "127.0.0.1:0"]);
    }
    command.args(["--dicom", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    if let Some(sink) = sink {
        command.arg("--destination").arg(format!("{SINK}={sink}"));
    }
    command
}

/// The role that keeps another site in step, and its directory.
const REPLICATION: &str = "replication";

/// The processes of a cluster, of a site with its own configuration and replication's address too; those with doors write their endpoints where [`data`] says.
fn cluster(
    place: &Place,
    engines: &Engines,
    dir: &TempDir,
    sink: Option<SocketAddr>,
    site: Option<(&str, &str)>,
) -> Outcome<Vec<Command>> {
    let (more, replication) = site.unzip();
    let config = engines.prepare(&place.cairn, dir.path(), more.unwrap_or_default())?;
    let file = config.file.to_string_lossy();
    let roles = config.grpc.iter().map(|(role, grpc)| (*role, grpc.as_str()));
    let roles = roles.chain(replication.map(|grpc| (REPLICATION, grpc)));
    let roles = roles.map(|(role, grpc)| {
        let arguments = [role, "--config", &file, "--grpc", grpc];
        if role == "ingest" {
            return cairn(place, &data(dir.path()), &[&arguments[..], &["--doors", "dimse,dicomweb"]].concat(), sink);
        }
        let mut command = contained(&place.cairn);
        command.args(arguments).args(["--http", "127.0.0.1:0", "--data"]).arg(dir.path().join(role));
        command
    });
    Ok(roles.collect())
}

pub fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The first of the processes is the one with doors.
fn wait_until_ready(
    children: &mut [Child],
    data: &Path,
    ports: Option<(u16, u16)>,
) -> Outcome<(SocketAddr, SocketAddr)> {
    let deadline = Instant::now() + Duration::from_secs(120);
    let pid = children.first().map_or(0, Child::id);
    loop {
        for child in &mut *children {
            if let Some(status) = child.try_wait()? {
                return Err(format!("it ended: {status}").into());
            }
        }
        if Instant::now() > deadline {
            return Err("not ready within two minutes".into());
        }
        let (found, path) = match ports {
            Some((dicom, http)) => {
                let on = |port| SocketAddr::from(([127, 0, 0, 1], port));
                (Some((on(dicom), on(http))), "/system")
            }
            None => (endpoints(data, pid), "/readyz"),
        };
        if let Some((dicom, http)) = found
            && TcpStream::connect(dicom).is_ok()
            && Http::connect(http).and_then(|mut client| client.get(path, "*/*", None)).is_ok()
        {
            return Ok((dicom, http));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What Cairn wrote about its listeners, if it was this process.
fn endpoints(data: &Path, pid: u32) -> Option<(SocketAddr, SocketAddr)> {
    let text = fs::read(data.join("endpoints.json")).ok()?;
    let value: serde_json::Value = serde_json::from_slice(&text).ok()?;
    (value["pid"] == pid).then_some((listener(data, "dicom")?, listener(data, "http")?))
}

fn listener(data: &Path, name: &str) -> Option<SocketAddr> {
    let text = fs::read(data.join("endpoints.json")).ok()?;
    serde_json::from_slice::<serde_json::Value>(&text).ok()?[name].as_str()?.parse().ok()
}

/// Orthanc as it is installed, without checks of who calls, and with the largest PDU and as many DIMSE threads as this
/// bench has associations. Its default index (SQLite) and `SyncStorageArea` (each file is synced, neither its directory
/// nor the index) are left as they are.
fn orthanc(data: &Path, dicom: u16, http: u16, sink: Option<SocketAddr>) -> serde_json::Value {
    let sink = sink.map_or(1, |sink| sink.port());
    serde_json::json!({
        "Name": "Bench", "StorageDirectory": data, "IndexDirectory": data, "StorageCompression": false,
        "MaximumStorageSize": 0, "MaximumPatientCount": 0, "OverwriteInstances": false,
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
        "HttpServerEnabled": true, "HttpPort": http, "RemoteAccessAllowed": false, "AuthenticationEnabled": false,
        "KeepAlive": true, "TcpNoDelay": true,
        "DicomServerEnabled": true, "DicomAet": "ORTHANC", "DicomPort": dicom, "DicomCheckCalledAet": false,
        "DicomCheckModalityHost": false, "DicomAlwaysAllowEcho": true, "DicomAlwaysAllowStore": true,
        "DicomAlwaysAllowFind": true, "DicomAlwaysAllowGet": true, "DicomAlwaysAllowMove": true,
        "DicomThreadsCount": 8, "MaximumPduLength": 131_072, "UnknownSopClassAccepted": true,
        "DicomModalities": { "sink": [SINK, "127.0.0.1", sink] },
        "LimitFindResults": 0, "LimitFindInstances": 0,
        "DicomWeb": { "Enable": true, "Root": "/dicom-web/", "EnableWado": false }
    })
}
