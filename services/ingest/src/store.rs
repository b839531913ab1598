//! Storing one SOP Instance: admit, receive, finish, decide, append, answer.

use crate::{
    append::{Appended, NotAppended},
    compare::{Pair, same_content},
    crash::{Step, crash_point},
    intake::{Intake, IntakeLimits, Received},
    metrics,
    quarantine::Refused,
    receipts::{Counted, InUse, OpenReceipt},
    refusal::{Cause, Failure, Kept, Refusal},
    rejection,
    service::Service,
    stored_event::{findings_in_event, issuer_in_data_set, object_in_event, split_side, stored_event},
    unnamed::Unnamed,
    versions::{Identity, Key, Relation, Source, Version, join, relate},
};
use bytes::Bytes;
use cairn_archive::{
    EventId, ObjectKey, Position, PositionVector,
    events::{Comparison, Event, InstanceReceivedAgain, InstanceStored, ResendPolicy},
    rejection::Note,
};
use cairn_service_api::{
    Error, ErrorKind,
    index::{Detail, InstanceRecord, Selection},
    ingest::{Body, InstanceOffer, StoreOutcome, Stored},
};
use cairn_store_api::{ObjectRef, ObjectWriter};
use futures_util::{StreamExt, TryStreamExt, future::try_join};
use std::time::Duration;
use tracing::Instrument;

/// File Meta Information taken at most, in bytes: it is kept in the event.
const FILE_META_BYTES_MAX: usize = 64 << 10;

/// An instance whose bytes are durable.
struct Staged {
    received: Received,
    object: ObjectRef,
    issuer_in_data_set: Option<String>,
    unnamed: Unnamed,
}

impl Service {
    /// Stores one SOP Instance and returns once it is safe to acknowledge it.
    pub(crate) async fn store_instance(
        &self,
        receipt: &OpenReceipt,
        offer: &InstanceOffer,
        body: Body<'_>,
    ) -> Result<Stored, Failure> {
        self.admit()?;
        // Streamed: written, hashed, walked.
        let receiving = self.receive(receipt, offer, body).instrument(tracing::info_span!("object.write"));
        let (received, writer) = receiving.await?;
        // I1: bytes durable first; the index is asked meanwhile.
        let known = self.look_up(&receipt.sender.tenant, &received.identity);
        let finishing = self.finish(receipt, received, writer).instrument(tracing::info_span!("object.finish"));
        // What can't be finished waits for no answer of the index.
        let (staged, known) = try_join(finishing, async { Ok(known.await) }).await?;
        self.decide_and_append(receipt, staged, known).await // I2: then the event, then the answer
    }

    fn admit(&self) -> Result<(), Error> {
        self.appender.check_clock()?;
        crash_point(Step::Admitted);
        Ok(())
    }

    /// Streams the body into an object and through the walker. The object is not finished.
    async fn receive(
        &self,
        receipt: &OpenReceipt,
        offer: &InstanceOffer,
        mut body: Body<'_>,
    ) -> Result<(Received, Box<dyn ObjectWriter>), Failure> {
        let bounded = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let limits = IntakeLimits {
            object_bytes_max: receipt.profile.object_bytes_max,
            held_bytes_max: bounded(self.config.held_bytes_max),
            header_bytes_max: bounded(self.config.header_bytes_max),
            file_meta_bytes_max: FILE_META_BYTES_MAX,
            large_header_bytes: bounded(self.config.large_header_bytes),
            large_header_wait: self.config.large_header_wait,
            large_header_hold: self.config.large_header_hold,
            large_headers: self.large_headers.clone(),
        };
        let (key, kept_max) = (ObjectKey(self.appender.mint()), self.quarantine.input_bytes_max());
        let mut intake = Box::new(Intake::new(self.objects.as_ref(), key, offer, limits, kept_max));
        let mut taken = intake.begin();
        while taken.is_ok()
            && let Some(chunk) = intake.next(&mut body).await?
        {
            let chunk = chunk.map_err(|error| Failure::Failed(ended_early(error)))?;
            taken = intake.take(chunk).await;
        }
        if let Err(failure) = taken {
            // The rest may take its time: nothing else is held meanwhile.
            let kept = intake.into_kept();
            return Err(keep_rest(failure, kept, &mut body).await);
        }
        let (received, writer) = intake.finish().await?;
        crash_point(Step::BeforeObjectFinish);
        Ok((received, writer))
    }

