//! Single chunks: repeated, poisoned, and in each other's way.

use bullwark::record::accounts::AccountRow;
use bullwark::record::import_chunk::{
    self, Chunk, ChunkCounts, ChunkOptions, ChunkRow, Entities, OnExisting, RowPlace,
};
use bullwark::record::imports::{self, NewImport};
use bullwark::record::merge::Merge;
use uuid::Uuid;

use crate::support::World;

fn account(n: i64) -> AccountRow {
    AccountRow {
        name: format!("Company {n}"),
        domain: Some(format!("company-{n}.com")),
        ..AccountRow::default()
    }
}

fn chunk(rows: impl IntoIterator<Item = (i64, AccountRow)>) -> Chunk {
    let mut raw = Vec::new();
    let mut entities = Vec::new();
    for (row_no, entity) in rows {
        let from = raw.len();
        raw.extend_from_slice(format!("raw {row_no}").as_bytes());
        let place = RowPlace {
            row_no,
            line_no: row_no + 1,
            raw: from..raw.len(),
            columns: 1,
        };
        let key = Uuid::new_v5(
            &Uuid::NAMESPACE_DNS,
            format!("{:?}", entity.domain).as_bytes(),
        );
        entities.push(ChunkRow { place, key, entity });
    }
    Chunk {
        entities: Entities::Accounts(entities),
        rejected: Vec::new(),
        raw,
    }
}

async fn begin(world: &World, on_existing: OnExisting) -> ChunkOptions {
    let id = world.job(None).await;
    let import = NewImport {
        id,
        workspace_id: None,
        entity_type: "accounts",
        file_name: None,
        sha256: String::new(),
        bytes: 0,
        dry_run: false,
        total: 0,
        encoding: "UTF-8",
        delimiter: "comma",
        header_mapping: serde_json::json!([]),
        template: None,
        custom_fields: serde_json::json!({}),
    };
    let mut tx = world.record.begin().await.unwrap();
    imports::start(&mut tx, &import).await.unwrap();
    tx.commit().await.unwrap();
    ChunkOptions {
        import_id: id,
        workspace_id: None,
        on_existing,
        create_missing: true,
        batch_size: 100,
        dry_run: false,
    }
}

async fn apply(world: &World, options: &ChunkOptions, chunk: &Chunk) -> ChunkCounts {
    let mut tx = world.record.begin().await.unwrap();
    let counts = import_chunk::apply(&mut tx, options, chunk, |_| ())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    counts
}

#[tokio::test]
async fn a_repeated_chunk_changes_nothing() {
    let world = World::new().await;
    let options = begin(&world, OnExisting::Update(Merge::default())).await;
    let chunk = chunk((1..=250).map(|n| (n, account(n))));
    let first = apply(&world, &options, &chunk).await;
    assert_eq!((first.inserted, first.processed()), (250, 250));
    let before = world.texts("SELECT accounts::text FROM accounts").await;
    let second = apply(&world, &options, &chunk).await;
    assert_eq!(second, ChunkCounts::default());
    assert_eq!(
        world.texts("SELECT accounts::text FROM accounts").await,
        before
    );
    assert_eq!(world.one::<i64>("SELECT processed FROM imports").await, 250);
    assert_eq!(
        world.one::<i64>("SELECT count(*) FROM import_rows").await,
        250
    );
}

#[tokio::test]
async fn progress_moves_with_every_batch() {
    let world = World::new().await;
    let options = begin(&world, OnExisting::Skip).await;
    let mut batches = Vec::new();
    let mut tx = world.record.begin().await.unwrap();
    let chunk = chunk((1..=250).map(|n| (n, account(n))));
    import_chunk::apply(&mut tx, &options, &chunk, |rows| batches.push(rows))
        .await
        .unwrap();
    assert_eq!(batches, [100, 100, 50]);
}

