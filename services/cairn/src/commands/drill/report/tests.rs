use super::*;
use crate::commands::drill::{checks::Finding, html, markdown};

fn site(name: &str) -> Site {
    Site {
        name: name.into(),
        addresses: vec!["http://192.0.2.7:50051".into()],
        version: "1.2.3".into(),
        fold_version: 3,
        studies: 40,
        instances: 400,
        ae_titles: vec![name.to_uppercase()],
        epoch: 4,
    }
}

fn state() -> StateOf {
    StateOf { studies: 40, event_digest: "e".repeat(64), state_digest: "5".repeat(64) }
}

fn figures(events: u64) -> Option<Figures> {
    Some(Figures { events, instances: events, bytes: events << 19, age_ms: events * 100 })
}

/// A drill in which all went well.
fn passed() -> Report {
    let equal = Comparison {
        equal: Some(true),
        what: "both are in the same state".into(),
        original: state(),
        standby: state(),
    };
    let phase = |name, begun_ms, ended_ms| Phase { name, begun_ms, ended_ms, what: format!("{name} came about") };
    let operation = Operation {
        name: "one study",
        count: 900,
        failed: 0,
        bytes: 0,
        per_second: 30.0,
        p50_ms: 2.5,
        p95_ms: 7.25,
        p99_ms: 12.0,
        max_ms: 31.0,
    };
    let slice = |from_ms| Slice { from_ms, to_ms: from_ms + 500, count: 15, p50_ms: 2.0, p95_ms: 6.0 };
    Report {
        schema: SCHEMA,
        drill: "018f4d2e-9c3a-7000-8000-000000000001".into(),
        version: "1.2.3".into(),
        decided_by: "operator".into(),
        reason: "autumn <exercise> & more".into(),
        begun: "2026-01-31T12:00:00.000Z".into(),
        ended: "2026-01-31T12:00:40.000Z".into(),
        verdict: Verdict { outcome: Outcome::Passed, because: vec!["all is well".into()] },
        original: site("east"),
        standby: site("west"),
        other_sites: vec!["north".into()],
        checks: vec![Check { name: "links", finding: Finding::Good, what: "up, both ways".into() }],
        recovery_time: Objective { target_ms: 60_000, measured_ms: Some(850) },
        recovery_point: Objective { target_ms: 10_000, measured_ms: Some(120) },
        at_risk_at_isolation: figures(2),
        phases: vec![phase("Isolation", 10, 60), phase("Work", 900, 30_900), phase("Fail back", 31_000, 32_500)],
        readiness: vec![Ready { what: "query".into(), after_ms: Some(850), detail: "a list of studies".into() }],
        at_risk: (0..8)
            .map(|at| RiskSample { at_ms: at * 5_000, original: figures(at), standby: figures(1) })
            .collect(),
        workload: Some(Workload {
            begun_ms: 900,
            took_ms: 30_000,
            callers: 4,
            studies: 40,
            operations: vec![operation],
            slices: vec![slice(0), slice(500)],
            failures: BTreeMap::new(),
        }),
        isolated: Some(Comparison { equal: None, what: "something is at risk of 2 studies".into(), ..equal.clone() }),
        sample: Some(Sample {
            asked: 100,
            studies: 40,
            equal: 100,
            bytes: 52 << 20,
            at_risk: 1,
            differences: Vec::new(),
        }),
        afterwards: Some(equal),
        put_back: true,
        interrupted: false,
        troubles: Vec::new(),
        not_tested: vec!["Power.".into()],
        signed_by: "ab".repeat(32),
        files: BTreeMap::new(),
    }
}

