//! Storage Commitment Push Model as SCP (PS3.4 annex J, PS3.7 section 10.1, edition 2025c): N-ACTION is answered once the
//! request is durable; N-EVENT-REPORT follows once it is decided.

mod awaited;
pub(crate) mod data_sets;

pub(crate) use awaited::{Awaited, report_request};

use crate::{
    Association, AssociationError, Command, Message, Status,
    door::{Session, respond},
    negotiate::CommitmentTerms,
};
use bytes::Bytes;
use cairn_archive::events::{CommitmentReporting, Door as DoorKind};
use cairn_dicom::{
    CharacterSet,
    dataset::{DataSet, DecodeLimits},
};
use cairn_service_api::{
    Commitments, Error, ErrorKind,
    commitment::{Request, Transaction},
};
use data_sets::{Unusable, read_action};
use std::sync::Arc;

/// Storage Commitment Push Model SOP Instance, which is well known (PS3.4 section J.3.5).
pub(crate) const INSTANCE: &str = "1.2.840.10008.1.20.1.1";
/// Action Type ID: request storage commitment.
pub(crate) const REQUEST: u16 = 1;
/// Elements and items of one reference: the item, its two UIDs, and delimiters.
const ELEMENTS_OF_A_REFERENCE: usize = 4;

/// How a request is refused, and what the requester is told about it.
type Refusal = (Status, &'static str);

/// Answers N-ACTION.
pub(crate) async fn answer(
    session: &mut Session,
    association: &mut Association,
    message: &Message,
) -> Result<(), AssociationError> {
    let command = &message.command;
    let admitted = admit(session, association, message);
    let (commitments, reporting) = match admitted {
        Ok(admitted) => admitted,
        Err((status, comment)) => {
            let response = command.response(status).with_comment(comment);
            return respond(association, message, response).await;
        }
    };
    let Some(bytes) = association.data_within(session.door.limits.commitment_bytes_max).await? else {
        let response = command.response(Status::RESOURCE_LIMITATION).with_comment("request is too large");
        return respond(association, message, response).await;
    };
    let response = match read(session, association, message, &bytes, reporting) {
        Err((status, comment)) => command.response(status).with_comment(comment),
        Ok(request) => ask(session, message, commitments, request).await,
    };
    respond(association, message, response).await
}

/// What the command set says for and against.
fn admit(
    session: &Session,
    association: &Association,
    message: &Message,
) -> Result<(Arc<dyn Commitments>, CommitmentReporting), Refusal> {
    let command = &message.command;
    let allowed = session.profile.services.and(session.partners.policy.services).commitment;
    let commitments = session.door.commitments.clone().filter(|_| allowed);
    let commitments = commitments.ok_or((Status::NOT_AUTHORIZED, "storage commitment is not offered"))?;
    if !message.context.requestor_is_scu {
        return Err((Status::SOP_CLASS_NOT_SUPPORTED, "role of the requester does not allow it"));
    }
    if command.sop_class_uid.as_deref() != Some(message.context.abstract_syntax.as_str()) {
        return Err((Status::NO_SUCH_SOP_CLASS, "SOP Class is not that of the presentation context"));
    }
    if command.sop_instance_uid.as_deref() != Some(INSTANCE) {
        return Err((Status::NO_SUCH_SOP_INSTANCE, "SOP Instance is not the well-known one"));
    }
    if command.action_type_id != Some(REQUEST) {
        return Err((Status::NO_SUCH_ACTION, "action is not a request for storage commitment"));
    }
    if !command.has_data_set {
        return Err((Status::INVALID_ARGUMENT_VALUE, "request without action information"));
    }
    let caller = &association.peer().calling_ae_title;
    let CommitmentTerms { on_same_association, .. } = session.profile.commitment;
    match (on_same_association, session.partners.destinations.contains_key(caller)) {
        (true, _) => Ok((commitments, CommitmentReporting::SameAssociation)),
        (false, true) => Ok((commitments, CommitmentReporting::NewAssociation)),
        (false, false) => Err((Status::PROCESSING_FAILURE, "no address of the requester is known to report to")),
    }
}

/// Reads what is asked about.
fn read(
    session: &Session,
    association: &Association,
    message: &Message,
    bytes: &Bytes,
    reporting: CommitmentReporting,
) -> Result<Request, Refusal> {
    let limits = &session.door.limits;
    let elements_max = limits.commitment_references_max.saturating_mul(ELEMENTS_OF_A_REFERENCE).saturating_add(1 << 10);
    let decode_limits = DecodeLimits { elements_max, ..DecodeLimits::default() };
    let encoding = message.context.transfer_syntax.encoding;
    let too_many = (Status::RESOURCE_LIMITATION, "request is about too many instances");
    let action = match DataSet::decode(bytes, encoding, CharacterSet::DEFAULT, &decode_limits) {
        Ok((action, _)) => action,
        Err(cairn_dicom::dataset::DecodeError::TooMany(_)) => return Err(too_many),
        Err(_) => return Err((Status::INVALID_ARGUMENT_VALUE, "action information can not be read")),
    };
    let read = read_action(&action, limits.commitment_references_max);
    let (transaction_uid, references) = read.map_err(|unusable| match unusable {
        Unusable::TransactionUid => (Status::INVALID_ARGUMENT_VALUE, "Transaction UID is missing or none"),
        Unusable::References => (Status::INVALID_ARGUMENT_VALUE, "a reference is missing or none"),
        Unusable::TooMany => too_many,
    })?;
    let peer = association.peer();
    let (tenant, requester) = (session.door.tenant.clone(), peer.calling_ae_title.to_string());
    Ok(Request {
        transaction: Transaction { tenant, requester, transaction_uid },
        called_ae_title: peer.called_ae_title.to_string(),
        door: DoorKind::Dimse,
        peer_address: peer.address.map(|address| address.to_string()).unwrap_or_default(),
        references,
        confirmed_sites: session.profile.commitment.confirmed_sites,
        reporting,
    })
}

/// Hands a request on.
async fn ask(
    session: &mut Session,
    message: &Message,
    commitments: Arc<dyn Commitments>,
    mut request: Request,
) -> Command {
    let limits = &session.door.limits;
    let mut here = request.reporting == CommitmentReporting::SameAssociation;
    if here && session.awaited.len() >= limits.commitments_awaited_max {
        (here, request.reporting) = (false, CommitmentReporting::NewAssociation);
    }
    let transaction = request.transaction.clone();
    let taken = tokio::time::timeout(limits.commitment_timeout, commitments.request_commitment(request)).await;
    let taken = taken.unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "request was not taken in time")));
    match taken {
        Ok(_) => {
            if here {
                session.awaited.add(commitments, transaction, Arc::clone(&message.context));
            }
            message.command.response(Status::SUCCESS)
        }
        Err(error) => {
            tracing::info!(status = %status_of(&error), %error, "request for storage commitment refused");
            message.command.response(status_of(&error)).with_comment(&error.message)
        }
    }
}

/// The status of a request that was not taken.
fn status_of(error: &Error) -> Status {
    match error.kind {
        ErrorKind::Conflict => Status::DUPLICATE_TRANSACTION_UID,
        ErrorKind::Exhausted | ErrorKind::Unavailable => Status::RESOURCE_LIMITATION,
        ErrorKind::Invalid => Status::INVALID_ARGUMENT_VALUE,
        ErrorKind::Denied => Status::NOT_AUTHORIZED,
        _ => Status::PROCESSING_FAILURE,
    }
}
