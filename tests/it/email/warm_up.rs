//! How much a domain sends on a day.

use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};
use sqlx::postgres::PgPool;

use super::post::Post;

/// Reserves at a moment: how many, and on which day.
async fn reserve(pool: &PgPool, wanted: i32, at: &str) -> (i32, NaiveDate) {
    let at: DateTime<Utc> = at.parse().unwrap();
    sqlx::query_as("SELECT granted, on_day FROM bullwark.reserve_email($1, 'acme.example', $2, $3)")
        .bind(DEFAULT_WORKSPACE)
        .bind(wanted)
        .bind(at)
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn granted(pool: &PgPool, wanted: i32, at: &str) -> i32 {
    reserve(pool, wanted, at).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn each_day_allows_what_its_place_in_the_curve_says_and_no_more() {
    let post = Post::new().await;
    let pool = &post.rig.pool;
    for (at, expected) in [
        ("2026-03-01T10:00:00Z", 50),
        ("2026-03-01T23:59:59.999Z", 0),
        ("2026-03-02T00:00:00Z", 100),
        ("2026-03-02T12:00:00Z", 0),
        // A clock that goes back begins nothing anew.
        ("2026-03-01T12:00:00Z", 0),
        ("2026-03-03T00:00:00Z", 250),
        ("2026-03-03T20:00:00Z", 0),
        // Nothing was sent for some days: they do not count.
        ("2026-03-09T00:00:00Z", 500),
        // Silent for more than thirty days: new again.
        ("2026-05-01T00:00:00Z", 50),
    ] {
        assert_eq!(granted(pool, 10_000, at).await, expected, "{at}");
    }
    // Given back on its day, it can be had again; given back later, it can not.
    let release = "SELECT bullwark.release_email(workspace_id, domain, '2026-05-01', 7)
        FROM email_domains";
    post.rig.sql(release.to_owned()).await;
    assert_eq!(granted(pool, 100, "2026-05-01T01:00:00Z").await, 7);
    assert_eq!(granted(pool, 1_000, "2026-05-02T01:00:00Z").await, 100);
    post.rig.sql(release.to_owned()).await;
    assert_eq!(granted(pool, 100, "2026-05-02T02:00:00Z").await, 0);
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_one_of_the_sender_and_summer_time_and_zones_begin_none_twice() {
    let post = Post::new().await;
    let pool = &post.rig.pool;
    let zone = json!({ "zone": "Europe/Berlin", "curve": [5, 5, 5, 5, 5, 5, 5, 5, 5] });
    let path = "/api/email/domains/acme.example";
    assert_eq!(post.rig.patch(path, zone).await.status, 200);
    for (at, expected, day) in [
        // 2026-10-25 has 25 hours in Berlin: 22:00Z to 23:00Z the next day.
        ("2026-10-24T21:59:00Z", 5, "2026-10-24"),
        ("2026-10-24T22:00:00Z", 5, "2026-10-25"),
        // 02:30, and 02:30 once more
        ("2026-10-25T00:30:00Z", 0, "2026-10-25"),
        ("2026-10-25T01:30:00Z", 0, "2026-10-25"),
        ("2026-10-25T22:59:00Z", 0, "2026-10-25"),
        ("2026-10-25T23:00:00Z", 5, "2026-10-26"),
    ] {
        let (got, on) = reserve(pool, 100, at).await;
        assert_eq!((got, on.to_string().as_str()), (expected, day), "{at}");
    }
    // West of there it is still yesterday: the zone holds from the next day on.
    let west = json!({ "zone": "Pacific/Honolulu" });
    let changed = post
        .rig
        .patch("/api/email/domains/acme.example", west)
        .await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(granted(pool, 100, "2026-10-26T12:00:00Z").await, 0);
    let (got, on) = reserve(pool, 100, "2026-10-26T23:30:00Z").await;
    assert_eq!((got, on.to_string().as_str()), (5, "2026-10-27"));
    assert_eq!(granted(pool, 100, "2026-10-27T20:00:00Z").await, 0);
    assert_eq!(
        granted(pool, 100, "2026-10-28T09:00:00Z").await,
        0,
        "it is still the 27th there"
    );
    assert_eq!(granted(pool, 100, "2026-10-28T10:00:00Z").await, 5);
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_goes_wrong_stays_where_it_is_or_stops() {
    let post = Post::new().await;
    let pool = &post.rig.pool;
    let count = async |day: &str, bounces: i32, complaints: i32| {
        let sql = format!(
            "SELECT bullwark.count_email(workspace_id, domain, '{day}', {bounces}, {complaints})
             FROM email_domains"
        );
        post.rig.sql(sql).await;
    };
    assert_eq!(granted(pool, 1_000, "2026-03-01T10:00:00Z").await, 50);
    count("2026-03-01", 1, 0).await;
    assert_eq!(
        granted(pool, 1_000, "2026-03-02T10:00:00Z").await,
        100,
        "one proves nothing"
    );
    count("2026-03-02", 3, 0).await;
    assert_eq!(
        granted(pool, 1_000, "2026-03-03T10:00:00Z").await,
        100,
        "held"
    );
    let domains = post.rig.server.get("/api/email/domains").await.body;
    let held = domains["domains"][0]["held_reason"].as_str().unwrap();
    assert!(held.contains("3 of 100"), "{held}");
    assert_eq!(
        granted(pool, 1_000, "2026-03-04T10:00:00Z").await,
        250,
        "and on"
    );
    count("2026-03-04", 14, 0).await;
    assert_eq!(
        granted(pool, 1_000, "2026-03-05T10:00:00Z").await,
        0,
        "paused"
    );
    let on = json!({ "isActive": true });
    let domain = post
        .rig
        .patch("/api/email/domains/acme.example", on)
        .await
        .body;
    assert_eq!(domain["domain"]["paused_reason"], Value::Null, "{domain}");
    assert_eq!(granted(pool, 1_000, "2026-03-05T11:00:00Z").await, 250);
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_is_through_or_was_warm_before_has_no_cap() {
    let post = Post::new().await;
    let pool = &post.rig.pool;
    let change = json!({ "curve": [2, 3] });
    post.rig
        .patch("/api/email/domains/acme.example", change)
        .await;
    assert_eq!(granted(pool, 9, "2026-03-01T10:00:00Z").await, 2);
    assert_eq!(granted(pool, 9, "2026-03-02T10:00:00Z").await, 3);
    assert_eq!(granted(pool, 9_999, "2026-03-03T10:00:00Z").await, 9_999);
    assert_eq!(granted(pool, 9_999, "2026-03-03T11:00:00Z").await, 9_999);
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sends_what_its_day_allows_and_the_rest_waits_until_the_next() {
    let post = Post::new().await;
    let ids = post.contacts(40).await;
    let third = json!({ "curve": [2, 4, 12, 20, 30], "step": 3 });
    post.rig
        .patch("/api/email/domains/acme.example", third)
        .await;
    let working = post.rig.work();
    let job = post.send(&ids).await;
    let waiting = post.put_off(&job).await;
    assert_eq!(post.smtp.got().len(), 12, "the third day's");
    let ends: DateTime<Utc> = sqlx::query_scalar("SELECT day_ends_at FROM email_domains")
        .fetch_one(&post.rig.pool)
        .await
        .unwrap();
    let at: DateTime<Utc> = waiting["scheduled_for"].as_str().unwrap().parse().unwrap();
    let late = (at - ends).num_seconds();
    assert!((-2..=330).contains(&late), "{late} s after the day ends");
    // 28 are left: 20 on the next day, 8 on the one after it.
    let why = waiting["error_message"].as_str().unwrap_or_default();
    let last = ends + chrono::Duration::days(1);
    let last = format!("the last of them until {}", last.format("%Y-%m-%d"));
    assert!(
        why.contains("28 mails wait") && why.contains(&last),
        "{why}"
    );

    // Run early, it sends nothing more.
    post.promote(&job).await;
    post.put_off(&job).await;
    assert_eq!(post.smtp.got().len(), 12);
    // The day is over.
    let over = "UPDATE email_domains SET day = day - 1, day_ends_at = now();
        UPDATE email_domain_days SET day = day - 1";
    post.rig.sql(over.to_owned()).await;
    post.promote(&job).await;
    crate::stage::eventually("the fourth day's are sent", async || {
        (post.smtp.got().len() >= 32).then_some(())
    })
    .await;
    post.put_off(&job).await;
    assert_eq!(post.smtp.got().len(), 32);
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_mails_on_the_third_day_are_two_hundred_and_fifty_at_fifty_a_second() {
    let post = Post::new().await;
    let ids = post.contacts(10_000).await;
    let third = json!({ "step": 3 });
    post.rig
        .patch("/api/email/domains/acme.example", third)
        .await;
    let working = post.rig.work();
    let job = post.send(&ids).await;
    crate::stage::eventually("the first is sent", async || {
        (!post.smtp.got().is_empty()).then_some(())
    })
    .await;
    let began = std::time::Instant::now();
    let waiting = post.put_off(&job).await;
    let took = began.elapsed();
    assert_eq!(post.smtp.got().len(), 250);
    assert!(
        took.as_millis() > 3_500,
        "250 in {took:?}: more than 50 a second"
    );
    let ends: DateTime<Utc> = sqlx::query_scalar("SELECT day_ends_at FROM email_domains")
        .fetch_one(&post.rig.pool)
        .await
        .unwrap();
    // 9,750 are left: 500, 1,000, 2,500 and 5,000 are through after four days, the rest on the
    // fifth.
    let why = waiting["error_message"].as_str().unwrap_or_default();
    let last = ends + chrono::Duration::days(4);
    let last = format!("the last of them until {}", last.format("%Y-%m-%d"));
    assert!(
        why.contains("9750 mails wait") && why.contains(&last),
        "{why}"
    );
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_send_at_once_share_what_the_day_allows() {
    let post = Post::new().await;
    let ids = post.contacts(90).await;
    let working = post.rig.work();
    let jobs = [post.send(&ids[..45]).await, post.send(&ids[45..]).await];
    crate::stage::eventually("the day's are sent", async || {
        (post.smtp.got().len() >= 50).then_some(())
    })
    .await;
    let mut ended = 0;
    for job in &jobs {
        let job = crate::stage::eventually("it stops", async || {
            let job = post.rig.server.get(&format!("/api/jobs/{job}")).await.body["job"].clone();
            let is_over = job["status"] == "completed" || job["scheduled_for"].is_string();
            is_over.then_some(job)
        })
        .await;
        ended += usize::from(job["status"] == "completed");
    }
    assert!(ended < 2, "one waits at least");
    assert_eq!(post.smtp.got().len(), 50);
    assert_eq!(
        post.value("SELECT used::bigint FROM email_domains").await,
        50
    );
    working.hurry().await;
    post.rig.end().await;
}
