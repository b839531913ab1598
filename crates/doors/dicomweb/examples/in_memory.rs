//! The door before an archive in memory, for trying clients and measuring the door alone:
//! `cargo run --release -p cairn-dicomweb --example in_memory -- ADDR:PORT [--swallow] [--buffer BYTES] [FILE...]`.
//! `--swallow`: stores are hashed and forgotten.

#[allow(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/door/archive.rs"]
mod archive;

use cairn_dicomweb::{DicomWebConfig, Services, router, serve};
use std::{error::Error, sync::Arc};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("an address is needed")?;
    let archive = Arc::new(archive::Archive::default());
    let mut config = DicomWebConfig::default();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--swallow" => archive.state().swallow = true,
            "--buffer" => config.limits.buffer_bytes = arguments.next().ok_or("--buffer takes bytes")?.parse()?,
            path => drop(archive.hold(&std::fs::read(path)?)?),
        }
    }
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}/dicom-web", listener.local_addr()?);
    let services = Services { ingest: archive.clone(), index: archive.clone(), retrieval: archive, commitments: None };
    serve(listener, router(services, config.clone()), &config, std::future::pending()).await?;
    Ok(())
}
