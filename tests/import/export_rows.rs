//! Exports: which rows are in the file, and whose.

use std::collections::BTreeSet;

use bullwark::record::exports::columns::{Cell, Entity};
use bullwark::record::exports::filter::{Condition, Op};
use bullwark::record::exports::read::{Selection, Windows};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::exports::{ACCOUNTS, csv_rows};
use crate::support::World;

#[tokio::test]
async fn filters_leave_out_what_they_say() {
    let world = World::new().await;
    world.accounts(ACCOUNTS, json!({})).await;
    let domains = async |filters: Value| {
        // Windows that are smaller than the file.
        let payload = json!({"entity_type": "accounts", "fields": ["name"], "filters": filters,
            "options": {"page_size": 1, "formula_guard": false}});
        let summary = world.export(payload).await;
        let rows = csv_rows(&world.exported(&summary));
        let names = rows.iter().map(|row| row["name"].chars().next().unwrap());
        names.collect::<String>()
    };
    let id: Uuid = world
        .one("SELECT id FROM accounts WHERE domain = 'two.com'")
        .await;
    for (filter, expected) in [
        (json!({"field": "domain", "value": "one.com"}), "="),
        (
            json!({"field": "domain", "op": "ne", "value": "one.com"}),
            "-Z",
        ),
        (
            json!({"field": "domain", "op": "in", "value": ["one.com", "two.com"]}),
            "-=",
        ),
        (
            json!({"field": "domain", "op": "contains", "value": "ONE."}),
            "=",
        ),
        (json!({"field": "domain", "op": "is_null"}), "Z"),
        (
            json!({"field": "domain", "op": "is_null", "value": false}),
            "-=",
        ),
        (
            json!({"field": "employee_count", "op": "gt", "value": 0}),
            "=",
        ),
        (
            json!({"field": "employee_count", "op": "gte", "value": 0}),
            "-=",
        ),
        (
            json!({"field": "employee_count", "op": "lt", "value": 5}),
            "-",
        ),
        (
            json!({"field": "employee_count", "op": "lte", "value": 5}),
            "-=",
        ),
        (
            json!({"field": "annual_revenue", "op": "in", "value": [9_000_000_000_000_i64]}),
            "-",
        ),
        (
            json!({"field": "created_at", "op": "gte", "value": "2020-01-01"}),
            "-=Z",
        ),
        (
            json!({"field": "updated_at", "op": "lt", "value": "2020-01-01T00:00:00Z"}),
            "",
        ),
        (json!({"field": "id", "value": id}), "-"),
        (
            json!({"field": "id", "op": "in", "value": [id, Uuid::nil()]}),
            "-",
        ),
        (
            json!({"field": "technologies", "op": "contains", "value": "Go"}),
            "=",
        ),
        (json!({"field": "technologies", "op": "is_null"}), "-Z"),
        (json!({"field": "custom.note", "value": "@here"}), "="),
        (
            json!({"field": "custom.note", "op": "ne", "value": "@here"}),
            "-Z",
        ),
        (json!({"field": "custom.tier", "op": "is_null"}), "-Z"),
        (json!({"field": "name", "op": "contains", "value": "%"}), ""),
        (json!({"field": "name", "value": "x' OR true --"}), ""),
    ] {
        assert_eq!(domains(json!([filter])).await, expected, "{filter}");
    }
    assert_eq!(
        domains(json!({"country": ["DE", "FR"], "phone": null})).await,
        ""
    );
    assert_eq!(domains(json!({"country": ["DE", "FR"]})).await, "-=");
    assert_eq!(domains(json!({"phone": null})).await, "Z");
}

#[tokio::test]
async fn windows_and_pages_that_are_smaller_than_the_rows_lose_none() {
    let world = World::new().await;
    // Some rows fill a page alone.
    sqlx::query(
        "INSERT INTO accounts (name, employee_count, description, custom)
         SELECT n, n, repeat('x', CASE WHEN n % 10 = 0 THEN 3000000 ELSE 1 END),
           jsonb_build_object('c' || n % 3, n)
         FROM generate_series(1, 50) n",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let entity = Entity::Accounts;
    let field = |name: &str| entity.field(name).unwrap();
    let few = Condition::new(field("employee_count"), Op::Gt, &json!(47)).unwrap();
    for (conditions, expected) in [(vec![], 1..=50), (vec![few], 48..=50)] {
        let record = &world.record;
        let selection = Selection {
            workspace_id: None,
            entity,
            conditions,
            windows: Windows {
                surveyed: 7,
                scanned: 5,
            },
        };
        let until = selection.newest(record).await.unwrap().unwrap();
        let (mut rows, mut names, mut after) = (0, BTreeSet::new(), Uuid::nil());
        loop {
            let found = selection.survey(record, (after, until), 10).await.unwrap();
            rows += found.rows;
            names.extend(found.custom);
            let Some(next) = found.next else { break };
            after = next;
        }
        assert_eq!((rows as usize, names.len()), (expected.clone().count(), 3));

        let fields = [field("employee_count"), field("description")];
        let (mut numbers, mut after) = (Vec::new(), Uuid::nil());
        loop {
            let page = selection.page(record, &fields, (after, until), 20).await;
            let page = page.unwrap();
            let is_large = |row: &&Vec<Cell>| matches!(&row[1], Cell::Text(text) if text.len() > 9);
            assert!(page.rows.iter().filter(is_large).count() <= 2);
            numbers.extend(page.rows.iter().map(|row| row[0].clone()));
            let Some(next) = page.next else { break };
            after = next;
        }
        numbers.sort_by_key(|cell| match cell {
            Cell::Number(number) => *number,
            _ => 0,
        });
        let expected: Vec<Cell> = expected.map(Cell::Number).collect();
        assert_eq!(numbers, expected);
    }
}

#[tokio::test]
async fn two_workspaces_with_equal_rows_see_their_own_only() {
    let world = World::new().await;
    let (left, right) = (
        world.workspace("left").await,
        world.workspace("right").await,
    );
    for workspace in [Some(left), Some(right), None] {
        let url = world.upload_of(workspace, ACCOUNTS).await;
        let payload = json!({"file_url": url, "entity_type": "accounts"});
        world.run_in(workspace, payload).await.unwrap();
    }
    sqlx::query("UPDATE accounts SET description = coalesce(workspace_id::text, 'nobody')")
        .execute(&world.pool)
        .await
        .unwrap();
    for (workspace, mine) in [
        (Some(left), left.to_string()),
        (Some(right), right.to_string()),
        (None, "nobody".to_owned()),
    ] {
        for filters in [
            json!([]),
            json!([{"field": "domain", "op": "ne", "value": "x"}]),
        ] {
            let payload = json!({"entity_type": "accounts", "filters": filters});
            let summary = world.export_in(workspace, payload).await.unwrap();
            let rows = csv_rows(&world.exported(&summary));
            assert_eq!(rows.len(), 3);
            assert!(
                rows.iter().all(|row| row["description"] == mine),
                "{rows:?}"
            );
        }
    }
}