    /// What the index has under a SOP Instance UID. It is asked while the bytes are made durable, which takes longer; an
    /// index that is away or slow is not waited for: the fold over the log will find what could not be known now.
    fn look_up(&self, tenant: &str, identity: &Identity) -> impl Future<Output = Vec<Version>> + Send + use<> {
        let index = self.index.clone();
        let selection = Selection {
            tenant: tenant.to_owned(),
            instances: vec![identity.sop_instance_uid.clone()],
            all_versions: true,
            ..Selection::default()
        };
        let (timeout, max) = (self.config.hint.lookup_timeout, self.config.compare.versions_max.max(1));
        async move {
            let Some(index) = index else { return Vec::new() };
            let versions = async {
                let records = index.instances(selection, Detail::Location).await?;
                records.take(max).map_ok(Version::from).try_collect::<Vec<_>>().await
            };
            let answer = tokio::time::timeout(timeout, versions).await;
            answer.ok().and_then(Result::ok).unwrap_or_else(|| {
                metrics::hint_missed();
                Vec::new()
            })
        }
    }

    async fn finish(
        &self,
        receipt: &OpenReceipt,
        received: Received,
        writer: Box<dyn ObjectWriter>,
    ) -> Result<Staged, Failure> {
        let finished = writer.finish().await?;
        let unnamed = Unnamed::new(self.objects.clone(), received.key);
        crash_point(Step::AfterObjectFinish);
        let issuer_in_data_set = issuer_in_data_set(&received.walked, &receipt.profile.default_character_set);
        Ok(Staged { received, object: finished.object, issuer_in_data_set, unnamed })
    }

    async fn decide_and_append(
        &self,
        receipt: &OpenReceipt,
        staged: Staged,
        indexed: Vec<Version>,
    ) -> Result<Stored, Failure> {
        let identity = &staged.received.identity;
        let note = match rejection::note(identity, &staged.received.walked.header) {
            Ok(note) => note,
            Err(failure) => return Err(failure.keeping(self.keep_object(&staged.object).await)),
        };
        let note = note.as_ref();
        let key: Key = (receipt.sender.tenant.clone(), identity.sop_instance_uid.clone());
        let turn = self.in_flight.turn(key.clone()).await;
        // What is rejected, damaged or to be erased is as if it were not there: sent again, it is stored again.
        let mut known = join(self.recent.get(&key), indexed);
        known.retain(|version| version.live);
        let issuer = staged.issuer_in_data_set.as_deref().unwrap_or(&receipt.profile.issuer_of_patient_id);
        let source = Source { calling_ae_title: &receipt.sender.calling_ae_title, issuer_of_patient_id: issuer };
        let policy = receipt.profile.resend_policy;
        match relate(identity, staged.object.digest, &known, source, policy) {
            Relation::New => Ok(self.append_stored(receipt, staged, note, StoreOutcome::New).await?.0),
            Relation::Elsewhere => Ok(self.append_stored(receipt, staged, note, StoreOutcome::ElsewhereToo).await?.0),
            Relation::SameBytes(first) => {
                drop(turn);
                self.store_repeat(receipt, staged, note, &first).await
            }
            Relation::OtherBytes { earlier, shown } => {
                if policy == ResendPolicy::Refuse {
                    self.refuse_other_content(receipt, &staged, &earlier).await?;
                }
                let outcome = StoreOutcome::Conflict { shown };
                let (stored, version) = self.append_stored(receipt, staged, note, outcome).await?;
                self.comparer.offer(Pair::new(&receipt.sender.tenant, &stored, version, earlier));
                Ok(stored)
            }
        }
    }

