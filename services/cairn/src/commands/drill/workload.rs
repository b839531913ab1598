//! What is asked of the standby site while it is alone: queries and retrievals of studies by chance, several at once.

use super::{
    asked::{self, INSTANCES_MAX, PATIENCE, Study},
    report::{Operation, Slice, Workload, millis},
    sides::Side,
};
use cairn_service_api::{Error, ErrorKind};
use cairn_synthetic::Random;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};

/// Parts of the time that the charts show.
const SLICES: u32 = 60;
/// Failures that are told apart.
const FAILURES_MAX: usize = 20;
/// Latencies are counted in steps of this factor, from this many microseconds on.
const STEP: f64 = 1.02;
const FIRST_US: f64 = 50.0;
const NAMES: [&str; 4] = ["list of studies", "studies of a patient", "one study", "retrieval of a study"];

/// How many took how long, within 2 %.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: BTreeMap<u16, u64>,
    total: u64,
    max_ms: f64,
}

impl Histogram {
    pub fn add(&mut self, took: Duration) {
        let steps = (took.as_secs_f64() * 1e6 / FIRST_US).max(1.0).log(STEP).ceil();
        *self.counts.entry(steps.min(f64::from(u16::MAX)) as u16).or_default() += 1;
        self.total += 1;
        self.max_ms = self.max_ms.max(took.as_secs_f64() * 1e3);
    }

    /// The time within which this part of them were done; 0 when there are none.
    pub fn quantile_ms(&self, part: f64) -> f64 {
        let (mut wanted, mut passed) = ((part * self.total as f64).ceil() as u64, 0);
        wanted = wanted.max(1);
        let step = self.counts.iter().find(|(_, count)| {
            passed += *count;
            passed >= wanted
        });
        let ms = step.map_or(0.0, |(step, _)| FIRST_US * STEP.powi(i32::from(*step)) / 1e3);
        rounded(ms.min(self.max_ms))
    }
}

/// What is shown of milliseconds.
fn rounded(ms: f64) -> f64 {
    (ms * 100.0).round() / 100.0
}

#[derive(Default)]
struct Tally {
    operations: [(Histogram, u64, u64); 4],
    slices: Vec<Histogram>,
    failures: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, operation: usize, slice: usize, took: Duration, done: Result<u64, Error>) {
        let (histogram, failed, bytes) = &mut self.operations[operation % NAMES.len()];
        match done {
            Ok(came) => {
                histogram.add(took);
                *bytes += came;
                if let Some(slice) = self.slices.get_mut(slice) {
                    slice.add(took);
                }
            }
            Err(error) => {
                *failed += 1;
                let what = format!("{}: {error}", NAMES[operation % NAMES.len()]);
                if self.failures.len() < FAILURES_MAX || self.failures.contains_key(&what) {
                    *self.failures.entry(what).or_default() += 1;
                }
            }
        }
    }
}

async fn ask(side: &Side, studies: &[Study], operation: usize, random: &mut Random) -> Result<u64, Error> {
    let study = usize::try_from(random.below(studies.len() as u64)).ok().and_then(|chosen| studies.get(chosen));
    let Some(study) = study else { return asked::list(side, false).await };
    match operation {
        0 => asked::list(side, true).await,
        1 => asked::of_patient(side, study).await,
        2 => asked::one(side, study).await,
        _ => asked::retrieve(side, study, INSTANCES_MAX).await,
    }
}

