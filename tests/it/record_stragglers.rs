//! Old open jobs are noted with their workspace: each pays for its own, whoever noted them.

use std::time::Duration;

use bullwark::job::{Change, Due, NewJob, Status};
use bullwark::reconcile::{self, relay_outbox};
use bullwark::record::access::By;
use bullwark::record::actions::{self, Created, NewAction, Undo};
use bullwark::record::control::{cancel_many, retry_many};
use bullwark::record::drain::{Draining, drain_next};
use bullwark::record::list::{JobFilter, Search, list_page, recent_failures};
use bullwark::record::restart::{Asked, reopen_many};
use bullwark::record::settle::settle_many;
use bullwark::record::stats::count_open;
use bullwark::record::stragglers::name_owners;
use bullwark::record::{Record, RecordOptions, View, Viewer, events};
use uuid::Uuid;

use crate::record_enqueue::workspace;
use crate::stage::{Stage, completed, eventually, ids, old_job, settled};

const HOUR: Duration = Duration::from_secs(3600);

fn old_jobs(workspace_id: Option<Uuid>, count: usize) -> Vec<NewJob> {
    let job = || NewJob {
        workspace_id,
        due: Due::At(bullwark::clock::now() + HOUR),
        ..old_job(HOUR)
    };
    std::iter::repeat_with(job).take(count).collect()
}

async fn seal(stage: &Stage) {
    while reconcile::seal(&stage.record).await.unwrap() {}
}

#[tokio::test]
async fn whoever_notes_an_open_job_says_whose_it_is() {
    let stage = Stage::new().await;
    let (record, id) = (&stage.record, workspace(&stage).await);
    let jobs = [old_jobs(Some(id), 6), old_jobs(None, 2)].concat();
    stage.insert_back_then(&jobs).await;
    let jobs = ids(&jobs);
    seal(&stage).await;
    assert_eq!(stage.stragglers_of_their_owners().await, 8, "by the seal");
    stage.insert(&old_jobs(Some(id), 1)).await;
    assert_eq!(stage.stragglers_of_their_owners().await, 9, "by a late one");

    stage
        .execute("DELETE FROM bullwark.stragglers".into())
        .await;
    cancel_many(record, &jobs[..1], &By::OPERATOR, "x")
        .await
        .unwrap();
    retry_many(record, &jobs[..1], &By::OPERATOR).await.unwrap();
    assert_eq!(stage.stragglers_of_their_owners().await, 1, "by a retry");

    let outcome = settled(jobs[1], 1, "a", completed());
    settle_many(record, &[outcome]).await.unwrap();
    let asked = Asked {
        id: jobs[1],
        number: 2,
        made: 0,
    };
    assert_eq!(reopen_many(record, &[asked], false).await.unwrap(), 1);
    assert_eq!(stage.stragglers_of_their_owners().await, 2, "by a client");

    stage
        .execute(format!(
            "INSERT INTO bullwark.outbox (job_id) VALUES ('{}')",
            jobs[2]
        ))
        .await;
    relay_outbox(record, &stage.broker).await.unwrap();
    assert_eq!(stage.stragglers_of_their_owners().await, 3, "by the relay");

    let new = NewAction {
        workspace_id: id,
        change: Change::Cancel,
        filter: &JobFilter {
            ids: Some(vec![jobs[3]]),
            ..JobFilter::default()
        },
        reason: "x",
        limit: None,
        expected: None,
        key: None,
    };
    let Created::New(cancel) = actions::create(record, &new, &By::OPERATOR).await.unwrap() else {
        panic!("it is new")
    };
    actions::step(record, cancel.id).await.unwrap();
    let undo = actions::undo(record, id, cancel.id, &By::OPERATOR, "x")
        .await
        .unwrap();
    let Undo::Made(undo) = undo else {
        panic!("{undo:?}")
    };
    actions::step(record, undo.id).await.unwrap();
    assert_eq!(stage.status(jobs[3]).await, "pending");
    assert_eq!(stage.stragglers_of_their_owners().await, 4, "by an undo");
}

