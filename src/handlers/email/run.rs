//! One attempt of a batch: what is needed for it, and the dry run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::batch::Run;
use super::message::Sender;
use super::prepare::Letter;
use super::template::Templates;
use super::transport::Transport;
use super::{SendEmailBatch, SendEmailBatchHandler, Skipped, Summary};
use crate::handlers::ending::record_error;
use crate::job::JobError;
use crate::job::connection::Provider;
use crate::record::Tx;
use crate::record::email_sends::{self, Batch};
use crate::record::sequences::{self, SendableStep};
use crate::worker::JobContext;

/// Contacts that are planned in one go.
pub(super) const PLAN_ROWS: usize = 1_000;
/// Mails that a dry run makes in one go: others want the thread, too.
const LOOK_ROWS: i64 = 50;
/// How long a job of a sequence that is off waits, or of a domain that is paused; and the random
/// part of every wait for others.
pub(super) const OFF_WAIT: Duration = Duration::from_secs(600);
const JITTER: Duration = Duration::from_secs(300);

/// Where an attempt goes on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Contacts of the payload that are planned.
    pub(super) planned: usize,
    pub(super) skipped: Skipped,
    /// Mails that were handed over.
    pub(super) sent: i64,
}

/// Runs a batch to its end, or says how the job goes on.
pub(super) async fn run(
    handler: &SendEmailBatchHandler,
    ctx: &JobContext,
    payload: &SendEmailBatch,
) -> Result<Summary, JobError> {
    payload.check().map_err(JobError::Permanent)?;
    let workspace_id = ctx.workspace_id().ok_or_else(|| {
        JobError::permanent("the job is of no workspace, and sequences and contacts are")
    })?;
    let ids = (payload.sequence_id, payload.sequence_step_id);
    let step = sequences::for_sending(ctx.record(), workspace_id, ids).await;
    let step = step.map_err(record_error)?.ok_or_else(|| {
        let why = "this workspace has no such step: see `GET /api/sequences`";
        JobError::permanent(why)
    })?;
    if !step.is_active && !payload.dry_run {
        let why = "the sequence is switched off".to_owned();
        return Err(JobError::Snooze(OFF_WAIT + jitter(), why));
    }
    let letter = letter(handler, &step)?;
    let batch = Batch {
        workspace_id,
        sequence_id: ids.0,
        step_id: ids.1,
        job_id: ctx.job_id(),
    };
    let contacts = unique(&payload.contact_ids);
    if payload.dry_run {
        return dry_run(ctx, batch, &letter, &contacts).await;
    }
    let provider: Provider = step.step.provider.parse().map_err(JobError::Permanent)?;
    let id = Some(step.step.connection_id);
    let connection = handler.connections.open(ctx, provider, id).await?;
    let transport = Transport::new(&connection, &handler.caller)?;
    let mut run = Run {
        ctx,
        batch,
        step: &step,
        letter: &letter,
        connection: &connection,
        transport: &transport,
        domain: letter.sender.domain(),
        contacts: &contacts,
        batch_size: i64::from(payload.batch_size),
        tally: BTreeMap::new(),
        place: read_place(ctx)?,
        round: None,
        went: 0,
    };
    let ended = run.send().await;
    let summary = match ended {
        Ok(()) => run.sum_up().await,
        Err(error) => Err(error),
    };
    transport.close().await;
    summary
}

fn letter(handler: &SendEmailBatchHandler, step: &SendableStep) -> Result<Letter, JobError> {
    let of = &step.step;
    let sender = Sender::new(&of.from_address, &of.from_name, of.reply_to.as_deref());
    let public_url = match step.kind.as_str() {
        "transactional" => None,
        _ => Some(handler.public_url.clone().ok_or_else(|| {
            JobError::permanent(
                "mails of marketing need a link to unsubscribe: set BULLWARK_PUBLIC_URL to where \
                 recipients reach this installation",
            )
        })?),
    };
    Ok(Letter {
        sender: sender.map_err(JobError::Permanent)?,
        templates: Templates::of(of).map_err(JobError::Permanent)?,
        public_url,
    })
}

/// Each contact once, in their order.
fn unique(ids: &[Uuid]) -> Vec<Uuid> {
    let mut seen = std::collections::HashSet::new();
    ids.iter().copied().filter(|id| seen.insert(*id)).collect()
}

fn read_place(ctx: &JobContext) -> Result<Place, JobError> {
    let place = ctx.checkpoint().cloned().map(serde_json::from_value);
    let place = place.transpose();
    let place = place.map_err(|e| JobError::Permanent(format!("the checkpoint: {e}")))?;
    Ok(place.unwrap_or_default())
}

pub(super) fn jitter() -> Duration {
    JITTER.mul_f64(rand::random())
}

/// The same with all mails in one transaction that is rolled back.
async fn dry_run(
    ctx: &JobContext,
    batch: Batch,
    letter: &Letter,
    contacts: &[Uuid],
) -> Result<Summary, JobError> {
    let mut tx = ctx.record().begin().await.map_err(record_error)?;
    let mut place = Place::default();
    for part in contacts.chunks(PLAN_ROWS) {
        plan(&mut tx, batch, part, &mut place).await?;
    }
    let (mut would_send, mut refused) = (0, Vec::new());
    loop {
        let next = email_sends::next(&mut tx, batch.job_id, LOOK_ROWS).await;
        let next = next.map_err(record_error)?;
        if next.is_empty() {
            break;
        }
        let mut looked_at = Vec::new();
        for candidate in &next {
            match letter.prepare(candidate) {
                Err(refusal) => {
                    refused.push(refusal.code);
                    looked_at.push(refusal);
                }
                Ok(_) => {
                    would_send += 1;
                    looked_at.push(email_sends::Refusal {
                        id: candidate.id,
                        state: "failed",
                        code: "dry_run",
                        message: String::new(),
                    });
                }
            }
        }
        let noted = email_sends::refuse(&mut tx, &looked_at).await;
        noted.map_err(record_error)?;
    }
    tx.rollback().await.map_err(record_error)?;
    let mut summary = Summary {
        contacts: contacts.len() as u64,
        would_send: Some(would_send),
        failed: refused.len() as u64,
        skipped: place.skipped,
        ..Summary::default()
    };
    for code in refused {
        *summary.reasons.entry(code.to_owned()).or_default() += 1;
    }
    Ok(summary)
}

pub(super) async fn plan(
    tx: &mut Tx,
    batch: Batch,
    part: &[Uuid],
    place: &mut Place,
) -> Result<i64, JobError> {
    let first = i32::try_from(place.planned).unwrap_or(i32::MAX);
    let planned = email_sends::plan(tx, batch, part, first).await;
    let planned = planned.map_err(record_error)?;
    for one in &planned {
        match (one.is_known, one.has_address, one.is_planned) {
            (false, ..) => place.skipped.not_found += 1,
            (true, false, _) => place.skipped.without_address += 1,
            (true, true, false) => place.skipped.already += 1,
            (true, true, true) => {}
        }
    }
    place.planned += part.len();
    Ok(planned.iter().filter(|one| one.is_planned).count() as i64)
}
