//! What is noted when jobs end: each event once, by whatever ends a job, for whoever wants it.

use bullwark::control;
use bullwark::job::{NewJob, QueueName, Status, WireForm};
use bullwark::record::access::By;
use bullwark::record::adopt::{ForeignJob, Standing, adopt_many};
use bullwark::record::mirror::{self, Change};
use bullwark::record::settle::{complete_in, settle_many};
use bullwark::record::start::mark_running;
use bullwark::record::webhooks::{self, NewWebhook};
use uuid::Uuid;

use crate::stage::{
    Stage, completed, discarded, failed, ids, job, running, settled, snoozed, some_jobs,
};

pub(super) const ALL: [&str; 4] = [
    "job.completed",
    "job.failed",
    "job.dead_letter",
    "job.cancelled",
];

pub(super) async fn webhook(
    stage: &Stage,
    workspace_id: Uuid,
    events: &[&str],
    types: Option<&str>,
) -> Uuid {
    let new = NewWebhook {
        id: Uuid::now_v7(),
        workspace_id,
        url: "https://example.com/".into(),
        description: String::new(),
        events: events.iter().map(|event| (*event).to_owned()).collect(),
        job_types: types.map(|name| vec![name.to_owned()]),
        sealed_secret: "sealed".into(),
        created_by: None,
    };
    let made = webhooks::create(&stage.record, &new, &By::OPERATOR).await;
    made.unwrap().unwrap().id
}

pub(super) async fn jobs_of(stage: &Stage, workspace: Uuid, count: usize) -> Vec<Uuid> {
    let mut jobs = some_jobs(count);
    for job in &mut jobs {
        job.workspace_id = Some(workspace);
    }
    stage.insert(&jobs).await;
    ids(&jobs)
}

/// What is noted: (webhook, event, job, its start), in order.
async fn noted(stage: &Stage) -> Vec<(Uuid, String, Uuid, i32)> {
    let mut noted: Vec<(Uuid, String, Uuid, i32)> = sqlx::query_as(
        "SELECT e.webhook_id, e.event, u.job_id, u.start FROM bullwark.webhook_events e,
           unnest(e.job_ids, e.starts) AS u (job_id, start)",
    )
    .fetch_all(&stage.pool)
    .await
    .unwrap();
    noted.sort();
    noted
}

#[tokio::test]
async fn whatever_ends_a_job_notes_it_once() {
    let stage = Stage::new().await;
    let workspace = crate::record_enqueue::workspace(&stage).await;
    let webhook = webhook(&stage, workspace, &ALL, None).await;
    let all = jobs_of(&stage, workspace, 10).await;
    let alike = [
        settled(all[0], 1, "a", completed()),
        settled(all[1], 1, "a", completed()),
    ];
    let mixed = [
        settled(all[2], 1, "a", completed()),
        settled(all[3], 1, "a", failed("x")),
        settled(all[4], 1, "a", discarded("x")),
        settled(all[5], 1, "a", snoozed(std::time::Duration::from_secs(60))),
    ];
    // Those that are told twice, or that have no say, are no news.
    for _ in 0..2 {
        settle_many(&stage.record, &alike).await.unwrap();
        settle_many(&stage.record, &mixed).await.unwrap();
    }
    mark_running(&stage.record, "a", &[running(all[6], 1)])
        .await
        .unwrap();
    let done = settled(all[6], 1, "a", completed());
    let mut tx = stage.record.begin().await.unwrap();
    assert!(complete_in(&mut tx, &done).await.unwrap());
    tx.rollback().await.unwrap();
    let mut tx = stage.record.begin().await.unwrap();
    assert!(complete_in(&mut tx, &done).await.unwrap());
    tx.commit().await.unwrap();
    let (record, broker) = (&stage.record, &stage.broker);
    for _ in 0..2 {
        let by = &By::OPERATOR;
        control::cancel(record, broker, &all[7..8], by, "x")
            .await
            .unwrap();
        control::delete(record, broker, &all[8..9], by, "x")
            .await
            .unwrap();
    }
    let elsewhere = Change {
        id: all[9],
        was: (Status::Pending, 0),
        to: Status::DeadLetter,
        attempt: 1,
        attempts: 0,
        result: None,
        error: Some("x".into()),
        stack: None,
        worker: None,
        started_ms: None,
        due_ms: None,
        ended_ms: None,
        progress: None,
        note: None,
    };
    // It fails twice between two looks, and dies.
    let failing = |attempt: i32| Change {
        was: match attempt {
            1 => (Status::Pending, 0),
            _ => (Status::Failed, attempt - 1),
        },
        to: Status::Failed,
        attempt,
        attempts: attempt,
        ..elsewhere.clone()
    };
    let dies = Change {
        was: (Status::Failed, 2),
        to: Status::DeadLetter,
        attempt: 3,
        attempts: 3,
        ..elsewhere.clone()
    };
    for change in [failing(1), failing(2), dies] {
        for _ in 0..2 {
            mirror::commit(record, &[], std::slice::from_ref(&change), None)
                .await
                .unwrap();
        }
    }

    let mut expected: Vec<_> = [
        ("job.completed", all[0], 1),
        ("job.completed", all[1], 1),
        ("job.completed", all[2], 1),
        ("job.failed", all[3], 1),
        ("job.dead_letter", all[4], 1),
        ("job.completed", all[6], 1),
        ("job.cancelled", all[7], 0),
        ("job.cancelled", all[8], 0),
        ("job.failed", all[9], 1),
        ("job.failed", all[9], 2),
        ("job.dead_letter", all[9], 3),
    ]
    .map(|(event, job, start)| (webhook, event.to_owned(), job, start))
    .to_vec();
    expected.sort();
    assert_eq!(noted(&stage).await, expected);
}

