//! What C-MOVE and C-GET share: planning, counting, and sending one instance (PS3.4 sections C.4.2 and C.4.3).

use super::{
    Next,
    convert::{converted, is_convertible},
    identifier::{self, Identifier},
    next,
    plan::Plan,
    status,
};
use crate::{
    Association, AssociationError, Command, CommandField, Message, Status,
    command::SubOperations,
    door::Session,
    metrics,
    negotiate::{Context, QueryRoot},
    pdu::AeTitle,
};
use bytes::Bytes;
use cairn_dicom::{
    TransferSyntax, Uid, Vr,
    dataset::{DataSet, Value},
    tags,
};
use cairn_service_api::{
    AnswerStream, Error, Index, Retrieval,
    index::{Detail, InstanceRecord, Selection},
};
use futures_util::StreamExt;
use std::sync::Arc;

/// Bytes of Failed SOP Instance UID List at most: what an explicit VR length of 16 bits can say.
const FAILED_LIST_BYTES_MAX: usize = 65_534;

/// How far the sub-operations are.
pub(super) struct Progress {
    remaining: u64,
    completed: u64,
    failed: u64,
    warning: u64,
    failed_uids: Vec<Uid>,
    failed_bytes: usize,
    /// Failures that were logged one by one.
    logged: u64,
}

/// Failures of one retrieval that are logged one by one; the others are summed up at its end.
const LOGGED_MAX: u64 = 5;

impl Drop for Progress {
    /// Sums up what was not logged one by one, however the retrieval ended.
    fn drop(&mut self) {
        let more = self.failed - self.logged;
        if more > 0 {
            tracing::warn!(failed = self.failed, more, "a retrieval failed for more instances than those named before");
        }
    }
}

fn clamp(count: u64) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

impl Progress {
    pub(super) fn new(instances: u64) -> Self {
        Self {
            remaining: instances,
            completed: 0,
            failed: 0,
            warning: 0,
            failed_uids: Vec::new(),
            failed_bytes: 0,
            logged: 0,
        }
    }

    /// Counts the outcome of one sub-operation, and logs it if it is among the first that failed.
    pub(super) fn count(&mut self, outcome: &Outcome, record: &InstanceRecord) {
        let status = if let Outcome::Answered(status) = outcome { Some(*status) } else { None };
        metrics::sub_operation(status);
        self.remaining = self.remaining.saturating_sub(1);
        match status {
            Some(Status::SUCCESS) => self.completed += 1,
            Some(status) if status.is_warning() => self.warning += 1,
            _ => {
                if self.logged < LOGGED_MAX {
                    self.logged += 1;
                    outcome.log(record);
                }
                self.fail(&record.sop_instance_uid);
            }
        }
    }

    fn fail(&mut self, uid: &Uid) {
        self.failed += 1;
        let bytes = uid.as_str().len() + 1;
        if self.failed_bytes + bytes <= FAILED_LIST_BYTES_MAX {
            self.failed_bytes += bytes;
            self.failed_uids.push(uid.clone());
        }
    }

    fn counts(&self, with_remaining: bool) -> SubOperations {
        SubOperations {
            remaining: with_remaining.then(|| clamp(self.remaining)),
            completed: clamp(self.completed),
            failed: clamp(self.failed),
            warning: clamp(self.warning),
        }
    }

    /// A pending response.
    pub(super) fn pending(&self, request: &Command) -> Command {
        let mut response = request.response(Status::PENDING);
        response.sub_operations = Some(self.counts(true));
        response
    }

    /// The status to end with when all was tried (PS3.4 tables C.4-2 and C.4-3).
    fn done(&self) -> Status {
        match (self.failed + self.warning, self.completed + self.warning) {
            (0, _) => Status::SUCCESS,
            (_, 0) => Status::OUT_OF_RESOURCES_SUBOPERATIONS,
            _ => Status::SUBOPERATIONS_WITH_FAILURES,
        }
    }
}

/// How one sub-operation ended.
pub(super) enum Outcome {
    /// The status of the peer's response.
    Answered(Status),
    /// The peer accepted no context on which the instance can go.
    NoContext,
    /// The archive could not give the instance, or not reach the peer.
    Unsent(String),
}

impl Outcome {
    /// Logs why it failed, if it did: the peer is told no more than that.
    fn log(&self, record: &InstanceRecord) {
        let object_key = record.object.key;
        match self {
            Self::Answered(status) => {
                tracing::info!(%object_key, %status, "an instance was refused by the peer that it was sent to");
            }
            Self::NoContext => {
                let (class, syntax) = (&record.sop_class_uid, &record.transfer_syntax_uid);
                tracing::info!(%object_key, %class, %syntax, "an instance has no presentation context to go on");
            }
            Self::Unsent(error) => tracing::warn!(%object_key, %error, "an instance could not be sent"),
        }
    }
}

