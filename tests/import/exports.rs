//! Exports: what is written is what is there, in every format, and it can be imported again.

use std::collections::BTreeMap;
use std::io::Cursor;

use bullwark::handlers::export::{ExportDataHandler, Summary};
use bullwark::job::JobError;
use bullwark::record::exports::KEPT_BYTES_MAX;
use bullwark::storage::Storage;
use bullwark::worker::Handler;
use calamine::{Data, DataType, Reader, Xlsx};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::World;

pub(crate) const ACCOUNTS: &str = "name,domain,employee_count,annual_revenue,country,phone,\
    description,technologies,external_id,custom.note,custom.tier\n\
    \"=cmd|'/c calc'!A1\",one.com,5,1000,DE,+49 30 1234567,\"two\nlines, \"\"quoted\"\"\",\
    \"Rust; Go\",=A1,@here,1\n\
    \"-5 degrees\",two.com,0,9000000000000,FR,+33 1 23456789,'tis,,,,\n\
    Zoë 名簿,,,,Elsewhere,,,,x-3,plain,\n";

impl World {
    pub(crate) fn exporter(&self) -> ExportDataHandler {
        ExportDataHandler {
            storage: Storage::local(self.dir.path()),
            public_url: None,
        }
    }

    pub(crate) async fn export_in(
        &self,
        workspace: Option<Uuid>,
        payload: Value,
    ) -> Result<Summary, JobError> {
        let job = self.job(workspace).await;
        let context = self.context(job, 1).await;
        let payload = serde_json::from_value(payload).unwrap();
        self.exporter().run(context, payload).await
    }

    pub(crate) async fn export(&self, payload: Value) -> Summary {
        self.export_in(None, payload).await.unwrap()
    }

    pub(crate) fn exported(&self, summary: &Summary) -> Vec<u8> {
        std::fs::read(self.dir.path().join(&summary.file)).unwrap()
    }
}

/// The rows of a CSV file by column, sorted by name: ids of one moment are in no order.
pub(crate) fn csv_rows(content: &[u8]) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(content);
    let rows = reader.deserialize().map(Result::unwrap);
    let mut rows: Vec<BTreeMap<String, String>> = rows.collect();
    rows.sort_by(|a, b| a["name"].cmp(&b["name"]));
    rows
}

#[tokio::test]
async fn what_was_exported_is_imported_again_without_a_change() {
    let world = World::new().await;
    let first = world.accounts(ACCOUNTS, json!({})).await;
    assert_eq!((first.inserted, first.failed), (3, 0), "{first:?}");
    let names = "SELECT name FROM accounts";
    let before = world.texts("SELECT accounts::text FROM accounts").await;
    let inert = world.texts(names).await;
    assert!(inert.contains(&"=cmd|'/c calc'!A1".to_owned()), "{inert:?}");

    for options in [json!({}), json!({"delimiter": ";", "bom": true})] {
        let payload = json!({"entity_type": "accounts", "options": options});
        let summary = world.export(payload).await;
        assert_eq!((summary.rows, summary.format), (3, "csv"));
        let text = String::from_utf8(world.exported(&summary)).unwrap();
        for line in text.lines() {
            assert!(!line.starts_with(['=', '+', '-', '@']), "{line}");
        }
        assert!(
            text.contains("'=cmd|'/c calc'!A1") && text.contains("'=A1"),
            "{text}"
        );
        assert!(text.contains("'+4930") && text.contains("'-5 degrees") && text.contains("'@here"));
        let again = world
            .accounts(&text, json!({"update_existing": true}))
            .await;
        assert_eq!((again.total, again.unchanged), (3, 3), "{again:?}\n{text}");
        let after = world.texts("SELECT accounts::text FROM accounts").await;
        assert_eq!(after, before);
    }
}

#[tokio::test]
async fn contacts_come_back_unchanged_too() {
    let world = World::new().await;
    let file = "email,first_name,last_name,company,phone,custom.a/b\n\
        ada@example.com,Ada,=Lovelace,+Acme,+44 20 12345678,1\nbob@example.com,Bob,,,,\n";
    let url = world.upload(file).await;
    let options = json!({"update_existing": true});
    let import =
        |url: String| json!({"file_url": url, "entity_type": "contacts", "options": options});
    let first = world.run(import(url)).await.unwrap();
    assert_eq!(first.inserted, 2);
    let summary = world.export(json!({"entity_type": "contacts"})).await;
    assert!(summary.columns.contains(&"custom.a/b".to_owned()));
    let url = world.upload(world.exported(&summary)).await;
    let again = world.run(import(url)).await.unwrap();
    assert_eq!(again.unchanged, 2, "{again:?}");
}

