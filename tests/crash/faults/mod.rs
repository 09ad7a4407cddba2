//! Processes that die at named points between the two stores (`bullwark::fault`), a hundred times
//! at each of them, while jobs go on. Then everything is over, once, and the stores agree.

mod caller;
mod doomed;
mod repairs;
mod siege;
mod way_in;
mod way_out;

use std::process::Stdio;

use bullwark::fault::Point;
use tokio::process::Command;

/// Inside of handlers: tests of those handlers in `tests/it` let workers die there.
const HANDLERS: &[Point] = &[
    Point::AfterEmailClaim,
    Point::AfterHandOver,
    Point::AfterPartsSent,
    Point::AfterFileKept,
    Point::AfterCrmSent,
    Point::AfterBulkMade,
    Point::AfterBulkData,
    Point::AfterBulkUpload,
];

#[test]
fn every_point_is_besieged_and_told_of() {
    let besieged = [
        way_in::POINTS,
        way_out::POINTS,
        way_out::PAID,
        repairs::POINTS,
        repairs::FOLLOWED,
        HANDLERS,
    ]
    .concat();
    let page = include_str!("../../../docs/reliability.md");
    for point in Point::ALL {
        let times = besieged.iter().filter(|other| *other == point).count();
        assert_eq!(times, 1, "{} in tests/crash/faults", point.name());
        let row = format!("| `{}` |", point.name());
        assert_eq!(
            page.matches(&row).count(),
            1,
            "{row} in docs/reliability.md"
        );
    }
}

#[tokio::test]
async fn a_fault_that_nobody_knows_is_refused_with_those_that_exist() {
    let refused = Command::new(env!("CARGO_BIN_EXE_bullwark"))
        .arg("stats")
        .env("BULLWARK_FAULT", "after_lunch:abort")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("after_lunch"), "{said}");
    for point in Point::ALL {
        assert!(said.contains(point.name()), "{said}");
    }
}
