use super::*;

fn parse(json: &str) -> Result<ImportCsv, serde_json::Error> {
    serde_json::from_str(json)
}

#[test]
fn the_example_of_the_specification_is_accepted() {
    let payload = parse(
        r#"{"import_type": "csv", "file_url": "https://storage.supabase.co/x",
            "entity_type": "accounts",
            "mapping": {"Company Name": "name", "Website": "domain", "Industry": "industry"},
            "options": {
                "update_existing": true, "skip_duplicates": false, "batch_size": 100}}"#,
    )
    .unwrap();
    assert_eq!(payload.check(), Ok(()));
    assert!(payload.options.update_existing);
    assert_eq!(payload.options.empty_values, EmptyValues::Ignore);
}

#[test]
fn options_have_the_documented_defaults() {
    let payload = parse(r#"{"file_url": "upload://a", "entity_type": "contacts"}"#).unwrap();
    assert_eq!(payload.options.batch_size, BATCH_SIZE_DEFAULT);
    assert!(payload.options.skip_duplicates && !payload.options.update_existing);
}

#[test]
fn misspelt_or_impossible_payloads_are_refused() {
    for json in [
        r#"{"file_url": "x", "entity_type": "deals"}"#,
        r#"{"file_url": "x"}"#,
        r#"{"file_url": "x", "entity_type": "accounts", "option": {}}"#,
        r#"{"file_url": "x", "entity_type": "accounts", "options": {"batchsize": 1}}"#,
        r#"{"file_url": "x", "entity_type": "accounts", "options": {"delimiter": "ab"}}"#,
    ] {
        assert!(parse(json).is_err(), "{json}");
    }
    for (options, refused) in [
        (r#"{"batch_size": 0}"#, InvalidPayload::BatchSize(0)),
        (r#"{"batch_size": 2001}"#, InvalidPayload::BatchSize(2001)),
        (r#"{"header_row": 0}"#, InvalidPayload::HeaderRow(0)),
        (
            r#"{"create_missing": false}"#,
            InvalidPayload::NothingToWrite,
        ),
        (
            r#"{"encoding": "klingon"}"#,
            InvalidPayload::Encoding("klingon".into()),
        ),
        (
            r#"{"default_country": "Mars"}"#,
            InvalidPayload::Country("Mars".into()),
        ),
    ] {
        let json =
            format!(r#"{{"file_url": "x", "entity_type": "accounts", "options": {options}}}"#);
        assert_eq!(parse(&json).unwrap().check(), Err(refused));
    }
}
