//! Charts as SVG inside a page: no scripts; colours are the page's classes, so that they suit paper, light and dark.

use super::report::{Phase, seconds};
use std::fmt::Write;

/// Width of every chart, in its own units; the page scales them.
const WIDTH: f64 = 760.0;
/// Room for names of phases, and for what stands behind bars.
const NAMES: f64 = 110.0;
const BEHIND: f64 = 90.0;
const ROW: f64 = 26.0;
/// Room around the field of a chart of lines.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;
const FIELD: f64 = 150.0;

/// A line in a chart. A point without a value leaves a gap.
pub struct Series {
    pub name: String,
    /// Seconds, and the value then.
    pub points: Vec<(f64, Option<f64>)>,
}

/// A chart of lines over time.
pub struct Chart<'a> {
    /// What it shows, for those who don't see it.
    pub about: &'a str,
    pub unit: &'a str,
    pub series: &'a [Series],
    /// A part of the time that is marked, and its name.
    pub band: Option<(f64, f64, &'a str)>,
    /// Where the axis of time ends, in seconds.
    pub until: f64,
}

/// Text that stands in a page.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

/// Writing into a `String` does not fail.
macro_rules! put {
    ($out:expr, $($what:tt)*) => {{
        let _never_fails = write!($out, $($what)*);
    }};
}
pub(super) use put;

/// A round distance between marks of an axis that ends here: about `count` of them.
fn step(until: f64, count: f64) -> f64 {
    let rough = (until / count).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    let of = rough / power;
    let round = if of <= 1.0 {
        1.0
    } else if of <= 2.0 {
        2.0
    } else if of <= 5.0 {
        5.0
    } else {
        10.0
    };
    round * power
}

/// A number without more digits than its step has.
fn number(value: f64, step: f64) -> String {
    let digits = if step >= 1.0 { 0 } else { (-step.log10()).ceil().clamp(0.0, 6.0) as usize };
    format!("{value:.digits$}")
}

fn marks(until: f64, count: f64) -> impl Iterator<Item = (f64, String)> {
    let step = step(until, count);
    let last = (until / step + 1e-6).floor().max(0.0) as u32;
    (0..=last).map(move |mark| (f64::from(mark) * step, number(f64::from(mark) * step, step)))
}

/// Marks of time below a field that begins at `left`.
fn time_axis(out: &mut String, (left, width): (f64, f64), (top, bottom): (f64, f64), until: f64) {
    for (at, text) in marks(until, 8.0) {
        let x = left + at / until * width;
        put!(out, "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>");
        put!(out, "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>", bottom + 14.0);
    }
    let (x, y) = (left + width, bottom + 28.0);
    put!(
        out,
        "<text class=\"tick\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">seconds since the drill began</text>"
    );
}

/// When each phase was.
pub fn timeline(phases: &[Phase]) -> String {
    let last = phases.iter().map(|phase| phase.ended_ms).max().unwrap_or_default();
    let until = (last as f64 / 1e3).max(0.001);
    let width = WIDTH - NAMES - BEHIND;
    let bottom = TOP + ROW * phases.len() as f64;
    let height = bottom + BOTTOM;
    let mut out = String::new();
    put!(out, "<svg role=\"img\" viewBox=\"0 0 {WIDTH} {height}\" aria-label=\"Time line of the phases\">");
    time_axis(&mut out, (NAMES, width), (TOP, bottom), until);
    for (number, phase) in phases.iter().enumerate() {
        let y = TOP + ROW * number as f64;
        let x = |ms: u64| NAMES + ms as f64 / 1e3 / until * width;
        let (from, wide) = (x(phase.begun_ms), (x(phase.ended_ms) - x(phase.begun_ms)).max(3.0));
        let took = seconds(phase.ended_ms.saturating_sub(phase.begun_ms));
        let name = escape(phase.name);
        put!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>", NAMES - 10.0, y + 17.0);
        put!(
            out,
            "<rect class=\"bar\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"14\" rx=\"2\">",
            y + 6.0
        );
        put!(out, "<title>{name}: {}</title></rect>", escape(&phase.what));
        put!(out, "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{took}</text>", from + wide + 6.0, y + 17.0);
    }
    out.push_str("</svg>");
    out
}

