//! The job type of the soak. Only the soak's own workers know it.
//!
//! Each run leaves a line in the ledger before it does anything and one before it returns. A kind
//! with an effect has it between the two.

use crate::job::{JobError, Progress};
use crate::record::soak;
use crate::worker::{Handler, JobContext};

use super::ledger::Ledger;
use super::line::{Ended, Line};
use super::plan::{Kind, Payload, TYPE};
use super::sides::tick;
use super::space::Space;
use crate::clock;

/// Runs jobs of the soak.
pub(super) struct Soak {
    pub(super) ledger: Ledger,
}

impl Handler for Soak {
    const TYPE: &'static str = TYPE;
    type Payload = Payload;
    type Output = ();

    async fn run(&self, ctx: JobContext, payload: Payload) -> Result<(), JobError> {
        let seq = match payload.seq {
            // All iterations have one payload; which one this is, its id tells.
            seq if Space::of(seq) == Some(Space::Ticks) => {
                let wire = ctx.wire().and_then(|wire| tick(&wire.id));
                wire.ok_or_else(|| JobError::Permanent("no iteration".to_owned()))?
            }
            seq => seq,
        };
        let (attempt, pid) = (ctx.attempt(), std::process::id());
        self.note(Line::Start {
            seq,
            id: ctx.job_id(),
            attempt,
            pid,
            at_ms: clock::now_ms(),
        })
        .await?;
        let done = self.work(&ctx, payload).await;
        let ended = match &done {
            Ok(()) => Ended::Well,
            Err(JobError::LeaseLost) => Ended::Fenced,
            Err(_) => Ended::Failed,
        };
        self.note(Line::End {
            seq,
            attempt,
            pid,
            ended,
            at_ms: clock::now_ms(),
        })
        .await?;
        done
    }
}

impl Soak {
    async fn note(&self, line: Line) -> Result<(), JobError> {
        self.ledger.write(&[line]).await.map_err(JobError::retry)
    }

    async fn work(&self, ctx: &JobContext, payload: Payload) -> Result<(), JobError> {
        let (seq, attempt) = (payload.seq, ctx.attempt());
        let pid = std::process::id();
        match payload.kind {
            Kind::Noop | Kind::Delayed | Kind::Urgent => Ok(()),
            Kind::Sleep => {
                take_time(payload.ms).await;
                Ok(())
            }
            Kind::Fails if attempt.unsigned_abs() <= payload.fails => {
                Err(JobError::Retry("failed on purpose".to_owned()))
            }
            Kind::Fails => Ok(()),
            Kind::Dies => Err(JobError::Permanent("dies on purpose".to_owned())),
            Kind::Letter => {
                self.note(Line::Effect { seq, attempt, pid }).await?;
                take_time(payload.ms).await;
                Ok(())
            }
            // An earlier attempt has committed it, whatever became of that attempt.
            Kind::Row if ctx.checkpoint().is_some() => Ok(()),
            Kind::Row => {
                let mut step = ctx.begin_checkpoint().await?;
                soak::write_effect(step.tx(), seq, ctx.job_id(), attempt, pid)
                    .await
                    .map_err(JobError::retry)?;
                let done = Progress::new(1, 1, 0, "written");
                step.commit(serde_json::json!({ "written": true }), done)
                    .await?;
                take_time(payload.ms).await;
                Ok(())
            }
        }
    }
}

async fn take_time(ms: u64) {
    tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
}
