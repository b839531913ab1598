//! Telling requesters: one after the other of their transactions, with longer and longer pauses while they do not listen.

use super::{
    decide::{Deciding, until},
    ledger::Ledger,
    record::Known,
};
use crate::{append::Appender, config::CommitmentConfig, metrics, notes::malformed};
use bytes::Bytes;
use cairn_archive::{
    commitment::{FailureReason, State, outcomes},
    events::{CommitmentReportOutcome, CommitmentReported, Event},
};
use cairn_service_api::{
    Error, ErrorKind,
    commitment::{Outcome, Report, Reporter, Transaction},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::{self, JoinSet};

/// Whom to tell: a tenant and an AE title.
type Requester = (String, String);

/// What reporting works with.
pub(super) struct Reporting {
    pub(super) ledger: Arc<Ledger>,
    pub(super) deciding: Arc<Deciding>,
    pub(super) appender: Arc<Appender>,
    pub(super) reporter: Option<Arc<dyn Reporter>>,
    pub(super) config: CommitmentConfig,
    pub(super) claims: Claims,
    /// Why a requester could not be told last.
    pub(super) failures: Mutex<HashMap<Transaction, String>>,
}

/// Transactions whose requester is told by the door that it asked, and until when, once they are decided.
#[derive(Default)]
pub(super) struct Claims(Mutex<HashMap<Transaction, Option<Instant>>>);

impl Claims {
    fn all(&self) -> MutexGuard<'_, HashMap<Transaction, Option<Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A door tells of it.
    pub(super) fn add(&self, transaction: Transaction) {
        self.all().insert(transaction, None);
    }

    /// No door does.
    pub(super) fn remove(&self, transaction: &Transaction) {
        self.all().remove(transaction);
    }

    /// When the archive has to tell of a decided one itself; `None`: at once.
    fn ends(&self, transaction: &Transaction, wait: Duration) -> Option<Instant> {
        let mut all = self.all();
        let ends = *all.get_mut(transaction)?.get_or_insert_with(|| Instant::now() + wait);
        if ends <= Instant::now() {
            all.remove(transaction);
            return None;
        }
        Some(ends)
    }
}

/// How far telling a requester is.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    failures: u32,
    is_under_way: bool,
    due: Option<Instant>,
}

