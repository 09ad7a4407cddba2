//! What the schema itself guarantees: checks, ids, row level security, and enqueue in plain SQL.

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use uuid::Uuid;

use crate::record_enqueue::workspace;
use crate::stage::{Stage, job};

/// The database's error of a statement: code, constraint, message, hint.
async fn refused(stage: &Stage, sql: &str) -> (String, String, String, String) {
    let error = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&stage.pool)
        .await
        .expect_err(sql);
    let database = error.into_database_error().unwrap();
    let of_server = database.downcast_ref::<sqlx::postgres::PgDatabaseError>();
    (
        of_server.code().to_owned(),
        of_server.constraint().unwrap_or_default().to_owned(),
        of_server.message().to_owned(),
        of_server.hint().unwrap_or_default().to_owned(),
    )
}

#[tokio::test]
async fn every_check_has_a_name_and_refuses() {
    let stage = Stage::new().await;
    let id = job().id;
    let plain = format!("INSERT INTO jobs (id, job_type, payload) VALUES ('{id}', 'noop', '{{}}')");
    stage.execute(plain).await;
    for (statement, constraint) in [
        ("UPDATE jobs SET status = 'waiting'", "jobs_status"),
        ("UPDATE jobs SET attempts = 6", "jobs_attempts"),
        ("UPDATE jobs SET attempts = -1", "jobs_attempts"),
        ("UPDATE jobs SET priority = 11", "jobs_priority"),
        ("UPDATE jobs SET priority = -1", "jobs_priority"),
        (
            "INSERT INTO workspaces (name) VALUES ('')",
            "workspaces_name_not_empty",
        ),
        (
            "INSERT INTO job_logs (job_id, log_level, message) SELECT id, 'loud', '' FROM jobs",
            "job_logs_level",
        ),
        (
            "INSERT INTO job_failures (job_id, attempt, outcome) SELECT id, 1, 'bad' FROM jobs",
            "job_failures_outcome",
        ),
    ] {
        let (code, found, ..) = refused(&stage, statement).await;
        assert_eq!(
            (code.as_str(), found.as_str()),
            ("23514", constraint),
            "{statement}"
        );
    }
}

#[tokio::test]
async fn ids_that_sql_makes_are_of_version_7_and_follow_the_time() {
    let stage = Stage::new().await;
    let mut connection = stage.pool.acquire().await.unwrap();
    let mut made = Vec::new();
    for _ in 0..50 {
        let before = bullwark::clock::now_ms();
        let id: Uuid = sqlx::query_scalar("SELECT bullwark.uuid_v7()")
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        let after = bullwark::clock::now_ms();
        assert_eq!(id.get_version_num(), 7, "{id}");
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122, "{id}");
        let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
        let ms = (seconds * 1000 + u64::from(nanos) / 1_000_000) as i64;
        assert!((before..=after).contains(&ms), "{before} {ms} {after}");
        made.push(id);
    }
    let of_one_ms: Vec<Uuid> =
        sqlx::query_scalar("SELECT bullwark.uuid_v7() FROM generate_series(1, 1000)")
            .fetch_all(&mut *connection)
            .await
            .unwrap();
    let different: std::collections::HashSet<_> = of_one_ms.iter().collect();
    assert_eq!(different.len(), 1000);
    assert!(made.iter().max() < of_one_ms.iter().max());
}

