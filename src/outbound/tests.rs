use super::*;

#[test]
fn servers_may_say_when_to_come_back() {
    for (retry, date, expected) in [
        ("120", "", Some(120)),
        ("999999", "", Some(3600)),
        (
            "Wed, 21 Oct 2026 07:30:00 GMT",
            "Wed, 21 Oct 2026 07:28:00 GMT",
            Some(120),
        ),
        (
            "Wed, 21 Oct 2026 07:00:00 GMT",
            "Wed, 21 Oct 2026 07:28:00 GMT",
            Some(0),
        ),
        ("soon", "", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry.parse().unwrap());
        headers.insert(DATE, date.parse().unwrap());
        assert_eq!(
            retry_after(&headers).map(|wait| wait.as_secs()),
            expected,
            "{retry}"
        );
    }
}
