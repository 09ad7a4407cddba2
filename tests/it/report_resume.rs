//! Reports that end in the middle, and the attempts after them.

use std::path::PathBuf;

use bullwark::handlers::generate_report::{GenerateReport, GenerateReportHandler, Summary};
use bullwark::job::{JobError, webhook};
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::storage::Storage;
use bullwark::worker::{Detached, Handler, JobContext};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::report::some_day;
use crate::webhooks::rig::Rig;

const WORKER: &str = "test";

impl Rig {
    /// A report that runs as attempt 1, and was due so many days ago.
    async fn running_report(&self, days: u32) -> Uuid {
        let id = Uuid::now_v7();
        self.sql(format!(
            "INSERT INTO jobs (id, workspace_id, job_type, payload, status, attempt, worker_id,
               scheduled_for)
             VALUES ('{id}', '{DEFAULT_WORKSPACE}', 'generate_report', '{{}}', 'processing', 1,
               '{WORKER}', now() - interval '{days} days')"
        ))
        .await;
        id
    }

    async fn context(&self, job_id: Uuid, attempt: i32) -> JobContext {
        let checkpoint = sqlx::query_scalar("SELECT checkpoint FROM jobs WHERE id = $1");
        let checkpoint: Option<Value> =
            checkpoint.bind(job_id).fetch_one(&self.pool).await.unwrap();
        JobContext::detached(Detached {
            record: self.server.app.record.clone(),
            job_id,
            attempt,
            worker_id: WORKER.to_owned(),
            workspace_id: Some(DEFAULT_WORKSPACE),
            checkpoint,
            cancelled: CancellationToken::new(),
        })
    }

    async fn attempt(&self, job: Uuid, attempt: i32) -> Result<Summary, JobError> {
        let next = format!("UPDATE jobs SET attempt = {attempt} WHERE id = '{job}'");
        self.sql(next).await;
        let context = self.context(job, attempt).await;
        self.reporter().run(context, payload()).await
    }

    fn reporter(&self) -> GenerateReportHandler {
        GenerateReportHandler {
            storage: Storage::local(self.server.data_dir.path()),
            public_url: None,
        }
    }

    fn path(&self, name: String) -> PathBuf {
        self.server.data_dir.path().join("exports").join(name)
    }
}

fn payload() -> GenerateReport {
    let payload = json!({ "period": "last_7_days", "format": "csv" });
    serde_json::from_value(payload).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_goes_on_where_the_one_before_ended() {
    let rig = Rig::guarded().await;
    let job = rig.running_report(2).await;
    // The disk fails the first one, which has fixed the period.
    let exports = rig.server.data_dir.path().join("exports");
    std::fs::remove_dir_all(&exports).ok();
    std::fs::write(&exports, "in the way").unwrap();
    let failed = rig.attempt(job, 1).await.unwrap_err();
    assert!(matches!(failed, JobError::Retry(_)), "{failed:?}");
    std::fs::remove_file(&exports).unwrap();
    let today = bullwark::clock::now().date_naive();
    let later = format!("UPDATE jobs SET scheduled_for = now() WHERE id = '{job}'");
    rig.sql(later).await;
    let first = rig.attempt(job, 2).await.unwrap();
    let ended = today - first.to.date_naive();
    assert!(
        (2..=3).contains(&ended.num_days()),
        "as it was due: {first:?}"
    );
    assert_eq!((first.to - first.from).num_days(), 7);

    // Its outcome was lost. What ended meanwhile does not change a file that is whole.
    rig.ended(DEFAULT_WORKSPACE, some_day(), "late", 7).await;
    let whole = rig.path(format!("{job}.csv"));
    let again = rig.attempt(job, 3).await.unwrap();
    assert_eq!((&again.sha256, again.from), (&first.sha256, first.from));
    assert!(!std::fs::read_to_string(&whole).unwrap().contains("late"));

    // It died before the file had its name.
    std::fs::rename(&whole, rig.path(format!("{job}.2.part"))).unwrap();
    let named = rig.attempt(job, 4).await.unwrap();
    assert_eq!(named.sha256, first.sha256);
    assert!(whole.exists() && !rig.path(format!("{job}.2.part")).exists());

    // It went on where the file is not: a new one, of the same days.
    std::fs::remove_file(&whole).unwrap();
    let anew = rig.attempt(job, 5).await.unwrap();
    assert_eq!((anew.from, anew.to), (first.from, first.to));
    assert!(
        std::fs::read_to_string(&whole)
            .unwrap()
            .contains("types,late,completed,7")
    );

    // One that lost its lease writes nothing that anybody reads.
    let zombie = rig.context(job, 4).await;
    let lost = rig.reporter().run(zombie, payload()).await.unwrap_err();
    assert_eq!(lost, JobError::LeaseLost);
    let content = std::fs::read_to_string(&whole).unwrap();
    assert_eq!(content.len() as u64, anew.bytes);
    let left = std::fs::read_dir(&exports).unwrap().count();
    assert_eq!(left, 1, "no part file is left");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_whose_worker_dies_is_there_once() {
    let rig = Rig::guarded().await;
    let id = rig
        .enqueue(json!({ "jobType": "generate_report", "queue": webhook::QUEUE }))
        .await;
    rig.work_until_it_dies("after_handler:abort:nth=1").await;
    let whole = rig.path(format!("{id}.html"));
    let before = std::fs::read(&whole).unwrap();
    let rescue = rig.rescue();
    let working = rig.work();
    let done = rig.until(&id, "completed").await["result"].clone();
    assert_eq!(done["bytes"], before.len());
    assert_eq!(std::fs::read(&whole).unwrap(), before);
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM exports WHERE status = 'completed'")
        .fetch_one(&rig.pool)
        .await
        .unwrap();
    assert_eq!(rows, 1);
    drop(rescue);
    working.hurry().await;
    rig.end().await;
}
