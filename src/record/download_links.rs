//! Links that open one file of a job without a key, for a while.
//!
//! The record holds hashes only; a link itself is shown once, when it is made. It opens nothing
//! that its maker could not open, it can be revoked, and it works no longer when the key that made
//! it is revoked, or the member who did has left.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::access::{self, Audit, By};
use super::exports::ExportRow;
use super::{Record, RecordError, Tx};

/// Links of one file that work at the same time.
pub const LINKS_MAX: i64 = 100;
/// Links that one call of [`purge`] removes.
const PURGED_MAX: i64 = 1000;
/// Letters of a token: 256 random bits.
const TOKEN_LENGTH: usize = 43;
/// How exactly the last use is known.
const LAST_USED_EVERY: Duration = Duration::from_secs(60);

/// Which file of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// What an export wrote.
    Export,
    /// The rows that an import could not take.
    Report,
}

impl FileKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Report => "report",
        }
    }
}

/// A link that is wished for.
#[derive(Debug, Clone, Copy)]
pub struct NewLink {
    pub workspace_id: Uuid,
    pub job_id: Uuid,
    pub kind: FileKind,
    pub expires_in: Duration,
    /// The file is gone then, and so is the link.
    pub not_after: Option<DateTime<Utc>>,
}

/// A link that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// Shown once.
    pub token: String,
    pub expires_at: DateTime<Utc>,
}

/// What became of the wish for a link.
#[derive(Debug, Clone)]
pub enum Created {
    Made(Made),
    /// The file has [`LINKS_MAX`] already.
    TooMany,
    /// The job was deleted meanwhile.
    Gone,
}

/// Makes a link, with a row in the audit.
pub async fn create(record: &Record, new: &NewLink, by: &By<'_>) -> Result<Created, RecordError> {
    let mut tx = record.begin().await?;
    let created = create_in(&mut tx, new, by).await?;
    tx.commit().await?;
    Ok(created)
}

/// The same with whatever else is written.
pub async fn create_in(tx: &mut Tx, new: &NewLink, by: &By<'_>) -> Result<Created, RecordError> {
    let random: [u8; 32] = rand::random();
    let token = URL_SAFE_NO_PAD.encode(random);
    // One after the other, so that the limit holds.
    let job: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM jobs WHERE id = $1 AND workspace_id = $2 AND deleted_at IS NULL
         FOR NO KEY UPDATE",
    )
    .bind(new.job_id)
    .bind(new.workspace_id)
    .fetch_optional(tx.connection())
    .await?;
    if job.is_none() {
        return Ok(Created::Gone);
    }
    let links: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM bullwark.download_links
         WHERE job_id = $1 AND kind = $2 AND expires_at > now()",
    )
    .bind(new.job_id)
    .bind(new.kind.as_str())
    .fetch_one(tx.connection())
    .await?;
    if links >= LINKS_MAX {
        return Ok(Created::TooMany);
    }
    let (actor_kind, actor_id) = by.actor.parts();
    let expires_at: DateTime<Utc> = sqlx::query_scalar(
        "INSERT INTO bullwark.download_links (token_hash, workspace_id, job_id, kind,
           created_by_kind, created_by, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, least(now() + $7 * interval '1 second', $8))
         RETURNING expires_at",
    )
    .bind(hash(&token))
    .bind(new.workspace_id)
    .bind(new.job_id)
    .bind(new.kind.as_str())
    .bind(actor_kind)
    .bind(actor_id)
    .bind(new.expires_in.as_secs_f64())
    .bind(new.not_after)
    .fetch_one(tx.connection())
    .await?;
    let after = json!({ "file": new.kind.as_str(), "expires_at": expires_at });
    let audit = Audit {
        workspace_id: Some(new.workspace_id),
        actor: by.actor,
        action: "download_link.create",
        target: ("job", new.job_id.to_string()),
        reason: None,
        before: None,
        after: Some(after),
        request_id: by.request_id,
    };
    access::note(tx.connection(), &audit).await?;
    Ok(Created::Made(Made { token, expires_at }))
}

/// Makes all links of a file worthless, with a row in the audit if there were any; answers how
/// many still worked.
pub async fn revoke(
    record: &Record,
    (workspace_id, job_id, kind): (Uuid, Uuid, FileKind),
    by: &By<'_>,
) -> Result<i64, RecordError> {
    let mut tx = record.begin().await?;
    let revoked: i64 = sqlx::query_scalar(
        "WITH gone AS (
           DELETE FROM bullwark.download_links
           WHERE job_id = $1 AND kind = $2 AND workspace_id = $3 RETURNING expires_at)
         SELECT count(*) FROM gone WHERE expires_at > now()",
    )
    .bind(job_id)
    .bind(kind.as_str())
    .bind(workspace_id)
    .fetch_one(tx.connection())
    .await?;
    if revoked > 0 {
        let audit = Audit {
            workspace_id: Some(workspace_id),
            actor: by.actor,
            action: "download_link.revoke",
            target: ("job", job_id.to_string()),
            reason: None,
            before: Some(json!({ "file": kind.as_str(), "links": revoked })),
            after: None,
            request_id: by.request_id,
        };
        access::note(tx.connection(), &audit).await?;
    }
    tx.commit().await?;
    Ok(revoked)
}

