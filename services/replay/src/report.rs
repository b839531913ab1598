//! What a run came to, instance by instance: as CSV and as JSON, written as it is found.

use serde_json::{Map, Value};
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// A line of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Study Instance UID.
    pub study: &'a str,
    /// Series Instance UID.
    pub series: &'a str,
    /// SOP Instance UID.
    pub instance: &'a str,
    /// missing, refused, different, ...
    pub result: &'a str,
    /// A status, or what differs.
    pub detail: &'a str,
}

const COLUMNS: [&str; 5] = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Result", "Detail"];

impl Line<'_> {
    fn cells(&self) -> [&str; 5] {
        [self.study, self.series, self.instance, self.result, self.detail]
    }
}

/// A report being written: `PATH.csv` and `PATH.json`.
pub struct Report {
    csv: BufWriter<File>,
    json: BufWriter<File>,
    lines: u64,
}

/// The two files of a report.
pub fn files(path: &Path) -> [PathBuf; 2] {
    ["csv", "json"].map(|kind| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{kind}"));
        name.into()
    })
}

impl Report {
    /// Begins a report; files of before are replaced.
    ///
    /// # Errors
    /// The system's.
    pub fn create(path: &Path) -> io::Result<Self> {
        let [csv, json] = files(path);
        let (mut csv, mut json) = (BufWriter::new(File::create(csv)?), BufWriter::new(File::create(json)?));
        writeln!(csv, "{}", COLUMNS.join(","))?;
        write!(json, "{{\"instances\":[")?;
        Ok(Self { csv, json, lines: 0 })
    }

    /// Adds an instance.
    ///
    /// # Errors
    /// The system's.
    pub fn line(&mut self, line: &Line<'_>) -> io::Result<()> {
        let quoted = line.cells().map(csv_field);
        writeln!(self.csv, "{}", quoted.join(","))?;
        let comma = if self.lines == 0 { "" } else { "," };
        self.lines += 1;
        let object: Map<String, Value> =
            COLUMNS.iter().zip(line.cells()).map(|(name, cell)| ((*name).to_owned(), cell.into())).collect();
        write!(self.json, "{comma}\n{}", Value::Object(object))
    }

    /// Ends the report with what sums it up, and makes it durable.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(mut self, summary: &[(&str, Value)]) -> io::Result<()> {
        write!(self.json, "\n]")?;
        for (name, value) in summary {
            write!(self.json, ",\n{}:{value}", Value::from(*name))?;
        }
        writeln!(self.json, "}}")?;
        for writer in [self.csv, self.json] {
            writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        }
        Ok(())
    }
}

/// A CSV field (RFC 4180): quoted when it must be.
fn csv_field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("report");
        let mut report = Report::create(&path).expect("report");
        for detail in ["A900H", "a \"b\", c"] {
            let line = Line { study: "1", series: "1.1", instance: "1.1.1", result: "refused", detail };
            report.line(&line).expect("line");
        }
        report.finish(&[("Refused", 2.into())]).expect("finished");
        let [csv, json] = files(&path).map(|file| std::fs::read_to_string(file).expect("file"));
        assert_eq!(csv.lines().nth(2), Some("1,1.1,1.1.1,refused,\"a \"\"b\"\", c\""));
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["instances"][1]["Detail"], "a \"b\", c");
        assert_eq!(json["Refused"], 2);
    }
}
