//! What the log has of a study.

use super::follow::{Follower, READ_BYTES, READ_RECORDS};
use cairn_archive::{
    Offset, Partition,
    erasure::{StudyFacts, StudyKeys},
};
use cairn_service_api::Error;
use cairn_store_api::as_stored;
use std::collections::HashMap;

impl Follower {
    /// Reads everything that the log has of a study now: it goes through the study's partition from its beginning.
    ///
    /// # Errors
    /// The log's.
    pub(crate) async fn study(&self, tenant: &str, study_instance_uid: &str) -> Result<StudyFacts, Error> {
        let partition = Partition::of_study(study_instance_uid, self.log.partitions());
        let mut facts = self.studies(tenant, partition, &[study_instance_uid]).await?;
        Ok(facts.pop().unwrap_or_default())
    }

    /// Reads everything that the log has now of studies of one partition, in the order in which they are named.
    ///
    /// # Errors
    /// The log's.
    pub(crate) async fn studies(
        &self,
        tenant: &str,
        partition: Partition,
        study_instance_uids: &[&str],
    ) -> Result<Vec<StudyFacts>, Error> {
        let places: HashMap<&str, usize> = study_instance_uids.iter().copied().zip(0..).collect();
        let mut all = vec![StudyFacts::default(); study_instance_uids.len()];
        let (end, mut from) = (self.log.end(partition).await?, Offset(0));
        while from < end {
            let batch = self.log.read(partition, from, READ_RECORDS, READ_BYTES).await?;
            let Some(last) = batch.records.last() else { break };
            from = last.offset.next();
            for record in batch.records {
                let (envelope, payload) = (&record.record.envelope, &record.record.payload);
                // What nobody can read may be of any study.
                if envelope.kind == cairn_archive::Envelope::UNREADABLE {
                    all.iter_mut().for_each(|facts| facts.include(envelope, payload.clone()));
                    continue;
                }
                let place = places.get(envelope.study_instance_uid.as_str()).filter(|_| envelope.tenant == tenant);
                if let Some(facts) = place.and_then(|place| all.get_mut(*place)) {
                    facts.include(envelope, payload.clone());
                }
            }
        }
        Ok(all)
    }

    /// Reads what of a study is sealed under which key.
    ///
    /// # Errors
    /// The log's.
    pub(super) async fn study_keys(&self, tenant: &str, study_instance_uid: &str) -> Result<StudyKeys, Error> {
        let (log, partition) = (as_stored(&*self.log), Partition::of_study(study_instance_uid, self.log.partitions()));
        let (mut keys, end, mut from) = (StudyKeys::default(), log.end(partition).await?, Offset(0));
        while from < end {
            let batch = log.read(partition, from, READ_RECORDS, READ_BYTES).await?;
            let Some(last) = batch.records.last() else { break };
            from = last.offset.next();
            for read in batch.records {
                let position = self.origin(partition, &read);
                let (envelope, payload) = (&read.record.envelope, read.record.payload);
                // What nobody can read may be of any study.
                let is_of_any = envelope.kind == cairn_archive::Envelope::UNREADABLE;
                if is_of_any || (envelope.study_instance_uid == study_instance_uid && envelope.tenant == tenant) {
                    keys.include(envelope, &position, payload);
                }
            }
        }
        Ok(keys)
    }
}
