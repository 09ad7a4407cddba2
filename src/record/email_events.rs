//! What providers say became of mails: each event once, whatever order they come in.
//!
//! | event | the mail | the address |
//! |---|---|---|
//! | taken | `handed_over`, if it was in doubt | |
//! | delivered | `delivered`, if it was handed over or in doubt | |
//! | bounced | `bounced`, unless it was complained about | nothing is sent to it any more |
//! | blocked | `bounced`, if it was handed over or in doubt | |
//! | dropped | `failed`, if it was handed over or in doubt | |
//! | complained | `complained` | nothing is sent to it any more |
//! | unsubscribed | as it is | no marketing is sent to it any more |
//!
//! A mail that is claimed is in doubt, too: its event may come before its worker has noted that it
//! was handed over, or after that worker has died.
//!
//! Mails that tell of a file (`file_deliveries`) have the same steps, in fewer states: what was
//! delivered or complained about is `sent`, what bounced is `failed`, and the reason says which.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use uuid::Uuid;

use super::{Record, RecordError, Tx, email_domains, email_sends};

/// Events that are taken in at once.
pub const EVENTS_MAX: usize = 2_000;
/// How long it is known that an event was told, in days; and how many are forgotten in one go.
const KEPT_DAYS: i32 = 30;
const FORGOTTEN_MAX: i64 = 5_000;

/// What happened to a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailEvent {
    Taken,
    Delivered,
    Bounced,
    Blocked,
    Dropped,
    Complained,
    Unsubscribed,
}

impl EmailEvent {
    /// The states in which it changes a mail, to which, and why.
    fn step(
        self,
    ) -> (
        &'static [&'static str],
        Option<(&'static str, &'static str)>,
    ) {
        const DOUBT: &[&str] = &["claimed", "unknown"];
        const OPEN: &[&str] = &["claimed", "unknown", "handed_over"];
        const GONE: &[&str] = &["claimed", "unknown", "handed_over", "delivered"];
        const ANY: &[&str] = &["claimed", "unknown", "handed_over", "delivered", "bounced"];
        match self {
            Self::Taken => (DOUBT, Some(("handed_over", "event_taken"))),
            Self::Delivered => (OPEN, Some(("delivered", "event_delivered"))),
            Self::Bounced => (GONE, Some(("bounced", "event_bounced"))),
            Self::Blocked => (OPEN, Some(("bounced", "event_blocked"))),
            Self::Dropped => (OPEN, Some(("failed", "event_dropped"))),
            Self::Complained => (ANY, Some(("complained", "event_complained"))),
            Self::Unsubscribed => (&[], None),
        }
    }

    fn suppresses(self) -> Option<&'static str> {
        match self {
            Self::Bounced => Some("bounced"),
            Self::Complained => Some("complained"),
            Self::Unsubscribed => Some("unsubscribed"),
            Self::Taken | Self::Delivered | Self::Blocked | Self::Dropped => None,
        }
    }
}

/// An event of a mail of ours.
#[derive(Debug, Clone)]
pub struct Told {
    /// The provider's id of it.
    pub event_id: String,
    pub send_id: Uuid,
    pub event: EmailEvent,
}

/// A connection that tells events.
#[derive(Clone, sqlx::FromRow)]
pub struct Teller {
    pub id: Uuid,
    pub workspace_id: Uuid,
    pub provider: String,
    pub base_url: Option<String>,
    pub settings: serde_json::Value,
    /// Sealed.
    pub credentials: String,
}

/// The connection of this id, of whatever workspace.
pub async fn teller(record: &Record, id: Uuid) -> Result<Option<Teller>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT id, workspace_id, provider, base_url, settings, credentials
         FROM connections WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(&record.pool)
    .await?)
}

/// Takes events in, all or none: those that were told before, and those of mails that are not of
/// this workspace, change nothing. How many were new.
pub async fn take_in(
    record: &Record,
    teller: &Teller,
    told: &[Told],
) -> Result<usize, RecordError> {
    let mut tx = record.begin().await?;
    // In one order, so that two deliveries of the same events wait for each other.
    let mut ordered: Vec<&Told> = told.iter().collect();
    ordered.sort_by(|a, b| a.event_id.cmp(&b.event_id));
    let ids: Vec<&str> = ordered.iter().map(|told| told.event_id.as_str()).collect();
    let fresh: Vec<String> = sqlx::query_scalar(
        "INSERT INTO bullwark.email_events (connection_id, event_id)
         SELECT $1, e.id FROM unnest($2::text[]) WITH ORDINALITY e (id, at) ORDER BY e.at
         ON CONFLICT DO NOTHING RETURNING event_id",
    )
    .bind(teller.id)
    .bind(ids)
    .fetch_all(tx.connection())
    .await?;
    let fresh: std::collections::HashSet<String> = fresh.into_iter().collect();
    let mut new: Vec<&Told> = told.iter().collect();
    let mut seen = std::collections::HashSet::new();
    new.retain(|one| fresh.contains(&one.event_id) && seen.insert(one.event_id.as_str()));
    // Everybody locks mails in this order (`email_sends`), and domains after them.
    let sends: Vec<Uuid> = new.iter().map(|one| one.send_id).collect();
    sqlx::query(
        "SELECT FROM email_sends WHERE id = ANY ($1) AND workspace_id = $2
         ORDER BY recipient, id FOR UPDATE",
    )
    .bind(&sends)
    .bind(teller.workspace_id)
    .execute(tx.connection())
    .await?;
    sqlx::query(
        "SELECT FROM bullwark.file_deliveries WHERE id = ANY ($1) AND workspace_id = $2
         ORDER BY id FOR UPDATE",
    )
    .bind(&sends)
    .bind(teller.workspace_id)
    .execute(tx.connection())
    .await?;
    let mut counts: BTreeMap<(String, NaiveDate), (usize, usize)> = BTreeMap::new();
    for one in &new {
        if let Some((of, bounces, complaints)) = apply(&mut tx, teller, one).await? {
            let count = counts.entry(of).or_default();
            *count = (count.0 + bounces, count.1 + complaints);
        }
    }
    for ((domain, day), count) in &counts {
        let about = (teller.workspace_id, domain.as_str(), *day);
        email_domains::count(&mut tx, about, *count).await?;
    }
    tx.commit().await?;
    Ok(new.len())
}

