//! A service that may not be there yet: doors and listeners are open from the start, and say so meanwhile.

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    EventId, HoldId, ObjectKey, Position, PositionVector, SiteId,
    events::{DamageFoundBy, ReceiptEnd},
    ids::ReceiptId,
};
use cairn_dicom::{Uid, dataset::DataSet};
use cairn_service_api::{
    AnswerStream, Commitments, Error, ErrorKind, Index, Ingest, Lifecycle, Notary, Peer, Policies, Replication,
    Retention, Retrieval, Tiering,
    commitment::{self, Commitment, Reported, Transaction},
    correction::{Correction, CorrectionRevocation},
    digests::{DigestTree, FoldedEvent, Of, StudyDigest},
    index::{
        Change, Changed, Conflict, Detail, Diff, GenerationStatus, IndexStatus, InstanceRecord, Query, Selection,
        StateDigest, StudyDifference,
    },
    ingest::{Body, InstanceOffer, QuarantineEntry, Sender, Stored},
    lifecycle::{DamagedObject, FixityStatus, NamedObject},
    notary::{LogSealing, NotaryStatus, SignedCheckpoint},
    orphans::{Orphan, OrphansStatus},
    parked::{ParkedEvent, ParkedSelection, Repair},
    patients::{FactsOf, KnownFact, PatientRevocation, PatientStatement},
    policies::{Forecast, NewPolicy, PolicyStatus, WhatIf},
    rejection::Revocation,
    replication::{AtRisk, Delivered, Delivery, Inspected, Introduction, Meeting, ReplicationStatus, Report, Suspects},
    retention::{ErasureGrounds, ErasureReport, ErasureScope, ErasureStatus, HoldInForce, NewHold},
    retrieval::{Frame, Part, RetrievedInstance},
    site::{Decision, Grounds, SiteStatus},
    survey::{Survey, Surveyed},
    tiering::{NewMoves, QueuedMove, TieringStatus},
};
use cairn_store_api::ObjectRef;
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

/// What will be there once the stores under it are open.
pub struct Late<T: ?Sized> {
    name: &'static str,
    there: OnceLock<Arc<T>>,
}

impl<T: ?Sized> Late<T> {
    /// `name` is what errors call it.
    pub fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, there: OnceLock::new() })
    }

    /// It is there.
    pub fn set(&self, what: Arc<T>) {
        // Set once, by the one who opens.
        let _already = self.there.set(what);
    }

    /// It, or that it is not there yet.
    pub fn get(&self) -> Result<&Arc<T>, Error> {
        let not_yet = || Error::new(ErrorKind::Unavailable, format!("{} is starting", self.name));
        self.there.get().ok_or_else(not_yet)
    }
}

#[async_trait]
impl Ingest for Late<dyn Ingest> {
    async fn open_receipt(&self, sender: Sender) -> Result<ReceiptId, Error> {
        self.get()?.open_receipt(sender).await
    }

    async fn store(&self, receipt: ReceiptId, offer: InstanceOffer, body: Body<'_>) -> Result<Stored, Error> {
        self.get()?.store(receipt, offer, body).await
    }

    async fn close_receipt(&self, receipt: ReceiptId, end: ReceiptEnd) -> Result<(), Error> {
        self.get()?.close_receipt(receipt, end).await
    }

    async fn choose_version(
        &self,
        tenant: &str,
        identity: (Uid, Uid, Uid),
        store_event: EventId,
        chosen_by: &str,
        reason: &str,
    ) -> Result<Position, Error> {
        self.get()?.choose_version(tenant, identity, store_event, chosen_by, reason).await
    }

    async fn repair(&self, repair: Repair) -> Result<Position, Error> {
        self.get()?.repair(repair).await
    }

    async fn revoke_rejection(&self, revocation: Revocation) -> Result<Position, Error> {
        self.get()?.revoke_rejection(revocation).await
    }

    async fn correct(&self, correction: Correction) -> Result<Position, Error> {
        self.get()?.correct(correction).await
    }

