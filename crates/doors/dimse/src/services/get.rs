//! C-GET as SCP: instances go back on the same association (PS3.4 section C.4.3).

use super::{
    Next, next,
    retrieve::{Ending, Outcome, Prepared, Progress, SendFailure, context_for, finish, prepare, send},
};
use crate::{Association, AssociationError, Message, door::Session, negotiate::QueryRoot};
use cairn_service_api::{
    AnswerStream,
    retrieval::{Part, RetrievedInstance},
};
use futures_util::{FutureExt, StreamExt};

/// Bytes of responses that may wait for the next write: instances that can't be sent cause none.
const QUEUED_BYTES_MAX: usize = 32 * 1024;

pub(crate) async fn answer(
    session: &mut Session,
    association: &mut Association,
    message: &Message,
    root: QueryRoot,
) -> Result<(), AssociationError> {
    let Some(Prepared { selection, plan, retrieval }) = prepare(session, association, message, root).await? else {
        return Ok(());
    };
    let mut progress = Progress::new(plan.instances);
    let ending = match retrieval.instances(selection, Part::DataSet).await {
        Ok(mut instances) => send_all(association, message, &mut progress, &mut instances).await?,
        Err(error) => Ending::Failed(error),
    };
    finish(association, message, &progress, ending).await
}

async fn send_all(
    association: &mut Association,
    message: &Message,
    progress: &mut Progress,
    instances: &mut AnswerStream<RetrievedInstance>,
) -> Result<Ending, AssociationError> {
    let message_id = message.command.message_id.unwrap_or_default();
    loop {
        let instance = match take(association, message_id, instances).await? {
            Next::End => return Ok(Ending::Done),
            Next::Cancelled => return Ok(Ending::Cancelled),
            Next::Item(Err(error)) => return Ok(Ending::Failed(error)),
            Next::Item(Ok(instance)) => instance,
        };
        let RetrievedInstance { record, bytes } = instance;
        let mut cancelled = false;
        let outcome = match context_for(association, &record, |context| context.requestor_is_scp) {
            None => Outcome::NoContext,
            Some(context) => {
                let on_cancel = |cancel: &crate::Command| {
                    cancelled |= cancel.message_id_responded_to == Some(message_id);
                };
                let priority = message.command.priority;
                match send(association, &context, &record, bytes, priority, None, on_cancel).await {
                    Ok(status) => Outcome::Answered(status),
                    Err(SendFailure::Unsent(error)) => Outcome::Unsent(error.to_string()),
                    Err(SendFailure::Broken(error)) => return Err(error),
                }
            }
        };
        progress.count(&outcome, &record);
        if cancelled {
            return Ok(Ending::Cancelled);
        }
        // Goes out in one write with the next sub-operation, or the final response.
        association.queue(message.context.id, &mut progress.pending(&message.command), None)?;
    }
}

/// The next instance. What is queued is not kept from the peer while we wait for one.
async fn take(
    association: &mut Association,
    message_id: u16,
    instances: &mut AnswerStream<RetrievedInstance>,
) -> Result<Next<RetrievedInstance>, AssociationError> {
    if association.queued() > QUEUED_BYTES_MAX {
        association.flush().await?;
    }
    if association.queued() > 0 {
        match instances.next().now_or_never() {
            Some(item) => return Ok(item.map_or(Next::End, Next::Item)),
            None => association.flush().await?,
        }
    }
    next(association, message_id, instances).await
}
