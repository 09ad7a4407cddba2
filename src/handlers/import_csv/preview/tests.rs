use super::*;

fn seen(bytes: &[u8], payload: &str) -> Result<Preview, PreviewError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.csv");
    std::fs::write(&path, bytes).unwrap();
    let payload = serde_json::from_str(payload).unwrap();
    look(&path, &payload, &Known::default(), dir.path(), &|| true)
}

const ACCOUNTS: &str = r#"{"file_url": "upload://x", "entity_type": "accounts"}"#;

#[test]
fn it_tells_how_the_file_is_read_and_where_columns_go() {
    let text = "Kunden\n\nFirma;Website;Umsatz;Notiz\nMüller GmbH;mueller.de;1,5;a\n\
        ;broken.de;2;b\nWeiß AG;weiss.de;3;a\n";
    let latin = encoding_rs::WINDOWS_1252.encode(text).0.into_owned();
    let shown = seen(&latin, ACCOUNTS).unwrap();
    assert_eq!(
        (shown.encoding, shown.delimiter),
        ("windows-1252", "semicolon")
    );
    assert_eq!(
        (shown.header_line, shown.rows, shown.is_whole),
        (3, 3, true)
    );
    let headers: Vec<_> = shown.columns.iter().map(|c| c.header.as_str()).collect();
    assert_eq!(headers, ["Firma", "Website", "Umsatz", "Notiz"]);
    assert_eq!(shown.columns[0].target.as_deref(), Some("name"));
    assert_eq!(shown.columns[3].values, ["a", "b"]);
    assert_eq!(shown.problem, None);
    assert_eq!(shown.refused_rows, 1);
    assert_eq!(shown.sample[1].issues[0].code.as_str(), "REQUIRED_MISSING");
    assert_eq!(shown.sample[1].line, 5);
    assert_eq!(shown.sample[0].values[0], "Müller GmbH");
}

#[test]
fn a_mapping_that_lacks_something_is_shown_with_the_reason() {
    let shown = seen(b"foo,bar\n1,2\n", ACCOUNTS).unwrap();
    assert!(shown.columns.iter().all(|column| column.target.is_none()));
    let problem = shown.problem.unwrap();
    assert!(problem.contains("no column for `name`"), "{problem}");
    assert_eq!(shown.required_any, ["name"]);

    let wrong = r#"{"file_url": "upload://x", "entity_type": "accounts",
        "mapping": {"baz": "name"}}"#;
    let refused = seen(b"foo,bar\n1,2\n", wrong).unwrap_err();
    assert!(matches!(refused, PreviewError::Mapping(_)), "{refused}");
    assert!(matches!(
        seen(b"%PDF-1.7", ACCOUNTS),
        Err(PreviewError::Content(_))
    ));
}

#[test]
fn of_a_large_file_the_beginning_is_looked_at() {
    let mut text = String::from("name,note\n");
    while text.len() as u64 <= LOOKED_AT_BYTES + 100_000 {
        // Quoted, so that the end of the look falls into a quote most of the time.
        text.push_str("Acme,\"a long note, with a comma and\na second line\"\n");
    }
    let shown = seen(text.as_bytes(), ACCOUNTS).unwrap();
    assert!(!shown.is_whole);
    let all = text.matches("Acme").count() as u64;
    assert!(
        shown.rows > all - 4_000 && shown.rows < all,
        "{} of {all}",
        shown.rows
    );
    assert_eq!(shown.sample.len(), ROWS);
    // The same text cut there, as a whole file, breaks off inside of a quote.
    let cut_off = seen(b"name,note\nAcme,\"a long\n", ACCOUNTS);
    assert!(matches!(cut_off, Err(PreviewError::Format(_))));
}
