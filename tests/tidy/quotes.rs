//! Code that the README shows is code of the examples, which compilers and tests see.

use crate::source::root;
use crate::{assert_complaint, assert_tidy};

/// Where an example marks what the README shows.
const BEGIN: &str = "// README: begin\n";
const END: &str = "// README: end\n";

fn complaints(readme: &str, example: &str) -> Vec<String> {
    let quote = example
        .split_once(BEGIN)
        .and_then(|(_, rest)| rest.split_once(END))
        .map(|(quote, _)| quote);
    match quote {
        None => vec!["examples/own_handler.rs marks nothing for the README".to_owned()],
        Some(quote) if readme.contains(&format!("```rust\n{quote}```\n")) => Vec::new(),
        Some(_) => vec!["README.md shows other code than examples/own_handler.rs".to_owned()],
    }
}

#[test]
fn the_readme_shows_what_the_example_has() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let found = complaints(&read("README.md"), &read("examples/own_handler.rs"));
    assert_tidy(&found);
}

#[test]
fn code_that_is_not_the_example_s_is_found() {
    let example = format!("{BEGIN}run();\n{END}");
    assert_complaint(
        &complaints("```rust\nwalk();\n```\n", &example),
        "other code",
    );
    assert_complaint(
        &complaints("```rust\nrun();\n```\n", "run();"),
        "marks nothing",
    );
    assert_tidy(&complaints("```rust\nrun();\n```\n", &example));
}
