//! Reading and merging the layers, remembering where each value came from.

use super::Config;
use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};
use toml::{Table, Value};

/// What is read besides the defaults.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The file; its `conf.d` lies beside it.
    pub file: Option<PathBuf>,
    /// Environment, names as they are.
    pub environment: Vec<(String, String)>,
    /// Flags: path in the configuration and value.
    pub flags: Vec<(Vec<String>, Value)>,
}

/// A configuration with the origin of each value that is not a default.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The effective configuration.
    pub config: Config,
    /// Where values came from, by dotted path; paths not named here have their default.
    pub origins: BTreeMap<String, String>,
}

/// Why a configuration can't be used: which layer, and what is wrong, with the line where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    origin: String,
    message: String,
}

impl ConfigError {
    /// A value that a layer gave and that can't be.
    pub fn new(origin: impl Into<String>, message: impl Into<String>) -> Self {
        Self { origin: origin.into(), message: message.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message.trim_end())
    }
}

impl std::error::Error for ConfigError {}

impl Layers {
    /// Reads and merges all layers.
    ///
    /// # Errors
    /// [`ConfigError`] of the first layer that is wrong.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut merged = Table::new();
        let mut origins = BTreeMap::new();
        for path in self.files()? {
            let origin = path.display().to_string();
            let text = fs::read_to_string(&path).map_err(|error| ConfigError::new(&origin, error.to_string()))?;
            // Read on its own first: the error then says line and column.
            toml::from_str::<Config>(&text).map_err(|error| ConfigError::new(&origin, error.to_string()))?;
            let table = text.parse::<Table>().map_err(|error| ConfigError::new(&origin, error.to_string()))?;
            merge(&mut merged, table, "", &origin, &mut origins);
        }
        for (name, text) in &self.environment {
            let Some(path) = name.strip_prefix("CAIRN__") else { continue };
            // AE titles keep their case, everything else is lower case.
            let mut path: Vec<String> = path.split("__").map(str::to_owned).collect();
            let is_ae = path.first().is_some_and(|section| section.eq_ignore_ascii_case("ae"));
            let lowered = path.iter_mut().enumerate().filter(|(depth, _)| !(is_ae && *depth == 1));
            lowered.for_each(|(_, key)| key.make_ascii_lowercase());
            single(&mut merged, &mut origins, &path, value_of(text), &format!("environment {name}"))?;
        }
        for (path, value) in &self.flags {
            single(&mut merged, &mut origins, path, value.clone(), "command line")?;
        }
        let config = Config::deserialize_table(merged).map_err(|message| ConfigError::new("configuration", message))?;
        config.check()?;
        Ok(Loaded { config, origins })
    }

    fn files(&self) -> Result<Vec<PathBuf>, ConfigError> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let mut files = vec![file.clone()];
        let directory = file.parent().unwrap_or(Path::new(".")).join("conf.d");
        if directory.is_dir() {
            let origin = directory.display().to_string();
            let entries = fs::read_dir(&directory).map_err(|error| ConfigError::new(&origin, error.to_string()))?;
            let mut more: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
            more.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
            more.sort();
            files.extend(more);
        }
        Ok(files)
    }
}

impl Config {
    fn deserialize_table(table: Table) -> Result<Self, String> {
        table.try_into::<Self>().map_err(|error| error.to_string())
    }
}

/// A value as TOML reads it; what is no TOML is text.
fn value_of(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok();
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Merges a layer that gives one value.
fn single(
    merged: &mut Table,
    origins: &mut BTreeMap<String, String>,
    path: &[String],
    value: Value,
    origin: &str,
) -> Result<(), ConfigError> {
    let nested = path.iter().rev().fold(value, |value, key| Value::Table(Table::from_iter([(key.clone(), value)])));
    let Value::Table(table) = nested else { return Ok(()) };
    Config::deserialize_table(table.clone()).map_err(|message| ConfigError::new(origin, message))?;
    merge(merged, table, "", origin, origins);
    Ok(())
}

fn merge(into: &mut Table, layer: Table, path: &str, origin: &str, origins: &mut BTreeMap<String, String>) {
    for (key, value) in layer {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (into.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above, &path, origin, origins),
            (_, Value::Table(above)) => {
                let mut below = Table::new();
                merge(&mut below, above, &path, origin, origins);
                into.insert(key, Value::Table(below));
            }
            (_, value) => {
                origins.insert(path, origin.to_owned());
                into.insert(key, value);
            }
        }
    }
}
