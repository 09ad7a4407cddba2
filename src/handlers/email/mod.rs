//! `send_email_batch`: sends one step of a sequence to many contacts, each of them once.
//!
//! Where it may die, and what the next attempt finds:
//!
//! | between | finds | does |
//! |---|---|---|
//! | start and the last plan | how many contacts are planned | plans the rest |
//! | two groups | planned mails | goes on with them |
//! | claim and result | mails that are claimed | they are `unknown`: never sent again |
//! | last result and end | nothing that is planned | sums up |
//!
//! Promises: a recipient of a step is sent it once, however many jobs ask for it and whatever dies;
//! nothing goes to who is suppressed when it would go; a mail with a gap is not sent; no domain
//! sends more on a day than its warm-up allows. Refuses: marketing without a link to unsubscribe.

pub mod check;
pub mod template;

mod batch;
pub(super) mod message;
mod payload;
mod prepare;
mod run;
mod settle;
pub(super) mod transport;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::connection::Connections;
use crate::job::JobError;
use crate::outbound::Caller;
use crate::worker::{Handler, JobContext};
pub use payload::SendEmailBatch;

/// How long a job may send in one go. One that was not through by then goes on in the next attempt.
const TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// Sends.
#[derive(Debug, Clone)]
pub struct SendEmailBatchHandler {
    pub caller: Caller,
    pub connections: Connections,
    /// Where recipients reach this installation, for links to unsubscribe.
    pub public_url: Option<String>,
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Contacts of the job, each counted once.
    pub contacts: u64,
    /// Of a dry run: mails that would be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_send: Option<u64>,
    pub sent: u64,
    pub suppressed: u64,
    pub failed: u64,
    /// Nobody knows whether they were sent; they are not sent again by themselves.
    pub unknown: u64,
    /// Contacts without a mail of this job.
    pub skipped: Skipped,
    /// Why mails were not sent, by their codes.
    pub reasons: BTreeMap<String, u64>,
}

/// Why contacts have no mail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// There is no such contact in this workspace.
    pub not_found: u64,
    pub without_address: u64,
    /// Another job has sent it, or is about to.
    pub already: u64,
}

impl Handler for SendEmailBatchHandler {
    const TYPE: &'static str = "send_email_batch";
    type Payload = SendEmailBatch;
    type Output = Summary;

    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    async fn run(&self, ctx: JobContext, payload: SendEmailBatch) -> Result<Summary, JobError> {
        run::run(self, &ctx, &payload).await
    }
}
