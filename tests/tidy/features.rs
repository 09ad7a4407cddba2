//! What only tests may have is in no feature that a build asks for.

use crate::source::{Source, root};
use crate::{assert_complaint, assert_tidy};

/// The feature, and what says what is built to be used.
const TESTS_ONLY: &str = "fault-points";
const BUILDS: [&str; 4] = [
    "Makefile",
    "Dockerfile",
    "docker-compose.yml",
    "scripts/setup.sh",
];

/// Who else asks for it: another feature, or a build.
fn askers(manifest: &str, builds: &[Source]) -> Vec<String> {
    let features = manifest.split_once("[features]").unwrap_or_default().1;
    let features = features.split("\n[").next().unwrap_or_default();
    let entries = features.split_inclusive(']');
    let asking = entries.filter(|entry| {
        let asked = entry.split_once('=').unwrap_or_default().1;
        asked.contains(TESTS_ONLY)
    });
    let mut complaints: Vec<String> = asking
        .map(|entry| format!("Cargo.toml: only tests may ask for `{TESTS_ONLY}`: {entry}"))
        .collect();
    let building = builds.iter().filter(|build| {
        let text = &build.text;
        text.contains(TESTS_ONLY) || text.contains("--all-features")
    });
    complaints.extend(building.map(|build| format!("{}: asks for `{TESTS_ONLY}`", build.path)));
    complaints
}

#[test]
fn what_is_built_to_be_used_has_no_fault_points() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let builds = BUILDS.map(|path| Source::new(path, &read(path)));
    assert_tidy(&askers(&read("Cargo.toml"), &builds));
}

#[test]
fn a_feature_or_a_build_that_asks_for_them_is_found() {
    let alone = "[features]\ncli = [\"server\"]\nfault-points = []\n\n[dependencies]\n";
    assert_tidy(&askers(alone, &[]));
    let asks = alone.replace("\"server\"", "\"server\",\n  \"fault-points\"");
    assert_complaint(&askers(&asks, &[]), "only tests may ask");
    let build = Source::new("Makefile", "cargo build --features fault-points");
    assert_complaint(&askers(alone, &[build]), "Makefile");
}
