//! One question to one provider, whatever it takes: the answer that is kept, or a call.
//!
//! Where the worker may die, and what the next one finds:
//!
//! | between | finds | does |
//! |---|---|---|
//! | the claim and the call | a claim that runs out | asks |
//! | the call and the commit of its answer | the same | asks again: may cost a second credit |
//! | the commit and the end of the job | the answer | uses it, and asks nobody |
//!
//! In the second case nobody can tell whether the provider has answered. Nothing is done between
//! reading the answer and its commit, so it is as short as it can be. A job that is cancelled, or a
//! worker that stops, does not make it: the call is waited for and its answer is kept
//! ([`JobContext::outlive`]), and while the record is away the commit is tried for a minute.
//!
//! An answer that can not be read was paid for as any other. That it came is kept, and it is bought
//! again an hour later at the earliest.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::super::connection::{Connection, Connections};
use super::super::providers::{self, CALL_TIMEOUT, DataSource, Reply, Topic};
use super::calls::{Calls, told, unusable};
use super::resting::Resting;
use super::tokens::Tokens;
use crate::job::JobError;
use crate::outbound::{Answer, Caller};
use crate::record::lookups::{self, Asked, KeptAnswer, Question};
use crate::record::{Record, RecordError};
use crate::worker::JobContext;
use tokio::time::Instant;

/// How long answers are good, in days: about a company or a person, and that there is none.
pub(super) const FOUND_DAYS: i32 = 30;
pub(super) const UNKNOWN_DAYS: i32 = 7;
/// How long the commit of an answer is tried, and the pause in between.
const KEEP_PATIENCE: Duration = Duration::from_secs(60);
const KEEP_PAUSE: Duration = Duration::from_millis(500);
/// A claim is longer than all that is done under it: two questions, each with a token, and the
/// commit of the answer.
pub(super) const CLAIM: Duration = Duration::from_secs(4 * CALL_TIMEOUT.as_secs() + 90);
/// Between two looks for the answer to somebody else's call, and the random part.
const BUSY_WAIT: Duration = Duration::from_secs(1);
const BUSY_JITTER: Duration = Duration::from_secs(1);
/// Between two questions while the provider is still looking, and how often that is believed.
const LOOKING_WAIT: Duration = Duration::from_secs(120);
const LOOKING_MAX: i32 = 10;

/// Asks providers. A cheap handle.
#[derive(Debug, Clone)]
pub(super) struct Lookups {
    pub(super) calls: Calls,
    pub(super) connections: Connections,
    tokens: Tokens,
}

/// A question that is this job's to ask.
pub(super) struct Mine {
    pub(super) ctx: JobContext,
    pub(super) source: DataSource,
    pub(super) topic: Topic,
    pub(super) question: Question,
    pub(super) call_id: Uuid,
    /// So often has the provider said that it is still looking.
    pub(super) polls: i32,
    pub(super) resting: Resting,
}

/// What the provider has said, and whether it was bought for this.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) kept: Kept,
    pub(super) is_bought: bool,
}

/// What is kept of a question.
#[derive(Debug)]
pub(super) enum Kept {
    Answer(KeptAnswer),
    /// An answer came then, and nobody could read it.
    Unreadable(DateTime<Utc>),
}

impl Kept {
    /// When the provider said it.
    pub(super) fn at(&self) -> DateTime<Utc> {
        match self {
            Self::Answer(kept) => kept.fetched_at,
            Self::Unreadable(at) => *at,
        }
    }
}

/// The question about a topic, as answers are kept by.
pub(super) fn question(workspace_id: Uuid, source: DataSource, topic: &Topic) -> Question {
    Question {
        workspace_id,
        provider: source.as_str(),
        kind: topic.kind(),
        key: topic.key(),
    }
}

impl Lookups {
    pub(super) fn new(caller: Caller, connections: Connections, patience: Duration) -> Self {
        Self {
            calls: Calls::new(caller, patience),
            connections,
            tokens: Tokens::default(),
        }
    }

