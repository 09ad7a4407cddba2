//! The payload of `generate_report` jobs, and the plan that is made of it.

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::deliver_export::payload::check;
use super::super::deliver_export::{DeliverTo, Delivery};
use crate::job::Problem;
use crate::job::period::{Period, PeriodName};
use crate::job::schedule::Zone;

/// Longest title and longest file name, in characters.
pub const TEXT_MAX: usize = 200;
/// What the file is of, as lists of files say it.
pub const ENTITY: &str = "pipeline";

/// What a `generate_report` job is asked to do. All of it may be left out.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = NewReport))]
pub struct GenerateReport {
    /// What it is about.
    pub report_type: ReportType,
    /// Days with a name, counted back from when the job was due; `last_7_days` if nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<PeriodName>,
    /// In place of a period: the first day, `2026-11-01`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<NaiveDate>,
    /// With `from`: the last day, which is part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<NaiveDate>,
    /// Whose days: a name such as `Europe/Berlin`, or `UTC+3`. UTC if nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    pub format: ReportFormat,
    /// What stands at its top.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    #[cfg_attr(feature = "server", schema(min_length = 1, max_length = 200))]
    pub title: Option<String>,
    /// What the file is called where it is downloaded; for people, never a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    #[cfg_attr(feature = "server", schema(min_length = 1, max_length = 200))]
    pub file_name: Option<String>,
    /// May be left out: the file waits to be downloaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver_to: Option<DeliverTo>,
    /// With `deliver_to`: whom the mail goes to, or what is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum ReportType {
    /// What jobs did: volumes, failures, times, imports, exports.
    #[default]
    Pipeline,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum ReportFormat {
    /// A page for people, with charts, to look at or print.
    #[default]
    Html,
    /// The same figures, one to a line.
    Csv,
}

impl ReportFormat {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Html => "html",
            Self::Csv => "csv",
        }
    }
}

/// A payload that was checked.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(super) period: Period,
    pub(super) zone: Zone,
    pub(super) format: ReportFormat,
    pub(super) title: String,
    pub(super) file_name: Option<String>,
}

impl Plan {
    /// The plan of a payload, or every mistake in it.
    pub fn new(payload: &GenerateReport) -> Result<Self, Vec<Problem>> {
        let mut mistakes = check(payload.deliver_to, payload.delivery.as_ref());
        let mut wrong = |pointer: &str, message: String| {
            let pointer = pointer.to_owned();
            mistakes.push(Problem { pointer, message });
        };
        let period = match (payload.period, payload.from, payload.to) {
            (name, None, None) => Period::Named(name.unwrap_or_default()),
            (None, Some(from), Some(to)) => {
                if to < from {
                    wrong("/to", "is before `from`".to_owned());
                }
                Period::Days(from, to)
            }
            (Some(_), from, _) => {
                let pointer = if from.is_some() { "/from" } else { "/to" };
                wrong(
                    pointer,
                    "goes with no `period`: leave one of them out".to_owned(),
                );
                Period::Named(PeriodName::default())
            }
            (None, Some(_), None) => {
                wrong("/to", "is missing: `from` goes with a last day".to_owned());
                Period::Named(PeriodName::default())
            }
            (None, None, Some(_)) => {
                wrong("/from", "is missing: `to` goes with a first day".to_owned());
                Period::Named(PeriodName::default())
            }
        };
        let zone = payload
            .zone
            .as_deref()
            .map_or(Ok(Zone::default()), str::parse);
        let zone = zone.unwrap_or_else(|error: crate::job::schedule::UnknownZone| {
            wrong("/zone", error.to_string());
            Zone::default()
        });
        for (pointer, text) in [
            ("/title", &payload.title),
            ("/file_name", &payload.file_name),
        ] {
            let Some(text) = text else { continue };
            if text.trim().is_empty() || text.chars().count() > TEXT_MAX {
                wrong(pointer, format!("must have 1 to {TEXT_MAX} characters"));
            } else if text.chars().any(char::is_control) {
                wrong(pointer, "must not have control characters".to_owned());
            }
        }
        let plan = Self {
            period,
            zone,
            format: payload.format,
            title: payload
                .title
                .clone()
                .unwrap_or_else(|| "Pipeline report".to_owned()),
            file_name: payload.file_name.clone(),
        };
        match mistakes.is_empty() {
            true => Ok(plan),
            false => Err(mistakes),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn plan(payload: Value) -> Result<Plan, Vec<String>> {
        let payload: GenerateReport = serde_json::from_value(payload).unwrap();
        Plan::new(&payload).map_err(|wrong| wrong.into_iter().map(|w| w.pointer).collect())
    }

    #[test]
    fn a_report_needs_nothing_and_each_mistake_has_its_place() {
        let usual = plan(json!({})).unwrap();
        assert_eq!(usual.period, Period::Named(PeriodName::Last7Days));
        assert_eq!(
            (usual.format, usual.zone),
            (ReportFormat::Html, Zone::default())
        );
        let days = json!({"from": "2026-11-01", "to": "2026-11-30", "zone": "europe/berlin"});
        assert!(matches!(plan(days).unwrap().period, Period::Days(..)));
        for (payload, pointers) in [
            (
                json!({"period": "today", "from": "2026-11-01"}),
                vec!["/from"],
            ),
            (json!({"period": "today", "to": "2026-11-01"}), vec!["/to"]),
            (json!({"from": "2026-11-01"}), vec!["/to"]),
            (json!({"to": "2026-11-01"}), vec!["/from"]),
            (
                json!({"from": "2026-11-02", "to": "2026-11-01"}),
                vec!["/to"],
            ),
            (
                json!({"zone": "Mars", "title": " ", "file_name": "a\nb"}),
                vec!["/zone", "/title", "/file_name"],
            ),
        ] {
            assert_eq!(plan(payload.clone()).unwrap_err(), pointers, "{payload}");
        }
        let unknown = serde_json::from_value::<GenerateReport>(json!({"days": 7}));
        assert!(unknown.is_err());
    }
}
