//! Who is told that a file is ready: planned with the end of the export, claimed before anything
//! leaves, and settled by what came of it. One function per statement.
//!
//! A claim comes with a link. What certainly reached nobody takes its link with it, in the same
//! transaction; what somebody may have keeps it. So a recipient has one link that works at most.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::download_links::{self, FileKind};
use super::{Record, RecordError, Tx};

/// Recipients of a file at most.
pub const RECIPIENTS_MAX: usize = 10;
/// A claim of a job that does not run any more is in doubt after this many seconds.
const CLAIM_MAX: i64 = 3600;

/// Somebody who is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// `email` or `webhook`.
    pub channel: &'static str,
    /// An address of mail, or the id of a connection.
    pub recipient: String,
    /// The connection that sends; none: the oldest that sends mails.
    pub connection_id: Option<Uuid>,
    pub from_address: Option<String>,
    pub from_name: String,
}

/// One that is to be made.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Delivery {
    pub id: Uuid,
    pub channel: String,
    pub recipient: String,
    pub connection_id: Option<Uuid>,
    pub from_address: Option<String>,
    pub from_name: String,
    /// So often was it put off.
    pub tries: i32,
    /// Why nothing is sent to that address: it bounced, complained, or somebody said so.
    pub suppressed: Option<String>,
}

/// A file that is ready.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ReadyFile {
    pub entity_type: String,
    pub format: String,
    pub file_name: String,
    pub rows: i64,
    pub bytes: i64,
    pub sha256: String,
    pub expires_at: DateTime<Utc>,
}

/// Plans them; true: there is one that was not planned before.
pub async fn plan(
    tx: &mut Tx,
    (workspace_id, export_id): (Uuid, Uuid),
    new: &[NewDelivery],
) -> Result<bool, RecordError> {
    let mut is_new = false;
    for one in new.iter().take(RECIPIENTS_MAX) {
        let done = sqlx::query(
            "INSERT INTO bullwark.file_deliveries
               (workspace_id, export_id, channel, recipient, connection_id, from_address, from_name)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        )
        .bind(workspace_id)
        .bind(export_id)
        .bind(one.channel)
        .bind(&one.recipient)
        .bind(one.connection_id)
        .bind(&one.from_address)
        .bind(&one.from_name)
        .execute(tx.connection())
        .await?;
        is_new |= done.rows_affected() > 0;
    }
    Ok(is_new)
}

/// The address of the user who enqueued a job, if it is known. None of one who is no member of the
/// job's workspace (any more): what a workspace has goes to its members.
pub async fn address_of_creator(
    record: &Record,
    job_id: Uuid,
) -> Result<Option<String>, RecordError> {
    let found: Option<Option<String>> = sqlx::query_scalar(
        "SELECT u.email::text FROM jobs j
           JOIN workspace_members m ON m.user_id = j.created_by
             AND m.workspace_id = j.workspace_id
           JOIN auth.users u ON u.id = m.user_id
         WHERE j.id = $1",
    )
    .bind(job_id)
    .fetch_optional(&record.pool)
    .await?;
    Ok(found.flatten())
}

/// The file of a workspace's export, if it is whole and its days are not over.
pub async fn ready(
    record: &Record,
    (workspace_id, export_id): (Uuid, Uuid),
) -> Result<Option<ReadyFile>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT e.entity_type, e.format, e.file_name, e.rows, e.bytes, e.sha256, e.expires_at
         FROM exports e JOIN jobs j ON j.id = e.id AND j.deleted_at IS NULL
         WHERE e.id = $2 AND e.workspace_id = $1 AND e.status = 'completed'
           AND e.expires_at > now()",
    )
    .bind(workspace_id)
    .bind(export_id)
    .fetch_optional(&record.pool)
    .await?)
}

/// Says of what a dead worker had claimed that nobody knows whether it left; webhooks may be told
/// twice, and are planned again, without the link of before. How many are in doubt.
pub async fn give_up(
    tx: &mut Tx,
    (workspace_id, export_id): (Uuid, Uuid),
    (job_id, attempt): (Uuid, i32),
) -> Result<u64, RecordError> {
    let lost: Vec<(String, Option<Vec<u8>>)> = sqlx::query_as(
        "WITH lost AS (
           SELECT id, channel, link_hash FROM bullwark.file_deliveries
           WHERE export_id = $2 AND workspace_id = $1 AND state = 'claimed'
             AND (job_id = $3 AND attempt < $4
               OR claimed_at < now() - $5 * interval '1 second')
           ORDER BY id FOR UPDATE)
         UPDATE bullwark.file_deliveries d
         SET state = CASE d.channel WHEN 'email' THEN 'unknown' ELSE 'planned' END,
           link_hash = CASE d.channel WHEN 'email' THEN d.link_hash END,
           message = 'the worker died while it was sent', updated_at = now()
         FROM lost WHERE d.id = lost.id RETURNING lost.channel, lost.link_hash",
    )
    .bind(workspace_id)
    .bind(export_id)
    .bind(job_id)
    .bind(attempt)
    .bind(CLAIM_MAX)
    .fetch_all(tx.connection())
    .await?;
    let (mails, calls): (Vec<_>, Vec<_>) = lost
        .into_iter()
        .partition(|(channel, _)| channel == "email");
    for hash in calls.into_iter().filter_map(|(_, hash)| hash) {
        let of = (workspace_id, export_id, FileKind::Export);
        download_links::take_back(tx, of, &hash).await?;
    }
    Ok(mails.len() as u64)
}

