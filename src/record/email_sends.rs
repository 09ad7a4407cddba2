//! `email_sends`: what becomes of each mail of a batch.
//!
//! Everything here runs behind the fence of the job that sends ([`super::start::fence`]). A mail is
//! claimed, and its place in the warm-up reserved, in one transaction that is committed before it
//! is handed over; what came of that is committed after it. In between nobody knows, and
//! [`give_up`] says so.
//!
//! Everybody locks mails in the order of their recipients, and of their ids: jobs that plan the
//! same mails, the one that sends them, and events that tell of them would wait for each other
//! otherwise, until PostgreSQL ends one of them.

use serde_json::Value;
use uuid::Uuid;

use super::{RecordError, Tx};

/// What is kept of a message, in characters.
const MESSAGE_MAX: usize = 500;

/// Whose mails they are.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    pub workspace_id: Uuid,
    pub sequence_id: Uuid,
    pub step_id: Uuid,
    pub job_id: Uuid,
}

/// What became of a contact that was to be planned.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Planned {
    pub contact_id: Uuid,
    pub is_known: bool,
    pub has_address: bool,
    /// False, for one with an address: the step has a mail for it already.
    pub is_planned: bool,
}

/// Plans a mail for each contact. A mail of another job is taken over if it was not sent, and
/// nobody is about to send it.
pub async fn plan(
    tx: &mut Tx,
    batch: Batch,
    contact_ids: &[Uuid],
    first_place: i32,
) -> Result<Vec<Planned>, RecordError> {
    Ok(sqlx::query_as(
        "WITH found AS (
           SELECT w.id, w.place, c.id IS NOT NULL AS is_known, lower(c.email) AS recipient
           FROM (SELECT id, min(at)::int AS place FROM unnest($5::uuid[]) WITH ORDINALITY u (id, at)
             GROUP BY id) w
           LEFT JOIN contacts c ON c.id = w.id AND c.workspace_id = $1
         ), added AS (
           INSERT INTO email_sends AS s (workspace_id, sequence_id, step_id, job_id, contact_id,
             recipient, place)
           SELECT $1, $2, $3, $4, f.id, f.recipient, $6 + f.place FROM found f
           WHERE f.recipient IS NOT NULL ORDER BY f.recipient
           ON CONFLICT (workspace_id, step_id, recipient) DO UPDATE SET job_id = excluded.job_id,
             contact_id = excluded.contact_id, place = excluded.place, state = 'planned',
             tries = 0, code = NULL, message = NULL, updated_at = now()
           WHERE s.job_id <> excluded.job_id AND (s.state IN ('suppressed', 'failed')
             OR s.state = 'planned' AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = s.job_id
               AND j.status IN ('pending', 'processing', 'failed')))
           RETURNING s.contact_id
         )
         SELECT f.id AS contact_id, f.is_known, f.recipient IS NOT NULL AS has_address,
           a.contact_id IS NOT NULL AS is_planned
         FROM found f LEFT JOIN added a ON a.contact_id = f.id ORDER BY f.place",
    )
    .bind(batch.workspace_id)
    .bind(batch.sequence_id)
    .bind(batch.step_id)
    .bind(batch.job_id)
    .bind(contact_ids)
    .bind(first_place)
    .fetch_all(tx.connection())
    .await?)
}

/// What an earlier start of the job had claimed is in doubt: whether it was sent, nobody knows. How
/// many there are.
pub async fn give_up(tx: &mut Tx, job_id: Uuid, attempt: i32) -> Result<u64, RecordError> {
    let done = sqlx::query(
        "UPDATE email_sends SET state = 'unknown', code = 'interrupted', updated_at = now(),
           message = 'the worker ended while it was handed over'
         WHERE id IN (SELECT id FROM email_sends
           WHERE job_id = $1 AND state = 'claimed' AND attempt IS DISTINCT FROM $2
           ORDER BY recipient, id FOR UPDATE)",
    )
    .bind(job_id)
    .bind(attempt)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected())
}

