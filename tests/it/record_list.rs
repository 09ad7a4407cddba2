//! Pages of jobs: whatever the filter, they are what reading every row would give.

use std::time::Duration;

use bullwark::job::{NewJob, Status};
use bullwark::reconcile;
use bullwark::record::access::By;
use bullwark::record::control::{cancel_many, retry_many};
use bullwark::record::list::{JobFilter, list_page};
use bullwark::record::settle::settle_many;
use bullwark::record::start::mark_running;
use uuid::Uuid;

use crate::record_enqueue::workspace;
use crate::stage::{Stage, completed, discarded, failed, ids, old_job, running, settled};

/// Sixty jobs of two workspaces in every status, half of them older than the seal.
async fn stage_with_every_status() -> (Stage, [Uuid; 2], Vec<Uuid>) {
    let stage = Stage::new().await;
    let workspaces = [workspace(&stage).await, workspace(&stage).await];
    let jobs: Vec<NewJob> = (0..60)
        .map(|n| NewJob {
            workspace_id: Some(workspaces[n % 2]),
            queue: ["default", "low_priority"][n / 2 % 2].parse().unwrap(),
            ..old_job(Duration::from_secs(
                if n < 30 { 7200 } else { 20 } - n as u64 / 4,
            ))
        })
        .collect();
    stage.insert_back_then(&jobs).await;
    let ids = ids(&jobs);
    for (n, id) in ids.iter().enumerate() {
        match n % 6 {
            1 => drop(
                mark_running(&stage.record, "a", &[running(*id, 1)])
                    .await
                    .unwrap(),
            ),
            5 => drop(
                cancel_many(&stage.record, &[*id], &By::OPERATOR, "x")
                    .await
                    .unwrap(),
            ),
            0 => {}
            ended => {
                let outcome = [failed("x"), completed(), discarded("x")][ended - 2].clone();
                settle_many(&stage.record, &[settled(*id, 1, "a", outcome)])
                    .await
                    .unwrap();
            }
        }
    }
    while reconcile::seal(&stage.record).await.unwrap() {}
    // One that is over is open again, and noted as a straggler although it is young.
    retry_many(&stage.record, &[ids[5], ids[59]], &By::OPERATOR)
        .await
        .unwrap();
    assert!(stage.count("bullwark.stragglers").await > 10);
    (stage, workspaces, ids)
}

#[tokio::test]
async fn every_filter_gives_what_reading_all_rows_would() {
    let (stage, workspaces, ids) = stage_with_every_status().await;
    let statuses = std::iter::once(None).chain(Status::ALL.map(Some));
    for status in statuses {
        for workspace_id in [None, Some(workspaces[0]), Some(Uuid::now_v7())] {
            for queue in [None, Some("low_priority".to_owned())] {
                let mut all = Vec::new();
                for id in &ids {
                    let row = stage.row(*id).await;
                    let fits = status.is_none_or(|status| row.status == status.as_str())
                        && workspace_id.is_none_or(|id| row.workspace_id == Some(id))
                        && queue.as_ref().is_none_or(|queue| row.job_queue == *queue);
                    all.extend(fits.then_some(row.id));
                }
                all.sort();
                all.reverse();
                // Page by page, three rows each.
                let (mut found, mut before) = (Vec::new(), None);
                loop {
                    let filter = JobFilter {
                        workspace_id,
                        status,
                        queue: queue.clone(),
                        before,
                        limit: 3,
                        ..JobFilter::default()
                    };
                    let page = list_page(&mut stage.record.view().await.unwrap(), &filter)
                        .await
                        .unwrap();
                    let Some(last) = page.last() else { break };
                    before = Some(last.id);
                    found.extend(page.into_iter().map(|row| row.id));
                }
                assert_eq!(found, all, "{status:?} {workspace_id:?} {queue:?}");
            }
        }
    }
}
