//! The lineage as others meet it: who may write it, what is in it, and what the command says.

use std::process::Stdio;

use bullwark::record::access::Actor;
use bullwark::record::workspaces::{self, DEFAULT_WORKSPACE};
use bullwark::record::{change_seals, data_changes, start};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::process::Command;
use uuid::Uuid;

use crate::stage::Stage;

/// Without the owner's rights nothing of it can be written, changed, or forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn no_role_writes_lineage_or_has_it_forgotten() {
    let stage = Stage::new().await;
    workspaces::ensure_default(&stage.record).await.unwrap();
    let account =
        format!("INSERT INTO accounts (workspace_id, name) VALUES ('{DEFAULT_WORKSPACE}', 'a')");
    stage.execute(account).await;
    change_seals::seal(&stage.record).await.unwrap();
    let changes = stage.count("bullwark.data_changes").await;
    for role in ["authenticated", "service_role", "bullwark_tenant"] {
        for sql in [
            "INSERT INTO bullwark.data_changes (workspace_id, entity_type, entity_id, action)
               VALUES (gen_random_uuid(), 'accounts', gen_random_uuid(), 'delete')",
            "UPDATE bullwark.data_changes SET after = '{}'",
            "DELETE FROM bullwark.data_changes",
            "TRUNCATE bullwark.data_changes",
            "UPDATE bullwark.change_seals SET changes = 0",
            "DELETE FROM bullwark.change_seals",
            "UPDATE bullwark.change_heads SET number = 0",
            "INSERT INTO bullwark.forgotten_changes SELECT * FROM bullwark.forgotten_changes",
            "SELECT bullwark.forget_record(gen_random_uuid())",
            "SELECT bullwark.forget_old_changes(0, 10)",
            "SELECT bullwark.seal_changes(10)",
        ] {
            let mut connection = stage.pool.acquire().await.unwrap();
            let all = format!("SET ROLE {role}; {sql}");
            let done = sqlx::raw_sql(AssertSqlSafe(all))
                .execute(&mut *connection)
                .await;
            let refused = done.map(|_| ()).unwrap_err().to_string();
            assert!(
                refused.contains("permission denied"),
                "{role}, {sql}: {refused}"
            );
            connection.close_on_drop();
        }
    }
    assert_eq!(stage.count("bullwark.data_changes").await, changes);
}

#[tokio::test(flavor = "multi_thread")]
async fn opportunities_have_a_lineage_as_accounts_and_contacts_have() {
    let stage = Stage::new().await;
    workspaces::ensure_default(&stage.record).await.unwrap();
    let id = "0192f5a1-7c3e-7d00-8000-3b9aca000001";
    for sql in [
        format!(
            "INSERT INTO opportunities (id, workspace_id, name, stage)
             VALUES ('{id}', '{DEFAULT_WORKSPACE}', 'Deal', 'open')"
        ),
        format!("UPDATE opportunities SET stage = 'won' WHERE id = '{id}'"),
        format!("UPDATE opportunities SET stage = 'won' WHERE id = '{id}'"),
        format!("DELETE FROM opportunities WHERE id = '{id}'"),
    ] {
        stage.execute(sql).await;
    }
    let told: Value = stage
        .scalar(
            "SELECT jsonb_agg(jsonb_build_array(entity_type, action, before ->> 'stage',
               after ->> 'stage') ORDER BY id) FROM bullwark.data_changes"
                .to_owned(),
        )
        .await;
    let expected = json!([
        ["opportunities", "insert", null, "open"],
        ["opportunities", "update", "open", "won"],
        ["opportunities", "delete", "won", null],
    ]);
    assert_eq!(told, expected, "what changed nothing is not told");
}

