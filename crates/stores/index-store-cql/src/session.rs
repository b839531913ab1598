//! Requests: prepared, bounded in time, tried again while that can help.

use crate::{
    config::{CqlIndexConfig, Secret},
    error, metrics,
};
use cairn_store_api::{StoreError, StoreErrorKind};
use scylla::{
    client::{execution_profile::ExecutionProfile, session::Session, session_builder::SessionBuilder},
    policies::{load_balancing::DefaultPolicy, retry::FallthroughRetryPolicy},
    response::{
        PagingState, PagingStateResponse,
        query_result::{QueryResult, QueryRowsResult},
    },
    serialize::row::SerializeRow,
    statement::{Consistency, SerialConsistency, Statement, batch::Batch, prepared::PreparedStatement},
    value::{CqlValue, Row},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// A connection to the cluster.
pub(crate) struct Cql {
    session: Session,
    pub(crate) config: CqlIndexConfig,
    reach: Reach,
}

/// Whether the cluster answers, told once when that changes: the driver would say so each second.
struct Reach {
    opened: Instant,
    /// Microseconds after `opened` at which the last answer came.
    answered: AtomicU64,
    away: AtomicBool,
}

impl Reach {
    fn new() -> Self {
        Self { opened: Instant::now(), answered: AtomicU64::new(0), away: AtomicBool::new(false) }
    }

    fn answer(&self) {
        let now = u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.answered.store(now, Ordering::Relaxed);
        if self.away.load(Ordering::Relaxed) && self.away.swap(false, Ordering::Relaxed) {
            tracing::info!("the index store answers again");
        }
    }

    /// A call that began at `begun` found it unavailable: it is away if nobody else had an answer since.
    fn silence(&self, begun: Instant, error: &StoreError) {
        let answered = self.opened + Duration::from_micros(self.answered.load(Ordering::Relaxed));
        if error.kind() == StoreErrorKind::Unavailable && answered < begun && !self.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "the index store is away: it is tried again until it answers");
        }
    }
}

impl Cql {
    /// Connects. The keyspace need not be there.
    pub(crate) async fn connect(config: CqlIndexConfig) -> Result<Self, StoreError> {
        config.check()?;
        let mut near = DefaultPolicy::builder().token_aware(true);
        if let Some(datacenter) = &config.local_datacenter {
            near = near.prefer_datacenter(datacenter.clone()).permit_dc_failover(true);
        }
        let profile = ExecutionProfile::builder()
            .consistency(config.consistency.of_rows())
            .serial_consistency(Some(config.consistency.of_transactions()))
            .request_timeout(Some(config.request_timeout))
            .load_balancing_policy(near.build())
            // Attempts, pauses and their end are in `retry`.
            .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
            .build();
        let mut builder = SessionBuilder::new()
            .known_nodes(&config.contact_points)
            .connection_timeout(config.connect_timeout)
            .schema_agreement_timeout(config.schema_timeout)
            // What routing by token needs, and no more.
            .fetch_full_schema_metadata(false)
            .keyspaces_to_fetch([&config.keyspace])
            .default_execution_profile_handle(profile.into_handle());
        if let Some(user) = &config.user {
            builder = builder.user(user, config.password.as_ref().map_or("", Secret::text));
        }
        let connecting = tokio::time::timeout(config.deadline, builder.build()).await;
        let unreachable = |why| error::new(StoreErrorKind::Unavailable, "connect", why);
        let session = connecting.map_err(|_| unreachable("no answer in time"))?;
        let session = session.map_err(|_| unreachable("no node answers"))?;
        Ok(Self { session, config, reach: Reach::new() })
    }