    /// Makes an instance a fact: `InstanceStored`, and what follows from it where it is a rejection note.
    async fn append_stored(
        &self,
        receipt: &OpenReceipt,
        staged: Staged,
        note: Option<&Note>,
        outcome: StoreOutcome,
    ) -> Result<(Stored, Version), Failure> {
        let Staged { mut received, object, issuer_in_data_set, mut unnamed } = staged;
        // The event has the header until it is appended.
        let _turn = received.turn.take();
        let identity = received.identity.clone();
        let mut version = version_of(&received, object, receipt);
        let findings = findings_in_answer(&received);
        let mut event = stored_event(received, &object, receipt, issuer_in_data_set);
        version.issuer_of_patient_id.clone_from(&event.sender_profile.get_or_insert_default().issuer_of_patient_id);
        self.store_side(&mut event, &mut unnamed).await?;
        let rejections = match note {
            Some(note) => Some(self.rejections(&receipt.sender.tenant, &identity, note).await),
            None => None,
        };
        let mut context = receipt.context();
        context.objects.clone_from(&unnamed.keys);
        crash_point(Step::BeforeAppend);
        let event = Event::InstanceStored(Box::new(event));
        let keys = unnamed.keys.clone();
        // Dropped from here on, the event may be appended all the same.
        unnamed.may_be_named();
        let followers = |id| rejections.map(|rejections| rejections.after(id)).unwrap_or_default();
        let (appended, rejections) = match self.appender.append_with(&event, context, followers).await {
            Ok(appended) => appended,
            Err(NotAppended::Perhaps(error)) => return Err(error.into()),
            Err(NotAppended::Surely(error)) => {
                unnamed.keys = keys;
                unnamed.remove().await;
                return Err(error.into());
            }
        };
        crash_point(Step::AfterAppend);
        tracing::debug!(study = %identity.study_instance_uid, position = %appended.position, ?outcome, "stored");
        (version.store_event, version.position) = (appended.id, Some(appended.position.clone()));
        self.recent.remember((receipt.sender.tenant.clone(), identity.sop_instance_uid.clone()), version.clone());
        Ok((Stored { rejections, ..stored(identity, object, appended.position, outcome, findings) }, version))
    }

    /// Puts header and tables that are too large for the event into an object of their own.
    async fn store_side(&self, event: &mut InstanceStored, unnamed: &mut Unnamed) -> Result<(), Failure> {
        let Some(side) = split_side(event, self.config.event_bytes_max) else { return Ok(()) };
        let key = ObjectKey(self.appender.mint());
        let mut writer = self.objects.put(key, Some(side.len() as u64)).await?;
        for start in (0..side.len()).step_by(SIDE_CHUNK_BYTES) {
            writer.write(side.slice(start..side.len().min(start + SIDE_CHUNK_BYTES))).await?;
        }
        let object = writer.finish().await?.object;
        unnamed.keys.push(key);
        event.side_object = Some(object_in_event(&object));
        crash_point(Step::AfterSideObject);
        Ok(())
    }

    /// The same bytes are there already: `InstanceReceivedAgain`. The second copy is kept only if the index can't
    /// confirm in time that the first is live.
    async fn store_repeat(
        &self,
        receipt: &OpenReceipt,
        staged: Staged,
        note: Option<&Note>,
        first: &Version,
    ) -> Result<Stored, Failure> {
        if self.index.is_none() {
            return Ok(self.append_stored(receipt, staged, note, StoreOutcome::Repeat).await?.0);
        }
        let appended = self.append_again(receipt, &staged, first).await.map_err(Error::from)?;
        crash_point(Step::AfterRepeatAppend);
        let identity = &staged.received.identity;
        let rejections = match (self.is_live(&receipt.sender.tenant, identity, first, &appended).await, note) {
            (false, _) => None,
            (true, None) => Some(Vec::new()),
            (true, Some(note)) => self.complete_rejections(receipt, identity, note, first).await?,
        };
        let Some(rejections) = rejections else {
            metrics::repeat_not_confirmed();
            return Ok(self.append_stored(receipt, staged, note, StoreOutcome::Repeat).await?.0);
        };
        crash_point(Step::AfterRepeatConfirmed);
        let Staged { received, object, unnamed, .. } = staged;
        unnamed.remove().await;
        crash_point(Step::AfterCopyDelete);
        let findings = findings_in_answer(&received);
        let outcome = StoreOutcome::Repeat;
        Ok(Stored { rejections, ..stored(received.identity, object, appended.position, outcome, findings) })
    }