#[tokio::test]
async fn a_row_that_the_schema_refuses_is_found_among_two_thousand() {
    let world = World::new().await;
    let options = begin(&world, OnExisting::Skip).await;
    let poisoned = [3, 777, 1999];
    let rows = (1..=2000).map(|n| {
        let mut row = account(n);
        if poisoned.contains(&n) {
            row.employee_count = Some(-1);
        }
        (n, row)
    });
    let counts = apply(&world, &options, &chunk(rows)).await;
    assert_eq!((counts.inserted, counts.failed), (1997, 3));
    assert_eq!(counts.by_code["DATABASE_REJECTED"], 3);
    let found = world
        .texts(
            "SELECT row_no || convert_from(raw, 'UTF8') FROM import_rows WHERE outcome = 'failed'",
        )
        .await;
    assert_eq!(found, ["1999raw 1999", "3raw 3", "777raw 777"]);
    assert_eq!(
        world.one::<i64>("SELECT count(*) FROM accounts").await,
        1997
    );
}

#[tokio::test]
async fn duplicates_are_found_inside_a_chunk_and_across_chunks() {
    let world = World::new().await;
    for (on_existing, skipped, failed) in [
        (OnExisting::Skip, 3, 0),
        (OnExisting::Update(Merge::default()), 3, 0),
        (OnExisting::Reject, 0, 3),
    ] {
        sqlx::query("DELETE FROM accounts")
            .execute(&world.pool)
            .await
            .unwrap();
        let options = begin(&world, on_existing).await;
        let first = [(1, account(1)), (2, account(2)), (3, account(1))];
        let first = apply(&world, &options, &chunk(first)).await;
        let second = [(4, account(2)), (5, account(3)), (6, account(1))];
        let second = apply(&world, &options, &chunk(second)).await;
        assert_eq!(
            (
                first.inserted + second.inserted,
                first.skipped + second.skipped
            ),
            (3, skipped)
        );
        assert_eq!(first.failed + second.failed, failed);
        let message: String = sqlx::query_scalar(
            "SELECT string_agg(row_no || ': ' || message, ', ' ORDER BY row_no)
             FROM import_rows WHERE import_id = $1 AND code = 'DUPLICATE_IN_FILE'",
        )
        .bind(options.import_id)
        .fetch_one(&world.pool)
        .await
        .unwrap();
        let expected =
            "3: the same record as row 1, 4: the same record as row 2, 6: the same record as row 1";
        assert_eq!(message, expected);
    }
}

#[tokio::test]
async fn rows_that_mean_one_record_by_different_keys_are_duplicates_too() {
    let world = World::new().await;
    let options = begin(&world, OnExisting::Update(Merge::default())).await;
    let by_id = AccountRow {
        external_id: Some("A".into()),
        ..account(1)
    };
    let mut chunk = chunk([(1, by_id), (2, account(1))]);
    if let Entities::Accounts(rows) = &mut chunk.entities {
        rows[0].key = Uuid::nil();
    }
    let counts = apply(&world, &options, &chunk).await;
    assert_eq!((counts.inserted, counts.skipped), (1, 1));
    assert_eq!(counts.by_code["DUPLICATE_IN_FILE"], 1);
}

#[tokio::test]
async fn two_imports_at_once_write_each_record_once() {
    let world = World::new().await;
    let merge = || OnExisting::Update(Merge::default());
    let (left, right) = (begin(&world, merge()).await, begin(&world, merge()).await);
    let run = |options: ChunkOptions, step: i64| {
        let world = &world;
        async move {
            let mut total = 0;
            for part in 0..5 {
                let numbers = (part * 400..(part + 1) * 400).map(|n| n * step % 2003);
                let chunk = chunk(
                    numbers
                        .enumerate()
                        .map(|(at, n)| (part * 400 + at as i64, account(n))),
                );
                total += apply(world, &options, &chunk).await.processed();
            }
            total
        }
    };
    let totals = tokio::join!(run(left, 1), run(right, 2));
    assert_eq!(totals, (2000, 2000));
    let (rows, domains): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(DISTINCT domain) FROM accounts")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert_eq!(rows, domains);
    let lost: i64 = world
        .one("SELECT count(*) FROM import_rows WHERE outcome = 'failed'")
        .await;
    assert_eq!(lost, 0);
}