#[tokio::test]
async fn every_format_says_the_same() {
    let world = World::new().await;
    world.accounts(ACCOUNTS, json!({})).await;
    let fields = json!([
        "name",
        "employee_count",
        "annual_revenue",
        "technologies",
        "custom.note",
        "created_at",
        "id"
    ]);
    let export = async |format: &str| {
        let payload = json!({"entity_type": "accounts", "format": format, "fields": fields,
            "options": {"formula_guard": false}});
        let summary = world.export(payload).await;
        assert_eq!(
            summary.file_name.rsplit_once('.').unwrap().1,
            summary.format
        );
        world.exported(&summary)
    };
    let lines = String::from_utf8(export("ndjson").await).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let mut array: Vec<Value> = serde_json::from_slice(&export("json").await).unwrap();
    assert_eq!(array, lines);
    array.sort_by_key(|object| object["name"].as_str().map(str::to_owned));
    assert_eq!(array[1]["technologies"], json!(["Rust", "Go"]));
    let counts = array.iter().map(|object| &object["employee_count"]);
    assert_eq!(
        counts.collect::<Vec<_>>(),
        [&json!(0), &json!(5), &Value::Null]
    );

    let rows = csv_rows(&export("csv").await);
    let mut book: Xlsx<_> = Xlsx::new(Cursor::new(export("excel").await)).unwrap();
    let sheet = book.worksheet_range("accounts").unwrap();
    let header: Vec<String> = sheet
        .rows()
        .next()
        .unwrap()
        .iter()
        .map(Data::to_string)
        .collect();
    assert_eq!(json!(header), fields);
    let mut lines: Vec<&[Data]> = sheet.rows().skip(1).collect();
    lines.sort_by_key(|cells| cells[0].to_string());
    assert_eq!(lines.len(), array.len());
    for (at, object) in array.iter().enumerate() {
        let cells = lines[at];
        for name in ["name", "custom.note", "id"] {
            let text = object[name].as_str().unwrap_or_default();
            assert_eq!(rows[at][name], text);
            let column = header.iter().position(|h| h == name).unwrap();
            assert_eq!(cells[column].to_string(), text);
        }
        // Typed, not as text.
        let revenue = object["annual_revenue"].as_f64();
        assert_eq!(
            revenue,
            match &cells[2] {
                Data::Float(number) => Some(*number),
                Data::Int(number) => Some(*number as f64),
                _ => None,
            }
        );
        assert!(matches!(cells[5], Data::DateTime(_)), "{:?}", cells[5]);
    }
}

#[tokio::test]
async fn an_export_of_nothing_is_a_whole_file() {
    let world = World::new().await;
    for (format, expected) in [
        ("csv", "name\r\n"),
        ("json", "[\n]\n"),
        ("ndjson", ""),
        ("xlsx", "PK"),
    ] {
        let payload = json!({"entity_type": "accounts", "format": format, "fields": ["name"]});
        let summary = world.export(payload).await;
        assert_eq!((summary.rows, summary.warnings.len()), (0, 0));
        let content = world.exported(&summary);
        assert_eq!(summary.bytes, content.len() as u64);
        assert!(content.starts_with(expected.as_bytes()), "{format}");
        assert!(
            format == "xlsx" || content.len() == expected.len(),
            "{format}"
        );
    }
}

