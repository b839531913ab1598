//! C-STORE as SCP: fragments go on to ingest as they arrive (PS3.4 annex B, PS3.7 section 9.1.1).

use super::status;
use crate::{
    Association, AssociationError, Command, Message, Peer, Status,
    door::{Session, respond},
    negotiate::ServiceClass,
};
use bytes::Bytes;
use cairn_archive::{events::Door as DoorKind, ids::ReceiptId};
use cairn_dicom::Uid;
use cairn_service_api::{
    Error, ErrorKind, Ingest,
    ingest::{Body, InstanceOffer, OfferedForm, Sender, StoreOutcome, Stored},
};
use futures_util::stream;
use std::sync::Arc;

/// Stands for an Affected SOP Instance UID that is none: it equals no data set's, so ingest refuses the object as
/// not matching the request, and keeps it in quarantine.
const NO_UID: &str = "0";

pub(crate) async fn answer(
    session: &mut Session,
    association: &mut Association,
    message: &Message,
) -> Result<(), AssociationError> {
    let command = &message.command;
    let refused = |status| respond_status(command, status);
    let allowed = session.profile.services.and(session.partners.policy.services).storage;
    let Some(ingest) = session.door.ingest.clone().filter(|_| allowed) else {
        return respond(association, message, refused(Status::NOT_AUTHORIZED)).await;
    };
    if !message.context.requestor_is_scu {
        return respond(association, message, refused(Status::SOP_CLASS_NOT_SUPPORTED)).await;
    }
    if !command.has_data_set {
        return respond(association, message, refused(Status::MISTYPED_ARGUMENT)).await;
    }
    let Some(sop_class_uid) = sop_class(session, message) else {
        return respond(association, message, refused(Status::SOP_CLASS_NOT_SUPPORTED)).await;
    };
    let named = command.sop_instance_uid.as_deref().and_then(|uid| uid.parse::<Uid>().ok());
    let Some(sop_instance_uid) = named.or_else(|| NO_UID.parse().ok()) else {
        return respond(association, message, refused(status::own::BAD_IDENTIFIER)).await;
    };
    let peer = Arc::clone(association.peer());
    let receipt = match open_receipt(session, &peer, ingest.as_ref()).await {
        Ok(receipt) => receipt,
        Err(error) => return respond(association, message, status::response(command, &error)).await,
    };
    let syntax = message.context.transfer_syntax.uid().parse::<Uid>();
    let Ok(transfer_syntax_uid) = syntax else {
        return respond(association, message, refused(status::own::TRANSFER_SYNTAX)).await;
    };
    let offer = InstanceOffer {
        form: OfferedForm::DataSet { transfer_syntax_uid, sop_class_uid, sop_instance_uid },
        length_hint: None,
        study_instance_uid: None,
    };
    let stored = store(association, ingest.as_ref(), receipt, offer).await?;
    let response = match stored {
        Ok(stored) => {
            for position in [&stored.position].into_iter().chain(&stored.rejections) {
                session.door.read_after.stored(&association.peer().calling_ae_title, position);
            }
            accepted(command, &stored)
        }
        Err(error) => {
            tracing::info!(
                calling_ae_title = %association.peer().calling_ae_title,
                status = %status::of(&error),
                %error,
                "instance refused"
            );
            status::response(command, &error)
        }
    };
    respond(association, message, response).await
}

fn respond_status(request: &Command, status: Status) -> Command {
    request.response(status)
}

/// The SOP Class of the request: the context's, or another that would be stored too; nothing for any else.
fn sop_class(session: &Session, message: &Message) -> Option<Uid> {
    let Some(named) = message.command.sop_class_uid.as_deref().filter(|uid| !uid.is_empty()) else {
        return Some(message.context.abstract_syntax.clone());
    };
    let named: Uid = named.parse().ok()?;
    let known = named == message.context.abstract_syntax
        || session.partners.policy.service_of(&named, None) == Some(ServiceClass::Storage);
    known.then_some(named)
}

/// The association's receipt, opened with its first C-STORE.
async fn open_receipt(session: &mut Session, peer: &Peer, ingest: &dyn Ingest) -> Result<ReceiptId, Error> {
    if let Some(receipt) = session.receipt {
        return Ok(receipt);
    }
    let receipt = ingest
        .open_receipt(Sender {
            tenant: session.door.tenant.clone(),
            door: DoorKind::Dimse,
            calling_ae_title: peer.calling_ae_title.to_string(),
            called_ae_title: peer.called_ae_title.to_string(),
            peer_address: peer.address.map(|address| address.to_string()).unwrap_or_default(),
            implementation_class_uid: peer.implementation_class_uid.clone().unwrap_or_default(),
            implementation_version_name: peer.implementation_version_name.clone().unwrap_or_default(),
            traceparent: None,
            issuer_of_patient_id: None,
            confirmed_sites: 0,
        })
        .await?;
    session.receipt = Some(receipt);
    Ok(receipt)
}

/// Hands the data set to ingest. The outer error is the association's: nobody is left to be answered then.
async fn store(
    association: &mut Association,
    ingest: &dyn Ingest,
    receipt: ReceiptId,
    offer: InstanceOffer,
) -> Result<Result<Stored, Error>, AssociationError> {
    let mut failure = None;
    let stored = ingest.store(receipt, offer, body(association, &mut failure)).await;
    match failure {
        Some(error) => Err(error),
        None => Ok(stored),
    }
}

/// The data set of the message that was received last, as it comes. `failure` is set when it breaks off.
pub(crate) fn body<'a>(association: &'a mut Association, failure: &'a mut Option<AssociationError>) -> Body<'a> {
    Box::pin(stream::unfold(Some((association, failure)), |source| async {
        let (association, failure) = source?;
        match association.data().await {
            Ok(Some(piece)) => Some((Ok(piece), Some((association, failure)))),
            Ok(None) => None,
            Err(error) => {
                let aborted = Error::new(ErrorKind::Aborted, "data set ended early");
                *failure = Some(error);
                Some((Err::<Bytes, _>(aborted), None))
            }
        }
    }))
}

/// 0000, or B000 where the archive withheld something: which version is shown (I5).
pub(crate) fn accepted(request: &Command, stored: &Stored) -> Command {
    let warning = Status::COERCION_OF_DATA_ELEMENTS;
    match stored.outcome {
        StoreOutcome::New | StoreOutcome::Repeat => request.response(Status::SUCCESS),
        StoreOutcome::Conflict { shown: false } => {
            request.response(warning).with_comment("kept, not shown: differs from the version stored before")
        }
        StoreOutcome::Conflict { shown: true } => {
            request.response(warning).with_comment("shown from now on: differs from the version stored before")
        }
        StoreOutcome::ElsewhereToo => {
            request.response(warning).with_comment("SOP Instance UID is in another study or series too")
        }
    }
}