/// How many mails of a job are in each state.
pub async fn counts(tx: &mut Tx, job_id: Uuid) -> Result<Vec<(String, i64)>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT state, count(*) FROM email_sends WHERE job_id = $1 GROUP BY state ORDER BY state",
    )
    .bind(job_id)
    .fetch_all(tx.connection())
    .await?)
}

/// Why mails of a job were not sent, the most frequent first.
pub async fn reasons(tx: &mut Tx, job_id: Uuid) -> Result<Vec<(String, i64)>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT code, count(*) FROM email_sends
         WHERE job_id = $1 AND state IN ('suppressed', 'failed', 'unknown') AND code IS NOT NULL
         GROUP BY code ORDER BY count(*) DESC, code LIMIT 50",
    )
    .bind(job_id)
    .fetch_all(tx.connection())
    .await?)
}

/// A mail that is to be sent next, with what is known of its recipient right now.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Candidate {
    pub id: Uuid,
    pub recipient: String,
    pub tries: i32,
    /// The contact's address now; none: it has none any more, or is gone.
    pub address: Option<String>,
    pub email_status: Option<String>,
    /// Its fields, and those of its account.
    pub fields: Value,
    /// Why nothing is to be sent to it or to its domain.
    pub suppressed: Vec<String>,
    /// It is out of the sequence.
    pub is_stopped: bool,
}

/// The next planned mails of a job, locked until the transaction ends.
///
/// Picked by their place and locked by their recipient. Said so that no index finds the job's other
/// mails: there may be ten thousand.
pub async fn next(tx: &mut Tx, job_id: Uuid, most: i64) -> Result<Vec<Candidate>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT s.id, s.recipient, s.tries, lower(c.email) AS address, c.email_status,
           jsonb_build_object('email', c.email, 'first_name', c.first_name,
             'last_name', c.last_name, 'title', c.title, 'phone', c.phone, 'company', c.company,
             'linkedin_url', c.linkedin_url, 'country', c.country, 'city', c.city,
             'custom', c.custom, 'account', jsonb_build_object('name', a.name,
               'domain', a.domain, 'website', a.website, 'industry', a.industry,
               'employee_count', a.employee_count, 'country', a.country, 'city', a.city,
               'custom', a.custom)) AS fields,
           ARRAY(SELECT x.reason FROM email_suppressions x WHERE x.workspace_id = s.workspace_id
             AND x.target IN (s.recipient, split_part(s.recipient, '@', -1))
             ORDER BY x.reason) AS suppressed,
           coalesce((SELECT e.state = 'stopped' FROM sequence_enrollments e
             WHERE e.sequence_id = s.sequence_id AND e.contact_id = s.contact_id), false)
             AS is_stopped
         FROM email_sends s
           LEFT JOIN contacts c ON c.id = s.contact_id AND c.workspace_id = s.workspace_id
           LEFT JOIN accounts a ON a.id = c.account_id AND a.workspace_id = s.workspace_id
         WHERE s.id = ANY (ARRAY(SELECT id FROM email_sends
             WHERE job_id = $1 AND state = 'planned' ORDER BY tries, place LIMIT $2))
           AND s.job_id IS NOT DISTINCT FROM $1 AND s.state IS NOT DISTINCT FROM 'planned'
         ORDER BY s.recipient, s.id FOR UPDATE OF s",
    )
    .bind(job_id)
    .bind(most)
    .fetch_all(tx.connection())
    .await?)
}

/// A mail that is not sent, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub id: Uuid,
    /// `suppressed` or `failed`.
    pub state: &'static str,
    pub code: &'static str,
    pub message: String,
}

