use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_700_000_000_000;

fn template() -> Template {
    Template {
        name: "n".to_owned(),
        data: "{}".to_owned(),
        opts: r#"{"priority":3,"backoff":500,"de":{"id":"d"}}"#.to_owned(),
    }
}

fn opts(iteration: &Iteration) -> Value {
    serde_json::from_str(&format!("{}}}", iteration.opts)).unwrap()
}

fn after(opts: &Value, now_ms: i64) -> Option<Iteration> {
    Iteration::next("s", &opts.to_string(), now_ms).unwrap()
}

#[test]
fn a_bad_pattern_is_told_what_is_wrong_with_it() {
    for (pattern, complaint) in [
        ("", "is empty"),
        ("* * * * * * *", "has 7 fields"),
        (
            "61 * * * *",
            "the minute of the cron pattern, `61`, has 61, which is not from 0 to 59",
        ),
        (
            "* 5-2 * * *",
            "has a range that ends before it begins: `5-2`",
        ),
        ("*/0 * * * *", "needs a number above 0 after `/`"),
        ("* * * foo *", "has the unknown name `foo`"),
        ("* * * * 5#6", "needs a number from 1 to 5 after `#`"),
        ("* * * * 1,5#2", "has `#` together with"),
        ("* * * * L", "needs a weekday before `L`"),
        ("* * L-3 * *", "is not understood at `L`"),
        ("H * * * *", "is not understood at `H`"),
        ("1,,2 * * * *", "lacks a number"),
        ("0 0 30 2 *", "a day that its month does not have"),
    ] {
        let error = Schedule::cron(pattern, "UTC").check().unwrap_err();
        assert!(error.to_string().contains(complaint), "{pattern}: {error}");
    }
    let long = "0,".repeat(600);
    assert!(Schedule::cron(&long, "UTC").check().is_err());
    for good in [
        "0 0 30 2 1",
        "@daily",
        "0 0 L * ?",
        "*/5 9-17 * * mon-FRI",
        "* * 31 4,6 *",
    ] {
        assert_eq!(Schedule::cron(good, "UTC").check(), Ok(()), "{good}");
    }
}

#[test]
fn what_contradicts_itself_is_no_schedule() {
    let both = Schedule {
        immediately: true,
        start_ms: Some(NOW),
        ..Schedule::cron("* * * * *", "UTC")
    };
    assert_eq!(both.check(), Err(InvalidSchedule::ImmediatelyAndStart));
    assert_eq!(Schedule::every(0).check(), Err(InvalidSchedule::Interval));
    let zone = Schedule::cron("* * * * *", "Mars/Olympus")
        .check()
        .unwrap_err();
    assert!(
        zone.to_string().contains("`Mars/Olympus` is no time zone"),
        "{zone}"
    );
    let ended = Schedule {
        end_ms: Some(NOW - 1),
        ..Schedule::every(1000)
    };
    let first = Iteration::first("s", &ended, &template(), NOW);
    assert_eq!(first, Err(InvalidSchedule::Ended));
    let first = Iteration::first("", &Schedule::every(1000), &template(), NOW);
    assert_eq!(first, Err(InvalidSchedule::Id));
}

#[test]
fn a_pattern_that_never_comes_true_makes_no_iteration() {
    let never = Schedule::cron("0 0 31 4,6 *", "UTC");
    assert_eq!(Iteration::first("s", &never, &template(), NOW), Ok(None));
}

#[test]
fn iterations_are_counted_and_carry_the_options_of_the_first() {
    let schedule = Schedule {
        limit: Some(2),
        ..Schedule::cron("*/5 * * * *", "UTC")
    };
    let first = Iteration::first("s", &schedule, &template(), NOW)
        .unwrap()
        .unwrap();
    assert_eq!(first.when, When::At(1_700_000_100_000));
    assert_eq!((first.priority, first.dedup_id.as_deref()), (3, Some("d")));
    assert_eq!(opts(&first)["repeat"]["count"], 1);
    let second = after(&opts(&first), NOW).unwrap();
    assert_eq!(
        second.when,
        When::At(1_700_000_400_000),
        "after the one before, not after now"
    );
    assert_eq!(
        opts(&second),
        json!({
            "attempts": 0, "backoff": { "type": "fixed", "delay": 500 }, "de": { "id": "d" },
            "prevMillis": 1_700_000_400_000_i64, "priority": 3, "repeatJobKey": "s",
            "repeat": { "pattern": "*/5 * * * *", "tz": "UTC", "limit": 2, "count": 2 },
        })
    );
    assert_eq!(after(&opts(&second), NOW), None, "the limit is reached");
}

