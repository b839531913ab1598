//! The acceptor's side of establishing an association (Sta2 and Sta3).

use crate::{
    Association, AssociationError, Implementation, Limits, Peer,
    association::{
        Transport,
        link::{Link, Wait},
    },
    negotiate::{PeerProfile, Policy, Refusal, negotiate},
    pdu::{
        AssociateRj, AssociateRq, encode_abort, encode_associate_ac, encode_associate_rj,
        frame::{Expecting, Pdu},
    },
};
use std::{net::SocketAddr, sync::Arc};
use tokio::time::{Instant, timeout_at};

/// An association as accepted.
pub struct Accepted {
    /// Established.
    pub association: Association,
    /// What the policy says of its requestor.
    pub profile: Arc<PeerProfile>,
}

/// Waits for A-ASSOCIATE-RQ and answers it.
///
/// `admit` is asked once the policy has said yes, and may still reject, for lack of room. The request must be
/// complete by `artim_start` plus ARTIM, however slowly its bytes come.
///
/// # Errors
/// [`AssociationError`]; the peer was told as the protocol says, and the connection is closed.
pub async fn accept(
    transport: Box<dyn Transport>,
    address: Option<SocketAddr>,
    artim_start: Instant,
    policy: &Policy,
    limits: &Limits,
    implementation: &Implementation,
    admit: impl FnOnce(&AssociateRq) -> Result<(), AssociateRj>,
) -> Result<Accepted, AssociationError> {
    let mut link = Link::new(transport, Expecting::AssociateRq, limits);
    let request = match timeout_at(artim_start + limits.artim, link.next_pdu(Wait::AsCaller)).await {
        Ok(Ok(Pdu::AssociateRq(request))) => request,
        Ok(Ok(Pdu::Abort(abort))) => {
            link.finish(None).await;
            return Err(AssociationError::Aborted(abort));
        }
        Ok(Ok(_)) => {
            let error = AssociationError::Protocol("A-ASSOCIATE-RQ expected");
            link.finish(error.abort().map(encode_abort)).await;
            return Err(error);
        }
        Ok(Err(error)) => {
            link.finish(error.abort().map(encode_abort)).await;
            return Err(error);
        }
        // AA-2: ARTIM expired, the connection is closed without a word.
        Err(_) => return Err(AssociationError::Timeout("no A-ASSOCIATE-RQ")),
    };
    let agreed = negotiate(&request, address.map(|a| a.ip()), policy, limits, implementation)
        .and_then(|agreement| admit(&request).map(|()| agreement).map_err(Refusal::Reject));
    let agreement = match agreed {
        Ok(agreement) => agreement,
        Err(Refusal::Reject(reject)) => {
            link.finish(Some(encode_associate_rj(reject))).await;
            return Err(AssociationError::Rejected(reject));
        }
        Err(Refusal::Abort(abort)) => {
            link.finish(Some(encode_abort(abort))).await;
            return Err(AssociationError::Protocol("malformed A-ASSOCIATE-RQ"));
        }
    };
    link.expect(Expecting::Established);
    link.queue(encode_associate_ac(&agreement.answer));
    if let Err(error) = link.flush().await {
        link.finish(None).await;
        return Err(error);
    }
    let AssociateRq { calling_ae_title, called_ae_title, user, .. } = *request;
    let peer = Peer {
        address,
        calling_ae_title,
        called_ae_title,
        implementation_class_uid: user.implementation_class_uid,
        implementation_version_name: user.implementation_version_name,
        identity: user.identity,
    };
    // A peer that announces nothing gets what every implementation takes.
    let peer_length = user.maximum_length.unwrap_or(16 * 1024);
    let association = Association::new(link, agreement.contexts, peer, peer_length, limits);
    Ok(Accepted { association, profile: agreement.profile })
}
