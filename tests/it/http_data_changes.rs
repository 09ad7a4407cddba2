//! Lineage over HTTP: the changes of one record, and those of one job.

use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::http::{enqueue, server_with};
use crate::http_tokens::{claims, signed, user, with_secret};
use crate::support::server::{OTHER_KEY, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_record_tells_who_changed_what_and_a_job_what_it_changed() {
    let (sandbox, server) = server_with(with_secret()).await;
    let pool = sandbox.pool().await;
    let job: Uuid = enqueue(&server).await.parse().unwrap();
    let person = user(&pool, &[(DEFAULT_WORKSPACE, "member")]).await;
    let account: Uuid = sqlx::query_scalar(
        "WITH by AS (SELECT set_config('bullwark.job_id', $1::text, false))
         INSERT INTO accounts (workspace_id, name, custom)
         SELECT $2, 'Acme', '{\"api_key\": \"k\"}' FROM by RETURNING id",
    )
    .bind(job)
    .bind(DEFAULT_WORKSPACE)
    .fetch_one(&pool)
    .await
    .unwrap();
    // A user of the database's own API, who says to be a job.
    let mut tx = pool.begin().await.unwrap();
    sqlx::query(
        "SELECT set_config('request.jwt.claims', json_build_object('sub', $1::uuid)::text, true),
           set_config('bullwark.job_id', $2::text, true),
           set_config('role', 'authenticated', true)",
    )
    .bind(person)
    .bind(job)
    .execute(&mut *tx)
    .await
    .unwrap();
    for sql in [
        "UPDATE accounts SET industry = 'Steel', name = 'Acme'",
        "UPDATE accounts SET updated_at = now()",
    ] {
        let updated = sqlx::query(sql).execute(&mut *tx).await.unwrap();
        assert_eq!(updated.rows_affected(), 1);
    }
    tx.commit().await.unwrap();
    pool.close().await;

    let path = format!("/api/data-changes?entity_id={account}");
    let shown = server.get(&path).await;
    let changes = shown.body["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 2, "{shown:?}");
    let (update, insert) = (&changes[0], &changes[1]);
    assert_eq!(
        (&update["action"], &insert["action"]),
        (&json!("update"), &json!("insert"))
    );
    assert_eq!(update["user_id"], json!(person));
    assert_eq!(update["job_id"], json!(null), "nobody speaks for a job");
    assert_eq!(update["before"], json!({ "industry": null }));
    assert_eq!(update["after"], json!({ "industry": "Steel" }));
    assert_eq!(
        (&insert["job_id"], &insert["job_type"]),
        (&json!(job), &json!("noop"))
    );
    assert_eq!(insert["after"]["custom"]["api_key"], "k");
    let member = server.anonymous(Method::GET, &path);
    let member = send(member.bearer_auth(signed(&claims(person)))).await;
    member.problem(403, "forbidden");

    let first = server.get(&format!("{path}&limit=1")).await.body;
    assert_eq!(first["changes"], json!([update]));
    let next = format!("{path}&limit=1&before={}", first["next_before"]);
    assert_eq!(server.get(&next).await.body["changes"], json!([insert]));
    let of_job = server.get(&format!("/api/data-changes?job_id={job}")).await;
    assert_eq!(of_job.body["changes"], json!([insert]));
    let theirs = server.anonymous(Method::GET, &path).bearer_auth(OTHER_KEY);
    assert_eq!(send(theirs).await.body["changes"], json!([]));
    for query in [
        "",
        "?entity_id=x",
        "?job_id=1&limit=1",
        "?before=1",
        "?limit=0",
    ] {
        let refused = server.get(&format!("/api/data-changes{query}")).await;
        refused.problem(400, "invalid_parameter");
    }
    let both = format!("{path}&job_id={job}");
    server.get(&both).await.problem(400, "invalid_parameter");
    server.end().await;
}

/// Of a new record the lineage has what says something: no empty column, but all that is inside of
/// one, as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_record_is_noted_without_its_empty_columns_and_with_all_that_is_inside_of_one() {
    let (sandbox, server) = server_with(with_secret()).await;
    let pool = sandbox.pool().await;
    for (custom, technologies) in [
        (json!({}), json!(null)),
        (json!({ "plan": "x" }), json!(["a", null])),
        (
            json!({ "plan": null }),
            json!([{ "name": "a", "since": null }]),
        ),
        (json!({ "deep": { "er": [{ "est": null }] } }), json!([])),
    ] {
        let account: Uuid = sqlx::query_scalar(
            "INSERT INTO accounts (workspace_id, name, custom, technologies)
             VALUES ($1, 'Acme ' || gen_random_uuid(), $2, nullif($3, 'null')) RETURNING id",
        )
        .bind(DEFAULT_WORKSPACE)
        .bind(&custom)
        .bind(&technologies)
        .fetch_one(&pool)
        .await
        .unwrap();
        let path = format!("/api/data-changes?entity_id={account}");
        let shown = server.get(&path).await.body;
        let after = shown["changes"][0]["after"].as_object().unwrap().clone();
        assert_eq!(after["custom"], custom, "{shown}");
        let noted = after.get("technologies").cloned().unwrap_or_default();
        assert_eq!(noted, technologies, "{shown}");
        let mut names: Vec<&str> = after.keys().map(String::as_str).collect();
        names.retain(|name| *name != "technologies");
        assert_eq!(names, ["custom", "name", "source"], "{shown}");
    }
    pool.close().await;
    server.end().await;
}
