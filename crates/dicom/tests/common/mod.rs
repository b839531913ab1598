//! The developer data set, where it is present: 550 files and a table of what they are.

use std::path::{Path, PathBuf};

/// The directory that `CAIRN_DICOM_DATA` names, else `../shared/data/dicom` beside the repository.
pub(crate) fn data_directory() -> Option<PathBuf> {
    let directory = match std::env::var_os("CAIRN_DICOM_DATA") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/dicom"),
    };
    let found = directory.join("MANIFEST.csv").is_file();
    if !found {
        println!("no developer data set at hand: skipped");
    }
    found.then_some(directory)
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) file: String,
    pub(crate) sop_class_uid: String,
    pub(crate) transfer_syntax_uid: String,
    pub(crate) rows: String,
    pub(crate) columns: String,
    pub(crate) study_uid: String,
    pub(crate) series_uid: String,
    pub(crate) sop_instance_uid: String,
}

impl Row {
    pub(crate) fn all(directory: &Path) -> Vec<Row> {
        let text = std::fs::read_to_string(directory.join("MANIFEST.csv")).expect("the table");
        let mut lines = text.lines();
        let names = fields(lines.next().expect("a first line"));
        let column = |name: &str| names.iter().position(|known| known == name).expect("a column");
        let columns =
            ["file", "sop_class_uid", "transfer_syntax_uid", "rows", "columns", "study_uid", "series_uid"].map(column);
        let instance = column("sop_instance_uid");
        let row = |line: &str| {
            let mut fields = fields(line);
            let instance = std::mem::take(&mut fields[instance]);
            let [file, sop_class_uid, transfer_syntax_uid, rows, columns, study_uid, series_uid] =
                columns.map(|at| std::mem::take(&mut fields[at]));
            let sop_instance_uid = instance;
            Row { file, sop_class_uid, transfer_syntax_uid, rows, columns, study_uid, series_uid, sop_instance_uid }
        };
        lines.map(row).collect()
    }
}

fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().expect("one field at least").push(c),
        }
    }
    fields
}
