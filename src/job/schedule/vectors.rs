//! Cron patterns against what `cron-parser` 5.10.3 answered: random patterns and zones, moments
//! around changes of the clock.

use super::pattern::Pattern;
use super::zone::Zone;

/// Pattern, zone, moment, next moment; null: there is none.
type Vector = (String, String, i64, Option<i64>);

#[test]
fn patterns_are_due_when_cron_parser_says() {
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../../../tests/vectors/cron.json")).unwrap();
    let mut wrong = Vec::new();
    for (pattern, zone, after_ms, expected) in &vectors {
        let found = pattern
            .parse::<Pattern>()
            .unwrap_or_else(|error| panic!("{pattern}: {error}"))
            .next_after(zone.parse::<Zone>().unwrap(), *after_ms);
        if found != *expected {
            wrong.push(format!(
                "{pattern} {zone} {after_ms}: {found:?}, not {expected:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