/// Notes mails that are not sent.
pub async fn refuse(tx: &mut Tx, refusals: &[Refusal]) -> Result<(), RecordError> {
    let ids: Vec<Uuid> = refusals.iter().map(|refusal| refusal.id).collect();
    let states: Vec<&str> = refusals.iter().map(|refusal| refusal.state).collect();
    let codes: Vec<&str> = refusals.iter().map(|refusal| refusal.code).collect();
    let messages: Vec<String> = refusals.iter().map(|r| cut(&r.message)).collect();
    sqlx::query(
        "UPDATE email_sends s SET state = r.state, code = r.code, message = r.message,
           updated_at = now()
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) r (id, state, code, message)
         WHERE s.id = r.id AND s.state = 'planned'",
    )
    .bind(ids)
    .bind(states)
    .bind(codes)
    .bind(messages)
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// What a claim says of its mails.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    pub attempt: i32,
    pub provider: &'a str,
    pub domain: &'a str,
    pub day: chrono::NaiveDate,
}

/// Claims mails: each with the hash of the secret in its link to unsubscribe, if it has one.
pub async fn claim(
    tx: &mut Tx,
    claim: &Claim<'_>,
    mails: &[(Uuid, Option<Vec<u8>>)],
) -> Result<u64, RecordError> {
    let (ids, hashes): (Vec<Uuid>, Vec<Option<Vec<u8>>>) = mails.iter().cloned().unzip();
    let done = sqlx::query(
        "UPDATE email_sends s SET state = 'claimed', attempt = $3, claimed_at = clock_timestamp(),
           provider = $4, domain = $5, sent_day = $6, unsubscribe_hash = m.hash, code = NULL,
           message = NULL, updated_at = now()
         FROM unnest($1::uuid[], $2::bytea[]) m (id, hash)
         WHERE s.id = m.id AND s.state = 'planned'",
    )
    .bind(ids)
    .bind(hashes)
    .bind(claim.attempt)
    .bind(claim.provider)
    .bind(claim.domain)
    .bind(claim.day)
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected())
}

/// What came of handing one over.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    pub id: Uuid,
    /// `handed_over`, `planned` (again), `failed` or `unknown`.
    pub state: &'static str,
    pub provider_id: Option<String>,
    pub code: Option<&'static str>,
    pub message: Option<String>,
    /// It was tried in earnest: counts against the number of tries.
    pub is_try: bool,
    /// The provider says that the address does not work: nothing is sent to it any more.
    pub is_bounce: bool,
}

