//! PostgreSQL has no room left.
//!
//! A full disk without a disk: the files of its processes may not grow beyond a size
//! (`RLIMIT_FSIZE`), which the table of jobs has reached.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use bullwark::stores::Stores;
use serde_json::json;

use sqlx::PgConnection;

use super::site::{Site, id_of};
use crate::support::{connect, execute};
use crate::worker::rig::eventually;
use crate::worker::script::Act;

/// Files of the write-ahead log have this size: they must stay possible.
const LOG_FILE: u64 = 16 * 1024 * 1024;

/// So large may files of PostgreSQL's processes become from now on; none: as large as they like.
async fn limit(stores: &Stores, bytes: Option<u64>) {
    // Those that are started from now on get it from the first.
    limit_of(stores, stores.postgres_pid().unwrap() as i32, bytes);
    let mut own = connect(stores, "bullwark").await;
    let pids: Vec<i32> = sqlx::query_scalar("SELECT pid FROM pg_stat_activity")
        .fetch_all(&mut own)
        .await
        .unwrap();
    for pid in pids {
        limit_of(stores, pid, bytes);
    }
}

fn limit_of(stores: &Stores, pid: i32, bytes: Option<u64>) {
    // As the user whose process it is: even root may not have the right to another's limits.
    let owner = std::fs::metadata(stores.postgres_dir()).unwrap();
    let soft = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let limited = Command::new("prlimit")
        .uid(owner.uid())
        .gid(owner.gid())
        .args(["--pid", &pid.to_string(), &format!("--fsize={soft}:")])
        .output()
        .unwrap();
    let exists = std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(limited.status.success() || !exists, "{pid}: {limited:?}");
}

/// Old jobs, each of which fills a page, until their table is larger than a file of the log.
const FILL: &str = "ALTER TABLE jobs ALTER payload SET STORAGE PLAIN;
    INSERT INTO jobs (id, job_type, job_queue, payload, status, completed_at)
      SELECT bullwark.uuid_v7(), 'scripted', 'default', to_jsonb(repeat('x', 7500)),
        'completed', now() FROM generate_series(1, 2200)";

async fn table_size(own: &mut PgConnection) -> u64 {
    let size: i64 = sqlx::query_scalar("SELECT pg_relation_size('jobs')")
        .fetch_one(own)
        .await
        .unwrap();
    size as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_without_room_takes_nothing_and_gets_everything_later() {
    let site = Site::new().await;
    // Their results need more room than there is beside them, and are too short to be moved out.
    let acts = [Act::Wait { gate: "go".into() }, Act::Large { bytes: 1300 }];
    let mut own = connect(&site.stores, "bullwark").await;
    execute(&mut own, FILL).await;
    let mut ids = Vec::new();
    for n in 0..8 {
        let request = crate::worker::script::scripted(&format!("large{n}"), &[&acts]);
        ids.push(site.rig.enqueue(request).await);
    }
    site.rig.probe.starts(ids.len()).await;
    for id in &ids {
        site.rig.until(*id, "processing").await;
    }
    let size = table_size(&mut own).await;
    assert!(size > LOG_FILE, "{size}");
    limit(&site.stores, Some(size)).await;

    site.rig.probe.open("go");
    let full = site.until_state("postgres", "full").await;
    assert_eq!(
        (full.status, &full.body["status"]),
        (503, &json!("unavailable"))
    );
    assert!(full.body["held_outcomes"].as_u64().unwrap() > 0);
    // What fits is accepted, until nothing does.
    let mut names = 0..;
    let refused = eventually("a job that does not fit", async || {
        let name = format!("new{}", names.next()?);
        let answer = site.caller.post(&name, &[]).await;
        match answer.status {
            201 | 202 => {
                ids.push(id_of(&answer.body));
                None
            }
            _ => Some(answer),
        }
    })
    .await;
    refused.problem(503, "record_unavailable");
    assert_eq!(refused.header("retry-after"), "2");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE id = ANY($1)")
        .bind(&ids)
        .fetch_one(&mut own)
        .await
        .unwrap();
    let all: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE workspace_id IS NOT NULL")
        .fetch_one(&mut own)
        .await
        .unwrap();
    assert_eq!(
        (rows, all),
        (ids.len() as i64, rows),
        "only what was accepted"
    );

    limit(&site.stores, None).await;
    site.until_well().await;
    let name = format!("new{}", names.next().unwrap());
    let answer = site.caller.post(&name, &[]).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    ids.push(id_of(&answer.body));
    site.until_done(&ids).await;
    assert_eq!(site.repeated(), [""; 0]);
    assert_eq!(site.rig.probe.started().len(), ids.len());
    site.end().await;
}
