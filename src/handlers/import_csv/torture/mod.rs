//! Files as they come: each line of the tables is one file that has broken somebody's importer.
//!
//! A file is prepared and validated as a whole, without a database. What is expected reads
//! `name|domain|…` for a good row, `!line CODE` for a bad one, and `refused: …` for the file.

mod values;

use std::path::Path;

use serde_json::{Value, json};

use super::cells::Warnings;
use super::choices::number_format;
use super::custom::Known;
use super::payload::{EntityType, ImportCsv};
use super::prepare::{self, prepare};
use super::validate::Validator;

fn import(dir: &Path, bytes: &[u8], entity: &str, options: &Value) -> Vec<String> {
    let path = dir.join("file.csv");
    std::fs::write(&path, bytes).unwrap();
    let payload = json!({"file_url": "upload://x", "entity_type": entity, "options": options});
    let payload: ImportCsv = serde_json::from_value(payload).unwrap();
    payload.check().unwrap();
    let prepared = match prepare(&path, &payload, &Known::default(), dir, || true) {
        Ok(prepared) => prepared,
        Err(error) => return vec![format!("refused: {error}")],
    };
    let country = payload.options.default_country.as_deref();
    let format = number_format(&payload, &prepared.dialect);
    let validator = Validator::new(payload.entity_type, &prepared.mapping, format, country);
    let mut reader = prepare::open(&prepared.text, &prepared.dialect, prepared.first).unwrap();
    let mut rows = Vec::new();
    let mut warnings = Warnings::default();
    while reader.advance().unwrap() {
        let cells: Vec<_> = (0..reader.columns()).map(|at| reader.field(at)).collect();
        let values = match payload.entity_type {
            EntityType::Accounts => validator.account(&cells, &mut warnings).map(|row| {
                let account = row.entity;
                let count = account.employee_count.map(|count| count.to_string());
                let revenue = account.annual_revenue.map(|revenue| revenue.to_string());
                [
                    Some(account.name),
                    account.domain,
                    count,
                    revenue,
                    account.city,
                ]
            }),
            EntityType::Contacts => validator.contact(&cells, &mut warnings).map(|row| {
                let contact = row.entity;
                [
                    contact.email,
                    contact.first_name,
                    contact.last_name,
                    contact.phone,
                    contact.title,
                ]
            }),
        };
        rows.push(match values {
            Ok(values) => values.into_iter().flatten().collect::<Vec<_>>().join("|"),
            Err(issues) => format!("!{} {}", reader.line(), issues[0].code.as_str()),
        });
    }
    assert_eq!(
        rows.len() as u64,
        prepared.census.rows,
        "the census counts what is read"
    );
    rows
}

fn check(entity: &str, cases: &[(&str, &[u8], Value, &[&str])]) {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, options, expected) in cases {
        let found = import(dir.path(), bytes, entity, options);
        let fits = found.len() == expected.len()
            && found.iter().zip(*expected).all(|(found, expected)| {
                match expected.strip_suffix('…') {
                    Some(start) => found.starts_with(start),
                    None => found == expected,
                }
            });
        assert!(fits, "{name}: {found:?} instead of {expected:?}");
    }
}

#[test]
fn shapes() {
    let n = || json!({});
    check(
        "accounts",
        &[
            ("plain", b"name,domain\nA,a.com\n", n(), &["A|a.com"]),
            (
                "windows line ends",
                b"name,domain\r\nA,a.com\r\nB,b.com\r\n",
                n(),
                &["A|a.com", "B|b.com"],
            ),
            (
                "old mac line ends",
                b"name,domain\rA,a.com\rB,b.com",
                n(),
                &["A|a.com", "B|b.com"],
            ),
            (
                "mixed line ends",
                b"name,domain\r\nA,a.com\nB,b.com\rC,c.com",
                n(),
                &["A|a.com", "B|b.com", "C|c.com"],
            ),
            ("no line end at the end", b"name\nA", n(), &["A"]),
            (
                "blank lines",
                b"\n\nname\n\nA\n\n \nB\n\n",
                n(),
                &["A", "B"],
            ),
            (
                "rows of delimiters",
                b"name,domain\n,,\nA,a.com\n,\n",
                n(),
                &["A|a.com"],
            ),
            ("header only", b"name,domain\n", n(), &[]),
            ("header without line end", b"name,domain", n(), &[]),
            (
                "one column",
                b"name\nAcme\nBeta, Inc.\n",
                n(),
                &["Acme", "!3 TOO_MANY_COLUMNS"],
            ),
            (
                "one column, quoted",
                b"name\n\"Beta, Inc.\"\n",
                n(),
                &["Beta, Inc."],
            ),
            (
                "too few columns",
                b"name,domain,city\nA\nB,b.com\n",
                n(),
                &["A", "B|b.com"],
            ),
            (
                "too many columns",
                b"name,domain\nA,a.com,x\nB,b.com\n",
                n(),
                &["!2 TOO_MANY_COLUMNS", "B|b.com"],
            ),
            (
                "empty surplus columns",
                b"name,domain\nA,a.com,,,\n",
                n(),
                &["A|a.com"],
            ),
            (
                "trailing delimiter everywhere",
                b"name,domain,\nA,a.com,\n",
                n(),
                &["A|a.com"],
            ),
            (
                "value under a nameless last column",
                b"name,domain,\nA,a.com,x\n",
                n(),
                &["!2 TOO_MANY_COLUMNS"],
            ),
            (
                "index column without a name",
                b",name,domain\n0,A,a.com\n1,B,b.com\n",
                n(),
                &["A|a.com", "B|b.com"],
            ),
            (
                "header twice",
                b"name,name,domain\nA,B,a.com\n",
                n(),
                &["A|a.com"],
            ),
            (
                "title line",
                b"Our customers\nname,domain\nA,a.com\nB,b.com\n",
                n(),
                &["A|a.com", "B|b.com"],
            ),
            (
                "remarks",
                b"# made by x\n# on monday\nname,domain\nA,a.com\n",
                n(),
                &["A|a.com"],
            ),
            (
                "padded title",
                b"Report,,\n,,\nname,domain,city\nA,a.com,X\nB,b.com,Y\n",
                n(),
                &["A|a.com|X", "B|b.com|Y"],
            ),
            (
                "header line named by the user",
                b"x,y\n1,2\nname,domain\nA,a.com\n",
                json!({"header_row": 3}),
                &["A|a.com"],
            ),
            (
                "no header",
                b"A,a.com\nB,b.com\n",
                n(),
                &["refused: no column for `name`…"],
            ),
            ("empty", b"", n(), &["refused: the file is empty"]),
            (
                "only blank lines",
                b"\n\n\r\n",
                n(),
                &["refused: the file has no header row"],
            ),
            (
                "only a byte order mark",
                b"\xEF\xBB\xBF",
                n(),
                &["refused: the file has no header row"],
            ),
        ],
    );
}