    /// Whether the workspace's connection to it waits for an admin.
    pub(super) async fn is_out_of_service(
        &self,
        ctx: &JobContext,
        source: DataSource,
    ) -> Result<bool, JobError> {
        self.connections
            .is_out_of_service(ctx, source.provider())
            .await
    }

    /// What the provider says of it. Many may ask the same: one calls.
    pub(super) async fn answer(
        &self,
        ctx: &JobContext,
        source: DataSource,
        topic: &Topic,
        (max_age_days, resting): (Option<i32>, &Resting),
    ) -> Result<Answered, JobError> {
        let question = question(ctx.workspace_id().unwrap_or_default(), source, topic);
        if let Some(error) = resting.of(source) {
            let known = lookups::find(ctx.record(), &question, max_age_days).await;
            let known = known.map_err(JobError::retry)?.ok_or(error)?;
            counted(source, "kept");
            return Ok(Answered {
                kept: Kept::Answer(known),
                is_bought: false,
            });
        }
        let call_id = Uuid::new_v4();
        let asked = lookups::ask(ctx.record(), &question, max_age_days, (call_id, CLAIM)).await;
        let polls = match asked.map_err(JobError::retry)? {
            Asked::Known(known) => {
                return Ok(found(source, Kept::Answer(known)));
            }
            Asked::Unreadable(at) => {
                return Ok(found(source, Kept::Unreadable(at)));
            }
            Asked::Busy(left) => {
                counted(source, "busy");
                let wait = left.min(BUSY_WAIT) + BUSY_JITTER.mul_f64(rand::random());
                let why = format!("another job is asking {} for the same", source.as_str());
                return Err(JobError::Snooze(wait, why));
            }
            Asked::Looking(left) => {
                counted(source, "busy");
                return Err(still_looking(source, left));
            }
            Asked::Yours { polls } => polls,
        };
        let mine = Mine {
            ctx: ctx.clone(),
            source,
            topic: topic.clone(),
            question,
            call_id,
            polls,
            resting: resting.clone(),
        };
        let lookups = self.clone();
        let bought = async move { lookups.buy(&mine).await };
        let kept = ctx.outlive("lookup", bought).await?;
        Ok(Answered {
            kept,
            is_bought: true,
        })
    }

    /// Asks, and keeps the answer before anybody uses it; or gives the question back.
    async fn buy(&self, mine: &Mine) -> Result<Kept, JobError> {
        let (source, record) = (mine.source, mine.ctx.record());
        let asked = self.ask(mine).await;
        let looking = match &asked {
            Ok(Reply::Found(body)) => {
                counted(source, "found");
                let kept = keep(record, mine, (Some(body), FOUND_DAYS)).await;
                return kept.map(Kept::Answer);
            }
            Ok(Reply::Unknown) => {
                counted(source, "unknown");
                let kept = keep(record, mine, (None, UNKNOWN_DAYS)).await;
                return kept.map(Kept::Answer);
            }
            Ok(Reply::Unreadable) => {
                counted(source, "unreadable");
                return keep_unreadable(record, mine).await.map(Kept::Unreadable);
            }
            Ok(Reply::StillLooking) if mine.polls < LOOKING_MAX => Some(LOOKING_WAIT),
            Ok(_) | Err(_) => None,
        };
        counted(source, "none");
        // If this fails, the claim runs out by itself.
        let _ = lookups::give_back(record, &mine.question, mine.call_id, looking).await;
        if let Err(error @ (JobError::Snooze(..) | JobError::RetryAfter(..))) = &asked {
            mine.resting.rest(source, error.clone());
        }
        let name = source.as_str();
        Err(match (asked, looking) {
            (Err(error), _) => error,
            (Ok(_), Some(wait)) => still_looking(source, wait),
            (Ok(_), None) => JobError::Retry(format!("{name} looks and looks and finds nothing")),
        })
    }

