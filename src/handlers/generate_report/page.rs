//! A report as one page of HTML.
//!
//! Its own policy allows its own style, by its hash, and nothing else. Where a stricter policy
//! takes even that away, it is plain, and whole all the same: charts need no style.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::chart::{self, Series};
use super::text::{count, escaped, percent, time};
use super::{Report, tables};
use crate::record::latencies::{Latencies, Quantiles};
use crate::record::rollups::Ended;

const STYLE: &str = include_str!("page.css");
const COMPLETED: (&str, &str) = ("completed", "#2e7d5b");
const FAILED: (&str, &str) = ("failed attempts", "#e0a32e");
const DEAD: (&str, &str) = ("dead letters", "#c0392b");
const CANCELLED: (&str, &str) = ("cancelled", "#98a1ad");
const WAITED: (&str, &str) = ("waited", "#3b6fb6");
const RAN: (&str, &str) = ("ran", "#8a4fa3");

/// The whole file.
pub(super) fn page(report: &Report) -> String {
    let figures = &report.figures;
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    let (title, workspace) = (escaped(&report.title), escaped(&figures.workspace));
    let (from, to) = (report.local(report.span.from), report.local(report.span.to));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n<h1><bdi>{title}</bdi></h1>\n\
         <p><bdi>{workspace}</bdi> · {} to {} · {}</p>\n</header>\n",
        shown(&from),
        shown(&to),
        escaped(&report.zone.to_string()),
    );
    cards(&mut html, &figures.volumes.all);
    volumes(&mut html, report);
    latencies(&mut html, report);
    tables::all(&mut html, report);
    let _ = write!(
        html,
        "<footer>\n<p>Read at {} by Bullwark. Percentiles are within a fifth of the truth.</p>\n",
        shown(&report.local(figures.read_at))
    );
    for note in report.notes() {
        let _ = writeln!(html, "<p>{}</p>", escaped(&note));
    }
    html.push_str("</footer>\n</main>\n</body>\n</html>\n");
    html
}

/// `2026-11-27 13:00`: the zone stands beside it.
pub(super) fn shown(local: &str) -> String {
    local.get(..16).unwrap_or(local).replace('T', " ")
}

/// The figures that people look for first.
fn cards(html: &mut String, all: &Ended) {
    let p95 = |times: &Latencies| times.quantiles().map_or("–".to_owned(), |q| time(q.p95));
    html.push_str("<ul class=\"cards\">\n");
    for (name, value) in [
        ("Completed", count(all.completed)),
        ("Failed attempts", count(all.failed)),
        ("Dead letters", count(all.dead)),
        ("Cancelled", count(all.cancelled)),
        (
            "Succeeded",
            percent(all.completed, all.completed + all.dead),
        ),
        ("Waited (p95)", p95(&all.waits)),
        ("Ran (p95)", p95(&all.runs)),
    ] {
        let _ = writeln!(html, "<li><b>{value}</b> <span>{name}</span></li>");
    }
    html.push_str("</ul>\n");
}

fn names(report: &Report) -> Vec<String> {
    report.slots.iter().map(|slot| slot.name.clone()).collect()
}

fn unit(report: &Report) -> &'static str {
    if report.span.is_hourly() {
        "hour"
    } else {
        "day"
    }
}

fn volumes(html: &mut String, report: &Report) {
    let slots = &report.figures.volumes.slots;
    let series = |(name, color), of: fn(&Ended) -> i64| Series {
        name,
        color,
        values: slots.iter().map(of).collect(),
    };
    let all = [
        series(COMPLETED, |ended| ended.completed),
        series(CANCELLED, |ended| ended.cancelled),
        series(FAILED, |ended| ended.failed),
        series(DEAD, |ended| ended.dead),
    ];
    let title = format!("What ended by {}", unit(report));
    let chart = chart::columns(&title, &names(report), &all);
    section(html, &title, &chart, all.iter().map(|s| (s.name, s.color)));
}

fn latencies(html: &mut String, report: &Report) {
    let slots = &report.figures.volumes.slots;
    let series = |(name, color), of: fn(&Ended) -> &Latencies| Series {
        name,
        color,
        values: slots
            .iter()
            .map(|ended| of(ended).quantiles().map(|Quantiles { p95, .. }| p95))
            .collect(),
    };
    let all = [
        series(WAITED, |ended| &ended.waits),
        series(RAN, |ended| &ended.runs),
    ];
    let title = format!("How long 95 % waited and ran at most, by {}", unit(report));
    let chart = chart::times(&title, &names(report), &all);
    section(html, &title, &chart, all.iter().map(|s| (s.name, s.color)));
}

fn section<'a>(
    html: &mut String,
    title: &str,
    chart: &str,
    legend: impl Iterator<Item = (&'a str, &'a str)>,
) {
    let legend = chart::legend(legend);
    let _ = writeln!(
        html,
        "<section>\n<h2>{}</h2>\n{legend}\n<figure>{chart}</figure>\n</section>",
        escaped(title)
    );
}
