//! C-FIND and C-MOVE as SCU, by the Study Root information model (PS3.4 sections C.4.1 and C.4.2).

use super::{Remote, STUDY_ROOT_FIND, STUDY_ROOT_MOVE, ScuError, plain, uid};
use crate::{
    Association, AssociationError, Command, CommandField, Status,
    command::SubOperations,
    negotiate::Context,
    pdu::{Abort, AeTitle},
};
use cairn_dicom::{
    CharacterSet, Uid,
    dataset::{DataSet, DecodeLimits},
    tags,
};
use std::sync::Arc;

/// Asks an archive what it has, and to send it somewhere.
pub struct QueryScu {
    remote: Remote,
    association: Option<Association>,
}

/// How a C-MOVE ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Its final status.
    pub status: Status,
    /// Sub-operations, as the archive counted them.
    pub counts: SubOperations,
    /// SOP Instance UIDs that it names as failed.
    pub failed: Vec<Uid>,
}

impl QueryScu {
    /// Connects when there is something to ask.
    pub fn new(remote: Remote) -> Self {
        Self { remote, association: None }
    }

    async fn on(
        &mut self,
        class: &'static str,
        service: &'static str,
    ) -> Result<(&mut Association, Arc<Context>), ScuError> {
        if self.association.is_none() {
            let contexts = vec![(uid(STUDY_ROOT_FIND)?, plain()), (uid(STUDY_ROOT_MOVE)?, plain())];
            self.association = Some(self.remote.associate(contexts, Vec::new()).await?);
        }
        let Some(association) = &mut self.association else { return Err(AssociationError::Closed.into()) };
        let found = association.contexts().iter().find(|context| context.abstract_syntax.as_str() == class).cloned();
        Ok((association, found.ok_or(ScuError::NotSpoken(service))?))
    }

    /// Asks for what matches `keys`, which name their level; each answer is handed on as it comes, one at a time.
    ///
    /// # Errors
    /// [`ScuError`]; the association is gone, and the next question makes another one.
    pub async fn find(
        &mut self,
        keys: &DataSet,
        mut each: impl FnMut(DataSet) -> Result<(), ScuError>,
    ) -> Result<(), ScuError> {
        let found = self.find_by(keys, &mut each).await;
        self.keep_if_well(found).await
    }

    async fn find_by(
        &mut self,
        keys: &DataSet,
        each: &mut impl FnMut(DataSet) -> Result<(), ScuError>,
    ) -> Result<(), ScuError> {
        let bytes_max = self.remote.limits.identifier_bytes_max;
        let (association, context) = self.on(STUDY_ROOT_FIND, "C-FIND").await?;
        let message_id = ask(association, &context, CommandField::C_FIND_RQ, keys, None).await?;
        loop {
            let response = association.response(message_id, |_| {}).await?;
            let status = response.status.ok_or(AssociationError::Protocol("response without a status"))?;
            if !status.is_pending() {
                skip(association, &response).await?;
                return if status == Status::SUCCESS { Ok(()) } else { Err(ScuError::Failed("C-FIND", status)) };
            }
            each(read(association, &context, bytes_max).await?)?;
        }
    }

    /// Has what `keys` name sent to the AE title `to`, and waits until the archive says that it is done.
    ///
    /// # Errors
    /// [`ScuError`]; the association is gone, and the next question makes another one.
    pub async fn move_to(&mut self, keys: &DataSet, to: &AeTitle) -> Result<Moved, ScuError> {
        let moved = self.move_by(keys, to).await;
        self.keep_if_well(moved).await
    }

    async fn move_by(&mut self, keys: &DataSet, to: &AeTitle) -> Result<Moved, ScuError> {
        let bytes_max = self.remote.limits.identifier_bytes_max;
        let (association, context) = self.on(STUDY_ROOT_MOVE, "C-MOVE").await?;
        let message_id = ask(association, &context, CommandField::C_MOVE_RQ, keys, Some(to)).await?;
        loop {
            let response = association.response(message_id, |_| {}).await?;
            let status = response.status.ok_or(AssociationError::Protocol("response without a status"))?;
            if status.is_pending() {
                skip(association, &response).await?;
                continue;
            }
            let list =
                if response.has_data_set { read(association, &context, bytes_max).await? } else { DataSet::new() };
            let failed = list.texts(tags::FAILED_SOP_INSTANCE_UID_LIST).iter().filter_map(|text| text.parse().ok());
            let counts = response.sub_operations.unwrap_or_default();
            return Ok(Moved { status, counts, failed: failed.collect() });
        }
    }

    async fn keep_if_well<T>(&mut self, result: Result<T, ScuError>) -> Result<T, ScuError> {
        // After a failure that the archive told in full, the association can be used on.
        if result.as_ref().is_err_and(|error| !matches!(error, ScuError::Failed(..) | ScuError::NotSpoken(_)))
            && let Some(association) = self.association.take()
        {
            association.abort(Abort::SERVICE_USER).await;
        }
        result
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

/// Sends a request with an identifier.
pub(super) async fn ask(
    association: &mut Association,
    context: &Context,
    field: CommandField,
    keys: &DataSet,
    destination: Option<&AeTitle>,
) -> Result<u16, ScuError> {
    let encoded = keys.encode_preferring(context.transfer_syntax.encoding, CharacterSet::DEFAULT);
    let (identifier, _) = encoded.map_err(|_| ScuError::Unusable("the keys of a query can not be written"))?;
    let message_id = association.next_message_id();
    let mut command = Command::request(field, message_id, context.abstract_syntax.as_str());
    command.priority = Some(0);
    command.move_destination = destination.map(ToString::to_string);
    association.send(context.id, &mut command, Some(&identifier)).await?;
    Ok(message_id)
}

pub(super) async fn skip(association: &mut Association, response: &Command) -> Result<(), AssociationError> {
    if response.has_data_set {
        while association.data().await?.is_some() {}
    }
    Ok(())
}

async fn read(association: &mut Association, context: &Context, bytes_max: usize) -> Result<DataSet, ScuError> {
    let bytes = association.data_within(bytes_max).await?.ok_or(ScuError::Unusable("an answer is too large"))?;
    let encoding = context.transfer_syntax.encoding;
    let decoded = DataSet::decode(&bytes, encoding, CharacterSet::DEFAULT, &DecodeLimits::default());
    decoded.map(|(answer, _)| answer).map_err(|_| ScuError::Unusable("an answer can not be read"))
}
