//! The mails of a job, group by group: looked at, claimed, handed over, and written down.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::Summary;
use super::prepare::{Letter, Ready};
use super::run::{OFF_WAIT, PLAN_ROWS, Place, jitter, plan};
use super::transport::{HAND_OVER_MAX, Transport};
use crate::clock;
use crate::fault::{self, Point};
use crate::handlers::connection::Connection;
use crate::handlers::ending::record_error;
use crate::job::{JobError, Progress};
use crate::quota::{Ask, Limits, Permit, QuotaKey, QuotaWindow};
use crate::record::email_domains::{self, Reserved};
use crate::record::email_sends::{self, Batch, Claim};
use crate::record::logs::LogLevel;
use crate::record::sequences::SendableStep;
use crate::worker::JobContext;

/// Mails that are under way at a time: as many are in doubt when the worker dies.
pub(super) const GROUP_MAX: i64 = 10;
/// Mails of a second and connection, unless an admin says otherwise.
const PER_SECOND: u32 = 50;
/// What SES allows of `GetAccount`.
const ACCOUNT_PER_SECOND: QuotaWindow = QuotaWindow::Sliding {
    max: 1,
    per_ms: 1_000,
};
/// A wait for quota that is shorter is waited for here.
const WAIT_HERE_MAX: Duration = Duration::from_secs(3);
/// Between tries of a mail that was not taken: doubled from the first to the second.
pub(super) const AGAIN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

pub(super) struct Run<'a> {
    pub(super) ctx: &'a JobContext,
    pub(super) batch: Batch,
    pub(super) step: &'a SendableStep,
    pub(super) letter: &'a Letter,
    pub(super) connection: &'a Connection,
    pub(super) transport: &'a Transport,
    /// Whose reputation it is.
    pub(super) domain: String,
    pub(super) contacts: &'a [Uuid],
    pub(super) batch_size: i64,
    /// Mails of this job by their state.
    pub(super) tally: BTreeMap<String, i64>,
    pub(super) place: Place,
    /// Mails that were tried more often wait for the next attempt.
    pub(super) round: Option<i32>,
    /// Mails that this attempt has handed over.
    pub(super) went: i64,
}

/// What was claimed.
enum Claimed {
    Mails(Vec<Ready>),
    /// Every one that was looked at is refused.
    None,
    /// The warm-up has nothing left.
    NoRoom(Reserved),
}

