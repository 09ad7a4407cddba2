//! The example files, end to end.

use serde_json::json;

use crate::support::World;

fn example(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/data")
        .join(name);
    std::fs::read(path).unwrap()
}

fn specified_payload(url: &str) -> serde_json::Value {
    json!({
        "file_url": url,
        "entity_type": "accounts",
        "mapping": {"Company Name": "name", "Website": "domain", "Industry": "industry"},
        "options": {"update_existing": true, "skip_duplicates": false, "batch_size": 100},
    })
}

#[tokio::test]
async fn of_the_thousand_example_accounts_980_are_imported_and_20_reported() {
    let world = World::new().await;
    let url = world.upload(example("accounts.csv")).await;
    let summary = world.run(specified_payload(&url)).await.unwrap();
    assert_eq!(
        summary.message,
        "Successfully imported 980 accounts, 20 skipped due to errors"
    );
    assert_eq!(
        (summary.total, summary.imported, summary.inserted),
        (1000, 980, 980)
    );
    assert_eq!((summary.skipped, summary.failed), (5, 15));
    assert_eq!((summary.encoding, summary.delimiter), ("UTF-8", "comma"));
    let expected = json!({
        "REQUIRED_MISSING": 5, "DOMAIN_INVALID": 4, "DUPLICATE_IN_FILE": 5, "TOO_MANY_COLUMNS": 3,
        "TYPE_MISMATCH": 1, "VALUE_TOO_LONG": 1, "EXCEL_DAMAGE": 1,
    });
    assert_eq!(json!(summary.by_code), expected);
    assert_eq!(world.one::<i64>("SELECT count(*) FROM accounts").await, 980);
    let status = world.one::<String>("SELECT status FROM imports").await;
    assert_eq!(status, "completed_with_errors");

    let report = world.report(&summary);
    assert_eq!(
        report.matches("\r\n").count(),
        21,
        "a header and one line per bad row"
    );
    assert!(report.starts_with("\u{FEFF}Company Name,Website,"));

    let progress: serde_json::Value = world.one("SELECT progress FROM jobs").await;
    assert_eq!(progress["processed"], 1000);
    assert_eq!(progress["percentage"], 100.0);
    assert_eq!(progress["failed"], 20);
}

#[tokio::test]
async fn the_same_file_twice_creates_nothing() {
    let world = World::new().await;
    let url = world.upload(example("accounts.csv")).await;
    world.run(specified_payload(&url)).await.unwrap();
    let before = world.texts("SELECT accounts::text FROM accounts").await;
    let second = world.run(specified_payload(&url)).await.unwrap();
    assert_eq!(
        (second.inserted, second.updated, second.unchanged),
        (0, 0, 980)
    );
    assert!(
        second
            .warnings
            .iter()
            .any(|w| w.starts_with("the same file was imported before"))
    );
    assert_eq!(
        world.texts("SELECT accounts::text FROM accounts").await,
        before
    );
}

#[tokio::test]
async fn a_german_excel_file_is_read_without_being_told() {
    let world = World::new().await;
    let accounts = world.upload(example("accounts.csv")).await;
    world.run(specified_payload(&accounts)).await.unwrap();
    let url = world.upload(example("contacts-latin1.csv")).await;
    let payload = json!({
        "file_url": url, "entity_type": "contacts",
        "mapping": {"Umsatz (Mio.)": "custom.umsatz"}, "options": {"default_country": "DE"},
    });
    let summary = world.run(payload).await.unwrap();
    assert_eq!(
        (summary.encoding, summary.delimiter),
        ("windows-1252", "semicolon")
    );
    assert_eq!(
        (summary.total, summary.inserted, summary.failed),
        (1000, 995, 4)
    );
    assert_eq!(summary.by_code["DUPLICATE_IN_FILE"], 1);
    let names = world
        .texts("SELECT DISTINCT last_name FROM contacts WHERE last_name LIKE '%ß%'")
        .await;
    assert_eq!(names, ["Straße", "Weiß"]);
    let phones: i64 = world
        .one("SELECT count(*) FROM contacts WHERE phone LIKE '+49%'")
        .await;
    assert_eq!(phones, 995);
    let linked: i64 = world
        .one(
            "SELECT count(*) FROM contacts c JOIN accounts a ON a.id = c.account_id
             WHERE split_part(c.email, '@', 2) = a.domain",
        )
        .await;
    assert!(
        linked > 900,
        "{linked} contacts found their employer by domain"
    );
    let custom: String = world
        .one("SELECT custom ->> 'umsatz' FROM contacts WHERE email LIKE 'kontakt.0@%'")
        .await;
    assert!(custom.contains(','));
}

#[tokio::test]
async fn utf16_with_semicolons_and_quoted_line_breaks_is_detected() {
    let world = World::new().await;
    let text = "Firma;Domain;Umsatz\r\n\"Müller\r\nSöhne\";mueller.de;1.234,50\r\n";
    let bytes: Vec<u8> = std::iter::once(0xFEFF_u16)
        .chain(text.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let url = world.upload(bytes).await;
    let summary = world
        .run(json!({"file_url": url, "entity_type": "accounts"}))
        .await
        .unwrap();
    assert_eq!((summary.inserted, summary.encoding), (1, "UTF-16LE"));
    let found = world
        .texts("SELECT name || '|' || annual_revenue FROM accounts")
        .await;
    assert_eq!(found, ["Müller Söhne|1235"]);
}
