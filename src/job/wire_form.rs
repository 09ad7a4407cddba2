//! What a job that a `BullMQ` client added brought along: `jobs.wire` in the record.
//!
//! The columns of the record do not name these things, or know them by another scale. They are kept
//! as they came, so that the job can be put back into Redis as it was.

use serde::{Deserialize, Serialize};

use super::ForeignOptions;

/// The parts of a foreign job's hash that only Redis knows. Every text is as the client wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireForm {
    /// JSON text, with `BullMQ`'s names.
    pub opts: String,
    /// The number of the wire: 0 none, 1 most urgent.
    pub priority: u32,
    /// The payload, when it is no JSON that the record can hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The key of the parent, `prefix:queue:id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_key: Option<String>,
    /// JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The schedule that it is an iteration of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rjk: Option<String>,
    /// Its deduplication id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deid: Option<String>,
}

impl WireForm {
    /// Whether the client wanted it next in line.
    pub fn is_lifo(&self) -> bool {
        ForeignOptions::read(&self.opts).lifo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_back_as_it_was_written() {
        let form = WireForm {
            opts: r#"{"attempts":3,"lifo":true,"x":"\u0000"}"#.into(),
            priority: 7,
            parent: Some(r#"{"id":"1"}"#.into()),
            ..WireForm::default()
        };
        let text = serde_json::to_string(&form).unwrap();
        assert_eq!(serde_json::from_str::<WireForm>(&text).unwrap(), form);
        assert!(form.is_lifo());
    }

    #[test]
    fn anything_may_stand_in_the_options() {
        for opts in ["", "null", "[]", "{}", r#"{"lifo":"yes"}"#] {
            let form = WireForm {
                opts: opts.into(),
                ..WireForm::default()
            };
            assert!(!form.is_lifo(), "{opts}");
        }
        assert_eq!(
            serde_json::from_str::<WireForm>("{}").unwrap(),
            WireForm::default()
        );
    }
}
