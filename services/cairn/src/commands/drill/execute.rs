//! A drill, carried out: each stage does one thing, says it, and leaves its facts in the report. Whatever happens on the way,
//! what was changed is put back at the end.

use super::{
    asked,
    dicom::{Caller, Synthetic},
    journal::{Journal, Pause},
    put_back,
    ready::{self, Probes},
    report::{Figures, Phase, Report, RiskSample, millis, seconds, size},
    sides::Side,
    verification, workload,
};
use crate::{cli::RunArgs, commands::Failure};
use cairn_service_api::{
    Error, Replication,
    replication::{Link, ReplicationStatus},
    site::{Decision, Grounds},
};
use cairn_synthetic::Random;
use futures_util::FutureExt;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

const LOOK: Duration = Duration::from_millis(20);
/// How often what is at risk is looked at for the chart; with more points than this, every other one is left out from then on.
const RISK_INTERVAL: Duration = Duration::from_millis(250);
const RISK_POINTS_MAX: usize = 400;
/// For links to be paused.
const ISOLATION: Duration = Duration::from_secs(10);
/// Time that the standby site is given beyond the objective, to learn what it takes.
const GRACE: Duration = Duration::from_secs(30);

/// A drill under way.
pub struct Drill<'a> {
    pub args: &'a RunArgs,
    pub original: Side,
    pub standby: Side,
    pub journal: Journal,
    pub report: Report,
    /// An operator wants it to end.
    pub stop: watch::Receiver<bool>,
    /// Names what is chosen by chance.
    pub seed: u64,
    begun: Instant,
    isolated: Instant,
    stored: Option<Synthetic>,
}

/// Why a drill goes no further; the rest is put back.
enum Ended {
    Interrupted,
    Failed(String),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error.message)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.to_string())
    }
}

impl<'a> Drill<'a> {
    /// One that has not begun.
    pub fn new(
        args: &'a RunArgs,
        (original, standby): (Side, Side),
        journal: Journal,
        report: Report,
        stop: watch::Receiver<bool>,
        seed: u64,
    ) -> Self {
        let begun = Instant::now();
        Self { args, original, standby, journal, report, stop, seed, begun, isolated: begun, stored: None }
    }

    /// All stages; gives the report with everything but its verdict.
    pub async fn run(mut self) -> Report {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let looking =
            tokio::spawn(look_at_risk(self.original.clone(), self.standby.clone(), self.begun, samples.clone()));
        // A defect must not leave the sites apart.
        let gone = std::panic::AssertUnwindSafe(self.forward()).catch_unwind().await;
        match gone.unwrap_or_else(|_| Err(Ended::Failed("a defect of this command ended it".into()))) {
            Ok(()) => {}
            Err(Ended::Interrupted) => {
                self.report.interrupted = true;
                self.say("interrupted: what was changed is put back");
            }
            Err(Ended::Failed(why)) => self.trouble(why),
        }
        match self.back().await {
            Ok(()) => {}
            Err(Ended::Interrupted) => self.report.interrupted = true,
            Err(Ended::Failed(why)) => self.trouble(why),
        }
        looking.abort();
        self.report.at_risk = std::mem::take(&mut *samples.lock().unwrap_or_else(PoisonError::into_inner));
        self.report
    }

    async fn forward(&mut self) -> Result<(), Ended> {
        self.isolate().await?;
        self.promote().await?;
        self.until_ready().await?;
        self.work().await?;
        self.verify().await
    }

    async fn back(&mut self) -> Result<(), Ended> {
        let from = self.at_ms();
        let within = self.args.catch_up_timeout;
        let done = put_back::all(&self.original, &self.standby, &mut self.journal, within, self.begun).await;
        let what = match &done {
            Ok(done) if done.took_over => format!("{} has authority again", self.original.name),
            Ok(_) => "there was no authority to give back".to_owned(),
            Err(failure) => failure.to_string(),
        };
        self.phase("Fail back", from, what);
        done?;
        self.report.put_back = true;
        self.catch_up().await?;
        if self.report.interrupted || !self.report.troubles.is_empty() {
            return Ok(());
        }
        self.compare().await
    }

    // The stages.

