//! Rows of a file before the record hears of them: what the look at a file takes, and reading and
//! checking its rows.
//!
//! `cargo bench --bench import_rows` takes about half a minute and needs no server. Both together
//! are what one core can parse; an import does the second beside the writing.

#![expect(
    clippy::unwrap_used,
    reason = "a measurement stops at the first surprise"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;

use bullwark::handlers::import_csv::ImportCsv;
use bullwark::handlers::import_csv::cells::Warnings;
use bullwark::handlers::import_csv::custom::Known;
use bullwark::handlers::import_csv::payload::{EntityType, NumberFormat};
use bullwark::handlers::import_csv::prepare::{self, Prepared, prepare};
use bullwark::handlers::import_csv::validate::Validator;
use criterion::{Criterion, Throughput};

const ROWS: usize = 50_000;
const HEADER: &str = "Company Name,Website,Industry,Employees,Country,City,Phone,Annual Revenue,\
    LinkedIn,Description,Technologies\n";

/// As untidy as lists are: quotes, line breaks, accents, ranges, thousands, placeholders.
fn file() -> String {
    let mut text = String::from(HEADER);
    for n in 0..ROWS {
        let (employees, revenue) = match n % 4 {
            0 => ("\"10,001+\"", "#N/A"),
            1 => ("51-200", "\"$1,250,000\""),
            2 => ("1200", "2.5M"),
            _ => ("", ""),
        };
        writeln!(
            text,
            "\"Horizon, Networks & Söhne LLC {n}\",https://www.horizon-{n}.io/,Retail,{employees},\
             USA,New York,+1 617 555 {:04},{revenue},linkedin.com/company/horizon-{n},\
             \"Two lines,\nthe second says \"\"Horizon\"\"\",\"Rust, PostgreSQL, Redis\"",
            n % 10_000
        )
        .unwrap();
    }
    text
}

fn look_at(path: &Path, payload: &ImportCsv, spool: &Path) -> Prepared {
    prepare(path, payload, &Known::default(), spool, || true).unwrap()
}

/// How many rows are fit to be written.
fn check(prepared: &Prepared) -> usize {
    let validator = Validator::new(
        EntityType::Accounts,
        &prepared.mapping,
        NumberFormat::Point,
        None,
    );
    let mut reader = prepare::open(&prepared.text, &prepared.dialect, prepared.first).unwrap();
    let (mut warnings, mut good) = (Warnings::default(), 0);
    while reader.advance().unwrap() {
        let cells: Vec<&[u8]> = (0..reader.columns()).map(|at| reader.field(at)).collect();
        good += usize::from(black_box(validator.account(&cells, &mut warnings)).is_ok());
    }
    good
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let (path, spool) = (
        directory.path().join("list.csv"),
        directory.path().join("spool"),
    );
    std::fs::create_dir(&spool).unwrap();
    std::fs::write(&path, file()).unwrap();
    let payload: ImportCsv = serde_json::from_value(serde_json::json!({
        "file_url": "upload://list", "entity_type": "accounts",
    }))
    .unwrap();
    let prepared = look_at(&path, &payload, &spool);
    assert_eq!(check(&prepared), ROWS, "every row is good");

    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("import");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("look at the file", |bencher| {
        bencher.iter(|| look_at(&path, &payload, &spool));
    });
    group.bench_function("read and check its rows", |bencher| {
        bencher.iter(|| check(&prepared));
    });
    group.finish();
    criterion.final_summary();
}
