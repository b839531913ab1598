//! Taking an instance in: its bytes go to the object store and through the header walker as they arrive.
//!
//! What is stored is a complete Part 10 file: our own preamble and File Meta Information in the frozen layout, then
//! the data set exactly as received. File Meta names SOP Class and SOP Instance, so the first bytes are held, within a
//! bound, until these have been read.

use crate::{
    crash::{Step, crash_point},
    refusal::{Cause, Failure, Kept, Refusal},
    versions::Identity,
};
use bytes::Bytes;
use cairn_archive::ObjectKey;
use cairn_dicom::{
    Finding, FindingKind, HeaderWalker, Tag, TransferSyntax, Uid, WalkLimits, Walked, dictionary,
    dictionary::UidKind,
    part10::{FileMeta, NewFileMeta, Part10Reader, Part10Start, write_file_meta},
    tags,
    walk::{IdentityError, WalkError},
};
use cairn_service_api::{
    Error, ErrorKind,
    ingest::{Body, InstanceOffer, OfferedForm},
};
use cairn_store_api::{ObjectStore, ObjectWriter};
use futures_util::StreamExt;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};

/// Deflated bytes given to the walker at once: what they inflate to is a thousandfold at most.
const DEFLATED_PIECE_BYTES: usize = 4 << 10;

/// Bounds of one intake, in bytes; and what all share.
#[derive(Clone)]
pub(crate) struct IntakeLimits {
    pub(crate) object_bytes_max: u64,
    pub(crate) held_bytes_max: usize,
    pub(crate) header_bytes_max: usize,
    pub(crate) file_meta_bytes_max: usize,
    pub(crate) large_header_bytes: usize,
    pub(crate) large_header_wait: Duration,
    /// Turns of those whose header is larger than that.
    pub(crate) large_headers: Arc<Turns>,
    pub(crate) large_header_hold: Duration,
}

/// Turns of instances with a large header.
pub(crate) struct Turns {
    turns: Arc<Semaphore>,
    waiting: watch::Sender<usize>,
}

impl Turns {
    pub(crate) fn new(count: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS))), waiting: watch::Sender::new(0) }
    }

    /// Waits for a turn, at most for so long.
    async fn take(&self, patience: Duration) -> Option<OwnedSemaphorePermit> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Some(turn);
        }
        self.waiting.send_modify(|waiting| *waiting += 1);
        // Counted out also when this future is dropped.
        let _waiting = Waiting(&self.waiting);
        tokio::time::timeout(patience, Arc::clone(&self.turns).acquire_owned()).await.ok()?.ok()
    }

    /// Resolves once somebody waits for a turn.
    async fn are_wanted(&self) {
        // The sender is ours, so this ends by the condition alone.
        let mut waiting = self.waiting.subscribe();
        let _wanted = waiting.wait_for(|waiting| *waiting > 0).await;
    }
}

struct Waiting<'a>(&'a watch::Sender<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

/// What is known of an instance all of whose bytes are written.
pub(crate) struct Received {
    pub(crate) identity: Identity,
    pub(crate) transfer_syntax_uid: Uid,
    pub(crate) key: ObjectKey,
    pub(crate) data_set_offset: u64,
    pub(crate) walked: Walked,
    /// File Meta Information that came with it.
    pub(crate) file_meta: FileMeta,
    pub(crate) findings: Vec<(&'static str, Option<Tag>)>,
    /// The turn of a large header, given back when nothing of it is held any more.
    pub(crate) turn: Option<OwnedSemaphorePermit>,
}

/// Where the data set is going.
enum Target {
    /// Held until its File Meta can be written.
    Held {
        chunks: Vec<Bytes>,
        bytes: usize,
    },
    Object {
        writer: Box<dyn ObjectWriter>,
        data_set_offset: u64,
        sop_class_uid: Uid,
        sop_instance_uid: Uid,
    },
}

/// One instance on its way in.
pub(crate) struct Intake<'a> {
    objects: &'a dyn ObjectStore,
    offer: &'a InstanceOffer,
    limits: IntakeLimits,
    key: ObjectKey,
    received: u64,
    /// Reads what comes before the data set of a file.
    reader: Option<Part10Reader>,
    /// Set once the transfer syntax is known.
    walker: Option<HeaderWalker>,
    transfer_syntax: Option<TransferSyntax>,
    /// Bytes of the input before its data set.
    before_data_set: u64,
    file_meta: FileMeta,
    findings: Vec<Finding>,
    target: Target,
    identity: Option<Identity>,
    turn: Option<OwnedSemaphorePermit>,
    /// Time spent waiting for the sender with a turn held.
    held: Duration,
    pub(crate) kept: Kept,
}

