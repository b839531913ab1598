//! What a drill leaves: the facts, and what they come to. Nothing in it names a patient or a study (I9).

use super::checks::Check;
use cairn_service_api::replication::Risk;
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// Shape of `report.json`. A field may come; one that changes its meaning or goes is a new number.
pub const SCHEMA: &str = "cairn-drill-report/1";

/// Everything. Times are in milliseconds since the drill began, unless they are said to be of a clock.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub schema: &'static str,
    /// Names the drill; the promotions that are part of it carry it too.
    pub drill: String,
    /// Version of the command that made it.
    pub version: String,
    pub decided_by: String,
    pub reason: String,
    /// RFC 3339, by the clock of the machine that the command ran on.
    pub begun: String,
    pub ended: String,
    pub verdict: Verdict,
    /// The site whose loss was rehearsed.
    pub original: Site,
    /// The one that took its place.
    pub standby: Site,
    /// Other sites of the installation.
    pub other_sites: Vec<String>,
    pub checks: Vec<Check>,
    pub recovery_time: Objective,
    pub recovery_point: Objective,
    /// What would have been lost, had the site been lost at the moment of the isolation.
    pub at_risk_at_isolation: Option<Figures>,
    pub phases: Vec<Phase>,
    /// When the standby site gave its first answer, by kind.
    pub readiness: Vec<Ready>,
    pub at_risk: Vec<RiskSample>,
    pub workload: Option<Workload>,
    pub isolated: Option<Comparison>,
    pub sample: Option<Sample>,
    pub afterwards: Option<Comparison>,
    /// Whether links go on, and authority is back.
    pub put_back: bool,
    pub interrupted: bool,
    /// What went wrong, in the order in which it did.
    pub troubles: Vec<String>,
    pub not_tested: Vec<String>,
    /// SHA-256 of the signer's public key.
    pub signed_by: String,
    /// SHA-256 of the files beside this one.
    pub files: BTreeMap<String, String>,
}

/// What it came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub outcome: Outcome,
    /// Why.
    pub because: Vec<String>,
}

/// In the order in which one hides another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It could not be carried out, or not all is as before.
    Failed,
    /// An operator ended it.
    Interrupted,
    /// The sites do not hold the same.
    Differs,
    /// It took longer, or would have lost more, than it should.
    ObjectiveMissed,
    /// Some of what was asked of the standby site failed.
    Partial,
    Passed,
}

impl Outcome {
    /// In words, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Failed => "Failed",
            Self::Interrupted => "Interrupted",
            Self::Differs => "Sites differ",
            Self::ObjectiveMissed => "Objective missed",
            Self::Partial => "Passed in part",
            Self::Passed => "Passed",
        }
    }
}

/// One of the two sites.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Site {
    pub name: String,
    pub addresses: Vec<String>,
    pub version: String,
    pub fold_version: u32,
    /// Before the drill.
    pub studies: u64,
    pub instances: u64,
    pub ae_titles: Vec<String>,
    /// Number of the last promotion that it knew.
    pub epoch: u64,
}

/// What was asked for, and what was measured.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Objective {
    pub target_ms: u64,
    /// Nothing: it was not reached, or not tried.
    pub measured_ms: Option<u64>,
}

impl Objective {
    pub fn is_met(&self) -> bool {
        self.measured_ms.is_some_and(|measured| measured <= self.target_ms)
    }
}

/// What one site has and the other is not known to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    pub events: u64,
    pub instances: u64,
    pub bytes: u64,
    /// Age of the oldest of them.
    pub age_ms: u64,
}

impl Figures {
    pub fn of(risk: &Risk, at_ms: u64) -> Self {
        let Risk { events, instances, bytes, .. } = *risk;
        Self { events, instances, bytes, age_ms: millis(risk.age(at_ms)) }
    }
}

/// A stage of the drill.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    pub name: &'static str,
    pub begun_ms: u64,
    pub ended_ms: u64,
    /// What came of it.
    pub what: String,
}

/// A first answer of the standby site.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    pub what: String,
    /// Since the isolation; nothing: it did not answer.
    pub after_ms: Option<u64>,
    pub detail: String,
}

/// What was at risk at one moment: with nothing where the site did not answer.
#[derive(Clone, Debug, Serialize)]
pub struct RiskSample {
    pub at_ms: u64,
    pub original: Option<Figures>,
    pub standby: Option<Figures>,
}

/// What was asked of the standby site while it was alone.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Workload {
    pub begun_ms: u64,
    pub took_ms: u64,
    pub callers: u16,
    /// Studies that were chosen from.
    pub studies: usize,
    pub operations: Vec<Operation>,
    pub slices: Vec<Slice>,
    /// What failed, by the text of the failure; how often.
    pub failures: BTreeMap<String, u64>,
}

