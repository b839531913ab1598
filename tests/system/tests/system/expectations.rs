//! Every file of the real and odd set by three doors, each alone into an empty archive and then all together, against
//! the committed table; and the data set bytes that come back, against those that went in.
//!
//! `CAIRN_DICOM_DATA` names the set (default `../shared/data/dicom`); without it, synthetic files and those inside the
//! pydicom package pass the same checks, and what is in the table of the latter is compared.
//! `CAIRN_WRITE_EXPECTATIONS=1` writes the table anew: look at its difference before it is committed.

use crate::{
    exchange::{Answer, Door, Held, Sender, Stored, shown},
    support::{Archive, directory, python, repository, run, synthetic_files},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Files of one run: the name in the table, and where it is.
struct Set {
    name: &'static str,
    files: Vec<(String, PathBuf)>,
    /// The whole of what the table is about.
    is_table: bool,
}

fn sets(scratch: &Path) -> Vec<Set> {
    let default = repository().join("../shared/data/dicom");
    let root = std::env::var_os("CAIRN_DICOM_DATA").map_or(default, PathBuf::from);
    if let Ok(manifest) = fs::read_to_string(root.join("MANIFEST.csv")) {
        let names = manifest.lines().skip(1).filter_map(|line| line.split(',').next());
        let files = names.map(|name| (name.to_owned(), root.join(name))).collect();
        return vec![Set { name: "real and odd files", files, is_table: true }];
    }
    let synthetic = synthetic_files(&scratch.join("synthetic"), 31, 8);
    let list = "import pydicom.data, pathlib\n\
                root = pathlib.Path(pydicom.data.DATA_ROOT)\n\
                print(root)\n\
                print('\\n'.join(sorted(str(p) for p in root.rglob('*.dcm'))))";
    let inside = run(python(), &["-c", list]);
    let (root, inside) = inside.split_once('\n').unwrap();
    let named = |path: &str| (path.replacen(root, "files/pydicom", 1), PathBuf::from(path));
    let made = |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), path);
    vec![
        Set { name: "files made in code", files: synthetic.into_iter().map(made).collect(), is_table: false },
        Set { name: "files inside pydicom", files: inside.lines().map(named).collect(), is_table: false },
    ]
}

fn table_path() -> PathBuf {
    repository().join("tests/system/expectations.csv")
}

/// Outcomes by file and column.
type Table = BTreeMap<String, BTreeMap<String, String>>;

/// All files in one archive, or each in one of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Together,
    Alone,
}

impl Mode {
    fn column(self, door: Door) -> String {
        match self {
            Self::Together => door.name().to_owned(),
            Self::Alone => format!("{} alone", door.name()),
        }
    }

    fn run(self, door: Door, set: &Set, scratch: &Path) -> (Vec<(String, String)>, Vec<String>) {
        match self {
            Self::Together => run_together(door, set, scratch),
            Self::Alone => run_alone(door, set, scratch),
        }
    }
}

fn read_table() -> Table {
    let text = fs::read_to_string(table_path()).unwrap();
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let row = |line: &str| {
        let mut fields = line.split(',').map(str::to_owned);
        let file = fields.next()?;
        Some((file, head[1..].iter().map(|name| (*name).to_owned()).zip(fields).collect()))
    };
    lines.filter_map(row).collect()
}

/// Replaces the columns that were seen.
fn write_table(seen: &Table, order: &[(String, PathBuf)]) {
    static TABLE: Mutex<()> = Mutex::new(());
    let _held = TABLE.lock().unwrap();
    let mut table = read_table();
    for (file, row) in seen {
        table.entry(file.clone()).or_default().extend(row.clone());
    }
    let columns = [Mode::Together, Mode::Alone].map(|mode| Door::ALL.map(|door| mode.column(door))).concat();
    let mut text = format!("file,{}\n", columns.join(","));
    for (file, _) in order {
        let fields = columns.iter().map(|column| table[file].get(column).cloned().unwrap_or_default());
        text += &format!("{file},{}\n", fields.collect::<Vec<_>>().join(","));
    }
    fs::write(table_path(), text).unwrap();
}

