//! C-FIND as SCP: answers streamed as they are found, C-CANCEL heard between them (PS3.4 section C.4.1).

use super::{
    Next,
    identifier::{self, Identifier, level_name},
    next, status,
};
use crate::{
    Association, AssociationError, Command, Message, Status,
    door::{Session, respond},
    negotiate::{self, QueryRoot},
};
use cairn_dicom::{dataset::DataSet, tags};
use cairn_service_api::{
    AnswerStream, Error, Index,
    index::{Query, QueryOptions, Returning},
};
use futures_util::{FutureExt, StreamExt};
use std::sync::Arc;

/// Bytes of answers gathered for one write, as long as more are at hand.
const BATCH_BYTES: usize = 32 * 1024;

pub(crate) async fn answer(
    session: &mut Session,
    association: &mut Association,
    message: &Message,
    root: QueryRoot,
) -> Result<(), AssociationError> {
    let Some(index) = session.door.index.clone() else {
        return respond(association, message, message.command.response(Status::SOP_CLASS_NOT_SUPPORTED)).await;
    };
    let bytes_max = session.door.limits.identifier_bytes_max;
    let read =
        identifier::receive(association, message, root, bytes_max, session.profile.default_character_set).await?;
    let relational = message.context.options.relational || !session.partners.policy.strict_hierarchy;
    let checked = read.and_then(|read| {
        if !relational {
            read.check_hierarchy(root)?;
        }
        Ok(read)
    });
    let mut identifier = match checked {
        Ok(identifier) => identifier,
        Err(unusable) => {
            let mut response = status::response(&message.command, &unusable.error);
            response.status = Some(unusable.status);
            return association.send(message.context.id, &mut response, None).await;
        }
    };
    let limit = session.door.limits.read_after_timeout;
    session.door.read_after.wait(&association.peer().calling_ae_title, index.as_ref(), limit).await;
    let mut response = match query(session, message, index.as_ref(), &mut identifier).await {
        Ok(mut answers) => stream(association, message, &identifier, &mut answers).await?,
        Err(error) => status::response(&message.command, &error),
    };
    association.send(message.context.id, &mut response, None).await
}

async fn query(
    session: &Session,
    message: &Message,
    index: &dyn Index,
    identifier: &mut Identifier,
) -> Result<AnswerStream<DataSet>, Error> {
    let options = message.context.options;
    // Not negotiated: a time zone in the identifier is no key, only something to return.
    if !options.timezone {
        identifier.empty(tags::TIMEZONE_OFFSET_FROM_UTC);
    }
    // Known here alone, and the same for all: matching it would match everything or nothing.
    identifier.empty(tags::RETRIEVE_AE_TITLE);
    index
        .query(Query {
            tenant: session.door.tenant.clone(),
            level: identifier.level,
            identifier: identifier.keys.clone(),
            options: query_options(options),
            returning: Returning::Keys,
            offset: 0,
            limit: None,
            generation: None,
            sees_rejected: session.profile.sees_rejected,
        })
        .await
}

fn query_options(options: negotiate::QueryOptions) -> QueryOptions {
    QueryOptions {
        fuzzy_person_names: options.fuzzy,
        combined_date_time: options.combined_date_time,
        time_zone_adjustment: options.timezone,
        empty_value: options.empty_value,
        multiple_value: options.multiple_value,
    }
}

/// Sends the answers; gives the final response.
async fn stream(
    association: &mut Association,
    message: &Message,
    identifier: &Identifier,
    answers: &mut AnswerStream<DataSet>,
) -> Result<Command, AssociationError> {
    let request = &message.command;
    let message_id = request.message_id.unwrap_or_default();
    let called = Arc::clone(association.peer());
    let mut batch = 1;
    loop {
        let mut answer = match next(association, message_id, answers).await? {
            Next::Cancelled => return Ok(request.response(Status::CANCEL)),
            Next::End => return Ok(request.response(Status::SUCCESS)),
            Next::Item(answer) => answer,
        };
        // The first answer goes at once; later ones share writes while they come faster than they are written.
        loop {
            let pending =
                answer.and_then(|answer| encode(answer, message, identifier, called.called_ae_title.as_str()));
            let (response_status, data_set) = match pending {
                Ok(pending) => pending,
                Err(error) => return Ok(status::response(request, &error)),
            };
            association.queue(message.context.id, &mut request.response(response_status), Some(&data_set))?;
            if association.queued() >= batch {
                break;
            }
            match answers.next().now_or_never() {
                Some(Some(more)) => answer = more,
                Some(None) => return Ok(request.response(Status::SUCCESS)),
                None => break,
            }
        }
        association.flush().await?;
        batch = BATCH_BYTES;
    }
}

/// An answer as it goes on the wire, with what every answer must have (PS3.4 section C.4.1.1.3.2).
fn encode(
    mut answer: DataSet,
    message: &Message,
    identifier: &Identifier,
    retrieve_ae_title: &str,
) -> Result<(Status, Vec<u8>), Error> {
    let response_status = match identifier.lacks(&answer) {
        true => Status::PENDING_OPTIONAL_KEYS_UNSUPPORTED,
        false => Status::PENDING,
    };
    answer.put_text(tags::QUERY_RETRIEVE_LEVEL, level_name(identifier.level));
    answer.put_text(tags::RETRIEVE_AE_TITLE, retrieve_ae_title);
    let encoded = answer.encode_preferring(message.context.transfer_syntax.encoding, identifier.character_set);
    let (bytes, _) = encoded.map_err(|error| Error::new(cairn_service_api::ErrorKind::Internal, error.to_string()))?;
    Ok((response_status, bytes))
}
