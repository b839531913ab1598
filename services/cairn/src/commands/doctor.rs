//! `cairn doctor`: looks for what is wrong with a configuration, a machine, and a running archive.

use super::{Failure, load, table::Rows};
use crate::{cli::DoctorArgs, config::Config, endpoints::Endpoints, stores::keys};
use cairn_dicom::Uid;
use cairn_dimse::{
    Association, AssociationError, Implementation, Limits, Status,
    pdu::AeTitle,
    requestor::{Request, connect},
};
use cairn_key_store_embedded::KeyCounts;
use cairn_process::{
    clock::{Clock, SystemClock},
    disk::{Disk, RealDisk},
    units::format_size,
};
use cairn_service_api::{Index, Ingest};
use cairn_service_grpc::client::{Connection, IndexClient, IngestClient};
use std::{net::SocketAddr, path::Path, time::Duration};
use tokio::net::TcpListener;

/// What a check found.
enum Finding {
    Good(String),
    Bad(String),
}

pub async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let mut rows = Rows::new(args.output, &[("Check", 16), ("Result", 6), ("What", 60)]);
    let mut wrong = 0;
    let mut report = |check: &str, finding: Finding| {
        let (result, what) = match finding {
            Finding::Good(what) => ("ok", what),
            Finding::Bad(what) => {
                wrong += 1;
                ("WRONG", what)
            }
        };
        rows.row(&[check.into(), result.into(), what])
    };
    let config = match load(&args.source) {
        Ok(loaded) => {
            let changed = loaded.origins.len();
            report("configuration", Finding::Good(format!("{changed} values are not defaults")))?;
            loaded.config
        }
        Err(error) => {
            report("configuration", Finding::Bad(error.to_string()))?;
            Config::default()
        }
    };
    report("clock", clock())?;
    report("disk", disk(&config))?;
    report("keys", key_store(&config))?;
    let running = Endpoints::read(&config.data.directory);
    for (name, address) in
        [("DICOM port", config.dicom.listen), ("HTTP port", config.http.listen), ("gRPC port", config.grpc.listen)]
    {
        report(name, port(address, running.as_ref()).await)?;
    }
    match &running {
        None => report("archive", Finding::Good("none runs on this data directory".into()))?,
        Some(endpoints) => {
            for (check, finding) in archive(&config, endpoints).await {
                report(check, finding)?;
            }
        }
    }
    rows.flush()?;
    if wrong == 0 { Ok(()) } else { Err(Failure::failed(format!("{wrong} checks found something wrong"))) }
}

fn clock() -> Finding {
    let now = SystemClock::new().unix_ms();
    let time = cairn_archive::envelope::rfc3339(now);
    // Before this release existed the clock can't be right.
    if now < cairn_ingest::config::ClockConfig::default().not_before_ms {
        Finding::Bad(time)
    } else {
        Finding::Good(time)
    }
}

fn disk(config: &Config) -> Finding {
    let mut path: &Path = &config.data.directory;
    while !path.exists() {
        path = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    }
    match RealDisk.available(path) {
        Err(error) => Finding::Bad(format!("{}: {error}", path.display())),
        Ok(free) => {
            let (reserve, text) = (config.data.reserve_bytes, format_size(free / (1 << 20) * (1 << 20)));
            let what = format!("{text} free under {}, {} kept in reserve", path.display(), format_size(reserve));
            if free > reserve { Finding::Good(what) } else { Finding::Bad(what) }
        }
    }
}

