//! A workspace has so many schedules at most, also when two are made at once.

use bullwark::record::workspaces::DEFAULT_WORKSPACE;

use crate::http::server;
use crate::http_schedules::{every, put};
use crate::stage::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_do_not_both_get_the_last_place() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let others = "INSERT INTO bullwark.schedules (prefix, job_queue, schedule_id, fields)
      SELECT $1, 'mails', n || '@' || $2, '{}' FROM generate_series(1, 999) n";
    sqlx::query(others)
        .bind(&sandbox.prefix)
        .bind(DEFAULT_WORKSPACE.to_string())
        .execute(&pool)
        .await
        .unwrap();
    // Both have looked before either writes.
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE bullwark.schedules IN SHARE MODE")
        .execute(&mut *holder)
        .await
        .unwrap();
    let both = async {
        tokio::join!(
            put(&server, "mails/one", every(60_000)),
            put(&server, "mails/other", every(60_000))
        )
    };
    let release = async {
        eventually("both wait", async || {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
              AND datname = current_database()";
            let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&pool).await.unwrap();
            (waiting == 2).then_some(())
        })
        .await;
        holder.commit().await.unwrap();
    };
    let ((one, other), ()) = tokio::join!(both, release);
    let refused = if one.status == 201 { &other } else { &one };
    assert_eq!((one.status.min(other.status), refused.status), (201, 409));
    let detail = refused.problem(409, "too_many_schedules");
    assert_eq!(
        detail,
        "this workspace has 1000 schedules, which is the most"
    );
    // What is there may be changed.
    let taken = if one.status == 201 {
        "mails/one"
    } else {
        "mails/other"
    };
    assert_eq!(put(&server, taken, every(30_000)).await.status, 200);
    server.end().await;
}