/// How a retrieval ended.
pub(super) enum Ending {
    /// All sub-operations were tried.
    Done,
    /// By C-CANCEL.
    Cancelled,
    /// The archive could not go on.
    Failed(Error),
}

/// Sends the final response, with the list of what failed.
pub(super) async fn finish(
    association: &mut Association,
    message: &Message,
    progress: &Progress,
    ending: Ending,
) -> Result<(), AssociationError> {
    let request = &message.command;
    let mut response = match &ending {
        Ending::Done => request.response(progress.done()),
        Ending::Cancelled => request.response(Status::CANCEL),
        Ending::Failed(error) => {
            tracing::warn!(%error, remaining = progress.remaining, "a retrieval ended before all was sent");
            let mut response = status::response(request, error);
            if response.status == Some(Status::OUT_OF_RESOURCES) {
                response.status = Some(Status::OUT_OF_RESOURCES_SUBOPERATIONS);
            }
            response
        }
    };
    response.sub_operations = Some(progress.counts(matches!(ending, Ending::Cancelled)));
    let mut list = DataSet::new();
    let uids = progress.failed_uids.iter().map(Uid::to_string).collect();
    list.put(tags::FAILED_SOP_INSTANCE_UID_LIST, Vr::UI, Value::Text(uids));
    let list = list.encode(message.context.transfer_syntax.encoding, cairn_dicom::CharacterSet::DEFAULT);
    let list = list.ok().filter(|_| !progress.failed_uids.is_empty());
    association.send(message.context.id, &mut response, list.as_deref()).await
}

/// A retrieval that can begin.
pub(super) struct Prepared {
    pub(super) selection: Selection,
    pub(super) plan: Plan,
    pub(super) retrieval: Arc<dyn Retrieval>,
}

/// Reads the identifier and finds out what there is to send. `None`: the final response has been sent.
pub(super) async fn prepare(
    session: &Session,
    association: &mut Association,
    message: &Message,
    root: QueryRoot,
) -> Result<Option<Prepared>, AssociationError> {
    let door = &session.door;
    let (Some(index), Some(retrieval)) = (door.index.clone(), door.retrieval.clone()) else {
        let response = message.command.response(Status::SOP_CLASS_NOT_SUPPORTED);
        crate::door::respond(association, message, response).await?;
        return Ok(None);
    };
    let default = session.profile.default_character_set;
    let bytes_max = door.limits.identifier_bytes_max;
    let read = identifier::receive(association, message, root, bytes_max, default).await?;
    let relational = message.context.options.relational || !session.partners.policy.strict_hierarchy;
    let selected = read.and_then(|identifier: Identifier| {
        if !relational {
            identifier.check_hierarchy(root)?;
        }
        identifier.selection(&door.tenant, session.profile.sees_rejected)
    });
    let selection = match selected {
        Ok(selection) => selection,
        Err(unusable) => {
            let mut response = status::response(&message.command, &unusable.error);
            response.status = Some(unusable.status);
            association.send(message.context.id, &mut response, None).await?;
            return Ok(None);
        }
    };
    let calling = association.peer().calling_ae_title.clone();
    door.read_after.wait(&calling, index.as_ref(), door.limits.read_after_timeout).await;
    let ending = match plan(association, message, index.as_ref(), &selection).await? {
        Planned::Ready(plan) if plan.instances > 0 => return Ok(Some(Prepared { selection, plan, retrieval })),
        Planned::Ready(_) => Ending::Done,
        Planned::Cancelled => Ending::Cancelled,
        Planned::Failed(response) => {
            let mut response = response;
            association.send(message.context.id, &mut response, None).await?;
            return Ok(None);
        }
    };
    finish(association, message, &Progress::new(0), ending).await?;
    Ok(None)
}

enum Planned {
    Ready(Plan),
    Cancelled,
    Failed(Command),
}

