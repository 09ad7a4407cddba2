use std::collections::BTreeMap;

use super::*;
use crate::handlers::import_csv::mapping::map_columns;

fn validator(entity: EntityType, header: &str) -> Validator {
    let headers: Vec<_> = header.split(',').map(str::to_owned).collect();
    let mapping = map_columns(entity, &headers, &BTreeMap::new(), true, &[]).unwrap();
    Validator::new(entity, &mapping, NumberFormat::Point, None)
}

fn account(header: &str, row: &[&str]) -> (Result<AccountRow, Vec<(Code, String)>>, Warnings) {
    let cells: Vec<_> = row.iter().map(|cell| cell.as_bytes()).collect();
    let mut warnings = Warnings::default();
    let found = validator(EntityType::Accounts, header).account(&cells, &mut warnings);
    (found.map(|row| row.entity).map_err(codes), warnings)
}

fn contact(header: &str, row: &[&str]) -> Result<ContactRow, Vec<(Code, String)>> {
    let cells: Vec<_> = row.iter().map(|cell| cell.as_bytes()).collect();
    let mut warnings = Warnings::default();
    let found = validator(EntityType::Contacts, header).contact(&cells, &mut warnings);
    found.map(|row| row.entity).map_err(codes)
}

fn codes(issues: Vec<Issue>) -> Vec<(Code, String)> {
    issues
        .into_iter()
        .map(|i| (i.code, i.column.unwrap_or_default()))
        .collect()
}

#[test]
fn an_account_gets_its_types() {
    let header = "Company Name,Website,Employees,Revenue,Country,Phone,Technologies";
    let row = [
        "  Acme\u{A0}GmbH ",
        "https://www.acme.de/",
        "51-200",
        "$1.5M",
        "Deutschland",
        "030 1234567",
        "Rust; Go",
    ];
    let (found, warnings) = account(header, &row);
    let expected = AccountRow {
        name: "Acme GmbH".into(),
        website: Some("https://www.acme.de".into()),
        domain: Some("acme.de".into()),
        employee_count: Some(51),
        annual_revenue: Some(1_500_000),
        country: Some("DE".into()),
        phone: Some("+49301234567".into()),
        technologies: Some(serde_json::json!(["Rust", "Go"])),
        ..AccountRow::default()
    };
    assert_eq!(found, Ok(expected));
    assert_eq!(warnings, Warnings::default());
}

#[test]
fn every_complaint_about_an_account_is_listed() {
    let long = "x".repeat(301);
    for (row, expected) in [
        (
            vec!["", "acme.com", ""],
            vec![(Code::RequiredMissing, "name")],
        ),
        (
            vec!["A", "not a domain", ""],
            vec![(Code::DomainInvalid, "domain")],
        ),
        (
            vec!["A", "a.com", "many"],
            vec![(Code::TypeMismatch, "employees")],
        ),
        (
            vec!["", "x", "y"],
            vec![
                (Code::DomainInvalid, "domain"),
                (Code::TypeMismatch, "employees"),
                (Code::RequiredMissing, "name"),
            ],
        ),
        (vec![&long, "a.com", ""], vec![(Code::ValueTooLong, "name")]),
        (
            vec!["A", "a.com", "5", "surplus"],
            vec![(Code::TooManyColumns, "")],
        ),
        (vec!["A\0", "a.com"], vec![(Code::InvalidCharacter, "name")]),
        (vec!["#REF!", "a.com"], vec![(Code::ExcelDamage, "name")]),
        (vec!["A", "#N/A"], vec![(Code::ExcelDamage, "domain")]),
        (
            vec!["A", "\u{FFFD}.com"],
            vec![(Code::EncodingReplaced, "domain")],
        ),
    ] {
        let expected = expected
            .into_iter()
            .map(|(c, h)| (c, h.to_owned()))
            .collect();
        assert_eq!(
            account("name,domain,employees", &row).0,
            Err(expected),
            "{row:?}"
        );
    }
}

#[test]
fn what_can_be_repaired_is_counted() {
    let header = "name,domain,employees,country";
    let (found, warnings) = account(header, &["A\u{FFFD}", "", "#N/A", "Atlantis"]);
    assert_eq!(found.unwrap().country.as_deref(), Some("Atlantis"));
    let expected = Warnings {
        replaced_characters: 1,
        spreadsheet_errors: 1,
        unknown_countries: 1,
        short_rows: 0,
    };
    assert_eq!(warnings, expected);
    assert_eq!(account(header, &["A"]).1.short_rows, 1);
    assert!(
        account(header, &["A", "", "n/a", "", "", ""]).0.is_ok(),
        "trailing delimiters"
    );
}

#[test]
fn a_contact_is_known_by_any_key() {
    let found = contact(
        "E-Mail,Name,Company",
        &["Ada@Mail.Acme.DE", "Lovelace, Ada", ""],
    )
    .unwrap();
    assert_eq!(found.email.as_deref(), Some("Ada@mail.acme.de"));
    assert_eq!(
        (found.first_name.as_deref(), found.last_name.as_deref()),
        (Some("Ada"), Some("Lovelace"))
    );
    assert_eq!(found.company_domain.as_deref(), Some("acme.de"));
    let private = contact("email", &["ada@gmail.com"]).unwrap();
    assert_eq!(private.company_domain, None);
    assert!(contact("email,linkedin", &["", "linkedin.com/in/ada"]).is_ok());
    let missing = contact("email,linkedin,first name", &["", "", "Ada"]);
    assert_eq!(missing, Err(vec![(Code::RequiredMissing, "email".into())]));
    let bad = contact("email,linkedin", &["a@b", ""]);
    assert_eq!(bad, Err(vec![(Code::EmailInvalid, "email".into())]));
}

#[test]
fn rows_that_mean_the_same_record_have_the_same_key() {
    let validator = validator(EntityType::Contacts, "email");
    let key = |email: &str| {
        validator
            .contact(&[email.as_bytes()], &mut Warnings::default())
            .unwrap()
            .key
    };
    assert_eq!(key("Ada@example.com"), key("ada@EXAMPLE.com"));
    assert_ne!(key("ada@example.com"), key("bob@example.com"));
}