/// A job's changes say which kind of job it was, and who enqueued it; a statement of somebody's own
/// says that it was one.
#[tokio::test(flavor = "multi_thread")]
async fn each_change_says_where_it_came_from_and_for_whom() {
    let stage = Stage::new().await;
    workspaces::ensure_default(&stage.record).await.unwrap();
    let user = Uuid::now_v7();
    let job = crate::stage::job();
    stage.insert(std::slice::from_ref(&job)).await;
    stage
        .execute(format!(
            "INSERT INTO auth.users (id, email) VALUES ('{user}', 'ada@x.example');
             UPDATE jobs SET created_by = '{user}', status = 'processing', attempt = 1,
               worker_id = 'w' WHERE id = '{}'",
            job.id
        ))
        .await;
    let account = |name: &str| {
        let sql = format!(
            "INSERT INTO accounts (workspace_id, name) VALUES ('{DEFAULT_WORKSPACE}', '{name}')"
        );
        AssertSqlSafe(sql)
    };
    let mut tx = stage.record.begin().await.unwrap();
    assert!(start::fence(&mut tx, job.id, 1, "w").await.unwrap());
    sqlx::raw_sql(account("by a job"))
        .execute(tx.connection())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = stage.record.begin().await.unwrap();
    data_changes::speak_for(&mut tx, Actor::Operator)
        .await
        .unwrap();
    sqlx::raw_sql(account("over the API"))
        .execute(tx.connection())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    stage.execute(account("by hand").0).await;
    let told: Value = stage
        .scalar(
            "SELECT jsonb_agg(jsonb_build_array(source, actor, job_id) ORDER BY id)
             FROM bullwark.data_changes"
                .to_owned(),
        )
        .await;
    let kind = &job.job_type;
    let expected = json!([
        [kind, format!("user:{user}"), job.id],
        ["api", "operator", null],
        ["sql", null, null],
    ]);
    assert_eq!(told, expected);
    // What was there before this was written down is hashed as it was then.
    stage
        .execute(
            "SET session_replication_role = replica;
             UPDATE bullwark.data_changes SET source = NULL, actor = NULL;
             RESET session_replication_role"
                .to_owned(),
        )
        .await;
    let same: bool = stage
        .scalar(
            "SELECT bool_and(bullwark.change_hash(c) = sha256(convert_to(jsonb_build_array(c.id,
               c.workspace_id, c.entity_type, c.entity_id, c.action, c.job_id, c.user_id, c.before,
               c.after, (extract(epoch FROM c.created_at) * 1000000)::bigint)::text, 'UTF8')))
             FROM bullwark.data_changes c"
                .to_owned(),
        )
        .await;
    assert!(same);
}

struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

/// What `bullwark audit` says of this database.
async fn audit(stage: &Stage, arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_bullwark"))
        .arg("audit")
        .args(arguments)
        .env("BULLWARK_DATABASE_URL", stage.database_url())
        // It is not asked.
        .env("BULLWARK_REDIS_URL", "redis://127.0.0.1:1")
        .stdin(Stdio::null())
        .output();
    let output = output.await.unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        error: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_by_its_exit_code_whether_the_lineage_is_intact() {
    let stage = Stage::new().await;
    workspaces::ensure_default(&stage.record).await.unwrap();
    let other: Uuid = stage
        .scalar("INSERT INTO workspaces (name) VALUES ('other') RETURNING id".to_owned())
        .await;
    for workspace in [DEFAULT_WORKSPACE, other] {
        let sql = format!(
            "INSERT INTO accounts (workspace_id, name) VALUES ('{workspace}', 'a'),
               ('{workspace}', 'b')"
        );
        stage.execute(sql).await;
    }
    change_seals::seal(&stage.record).await.unwrap();

    let well = audit(&stage, &["verify"]).await;
    assert_eq!(well.code, Some(0), "{}", well.error);
    assert!(
        well.out.contains("4 changes in 2 seals of 2 chains"),
        "{}",
        well.out
    );
    let mine = DEFAULT_WORKSPACE.to_string();
    let heads = audit(&stage, &["heads", "--json", "--workspace", &mine]).await;
    assert_eq!(heads.code, Some(0), "{}", heads.error);
    let heads: Value = serde_json::from_str(&heads.out).unwrap();
    let head = heads[0]["head"].as_str().unwrap().to_owned();
    let kept = ["verify", "--json", "--head", head.as_str()];
    let well = audit(&stage, &kept).await;
    assert_eq!(well.code, Some(0), "{}{}", well.out, well.error);
    let well: Value = serde_json::from_str(&well.out).unwrap();
    assert_eq!(
        (&well["intact"], &well["changes"]),
        (&json!(true), &json!(4))
    );
    let wrong = audit(&stage, &["verify", "--head", "abc"]).await;
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong.error.contains("64 hexadecimal digits"),
        "{}",
        wrong.error
    );

    // The owner of the database rewrites a row of the other workspace.
    stage
        .execute(format!(
            "SET session_replication_role = replica;
             UPDATE bullwark.data_changes SET after = '{{\"name\": \"forged\"}}'
               WHERE workspace_id = '{other}' AND id = (SELECT max(id)
                 FROM bullwark.data_changes WHERE workspace_id = '{other}');
             RESET session_replication_role"
        ))
        .await;
    let found = audit(&stage, &["verify"]).await;
    assert_eq!(found.code, Some(1), "{}", found.out);
    assert!(found.out.contains("was altered"), "{}", found.out);
    assert!(
        found.out.contains(&other.to_string()),
        "where: {}",
        found.out
    );
    assert!(found.error.contains("tampered with"), "{}", found.error);
    let found = audit(&stage, &["verify", "--json"]).await;
    assert_eq!(found.code, Some(1));
    let found: Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!(found["intact"], false, "{found}");
    let untouched = audit(&stage, &["verify", "--workspace", &mine]).await;
    assert_eq!(untouched.code, Some(0), "{}", untouched.out);
    // A head that is in no chain: it was made anew.
    let unknown = "0".repeat(64);
    let anew = audit(
        &stage,
        &["verify", "--workspace", &mine, "--head", &unknown],
    )
    .await;
    assert_eq!(anew.code, Some(1), "{}", anew.out);
}
