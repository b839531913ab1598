//! What an association may carry: presentation contexts, roles, extended negotiation (PS3.8 section 7.1.1, PS3.7
//! annex D.3, edition 2025c).

mod extended;
mod policy;
#[cfg(test)]
mod tests;

use crate::{
    Implementation, Limits,
    pdu::{
        Abort, AssociateAc, AssociateRj, AssociateRq, ContextAnswer, ContextResult, ProposedContext, RoleSelection,
        UserInformation,
    },
};
use bytes::Bytes;
use cairn_dicom::{TransferSyntax, Uid};
pub use extended::QueryOptions;
pub use policy::{
    CallingAes, CommitmentTerms, PeerProfile, Policy, QueryRoot, STORAGE_COMMITMENT, ServiceClass, Services,
};
use std::{collections::HashSet, net::IpAddr, sync::Arc};

/// An accepted presentation context.
#[derive(Clone, Debug)]
pub struct Context {
    /// Odd, 1 to 255.
    pub id: u8,
    /// The SOP Class, for the services spoken here.
    pub abstract_syntax: Uid,
    /// Which service that is.
    pub service: ServiceClass,
    /// The one chosen.
    pub transfer_syntax: TransferSyntax,
    /// The association's requestor may invoke operations on this context.
    pub requestor_is_scu: bool,
    /// The association's requestor may be sent operations on this context.
    pub requestor_is_scp: bool,
    /// What was agreed on for queries and retrievals of this SOP Class.
    pub options: QueryOptions,
}

/// How a request for an association is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// By A-ASSOCIATE-RJ.
    Reject(AssociateRj),
    /// By A-ABORT: the request breaks the protocol.
    Abort(Abort),
}

impl From<AssociateRj> for Refusal {
    fn from(reject: AssociateRj) -> Self {
        Self::Reject(reject)
    }
}

/// The outcome of negotiation on the acceptor's side.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// The answer to send.
    pub answer: AssociateAc,
    /// The accepted contexts, by ascending ID.
    pub contexts: Vec<Arc<Context>>,
    /// What the policy says of this peer.
    pub profile: Arc<PeerProfile>,
}

/// Judges a request for an association. `address` is the peer's, if there is one.
///
/// # Errors
/// [`Refusal`]: protocol version, application context, AE titles (in that order), then malformed contexts.
/// # Source
/// PS3.8 sections 9.3.2 to 9.3.4 and 7.1.1.13; PS3.7 annex D.3.3, edition 2025c.
pub fn negotiate(
    request: &AssociateRq,
    address: Option<IpAddr>,
    policy: &Policy,
    limits: &Limits,
    implementation: &Implementation,
) -> Result<Agreement, Refusal> {
    if request.protocol_version & 1 == 0 {
        return Err(AssociateRj::PROTOCOL_VERSION_NOT_SUPPORTED.into());
    }
    if request.application_context.as_ref().is_none_or(|uid| uid.as_str() != crate::pdu::DICOM_APPLICATION_CONTEXT) {
        return Err(AssociateRj::APPLICATION_CONTEXT_NOT_SUPPORTED.into());
    }
    let profile = policy.admit(request, address)?;
    let services = profile.services.and(policy.services);
    // A peer that takes so little can't be sent a fragment of two bytes.
    if matches!(request.user.maximum_length, Some(1..=7)) || request.contexts.is_empty() {
        return Err(AssociateRj::NO_REASON.into());
    }
    let mut ids = HashSet::new();
    if !request.contexts.iter().all(|context| ids.insert(context.id)) {
        return Err(Refusal::Abort(Abort::INVALID_PDU_PARAMETER));
    }
    let mut contexts = Vec::with_capacity(request.contexts.len());
    let mut answers = Vec::with_capacity(request.contexts.len());
    for proposed in &request.contexts {
        let judged = judge(proposed, request, policy, &profile, services);
        answers.push(ContextAnswer {
            id: proposed.id,
            result: judged.as_ref().err().copied().unwrap_or(ContextResult::Acceptance),
            transfer_syntax: match &judged {
                Ok((_, uid)) => Some(uid.clone()),
                Err(_) => proposed.transfer_syntaxes.first().cloned(),
            },
        });
        contexts.extend(judged.map(|(context, _)| Arc::new(context)));
    }
    contexts.sort_by_key(|context| context.id);
    let user = answer_user(request, &contexts, policy, services, limits, implementation);
    let answer = AssociateAc {
        called_ae_title: request.called_ae_title.clone(),
        calling_ae_title: request.calling_ae_title.clone(),
        contexts: answers,
        user,
    };
    Ok(Agreement { answer, contexts, profile })
}