impl Run<'_> {
    pub(super) async fn send(&mut self) -> Result<(), JobError> {
        self.begin().await?;
        self.ask_for_quota().await?;
        let mut told = self.place.sent;
        loop {
            if self.ctx.cancelled().is_cancelled() {
                // The fence says whether somebody cancelled the job.
                self.ctx.begin_checkpoint().await?;
                return Err(JobError::Retry("told to stop".to_owned()));
            }
            let planned = self.count("planned");
            if planned == 0 {
                return Ok(());
            }
            let (key, limits) = (self.key("")?, mail_limits());
            let permits = self.permits(&key, &limits, planned.min(GROUP_MAX)).await?;
            let claimed = self.claim(permits.len() as i64).await?;
            let mails = match claimed {
                Claimed::Mails(mails) => mails,
                Claimed::None => {
                    for permit in permits {
                        permit.ended().await;
                    }
                    continue;
                }
                Claimed::NoRoom(reserved) => {
                    for permit in permits {
                        permit.ended().await;
                    }
                    return Err(self.wait_for_room(&reserved));
                }
            };
            fault::point(Point::AfterEmailClaim);
            let handed = self.hand_over(&mails, permits).await;
            fault::point(Point::AfterHandOver);
            self.settle(handed).await?;
            if self.place.sent - told >= self.batch_size {
                told = self.place.sent;
                self.ctx
                    .log(LogLevel::Info, "a batch is sent", Some(json!(self.tally)));
            }
        }
    }

    /// Says what is in doubt, and plans what is not planned yet.
    async fn begin(&mut self) -> Result<(), JobError> {
        let mut checkpoint = self.ctx.begin_checkpoint().await?;
        let (job_id, attempt) = (self.batch.job_id, self.ctx.attempt());
        let lost = email_sends::give_up(checkpoint.tx(), job_id, attempt).await;
        let lost = lost.map_err(record_error)?;
        let counts = email_sends::counts(checkpoint.tx(), job_id).await;
        self.tally = counts.map_err(record_error)?.into_iter().collect();
        let progress = self.progress();
        checkpoint
            .commit_without_gain(json!(self.place), progress)
            .await?;
        if lost > 0 {
            let message = format!(
                "an earlier attempt ended while {lost} mails were handed over: whether they were \
                 sent, nobody knows; they are not sent again"
            );
            self.ctx.log(LogLevel::Warn, &message, None);
        }
        while self.place.planned < self.contacts.len() {
            let mut checkpoint = self.ctx.begin_checkpoint().await?;
            let mut place = self.place.clone();
            let rest = &self.contacts[place.planned..];
            let part = &rest[..rest.len().min(PLAN_ROWS)];
            let added = plan(checkpoint.tx(), self.batch, part, &mut place).await?;
            *self.tally.entry("planned".to_owned()).or_default() += added;
            let progress = self.progress();
            checkpoint.commit(json!(place), progress).await?;
            self.place = place;
        }
        Ok(())
    }

    /// Where the provider has to be asked for it.
    async fn ask_for_quota(&self) -> Result<(), JobError> {
        let Transport::Ses(_) = self.transport else {
            return Ok(());
        };
        // Not of the quota of mails: that may have nothing left, and this is how more is found out.
        let (key, limits) = (self.key(".account")?, Limits::of([ACCOUNT_PER_SECOND]));
        let permits = self.permits(&key, &limits, 1).await?;
        let asked = self.transport.quota().await;
        for permit in permits {
            permit.ended().await;
        }
        match asked {
            Ok(Some(learned)) => {
                let (key, limits) = (self.key("")?, mail_limits());
                let quotas = self.ctx.quotas();
                let quotas = quotas.ok_or_else(|| JobError::permanent("no worker: no quotas"))?;
                Ok(quotas.told(&Ask::new(&key, &limits), &learned).await?)
            }
            Ok(None) => Ok(()),
            Err(handed) => Err(self.how_on(&handed).await),
        }
    }

    /// The quota of mails of the connection, or another one of it.
    fn key(&self, of: &str) -> Result<QuotaKey, JobError> {
        let service = format!("email.{}{of}", self.connection.id);
        QuotaKey::new(&service, self.batch.workspace_id).map_err(JobError::permanent)
    }

    /// The right to make up to so many calls now: one at least.
    async fn permits(
        &self,
        key: &QuotaKey,
        limits: &Limits,
        most: i64,
    ) -> Result<Vec<Permit>, JobError> {
        // Each connection is a host of its own: which server is behind it, it alone knows.
        let host = format!("email.{}", self.connection.id);
        let mut permits = Vec::new();
        while (permits.len() as i64) < most {
            let ask = Ask::new(key, limits).lease(HAND_OVER_MAX).host(&host);
            match self.ctx.try_permit(ask).await? {
                Ok(permit) => permits.push(permit),
                Err(_) if !permits.is_empty() => break,
                Err(wait) if wait.time <= WAIT_HERE_MAX => {
                    tokio::select! {
                        () = tokio::time::sleep(wait.time) => {}
                        () = self.ctx.cancelled().cancelled() => return Err(wait.into()),
                    }
                }
                Err(wait) => return Err(wait.into()),
            }
        }
        Ok(permits)
    }

    /// Looks at the next mails, and claims those that may be sent.
    async fn claim(&mut self, most: i64) -> Result<Claimed, JobError> {
        let mut checkpoint = self.ctx.begin_checkpoint().await?;
        let tx = checkpoint.tx();
        let next = email_sends::next(tx, self.batch.job_id, most).await;
        let mut next = next.map_err(record_error)?;
        // The least tried come first: what is left was tried in this attempt.
        let least = next.iter().map(|candidate| candidate.tries).min();
        let round = *self.round.get_or_insert(least.unwrap_or(0));
        next.retain(|candidate| candidate.tries <= round);
        if next.is_empty() {
            let wait = (AGAIN.0 * 2_u32.pow(round.clamp(0, 10) as u32)).min(AGAIN.1);
            let wait = wait + wait.mul_f64(rand::random::<f64>() / 4.0);
            let left = self.count("planned");
            let why = format!("{left} mails were not taken yet; the log says why");
            return Err(JobError::Snooze(wait, why));
        }
        let (mut ready, mut refused) = (Vec::new(), Vec::new());
        for candidate in &next {
            match self.letter.prepare(candidate) {
                Ok(one) => ready.push(one),
                Err(refusal) => refused.push(refusal),
            }
        }
        email_sends::refuse(tx, &refused)
            .await
            .map_err(record_error)?;
        let mut tally = self.tally.clone();
        for refusal in &refused {
            moved(&mut tally, "planned", refusal.state);
        }
        let mut no_room = None;
        if !ready.is_empty() {
            let of = (self.batch.workspace_id, self.domain.as_str());
            let reserved = email_domains::reserve(tx, of, ready.len()).await;
            let reserved = reserved.map_err(record_error)?;
            ready.truncate(usize::try_from(reserved.granted).unwrap_or(0));
            let claim = Claim {
                attempt: self.ctx.attempt(),
                provider: &self.step.step.provider,
                domain: &self.domain,
                day: reserved.on_day,
            };
            let mails = ready.iter();
            let mails: Vec<_> = mails
                .map(|one| (one.mail.id, one.unsubscribe_hash.clone()))
                .collect();
            let claimed = email_sends::claim(tx, &claim, &mails).await;
            if claimed.map_err(record_error)? != mails.len() as u64 {
                return Err(JobError::retry(
                    "a mail went elsewhere while it was claimed",
                ));
            }
            for _ in &mails {
                moved(&mut tally, "planned", "claimed");
            }
            if ready.is_empty() {
                no_room = Some(reserved);
            }
        }
        let before = std::mem::replace(&mut self.tally, tally);
        let progress = self.progress();
        let committed = checkpoint.commit(json!(self.place), progress).await;
        if let Err(error) = committed {
            self.tally = before;
            return Err(error);
        }
        Ok(match (no_room, ready.is_empty()) {
            (Some(reserved), _) => Claimed::NoRoom(reserved),
            (None, true) => Claimed::None,
            (None, false) => Claimed::Mails(ready),
        })
    }

    fn wait_for_room(&self, reserved: &Reserved) -> JobError {
        let left = self.count("planned");
        if let Some(why) = &reserved.paused {
            let why = format!("{} is paused, and {left} mails wait: {why}", self.domain);
            return JobError::Snooze(OFF_WAIT + jitter(), why);
        }
        let wait = (reserved.next_at - clock::now()).to_std();
        let days = days_for(left, reserved.later.as_deref().unwrap_or_default());
        let last = reserved.next_at + chrono::Duration::days(days - 1);
        let why = format!(
            "the warm-up of {} allows no more today: {left} mails wait until {}, and the last of \
             them until {}",
            self.domain,
            reserved.next_at.format("%Y-%m-%d %H:%M UTC"),
            last.format("%Y-%m-%d")
        );
        JobError::Snooze(wait.unwrap_or_default() + jitter(), why)
    }

    pub(super) async fn sum_up(&self) -> Result<Summary, JobError> {
        let mut tx = self.ctx.record().begin().await.map_err(record_error)?;
        let job_id = self.batch.job_id;
        let reasons = email_sends::reasons(&mut tx, job_id).await;
        let reasons = reasons.map_err(record_error)?;
        tx.rollback().await.map_err(record_error)?;
        let count = |state| self.count(state).unsigned_abs();
        Ok(Summary {
            contacts: self.contacts.len() as u64,
            would_send: None,
            sent: count("handed_over")
                + count("delivered")
                + count("bounced")
                + count("complained"),
            suppressed: count("suppressed"),
            failed: count("failed"),
            unknown: count("unknown"),
            skipped: self.place.skipped.clone(),
            reasons: reasons
                .into_iter()
                .map(|(code, count)| (code, count.unsigned_abs()))
                .collect(),
        })
    }

    pub(super) fn count(&self, state: &str) -> i64 {
        self.tally.get(state).copied().unwrap_or(0)
    }

    pub(super) fn progress(&self) -> Progress {
        let all = self.contacts.len() as i64;
        let open = self.count("planned") + self.count("claimed");
        let unplanned = all - self.place.planned.min(self.contacts.len()) as i64;
        let processed = (all - open - unplanned).max(0).unsigned_abs();
        let failed = (self.count("failed") + self.count("unknown")).unsigned_abs();
        let message = format!("{} sent, {open} to go", self.count("handed_over"));
        Progress::new(all.unsigned_abs(), processed, failed, message)
    }
}

fn mail_limits() -> Limits {
    Limits::of([QuotaWindow::Sliding {
        max: PER_SECOND,
        per_ms: 1_000,
    }])
}

pub(super) fn moved(tally: &mut BTreeMap<String, i64>, from: &str, to: &str) {
    *tally.entry(from.to_owned()).or_default() -= 1;
    *tally.entry(to.to_owned()).or_default() += 1;
}

/// On how many further days so many mails are through.
fn days_for(mut left: i64, later: &[i32]) -> i64 {
    let mut days = 0;
    for cap in later {
        days += 1;
        left -= i64::from(*cap);
        if left <= 0 {
            return days;
        }
    }
    days.max(1) + i64::from(days > 0)
}
