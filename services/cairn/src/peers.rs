//! Clients of the services that are in other processes, and the certificates of both directions.

use crate::{
    commands::Failure,
    config::{Config, ConfigError, TlsConfig},
};
use cairn_replication::PeerConfig;
use cairn_service_grpc::{
    Tls,
    client::Connection,
    server::{ServerConfig, SiteCertificates},
};
use std::path::Path;

/// Reads the files that the configuration names.
///
/// # Errors
/// One that can't be read.
pub fn tls(config: &TlsConfig) -> Result<Tls, ConfigError> {
    let read = |key: &str, path: &Path| {
        std::fs::read(path).map_err(|error| ConfigError::new(key, format!("{}: {error}", path.display())))
    };
    Ok(Tls {
        certificate: read("tls.certificate", &config.certificate)?,
        key: read("tls.key", &config.key)?,
        authority: read("tls.authority", &config.authority)?,
        server_name: config.server_name.clone(),
    })
}

/// How to reach the processes of a service; `None` if none are configured.
///
/// # Errors
/// Certificates that can't be read.
pub fn connection(config: &Config, addresses: &[String]) -> Result<Option<Connection>, Failure> {
    if addresses.is_empty() {
        return Ok(None);
    }
    let (peers, grpc) = (&config.peers, &config.grpc);
    let tls = config.tls.as_ref().map(tls).transpose()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    Ok(Some(Connection {
        addresses: addresses.iter().map(|address| format!("{scheme}://{address}")).collect(),
        tls,
        connect_timeout: peers.connect_timeout,
        answer_timeout: peers.answer_timeout,
        pause: peers.pause,
        pause_max: peers.pause_max,
        keepalive_interval: grpc.keepalive_interval,
        keepalive_timeout: grpc.keepalive_timeout,
        message_bytes_max: usize::try_from(grpc.message_bytes_max).unwrap_or(usize::MAX),
        stream_window_bytes: window(grpc.stream_window_bytes),
        connection_window_bytes: window(grpc.connection_window_bytes),
    }))
}

/// Bounds and certificates of our own listener.
///
/// # Errors
/// Certificates that can't be read.
pub fn listener(config: &Config) -> Result<ServerConfig, Failure> {
    let grpc = &config.grpc;
    Ok(ServerConfig {
        message_bytes_max: usize::try_from(grpc.message_bytes_max).unwrap_or(usize::MAX),
        stream_window_bytes: window(grpc.stream_window_bytes),
        connection_window_bytes: window(grpc.connection_window_bytes),
        streams_max: grpc.streams_max,
        keepalive_interval: grpc.keepalive_interval,
        keepalive_timeout: grpc.keepalive_timeout,
        tls: config.tls.as_ref().map(tls).transpose()?,
    })
}

/// By which names other sites are known when they call.
///
/// # Errors
/// A name of a site that can't be one.
pub fn site_certificates(config: &Config) -> Result<SiteCertificates, Failure> {
    if config.tls.is_none() || !config.replication.verify_site_certificate {
        return Ok(SiteCertificates::unchecked());
    }
    let names = |(site, peer): (&String, &PeerConfig)| {
        let own = std::slice::from_ref(site);
        let names = if peer.certificate_names.is_empty() { own } else { &peer.certificate_names };
        Ok((site.parse().map_err(Failure::failed)?, names.to_vec()))
    };
    Ok(SiteCertificates::of(config.replication.peers.iter().map(names).collect::<Result<_, Failure>>()?))
}

/// A window of HTTP/2: at least what it begins with, at most what it can be (RFC 9113 section 6.9.2).
fn window(bytes: u64) -> u32 {
    u32::try_from(bytes.clamp(65_535, (1 << 31) - 1)).unwrap_or(u32::MAX >> 1)
}