impl<'a> Intake<'a> {
    /// Begins to take an instance in; nothing is written yet.
    pub(crate) fn new(
        objects: &'a dyn ObjectStore,
        key: ObjectKey,
        offer: &'a InstanceOffer,
        limits: IntakeLimits,
        kept_bytes_max: usize,
    ) -> Self {
        Self {
            objects,
            offer,
            key,
            received: 0,
            reader: None,
            walker: None,
            transfer_syntax: None,
            before_data_set: 0,
            file_meta: FileMeta::default(),
            findings: Vec::new(),
            target: Target::Held { chunks: Vec::new(), bytes: 0 },
            identity: None,
            turn: None,
            held: Duration::ZERO,
            kept: Kept::up_to(kept_bytes_max),
            limits,
        }
    }

    /// Checks what is known before any byte.
    pub(crate) fn begin(&mut self) -> Result<(), Failure> {
        if self.offer.length_hint.is_some_and(|length| length > self.limits.object_bytes_max) {
            return Err(self.too_large());
        }
        match &self.offer.form {
            OfferedForm::DataSet { transfer_syntax_uid, .. } => {
                self.syntax_known(TransferSyntax::from(transfer_syntax_uid))
            }
            OfferedForm::File => {
                self.reader = Some(Part10Reader::new(self.limits.file_meta_bytes_max));
                Ok(())
            }
        }
    }

    /// The study as far as it is known.
    pub(crate) fn study(&self) -> Option<Uid> {
        let read = || Uid::from_value(self.walker.as_ref()?.value(tags::STUDY_INSTANCE_UID)?).ok();
        self.identity.as_ref().map(|identity| identity.study_instance_uid.clone()).or_else(read)
    }

    /// The next bytes of the sender; `None` when there are no more. Who holds the turn of a large header and lets us wait for
    /// long gives it up once others want it.
    pub(crate) async fn next(&mut self, body: &mut Body<'_>) -> Result<Option<Result<Bytes, Error>>, Failure> {
        if self.turn.is_none() {
            return Ok(body.next().await);
        }
        let (begun, patience) = (Instant::now(), self.limits.large_header_hold.saturating_sub(self.held));
        let too_slow = async {
            tokio::time::sleep(patience).await;
            self.limits.large_headers.are_wanted().await;
        };
        let chunk = tokio::select! {
            biased;
            chunk = body.next() => chunk,
            () = too_slow => {
                let message = "the sender of a large header was slow while others waited for their turn";
                return Err(Error::new(ErrorKind::Exhausted, message).into());
            }
        };
        self.held += begun.elapsed();
        Ok(chunk)
    }

    /// The bytes kept for quarantine; lets go of everything else.
    pub(crate) fn into_kept(self: Box<Self>) -> Kept {
        self.kept
    }

    /// Takes the next bytes.
    pub(crate) async fn take(&mut self, chunk: Bytes) -> Result<(), Failure> {
        self.received += chunk.len() as u64;
        self.kept.add(&chunk);
        if self.received > self.limits.object_bytes_max {
            return Err(self.too_large());
        }
        let Some(reader) = &mut self.reader else { return self.take_data_set(chunk).await };
        match reader.push(&chunk) {
            Ok(Some(start)) => self.data_set_reached(start).await,
            Ok(None) => Ok(()),
            Err(error) => Err(Refusal::new(Cause::CannotUnderstand, error.to_string()).into()),
        }
    }