#[tokio::test]
async fn sql_enqueues_with_the_transaction_it_runs_in() {
    let stage = Stage::new().await;
    stage
        .execute("INSERT INTO bullwark.job_types (name) VALUES ('sync_crm')".into())
        .await;
    let mut connection = stage.pool.acquire().await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    sqlx::query("SELECT bullwark.enqueue('sync_crm', '{}')")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(
        stage.count("jobs").await + stage.count("bullwark.outbox").await,
        0
    );

    let workspace_id = workspace(&stage).await;
    let id: Uuid = stage
        .scalar(format!(
            "SELECT bullwark.enqueue('sync_crm', '{{\"a\": 1}}', 'low_priority', 3,
               '2031-01-01Z', '{workspace_id}', 2, 7)"
        ))
        .await;
    let row = stage.row(id).await;
    assert_eq!(
        (row.job_type.as_str(), row.job_queue.as_str()),
        ("sync_crm", "low_priority")
    );
    assert_eq!(
        (row.priority, row.max_attempts, row.retry_delay_seconds),
        (3, 2, 7)
    );
    assert_eq!(row.workspace_id, Some(workspace_id));
    assert_eq!(
        row.scheduled_for,
        Some("2031-01-01T00:00:00Z".parse().unwrap())
    );
    let noted: Uuid = stage
        .scalar("SELECT job_id FROM bullwark.outbox".into())
        .await;
    assert_eq!(noted, id);
}

