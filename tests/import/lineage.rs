//! What the lineage says of an import: every change once, and nothing that did not change.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{World, parse};
use bullwark::worker::Handler;

/// Runs an import as a job; its id.
async fn import(world: &World, text: &str, options: Value) -> Uuid {
    let (url, job) = (world.upload(text).await, world.job(None).await);
    let payload = json!({ "file_url": url, "entity_type": "accounts", "options": options });
    let context = world.context(job, 1).await;
    world.handler().run(context, parse(payload)).await.unwrap();
    job
}

/// What a job changed: action, name of the account, before, after; sorted.
async fn changes(world: &World, job: Uuid) -> Vec<(String, String, Option<Value>, Option<Value>)> {
    sqlx::query_as(
        "SELECT c.action, a.name, c.before, c.after
         FROM bullwark.data_changes c JOIN accounts a ON a.id = c.entity_id
         WHERE c.job_id = $1 AND c.entity_type = 'accounts' ORDER BY a.name",
    )
    .bind(job)
    .fetch_all(&world.pool)
    .await
    .unwrap()
}

fn new(name: &str, domain: &str) -> Value {
    json!({ "name": name, "domain": domain, "source": "import_csv", "custom": {} })
}

#[tokio::test]
async fn each_row_that_changed_something_is_told_once_with_what_it_changed() {
    let world = World::new().await;
    let first = "name,domain,industry\nAcme,acme.com,Steel\nBeta,beta.com,\n";
    let job = import(&world, first, json!({})).await;
    let told = changes(&world, job).await;
    let mut acme = new("Acme", "acme.com");
    acme["industry"] = json!("Steel");
    let text = str::to_owned;
    let expected = [
        (text("insert"), text("Acme"), None, Some(acme)),
        (
            text("insert"),
            text("Beta"),
            None,
            Some(new("Beta", "beta.com")),
        ),
    ];
    assert_eq!(told, expected);

    let second = "name,domain,industry\nAcme,acme.com,Steel\nBeta,beta.com,Glass\nBad,x,\n";
    let update = json!({ "update_existing": true });
    let dry = json!({ "update_existing": true, "dry_run": true });
    let tried = import(&world, second, dry).await;
    assert_eq!(changes(&world, tried).await, [], "nothing was changed");
    let job = import(&world, second, update.clone()).await;
    let was = json!({ "industry": null });
    let is_now = json!({ "industry": "Glass" });
    let told = changes(&world, job).await;
    assert_eq!(
        told,
        [(text("update"), text("Beta"), Some(was), Some(is_now))]
    );
    let again = import(&world, second, update).await;
    assert_eq!(changes(&world, again).await, []);
    let all: i64 = world
        .one("SELECT count(*) FROM bullwark.data_changes WHERE source = 'import_csv'")
        .await;
    assert_eq!(all, 3);
}

#[tokio::test]
async fn what_is_told_can_not_be_taken_back_but_with_the_whole_workspace() {
    let world = World::new().await;
    let workspace = world.workspace("mine").await;
    let other = world.workspace("other").await;
    for (of, name) in [(workspace, "Acme"), (other, "Beta")] {
        let sql = "INSERT INTO accounts (workspace_id, name) VALUES ($1, $2)";
        let insert = sqlx::query(sql).bind(of).bind(name);
        insert.execute(&world.pool).await.unwrap();
    }
    for sql in [
        "UPDATE bullwark.data_changes SET job_id = NULL",
        "DELETE FROM bullwark.data_changes",
        "TRUNCATE bullwark.data_changes",
    ] {
        let error = sqlx::raw_sql(sql).execute(&world.pool).await.unwrap_err();
        assert!(
            error.to_string().contains("only ever added to"),
            "{sql}: {error}"
        );
    }
    world
        .texts("DELETE FROM accounts WHERE name = 'Beta' RETURNING name")
        .await;
    let told = "SELECT action || ' ' || coalesce(before ->> 'name', after ->> 'name')
      FROM bullwark.data_changes";
    assert_eq!(
        world.texts(told).await,
        ["delete Beta", "insert Acme", "insert Beta"]
    );
    let delete = sqlx::query("DELETE FROM workspaces WHERE id = $1").bind(workspace);
    delete.execute(&world.pool).await.unwrap();
    assert_eq!(
        world.texts(told).await,
        ["delete Beta", "insert Beta"],
        "it has gone with all of its own"
    );
    let one = "SELECT entity_id FROM bullwark.data_changes LIMIT 1";
    let beta: Uuid = world.one(one).await;
    let forget = sqlx::query_scalar("SELECT bullwark.forget_record($1)").bind(beta);
    let forgotten: i64 = forget.fetch_one(&world.pool).await.unwrap();
    assert_eq!((forgotten, world.texts(told).await.len()), (2, 0));
}