/// Lines over time.
pub fn chart(chart: &Chart<'_>) -> String {
    let until = chart.until.max(0.001);
    let values = chart.series.iter().flat_map(|series| series.points.iter().filter_map(|(_, value)| *value));
    let highest = values.fold(0.0, f64::max);
    let top = if highest > 0.0 { step(highest, 4.0) * (highest / step(highest, 4.0)).ceil() } else { 1.0 };
    let (width, bottom) = (WIDTH - LEFT - RIGHT, TOP + FIELD);
    let height = bottom + BOTTOM;
    let x = |at: f64| LEFT + (at / until).clamp(0.0, 1.0) * width;
    let y = |value: f64| bottom - value / top * FIELD;
    let mut out = String::new();
    let about = escape(chart.about);
    put!(out, "<svg role=\"img\" viewBox=\"0 0 {WIDTH} {height}\" aria-label=\"{about}\"><title>{about}</title>");
    if let Some((from, to, name)) = chart.band {
        let (from, wide) = (x(from), (x(to) - x(from)).max(1.0));
        put!(out, "<rect class=\"band\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{wide:.1}\" height=\"{FIELD}\"/>");
        put!(out, "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text>", from + 4.0, TOP + 12.0, escape(name));
    }
    for (value, text) in marks(top, 4.0) {
        let at = y(value);
        put!(out, "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\"/>", LEFT + width);
        put!(
            out,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    put!(out, "<text class=\"tick\" x=\"{LEFT}\" y=\"{:.1}\">{}</text>", bottom + 28.0, escape(chart.unit));
    time_axis(&mut out, (LEFT, width), (TOP, bottom), until);
    for (number, series) in chart.series.iter().enumerate() {
        let mut path = String::new();
        let mut is_down = false;
        for (at, value) in &series.points {
            if let Some(value) = value {
                put!(path, "{}{:.1} {:.1}", if is_down { "L" } else { "M" }, x(*at), y(*value));
            }
            is_down = value.is_some();
        }
        put!(out, "<path class=\"line s{}\" d=\"{path}\"/>", number % 2 + 1);
    }
    out.push_str("</svg>");
    out.push_str(&legend(chart.series));
    out
}

fn legend(series: &[Series]) -> String {
    let mut out = String::from("<p class=\"legend\">");
    for (number, series) in series.iter().enumerate() {
        put!(out, "<span><i class=\"key s{}\"></i>{}</span> ", number % 2 + 1, escape(&series.name));
    }
    out.push_str("</p>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_marks() {
        let all = |until| marks(until, 4.0).map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(all(1.0), ["0.0", "0.5", "1.0"]);
        assert_eq!(all(37.0), ["0", "10", "20", "30"]);
        assert_eq!(all(0.02), ["0.000", "0.005", "0.010", "0.015", "0.020"]);
    }

    #[test]
    fn a_chart_of_nothing_is_a_chart() {
        let empty = Chart { about: "a < b", unit: "s", series: &[], band: None, until: 0.0 };
        assert!(chart(&empty).contains("a &lt; b") && !chart(&empty).contains("NaN"));
        assert!(!timeline(&[]).contains("NaN"));
        let series = [Series { name: "<i>".into(), points: vec![(0.0, Some(0.0)), (1.0, None), (2.0, Some(1.0))] }];
        let lines = chart(&Chart { series: &series, until: 2.0, ..empty });
        assert!(lines.matches('M').count() >= 2 && !lines.contains("NaN"), "a gap begins a new line: {lines}");
    }
}
