//! Storage commitment as doors and operators see it.

use super::{
    decide::Deciding,
    ledger::Ledger,
    measure,
    record::{EVENTS_MAX, Known},
    report::{Claims, Reporting},
};
use crate::{append::Appender, config::CommitmentConfig, fixity::Damages, metrics, notes::Notes};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    ObjectKey,
    commitment::{State, digest, to_groups},
    events::{CommitmentReferences, CommitmentReportOutcome, CommitmentReporting, CommitmentRequested, Event, Object},
};
use cairn_service_api::{
    AnswerStream, Commitments, Error, ErrorKind, Index, Reason, Replication,
    commitment::{Commitment, Outcome, Reported, Reporter, Request, Selection, Transaction},
};
use cairn_store_api::{EventLog, ObjectStore};
use futures_util::{TryStreamExt, stream};
use prost::Message;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{Mutex as Turn, Semaphore},
    task::JoinSet,
};

/// Encoded references up to this many bytes are in their event.
const REFERENCES_BYTES_MAX: usize = 128 << 10;
/// Pause after log or notes could not be read or written.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// How often gauges are set.
const MEASURED_EVERY: Duration = Duration::from_secs(5);

/// What storage commitment works with.
pub(crate) struct With {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) appender: Arc<Appender>,
    pub(crate) damages: Arc<Damages>,
    pub(crate) index: Option<Arc<dyn Index>>,
    pub(crate) replication: Option<Arc<dyn Replication>>,
    pub(crate) reporter: Option<Arc<dyn Reporter>>,
}

/// Storage commitment of a site.
pub(crate) struct Committing {
    ledger: Arc<Ledger>,
    objects: Arc<dyn ObjectStore>,
    appender: Arc<Appender>,
    deciding: Arc<Deciding>,
    reporting: Arc<Reporting>,
    config: CommitmentConfig,
    /// One request at a time: what it is judged by must not change meanwhile.
    turn: Turn<()>,
}

impl Committing {
    /// Reads its notes.
    ///
    /// # Errors
    /// That of notes or log.
    pub(crate) async fn open(with: With, config: CommitmentConfig) -> Result<Self, Error> {
        let With { log, objects, notes, appender, damages, index, replication, reporter } = with;
        let ledger = Arc::new(Ledger::open(log.clone(), notes, appender.clone()).await?);
        let deciding = Arc::new(Deciding {
            ledger: ledger.clone(),
            log,
            objects: objects.clone(),
            index,
            replication,
            damages,
            appender: appender.clone(),
            reads: Semaphore::new(config.objects_at_once.clamp(1, Semaphore::MAX_PERMITS)),
            config: config.clone(),
        });
        let reporting = Arc::new(Reporting {
            ledger: ledger.clone(),
            deciding: deciding.clone(),
            appender: appender.clone(),
            reporter,
            config: config.clone(),
            claims: Claims::default(),
            failures: Mutex::new(HashMap::new()),
        });
        Ok(Self { ledger, objects, appender, deciding, reporting, config, turn: Turn::new(()) })
    }

    /// Goes to work.
    pub(crate) fn go_to_work(&self, tasks: &mut JoinSet<()>) {
        let ledger = self.ledger.clone();
        tasks.spawn(async move { ledger.follow(RETRY_PAUSE).await });
        tasks.spawn(self.deciding.clone().run());
        tasks.spawn(self.reporting.clone().run());
        let (ledger, appender) = (self.ledger.clone(), self.appender.clone());
        tasks.spawn(async move {
            loop {
                measure::measured(&ledger, appender.now_ms());
                tokio::time::sleep(MEASURED_EVERY).await;
            }
        });
    }

    fn summary(&self, transaction: &Transaction, known: &Known) -> Result<Commitment, Error> {
        let mut summary = known.summary(transaction).ok_or_else(not_found)?;
        if summary.state == State::Unreported {
            summary.report_failure = self.reporting.failures().get(transaction).cloned();
        }
        Ok(summary)
    }