/// Those that are still to be made.
pub async fn planned(
    record: &Record,
    (workspace_id, export_id): (Uuid, Uuid),
) -> Result<Vec<Delivery>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT d.id, d.channel, d.recipient, d.connection_id, d.from_address, d.from_name,
           d.tries, (SELECT min(s.reason) FROM email_suppressions s
            WHERE d.channel = 'email' AND s.workspace_id = d.workspace_id
              AND s.target IN (lower(d.recipient), split_part(lower(d.recipient), '@', 2))
              AND s.reason <> 'unsubscribed') AS suppressed
         FROM bullwark.file_deliveries d
         WHERE d.export_id = $2 AND d.workspace_id = $1 AND d.state = 'planned'
         ORDER BY d.id LIMIT $3",
    )
    .bind(workspace_id)
    .bind(export_id)
    .bind(RECIPIENTS_MAX as i64)
    .fetch_all(&record.pool)
    .await?)
}

/// Claims one; false: somebody else has it, or it is over.
pub async fn claim(
    tx: &mut Tx,
    id: Uuid,
    (job_id, attempt): (Uuid, i32),
) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "UPDATE bullwark.file_deliveries
         SET state = 'claimed', job_id = $2, attempt = $3, claimed_at = now(), updated_at = now()
         WHERE id = $1 AND state = 'planned'",
    )
    .bind(id)
    .bind(job_id)
    .bind(attempt)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes the link that one was claimed with, in the transaction of the claim.
pub async fn note_link(tx: &mut Tx, id: Uuid, token: &str) -> Result<(), RecordError> {
    sqlx::query("UPDATE bullwark.file_deliveries SET link_hash = $2 WHERE id = $1")
        .bind(id)
        .bind(download_links::hash(token))
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// What became of one.
#[derive(Debug, Clone, Copy)]
pub struct Settled<'a> {
    /// `planned`: it was not told, and is to be told later.
    pub state: &'a str,
    pub provider_id: Option<&'a str>,
    pub message: Option<&'a str>,
    /// The server of mail has put it off.
    pub is_put_off: bool,
}

/// Says what became of one that this attempt has claimed. If nobody has its link, it goes.
pub async fn settle(
    tx: &mut Tx,
    (id, attempt): (Uuid, i32),
    settled: &Settled<'_>,
) -> Result<(), RecordError> {
    let message = settled.message;
    let message = message.map(|text| text.chars().take(500).collect::<String>());
    let link: Option<(Uuid, Uuid, Option<Vec<u8>>)> = sqlx::query_as(
        "WITH old AS (
           SELECT id, link_hash FROM bullwark.file_deliveries
           WHERE id = $1 AND attempt = $2 AND state = 'claimed' FOR UPDATE)
         UPDATE bullwark.file_deliveries d
         SET state = $3, provider_id = $4, message = $5, updated_at = now(),
           tries = d.tries + $6::int,
           link_hash = CASE WHEN $3 NOT IN ('planned', 'failed') THEN d.link_hash END
         FROM old WHERE d.id = old.id
         RETURNING d.workspace_id, d.export_id, old.link_hash",
    )
    .bind(id)
    .bind(attempt)
    .bind(settled.state)
    .bind(settled.provider_id)
    .bind(message)
    .bind(i32::from(settled.is_put_off))
    .fetch_optional(tx.connection())
    .await?;
    if let Some((workspace_id, export_id, Some(hash))) = link
        && matches!(settled.state, "planned" | "failed")
    {
        let of = (workspace_id, export_id, FileKind::Export);
        download_links::take_back(tx, of, &hash).await?;
    }
    Ok(())
}

/// How many of a file's are in each state.
pub async fn counts(
    record: &Record,
    (workspace_id, export_id): (Uuid, Uuid),
) -> Result<Vec<(String, i64)>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT state, count(*) FROM bullwark.file_deliveries
         WHERE export_id = $2 AND workspace_id = $1 GROUP BY state",
    )
    .bind(workspace_id)
    .bind(export_id)
    .fetch_all(&record.pool)
    .await?)
}
