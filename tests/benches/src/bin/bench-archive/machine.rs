//! What the machine can do at most: syncs, loopback, digest.

use crate::{
    Outcome,
    measure::{Report, latency},
};
use cairn_benches::noise;
use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

fn first_line(path: &str, prefix: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(prefix)).unwrap_or_default();
    line.strip_prefix(prefix).unwrap_or(line).trim_start_matches([' ', '\t', ':']).trim().to_owned()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Commit, date, load, machine.
pub fn head(report: &mut Report, dir: &Path) {
    let changed =
        if output("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { ", changed" };
    report.say(&format!("# Bench of the whole archive, {}", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])));
    report.say(&format!("\n- commit: {}{changed}", output("git", &["rev-parse", "--short", "HEAD"])));
    report.say(&format!("- load average at start: {}", first_line("/proc/loadavg", "")));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    report.say(&format!("- processor: {} x {cores}", first_line("/proc/cpuinfo", "model name")));
    report.say(&format!("- kernel: {}", output("uname", &["-sr"])));
    let on = output("findmnt", &["-n", "-o", "FSTYPE,SOURCE", "-T", &dir.to_string_lossy()]);
    report.say(&format!("- data on: {on}"));
    report.say("- client and server share the cores, over loopback; every process is new and every directory empty");
    report.say("- peak memory: VmHWM since the row's begin; before: VmRSS at that moment");
    report.say("- Orthanc: Debian's, DICOMweb plugin, SQLite; it syncs each file before its answer (`SyncStorageArea`, default),");
    report.say("  but neither the directory nor its index; Cairn syncs bytes and event");
}

/// Writes and syncs for a few seconds.
fn syncs(dir: &Path, length: usize) -> Outcome<(f64, String)> {
    let bytes = noise(length);
    let path = dir.join("sync-rate");
    let mut file = File::create(&path)?;
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_secs(3) {
        let each = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.push(each.elapsed());
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok((rate, latency(times)))
}

fn loopback() -> Outcome<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let reader = std::thread::spawn(move || -> std::io::Result<u64> {
        let (mut stream, _) = listener.accept()?;
        let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(total),
                read => total += read as u64,
            }
        }
    });
    let mut stream = TcpStream::connect(address)?;
    let block = noise(1 << 20);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        stream.write_all(&block)?;
    }
    drop(stream);
    let total = reader.join().map_err(|_| "the reader panicked")??;
    Ok(total as f64 / 1e6 / begun.elapsed().as_secs_f64())
}

/// Measures the limits.
pub fn limits(report: &mut Report, dir: &Path) -> Outcome<()> {
    report.say("\n## The machine\n\n| what | figure | p50 / p99 |\n|---|---|---|");
    for (what, length) in [("526 kB", 526_000), ("8 kB", 8_192)] {
        let (rate, latency) = syncs(dir, length)?;
        let bytes = rate * length as f64 / 1e6;
        report.say(&format!("| append {what} and fdatasync, one thread | {rate:.0}/s, {bytes:.0} MB/s | {latency} |"));
    }
    report.say(&format!("| loopback, one stream | {:.0} MB/s | |", loopback()?));
    let (block, begun, mut total) = (noise(526_000), Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(1) {
        std::hint::black_box(blake3::hash(&block));
        total += block.len();
    }
    let rate = total as f64 / 1e6 / begun.elapsed().as_secs_f64();
    report.say(&format!("| BLAKE3, one core | {rate:.0} MB/s | |"));
    Ok(())
}
