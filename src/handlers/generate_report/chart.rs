//! Charts as SVG inside of a page.
//!
//! Promises: no script, no style and nothing from elsewhere: how they look is in presentation
//! attributes, so they are whole under any content security policy and on paper. Each has a title
//! for those who do not see it; every figure of a chart stands in a tooltip, too.

use std::fmt::Write;

use super::text::{count, escaped, time};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
/// Where the plot is.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 708.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 190.0;
/// Labels below the plot, and lines across it.
const LABELS_MAX: usize = 10;
const TICKS_MAX: f64 = 5.0;
const INK: &str = "#5f6671";
const GRID: &str = "#dfe3e8";

/// Values of one kind, one per slot.
pub(super) struct Series<T> {
    pub(super) name: &'static str,
    pub(super) color: &'static str,
    pub(super) values: Vec<T>,
}

/// Times at which an axis of times has a line, in milliseconds.
const TIMES: [(f64, &str); 12] = [
    (1.0, "1 ms"),
    (10.0, "10 ms"),
    (100.0, "100 ms"),
    (1e3, "1 s"),
    (1e4, "10 s"),
    (6e4, "1 min"),
    (6e5, "10 min"),
    (3.6e6, "1 h"),
    (3.6e7, "10 h"),
    (3.456e8, "4 d"),
    (3.456e9, "40 d"),
    (3.456e10, "400 d"),
];

