//! Workspaces that share a queue take turns in it, with both stores.

use std::collections::HashMap;

use bullwark::control;
use bullwark::job::{NewJob, QueueChange, QueueName};
use bullwark::reconcile;
use bullwark::record::access::By;
use uuid::Uuid;

use crate::reconcile::deliver;
use crate::stage::{Stage, some_jobs};

struct Two {
    stage: Stage,
    many: Uuid,
    few: Uuid,
}

impl Two {
    async fn new() -> Self {
        let stage = Stage::new().await;
        readmit(&stage).await;
        let (many, few) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for id in [many, few] {
            let sql = format!("INSERT INTO workspaces (id, name) VALUES ('{id}', 'x')");
            stage.execute(sql).await;
        }
        Self { stage, many, few }
    }

    /// Jobs that both stores have, as an enqueue leaves them.
    async fn come(&self, owner: Uuid, count: usize) {
        let one = |job| NewJob {
            workspace_id: Some(owner),
            ..job
        };
        let jobs: Vec<NewJob> = some_jobs(count).into_iter().map(one).collect();
        for jobs in jobs.chunks(200) {
            self.stage.insert(jobs).await;
            deliver(&self.stage, jobs).await;
        }
    }

    async fn set_fair(&self, is_fair: bool) {
        let change = QueueChange {
            is_fair: Some(is_fair),
            ..QueueChange::default()
        };
        let (record, broker) = (&self.stage.record, &self.stage.broker);
        let noted = (&By::OPERATOR, None);
        control::change_queue(record, broker, &QueueName::default(), &change, noted)
            .await
            .unwrap();
    }

    /// Claims so many; how many of them are of whom.
    async fn claim(&self, max: usize) -> (usize, usize) {
        let options = bullwark::broker::ClaimOptions {
            max,
            ..crate::stage::claim_options("w")
        };
        let queue = QueueName::default();
        let claimed = self.stage.broker.claim(&queue, &options);
        let ids: Vec<Uuid> = claimed.await.unwrap().jobs.iter().map(id_of).collect();
        let mut count: HashMap<Uuid, usize> = HashMap::new();
        for id in ids {
            let owner = self.stage.row(id).await.workspace_id.unwrap();
            *count.entry(owner).or_default() += 1;
        }
        let of = |owner| count.get(owner).copied().unwrap_or_default();
        (of(&self.many), of(&self.few))
    }
}

fn id_of(job: &bullwark::broker::ClaimedJob) -> Uuid {
    job.id.parse().unwrap()
}

async fn readmit(stage: &Stage) {
    while !reconcile::readmit(&stage.record, &stage.broker)
        .await
        .unwrap()
    {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_queue_becomes_fair_while_one_workspace_has_filled_it() {
    let two = Two::new().await;
    two.come(two.many, 1200).await;
    two.come(two.few, 10).await;
    assert_eq!(two.claim(50).await, (50, 0), "first come, first served");
    two.set_fair(true).await;
    assert_eq!(two.claim(20).await, (10, 10));
    two.come(two.few, 5).await;
    assert_eq!(two.claim(10).await, (5, 5));
    two.set_fair(false).await;
    two.come(two.few, 5).await;
    assert_eq!(two.claim(50).await, (50, 0));
}

#[tokio::test]
async fn a_redis_that_lost_its_memory_is_fair_again() {
    let two = Two::new().await;
    two.set_fair(true).await;
    two.come(two.many, 400).await;
    two.come(two.few, 10).await;
    let older = "UPDATE jobs SET created_at = created_at - interval '1 minute'";
    two.stage.execute(older.into()).await;
    two.stage.flush_prefix().await;
    readmit(&two.stage).await;
    assert_eq!(two.claim(20).await, (10, 10));
}

/// The process died after the record had it, or Redis was away: upkeep tells it.
#[tokio::test]
async fn what_nobody_told_is_told_later_with_all_that_waits() {
    let two = Two::new().await;
    two.come(two.many, 600).await;
    two.come(two.few, 10).await;
    two.set_fair(true).await;
    // As it is when it died before it was done.
    let queue = QueueName::default();
    two.stage.broker.set_fair(&queue, false).await.unwrap();
    let mut from = two.stage.broker.arrange(&queue, None).await.unwrap();
    while from.is_some() {
        from = two.stage.broker.arrange(&queue, from).await.unwrap();
    }
    let untold = "UPDATE bullwark.queues SET is_told = false, untold = '{fair}'";
    two.stage.execute(untold.into()).await;
    reconcile::keep_queues(&two.stage.record, &two.stage.broker)
        .await
        .unwrap();
    assert_eq!(two.claim(20).await, (10, 10));
}