/// A mail as it is when an event comes.
#[derive(sqlx::FromRow)]
struct SendNow {
    state: String,
    contact_id: Uuid,
    recipient: String,
    domain: Option<String>,
    sent_day: Option<NaiveDate>,
}

/// What a domain's day is to be told: its name, the day, bounces and complaints.
type Count = ((String, NaiveDate), usize, usize);

async fn apply(tx: &mut Tx, teller: &Teller, told: &Told) -> Result<Option<Count>, RecordError> {
    let send: Option<SendNow> = sqlx::query_as(
        "SELECT state, contact_id, recipient, domain, sent_day FROM email_sends
         WHERE id = $1 AND workspace_id = $2 FOR UPDATE",
    )
    .bind(told.send_id)
    .bind(teller.workspace_id)
    .fetch_optional(tx.connection())
    .await?;
    let Some(send) = send else {
        apply_to_file(tx, teller, told).await?;
        return Ok(None);
    };
    let mut count = None;
    let (from, to) = told.event.step();
    let is_step = from.contains(&send.state.as_str());
    if let Some((to, code)) = to.filter(|_| is_step) {
        sqlx::query(
            "UPDATE email_sends SET state = $2, code = $3, updated_at = now(),
               handed_over_at = coalesce(handed_over_at, claimed_at) WHERE id = $1",
        )
        .bind(told.send_id)
        .bind(to)
        .bind(code)
        .execute(tx.connection())
        .await?;
        // Whoever handed it over has not noted so.
        if to != "failed" && matches!(send.state.as_str(), "claimed" | "unknown") {
            email_sends::enroll(tx, &[told.send_id]).await?;
        }
        let of = send.domain.clone().zip(send.sent_day);
        count = match told.event {
            EmailEvent::Bounced => of.map(|of| (of, 1, 0)),
            EmailEvent::Complained => of.map(|of| (of, 0, 1)),
            _ => None,
        };
    }
    let Some(reason) = told.event.suppresses() else {
        return Ok(count);
    };
    sqlx::query(
        "WITH stopped AS (
           UPDATE sequence_enrollments SET state = 'stopped'
           WHERE contact_id = $4 AND workspace_id = $1 AND state = 'active'
         )
         INSERT INTO email_suppressions (workspace_id, target, reason, source, send_id)
         VALUES ($1, $2, $3, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(teller.workspace_id)
    .bind(send.recipient)
    .bind(reason)
    .bind(send.contact_id)
    .bind(&teller.provider)
    .bind(told.send_id)
    .execute(tx.connection())
    .await?;
    Ok(count)
}

/// A mail that tells of a file. Its domain has no days that are counted.
async fn apply_to_file(tx: &mut Tx, teller: &Teller, told: &Told) -> Result<(), RecordError> {
    let mail: Option<(String, Option<String>, String)> = sqlx::query_as(
        "SELECT state, message, recipient FROM bullwark.file_deliveries
         WHERE id = $1 AND workspace_id = $2 AND channel = 'email' FOR UPDATE",
    )
    .bind(told.send_id)
    .bind(teller.workspace_id)
    .fetch_optional(tx.connection())
    .await?;
    let Some((state, message, recipient)) = mail else {
        return Ok(());
    };
    // As the mail of a sequence would stand.
    let stands = match (state.as_str(), message.as_deref()) {
        ("sent", Some("event_delivered")) => "delivered",
        ("sent", Some("event_complained")) => "complained",
        ("failed", Some("event_bounced" | "event_blocked")) => "bounced",
        ("sent", _) => "handed_over",
        (other, _) => other,
    };
    let (from, to) = told.event.step();
    if let Some((to, code)) = to.filter(|_| from.contains(&stands)) {
        let to = match to {
            "bounced" | "failed" => "failed",
            _ => "sent",
        };
        sqlx::query(
            "UPDATE bullwark.file_deliveries SET state = $2, message = $3, updated_at = now()
             WHERE id = $1",
        )
        .bind(told.send_id)
        .bind(to)
        .bind(code)
        .execute(tx.connection())
        .await?;
    }
    if let Some(reason) = told.event.suppresses() {
        sqlx::query(
            "INSERT INTO email_suppressions (workspace_id, target, reason, source, send_id)
             VALUES ($1, lower($2), $3, $4, $5) ON CONFLICT DO NOTHING",
        )
        .bind(teller.workspace_id)
        .bind(recipient)
        .bind(reason)
        .bind(&teller.provider)
        .bind(told.send_id)
        .execute(tx.connection())
        .await?;
    }
    Ok(())
}

/// Forgets that old events were told. How many; bounded, safe to repeat.
pub async fn prune(record: &Record) -> Result<u64, RecordError> {
    let done = sqlx::query(
        "DELETE FROM bullwark.email_events WHERE (connection_id, event_id) IN (
           SELECT connection_id, event_id FROM bullwark.email_events
           WHERE seen_at < now() - $1 * interval '1 day' ORDER BY seen_at LIMIT $2
           FOR UPDATE SKIP LOCKED)",
    )
    .bind(KEPT_DAYS)
    .bind(FORGOTTEN_MAX)
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected())
}
