//! Making proofs. Each is verified before it is given: what was altered since is said, and not sent on.

use super::trees::{Kept, Nodes};
use cairn_archive::{
    Partition, Position,
    notary::{Checkpoint, ConsistencyProof, EventProof, Leaf, Note, Span, TreeHead, Unproven, consistency, inclusion},
};
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::EventLog;

/// Makes proofs of a log by its trees.
pub(super) struct Prover<'a> {
    pub(super) log: &'a dyn EventLog,
    pub(super) kept: &'a Kept,
}

impl Prover<'_> {
    /// That the event is in the checkpoint.
    pub(super) async fn event(&self, position: &Position, note: Note, with_payload: bool) -> Result<EventProof, Error> {
        let Position { site, incarnation, partition, offset } = position;
        let not_found = |what: String| Error::new(ErrorKind::NotFound, what);
        let is_here = site == self.log.site() && partition.0 < self.log.partitions();
        if !is_here || self.log.lives().at(*partition, *offset) != *incarnation {
            return Err(not_found(format!("{position} is no place of this site's log")));
        }
        let checkpoint = Checkpoint::parse(&note.body).map_err(malformed)?;
        let size = checkpoint.tree(*partition).map_or(0, |tree| tree.size);
        let Some(spans) = inclusion(offset.0, size) else {
            return Err(not_found(format!("{position} is not in the latest checkpoint, number {}", checkpoint.number)));
        };
        let batch = self.log.read(*partition, *offset, 1, 1).await?;
        let record = batch.records.first().ok_or_else(|| not_found(format!("there is no event at {position}")))?;
        let payload = &record.record.payload;
        let leaf = Leaf::new((site, *partition, *offset), record.appended_at_ms, &record.record.envelope, payload);
        let path = Nodes::new(self.log, self.kept, *partition).roots(&spans).await?;
        let proof = EventProof { leaf, payload: with_payload.then(|| payload.to_vec()), path, checkpoint: note };
        proof.verify().map_err(altered)?;
        Ok(proof)
    }

    /// That the newer checkpoint goes on from the older one.
    pub(super) async fn consistency(&self, older: Note, newer: Note) -> Result<ConsistencyProof, Error> {
        let invalid = |what: &str| Error::new(ErrorKind::Invalid, what);
        let (old, new) =
            (Checkpoint::parse(&older.body).map_err(malformed)?, Checkpoint::parse(&newer.body).map_err(malformed)?);
        let partitions = usize::from(self.log.partitions());
        for checkpoint in [&old, &new] {
            if checkpoint.site != *self.log.site() || checkpoint.trees.len() != partitions {
                return Err(invalid("the checkpoint is of another log"));
            }
        }
        if old.number > new.number {
            return Err(invalid("the older checkpoint has the higher number"));
        }
        let mut paths = Vec::with_capacity(partitions);
        for (partition, (old, new)) in (0..).map(Partition).zip(old.trees.iter().zip(&new.trees)) {
            let is_there = new.size <= self.log.end(partition).await?.0;
            let spans = consistency(old.size, new.size).filter(|_| is_there);
            let spans = spans.ok_or_else(|| altered(Unproven::Inconsistent(partition.0)))?;
            paths.push(Nodes::new(self.log, self.kept, partition).roots(&spans).await?);
        }
        let proof = ConsistencyProof { older, newer, paths };
        proof.verify().map_err(altered)?;
        Ok(proof)
    }

    /// Whether a partition begins with what a tree had of it.
    pub(super) async fn begins_with(
        &self,
        partition: Partition,
        before: TreeHead,
        now: TreeHead,
    ) -> Result<bool, Error> {
        if before.size >= now.size {
            return Ok(before == now);
        }
        let roots = Nodes::new(self.log, self.kept, partition).roots(&[Span::all(before.size)]).await?;
        Ok(roots.first() == Some(&before.root))
    }
}

pub(super) fn malformed(error: Unproven) -> Error {
    Error::new(ErrorKind::Invalid, error.to_string())
}

/// What can't be proved of this log, because it is not so.
fn altered(error: Unproven) -> Error {
    let kind = match error {
        Unproven::NotIncluded { .. } => ErrorKind::Corrupt,
        Unproven::Inconsistent(_) => ErrorKind::Conflict,
        _ => ErrorKind::Invalid,
    };
    Error::new(kind, error.to_string())
}
