//! Workspaces: the same rows, no leak.

use serde_json::json;
use uuid::Uuid;

use crate::support::World;

const CONTACTS: &str = "email,first name\nada@example.com,Ada\nbob@example.com,Bob\n";

#[tokio::test]
async fn two_workspaces_may_have_the_same_contacts() {
    let world = World::new().await;
    let (left, right) = (
        world.workspace("left").await,
        world.workspace("right").await,
    );
    for workspace in [Some(left), Some(right), None] {
        let url = world.upload_of(workspace, CONTACTS).await;
        let payload = json!({
            "file_url": url, "entity_type": "contacts", "options": {"update_existing": true},
        });
        let first = world.run_in(workspace, payload.clone()).await.unwrap();
        assert_eq!(first.inserted, 2, "{workspace:?}");
        let second = world.run_in(workspace, payload.clone()).await.unwrap();
        assert_eq!((second.inserted, second.unchanged), (0, 2), "{workspace:?}");
    }
    assert_eq!(world.one::<i64>("SELECT count(*) FROM contacts").await, 6);
}

#[tokio::test]
async fn members_see_their_own_workspace_only() {
    let world = World::new().await;
    let (left, right) = (
        world.workspace("left").await,
        world.workspace("right").await,
    );
    let user = Uuid::new_v4();
    sqlx::query("INSERT INTO auth.users (id) VALUES ($1)")
        .bind(user)
        .execute(&world.pool)
        .await
        .unwrap();
    sqlx::query("INSERT INTO workspace_members (workspace_id, user_id) VALUES ($1, $2)")
        .bind(left)
        .bind(user)
        .execute(&world.pool)
        .await
        .unwrap();
    for workspace in [left, right] {
        let url = world.upload_of(Some(workspace), CONTACTS).await;
        let payload = json!({"file_url": url, "entity_type": "contacts"});
        world.run_in(Some(workspace), payload).await.unwrap();
    }
    let theirs = world.upload_of(Some(right), CONTACTS).await;
    let payload = json!({"file_url": theirs, "entity_type": "contacts"});
    let refused = world.run_in(Some(left), payload).await.unwrap_err();
    assert!(
        refused.to_string().contains("there is no upload"),
        "{refused}"
    );
    let mut tx = world.pool.begin().await.unwrap();
    sqlx::raw_sql(
        "GRANT USAGE ON SCHEMA public, auth TO authenticated;
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO authenticated;
         SET LOCAL ROLE authenticated",
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    sqlx::query("SELECT set_config('request.jwt.claims', $1, true)")
        .bind(json!({"sub": user}).to_string())
        .execute(&mut *tx)
        .await
        .unwrap();
    let seen: Vec<(String, i64)> = sqlx::query_as(
        "SELECT 'contacts', count(*) FROM contacts
         UNION ALL SELECT 'imports', count(*) FROM imports
         UNION ALL SELECT 'import_rows', count(*) FROM import_rows",
    )
    .fetch_all(&mut *tx)
    .await
    .unwrap();
    let expected = [
        ("contacts".to_owned(), 2),
        ("imports".to_owned(), 1),
        ("import_rows".to_owned(), 2),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn deleting_a_job_deletes_its_import_with_all_rows() {
    let world = World::new().await;
    world.accounts("name\nAcme\n", json!({})).await;
    assert_eq!(
        world.one::<i64>("SELECT count(*) FROM import_rows").await,
        1
    );
    sqlx::query("DELETE FROM jobs")
        .execute(&world.pool)
        .await
        .unwrap();
    assert_eq!(
        world.one::<i64>("SELECT count(*) FROM import_rows").await,
        0
    );
    assert_eq!(world.one::<i64>("SELECT count(*) FROM accounts").await, 1);
}
