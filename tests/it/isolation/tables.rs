//! What the two roles that read for callers see of every table there is.

use bullwark::record::list::{self, JobFilter};
use bullwark::record::{Viewer, jobs};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, Postgres};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::Tenant;
use crate::stage::Stage;

/// Tables of which a caller sees rows, all of the own workspace.
const SEEN: &[&str] = &[
    "bullwark.actions",
    "bullwark.api_keys",
    "bullwark.audit_log",
    "bullwark.data_changes",
    "bullwark.dead_letters",
    "bullwark.ended_attempts",
    "bullwark.enrichment_items",
    "bullwark.retention",
    "bullwark.rollups",
    "bullwark.schedules",
    "bullwark.stragglers",
    "bullwark.webhook_deliveries",
    "public.account_activities",
    "public.account_sources",
    "public.account_versions",
    "public.accounts",
    "public.connections",
    "public.contact_activities",
    "public.contact_sources",
    "public.contact_versions",
    "public.contacts",
    "public.crm_conflicts",
    "public.crm_cursors",
    "public.crm_errors",
    "public.crm_links",
    "public.custom_fields",
    "public.email_domain_days",
    "public.email_domains",
    "public.email_sends",
    "public.email_suppressions",
    "public.exports",
    "public.import_rows",
    "public.import_templates",
    "public.imports",
    "public.job_effects",
    "public.job_failures",
    "public.job_logs",
    "public.job_steps",
    "public.jobs",
    "public.opportunities",
    "public.rate_limits",
    "public.sequence_enrollments",
    "public.sequence_steps",
    "public.sequences",
    "public.webhooks",
    "public.workspace_members",
    "public.workspaces",
    "bullwark.job_types",
];
/// Those of them that members do not see.
const FOR_ADMINS: [&str; 2] = ["bullwark.api_keys", "bullwark.data_changes"];
/// Hold nothing of a workspace but the id of some job, which says no more than when it was made.
const COMMON: [&str; 2] = ["bullwark.watermarks", "bullwark.job_types"];

async fn stage() -> (Stage, Tenant, Tenant) {
    let stage = Stage::new().await;
    let (mine, theirs) = (
        Tenant::mine(&stage.pool).await,
        Tenant::theirs(&stage.pool).await,
    );
    let declare = "INSERT INTO bullwark.job_types (name) VALUES ('noop')";
    stage.execute(declare.to_owned()).await;
    (stage, mine, theirs)
}

/// A connection that is this role until the test ends.
async fn become_role(pool: &PgPool, viewer: Viewer) -> PoolConnection<Postgres> {
    let mut connection = pool.acquire().await.unwrap();
    let (name, value, role) = match viewer {
        Viewer::User(id) => (
            "request.jwt.claims",
            format!("{{\"sub\": \"{id}\"}}"),
            "authenticated",
        ),
        Viewer::Tenant(id) => ("bullwark.workspace_id", id.to_string(), "bullwark_tenant"),
    };
    sqlx::query("SELECT set_config($1, $2, false), set_config('role', $3, false)")
        .bind(name)
        .bind(value)
        .bind(role)
        .execute(&mut *connection)
        .await
        .unwrap();
    connection
}

/// All tables, and those of their columns that the role of the connection may read.
async fn tables(connection: &mut PoolConnection<Postgres>) -> Vec<(String, Option<String>)> {
    sqlx::query_as(
        "SELECT n.nspname || '.' || c.relname,
           string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
             FILTER (WHERE has_column_privilege(c.oid, a.attnum, 'SELECT'))
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE n.nspname IN ('public', 'bullwark', 'auth') AND c.relkind IN ('r', 'p', 'v', 'm')
         GROUP BY 1 ORDER BY 1",
    )
    .fetch_all(&mut **connection)
    .await
    .unwrap()
}

