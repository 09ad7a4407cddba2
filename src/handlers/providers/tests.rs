use std::time::Duration;

use super::*;

fn told(source: DataSource, status: u16, body: &str) -> Reply {
    let answer = Answer {
        status,
        headers: HeaderMap::new(),
        retry_after: None,
        bytes: body.as_bytes().to_vec(),
        is_whole: true,
        took: Duration::ZERO,
    };
    reply(source, &Topic::Company("a.com".to_owned()), &answer)
}

#[test]
fn what_is_no_answer_is_never_taken_for_an_unknown_company() {
    use DataSource::{Apollo, Clearbit, Zoominfo};
    for source in [Clearbit, Apollo, Zoominfo] {
        for text in ["<html>", "", "[]", "null", "{\"organization\": {"] {
            assert_eq!(
                told(source, 200, text),
                Reply::Unreadable,
                "{source:?}: {text}"
            );
        }
        assert_eq!(told(source, 404, "{}"), Reply::Unknown);
        assert_eq!(told(source, 404, "<html>"), Reply::Rejected);
        let wrong_address = r#"{"error": {"type": "unknown_route", "message": "x"}}"#;
        assert_eq!(told(source, 404, wrong_address), Reply::Rejected);
        for refused in [401, 403] {
            assert_eq!(told(source, refused, "{}"), Reply::Refused);
        }
        let poor = r#"{"error": "You have insufficient credits to do this."}"#;
        assert_eq!(told(source, 422, poor), Reply::NoCredits);
        assert_eq!(told(source, 422, "{}"), Reply::Rejected);
        assert_eq!(told(source, 402, "{}"), Reply::NoCredits);
        assert_eq!(told(source, 302, ""), Reply::Rejected);
    }
    assert_eq!(told(Apollo, 200, "{}"), Reply::Unknown);
    assert_eq!(told(Apollo, 200, r#"{"error":"x"}"#), Reply::Unreadable);
    assert_eq!(
        told(Zoominfo, 200, r#"{"success":false}"#),
        Reply::Unreadable
    );
    let used_up = r#"{"success":true,"data":{"result":[{"matchStatus":"LIMIT_EXCEEDED"}]}}"#;
    assert_eq!(told(Zoominfo, 200, used_up), Reply::NoCredits);
    let with_nul = r#"{"domain":"a.com","x":["\u0000b"]}"#;
    let kept = serde_json::json!({ "domain": "a.com", "x": ["b"] });
    assert_eq!(told(Clearbit, 200, with_nul), Reply::Found(kept));
    assert_eq!(told(Clearbit, 202, "{}"), Reply::StillLooking);
    assert!(matches!(
        told(Clearbit, 200, r#"{"domain":"a.com"}"#),
        Reply::Found(_)
    ));
}