/// Asks for so long, or until it is to stop. `begun_ms` is for the report.
pub async fn run(
    side: &Side,
    studies: Vec<Study>,
    (lasts, callers): (Duration, u16),
    begun_ms: u64,
    stop: &watch::Receiver<bool>,
) -> Workload {
    let (begun, slice) = (Instant::now(), (lasts / SLICES).max(Duration::from_millis(100)));
    let count = lasts.as_nanos().div_ceil(slice.as_nanos()) as usize;
    let tally = Arc::new(Mutex::new(Tally { slices: vec![Histogram::default(); count], ..Tally::default() }));
    let studies: Arc<[Study]> = studies.into();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (side, studies, tally, stop) = (side.clone(), studies.clone(), tally.clone(), stop.clone());
        let mut random = Random::new(begun_ms ^ (u64::from(caller) << 32));
        tasks.spawn(async move {
            while begun.elapsed() < lasts && !*stop.borrow() {
                // With no study there is nothing but the list to ask for.
                let operation = if studies.is_empty() { 0 } else { random.below(NAMES.len() as u64) as usize };
                let from = Instant::now();
                let done = tokio::time::timeout(PATIENCE, ask(&side, &studies, operation, &mut random)).await;
                let late = |_| Err(Error::new(ErrorKind::Unavailable, format!("not done within {PATIENCE:?}")));
                let (done, took) = (done.unwrap_or_else(late), from.elapsed());
                let at = (begun.elapsed().as_nanos() / slice.as_nanos()) as usize;
                let failed = done.is_err();
                tally.lock().unwrap_or_else(PoisonError::into_inner).add(operation, at, took, done);
                if failed {
                    // A site that refuses at once is not asked all the time.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    let tally = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
    summed_up(tally, (begun_ms, begun.elapsed(), slice), callers, studies.len())
}

fn summed_up(
    tally: Tally,
    (begun_ms, took, slice): (u64, Duration, Duration),
    callers: u16,
    studies: usize,
) -> Workload {
    let operation = |(name, (histogram, failed, bytes)): (&'static str, (Histogram, u64, u64))| Operation {
        name,
        count: histogram.total,
        failed,
        bytes,
        per_second: rounded(histogram.total as f64 / took.as_secs_f64().max(0.001)),
        p50_ms: histogram.quantile_ms(0.50),
        p95_ms: histogram.quantile_ms(0.95),
        p99_ms: histogram.quantile_ms(0.99),
        max_ms: rounded(histogram.max_ms),
    };
    let slices = tally.slices.iter().enumerate().map(|(at, histogram)| Slice {
        from_ms: millis(slice) * at as u64,
        to_ms: millis(slice) * (at as u64 + 1),
        count: histogram.total,
        p50_ms: histogram.quantile_ms(0.50),
        p95_ms: histogram.quantile_ms(0.95),
    });
    Workload {
        begun_ms,
        took_ms: millis(took),
        callers,
        studies,
        slices: slices.collect(),
        operations: NAMES.into_iter().zip(tally.operations).map(operation).collect(),
        failures: tally.failures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_step() {
        let mut histogram = Histogram::default();
        assert!(histogram.quantile_ms(0.5) == 0.0);
        (1..=1_000).for_each(|ms| histogram.add(Duration::from_millis(ms)));
        for (part, exact) in [(0.50, 500.0), (0.95, 950.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let found = histogram.quantile_ms(part);
            assert!((exact..=exact * STEP).contains(&found), "{part}: {found}");
        }
    }

    #[test]
    fn a_failure_is_counted_apart_and_by_its_text() {
        let mut tally = Tally { slices: vec![Histogram::default()], ..Tally::default() };
        tally.add(3, 0, Duration::from_millis(5), Ok(7));
        for number in 0..100 {
            let error = Error::new(ErrorKind::Unavailable, format!("away {}", number % 50));
            tally.add(3, 0, Duration::from_millis(5), Err(error));
        }
        let slice = Duration::from_secs(1);
        let work = summed_up(tally, (0, Duration::from_secs(2), slice), 1, 1);
        let retrieval = &work.operations[3];
        assert_eq!((retrieval.count, retrieval.failed, retrieval.bytes), (1, 100, 7));
        assert_eq!((work.failures.len(), work.slices[0].count), (FAILURES_MAX, 1));
        assert!(work.failures.values().all(|count| *count == 2), "{:?}", work.failures);
    }
}
