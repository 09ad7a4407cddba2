//! Files whose shape is right and whose bytes or values are not.

use serde_json::json;

use super::{check, import};

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn encodings() {
    let n = || json!({});
    let latin = encoding_rs::WINDOWS_1252
        .encode("Firma;Ort\nMüller;Köln\nStraßer;Zürich\n")
        .0;
    let marked = [
        b"\xFF\xFE".as_slice(),
        &utf16("name\tcity\r\nMüller\tKöln\r\n"),
    ]
    .concat();
    let unmarked = utf16("name,city\nMueller,Koeln\n");
    let japanese = encoding_rs::SHIFT_JIS
        .encode("name,city\n株式会社日立製作所,東京都\n")
        .0;
    let mut late = b"name,city\n".to_vec();
    late.extend((0..20_000).flat_map(|_| b"Acme Incorporated,Springfield\n".iter().copied()));
    late.extend_from_slice(b"Caf\xE9,Orl\xE9ans\n");
    check(
        "accounts",
        &[
            (
                "byte order mark",
                "\u{FEFF}name,city\nÄ,Ö\n".as_bytes(),
                n(),
                &["Ä|Ö"],
            ),
            (
                "windows-1252",
                &latin,
                n(),
                &["Müller|Köln", "Straßer|Zürich"],
            ),
            ("utf-16 with mark and tabs", &marked, n(), &["Müller|Köln"]),
            ("utf-16 without mark", &unmarked, n(), &["Mueller|Koeln"]),
            (
                "shift_jis told",
                &japanese,
                json!({"encoding": "shift_jis"}),
                &["株式会社日立製作所|東京都"],
            ),
            (
                "decomposed accents",
                "name\nCafe\u{301}\n".as_bytes(),
                n(),
                &["Café"],
            ),
            (
                "blanks that do not show",
                "name,domain\n\u{A0}A\u{200B} B\u{FEFF} ,\u{200B}a.com\u{A0}\n".as_bytes(),
                n(),
                &["A B|a.com"],
            ),
            (
                "nul in a value",
                b"name,city\nA\0,x\nB,y\n",
                n(),
                &["!2 INVALID_CHARACTER", "B|y"],
            ),
            (
                "one broken byte in utf-8",
                "name,city\nÄÖÜäöüÄÖÜäöüÄÖÜäöüÄÖÜäöü,x\n".as_bytes(),
                n(),
                &["ÄÖÜäöüÄÖÜäöüÄÖÜäöüÄÖÜäöü|x"],
            ),
        ],
    );
    let dir = tempfile::tempdir().unwrap();
    let rows = import(dir.path(), &late, "accounts", &n());
    assert_eq!(
        rows.last().map(String::as_str),
        Some("Café|Orléans"),
        "far behind any sample"
    );
}

#[test]
fn wrong_files() {
    let n = || json!({});
    check(
        "accounts",
        &[
            (
                "half a workbook",
                b"PK\x03\x04\x14\0\x06\0",
                n(),
                &["refused: the workbook cannot be read (…"],
            ),
            (
                "xls",
                b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1",
                n(),
                &["refused: the file is an old Excel…"],
            ),
            ("pdf", b"%PDF-1.7\n", n(), &["refused: the file is a PDF…"]),
            (
                "gzip",
                b"\x1F\x8B\x08\0",
                n(),
                &["refused: the compressed file is damaged or not complete…"],
            ),
            (
                "html",
                b"<!DOCTYPE html>\n<html>",
                n(),
                &["refused: the file is a web page…"],
            ),
            (
                "json",
                b"[{\"name\": \"A\"}]",
                n(),
                &["refused: the file is JSON…"],
            ),
        ],
    );
}

#[test]
fn values_of_accounts() {
    let n = || json!({});
    let long = format!("name,city\n{},x\n", "é".repeat(300));
    let longer = format!("name,city\n{},x\n", "é".repeat(301));
    let fits = format!("{}|x", "é".repeat(300));
    check(
        "accounts",
        &[
            (
                "missing name",
                b"name,domain\n,a.com\n",
                n(),
                &["!2 REQUIRED_MISSING"],
            ),
            (
                "name of blanks",
                "name,domain\n\u{A0}\u{200B},a.com\n".as_bytes(),
                n(),
                &["!2 REQUIRED_MISSING"],
            ),
            ("longest name", long.as_bytes(), n(), &[&fits]),
            (
                "longer name",
                longer.as_bytes(),
                n(),
                &["!2 VALUE_TOO_LONG"],
            ),
            (
                "domains in all forms",
                "name,domain\nA,HTTPS://WWW.A.COM/x\nB,b@sub.b.co.uk\nC,münchen.de\nD,co.uk\n\
                 E,1.2.3.4\n"
                    .as_bytes(),
                n(),
                &[
                    "A|a.com",
                    "B|b.co.uk",
                    "C|xn--mnchen-3ya.de",
                    "!5 DOMAIN_INVALID",
                    "!6 DOMAIN_INVALID",
                ],
            ),
            (
                "website gives the domain",
                b"name,website\nA,www.a.com/b\nB,javascript:x\n",
                n(),
                &["A|a.com", "!3 URL_INVALID"],
            ),
            (
                "spreadsheet errors",
                b"name,domain,employees\nA,a.com,#N/A\n#REF!,b.com,1\nC,#N/A,1\n",
                n(),
                &["A|a.com", "!3 EXCEL_DAMAGE", "!4 EXCEL_DAMAGE"],
            ),
            (
                "rounded ids",
                b"id,name\n1.23E+11,A\n123,B\n",
                n(),
                &["!2 EXCEL_DAMAGE", "B"],
            ),
            (
                "formulas are texts",
                b"name\n=1+1\n'=1+1\n@x\n",
                n(),
                &["=1+1", "=1+1", "@x"],
            ),
            (
                "report uploaded again",
                b"name,domain,_row,_status,_error_code\nA,a.com,1,failed,X\n",
                n(),
                &["A|a.com"],
            ),
        ],
    );
}

#[test]
fn values_of_contacts() {
    let german = || json!({"default_country": "DE"});
    check(
        "contacts",
        &[
            (
                "addresses in all forms",
                b"email\nA@B.COM\n\"Ada <ada@b.com>\"\nmailto:c@b.com\na@b\na b@c.com\na@b@c.com\n",
                german(),
                &[
                    "A@b.com",
                    "ada@b.com",
                    "c@b.com",
                    "!5 EMAIL_INVALID",
                    "!6 EMAIL_INVALID",
                    "!7 EMAIL_INVALID",
                ],
            ),
            (
                "names in one column",
                b"email,name\na@b.com,\"Lovelace, Ada\"\nb@b.com,Ada King Lovelace\n",
                german(),
                &["a@b.com|Ada|Lovelace", "b@b.com|Ada King|Lovelace"],
            ),
            (
                "telephone numbers",
                b"email,phone\na@b.com,030 123456\nb@b.com,4.93E+11\nc@b.com,call\n",
                german(),
                &["a@b.com|+4930123456", "!3 EXCEL_DAMAGE", "!4 PHONE_INVALID"],
            ),
            (
                "nothing to know them by",
                b"email,name\n,Ada\n",
                german(),
                &["!2 REQUIRED_MISSING"],
            ),
            (
                "key that the encoding has lost",
                "email\nm\u{FFFD}ller@b.com\n".as_bytes(),
                german(),
                &["!2 ENCODING_REPLACED"],
            ),
            (
                "address column without a telling header",
                b"wer,wohin\nAda,a@b.com\nBob,b@b.com\n",
                german(),
                &["a@b.com", "b@b.com"],
            ),
        ],
    );
}
