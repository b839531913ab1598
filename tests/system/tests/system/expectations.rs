//! Every file of the real and odd set by three doors, alone and all together, against the committed table; and the
//! data set bytes that come back, against those that went in.
//!
//! `CAIRN_DICOM_DATA` names the set (default `../shared/data/dicom`); without it, synthetic files and those inside the
//! pydicom package pass the same checks but for the table. `CAIRN_WRITE_EXPECTATIONS=1` writes the table anew;
//! `CAIRN_TEST_ROUNDS` tries every file alone, not a tenth of them.

use crate::{
    exchange::{Answer, Door, Sender, Stored},
    support::{Archive, directory, python, repository, run, synthetic_files},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Files of one run: the name in the table, and where it is.
struct Set {
    name: &'static str,
    files: Vec<(String, PathBuf)>,
    has_table: bool,
}

fn sets(scratch: &Path) -> Vec<Set> {
    let default = repository().join("../shared/data/dicom");
    let root = std::env::var_os("CAIRN_DICOM_DATA").map_or(default, PathBuf::from);
    if let Ok(manifest) = fs::read_to_string(root.join("MANIFEST.csv")) {
        let names = manifest.lines().skip(1).filter_map(|line| line.split(',').next());
        let files = names.map(|name| (name.to_owned(), root.join(name))).collect();
        return vec![Set { name: "the real and odd files of CAIRN_DICOM_DATA", files, has_table: true }];
    }
    let synthetic = synthetic_files(&scratch.join("synthetic"), 31, 8);
    let list = "import pydicom.data, pathlib\n\
                root = pathlib.Path(pydicom.data.DATA_ROOT) / 'test_files'\n\
                print('\\n'.join(sorted(str(p) for p in root.rglob('*') if p.is_file() and p.suffix != '.py')))";
    let inside = run(python(), &["-c", list]);
    let named = |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), path);
    vec![
        Set { name: "synthetic files", files: synthetic.into_iter().map(named).collect(), has_table: false },
        Set {
            name: "the files inside pydicom",
            files: inside.lines().map(PathBuf::from).map(named).collect(),
            has_table: false,
        },
    ]
}

fn table_path() -> PathBuf {
    repository().join("tests/system/expectations.csv")
}

/// Outcomes of all files together by file and door. Alone, what is refused or not sent is so in the same words, and
/// everything else is `stored`.
type Table = BTreeMap<String, BTreeMap<String, String>>;

fn read_table() -> Table {
    let text = fs::read_to_string(table_path()).unwrap_or_default();
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let row = |line: &str| {
        let mut fields = line.split(',').map(str::to_owned);
        let file = fields.next()?;
        Some((file, head[1..].iter().map(|name| (*name).to_owned()).zip(fields).collect()))
    };
    lines.filter_map(row).collect()
}

fn write_table(table: &Table, order: &[(String, PathBuf)]) {
    let doors = Door::ALL.map(Door::name);
    let mut text = format!("file,{}\n", doors.join(","));
    for (file, _) in order {
        let fields = doors.iter().map(|door| table[file].get(*door).cloned().unwrap_or_default());
        text += &format!("{file},{}\n", fields.collect::<Vec<_>>().join(","));
    }
    fs::write(table_path(), text).unwrap();
}

/// Which files are tried alone: all with `CAIRN_TEST_ROUNDS`, else every tenth by a fixed hash
/// of its name, and all that the table says are refused.
fn alone(set: &Set, expected: &Table) -> Vec<(String, PathBuf)> {
    let all = std::env::var_os("CAIRN_TEST_ROUNDS").is_some();
    let tenth =
        |name: &str| name.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 10 == 0;
    let refused =
        |name: &str| expected.get(name).is_some_and(|row| row.values().any(|outcome| outcome.starts_with("refused")));
    set.files.iter().filter(|(name, _)| all || tenth(name) || refused(name)).cloned().collect()
}

fn writing() -> bool {
    std::env::var_os("CAIRN_WRITE_EXPECTATIONS").is_some()
}