/// What the connection sees, table by table, each row as text.
async fn seen(connection: &mut PoolConnection<Postgres>) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for (table, columns) in tables(connection).await {
        let Some(columns) = columns else { continue };
        let sql = format!("SELECT row_to_json(t)::text FROM (SELECT {columns} FROM {table}) t");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&mut **connection)
            .await
            .unwrap();
        all.push((table, rows.iter().map(|row| row.get(0)).collect()));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_table_shows_a_row_of_another_workspace() {
    let (stage, mine, theirs) = stage().await;
    let secrets = theirs.secrets();
    for viewer in [
        Viewer::User(mine.owner),
        Viewer::User(mine.member),
        Viewer::Tenant(mine.workspace),
        Viewer::User(Uuid::now_v7()),
        Viewer::Tenant(Uuid::now_v7()),
    ] {
        let mut connection = become_role(&stage.pool, viewer).await;
        let mut with_rows = Vec::new();
        for (table, rows) in seen(&mut connection).await {
            for row in &rows {
                let leaked = secrets.iter().find(|secret| row.contains(secret.as_str()));
                assert_eq!(leaked, None, "{viewer:?} sees in {table}: {row}");
            }
            if !rows.is_empty() {
                with_rows.push(table);
            }
        }
        connection.close_on_drop();
        drop(connection);

        let mut expected: Vec<&str> = match viewer {
            Viewer::User(id) if id == mine.owner => SEEN.to_vec(),
            Viewer::User(id) if id == mine.member => {
                let is_for_members = |table: &&str| !FOR_ADMINS.contains(table);
                SEEN.iter().copied().filter(is_for_members).collect()
            }
            Viewer::Tenant(id) if id == mine.workspace => SEEN.to_vec(),
            _ => vec!["bullwark.job_types"],
        };
        expected.push("bullwark.watermarks");
        expected.sort_unstable();
        assert_eq!(with_rows, expected, "{viewer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_sees_what_was_done_to_jobs_and_not_what_admins_did() {
    let (stage, mine, _) = stage().await;
    let mut member = become_role(&stage.pool, Viewer::User(mine.member)).await;
    let kinds: Vec<String> = sqlx::query_scalar("SELECT target_kind FROM bullwark.audit_log")
        .fetch_all(&mut *member)
        .await
        .unwrap();
    assert_eq!(kinds, ["job"]);
    member.close_on_drop();
    let mut owner = become_role(&stage.pool, Viewer::User(mine.owner)).await;
    let hash = sqlx::query("SELECT hash FROM bullwark.api_keys")
        .fetch_all(&mut *owner)
        .await
        .unwrap_err();
    assert!(hash.to_string().contains("permission denied"), "{hash}");
    owner.close_on_drop();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_reads_for_callers_reads_a_secret_of_a_webhook_or_changes_one() {
    let (stage, mine, _) = stage().await;
    for viewer in [Viewer::User(mine.owner), Viewer::Tenant(mine.workspace)] {
        for statement in [
            "SELECT secret FROM webhooks",
            "SELECT previous_secret FROM webhooks",
            "SELECT * FROM webhooks",
            "SELECT id FROM webhooks WHERE secret > ''",
            "UPDATE webhooks SET url = 'https://elsewhere.example/'",
            "INSERT INTO webhooks (workspace_id, url, events, secret) SELECT workspace_id, url,
               events, '' FROM webhooks",
            "SELECT credentials FROM connections",
            "SELECT version FROM connections",
            "SELECT * FROM connections",
            "UPDATE connections SET base_url = 'https://elsewhere.example'",
            "SELECT key FROM bullwark.enrichment_lookups",
            "UPDATE account_sources SET source = 'me'",
            "DELETE FROM account_versions",
            "UPDATE contact_sources SET source = 'me'",
            "DELETE FROM contact_versions",
            "UPDATE crm_links SET remote_id = 'mine'",
            "DELETE FROM crm_conflicts",
            "SELECT unsubscribe_hash FROM email_sends",
            "DELETE FROM email_suppressions",
            "UPDATE email_domains SET is_warm = true",
            "SELECT bullwark.reserve_email(gen_random_uuid(), 'x.example', 1)",
            "SELECT id FROM bullwark.webhook_events",
            "DELETE FROM bullwark.webhook_deliveries",
        ] {
            let mut connection = become_role(&stage.pool, viewer).await;
            let denied = sqlx::raw_sql(statement).execute(&mut *connection).await;
            let denied = denied.unwrap_err().to_string();
            assert!(
                denied.contains("permission denied"),
                "{statement}: {denied}"
            );
            connection.close_on_drop();
        }
    }
}

/// A new table must not be forgotten: either nobody who reads for callers may read it, or its rows
/// are guarded.
#[tokio::test(flavor = "multi_thread")]
async fn every_table_that_callers_may_touch_has_row_level_security() {
    let stage = Stage::new().await;
    let open: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT n.nspname || '.' || c.relname
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
           unnest('{authenticated,bullwark_tenant}'::text[]) AS reader
         WHERE n.nspname IN ('public', 'bullwark', 'auth') AND c.relkind IN ('r', 'p')
           AND NOT c.relrowsecurity
           AND has_any_column_privilege(reader, c.oid, 'SELECT, INSERT, UPDATE')
         ORDER BY 1",
    )
    .fetch_all(&stage.pool)
    .await
    .unwrap();
    let mut common = COMMON.to_vec();
    common.sort_unstable();
    assert_eq!(open, common);
    // Supabase grants rights to whatever stands there.
    let bare: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
           AND NOT relrowsecurity ORDER BY 1",
    )
    .fetch_all(&stage.pool)
    .await
    .unwrap();
    assert_eq!(bare, Vec::<String>::new(), "in the schema public");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_forgets_the_workspace_shows_no_more() {
    let (stage, mine, theirs) = stage().await;
    let all = JobFilter {
        limit: 100,
        ..JobFilter::default()
    };
    for viewer in [Viewer::User(mine.member), Viewer::Tenant(mine.workspace)] {
        let mut view = stage.record.view_for(viewer).await.unwrap();
        let heads = list::list_heads(&mut view, &all, 0).await.unwrap();
        assert_eq!(heads.len(), 2);
        assert!(
            heads
                .iter()
                .all(|job| job.workspace_id == Some(mine.workspace))
        );
        let their_job = jobs::get(&mut view, theirs.job, None).await.unwrap();
        assert!(their_job.is_none());
        assert!(
            jobs::get(&mut view, mine.job, None)
                .await
                .unwrap()
                .is_some()
        );
    }
    // The same connections serve the program itself afterwards.
    for _ in 0..20 {
        let mut view = stage.record.view().await.unwrap();
        assert_eq!(list::list_heads(&mut view, &all, 0).await.unwrap().len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_enqueues_in_sql_in_the_own_workspace_and_sets_nothing_else() {
    let (stage, mine, theirs) = stage().await;
    let mut member = become_role(&stage.pool, Viewer::User(mine.member)).await;
    let mut run = async |sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut *member)
            .await
            .map(|done| done.rows_affected())
            .map_err(|error| error.to_string())
    };
    let enqueue =
        |workspace: Uuid| format!("SELECT bullwark.enqueue('noop', workspace_id => '{workspace}')");
    run(enqueue(mine.workspace)).await.unwrap();
    let denied = run(enqueue(theirs.workspace)).await.unwrap_err();
    assert!(denied.contains("row-level security"), "{denied}");

    for (columns, values, words) in [
        (
            "created_by",
            format!("'{}'", mine.owner),
            "row-level security",
        ),
        ("id", "gen_random_uuid()".to_owned(), "permission denied"),
        (
            "wire",
            format!("'{{\"parent\": \"{}\"}}'", theirs.job),
            "permission denied",
        ),
        ("status", "'completed'".to_owned(), "permission denied"),
    ] {
        let sql = format!(
            "INSERT INTO jobs (workspace_id, job_type, payload, {columns})
             VALUES ('{}', 'noop', '{{}}', {values})",
            mine.workspace
        );
        let denied = run(sql).await.unwrap_err();
        assert!(denied.contains(words), "{columns}: {denied}");
    }
    let note = format!(
        "INSERT INTO bullwark.outbox (job_id) VALUES ('{}')",
        theirs.job
    );
    let denied = run(note).await.unwrap_err();
    assert!(denied.contains("row-level security"), "{denied}");
    member.close_on_drop();
    drop(member);
    let told = stage.count("bullwark.outbox").await;
    assert_eq!(told, 1, "the relay is told of the job");
}

/// The functions that write lineage run with the rights of the owner: on a table of one's own they
/// would forge or erase what another workspace has.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_puts_the_triggers_of_the_lineage_on_a_table_of_their_own() {
    let (stage, mine, _) = stage().await;
    for viewer in [Viewer::User(mine.owner), Viewer::Tenant(mine.workspace)] {
        for function in [
            "forget_changes",
            "note_inserts",
            "note_deletes",
            "note_truncation",
        ] {
            let mut connection = become_role(&stage.pool, viewer).await;
            let sql = format!(
                "CREATE TEMP TABLE workspaces (id uuid);
                 CREATE TRIGGER t AFTER DELETE ON pg_temp.workspaces
                   FOR EACH ROW EXECUTE FUNCTION bullwark.{function}()"
            );
            let refused = sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut *connection)
                .await;
            let refused = refused.unwrap_err().to_string();
            assert!(
                refused.contains("permission denied for function"),
                "{refused}"
            );
            connection.close_on_drop();
        }
    }
}