/// Makes one link worthless that reached nobody, with a row in the audit, in the transaction that
/// says so. One that is gone already is left at that.
pub(super) async fn take_back(
    tx: &mut Tx,
    (workspace_id, job_id, kind): (Uuid, Uuid, FileKind),
    hash: &[u8],
) -> Result<(), RecordError> {
    let gone = sqlx::query(
        "DELETE FROM bullwark.download_links
         WHERE token_hash = $1 AND workspace_id = $2 AND job_id = $3",
    )
    .bind(hash)
    .bind(workspace_id)
    .bind(job_id)
    .execute(tx.connection())
    .await?;
    if gone.rows_affected() == 0 {
        return Ok(());
    }
    let audit = Audit {
        workspace_id: Some(workspace_id),
        actor: By::OPERATOR.actor,
        action: "download_link.revoke",
        target: ("job", job_id.to_string()),
        reason: Some("it reached nobody"),
        before: Some(json!({ "file": kind.as_str(), "links": 1 })),
        after: None,
        request_id: None,
    };
    access::note(tx.connection(), &audit).await
}

/// What a link opens.
#[derive(Debug, Clone, PartialEq)]
pub enum Opened {
    Export(ExportRow),
    /// The report of the import that is this job.
    Report(Uuid),
}

/// What a link opens, if it works: unknown, expired and revoked ones are not told apart.
pub async fn open(record: &Record, token: &str) -> Result<Option<Opened>, RecordError> {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if token.len() != TOKEN_LENGTH || !token.bytes().all(is_letter) {
        return Ok(None);
    }
    let hash = hash(token);
    // The token has 256 random bits, so looking it up by its hash tells nothing about others.
    let link: Option<(Uuid, Uuid, String, bool)> = sqlx::query_as(
        "SELECT l.job_id, l.workspace_id, l.kind,
           coalesce(l.last_used_at < now() - $2 * interval '1 second', true)
         FROM bullwark.download_links l JOIN jobs j ON j.id = l.job_id AND j.deleted_at IS NULL
         WHERE l.token_hash = $1 AND l.expires_at > now()
           -- Whoever may do nothing any more has given nothing away.
           AND CASE l.created_by_kind
             WHEN 'api_key' THEN EXISTS (SELECT FROM bullwark.api_keys k
               WHERE k.id = l.created_by AND k.revoked_at IS NULL
                 AND coalesce(k.expires_at > now(), true))
             WHEN 'user' THEN EXISTS (SELECT FROM workspace_members m
               WHERE m.user_id = l.created_by AND m.workspace_id = l.workspace_id)
             ELSE true END",
    )
    .bind(&hash)
    .bind(LAST_USED_EVERY.as_secs_f64())
    .fetch_optional(&record.pool)
    .await?;
    let Some((job_id, workspace_id, kind, is_use_due)) = link else {
        return Ok(None);
    };
    if is_use_due {
        // For people only: a record that takes no writes keeps nobody from a file.
        if let Err(error) = note_use(record, &hash).await {
            tracing::debug!(%error, "the use of a link is not noted");
        }
    }
    if kind == FileKind::Report.as_str() {
        return Ok(Some(Opened::Report(job_id)));
    }
    let mut view = record.view_for(super::Viewer::Tenant(workspace_id)).await?;
    let export = super::exports::get(&mut view, workspace_id, job_id).await?;
    let is_whole = |export: &ExportRow| export.status == "completed";
    Ok(export.filter(is_whole).map(Opened::Export))
}

async fn note_use(record: &Record, hash: &[u8]) -> Result<(), RecordError> {
    sqlx::query("UPDATE bullwark.download_links SET last_used_at = now() WHERE token_hash = $1")
        .bind(hash)
        .execute(&record.pool)
        .await?;
    Ok(())
}

/// Removes links that work no longer, some at a time. True: there may be more.
pub async fn purge(record: &Record) -> Result<bool, RecordError> {
    let done = sqlx::query(
        "DELETE FROM bullwark.download_links WHERE token_hash IN (
           SELECT token_hash FROM bullwark.download_links WHERE expires_at <= now()
           ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
    )
    .bind(PURGED_MAX)
    .execute(&record.pool)
    .await?;
    Ok(done.rows_affected() == PURGED_MAX as u64)
}

pub(super) fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}
