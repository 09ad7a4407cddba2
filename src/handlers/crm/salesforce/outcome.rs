//! What Salesforce says of one record, as an outcome.
//!
//! Source: SOAP API Developer Guide, "`StatusCode`"; REST API Developer Guide, "Duplicate Rules".
//! The codes are the same in `sObject` Collections and in the failed results of the Bulk API, where
//! one text has all of it: `CODE:message:fields --`.

use serde::Deserialize;
use serde_json::Value;

use super::super::client::{Outcome, Push, Refusal};
use super::log_in::is_id;

/// What is kept of a message, in characters, and of fields.
const MESSAGE_MAX: usize = 500;
const FIELDS_MAX: usize = 20;

/// A result of sObject Collections.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Said {
    pub(super) id: Option<String>,
    pub(super) success: bool,
    pub(super) created: bool,
    pub(super) errors: Vec<SaidError>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SaidError {
    pub(super) status_code: String,
    pub(super) message: String,
    pub(super) fields: Vec<String>,
    /// Older versions spell it without the second `l`.
    #[serde(alias = "duplicateResut")]
    pub(super) duplicate_result: Value,
}

impl Said {
    pub(super) fn outcome(self, push: &Push) -> Outcome {
        match (self.success, self.id) {
            (true, Some(id)) => Outcome::Done {
                id,
                is_new: self.created,
                modified_at: None,
            },
            // An update says nothing but that it was done.
            (true, None) if push.id.is_some() => Outcome::Done {
                id: push.id.clone().unwrap_or_default(),
                is_new: false,
                modified_at: None,
            },
            _ => {
                let error = self.errors.into_iter().next().unwrap_or_default();
                error.outcome(push.id.as_deref())
            }
        }
    }
}

impl SaidError {
    /// From `CODE:message:fields --`.
    pub(super) fn parse(text: &str) -> Self {
        let text = text.trim();
        let (code, rest) = text.split_once(':').unwrap_or((text, ""));
        let (message, fields) = match rest.strip_suffix("--").map(str::trim_end) {
            Some(rest) => rest.rsplit_once(':').unwrap_or((rest, "")),
            None => (rest, ""),
        };
        let fields = fields
            .split(',')
            .map(str::trim)
            .filter(|field| !field.is_empty());
        Self {
            status_code: code.trim().to_owned(),
            message: message.trim().to_owned(),
            fields: fields.map(str::to_owned).collect(),
            duplicate_result: Value::Null,
        }
    }

    /// `known`: the id that the record was addressed by.
    pub(super) fn outcome(self, known: Option<&str>) -> Outcome {
        let is_about_parent = self.fields.iter().any(|field| field == "AccountId");
        let other = self.match_id();
        let refusal = Refusal {
            code: match self.status_code.as_str() {
                "" => "UNKNOWN".to_owned(),
                code => code.chars().take(100).collect(),
            },
            message: self.message.chars().take(MESSAGE_MAX).collect(),
            fields: self.fields.into_iter().take(FIELDS_MAX).collect(),
        };
        match refusal.code.as_str() {
            "UNABLE_TO_LOCK_ROW"
            | "SERVER_UNAVAILABLE"
            | "REQUEST_RUNNING_TOO_LONG"
            | "QUERY_TIMEOUT"
            | "UNKNOWN_EXCEPTION"
            | "ALL_OR_NONE_OPERATION_ROLLED_BACK"
            | "EXCEEDED_MAX_SEMIJOIN_SUBSELECTS"
            | "REQUEST_LIMIT_EXCEEDED"
            | "NO_RESULT"
            | "NOT_PROCESSED" => Outcome::Retryable(refusal),
            "DUPLICATES_DETECTED" | "DUPLICATE_VALUE" => Outcome::Duplicate { id: other, refusal },
            "ENTITY_IS_DELETED" if known.is_some() && !is_about_parent => Outcome::Gone(refusal),
            // Of a parent, too; only the field tells them apart, and the record itself has none.
            "INVALID_CROSS_REFERENCE_KEY" | "NOT_FOUND"
                if known.is_some() && refusal.fields.is_empty() =>
            {
                Outcome::Gone(refusal)
            }
            _ => Outcome::Permanent(refusal),
        }
    }

    /// The record that it is taken for.
    fn match_id(&self) -> Option<String> {
        let matched = self
            .duplicate_result
            .pointer("/matchResults/0/matchRecords/0/record");
        let of_rule = matched.and_then(|record| {
            let url = record.pointer("/attributes/url").and_then(Value::as_str);
            let id = record.get("Id").and_then(Value::as_str);
            id.or_else(|| url.and_then(|url| url.rsplit('/').next()))
        });
        // "duplicate value found: X duplicates value on record with id: 003…"
        let of_value = self.message.rsplit("id: ").next().map(str::trim);
        let id = of_rule.or(of_value)?;
        is_id(id).then(|| id.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(code: &str, known: Option<&str>) -> Outcome {
        SaidError::parse(&format!("{code}:words: with a colon:LastName --")).outcome(known)
    }

    #[test]
    fn the_text_of_a_bulk_result_is_taken_apart() {
        let text = "REQUIRED_FIELD_MISSING:Required fields are missing: [LastName]:LastName --";
        let error = SaidError::parse(text);
        assert_eq!(error.status_code, "REQUIRED_FIELD_MISSING");
        assert_eq!(error.message, "Required fields are missing: [LastName]");
        assert_eq!(error.fields, ["LastName"]);
        let bare = SaidError::parse("UNABLE_TO_LOCK_ROW:unable to obtain access:--");
        assert_eq!(
            (bare.message.as_str(), bare.fields.len()),
            ("unable to obtain access", 0)
        );
    }

    #[test]
    fn refusals_are_told_apart() {
        assert!(matches!(
            of("UNABLE_TO_LOCK_ROW", None),
            Outcome::Retryable(_)
        ));
        assert!(matches!(of("STRING_TOO_LONG", None), Outcome::Permanent(_)));
        assert!(matches!(
            of("ENTITY_IS_DELETED", Some("x")),
            Outcome::Gone(_)
        ));
        assert!(matches!(
            of("ENTITY_IS_DELETED", None),
            Outcome::Permanent(_)
        ));
        let value = "DUPLICATE_VALUE:duplicate value found: X duplicates value on record with id: \
                     003000000000001AAA:--";
        let Outcome::Duplicate { id, .. } = SaidError::parse(value).outcome(None) else {
            panic!("no duplicate");
        };
        assert_eq!(id.as_deref(), Some("003000000000001AAA"));
        let error: SaidError = serde_json::from_value(json!({
            "statusCode": "DUPLICATES_DETECTED", "message": "Use one of these records?",
            "fields": [], "duplicateResut": { "matchResults": [{ "matchRecords": [{
                "record": { "attributes": { "type": "Contact",
                    "url": "/services/data/v62.0/sobjects/Contact/003000000000002AAA" } } }] }] },
        }))
        .unwrap();
        assert!(matches!(error.outcome(None),
            Outcome::Duplicate { id: Some(id), .. } if id == "003000000000002AAA"));
    }
}
