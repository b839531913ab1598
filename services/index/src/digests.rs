//! The digest tree from the whole down to single events, for whoever compares it with another index's.

use crate::{
    answering::{Answers, Ended, answering},
    query::Studies,
    rows::{Identities, Rows, committed, malformed},
    service::{Pinned, Shared, whole},
};
use cairn_archive::{
    EventId, Incarnation, Offset, Partition, Position,
    digest::{FOLD_VERSION, leaf_of},
    events::Event,
    fold::{ErasureStep, EventOrder, Fact, Stamp, StudyKey, StudyState, Trace, TraceKind},
    index_rows::{TRACES, decode_trace, study_pk},
};
use cairn_dicom::{Uid, dataset::DataSet};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind,
    digests::{DigestTree, FoldedEvent, Of, StudyDigest},
};
use cairn_store_api::{CkRange, EventLog, as_stored};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

/// The tree of the serving generation. The positions are read first: the tree has at least that.
pub(crate) async fn tree(shared: &Shared) -> Result<DigestTree, Error> {
    let serving = shared.serving();
    serving.refresh(true).await?;
    let (folded, leaves) =
        serving.look(|parts| (serving.positions(parts, true), whole(parts.iter().map(|part| &part.leaves))));
    Ok(DigestTree { site: shared.log.site().clone(), fold_version: FOLD_VERSION, folded, leaves })
}

/// Digests of studies in the serving generation.
pub(crate) async fn studies(shared: &Arc<Shared>, tenant: String, of: Of) -> Result<AnswerStream<StudyDigest>, Error> {
    let pinned = shared.pinned(None).await?;
    let place = shared.place().await?;
    let shared = shared.clone();
    Ok(answering(shared.config.answers_ahead_max, Some(place), move |answers| async move {
        match of {
            Of::Studies(uids) => named(&pinned.rows, &tenant, &uids, &answers).await?,
            Of::Leaves(leaves) => listed(&pinned.rows, &tenant, &leaves.into_iter().collect(), &answers).await?,
        }
        Ok(shared.was_there(&pinned).await?)
    }))
}

fn digest_of(study_instance_uid: Uid, key: &StudyKey, state: &StudyState) -> StudyDigest {
    StudyDigest { study_instance_uid, events: state.events.to_bytes(), state: state.hash(key) }
}

async fn named(rows: &Rows, tenant: &str, uids: &[Uid], answers: &Answers<StudyDigest>) -> Result<(), Ended> {
    for page in uids.chunks(rows.page) {
        let key = |uid: &Uid| StudyKey { tenant: tenant.to_owned(), study_instance_uid: uid.to_string() };
        let keys: Vec<_> = page.iter().map(key).collect();
        for ((uid, key), state) in page.iter().zip(&keys).zip(rows.studies_now(&keys).await?) {
            if let Some(state) = state {
                answers.give(digest_of(uid.clone(), key, &state)).await?;
            }
        }
    }
    Ok(())
}

async fn listed(rows: &Rows, tenant: &str, leaves: &BTreeSet<u8>, answers: &Answers<StudyDigest>) -> Result<(), Ended> {
    let unusable = |_| Error::new(ErrorKind::Internal, "the list of all studies can't be asked for");
    let all = cairn_archive::plan::plan(&DataSet::new(), &Default::default()).map_err(unusable)?.way.with_rejected();
    let mut studies = Studies::new(rows.clone(), tenant, &all, rows.page, true).await?;
    while let Some((key, state)) = studies.next().await? {
        if leaves.contains(&leaf_of(&key.tenant, &key.study_instance_uid)) {
            let not_one = |_| Error::new(ErrorKind::Internal, "a study without a UID is listed");
            let uid = key.study_instance_uid.parse().map_err(not_one)?;
            answers.give(digest_of(uid, &key, &state)).await?;
        }
    }
    Ok(())
}

/// The events folded in a study of the serving generation.
pub(crate) async fn events(
    shared: &Arc<Shared>,
    tenant: String,
    study: &Uid,
    only: Vec<EventId>,
) -> Result<AnswerStream<FoldedEvent>, Error> {
    let pinned = shared.pinned(None).await?;
    let place = shared.place().await?;
    let partition = Partition::of_study(study.as_str(), shared.log.partitions());
    let as_of = match pinned.rows.are_exact() {
        true => None,
        false => {
            let ends = pinned.project.refresh(false).await?;
            let end = ends.get(usize::from(partition.0)).copied().unwrap_or_default();
            Some(Stamp::new(shared.log.incarnation(), end))
        }
    };
    let key = StudyKey { tenant, study_instance_uid: study.to_string() };
    let only = (!only.is_empty()).then(|| only.into_iter().collect());
    let shared = shared.clone();
    Ok(answering(shared.config.answers_ahead_max, Some(place), move |answers| async move {
        let reading = Reading { log: shared.log.clone(), pinned, key, partition, as_of, only, answers };
        reading.facts().await?;
        reading.traces().await?;
        Ok(shared.was_there(&reading.pinned).await?)
    }))
}

struct Reading {
    log: Arc<dyn EventLog>,
    pinned: Pinned,
    key: StudyKey,
    partition: Partition,
    /// What is folded of a store that may have more; `None`: all that is there.
    as_of: Option<Stamp>,
    only: Option<HashSet<EventId>>,
    answers: Answers<FoldedEvent>,
}

