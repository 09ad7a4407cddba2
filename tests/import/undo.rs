//! Undoing an import: what it created goes, unless somebody has touched it since.

use bullwark::handlers::undo_import::{UndoImport, UndoImportHandler, Undone};
use bullwark::job::JobError;
use bullwark::record::access::By;
use bullwark::record::import_undo::{Asked, ask};
use bullwark::worker::Handler;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{World, parse};

/// Runs an import; its id. Its job is over, or not.
async fn import(world: &World, workspace: Uuid, payload: Value, status: &'static str) -> Uuid {
    let job = world.job(Some(workspace)).await;
    let context = world.context(job, 1).await;
    world.handler().run(context, parse(payload)).await.unwrap();
    end(world, job, status).await;
    job
}

async fn end(world: &World, job: Uuid, status: &str) {
    sqlx::query("UPDATE jobs SET status = $2, completed_at = now() WHERE id = $1")
        .bind(job)
        .bind(status)
        .execute(&world.pool)
        .await
        .unwrap();
}

async fn accounts(world: &World, workspace: Uuid, text: &str, options: Value) -> Uuid {
    let url = world.upload_of(Some(workspace), text).await;
    let payload = json!({"file_url": url, "entity_type": "accounts", "options": options});
    import(world, workspace, payload, "completed").await
}

async fn run(world: &World, job: Uuid, attempt: i32, import_id: Uuid) -> Result<Undone, JobError> {
    let context = world.context(job, attempt).await;
    UndoImportHandler
        .run(context, UndoImport { import_id })
        .await
}

/// Removed, changed, in use.
fn counts(undone: &Undone) -> (i64, i64, i64) {
    let so_far = &undone.so_far;
    (so_far.removed, so_far.changed, so_far.in_use)
}

async fn execute(world: &World, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&world.pool).await.unwrap();
}

