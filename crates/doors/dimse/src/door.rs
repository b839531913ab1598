//! What the door has behind it, and the conversation of one association.

use crate::{
    Association, AssociationError, Command, CommandField, Implementation, Limits, Message, Received, Status, metrics,
    negotiate::{PeerProfile, Policy, ServiceClass, Services},
    pdu::AeTitle,
    read_after::ReadAfter,
    services::{
        commitment::{self, Awaited},
        find, get, move_, store,
    },
};
use cairn_archive::{events::ReceiptEnd, ids::ReceiptId};
use cairn_service_api::{Commitments, Index, Ingest, Retrieval};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};
use tokio::time::{Instant, timeout};
use tracing::Instrument;

/// A place that C-MOVE can send to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Host and port.
    pub address: String,
}

/// The services behind a door. What is missing is not offered.
#[derive(Clone, Default)]
pub struct Backends {
    /// For C-STORE.
    pub ingest: Option<Arc<dyn Ingest>>,
    /// For C-FIND, and together with retrieval for C-MOVE and C-GET.
    pub index: Option<Arc<dyn Index>>,
    /// For C-MOVE and C-GET.
    pub retrieval: Option<Arc<dyn Retrieval>>,
    /// For storage commitment.
    pub commitments: Option<Arc<dyn Commitments>>,
}

/// Who may call, for what, and where C-MOVE and reports of storage commitment go.
#[derive(Clone, Debug, Default)]
pub struct Partners {
    /// Who may call, under which titles, and for what.
    pub policy: Policy,
    /// Where C-MOVE sends, by AE title.
    pub destinations: HashMap<AeTitle, Destination>,
}

/// Rules and services of one listener.
pub struct Door {
    pub(crate) limits: Limits,
    pub(crate) implementation: Implementation,
    pub(crate) tenant: String,
    able: Services,
    partners: RwLock<Arc<Partners>>,
    pub(crate) ingest: Option<Arc<dyn Ingest>>,
    pub(crate) index: Option<Arc<dyn Index>>,
    pub(crate) retrieval: Option<Arc<dyn Retrieval>>,
    pub(crate) commitments: Option<Arc<dyn Commitments>>,
    pub(crate) read_after: ReadAfter,
}

impl Door {
    /// A door for one tenant. The policy's services are cut down to what the backends can do.
    pub fn new(
        tenant: &str,
        policy: Policy,
        limits: Limits,
        implementation: Implementation,
        backends: Backends,
    ) -> Self {
        let Backends { ingest, index, retrieval, commitments } = backends;
        let retrieve = index.is_some() && retrieval.is_some();
        let able = Services {
            verification: true,
            storage: ingest.is_some(),
            find: index.is_some(),
            move_: retrieve,
            get: retrieve,
            commitment: commitments.is_some(),
        };
        let (tenant, read_after, partners) = (tenant.to_owned(), ReadAfter::default(), RwLock::default());
        let door =
            Self { limits, implementation, tenant, able, partners, ingest, index, retrieval, commitments, read_after };
        door.set_partners(Partners { policy, destinations: HashMap::new() });
        door
    }

    /// With these destinations for C-MOVE, by AE title.
    pub fn with_destinations(self, destinations: HashMap<AeTitle, Destination>) -> Self {
        self.set_partners(Partners { destinations, ..Partners::clone(&self.partners()) });
        self
    }

    /// Other partners from now on. Associations that stand keep those that they began with.
    pub fn set_partners(&self, partners: Partners) {
        let Partners { policy, destinations } = partners;
        let policy = Policy { services: policy.services.and(self.able), ..policy };
        *self.partners.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Partners { policy, destinations });
    }

    pub(crate) fn partners(&self) -> Arc<Partners> {
        self.partners.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn session(self: &Arc<Self>, partners: Arc<Partners>, profile: Arc<PeerProfile>) -> Session {
        Session { door: Arc::clone(self), partners, profile, receipt: None, awaited: Awaited::default() }
    }
}

/// One association's conversation.
pub(crate) struct Session {
    pub(crate) door: Arc<Door>,
    pub(crate) partners: Arc<Partners>,
    pub(crate) profile: Arc<PeerProfile>,
    pub(crate) receipt: Option<ReceiptId>,
    /// Decisions about storage commitment that are reported on this association.
    pub(crate) awaited: Awaited,
}

impl Session {
    /// Answers messages until the peer releases, and reports decisions meanwhile.
    pub(crate) async fn converse(&mut self, association: &mut Association) -> Result<(), AssociationError> {
        loop {
            let received = tokio::select! {
                biased;
                received = association.receive() => received?,
                decided = self.awaited.next() => {
                    self.awaited.send(association, decided).await?;
                    continue;
                }
            };
            match received {
                Received::Release => return Ok(()),
                Received::Message(message)
                    if self.awaited.answered(&message.command, self.door.limits.commitment_timeout).await => {}
                Received::Message(message) => {
                    let (field, start) = (message.command.field, Instant::now());
                    let span = tracing::info_span!("dimse.request", request = metrics::request(field));
                    self.answer(association, message).instrument(span).await?;
                    metrics::answered(field, start.elapsed());
                }
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
                respond(association, &message, command.response(Status::SUCCESS)).await
            }
            (CommandField::C_STORE_RQ, ServiceClass::Storage) => store::answer(self, association, &message).await,
            (CommandField::C_FIND_RQ, ServiceClass::Find(root)) => {
                find::answer(self, association, &message, root).await
            }
            (CommandField::C_MOVE_RQ, ServiceClass::Move(root)) => {
                move_::answer(self, association, &message, root).await
            }
            (CommandField::C_GET_RQ, ServiceClass::Get(root)) => get::answer(self, association, &message, root).await,
            (CommandField::N_ACTION_RQ, ServiceClass::Commitment) => {
                commitment::answer(self, association, &message).await
            }
            (
                CommandField::C_ECHO_RQ
                | CommandField::C_STORE_RQ
                | CommandField::C_FIND_RQ
                | CommandField::C_MOVE_RQ
                | CommandField::C_GET_RQ
                | CommandField::N_ACTION_RQ,
                _,
            ) => respond(association, &message, command.response(Status::SOP_CLASS_NOT_SUPPORTED)).await,
            _ => respond(association, &message, command.response(Status::UNRECOGNIZED_OPERATION)).await,
        }
    }

    /// Ends what the conversation left open. `None`: the archive stops.
    pub(crate) async fn close(&mut self, ended: &Option<Result<(), AssociationError>>) {
        self.awaited.give_up(self.door.limits.receipt_timeout).await;
        let (Some(receipt), Some(ingest)) = (self.receipt.take(), &self.door.ingest) else { return };
        let end = match ended {
            Some(Ok(()) | Err(AssociationError::Released)) => ReceiptEnd::Completed,
            Some(Err(AssociationError::Closed | AssociationError::Aborted(_) | AssociationError::Io(_))) => {
                ReceiptEnd::Aborted
            }
            _ => ReceiptEnd::EndedByArchive,
        };
        match timeout(self.door.limits.receipt_timeout, ingest.close_receipt(receipt, end)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "receipt of an association could not be closed"),
            Err(_) => tracing::warn!("receipt of an association could not be closed in time"),
        }
    }
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