#[test]
fn nothing_is_made_once_the_end_has_passed() {
    let opts = json!({ "repeat": { "every": 1000, "endDate": NOW } });
    assert!(after(&opts, NOW).is_some());
    assert_eq!(after(&opts, NOW + 1), None);
    let pattern = json!({ "repeat": { "pattern": "* * * * *", "endDate": NOW + 1 } });
    assert_eq!(
        after(&pattern, NOW),
        None,
        "the next moment lies behind the end"
    );
}

#[test]
fn jobs_that_do_not_repeat_have_no_next_one_and_contradictions_are_told() {
    for opts in ["", "[]", "{}", r#"{"repeat":null}"#] {
        assert_eq!(Iteration::next("s", opts, NOW), Ok(None), "{opts}");
    }
    let both = r#"{"repeat":{"every":1,"pattern":"* * * * *"}}"#;
    assert_eq!(
        Iteration::next("s", both, NOW),
        Err(InvalidSchedule::BothRhythms)
    );
    let none = r#"{"repeat":{"count":1}}"#;
    assert_eq!(
        Iteration::next("s", none, NOW),
        Err(InvalidSchedule::NoRhythm)
    );
}

#[test]
fn iterations_of_a_job_type_are_enqueued_like_its_jobs() {
    let job = NewJob {
        id: uuid::Uuid::nil(),
        workspace_id: Some(uuid::Uuid::max()),
        job_type: "sync".to_owned(),
        queue: crate::job::QueueName::default(),
        payload: r#"{"a":1}"#.to_owned(),
        priority: crate::job::Priority::default(),
        due: crate::job::Due::Now,
        max_attempts: 5,
        retry_delay_seconds: 60,
        backoff: None,
        timeout_seconds: Some(7),
        idempotency_key: None,
        created_by: None,
    };
    let template = Template::of(&job);
    assert_eq!(
        (template.name.as_str(), template.data.as_str()),
        ("sync", r#"{"a":1}"#)
    );
    let read = wire::read_options(&template.opts);
    assert_eq!(read.max_attempts, 5);
    let envelope = read.envelope.unwrap();
    assert_eq!(
        (envelope.workspace_id, envelope.timeout_seconds),
        (job.workspace_id, Some(7))
    );
    let first = Iteration::first("s", &Schedule::every(1000), &template, NOW)
        .unwrap()
        .unwrap();
    assert_eq!(first.priority, job.priority.to_wire());
    let opts: Value = serde_json::from_str(&template.opts).unwrap();
    for name in ["jobId", "timestamp", "delay"] {
        assert_eq!(opts.get(name), None, "{opts}");
    }
}

#[test]
fn an_old_repeatable_gets_the_id_that_every_client_gives_it() {
    assert!(may_be_repeatable("n::::* * * * *") && !may_be_repeatable("a:b:c"));
    let opts = r#"{"repeat":{"every":5000,"count":4},"prevMillis":1700000000000}"#;
    let next = Repeatable::next("n::::5000", "n", r#"{"id":7}"#, opts, NOW)
        .unwrap()
        .unwrap();
    assert_eq!((next.tick_ms, next.due_ms), (NOW + 5000, NOW + 5000));
    // md5("n" + "7" + md5("n::::5000"))
    assert_eq!(
        next.job_id,
        "repeat:ac22571671e69146ee11e2b65f30fd39:1700000005000"
    );
    assert!(next.iteration.opts.contains(r#""count":5"#));
}