    async fn revoke_correction(&self, revocation: CorrectionRevocation) -> Result<Position, Error> {
        self.get()?.revoke_correction(revocation).await
    }

    async fn say_of_patients(&self, statement: PatientStatement) -> Result<Position, Error> {
        self.get()?.say_of_patients(statement).await
    }

    async fn revoke_patient_fact(&self, revocation: PatientRevocation) -> Result<Position, Error> {
        self.get()?.revoke_patient_fact(revocation).await
    }

    async fn quarantine(&self) -> Result<AnswerStream<QuarantineEntry>, Error> {
        self.get()?.quarantine().await
    }

    async fn quarantined_bytes(&self, id: EventId) -> Result<AnswerStream<Bytes>, Error> {
        self.get()?.quarantined_bytes(id).await
    }

    async fn ready(&self) -> Result<(), Error> {
        self.get()?.ready().await
    }
}

#[async_trait]
impl Index for Late<dyn Index> {
    async fn query(&self, query: Query) -> Result<AnswerStream<DataSet>, Error> {
        self.get()?.query(query).await
    }

    async fn instances(&self, selection: Selection, detail: Detail) -> Result<AnswerStream<InstanceRecord>, Error> {
        self.get()?.instances(selection, detail).await
    }

    async fn wait_for(&self, after: &PositionVector, timeout: Duration) -> Result<(), Error> {
        self.get()?.wait_for(after, timeout).await
    }

    async fn conflicts(&self, tenant: &str, include_other_encodings: bool) -> Result<AnswerStream<Conflict>, Error> {
        self.get()?.conflicts(tenant, include_other_encodings).await
    }

    async fn parked(&self, selection: ParkedSelection) -> Result<AnswerStream<ParkedEvent>, Error> {
        self.get()?.parked(selection).await
    }

    async fn status(&self) -> Result<IndexStatus, Error> {
        self.get()?.status().await
    }

    async fn digest(&self) -> Result<(StateDigest, PositionVector), Error> {
        self.get()?.digest().await
    }

    async fn generations(&self) -> Result<Vec<GenerationStatus>, Error> {
        self.get()?.generations().await
    }

    async fn manage(&self, change: Change) -> Result<Changed, Error> {
        self.get()?.manage(change).await
    }

    async fn diff(&self, diff: Diff) -> Result<AnswerStream<StudyDifference>, Error> {
        self.get()?.diff(diff).await
    }

    async fn digest_tree(&self) -> Result<DigestTree, Error> {
        self.get()?.digest_tree().await
    }

    async fn study_digests(&self, tenant: &str, of: Of) -> Result<AnswerStream<StudyDigest>, Error> {
        self.get()?.study_digests(tenant, of).await
    }

    async fn study_events(
        &self,
        tenant: &str,
        study: &Uid,
        only: Vec<EventId>,
    ) -> Result<AnswerStream<FoldedEvent>, Error> {
        self.get()?.study_events(tenant, study, only).await
    }

    async fn patient_facts(&self, tenant: &str, of: FactsOf) -> Result<AnswerStream<KnownFact>, Error> {
        self.get()?.patient_facts(tenant, of).await
    }

    async fn survey(&self, survey: Survey) -> Result<AnswerStream<Surveyed>, Error> {
        self.get()?.survey(survey).await
    }
}

#[async_trait]
impl Retrieval for Late<dyn Retrieval> {
    async fn instances(&self, selection: Selection, part: Part) -> Result<AnswerStream<RetrievedInstance>, Error> {
        self.get()?.instances(selection, part).await
    }

    async fn metadata(&self, selection: Selection) -> Result<AnswerStream<InstanceRecord>, Error> {
        self.get()?.metadata(selection).await
    }

    async fn open(&self, record: &InstanceRecord, part: Part) -> Result<AnswerStream<Bytes>, Error> {
        self.get()?.open(record, part).await
    }

    async fn frames(&self, record: &InstanceRecord, numbers: &[u32]) -> Result<AnswerStream<Frame>, Error> {
        self.get()?.frames(record, numbers).await
    }