#[tokio::test]
async fn what_an_import_created_goes_unless_somebody_touched_it() {
    let world = World::new().await;
    let (ours, theirs) = (
        world.workspace("ours").await,
        world.workspace("theirs").await,
    );
    accounts(&world, ours, "name\nOld\n", json!({})).await;
    let text = "name,industry\nOld,Steel\nFresh,\nChanged,\nUsed,\nSold,\nGone,\nBack,\n";
    let update = json!({"update_existing": true});
    let id = accounts(&world, ours, text, update).await;
    // The same names in another workspace.
    accounts(&world, theirs, text, json!({})).await;
    let in_ours = "workspace_id = (SELECT id FROM workspaces WHERE name = 'ours')";
    let changes = format!(
        "UPDATE accounts SET city = 'Rome' WHERE name IN ('Changed', 'Back') AND {in_ours};
         UPDATE accounts SET city = NULL WHERE name = 'Back' AND {in_ours};
         DELETE FROM accounts WHERE name = 'Gone' AND {in_ours};
         INSERT INTO contacts (workspace_id, email, account_id)
           SELECT workspace_id, 'ada@x.org', id FROM accounts WHERE name = 'Used' AND {in_ours};
         INSERT INTO opportunities (workspace_id, name, account_id)
           SELECT workspace_id, 'A deal', id FROM accounts WHERE name = 'Sold' AND {in_ours}"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(changes))
        .execute(&world.pool)
        .await
        .unwrap();

    // A job alone may do nothing.
    let job = world.job(Some(ours)).await;
    let refused = run(&world, job, 1, id).await;
    assert!(matches!(&refused, Err(JobError::Permanent(why)) if why.contains("no admin")));
    // Another workspace may neither ask nor do.
    let asked = ask(&world.record, (theirs, id), &By::OPERATOR).await;
    assert_eq!(asked.unwrap(), Asked::Unknown);
    let asked = ask(&world.record, (ours, id), &By::OPERATOR).await;
    assert_eq!(asked.unwrap(), Asked::Noted);
    let foreign = world.job(Some(theirs)).await;
    let refused = run(&world, foreign, 1, id).await;
    assert!(matches!(&refused, Err(JobError::Permanent(why)) if why.contains("no import")));

    let undone = run(&world, job, 1, id).await.unwrap();
    assert_eq!(counts(&undone), (1, 2, 2));
    let sql = "SELECT w.name || ' ' || a.name FROM accounts a JOIN workspaces w
                 ON w.id = a.workspace_id WHERE w.name = 'ours' OR a.name = 'Fresh'";
    assert_eq!(
        world.texts(sql).await,
        [
            "ours Back",
            "ours Changed",
            "ours Old",
            "ours Sold",
            "ours Used",
            "theirs Fresh"
        ]
    );
    let industry = "SELECT industry FROM accounts a JOIN workspaces w ON w.id = a.workspace_id
                    WHERE w.name = 'ours' AND a.name = 'Old'";
    assert_eq!(world.one::<String>(industry).await, "Steel", "updates stay");
    let told: Vec<(String, Uuid)> =
        sqlx::query_as("SELECT action, entity_id FROM bullwark.data_changes WHERE job_id = $1")
            .bind(job)
            .fetch_all(&world.pool)
            .await
            .unwrap();
    assert_eq!(told.len(), 1, "the lineage knows who removed it");
    assert_eq!(told[0].0, "delete");

    // Again: the same answer, and nothing more is done.
    assert_eq!(run(&world, job, 2, id).await.unwrap(), undone);
    let asked = ask(&world.record, (ours, id), &By::OPERATOR).await;
    assert_eq!(asked.unwrap(), Asked::Done);
    let audit = "SELECT count(*) FROM bullwark.audit_log WHERE action = 'import.undo'";
    assert_eq!(world.one::<i64>(audit).await, 1);
}

#[tokio::test]
async fn contacts_that_an_import_created_are_undone_too() {
    let world = World::new().await;
    let ours = world.workspace("ours").await;
    let text = "email,title\nada@x.org,CTO\nbob@x.org,\n";
    let url = world.upload_of(Some(ours), text).await;
    let payload = json!({"file_url": url, "entity_type": "contacts"});
    let id = import(&world, ours, payload, "dead_letter").await;
    execute(
        &world,
        "UPDATE contacts SET title = 'CEO' WHERE email LIKE 'bob%'",
    )
    .await;
    ask(&world.record, (ours, id), &By::OPERATOR).await.unwrap();
    let job = world.job(Some(ours)).await;
    let undone = run(&world, job, 1, id).await.unwrap();
    assert_eq!(counts(&undone), (1, 1, 0));
    let left = world.texts("SELECT email FROM contacts").await;
    assert_eq!(left, ["bob@x.org"]);
}

#[tokio::test]
async fn only_an_import_that_is_over_and_wrote_something_is_undone_and_it_stays_over() {
    let world = World::new().await;
    let ours = world.workspace("ours").await;
    let dry = accounts(&world, ours, "name\nA\n", json!({"dry_run": true})).await;
    let asked = ask(&world.record, (ours, dry), &By::OPERATOR).await;
    assert_eq!(asked.unwrap(), Asked::DryRun);

    let url = world.upload_of(Some(ours), "name\nA\n").await;
    let payload = json!({"file_url": url, "entity_type": "accounts"});
    let id = import(&world, ours, payload.clone(), "processing").await;
    let asked = ask(&world.record, (ours, id), &By::OPERATOR).await;
    assert_eq!(asked.unwrap(), Asked::Open);
    end(&world, id, "completed").await;
    let asked = ask(&world.record, (ours, id), &By::OPERATOR).await;
    assert_eq!(asked.unwrap(), Asked::Noted);
    // Somebody runs the import again: it does not go on beside its undoing.
    end(&world, id, "pending").await;
    let again = world
        .handler()
        .run(world.context(id, 2).await, parse(payload))
        .await;
    assert!(matches!(&again, Err(JobError::Permanent(why)) if why.contains("was undone")));
    end(&world, id, "completed").await;

    // Two jobs: one does it.
    let (first, second) = (world.job(Some(ours)).await, world.job(Some(ours)).await);
    let claim = "UPDATE imports SET undo_job_id = $2 WHERE id = $1";
    sqlx::query(claim)
        .bind(id)
        .bind(first)
        .execute(&world.pool)
        .await
        .unwrap();
    let asked = ask(&world.record, (ours, id), &By::OPERATOR).await;
    assert_eq!(asked.unwrap(), Asked::UnderWay(first));
    let refused = run(&world, second, 1, id).await;
    assert!(matches!(&refused, Err(JobError::Permanent(why)) if why.contains("already")));
    assert_eq!(world.one::<i64>("SELECT count(*) FROM accounts").await, 1);
    // The first one is cancelled before it did anything: the next may.
    end(&world, first, "cancelled").await;
    let third = world.job(Some(ours)).await;
    assert_eq!(counts(&run(&world, third, 1, id).await.unwrap()), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_that_dies_again_and_again_removes_each_record_once() {
    let world = World::new().await;
    let ours = world.workspace("ours").await;
    let rows = 4_000_i64;
    let mut text = String::from("name,domain\n");
    for n in 0..rows {
        text += &format!("Company {n},company-{n}.com\n");
    }
    let id = accounts(&world, ours, &text, json!({})).await;
    execute(
        &world,
        "UPDATE accounts SET city = 'Rome' WHERE domain LIKE '%00.com'",
    )
    .await;
    let kept: i64 = world
        .one("SELECT count(*) FROM accounts WHERE city = 'Rome'")
        .await;
    ask(&world.record, (ours, id), &By::OPERATOR).await.unwrap();
    let job = world.job(Some(ours)).await;
    let done = "SELECT undo_removed + undo_changed FROM imports";
    let (mut attempt, mut before) = (1, 0);
    while before < rows - 1_500 {
        let context = world.context(job, attempt).await;
        let running = tokio::spawn(async move {
            UndoImportHandler
                .run(context, UndoImport { import_id: id })
                .await
        });
        while world.one::<i64>(done).await <= before {
            tokio::task::yield_now().await;
        }
        running.abort();
        let _ = running.await;
        attempt += 1;
        before = world.one(done).await;
    }
    let undone = run(&world, job, attempt, id).await.unwrap();
    assert_eq!(counts(&undone), (rows - kept, kept, 0));
    assert_eq!(
        world.one::<i64>("SELECT count(*) FROM accounts").await,
        kept
    );
    let deletes = "SELECT count(*) FROM bullwark.data_changes WHERE action = 'delete'";
    assert_eq!(world.one::<i64>(deletes).await, rows - kept);
}
