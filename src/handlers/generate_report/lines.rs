//! A report as CSV: one figure to a line, in the same four columns whatever it is, so that a
//! spreadsheet filters it and a program reads it. Texts that a spreadsheet would compute are inert.

use std::io;

use csv::{QuoteStyle, Terminator, WriterBuilder};

use super::Report;
use crate::handlers::formula::guarded;
use crate::record::latencies::Latencies;
use crate::record::rollups::Ended;

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    section: &'static str,
    subject: String,
    measure: String,
    value: Value,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Count(i64),
    Ms(f64),
    Text(String),
}

impl From<i64> for Value {
    fn from(count: i64) -> Self {
        Self::Count(count)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

struct Lines(Vec<Line>);

impl Lines {
    fn add(
        &mut self,
        section: &'static str,
        subject: &str,
        measure: impl Into<String>,
        value: impl Into<Value>,
    ) {
        self.0.push(Line {
            section,
            subject: subject.to_owned(),
            measure: measure.into(),
            value: value.into(),
        });
    }

    fn ended(&mut self, section: &'static str, subject: &str, ended: &Ended) {
        self.add(section, subject, "completed", ended.completed);
        self.add(section, subject, "failed_attempts", ended.failed);
        self.add(section, subject, "dead_letters", ended.dead);
        self.add(section, subject, "cancelled", ended.cancelled);
        self.times(section, subject, "wait", &ended.waits);
        self.times(section, subject, "run", &ended.runs);
    }

    fn times(&mut self, section: &'static str, subject: &str, of: &str, times: &Latencies) {
        let Some(found) = times.quantiles() else {
            return;
        };
        for (name, ms) in [("p50", found.p50), ("p95", found.p95), ("p99", found.p99)] {
            self.add(section, subject, format!("{of}_{name}_ms"), Value::Ms(ms));
        }
    }
}

/// All figures of a report, in the order of its page.
pub(super) fn lines(report: &Report) -> Vec<Line> {
    let mut lines = Lines(Vec::new());
    let figures = &report.figures;
    for (measure, text) in [
        ("title", report.title.clone()),
        ("workspace", figures.workspace.clone()),
        ("from", report.local(report.span.from)),
        ("to", report.local(report.span.to)),
        ("zone", report.zone.to_string()),
        ("read_at", report.local(figures.read_at)),
    ] {
        lines.add("report", "", measure, text);
    }
    for note in report.notes() {
        lines.add("report", "", "note", note);
    }
    lines.ended("all", "", &figures.volumes.all);
    let slots = if report.span.is_hourly() {
        "hours"
    } else {
        "days"
    };
    for (slot, ended) in report.slots.iter().zip(&figures.volumes.slots) {
        lines.ended(slots, &slot.name, ended);
    }
    for (name, ended) in &figures.volumes.types {
        lines.ended("types", name, ended);
    }
    for open in &figures.open {
        lines.add("open_now", &open.job_queue, &*open.status, open.jobs);
    }
    lines.add("open_now", "", "dead_letter", figures.dead_now);
    for cause in &figures.died.causes {
        let subject = cause.fingerprint.to_string();
        lines.add("errors", &subject, "job_type", cause.job_type.clone());
        lines.add("errors", &subject, "error", cause.error_pattern.clone());
        lines.add("errors", &subject, "count", cause.count);
        lines.add("errors", &subject, "first_at", report.local(cause.first_at));
        lines.add("errors", &subject, "last_at", report.local(cause.last_at));
        lines.add("errors", &subject, "example_job", cause.example.to_string());
    }
    for sum in &figures.imports {
        let subject = format!("{} {}", sum.entity_type, sum.status);
        for (measure, rows) in [
            ("imports", sum.runs),
            ("rows", sum.processed),
            ("inserted", sum.inserted),
            ("updated", sum.updated),
            ("unchanged", sum.unchanged),
            ("skipped", sum.skipped),
            ("failed", sum.failed),
        ] {
            lines.add("imports", &subject, measure, rows);
        }
    }
    for sum in &figures.exports {
        let subject = format!("{} {} {}", sum.entity_type, sum.format, sum.status);
        lines.add("exports", &subject, "exports", sum.files);
        lines.add("exports", &subject, "rows", sum.rows);
        lines.add("exports", &subject, "bytes", sum.bytes);
    }
    for sum in figures.matches.enrichments.iter().flatten() {
        lines.add("enrichment", &sum.kind, "asked", sum.asked);
        lines.add("enrichment", &sum.kind, "matched", sum.matched);
    }
    for sum in figures.matches.emails.iter().flatten() {
        lines.add("email", &sum.state, "mails", sum.mails);
    }
    lines.0
}

/// The file.
pub(super) fn csv(lines: &[Line]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut writer = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .quote_style(QuoteStyle::Necessary)
        .from_writer(&mut out);
    writer.write_record(["section", "subject", "measure", "value"])?;
    for line in lines {
        let value = match &line.value {
            Value::Count(count) => count.to_string(),
            Value::Ms(ms) => format!("{ms:.1}"),
            Value::Text(text) => guarded(text).into_owned(),
        };
        let (subject, measure) = (guarded(&line.subject), guarded(&line.measure));
        writer.write_record([line.section, &subject, &measure, &value])?;
    }
    writer.flush()?;
    drop(writer);
    Ok(out)
}