    async fn append_again(
        &self,
        receipt: &OpenReceipt,
        staged: &Staged,
        first: &Version,
    ) -> Result<Appended, NotAppended> {
        let identity = &staged.received.identity;
        let again = InstanceReceivedAgain {
            tenant: receipt.sender.tenant.clone(),
            study_instance_uid: identity.study_instance_uid.to_string(),
            series_instance_uid: identity.series_instance_uid.to_string(),
            sop_instance_uid: identity.sop_instance_uid.to_string(),
            store_event_id: Bytes::copy_from_slice(first.store_event.as_bytes()),
            blake3: Bytes::copy_from_slice(&staged.object.digest.0),
            receipt: Some(receipt.in_event()),
            sender_profile: Some(receipt.profile_in_event(staged.issuer_in_data_set.clone())),
            findings: findings_in_event(&staged.received.findings),
        };
        let mut context = receipt.context();
        // The first copy is what is in use; the second is named by no event.
        context.objects = vec![first.object.key];
        context.causation = Some(first.store_event);
        self.appender.append(&Event::InstanceReceivedAgain(Box::new(again)), context).await
    }

    /// Whether the index, having folded what was just appended, says that this version is live.
    async fn is_live(&self, tenant: &str, identity: &Identity, version: &Version, after: &Appended) -> bool {
        let Some(index) = &self.index else { return false };
        let timeout = self.config.hint.repeat_timeout;
        let mut folded = PositionVector::default();
        folded.include(&after.position);
        let selection = Selection {
            tenant: tenant.to_owned(),
            studies: vec![identity.study_instance_uid.clone()],
            series: vec![identity.series_instance_uid.clone()],
            instances: vec![identity.sop_instance_uid.clone()],
            all_versions: true,
            ..Selection::default()
        };
        let live = async {
            index.wait_for(&folded, timeout).await?;
            let records: Vec<_> = index.instances(selection, Detail::Location).await?.try_collect().await?;
            let is_it = |record: &InstanceRecord| record.store_event == version.store_event;
            let is_live =
                |record: &&InstanceRecord| record.rejected.is_empty() && !record.damaged && !record.is_to_be_erased;
            Ok::<_, Error>(records.iter().filter(|record| is_it(record)).any(|record| is_live(&record)))
        };
        matches!(tokio::time::timeout(timeout, live).await, Ok(Ok(true)))
    }

    /// For a sender whose conflicts are refused: `Ok` if some version that is there has the same content.
    async fn refuse_other_content(
        &self,
        receipt: &OpenReceipt,
        staged: &Staged,
        earlier: &[Version],
    ) -> Result<(), Failure> {
        let new = version_of(&staged.received, staged.object, receipt);
        let same = async {
            for version in earlier.iter().take(self.config.compare.versions_max) {
                if matches!(same_content(self.objects.as_ref(), version, &new).await, Ok(Comparison::AnotherEncoding)) {
                    return true;
                }
            }
            false
        };
        if tokio::time::timeout(self.config.compare.before_answer_max, same).await.unwrap_or(false) {
            return Ok(());
        }
        let message = "another version is there, and the sender's policy refuses conflicts";
        let study = staged.received.identity.study_instance_uid.clone();
        let refusal = Refusal::new(Cause::ConflictRefused, message).of_study(Some(study));
        Err(Failure::from(refusal).keeping(self.keep_object(&staged.object).await))
    }

    /// The first bytes of an object, for quarantine.
    async fn keep_object(&self, object: &ObjectRef) -> Kept {
        let mut kept = Kept::up_to(self.quarantine.input_bytes_max());
        let end = object.length.min(self.quarantine.input_bytes_max() as u64);
        if let Ok(mut chunks) = self.objects.read(object, 0..end).await {
            while let Some(Ok(chunk)) = chunks.next().await {
                kept.add(&chunk);
            }
        }
        kept.cut |= (kept.length as u64) < object.length;
        kept
    }

