//! Compiles the services' protos with protox, so that no protoc is needed, and keeps the descriptors for reflection.
use prost::Message;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let packages = ["common", "ingest", "index", "retrieval", "log", "replication", "lifecycle"];
    let named = packages.map(|package| root.join(format!("cairn/{package}/v1/{package}.proto")));
    let of_lifecycle = ["commitment", "notary", "policies", "retention", "tiering"]
        .map(|name| root.join(format!("cairn/lifecycle/v1/{name}.proto")));
    let files = named.into_iter().chain(of_lifecycle);
    let descriptors = protox::compile(files, [root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