#[test]
fn the_verdict_is_the_gravest_of_what_was_found_and_says_all_of_it() {
    let outcome = |change: fn(&mut Report)| {
        let mut report = passed();
        change(&mut report);
        report.judge()
    };
    assert_eq!(outcome(|_| {}).outcome, Outcome::Passed);
    let failed = |report: &mut Report| report.workload.iter_mut().for_each(|work| work.operations[0].failed = 3);
    assert_eq!(outcome(failed).because, ["3 queries or retrievals failed at west"]);
    let slow = outcome(|report| report.recovery_time.measured_ms = Some(60_001));
    assert_eq!(slow.outcome, Outcome::ObjectiveMissed);
    assert_eq!(slow.because, ["recovery time: 1 min, and 1 min was asked for"]);
    assert_eq!(outcome(|report| report.recovery_point.measured_ms = None).outcome, Outcome::ObjectiveMissed);
    let differs = |report: &mut Report| {
        let afterwards = report.afterwards.as_mut().unwrap();
        (afterwards.equal, report.recovery_time.measured_ms) = (Some(false), None);
    };
    let differs = outcome(differs);
    assert_eq!((differs.outcome, differs.because.len()), (Outcome::Differs, 2));
    let sampled = |report: &mut Report| {
        let difference = Difference { object: "ab".into(), event: "cd".into(), what: "it is not there".into() };
        report.sample.as_mut().unwrap().differences.push(difference);
    };
    assert_eq!(outcome(sampled).outcome, Outcome::Differs);
    assert_eq!(outcome(|report| report.isolated.as_mut().unwrap().equal = Some(false)).outcome, Outcome::Differs);
    let interrupted = |report: &mut Report| {
        (report.interrupted, report.recovery_time.measured_ms, report.afterwards) = (true, None, None);
    };
    let interrupted = outcome(interrupted);
    assert_eq!((interrupted.outcome, interrupted.because.len()), (Outcome::Interrupted, 1));
    assert_eq!(outcome(|report| report.troubles.push("away".into())).outcome, Outcome::Failed);
    let left = outcome(|report| (report.put_back, report.interrupted) = (false, true));
    assert_eq!(left.outcome, Outcome::Failed);
    assert!(left.because[0].contains("cairn drill end"), "{left:?}");
}

#[test]
fn a_drill_that_did_not_come_to_a_comparison_has_not_passed() {
    let mut report = passed();
    report.afterwards = None;
    assert_ne!(report.judge().outcome, Outcome::Passed);
}

#[test]
fn pages_say_what_was_measured_and_are_whole() {
    let report = passed();
    let (html, markdown) = (html::page(&report), markdown::page(&report));
    for text in ["Passed", "850 ms", "120 ms", "5555555555", "018f4d2e", "1.0 MiB", "north", "Power.", "links"] {
        assert!(html.contains(text) && markdown.contains(text), "{text} is missing");
    }
    assert!(html.contains("autumn &lt;exercise&gt; &amp; more") && !html.contains("<exercise>"));
    for reference in ["<script", "src=", "href=", "@import", "url(", "NaN", "inf"] {
        assert!(!html.contains(reference), "{reference} in a page that is to be whole in itself");
    }
    assert_eq!(html.matches("<svg").count(), 4, "a time line, two charts of what is at risk, one of latency");
    assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
}

#[test]
fn a_report_of_a_drill_that_ended_at_once_can_be_written() {
    let mut report = passed();
    (report.workload, report.sample, report.isolated, report.afterwards) = (None, None, None, None);
    (report.at_risk, report.phases, report.readiness) = (Vec::new(), Vec::new(), Vec::new());
    report.troubles.push("west is away".into());
    report.verdict = report.judge();
    for page in [html::page(&report), markdown::page(&report)] {
        assert!(page.contains("west is away") && page.contains("Failed") && !page.contains("NaN"));
    }
}

#[test]
fn the_fields_of_the_report_stay_what_they_are() {
    let fields = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let json = serde_json::to_value(passed()).unwrap();
    assert_eq!(json["schema"], "cairn-drill-report/1");
    assert_eq!(
        fields(&json),
        "afterwards at_risk at_risk_at_isolation begun checks decided_by drill ended files interrupted isolated \
         not_tested original other_sites phases put_back readiness reason recovery_point recovery_time sample schema \
         signed_by standby troubles verdict version workload"
    );
    assert_eq!(fields(&json["verdict"]), "because outcome");
    assert_eq!(json["verdict"]["outcome"], "passed");
    assert_eq!(fields(&json["recovery_time"]), "measured_ms target_ms");
    assert_eq!(fields(&json["at_risk_at_isolation"]), "age_ms bytes events instances");
    assert_eq!(
        fields(&json["workload"]["operations"][0]),
        "bytes count failed max_ms name p50_ms p95_ms p99_ms per_second"
    );
    assert_eq!(fields(&json["afterwards"]), "equal original standby what");
    assert_eq!(fields(&json["sample"]), "asked at_risk bytes differences equal studies");
}

#[test]
fn figures_are_for_people() {
    for (ms, text) in [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_050, "1.05 s"),
        (30_000, "30 s"),
        (60_000, "1 min"),
        (61_000, "1 min 1 s"),
        (7_500_000, "2 h 5 min"),
    ] {
        assert_eq!(seconds(ms), text);
    }
    for (bytes, text) in [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (3 << 30, "3.0 GiB")] {
        assert_eq!(size(bytes), text);
    }
}