async fn plan(
    association: &mut Association,
    message: &Message,
    index: &dyn Index,
    selection: &Selection,
) -> Result<Planned, AssociationError> {
    let request = &message.command;
    let failed = |error: &Error| {
        tracing::warn!(%error, "what a retrieval is to send could not be found out");
        let mut response = status::response(request, error);
        if response.status == Some(Status::OUT_OF_RESOURCES) {
            response.status = Some(Status::OUT_OF_RESOURCES_MATCHES);
        }
        Planned::Failed(response)
    };
    let mut records = match index.instances(selection.clone(), Detail::Location).await {
        Ok(records) => records,
        Err(error) if error.kind == cairn_service_api::ErrorKind::NotFound => {
            return Ok(Planned::Ready(Plan::default()));
        }
        Err(error) => return Ok(failed(&error)),
    };
    let mut plan = Plan::default();
    let message_id = request.message_id.unwrap_or_default();
    loop {
        match next(association, message_id, &mut records).await? {
            Next::End => return Ok(Planned::Ready(plan)),
            Next::Cancelled => return Ok(Planned::Cancelled),
            Next::Item(Err(error)) => return Ok(failed(&error)),
            Next::Item(Ok(record)) if plan.add(&record) => {}
            Next::Item(Ok(_)) => {
                let response = request.response(Status::OUT_OF_RESOURCES_SUBOPERATIONS);
                return Ok(Planned::Failed(response.with_comment("too many kinds of objects for one retrieval")));
            }
        }
    }
}

/// The context on which an instance goes: as it is stored if the peer accepted that, else as one of the uncompressed
/// syntaxes that it did accept, if the instance can be converted.
pub(crate) fn context_for(
    association: &Association,
    record: &InstanceRecord,
    usable: impl Fn(&Context) -> bool,
) -> Option<Arc<Context>> {
    let is_stored = |context: &Context| context.transfer_syntax.uid() == record.transfer_syntax_uid.as_str();
    let rank = |context: &Context| match &context.transfer_syntax {
        _ if is_stored(context) => Some(0),
        syntax if !syntax.is_native() || !is_convertible(record) => None,
        syntax if *syntax == TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN => Some(1),
        syntax if *syntax == TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN => Some(2),
        _ => Some(3),
    };
    let contexts = association.contexts().iter();
    let of_class = contexts.filter(|context| context.abstract_syntax == record.sop_class_uid && usable(context));
    let ranked = of_class.filter_map(|context| Some((rank(context)?, context)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, context)| Arc::clone(context))
}

/// Who asked for a C-MOVE, for the C-STORE requests that it causes.
#[derive(Clone)]
pub(crate) struct Originator {
    pub(super) ae_title: AeTitle,
    pub(super) message_id: u16,
}

/// How sending an instance failed.
pub(crate) enum SendFailure {
    /// Nothing of it was sent: the next one can be.
    Unsent(Error),
    /// The association is of no more use.
    Broken(AssociationError),
}

impl From<AssociationError> for SendFailure {
    fn from(error: AssociationError) -> Self {
        Self::Broken(error)
    }
}

/// Sends one instance by C-STORE and waits for the response.
pub(crate) async fn send(
    association: &mut Association,
    context: &Context,
    record: &InstanceRecord,
    mut bytes: AnswerStream<Bytes>,
    priority: Option<u16>,
    originator: Option<&Originator>,
    on_cancel: impl FnMut(&Command),
) -> Result<Status, SendFailure> {
    if context.transfer_syntax.uid() != record.transfer_syntax_uid.as_str() {
        let stored = TransferSyntax::from(&record.transfer_syntax_uid);
        bytes = converted(bytes, &stored, &context.transfer_syntax).await.map_err(SendFailure::Unsent)?;
    }
    // Nothing is begun before there is something to send: what fails now costs this instance alone.
    let mut chunk = match bytes.next().await {
        Some(chunk) => Some(chunk.map_err(SendFailure::Unsent)?),
        None => None,
    };
    let message_id = association.next_message_id();
    let mut command = Command::request(CommandField::C_STORE_RQ, message_id, context.abstract_syntax.as_str());
    command.sop_instance_uid = Some(record.sop_instance_uid.to_string());
    command.priority = Some(priority.unwrap_or_default());
    command.move_originator_ae_title = originator.map(|originator| originator.ae_title.to_string());
    command.move_originator_message_id = originator.map(|originator| originator.message_id);
    association.begin_data(context.id, &mut command)?;
    while let Some(piece) = chunk {
        association.send_data(piece).await?;
        chunk = match bytes.next().await {
            Some(Ok(piece)) => Some(piece),
            Some(Err(error)) => {
                tracing::warn!(%error, "an instance could not be read to its end while it was sent");
                return Err(SendFailure::Broken(AssociationError::Protocol("data set ended early")));
            }
            None => None,
        };
    }
    association.finish_data().await?;
    let response = association.response(message_id, on_cancel).await?;
    let status = response.status.ok_or(AssociationError::Protocol("response without a status"))?;
    Ok(status)
}
