//! The payload of `send_email_batch`: which step of which sequence goes to whom.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most contacts of a job.
pub(super) const CONTACTS_MAX: usize = 10_000;
/// Mails between two lines of the log, when the payload does not say, and at most.
pub(super) const BATCH_SIZE_DEFAULT: u32 = 50;
pub(super) const BATCH_SIZE_MAX: u32 = 1_000;

/// What a `send_email_batch` job is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendEmailBatch {
    /// A sequence of this workspace.
    pub sequence_id: Uuid,
    /// One of its steps.
    pub sequence_step_id: Uuid,
    /// Each is sent the step once, whatever job asks for it.
    #[schemars(length(min = 1, max = 10_000))]
    pub contact_ids: Vec<Uuid>,
    /// Mails of a batch: the log has a line for each.
    #[serde(default = "batch_size")]
    #[schemars(range(min = 1, max = 1_000))]
    pub batch_size: u32,
    /// Looks at every contact and renders every mail, and sends none.
    #[serde(default)]
    pub dry_run: bool,
}

fn batch_size() -> u32 {
    BATCH_SIZE_DEFAULT
}

impl SendEmailBatch {
    /// What is wrong with it; jobs that came through Redis were not checked.
    pub(super) fn check(&self) -> Result<(), String> {
        if !(1..=CONTACTS_MAX).contains(&self.contact_ids.len()) {
            return Err(format!("`contact_ids` must have 1 to {CONTACTS_MAX} ids"));
        }
        match (1..=BATCH_SIZE_MAX).contains(&self.batch_size) {
            true => Ok(()),
            false => Err(format!("`batch_size` must be from 1 to {BATCH_SIZE_MAX}")),
        }
    }
}
