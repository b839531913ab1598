//! Rows in the form asked for.

use super::Failure;
use crate::cli::Output;
use serde_json::{Map, Value};
use std::io::{self, BufWriter, Stdout, Write};

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

    /// Writes one row, of as many cells as there are columns.
    pub fn row(&mut self, cells: &[String]) -> Result<(), Failure> {
        self.write(cells).map_err(Failure::failed)
    }

    fn write(&mut self, cells: &[String]) -> io::Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            self.header()?;
        }
        match self.output {
            Output::Json => {
                let fields = self.columns.iter().zip(cells);
                let object: Map<String, Value> =
                    fields.map(|((name, _), cell)| ((*name).to_owned(), Value::String(cell.clone()))).collect();
                writeln!(self.out, "{}", Value::Object(object))
            }
            Output::Csv => {
                let quoted: Vec<String> = cells.iter().map(|cell| csv_field(cell)).collect();
                writeln!(self.out, "{}", quoted.join(","))
            }
            Output::Table => self.aligned(cells.iter().map(String::as_str).collect()),
        }
    }

    fn header(&mut self) -> io::Result<()> {
        let names: Vec<&'static str> = self.columns.iter().map(|(name, _)| *name).collect();
        match self.output {
            Output::Json => Ok(()),
            Output::Csv => writeln!(self.out, "{}", names.join(",")),
            Output::Table => self.aligned(names),
        }
    }

    fn aligned(&mut self, cells: Vec<&str>) -> io::Result<()> {
        let last = cells.len().saturating_sub(1);
        for (index, (cell, (_, width))) in cells.iter().zip(&self.columns).enumerate() {
            let printable: String = cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
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
pub fn one(output: Output, fields: &[(&'static str, String)]) -> Result<(), Failure> {
    if let Output::Json | Output::Csv = output {
        let columns: Vec<_> = fields.iter().map(|(name, _)| (*name, 0)).collect();
        let cells: Vec<_> = fields.iter().map(|(_, cell)| cell.clone()).collect();
        let mut rows = Rows::new(output, &columns);
        rows.row(&cells)?;
        return rows.flush();
    }
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, cell) in fields {
        let printable: String = cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        println!("{name:width$}  {printable}");
    }
    Ok(())
}

/// A CSV field (RFC 4180): quoted when it must be.
pub fn csv_field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
