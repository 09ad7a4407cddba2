//! A standby that lagged behind takes the place of the record that died.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bullwark::job::JobRequest;
use bullwark::stores::{Kill, Stores, StoresOptions};
use serde_json::json;
use sqlx::PgConnection;

use crate::support::proxy::Proxy;
use crate::support::{connect, execute, own_stores};
use crate::worker::probe::What;
use crate::worker::rig::{LIMIT, Rig};
use crate::worker::script::{scripted, succeed, wait};

const DATABASE: &str = "bullwark";

/// A second server that follows a first one.
struct Standby {
    stores: Stores,
    connection: PgConnection,
}

impl Standby {
    async fn of(primary: &Stores) -> Self {
        let options = StoresOptions::throwaway();
        // Its account must be able to pass.
        let mut passable = std::fs::DirBuilder::new();
        passable.mode(0o711).create(&options.dir).unwrap();
        copy(primary, &options.dir.join("postgres/data"));
        let stores = Stores::start(options).await.unwrap();
        let connection = connect(&stores, DATABASE).await;
        Self { stores, connection }
    }

    async fn tells(&mut self, question: &'static str) -> i64 {
        let answer = sqlx::query_scalar(question).fetch_one(&mut self.connection);
        answer.await.unwrap()
    }

    async fn until(&mut self, question: &'static str, answer: i64) {
        let deadline = Instant::now() + LIMIT;
        while self.tells(question).await != answer {
            assert!(Instant::now() < deadline, "{question}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// From here on it hears nothing from its primary.
    async fn fall_behind(&mut self) {
        execute(
            &mut self.connection,
            "ALTER SYSTEM SET primary_conninfo = ''",
        )
        .await;
        execute(&mut self.connection, "SELECT pg_reload_conf()").await;
        self.until("SELECT count(*) FROM pg_stat_wal_receiver", 0)
            .await;
    }

    async fn promote(&mut self) {
        execute(&mut self.connection, "SELECT pg_promote()").await;
        let is_standby = "SELECT pg_is_in_recovery()::int::bigint";
        self.until(is_standby, 0).await;
    }
}

fn place(stores: &Stores) -> String {
    format!("127.0.0.1:{}", stores.postgres_port())
}

/// A copy of the data of a running server, that follows it once it is started.
fn copy(primary: &Stores, data: &Path) {
    let of_primary = primary.postgres_dir().join("data");
    let server = format!("/proc/{}/exe", primary.postgres_pid().unwrap());
    let server = std::fs::read_link(server).unwrap();
    let copied = Command::new(server.with_file_name("pg_basebackup"))
        .args([
            "--host=127.0.0.1",
            "--username=bullwark",
            "--checkpoint=fast",
        ])
        .args(["--write-recovery-conf", "--no-sync", "--pgdata"])
        .arg(data)
        .arg(format!("--port={}", primary.postgres_port()))
        .output()
        .unwrap();
    assert!(copied.status.success(), "{copied:?}");
    let owner = std::fs::metadata(of_primary).unwrap();
    hand_over(data, owner.uid(), owner.gid());
}

fn hand_over(path: &Path, uid: u32, gid: u32) {
    chown(path, Some(uid), Some(gid)).unwrap();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            hand_over(&entry.unwrap().path(), uid, gid);
        }
    }
}

/// Jobs and outcomes that the standby had not heard of are written back before anything is claimed,
/// and whoever is responsible is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_gets_back_what_it_had_not_heard_of() {
    let mut primary = own_stores().await;
    let proxy = Proxy::before(&place(&primary)).await;
    let rig = Rig::on_stores_behind(&primary, &proxy).await.with_upkeep();
    let mut standby = Standby::of(&primary).await;
    let worker = rig.work(|options| options.slots = 4);
    let later = |name: &str| JobRequest {
        delay_ms: Some(3_600_000),
        ..scripted(name, &[&[succeed(json!("at last"))]])
    };
    let running = scripted("running", &[&[wait("go"), succeed(json!("ran"))]]);
    let running = rig.enqueue(running).await;
    let known = rig.enqueue(later("known")).await;
    rig.probe.starts(1).await;
    rig.until(running, "processing").await;
    standby
        .until("SELECT count(*) FROM jobs WHERE status = 'processing'", 1)
        .await;
    standby.until("SELECT count(*) FROM jobs", 2).await;

    standby.fall_behind().await;
    let unheard = rig.enqueue(later("unheard")).await;
    let done = scripted("done", &[&[succeed(json!({ "n": 7 }))]]);
    let done = rig.enqueue(done).await;
    let across = scripted("across", &[&[wait("later"), succeed(json!("at the end"))]]);
    let across = rig.enqueue(across).await;
    rig.probe.starts_named("across", 1).await;
    rig.probe.open("go");
    for id in [running, done] {
        rig.until_redis(id, "Completed").await;
    }
    rig.until_redis(unheard, "Delayed").await;
    primary.kill_postgres(Kill::Immediately).await;
    assert_eq!(standby.tells("SELECT count(*) FROM jobs").await, 2);
    // It ends while no server answers, and its row is on none that ever will.
    rig.probe.open("later");
    rig.probe.saw("across", |what| *what == What::Gone).await;
    standby.promote().await;
    proxy.lead_to(&place(&standby.stores));

    let told = "SELECT count(*) FROM bullwark.alerts WHERE kind = 'record_lost_its_tail'
      AND details->>'jobs' = '3' AND details->>'outcomes' = '1'";
    standby.until(told, 1).await;
    let marked = "SELECT count(*) FROM job_logs WHERE message LIKE 'recovered:%'";
    assert_eq!(standby.tells(marked).await, 4);
    let homeless = "SELECT count(*) FROM jobs WHERE workspace_id IS NULL";
    assert_eq!(standby.tells(homeless).await, 0, "taken for clients' jobs");
    assert_eq!(
        rig.until(running, "completed").await.result,
        Some(json!("ran"))
    );
    let found = rig.until(done, "completed").await;
    assert_eq!(found.result, Some(json!({ "n": 7 })));
    let found = rig.until(across, "completed").await;
    assert_eq!(found.result, Some(json!("at the end")), "held until then");
    for id in [known, unheard] {
        assert_eq!(rig.job(id).await.status, "pending");
        assert_eq!(rig.redis_state(id).await.as_deref(), Some("Delayed"));
    }
    // It works on, and nothing ran twice.
    let next = rig.enqueue(scripted("next", &[&[succeed(json!(1))]])).await;
    rig.until(next, "completed").await;
    let mut started = rig.probe.started();
    started.sort();
    assert_eq!(started, ["across", "done", "next", "running"]);
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
    drop(standby.connection);
    standby.stores.stop().await.unwrap();
    primary.stop().await.unwrap();
}
