use proptest::prelude::*;

use super::*;

fn dialect(delimiter: u8) -> Dialect {
    Dialect {
        delimiter,
        ..Dialect::default()
    }
}

/// `line:row:field|field` for every record.
fn records(text: &[u8], position: Position) -> Result<Vec<String>, String> {
    let mut reader = RecordReader::new(&text[position.offset as usize..], &dialect(b','), position);
    let mut found = Vec::new();
    while reader.advance().map_err(|error| error.to_string())? {
        let fields: Vec<_> = (0..reader.columns())
            .map(|column| String::from_utf8_lossy(reader.field(column)).into_owned())
            .collect();
        found.push(format!(
            "{}:{}:{}",
            reader.line(),
            reader.row(),
            fields.join("|")
        ));
    }
    Ok(found)
}

const START: Position = Position {
    offset: 0,
    line: 1,
    row: 0,
};

#[test]
fn records_know_their_line_and_number() {
    for (text, expected) in [
        ("a,b\nc,d\n", vec!["1:1:a|b", "2:2:c|d"]),
        ("a,b\r\nc,d\r\n", vec!["1:1:a|b", "2:2:c|d"]),
        ("a,b\rc,d\re,f", vec!["1:1:a|b", "2:2:c|d", "3:3:e|f"]),
        ("a,b\nc,d", vec!["1:1:a|b", "2:2:c|d"]),
        ("\n\na,b\n\n\nc,d\n\n", vec!["3:1:a|b", "6:2:c|d"]),
        ("a,b\n , \n,,\nc,d\n", vec!["1:1:a|b", "4:2:c|d"]),
        ("\"x\ny\",b\nc,d\n", vec!["1:1:x\ny|b", "3:2:c|d"]),
        (
            "\"x\r\ny\r\nz\",b\r\nc,d",
            vec!["1:1:x\r\ny\r\nz|b", "4:2:c|d"],
        ),
        ("\"say \"\"hi\"\"\",b\n", vec!["1:1:say \"hi\"|b"]),
        ("in\"ch,b\n", vec!["1:1:in\"ch|b"]),
        ("\"a\" x,b\n", vec!["1:1:a x|b"]),
        ("a\nb,c\nd,e,f\n", vec!["1:1:a", "2:2:b|c", "3:3:d|e|f"]),
        ("a,\n", vec!["1:1:a|"]),
        ("\"\",\"\"\na,b\n", vec!["2:1:a|b"]),
        ("\0,b\n", vec!["1:1:\0|b"]),
        ("", vec![]),
        ("\n\r\n", vec![]),
    ] {
        assert_eq!(
            records(text.as_bytes(), START),
            Ok(expected.iter().map(|s| (*s).to_owned()).collect()),
            "{text:?}"
        );
    }
}

#[test]
fn a_quote_that_stays_open_names_its_line() {
    for (text, line) in [
        ("a,b\n\"c,d\n", 2),
        ("a,b\n\nx,\"c\nd\ne,f\n", 3),
        ("\"a", 1),
        ("a,\"b\nc\",\"d\n\n", 2),
    ] {
        let expected = ReadError::OpenQuote { line }.to_string();
        assert_eq!(records(text.as_bytes(), START), Err(expected), "{text:?}");
    }
    assert!(records(b"a,\"b\"", START).is_ok());
    assert!(records(b"a,\"b\"\"\"", START).is_ok());
    assert!(records(b"a,\"\"", START).is_ok());
}

#[test]
fn an_endless_quote_is_refused_before_memory_is_gone() {
    let mut text = b"a,b\nc,\"d\n".to_vec();
    text.extend(std::iter::repeat_n(b"0123456789,abcdef\n", 1_000_000).flatten());
    let error = records(&text, START).unwrap_err();
    assert_eq!(error, ReadError::OpenQuote { line: 2 }.to_string());
}

