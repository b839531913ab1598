//! Where a running archive listens, written into its data directory so that commands on the same machine find it.

use serde::{Deserialize, Serialize};
use std::{fs, io, net::SocketAddr, path::Path};

const FILE: &str = "endpoints.json";

/// The listeners of a running archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// DIMSE, where that door is.
    pub dicom: Option<SocketAddr>,
    /// HTTP.
    pub http: SocketAddr,
    /// gRPC.
    pub grpc: SocketAddr,
    /// Whether gRPC is by mutual TLS.
    #[serde(default)]
    pub tls: bool,
    /// Process id.
    pub pid: u32,
}

impl Endpoints {
    /// Where gRPC is, as an address to call.
    pub fn grpc_address(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.grpc)
    }

    /// Writes them; a reader sees the old file or the new one.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, data: &Path) -> io::Result<()> {
        let temporary = data.join(format!("{FILE}.{}", self.pid));
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        fs::rename(temporary, data.join(FILE))
    }

    /// Reads those of the archive whose data directory this is; `None` when none was written.
    pub fn read(data: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(data.join(FILE)).ok()?).ok()
    }

    /// Removes them: the archive has stopped.
    pub fn remove(data: &Path) {
        // Left behind, the file only leads to "not reached".
        let _gone = fs::remove_file(data.join(FILE));
    }
}