/// What a workspace sees of its open jobs, in every way of looking: how many jobs each one shows.
async fn looks(record: &Record, id: Uuid) -> Vec<usize> {
    let tenant = async || record.view_for(Viewer::Tenant(id)).await.unwrap();
    let pending = |search| JobFilter {
        workspace_id: Some(id),
        status: Some(Status::Pending),
        search,
        limit: 50,
        ..JobFilter::default()
    };
    let text = Search {
        text: Some("e".into()),
        ..Search::default()
    };
    let page = async |view: &mut View, filter| list_page(view, &filter).await.unwrap().len();
    let counts = count_open(&mut tenant().await, id).await.unwrap();
    let failures = recent_failures(&mut tenant().await, id, 10).await.unwrap();
    let recent = events::recent(&mut tenant().await, id, 50).await.unwrap();
    vec![
        counts.iter().map(|count| count.jobs as usize).sum(),
        page(&mut tenant().await, pending(Search::default())).await,
        page(&mut tenant().await, pending(text)).await,
        failures.len(),
        recent.len(),
    ]
}

#[tokio::test]
async fn rows_of_an_older_version_are_found_and_soon_say_whose_they_are() {
    let stage = Stage::new().await;
    let (mine, theirs) = (workspace(&stage).await, workspace(&stage).await);
    let jobs = [
        old_jobs(Some(mine), 3),
        old_jobs(Some(theirs), 5),
        old_jobs(None, 2),
    ]
    .concat();
    let jobs: Vec<NewJob> = jobs
        .into_iter()
        .map(|job| NewJob {
            payload: r#"{"e": 1}"#.into(),
            ..job
        })
        .collect();
    stage.insert_back_then(&jobs).await;
    seal(&stage).await;
    let forget = "UPDATE bullwark.stragglers SET owner_id = NULL WHERE job_id::text < ";
    let half = ids(&jobs)[1];
    let seen = [vec![3, 3, 3, 0, 3], vec![5, 5, 5, 0, 5]];
    for forgotten in ["'f'".to_owned(), format!("'{half}'"), "'0'".to_owned()] {
        stage.execute(format!("{forget}{forgotten}")).await;
        for (id, seen) in [mine, theirs].into_iter().zip(&seen) {
            assert_eq!(&looks(&stage.record, id).await, seen, "{forgotten}");
        }
        assert!(!name_owners(&stage.record).await.unwrap(), "that was all");
        assert_eq!(stage.stragglers_of_their_owners().await, 10);
    }
    // What is done to a workspace's jobs finds them as well.
    stage.execute(format!("{forget}'f'")).await;
    let draining = Draining {
        workspace_id: mine,
        queue: "default",
        with_delayed: true,
        reason: "x",
    };
    let drained = drain_next(&stage.record, &draining, Uuid::nil(), &By::OPERATOR).await;
    assert_eq!(drained.unwrap().ids, {
        let mut ids = ids(&jobs[..3]);
        ids.sort();
        ids
    });
}

/// Rows of `jobs` that PostgreSQL has read; connections tell it when they end.
async fn rows_read(stage: &Stage) -> i64 {
    eventually("connections have ended", async || {
        let left = "pg_stat_activity
            WHERE datname = current_database() AND application_name = 'bullwark'";
        (stage.count(left).await == 0).then_some(())
    })
    .await;
    let read = "SELECT coalesce(idx_tup_fetch, 0) + seq_tup_read FROM pg_stat_user_tables
        WHERE relname = 'jobs'";
    stage.scalar(read.to_owned()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_does_not_pay_for_the_backlog_of_another() {
    let stage = Stage::new().await;
    let (mine, theirs) = (workspace(&stage).await, workspace(&stage).await);
    for _ in 0..4 {
        stage.insert(&old_jobs(Some(theirs), 500)).await;
    }
    stage.insert(&old_jobs(Some(mine), 10)).await;
    seal(&stage).await;
    assert_eq!(stage.count("bullwark.stragglers").await, 2010);
    stage.record.close().await;
    let before = rows_read(&stage).await;
    let record = Record::connect(&RecordOptions::new(stage.database_url())).unwrap();
    assert_eq!(looks(&record, mine).await, [10, 10, 0, 0, 10]);
    record.close().await;
    let read = rows_read(&stage).await - before;
    assert!(
        (50..300).contains(&read),
        "{read} rows were read for ten jobs"
    );
}