    /// When a call that begins now has to end.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.config.deadline
    }

    /// How a value is read that a lightweight transaction wrote, so that one with an unknown outcome is settled.
    fn settled(&self) -> Consistency {
        match self.config.consistency.of_transactions() {
            SerialConsistency::LocalSerial => Consistency::LocalSerial,
            SerialConsistency::Serial => Consistency::Serial,
        }
    }

    /// Prepares a statement that can be repeated.
    pub(crate) async fn prepare(&self, text: &str) -> Result<PreparedStatement, StoreError> {
        let text = qualified(text, &self.config.keyspace);
        let prepare = || async {
            let prepared = self.session.prepare(text.as_str()).await;
            prepared.map_err(|error| error::prepare("prepare", &error))
        };
        let mut prepared = self.retry("prepare", self.deadline(), prepare).await?;
        prepared.set_is_idempotent(true);
        prepared.set_page_size(i32::from(self.config.page_rows_max));
        Ok(prepared)
    }

    /// Prepares a read of what lightweight transactions write.
    pub(crate) async fn prepare_settled(&self, text: &str) -> Result<PreparedStatement, StoreError> {
        let mut prepared = self.prepare(text).await?;
        prepared.set_consistency(self.settled());
        Ok(prepared)
    }

    /// Makes or drops something of the schema, and waits until every node knows. The statement can be repeated.
    pub(crate) async fn define(&self, text: &str) -> Result<(), StoreError> {
        let deadline = Instant::now() + self.config.schema_timeout;
        let mut statement = Statement::new(qualified(text, &self.config.keyspace));
        statement.set_request_timeout(Some(self.config.schema_timeout));
        let define = || async {
            let done = self.session.query_unpaged(statement.clone(), ()).await;
            done.map(drop).map_err(|error| error::request("schema", &error))
        };
        self.retry("schema", deadline, define).await
    }

    /// One attempt.
    pub(crate) async fn once(
        &self,
        what: &'static str,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryResult, StoreError> {
        let begun = Instant::now();
        let done = self.session.execute_unpaged(statement, values).await;
        metrics::answered(what, begun.elapsed());
        done.map_err(|error| error::request(what, &error))
    }

    /// A statement that can be repeated, until it succeeds or the time is up.
    pub(crate) async fn execute(
        &self,
        what: &'static str,
        deadline: Instant,
        statement: &PreparedStatement,
        values: impl SerializeRow + Sync,
    ) -> Result<QueryResult, StoreError> {
        self.retry(what, deadline, || self.once(what, statement, &values)).await
    }

    /// The same, for rows.
    pub(crate) async fn select(
        &self,
        what: &'static str,
        deadline: Instant,
        statement: &PreparedStatement,
        values: impl SerializeRow + Sync,
    ) -> Result<QueryRowsResult, StoreError> {
        let found = self.execute(what, deadline, statement, values).await?;
        found.into_rows_result().map_err(|_| error::unreadable(what))
    }

    /// One page of a statement's rows, and where the next begins.
    pub(crate) async fn page(
        &self,
        what: &'static str,
        deadline: Instant,
        statement: &PreparedStatement,
        values: impl SerializeRow + Sync,
        at: PagingState,
    ) -> Result<(QueryRowsResult, Option<PagingState>), StoreError> {
        let read = || async {
            let begun = Instant::now();
            let found = self.session.execute_single_page(statement, &values, at.clone()).await;
            metrics::answered(what, begun.elapsed());
            found.map_err(|error| error::request(what, &error))
        };
        let (found, next) = self.retry(what, deadline, read).await?;
        let next = match next {
            PagingStateResponse::HasMorePages { state } => Some(state),
            PagingStateResponse::NoMorePages => None,
        };
        Ok((found.into_rows_result().map_err(|_| error::unreadable(what))?, next))
    }

    /// An unlogged batch of one partition.
    pub(crate) async fn batch<V: SerializeRow>(
        &self,
        deadline: Instant,
        batch: &Batch,
        values: &[V],
    ) -> Result<(), StoreError> {
        let write = || async {
            let begun = Instant::now();
            let done = self.session.batch(batch, values).await;
            metrics::answered("batch", begun.elapsed());
            done.map(drop).map_err(|error| error::request("batch", &error))
        };
        self.retry("batch", deadline, write).await
    }

    /// Tries until it succeeds, fails for good, or the time is up. An attempt under way is left when the time is up.
    pub(crate) async fn retry<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        what: &'static str,
        deadline: Instant,
        attempt: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let mut pause = self.config.retry_pause;
        loop {
            let late = |_| Err(error::new(StoreErrorKind::Unavailable, what, "no answer in time"));
            let failed = match tokio::time::timeout_at(deadline, attempt()).await.unwrap_or_else(late) {
                Ok(done) => {
                    self.reach.answer();
                    return Ok(done);
                }
                Err(failed) => failed,
            };
            if !failed.kind().is_retryable() || Instant::now() + pause >= deadline {
                self.reach.silence(begun, &failed);
                return Err(failed);
            }
            metrics::retried(what);
            tracing::debug!(%failed, "a request is made again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.config.retry_pause_max);
        }
    }
}

/// Whether a lightweight transaction was applied.
pub(crate) fn applied(what: &'static str, answer: QueryResult) -> Result<bool, StoreError> {
    let rows = answer.into_rows_result().map_err(|_| error::unreadable(what))?;
    let row = rows.first_row::<Row>().map_err(|_| error::unreadable(what))?;
    match row.columns.into_iter().next() {
        Some(Some(CqlValue::Boolean(applied))) => Ok(applied),
        _ => Err(error::unreadable(what)),
    }
}

/// The statement with its table's keyspace: prepared statements of a session that uses one keyspace are ambiguous to the nodes.
fn qualified(statement: &str, keyspace: &str) -> String {
    let before_table = ["FROM ", "INTO ", "UPDATE ", "TABLE IF NOT EXISTS ", "TABLE IF EXISTS "];
    let places = before_table.iter().filter_map(|word| Some(statement.find(word)? + word.len()));
    match places.min() {
        Some(place) => format!("{}{keyspace}.{}", &statement[..place], &statement[place..]),
        None => statement.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::qualified;

    #[test]
    fn tables_are_named_with_their_keyspace() {
        for (statement, whole) in [
            ("SELECT a FROM t WHERE b = ?", "SELECT a FROM k.t WHERE b = ?"),
            ("INSERT INTO t (a) VALUES (?) IF NOT EXISTS", "INSERT INTO k.t (a) VALUES (?) IF NOT EXISTS"),
            ("UPDATE t SET a = ? IF a = ?", "UPDATE k.t SET a = ? IF a = ?"),
            ("DELETE FROM t USING TIMESTAMP ? WHERE b = ?", "DELETE FROM k.t USING TIMESTAMP ? WHERE b = ?"),
            ("CREATE TABLE IF NOT EXISTS t (a int)", "CREATE TABLE IF NOT EXISTS k.t (a int)"),
            ("DROP TABLE IF EXISTS t", "DROP TABLE IF EXISTS k.t"),
            ("CREATE KEYSPACE IF NOT EXISTS k WITH x", "CREATE KEYSPACE IF NOT EXISTS k WITH x"),
        ] {
            assert_eq!(qualified(statement, "k"), whole);
        }
    }
}
