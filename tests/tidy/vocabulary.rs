//! Words that have one home, and words that must not stay.

use crate::source::{Source, code_only, files, line_of, word_places};
use crate::{assert_complaint, assert_tidy};

/// A crate that only one module may name, so that a change of it stays there.
const HOMES: [(&str, &str); 4] = [
    ("redis", "broker"),
    ("deadpool_redis", "broker"),
    ("sqlx", "record"),
    ("axum", "http"),
];

/// What is fine while one works and wrong in a commit. In two halves: this file is checked, too.
const UNFINISHED: [(&str, &str); 4] = [
    ("to", "do!"),
    ("dbg", "!("),
    ("#[ign", "ore"),
    ("unimple", "mented!"),
];
const MARKS: [(&str, &str); 2] = [("FIX", "ME"), ("XX", "X")];

fn words_away_from_home(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let code = code_only(&source.text);
        for (word, home) in HOMES
            .iter()
            .filter(|(_, home)| source.module() != Some(home))
        {
            let places = word_places(&code, word).into_iter();
            // A module or variable may be called `redis`; a path that begins so is the crate.
            let names_crate = |at: &usize| {
                code[at + word.len()..].trim_start().starts_with("::")
                    || code[..*at].trim_end().ends_with("use")
            };
            complaints.extend(places.filter(names_crate).map(|at| {
                let (path, line) = (&source.path, line_of(&code, at));
                format!("{path}:{line}: only src/{home} may say `{word}`")
            }));
        }
    }
    complaints
}

fn unfinished(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let code = code_only(&source.text);
        let mut look = |text: &str, (a, b): (&str, &str)| {
            let word = format!("{a}{b}");
            for (at, _) in text.match_indices(&word) {
                let line = line_of(text, at);
                complaints.push(format!("{}:{line}: `{word}` must not stay", source.path));
            }
        };
        UNFINISHED
            .into_iter()
            .for_each(|halves| look(&code, halves));
        MARKS
            .into_iter()
            .for_each(|halves| look(&source.text, halves));
    }
    complaints
}

#[test]
fn each_store_is_named_at_home_only() {
    assert_tidy(&words_away_from_home(&files(&["src"], "rs")));
}

#[test]
fn nothing_unfinished_stays() {
    let mut sources = files(&["src", "tests", "benches", "examples"], "rs");
    sources.extend(files(&["lua"], "lua"));
    sources.extend(files(&["migrations"], "sql"));
    assert_tidy(&unfinished(&sources));
}

#[test]
fn a_word_away_from_home_is_found() {
    for (path, text, expected) in [
        ("src/worker/mod.rs", "use redis::Client;", "`redis`"),
        ("src/worker/mod.rs", "use redis;", "`redis`"),
        (
            "src/record/mod.rs",
            "fn f(c: deadpool_redis::Pool) {}",
            "`deadpool_redis`",
        ),
        ("src/http/mod.rs", "#[derive(sqlx::FromRow)]", "`sqlx`"),
        (
            "src/stores/mod.rs",
            "fn f() {}\nuse sqlx :: query;",
            ":2: only src/record",
        ),
        ("src/worker/mod.rs", "use axum::Router;", "`axum`"),
    ] {
        assert_complaint(&words_away_from_home(&[Source::new(path, text)]), expected);
    }
    let at_home = [
        Source::new("src/broker/mod.rs", "use redis::Client;"),
        Source::new("src/record/mod.rs", "use sqlx::PgPool;"),
        Source::new(
            "src/stores/mod.rs",
            "// redis::x\nlet redis = \"redis::\"; mod redis_server;",
        ),
    ];
    assert_tidy(&words_away_from_home(&at_home));
}

#[test]
fn every_unfinished_thing_is_found() {
    let samples = [
        ("to", "do!()"),
        ("dbg", "!(x)"),
        ("#[ign", "ore = \"slow\"]"),
    ];
    for (a, b) in
        samples
            .into_iter()
            .chain([("// FIX", "ME: later"), ("// XX", "X"), ("\"FIX", "ME\"")])
    {
        let source = Source::new("src/a.rs", &format!("{a}{b}"));
        assert_complaint(&unfinished(&[source]), "must not stay");
    }
}