fn judge(
    proposed: &ProposedContext,
    request: &AssociateRq,
    policy: &Policy,
    profile: &PeerProfile,
    services: Services,
) -> Result<(Context, Uid), ContextResult> {
    if proposed.id.is_multiple_of(2) {
        return Err(ContextResult::NoReason);
    }
    let class = proposed.abstract_syntax.as_ref().ok_or(ContextResult::AbstractSyntaxNotSupported)?;
    let declared = request.user.common_extended.iter().find(|common| common.sop_class_uid == *class);
    let service = policy.service_of(class, declared).ok_or(ContextResult::AbstractSyntaxNotSupported)?;
    if !services.offers(service) {
        return Err(ContextResult::UserRejection);
    }
    let (transfer_syntax, uid) = profile
        .choose_transfer_syntax(service, &proposed.transfer_syntaxes)
        .ok_or(ContextResult::TransferSyntaxesNotSupported)?;
    let role = request.user.roles.iter().find(|role| role.sop_class_uid == *class);
    let default = RoleSelection { sop_class_uid: class.clone(), scu: true, scp: false };
    let role = accepted_role(role.unwrap_or(&default), service, services);
    let extended = request.user.extended.iter().find(|extended| extended.sop_class_uid == *class);
    let context = Context {
        id: proposed.id,
        abstract_syntax: class.clone(),
        service,
        transfer_syntax,
        requestor_is_scu: role.0,
        requestor_is_scp: role.1,
        options: extended
            .map(|extended| QueryOptions::requested(service, &extended.information).and(policy.query_options))
            .unwrap_or_default(),
    };
    Ok((context, uid))
}

/// Roles that the requestor may take, as (SCU, SCP): it is SCP of storage, for C-GET, and of nothing else, and SCU
/// of what is offered.
fn accepted_role(role: &RoleSelection, service: ServiceClass, services: Services) -> (bool, bool) {
    match service {
        ServiceClass::Storage => (role.scu && services.storage, role.scp && services.get),
        _ => (role.scu, false),
    }
}

fn answer_user(
    request: &AssociateRq,
    contexts: &[Arc<Context>],
    policy: &Policy,
    services: Services,
    limits: &Limits,
    implementation: &Implementation,
) -> UserInformation {
    // One answer per SOP Class, however many contexts it has.
    let of_class = |uid: &Uid| contexts.iter().find(|context| context.abstract_syntax == *uid);
    let mut answered = HashSet::new();
    let roles = request.user.roles.iter().filter(|role| answered.insert(&role.sop_class_uid)).filter_map(|role| {
        let (scu, scp) = accepted_role(role, of_class(&role.sop_class_uid)?.service, services);
        Some(RoleSelection { sop_class_uid: role.sop_class_uid.clone(), scu, scp })
    });
    let mut answered = HashSet::new();
    let extended = request.user.extended.iter().filter(|e| answered.insert(&e.sop_class_uid)).filter_map(|extended| {
        let context = of_class(&extended.sop_class_uid)?;
        extended::answer(context.service, extended, policy.query_options)
    });
    let wants_response = request.user.identity.as_ref().is_some_and(|id| id.positive_response_requested);
    UserInformation {
        maximum_length: Some(limits.maximum_length),
        implementation_class_uid: Some(implementation.class_uid.clone()),
        implementation_version_name: Some(implementation.version_name.clone()),
        // One operation at a time each way, whatever was asked for; left out if nothing was.
        asynchronous_operations: request.user.asynchronous_operations.map(|_| (1, 1)),
        roles: roles.collect(),
        extended: extended.collect(),
        common_extended: Vec::new(),
        identity: None,
        identity_response: wants_response.then(Bytes::new),
    }
}