/// Every way in which a row can change, and who is told of it.
#[tokio::test]
async fn no_statement_changes_a_record_unseen() {
    let world = World::new().await;
    let (from, to) = (world.workspace("from").await, world.workspace("to").await);
    let insert = "INSERT INTO accounts (workspace_id, name, custom)
      VALUES ($1, 'Acme', '{\"empty\": null}')";
    let insert = sqlx::query(insert).bind(from);
    insert.execute(&world.pool).await.unwrap();
    // On one connection: what it planned for no row serves many.
    let mut connection = world.pool.acquire().await.unwrap();
    for sql in [
        "UPDATE accounts SET name = 'Never' WHERE false".to_owned(),
        "INSERT INTO contacts (workspace_id, account_id, email)
         SELECT workspace_id, id, 'a@acme.com' FROM accounts"
            .to_owned(),
        "INSERT INTO accounts (workspace_id, name) SELECT workspace_id, name FROM accounts
         ON CONFLICT (name_key,
           COALESCE(workspace_id, '00000000-0000-0000-0000-000000000000'::uuid),
           COALESCE(domain, ''), COALESCE(external_id, '')) WHERE name_key IS NOT NULL
         DO UPDATE SET city = 'Bonn'"
            .to_owned(),
        format!("UPDATE accounts SET workspace_id = '{to}'"),
        "DELETE FROM accounts".to_owned(),
        "TRUNCATE contacts CASCADE".to_owned(),
    ] {
        let run = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection);
        run.await.unwrap();
    }
    drop(connection);
    let told: Vec<String> = sqlx::query_scalar(
        "SELECT concat_ws(' ', c.entity_type, w.name, c.action,
           (SELECT string_agg(k, ',' ORDER BY k) FROM jsonb_object_keys(coalesce(after, before)) k))
         FROM bullwark.data_changes c JOIN workspaces w ON w.id = c.workspace_id
         ORDER BY c.id",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let (account, contact) = ("city,custom,name,source", "custom,email,source");
    let mut moved = [told[3].as_str(), told[4].as_str()];
    moved.sort_unstable();
    let expected = [
        format!("accounts from delete {account}"),
        format!("accounts to insert {account}"),
    ];
    assert_eq!(
        moved, expected,
        "as another workspace's it is another record"
    );
    assert_eq!(
        told[..3],
        [
            "accounts from insert custom,name,source".to_owned(),
            format!("contacts from insert account_id,{contact}"),
            "accounts from update city".to_owned(),
        ]
    );
    let mut rest = told[5..].to_vec();
    rest.sort_unstable();
    assert_eq!(
        rest,
        [
            format!("accounts to delete {account}"),
            format!("contacts from delete {contact}"),
            "contacts from update account_id".to_owned(),
        ]
    );
    let kept =
        "SELECT before -> 'custom' FROM bullwark.data_changes WHERE action = 'delete' LIMIT 1";
    let kept: Value = world.one(kept).await;
    assert_eq!(kept, json!({ "empty": null }), "as it was");
}
