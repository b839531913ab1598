//! Documents that prove something to whoever has the public key, and nothing else of ours.

use super::{
    Checkpoint, Leaf, Note, TreeHash, Unproven, base64, document::Lines, verify_consistency, verify_inclusion,
};
use crate::position::Position;
use sha2::{Digest as _, Sha256};

/// First line of a proof that an event is in a log.
const TITLE: &str = "cairn event proof 1";
const WHAT: &str = "event proof";
/// First line of a proof that one checkpoint goes on from another.
const CONSISTENCY_TITLE: &str = "cairn consistency proof 1";
const CONSISTENCY_WHAT: &str = "consistency proof";

/// Proves that an event stands in a log, in its place, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventProof {
    /// The event.
    pub leaf: Leaf,
    /// Its payload, which may have patient attributes; `None`: the proof does without.
    pub payload: Option<Vec<u8>>,
    /// From the leaf up.
    pub path: Vec<TreeHash>,
    /// Signed checkpoint that it is in.
    pub checkpoint: Note,
}

/// What a proof of an event proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Where the event stands.
    pub position: Position,
    /// The checkpoint that has it.
    pub checkpoint: Checkpoint,
}

impl EventProof {
    /// Whether a text claims to be one.
    pub fn is_one(text: &str) -> bool {
        text.starts_with(TITLE)
    }

    /// As text.
    pub fn to_text(&self) -> String {
        let mut text = format!("{TITLE}\nleaf {}\n", base64::encode(&self.leaf.encode()));
        if let Some(payload) = &self.payload {
            text += &format!("payload {}\n", base64::encode(payload));
        }
        self.path.iter().for_each(|hash| text += &format!("hash {hash}\n"));
        text + &format!("checkpoint {}\n", base64::encode(self.checkpoint.to_text().as_bytes()))
    }

    /// Reads the text.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn parse(text: &str) -> Result<Self, Unproven> {
        let bad = Unproven::Malformed(WHAT);
        let mut lines = Lines::of(text, TITLE, WHAT)?;
        let leaf = Leaf::decode(&base64::decode(lines.next("leaf")?).ok_or(bad.clone())?)?;
        let payload = lines.next_if("payload").map(|text| base64::decode(text).ok_or(bad)).transpose()?;
        let path = hashes(&mut lines)?;
        let checkpoint = note(&mut lines, "checkpoint")?;
        lines.end()?;
        Ok(Self { leaf, payload, path, checkpoint })
    }

    /// Whether the event is in the checkpoint. Who signed that is another question: [`Note::signer`].
    ///
    /// # Errors
    /// What is not so.
    pub fn verify(&self) -> Result<Proven, Unproven> {
        let (checkpoint, leaf) = (Checkpoint::parse(&self.checkpoint.body)?, &self.leaf);
        let (partition, offset) = (leaf.partition, leaf.offset);
        let tree = checkpoint.tree(partition).filter(|_| checkpoint.site == leaf.site).ok_or(Unproven::OtherLog)?;
        if !verify_inclusion(leaf.hash(), offset.0, tree.size, &self.path, tree.root) {
            return Err(Unproven::NotIncluded { partition: partition.0, offset: offset.0 });
        }
        let is_other = |payload: &Vec<u8>| {
            payload.len() as u64 != leaf.payload_length || Sha256::digest(payload) != leaf.payload_sha256
        };
        if self.payload.as_ref().is_some_and(is_other) {
            return Err(Unproven::OtherPayload);
        }
        let incarnation = checkpoint.life_at(partition, offset);
        Ok(Proven { position: Position { site: leaf.site.clone(), incarnation, partition, offset }, checkpoint })
    }
}

/// Proves that a log at a newer checkpoint begins with all that it was at an older one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// The older checkpoint.
    pub older: Note,
    /// The newer one.
    pub newer: Note,
    /// For each partition.
    pub paths: Vec<Vec<TreeHash>>,
}

impl ConsistencyProof {
    /// Whether a text claims to be one.
    pub fn is_one(text: &str) -> bool {
        text.starts_with(CONSISTENCY_TITLE)
    }

    /// As text.
    pub fn to_text(&self) -> String {
        let of = |note: &Note| base64::encode(note.to_text().as_bytes());
        let mut text = format!("{CONSISTENCY_TITLE}\nolder {}\nnewer {}\n", of(&self.older), of(&self.newer));
        for (partition, path) in self.paths.iter().enumerate() {
            text += &format!("partition {partition}\n");
            path.iter().for_each(|hash| text += &format!("hash {hash}\n"));
        }
        text
    }

    /// Reads the text.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn parse(text: &str) -> Result<Self, Unproven> {
        let mut lines = Lines::of(text, CONSISTENCY_TITLE, CONSISTENCY_WHAT)?;
        let (older, newer) = (note(&mut lines, "older")?, note(&mut lines, "newer")?);
        let mut paths = Vec::new();
        while let Some(partition) = lines.next_if("partition") {
            if partition != paths.len().to_string() {
                return Err(Unproven::Malformed(CONSISTENCY_WHAT));
            }
            paths.push(hashes(&mut lines)?);
        }
        lines.end()?;
        Ok(Self { older, newer, paths })
    }

    /// Whether the newer checkpoint goes on from the older in every partition; gives both. Who signed them is another question.
    ///
    /// # Errors
    /// What is not so.
    pub fn verify(&self) -> Result<(Checkpoint, Checkpoint), Unproven> {
        let (older, newer) = (Checkpoint::parse(&self.older.body)?, Checkpoint::parse(&self.newer.body)?);
        if older.site != newer.site || older.trees.len() != newer.trees.len() {
            return Err(Unproven::OtherLog);
        }
        if self.paths.len() != newer.trees.len() {
            return Err(Unproven::Malformed(CONSISTENCY_WHAT));
        }
        for (partition, (path, (old, new))) in (0..).zip(self.paths.iter().zip(older.trees.iter().zip(&newer.trees))) {
            if !verify_consistency((old.size, old.root), (new.size, new.root), path) {
                return Err(Unproven::Inconsistent(partition));
            }
        }
        Ok((older, newer))
    }
}

fn hashes(lines: &mut Lines<'_>) -> Result<Vec<TreeHash>, Unproven> {
    let mut hashes = Vec::new();
    while let Some(hash) = lines.next_if("hash") {
        hashes.push(hash.parse()?);
    }
    Ok(hashes)
}

fn note(lines: &mut Lines<'_>, name: &str) -> Result<Note, Unproven> {
    let bytes = base64::decode(lines.next(name)?).ok_or(Unproven::Malformed("signed note"))?;
    Note::parse(std::str::from_utf8(&bytes).map_err(|_| Unproven::Malformed("signed note"))?)
}

#[cfg(test)]
mod tests;
