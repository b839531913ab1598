//! Verifying documents, from the files alone.

use crate::{
    commands::Failure,
    signing::{fingerprint, is_signed, read_public},
};
use cairn_archive::{
    envelope::rfc3339,
    notary::{Checkpoint, ConsistencyProof, EventProof, Note, PublicKey, Unproven},
};
use std::path::{Path, PathBuf};

/// Keys that are believed.
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// Reads them.
    ///
    /// # Errors
    /// One can't be read.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Failure> {
        paths.iter().map(|path| read_public(path)).collect::<Result<_, _>>().map(Self)
    }

    /// The checkpoint that a note is, and the fingerprint of who signed it.
    ///
    /// # Errors
    /// Nobody of these did, or it is none.
    pub fn checkpoint(&self, note: &Note) -> Result<(Checkpoint, String), Unproven> {
        let checkpoint = Checkpoint::parse(&note.body)?;
        // A key is of the site that the checkpoint is of: that it signed for another one is noticed.
        let named = |bytes: &[u8; 32]| PublicKey { name: checkpoint.site.to_string(), bytes: *bytes };
        let keys: Vec<_> = self.0.iter().map(named).collect();
        let signer = note.signer(&keys, is_signed)?;
        Ok((checkpoint, fingerprint(&signer.bytes)))
    }
}

/// Verifies each file, and says what it shows.
///
/// # Errors
/// `Differs`: one does not hold; what it is is said. Others: one can't be read.
pub fn files(files: &[PathBuf], public_keys: &[PathBuf]) -> Result<(), Failure> {
    let keys = Keys::read(public_keys)?;
    let mut wrong = Vec::new();
    for path in files {
        match super::read(path).and_then(|text| document(path, &text, &keys)) {
            Ok(shown) => println!("{}: {shown}", path.display()),
            Err(Failure::Differs(what)) => wrong.push(what),
            Err(failure) => return Err(failure),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Differs(wrong.join("\n"))) }
}

fn document(path: &Path, text: &str, keys: &Keys) -> Result<String, Failure> {
    let shown = if EventProof::is_one(text) {
        event(text, keys)
    } else if ConsistencyProof::is_one(text) {
        consistency(text, keys)
    } else {
        Note::parse(text)
            .and_then(|note| keys.checkpoint(&note))
            .map(|(checkpoint, signer)| format!("{}, signed by {signer}", words(&checkpoint)))
    };
    shown.map_err(|what| Failure::Differs(format!("{}: {what}", path.display())))
}

fn event(text: &str, keys: &Keys) -> Result<String, Unproven> {
    let proof = EventProof::parse(text)?;
    let (_, signer) = keys.checkpoint(&proof.checkpoint)?;
    let proven = proof.verify()?;
    let attribute = |name| proof.leaf.header(name).unwrap_or("?");
    Ok(format!(
        "event {} at {} ({}, {}) is in {}, signed by {signer}{}",
        attribute("ce_id"),
        proven.position,
        attribute("ce_type"),
        attribute("ce_time"),
        words(&proven.checkpoint),
        if proof.payload.is_some() { "; its payload is as it was" } else { "" },
    ))
}

fn consistency(text: &str, keys: &Keys) -> Result<String, Unproven> {
    let proof = ConsistencyProof::parse(text)?;
    keys.checkpoint(&proof.older)?;
    let (_, signer) = keys.checkpoint(&proof.newer)?;
    let (older, newer) = proof.verify()?;
    Ok(format!("{} goes on from {}, signed by {signer}", words(&newer), words(&older)))
}

fn words(checkpoint: &Checkpoint) -> String {
    let Checkpoint { site, number, at_ms, breaks, .. } = checkpoint;
    let breaks = match breaks.len() {
        0 => String::new(),
        some => format!(", {some} partitions of which do not go on from the one before"),
    };
    format!("checkpoint {number} of {site} ({}, {} events{breaks})", rfc3339(*at_ms), checkpoint.events())
}
