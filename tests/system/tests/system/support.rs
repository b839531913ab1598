//! Running the real executable, and tools beside it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longest wait for anything that must happen soon. Generous: the machine may be busy.
pub const SOON: Duration = Duration::from_secs(60);

/// Rounds of each fault: `CAIRN_TEST_ROUNDS`, or `short`.
pub fn rounds(short: u64) -> u64 {
    std::env::var("CAIRN_TEST_ROUNDS").map_or(short, |rounds| rounds.parse().unwrap())
}

/// How long something stays away: seconds, and a minute where many rounds are run.
pub fn away_for() -> Duration {
    Duration::from_secs(if std::env::var_os("CAIRN_TEST_ROUNDS").is_some() { 60 } else { 5 })
}

/// The executable under test: `CAIRN_BIN`, or the one built beside this test.
pub fn cairn() -> PathBuf {
    if let Some(path) = std::env::var_os("CAIRN_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(Path::parent).unwrap().join("cairn");
    assert!(built.exists(), "{} is missing: cargo build -p cairn", built.display());
    built
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The Python that has pydicom, pynetdicom and dicomweb-client.
pub fn python() -> PathBuf {
    let python = match std::env::var_os("CAIRN_PYTHON") {
        Some(path) => path.into(),
        None => repository().join("target/py/bin/python"),
    };
    assert!(python.exists(), "{} is missing: make deps", python.display());
    python
}

/// A running archive.
pub struct Archive {
    child: Child,
    pub data: PathBuf,
    pub dicom: SocketAddr,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    log: PathBuf,
    /// Lines of the log at WARN or ERROR that the test expects.
    announced: Vec<&'static str>,
}

/// How to start an archive.
#[derive(Default)]
pub struct Start<'a> {
    /// What it is; empty: `serve`. A gateway has no data directory.
    pub role: &'a str,
    pub arguments: Vec<String>,
    pub environment: Vec<(&'a str, String)>,
    /// A command that runs it, if it is not run at once: what `nsenter` needs, for example.
    pub within: Vec<String>,
}

impl Archive {
    /// Starts an archive with no configuration on free ports; returns when it serves.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, Start::default())
    }

    /// The same with more arguments and environment.
    pub fn start_with(data: &Path, start: Start<'_>) -> Self {
        Self::try_start(data, start).unwrap_or_else(|(status, log)| panic!("cairn did not start: {status}\n{log}"))
    }

    /// The same; an archive that ends before it serves gives its status and log.
    pub fn try_start(data: &Path, start: Start<'_>) -> Result<Self, (ExitStatus, String)> {
        fs::create_dir_all(data).unwrap();
        let log = data.with_extension(format!("log-{}", unique()));
        let role = if start.role.is_empty() { "serve" } else { start.role };
        let mut command = command_within(&start.within);
        command.arg(role);
        for listener in ["--dicom", "--http", "--grpc"] {
            if !start.arguments.iter().any(|argument| argument == listener) {
                command.args([listener, "127.0.0.1:0"]);
            }
        }
        if role != "gateway" {
            command.arg("--data").arg(data);
        }
        let mut child = command
            .args(&start.arguments)
            // Hundreds of archives are started: little room each.
            .env("CAIRN__DATA__PREWRITTEN_BYTES", "1 MiB")
            .envs(start.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        // Keeps reading, so that the archive never blocks on its standard output.
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let deadline = Instant::now() + SOON;
        let address = |line: &str| line.rsplit(['@', ' ', '/']).find_map(|part| part.parse::<SocketAddr>().ok());
        let (mut dicom, mut http, mut grpc) = (None, None, None);
        while http.is_none() {
            let line = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(_) => {
                    let _already_ended = child.kill();
                    let status = child.wait().unwrap();
                    return Err((status, fs::read_to_string(&log).unwrap_or_default()));
                }
            };
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["DICOM", rest] => dicom = address(rest),
                ["gRPC", rest, ..] => grpc = address(rest),
                // The last one.
                ["health", rest, ..] => http = rest.split('/').find_map(|part| part.parse().ok()),
                _ => {}
            }
        }
        // A process without that door has none; nothing answers there.
        let dicom = dicom.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 1)));
        let (http, grpc) = (http.unwrap(), grpc.unwrap());
        Ok(Self { child, data: data.to_owned(), dicom, http, grpc, log, announced: Vec::new() })
    }

    /// Takes lines with this text at WARN or ERROR as expected.
    pub fn expect_in_log(&mut self, text: &'static str) {
        self.announced.push(text);
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Halts the process where it is, as SIGSTOP does.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().unwrap().success());
    }

    /// Bytes of memory that it has now.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// kill -9, and waits for its end.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the archive did not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it says that it can do its work, and what it says.
    pub fn ready(&self) -> (bool, String) {
        let answer = self.get("/readyz", "*/*");
        (answer.status == 200, String::from_utf8(answer.body).unwrap())
    }

    /// SIGTERM; asserts an orderly end and a log without a WARN or ERROR that the test did not announce.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait();
        let log = self.log();
        assert!(status.success(), "{status}\n{log}");
        let unexpected: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
            .filter(|line| !self.announced.iter().any(|text| line.contains(text)))
            .collect();
        assert!(unexpected.is_empty(), "not announced by the test:\n{}", unexpected.join("\n"));
    }

    /// A `cairn` command that talks to this archive; gives its output.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let server = format!("http://{}", self.grpc);
        Command::new(cairn()).args(arguments).env("CAIRN_SERVER", server).stdin(Stdio::null()).output().unwrap()
    }

    /// The same, which must end well; gives standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(output.status.success(), "cairn {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// GET of a path on the HTTP listener: status, head and body.
    pub fn get(&self, path: &str, accept: &str) -> Response {
        http(
            self.http,
            &format!("GET {path} HTTP/1.1\r\nHost: cairn\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"),
            b"",
        )
    }

    /// Waits until the index has folded all that the log holds: what is stored is then found by anyone.
    pub fn settled(&self) {
        eventually("an index that has caught up", || {
            let ready = String::from_utf8(self.get("/readyz", "*/*").body).unwrap();
            ready.contains("index: ok 0 events behind").then_some(())
        });
    }

    /// Instances stored by DICOMweb so far.
    pub fn stored(&self) -> f64 {
        self.metric("cairn_ingest_instances_total{door=\"dicomweb\",outcome=\"new\"}")
    }

    /// Metric value by its whole name with labels; 0 when it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.get("/metrics", "*/*").body).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!(
                "end of the log of {}:\n{}",
                self.data.display(),
                last.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        // A failed test must not leave its archive behind.
        let _already_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// Sends raw bytes and reads the answer to the end of the connection; chunked bodies are joined.
