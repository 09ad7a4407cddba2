//! Which module may import which: the directions of `docs/ARCHITECTURE.md`.
//!
//! `main -> cli -> app -> {http, worker, upkeep, handlers} -> {enqueue, settle, control, reconcile}
//! -> {broker, record} -> job`. A new module must be entered here, which is when somebody decides
//! where it belongs.

use crate::source::{Source, code_only, files, line_of, word_places};
use crate::{assert_complaint, assert_tidy};

/// What everything but the pure core may use.
const TOOLS: [&str; 10] = [
    "clock",
    "fault",
    "outbound",
    "sealed",
    "secret",
    "tasks",
    "telemetry",
    "periodic",
    "storage",
    "uploads",
];
const STORES: [&str; 2] = ["broker", "record"];
const DOORS: [&str; 5] = ["enqueue", "settle", "control", "reconcile", "quota"];
const SERVICES: [&str; 4] = ["http", "worker", "upkeep", "handlers"];
const OUTSIDE: [&str; 7] = ["app", "bench", "cli", "config", "soak", "stores", "main"];

/// The modules that `module` may import, `None` if it is not in this table.
fn allowed(module: &str) -> Option<Vec<&'static str>> {
    let below_services: Vec<_> = [&["job"][..], &TOOLS, &STORES, &DOORS].concat();
    let below_app = [below_services.as_slice(), &SERVICES].concat();
    let all = [below_app.as_slice(), &OUTSIDE].concat();
    let without = |list: &[&'static str], refused: &[&str]| -> Vec<&'static str> {
        list.iter()
            .copied()
            .filter(|name| !refused.contains(name))
            .collect()
    };
    Some(match module {
        // Pure, or made for others to stand on: they know nobody.
        "job" | "clock" | "fault" | "outbound" | "secret" | "tasks" | "stores" => vec![],
        "sealed" => vec!["secret"],
        // The two write down together what they keep.
        "storage" => vec!["clock", "secret", "uploads"],
        "uploads" => vec!["clock", "storage"],
        "periodic" => TOOLS.to_vec(),
        "telemetry" => [&TOOLS[..], &["config"]].concat(),
        // The two stores never meet: only the doors change both.
        "broker" | "record" => [&["job"][..], &TOOLS].concat(),
        "enqueue" | "settle" | "control" | "reconcile" | "quota" => below_services,
        "worker" => below_services,
        // A handler gets what it needs from its context.
        "handlers" => without(
            &[below_services.as_slice(), &["worker"]].concat(),
            &["broker"],
        ),
        "upkeep" => [below_services.as_slice(), &["worker"]].concat(),
        "http" => [below_services.as_slice(), &["worker", "upkeep", "handlers"]].concat(),
        // One struct per concern, filled from flags and the environment.
        "config" => [below_app.as_slice(), &["stores"]].concat(),
        "app" => without(&all, &["cli", "bench", "soak", "main"]),
        "bench" | "soak" => without(&all, &["cli", "main"]),
        "cli" => without(&all, &["main"]),
        "main" => all,
        _ => return None,
    })
}

/// Imports that go the wrong way.
fn wrong_imports(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let Some(module) = source.module().filter(|module| *module != "lib") else {
            continue;
        };
        let Some(allowed) = allowed(module) else {
            complaints.push(format!(
                "{}: enter `{module}` in tests/tidy/layers.rs",
                source.path
            ));
            continue;
        };
        for (line, import) in imports(source, sources) {
            if import != module && !allowed.contains(&import.as_str()) {
                let path = &source.path;
                complaints.push(format!(
                    "{path}:{line}: `{module}` must not import `{import}`"
                ));
            }
        }
    }
    complaints
}

