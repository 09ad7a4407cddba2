//! Redis is there and answers nothing, or that it is busy; and it forgets scripts.

use std::time::{Duration, Instant};

use bullwark::tasks::Tasks;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::load::Load;
use super::site::{LEASE, Site, set};
use crate::worker::probe::What;

/// The handlers of these jobs were told nothing, and ran once.
fn assert_undisturbed(site: &Site) {
    assert_eq!(site.repeated(), [""; 0]);
    let told = |note: &crate::worker::probe::Note| note.what == What::Told;
    assert!(
        !site.rig.probe.notes().iter().any(told),
        "no lease was lost"
    );
}

/// A script of somebody else that does not end: `BUSY` is a reason to try again, and missed
/// renewals cost no lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_redis_costs_no_lease_and_no_job() {
    let site = Site::new().await;
    let mut ids = site.running(6, "go").await;
    let mut redis = site.redis().await;
    let client = redis::Client::open(site.stores.redis_url.as_str()).unwrap();
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let other = client.get_multiplexed_async_connection_with_config(&patient);
    let mut other = other.await.unwrap();
    set(&mut redis, "busy-reply-threshold", "10").await;
    let began = Instant::now();
    let endless = Tasks::new();
    endless.spawn("endless script", async move {
        let mut eval = redis::cmd("EVAL");
        eval.arg("while true do end").arg(0);
        let killed = eval.exec_async(&mut other).await.unwrap_err();
        assert!(killed.to_string().contains("killed"), "{killed}");
    });
    let busy = site.until_state("redis", "busy").await;
    assert_eq!(
        (busy.status, &busy.body["status"]),
        (200, &json!("degraded"))
    );
    for n in 0..5 {
        ids.push(site.caller.accepted(&format!("new{n}")).await);
    }
    // More than one renewal is missed.
    tokio::time::sleep((LEASE / 2).saturating_sub(began.elapsed())).await;
    let mut end = redis::cmd("SCRIPT");
    end.arg("KILL").exec_async(&mut redis).await.unwrap();
    endless.drained().await;
    site.until_well().await;
    for id in &ids[6..] {
        site.rig.until(*id, "completed").await;
    }
    assert_undisturbed(&site);
    site.rig.probe.open("go");
    site.until_done(&ids).await;
    assert_undisturbed(&site);
    site.end().await;
}

/// A server that stands still, as with `DEBUG SLEEP`: for less than a lease, and for two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stands_still_runs_nothing_twice() {
    let site = Site::new().await;
    let pid = Pid::from_raw(site.stores.redis_pid().unwrap() as i32);
    let mut ids = site.running(4, "go").await;
    for (round, time) in [LEASE / 2, LEASE * 2].into_iter().enumerate() {
        let began = Instant::now();
        kill(pid, Signal::SIGSTOP).unwrap();
        let away = site.until_state("redis", "away").await;
        assert_eq!(away.status, 200);
        ids.push(site.caller.accepted(&format!("new{round}")).await);
        tokio::time::sleep(time.saturating_sub(began.elapsed())).await;
        kill(pid, Signal::SIGCONT).unwrap();
        site.until_well().await;
        site.rig.until(*ids.last().unwrap(), "completed").await;
        assert_undisturbed(&site);
    }
    site.rig.probe.open("go");
    site.until_done(&ids).await;
    assert_undisturbed(&site);
    for id in &ids {
        assert!(site.rig.failures(*id).await.is_empty());
    }
    site.end().await;
}

/// Scripts that Redis does not know any more are loaded again, and nobody sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_are_flushed_under_load_are_not_missed() {
    let site = Site::new().await;
    let mut redis = site.redis().await;
    let load = Load::start(&site.caller);
    for _ in 0..30 {
        let mut flush = redis::cmd("SCRIPT");
        flush.arg("FLUSH").exec_async(&mut redis).await.unwrap();
        load.more(4).await;
        let ready = site.ready().await.body;
        assert_eq!(ready["status"], "ok", "{ready}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(load.refused(), 0);
    let ids = load.end().await;
    site.until_done(&ids).await;
    assert_undisturbed(&site);
    site.end().await;
}
