//! What the log has of a study.

use super::follow::{Follower, READ_BYTES, READ_RECORDS};
use cairn_archive::{Offset, Partition, erasure::StudyFacts};
use cairn_service_api::Error;

impl Follower {
    /// Reads everything that the log has of a study now: it goes through the study's partition from its beginning.
    ///
    /// # Errors
    /// The log's.
    pub(super) async fn study(&self, tenant: &str, study_instance_uid: &str) -> Result<StudyFacts, Error> {
        let partition = Partition::of_study(study_instance_uid, self.log.partitions());
        let end = self.log.end(partition).await?;
        let (mut facts, mut from) = (StudyFacts::default(), Offset(0));
        while from < end {
            let batch = self.log.read(partition, from, READ_RECORDS, READ_BYTES).await?;
            let Some(last) = batch.records.last() else { break };
            from = last.offset.next();
            for record in batch.records {
                let envelope = &record.record.envelope;
                // What nobody can read may be of any study.
                let is_of_any = envelope.kind == cairn_archive::Envelope::UNREADABLE;
                if is_of_any || (envelope.study_instance_uid == study_instance_uid && envelope.tenant == tenant) {
                    facts.include(envelope, record.record.payload.clone());
                }
            }
        }
        Ok(facts)
    }
}
