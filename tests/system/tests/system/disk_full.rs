//! A disk that is really full under the real process: stores are refused with A700 and 507 before anything is lost, what
//! is there is read and found meanwhile, and stores go on when there is room, without a restart.
//!
//! The disk is a tmpfs in a mount namespace of its own, which an ordinary user may make where user namespaces are allowed
//! (`kernel.unprivileged_userns_clone`); it is gone with the process that holds it. A limit on file sizes would not do: it
//! says EFBIG for one file, and free room says nothing of it.

use crate::{
    stow::{Sent, data_set_of, data_set_over_http, stow},
    support::{Archive, Start, command_within, directory, eventually},
};
use cairn_dicom::{
    CharacterSet, Uid, Vr,
    dataset::{DataSet, Value},
    part10::{NewFileMeta, write_file_meta},
    tags,
    transfer_syntax::Encoding,
};
use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

pub const MIB: usize = 1 << 20;

/// A small file system.
pub struct SmallDisk {
    holder: Child,
    /// What runs a command that sees it.
    pub within: Vec<String>,
    /// Where it is, for those who see it.
    pub mounted: PathBuf,
    pub folder: TempDir,
}

impl SmallDisk {
    pub fn new(mebibytes: u32) -> Self {
        let folder = directory();
        let mounted = folder.path().join("disk");
        fs::create_dir(&mounted).unwrap();
        let mut said = String::new();
        // In a user namespace, as anyone may; else as root.
        for (user, enter) in
            [(&["--user", "--map-root-user"][..], &["--user", "--preserve-credentials"][..]), (&[], &[])]
        {
            let mut holder = Command::new("unshare")
                .args(user)
                .args(["--mount", "sh", "-c", "mount -t tmpfs -o size=$0m tmpfs \"$1\" && echo mounted && exec cat"])
                .arg(mebibytes.to_string())
                .arg(&mounted)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            said.clear();
            BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
            if said.trim() == "mounted" {
                let target = holder.id().to_string();
                let mut within: Vec<String> = ["nsenter", "--mount", "--target", &target].map(str::to_owned).into();
                within.extend(enter.iter().map(|&text| text.to_owned()));
                return Self { holder, within, mounted, folder };
            }
            holder.wait().unwrap();
        }
        panic!("a tmpfs can't be mounted: this test needs user namespaces, or root with CAP_SYS_ADMIN");
    }

    /// The mounted directory, as seen from outside.
    pub fn outside(&self, name: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(self.mounted.strip_prefix("/").unwrap()).join(name)
    }

