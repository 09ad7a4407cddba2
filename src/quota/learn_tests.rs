use super::*;

fn now() -> DateTime<Utc> {
    "2026-11-27T12:00:00Z".parse().unwrap()
}

fn from(status: u16, lines: &str) -> Learned {
    let headers = lines.split('\n').filter_map(|line| line.split_once(':'));
    learn(
        status,
        headers.map(|(name, value)| (name.trim(), value)),
        now(),
    )
}

/// `name limit left resets_in/per` of each window, in short.
fn told(learned: &Learned) -> Vec<String> {
    let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
    let time = |t: Option<Duration>| t.map_or("-".to_owned(), |t| format!("{}", t.as_secs_f64()));
    let all = learned.told.iter().map(|told| {
        let (limit, left) = (number(told.limit), number(told.left));
        let (resets, per) = (time(told.resets_in), time(told.per));
        format!("{} {limit} {left} {resets}/{per}", told.name)
    });
    all.collect()
}

#[test]
fn a_time_to_wait_is_seconds_or_a_date() {
    for (status, lines, expected) in [
        (429, "Retry-After: 17", Some(17_000)),
        (429, "retry-after: 1.5", Some(1500)),
        (
            429,
            "Retry-After: Fri, 27 Nov 2026 12:00:30 GMT",
            Some(30_000),
        ),
        (429, "Retry-After: Fri, 27 Nov 2026 11:00:00 GMT", Some(0)),
        (429, "Retry-After: 999999999", Some(86_400_000)),
        (503, "Retry-After: 5", Some(5000)),
        (503, "", None),
        (429, "", None),
        (429, "Retry-After: soon", None),
        (429, "Retry-After: -4", None),
        (429, "Retry-After: NaN", None),
        // A 200 that says when to come again does not close anything.
        (200, "Retry-After: 17", None),
        // Otherwise the window that is spent says it.
        (
            429,
            "X-RateLimit-Remaining: 0\nX-RateLimit-Reset: 9",
            Some(9000),
        ),
        (429, "X-RateLimit-Remaining: 3\nX-RateLimit-Reset: 9", None),
        (
            429,
            "Retry-After: 2\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 9",
            Some(2000),
        ),
    ] {
        let closed = from(status, lines).closed_for.map(|wait| wait.as_millis());
        assert_eq!(closed, expected, "{status} {lines}");
    }
}

#[test]
fn statuses_tell_a_full_quota_from_a_service_that_is_not_well() {
    for (status, limited, failure) in [
        (200, false, false),
        (404, false, false),
        (401, false, false),
        (429, true, false),
        (500, false, true),
        (501, false, false),
        (503, false, true),
        (529, false, true),
    ] {
        let learned = from(status, "");
        assert_eq!(
            (learned.is_limited, learned.is_failure),
            (limited, failure),
            "{status}"
        );
    }
}

#[test]
fn every_style_of_headers_is_read() {
    for (lines, expected) in [
        // Clearbit, GitHub, SendGrid: seconds to go, or a moment
        (
            "X-RateLimit-Limit: 600\nX-RateLimit-Remaining: 599\nX-RateLimit-Reset: 60",
            &["requests 600 599 60/-"][..],
        ),
        (
            "x-ratelimit-limit: 5000\nx-ratelimit-remaining: 4999\nx-ratelimit-reset: 1795780860",
            &["requests 5000 4999 60/-"],
        ),
        (
            "X-Rate-Limit-Limit: 5\nX-Rate-Limit-Remaining: 4\n\
             X-Rate-Limit-Reset: 1795780801500",
            &["requests 5 4 1.5/-"],
        ),
        (
            "X-RateLimit-Remaining: 3\nX-RateLimit-Reset: 2026-11-27T12:00:10Z",
            &["requests - 3 10/-"],
        ),
        // the drafts of the IETF, newest first
        (
            "RateLimit-Policy: \"burst\";q=100;w=60, \"day\";q=1000;w=86400\n\
             RateLimit: \"burst\";r=50;t=30, \"day\";r=7",
            &["ietf-burst 100 50 30/60", "ietf-day 1000 7 -/86400"],
        ),
        (
            "RateLimit: limit=100, remaining=50, reset=30",
            &["ietf- 100 50 30/-"],
        ),
        (
            "RateLimit-Limit: 100, 100;w=60\nRateLimit-Remaining: 0\nRateLimit-Reset: 5",
            &["requests 100 0 5/60"],
        ),
        // Apollo
        (
            "x-rate-limit-minute: 1000\nx-minute-requests-left: 990\n\
             x-rate-limit-hourly: 6000\nx-hourly-requests-left: 10\nx-24-hour-requests-left: 0",
            &[
                "x-minute 1000 990 -/60",
                "x-hourly 6000 10 -/3600",
                "x-24-hour - 0 -/86400",
            ],
        ),
        // Salesforce
        (
            "Sforce-Limit-Info: api-usage=18/5000, per-app-api-usage=17/250(appName=x)",
            &[
                "sforce-api-usage 5000 4982 -/86400",
                "sforce-per-app-api-usage 250 233 -/86400",
            ],
        ),
        // HubSpot
        (
            "X-HubSpot-RateLimit-Max: 100\nX-HubSpot-RateLimit-Remaining: 98\n\
             X-HubSpot-RateLimit-Interval-Milliseconds: 10000\n\
             X-HubSpot-RateLimit-Daily: 250000\nX-HubSpot-RateLimit-Daily-Remaining: 249000",
            &[
                "hubspot-max 100 98 -/10",
                "hubspot-daily 250000 249000 -/86400",
            ],
        ),
        // nothing, and nonsense
        ("Content-Type: text/html", &[]),
        ("X-RateLimit-Remaining: many", &[]),
        (
            "RateLimit: ;;;\nSforce-Limit-Info: api-usage=x/y, =, /",
            &[],
        ),
    ] {
        assert_eq!(told(&from(200, lines)), expected, "{lines}");
    }
}

#[test]
fn what_ses_says_of_its_quota_is_a_window_of_a_day_and_a_rate() {
    assert_eq!(
        told(&Learned::ses(200.0, 14.0, 20.0)),
        ["ses-day 200 180 -/86400", "ses-rate 14 - -/1"]
    );
    assert_eq!(told(&Learned::ses(-1.0, 0.5, 20.0)), [""; 0]);
}

#[test]
fn an_answer_tells_of_a_bounded_number_of_windows() {
    let many: Vec<String> = (0..50).map(|n| format!("\"p{n}\";r={n}")).collect();
    let learned = from(200, &format!("RateLimit: {}", many.join(",")));
    assert_eq!(learned.told.len(), TOLD_MAX);
}
