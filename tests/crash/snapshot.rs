//! Every row of the record and every key of Redis, to show that nothing was written.

use std::collections::BTreeMap;

use sqlx::AssertSqlSafe;

use crate::stage::Stage;

pub(crate) struct Snapshot {
    /// Tables and their rows as text, keys and their values as Redis dumps them.
    values: BTreeMap<String, Vec<u8>>,
}

impl Snapshot {
    pub(crate) async fn of(stage: &Stage) -> Self {
        let mut values = BTreeMap::new();
        let mut tx = stage.app.record.begin().await.unwrap();
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables
             WHERE table_schema IN ('public', 'bullwark', 'auth') AND table_type = 'BASE TABLE'
               -- that a worker lives is no writing of its jobs
               AND (table_schema, table_name) <> ('bullwark', 'workers')",
        )
        .fetch_all(tx.connection())
        .await
        .unwrap();
        assert!(tables.len() > 10, "{tables:?}");
        for table in tables {
            let rows = format!(
                "SELECT coalesce(string_agg(r::text, chr(10) ORDER BY r::text), '') FROM {table} r"
            );
            let rows: String = sqlx::query_scalar(AssertSqlSafe(rows))
                .fetch_one(tx.connection())
                .await
                .unwrap();
            values.insert(table, rows.into_bytes());
        }
        let client = redis::Client::open(stage.stores.redis_url.as_str()).unwrap();
        let mut redis = client.get_multiplexed_async_connection().await.unwrap();
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg("*")
            .query_async(&mut redis)
            .await
            .unwrap();
        for key in keys {
            // What ends by itself may end between two looks.
            let left: i64 = redis::cmd("PTTL")
                .arg(&key)
                .query_async(&mut redis)
                .await
                .unwrap();
            if left == -1 {
                let value: Vec<u8> = redis::cmd("DUMP")
                    .arg(&key)
                    .query_async(&mut redis)
                    .await
                    .unwrap();
                values.insert(key, value);
            }
        }
        assert!(values.len() > 20, "{:?}", values.keys());
        Self { values }
    }

    #[track_caller]
    pub(crate) fn assert_same_as(&self, before: &Self) {
        let names = self.values.keys().chain(before.values.keys());
        let changed: Vec<&String> = names
            .filter(|name| self.values.get(*name) != before.values.get(*name))
            .collect();
        assert!(changed.is_empty(), "changed: {changed:?}");
    }
}
