//! The report as a page: whole in itself, without scripts, for screens and paper.

use super::{
    checks::Finding,
    markdown::{
        GLOSSARY, SIGNATURE, at_isolation, comparisons, equality, facts, finding, measured, objectives, sample,
    },
    report::{Figures, Outcome, Report, RiskSample, StateOf, Workload, seconds, size},
    svg::{Chart, Series, chart, escape, put, timeline},
};
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");

/// Which figure a chart shows.
type Value = fn(Figures) -> f64;

/// A cell of a table.
enum Cell {
    Text(String),
    Name(String),
    Number(String),
    /// A word that says whether something is as it should be.
    Mark(&'static str, String),
    Code(String),
}

fn table(out: &mut String, head: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) {
    let rows: Vec<Vec<Cell>> = rows.into_iter().collect();
    let is_number = |column: usize| rows.iter().any(|row| matches!(row.get(column), Some(Cell::Number(_))));
    out.push_str("<div class=\"wide\"><table>");
    if head.iter().any(|name| !name.is_empty()) {
        out.push_str("<thead><tr>");
        for (column, name) in head.iter().enumerate() {
            let class = if is_number(column) { " class=\"number\"" } else { "" };
            put!(out, "<th scope=\"col\"{class}>{}</th>", escape(name));
        }
        out.push_str("</tr></thead>");
    }
    out.push_str("<tbody>");
    for row in &rows {
        out.push_str("<tr>");
        for cell in row {
            match cell {
                Cell::Text(text) => put!(out, "<td>{}</td>", escape(text)),
                Cell::Name(text) => put!(out, "<td class=\"name\">{}</td>", escape(text)),
                Cell::Number(text) => put!(out, "<td class=\"number\">{}</td>", escape(text)),
                Cell::Mark(class, text) => put!(out, "<td class=\"name {class}\">{}</td>", escape(text)),
                Cell::Code(text) => put!(out, "<td><code>{}</code></td>", escape(text)),
            }
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
}

/// The whole of it.
pub fn page(report: &Report) -> String {
    let (original, standby) = (escape(&report.original.name), escape(&report.standby.name));
    let mut out = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    put!(out, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    put!(
        out,
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    );
    put!(
        out,
        "<title>Drill: {standby} stands in for {original}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    put!(out, "<header><h1>Disaster recovery drill: {standby} stands in for {original}</h1>");
    put!(
        out,
        "<div class=\"soft\">{} to {}, ordered by {}</div></header>\n",
        escape(&report.begun),
        escape(&report.ended),
        escape(&report.decided_by)
    );
    verdict(&mut out, report);
    tiles(&mut out, report);
    out.push_str("<h2>Who, when, what</h2>");
    table(
        &mut out,
        &["", ""],
        facts(report).into_iter().map(|(name, what)| {
            let cell = if name.starts_with("Signed") || name == "Drill" { Cell::Code(what) } else { Cell::Text(what) };
            vec![Cell::Name(name.into()), cell]
        }),
    );
    phases(&mut out, report);
    recovery(&mut out, report);
    report.workload.iter().for_each(|work| workload(&mut out, report, work));
    equal(&mut out, report);
    out.push_str("<h2>Checked before</h2>");
    table(
        &mut out,
        &["Check", "", "Found"],
        report.checks.iter().map(|check| {
            let class = match check.finding {
                Finding::Good => "good",
                Finding::Note => "note",
                Finding::Refused => "bad",
            };
            vec![
                Cell::Name(check.name.into()),
                Cell::Mark(class, finding(check.finding).into()),
                Cell::Text(check.what.clone()),
            ]
        }),
    );
    list(&mut out, "What went wrong", &report.troubles);
    list(&mut out, "Not tested", &report.not_tested);
    out.push_str("<h2>Words</h2><dl>");
    GLOSSARY.iter().for_each(|(word, meaning)| put!(out, "<dt>{}</dt><dd>{}</dd>", escape(word), escape(meaning)));
    out.push_str("</dl><h2>Signature</h2>");
    let text = escape(SIGNATURE);
    // What stands between backquotes is to be typed.
    let parts = text
        .split('`')
        .enumerate()
        .map(|(at, part)| if at % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() });
    put!(out, "<p>{}</p>\n</main>\n</body>\n</html>\n", parts.collect::<String>());
    out
}

fn verdict(out: &mut String, report: &Report) {
    let outcome = report.verdict.outcome;
    let class = match outcome {
        Outcome::Passed => "passed",
        Outcome::Partial | Outcome::Interrupted => "fair",
        Outcome::Failed | Outcome::Differs | Outcome::ObjectiveMissed => "failed",
    };
    put!(out, "<section class=\"verdict {class}\"><strong>{}</strong>", outcome.words());
    match report.verdict.because.as_slice() {
        [one] => put!(out, "{}.", escape(one)),
        several => {
            out.push_str("<ul>");
            several.iter().for_each(|why| put!(out, "<li>{}</li>", escape(why)));
            out.push_str("</ul>");
        }
    }
    out.push_str("</section>\n");
}

fn tiles(out: &mut String, report: &Report) {
    out.push_str("<div class=\"tiles\">");
    for (name, objective, what) in objectives(report) {
        let (class, met) = if objective.is_met() { ("good", "met") } else { ("bad", "missed") };
        put!(
            out,
            "<div class=\"tile\"><span>{}</span><b class=\"{class}\">{}</b>",
            escape(name),
            escape(&measured(&objective))
        );
        put!(out, "<span>{} asked for: {met}</span><span>{}</span></div>", seconds(objective.target_ms), escape(what));
    }
    let (class, word, what) = match &report.afterwards {
        Some(found) if found.equal == Some(true) => ("good", "Equal", found.what.clone()),
        Some(found) => ("bad", "Different", found.what.clone()),
        None => ("note", "Not compared", "the drill did not come to that".into()),
    };
    put!(
        out,
        "<div class=\"tile\"><span>Both sites afterwards</span><b class=\"{class}\">{word}</b><span>{}</span></div></div>\n",
        escape(&what)
    );
}

fn list(out: &mut String, name: &str, items: &[String]) {
    if !items.is_empty() {
        put!(out, "<h2>{name}</h2><ul>");
        items.iter().for_each(|item| put!(out, "<li>{}</li>", escape(item)));
        out.push_str("</ul>");
    }
}

fn phases(out: &mut String, report: &Report) {
    out.push_str("<h2>What was done</h2><figure>");
    out.push_str(&timeline(&report.phases));
    out.push_str("</figure>");
    table(
        out,
        &["Phase", "Begun after", "Took", "What came of it"],
        report.phases.iter().map(|phase| {
            let took = seconds(phase.ended_ms.saturating_sub(phase.begun_ms));
            vec![
                Cell::Name(phase.name.into()),
                Cell::Number(seconds(phase.begun_ms)),
                Cell::Number(took),
                Cell::Text(phase.what.clone()),
            ]
        }),
    );
}

fn recovery(out: &mut String, report: &Report) {
    out.push_str("<h2>Recovery time</h2>");
    let first = format!("First answer of {}", report.standby.name);
    table(
        out,
        &[&first, "After the isolation", ""],
        report.readiness.iter().map(|ready| {
            let after = match ready.after_ms {
                Some(after) => Cell::Number(seconds(after)),
                None => Cell::Mark("bad", "not answered".into()),
            };
            vec![Cell::Name(ready.what.clone()), after, Cell::Text(ready.detail.clone())]
        }),
    );
    out.push_str("<h2>Recovery point</h2>");
    if let Some(text) = at_isolation(report) {
        put!(out, "<p>{}</p>", escape(&text));
    }
    if report.at_risk.len() < 2 {
        return;
    }
    let (original, standby) = (&report.original.name, &report.standby.name);
    let isolated = report.phases.iter().find(|phase| phase.name == "Isolation").map(|phase| phase.begun_ms);
    let ended = report.phases.iter().find(|phase| phase.name == "Fail back").map(|phase| phase.begun_ms);
    let band = isolated.zip(ended).map(|(from, to)| (from as f64 / 1e3, to as f64 / 1e3, "isolated"));
    let until = report.phases.iter().map(|phase| phase.ended_ms).max().unwrap_or_default() as f64 / 1e3;
    let series = |of: fn(&RiskSample) -> Option<Figures>, value: Value, name: String| Series {
        name,
        points: report.at_risk.iter().map(|at| (at.at_ms as f64 / 1e3, of(at).map(value))).collect(),
    };
    let charts: [(&str, &str, Value); 2] = [
        ("Age of the oldest event at risk", "seconds", |figures| figures.age_ms as f64 / 1e3),
        ("Instances at risk", "instances", |figures| figures.instances as f64),
    ];
    for (about, unit, value) in charts {
        let lines = [
            series(|at| at.original, value, format!("at {original}, not known to be at {standby}")),
            series(|at| at.standby, value, format!("at {standby}, not known to be at {original}")),
        ];
        put!(out, "<figure><figcaption>{about}</figcaption>");
        out.push_str(&chart(&Chart { about, unit, series: &lines, band, until }));
        out.push_str("</figure>");
    }
}

fn workload(out: &mut String, report: &Report, work: &Workload) {
    put!(out, "<h2>Work at {}</h2>", escape(&report.standby.name));
    put!(
        out,
        "<p>{} callers, for {}, over {} studies chosen by chance.</p>",
        work.callers,
        seconds(work.took_ms),
        work.studies
    );
    let head = ["", "Done", "Failed", "A second", "Bytes", "p50", "p95", "p99", "Longest"];
    table(
        out,
        &head,
        work.operations.iter().map(|each| {
            let number = |text: String| Cell::Number(text);
            let mut row = vec![Cell::Name(each.name.into()), number(each.count.to_string())];
            row.push(if each.failed > 0 {
                Cell::Mark("number bad", each.failed.to_string())
            } else {
                number("0".into())
            });
            row.push(number(format!("{:.1}", each.per_second)));
            row.push(number(if each.bytes > 0 { size(each.bytes) } else { "-".into() }));
            row.extend([each.p50_ms, each.p95_ms, each.p99_ms, each.max_ms].map(|ms| number(format!("{ms:.1} ms"))));
            row
        }),
    );
    if work.slices.iter().filter(|slice| slice.count > 0).count() >= 2 {
        let begun = work.begun_ms as f64 / 1e3;
        let until = begun + work.slices.last().map_or(0.0, |slice| slice.to_ms as f64 / 1e3);
        let series = |name: &str, value: fn(&super::report::Slice) -> f64| Series {
            name: name.into(),
            points: work
                .slices
                .iter()
                .map(|slice| {
                    let middle = (slice.from_ms + slice.to_ms) as f64 / 2e3;
                    (begun + middle, (slice.count > 0).then(|| value(slice)))
                })
                .collect(),
        };
        let lines = [
            series("half are done within (p50)", |slice| slice.p50_ms),
            series("95 of 100 are done within (p95)", |slice| slice.p95_ms),
        ];
        let about = "Time that queries and retrievals took";
        put!(out, "<figure><figcaption>{about}</figcaption>");
        out.push_str(&chart(&Chart { about, unit: "milliseconds", series: &lines, band: None, until }));
        out.push_str("</figure>");
    }
    let failures: Vec<String> = work.failures.iter().map(|(what, count)| format!("{count} times: {what}")).collect();
    list(out, "What failed of it", &failures);
}

fn equal(out: &mut String, report: &Report) {
    out.push_str("<h2>Equality</h2>");
    if let Some(text) = sample(report) {
        put!(out, "<p>{}</p>", escape(&text));
    }
    let differences = report.sample.iter().flat_map(|sample| &sample.differences);
    let rows: Vec<Vec<Cell>> = differences
        .map(|difference| {
            vec![
                Cell::Code(difference.object.clone()),
                Cell::Code(difference.event.clone()),
                Cell::Text(difference.what.clone()),
            ]
        })
        .collect();
    if !rows.is_empty() {
        table(out, &["Object (BLAKE3)", "Event", "Difference"], rows);
    }
    for (when, found) in comparisons(report) {
        let class = match found.equal {
            Some(true) => "good",
            Some(false) => "bad",
            None => "note",
        };
        put!(out, "<p><b>{when}: <span class=\"{class}\">{}</span></b>: {}.</p>", equality(found), escape(&found.what));
        let row = |name: &str, of: &StateOf| {
            vec![
                Cell::Name(name.into()),
                Cell::Number(of.studies.to_string()),
                Cell::Code(of.event_digest.clone()),
                Cell::Code(of.state_digest.clone()),
            ]
        };
        let rows = [row(&report.original.name, &found.original), row(&report.standby.name, &found.standby)];
        table(out, &["Site", "Studies", "Event digest", "State digest"], rows);
    }
}