/// Notes what came of the mails that this start of the job has claimed, gives back of the warm-up
/// what certainly was not sent, and moves the sequence on. How many were noted.
pub async fn settle(
    tx: &mut Tx,
    batch: Batch,
    attempt: i32,
    settled: &[Settled],
) -> Result<u64, RecordError> {
    let ids: Vec<Uuid> = settled.iter().map(|one| one.id).collect();
    sqlx::query("SELECT FROM email_sends WHERE id = ANY ($1) ORDER BY recipient, id FOR UPDATE")
        .bind(&ids)
        .execute(tx.connection())
        .await?;
    let states: Vec<&str> = settled.iter().map(|one| one.state).collect();
    let provider_ids: Vec<Option<&str>> =
        settled.iter().map(|s| s.provider_id.as_deref()).collect();
    let codes: Vec<Option<&str>> = settled.iter().map(|one| one.code).collect();
    let messages: Vec<Option<String>> = settled
        .iter()
        .map(|s| s.message.as_deref().map(cut))
        .collect();
    let tries: Vec<bool> = settled.iter().map(|one| one.is_try).collect();
    let noted: Vec<(Uuid, String, Option<String>, Option<chrono::NaiveDate>)> = sqlx::query_as(
        "UPDATE email_sends s SET state = r.state, provider_id = r.provider_id, code = r.code,
           message = r.message, tries = s.tries + CASE WHEN r.is_try THEN 1 ELSE 0 END,
           handed_over_at = CASE WHEN r.state = 'handed_over' THEN now() END,
           unsubscribe_hash = CASE WHEN r.state IN ('handed_over', 'unknown')
             THEN s.unsubscribe_hash END, updated_at = now()
         FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bool[])
           r (id, state, provider_id, code, message, is_try)
         WHERE s.id = r.id AND s.job_id = $1 AND s.state = 'claimed' AND s.attempt = $2
         RETURNING s.id, s.state, s.domain, s.sent_day",
    )
    .bind(batch.job_id)
    .bind(attempt)
    .bind(ids)
    .bind(states)
    .bind(provider_ids)
    .bind(codes)
    .bind(messages)
    .bind(tries)
    .fetch_all(tx.connection())
    .await?;
    let went: Vec<Uuid> = noted
        .iter()
        .filter(|(_, state, ..)| state == "handed_over")
        .map(|(id, ..)| *id)
        .collect();
    enroll(tx, &went).await?;
    let bounced: Vec<Uuid> = settled
        .iter()
        .filter(|one| one.is_bounce && noted.iter().any(|(id, ..)| *id == one.id))
        .map(|one| one.id)
        .collect();
    if !bounced.is_empty() {
        suppress_bounced(tx, batch, &bounced).await?;
    }
    // All of them were claimed together: of one domain, on one day.
    if let Some((_, _, Some(domain), Some(day))) = noted.first() {
        // Tried and refused for its address: it was sent as far as reputation goes.
        let is_back = |state: &str| matches!(state, "planned" | "failed");
        let back = noted.iter().filter(|(_, state, ..)| is_back(state)).count();
        let back = back.saturating_sub(bounced.len());
        super::email_domains::release(tx, (batch.workspace_id, domain, *day), back).await?;
        if !bounced.is_empty() {
            let about = (batch.workspace_id, domain.as_str(), *day);
            super::email_domains::count(tx, about, (bounced.len(), 0)).await?;
        }
    }
    Ok(noted.len() as u64)
}

/// Moves the contacts of mails that were handed over on in their sequences. A contact, a step or a
/// sequence that is gone meanwhile is no matter: the mail is noted all the same.
pub(super) async fn enroll(tx: &mut Tx, ids: &[Uuid]) -> Result<(), RecordError> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO sequence_enrollments AS e (workspace_id, sequence_id, contact_id,
           last_position, state)
         SELECT s.workspace_id, q.id, c.id, t.position, CASE WHEN EXISTS (
             SELECT FROM sequence_steps l WHERE l.sequence_id = q.id AND l.position > t.position)
           THEN 'active' ELSE 'completed' END
         FROM email_sends s
           JOIN contacts c ON c.id = s.contact_id AND c.workspace_id = s.workspace_id
           JOIN sequences q ON q.id = s.sequence_id
           JOIN sequence_steps t ON t.id = s.step_id
         WHERE s.id = ANY ($1) ORDER BY c.id FOR KEY SHARE OF c, q
         ON CONFLICT (sequence_id, contact_id) DO UPDATE SET last_sent_at = now(),
           last_position = greatest(e.last_position, excluded.last_position),
           state = CASE WHEN e.state = 'stopped' THEN e.state
             WHEN excluded.state = 'completed' THEN 'completed' ELSE e.state END",
    )
    .bind(ids)
    .execute(tx.connection())
    .await?;
    Ok(())
}

async fn suppress_bounced(tx: &mut Tx, batch: Batch, ids: &[Uuid]) -> Result<(), RecordError> {
    sqlx::query(
        "INSERT INTO email_suppressions (workspace_id, target, reason, source, send_id)
         SELECT s.workspace_id, s.recipient, 'bounced', coalesce(s.provider, 'smtp'), s.id
         FROM email_sends s WHERE s.workspace_id = $1 AND s.id = ANY ($2) ORDER BY s.recipient
         ON CONFLICT DO NOTHING",
    )
    .bind(batch.workspace_id)
    .bind(ids)
    .execute(tx.connection())
    .await?;
    Ok(())
}

fn cut(message: &str) -> String {
    let clean = message.replace('\0', "\u{fffd}");
    clean.chars().take(MESSAGE_MAX).collect()
}
