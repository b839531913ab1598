//! What the door has behind it, and the conversation of one association.

use crate::{
    Association, AssociationError, Command, CommandField, Implementation, Limits, Message, Received, Status,
    negotiate::{PeerProfile, Policy, ServiceClass},
};
use std::sync::Arc;

/// Rules and services of one listener.
#[derive(Clone)]
pub struct Door {
    /// Bounds.
    pub limits: Limits,
    /// Who we say we are.
    pub implementation: Implementation,
    /// Who may do what.
    pub policy: Policy,
}

impl Door {
    pub(crate) fn session(self: &Arc<Self>, association: &Association, profile: Arc<PeerProfile>) -> Session {
        let _ = association;
        Session { door: Arc::clone(self), profile }
    }
}

/// One association's conversation.
pub(crate) struct Session {
    pub(crate) door: Arc<Door>,
    pub(crate) profile: Arc<PeerProfile>,
}

impl Session {
    /// Answers messages until the peer releases.
    pub(crate) async fn converse(&mut self, association: &mut Association) -> Result<(), AssociationError> {
        loop {
            match association.receive().await? {
                Received::Release => return Ok(()),
                Received::Message(message) => self.answer(association, message).await?,
            }
        }
    }

    async fn answer(&mut self, association: &mut Association, message: Message) -> Result<(), AssociationError> {
        let command = &message.command;
        if command.field == CommandField::C_CANCEL_RQ {
            // What it would have cancelled is done.
            return Ok(());
        }
        if command.field.is_response() {
            return Err(AssociationError::Protocol("response to nothing"));
        }
        if command.message_id.is_none() {
            return Err(AssociationError::Protocol("request without a message ID"));
        }
        match (command.field, message.context.service) {
            (CommandField::C_ECHO_RQ, ServiceClass::Verification) => {
                refuse(association, &message, Status::SUCCESS).await
            }
            (CommandField::C_ECHO_RQ, _) => refuse(association, &message, Status::SOP_CLASS_NOT_SUPPORTED).await,
            _ => refuse(association, &message, Status::UNRECOGNIZED_OPERATION).await,
        }
    }

    /// Ends what the conversation left open.
    pub(crate) async fn close(&mut self, ended: &Option<Result<(), AssociationError>>) {
        let _ = (ended, &self.profile, &self.door);
    }
}

/// Answers with a status alone, once the request's data set, if any, has gone by.
pub(crate) async fn refuse(
    association: &mut Association,
    message: &Message,
    status: Status,
) -> Result<(), AssociationError> {
    respond(association, message, message.command.response(status)).await
}

/// Sends a response without a data set, once the request's data set, if any, has gone by.
pub(crate) async fn respond(
    association: &mut Association,
    message: &Message,
    mut response: Command,
) -> Result<(), AssociationError> {
    if message.command.has_data_set {
        while association.data().await?.is_some() {}
    }
    association.send(message.context.id, &mut response, None).await
}
