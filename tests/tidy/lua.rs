//! Headers of scripts, and that the broker knows each of them.

use crate::source::{Source, files};
use crate::{assert_complaint, assert_tidy};

/// What every header says; `KEYS` and `ARGV` only where the script has some.
const PARTS: [&str; 3] = ["Returns", "Moves", "Repeat"];

fn bad_scripts(scripts: &[Source], broker: &[Source]) -> Vec<String> {
    scripts
        .iter()
        .flat_map(|script| complaints_about(script, broker))
        .collect()
}

fn complaints_about(script: &Source, broker: &[Source]) -> Vec<String> {
    let (name, path) = (script.stem(), &script.path);
    let header: Vec<_> = script
        .text
        .lines()
        .take_while(|line| line.starts_with("--"))
        .collect();
    let body: String = script
        .text
        .lines()
        .skip(header.len())
        .map(|line| line.to_owned() + "\n")
        .collect();
    let mut complaints = Vec::new();
    let first = header.first().copied().unwrap_or_default();
    if !first.starts_with(&format!("-- {name}: ")) {
        complaints.push(format!("{path}: begin with `-- {name}: what it does`"));
    }
    if !broker.iter().any(|source| names_script(&source.text, name)) {
        complaints.push(format!("{path}: src/broker does not name it"));
    }
    // A prelude is a part of other scripts: it has no keys and returns nothing.
    if name.starts_with("prelude") {
        return complaints;
    }
    let describes = |part: &str| {
        header
            .iter()
            .any(|line| line.starts_with(&format!("-- {part}")))
    };
    let uses = PARTS
        .into_iter()
        .chain(["KEYS", "ARGV"].into_iter().filter(|w| body.contains(w)));
    complaints.extend(
        uses.filter(|part| !describes(part))
            .map(|part| format!("{path}: its header does not say `{part}`")),
    );
    let listed = numbers(&header.join("\n"), "-- KEYS[");
    if !listed.iter().copied().eq(1..=listed.len()) {
        complaints.push(format!("{path}: its header lists KEYS {listed:?}"));
    }
    for used in numbers(&body, "KEYS[")
        .into_iter()
        .filter(|used| !listed.contains(used))
    {
        complaints.push(format!(
            "{path}: KEYS[{used}] is used and not in the header"
        ));
    }
    complaints
}

/// Either as a quoted name or as a file.
fn names_script(text: &str, name: &str) -> bool {
    text.contains(&format!("\"{name}\"")) || text.contains(&format!("/{name}.lua\""))
}

/// The numbers that follow `start`.
fn numbers(text: &str, start: &str) -> Vec<usize> {
    let digits = |rest: &str| {
        rest.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
    };
    text.match_indices(start)
        .filter_map(|(at, _)| digits(&text[at + start.len()..]).parse().ok())
        .collect()
}

#[test]
fn scripts_have_headers_and_are_registered() {
    let broker = files(&["src/broker"], "rs");
    assert_tidy(&bad_scripts(&files(&["lua"], "lua"), &broker));
}

#[test]
fn every_gap_in_a_header_is_found() {
    let good = "-- hold: keep a job.\n--\n-- KEYS[1] wait LIST\n-- KEYS[2] held SET\n\
        -- ARGV[1] id\n--\n-- Returns  1\n-- Moves    wait -> held\n-- Repeat   safe\n\n\
        local wait, held, id = KEYS[1], KEYS[2], ARGV[1]\n";
    let broker = [Source::new("src/broker/script.rs", "script!(\"hold\", 2)")];
    let check = |text: &str| bad_scripts(&[Source::new("lua/hold.lua", text)], &broker);
    assert_tidy(&check(good));
    for (cut, expected) in [
        ("-- hold: keep a job.\n", "begin with"),
        ("-- ARGV[1] id\n", "does not say `ARGV`"),
        ("-- Returns  1\n", "does not say `Returns`"),
        ("-- Moves    wait -> held\n", "does not say `Moves`"),
        ("-- Repeat   safe\n", "does not say `Repeat`"),
        ("-- KEYS[2] held SET\n", "KEYS[2] is used"),
    ] {
        assert!(good.contains(cut));
        assert_complaint(&check(&good.replace(cut, "")), expected);
    }
    let gap = good.replace("KEYS[2]", "KEYS[3]");
    assert_complaint(&check(&gap), "lists KEYS [1, 3]");
    let unknown = [Source::new("src/broker/script.rs", "script!(\"other\", 2)")];
    let complaints = bad_scripts(&[Source::new("lua/hold.lua", good)], &unknown);
    assert_complaint(&complaints, "src/broker does not name it");
}