    async fn bulk_data(&self, record: &InstanceRecord, path: &[u32]) -> Result<(u64, AnswerStream<Bytes>), Error> {
        self.get()?.bulk_data(record, path).await
    }
}

#[async_trait]
impl Peer for Late<dyn Peer> {
    async fn meet(&self, caller: Introduction) -> Result<Meeting, Error> {
        self.get()?.meet(caller).await
    }

    async fn missing(&self, objects: Vec<ObjectRef>) -> Result<Vec<u32>, Error> {
        self.get()?.missing(objects).await
    }

    async fn put_object(&self, object: ObjectRef, body: Body<'_>) -> Result<(), Error> {
        self.get()?.put_object(object, body).await
    }

    async fn read_object(&self, caller: &SiteId, object: ObjectRef) -> Result<AnswerStream<Bytes>, Error> {
        self.get()?.read_object(caller, object).await
    }

    async fn append(&self, delivery: Delivery) -> Result<Delivered, Error> {
        self.get()?.append(delivery).await
    }

    async fn tell(&self, process: u64, report: Report) -> Result<(), Error> {
        self.get()?.tell(process, report).await
    }

    async fn step_down(&self, successor: &SiteId, grounds: Grounds) -> Result<PositionVector, Error> {
        self.get()?.step_down(successor, grounds).await
    }
}

#[async_trait]
impl Lifecycle for Late<dyn Lifecycle> {
    async fn fixity(&self) -> Result<FixityStatus, Error> {
        self.get()?.fixity().await
    }

    async fn damaged(&self) -> Result<AnswerStream<DamagedObject>, Error> {
        self.get()?.damaged().await
    }

    async fn scrub(&self) -> Result<(), Error> {
        self.get()?.scrub().await
    }

    async fn suspect(&self, named: NamedObject, found_by: DamageFoundBy) -> Result<bool, Error> {
        self.get()?.suspect(named, found_by).await
    }

    async fn orphans_status(&self) -> Result<OrphansStatus, Error> {
        self.get()?.orphans_status().await
    }

    async fn orphans(&self) -> Result<AnswerStream<Orphan>, Error> {
        self.get()?.orphans().await
    }

    async fn look_for_orphans(&self) -> Result<(), Error> {
        self.get()?.look_for_orphans().await
    }

    async fn release_orphans(&self, look: u64) -> Result<(), Error> {
        self.get()?.release_orphans(look).await
    }

    async fn read_orphan(&self, key: ObjectKey) -> Result<AnswerStream<Bytes>, Error> {
        self.get()?.read_orphan(key).await
    }
}

#[async_trait]
impl Notary for Late<dyn Notary> {
    async fn notary(&self) -> Result<NotaryStatus, Error> {
        self.get()?.notary().await
    }

    async fn checkpoint(&self, accept_breaks: bool) -> Result<SignedCheckpoint, Error> {
        self.get()?.checkpoint(accept_breaks).await
    }

    async fn prove_event(&self, position: &Position, with_payload: bool) -> Result<String, Error> {
        self.get()?.prove_event(position, with_payload).await
    }

    async fn prove_consistency(&self, older: &str, newer: Option<&str>) -> Result<String, Error> {
        self.get()?.prove_consistency(older, newer).await
    }

    async fn sealed(&self) -> Result<LogSealing, Error> {
        self.get()?.sealed().await
    }

    async fn seal(&self) -> Result<(), Error> {
        self.get()?.seal().await
    }
}

#[async_trait]
impl Commitments for Late<dyn Commitments> {
    async fn request_commitment(&self, request: commitment::Request) -> Result<Commitment, Error> {
        self.get()?.request_commitment(request).await
    }

    async fn commitment(&self, transaction: &Transaction, wait: Duration) -> Result<Commitment, Error> {
        self.get()?.commitment(transaction, wait).await
    }

    async fn commitment_outcomes(&self, transaction: &Transaction) -> Result<AnswerStream<commitment::Outcome>, Error> {
        self.get()?.commitment_outcomes(transaction).await
    }

