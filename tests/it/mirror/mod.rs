//! The record follows what `BullMQ` clients do in Redis.

mod follow;
mod links;
mod logs;
mod losses;
mod people;
mod spoiled;

use bullwark::broker::{self, Fail, Finish, Keep, Retry};
use bullwark::job::QueueName;
use bullwark::reconcile::{self, Mirror};
use bullwark::record::adopt::record_id;
use uuid::Uuid;

use crate::stage::{Stage, eventually};

const T: i64 = 1_700_000_000_000;

/// A follower of the stage's prefix that works when it is told to.
pub(crate) struct Follower<'a> {
    stage: &'a Stage,
    mirror: Mirror,
}

impl<'a> Follower<'a> {
    pub(crate) fn new(stage: &'a Stage) -> Self {
        let mirror = Mirror::new(stage.record.clone(), stage.broker.clone());
        Self { stage, mirror }
    }

    /// Follows until the row of the job has this status.
    pub(crate) async fn until(&mut self, id: Uuid, status: &str) {
        let what = format!("{id} is {status}");
        eventually(&what, async || {
            self.mirror.step().await.unwrap();
            let row =
                bullwark::record::jobs::get(&mut self.stage.record.view().await.unwrap(), id, None)
                    .await
                    .unwrap();
            (row?.status == status).then_some(())
        })
        .await;
    }

    /// Follows until there is nothing to follow: a job that is added last is known.
    pub(crate) async fn catch_up(&mut self) {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let last = foreign(&format!("last-{number}"));
        let id = self.stage.add(&[last]).await[0];
        self.until(id, "pending").await;
    }
}

pub(crate) fn foreign(id: &str) -> broker::NewJob {
    broker::NewJob {
        id: id.into(),
        name: "mail".into(),
        data: r#"{"to":"x"}"#.into(),
        opts: r#"{"attempts":3}"#.into(),
        timestamp_ms: T,
        ..Default::default()
    }
}

impl Stage {
    /// Adds jobs as a client does; returns the ids that the record gives them.
    pub(crate) async fn add(&self, jobs: &[broker::NewJob]) -> Vec<Uuid> {
        let queue = QueueName::default();
        self.broker.add(&queue, jobs).await.unwrap();
        jobs.iter()
            .map(|job| record_id(&self.prefix, &queue, &job.id, job.timestamp_ms))
            .collect()
    }

    /// Claims everything as a foreign worker.
    async fn claim_elsewhere(&self) -> Vec<String> {
        self.claim("node:1")
            .await
            .jobs
            .into_iter()
            .map(|job| job.id)
            .collect()
    }

    async fn finish_elsewhere(&self, id: &str, value: &str, keep: Keep) {
        let finish = Finish {
            id: id.into(),
            token: "node:1".into(),
            returnvalue: value.into(),
            keep,
        };
        self.broker
            .finish(&QueueName::default(), &[finish])
            .await
            .unwrap();
    }

    async fn fail_elsewhere(&self, id: &str, why: &str) {
        let fail = Fail {
            id: id.into(),
            token: "node:1".into(),
            reason: why.into(),
            stacktrace: r#"["at x"]"#.into(),
            attempts: 3,
            keep: Keep::All,
        };
        self.broker
            .fail(&QueueName::default(), &[fail])
            .await
            .unwrap();
    }

    async fn retry_elsewhere(&self, id: &str, why: &str, delay_ms: i64) {
        let retry = Retry {
            id: id.into(),
            token: "node:1".into(),
            delay_ms,
            reason: why.into(),
            stacktrace: r#"["at x"]"#.into(),
            count_attempt: true,
            lifo: false,
        };
        self.broker
            .retry(&QueueName::default(), &[retry])
            .await
            .unwrap();
    }

    /// Sends raw commands; `@` stands for the start of the queue's keys.
    pub(crate) async fn raw(&self, commands: &[&str]) {
        let mut redis = self.redis().await;
        for command in commands {
            let mut words = command.split(' ');
            let mut cmd = redis::cmd(words.next().unwrap());
            for word in words {
                cmd.arg(word.replace('@', &format!("{}:default:", self.prefix)));
            }
            cmd.exec_async(&mut redis).await.unwrap();
        }
    }

    /// Every row, for comparing before and after.
    async fn everything(&self) -> String {
        self.scalar(
            "SELECT coalesce(string_agg(j::text, E'\n' ORDER BY id), '')
               || (SELECT count(*) FROM job_logs) || (SELECT count(*) FROM job_failures)
             FROM jobs j"
                .into(),
        )
        .await
    }

    async fn sweep(&self) {
        let mut after = Uuid::nil();
        while let Some(next) = reconcile::sweep_open(&self.record, &self.broker, after)
            .await
            .unwrap()
        {
            after = next;
        }
    }
}
