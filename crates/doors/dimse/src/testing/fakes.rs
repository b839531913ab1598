//! Services in memory, for tests of the door alone.
#![allow(clippy::unwrap_used)]

use crate::testing::{CT, EXPLICIT, uid};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    Digest, EventId, Incarnation, ObjectKey, Offset, Partition, Position, PositionVector,
    commitment::{FailureReason, State},
    events::ReceiptEnd,
    ids::ReceiptId,
};
use cairn_dicom::{Uid, dataset::DataSet};
use cairn_service_api::{
    AnswerStream, Commitments, Error, ErrorKind, Index, Ingest, Retrieval,
    commitment::{Commitment, Outcome, Reported, Request, Selection as CommitmentSelection, Transaction},
    index::{
        Change, Changed, Conflict, Detail, Diff, GenerationStatus, IndexStatus, InstanceRecord, Query, Selection,
        StateDigest, StudyDifference,
    },
    ingest::{Body, InstanceOffer, OfferedForm, QuarantineEntry, Sender, StoreOutcome, Stored},
    retrieval::{Frame, Part, RetrievedInstance},
};
use cairn_store_api::ObjectRef;
use futures_util::{StreamExt, stream};
use std::{collections::VecDeque, sync::Mutex, time::Duration};
use tokio::sync::{mpsc, watch};

fn never<T>() -> Result<T, Error> {
    Err(Error::new(ErrorKind::Internal, "not used by the door"))
}

pub(crate) fn position(offset: u64) -> Position {
    Position {
        site: "here".parse().unwrap(),
        incarnation: Incarnation(1),
        partition: Partition(0),
        offset: Offset(offset),
    }
}

/// Message of a scripted error that makes ingest panic instead.
pub(crate) const PANIC: &str = "panic";

/// Keeps what it is given, unless told to answer otherwise.
pub(crate) struct FakeIngest {
    pub(crate) stored: Mutex<Vec<(InstanceOffer, Vec<u8>)>>,
    pub(crate) senders: Mutex<Vec<Sender>>,
    pub(crate) closed: Mutex<Vec<ReceiptEnd>>,
    /// Answers to the next stores; before reading the body if the flag says so.
    pub(crate) script: Mutex<VecDeque<(bool, Result<StoreOutcome, Error>)>>,
    /// Bytes of bodies seen so far, and bodies that ended in an error.
    pub(crate) seen: watch::Sender<(usize, usize)>,
}

impl Default for FakeIngest {
    fn default() -> Self {
        Self {
            stored: Mutex::default(),
            senders: Mutex::default(),
            closed: Mutex::default(),
            script: Mutex::default(),
            seen: watch::Sender::new((0, 0)),
        }
    }
}

#[async_trait]
impl Ingest for FakeIngest {
    async fn open_receipt(&self, sender: Sender) -> Result<ReceiptId, Error> {
        self.senders.lock().unwrap().push(sender);
        Ok(ReceiptId::from_slice(&[1; 16]).unwrap())
    }

