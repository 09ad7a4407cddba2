//! A job that waits for others, as it is asked for and as the record keeps it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::JobRequest;
use super::bullmq_options::JobsOptions;

/// An unchecked request for a tree of jobs. A job runs when all of its children are done.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = NewFlow, examples(json!(
    { "job": { "jobType": "noop" }, "children": [{ "job": { "jobType": "noop" } }] }))))]
pub struct FlowRequest {
    /// Only the root's may have an idempotency key, and only one without children a delay: a parent
    /// starts when its children are done.
    pub job: JobRequest,
    /// Of a child: what its parent does when it fails for good.
    #[serde(default)]
    pub on_failure: OnFailure,
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(no_recursion, max_items = 1000))]
    pub children: Vec<Self>,
}

/// What a parent does when a child fails for good. The words are `BullMQ`'s, but for the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum OnFailure {
    /// It waits on: a person may retry the child.
    #[default]
    Wait,
    /// It fails, too.
    FailParent,
    /// It runs at once, whatever else it waits for.
    ContinueParent,
    /// It no longer waits for this child, and can ask why it failed.
    IgnoreDependency,
    /// It no longer waits for this child.
    RemoveDependency,
}

impl OnFailure {
    pub fn write(self, options: &mut JobsOptions) {
        options.fail_parent_on_failure = self == Self::FailParent;
        options.continue_parent_on_failure = self == Self::ContinueParent;
        options.ignore_dependency_on_failure = self == Self::IgnoreDependency;
        options.remove_dependency_on_failure = self == Self::RemoveDependency;
    }

    /// From the `parent` field of a child.
    pub fn read(parent: &str) -> Self {
        let options = JobsOptions::read(parent);
        match options.policies().first() {
            Some(&"fpof") => Self::FailParent,
            Some(&"cpof") => Self::ContinueParent,
            Some(&"idof") => Self::IgnoreDependency,
            Some(&"rdof") => Self::RemoveDependency,
            _ => Self::Wait,
        }
    }
}

/// What the record keeps of a job of a flow (`jobs.wire`), so that Redis can hold it again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowWire {
    /// JSON text, with `BullMQ`'s names.
    pub opts: String,
    /// The number of the wire.
    pub priority: u32,
    /// `prefix:queue:id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_key: Option<String>,
    /// The `parent` field of its hash, JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Present, even if empty, in the row of every job of a flow.
    pub children: Vec<Uuid>,
}

impl FlowWire {
    /// The parent's id; a durable flow has no others. From the `parent` field, which names it: a
    /// key does not show where an id begins that holds colons itself.
    pub fn parent_id(&self) -> Option<Uuid> {
        let named = self.parent.as_deref().and_then(|parent| {
            let parent: serde_json::Value = serde_json::from_str(parent).ok()?;
            Some(parent.get("id")?.as_str()?.to_owned())
        });
        match (named, self.parent_key.as_deref()?.rsplit_once(':')?) {
            (Some(id), _) => id.parse().ok(),
            (None, (_, id)) => id.parse().ok(),
        }
    }

    pub fn on_failure(&self) -> OnFailure {
        self.parent
            .as_deref()
            .map(OnFailure::read)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_parent_does_is_read_back_as_it_was_written() {
        for rule in [
            OnFailure::Wait,
            OnFailure::FailParent,
            OnFailure::ContinueParent,
            OnFailure::IgnoreDependency,
            OnFailure::RemoveDependency,
        ] {
            let mut options = JobsOptions::default();
            rule.write(&mut options);
            assert_eq!(OnFailure::read(&options.write()), rule);
        }
        assert_eq!(OnFailure::read("nonsense"), OnFailure::Wait);
    }

    #[test]
    fn a_parent_is_found_by_its_key() {
        let id = Uuid::now_v7();
        let wire = FlowWire {
            parent_key: Some(format!("bull:mails:{id}")),
            ..FlowWire::default()
        };
        assert_eq!(wire.parent_id(), Some(id));
        assert_eq!(FlowWire::default().parent_id(), None);
        let repeated = FlowWire {
            parent_key: Some(format!("bull:mails:repeat:s:{id}")),
            parent: Some(format!(
                r#"{{"id":"repeat:s:{id}","queueKey":"bull:mails"}}"#
            )),
            ..FlowWire::default()
        };
        assert_eq!(repeated.parent_id(), None, "not the end of another id");
    }
}
