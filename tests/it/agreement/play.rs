//! Carries a step out in both stores, as the doors do it, or tries it where it is illegal.

use std::collections::BTreeMap;
use std::time::Duration;

use bullwark::broker::Settled;
use bullwark::broker::{
    Added, Cancelled, Fail, Finish, Keep, NewJob as WireJob, Release, Requeued, Retry,
};
use bullwark::enqueue::entry;
use bullwark::job::Status;
use bullwark::job::{Backoff, Ending, Event, JobError, NewJob, Outcome, QueueName, RetryRule};
use bullwark::reconcile;
use bullwark::record::access::By;
use bullwark::record::control::{cancel_many, retry_many};
use bullwark::record::open;
use bullwark::record::restart::{Asked, Restart, restart_many};
use bullwark::record::settle::settle_many;
use bullwark::record::start::mark_running;

use super::Step;
use super::model::{Checked, Model, same};
use crate::stage::{Stage, claim_options, eventually, job, running, settled};

/// Retries: few, so that sequences reach the dead letter queue.
const MAX_ATTEMPTS: u32 = 2;
const HOUR: Duration = Duration::from_secs(3600);

pub(super) struct Play<'a> {
    pub(super) stage: &'a Stage,
    pub(super) job: NewJob,
    pub(super) wire_id: String,
    pub(super) queue: QueueName,
    pub(super) model: Model,
    claims: u32,
}

impl<'a> Play<'a> {
    pub(super) async fn new(stage: &'a Stage, number: usize) -> Self {
        let queue: QueueName = format!("q{number}").parse().unwrap();
        let job = NewJob {
            queue: queue.clone(),
            max_attempts: MAX_ATTEMPTS,
            ..job()
        };
        stage.insert(std::slice::from_ref(&job)).await;
        let added = stage.broker.add(&queue, &[wire_job(&job)]).await.unwrap();
        assert_eq!(added, [Added::Created]);
        Self {
            stage,
            wire_id: job.id.to_string(),
            job,
            queue,
            model: Model {
                status: Status::Pending,
                attempts: 0,
                attempt: 0,
                starts: 0,
                is_unnoted: false,
                is_due: true,
                token: "none".into(),
                worker: "nobody".into(),
                history: BTreeMap::new(),
            },
            claims: 0,
        }
    }

    pub(super) async fn take(&mut self, step: Step) -> Checked {
        match step {
            Step::Claim { notes_start } => self.claim(notes_start).await,
            Step::Succeed => self.end(Ending::Value("1".into()), Duration::ZERO).await,
            Step::Err { in_an_hour } => {
                let error = JobError::RetryAfter(delay(in_an_hour), "failed".into());
                self.end(Ending::Error(error), delay(in_an_hour)).await
            }
            Step::Discard => {
                let error = JobError::permanent("hopeless");
                self.end(Ending::Error(error), Duration::ZERO).await
            }
            Step::Snooze { in_an_hour } => {
                let error = JobError::Snooze(delay(in_an_hour), "quota".into());
                self.end(Ending::Error(error), delay(in_an_hour)).await
            }
            Step::Release => self.end(Ending::Interrupted, Duration::ZERO).await,
            Step::LoseLease => self.lose_lease().await,
            Step::Cancel => self.cancel().await,
            Step::RetryByHand => Box::pin(self.retry_by_hand()).await,
            Step::TimePasses => self.time_passes().await,
        }
    }

    async fn claim(&mut self, notes_start: bool) -> Checked {
        let legal = self.model.status.next(Event::Claimed);
        self.claims += 1;
        let (token, worker) = (format!("t{}", self.claims), format!("w{}", self.claims));
        let (Ok(status), true) = (legal, self.model.is_due) else {
            return self.untouched(self.claim_refused(&worker)).await;
        };
        let options = claim_options(&token);
        let claimed = self.stage.broker.claim(&self.queue, &options).await;
        let claimed = claimed.unwrap().jobs;
        same("claimed jobs", claimed.len(), 1)?;
        let starts = i32::try_from(claimed[0].attempts_started).unwrap();
        same("starts", starts, self.model.starts + 1)?;
        let is_first = starts == 1 && claimed[0].attempts_made == 0;
        let attempt = match (is_first, notes_start) {
            (true, false) => 1,
            (true, true) => {
                let attempt = running(self.job.id, 1);
                mark_running(&self.stage.record, &worker, &[attempt])
                    .await
                    .unwrap();
                1
            }
            (false, _) => self.restart(&worker, starts).await?,
        };
        self.model = Model {
            status,
            attempt,
            starts,
            is_unnoted: is_first && !notes_start,
            token,
            worker,
            ..self.model.clone()
        };
        Ok(())
    }