    async fn commitments(&self, selection: commitment::Selection) -> Result<AnswerStream<Commitment>, Error> {
        self.get()?.commitments(selection).await
    }

    async fn commitment_reported(&self, transaction: &Transaction, reported: Reported) -> Result<(), Error> {
        self.get()?.commitment_reported(transaction, reported).await
    }
}

#[async_trait]
impl Retention for Late<dyn Retention> {
    async fn place_hold(&self, hold: NewHold) -> Result<HoldId, Error> {
        self.get()?.place_hold(hold).await
    }

    async fn release_hold(&self, id: HoldId, grounds: ErasureGrounds) -> Result<(), Error> {
        self.get()?.release_hold(id, grounds).await
    }

    async fn holds(&self) -> Result<AnswerStream<HoldInForce>, Error> {
        self.get()?.holds().await
    }

    async fn request_erasure(
        &self,
        scope: ErasureScope,
        delay_ms: u64,
        grounds: ErasureGrounds,
    ) -> Result<Vec<EventId>, Error> {
        self.get()?.request_erasure(scope, delay_ms, grounds).await
    }

    async fn withdraw_erasure(&self, id: EventId, grounds: ErasureGrounds) -> Result<(), Error> {
        self.get()?.withdraw_erasure(id, grounds).await
    }

    async fn erasures(&self) -> Result<AnswerStream<ErasureStatus>, Error> {
        self.get()?.erasures().await
    }

    async fn erasure_report(&self, id: EventId) -> Result<ErasureReport, Error> {
        self.get()?.erasure_report(id).await
    }
}

#[async_trait]
impl Policies for Late<dyn Policies> {
    async fn adopt_policy(&self, policy: NewPolicy) -> Result<u32, Error> {
        self.get()?.adopt_policy(policy).await
    }

    async fn withdraw_policy(&self, tenant: &str, name: &str, grounds: ErasureGrounds) -> Result<(), Error> {
        self.get()?.withdraw_policy(tenant, name, grounds).await
    }

    async fn policies(&self) -> Result<AnswerStream<PolicyStatus>, Error> {
        self.get()?.policies().await
    }

    async fn what_if(&self, of: WhatIf, studies_max: u64) -> Result<AnswerStream<Forecast>, Error> {
        self.get()?.what_if(of, studies_max).await
    }

    async fn accept_clock(&self, grounds: ErasureGrounds) -> Result<(), Error> {
        self.get()?.accept_clock(grounds).await
    }
}

#[async_trait]
impl Tiering for Late<dyn Tiering> {
    async fn tiering(&self) -> Result<TieringStatus, Error> {
        self.get()?.tiering().await
    }

    async fn move_studies(&self, moves: NewMoves) -> Result<u64, Error> {
        self.get()?.move_studies(moves).await
    }

    async fn moves(&self) -> Result<AnswerStream<QueuedMove>, Error> {
        self.get()?.moves().await
    }
}

#[async_trait]
impl Replication for Late<dyn Replication> {
    async fn status(&self) -> Result<ReplicationStatus, Error> {
        self.get()?.status().await
    }

    async fn at_risk(&self, peer: &SiteId) -> Result<AnswerStream<AtRisk>, Error> {
        self.get()?.at_risk(peer).await
    }

    async fn confirm(&self, position: &Position, sites: u32, timeout: Duration) -> Result<u32, Error> {
        self.get()?.confirm(position, sites, timeout).await
    }

    async fn repair(&self, suspects: Suspects) -> Result<AnswerStream<Inspected>, Error> {
        self.get()?.repair(suspects).await
    }

    async fn set_paused(&self, peer: &SiteId, paused: bool) -> Result<(), Error> {
        self.get()?.set_paused(peer, paused).await
    }

    async fn site(&self) -> Result<SiteStatus, Error> {
        self.get()?.site().await
    }

    async fn decide(&self, decision: Decision, grounds: Grounds) -> Result<SiteStatus, Error> {
        self.get()?.decide(decision, grounds).await
    }
}