    async fn isolate(&mut self) -> Result<(), Ended> {
        let from = self.at_ms();
        let status = self.original.replication.status().await?;
        let up = |link: &Link| *link != Link::Paused;
        let pause = |at: &Side, to: &cairn_archive::SiteId| Pause { at: at.name.to_string(), to: to.to_string() };
        // Lost, it would send to nobody.
        let peers = status.peers.iter().filter(|peer| up(&peer.link));
        let mut paused: Vec<Pause> = peers.map(|peer| pause(&self.original, &peer.site)).collect();
        paused.push(pause(&self.standby, &self.original.name));
        self.journal.paused = paused.clone();
        self.journal.write()?;
        self.go_on()?;
        self.isolated = Instant::now();
        for Pause { at, to } in &paused {
            let side = if *at == self.original.name.as_str() { &self.original } else { &self.standby };
            side.replication.set_paused(&Journal::site(to)?, true).await?;
        }
        let status = self.wait_paused().await?;
        let risk = status.peers.iter().find(|peer| peer.site == self.standby.name).map(|peer| peer.risk);
        let figures = Figures::of(&risk.unwrap_or_default(), status.at_ms);
        self.report.recovery_point.measured_ms = Some(figures.age_ms);
        self.report.at_risk_at_isolation = Some(figures);
        let what = format!(
            "recovery point {}: {} events, {} instances, {} at risk",
            seconds(figures.age_ms),
            figures.events,
            figures.instances,
            size(figures.bytes)
        );
        self.phase("Isolation", from, what);
        Ok(())
    }

