//! Handing mails over, and what is written down of it.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use uuid::Uuid;

use super::batch::{AGAIN, GROUP_MAX, Run, moved};
use super::prepare::{Ready, TRIES_MAX};
use super::run::jitter;
use super::transport::{HAND_OVER_MAX, Handed, give_back};
use crate::handlers::ending::record_error;
use crate::job::JobError;
use crate::quota::Permit;
use crate::record::email_sends::{self, Settled};
use crate::record::logs::LogLevel;

/// Times that a result is written again while the record is away: it has happened.
const NOTES_MAX: u32 = 8;

impl Run<'_> {
    /// Hands all of them over, each with a permit.
    pub(super) async fn hand_over<'m>(
        &self,
        mails: &'m [Ready],
        permits: Vec<Permit>,
    ) -> Vec<(&'m Ready, Handed)> {
        let mut permits = permits.into_iter();
        let under_way = mails.iter().map(|ready| {
            let permit = permits.next();
            async move {
                let handing = self.transport.hand_over(&ready.mail);
                let (handed, learned) = match tokio::time::timeout(HAND_OVER_MAX, handing).await {
                    Ok(handed) => handed,
                    Err(_) => {
                        let why = format!("it took longer than {HAND_OVER_MAX:?}");
                        (Handed::Ambiguous(why), None)
                    }
                };
                let closed = match permit {
                    Some(permit) => give_back(permit, &handed, learned).await,
                    None => None,
                };
                (ready, handed.not_before(closed))
            }
        });
        let handed = join_all(under_way).await;
        for permit in permits {
            permit.ended().await;
        }
        handed
    }

    /// Writes down what came of them. `Err`: how the job goes on, if it does not go on now.
    pub(super) async fn settle(&mut self, handed: Vec<(&Ready, Handed)>) -> Result<(), JobError> {
        let settled: Vec<Settled> = handed
            .iter()
            .map(|(ready, handed)| settled(ready, handed))
            .collect();
        for one in &settled {
            moved(&mut self.tally, "claimed", one.state);
            if one.state == "handed_over" {
                self.place.sent += 1;
                self.went += 1;
            }
        }
        for (ready, handed) in &handed {
            self.tell(ready.mail.id, handed);
        }
        self.note(&settled).await?;
        let stops = |handed: &&Handed| {
            matches!(
                handed,
                Handed::Unavailable(..) | Handed::CredentialsRefused(_) | Handed::Misconfigured(_)
            )
        };
        let handed: Vec<&Handed> = handed.iter().map(|(_, handed)| handed).collect();
        if let Some(handed) = handed.iter().copied().find(stops) {
            return Err(self.how_on(handed).await);
        }
        match went_wrong(&handed).filter(|_| self.count("planned") > 0) {
            Some(why) => Err(self.how_on(&Handed::Unavailable(why, None)).await),
            None => Ok(()),
        }
    }

    /// What was handed over can not be taken back: while the record is away, it is written again
    /// and again. What it does not know when the job goes elsewhere is in doubt.
    async fn note(&self, settled: &[Settled]) -> Result<(), JobError> {
        let mut pause = Duration::from_millis(100);
        for _ in 0..NOTES_MAX {
            match self.note_once(settled).await {
                Err(JobError::Retry(why)) => {
                    tracing::warn!(job.id = %self.batch.job_id, why, "results are written again");
                }
                ended => return ended,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        self.note_once(settled).await
    }

    async fn note_once(&self, settled: &[Settled]) -> Result<(), JobError> {
        let mut checkpoint = self.ctx.begin_checkpoint().await?;
        let attempt = self.ctx.attempt();
        let noted = email_sends::settle(checkpoint.tx(), self.batch, attempt, settled).await;
        noted.map_err(record_error)?;
        checkpoint.commit(json!(self.place), self.progress()).await
    }

    fn tell(&self, id: Uuid, handed: &Handed) {
        let (level, what, why) = match handed {
            Handed::Sent(_) => return,
            Handed::Rejected { message, .. } => (LogLevel::Warn, "was rejected", message),
            Handed::Deferred(why) => (LogLevel::Info, "was not taken yet", why),
            Handed::Ambiguous(why) => (LogLevel::Error, "may have been sent", why),
            // The error of the job says it.
            Handed::Unavailable(..) | Handed::CredentialsRefused(_) | Handed::Misconfigured(_) => {
                return;
            }
        };
        let message = format!("mail {id} {what}: {why}");
        self.ctx
            .log(level, &message, Some(json!({ "email_send_id": id })));
    }

    /// How the job goes on after what holds for every mail.
    pub(super) async fn how_on(&self, handed: &Handed) -> JobError {
        match handed {
            Handed::CredentialsRefused(why) => self.connection.refused(self.ctx, why).await,
            Handed::Misconfigured(why) => {
                JobError::Permanent(format!("connection {}: {why}", self.connection.id))
            }
            Handed::Unavailable(why, after) => {
                let why = format!("{} is not available: {why}", self.connection.provider);
                match after {
                    Some(after) => JobError::Snooze(*after + jitter() / 10, why),
                    // An attempt that got on is no failure.
                    None if self.went > 0 => JobError::Snooze(AGAIN.0 + jitter() / 10, why),
                    None => JobError::Retry(why),
                }
            }
            Handed::Sent(_)
            | Handed::Rejected { .. }
            | Handed::Deferred(_)
            | Handed::Ambiguous(_) => JobError::retry("unexpected answer of the provider"),
        }
    }
}

/// Why no further ones are handed over now, if a whole group went wrong: a provider that is ill, or
/// refuses whatever comes, must not bring all mails of a job in doubt, or let them fail.
fn went_wrong(group: &[&Handed]) -> Option<String> {
    if let [Handed::Ambiguous(why), ..] = group
        && group.iter().all(|one| matches!(one, Handed::Ambiguous(_)))
    {
        return Some(format!("none of {} mails was answered: {why}", group.len()));
    }
    let is_rejected = |one: &&Handed| {
        matches!(
            one,
            Handed::Rejected {
                is_bounce: false,
                ..
            }
        )
    };
    match group {
        [Handed::Rejected { message, .. }, ..]
            if group.len() as i64 >= GROUP_MAX && group.iter().all(is_rejected) =>
        {
            Some(format!(
                "all of {} mails were rejected: {message}",
                group.len()
            ))
        }
        _ => None,
    }
}

fn settled(ready: &Ready, handed: &Handed) -> Settled {
    let plain = Settled {
        id: ready.mail.id,
        state: "planned",
        provider_id: None,
        code: None,
        message: None,
        is_try: false,
        is_bounce: false,
    };
    match handed {
        Handed::Sent(provider_id) => Settled {
            state: "handed_over",
            provider_id: provider_id.clone(),
            is_try: true,
            ..plain
        },
        Handed::Rejected {
            code,
            message,
            is_bounce,
        } => Settled {
            state: "failed",
            code: Some(code),
            message: Some(message.clone()),
            is_try: true,
            is_bounce: *is_bounce,
            ..plain
        },
        Handed::Deferred(why) if ready.tries + 1 >= TRIES_MAX => Settled {
            state: "failed",
            code: Some("deferred_too_often"),
            message: Some(why.clone()),
            is_try: true,
            ..plain
        },
        Handed::Deferred(why) => Settled {
            code: Some("deferred"),
            message: Some(why.clone()),
            is_try: true,
            ..plain
        },
        Handed::Ambiguous(why) => Settled {
            state: "unknown",
            code: Some("no_answer"),
            message: Some(why.clone()),
            is_try: true,
            ..plain
        },
        Handed::Unavailable(why, _)
        | Handed::CredentialsRefused(why)
        | Handed::Misconfigured(why) => Settled {
            code: Some("not_available"),
            message: Some(why.clone()),
            ..plain
        },
    }
}