    async fn data_set_reached(&mut self, start: Part10Start) -> Result<(), Failure> {
        self.reader = None;
        self.before_data_set = start.data_set_offset;
        self.file_meta = start.meta;
        self.findings = start.findings;
        self.syntax_known(start.transfer_syntax)?;
        self.take_data_set(start.data_set.into()).await
    }

    fn syntax_known(&mut self, syntax: TransferSyntax) -> Result<(), Failure> {
        let registered = dictionary::uid(syntax.uid());
        if registered.is_some_and(|entry| entry.kind != UidKind::TransferSyntax) {
            return Err(Refusal::new(Cause::TransferSyntax, "what is named as transfer syntax is none").into());
        }
        let limits = WalkLimits { header_bytes_max: self.limits.header_bytes_max, ..WalkLimits::default() };
        self.walker = Some(HeaderWalker::new(&syntax, limits));
        self.transfer_syntax = Some(syntax);
        Ok(())
    }

    async fn take_data_set(&mut self, chunk: Bytes) -> Result<(), Failure> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.walk(&chunk).await?;
        if self.identity.is_none() {
            self.look_for_identity()?;
        }
        match &mut self.target {
            Target::Object { writer, .. } => {
                writer.write(chunk).await?;
                crash_point(Step::AfterFirstBytes);
                Ok(())
            }
            Target::Held { chunks, bytes } => {
                *bytes += chunk.len();
                chunks.push(chunk);
                let full = *bytes > self.limits.held_bytes_max;
                if self.identity.is_some() || full { self.begin_object().await } else { Ok(()) }
            }
        }
    }

    /// Pushes bytes through the walker. A header that grows large waits for its turn.
    async fn walk(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        let deflated = self.transfer_syntax.as_ref().is_some_and(|syntax| syntax.encoding.is_deflated());
        for piece in chunk.chunks(if deflated { DEFLATED_PIECE_BYTES } else { chunk.len() }) {
            let Some(walker) = &mut self.walker else { return Ok(()) };
            walker.push(piece).map_err(|error| inflates_too_much(error, None))?;
            if self.turn.is_none() && walker.memory() > self.limits.large_header_bytes {
                self.turn = self.limits.large_headers.take(self.limits.large_header_wait).await;
                if self.turn.is_none() {
                    let message = "as many instances with a large header as may be are being taken";
                    return Err(Error::new(ErrorKind::Exhausted, message).into());
                }
            }
        }
        Ok(())
    }

    /// Looks whether the identifiers have been read by now, and whether they are those announced.
    fn look_for_identity(&mut self) -> Result<(), Failure> {
        let Some(walker) = self.walker.as_ref().filter(|walker| walker.identifiers_seen()) else { return Ok(()) };
        let identity = walker.identity().map_err(|error| unusable(error).of_study(self.study()))?;
        self.check_announced(&identity)?;
        self.identity = Some(identity);
        self.kept.shrink();
        Ok(())
    }

    /// Command or request and data set must agree (PS3.4 Table B.2-1: A900). A file's own File Meta may differ.
    fn check_announced(&self, identity: &Identity) -> Result<(), Failure> {
        let mut announced = Vec::new();
        if let OfferedForm::DataSet { sop_class_uid, sop_instance_uid, .. } = &self.offer.form {
            announced.push((tags::SOP_CLASS_UID, sop_class_uid, &identity.sop_class_uid));
            announced.push((tags::SOP_INSTANCE_UID, sop_instance_uid, &identity.sop_instance_uid));
        }
        if let Some(study_instance_uid) = &self.offer.study_instance_uid {
            announced.push((tags::STUDY_INSTANCE_UID, study_instance_uid, &identity.study_instance_uid));
        }
        let Some((tag, ..)) = announced.iter().find(|(_, announced, read)| announced != read) else { return Ok(()) };
        let keyword = dictionary::keyword_of(*tag).unwrap_or_default();
        let message = format!("{keyword} of the request is not that of the data set");
        let refusal = Refusal::new(Cause::DoesNotMatch, message).about(*tag);
        Err(refusal.of_study(Some(identity.study_instance_uid.clone())).into())
    }

    /// SOP Class and SOP Instance as what is not the data set says them.
    fn announced(&self) -> (Option<Uid>, Option<Uid>) {
        match &self.offer.form {
            OfferedForm::DataSet { sop_class_uid, sop_instance_uid, .. } => {
                (Some(sop_class_uid.clone()), Some(sop_instance_uid.clone()))
            }
            OfferedForm::File => (self.file_meta.sop_class_uid(), self.file_meta.sop_instance_uid()),
        }
    }

    /// Writes File Meta and what was held.
    async fn begin_object(&mut self) -> Result<(), Failure> {
        let (class, instance) = match &self.identity {
            Some(identity) => (Some(identity.sop_class_uid.clone()), Some(identity.sop_instance_uid.clone())),
            None => self.announced(),
        };
        let (Some(sop_class_uid), Some(sop_instance_uid), Some(syntax)) = (class, instance, &self.transfer_syntax)
        else {
            let message = format!("identifiers are not within the first {} bytes", self.limits.held_bytes_max);
            return Err(Refusal::new(Cause::CannotUnderstand, message).of_study(self.study()).into());
        };
        let meta = write_file_meta(&NewFileMeta {
            sop_class_uid: &sop_class_uid,
            sop_instance_uid: &sop_instance_uid,
            transfer_syntax_uid: syntax.uid(),
            // What differs from receipt to receipt must not differ in the bytes that the digest covers.
            source_ae_title: None,
        });
        let data_set_offset = meta.len() as u64;
        let hint = self.offer.length_hint;
        let hint = hint.map(|length| length.saturating_sub(self.before_data_set).saturating_add(data_set_offset));
        let mut writer = self.objects.put(self.key, hint).await?;
        crash_point(Step::AfterObjectBegin);
        writer.write(meta.into()).await?;
        if let Target::Held { chunks, .. } = &mut self.target {
            for chunk in chunks.drain(..) {
                writer.write(chunk).await?;
            }
        }
        crash_point(Step::AfterFirstBytes);
        self.target = Target::Object { writer, data_set_offset, sop_class_uid, sop_instance_uid };
        Ok(())
    }

    /// The input is over.
    /// The object is written and not finished.
    pub(crate) async fn finish(mut self: Box<Self>) -> Result<(Received, Box<dyn ObjectWriter>), Failure> {
        match self.finish_walk().await {
            Ok((identity, walked)) => self.into_received(identity, walked),
            Err(failure) => Err(failure.keeping(self.kept)),
        }
    }

    async fn finish_walk(&mut self) -> Result<(Identity, Walked), Failure> {
        if let Some(reader) = self.reader.take() {
            let start = reader.finish().map_err(|error| Refusal::new(Cause::CannotUnderstand, error.to_string()))?;
            self.data_set_reached(start).await?;
        }
        let study = self.study();
        let Some(walker) = self.walker.take() else {
            return Err(Refusal::new(Cause::CannotUnderstand, "there is no data set").into());
        };
        let walked = walker.finish().map_err(|error| inflates_too_much(error, study.clone()))?;
        let identity = match &self.identity {
            Some(identity) => identity.clone(),
            None => {
                let identity = self.identity_at_end(&walked, study)?;
                self.check_announced(&identity)?;
                self.identity = Some(identity.clone());
                identity
            }
        };
        if matches!(self.target, Target::Held { .. }) {
            self.begin_object().await?;
        }
        Ok((identity, walked))
    }

    /// The identifiers of a data set that is over. Its SOP Class may be said by request or File Meta alone.
    fn identity_at_end(&self, walked: &Walked, study: Option<Uid>) -> Result<Identity, Failure> {
        let error = match walked.identity() {
            Ok(identity) => return Ok(identity),
            Err(error) => error,
        };
        let class = self.announced().0;
        let uid = |tag| walked.value(tag).and_then(|value| Uid::from_value(value).ok());
        if let (IdentityError::Missing(tags::SOP_CLASS_UID), Some(sop_class_uid)) = (error, class)
            && let (Some(study_instance_uid), Some(series_instance_uid), Some(sop_instance_uid)) =
                (uid(tags::STUDY_INSTANCE_UID), uid(tags::SERIES_INSTANCE_UID), uid(tags::SOP_INSTANCE_UID))
        {
            return Ok(Identity { study_instance_uid, series_instance_uid, sop_instance_uid, sop_class_uid });
        }
        let breaks_off = |finding: &Finding| {
            matches!(
                finding.kind,
                FindingKind::Unreadable | FindingKind::TruncatedElement | FindingKind::DeflateDamaged
            )
        };
        let refusal = unusable(error);
        let identifiers =
            [tags::SOP_CLASS_UID, tags::SOP_INSTANCE_UID, tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID];
        let none_read = identifiers.iter().all(|tag| walked.value(*tag).is_none());
        if none_read || walked.findings.iter().any(breaks_off) {
            let message = format!("data set cannot be read up to its identifiers: {}", refusal.error.message);
            return Err(Refusal::new(Cause::CannotUnderstand, message).of_study(study).into());
        }
        Err(refusal.of_study(study).into())
    }

    fn into_received(
        self: Box<Self>,
        identity: Identity,
        walked: Walked,
    ) -> Result<(Received, Box<dyn ObjectWriter>), Failure> {
        let this = *self;
        let syntax = this.transfer_syntax.and_then(|syntax| syntax.uid().parse::<Uid>().ok());
        let (Target::Object { writer, data_set_offset, sop_class_uid, sop_instance_uid }, Some(transfer_syntax_uid)) =
            (this.target, syntax)
        else {
            return Err(Failure::from(Refusal::new(Cause::CannotUnderstand, "there is no data set")).keeping(this.kept));
        };
        if sop_class_uid != identity.sop_class_uid || sop_instance_uid != identity.sop_instance_uid {
            let message = "file meta information and data set disagree, and identifiers come too late to mend it";
            let refusal = Refusal::new(Cause::DoesNotMatch, message).about(tags::SOP_INSTANCE_UID);
            return Err(Failure::from(refusal.of_study(Some(identity.study_instance_uid))).keeping(this.kept));
        }
        let mut findings: Vec<(&'static str, Option<Tag>)> =
            this.findings.iter().chain(&walked.findings).map(|finding| (finding.kind.code(), finding.tag)).collect();
        let meta = &this.file_meta;
        if meta.sop_class_uid().is_some_and(|uid| uid != identity.sop_class_uid) {
            findings.push(("file-meta-differs", Some(tags::MEDIA_STORAGE_SOP_CLASS_UID)));
        }
        if meta.sop_instance_uid().is_some_and(|uid| uid != identity.sop_instance_uid) {
            findings.push(("file-meta-differs", Some(tags::MEDIA_STORAGE_SOP_INSTANCE_UID)));
        }
        if walked.value(tags::SOP_CLASS_UID).is_none() {
            findings.push(("sop-class-missing", Some(tags::SOP_CLASS_UID)));
        }
        let Self { key, file_meta, turn, .. } = this;
        let received =
            Received { identity, transfer_syntax_uid, key, data_set_offset, walked, file_meta, findings, turn };
        Ok((received, writer))
    }

    fn too_large(&self) -> Failure {
        let message = format!("instance is larger than {} bytes", self.limits.object_bytes_max);
        Refusal::new(Cause::TooLarge, message).of_study(self.study()).into()
    }
}

fn inflates_too_much(error: WalkError, study: Option<Uid>) -> Failure {
    Refusal::new(Cause::InflatesTooMuch, error.to_string()).of_study(study).into()
}

fn unusable(error: IdentityError) -> Refusal {
    let (IdentityError::Missing(tag) | IdentityError::Unusable(tag, _)) = error;
    Refusal::new(Cause::BadIdentifier, error.to_string()).about(tag)
}