/// Each file into an archive of its own; what is taken must be what is shown. Two at a time: half of the time goes by
/// while the disk syncs.
fn run_alone(door: Door, set: &Set, scratch: &Path) -> (Vec<(String, String)>, Vec<String>) {
    let next = AtomicUsize::new(0);
    let worker = |number: usize| {
        let mut sender = Sender::new(door, scratch.join(format!("wire-{number}")));
        let (mut outcomes, mut wrong) = (Vec::new(), Vec::new());
        while let Some((name, path)) = set.files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let folder = scratch.join(number.to_string());
            let archive = Archive::start(&folder.join("data"));
            let answer = sender.send(&archive, path);
            let expected = match &answer {
                Answer::Taken { data_set } => vec![data_set.clone()],
                _ => Vec::new(),
            };
            if shown(&archive) != expected {
                wrong.push(format!("{name}, {} alone: what is shown is not what was taken", door.name()));
            }
            archive.kill();
            fs::remove_dir_all(&folder).unwrap();
            outcomes.push((name.clone(), answer.outcome().unwrap_or_else(|| "stored".into())));
        }
        (outcomes, wrong)
    };
    let found = std::thread::scope(|scope| {
        let worker = &worker;
        let workers = [0, 1].map(|number| scope.spawn(move || worker(number)));
        workers.map(|worker| worker.join().unwrap())
    });
    let (outcomes, wrong): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    (outcomes.concat(), wrong.concat())
}

/// All files in order into one archive; gives the outcomes after the comparisons, and what does not hold.
fn run_together(door: Door, set: &Set, scratch: &Path) -> (Vec<(String, String)>, Vec<String>) {
    let archive = Archive::start(&scratch.join("data"));
    let mut sender = Sender::new(door, scratch.join("wire"));
    let (mut outcomes, mut wrong, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    for (name, path) in &set.files {
        match sender.send(&archive, path) {
            Answer::Taken { data_set } => stored.push(Stored { name: name.clone(), data_set }),
            answer => outcomes.push((name.clone(), answer.outcome().unwrap_or_default())),
        }
    }
    outcomes.extend(Held::of(&archive, scratch).compare(&stored, &mut wrong));
    let verified = archive.ok(&["index", "verify"]);
    if !verified.contains("equal") {
        wrong.push(format!("index verify: {verified}"));
    }
    archive.stop();
    (outcomes, wrong.into_iter().map(|what| format!("{}: {what}", door.name())).collect())
}

/// Outcomes by all doors at once, compared with the table.
fn every_file(mode: Mode) {
    let folder = directory();
    for set in sets(folder.path()) {
        println!("{}: {} files", set.name, set.files.len());
        let run = |door: Door| {
            let scratch = folder.path().join(format!("{}-{}", set.name.replace(' ', "-"), door.name()));
            fs::create_dir_all(&scratch).unwrap();
            mode.run(door, &set, &scratch)
        };
        let results = std::thread::scope(|scope| {
            let doors = Door::ALL.map(|door| scope.spawn(move || (door, run(door))));
            doors.map(|door| door.join().unwrap())
        });
        let (mut seen, mut wrong) = (Table::new(), Vec::new());
        for (door, (outcomes, found_wrong)) in results {
            wrong.extend(found_wrong);
            summarise(&mode.column(door), &outcomes);
            for (name, outcome) in outcomes {
                seen.entry(name).or_default().insert(mode.column(door), outcome.replace(',', ";"));
            }
        }
        if set.is_table && std::env::var_os("CAIRN_WRITE_EXPECTATIONS").is_some() {
            write_table(&seen, &set.files);
        } else if set.is_table {
            wrong.extend(differences(&read_table(), &seen));
        } else if mode == Mode::Alone {
            // What becomes of a file alone does not hang on the others of its set.
            let mut expected = read_table();
            seen.retain(|name, _| expected.contains_key(name));
            expected.retain(|name, _| seen.contains_key(name));
            wrong.extend(differences(&expected, &seen));
        }
        assert!(wrong.is_empty(), "{} in all:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[test]
fn every_file_among_all_has_the_outcome_of_the_table_and_comes_back_as_it_went() {
    every_file(Mode::Together);
}

#[test]
fn every_file_alone_has_the_outcome_of_the_table_and_comes_back_as_it_went() {
    every_file(Mode::Alone);
}

#[test]
fn a_changed_outcome_is_found() {
    let row = |outcome: &str| BTreeMap::from([("stow-rs".to_owned(), outcome.to_owned())]);
    let table = |outcome: &str| Table::from([("a file".to_owned(), row(outcome))]);
    assert!(differences(&table("stored"), &table("stored")).is_empty());
    assert_eq!(differences(&table("stored"), &table("conflict")).len(), 1);
    assert_eq!(differences(&table("stored"), &Table::new()).len(), 1);
    assert!(!differences(&Table::new(), &table("stored")).is_empty());
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
