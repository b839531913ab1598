//! The service classes, one module each, as SCP (PS3.4 annexes A, B, C and J, edition 2025c).

pub(crate) mod commitment;
mod convert;
pub(crate) mod find;
pub(crate) mod get;
mod identifier;
pub(crate) mod move_;
pub(crate) mod plan;
pub(crate) mod retrieve;
pub(crate) mod status;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use crate::{Association, AssociationError, CommandField, Received};
use cairn_service_api::Error;
use futures_core::Stream;
use futures_util::StreamExt;

/// What came first: something of a stream, or a C-CANCEL.
enum Next<T> {
    Item(Result<T, Error>),
    End,
    Cancelled,
}

/// The next item, unless the operation `message_id` is cancelled before.
async fn next<T>(
    association: &mut Association,
    message_id: u16,
    stream: &mut (impl Stream<Item = Result<T, Error>> + Unpin),
) -> Result<Next<T>, AssociationError> {
    loop {
        tokio::select! {
            biased;
            received = association.receive_meanwhile() => {
                if is_cancel(association, received?, message_id)? {
                    return Ok(Next::Cancelled);
                }
            }
            item = stream.next() => return Ok(item.map_or(Next::End, Next::Item)),
        }
    }
}

/// Judges what came while the operation `message_id` is under way: whether it cancels it. Another request is held.
fn is_cancel(association: &mut Association, received: Received, message_id: u16) -> Result<bool, AssociationError> {
    let message = match received {
        Received::Release => return Err(AssociationError::Released),
        Received::Message(message) => message,
    };
    if message.command.field == CommandField::C_CANCEL_RQ {
        return Ok(message.command.message_id_responded_to == Some(message_id));
    }
    // The answer to a report of ours may cross a request of the peer's.
    if message.command.field.is_response() && message.command.field != CommandField::N_EVENT_REPORT_RSP {
        return Err(AssociationError::Protocol("response to nothing"));
    }
    association.hold(message)?;
    Ok(false)
}