/// The top-level modules that a file names, with the line of each.
fn imports(source: &Source, sources: &[Source]) -> Vec<(usize, String)> {
    let code = code_only(&source.text);
    let mut found = Vec::new();
    for start in ["crate", "bullwark"] {
        for at in word_places(&code, start) {
            let names = names_after(&code[at + start.len()..]);
            found.extend(names.into_iter().map(|name| (line_of(&code, at), name)));
        }
    }
    // `super::super::record` leaves the module as well as `crate::record` does. Only names that
    // are top-level modules, and no parts of this one, count.
    let module = source.module().unwrap_or_default();
    let is_part = |name: &str| {
        let inside = format!("src/{module}/");
        let parts = sources
            .iter()
            .filter_map(|other| other.path.strip_prefix(&inside));
        parts
            .into_iter()
            .any(|part| part.split(['/', '.']).any(|word| word == name))
    };
    for at in word_places(&code, "super") {
        for name in names_after(&code[at + "super".len()..]) {
            if allowed(&name).is_some() && !is_part(&name) {
                found.push((line_of(&code, at), name));
            }
        }
    }
    found
}

/// `::a::b` names `a`; `::{a, b::c, d::{e, f}}` names `a`, `b` and `d`.
fn names_after(code: &str) -> Vec<String> {
    let Some(rest) = code.trim_start().strip_prefix("::") else {
        return Vec::new();
    };
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else {
        return Some(word_at_start(rest))
            .into_iter()
            .filter(|name| !name.is_empty())
            .collect();
    };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(word_at_start(group[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn word_at_start(code: &str) -> String {
    let name: String = code
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    // Items that the crate's root itself holds, and `self`, are no modules.
    let is_item = name == "self" || name.chars().next().is_some_and(char::is_uppercase);
    if is_item { String::new() } else { name }
}

#[test]
fn imports_follow_the_layers() {
    assert_tidy(&wrong_imports(&files(&["src"], "rs")));
}

#[test]
fn an_import_upwards_or_sideways_is_found() {
    for (path, text, expected) in [
        (
            "src/job/state.rs",
            "use crate::clock::now;",
            "`job` must not import `clock`",
        ),
        (
            "src/broker/claim.rs",
            "use crate::record::Row;",
            "`broker` must not import `record`",
        ),
        (
            "src/record/jobs.rs",
            "fn f() { crate::broker::g() }",
            "`record` must not import `broker`",
        ),
        (
            "src/handlers/noop.rs",
            "use crate::{job::Id, broker::Keys};",
            "import `broker`",
        ),
        (
            "src/handlers/noop.rs",
            "use crate::{\n    http::{A, B},\n};",
            ":1: `handlers`",
        ),
        (
            "src/worker/mod.rs",
            "use crate::app::App;",
            "`worker` must not import `app`",
        ),
        (
            "src/broker/mod.rs",
            "use super::record;",
            "`broker` must not import `record`",
        ),
        (
            "src/broker/a.rs",
            "use super::super::record::Row;",
            "must not import `record`",
        ),
        (
            "src/stores/mod.rs",
            "use crate::job::Id;",
            "`stores` must not import `job`",
        ),
        (
            "src/http/mod.rs",
            "use bullwark::cli::Args;",
            "`http` must not import `cli`",
        ),
        ("src/novelty.rs", "", "enter `novelty`"),
    ] {
        assert_complaint(&wrong_imports(&[Source::new(path, text)]), expected);
    }
}

#[test]
fn imports_downwards_and_within_a_module_are_fine() {
    let sources = [
        Source::new("src/lib.rs", "pub mod novelty;"),
        Source::new("src/cli/mod.rs", "use crate::{app::App, bench, record};"),
        Source::new(
            "src/enqueue/mod.rs",
            "use crate::broker::Broker; use crate::record::Record;",
        ),
        Source::new(
            "src/broker/claim.rs",
            "use super::control::pause; // crate::record\n",
        ),
        Source::new(
            "src/broker/control.rs",
            "use crate::broker::claim; use crate::VERSION;",
        ),
        Source::new("src/broker/text.rs", "const A: &str = \"crate::record\";"),
    ];
    assert_tidy(&wrong_imports(&sources));
}
