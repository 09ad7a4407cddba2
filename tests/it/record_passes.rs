//! Notes of passes: the last one of each queue, and not for ever.

use std::time::Duration;

use bullwark::record::passes::{NotedPass, PassKind, Repaired, list, note, prune};

use crate::stage::Stage;

#[tokio::test]
async fn passes_of_queues_that_are_gone_are_forgotten() {
    let stage = Stage::new().await;
    let pass = |queue: &str| NotedPass {
        kind: PassKind::Scan,
        queue: queue.to_owned(),
        took: Duration::from_millis(1),
        repaired: Repaired::default(),
    };
    let passes = [pass("gone"), pass("there")];
    note(&stage.record, &stage.prefix, &passes).await.unwrap();
    let old = "UPDATE bullwark.passes SET ended_at = now() - interval '31 days'
        WHERE job_queue = 'gone'";
    stage.execute(old.to_owned()).await;
    assert!(!prune(&stage.record).await.unwrap());
    let mut view = stage.record.view().await.unwrap();
    let left = list(&mut view, &stage.prefix).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].queue.as_deref(), Some("there"));

    // A client that makes queues without end.
    stage
        .execute(
            "INSERT INTO bullwark.passes (prefix, kind, job_queue, took_ms, ended_at)
             SELECT 'x', 'scan', n::text, 1, now() - n * interval '1 second'
             FROM generate_series(1, 11100) n"
                .to_owned(),
        )
        .await;
    assert!(prune(&stage.record).await.unwrap(), "there is more to do");
    assert!(!prune(&stage.record).await.unwrap());
    assert_eq!(stage.count("bullwark.passes").await, 10_000);
    let oldest = "SELECT max(job_queue::int) FROM bullwark.passes WHERE prefix = 'x'";
    assert_eq!(stage.scalar::<i32>(oldest.to_owned()).await, 9_999);
}