impl Reporting {
    /// Tells requesters, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let Some(reporter) = self.reporter.clone() else { return };
        let mut changes = self.ledger.changes();
        let mut progress: HashMap<Requester, Progress> = HashMap::new();
        let mut working: JoinSet<bool> = JoinSet::new();
        let mut of: HashMap<task::Id, Requester> = HashMap::new();
        loop {
            changes.mark_unchanged();
            let (outstanding, claims_end) = self.outstanding();
            progress.retain(|requester, of| of.is_under_way || outstanding.contains_key(requester));
            let mut next = claims_end;
            for (requester, transactions) in outstanding {
                let own = progress.entry(requester.clone()).or_default();
                match own.due {
                    _ if own.is_under_way || working.len() >= self.config.requesters_at_once.max(1) => {}
                    Some(due) if due > Instant::now() => next = next.into_iter().chain([due]).min(),
                    _ => {
                        own.is_under_way = true;
                        let (this, reporter) = (self.clone(), reporter.clone());
                        let task = working.spawn(async move { this.tell_all(&*reporter, transactions).await });
                        of.insert(task.id(), requester);
                    }
                }
            }
            tokio::select! {
                _ = changes.changed() => {}
                Some(ended) = working.join_next_with_id() => {
                    let (id, is_told) = ended.unwrap_or_else(|error| {
                        tracing::error!(%error, "telling a requester ended");
                        (error.id(), false)
                    });
                    if let Some(own) = of.remove(&id).and_then(|requester| progress.get_mut(&requester)) {
                        *own = self.after(*own, is_told);
                    }
                }
                () = until(next) => {}
            }
        }
    }

    fn after(&self, before: Progress, is_told: bool) -> Progress {
        if is_told {
            return Progress::default();
        }
        let (first, most) = (self.config.report_interval, self.config.report_interval_max);
        let pause = first.saturating_mul(1 << before.failures.min(20)).min(most);
        Progress { failures: before.failures + 1, is_under_way: false, due: Some(Instant::now() + pause) }
    }

    /// What is to be told to whom, the oldest first; and when the next one is that a door was to tell of.
    fn outstanding(&self) -> (BTreeMap<Requester, Vec<Transaction>>, Option<Instant>) {
        let mut decided = self.ledger.each_open(|(transaction, known)| {
            let decided_at = known.folded.decision()?.order.hlc;
            (known.folded.state() == Some(State::Unreported)).then(|| (decided_at, transaction.clone()))
        });
        decided.sort();
        let (mut outstanding, mut next) = (BTreeMap::<Requester, Vec<Transaction>>::new(), None);
        for (_, transaction) in decided {
            match self.claims.ends(&transaction, self.config.same_association_wait) {
                Some(ends) => next = next.into_iter().chain([ends]).min(),
                None => {
                    let requester = (transaction.tenant.clone(), transaction.requester.clone());
                    outstanding.entry(requester).or_default().push(transaction);
                }
            }
        }
        (outstanding, next)
    }

    /// Tells one requester of everything; whether it took all of it.
    async fn tell_all(&self, reporter: &dyn Reporter, transactions: Vec<Transaction>) -> bool {
        let mut is_told = true;
        for transaction in transactions {
            match self.tell(reporter, &transaction).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::info!(%error, "a requester could not be told of a decision about storage commitment");
                    is_told = false;
                    // One that it does not take says nothing of the others.
                    if error.kind != ErrorKind::Denied {
                        return false;
                    }
                }
            }
        }
        is_told
    }

    async fn tell(&self, reporter: &dyn Reporter, transaction: &Transaction) -> Result<(), Error> {
        let known = self.ledger.known(transaction).await?;
        let Some(known) = known.filter(|known| known.folded.state() == Some(State::Unreported)) else { return Ok(()) };
        let report = self.report(transaction, &known).await?;
        match reporter.report(report).await {
            Ok(()) => self.told(transaction, &known, CommitmentReportOutcome::NewAssociation, String::new()).await,
            Err(error) => {
                metrics::report_failed();
                self.failures().insert(transaction.clone(), error.message.clone());
                if self.is_given_up(&known) {
                    let reason = error.message.chars().take(256).collect();
                    self.told(transaction, &known, CommitmentReportOutcome::GivenUp, reason).await?;
                }
                Err(error)
            }
        }
    }

    /// From the decision on, or from when it was asked for again.
    fn is_given_up(&self, known: &Known) -> bool {
        let asked = known.folded.asked_last().map(|asked| asked.order.hlc.wall_ms);
        let decided = known.folded.decision().map(|decided| decided.order.hlc.wall_ms);
        let since = asked.max(decided).unwrap_or_default();
        Duration::from_millis(self.appender.now_ms().saturating_sub(since)) >= self.config.report_give_up
    }

    pub(super) fn failures(&self) -> MutexGuard<'_, HashMap<Transaction, String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes it a fact that a requester was told, or given up.
    pub(super) async fn told(
        &self,
        transaction: &Transaction,
        known: &Known,
        outcome: CommitmentReportOutcome,
        reason: String,
    ) -> Result<(), Error> {
        let decision = known.folded.decision().ok_or_else(malformed)?.order.id;
        let event = Event::CommitmentReported(CommitmentReported {
            tenant: transaction.tenant.clone(),
            transaction_uid: transaction.transaction_uid.to_string(),
            requester: transaction.requester.clone(),
            decision_event_id: Bytes::copy_from_slice(decision.as_bytes()),
            outcome: outcome.into(),
            reason,
        });
        self.ledger.append(event, Some(decision), Some(known)).await?;
        self.claims.remove(transaction);
        self.failures().remove(transaction);
        metrics::reported(outcome);
        Ok(())
    }

    /// What a decided transaction came to.
    pub(super) async fn report(&self, transaction: &Transaction, known: &Known) -> Result<Report, Error> {
        let (request, decision) = (known.folded.request(), known.folded.decision());
        let (request, decision) = request.zip(decision).ok_or_else(malformed)?;
        let requested = self.ledger.event(known, request.order.id).await?;
        let decided = self.ledger.event(known, decision.order.id).await?;
        let (Event::CommitmentRequested(requested), Event::CommitmentDecided(decided)) = (requested, decided) else {
            return Err(malformed());
        };
        let references = self.deciding.references(&requested).await?;
        let failed: Vec<Option<FailureReason>> =
            outcomes(references.len(), &decided.failed).map_err(|_| malformed())?;
        let of = |(reference, failure)| Outcome { reference, failure };
        let called = known.folded.asked_last().map(|asked| asked.event.called_ae_title.clone());
        Ok(Report {
            transaction: transaction.clone(),
            called_ae_title: called.unwrap_or_default(),
            outcomes: references.into_iter().zip(failed).map(of).collect(),
        })
    }
}
