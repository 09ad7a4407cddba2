//! One attempt: each recipient that was not told yet, one after the other.
//!
//! One that is put off keeps nobody waiting: the others are told, and the job comes back for it.
//! What is wrong with the service that sends concerns them all, and ends the attempt.

use std::collections::BTreeMap;
use std::time::Duration;

use lettre::Address;
use serde_json::json;
use uuid::Uuid;

use super::super::connection::Connection;
use super::super::email::message::{Mail, Sender};
use super::super::email::template::Texts;
use super::super::email::transport::{HAND_OVER_MAX, Handed, Transport, give_back};
use super::super::ending::record_error;
use super::super::later::Later;
use super::fate::{Fate, Next};
use super::{DeliverExport, Summary};
use crate::fault::{self, Point};
use crate::job::{JobError, Progress};
use crate::quota::{Ask, Limits, QuotaKey, QuotaWindow};
use crate::record::access::By;
use crate::record::download_links::{self, Created, FileKind, NewLink};
use crate::record::exports::KEPT;
use crate::record::file_deliveries::{self, Delivery, ReadyFile, Settled};
use crate::record::logs::LogLevel;
use crate::worker::JobContext;

/// Mails of a second and connection, unless an admin says otherwise.
const PER_SECOND: u32 = 50;
/// Times that a result is written again while the record is away: it has happened.
const NOTES_MAX: u32 = 8;

pub(super) struct Sending<'a> {
    pub(super) ctx: &'a JobContext,
    /// The workspace and the export.
    pub(super) of: (Uuid, Uuid),
    pub(super) handler: &'a DeliverExport,
    pub(super) public_url: &'a str,
}

/// Why this one gets nothing, and never will.
fn unwelcome(one: &Delivery) -> Option<&str> {
    let is_address = || one.recipient.parse::<Address>().is_ok();
    match &one.suppressed {
        Some(reason) => Some(reason),
        None if one.channel == "email" && !is_address() => Some("it is no address of mail"),
        None => None,
    }
}