/// Each file into an archive of its own.
fn run_alone(door: Door, files: &[(String, PathBuf)], scratch: &Path) -> Vec<(String, String)> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut sender = Sender::new(door);
        let mut outcomes = Vec::new();
        while let Some((name, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let data = scratch.join(format!("alone-{}", name.replace('/', "-"))).join(door.name());
            let archive = Archive::start(&data);
            let answer = sender.send(&archive, path, None);
            archive.kill();
            fs::remove_dir_all(&data).unwrap();
            outcomes.push((name.clone(), answer.outcome().unwrap_or_else(|| "stored".into())));
        }
        outcomes
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

/// All files in order into one archive; gives the outcomes after the comparisons, and what does not hold.
fn run_together(door: Door, set: &Set, scratch: &Path) -> (Vec<(String, String)>, Vec<String>) {
    let archive = Archive::start(&scratch.join(format!("together-{}", door.name())));
    let mut sender = Sender::new(door);
    let wires = scratch.join(format!("wires-{}", door.name()));
    fs::create_dir_all(&wires).unwrap();
    let wire = |number: usize| wires.join(number.to_string());
    sender.wires(&set.files.iter().enumerate().map(|(n, (_, path))| (path.clone(), wire(n))).collect::<Vec<_>>());
    let (mut outcomes, mut wrong, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    for (number, (name, path)) in set.files.iter().enumerate() {
        match sender.send(&archive, path, Some(&wire(number))) {
            Answer::Taken { data_set } => stored.push(Stored { name: name.clone(), data_set }),
            answer => outcomes.push((name.clone(), answer.outcome().unwrap_or_default())),
        }
    }
    let relations = crate::exchange::settle(&archive, &stored, scratch, door, &mut wrong);
    outcomes.extend(relations);
    let verified = archive.ok(&["index", "verify"]);
    if !verified.contains("equal") {
        wrong.push(format!("{}: index verify: {verified}", door.name()));
    }
    archive.stop();
    (outcomes, wrong)
}

#[test]
#[ignore = "three files by dcmtk differ from what was captured of its wire; not settled yet which side is wrong"]
fn every_file_has_the_outcome_of_the_table_and_comes_back_as_it_went() {
    let folder = directory();
    for set in sets(folder.path()) {
        println!("{}: {} files", set.name, set.files.len());
        let scratch = folder.path().join(set.name.replace(' ', "-"));
        fs::create_dir_all(&scratch).unwrap();
        let expected = if set.has_table { read_table() } else { Table::new() };
        let mut seen = Table::new();
        let mut wrong = Vec::new();
        let alone = alone(&set, &expected);
        let results: Vec<_> = std::thread::scope(|scope| {
            let (set, alone, scratch) = (&set, &alone, &scratch);
            let run = |door: Door| {
                move || {
                    let (together, wrong) = run_together(door, set, scratch);
                    (door, together, run_alone(door, alone, scratch), wrong)
                }
            };
            let doors: Vec<_> = Door::ALL.into_iter().map(|door| scope.spawn(run(door))).collect();
            doors.into_iter().map(|door| door.join().unwrap()).collect()
        });
        for (door, together, alone, found_wrong) in results {
            wrong.extend(found_wrong);
            summarise(door.name(), &together);
            summarise(&format!("{} alone", door.name()), &alone);
            for (name, outcome) in together {
                seen.entry(name).or_default().insert(door.name().to_owned(), outcome.replace(',', ";"));
            }
            for (name, outcome) in alone {
                let together = seen.get(&name).and_then(|row| row.get(door.name())).map_or("", String::as_str);
                let refused = together.starts_with("refused") || together.starts_with("not-sent");
                let expected = if refused { together } else { "stored" };
                if outcome.replace(',', ";") != expected {
                    wrong.push(format!("{name}, {} alone: {outcome}, together: {together}", door.name()));
                }
            }
        }
        if set.has_table && writing() {
            write_table(&seen, &set.files);
        } else if set.has_table {
            wrong.extend(differences(&expected, &seen));
        }
        assert!(wrong.is_empty(), "{} in all:\n{}", wrong.len(), wrong.join("\n"));
    }
}

fn summarise(column: &str, outcomes: &[(String, String)]) {
    let mut counts = BTreeMap::<&str, usize>::new();
    for (_, outcome) in outcomes {
        *counts.entry(outcome.as_str()).or_default() += 1;
    }
    println!("{column}:");
    counts.iter().for_each(|(outcome, count)| println!("  {count:4} {outcome}"));
}

fn differences(expected: &Table, seen: &Table) -> Vec<String> {
    let mut wrong = Vec::new();
    let names: BTreeSet<&String> = expected.keys().chain(seen.keys()).collect();
    let nothing = BTreeMap::new();
    for name in names {
        let (row, found) = (expected.get(name).unwrap_or(&nothing), seen.get(name).unwrap_or(&nothing));
        if row.is_empty() {
            wrong.push(format!("{name}: not in the table"));
        }
        for (column, outcome) in found {
            let expected = row.get(column).map_or("", String::as_str);
            if expected != outcome {
                wrong.push(format!("{name}, {column}: expected {expected:?}, got {outcome:?}"));
            }
        }
        if found.is_empty() {
            wrong.push(format!("{name}: in the table and not in the set"));
        }
    }
    wrong
}