/// Whether what events are sealed under can be read.
fn key_store(config: &Config) -> Finding {
    let file = keys::file(config);
    if !keys::has_store(config) {
        return Finding::Good("a log that several processes share has no key store: events are not sealed".into());
    }
    if !file.exists() {
        return Finding::Good("there is no key store yet: the first start makes it".into());
    }
    let counts = keys::open_to_read(&RealDisk, &file, &keys::master_file(config))
        .and_then(|store| store.counts().map_err(Failure::failed));
    match counts {
        Err(error) => Finding::Bad(error.to_string()),
        Ok(KeyCounts { damaged: 0, present, destroyed, .. }) => {
            Finding::Good(format!("{present} keys, and {destroyed} that are destroyed"))
        }
        Ok(KeyCounts { damaged, .. }) => Finding::Bad(format!("{damaged} keys can't be read: `cairn keys restore`")),
    }
}

async fn port(address: SocketAddr, running: Option<&Endpoints>) -> Finding {
    let ours =
        running.is_some_and(|running| [running.dicom, Some(running.http), Some(running.grpc)].contains(&Some(address)));
    match TcpListener::bind(address).await {
        Ok(_) => Finding::Good(format!("{address} is free")),
        Err(_) if ours => Finding::Good(format!("{address} is the running archive's")),
        Err(error) => Finding::Bad(format!("{address}: {error}")),
    }
}

async fn archive(config: &Config, endpoints: &Endpoints) -> Vec<(&'static str, Finding)> {
    let mut connection = Connection::to(endpoints.grpc_address());
    match config.tls.as_ref().map(crate::peers::tls).transpose() {
        Ok(tls) => connection.tls = tls,
        Err(error) => return vec![("archive", Finding::Bad(error.to_string()))],
    }
    let (ingest, index) = match (IngestClient::new(&connection), IndexClient::new(&connection)) {
        (Ok(ingest), Ok(index)) => (ingest, index),
        (Err(error), _) | (_, Err(error)) => return vec![("archive", Finding::Bad(error.message))],
    };
    let ready = match ingest.ready().await {
        Ok(()) => Finding::Good("takes instances".into()),
        Err(error) => Finding::Bad(error.message),
    };
    let status = match index.status().await {
        Err(error) => Finding::Bad(error.message),
        Ok(status) => {
            let what = format!(
                "{} studies, {} instances, {} events behind, {} parked",
                status.studies, status.instances, status.lag_events, status.parked
            );
            if status.parked > 0 { Finding::Bad(what) } else { Finding::Good(what) }
        }
    };
    let mut found = vec![("ingest", ready), ("index", status)];
    if let Some(dicom) = endpoints.dicom {
        found.push(("DICOM echo", echo(dicom).await));
    }
    found
}

/// A C-ECHO through the archive's own listener.
async fn echo(dicom: SocketAddr) -> Finding {
    match try_echo(dicom).await {
        Ok(Status::SUCCESS) => Finding::Good(format!("{dicom} answers")),
        Ok(status) => Finding::Bad(format!("{dicom} answers with status {:04X}H", status.0)),
        Err(error) => Finding::Bad(format!("{dicom}: {error}")),
    }
}

async fn try_echo(address: SocketAddr) -> Result<Status, AssociationError> {
    let limits =
        Limits { response_timeout: Duration::from_secs(5), artim: Duration::from_secs(5), ..Limits::default() };
    let transport = connect(&address.to_string(), &limits).await?;
    let verification: Uid = VERIFICATION.parse().unwrap_or_else(|_| unreachable!("a UID of the Standard"));
    let syntax: Uid = IMPLICIT_VR_LITTLE_ENDIAN.parse().unwrap_or_else(|_| unreachable!("a UID of the Standard"));
    let request = Request {
        calling_ae_title: AeTitle::from_field(b"CAIRN-DOCTOR"),
        called_ae_title: AeTitle::from_field(b"CAIRN"),
        contexts: vec![(verification, vec![syntax])],
        roles: Vec::new(),
    };
    let mut association = Association::request(transport, &request, &limits, &Implementation::default()).await?;
    let status = association.echo().await?;
    association.release().await?;
    Ok(status)
}

/// Verification SOP Class (PS3.4 annex A).
const VERIFICATION: &str = "1.2.840.10008.1.1";
const IMPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2";