#[tokio::test]
async fn a_text_that_no_cell_can_hold_is_cut_and_told() {
    let world = World::new().await;
    // Two units of UTF-16 each, which is how a workbook counts.
    sqlx::query(
        "INSERT INTO accounts (name, description) VALUES ('a', repeat('\u{1d4b3}', 20000))",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let fields = json!(["name", "description"]);
    let payload = json!({"entity_type": "accounts", "fields": fields, "format": "xlsx"});
    let summary = world.export(payload).await;
    let warning = "1 texts are longer than a cell can be, and were cut";
    assert_eq!(summary.warnings, [warning]);
    let mut book: Xlsx<_> = Xlsx::new(Cursor::new(world.exported(&summary))).unwrap();
    let sheet = book.worksheet_range("accounts").unwrap();
    let text = sheet.rows().nth(1).unwrap()[1].to_string();
    assert_eq!(text.encode_utf16().count(), 32_767);
    assert!(text.ends_with('…'));
}

#[tokio::test]
async fn custom_fields_are_as_they_are_and_have_names_that_a_column_can_have() {
    let world = World::new().await;
    sqlx::query(
        "INSERT INTO accounts (name, custom) VALUES ('a', jsonb_build_object(
           '', 1, repeat('x', 101), 2, repeat('é', 50), 'longest', 'score', -7, 'part', -0.5,
           'large', 90071992547409930, 'text', '-7'))",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let longest = format!("custom.{}", "é".repeat(50));
    let custom = [
        "custom.large",
        "custom.part",
        "custom.score",
        "custom.text",
        &longest,
    ];
    for format in ["csv", "xlsx"] {
        let summary = world
            .export(json!({"entity_type": "accounts", "format": format}))
            .await;
        let columns = summary.columns.iter().filter(|c| c.starts_with("custom."));
        assert_eq!(columns.collect::<Vec<_>>(), custom);
        assert_eq!(summary.warnings.len(), 1, "{:?}", summary.warnings);
        assert!(summary.warnings[0].contains("more than 100 bytes"));
        let content = world.exported(&summary);
        if format == "csv" {
            let row = &csv_rows(&content)[0];
            let values = custom.map(|name| row[name].as_str());
            assert_eq!(
                values,
                ["90071992547409930", "-0.5", "-7", "'-7", "longest"]
            );
            continue;
        }
        let mut book: Xlsx<_> = Xlsx::new(Cursor::new(content)).unwrap();
        let sheet = book.worksheet_range("accounts").unwrap();
        let header: Vec<String> = sheet
            .rows()
            .next()
            .unwrap()
            .iter()
            .map(Data::to_string)
            .collect();
        let cell = |name: &str| {
            let column = header.iter().position(|h| h == name).unwrap();
            sheet.rows().nth(1).unwrap()[column].clone()
        };
        assert_eq!(cell("custom.score").as_f64(), Some(-7.0));
        assert_eq!(cell("custom.part"), Data::Float(-0.5));
        for (name, text) in [("custom.large", "90071992547409930"), ("custom.text", "-7")] {
            assert_eq!(cell(name), Data::String(text.to_owned()));
        }
    }
}

#[tokio::test]
async fn a_workspace_keeps_so_many_bytes_and_no_more() {
    let world = World::new().await;
    let (full, other) = (
        world.workspace("full").await,
        world.workspace("other").await,
    );
    let job = world.job(Some(full)).await;
    let payload = json!({"entity_type": "accounts"});
    let export = async |workspace| world.export_in(Some(workspace), payload.clone()).await;
    sqlx::query(
        "INSERT INTO exports (id, workspace_id, entity_type, format, file_name, status, bytes,
           sha256, finished_at, expires_at)
         VALUES ($1, $2, 'accounts', 'csv', 'x.csv', 'completed', $3, 'x', now(),
           now() + interval '1 hour')",
    )
    .bind(job)
    .bind(full)
    .bind(KEPT_BYTES_MAX - 300)
    .execute(&world.pool)
    .await
    .unwrap();
    let url = world.upload_of(Some(full), ACCOUNTS).await;
    let import = json!({"file_url": url, "entity_type": "accounts"});
    world.run_in(Some(full), import).await.unwrap();
    for bytes in [KEPT_BYTES_MAX - 300, KEPT_BYTES_MAX] {
        let fill = "UPDATE exports SET bytes = $1 WHERE id = $2";
        let fill = sqlx::query(fill).bind(bytes).bind(job);
        fill.execute(&world.pool).await.unwrap();
        match export(full).await {
            Err(JobError::Permanent(message)) => {
                assert!(message.contains("delete jobs of exports"), "{message}");
            }
            other => panic!("{other:?}"),
        }
        export(other).await.unwrap();
    }
    let delete = "UPDATE jobs SET deleted_at = now() WHERE id = $1";
    let delete = sqlx::query(delete).bind(job).execute(&world.pool);
    delete.await.unwrap();
    assert_eq!(export(full).await.unwrap().rows, 3);
}

#[tokio::test]
async fn a_payload_that_says_what_can_not_be_fails_for_good() {
    let world = World::new().await;
    let payload = json!({"entity_type": "accounts", "fields": ["workspace_id"],
        "filters": [{"field": "name", "op": "gt", "value": "a"}]});
    match world.export_in(None, payload).await {
        Err(JobError::Permanent(message)) => {
            assert!(
                message.contains("/fields/0: `workspace_id` is no field"),
                "{message}"
            );
            assert!(message.contains("/filters/0/op"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.one::<i64>("SELECT count(*) FROM exports").await, 0);
}
