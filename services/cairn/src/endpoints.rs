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

    /// Whether the process that wrote them is still there, as far as can be known: a file may be left by one that was
    /// killed, and its number be another program's now.
    pub fn are_of_a_living_process(&self) -> bool {
        let name = |process: &str| fs::read_link(Path::new("/proc").join(process).join("exe"));
        match (name("self"), name(&self.pid.to_string())) {
            (Ok(own), Ok(other)) => own.file_name() == other.file_name(),
            (Ok(_), Err(error)) => error.kind() != io::ErrorKind::NotFound,
            // No such file system here.
            (Err(_), _) => true,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_a_process_that_is_gone_are_not_believed() {
        let of = |pid| Endpoints {
            dicom: None,
            http: ([127, 0, 0, 1], 1).into(),
            grpc: ([127, 0, 0, 1], 2).into(),
            tls: false,
            pid,
        };
        assert!(of(std::process::id()).are_of_a_living_process());
        let mut child = std::process::Command::new("true").spawn().expect("starts");
        child.wait().expect("ends");
        assert!(!of(child.id()).are_of_a_living_process());
        let mut other = std::process::Command::new("sleep").arg("60").spawn().expect("starts");
        let believed = of(other.id()).are_of_a_living_process();
        other.kill().expect("stops");
        other.wait().expect("ends");
        assert!(!believed, "another program");
    }
}
