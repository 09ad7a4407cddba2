//! `deliver_export`: tells people that the file of an export or a report is ready, with a link.
//!
//! ```text
//! export ─► end of it, recipients, this job (one commit) ─► claim, link ─► mail | call ─► settled
//! ```
//!
//! Promises: each recipient is mailed once per file, whatever dies: a mail is claimed before it is
//! handed over, and what a worker left claimed is in doubt and not sent again. A receiver of calls
//! may be called twice, with the same `Idempotency-Key`. The link is made when it is sent, is in no
//! payload and no log, and works as long as the file is kept. Refuses: files that are not whole or
//! whose days are over, and addresses that nothing is sent to any more. Whoever enqueues a job of
//! this type by hand tells nobody whom the export did not name.
//!
//! Where it may die, and what the next attempt finds:
//!
//! | between | finds | does |
//! |---|---|---|
//! | start and claim | planned | goes on |
//! | claim and the answer | a mail in doubt; a call that is planned | leaves it; calls again |
//! | the answer and what is written of it | the same | the same |
//! | the last one and the outcome | nothing to do | sums up |

mod call;
mod fate;
pub(super) mod payload;
mod send;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::connection::Connections;
use crate::job::{JobError, JobRequest};
use crate::outbound::Caller;
use crate::record::Tx;
use crate::record::file_deliveries::{self, NewDelivery};
use crate::worker::{Handler, JobContext};
pub use payload::{DeliverTo, Delivery};

const TYPE: &str = "deliver_export";
/// Ten recipients whose servers are slow.
const TIMEOUT: Duration = Duration::from_secs(45 * 60);

/// Tells them.
#[derive(Debug, Clone)]
pub struct DeliverExport {
    pub caller: Caller,
    pub connections: Connections,
    /// Where people outside reach this installation.
    pub public_url: Option<String>,
}

/// Made by Bullwark at the end of an export, not by people.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// Whose recipients are told.
    export_id: Uuid,
}

/// How many were told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub export_id: Uuid,
    pub sent: u64,
    /// They never will be.
    pub failed: u64,
    /// Nobody knows; they are not mailed again.
    pub unknown: u64,
}

impl Handler for DeliverExport {
    const TYPE: &'static str = TYPE;
    type Payload = Payload;
    type Output = Summary;

    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    async fn run(&self, ctx: JobContext, payload: Payload) -> Result<Summary, JobError> {
        let workspace_id = ctx
            .workspace_id()
            .ok_or_else(|| JobError::permanent("the job belongs to no workspace"))?;
        let public_url = self.public_url.as_deref().ok_or_else(|| {
            JobError::permanent(
                "this installation does not know its own address: whoever runs it sets \
                 BULLWARK_PUBLIC_URL, and then the job is run again",
            )
        })?;
        let sending = send::Sending {
            ctx: &ctx,
            of: (workspace_id, payload.export_id),
            handler: self,
            public_url,
        };
        // Large, and most jobs are small.
        Box::pin(sending.run()).await
    }
}

/// Plans who is told, and the job that tells them, with the end of an export. Safe to repeat: those
/// that are planned already have their job. Answers whether there is one now.
pub(in crate::handlers) async fn plan(
    ctx: &JobContext,
    tx: &mut Tx,
    recipients: &[NewDelivery],
) -> Result<(), JobError> {
    let Some(workspace_id) = ctx.workspace_id().filter(|_| !recipients.is_empty()) else {
        return Ok(());
    };
    let of = (workspace_id, ctx.job_id());
    let is_new = file_deliveries::plan(tx, of, recipients).await;
    if is_new.map_err(super::ending::record_error)? {
        let payload = Payload {
            export_id: ctx.job_id(),
        };
        let job = JobRequest::new(TYPE, serde_json::json!(payload));
        ctx.enqueue_in(tx, vec![job]).await?;
    }
    Ok(())
}