    async fn known(&self, transaction: &Transaction) -> Result<Known, Error> {
        let known = self.ledger.known(transaction).await?;
        known.filter(|known| known.folded.request().is_some()).ok_or_else(not_found)
    }

    async fn decided(&self, transaction: &Transaction) -> Result<Known, Error> {
        let known = self.known(transaction).await?;
        match known.folded.decision() {
            Some(_) => Ok(known),
            None => Err(Error::new(ErrorKind::NotFound, "it is not decided yet")),
        }
    }

    /// Judges a request by what is known under its name, and makes it a fact where that is needed.
    async fn take(&self, request: &Request) -> Result<(), Error> {
        let references = to_groups(&request.references);
        let about = digest(&references);
        let _turn = self.turn.lock().await;
        self.ledger.caught_up().await?;
        let known = self.ledger.known(&request.transaction).await?;
        let known = known.filter(|known| known.folded.request().is_some());
        let Some(known) = known else {
            self.check_bounds(&request.transaction)?;
            let (references, side_object) = self.placed(references).await?;
            let event = CommitmentRequested { references, side_object, ..self.requested(request, &about) };
            return self.ledger.append(Event::CommitmentRequested(Box::new(event)), None, None).await;
        };
        if !known.folded.is_about(&about) {
            return Err(Error::new(ErrorKind::Conflict, "Transaction UID was used for another request"));
        }
        let asked = known.folded.asked_last().map(|asked| asked.event.reporting());
        let is_told = matches!(known.folded.state(), Some(State::Reported | State::GivenUp));
        if !is_told && asked == Some(request.reporting) {
            return Ok(());
        }
        if known.len() >= EVENTS_MAX {
            return Err(Error::new(ErrorKind::Exhausted, "Transaction UID was asked for too often"));
        }
        let first = known.folded.request().map(|request| request.order.id);
        let repeated_event_id = first.map(|id| Bytes::copy_from_slice(id.as_bytes())).unwrap_or_default();
        let event = CommitmentRequested { repeated_event_id, ..self.requested(request, &about) };
        self.ledger.append(Event::CommitmentRequested(Box::new(event)), first, Some(&known)).await
    }

    fn check_bounds(&self, transaction: &Transaction) -> Result<(), Error> {
        let requesters = self.ledger.each_open(|(of, _)| Some(of.requester == transaction.requester));
        let own = requesters.iter().filter(|is_own| **is_own).count();
        if own >= self.config.pending_per_requester_max || requesters.len() >= self.config.pending_max {
            return Err(Error::new(ErrorKind::Exhausted, "too many requests for storage commitment are under way"));
        }
        Ok(())
    }

    fn requested(&self, request: &Request, about: &[u8; 32]) -> CommitmentRequested {
        let wait = u64::try_from(self.config.instances_wait.as_millis()).unwrap_or(u64::MAX);
        CommitmentRequested {
            tenant: request.transaction.tenant.clone(),
            transaction_uid: request.transaction.transaction_uid.to_string(),
            requester: request.transaction.requester.clone(),
            called_ae_title: request.called_ae_title.clone(),
            door: request.door.into(),
            peer_address: request.peer_address.clone(),
            reference_count: u32::try_from(request.references.len()).unwrap_or(u32::MAX),
            references_blake3: Bytes::copy_from_slice(about),
            references: None,
            side_object: None,
            await_until_ms: self.appender.now_ms().saturating_add(wait),
            confirmed_sites: request.confirmed_sites,
            reporting: request.reporting.into(),
            repeated_event_id: Bytes::new(),
        }
    }

    /// References where they go: in the event, or in an object of their own, which is durable on return.
    async fn placed(
        &self,
        references: CommitmentReferences,
    ) -> Result<(Option<CommitmentReferences>, Option<Object>), Error> {
        if references.encoded_len() <= REFERENCES_BYTES_MAX {
            return Ok((Some(references), None));
        }
        let bytes = Bytes::from(references.encode_to_vec());
        let key = ObjectKey(uuid::Uuid::now_v7());
        let mut writer = self.objects.put(key, Some(bytes.len() as u64)).await?;
        writer.write(bytes).await?;
        let object = writer.finish().await?.object;
        let object = Object {
            key: Bytes::copy_from_slice(object.key.as_bytes()),
            length_bytes: object.length,
            blake3: Bytes::copy_from_slice(&object.digest.0),
        };
        Ok((None, Some(object)))
    }
}