    async fn store(&self, _: ReceiptId, offer: InstanceOffer, mut body: Body<'_>) -> Result<Stored, Error> {
        let (early, outcome) = self.script.lock().unwrap().pop_front().unwrap_or((false, Ok(StoreOutcome::New)));
        if early {
            outcome.clone()?;
        }
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => {
                    bytes.extend_from_slice(&piece);
                    self.seen.send_modify(|seen| seen.0 += piece.len());
                }
                Err(error) => {
                    self.seen.send_modify(|seen| seen.1 += 1);
                    return Err(error);
                }
            }
        }
        assert!(outcome.as_ref().err().is_none_or(|error| error.message != PANIC), "a panic that a test asked for");
        let outcome = outcome?;
        let OfferedForm::DataSet { sop_class_uid, sop_instance_uid, .. } = offer.form.clone() else { return never() };
        let length = bytes.len() as u64;
        let mut stored = self.stored.lock().unwrap();
        stored.push((offer, bytes));
        Ok(Stored {
            study_instance_uid: uid("1.2"),
            series_instance_uid: uid("1.2.3"),
            sop_instance_uid,
            sop_class_uid,
            digest: Digest([0; 32]),
            length,
            position: position(stored.len() as u64 - 1),
            outcome,
            findings: vec![],
            confirmed_sites: 0,
            rejections: Vec::new(),
        })
    }

    async fn close_receipt(&self, _: ReceiptId, end: ReceiptEnd) -> Result<(), Error> {
        self.closed.lock().unwrap().push(end);
        Ok(())
    }

    async fn choose_version(
        &self,
        _: &str,
        _: (Uid, Uid, Uid),
        _: EventId,
        _: &str,
        _: &str,
    ) -> Result<Position, Error> {
        never()
    }

    async fn repair(&self, _: cairn_service_api::parked::Repair) -> Result<Position, Error> {
        never()
    }

    async fn revoke_rejection(&self, _: cairn_service_api::rejection::Revocation) -> Result<Position, Error> {
        never()
    }

    async fn correct(&self, _: cairn_service_api::correction::Correction) -> Result<Position, Error> {
        never()
    }

    async fn revoke_correction(
        &self,
        _: cairn_service_api::correction::CorrectionRevocation,
    ) -> Result<Position, Error> {
        never()
    }

    async fn say_of_patients(&self, _: cairn_service_api::patients::PatientStatement) -> Result<Position, Error> {
        never()
    }

    async fn revoke_patient_fact(&self, _: cairn_service_api::patients::PatientRevocation) -> Result<Position, Error> {
        never()
    }

    async fn quarantine(&self) -> Result<AnswerStream<QuarantineEntry>, Error> {
        never()
    }

    async fn quarantined_bytes(&self, _: EventId) -> Result<AnswerStream<Bytes>, Error> {
        never()
    }

    async fn ready(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Where the answers of one query come from.
type Found = mpsc::Receiver<Result<DataSet, Error>>;

/// Answers a query with what comes through a channel, and knows some instances.
#[derive(Default)]
pub(crate) struct FakeIndex {
    pub(crate) queries: Mutex<Vec<Query>>,
    pub(crate) waited_for: Mutex<Vec<PositionVector>>,
    pub(crate) answers: Mutex<VecDeque<Result<Found, Error>>>,
    pub(crate) selections: Mutex<Vec<Selection>>,
    pub(crate) records: Vec<InstanceRecord>,
}

impl FakeIndex {
    /// Answers the next query with these.
    pub(crate) fn answer_with(&self, answers: Vec<Result<DataSet, Error>>) {
        let (sender, receiver) = mpsc::channel(answers.len().max(1));
        for answer in answers {
            sender.try_send(answer).unwrap();
        }
        self.answers.lock().unwrap().push_back(Ok(receiver));
    }
}

#[async_trait]
impl Index for FakeIndex {
    async fn query(&self, query: Query) -> Result<AnswerStream<DataSet>, Error> {
        self.queries.lock().unwrap().push(query);
        let receiver = self.answers.lock().unwrap().pop_front().unwrap()?;
        Ok(Box::pin(stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) })))
    }

    async fn instances(&self, selection: Selection, _: Detail) -> Result<AnswerStream<InstanceRecord>, Error> {
        self.selections.lock().unwrap().push(selection);
        Ok(Box::pin(stream::iter(self.records.clone().into_iter().map(Ok))))
    }

    async fn wait_for(&self, after: &PositionVector, _: Duration) -> Result<(), Error> {
        self.waited_for.lock().unwrap().push(after.clone());
        Ok(())
    }

    async fn conflicts(&self, _: &str, _: bool) -> Result<AnswerStream<Conflict>, Error> {
        never()
    }

    async fn parked(
        &self,
        _: cairn_service_api::parked::ParkedSelection,
    ) -> Result<AnswerStream<cairn_service_api::parked::ParkedEvent>, Error> {
        never()
    }

    async fn status(&self) -> Result<IndexStatus, Error> {
        never()
    }

    async fn digest(&self) -> Result<(StateDigest, PositionVector), Error> {
        never()
    }

    async fn generations(&self) -> Result<Vec<GenerationStatus>, Error> {
        never()
    }

    async fn manage(&self, _: Change) -> Result<Changed, Error> {
        never()
    }

    async fn diff(&self, _: Diff) -> Result<AnswerStream<StudyDifference>, Error> {
        never()
    }

    async fn digest_tree(&self) -> Result<cairn_service_api::digests::DigestTree, Error> {
        never()
    }

    async fn study_digests(
        &self,
        _: &str,
        _: cairn_service_api::digests::Of,
    ) -> Result<AnswerStream<cairn_service_api::digests::StudyDigest>, Error> {
        never()
    }

    async fn study_events(
        &self,
        _: &str,
        _: &cairn_dicom::Uid,
        _: Vec<cairn_archive::EventId>,
    ) -> Result<AnswerStream<cairn_service_api::digests::FoldedEvent>, Error> {
        never()
    }

    async fn patient_facts(
        &self,
        _: &str,
        _: cairn_service_api::patients::FactsOf,
    ) -> Result<AnswerStream<cairn_service_api::patients::KnownFact>, Error> {
        never()
    }

    async fn survey(
        &self,
        _: cairn_service_api::survey::Survey,
    ) -> Result<AnswerStream<cairn_service_api::survey::Surveyed>, Error> {
        never()
    }
}

