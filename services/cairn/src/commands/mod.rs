//! What each command does. Results go to standard output, progress and errors to standard error.

pub mod audit;
pub mod commitments;
pub mod config;
pub mod conflicts;
pub mod corrections;
pub mod demo;
pub mod doctor;
pub mod drill;
pub mod events;
pub mod fixity;
pub mod import;
pub mod index;
pub mod keys;
pub mod log;
pub mod orphans;
pub mod parked;
pub mod patient;
pub mod policy;
pub mod quarantine;
pub mod query;
pub mod receipts;
pub mod reconcile;
pub mod rejections;
pub mod renew;
pub mod replay;
pub mod replication;
pub mod retention;
pub mod site;
pub mod stores;
mod table;
pub mod tier;
pub mod why;

use crate::{
    cli::{ConfigSource, ServerArgs},
    config::{ConfigError, Layers, Loaded, TlsConfig},
    endpoints::Endpoints,
    peers,
};
use cairn_service_api::{Error, ErrorKind};
use cairn_service_grpc::client::{Connection, IndexClient, IngestClient, RetrievalClient};
use std::{fmt, process::ExitCode};
use toml::Value;

/// How a command failed: its exit status is documented in `cairn --help`.
#[derive(Debug)]
pub enum Failure {
    /// 1
    Failed(String),
    /// 2: an argument that can't be used.
    Usage(String),
    /// 3: some items failed; what and why was printed.
    Partial(String),
    /// 4
    Differs(String),
    /// 5
    Unreachable(String),
    /// 5: another archive, and not the one that is asked.
    OtherUnreachable(String),
    /// 7: what was found was printed.
    Objective(String),
    /// 64
    Config(ConfigError),
    /// 130
    Interrupted,
}

impl Failure {
    /// The exit status.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Partial(_) => 3,
            Self::Differs(_) => 4,
            Self::Unreachable(_) | Self::OtherUnreachable(_) => 5,
            Self::Objective(_) => 7,
            Self::Config(_) => 64,
            Self::Interrupted => 130,
        })
    }

    /// A failure of exit status 2 from anything that can be shown.
    pub fn usage(what: impl fmt::Display) -> Self {
        Self::Usage(what.to_string())
    }

    /// A failure of exit status 1 from anything that can be shown.
    pub fn failed(what: impl fmt::Display) -> Self {
        Self::Failed(what.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message)
            | Self::Usage(message)
            | Self::Partial(message)
            | Self::Differs(message)
            | Self::OtherUnreachable(message)
            | Self::Objective(message) => f.write_str(message),
            Self::Unreachable(message) => write!(f, "{message}\nis the archive running? `cairn serve` starts one"),
            Self::Config(error) => write!(f, "{error}\n`cairn config schema` describes every key"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind {
            ErrorKind::Unavailable => Self::Unreachable(error.message),
            _ => Self::Failed(error.message),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// Loads the configuration that the flags name and override.
pub fn load(source: &ConfigSource) -> Result<Loaded, ConfigError> {
    let mut flags: Vec<(Vec<String>, Value)> = Vec::new();
    let mut set = |path: &[&str], value: Option<Value>| {
        flags.extend(value.map(|value| (path.iter().map(|key| (*key).to_owned()).collect(), value)));
    };
    let text = |value: &dyn fmt::Display| Value::String(value.to_string());
    set(&["data", "directory"], source.data.as_ref().map(|path| text(&path.display())));
    set(&["dicom", "listen"], source.dicom.as_ref().map(|address| text(address)));
    set(&["http", "listen"], source.http.as_ref().map(|address| text(address)));
    set(&["grpc", "listen"], source.grpc.as_ref().map(|address| text(address)));
    set(&["dicom", "ae_title"], source.ae_title.as_ref().map(|title| text(title)));
    set(&["dicom", "accept_unknown_callers"], source.accept_unknown_callers.then_some(Value::Boolean(true)));
    set(&["http", "accept_any_client"], source.accept_any_http_client.then_some(Value::Boolean(true)));
    for destination in &source.destination {
        set(&["ae", &destination.ae_title, "address"], Some(text(&destination.address)));
    }
    Layers { file: source.config.clone(), environment: std::env::vars().collect(), flags }.load()
}

/// Where the archive is that the arguments name.
pub fn server_address(server: &ServerArgs) -> String {
    let running = || Endpoints::read(&server.data).map(|endpoints| endpoints.grpc_address());
    server.server.clone().or_else(running).unwrap_or_else(|| "http://127.0.0.1:50051".into())
}

/// How to reach it.
///
/// # Errors
/// Files of certificates that are missing or can't be read.
pub fn connection(server: &ServerArgs) -> Result<Connection, Failure> {
    let mut connection = Connection::to(server_address(server));
    let files = [&server.tls_certificate, &server.tls_key, &server.tls_authority];
    if let [Some(certificate), Some(key), Some(authority)] = files {
        let (certificate, key, authority) = (certificate.clone(), key.clone(), authority.clone());
        let server_name = server.tls_server_name.clone();
        connection.tls = Some(peers::tls(&TlsConfig { certificate, key, authority, server_name })?);
    } else if files.iter().any(|file| file.is_some()) {
        return Err(Failure::usage("--tls-certificate, --tls-key and --tls-authority go together"));
    }
    Ok(connection)
}

/// The ingest service of the archive that the arguments name.
pub fn ingest(server: &ServerArgs) -> Result<IngestClient, Failure> {
    Ok(IngestClient::new(&connection(server)?)?)
}

/// The index service of the archive that the arguments name.
pub fn index(server: &ServerArgs) -> Result<IndexClient, Failure> {
    Ok(IndexClient::new(&connection(server)?)?)
}

/// The retrieval service of the archive that the arguments name.
pub fn retrieval(server: &ServerArgs) -> Result<RetrievalClient, Failure> {
    Ok(RetrievalClient::new(&connection(server)?)?)
}