impl Sending<'_> {
    pub(super) async fn run(&self) -> Result<Summary, JobError> {
        let mut begun = self.ctx.begin_checkpoint().await?;
        let me = (self.ctx.job_id(), self.ctx.attempt());
        let lost = file_deliveries::give_up(begun.tx(), self.of, me).await;
        if lost.map_err(record_error)? > 0 {
            let message = "a mail may have been sent when the worker died; it is not sent again";
            self.ctx.log(LogLevel::Error, message, None);
        }
        begun
            .commit_without_gain(json!({}), self.progress())
            .await?;
        let planned = file_deliveries::planned(self.ctx.record(), self.of).await;
        let planned = planned.map_err(record_error)?;
        if !planned.is_empty() {
            let file = file_deliveries::ready(self.ctx.record(), self.of).await;
            let file = file.map_err(record_error)?.ok_or_else(|| {
                JobError::Permanent(format!(
                    "export {} has no file (any more): nobody is told of it",
                    self.of.1
                ))
            })?;
            let mut later = Later::default();
            for one in &planned {
                match self.deliver(&file, one).await? {
                    Next::Go => {}
                    Next::Later(error) => later.note(error)?,
                    Next::Stop(error) => {
                        // It comes back when this one may be told, and those of before.
                        later.note(error)?;
                        break;
                    }
                }
            }
            if let Some(error) = later.end() {
                return Err(error);
            }
        }
        self.sum_up().await
    }

    async fn deliver(&self, file: &ReadyFile, one: &Delivery) -> Result<Next, JobError> {
        if self.ctx.cancelled().is_cancelled() {
            self.ctx.begin_checkpoint().await?;
            return Err(JobError::Retry("told to stop".to_owned()));
        }
        if let Some(reason) = unwelcome(one) {
            if self.claim(one).await?.is_some() {
                let why = format!("nothing is sent to {}: {reason}", one.recipient);
                self.ctx.log(LogLevel::Warn, &why, None);
                self.note(one, &Fate::of("failed", why)).await?;
            }
            return Ok(Next::Go);
        }
        let fate = match one.channel.as_str() {
            "email" => self.mail(file, one).await?,
            _ => self.call(file, one).await?,
        };
        let Some(fate) = fate else {
            return Ok(Next::Go);
        };
        fault::point(Point::AfterHandOver);
        self.note(one, &fate).await?;
        Ok(fate.next)
    }

    /// Claims it, with a link to the file; none: somebody else has it.
    pub(super) async fn claim(&self, one: &Delivery) -> Result<Option<String>, JobError> {
        let mut begun = self.ctx.begin_checkpoint().await?;
        let me = (self.ctx.job_id(), self.ctx.attempt());
        let claimed = file_deliveries::claim(begun.tx(), one.id, me).await;
        if !claimed.map_err(record_error)? {
            return Ok(None);
        }
        let link = NewLink {
            workspace_id: self.of.0,
            job_id: self.of.1,
            kind: FileKind::Export,
            expires_in: KEPT,
            not_after: None,
        };
        let made = download_links::create_in(begun.tx(), &link, &By::OPERATOR).await;
        let token = match made.map_err(record_error)? {
            Created::Made(made) => made.token,
            Created::TooMany => {
                let why = "the file has as many links as it may have: revoke them, and run the \
                    job again";
                return Err(JobError::permanent(why));
            }
            Created::Gone => return Err(JobError::permanent("the export was deleted")),
        };
        let noted = file_deliveries::note_link(begun.tx(), one.id, &token).await;
        noted.map_err(record_error)?;
        begun
            .commit(json!({ "claimed": one.id }), self.progress())
            .await?;
        fault::point(Point::AfterEmailClaim);
        Ok(Some(format!("{}/api/downloads/{token}", self.public_url)))
    }

    async fn mail(&self, file: &ReadyFile, one: &Delivery) -> Result<Option<Fate>, JobError> {
        let connections = &self.handler.connections;
        let connection = connections
            .open_mailing(self.ctx, one.connection_id)
            .await?;
        let from = one.from_address.as_deref();
        let from = from.or_else(|| connection.setting("from_address"));
        let from = from.ok_or_else(|| {
            JobError::Permanent(format!(
                "nobody knows whom the mail is from: name `delivery.from`, or let an admin set \
                 `from_address` of connection {}",
                connection.id
            ))
        })?;
        let sender = Sender::new(from, &one.from_name, None).map_err(JobError::Permanent)?;
        let to = one.recipient.parse();
        let to = to.map_err(|_| JobError::permanent("the recipient is no address of mail"))?;
        let transport = Transport::new(&connection, &self.handler.caller)?;
        let service = format!("email.{}", connection.id);
        let key = QuotaKey::new(&service, self.of.0).map_err(JobError::permanent)?;
        let limits = Limits::of([QuotaWindow::Sliding {
            max: PER_SECOND,
            per_ms: 1_000,
        }]);
        let ask = Ask::new(&key, &limits);
        let ask = ask.lease(HAND_OVER_MAX).host(&service);
        let permit = self.ctx.permit(ask).await?;
        let Some(url) = self.claim(one).await? else {
            permit.ended().await;
            return Ok(None);
        };
        let mail = Mail {
            id: one.id,
            sender,
            to,
            texts: texts(file, &url),
            unsubscribe_url: None,
        };
        let handing = transport.hand_over(&mail);
        let (handed, learned) = match tokio::time::timeout(HAND_OVER_MAX, handing).await {
            Ok(handed) => handed,
            Err(_) => {
                let why = format!("it took longer than {HAND_OVER_MAX:?}");
                (Handed::Ambiguous(why), None)
            }
        };
        let closed = give_back(permit, &handed, learned).await;
        let handed = handed.not_before(closed);
        transport.close().await;
        Ok(Some(self.fate(&connection, one, handed).await))
    }

    async fn fate(&self, connection: &Connection, one: &Delivery, handed: Handed) -> Fate {
        let told = |level, what: &str, why: &str| {
            let message = format!("the mail to {} {what}: {why}", one.recipient);
            self.ctx.log(level, &message, None);
        };
        match handed {
            Handed::Sent(provider_id) => Fate {
                provider_id,
                ..Fate::of("sent", None)
            },
            Handed::Rejected { message, .. } => {
                told(LogLevel::Warn, "was rejected", &message);
                Fate::of("failed", message)
            }
            Handed::Ambiguous(why) => {
                told(LogLevel::Error, "may have been sent", &why);
                Fate::of("unknown", why)
            }
            Handed::Deferred(why) => {
                let fate = Fate::put_off(one, why);
                let why = fate.message.as_deref().unwrap_or_default();
                told(LogLevel::Warn, "was put off", why);
                fate
            }
            Handed::Unavailable(why, after) => {
                let why = format!("{} is not available: {why}", connection.provider);
                Fate::stop(match after {
                    Some(after) => JobError::Snooze(after, why),
                    None => JobError::Retry(why),
                })
            }
            Handed::CredentialsRefused(why) => Fate::stop(connection.refused(self.ctx, &why).await),
            Handed::Misconfigured(why) => Fate::stop(JobError::Permanent(format!(
                "connection {}: {why}",
                connection.id
            ))),
        }
    }

    /// Writes down what came of one. It has happened, so this is tried for a while.
    async fn note(&self, one: &Delivery, fate: &Fate) -> Result<(), JobError> {
        let mut pause = Duration::from_millis(100);
        for _ in 0..NOTES_MAX {
            match self.note_once(one, fate).await {
                Err(JobError::Retry(why)) => {
                    tracing::warn!(job.id = %self.ctx.job_id(), why, "a result is written again");
                }
                ended => return ended,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        self.note_once(one, fate).await
    }

    async fn note_once(&self, one: &Delivery, fate: &Fate) -> Result<(), JobError> {
        let mut begun = self.ctx.begin_checkpoint().await?;
        let settled = Settled {
            state: fate.state,
            provider_id: fate.provider_id.as_deref(),
            message: fate.message.as_deref(),
            is_put_off: matches!(fate.next, Next::Later(_)),
        };
        let about = (one.id, self.ctx.attempt());
        let settled = file_deliveries::settle(begun.tx(), about, &settled).await;
        settled.map_err(record_error)?;
        begun
            .commit(json!({ "settled": one.id }), self.progress())
            .await
    }

    async fn sum_up(&self) -> Result<Summary, JobError> {
        let counts = file_deliveries::counts(self.ctx.record(), self.of).await;
        let counts: BTreeMap<String, i64> = counts.map_err(record_error)?.into_iter().collect();
        let count = |state: &str| counts.get(state).map_or(0, |count| count.unsigned_abs());
        let summary = Summary {
            export_id: self.of.1,
            sent: count("sent"),
            failed: count("failed"),
            unknown: count("unknown"),
        };
        // Somebody waits for a file and hears nothing: a person should look.
        if summary.sent == 0 && summary.failed + summary.unknown > 0 {
            return Err(JobError::Permanent(format!(
                "nobody was told for certain: {} refused, {} in doubt; the log says why, and the \
                 file is at /api/exports/{}/file",
                summary.failed, summary.unknown, self.of.1
            )));
        }
        Ok(summary)
    }

    fn progress(&self) -> Progress {
        Progress::new(1, 0, 0, "tells people")
    }
}

fn texts(file: &ReadyFile, url: &str) -> Texts {
    let what = match file.entity_type.as_str() {
        "pipeline" => "report",
        _ => "export",
    };
    // What has a line's end in it would be no subject; names of files have none.
    let name: String = file.file_name.chars().filter(|c| !c.is_control()).collect();
    let until = file.expires_at.format("%Y-%m-%d %H:%M UTC");
    let text = format!(
        "The {what} {name} is ready ({} rows, {} bytes).\n\nDownload it here until {until}:\n\n\
         {url}\n\nWhoever has this link can download the file; it needs no password. Its SHA-256 \
         is {}.\n",
        file.rows, file.bytes, file.sha256
    );
    Texts {
        subject: format!("Your {what} {name} is ready"),
        text: Some(text),
        html: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mail_names_the_file_and_where_it_is() {
        let file = ReadyFile {
            entity_type: "accounts".to_owned(),
            format: "csv".to_owned(),
            file_name: "a\r\nBcc: x@y.example.csv".to_owned(),
            rows: 7,
            bytes: 99,
            sha256: "ab".repeat(32),
            expires_at: chrono::DateTime::from_timestamp(1_795_812_513, 0).unwrap(),
        };
        let texts = texts(&file, "https://jobs.example.com/api/downloads/x");
        assert_eq!(texts.subject, "Your export aBcc: x@y.example.csv is ready");
        let text = texts.text.unwrap();
        assert!(
            text.contains("\n\nhttps://jobs.example.com/api/downloads/x\n\n"),
            "{text}"
        );
        assert!(text.contains("until 2026-11-27 20:48 UTC"), "{text}");
    }
}
