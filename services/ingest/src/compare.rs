//! Comparing versions of an instance: whether two say the same in different encodings. Done after the answer, by one
//! background task with a bounded queue; what does not fit, and what a dead process left, is found again through the
//! index. The result is an event: `VersionsCompared`. Comparing a pair twice changes nothing.

use crate::{
    append::{Context, NotAppended},
    config::CompareConfig,
    crash::{Step, crash_point},
    metrics,
    service::Service,
    versions::Version,
};
use bytes::Bytes;
use cairn_archive::{
    EventId,
    events::{Comparison, Event, VersionsCompared},
};
use cairn_dicom::Uid;
use cairn_service_api::{
    Error,
    index::{Conflict, ConflictKind, Detail, Selection},
    ingest::Stored,
};
use futures_util::TryStreamExt;
use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};

mod content;

pub(crate) use content::same_content;

/// Pairs remembered as compared, so that an index that lags behind does not have them compared again.
const COMPARED_REMEMBERED: usize = 4_096;
/// Wait before the index is asked again when it did not answer.
const SEARCH_RETRY: Duration = Duration::from_secs(5);

/// A version to compare with those before it.
#[derive(Debug)]
pub(crate) struct Pair {
    tenant: String,
    sop_instance_uid: Uid,
    version: Version,
    /// In event order.
    earlier: Vec<Version>,
}

impl Pair {
    pub(crate) fn new(tenant: &str, stored: &Stored, version: Version, earlier: Vec<Version>) -> Self {
        Self { tenant: tenant.to_owned(), sop_instance_uid: stored.sop_instance_uid.clone(), version, earlier }
    }
}