    /// Takes so much room, or all there is.
    pub fn take(&self, name: &str, bytes: usize) {
        let mut file = fs::File::create(self.outside(name)).unwrap();
        let mut left = bytes;
        for step in [MIB, 4096] {
            while left > 0 {
                match file.write_all(&vec![0; step.min(left)]) {
                    Ok(()) => left -= step.min(left),
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    pub fn give_back(&self, name: &str) {
        fs::remove_file(self.outside(name)).unwrap();
    }

    pub fn environment(reserve: &str) -> Vec<(&'static str, String)> {
        vec![("CAIRN__DATA__RESERVE_BYTES", reserve.to_owned()), ("CAIRN__INGEST__RESERVED_ROOM", "4 MiB".to_owned())]
    }

    fn start(&self, reserve: &str) -> Archive {
        let environment = Self::environment(reserve);
        let start = Start { environment, within: self.within.clone(), ..Start::default() };
        Archive::start_with(&self.mounted.join("data"), start)
    }

    /// What `cairn doctor` says, and whether it found nothing wrong.
    fn doctor(&self, reserve: &str) -> (bool, String) {
        let mut doctor = command_within(&self.within);
        doctor.arg("doctor").env("CAIRN__DATA__DIRECTORY", self.mounted.join("data")).stdin(Stdio::null());
        let output = doctor.envs(Self::environment(reserve)).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _already_ended = self.holder.kill();
        let _reaped = self.holder.wait();
    }
}

/// A CT instance of half a mebibyte.
fn instance(number: u32) -> Sent {
    instance_of(number, MIB / 2)
}

/// A CT instance with so many bytes of pixels.
pub fn instance_of(number: u32, bytes: usize) -> Sent {
    let uid = |text: &str| text.parse::<Uid>().unwrap();
    let class = uid("1.2.840.10008.5.1.4.1.1.2");
    let sop_instance_uid = uid(&format!("2.25.77000{number}"));
    let mut set = DataSet::new();
    set.put_text(tags::SOP_CLASS_UID, class.as_str());
    set.put_text(tags::SOP_INSTANCE_UID, sop_instance_uid.as_str());
    set.put_text(tags::STUDY_INSTANCE_UID, &format!("2.25.78000{}", number / 10));
    set.put_text(tags::SERIES_INSTANCE_UID, &format!("2.25.79000{}", number / 10));
    set.put_text(tags::PATIENT_ID, "FULL");
    let mut random = cairn_synthetic::Random::new(u64::from(number));
    let pixels: Vec<u8> = (0..bytes / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    set.put(tags::PIXEL_DATA, Vr::OW, Value::Bytes(pixels.into()));
    let mut file = write_file_meta(&NewFileMeta {
        sop_class_uid: &class,
        sop_instance_uid: &sop_instance_uid,
        transfer_syntax_uid: "1.2.840.10008.1.2.1",
        source_ae_title: None,
    });
    file.extend(set.encode(Encoding::ExplicitLittle, CharacterSet::DEFAULT).unwrap());
    Sent::new(file, sop_instance_uid)
}

#[derive(Clone, Copy)]
enum Door {
    Stow,
    Dimse,
}

/// Sends a file by dcmtk; gives what it says.
pub fn storescu(archive: &Archive, path: &Path) -> String {
    let mut command = Command::new("storescu");
    command.args(["-d", "-xe", "-aec", "CAIRN"]).arg(archive.dicom.ip().to_string());
    command.arg(archive.dicom.port().to_string()).arg(path).env("TCP_NODELAY", "1").stdin(Stdio::null());
    let output = command.output().expect("storescu: make deps");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What was sent, and what of it was acknowledged.
struct Traffic {
    folder: PathBuf,
    next: u32,
    acknowledged: Vec<Sent>,
    refused: Vec<Sent>,
}

impl Traffic {
    fn new(disk: &SmallDisk) -> Self {
        let folder = disk.folder.path().to_owned();
        Self { folder, next: 0, acknowledged: Vec::new(), refused: Vec::new() }
    }

    /// One more by this door: acknowledged, or refused for want of room.
    fn send(&mut self, archive: &Archive, door: Door) -> bool {
        let sent = instance(self.next);
        self.next += 1;
        let taken = match door {
            Door::Stow => {
                let answer = stow(archive.http, &[&sent.file]).unwrap();
                assert!(matches!(answer.status, 200 | 507), "{answer:?}");
                answer.status == 200
            }
            Door::Dimse => {
                let path = self.folder.join("one.dcm");
                fs::write(&path, &sent.file).unwrap();
                let said = storescu(archive, &path);
                let status = said.lines().find_map(|line| line.split("DIMSE Status").nth(1)).expect(&said);
                let taken = status.contains("0x0000");
                assert!(taken || status.contains("0xa700"), "{status}");
                taken
            }
        };
        if taken {
            self.acknowledged.push(sent)
        } else {
            self.refused.push(sent)
        }
        taken
    }

    /// Sends by both doors in turn until both refuse.
    fn fill(&mut self, archive: &Archive) {
        let mut refused = [false; 2];
        while refused != [true; 2] {
            assert!(self.next < 1_000, "more than the disk holds");
            refused = [Door::Stow, Door::Dimse].map(|door| !self.send(archive, door));
        }
    }

    fn is_refused(&mut self, archive: &Archive) {
        for door in [Door::Stow, Door::Dimse] {
            assert!(!self.send(archive, door), "taken although there is no room");
        }
    }

    /// Both doors take instances again, and what they took is found.
    fn goes_on(&mut self, archive: &Archive) {
        for door in [Door::Stow, Door::Dimse] {
            eventually("a store once there is room", || self.send(archive, door).then_some(()));
        }
        archive.settled();
        self.check(archive);
        let verified = archive.ok(&["index", "verify"]);
        assert!(verified.contains("equal"), "{verified}");
    }

    /// Everything acknowledged is there byte for byte, and nothing else.
    fn check(&self, archive: &Archive) {
        for sent in &self.acknowledged {
            let uid = sent.sop_instance_uid.as_ref().unwrap();
            assert!(data_set_over_http(archive, uid) == [data_set_of(&sent.file)], "{uid} is not there as sent");
        }
        for sent in &self.refused {
            let uid = sent.sop_instance_uid.as_ref().unwrap();
            assert!(data_set_over_http(archive, uid).is_empty(), "{uid} was refused and is there");
        }
    }
}

/// Lines that a full disk may give.
fn announce(archive: &mut Archive) {
    for text in ["no room", "StorageFull", "No space left", "folding failed", "reserve", "stored bytes stay unnamed"] {
        archive.expect_in_log(text);
    }
}

#[test]
fn stores_are_refused_before_the_disk_is_full_and_go_on_when_there_is_room() {
    const RESERVE: &str = "16 MiB";
    let disk = SmallDisk::new(256);
    let mut archive = disk.start(RESERVE);
    announce(&mut archive);
    disk.take("ballast", 32 * MIB);
    let mut traffic = Traffic::new(&disk);
    assert!(traffic.send(&archive, Door::Stow) && traffic.send(&archive, Door::Dimse));
    let (sound, said) = disk.doctor(RESERVE);
    assert!(sound, "{said}");
    traffic.fill(&archive);
    println!("{} acknowledged, {} refused", traffic.acknowledged.len(), traffic.refused.len());
    archive.settled();
    traffic.check(&archive);
    let (sound, said) = disk.doctor(RESERVE);
    assert!(!sound && said.lines().any(|line| line.contains("WRONG") && line.contains("less room")), "{said}");
    archive.stop();

    let mut archive = disk.start(RESERVE);
    announce(&mut archive);
    archive.settled();
    traffic.check(&archive);
    traffic.is_refused(&archive);
    disk.give_back("ballast");
    traffic.goes_on(&archive);
    archive.stop();
}

#[test]
fn a_disk_that_others_filled_to_the_last_byte_costs_nothing_that_was_acknowledged() {
    const RESERVE: &str = "16 MiB";
    let disk = SmallDisk::new(256);
    let mut archive = disk.start(RESERVE);
    announce(&mut archive);
    let mut traffic = Traffic::new(&disk);
    for round in 0..3 {
        assert!(traffic.send(&archive, Door::Stow) && traffic.send(&archive, Door::Dimse));
        if round == 1 {
            archive.settled();
        }
        disk.take("ballast", usize::MAX);
        traffic.is_refused(&archive);
        if round == 1 {
            archive.stop();
            archive = disk.start(RESERVE);
            announce(&mut archive);
            // The index folds nothing now; what it had folded it finds.
            traffic.check(&archive);
            traffic.is_refused(&archive);
        }
        disk.give_back("ballast");
        traffic.goes_on(&archive);
    }
    archive.stop();
}

#[test]
fn without_a_reserve_each_store_meets_the_end_of_the_disk_and_recovers() {
    const RESERVE: &str = "0 B";
    let disk = SmallDisk::new(200);
    let mut archive = disk.start(RESERVE);
    announce(&mut archive);
    let mut traffic = Traffic::new(&disk);
    archive.expect_in_log("index store");
    for round in 0..3 {
        disk.take("ballast", 24 * MIB);
        traffic.fill(&archive);
        println!("round {round}: {} acknowledged, {} refused", traffic.acknowledged.len(), traffic.refused.len());
        disk.take("rest", usize::MAX);
        // Receipts of what was refused still fit into the log, and the index has no room to fold them.
        eventually("an index store that could not write", || {
            traffic.is_refused(&archive);
            (archive.log().matches("commit rows").count() > round).then_some(())
        });
        traffic.check(&archive);
        disk.give_back("rest");
        disk.give_back("ballast");
        traffic.goes_on(&archive);
    }
    assert!(archive.log().contains("the index store was opened anew"), "by itself, not by a restart");
    archive.stop();
}