/// One kind of query or retrieval.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Operation {
    pub name: &'static str,
    pub count: u64,
    pub failed: u64,
    pub bytes: u64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// All operations that ended in a part of the time.
#[derive(Clone, Debug, Serialize)]
pub struct Slice {
    /// Since the workload began.
    pub from_ms: u64,
    pub to_ms: u64,
    pub count: u64,
    pub p50_ms: f64,
    pub p95_ms: f64,
}

/// Whether both sites are in the same state.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    /// Nothing: it could not be compared; `what` says why.
    pub equal: Option<bool>,
    pub what: String,
    pub original: StateOf,
    pub standby: StateOf,
}

/// The state that a site has made of its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StateOf {
    pub studies: u64,
    pub event_digest: String,
    pub state_digest: String,
}

/// Instances whose bytes were compared.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    pub asked: usize,
    pub studies: usize,
    pub equal: usize,
    pub bytes: u64,
    /// Of studies that the standby site did not have whole, as was known.
    pub at_risk: usize,
    pub differences: Vec<Difference>,
}

/// An instance that the standby site does not give as the original has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// BLAKE3-256 of the object at the original site.
    pub object: String,
    /// `ce_id` of its event.
    pub event: String,
    pub what: String,
}

/// Milliseconds of a duration.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Report {
    /// What the facts come to.
    pub fn judge(&self) -> Verdict {
        let mut found: Vec<(Outcome, String)> = Vec::new();
        if !self.put_back {
            let what = "not all is as it was before: `cairn drill end` with the journal puts it back".into();
            found.push((Outcome::Failed, what));
        }
        found.extend(self.troubles.iter().map(|trouble| (Outcome::Failed, trouble.clone())));
        if self.interrupted {
            found.push((Outcome::Interrupted, "it was ended by an operator before its end".into()));
        }
        self.judge_equality(&mut found);
        if !self.interrupted {
            self.judge_objectives(&mut found);
        }
        let failed: u64 = self.workload.iter().flat_map(|work| &work.operations).map(|each| each.failed).sum();
        if failed > 0 {
            found.push((Outcome::Partial, format!("{failed} queries or retrievals failed at {}", self.standby.name)));
        }
        let outcomes =
            [Outcome::Failed, Outcome::Interrupted, Outcome::Differs, Outcome::ObjectiveMissed, Outcome::Partial];
        let outcome = outcomes.into_iter().find(|outcome| found.iter().any(|(of, _)| of == outcome));
        match outcome {
            Some(outcome) => Verdict { outcome, because: found.into_iter().map(|(_, what)| what).collect() },
            None => Verdict { outcome: Outcome::Passed, because: vec![self.passed()] },
        }
    }

    fn passed(&self) -> String {
        let (original, standby) = (&self.original.name, &self.standby.name);
        format!("{standby} took the place of {original} within its objectives, and both hold the same afterwards")
    }

    fn judge_equality(&self, found: &mut Vec<(Outcome, String)>) {
        let differences = self.sample.as_ref().map_or(0, |sample| sample.differences.len());
        if differences > 0 {
            let what = format!("{differences} instances of the sample are not at {} as they should", self.standby.name);
            found.push((Outcome::Differs, what));
        }
        if let Some(isolated) = self.isolated.as_ref().filter(|isolated| isolated.equal == Some(false)) {
            found.push((Outcome::Differs, format!("while isolated: {}", isolated.what)));
        }
        match &self.afterwards {
            Some(Comparison { equal: Some(true), .. }) => {}
            Some(other) => found.push((Outcome::Differs, format!("afterwards: {}", other.what))),
            None if self.interrupted => {}
            None => found.push((Outcome::Failed, "the sites were not compared afterwards".into())),
        }
    }

    fn judge_objectives(&self, found: &mut Vec<(Outcome, String)>) {
        for (name, objective) in [("recovery time", self.recovery_time), ("recovery point", self.recovery_point)] {
            if objective.is_met() {
                continue;
            }
            let measured = objective.measured_ms.map_or("not reached".to_owned(), seconds);
            let what = format!("{name}: {measured}, and {} was asked for", seconds(objective.target_ms));
            found.push((Outcome::ObjectiveMissed, what));
        }
    }
}

/// Milliseconds as people read them.
pub fn seconds(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 if ms.is_multiple_of(1_000) => format!("{} s", ms / 1_000),
        1_000..60_000 => format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10),
        60_000..3_600_000 if ms % 60_000 < 1_000 => format!("{} min", ms / 60_000),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// Bytes as people read them.
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut found = format!("{bytes} B");
    let mut of = 1_u64;
    for unit in units {
        of <<= 10;
        if bytes >= of {
            found = format!("{:.1} {unit}", bytes as f64 / of as f64);
        }
    }
    found
}

#[cfg(test)]
mod tests;
