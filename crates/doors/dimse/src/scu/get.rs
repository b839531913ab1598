//! C-GET as SCU: instances come back on the same association and go straight on to ingest (PS3.4 section C.4.3).

use super::{
    Remote, STUDY_ROOT_GET, ScuError, plain,
    query::{ask, skip},
    uid,
};
use crate::{
    Association, AssociationError, CommandField, Message, Received, Status,
    command::SubOperations,
    pdu::{Abort, RoleSelection},
    requestor::CONTEXTS_MAX,
    services::{
        plan::Contexts,
        status,
        store::{accepted, body},
    },
};
use async_trait::async_trait;
use cairn_dicom::{Uid, dataset::DataSet};
use cairn_service_api::{
    Error,
    ingest::{Body, InstanceOffer, OfferedForm, Stored},
};

/// Takes what comes.
#[async_trait]
pub trait Taker: Send {
    /// Stores one instance; what it says the archive is answered.
    async fn take(&mut self, offer: InstanceOffer, body: Body<'_>) -> Result<Stored, Error>;
}

/// Compressed syntaxes that are asked for where the archive does not say what it has, the most frequent ones first.
const COMMON: [&str; 16] = [
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.102",
    "1.2.840.10008.1.2.4.100",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
];

/// How a C-GET ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its final status.
    pub status: Status,
    /// Sub-operations, as the archive counted them.
    pub counts: SubOperations,
}

/// Fetches instances.
pub struct GetScu {
    remote: Remote,
}

impl GetScu {
    /// Connects for each request: which contexts it takes depends on what is fetched.
    pub fn new(remote: Remote) -> Self {
        Self { remote }
    }

    /// Fetches what `keys` name and hands it on as it comes. `classes` are the SOP Classes of it, each with the transfer
    /// syntaxes that the archive has it in, as far as is known.
    ///
    /// # Errors
    /// [`ScuError`]; what was taken is taken all the same.
    pub async fn get(
        &mut self,
        keys: &DataSet,
        classes: &[(Uid, Vec<Uid>)],
        taker: &mut dyn Taker,
    ) -> Result<Given, ScuError> {
        let mut contexts = vec![(uid(STUDY_ROOT_GET)?, plain())];
        contexts.extend(contexts_for(classes));
        let role = |(class, _): &(Uid, Vec<Uid>)| RoleSelection { sop_class_uid: class.clone(), scu: false, scp: true };
        let roles = classes.iter().map(role).collect();
        let mut association = self.remote.associate(contexts, roles).await?;
        let given = converse(&mut association, keys, taker).await;
        match &given {
            Ok(_) => {
                if let Err(error) = association.release().await {
                    tracing::info!(called = %self.remote.called, %error, "an association did not end by release");
                }
            }
            Err(ScuError::Association(error)) => association.fail(error).await,
            Err(_) => association.abort(Abort::SERVICE_USER).await,
        }
        given
    }
}

/// For each class one context for each syntax, so that each object can come as it is, and one uncompressed.
fn contexts_for(classes: &[(Uid, Vec<Uid>)]) -> Contexts {
    let room = (CONTEXTS_MAX - 1) / classes.len().max(1);
    let mut contexts = Contexts::new();
    for (class, known) in classes.iter().take(CONTEXTS_MAX - 1) {
        let common: Vec<Uid> = COMMON.iter().filter_map(|text| text.parse().ok()).collect();
        let syntaxes = if known.is_empty() { &common } else { known };
        let is_plain = |syntax: &&Uid| !plain().contains(syntax);
        contexts.push((class.clone(), plain()));
        let alone = syntaxes.iter().filter(is_plain).map(|syntax| (class.clone(), vec![syntax.clone()]));
        contexts.extend(alone.take(room.saturating_sub(1)));
    }
    contexts
}

async fn converse(association: &mut Association, keys: &DataSet, taker: &mut dyn Taker) -> Result<Given, ScuError> {
    let context = association.contexts().iter().find(|context| context.abstract_syntax.as_str() == STUDY_ROOT_GET);
    let context = context.cloned().ok_or(ScuError::NotSpoken("C-GET"))?;
    let message_id = ask(association, &context, CommandField::C_GET_RQ, keys, None).await?;
    loop {
        let message = match association.receive().await? {
            Received::Release => return Err(AssociationError::Released.into()),
            Received::Message(message) => message,
        };
        if message.command.field == CommandField::C_STORE_RQ {
            take(association, &message, taker).await?;
            continue;
        }
        let response = &message.command;
        if !response.field.is_response() || response.message_id_responded_to != Some(message_id) {
            return Err(AssociationError::Protocol("response to another message").into());
        }
        skip(association, response).await?;
        let status = response.status.ok_or(AssociationError::Protocol("response without a status"))?;
        if !status.is_pending() {
            return Ok(Given { status, counts: response.sub_operations.unwrap_or_default() });
        }
    }
}

/// Takes one instance and answers for it.
async fn take(association: &mut Association, message: &Message, taker: &mut dyn Taker) -> Result<(), ScuError> {
    let command = &message.command;
    let class = message.context.abstract_syntax.clone();
    let class = command.sop_class_uid.as_deref().and_then(|text| text.parse().ok()).unwrap_or(class);
    let named = command.sop_instance_uid.as_deref().unwrap_or_default();
    let syntax: Result<Uid, _> = message.context.transfer_syntax.uid().parse();
    let offer = match (named.parse::<Uid>(), syntax) {
        (Ok(sop_instance_uid), Ok(transfer_syntax_uid)) if message.context.requestor_is_scp && command.has_data_set => {
            let form = OfferedForm::DataSet { transfer_syntax_uid, sop_class_uid: class, sop_instance_uid };
            InstanceOffer { form, length_hint: None, study_instance_uid: None }
        }
        _ => {
            let response = command.response(Status::SOP_CLASS_NOT_SUPPORTED);
            return Ok(crate::door::respond(association, message, response).await?);
        }
    };
    let mut failure = None;
    let stored = taker.take(offer, body(association, &mut failure)).await;
    if let Some(error) = failure {
        return Err(error.into());
    }
    let response = match &stored {
        Ok(stored) => accepted(command, stored),
        Err(error) => status::response(command, error),
    };
    Ok(crate::door::respond(association, message, response).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_fit_in_an_association_and_each_class_can_come_uncompressed() {
        let uid = |text: &str| text.parse::<Uid>().expect("a UID");
        let classes = |count: usize| (0..count).map(|n| (uid(&format!("1.2.{n}")), Vec::new())).collect::<Vec<_>>();
        for count in [1, 5, 12, 127, 200] {
            let contexts = contexts_for(&classes(count));
            assert!(contexts.len() < CONTEXTS_MAX, "{count}");
            let uncompressed = contexts.iter().filter(|(_, syntaxes)| *syntaxes == plain()).count();
            assert_eq!(uncompressed, count.min(CONTEXTS_MAX - 1));
        }
        let known = contexts_for(&[(uid("1.2"), vec![uid("1.2.840.10008.1.2.1"), uid("1.2.840.10008.1.2.5")])]);
        assert_eq!(known.len(), 2, "what is uncompressed needs no context of its own");
    }
}
