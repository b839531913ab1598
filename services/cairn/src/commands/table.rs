//! Rows in the form asked for.

use super::Failure;
use crate::cli::Output;
use cairn_process::units::{format_duration, format_size};
use serde_json::{Map, Value};
use std::{
    io::{self, BufWriter, Stdout, Write},
    time::Duration,
};

/// What stands in a column: numbers are numbers for programs, and have units in a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// As it is.
    Text(String),
    /// A count.
    Number(u64),
    /// A measure.
    Decimal(f64),
    /// Whether it is so.
    Flag(bool),
    /// Bytes.
    Size(u64),
    /// A time that something takes. Its column's name ends in `Ms`, which a table leaves out.
    Milliseconds(u64),
    /// There is nothing to say.
    Absent,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<Duration> for Cell {
    fn from(time: Duration) -> Self {
        Self::Milliseconds(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Cell {
    fn json(&self) -> Value {
        match self {
            Self::Text(text) => Value::String(text.clone()),
            Self::Number(number) | Self::Size(number) | Self::Milliseconds(number) => (*number).into(),
            Self::Decimal(number) => (*number).into(),
            Self::Flag(is) => (*is).into(),
            Self::Absent => Value::Null,
        }
    }

    fn csv(&self) -> String {
        match self {
            Self::Text(text) => csv_field(text),
            Self::Number(number) | Self::Size(number) | Self::Milliseconds(number) => number.to_string(),
            Self::Decimal(number) => number.to_string(),
            Self::Flag(is) => is.to_string(),
            Self::Absent => String::new(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Size(bytes) => format_size(*bytes),
            Self::Milliseconds(time) => format_duration(Duration::from_millis(*time)),
            Self::Decimal(number) => format!("{number:.2}"),
            Self::Flag(is) => if *is { "yes" } else { "no" }.to_owned(),
            Self::Absent => "-".to_owned(),
        }
    }
}

/// Writes rows with fixed columns as they come: tables are aligned by the widths given with the columns.
pub struct Rows {
    columns: Vec<(&'static str, usize)>,
    output: Output,
    out: BufWriter<Stdout>,
    begun: bool,
}

impl Rows {
    /// Rows of these columns; each has the width that a table gives it.
    pub fn new(output: Output, columns: &[(&'static str, usize)]) -> Self {
        Self { columns: columns.to_vec(), output, out: BufWriter::new(io::stdout()), begun: false }
    }

    /// Writes one row of texts, as many as there are columns.
    pub fn row(&mut self, cells: &[String]) -> Result<(), Failure> {
        let cells: Vec<_> = cells.iter().cloned().map(Cell::Text).collect();
        self.cells(&cells)
    }

    /// Writes one row, of as many cells as there are columns.
    pub fn cells(&mut self, cells: &[Cell]) -> Result<(), Failure> {
        self.write(cells).map_err(Failure::failed)
    }

    fn write(&mut self, cells: &[Cell]) -> io::Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            self.header()?;
        }
        match self.output {
            Output::Json => {
                let fields = self.columns.iter().zip(cells);
                let object: Map<String, Value> =
                    fields.map(|((name, _), cell)| ((*name).to_owned(), cell.json())).collect();
                writeln!(self.out, "{}", Value::Object(object))
            }
            Output::Csv => {
                let quoted: Vec<String> = cells.iter().map(Cell::csv).collect();
                writeln!(self.out, "{}", quoted.join(","))
            }
            Output::Table => self.aligned(&cells.iter().map(Cell::text).collect::<Vec<_>>()),
        }
    }

    fn header(&mut self) -> io::Result<()> {
        let names = self.columns.iter().map(|(name, _)| *name);
        match self.output {
            Output::Json => Ok(()),
            Output::Csv => writeln!(self.out, "{}", names.collect::<Vec<_>>().join(",")),
            // Each cell of such a column has its own unit.
            Output::Table => {
                self.aligned(&names.map(|name| name.strip_suffix("Ms").unwrap_or(name)).collect::<Vec<_>>())
            }
        }
    }

    fn aligned(&mut self, cells: &[impl AsRef<str>]) -> io::Result<()> {
        let last = cells.len().saturating_sub(1);
        for (index, (cell, (_, width))) in cells.iter().zip(&self.columns).enumerate() {
            let printable: String = cell.as_ref().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            if index == last {
                writeln!(self.out, "{printable}")?;
            } else {
                write!(self.out, "{printable:width$}  ")?;
            }
        }
        Ok(())
    }

    /// Writes out what is held; no rows are the header alone.
    pub fn flush(&mut self) -> Result<(), Failure> {
        if !std::mem::replace(&mut self.begun, true) {
            self.header().map_err(Failure::failed)?;
        }
        self.out.flush().map_err(Failure::failed)
    }
}

/// Writes one thing with its fields: a line each in a table.
pub fn one<C: Clone + Into<Cell>>(output: Output, fields: &[(&'static str, C)]) -> Result<(), Failure> {
    let fields: Vec<(&'static str, Cell)> = fields.iter().map(|(name, cell)| (*name, cell.clone().into())).collect();
    if let Output::Json | Output::Csv = output {
        let columns: Vec<_> = fields.iter().map(|(name, _)| (*name, 0)).collect();
        let cells: Vec<_> = fields.iter().map(|(_, cell)| cell.clone()).collect();
        let mut rows = Rows::new(output, &columns);
        rows.cells(&cells)?;
        return rows.flush();
    }
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, cell) in &fields {
        let name = name.strip_suffix("Ms").unwrap_or(name);
        let printable: String = cell.text().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        println!("{name:width$}  {printable}");
    }
    Ok(())
}

/// A CSV field (RFC 4180): quoted when it must be.
pub fn csv_field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