#[tokio::test]
async fn only_who_wants_to_hear_of_it_is_told() {
    let stage = Stage::new().await;
    let workspace = crate::record_enqueue::workspace(&stage).await;
    let other = crate::record_enqueue::workspace(&stage).await;
    let deaths = webhook(&stage, workspace, &["job.dead_letter"], None).await;
    let noops = webhook(&stage, workspace, &ALL, Some("noop")).await;
    let mails = webhook(&stage, workspace, &ALL, Some("mail")).await;
    let asleep = webhook(&stage, workspace, &ALL, None).await;
    let theirs = webhook(&stage, other, &ALL, None).await;
    stage
        .execute(format!(
            "UPDATE webhooks SET is_active = false WHERE id = '{asleep}'"
        ))
        .await;
    let of = |workspace_id, job_type: &str| NewJob {
        workspace_id,
        job_type: job_type.into(),
        ..job()
    };
    let jobs = [
        of(Some(workspace), "noop"),
        of(Some(workspace), "mail"),
        of(Some(workspace), "deliver_webhook"),
        of(Some(other), "mail"),
        of(None, "noop"),
    ];
    stage.insert(&jobs).await;
    let ids = ids(&jobs);
    let dead = ids
        .iter()
        .map(|id| settled(*id, 1, "a", discarded("x")))
        .collect::<Vec<_>>();
    settle_many(&stage.record, &dead).await.unwrap();
    let mut expected: Vec<_> = [
        (deaths, ids[0]),
        (deaths, ids[1]),
        (noops, ids[0]),
        (mails, ids[1]),
        (theirs, ids[3]),
    ]
    .map(|(webhook, id)| (webhook, "job.dead_letter".to_owned(), id, 1))
    .to_vec();
    expected.sort();
    assert_eq!(noted(&stage).await, expected);
}

#[tokio::test]
async fn a_webhook_that_is_deleted_meanwhile_holds_up_no_commit() {
    let stage = Stage::new().await;
    let workspace = crate::record_enqueue::workspace(&stage).await;
    let webhook = webhook(&stage, workspace, &ALL, None).await;
    let all = jobs_of(&stage, workspace, 1).await;
    let mut deleting = stage.pool.begin().await.unwrap();
    sqlx::query("DELETE FROM webhooks WHERE id = $1")
        .bind(webhook)
        .execute(&mut *deleting)
        .await
        .unwrap();
    let done = [settled(all[0], 1, "a", completed())];
    assert_eq!(settle_many(&stage.record, &done).await.unwrap().len(), 1);
    deleting.commit().await.unwrap();
    assert_eq!(noted(&stage).await.len(), 1);
    let made = bullwark::record::webhook_events::make_deliveries(&stage.record).await;
    assert_eq!(made.unwrap(), 1, "and is told of nothing");
    assert_eq!(stage.count("bullwark.webhook_deliveries").await, 0);
    assert_eq!(stage.count("bullwark.webhook_events").await, 0);
}

/// A BullMQ worker may have run the job of a workspace's schedule before anybody saw it wait.
#[tokio::test]
async fn a_job_that_is_over_when_it_is_adopted_is_told_of_once() {
    let stage = Stage::new().await;
    let workspace = crate::record_enqueue::workspace(&stage).await;
    let webhook = webhook(&stage, workspace, &ALL, None).await;
    let queue = QueueName::default();
    let adopted = |wire_id: &str, standing| {
        let wire = WireForm {
            opts: "{}".into(),
            rjk: Some(format!("nightly@{workspace}")),
            ..WireForm::default()
        };
        let id = Uuid::now_v7();
        ForeignJob::new(id, wire_id.into(), &queue, "report", "{}")
            .with_numbers(0, 3)
            .with_starts(1)
            .with_wire(wire)
            .with_standing(standing)
    };
    let done = Standing::Completed {
        result: "1".into(),
        started_ms: Some(1),
        ended_ms: 2,
    };
    let dead = Standing::Dead {
        error: "x".into(),
        stack: None,
        started_ms: Some(1),
        ended_ms: 2,
    };
    let jobs = [
        adopted("repeat:nightly:1", done),
        adopted("repeat:nightly:2", dead),
        adopted("repeat:nightly:3", Standing::Waiting),
    ];
    for _ in 0..2 {
        adopt_many(&stage.record, &jobs).await.unwrap();
    }
    let expected = [
        (webhook, "job.completed".to_owned(), jobs[0].id(), 1),
        (webhook, "job.dead_letter".to_owned(), jobs[1].id(), 1),
    ];
    assert_eq!(noted(&stage).await, expected);
}
