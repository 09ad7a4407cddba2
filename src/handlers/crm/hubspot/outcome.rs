//! What an answer to a batch says of each of its records. Pure.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::super::client::{Outcome, Refusal};
use super::id_of;

/// The longest message that is kept, in characters.
const MESSAGE_MAX: usize = 1000;
/// In the message of a conflict, before the id of the other record.
const EXISTING: &str = "Existing ID: ";

/// What tells a record of a batch.
#[derive(Debug, Clone)]
pub(super) struct Input<'a> {
    /// The id, or the value of the property that it is upserted by.
    pub(super) key: &'a str,
    /// The property; none: the id.
    pub(super) property: Option<&'a str>,
    pub(super) trace: &'a str,
}

/// Outcomes of the inputs, in their order; none: the answer does not say.
pub(super) fn outcomes(inputs: &[Input<'_>], answer: &Value) -> Vec<Option<Outcome>> {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; inputs.len()];
    let list = |name: &str| {
        answer
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    for result in list("results") {
        let found = inputs.iter().position(|input| is_of(input, result));
        if let (Some(place), Some(outcome)) = (found, done(result)) {
            outcomes[place] = Some(outcome);
        }
    }
    for error in list("errors") {
        for (input, outcome) in inputs.iter().zip(&mut outcomes) {
            if outcome.is_none() && is_about(input, error) {
                *outcome = Some(refused(error));
            }
        }
    }
    outcomes
}

fn is_of(input: &Input<'_>, result: &Value) -> bool {
    if let Some(trace) = result.get("objectWriteTraceId").and_then(Value::as_str) {
        return trace == input.trace;
    }
    match input.property {
        None => id_of(result).as_deref() == Some(input.key),
        Some(property) => {
            let value = result.get("properties").and_then(|all| all.get(property));
            let value = value.and_then(Value::as_str);
            value.is_some_and(|value| value.eq_ignore_ascii_case(input.key))
        }
    }
}

/// Errors name what they are about in lists of texts.
fn is_about(input: &Input<'_>, error: &Value) -> bool {
    let Some(context) = error.get("context").and_then(Value::as_object) else {
        return false;
    };
    let lists = context.values().filter_map(Value::as_array).flatten();
    lists
        .filter_map(Value::as_str)
        .any(|text| text == input.key || text == input.trace)
}

fn done(result: &Value) -> Option<Outcome> {
    let moment = |name: &str| {
        let text = result.get(name)?.as_str()?;
        let moment = DateTime::parse_from_rfc3339(text).ok()?;
        Some(moment.with_timezone(&Utc))
    };
    Some(Outcome::Done {
        id: id_of(result)?,
        is_new: result.get("new").and_then(Value::as_bool).unwrap_or(false),
        modified_at: moment("updatedAt"),
    })
}

/// What an error says, of a record or of the one record of a call.
pub(super) fn refused(error: &Value) -> Outcome {
    let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    let (category, message) = (text("category"), text("message"));
    let context = error.get("context").and_then(Value::as_object);
    let named = context.and_then(|context| {
        let names = context
            .get("propertyName")
            .or_else(|| context.get("properties"))?;
        let names = names.as_array()?.iter().filter_map(Value::as_str);
        Some(names.map(str::to_owned).collect())
    });
    let refusal = Refusal {
        code: match category {
            "" => "REJECTED".to_owned(),
            category => category.to_owned(),
        },
        message: message.chars().take(MESSAGE_MAX).collect(),
        fields: named.unwrap_or_default(),
    };
    match category {
        "OBJECT_NOT_FOUND" => Outcome::Gone(refusal),
        "CONFLICT" => {
            let id = message.split_once(EXISTING).map(|(_, rest)| {
                let digits = rest.chars().take_while(char::is_ascii_digit);
                digits.collect::<String>()
            });
            Outcome::Duplicate {
                id: id.filter(|id| !id.is_empty()),
                refusal,
            }
        }
        "RATE_LIMITS" | "SERVICE_UNAVAILABLE" | "INTERNAL_ERROR" => Outcome::Retryable(refusal),
        _ => Outcome::Permanent(refusal),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_record_gets_what_is_said_of_it_and_no_other() {
        let input = |key, trace| Input {
            key,
            property: Some("email"),
            trace,
        };
        let inputs = [
            input("a@x.com", "t1"),
            input("B@x.com", "t2"),
            input("c@x.com", "t3"),
        ];
        let answer = json!({
            "results": [
                { "id": "7", "new": true, "updatedAt": "2026-01-01T00:00:00Z",
                  "properties": { "email": "b@x.com" } },
            ],
            "errors": [
                { "category": "VALIDATION_ERROR", "message": "no", "context": { "id": ["a@x.com"],
                  "propertyName": ["phone"] } },
            ],
        });
        let all = outcomes(&inputs, &answer);
        let Some(Outcome::Permanent(refusal)) = &all[0] else {
            panic!("{all:?}");
        };
        assert_eq!(refusal.fields, ["phone"]);
        assert!(matches!(&all[1], Some(Outcome::Done { id, is_new: true, .. }) if id == "7"));
        assert_eq!(all[2], None, "the answer says nothing of it");
        let conflict = json!({
            "category": "CONFLICT", "message": "Contact already exists. Existing ID: 4711",
        });
        let Outcome::Duplicate { id, .. } = refused(&conflict) else {
            panic!("no duplicate");
        };
        assert_eq!(id.as_deref(), Some("4711"));
    }
}