pub fn http(address: SocketAddr, head: &str, body: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    parse_response(&answer).expect("a whole answer")
}

/// Splits an answer that ended with its connection; `None` when it is not whole.
pub fn parse_response(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(answer[..end].to_vec()).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let (raw, lower) = (&answer[end..], head.to_ascii_lowercase());
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")).map(|text| text.parse().ok());
    let body = match length {
        Some(length) => raw.get(..length?).filter(|body| body.len() == raw.len())?.to_vec(),
        None if lower.contains("transfer-encoding: chunked") => join_chunks(raw)?,
        None => raw.to_vec(),
    };
    Some(Response { status, head, body })
}

fn join_chunks(mut raw: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = raw.windows(2).position(|two| two == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&raw[..end]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(raw.get(end + 2..end + 2 + length)?);
        raw = raw.get(end + 4 + length..)?;
    }
}

/// The executable, run by another command.
pub fn command_within(within: &[String]) -> Command {
    program_within(within, &cairn())
}

/// A program, run by another command.
pub fn program_within(within: &[String], program: &Path) -> Command {
    let Some((runner, arguments)) = within.split_first() else { return Command::new(program) };
    let mut command = Command::new(runner);
    command.args(arguments).arg(program);
    command
}

fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A directory for one test: `data` in it is the archive's.
pub fn directory() -> TempDir {
    TempDir::with_prefix("cairn-system-").unwrap()
}

/// Runs a tool to its end; a failure shows all its output.
pub fn run(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
    let program = program.as_ref();
    // dcmtk waits for delayed acknowledgements without it.
    let output = Command::new(program).args(arguments).env("TCP_NODELAY", "1").stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program:?} is missing ({error}): make deps"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?} {arguments:?}: {}\n{text}", output.status);
    text
}

/// Waits until `ready` gives something. For state that other processes reach; never a fixed wait. A cluster with its
/// engines on a busy machine may take long.
pub fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = ready() {
            return found;
        }
        let waited = begun.elapsed();
        assert!(waited < 3 * SOON, "{what} did not come about");
        // The longer, the more seldom: what looks, often a process of its own, takes its time from what is waited for.
        std::thread::sleep((waited / 16).clamp(Duration::from_millis(10), Duration::from_millis(100)));
    }
}

/// Writes the synthetic studies of a seed as files; gives their paths in order.
pub fn synthetic_files(folder: &Path, seed: u64, studies: u32) -> Vec<PathBuf> {
    fs::create_dir_all(folder).unwrap();
    let write = |(number, made): (usize, cairn_synthetic::Generated)| {
        let path = folder.join(format!("{number:04}.dcm"));
        fs::write(&path, made.file).unwrap();
        path
    };
    cairn_synthetic::studies(seed, studies).enumerate().map(write).collect()
}

/// A port that is free, and given once by this process: above those that the system hands out to clients and to listeners
/// of port 0 (32768 to 60999), so that nobody else has it by the time it is listened on, or while its process is down.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 61_000;
    const COUNT: u32 = 4_500;
    let begin = std::process::id().wrapping_mul(97);
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        assert!(given < COUNT, "no port is free");
        let port = (FIRST + begin.wrapping_add(given) % COUNT) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A tool that serves until dropped.
pub struct Tool(Child);

impl Tool {
    /// Starts it and waits until its port answers.
    pub fn start(program: &str, arguments: &[&str], port: u16) -> Self {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("TCP_NODELAY", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let tool = Self(command.spawn().unwrap_or_else(|error| panic!("{program}: {error}: make deps")));
        eventually(program, || TcpStream::connect(("127.0.0.1", port)).ok());
        tool
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _already_ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