    /// Counts what became of an instance, and puts a refused one in quarantine.
    pub(crate) async fn conclude(
        &self,
        receipt: &InUse,
        outcome: Result<Stored, Failure>,
        begun: Duration,
    ) -> Result<Stored, Error> {
        let door = receipt.0.sender.door;
        let (study, counted, outcome) = match outcome {
            Ok(stored) => {
                let took = self.appender.clock().elapsed().saturating_sub(begun);
                metrics::stored(door, stored.outcome, stored.length, took);
                let repeat = stored.outcome == StoreOutcome::Repeat;
                let counted = if repeat { Counted::Repeated } else { Counted::Stored };
                (stored.study_instance_uid.to_string(), counted, Ok(stored))
            }
            Err(Failure::Refused(refusal)) => {
                metrics::refused(door, refusal.cause.code());
                let study = refusal.study.as_ref().map(ToString::to_string).unwrap_or_default();
                (study, Counted::Refused, Err(self.quarantine_refused(&receipt.0, *refusal).await))
            }
            Err(Failure::Failed(error)) => {
                metrics::failed(door);
                if error.kind == ErrorKind::Aborted {
                    tracing::debug!(%error, "an instance broke off");
                    return Err(error);
                }
                tracing::warn!(kind = ?error.kind, %error, "an instance was not stored");
                // The study may be known, but what failed was not of its making.
                (String::new(), Counted::Refused, Err(error))
            }
        };
        if let Some(summed) = receipt.0.count(&study, counted, self.config.receipts.studies_max)
            && let Err(NotAppended::Surely(error) | NotAppended::Perhaps(error)) =
                self.appender.append(&summed, receipt.0.context()).await
        {
            tracing::warn!(receipt = %receipt.0.id, %error, "the counts of a study in a large receipt were lost");
        }
        outcome
    }

    async fn quarantine_refused(&self, receipt: &OpenReceipt, refusal: Refusal) -> Error {
        let kept = refusal.kept.unwrap_or_else(|| Kept::up_to(0));
        tracing::info!(
            reason = refusal.cause.code(),
            calling_ae_title = %receipt.sender.calling_ae_title,
            "an instance was refused"
        );
        let refused = Refused {
            id: EventId(self.appender.mint()),
            refused_at_ms: self.appender.clock().unix_ms(),
            reason: refusal.cause.code(),
            calling_ae_title: receipt.sender.calling_ae_title.clone(),
            complete: !kept.cut,
            bytes: kept.bytes,
        };
        self.quarantine.keep(refused).await;
        crash_point(Step::AfterQuarantine);
        refusal.error
    }
}

/// Piece in which a side object is written, in bytes.
const SIDE_CHUNK_BYTES: usize = 256 << 10;

/// Takes more of the body of a refused input, as much as quarantine keeps.
async fn keep_rest(failure: Failure, mut kept: Kept, body: &mut Body<'_>) -> Failure {
    let Failure::Refused(refusal) = failure else { return failure };
    // The end of something too large is far away.
    let mut more = !matches!(refusal.cause, Cause::TooLarge);
    kept.cut |= !more;
    while more && !kept.cut {
        match body.next().await {
            Some(Ok(chunk)) => kept.add(&chunk),
            Some(Err(_)) => {
                kept.cut = true;
                more = false;
            }
            None => more = false,
        }
    }
    Failure::Refused(refusal).keeping(kept)
}

fn ended_early(error: Error) -> Error {
    match error.kind {
        ErrorKind::Aborted | ErrorKind::Invalid | ErrorKind::Exhausted => error,
        _ => Error { kind: ErrorKind::Aborted, ..error },
    }
}

fn version_of(received: &Received, object: ObjectRef, receipt: &OpenReceipt) -> Version {
    Version {
        study_instance_uid: received.identity.study_instance_uid.clone(),
        series_instance_uid: received.identity.series_instance_uid.clone(),
        object,
        data_set_offset: received.data_set_offset,
        transfer_syntax_uid: received.transfer_syntax_uid.clone(),
        store_event: EventId(uuid::Uuid::nil()),
        position: None,
        calling_ae_title: Some(receipt.sender.calling_ae_title.clone()),
        issuer_of_patient_id: String::new(),
        shown: false,
        live: true,
    }
}

fn findings_in_answer(received: &Received) -> Vec<(String, cairn_dicom::Tag)> {
    received.findings.iter().map(|(code, tag)| ((*code).to_owned(), tag.unwrap_or_default())).collect()
}

fn stored(
    identity: Identity,
    object: ObjectRef,
    position: Position,
    outcome: StoreOutcome,
    findings: Vec<(String, cairn_dicom::Tag)>,
) -> Stored {
    Stored {
        study_instance_uid: identity.study_instance_uid,
        series_instance_uid: identity.series_instance_uid,
        sop_instance_uid: identity.sop_instance_uid,
        sop_class_uid: identity.sop_class_uid,
        digest: object.digest,
        length: object.length,
        position,
        outcome,
        findings,
        confirmed_sites: 0,
        rejections: Vec::new(),
    }
}
