//! Widths and lengths.

use crate::source::{Source, files};
use crate::{assert_complaint, assert_tidy};

const COLUMNS_MAX: usize = 100;
const RUST_LINES_MAX: usize = 400;
const LUA_LINES_MAX: usize = 120;

/// A file that is longer says why in its header.
const EXCUSE: &str = "Long on purpose:";

fn too_wide(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        for (index, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                complaints.push(format!("{}:{}: {columns} columns", source.path, index + 1));
            }
        }
    }
    complaints
}

fn too_long(sources: &[Source], lines_max: usize) -> Vec<String> {
    let excused = |source: &&Source| {
        let header = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"));
        !header.into_iter().any(|line| line.contains(EXCUSE))
    };
    let long = sources
        .iter()
        .filter(|source| source.text.lines().count() > lines_max);
    long.filter(excused)
        .map(|source| {
            let lines = source.text.lines().count();
            format!(
                "{}: {lines} lines; split it, or say `{EXCUSE}` in its header",
                source.path
            )
        })
        .collect()
}

#[test]
fn files_are_narrow_and_short() {
    let rust = files(&["src", "tests", "benches", "examples"], "rs");
    let lua = files(&["lua"], "lua");
    assert_tidy(&too_wide(&rust));
    assert_tidy(&too_wide(&lua));
    assert_tidy(&too_long(&rust, RUST_LINES_MAX));
    assert_tidy(&too_long(&lua, LUA_LINES_MAX));
}

#[test]
fn wide_lines_and_long_files_are_found() {
    let line = "ä".repeat(COLUMNS_MAX);
    assert_tidy(&too_wide(&[Source::new("a.rs", &line)]));
    assert_complaint(
        &too_wide(&[Source::new("a.rs", &format!("\n{line}b"))]),
        "a.rs:2: 101",
    );

    let long = "//! What it is.\n".to_owned() + &"x\n".repeat(RUST_LINES_MAX);
    assert_complaint(
        &too_long(&[Source::new("a.rs", &long)], RUST_LINES_MAX),
        "401 lines",
    );
    let excused = format!("//! {EXCUSE} one table.\n{long}");
    assert_tidy(&too_long(&[Source::new("a.rs", &excused)], RUST_LINES_MAX));
    let too_late = format!("{long}// {EXCUSE} not in the header.\n");
    assert_complaint(
        &too_long(&[Source::new("a.rs", &too_late)], RUST_LINES_MAX),
        "402 lines",
    );
}
