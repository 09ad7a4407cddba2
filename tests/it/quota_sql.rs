//! `check_rate_limit`, as the specification has it, without its races; and with limiters beside it.

use bullwark::quota::Why;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use sqlx::AssertSqlSafe;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::quota::{Rig, hourly};

fn check(key: &str, max: u32, window: &str) -> String {
    format!("SELECT check_rate_limit('{key}', {max}, '{window}')")
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_callers_at_once_get_exactly_what_there_is() {
    let rig = Rig::new().await;
    let key = rig.key.to_string();
    let mut asking = JoinSet::new();
    for _ in 0..50 {
        let (pool, sql) = (rig.stage.pool.clone(), check(&key, 20, "1 minute"));
        asking.spawn(async move {
            let asked = sqlx::query_scalar::<_, bool>(AssertSqlSafe(sql));
            asked.fetch_one(&pool).await.unwrap()
        });
    }
    let granted = asking
        .join_all()
        .await
        .into_iter()
        .filter(|granted| *granted);
    assert_eq!(granted.count(), 20);
    let row = "SELECT requests || ' ' || max_requests || ' ' || window_duration || ' '
        || workspace_id FROM rate_limits";
    let row: String = rig.stage.scalar(row.to_owned()).await;
    assert_eq!(row, format!("20 20 00:01:00 {DEFAULT_WORKSPACE}"));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_is_over_begins_anew_with_the_length_that_is_asked_for() {
    let rig = Rig::new().await;
    let key = rig.key.to_string();
    let asked = async |window: &str| rig.stage.scalar::<bool>(check(&key, 1, window)).await;
    assert!(asked("1 hour").await);
    assert!(!asked("1 hour").await);
    let back = "UPDATE rate_limits SET window_start = now() - interval '61 minutes'";
    rig.stage.execute(back.to_owned()).await;
    assert!(asked("1 hour").await);
    assert!(!asked("1 hour").await);
    // A key of another form works as well, for those who may everything.
    assert!(rig.stage.scalar::<bool>(check("openai", 1, "1 day")).await);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_asks_for_keys_of_its_own_workspaces_only() {
    let rig = Rig::new().await;
    let user = Uuid::now_v7();
    rig.stage
        .execute(format!(
            "INSERT INTO auth.users (id) VALUES ('{user}');
             INSERT INTO workspace_members (workspace_id, user_id, role)
               VALUES ('{DEFAULT_WORKSPACE}', '{user}', 'member')"
        ))
        .await;
    let as_user = async |key: &str| {
        let mut tx = rig.stage.pool.begin().await.unwrap();
        let become_user = format!(
            "SET LOCAL ROLE authenticated;
             SELECT set_config('request.jwt.claims', '{{\"sub\": \"{user}\"}}', true)"
        );
        sqlx::raw_sql(AssertSqlSafe(become_user))
            .execute(&mut *tx)
            .await
            .unwrap();
        let asked = sqlx::query_scalar::<_, bool>(AssertSqlSafe(check(key, 5, "1 minute")));
        let answer = asked
            .fetch_one(&mut *tx)
            .await
            .map_err(|error| error.to_string());
        if answer.is_ok() {
            tx.commit().await.unwrap();
        }
        answer
    };
    assert_eq!(as_user(&rig.key.to_string()).await, Ok(true));
    for key in [
        format!("clearbit:{}", Uuid::now_v7()),
        "clearbit".to_owned(),
    ] {
        let refused = as_user(&key).await.unwrap_err();
        assert!(refused.contains("not of a workspace of yours"), "{refused}");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sql_and_limiters_spend_of_a_key_is_one_sum() {
    let rig = Rig::new().await;
    let key = rig.key.to_string();
    let asked = async || rig.stage.scalar::<bool>(check(&key, 10, "1 hour")).await;
    // SQL was there first: the limiter sees it at its first look.
    for _ in 0..4 {
        assert!(asked().await);
    }
    let quotas = rig.process().await;
    let limits = hourly(100);
    assert_eq!(rig.rush(&limits, std::slice::from_ref(&quotas), 3).await, 3);
    for _ in 0..3 {
        assert!(asked().await);
    }
    assert!(!asked().await);
    let wait = rig.take(&quotas, &limits).await.unwrap_err();
    assert_eq!((wait.why, wait.detail.as_str()), (Why::Window, "sql"));
    // What SQL counts by may be corrected any time: it is asked again within a minute.
    assert!((50..=61).contains(&wait.time.as_secs()), "{wait}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_that_comes_later_is_refused_until_limiters_count_with_it() {
    let rig = Rig::new().await;
    let key = rig.key.to_string();
    let quotas = rig.process().await;
    rig.take(&quotas, &hourly(100)).await.unwrap().ended().await;
    let asked = async || rig.stage.scalar::<bool>(check(&key, 10, "1 minute")).await;
    assert!(!asked().await);
    let later = "UPDATE rate_limits SET sql_from = sql_from - interval '91 seconds'";
    rig.stage.execute(later.to_owned()).await;
    assert!(asked().await);
    rig.end().await;
}

/// A member of the default workspace.
async fn new_member(rig: &Rig) -> Uuid {
    let user = Uuid::now_v7();
    let sql = format!(
        "INSERT INTO auth.users (id) VALUES ('{user}');
         INSERT INTO workspace_members (workspace_id, user_id, role)
           VALUES ('{DEFAULT_WORKSPACE}', '{user}', 'member')"
    );
    rig.stage.execute(sql).await;
    user
}

async fn member_asks(rig: &Rig, user: Uuid, key: &str, (max, window): (u32, &str)) -> bool {
    let mut tx = rig.stage.pool.begin().await.unwrap();
    let become_user = format!(
        "SET LOCAL ROLE authenticated;
         SELECT set_config('request.jwt.claims', '{{\"sub\": \"{user}\"}}', true)"
    );
    sqlx::raw_sql(AssertSqlSafe(become_user))
        .execute(&mut *tx)
        .await
        .unwrap();
    let asked = sqlx::query_scalar::<_, bool>(AssertSqlSafe(check(key, max, window)));
    let answer = asked.fetch_one(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    answer
}

async fn numbers(rig: &Rig) -> String {
    let row = "SELECT max_requests || ' ' || window_duration FROM rate_limits";
    rig.stage.scalar(row.to_owned()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_changes_no_limit_of_a_key_that_limiters_use() {
    let rig = Rig::new().await;
    let key = rig.key.to_string();
    let member = new_member(&rig).await;
    // Before anybody calls, it may name what it likes: nobody else is bound by it.
    assert!(!member_asks(&rig, member, &key, (0, "31 days")).await);
    assert_eq!(numbers(&rig).await, "0 31 days");
    let (quotas, limits) = (rig.process().await, hourly(100));
    rig.take(&quotas, &limits).await.unwrap().ended().await;
    assert_eq!(numbers(&rig).await, "100 01:00:00");
    // And afterwards it names it for itself only.
    assert!(!member_asks(&rig, member, &key, (0, "31 days")).await);
    assert_eq!(numbers(&rig).await, "100 01:00:00");
    let another = rig.process().await;
    rig.take(&another, &limits).await.unwrap().ended().await;
    // What it asks for counts, once limiters count with it.
    let later = "UPDATE rate_limits SET sql_from = sql_from - interval '2 hours'";
    rig.stage.execute(later.to_owned()).await;
    assert!(member_asks(&rig, member, &key, (50, "1 minute")).await);
    rig.end().await;
}

/// Such as of a service whose calls at a time are limited, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_asks_for_a_key_without_windows_stops_nobody() {
    let rig = Rig::new().await;
    let key = rig.key.to_string();
    let member = new_member(&rig).await;
    let limits = bullwark::quota::Limits::default().at_once(2);
    for _ in 0..2 {
        let quotas = rig.process().await;
        rig.take(&quotas, &limits).await.unwrap().ended().await;
        assert!(!member_asks(&rig, member, &key, (0, "31 days")).await);
        assert!(member_asks(&rig, member, &key, (9, "1 minute")).await);
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_an_admin_sets_are_those_that_sql_counts_by() {
    let rig = Rig::new().await;
    let key = rig.key.to_string();
    let member = new_member(&rig).await;
    member_asks(&rig, member, &key, (0, "31 days")).await;
    let limits = serde_json::to_value(hourly(70)).unwrap();
    let place = (DEFAULT_WORKSPACE, key.as_str());
    let shortest = (70, std::time::Duration::from_secs(3600));
    let by = bullwark::record::access::By::OPERATOR;
    let set = bullwark::record::quotas::set_limits(
        &rig.stage.record,
        place,
        Some(&limits),
        shortest,
        &by,
    );
    assert!(set.await.unwrap());
    assert_eq!(numbers(&rig).await, "70 01:00:00");
    member_asks(&rig, member, &key, (0, "31 days")).await;
    assert_eq!(numbers(&rig).await, "70 01:00:00");
    rig.end().await;
}
