//! C-STORE as SCU, instance by instance, whatever kinds come (PS3.4 annex B).

use super::{Remote, ScuError};
use crate::{
    Association, AssociationError, Status,
    pdu::Abort,
    services::{
        plan::Plan,
        retrieve::{SendFailure, context_for, send},
    },
};
use bytes::Bytes;
use cairn_dicom::Uid;
use cairn_service_api::{AnswerStream, index::InstanceRecord};

/// How the archive answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreAnswer {
    /// By this status.
    Status(Status),
    /// It accepted no presentation context on which the instance can go.
    NoContext,
}

/// Sends instances over one association, which is opened anew with more contexts when a kind comes that it lacks.
pub struct StoreScu {
    remote: Remote,
    /// Kinds that the association was asked for.
    plan: Plan,
    kinds: Vec<(Uid, Uid)>,
    association: Option<Association>,
}

impl StoreScu {
    /// Connects when there is something to send.
    pub fn new(remote: Remote) -> Self {
        Self { remote, plan: Plan::default(), kinds: Vec::new(), association: None }
    }

    /// Sends the data set of an instance: as it is stored if the archive takes that, else uncompressed if it can be
    /// converted.
    ///
    /// # Errors
    /// `Source`: nothing of it was sent. Others: it may have been stored; the association is gone.
    pub async fn store(
        &mut self,
        record: &InstanceRecord,
        bytes: AnswerStream<Bytes>,
    ) -> Result<StoreAnswer, ScuError> {
        self.open_for(record).await?;
        let Some(association) = &mut self.association else { return Err(AssociationError::Closed.into()) };
        let Some(context) = context_for(association, record, |context| context.requestor_is_scu) else {
            return Ok(StoreAnswer::NoContext);
        };
        match send(association, &context, record, bytes, None, None, |_| {}).await {
            Ok(status) => Ok(StoreAnswer::Status(status)),
            Err(SendFailure::Unsent(error)) => Err(ScuError::Source(error)),
            Err(SendFailure::Broken(error)) => {
                if let Some(association) = self.association.take() {
                    association.abort(error.abort().unwrap_or(Abort::NOT_SPECIFIED)).await;
                }
                Err(error.into())
            }
        }
    }

    async fn open_for(&mut self, record: &InstanceRecord) -> Result<(), ScuError> {
        let kind = (record.sop_class_uid.clone(), record.transfer_syntax_uid.clone());
        let is_new = !self.kinds.contains(&kind);
        if is_new {
            self.plan.add(record);
            self.kinds.push(kind.clone());
            if self.plan.contexts().len() > 1 {
                // More than fit in one association: those of before are asked for again when they come again.
                self.plan = Plan::default();
                self.plan.add(record);
                self.kinds = vec![kind];
            }
            self.release().await;
        }
        if self.association.is_none() {
            let contexts = self.plan.contexts().into_iter().next().unwrap_or_default();
            self.association = Some(self.remote.associate(contexts, Vec::new()).await?);
        }
        Ok(())
    }

    /// Ends the association, if there is one.
    pub async fn release(&mut self) {
        if let Some(association) = self.association.take()
            && let Err(error) = association.release().await
        {
            tracing::info!(called = %self.remote.called, %error, "an association did not end by release");
        }
    }
}
