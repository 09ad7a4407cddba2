//! Names of migrations: `0001_jobs.sql`, each number once.

use std::collections::BTreeSet;

use crate::source::{Source, files};
use crate::{assert_complaint, assert_tidy};

fn misnamed(sources: &[Source]) -> Vec<String> {
    let mut numbers = BTreeSet::new();
    let mut complaints = Vec::new();
    for source in sources {
        let name = source.path.trim_start_matches("migrations/");
        let (number, words) = name.split_once('_').unwrap_or((name, ""));
        let words = words.strip_suffix(".sql").unwrap_or_default();
        let is_number = number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit());
        let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if !is_number || words.is_empty() || !words.bytes().all(is_word) {
            complaints.push(format!("{}: name it NNNN_words.sql", source.path));
        } else if !numbers.insert(number) {
            complaints.push(format!("{}: number {number} is taken", source.path));
        }
    }
    complaints
}

#[test]
fn migrations_are_named_by_number_and_words() {
    assert_tidy(&misnamed(&files(&["migrations"], "")));
}

#[test]
fn a_misnamed_migration_is_found() {
    let source = |name: &str| Source::new(&format!("migrations/{name}"), "");
    assert_tidy(&misnamed(&[
        source("0001_jobs.sql"),
        source("0002_job_logs.sql"),
    ]));
    for name in [
        "1_jobs.sql",
        "0001-jobs.sql",
        "0001_Jobs.sql",
        "0001_.sql",
        "0001_jobs.txt",
    ] {
        assert_complaint(&misnamed(&[source(name)]), "name it");
    }
    assert_complaint(
        &misnamed(&[source("0001_a.sql"), source("0001_b.sql")]),
        "is taken",
    );
}