/// One column per slot, with the series on top of each other.
pub(super) fn columns(title: &str, slots: &[String], series: &[Series<i64>]) -> String {
    let sum = |n: usize| series.iter().map(|s| s.values[n]).sum::<i64>();
    let most = (0..slots.len()).map(sum).max().unwrap_or_default();
    let step = step(most);
    let top = ((most as f64 / step).ceil() * step).max(step);
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * value / top;
    let mut svg = begin(title);
    let mut tick = 0.0;
    while tick <= top {
        line(&mut svg, y(tick), &count(tick as i64));
        tick += step;
    }
    labels(&mut svg, slots);
    let width = (RIGHT - LEFT) / slots.len().max(1) as f64;
    for (n, slot) in slots.iter().enumerate() {
        let mut below = 0.0;
        for Series {
            name,
            color,
            values,
        } in series
        {
            let value = values[n];
            if value <= 0 {
                continue;
            }
            let (from, to) = (y(below), y(below + value as f64));
            below += value as f64;
            let _ = write!(
                svg,
                "<rect x=\"{:.1}\" y=\"{to:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{color}\">\
                 <title>{}: {name} {}</title></rect>",
                LEFT + width * (n as f64 + 0.1),
                width * 0.8,
                // A few of very many are seen all the same.
                (from - to).max(0.8),
                escaped(slot),
                count(value),
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

/// A line per series, on a scale on which ten times as long is one step.
pub(super) fn times(title: &str, slots: &[String], series: &[Series<Option<f64>>]) -> String {
    let all = || {
        series
            .iter()
            .flat_map(|s| s.values.iter().flatten().copied())
    };
    let most = all().fold(1.0, f64::max);
    let least = all().fold(most, f64::min);
    let low = TIMES
        .iter()
        .rposition(|(ms, _)| *ms <= least)
        .unwrap_or_default();
    let high = TIMES.iter().position(|(ms, _)| *ms >= most);
    let high = high
        .unwrap_or(TIMES.len() - 1)
        .max(low + 1)
        .min(TIMES.len() - 1);
    let low = low.min(high - 1);
    let (from, to) = (TIMES[low].0.log10(), TIMES[high].0.log10());
    let y = |ms: f64| {
        let place = (ms.max(1.0).log10() - from) / (to - from);
        BOTTOM - (BOTTOM - TOP) * place.clamp(0.0, 1.0)
    };
    let mut svg = begin(title);
    for (ms, label) in &TIMES[low..=high] {
        line(&mut svg, y(*ms), label);
    }
    labels(&mut svg, slots);
    let width = (RIGHT - LEFT) / slots.len().max(1) as f64;
    let x = |n: usize| LEFT + width * (n as f64 + 0.5);
    for Series {
        name,
        color,
        values,
    } in series
    {
        // Where nothing ended there is no time, and the line has a gap.
        for run in runs(values) {
            let points: Vec<String> = run
                .iter()
                .map(|(n, ms)| format!("{:.1},{:.1}", x(*n), y(*ms)))
                .collect();
            if points.len() > 1 {
                let _ = write!(
                    svg,
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
                    points.join(" ")
                );
            }
            for (n, ms) in run {
                let _ = write!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{color}\">\
                     <title>{}: {name} {}</title></circle>",
                    x(n),
                    y(ms),
                    escaped(&slots[n]),
                    time(ms)
                );
            }
        }
    }
    svg.push_str("</svg>");
    svg
}

/// What the colours of a chart mean.
pub(super) fn legend<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut html = "<p class=\"legend\">".to_owned();
    for (name, color) in entries {
        let _ = write!(
            html,
            "<span><svg width=\"10\" height=\"10\" aria-hidden=\"true\"><rect width=\"10\" \
             height=\"10\" rx=\"2\" fill=\"{color}\"/></svg> {name}</span> "
        );
    }
    html.push_str("</p>");
    html
}

/// Values that follow each other, with their slots.
fn runs(values: &[Option<f64>]) -> Vec<Vec<(usize, f64)>> {
    let mut runs = vec![Vec::new()];
    for (n, value) in values.iter().enumerate() {
        match (value, runs.last_mut()) {
            (Some(ms), Some(run)) => run.push((n, *ms)),
            _ => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

fn begin(title: &str) -> String {
    let title = escaped(title);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" \
         aria-label=\"{title}\" font-family=\"sans-serif\" font-size=\"11\"><title>{title}</title>"
    )
}

/// A line across the plot, and what it stands for.
fn line(svg: &mut String, y: f64, label: &str) {
    let _ = write!(
        svg,
        "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"{GRID}\"/>\
         <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{INK}\">{label}</text>",
        LEFT - 6.0,
        y + 4.0
    );
}

/// The hour or the day of as many slots as there is room for.
fn labels(svg: &mut String, slots: &[String]) {
    let every = slots.len().div_ceil(LABELS_MAX).max(1);
    let width = (RIGHT - LEFT) / slots.len().max(1) as f64;
    for (n, slot) in slots.iter().enumerate().step_by(every) {
        // `2026-11-27T13:00:00+01:00`, or `2026-11-27`.
        let short = slot.get(11..16).or_else(|| slot.get(5..10));
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"{INK}\">{}</text>",
            LEFT + width * (n as f64 + 0.5),
            BOTTOM + 18.0,
            escaped(short.unwrap_or(slot))
        );
    }
}

/// Between two lines of an axis of whole numbers up to `most`: 1, 2 or 5 with zeros.
fn step(most: i64) -> f64 {
    let wanted = (most as f64 / TICKS_MAX).max(1.0);
    let power = 10f64.powf(wanted.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
    let fits = steps.into_iter().find(|step| *step >= wanted);
    fits.unwrap_or(power * 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(count: usize) -> Vec<String> {
        (1..=count).map(|n| format!("2026-11-{n:02}")).collect()
    }

    #[test]
    fn an_axis_has_a_few_round_numbers() {
        for (most, wanted) in [
            (0, 1.0),
            (4, 1.0),
            (6, 2.0),
            (23, 5.0),
            (51, 20.0),
            (9_999, 2_000.0),
        ] {
            assert_eq!(step(most), wanted, "{most}");
        }
    }

    #[test]
    fn charts_are_whole_with_any_values() {
        for values in [vec![], vec![0, 0], vec![1, i64::from(u32::MAX)]] {
            let names = slots(values.len());
            let series = Series {
                name: "completed",
                color: "#000",
                values: values.clone(),
            };
            let svg = columns("a <b>", &names, &[series]);
            assert!(
                svg.contains("a &lt;b&gt;") && svg.ends_with("</svg>"),
                "{svg}"
            );
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            let bars = values.iter().filter(|v| **v > 0).count();
            assert_eq!(svg.matches("<rect").count(), bars);
        }
        for values in [
            vec![],
            vec![None],
            vec![Some(0.0)],
            vec![Some(3.0), None, Some(5e4), Some(9e12)],
        ] {
            let names = slots(values.len());
            let points = values.iter().flatten().count();
            let series = Series {
                name: "waited",
                color: "#000",
                values,
            };
            let svg = times("t", &names, &[series]);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert_eq!(svg.matches("<circle").count(), points);
        }
    }

    #[test]
    fn a_line_has_gaps_where_nothing_ended() {
        let found = runs(&[None, Some(1.0), Some(2.0), None, None, Some(3.0)]);
        assert_eq!(found, [vec![(1, 1.0), (2, 2.0)], vec![(5, 3.0)]]);
    }
}