impl Reading {
    async fn facts(&self) -> Result<(), Ended> {
        let mut identities = Identities::new(&self.pinned.rows, &self.key, None);
        while let Some((identity, facts)) = identities.next().await? {
            // What a repair says in an event's place is no event: the repair itself is among the traces. So is an event about
            // several instances.
            let is_event = |fact: &&Fact| fact.as_ref().said_by() == fact.order().id && fact.as_ref().is_whole_event();
            for fact in facts.iter().filter(|fact| committed(fact, self.as_of)).filter(is_event) {
                let about = (identity.series.clone(), identity.instance.clone());
                self.give(Some(about), fact.order(), fact.stamp(), kind_of(fact)).await?;
            }
        }
        Ok(())
    }

    async fn traces(&self) -> Result<(), Ended> {
        let mut pages = self.pinned.rows.pages(TRACES, study_pk(&self.key), CkRange::default());
        while let Some(page) = pages.next().await? {
            for row in page {
                let trace = decode_trace(&row.value).map_err(malformed)?;
                if self.as_of.is_none_or(|as_of| trace.stamp < as_of) {
                    self.give(None, &trace.order, trace.stamp, kind_of_trace(&trace)).await?;
                }
            }
        }
        Ok(())
    }

    async fn give(
        &self,
        about: Option<(Uid, Uid)>,
        order: &EventOrder,
        stamp: Stamp,
        kind: &'static str,
    ) -> Result<(), Ended> {
        let (position, origin) = match &self.only {
            Some(only) if !only.contains(&order.id) => return Ok(()),
            Some(_) => self.places(order, stamp).await?.unzip(),
            None => (None, None),
        };
        let EventOrder { hlc, site, id } = order;
        let (event, site, happened_at_ms) = (*id, site.clone(), hlc.wall_ms);
        self.answers
            .give(FoldedEvent { about, event, kind: kind.to_owned(), site, happened_at_ms, origin, position })
            .await
    }

    /// Where an event stands, and where it became a fact. One that was folded later than it stood in the log is not where its
    /// stamp says.
    async fn places(&self, order: &EventOrder, stamp: Stamp) -> Result<Option<(Position, Position)>, Error> {
        let (incarnation, offset) = (Incarnation((stamp.0 >> 48) as u32), Offset(stamp.0 & ((1 << 48) - 1)));
        if incarnation != self.log.incarnation() {
            return Ok(None);
        }
        let batch = as_stored(&*self.log).read(self.partition, offset, 1, 1).await?;
        let Some(found) = batch.records.into_iter().find(|found| found.record.envelope.id == order.id) else {
            return Ok(None);
        };
        let (site, partition) = (self.log.site().clone(), self.partition);
        let here = Position { site, incarnation, partition, offset };
        Ok(Some((here.clone(), found.record.envelope.origin.unwrap_or(here))))
    }
}

fn kind_of(fact: &Fact) -> &'static str {
    match fact {
        Fact::Stored(_) => Event::InstanceStored(Default::default()).kind(),
        Fact::Compared(_) => Event::VersionsCompared(Default::default()).kind(),
        Fact::Chosen(_) => Event::VersionChosen(Default::default()).kind(),
        Fact::Rejected(_) => Event::InstancesRejected(Default::default()).kind(),
        Fact::Revoked(_) => Event::RejectionRevoked(Default::default()).kind(),
        Fact::Condition(condition) if condition.damaged => Event::ObjectDamaged(Default::default()).kind(),
        Fact::Condition(_) => Event::ObjectRepaired(Default::default()).kind(),
        Fact::Erasing(erasing) if erasing.is_done => Event::VersionsErased(Default::default()).kind(),
        Fact::Erasing(_) => Event::ErasureRequested(Default::default()).kind(),
    }
}

fn kind_of_step(step: ErasureStep) -> &'static str {
    match step {
        ErasureStep::Requested => Event::ErasureRequested(Default::default()).kind(),
        ErasureStep::Withdrawn => Event::ErasureWithdrawn(Default::default()).kind(),
        ErasureStep::Confirmed => Event::ErasureConfirmed(Default::default()).kind(),
        ErasureStep::Erased => Event::VersionsErased(Default::default()).kind(),
        ErasureStep::Destroyed => Event::ObjectsDestroyed(Default::default()).kind(),
        ErasureStep::KeysJudged => Event::KeysJudged(Default::default()).kind(),
        ErasureStep::KeysDestroyed => Event::KeysDestroyed(Default::default()).kind(),
    }
}

fn kind_of_trace(trace: &Trace) -> &'static str {
    match trace.kind {
        TraceKind::ReceivedAgain { .. } => Event::InstanceReceivedAgain(Default::default()).kind(),
        TraceKind::ReceiptClosed { .. } => Event::ReceiptClosed(Default::default()).kind(),
        TraceKind::Rejected { .. } => Event::InstancesRejected(Default::default()).kind(),
        TraceKind::Moved => Event::StudyMoved(Default::default()).kind(),
        TraceKind::Corrected => Event::AttributesCorrected(Default::default()).kind(),
        TraceKind::CorrectionRevoked => Event::CorrectionRevoked(Default::default()).kind(),
        TraceKind::Revoked { .. } => Event::RejectionRevoked(Default::default()).kind(),
        TraceKind::Erasure { step, .. } => kind_of_step(step),
        TraceKind::Repaired { .. } => Event::EventRepaired(Default::default()).kind(),
    }
}