    async fn restart(&self, worker: &str, starts: i32) -> Result<i32, String> {
        let answers = restart_many(
            &self.stage.record,
            worker,
            &[Asked::new(self.job.id, starts)],
        )
        .await;
        match answers.unwrap().remove(0) {
            Restart::Run(restarted) => {
                same(
                    "failures at restart",
                    restarted.attempts,
                    self.model.attempts,
                )?;
                Ok(restarted.attempt)
            }
            other => Err(format!("restart: found {other:?}, expected Run")),
        }
    }

    /// Neither store gives the job to a second worker, nor one that is over or not due to a first.
    async fn claim_refused(&self, worker: &str) -> Checked {
        let options = claim_options("intruder");
        let claimed = self.stage.broker.claim(&self.queue, &options).await;
        same("claimed jobs", claimed.unwrap().jobs, vec![])?;
        let (record, id) = (&self.stage.record, self.job.id);
        if self.model.status == Status::Processing {
            // A second worker that believes to have the same attempt. Before the first has noted
            // its start the record can not know better: there only Redis keeps it away.
            if !self.model.is_unnoted {
                let same_attempt = [running(id, self.model.attempt)];
                mark_running(record, worker, &same_attempt).await.unwrap();
            }
            return Ok(());
        }
        let start = [Asked::new(id, self.model.starts + 1)];
        let answer = restart_many(record, worker, &start)
            .await
            .unwrap()
            .remove(0);
        match answer {
            Restart::Over { status, .. } => same("over as", status, self.model.status),
            Restart::Later { .. } | Restart::Locked => same("is due", self.model.is_due, false),
            other => Err(format!("restart: found {other:?}, expected a refusal")),
        }
    }

    /// An attempt ends as the handler says.
    async fn end(&mut self, ending: Ending, delay: Duration) -> Checked {
        let rule = RetryRule {
            attempts: self.model.attempts,
            max_attempts: MAX_ATTEMPTS,
            retry_delay_seconds: 60,
            backoff: Some(Backoff::None),
        };
        let outcome = ending.settle(&rule, 0.0).unwrap();
        let legal = self.model.status.next(outcome.event);
        let row = settled(
            self.job.id,
            self.model.attempt,
            &self.model.worker,
            outcome.clone(),
        );
        let Ok(status) = legal else {
            return self
                .untouched(async {
                    let rows = [row];
                    let accepted = settle_many(&self.stage.record, &rows).await.unwrap();
                    same("accepted outcomes", accepted.len(), 0)?;
                    match self.tell(&outcome).await {
                        Settled::NotActive | Settled::JobMissing => Ok(()),
                        other => Err(format!("Redis: found {other:?}, expected a refusal")),
                    }
                })
                .await;
        };
        let accepted = settle_many(&self.stage.record, &[row]).await.unwrap();
        same("accepted outcomes", accepted.len(), 1)?;
        same("Redis", self.tell(&outcome).await, Settled::Done)?;
        match status {
            Status::Failed | Status::DeadLetter => {
                let history = &mut self.model.history;
                history.insert(self.model.attempt, status.as_str());
            }
            Status::Pending | Status::Completed | Status::Processing | Status::Cancelled => {}
        }
        self.model.status = status;
        self.model.attempts = outcome.attempts;
        self.model.is_unnoted = false;
        self.model.is_due = status.is_final() || delay.is_zero();
        Ok(())
    }

    /// Tells Redis of an outcome with the newest token.
    async fn tell(&self, outcome: &Outcome) -> Settled {
        let (broker, queue) = (&self.stage.broker, &self.queue);
        let (id, token) = (self.wire_id.clone(), self.model.token.clone());
        let reason = outcome.error.clone().unwrap_or_default();
        let answers = match outcome.event {
            Event::Succeeded => {
                let (returnvalue, keep) = ("1".into(), Keep::All);
                let finish = Finish {
                    id,
                    token,
                    returnvalue,
                    keep,
                };
                broker.finish(queue, &[finish]).await
            }
            Event::Errored {
                retries_left: false,
            }
            | Event::Discarded => {
                let fail = Fail {
                    id,
                    token,
                    reason,
                    stacktrace: "[]".into(),
                    attempts: MAX_ATTEMPTS + 1,
                    keep: Keep::All,
                };
                broker.fail(queue, &[fail]).await
            }
            Event::Errored { retries_left: true } | Event::Snoozed => {
                let retry = Retry {
                    id,
                    token,
                    delay_ms: outcome.delay.as_millis() as i64,
                    reason,
                    stacktrace: String::new(),
                    count_attempt: outcome.event != Event::Snoozed,
                    lifo: false,
                };
                broker.retry(queue, &[retry]).await
            }
            Event::Released => broker.release(queue, &[Release { id, token }]).await,
            event => unreachable!("no outcome: {event}"),
        };
        answers.unwrap().remove(0)
    }