/// The queue, and the task that works it off.
pub(crate) struct Comparer {
    queue: mpsc::Sender<Pair>,
    stop: std::sync::Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Comparer {
    pub(crate) fn new(config: &CompareConfig) -> (Self, mpsc::Receiver<Pair>) {
        let (queue, pairs) = mpsc::channel(config.waiting_max.max(1));
        (Self { queue, stop: std::sync::Arc::default(), task: Mutex::default() }, pairs)
    }

    pub(crate) fn start(&self, pairs: mpsc::Receiver<Pair>, service: Weak<Service>) {
        let task = tokio::spawn(work(pairs, service, self.stop.clone()));
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Queues a comparison. With a full queue it is left to be found through the index.
    pub(crate) fn offer(&self, pair: Pair) {
        if self.queue.try_send(pair).is_err() {
            metrics::compared("postponed");
        }
    }

    /// Stops the task; a comparison under way is given up, and found again by the next process.
    pub(crate) async fn stop(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.stop.notify_one();
        if let Some(task) = task {
            // It ends at its next wait; a panic in it was reported by the runtime.
            let _ = task.await;
        }
    }
}

impl Drop for Comparer {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

/// Pairs that this process has compared.
#[derive(Default)]
struct Compared {
    pairs: HashSet<(EventId, EventId)>,
    in_order: VecDeque<(EventId, EventId)>,
}

impl Compared {
    fn remember(&mut self, pair: (EventId, EventId)) {
        if self.pairs.insert(pair) {
            self.in_order.push_back(pair);
        }
        while self.in_order.len() > COMPARED_REMEMBERED {
            if let Some(oldest) = self.in_order.pop_front() {
                self.pairs.remove(&oldest);
            }
        }
    }
}

async fn work(mut pairs: mpsc::Receiver<Pair>, service: Weak<Service>, stop: std::sync::Arc<Notify>) {
    let mut compared = Compared::default();
    let mut next_search = Duration::ZERO;
    loop {
        let pair = tokio::select! {
            biased;
            () = stop.notified() => return,
            pair = pairs.recv() => match pair {
                Some(pair) => Some(pair),
                None => return,
            },
            () = tokio::time::sleep(next_search) => None,
        };
        let Some(service) = service.upgrade() else { return };
        let done = async {
            match pair {
                Some(pair) => {
                    service.compare_versions(pair, &mut compared).await;
                    next_search
                }
                None => service.search_uncompared(&mut compared).await,
            }
        };
        next_search = tokio::select! {
            biased;
            () = stop.notified() => return,
            next = done => next,
        };
    }
}

impl Service {
    /// Looks for versions that were never compared, and compares them. Gives the wait until the next look.
    async fn search_uncompared(&self, compared: &mut Compared) -> Duration {
        for tenant in &self.config.compare.tenants {
            if let Err(error) = self.search_tenant(tenant, compared).await {
                tracing::debug!(%error, "the index could not be searched for versions to compare");
                return SEARCH_RETRY.min(self.config.compare.search_interval);
            }
        }
        self.config.compare.search_interval
    }

    async fn search_tenant(&self, tenant: &str, compared: &mut Compared) -> Result<(), Error> {
        let Some(index) = &self.index else { return Ok(()) };
        let mut conflicts = index.conflicts(tenant, false).await?;
        while let Some(conflict) = conflicts.try_next().await? {
            if conflict.kind == ConflictKind::NotComparedYet {
                for pair in self.pairs_of(tenant, &conflict).await? {
                    self.compare_versions(pair, compared).await;
                }
            }
        }
        Ok(())
    }

    async fn pairs_of(&self, tenant: &str, conflict: &Conflict) -> Result<Vec<Pair>, Error> {
        let Some(index) = &self.index else { return Ok(Vec::new()) };
        let selection = Selection {
            tenant: tenant.to_owned(),
            studies: vec![conflict.study_instance_uid.clone()],
            series: vec![conflict.series_instance_uid.clone()],
            instances: vec![conflict.sop_instance_uid.clone()],
            all_versions: true,
            ..Selection::default()
        };
        let records: Vec<_> = index.instances(selection, Detail::Location).await?.try_collect().await?;
        let place = |version: &Version| conflict.versions.iter().position(|v| v.store_event == version.store_event);
        let mut versions: Vec<_> =
            records.into_iter().map(Version::from).filter(|version| place(version).is_some()).collect();
        versions.sort_by_key(place);
        let pair = |at: usize| Pair {
            tenant: tenant.to_owned(),
            sop_instance_uid: conflict.sop_instance_uid.clone(),
            version: versions[at].clone(),
            earlier: versions[..at].to_vec(),
        };
        Ok((1..versions.len()).map(pair).collect())
    }

    /// Compares a version with those before it, up to the first that has the same content.
    async fn compare_versions(&self, pair: Pair, compared: &mut Compared) {
        for earlier in pair.earlier.iter().take(self.config.compare.versions_max) {
            let ids = (earlier.store_event, pair.version.store_event);
            if compared.pairs.contains(&ids) {
                continue;
            }
            let same = same_content(self.objects.as_ref(), earlier, &pair.version);
            let comparison = match tokio::time::timeout(self.config.compare.comparison_max, same).await {
                Ok(Ok(comparison)) => comparison,
                outcome => {
                    metrics::compared("failed");
                    let cause = match outcome {
                        Ok(Err(error)) => error.to_string(),
                        _ => "it took too long".to_owned(),
                    };
                    tracing::warn!(first = %ids.0, second = %ids.1, %cause, "two versions could not be compared");
                    continue;
                }
            };
            crash_point(Step::BeforeComparisonAppend);
            match self.append_comparison(&pair, earlier, comparison).await {
                Ok(()) => compared.remember(ids),
                Err(NotAppended::Surely(error) | NotAppended::Perhaps(error)) => {
                    tracing::warn!(%error, "the result of a comparison was not appended; it will be made again");
                }
            }
            if comparison == Comparison::AnotherEncoding {
                return;
            }
        }
    }

    async fn append_comparison(
        &self,
        pair: &Pair,
        earlier: &Version,
        comparison: Comparison,
    ) -> Result<(), NotAppended> {
        metrics::compared(match comparison {
            Comparison::AnotherEncoding => "another-encoding",
            Comparison::Different => "different",
            Comparison::NotComparable | Comparison::Unspecified => "not-comparable",
        });
        let id = |id: EventId| Bytes::copy_from_slice(id.as_bytes());
        let event = Event::VersionsCompared(VersionsCompared {
            tenant: pair.tenant.clone(),
            study_instance_uid: pair.version.study_instance_uid.to_string(),
            series_instance_uid: pair.version.series_instance_uid.to_string(),
            sop_instance_uid: pair.sop_instance_uid.to_string(),
            first_store_event_id: id(earlier.store_event),
            second_store_event_id: id(pair.version.store_event),
            comparison: comparison as i32,
        });
        let context = Context { causation: Some(pair.version.store_event), ..Context::default() };
        self.appender.append(&event, context).await.map(|_| ())
    }
}