#[test]
fn limits_hold() {
    let wide = ",".repeat(COLUMNS_MAX) + "x\n";
    let error = records(wide.as_bytes(), START).unwrap_err();
    assert_eq!(error, ReadError::TooManyColumns { line: 1 }.to_string());
    let allowed = ",".repeat(COLUMNS_MAX - 1) + "x\n";
    assert!(records(allowed.as_bytes(), START).is_ok());
    let long = "x".repeat(FIELD_BYTES_MAX + 1) + "\n";
    let error = records(long.as_bytes(), START).unwrap_err();
    assert_eq!(error, ReadError::FieldTooLong { line: 1 }.to_string());
    assert!(records("x".repeat(FIELD_BYTES_MAX).as_bytes(), START).is_ok());
}

#[test]
fn reading_goes_on_at_every_noted_position() {
    let text = "h1,h2\r\n\r\n\"a\r\nb\",1\r\nc,2\n\n,,\nd,3\re,\"4\n\"\r\nf,5";
    let all = records(text.as_bytes(), START).unwrap();
    let mut reader = RecordReader::new(text.as_bytes(), &dialect(b','), START);
    let mut seen = 0;
    while reader.advance().unwrap() {
        seen += 1;
        let rest = records(text.as_bytes(), reader.position()).unwrap();
        assert_eq!(rest, all[seen..], "after record {seen}");
    }
    assert_eq!(seen, all.len());
}

#[test]
fn raw_bytes_are_those_of_the_file() {
    let text = "\r\n\"a \"\"x\"\"\r\n\",1\r\nb , 2";
    let mut reader = RecordReader::new(text.as_bytes(), &dialect(b','), START);
    assert!(reader.advance().unwrap());
    assert_eq!(reader.raw(), b"\"a \"\"x\"\"\r\n\",1");
    assert!(reader.advance().unwrap());
    assert_eq!(reader.raw(), b"b , 2");
}

#[test]
fn records_longer_than_the_buffers_arrive_whole() {
    let long = "y".repeat(READ_BYTES * 3 + 7);
    let text = format!("a,b\n{long},\"{long}\"\nc,d\n");
    let found = records(text.as_bytes(), START).unwrap();
    assert_eq!(found[1], format!("2:2:{long}|{long}"));
    assert_eq!(found[2], "3:3:c|d");
}

#[test]
fn a_census_counts_rows_and_width() {
    let mut reader = RecordReader::new(b"a,b\n\n1,2,3\n,\n4\n".as_slice(), &dialect(b','), START);
    let census = census(&mut reader, || true).unwrap();
    assert_eq!(
        census,
        Census {
            rows: 3,
            columns: 3
        }
    );
}

/// Texts of the characters that matter, and of one that has two bytes.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec!["a", ",", "\"", "\n", "\r", "\r\n", " ", "é", "\0"]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn any_text_gives_the_records_of_the_csv_crate(text in texts()) {
        if let Ok(found) = records(&text, START) {
            let mut builder = csv::ReaderBuilder::new();
            let mut oracle = builder.has_headers(false).flexible(true).from_reader(&text[..]);
            let expected: Vec<String> = oracle
                .byte_records()
                .map(|record| {
                    let record = record.unwrap();
                    let fields = record.iter().map(|field| String::from_utf8_lossy(field));
                    fields.collect::<Vec<_>>().join("|")
                })
                .filter(|fields| !fields.replace('|', "").trim_ascii().is_empty())
                .collect();
            let fields = |record: &String| record.splitn(3, ':').last().unwrap_or("").to_owned();
            let found: Vec<_> = found.iter().map(fields).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn any_text_can_be_read_on_from_every_record(text in texts()) {
        if let Ok(all) = records(&text, START) {
            let mut reader = RecordReader::new(&text[..], &dialect(b','), START);
            let mut seen = 0;
            while reader.advance().unwrap() {
                seen += 1;
                prop_assert_eq!(&records(&text, reader.position()).unwrap()[..], &all[seen..]);
            }
        }
    }
}
