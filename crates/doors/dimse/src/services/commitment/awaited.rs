//! Decisions that are reported on the requester's own association, while that stands.

use super::{INSTANCE, data_sets::event};
use crate::{Association, AssociationError, Command, CommandField, negotiate::Context};
use cairn_dicom::CharacterSet;
use cairn_service_api::{
    Commitments, Error,
    commitment::{Report, Reported, Transaction},
};
use futures_util::TryStreamExt;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Longest wait for a decision by one call; another follows.
const ONE_WAIT: Duration = Duration::from_secs(20);
/// Pause after storage commitment could not be asked.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Somebody who waits for a decision on an association.
struct Waiting {
    commitments: Arc<dyn Commitments>,
    context: Arc<Context>,
}

/// A decision to be reported now.
pub(crate) struct Decided {
    context: Arc<Context>,
    report: Report,
}

/// Transactions of an association whose requester was not told yet.
#[derive(Default)]
pub(crate) struct Awaited {
    waiting: BTreeMap<Transaction, Waiting>,
    deciding: JoinSet<(Transaction, Result<Report, Error>)>,
    /// The report that was sent and not answered yet, by its Message ID.
    sent: Option<(u16, Transaction)>,
}

impl Awaited {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// One more, which was asked for on `context`.
    pub(crate) fn add(&mut self, commitments: Arc<dyn Commitments>, transaction: Transaction, context: Arc<Context>) {
        let waiting = Waiting { commitments: commitments.clone(), context };
        if self.waiting.insert(transaction.clone(), waiting).is_none() {
            self.deciding.spawn(decided(commitments, transaction));
        }
    }

    /// The next decision, once the requester has answered the report before it; never, while there is none.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn next(&mut self) -> Decided {
        loop {
            if self.sent.is_some() {
                return std::future::pending().await;
            }
            match self.deciding.join_next().await {
                None => return std::future::pending().await,
                Some(Ok((transaction, Ok(report)))) => {
                    if let Some(waiting) = self.waiting.get(&transaction) {
                        return Decided { context: Arc::clone(&waiting.context), report };
                    }
                }
                // It stays among those that were not told: the archive will call.
                Some(Ok((_, Err(error)))) => tracing::warn!(%error, "a decision can't be reported on its association"),
                Some(Err(error)) => tracing::error!(%error, "waiting for a decision ended"),
            }
        }
    }

    /// Sends a report.
    ///
    /// # Errors
    /// [`AssociationError`]; the association is of no more use.
    pub(crate) async fn send(&mut self, association: &mut Association, due: Decided) -> Result<(), AssociationError> {
        let Decided { context, mut report } = due;
        report.called_ae_title = association.peer().called_ae_title.to_string();
        let transaction = report.transaction.clone();
        let (event_type_id, event) = event(report);
        let encoded = event.encode(context.transfer_syntax.encoding, CharacterSet::DEFAULT);
        let encoded = encoded.map_err(|_| AssociationError::Protocol("a report can not be written"))?;
        let message_id = association.next_message_id();
        let mut command = report_request(message_id, &context, event_type_id);
        association.send(context.id, &mut command, Some(&encoded)).await?;
        self.sent = Some((message_id, transaction));
        Ok(())
    }

    /// Takes an answer to a report; gives back whether it is one.
    pub(crate) async fn answered(&mut self, response: &Command, timeout: Duration) -> bool {
        if response.field != CommandField::N_EVENT_REPORT_RSP {
            return false;
        }
        let is_to = |(message_id, _): &mut (u16, Transaction)| response.message_id_responded_to == Some(*message_id);
        let Some((_, transaction)) = self.sent.take_if(is_to) else { return false };
        let taken = response.status.is_some_and(crate::Status::is_done);
        if let Some(waiting) = self.waiting.remove(&transaction) {
            tell(&waiting, &transaction, if taken { Reported::Taken } else { Reported::NotTaken }, timeout).await;
        }
        true
    }

    /// The association ends: those who were not told are to be called.
    pub(crate) async fn give_up(&mut self, timeout: Duration) {
        let waiting = std::mem::take(&mut self.waiting);
        let told = waiting.iter().map(|(transaction, of)| tell(of, transaction, Reported::NotTaken, timeout));
        futures_util::future::join_all(told).await;
    }
}

/// The command set of a report.
pub(crate) fn report_request(message_id: u16, context: &Context, event_type_id: u16) -> Command {
    let mut command = Command::request(CommandField::N_EVENT_REPORT_RQ, message_id, context.abstract_syntax.as_str());
    (command.sop_instance_uid, command.event_type_id) = (Some(INSTANCE.to_owned()), Some(event_type_id));
    command
}

async fn tell(waiting: &Waiting, transaction: &Transaction, what: Reported, timeout: Duration) {
    let told = waiting.commitments.commitment_reported(transaction, what);
    match tokio::time::timeout(timeout, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, ?what, "what came of a report could not be told"),
        Err(_) => tracing::warn!(?what, "what came of a report could not be told in time"),
    }
}

/// Waits for a decision, however long it takes.
async fn decided(commitments: Arc<dyn Commitments>, transaction: Transaction) -> (Transaction, Result<Report, Error>) {
    loop {
        match commitments.commitment(&transaction, ONE_WAIT).await {
            Ok(commitment) if commitment.decided_at_ms.is_some() => break,
            Ok(_) => {}
            Err(error) if error.kind.is_retryable() => tokio::time::sleep(RETRY_PAUSE).await,
            Err(error) => return (transaction, Err(error)),
        }
    }
    let outcomes = async { commitments.commitment_outcomes(&transaction).await?.try_collect::<Vec<_>>().await };
    let report = outcomes.await.map(|outcomes| Report {
        transaction: transaction.clone(),
        called_ae_title: String::new(),
        outcomes,
    });
    (transaction, report)
}
