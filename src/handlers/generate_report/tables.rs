//! The tables of a page.

use std::fmt::Write;

use super::Report;
use super::page::shown;
use super::text::{bytes, count, escaped, percent, time};
use crate::record::latencies::Latencies;
use crate::record::rollups::Ended;

/// Job types that have a row of their own, those of which most ended; CSV has all.
const TYPES_SHOWN: usize = 50;
/// Queues that have rows.
const QUEUES_SHOWN: usize = 50;

/// A column: its name, and whether it is of numbers.
type Column = (&'static str, bool);

pub(super) fn all(html: &mut String, report: &Report) {
    types(html, report);
    errors(html, report);
    open(html, report);
    imports(html, report);
    exports(html, report);
    matches(html, report);
}

/// A cell of text that came from outside.
fn text(text: &str) -> String {
    format!("<bdi>{}</bdi>", escaped(text))
}

/// Cells are HTML.
fn table(html: &mut String, title: &str, columns: &[Column], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let long = if rows.len() > 12 {
        " class=\"long\""
    } else {
        ""
    };
    let _ = write!(
        html,
        "<section{long}>\n<h2>{title}</h2>\n<div class=\"scroll\"><table>\n<thead><tr>"
    );
    for (name, is_number) in columns {
        let class = if *is_number { " class=\"n\"" } else { "" };
        let _ = write!(html, "<th scope=\"col\"{class}>{name}</th>");
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for (cell, (_, is_number)) in row.iter().zip(columns) {
            let class = if *is_number { "n" } else { "t" };
            let _ = write!(html, "<td class=\"{class}\">{cell}</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table></div>\n</section>\n");
}

fn types(html: &mut String, report: &Report) {
    let ended = |ended: &Ended| ended.completed + ended.failed + ended.dead + ended.cancelled;
    let mut types: Vec<(&str, &Ended)> = Vec::new();
    let found = &report.figures.volumes.types;
    types.extend(found.iter().map(|(name, sum)| (name.as_str(), sum)));
    // By number, and by name where that is the same.
    types.sort_by_key(|(_, sum)| std::cmp::Reverse(ended(sum)));
    let mut rest = Ended::default();
    for (_, sum) in types.iter().skip(TYPES_SHOWN) {
        rest.add(sum);
    }
    let more = types.len().saturating_sub(TYPES_SHOWN);
    let mut named: Vec<(String, &Ended)> = types
        .iter()
        .take(TYPES_SHOWN)
        .map(|(name, sum)| (text(name), *sum))
        .collect();
    if more > 0 {
        named.push((format!("{more} others"), &rest));
    }
    if named.len() > 1 {
        named.push(("<b>all</b>".to_owned(), &report.figures.volumes.all));
    }
    if named.is_empty() {
        html.push_str("<section>\n<p>Nothing ended in this period.</p>\n</section>\n");
    }
    let columns = [
        ("Job type", false),
        ("Completed", true),
        ("Failed attempts", true),
        ("Dead letters", true),
        ("Cancelled", true),
        ("Succeeded", true),
    ];
    let rows = named.iter().map(|(name, sum)| volume_row(name, sum));
    table(html, "By job type", &columns, rows.collect());
    let columns = [
        ("Job type", false),
        ("Waited p50", true),
        ("p95", true),
        ("p99", true),
        ("Ran p50", true),
        ("p95", true),
        ("p99", true),
    ];
    let rows = named.iter().map(|(name, sum)| time_row(name, sum));
    table(html, "Times by job type", &columns, rows.collect());
}

fn volume_row(name: &str, sum: &Ended) -> Vec<String> {
    vec![
        name.to_owned(),
        count(sum.completed),
        count(sum.failed),
        count(sum.dead),
        count(sum.cancelled),
        percent(sum.completed, sum.completed + sum.dead),
    ]
}

fn time_row(name: &str, sum: &Ended) -> Vec<String> {
    let times = |times: &Latencies| match times.quantiles() {
        Some(found) => [found.p50, found.p95, found.p99].map(time),
        None => ["–"; 3].map(str::to_owned),
    };
    let cells = times(&sum.waits).into_iter().chain(times(&sum.runs));
    std::iter::once(name.to_owned()).chain(cells).collect()
}

fn errors(html: &mut String, report: &Report) {
    let rows = report.figures.died.causes.iter().map(|cause| {
        vec![
            text(&cause.job_type),
            format!("<code>{}</code>", text(&cause.error_pattern)),
            count(cause.count),
            shown(&report.local(cause.first_at)),
            shown(&report.local(cause.last_at)),
            format!("<code>{}</code>", cause.example),
        ]
    });
    let columns = [
        ("Job type", false),
        ("Error", false),
        ("Jobs", true),
        ("First", true),
        ("Last", true),
        ("Newest job", false),
    ];
    let title = "What killed jobs that are still dead letters";
    table(html, title, &columns, rows.collect());
}

fn open(html: &mut String, report: &Report) {
    let figures = &report.figures;
    let queues = figures.open.iter().take(QUEUES_SHOWN);
    let mut rows: Vec<_> = queues
        .map(|open| vec![text(&open.job_queue), text(&open.status), count(open.jobs)])
        .collect();
    if figures.open.len() > QUEUES_SHOWN {
        let rest = figures.open.iter().skip(QUEUES_SHOWN);
        let rest: i64 = rest.map(|open| open.jobs).sum();
        rows.push(vec![
            "other queues".to_owned(),
            "open".to_owned(),
            count(rest),
        ]);
    }
    if figures.dead_now > 0 {
        let dead = count(figures.dead_now);
        rows.push(vec!["all".to_owned(), "dead_letter".to_owned(), dead]);
    }
    let columns = [("Queue", false), ("Status", false), ("Jobs", true)];
    table(html, "Open when this was read", &columns, rows);
}

fn imports(html: &mut String, report: &Report) {
    let rows = report.figures.imports.iter().map(|sum| {
        vec![
            text(&sum.entity_type),
            text(&sum.status),
            count(sum.runs),
            count(sum.processed),
            count(sum.inserted),
            count(sum.updated),
            count(sum.unchanged),
            count(sum.skipped),
            count(sum.failed),
            percent(sum.matched(), sum.processed),
        ]
    });
    let columns = [
        ("Imports of", false),
        ("Status", false),
        ("Imports", true),
        ("Rows", true),
        ("New", true),
        ("Updated", true),
        ("Unchanged", true),
        ("Skipped", true),
        ("Failed", true),
        ("Matched", true),
    ];
    table(html, "Imports", &columns, rows.collect());
}

fn exports(html: &mut String, report: &Report) {
    let rows = report.figures.exports.iter().map(|sum| {
        vec![
            text(&sum.entity_type),
            text(&sum.format),
            text(&sum.status),
            count(sum.files),
            count(sum.rows),
            bytes(sum.bytes),
        ]
    });
    let columns = [
        ("Exports of", false),
        ("Format", false),
        ("Status", false),
        ("Exports", true),
        ("Rows", true),
        ("Size", true),
    ];
    table(html, "Exports", &columns, rows.collect());
}

fn matches(html: &mut String, report: &Report) {
    let found = &report.figures.matches;
    let rows = found.enrichments.iter().flatten().map(|sum| {
        let rate = percent(sum.matched, sum.asked);
        vec![text(&sum.kind), count(sum.asked), count(sum.matched), rate]
    });
    let columns = [
        ("Enrichment", false),
        ("Asked", true),
        ("Matched", true),
        ("Match rate", true),
    ];
    table(html, "Enrichment", &columns, rows.collect());
    let mails = || found.emails.iter().flatten();
    let all: i64 = mails().map(|sum| sum.mails).sum();
    let rows = mails().map(|sum| {
        let part = percent(sum.mails, all);
        vec![text(&sum.state), count(sum.mails), part]
    });
    let columns = [("Mails", false), ("Number", true), ("Part", true)];
    table(html, "Email", &columns, rows.collect());
}
