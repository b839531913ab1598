//! The report as Markdown.

use super::{
    checks::Finding,
    report::{Comparison, Objective, Report, seconds, size},
    svg::put,
};
use std::fmt::Write;

/// What words mean that a reader may not know.
pub const GLOSSARY: [(&str, &str); 9] = [
    (
        "Authority",
        "The right to decide what must be decided in one place. One site has it. Instances are stored at every site, with authority or without.",
    ),
    ("Epoch", "Number of a promotion. The highest counts."),
    ("Promotion", "A site takes authority."),
    ("Fail back", "Authority returns to the site that had it, which first gets everything that the other holds."),
    (
        "RPO, recovery point objective",
        "How much may be lost at most, as the age of the oldest event that only the lost site had.",
    ),
    ("RTO, recovery time objective", "How long it may take at most until another site does the work."),
    (
        "At risk",
        "Acknowledged at one site, and not known to be durable at the other: what a loss of the one would cost at that moment.",
    ),
    (
        "Event digest",
        "A sum over the identities of all events that a site has taken into account: equal sums come from the same events.",
    ),
    ("State digest", "A hash of everything that a site answers queries from. Equal digests mean equal answers."),
];

/// A sentence per objective.
pub fn objectives(report: &Report) -> [(&'static str, Objective, &'static str); 2] {
    [
        (
            "Recovery time (RTO)",
            report.recovery_time,
            "from the isolation until the standby site had answered everything",
        ),
        (
            "Recovery point (RPO)",
            report.recovery_point,
            "age of the oldest event that would have been lost at the isolation",
        ),
    ]
}

/// What was measured, in words.
pub fn measured(objective: &Objective) -> String {
    objective.measured_ms.map_or_else(|| "not measured".to_owned(), seconds)
}

/// What is known of who and when, as rows.
pub fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let site = |site: &super::report::Site| {
        let titles = if site.ae_titles.is_empty() { "-".to_owned() } else { site.ae_titles.join(", ") };
        format!(
            "{} (Cairn {}, fold {}); answers to {titles}; {} studies, {} instances; at {}",
            site.name,
            site.version,
            site.fold_version,
            site.studies,
            site.instances,
            site.addresses.join(", ")
        )
    };
    let mut rows = vec![
        ("Drill", report.drill.clone()),
        ("Begun", report.begun.clone()),
        ("Ended", report.ended.clone()),
        ("Ordered by", report.decided_by.clone()),
        ("Reason", report.reason.clone()),
        ("Original site", site(&report.original)),
        ("Standby site", site(&report.standby)),
        ("Report by", format!("cairn {}, schema {}", report.version, report.schema)),
        ("Signed with the key", report.signed_by.clone()),
    ];
    if !report.other_sites.is_empty() {
        rows.insert(7, ("Other sites", report.other_sites.join(", ")));
    }
    rows
}

/// What was at risk at the isolation, in words.
pub fn at_isolation(report: &Report) -> Option<String> {
    let figures = report.at_risk_at_isolation?;
    if figures.events == 0 {
        let (original, standby) = (&report.original.name, &report.standby.name);
        return Some(format!(
            "Had {original} been lost at the isolation, nothing would have been lost with it: {standby} had everything."
        ));
    }
    Some(format!(
        "Had {} been lost at the isolation, {} events would have been lost with it, {} instances among them ({}), the oldest {} old.",
        report.original.name,
        figures.events,
        figures.instances,
        size(figures.bytes),
        seconds(figures.age_ms)
    ))
}

/// What the sample came to, in words.
pub fn sample(report: &Report) -> Option<String> {
    let sample = report.sample.as_ref()?;
    let mut text = format!(
        "{} instances of {} studies, chosen by chance, were retrieved at {} ({}) and compared byte for byte with the digests that {} has: {} are equal, {} differ",
        sample.equal + sample.differences.len(),
        sample.studies,
        report.standby.name,
        size(sample.bytes),
        report.original.name,
        sample.equal,
        sample.differences.len()
    );
    if sample.at_risk > 0 {
        put!(text, "; {} were left out because they were known to be at risk", sample.at_risk);
    }
    text.push('.');
    Some(text)
}

/// Comparisons, with their names.
pub fn comparisons(report: &Report) -> Vec<(&'static str, &Comparison)> {
    let named = [("While isolated", report.isolated.as_ref()), ("After the fail back", report.afterwards.as_ref())];
    named.into_iter().filter_map(|(name, found)| Some((name, found?))).collect()
}

/// How a comparison came out, in a word.
pub fn equality(found: &Comparison) -> &'static str {
    match found.equal {
        Some(true) => "equal",
        Some(false) => "DIFFERENT",
        None => "not compared",
    }
}

/// How a check came out, in a word.
pub fn finding(finding: Finding) -> &'static str {
    match finding {
        Finding::Good => "ok",
        Finding::Note => "note",
        Finding::Refused => "REFUSED",
    }
}

