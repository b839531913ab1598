//! Mutual TLS between processes: each shows a certificate, and each takes only those that chain to the one authority.

use std::fmt;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// Who a process is and whom it trusts, in PEM.
#[derive(Clone)]
pub struct Tls {
    /// Certificate of this process, with those between it and the authority.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// Certificates of the authorities that peers must chain to.
    pub authority: Vec<u8>,
    /// Name that a server's certificate must have; `None`: the host that was called.
    pub server_name: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl Tls {
    fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate, &self.key)
    }

    /// As the caller.
    pub(crate) fn client(&self) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new().identity(self.identity());
        let tls = tls.ca_certificate(Certificate::from_pem(&self.authority));
        match &self.server_name {
            Some(name) => tls.domain_name(name),
            None => tls,
        }
    }

    /// As the one that is called; a caller without a certificate of the authority gets no further.
    pub(crate) fn server(&self) -> ServerTlsConfig {
        let tls = ServerTlsConfig::new().identity(self.identity());
        tls.client_ca_root(Certificate::from_pem(&self.authority)).client_auth_optional(false)
    }
}