/// Takes requests for storage commitment, and decides when a test says so.
#[derive(Default)]
pub(crate) struct FakeCommitments {
    pub(crate) requests: Mutex<Vec<Request>>,
    pub(crate) refusals: Mutex<VecDeque<Error>>,
    pub(crate) reported: watch::Sender<Vec<Reported>>,
    /// Whether everything that was asked for is decided: the first instance of each is not committed.
    pub(crate) decided: watch::Sender<bool>,
}

impl FakeCommitments {
    fn known(&self, transaction: &Transaction, decided: bool) -> Result<Commitment, Error> {
        let requests = self.requests.lock().unwrap();
        let request = requests.iter().find(|request| request.transaction == *transaction);
        let request = request.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such transaction"))?;
        Ok(Commitment {
            transaction: transaction.clone(),
            state: if decided { State::Unreported } else { State::Pending },
            door: request.door,
            requested_at_ms: 1,
            references: request.references.len() as u32,
            confirmed_sites: request.confirmed_sites,
            decided_at_ms: decided.then_some(2),
            committed: 0,
            failed: Vec::new(),
            reported_at_ms: None,
            report_failure: None,
        })
    }
}

#[async_trait]
impl Commitments for FakeCommitments {
    async fn request_commitment(&self, request: Request) -> Result<Commitment, Error> {
        if let Some(refusal) = self.refusals.lock().unwrap().pop_front() {
            return Err(refusal);
        }
        let transaction = request.transaction.clone();
        self.requests.lock().unwrap().push(request);
        self.known(&transaction, false)
    }

    async fn commitment(&self, transaction: &Transaction, wait: Duration) -> Result<Commitment, Error> {
        let mut decided = self.decided.subscribe();
        let decided = tokio::time::timeout(wait, decided.wait_for(|decided| *decided)).await.is_ok();
        self.known(transaction, decided)
    }

    async fn commitment_outcomes(&self, transaction: &Transaction) -> Result<AnswerStream<Outcome>, Error> {
        let requests = self.requests.lock().unwrap();
        let request = requests.iter().find(|request| request.transaction == *transaction).unwrap();
        let reasons = std::iter::once(Some(FailureReason::NO_SUCH_OBJECT_INSTANCE)).chain(std::iter::repeat(None));
        let outcomes = request.references.clone().into_iter().zip(reasons);
        let outcomes: Vec<_> = outcomes.map(|(reference, failure)| Ok(Outcome { reference, failure })).collect();
        Ok(Box::pin(stream::iter(outcomes)))
    }