#[tokio::test]
async fn sql_is_told_why_a_job_is_refused() {
    let stage = Stage::new().await;
    for name in ["export_csv", "sync_crm"] {
        stage
            .execute(format!(
                "INSERT INTO bullwark.job_types (name) VALUES ('{name}')"
            ))
            .await;
    }
    let (code, _, message, hint) = refused(&stage, "SELECT bullwark.enqueue('sync', '{}')").await;
    assert_eq!(code, "22023");
    assert_eq!(message, r#"unknown job type "sync""#);
    assert_eq!(hint, "known types: export_csv, sync_crm");
    for (call, words) in [
        (
            "'sync_crm', to_jsonb(repeat('x', 1048576))",
            "more than 1048576 bytes",
        ),
        ("'sync_crm', '{}', 'a:b'", r#"queue name "a:b""#),
        ("'sync_crm', '{}', ''", "is empty"),
        ("'sync_crm', '{}', 'default', 11", "jobs_priority"),
    ] {
        let (_, constraint, message, _) =
            refused(&stage, &format!("SELECT bullwark.enqueue({call})")).await;
        assert!(
            message.contains(words) || constraint == words,
            "{call}: {message}"
        );
    }
    assert_eq!(
        stage.count("jobs").await + stage.count("bullwark.outbox").await,
        0
    );
}

/// Two tenants with a job, a log line and a failure each, and a member of the first.
struct Tenants {
    stage: Stage,
    mine: Uuid,
    theirs: Uuid,
    member: Uuid,
}

impl Tenants {
    async fn new() -> Self {
        let stage = Stage::new().await;
        let (mine, theirs) = (workspace(&stage).await, workspace(&stage).await);
        let mut users = Vec::new();
        for workspace_id in [mine, theirs] {
            let user: Uuid = stage
                .scalar("INSERT INTO auth.users (email) VALUES ('a@b.c') RETURNING id".into())
                .await;
            stage
                .execute(format!(
                    "INSERT INTO workspace_members (workspace_id, user_id)
                       VALUES ('{workspace_id}', '{user}');
                     INSERT INTO jobs (workspace_id, job_type, payload)
                       VALUES ('{workspace_id}', 'noop', '{{}}')"
                ))
                .await;
            users.push(user);
        }
        stage
            .execute(
                "INSERT INTO job_logs (job_id, log_level, message) SELECT id, 'info', '' FROM jobs;
                 INSERT INTO job_failures (job_id, attempt, outcome)
                   SELECT id, 1, 'failed' FROM jobs;
                 INSERT INTO job_steps (job_id, name, result, attempt)
                   SELECT id, 'first', '1', 1 FROM jobs;
                 INSERT INTO job_effects (job_id, key, idempotency_key, fingerprint, call_id,
                     attempt)
                   SELECT id, 'mail', '', '', gen_random_uuid(), 1 FROM jobs;
                 INSERT INTO jobs (job_type, payload) VALUES ('noop', '{}')"
                    .into(),
            )
            .await;
        Self {
            stage,
            mine,
            theirs,
            member: users[0],
        }
    }

    /// A connection whose requests are those of this user, until it is dropped.
    async fn requests_of(&self, user: Uuid) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
        let mut connection = self.stage.pool.acquire().await.unwrap();
        let claims = serde_json::json!({"sub": user, "role": "authenticated"}).to_string();
        sqlx::query("SELECT set_config('request.jwt.claims', $1, false)")
            .bind(claims)
            .execute(&mut *connection)
            .await
            .unwrap();
        run(&mut connection, "SET ROLE authenticated")
            .await
            .unwrap();
        connection
    }
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<u64, sqlx::Error> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

async fn ids_in(connection: &mut PgConnection, sql: &str) -> Vec<Uuid> {
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .fetch_all(connection)
        .await;
    rows.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_member_sees_what_is_of_his_workspace_and_nothing_else() {
    let tenants = Tenants::new().await;
    let mut member = tenants.requests_of(tenants.member).await;
    for sql in [
        "SELECT workspace_id FROM jobs",
        "SELECT j.workspace_id FROM job_logs l JOIN jobs j ON j.id = l.job_id",
        "SELECT j.workspace_id FROM job_failures f JOIN jobs j ON j.id = f.job_id",
        "SELECT j.workspace_id FROM job_steps s JOIN jobs j ON j.id = s.job_id",
        "SELECT j.workspace_id FROM job_effects e JOIN jobs j ON j.id = e.job_id",
        "SELECT workspace_id FROM workspace_members",
        "SELECT id FROM workspaces",
    ] {
        assert_eq!(ids_in(&mut member, sql).await, [tenants.mine], "{sql}");
    }
    let of_jobs = [
        "jobs",
        "job_logs",
        "job_failures",
        "job_steps",
        "job_effects",
    ];
    for table in of_jobs {
        let count = ids_in(
            &mut member,
            &format!("SELECT gen_random_uuid() FROM {table}"),
        )
        .await;
        assert_eq!(count.len(), 1, "{table}");
    }
    let mut stranger = tenants.requests_of(Uuid::now_v7()).await;
    for table in of_jobs.iter().chain(&["workspace_members", "workspaces"]) {
        let sql = format!("SELECT gen_random_uuid() FROM {table}");
        assert!(ids_in(&mut stranger, &sql).await.is_empty(), "{table}");
    }
}

#[tokio::test]
async fn a_member_adds_jobs_to_his_workspace_only_and_changes_none() {
    let tenants = Tenants::new().await;
    let mut member = tenants.requests_of(tenants.member).await;
    let insert = |workspace| {
        format!(
            "INSERT INTO jobs (workspace_id, job_type, payload)
             VALUES ('{workspace}', 'noop', '{{}}')"
        )
    };
    assert_eq!(run(&mut member, &insert(tenants.mine)).await.unwrap(), 1);
    let denied = run(&mut member, &insert(tenants.theirs)).await.unwrap_err();
    assert!(
        denied.to_string().contains("row-level security"),
        "{denied}"
    );
    for sql in [
        "UPDATE jobs SET status = 'completed'",
        "DELETE FROM jobs",
        "UPDATE job_steps SET result = '2'",
        "DELETE FROM job_effects",
        "UPDATE workspace_members SET role = 'owner'",
        "DELETE FROM workspace_members",
        "INSERT INTO workspaces (name) VALUES ('x')",
        "SELECT * FROM bullwark.api_keys",
        "SELECT * FROM bullwark.idempotency_keys",
    ] {
        let changed = run(&mut member, sql).await;
        assert!(matches!(changed, Ok(0) | Err(_)), "{sql}");
    }
    assert_eq!(
        tenants.stage.count("jobs WHERE status <> 'pending'").await,
        0
    );
    assert_eq!(tenants.stage.count("jobs").await, 4);
}

#[tokio::test]
async fn the_service_role_sees_and_updates_every_job() {
    let tenants = Tenants::new().await;
    let mut service = tenants.stage.pool.acquire().await.unwrap();
    run(&mut service, "SET ROLE service_role").await.unwrap();
    let updated = run(&mut service, "UPDATE jobs SET status = 'cancelled'")
        .await
        .unwrap();
    assert_eq!(updated, 3);
    run(&mut service, "RESET ROLE").await.unwrap();
}