fn not_found() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such transaction")
}

#[async_trait]
impl Commitments for Committing {
    async fn request_commitment(&self, request: Request) -> Result<Commitment, Error> {
        let (asked, max) = (request.references.len(), self.config.references_max);
        let refused = match asked {
            0 => Some(Error::new(ErrorKind::Invalid, "nothing is asked about")),
            _ if asked > max => {
                let message = format!("{asked} instances are asked about, {max} may be");
                Some(Error::because(ErrorKind::Exhausted, Reason::TooLarge, message))
            }
            _ => None,
        };
        let taken = match refused {
            Some(error) => Err(error),
            None => self.take(&request).await,
        };
        metrics::requested(request.door, taken.as_ref().map_err(|error| error.kind));
        taken?;
        if request.reporting == CommitmentReporting::SameAssociation {
            self.reporting.claims.add(request.transaction.clone());
        }
        let known = self.known(&request.transaction).await?;
        self.summary(&request.transaction, &known)
    }

    async fn commitment(&self, transaction: &Transaction, wait: Duration) -> Result<Commitment, Error> {
        let mut changes = self.ledger.changes();
        let decided = async {
            loop {
                changes.mark_unchanged();
                let known = self.known(transaction).await?;
                if known.folded.decision().is_some() || changes.changed().await.is_err() {
                    return Ok::<_, Error>(());
                }
            }
        };
        if let Ok(decided) = tokio::time::timeout(wait, decided).await {
            decided?;
        }
        let known = self.known(transaction).await?;
        self.summary(transaction, &known)
    }

    async fn commitment_outcomes(&self, transaction: &Transaction) -> Result<AnswerStream<Outcome>, Error> {
        let known = self.decided(transaction).await?;
        let report = self.reporting.report(transaction, &known).await?;
        Ok(Box::pin(stream::iter(report.outcomes.into_iter().map(Ok))))
    }

    async fn commitments(&self, selection: Selection) -> Result<AnswerStream<Commitment>, Error> {
        let (ledger, reporting) = (self.ledger.clone(), self.reporting.clone());
        let Selection { tenant, requester, transaction_uid, state } = selection;
        let pages = stream::try_unfold(None, move |after| {
            let (ledger, tenant, requester) = (ledger.clone(), tenant.clone(), requester.clone());
            async move {
                let page = ledger.page(&tenant, requester.as_deref(), after).await?;
                let last = page.last().map(|(key, _)| key.clone());
                Ok::<_, Error>(last.map(|last| (stream::iter(page.into_iter().map(Ok)), Some(last))))
            }
        });
        let found = pages.try_flatten().try_filter_map(move |(_, mut summary)| {
            let is_meant = transaction_uid.as_ref().is_none_or(|uid| summary.transaction.transaction_uid == *uid)
                && state.is_none_or(|state| summary.state == state);
            if summary.state == State::Unreported {
                summary.report_failure = reporting.failures().get(&summary.transaction).cloned();
            }
            std::future::ready(Ok(is_meant.then_some(summary)))
        });
        Ok(Box::pin(found))
    }

    async fn commitment_reported(&self, transaction: &Transaction, reported: Reported) -> Result<(), Error> {
        match reported {
            Reported::NotTaken => {
                self.reporting.claims.remove(transaction);
                self.ledger.touch();
                Ok(())
            }
            Reported::Taken => {
                let known = self.decided(transaction).await?;
                if known.folded.state() == Some(State::Unreported) {
                    let outcome = CommitmentReportOutcome::SameAssociation;
                    self.reporting.told(transaction, &known, outcome, String::new()).await?;
                }
                Ok(())
            }
        }
    }
}