/// How the signature is checked.
pub const SIGNATURE: &str = "report.json holds every figure, and the SHA-256 of this page; report.json.sig is its Ed25519 signature. `cairn drill verify DIRECTORY --public-key FILE` checks both, with the public key that its owner gave you by another way. Any other tool can: `openssl pkeyutl -verify -pubin -inkey FILE -rawin -in report.json -sigfile report.json.sig`.";

fn cell(text: &str) -> String {
    text.replace('|', "/").chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn rows(out: &mut String, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    put!(out, "| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|text| cell(text)).collect();
        put!(out, "| {} |\n", cells.join(" | "));
    }
    out.push('\n');
}

/// The whole of it.
pub fn page(report: &Report) -> String {
    let mut out = format!("# Drill: {} stands in for {}\n\n", report.standby.name, report.original.name);
    put!(out, "**{}.** {}.\n\n", report.verdict.outcome.words(), cell(&report.verdict.because.join("; ")));
    rows(
        &mut out,
        &["Objective", "Asked for", "Measured", ""],
        objectives(report).map(|(name, objective, what)| {
            let met = if objective.is_met() { "met" } else { "MISSED" };
            vec![format!("{name}: {what}"), seconds(objective.target_ms), measured(&objective), met.into()]
        }),
    );
    out.push_str("## Who, when, what\n\n");
    rows(&mut out, &["", ""], facts(report).into_iter().map(|(name, what)| vec![name.to_owned(), what]));
    out.push_str("## What was done\n\n");
    rows(
        &mut out,
        &["Phase", "Begun after", "Took", "What came of it"],
        report.phases.iter().map(|phase| {
            let took = phase.ended_ms.saturating_sub(phase.begun_ms);
            vec![phase.name.to_owned(), seconds(phase.begun_ms), seconds(took), phase.what.clone()]
        }),
    );
    figures(&mut out, report);
    out.push_str("## Checked before\n\n");
    rows(
        &mut out,
        &["Check", "", "Found"],
        report
            .checks
            .iter()
            .map(|check| vec![check.name.to_owned(), finding(check.finding).to_owned(), check.what.clone()]),
    );
    if !report.troubles.is_empty() {
        out.push_str("## What went wrong\n\n");
        report.troubles.iter().for_each(|trouble| put!(out, "- {}\n", cell(trouble)));
        out.push('\n');
    }
    out.push_str("## Not tested\n\n");
    report.not_tested.iter().for_each(|not| put!(out, "- {}\n", cell(not)));
    out.push_str("\n## Words\n\n");
    GLOSSARY.iter().for_each(|(word, meaning)| put!(out, "- **{word}**: {meaning}\n"));
    put!(out, "\n## Signature\n\n{SIGNATURE}\n");
    out
}

fn figures(out: &mut String, report: &Report) {
    out.push_str("## Recovery time\n\n");
    rows(
        out,
        &[&format!("First answer of {}", report.standby.name), "After the isolation", ""],
        report.readiness.iter().map(|ready| {
            let after = ready.after_ms.map_or_else(|| "NOT ANSWERED".to_owned(), seconds);
            vec![ready.what.clone(), after, ready.detail.clone()]
        }),
    );
    if let Some(text) = at_isolation(report) {
        put!(out, "## Recovery point\n\n{text}\n\n");
    }
    if let Some(work) = &report.workload {
        put!(
            out,
            "## Work at {}\n\n{} callers, for {}, over {} studies chosen by chance.\n\n",
            report.standby.name,
            work.callers,
            seconds(work.took_ms),
            work.studies
        );
        let head = ["", "Done", "Failed", "A second", "Bytes", "p50", "p95", "p99", "Longest"];
        rows(
            out,
            &head,
            work.operations.iter().map(|each| {
                let ms = |ms: f64| format!("{ms} ms");
                let counts = [each.count.to_string(), each.failed.to_string(), each.per_second.to_string()];
                let mut row = vec![each.name.to_owned()];
                row.extend(counts);
                row.push(size(each.bytes));
                row.extend([each.p50_ms, each.p95_ms, each.p99_ms, each.max_ms].map(ms));
                row
            }),
        );
        work.failures.iter().for_each(|(what, count)| put!(out, "- {count} times: {}\n", cell(what)));
    }
    out.push_str("## Equality\n\n");
    let state = |of: &super::report::StateOf| {
        format!("{} studies, events {}, state {}", of.studies, of.event_digest, of.state_digest)
    };
    rows(
        out,
        &["When", "", "", &report.original.name, &report.standby.name],
        comparisons(report).into_iter().map(|(when, found)| {
            vec![
                when.to_owned(),
                equality(found).to_owned(),
                found.what.clone(),
                state(&found.original),
                state(&found.standby),
            ]
        }),
    );
    if let Some(text) = sample(report) {
        put!(out, "{text}\n\n");
    }
    for difference in report.sample.iter().flat_map(|sample| &sample.differences) {
        put!(out, "- object {}, event {}: {}\n", difference.object, difference.event, difference.what);
    }
}
