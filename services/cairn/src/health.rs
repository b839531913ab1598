//! Whether this process can do its work now: for orchestrators and people.

use crate::{roles::Roles, services::Services};
use cairn_service_api::{Error, ErrorKind, Replication};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// What readiness depends on.
#[derive(Clone)]
pub struct Readiness {
    pub roles: Roles,
    pub services: Services,
    pub draining: Arc<AtomicBool>,
    /// For each answer.
    pub timeout: Duration,
}

/// One thing that was looked at.
pub struct Check {
    pub name: &'static str,
    /// Whether the process is not ready without it.
    pub needed: bool,
    pub outcome: Result<String, String>,
}

impl Readiness {
    /// Looks at everything that this process uses. Ingest is needed by those who take instances; the index by all but
    /// ingest, which goes on without it.
    pub async fn checks(&self) -> Vec<Check> {
        let (roles, services) = (self.roles, &self.services);
        let draining = self.draining.load(Ordering::Acquire);
        let process = if draining { Err("draining".into()) } else { Ok(String::new()) };
        let mut checks = vec![Check { name: "process", needed: true, outcome: process }];
        let done = |(): ()| String::new();
        let (ingest, index, retrieval, lifecycle, replication) = tokio::join!(
            self.ask(async { Some(services.ingest()?.ready().await.map(done)) }),
            self.ask(async {
                let status = services.index()?.status().await;
                Some(status.map(|status| format!("{} events behind", status.lag_events)))
            }),
            self.ask(async {
                services.retrieval()?;
                Some(services.retrieval_ready().await.map(done))
            }),
            self.ask(async {
                let status = services.lifecycle()?.fixity().await;
                Some(status.map(|status| format!("{} damaged objects", status.damaged)))
            }),
            self.ask(async {
                let status = services.replication()?.operated.status().await;
                Some(status.map(|status| {
                    let at_risk: u64 = status.peers.iter().map(|peer| peer.risk.events).sum();
                    format!("{at_risk} events that another site does not have")
                }))
            }),
        );
        let needs_index = roles.doors() || roles.index || roles.retrieval;
        for (name, needed, outcome) in [
            ("ingest", true, ingest),
            ("index", needs_index, index),
            ("retrieval", true, retrieval),
            ("lifecycle", roles == Roles::lifecycle(), lifecycle),
            ("replication", roles == Roles::replication(), replication),
        ] {
            checks.extend(outcome.map(|outcome| Check { name, needed, outcome }));
        }
        checks
    }

    async fn ask(
        &self,
        question: impl Future<Output = Option<Result<String, Error>>>,
    ) -> Option<Result<String, String>> {
        let late = || Some(Err(Error::new(ErrorKind::Unavailable, "no answer in time")));
        let answer = tokio::time::timeout(self.timeout, question).await.unwrap_or_else(|_| late());
        answer.map(|answer| answer.map_err(|error| error.message))
    }
}

/// Whether everything that is needed is there.
pub fn is_ready(checks: &[Check]) -> bool {
    checks.iter().all(|check| !check.needed || check.outcome.is_ok())
}

/// Keeps gRPC's health service true until it is dropped.
pub async fn keep(readiness: Readiness, health: cairn_service_grpc::server::Health, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        let checks = readiness.checks().await;
        let draining = readiness.draining.load(Ordering::Acquire);
        for check in checks.iter().filter(|check| check.name != "process") {
            health.set(check.name, check.outcome.is_ok() && !draining).await;
        }
        health.set("", is_ready(&checks)).await;
    }
}
