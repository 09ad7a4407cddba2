//! The rules of this repository that a compiler does not know.
//!
//! Each check is a function from texts to complaints. Each is run twice: over the repository, where
//! it must find nothing, and over a bad sample, where it must find something: a check that cannot
//! fail checks nothing.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod deployment;
mod features;
mod layers;
mod lua;
mod migrations;
mod quotes;
mod setup;
mod source;
mod text;
mod vocabulary;

/// Fails with all complaints at once.
fn assert_tidy(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Fails unless exactly one complaint is made, and it contains `expected`.
fn assert_complaint(complaints: &[String], expected: &str) {
    assert!(
        complaints.len() == 1 && complaints[0].contains(expected),
        "{complaints:?}"
    );
}
