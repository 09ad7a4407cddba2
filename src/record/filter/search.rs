//! What each row must be looked at for: texts and values that no index knows.

use serde::{Deserialize, Serialize};

use super::Query;

/// Conditions that no index serves. At most [`super::SEARCHED_MAX`] jobs are looked at for a page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Search {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts_min: Option<i32>,
    /// In the error message, in whatever case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// In the payload as JSON text or in the error message, in whatever case.
    #[serde(rename = "q", skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Members of payloads that are not searched for a text: patterns for their names, see
    /// `bullwark.redacted`. They go with an action, which is carried out later.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<String>,
    /// Values in the payload: their path, and what stands there, as text.
    #[serde(with = "by_path", skip_serializing_if = "Vec::is_empty")]
    pub payload: Vec<(Vec<String>, String)>,
}

pub(in crate::record) fn push_search(query: &mut Query, search: &Search) {
    if let Some(min) = search.attempts_min {
        query.push(" AND attempts >= ").push_bind(min);
    }
    if let Some(error) = &search.error {
        query.push(" AND strpos(lower(error_message), lower(");
        query.push_bind(error.clone()).push(")) > 0");
    }
    if let Some(text) = &search.text {
        query.push(" AND (strpos(lower(payload::text), lower(");
        query.push_bind(text.clone()).push(")) > 0");
        if !search.hidden.is_empty() {
            // Dearer: only of those that have it somewhere.
            query.push(" AND strpos(lower(bullwark.redacted(payload, ");
            query
                .push_bind(search.hidden.clone())
                .push(")::text), lower(");
            query.push_bind(text.clone()).push(")) > 0");
        }
        query.push(" OR strpos(lower(coalesce(error_message, '')), lower(");
        query.push_bind(text.clone()).push(")) > 0)");
    }
    for (path, value) in &search.payload {
        query.push(" AND payload #>> ").push_bind(path.clone());
        query.push(" = ").push_bind(value.clone());
        // Not a whole object: whoever may not see one of its members could guess at it.
        query
            .push(" AND jsonb_typeof(payload #> ")
            .push_bind(path.clone());
        query.push(") NOT IN ('object', 'array')");
    }
}

/// Paths as they are written in requests: names with dots between them, of which they have none.
mod by_path {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        payload: &[(Vec<String>, String)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let pairs = payload.iter().map(|(path, value)| (path.join("."), value));
        pairs.collect::<BTreeMap<_, _>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(Vec<String>, String)>, D::Error> {
        let pairs = BTreeMap::<String, String>::deserialize(deserializer)?;
        let split = |path: String| path.split('.').map(str::to_owned).collect();
        Ok(pairs
            .into_iter()
            .map(|(p, value)| (split(p), value))
            .collect())
    }
}
