use super::*;
use EntityType::{Accounts, Contacts};

fn run(
    entity: EntityType,
    headers: &[&str],
    explicit: &[(&str, &str)],
    sample: &[&[&str]],
) -> Result<(String, usize), MappingError> {
    let headers: Vec<_> = headers.iter().map(|h| (*h).to_owned()).collect();
    let explicit = explicit
        .iter()
        .map(|(h, t)| ((*h).to_owned(), (*t).to_owned()))
        .collect();
    let sample: Vec<Vec<_>> = sample
        .iter()
        .map(|row| row.iter().map(|v| (*v).to_owned()).collect())
        .collect();
    let mapping = map_columns(entity, &headers, &explicit, true, &sample)?;
    let shown: Vec<_> = mapping
        .columns
        .iter()
        .map(|column| match &column.target {
            Target::Field(field) => fields::def_of(entity, *field)
                .map_or("?", |def| def.name)
                .to_owned(),
            Target::Custom(name) => format!("custom.{name}"),
            Target::Ignored => "-".to_owned(),
        })
        .collect();
    Ok((shown.join(" "), mapping.width))
}

#[test]
fn headers_are_matched_by_name_synonym_and_likeness() {
    for (entity, headers, expected) in [
        (
            Accounts,
            vec!["Company Name", "Website", "Industry", "Employees"],
            "name website industry employee_count",
        ),
        (
            Accounts,
            vec!["FIRMA", "Domain", "Umsatz", "Land"],
            "name domain annual_revenue country",
        ),
        (Accounts, vec!["Company", "Name"], "- name"),
        (
            Accounts,
            vec!["Compnay Name", "Idustry", "xyz"],
            "name industry -",
        ),
        (
            Contacts,
            vec!["E-Mail", "Vorname", "Nachname", "Position"],
            "email first_name last_name title",
        ),
        (
            Contacts,
            vec!["Email", "email", "Name"],
            "email - full_name",
        ),
        (Contacts, vec!["email adress", "Company"], "email company"),
    ] {
        let found = run(entity, &headers, &[], &[]);
        assert_eq!(
            found,
            Ok((expected.to_owned(), headers.len())),
            "{headers:?}"
        );
    }
}

#[test]
fn the_mapping_of_the_payload_decides_first() {
    let headers = ["Company Name", "Website", "Kunde seit", "Notes"];
    let explicit = [
        ("company  name", "name"),
        ("Website", "domain"),
        ("Kunde seit", "custom.since"),
        ("Notes", ""),
    ];
    assert_eq!(
        run(Accounts, &headers, &explicit, &[]).unwrap().0,
        "name domain custom.since -"
    );
    let second = run(Contacts, &["email", "Email"], &[("Email_2", "email")], &[]).unwrap();
    assert_eq!(second.0, "- email");
}

#[test]
fn mistakes_in_the_mapping_are_named() {
    let unknown = run(Accounts, &["Firm", "Web"], &[("Company", "name")], &[]).unwrap_err();
    assert!(
        unknown.to_string().ends_with("it has: Firm, Web"),
        "{unknown}"
    );
    let field = run(Accounts, &["Firm"], &[("Firm", "nmae")], &[]).unwrap_err();
    assert!(field.to_string().contains("known: name, domain"), "{field}");
    let twice = run(Accounts, &["A", "B"], &[("A", "name"), ("B", "name")], &[]).unwrap_err();
    assert!(matches!(twice, MappingError::FieldTwice { .. }));
    let missing = run(Contacts, &["Vorname", "Ort"], &[], &[]).unwrap_err();
    assert!(
        missing.to_string().contains("`email` or `linkedin_url`"),
        "{missing}"
    );
    assert_eq!(
        run(Accounts, &["", " "], &[], &[]),
        Err(MappingError::NoHeader)
    );
}

#[test]
fn values_name_a_column_whose_header_does_not() {
    let sample: [&[&str]; 2] = [&["Ada", "ada@example.com"], &["Bob", "bob@example.com"]];
    assert_eq!(
        run(Contacts, &["Wer", "Wohin"], &[], &sample).unwrap().0,
        "- email"
    );
}

#[test]
fn the_columns_of_a_report_are_left_out_and_do_not_widen_the_file() {
    let headers = ["name", "domain", "", "_row", "_status", "_error_code"];
    assert_eq!(
        run(Accounts, &headers, &[], &[]).unwrap(),
        ("name domain - - - -".into(), 2)
    );
    let index = ["", "name", "domain"];
    assert_eq!(
        run(Accounts, &index, &[], &[]).unwrap(),
        ("- name domain".into(), 3)
    );
}
