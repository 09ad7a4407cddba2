//! What follows an enrichment of people: addresses that nobody has looked at yet are verified, by a
//! job of its own, which is committed with the enrichment.

use serde_json::json;
use uuid::Uuid;

use crate::handlers::verify_email::VerifyEmail;
use crate::job::{JobError, JobRequest};
use crate::record::{Tx, verified_emails};
use crate::worker::{Handler, JobContext};

/// Enqueues the verification of those of these contacts that have an address and were never
/// verified with it. None: there are none. Safe to repeat: a job makes one verification at most.
pub(in super::super) async fn verify(
    ctx: &JobContext,
    tx: &mut Tx,
    contacts: &[Uuid],
) -> Result<Option<Uuid>, JobError> {
    let workspace_id = ctx.workspace_id().unwrap_or_default();
    let open = verified_emails::never_verified(tx, workspace_id, contacts).await;
    let open = open.map_err(JobError::retry)?;
    if open.is_empty() {
        return Ok(None);
    }
    let mut request = JobRequest::new(VerifyEmail::TYPE, json!({ "contact_ids": open }));
    request.idempotency_key = Some(format!("verify-of-{}", ctx.job_id()));
    let ids = ctx.enqueue_in(tx, vec![request]).await?;
    Ok(ids.first().copied())
}