    /// Calls. An error says how the job goes on.
    async fn ask(&self, mine: &Mine) -> Result<Reply, JobError> {
        let (ctx, source) = (&mine.ctx, mine.source);
        let connection = self.connections.open(ctx, source.provider(), None).await?;
        let mut has_new_token = false;
        loop {
            let token = match source.needs_token() {
                true => Some(
                    self.tokens
                        .get(&self.calls, ctx, source, &connection)
                        .await?,
                ),
                false => None,
            };
            let call = providers::call(source, &connection, &mine.topic, token.as_ref());
            let call = call.map_err(|why| unusable(&connection, &why))?;
            let is_poor =
                |answer: &Answer| providers::reply(source, &mine.topic, answer) == Reply::NoCredits;
            let sent = self
                .calls
                .send(ctx, (source, &connection), (&call, 1), is_poor);
            let answer = sent.await?;
            let reply = providers::reply(source, &mine.topic, &answer);
            if let (Reply::Refused, Some(token), false) = (&reply, &token, has_new_token) {
                // Tokens end early, too; a new one that is refused has another reason.
                self.tokens.forget(&connection, token).await;
                has_new_token = true;
                continue;
            }
            return judged(ctx, source, (&connection, &answer), reply).await;
        }
    }
}

/// Nobody is asked.
fn found(source: DataSource, kept: Kept) -> Answered {
    counted(source, "kept");
    Answered {
        kept,
        is_bought: false,
    }
}

/// What a reply means for the job, if it is no answer.
pub(super) async fn judged(
    ctx: &JobContext,
    source: DataSource,
    (connection, answer): (&Connection, &Answer),
    reply: Reply,
) -> Result<Reply, JobError> {
    match reply {
        Reply::Refused => Err(connection.refused(ctx, &answer.told()).await),
        Reply::Failed => Err(match answer.retry_after {
            Some(after) => JobError::RetryAfter(after, told(source, answer)),
            None => JobError::Retry(told(source, answer)),
        }),
        Reply::Rejected => Err(JobError::Permanent(told(source, answer))),
        reply => Ok(reply),
    }
}

/// Commits an answer. It was paid for: a record that is away for a moment does not lose it.
pub(super) async fn keep(
    record: &Record,
    mine: &Mine,
    kept: (Option<&Value>, i32),
) -> Result<KeptAnswer, JobError> {
    let until = Instant::now() + KEEP_PATIENCE;
    loop {
        match lookups::keep(record, &mine.question, mine.call_id, kept).await {
            Ok(kept) => return Ok(kept),
            Err(error) => patience(mine, error, until).await?,
        }
    }
}

/// Commits that an answer can not be read, with the same patience.
pub(super) async fn keep_unreadable(
    record: &Record,
    mine: &Mine,
) -> Result<DateTime<Utc>, JobError> {
    let until = Instant::now() + KEEP_PATIENCE;
    loop {
        match lookups::keep_unreadable(record, &mine.question, mine.call_id).await {
            Ok(at) => return Ok(at),
            Err(error) => patience(mine, error, until).await?,
        }
    }
}

/// Waits for the record, if that helps and it is not too late.
async fn patience(mine: &Mine, error: RecordError, until: Instant) -> Result<(), JobError> {
    if !error.is_unavailable() || Instant::now() >= until {
        return Err(JobError::retry(error));
    }
    tracing::warn!(%error, job.id = %mine.ctx.job_id(), "an answer waits to be kept");
    tokio::time::sleep(KEEP_PAUSE).await;
    Ok(())
}

fn still_looking(source: DataSource, wait: Duration) -> JobError {
    let wait = wait + BUSY_JITTER.mul_f64(rand::random());
    JobError::Snooze(wait, format!("{} is looking for it", source.as_str()))
}

pub(super) fn counted(source: DataSource, outcome: &'static str) {
    metrics::counter!(
        "bullwark_enrichment_lookups_total", "provider" => source.as_str(), "outcome" => outcome
    )
    .increment(1);
}