#[test]
fn quotes() {
    let n = || json!({});
    check(
        "accounts",
        &[
            (
                "delimiter inside",
                b"name,domain\n\"A, B\",a.com\n",
                n(),
                &["A, B|a.com"],
            ),
            (
                "line end inside",
                b"name,domain\n\"A\nB\",a.com\nC,c\n",
                n(),
                &["A B|a.com", "!4 DOMAIN_INVALID"],
            ),
            ("doubled", b"name\n\"the \"\"A\"\"\"\n", n(), &["the \"A\""]),
            (
                "escaped",
                b"name,domain\n\"the \\\"A\\\" co\",a.com\n",
                n(),
                &["the \"A\" co|a.com"],
            ),
            (
                "single",
                b"name,city\n'A, B','x'\n'C','y'\n'D','z'\n",
                n(),
                &["A, B|x", "C|y", "D|z"],
            ),
            (
                "apostrophes",
                b"name,city\nO'Neil,x\n'twas,y\n",
                n(),
                &["O'Neil|x", "'twas|y"],
            ),
            (
                "in the middle",
                b"name,city\n5\" Pipes,x\n",
                n(),
                &["5\" Pipes|x"],
            ),
            (
                "text behind the closing one",
                b"name,city\n\"A\" Inc,x\n",
                n(),
                &["A Inc|x"],
            ),
            (
                "empty quoted row",
                b"name,city\n\"\",\"\"\nA,x\n",
                n(),
                &["A|x"],
            ),
            (
                "never closed",
                b"name,city\nA,x\n\"B,y\nC,z\n",
                n(),
                &["refused: the quoted value that opens on line 3 is never closed…"],
            ),
            (
                "never closed at the end",
                b"name,city\nA,\"x",
                n(),
                &["refused: the quoted value that opens on line 2 is never closed…"],
            ),
            (
                "everything quoted",
                b"\"name\";\"domain\"\r\n\"A\";\"a.com\"\r\n",
                n(),
                &["A|a.com"],
            ),
        ],
    );
}

#[test]
fn delimiters_and_numbers() {
    let n = || json!({});
    check(
        "accounts",
        &[
            (
                "semicolon with decimal commas",
                b"name;revenue\nA;1.234,50\nB;2,5\n",
                n(),
                &["A|1235", "B|3"],
            ),
            (
                "comma with decimal points",
                b"name,revenue\nA,\"1,234.50\"\nB,2.5\n",
                n(),
                &["A|1235", "B|3"],
            ),
            (
                "tab with commas in texts",
                b"name\tcity\nA, Inc.\tX\nB, C, D\tY\n",
                n(),
                &["A, Inc.|X", "B, C, D|Y"],
            ),
            ("pipe", b"name|domain\nA|a.com\n", n(), &["A|a.com"]),
            (
                "sep line",
                b"sep=;\r\nname;domain\r\nA;a.com\r\n",
                n(),
                &["A|a.com"],
            ),
            (
                "sep line with a byte order mark",
                b"\xEF\xBB\xBFsep=|\nname|city\nA|X\n",
                n(),
                &["A|X"],
            ),
            (
                "told by the user",
                b"name;a,city\nA;b,X\n",
                json!({"delimiter": ","}),
                &["refused: no column for `name`…"],
            ),
            (
                "told number format",
                b"name,revenue\nA,\"1.234\"\n",
                json!({"number_format": "comma"}),
                &["A|1234"],
            ),
            (
                "employees in all forms",
                b"name,employees\nA,51-200\nB,\"10,001+\"\nC,2k\nD,~30\nE,x\n",
                n(),
                &["A|51", "B|10001", "C|2000", "D|30", "!6 TYPE_MISMATCH"],
            ),
            (
                "revenue in all forms",
                "name;umsatz\nA;1,5 Mio. €\nB;$2.5M\nC;(500)\nD;n/a\n".as_bytes(),
                n(),
                &["A|1500000", "B|2500000", "C|-500", "D"],
            ),
        ],
    );
}

#[test]
fn the_tables_hold_every_code_that_a_file_alone_can_cause() {
    let table = concat!(include_str!("mod.rs"), include_str!("values.rs"));
    for code in super::issue::Code::ALL {
        use super::issue::Code::{DatabaseRejected, DuplicateExisting, DuplicateInFile};
        let needs_database = [DatabaseRejected, DuplicateExisting, DuplicateInFile];
        assert!(
            table.contains(code.as_str()) || needs_database.contains(&code),
            "{code:?}"
        );
    }
}
