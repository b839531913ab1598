//! The requestor's side of establishing an association (Sta4 and Sta5).

use crate::{
    Association, AssociationError, Command, CommandField, Implementation, Limits, Peer, Status,
    association::{
        Transport,
        link::{Link, Wait},
    },
    negotiate::{Context, QueryOptions, ServiceClass},
    pdu::{
        AeTitle, AssociateAc, AssociateRq, ContextResult, ProposedContext, RoleSelection, UserInformation,
        encode_abort, encode_associate_rq,
        frame::{Expecting, Pdu},
    },
};
use cairn_dicom::{TransferSyntax, Uid};
use std::sync::Arc;
use tokio::{net::TcpStream, time::timeout};

/// What to ask a peer for. At most 128 contexts; the caller splits what needs more over several associations.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who we say we are.
    pub calling_ae_title: AeTitle,
    /// Whom we want.
    pub called_ae_title: AeTitle,
    /// SOP Class and the transfer syntaxes proposed for it, in order; the first gets context ID 1, the next 3.
    pub contexts: Vec<(Uid, Vec<Uid>)>,
    /// SCP/SCU roles to ask for.
    pub roles: Vec<RoleSelection>,
}

/// Most presentation contexts in one association: the odd numbers of a byte.
pub const CONTEXTS_MAX: usize = 128;

/// Connects to `address` (host and port).
///
/// # Errors
/// `Io` or `Timeout`.
pub async fn connect(address: &str, limits: &Limits) -> Result<Box<dyn Transport>, AssociationError> {
    let stream = timeout(limits.connect_timeout, TcpStream::connect(address))
        .await
        .map_err(|_| AssociationError::Timeout("no connection"))??;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

impl Association {
    /// Asks for an association over a connection.
    ///
    /// # Errors
    /// `Rejected` by the peer, or other [`AssociationError`]s; the connection is closed.
    pub async fn request(
        transport: Box<dyn Transport>,
        request: &Request,
        limits: &Limits,
        implementation: &Implementation,
    ) -> Result<Self, AssociationError> {
        if request.contexts.is_empty() || request.contexts.len() > CONTEXTS_MAX {
            return Err(AssociationError::Protocol("1 to 128 presentation contexts can be proposed"));
        }
        let rq = request_pdu(request, limits, implementation);
        let mut link = Link::new(transport, Expecting::AssociateAnswer, limits);
        let ask = async {
            link.queue(encode_associate_rq(&rq));
            link.flush().await?;
            match link.next_pdu(Wait::AsCaller).await? {
                Pdu::AssociateAc(accept) => Ok(accept),
                Pdu::AssociateRj(reject) => Err(AssociationError::Rejected(reject)),
                Pdu::Abort(abort) => Err(AssociationError::Aborted(abort)),
                _ => Err(AssociationError::Protocol("A-ASSOCIATE-AC or -RJ expected")),
            }
        };
        let answer = timeout(limits.artim, ask).await.unwrap_or(Err(AssociationError::Timeout("no A-ASSOCIATE-AC")));
        let accept = match answer {
            Ok(accept) => accept,
            Err(error) => {
                link.finish(error.abort().map(encode_abort)).await;
                return Err(error);
            }
        };
        link.expect(Expecting::Established);
        let peer = Peer {
            address: None,
            calling_ae_title: request.calling_ae_title.clone(),
            called_ae_title: request.called_ae_title.clone(),
            implementation_class_uid: accept.user.implementation_class_uid.clone(),
            implementation_version_name: accept.user.implementation_version_name.clone(),
            identity: None,
        };
        let length = accept.user.maximum_length.unwrap_or(16 * 1024);
        if matches!(length, 1..=7) {
            let error = AssociationError::Protocol("maximum length leaves no room for a fragment");
            link.finish(error.abort().map(encode_abort)).await;
            return Err(error);
        }
        Ok(Self::new(link, agreed(&rq, &accept), peer, length, limits))
    }

    /// C-ECHO, as SCU, on the first context for Verification.
    ///
    /// # Errors
    /// `Protocol` if no such context was accepted; else [`AssociationError`].
    pub async fn echo(&mut self) -> Result<Status, AssociationError> {
        let context = self.contexts().iter().find(|context| context.service == ServiceClass::Verification).cloned();
        let context = context.ok_or(AssociationError::Protocol("no context for Verification"))?;
        let id = self.next_message_id();
        let mut command = Command::request(CommandField::C_ECHO_RQ, id, context.abstract_syntax.as_str());
        self.send(context.id, &mut command, None).await?;
        let response = self.response(id, |_| {}).await?;
        response.status.ok_or(AssociationError::Protocol("response without a status"))
    }
}

fn request_pdu(request: &Request, limits: &Limits, implementation: &Implementation) -> AssociateRq {
    let contexts = request.contexts.iter().zip((1..=255).step_by(2)).map(|((class, syntaxes), id)| ProposedContext {
        id,
        abstract_syntax: Some(class.clone()),
        transfer_syntaxes: syntaxes.clone(),
    });
    AssociateRq {
        protocol_version: 1,
        called_ae_title: request.called_ae_title.clone(),
        calling_ae_title: request.calling_ae_title.clone(),
        application_context: None,
        contexts: contexts.collect(),
        user: UserInformation {
            maximum_length: Some(limits.maximum_length),
            implementation_class_uid: Some(implementation.class_uid.clone()),
            implementation_version_name: Some(implementation.version_name.clone()),
            roles: request.roles.clone(),
            ..UserInformation::default()
        },
    }
}

/// Contexts that were proposed, accepted, and accepted in a transfer syntax that was proposed.
fn agreed(rq: &AssociateRq, accept: &AssociateAc) -> Vec<Arc<Context>> {
    let contexts = rq.contexts.iter().filter_map(|proposed| {
        let answer = accept.contexts.iter().find(|answer| answer.id == proposed.id)?;
        let syntax = answer.transfer_syntax.as_ref()?;
        if answer.result != ContextResult::Acceptance || !proposed.transfer_syntaxes.contains(syntax) {
            return None;
        }
        let class = proposed.abstract_syntax.clone()?;
        let of_class = |role: &&RoleSelection| role.sop_class_uid == class;
        let asked = rq.user.roles.iter().find(of_class);
        let answered = accept.user.roles.iter().find(of_class);
        let (scu, scp) = match asked.zip(answered) {
            Some((asked, answered)) => (asked.scu && answered.scu, asked.scp && answered.scp),
            None => (true, false),
        };
        Some(Arc::new(Context {
            id: proposed.id,
            service: ServiceClass::of_other_than_storage(class.as_str()).unwrap_or(ServiceClass::Storage),
            abstract_syntax: class,
            transfer_syntax: TransferSyntax::from(syntax),
            requestor_is_scu: scu,
            requestor_is_scp: scp,
            options: QueryOptions::default(),
        }))
    });
    contexts.collect()
}
