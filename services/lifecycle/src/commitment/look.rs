//! Looking for what a request is about: once through its references, with the index.

use super::{
    history::{self, OfStudy},
    judge::{Judged, StoredLast, is_of_several, judge, meant},
};
use cairn_archive::{
    EventId, Partition, PositionVector,
    commitment::{FailureReason, Reference},
    fold::EventOrder,
};
use cairn_dicom::Uid;
use cairn_service_api::{
    Error, Index,
    commitment::Transaction,
    index::{Detail, InstanceRecord, Selection},
};
use cairn_store_api::{EventLog, ObjectRef};
use futures_util::{TryStreamExt, future::try_join_all};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// Longest wait for the index by one look; another follows.
const INDEX_WAIT_MAX: Duration = Duration::from_secs(20);
/// References that the index is asked about by one call.
const AT_ONCE: usize = 256;

/// A version to be read back.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToRead {
    /// Place of the reference that it is of.
    pub(super) place: usize,
    /// Its store event.
    pub(super) named_by: EventId,
    object: ObjectRef,
    side_object: Option<ObjectRef>,
}

impl ToRead {
    /// Its objects.
    pub(super) fn objects(&self) -> impl Iterator<Item = ObjectRef> + use<> {
        [Some(self.object), self.side_object].into_iter().flatten()
    }
}

/// What a look came to, reference by reference.
#[derive(Default)]
pub(super) struct Seen {
    /// Why it is not committed, as things are; `None`: it is, if it reads back.
    pub(super) outcomes: Vec<Option<FailureReason>>,
    /// What must read back.
    pub(super) to_read: Vec<ToRead>,
    /// Whether something is awaited.
    pub(super) is_awaited: bool,
    /// Partitions of the log that hold what is to be read.
    pub(super) partitions: BTreeSet<Partition>,
}

/// Looks.
pub(super) struct Looking<'a> {
    pub(super) index: &'a dyn Index,
    pub(super) log: &'a Arc<dyn EventLog>,
    pub(super) transaction: &'a Transaction,
    /// Whether other sites must have it too.
    pub(super) is_of_several_sites: bool,
    /// What was read of studies in which it matters who stored what.
    pub(super) studies: HashMap<Uid, OfStudy>,
}

impl Looking<'_> {
    /// Waits until the index has all that is in the log now: what was stored before the request.
    ///
    /// # Errors
    /// `Unavailable` (`NotYetIndexed`): not within `timeout`. The log's.
    pub(super) async fn wait_for_index(&self, timeout: Duration) -> Result<(), Error> {
        let log = self.log;
        let ends = try_join_all((0..log.partitions()).map(|partition| log.end(Partition(partition)))).await?;
        let mut all = PositionVector::default();
        for (partition, end) in (0..).map(Partition).zip(ends) {
            all.0.insert((log.site().clone(), log.incarnation(), partition), end);
        }
        self.index.wait_for(&all, timeout.min(INDEX_WAIT_MAX)).await
    }

    /// Goes through the references.
    ///
    /// # Errors
    /// The index's or the log's.
    pub(super) async fn look(&mut self, references: &[Reference]) -> Result<Seen, Error> {
        let mut seen = Seen::default();
        for some in references.chunks(AT_ONCE) {
            let found = self.find(some).await?;
            self.read_histories(some, &found).await?;
            for reference in some {
                let records = found.get(&reference.sop_instance_uid).map(Vec::as_slice).unwrap_or_default();
                let records = meant(reference, records);
                self.note(&mut seen, judge(reference, &records, self.stored_last(&records)));
            }
        }
        Ok(seen)
    }

    async fn find(&self, references: &[Reference]) -> Result<HashMap<Uid, Vec<InstanceRecord>>, Error> {
        let distinct: BTreeSet<_> = references.iter().map(|reference| reference.sop_instance_uid.clone()).collect();
        let selection = Selection {
            tenant: self.transaction.tenant.clone(),
            instances: distinct.into_iter().collect(),
            all_versions: true,
            ..Selection::default()
        };
        let mut records = self.index.instances(selection, Detail::Location).await?;
        let mut found: HashMap<Uid, Vec<InstanceRecord>> = HashMap::new();
        while let Some(record) = records.try_next().await? {
            found.entry(record.sop_instance_uid.clone()).or_default().push(record);
        }
        Ok(found)
    }

    /// Of studies in which it matters.
    async fn read_histories(
        &mut self,
        references: &[Reference],
        found: &HashMap<Uid, Vec<InstanceRecord>>,
    ) -> Result<(), Error> {
        // Nobody in particular: what is shown is what was asked about.
        if self.transaction.requester.is_empty() {
            return Ok(());
        }
        let mut wanted: HashMap<&Uid, HashSet<(Uid, Uid)>> = HashMap::new();
        for reference in references {
            let records = found.get(&reference.sop_instance_uid).map(Vec::as_slice).unwrap_or_default();
            let records = meant(reference, records);
            for record in records.iter().filter(|_| is_of_several(&records)) {
                wanted.entry(&record.study_instance_uid).or_default().insert(instance_of(record));
            }
        }
        let of = (self.transaction.tenant.as_str(), self.transaction.requester.as_str());
        self.studies.clear();
        for (study, instances) in wanted {
            let read = history::of_study(self.index, self.log, of, study, &instances).await?;
            self.studies.insert(study.clone(), read);
        }
        Ok(())
    }

    /// Which of these the requester stored last, wherever they are.
    fn stored_last(&self, records: &[&InstanceRecord]) -> StoredLast {
        let mut last: (StoredLast, Option<&EventOrder>) = (StoredLast::Nothing, None);
        for record in records {
            let Some(of_study) = self.studies.get(&record.study_instance_uid) else { continue };
            match of_study.last(&instance_of(record)) {
                (StoredLast::Unknown, _) => return StoredLast::Unknown,
                (version, order) if order > last.1 => last = (version, order),
                _ => {}
            }
        }
        last.0
    }

    fn note(&self, seen: &mut Seen, judged: Judged) {
        let place = seen.outcomes.len();
        seen.outcomes.push(match judged {
            Judged::Failed(reason) => Some(reason),
            Judged::NotYet(reason) => {
                seen.is_awaited = true;
                Some(reason)
            }
            // Damaged at a site, which would confirm that it was stored there.
            Judged::ToRead(records) if self.is_of_several_sites && records.iter().any(|of| of.damaged) => {
                seen.is_awaited = true;
                Some(FailureReason::PROCESSING_FAILURE)
            }
            Judged::ToRead(records) => {
                for record in records {
                    let study = record.study_instance_uid.as_str();
                    seen.partitions.insert(Partition::of_study(study, self.log.partitions()));
                    let InstanceRecord { store_event: named_by, object, side_object, .. } = record;
                    seen.to_read.push(ToRead { place, named_by, object, side_object });
                }
                None
            }
        });
    }
}

fn instance_of(record: &InstanceRecord) -> (Uid, Uid) {
    (record.series_instance_uid.clone(), record.sop_instance_uid.clone())
}