    /// Waits until both say that nothing is sent; gives what the original site said then.
    async fn wait_paused(&self) -> Result<ReplicationStatus, Ended> {
        let deadline = Instant::now() + ISOLATION;
        loop {
            let (here, there) = (self.original.replication.status().await?, self.standby.replication.status().await?);
            let paused = |status: &ReplicationStatus, to: &Side| {
                status.peers.iter().any(|peer| peer.site == to.name && peer.link == Link::Paused)
            };
            if paused(&here, &self.standby) && paused(&there, &self.original) {
                return Ok(here);
            }
            if Instant::now() > deadline {
                return Err(Ended::Failed("links are not paused".into()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn promote(&mut self) -> Result<(), Ended> {
        self.go_on()?;
        let from = self.at_ms();
        let grounds = Grounds {
            decided_by: self.args.by.clone(),
            reason: self.args.reason.clone(),
            drill: self.journal.drill.clone(),
        };
        let site = self.standby.replication.decide(Decision::Promote { force: false }, grounds).await?;
        self.phase("Promotion", from, format!("{} has authority (epoch {})", self.standby.name, site.epoch));
        Ok(())
    }

    async fn until_ready(&mut self) -> Result<(), Ended> {
        self.go_on()?;
        let from = self.at_ms();
        let mut random = Random::new(self.seed);
        // A site that does not answer yet is asked for studies once it does.
        let study = asked::sampled(&self.standby, &mut random).await.unwrap_or_default().pop();
        let caller = |called: &String| {
            let (address, calling) = (self.args.dicom.clone()?, self.args.calling.clone());
            Some(Caller { address, calling, called: called.clone() })
        };
        let callers: Vec<Caller> = self.report.original.ae_titles.iter().filter_map(caller).collect();
        let store = if self.args.store { Synthetic::of(self.seed) } else { None };
        let probes = Probes { study, callers, store };
        let within = self.args.rto.saturating_mul(2).saturating_add(GRACE);
        self.report.readiness = ready::wait(&self.standby, &probes, self.isolated, within, &self.stop).await;
        let stored = |each: &super::report::Ready| each.what.starts_with("C-STORE") && each.after_ms.is_some();
        self.stored = probes.store.filter(|_| self.report.readiness.iter().any(stored));
        self.go_on()?;
        self.report.recovery_time.measured_ms = ready::recovery_time(&self.report.readiness);
        let what = match self.report.recovery_time.measured_ms {
            Some(took) => format!("recovery time {}: {} answers", seconds(took), self.standby.name),
            None => format!("{} does not answer everything", self.standby.name),
        };
        self.phase("Take-over", from, what);
        Ok(())
    }

    async fn work(&mut self) -> Result<(), Ended> {
        self.go_on()?;
        let from = self.at_ms();
        let studies = asked::sampled(&self.standby, &mut Random::new(self.seed ^ 1)).await?;
        let lacking = verification::lacking(&self.original, &self.standby).await?;
        let studies = verification::whole(studies, &lacking);
        let (lasts, callers) = (self.args.workload, self.args.callers);
        let mut work = workload::run(&self.standby, studies, (lasts, callers), from, &self.stop).await;
        work.failures = work.failures.into_iter().map(|(what, count)| (without_uids(&what), count)).collect();
        let (done, failed) =
            work.operations.iter().fold((0, 0), |(done, failed), each| (done + each.count, failed + each.failed));
        self.report.workload = Some(work);
        self.phase("Work", from, format!("{done} queries and retrievals, {failed} failed"));
        Ok(())
    }

    async fn verify(&mut self) -> Result<(), Ended> {
        self.go_on()?;
        let from = self.at_ms();
        let isolated = verification::while_isolated(&self.original, &self.standby).await?;
        let mut random = Random::new(self.seed ^ 2);
        let (original, standby) = (&self.original, &self.standby);
        let sample = verification::sample(original, standby, self.args.sample, &mut random, &self.stop).await?;
        let what =
            format!("{}; of the sample {} are equal, {} differ", isolated.what, sample.equal, sample.differences.len());
        (self.report.isolated, self.report.sample) = (Some(isolated), Some(sample));
        self.phase("Verification", from, what);
        self.go_on()
    }

    async fn catch_up(&mut self) -> Result<(), Ended> {
        let from = self.at_ms();
        let deadline = Instant::now() + self.args.catch_up_timeout;
        let caught_up = put_back::catch_up(&self.original, &self.standby, deadline).await;
        let what = match &caught_up {
            Ok(()) => "each site has what the other had taken meanwhile".to_owned(),
            Err(failure) => failure.to_string(),
        };
        self.phase("Replay", from, what);
        Ok(caught_up?)
    }

    async fn compare(&mut self) -> Result<(), Ended> {
        let from = self.at_ms();
        let found = verification::afterwards(&self.original, &self.standby, self.args.catch_up_timeout).await?;
        let mut what = found.what.clone();
        self.report.afterwards = Some(found);
        if let Some(stored) = self.stored.take() {
            let name = self.original.name.clone();
            match verification::came_back(&self.original, &stored).await {
                Ok(()) => what += &format!("; {name} has the instance that was stored meanwhile"),
                Err(why) => self.trouble(format!("the instance that was stored meanwhile, at {name}: {why}")),
            }
        }
        self.phase("Comparison", from, what);
        Ok(())
    }

    // What they have in common.

    fn at_ms(&self) -> u64 {
        millis(self.begun.elapsed())
    }

    fn go_on(&self) -> Result<(), Ended> {
        if *self.stop.borrow() { Err(Ended::Interrupted) } else { Ok(()) }
    }

    fn say(&self, what: &str) {
        put_back::say(self.begun, what);
    }

    fn trouble(&mut self, why: String) {
        let why = without_uids(&why);
        self.say(&format!("WRONG: {why}"));
        self.report.troubles.push(why);
    }

    fn phase(&mut self, name: &'static str, begun_ms: u64, what: String) {
        let what = without_uids(&what);
        self.say(&format!("{name}: {what}"));
        self.report.phases.push(Phase { name, begun_ms, ended_ms: self.at_ms(), what });
    }
}

/// Looks at what is at risk until it is aborted.
async fn look_at_risk(original: Side, standby: Side, begun: Instant, samples: Arc<Mutex<Vec<RiskSample>>>) {
    let (mut round, mut every) = (0_usize, 1);
    let mut tick = tokio::time::interval(RISK_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        round += 1;
        if !round.is_multiple_of(every) {
            continue;
        }
        let (here, there) = tokio::join!(original.risk(&standby.name), standby.risk(&original.name));
        let figures = |asked: Result<_, Error>| asked.ok().map(|(at_ms, risk)| Figures::of(&risk, at_ms));
        let sample = RiskSample { at_ms: millis(begun.elapsed()), original: figures(here), standby: figures(there) };
        let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push(sample);
        if samples.len() > RISK_POINTS_MAX {
            let mut number = 0;
            samples.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            every *= 2;
        }
    }
}

/// A text without UIDs: a report that people read names no study.
pub fn without_uids(text: &str) -> String {
    let is_uid = |word: &str| word.len() >= 10 && word.bytes().filter(|byte| *byte == b'.').count() >= 4;
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_digit() || c == '.' {
            word.push(c);
            continue;
        }
        let uid = is_uid(&word) || word.starts_with("2.25.");
        out.push_str(if uid { "(UID)" } else { &word });
        word.clear();
        out.push(c);
    }
    out.pop();
    out
}

#[cfg(test)]
mod tests {
    use super::without_uids;

    #[test]
    fn texts_for_people_name_no_study() {
        let text = "study 1.2.840.10008.5.1.4: not at http://127.0.0.1:50051, 2.25.17 neither, in 3.5 s.";
        assert_eq!(without_uids(text), "study (UID): not at http://127.0.0.1:50051, (UID) neither, in 3.5 s.");
    }
}
