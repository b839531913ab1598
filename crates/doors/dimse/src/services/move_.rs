//! C-MOVE as SCP: instances go to a configured AE, over associations of ours (PS3.4 section C.4.2).

use super::{
    Next, is_cancel, next,
    plan::{Contexts, Plan},
    retrieve::{Ending, Originator, Outcome, Prepared, Progress, SendFailure, context_for, finish, prepare, send},
};
use crate::{
    Association, AssociationError, Message, Status,
    door::{Destination, Session, respond},
    negotiate::QueryRoot,
    pdu::{Abort, AeTitle},
    requestor::{Request, connect},
};
use bytes::Bytes;
use cairn_service_api::{
    AnswerStream,
    index::InstanceRecord,
    retrieval::{Part, RetrievedInstance},
};

/// Times that an association to the destination is tried, and tried again after it broke.
const ATTEMPTS_MAX: u32 = 3;

pub(crate) async fn answer(
    session: &mut Session,
    association: &mut Association,
    message: &Message,
    root: QueryRoot,
) -> Result<(), AssociationError> {
    let title = message.command.move_destination.as_deref().and_then(AeTitle::new);
    let known = title.and_then(|title| session.partners.destinations.get(&title).map(|there| (title, there.clone())));
    let Some((title, destination)) = known else {
        let response = message.command.response(Status::MOVE_DESTINATION_UNKNOWN);
        return respond(association, message, response).await;
    };
    let Some(Prepared { selection, plan, retrieval }) = prepare(session, association, message, root).await? else {
        return Ok(());
    };
    let mut progress = Progress::new(plan.instances);
    let mut mover = Mover::new(session, association, message, title, destination, &plan);
    let ending = match retrieval.instances(selection, Part::DataSet).await {
        Ok(mut instances) => mover.send_all(association, message, &mut progress, &mut instances).await,
        Err(error) => Ok(Ending::Failed(error)),
    };
    mover.close(ending.is_ok()).await;
    finish(association, message, &progress, ending?).await
}

/// Associations to the destination, one per set of contexts, each opened when it is first needed.
struct Mover<'a> {
    session: &'a Session,
    destination: Destination,
    calling_ae_title: AeTitle,
    called_ae_title: AeTitle,
    originator: Originator,
    priority: Option<u16>,
    legs: Vec<Leg>,
}

struct Leg {
    contexts: Contexts,
    association: Option<Association>,
    attempts: u32,
}

impl<'a> Mover<'a> {
    fn new(
        session: &'a Session,
        association: &Association,
        message: &Message,
        called_ae_title: AeTitle,
        destination: Destination,
        plan: &Plan,
    ) -> Self {
        let peer = association.peer();
        let leg = |contexts| Leg { contexts, association: None, attempts: 0 };
        Self {
            session,
            destination,
            calling_ae_title: peer.called_ae_title.clone(),
            called_ae_title,
            originator: Originator {
                ae_title: peer.calling_ae_title.clone(),
                message_id: message.command.message_id.unwrap_or_default(),
            },
            priority: message.command.priority,
            legs: plan.contexts().into_iter().map(leg).collect(),
        }
    }

    async fn send_all(
        &mut self,
        association: &mut Association,
        message: &Message,
        progress: &mut Progress,
        instances: &mut AnswerStream<RetrievedInstance>,
    ) -> Result<Ending, AssociationError> {
        let message_id = message.command.message_id.unwrap_or_default();
        loop {
            let instance = match next(association, message_id, instances).await? {
                Next::End => return Ok(Ending::Done),
                Next::Cancelled => return Ok(Ending::Cancelled),
                Next::Item(Err(error)) => return Ok(Ending::Failed(error)),
                Next::Item(Ok(instance)) => instance,
            };
            let RetrievedInstance { record, bytes } = instance;
            let mut cancelled = false;
            let outcome = {
                let sending = self.send_one(&record, bytes);
                tokio::pin!(sending);
                // A sub-operation that has begun is not cut off by C-CANCEL.
                loop {
                    tokio::select! {
                        biased;
                        received = association.receive_meanwhile(), if !cancelled => {
                            cancelled = is_cancel(association, received?, message_id)?;
                        }
                        outcome = &mut sending => break outcome,
                    }
                }
            };
            progress.count(&outcome, &record);
            if cancelled {
                return Ok(Ending::Cancelled);
            }
            association.send(message.context.id, &mut progress.pending(&message.command), None).await?;
        }
    }

    async fn send_one(&mut self, record: &InstanceRecord, bytes: AnswerStream<Bytes>) -> Outcome {
        let Some(at) = self.leg_for(record) else { return Outcome::NoContext };
        if let Err(error) = self.open(at).await {
            return Outcome::Unsent(format!("{} can not be reached: {error}", self.called_ae_title));
        }
        let Some(leg) = self.legs.get_mut(at) else { return Outcome::NoContext };
        let Some(association) = &mut leg.association else { return Outcome::NoContext };
        let Some(context) = context_for(association, record, |context| context.requestor_is_scu) else {
            return Outcome::NoContext;
        };
        let originator = Some(&self.originator);
        match send(association, &context, record, bytes, self.priority, originator, |_| {}).await {
            Ok(status) => Outcome::Answered(status),
            Err(SendFailure::Unsent(error)) => Outcome::Unsent(error.to_string()),
            Err(SendFailure::Broken(error)) => {
                if let Some(association) = leg.association.take() {
                    association.abort(error.abort().unwrap_or(Abort::NOT_SPECIFIED)).await;
                }
                Outcome::Unsent(format!("association to {} broke: {error}", self.called_ae_title))
            }
        }
    }

    /// The association whose contexts an instance is among.
    fn leg_for(&self, record: &InstanceRecord) -> Option<usize> {
        self.legs.iter().position(|leg| {
            leg.contexts.iter().any(|(class, syntaxes)| {
                *class == record.sop_class_uid && syntaxes.contains(&record.transfer_syntax_uid)
            })
        })
    }

    async fn open(&mut self, at: usize) -> Result<(), AssociationError> {
        let door = &self.session.door;
        let Some(leg) = self.legs.get_mut(at) else { return Ok(()) };
        if leg.association.is_some() {
            return Ok(());
        }
        if leg.attempts >= ATTEMPTS_MAX {
            return Err(AssociationError::Protocol("given up"));
        }
        leg.attempts += 1;
        let transport = connect(&self.destination.address, &door.limits).await?;
        let request = Request {
            calling_ae_title: self.calling_ae_title.clone(),
            called_ae_title: self.called_ae_title.clone(),
            contexts: leg.contexts.clone(),
            roles: Vec::new(),
        };
        leg.association = Some(Association::request(transport, &request, &door.limits, &door.implementation).await?);
        Ok(())
    }

    /// Releases the associations, or aborts them.
    async fn close(&mut self, release: bool) {
        for association in self.legs.iter_mut().filter_map(|leg| leg.association.take()) {
            if !release {
                association.abort(Abort::SERVICE_USER).await;
            } else if let Err(error) = association.release().await {
                tracing::info!(destination = %self.called_ae_title, %error, "destination did not release properly");
            }
        }
    }
}