    /// For the state machine: released, then claimed.
    async fn lose_lease(&mut self) -> Checked {
        let released = self.model.status.next(Event::Released);
        let queue = &self.queue;
        let round = Duration::from_millis(1);
        let broker = &self.stage.broker;
        if released.is_err() {
            let refused = async {
                let rescued = broker.rescue(queue, round, 1000, 10).await.unwrap();
                same("rescued jobs", rescued.len(), 0)
            };
            return Box::pin(self.untouched(refused)).await;
        }
        let lock = format!("{}:{queue}:{}:lock", self.stage.prefix, self.wire_id);
        let mut connection = self.stage.redis().await;
        let mut command = redis::cmd("DEL");
        command.arg(lock).exec_async(&mut connection).await.unwrap();
        eventually("the job is rescued", async || {
            let rescued = broker.rescue(queue, round, 1000, 10).await.unwrap();
            (!rescued.is_empty()).then_some(())
        })
        .await;

        self.claims += 1;
        let (token, worker) = (format!("t{}", self.claims), format!("w{}", self.claims));
        let claimed = broker.claim(queue, &claim_options(&token)).await.unwrap();
        same("claimed jobs", claimed.jobs.len(), 1)?;
        let starts = i32::try_from(claimed.jobs[0].attempts_started).unwrap();
        let attempt = self.restart(&worker, starts).await?;
        self.model.history.insert(attempt - 1, "lease_lost");
        self.model = Model {
            attempt,
            starts,
            is_unnoted: false,
            token,
            worker,
            ..self.model.clone()
        };
        Ok(())
    }

    async fn cancel(&mut self) -> Checked {
        let (record, id) = (&self.stage.record, self.job.id);
        let legal = self.model.status.next(Event::Cancelled);
        let wire_ids = [self.wire_id.clone()];
        let Ok(status) = legal else {
            let refused = async {
                let cancelled = cancel_many(record, &[id], &By::OPERATOR, "no")
                    .await
                    .unwrap();
                same("cancelled jobs", cancelled.len(), 0)?;
                if self.model.status == Status::Cancelled {
                    let answers = self.stage.broker.cancel(&self.queue, &wire_ids).await;
                    same("Redis", answers.unwrap(), vec![Cancelled::Absent])?;
                }
                Ok(())
            };
            return Box::pin(self.untouched(refused)).await;
        };
        let cancelled = cancel_many(record, &[id], &By::OPERATOR, "by the test").await;
        same("cancelled jobs", cancelled.unwrap(), vec![id])?;
        let answers = self.stage.broker.cancel(&self.queue, &wire_ids).await;
        let in_redis = matches!(answers.unwrap()[..], [Cancelled::Removed(_)]);
        same("removed from Redis", in_redis, true)?;
        self.model.status = status;
        // What an attempt that was never noted did is forgotten with it.
        if std::mem::take(&mut self.model.is_unnoted) {
            self.model.attempt = 0;
        }
        Ok(())
    }

    async fn retry_by_hand(&mut self) -> Checked {
        let (record, id) = (&self.stage.record, self.job.id);
        let legal = self.model.status.next(Event::Retried);
        let Ok(status) = legal else {
            let refused = async {
                let retried = retry_many(record, &[id], &By::OPERATOR).await.unwrap();
                same("retried jobs", retried.len(), 0)?;
                let stored = open::load(record, &[id]).await.unwrap().remove(0);
                let entry = bullwark::broker::NewJob {
                    due_ms: stored.due_at.map(|due| due.timestamp_millis()),
                    ..wire_job(&stored.job)
                };
                let answers = self.stage.broker.requeue(&self.queue, &[entry]).await;
                same("Redis", answers.unwrap(), vec![Requeued::IsLive])
            };
            return Box::pin(self.untouched(refused)).await;
        };
        let retried = retry_many(record, &[id], &By::OPERATOR).await.unwrap();
        same("retried jobs", retried, vec![id])?;
        reconcile::relay(record, &self.stage.broker, &[id])
            .await
            .unwrap();
        // From here on the record counts what may have run before it heard of it.
        self.model.attempt = self.stage.attempt(id).await.max(self.model.attempt);
        self.model.starts = match self.model.attempt {
            0 => 0,
            attempt => attempt + 1,
        };
        self.model.status = status;
        self.model.attempts = 0;
        self.model.is_due = true;
        Ok(())
    }

    async fn time_passes(&mut self) -> Checked {
        let id = self.job.id;
        let ids = [self.wire_id.clone()];
        let promoted = self.stage.broker.promote(&self.queue, &ids).await.unwrap();
        let is_waiting = matches!(self.model.status, Status::Pending | Status::Failed);
        same("promoted", promoted, vec![is_waiting && !self.model.is_due])?;
        self.stage
            .execute(format!(
                "UPDATE jobs SET next_retry_at = least(next_retry_at, now()),
                   scheduled_for = least(scheduled_for, now()) WHERE id = '{id}'"
            ))
            .await;
        self.model.is_due = true;
        Ok(())
    }
}

fn delay(in_an_hour: bool) -> Duration {
    if in_an_hour { HOUR } else { Duration::ZERO }
}

fn wire_job(job: &NewJob) -> WireJob {
    entry(job, bullwark::clock::now_ms(), None, 0, 0)
}