    async fn commitments(&self, _: CommitmentSelection) -> Result<AnswerStream<Commitment>, Error> {
        never()
    }

    async fn commitment_reported(&self, _: &Transaction, reported: Reported) -> Result<(), Error> {
        self.reported.send_modify(|all| all.push(reported));
        Ok(())
    }
}

/// A record of an instance.
pub(crate) fn record(class: &str, syntax: &str, instance: &str) -> InstanceRecord {
    InstanceRecord {
        study_instance_uid: uid("1.2"),
        series_instance_uid: uid("1.2.3"),
        sop_instance_uid: uid(instance),
        sop_class_uid: uid(class),
        transfer_syntax_uid: uid(syntax),
        store_event: EventId::from_slice(&[2; 16]).unwrap(),
        object: ObjectRef { key: ObjectKey::from_slice(&[3; 16]).unwrap(), length: 0, digest: Digest([0; 32]) },
        data_set_offset: 0,
        pixel_data_offset: 0,
        shown: true,
        rejected: Default::default(),
        damaged: false,
        is_to_be_erased: false,
        is_cold: false,
        corrections: Vec::new(),
        corrected_length: None,
        frames: 0,
        frame_table: None,
        bulk_data: vec![],
        header: Bytes::new(),
        side_object: None,
        default_character_set: String::new(),
        issuer_of_patient_id: String::new(),
    }
}

/// `count` CT instances in Explicit VR Little Endian, each of its own number of bytes.
pub(crate) fn cts(count: usize) -> Vec<(InstanceRecord, Result<Vec<Bytes>, Error>)> {
    let one = |number: usize| {
        let body: Vec<u8> = (0..20_000 + 2 * number).map(|at| (at + number) as u8).collect();
        // Pieces of odd sizes, as a store may give them.
        let pieces = body.chunks(4_999).map(Bytes::copy_from_slice).collect();
        (record(CT, EXPLICIT, &format!("1.2.3.{number}")), Ok(pieces))
    };
    (1..=count).map(one).collect()
}

/// Gives out what it was made with.
#[derive(Default)]
pub(crate) struct FakeRetrieval {
    pub(crate) instances: Vec<(InstanceRecord, Result<Vec<Bytes>, Error>)>,
    /// If set, an instance is given for each message only.
    pub(crate) gate: Mutex<Option<mpsc::Receiver<()>>>,
}

#[async_trait]
impl Retrieval for FakeRetrieval {
    async fn instances(&self, _: Selection, part: Part) -> Result<AnswerStream<RetrievedInstance>, Error> {
        assert_eq!(part, Part::DataSet);
        let gate = self.gate.lock().unwrap().take();
        let instances: VecDeque<_> = self.instances.clone().into();
        Ok(Box::pin(stream::unfold((instances, gate), |(mut instances, mut gate)| async {
            if let Some(gate) = &mut gate {
                gate.recv().await?;
            }
            let (record, bytes) = instances.pop_front()?;
            let bytes: Vec<Result<Bytes, Error>> = match bytes {
                Ok(pieces) => pieces.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            let instance = RetrievedInstance { record, bytes: Box::pin(stream::iter(bytes)) };
            Some((Ok(instance), (instances, gate)))
        })))
    }

    async fn metadata(&self, _: Selection) -> Result<AnswerStream<InstanceRecord>, Error> {
        never()
    }

    async fn open(&self, _: &InstanceRecord, _: Part) -> Result<AnswerStream<Bytes>, Error> {
        never()
    }

    async fn frames(&self, _: &InstanceRecord, _: &[u32]) -> Result<AnswerStream<Frame>, Error> {
        never()
    }

    async fn bulk_data(&self, _: &InstanceRecord, _: &[u32]) -> Result<(u64, AnswerStream<Bytes>), Error> {
        never()
    }
}
