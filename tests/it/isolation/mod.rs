//! Two workspaces, and nothing of one in what the other sees: table by table in the database, and
//! route by route over HTTP.

mod routes;
mod tables;

use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use crate::support::server::OTHER_WORKSPACE;

/// Rows of one workspace, in every table that holds something of workspaces.
struct Tenant {
    workspace: Uuid,
    job: Uuid,
    /// A user who owns the workspace, and one who is a member only.
    owner: Uuid,
    member: Uuid,
    /// Stands in every text of its rows.
    word: &'static str,
}

impl Tenant {
    async fn mine(pool: &PgPool) -> Self {
        Self::fill(pool, DEFAULT_WORKSPACE, "juniper").await
    }

    async fn theirs(pool: &PgPool) -> Self {
        Self::fill(pool, OTHER_WORKSPACE, "foxglove").await
    }

    async fn fill(pool: &PgPool, workspace: Uuid, word: &'static str) -> Self {
        let (job, owner, member) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        let sql = format!(
            "INSERT INTO workspaces (id, name) VALUES ('{workspace}', '{word}')
               ON CONFLICT (id) DO UPDATE SET name = excluded.name;
             INSERT INTO auth.users (id) VALUES ('{owner}'), ('{member}');
             INSERT INTO workspace_members (workspace_id, user_id, role) VALUES
               ('{workspace}', '{owner}', 'owner'), ('{workspace}', '{member}', 'member');
             INSERT INTO jobs (id, workspace_id, job_type, payload, status, error_message,
                 failed_at, completed_at)
               VALUES ('{job}', '{workspace}', 'noop', '{{\"of\": \"{word}\"}}', 'dead_letter',
                 '{word} failed', now(), now());
             INSERT INTO jobs (workspace_id, job_type, payload)
               VALUES ('{workspace}', 'noop', '{{\"of\": \"{word}\"}}');
             INSERT INTO job_logs (job_id, log_level, message) VALUES ('{job}', 'info', '{word}');
             INSERT INTO job_failures (job_id, attempt, outcome, error_message)
               VALUES ('{job}', 1, 'dead_letter', '{word}');
             INSERT INTO job_steps (job_id, name, result, attempt)
               VALUES ('{job}', '{word}', '1', 1);
             INSERT INTO job_effects (job_id, key, idempotency_key, fingerprint, call_id, attempt)
               VALUES ('{job}', '{word}', '', '', gen_random_uuid(), 1);
             INSERT INTO bullwark.dead_letters (job_id, workspace_id, job_type, job_queue)
               VALUES ('{job}', '{workspace}', 'noop', '{word}');
             INSERT INTO bullwark.stragglers VALUES ('{job}', '{workspace}');
             -- As processes of an older version do.
             INSERT INTO bullwark.stragglers (job_id) SELECT id FROM jobs
               WHERE workspace_id = '{workspace}' AND status = 'pending';
             INSERT INTO bullwark.ended_attempts (workspace_id, job_queue, job_type, dead)
               VALUES ('{workspace}', '{word}', 'noop', 1);
             INSERT INTO bullwark.rollups (workspace_id, step, at, job_queue, job_type, completed,
                 failed, dead, cancelled, run_ms, runs, waits)
               VALUES ('{workspace}', 'minute', date_trunc('minute', now()), '{word}', 'noop',
                 1, 0, 0, 0, 1, '{{}}', '{{}}');
             INSERT INTO bullwark.audit_log (workspace_id, actor_kind, action, target_kind,
                 target_id, reason)
               VALUES ('{workspace}', 'service', 'job.cancel', 'job', '{job}', '{word}'),
                 ('{workspace}', 'service', 'api_key.create', 'api_key', 'x', '{word}');
             INSERT INTO bullwark.api_keys (workspace_id, name, hash)
               VALUES ('{workspace}', '{word}', '{word}');
             INSERT INTO bullwark.actions (id, workspace_id, action, state, filter, reason,
                 actor_kind, ended_at)
               VALUES ('{job}', '{workspace}', 'cancel', 'done', '{{\"q\": \"{word}\"}}', '{word}',
                 'service', now());
             INSERT INTO bullwark.cancelled_jobs (action_id, job_id, was, error_message)
               VALUES ('{job}', '{job}', 'failed', '{word}');
             INSERT INTO bullwark.idempotency_keys (workspace_id, key, job_id, fingerprint)
               VALUES ('{workspace}', '{word}', '{job}', '');
             INSERT INTO bullwark.schedules (prefix, job_queue, schedule_id, fields)
               VALUES ('{word}', '{word}', '{word}@{workspace}', '{{\"name\": \"{word}\"}}');
             SELECT set_config('bullwark.job_id', '{job}', true);
             INSERT INTO rate_limits (workspace_id, key, max_requests)
               VALUES ('{workspace}', '{word}:{workspace}', 1);
             INSERT INTO webhooks (id, workspace_id, url, events, secret)
               VALUES ('{job}', '{workspace}', 'https://{word}.example/', '{{job.completed}}',
                 'sealed');
             INSERT INTO connections (id, workspace_id, provider, name, credential_names,
                 credentials)
               VALUES ('{job}', '{workspace}', 'apollo', '{word}', '{{api_key}}', 'sealed');
             INSERT INTO bullwark.retention (workspace_id, job_logs) VALUES ('{workspace}', 7);
             INSERT INTO bullwark.webhook_deliveries (job_id, webhook_id, workspace_id, message_id,
                 event)
               VALUES ('{job}', '{job}', '{workspace}', '{word}', 'job.completed');
             INSERT INTO bullwark.webhook_events (webhook_id, event, job_ids, starts, failures)
               VALUES ('{job}', 'job.completed', '{{{job}}}', '{{1}}', '{{0}}');
             INSERT INTO accounts (workspace_id, name) VALUES ('{workspace}', '{word}');
             INSERT INTO account_sources (account_id, field, workspace_id, value, source,
                 confidence, fetched_at, job_id)
               SELECT id, 'industry', workspace_id, '\"{word}\"', 'apollo', 1, now(), '{job}'
               FROM accounts WHERE workspace_id = '{workspace}';
             INSERT INTO account_versions (account_id, number, workspace_id, snapshot, changed)
               SELECT id, 1, workspace_id, '{{\"name\": \"{word}\"}}', '{{}}'
               FROM accounts WHERE workspace_id = '{workspace}';
             INSERT INTO account_activities (account_id, workspace_id, kind, job_id, details)
               SELECT id, workspace_id, '{word}', '{job}', '{{}}'
               FROM accounts WHERE workspace_id = '{workspace}';
             INSERT INTO bullwark.enrichment_lookups (workspace_id, provider, kind, key)
               VALUES ('{workspace}', 'apollo', 'company', '{word}');
             INSERT INTO bullwark.enrichment_items (run_id, record_id, workspace_id, outcome, said,
                 written, message)
               VALUES ('{job}', '{job}', '{workspace}', 'failed', '[]', '{{}}', '{word}');
             INSERT INTO contacts (workspace_id, email) VALUES ('{workspace}', '{word}@x.example');
             INSERT INTO contact_sources (contact_id, field, workspace_id, value, source,
                 confidence, fetched_at, job_id)
               SELECT id, 'title', workspace_id, '\"{word}\"', 'apollo', 1, now(), '{job}'
               FROM contacts WHERE workspace_id = '{workspace}';
             INSERT INTO contact_versions (contact_id, number, workspace_id, snapshot, changed)
               SELECT id, 1, workspace_id, '{{\"title\": \"{word}\"}}', '{{}}'
               FROM contacts WHERE workspace_id = '{workspace}';
             INSERT INTO contact_activities (contact_id, workspace_id, kind, job_id, details)
               SELECT id, workspace_id, '{word}', '{job}', '{{}}'
               FROM contacts WHERE workspace_id = '{workspace}';
             INSERT INTO opportunities (workspace_id, name) VALUES ('{workspace}', '{word}');
             INSERT INTO crm_links (connection_id, entity_type, local_id, remote_id, workspace_id,
                 agreed, hash)
               VALUES ('{job}', 'accounts', '{job}', '{word}', '{workspace}', '{{}}', '');
             INSERT INTO crm_cursors (connection_id, entity_type, direction, workspace_id, org_id)
               VALUES ('{job}', 'accounts', 'pull', '{workspace}', '{word}');
             INSERT INTO crm_conflicts (workspace_id, connection_id, entity_type, local_id,
                 remote_id, fields, job_id)
               VALUES ('{workspace}', '{job}', 'accounts', '{job}', '{word}', '{{}}', '{job}');
             INSERT INTO crm_errors (connection_id, entity_type, direction, record_id,
                 workspace_id, class, code, message, job_id)
               VALUES ('{job}', 'accounts', 'push', '{word}', '{workspace}', 'permanent', 'x',
                 '{word}', '{job}');
             INSERT INTO sequences (id, workspace_id, name)
               VALUES ('{job}', '{workspace}', '{word}');
             INSERT INTO sequence_steps (workspace_id, sequence_id, position, connection_id,
                 provider, from_address, subject, text_body)
               VALUES ('{workspace}', '{job}', 1, '{job}', 'smtp', 'a@{word}.example', '{word}',
                 '');
             INSERT INTO sequence_enrollments (workspace_id, sequence_id, contact_id, last_position)
               SELECT '{workspace}', '{job}', id, 1 FROM contacts
               WHERE workspace_id = '{workspace}';
             INSERT INTO email_sends (id, workspace_id, sequence_id, step_id, contact_id, recipient,
                 job_id, place, state)
               VALUES ('{job}', '{workspace}', '{job}', '{job}', '{job}', '{word}@x.example',
                 '{job}', 1, 'unknown');
             INSERT INTO email_suppressions (workspace_id, target, reason, source)
               VALUES ('{workspace}', '{word}@x.example', 'manual', 'api');
             INSERT INTO email_domains (workspace_id, domain)
               VALUES ('{workspace}', '{word}.example');
             INSERT INTO email_domain_days (workspace_id, domain, day)
               VALUES ('{workspace}', '{word}.example', '2026-01-01');
             INSERT INTO imports (id, workspace_id, entity_type, file_name, sha256, bytes, encoding,
                 delimiter)
               VALUES ('{job}', '{workspace}', 'accounts', '{word}', '', 1, 'utf-8', ',');
             INSERT INTO import_templates (id, workspace_id, entity_type, name, fingerprint,
                 headers, mapping)
               VALUES ('{job}', '{workspace}', 'accounts', '{word}', repeat('0', 64),
                 '{{{word}}}', '{{}}');
             INSERT INTO custom_fields (id, workspace_id, entity_type, name, kind)
               VALUES ('{job}', '{workspace}', 'accounts', '{word}', 'text');
             INSERT INTO exports (id, workspace_id, entity_type, format, file_name)
               VALUES ('{job}', '{workspace}', 'accounts', 'csv', '{word}');
             INSERT INTO bullwark.download_links (token_hash, workspace_id, job_id, kind,
                 created_by_kind, expires_at)
               VALUES (sha256('{word}'), '{workspace}', '{job}', 'report', 'service', now());
             INSERT INTO import_rows (import_id, row_no, line_no, outcome, code, message)
               VALUES ('{job}', 1, 1, 'failed', 'invalid', '{word}');"
        );
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(pool)
            .await
            .unwrap();
        Self {
            workspace,
            job,
            owner,
            member,
            word,
        }
    }

    /// What must not be seen by others.
    fn secrets(&self) -> [String; 5] {
        [
            self.workspace.to_string(),
            self.job.to_string(),
            self.owner.to_string(),
            self.member.to_string(),
            self.word.to_owned(),
        ]
    }
}
