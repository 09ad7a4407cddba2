//! PostgreSQL rolls back a few times for the sake of others (`40001`, `40P01`).

use bullwark::job::JobRequest;
use bullwark::job::flow::FlowRequest;
use serde_json::json;

use crate::worker::rig::{Rig, UNSERVED};
use crate::worker::script::{fail, scripted, succeed, wait};

/// Refuses so many times, by turns as a serialization failure and as a deadlock. A sequence counts,
/// because it is not rolled back.
const REFUSE: &str = "CREATE SEQUENCE tries;
    CREATE TABLE refusals (most bigint);
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
      DECLARE nth bigint := nextval('tries');
      BEGIN
        IF nth <= (SELECT most FROM refusals) THEN
          RAISE EXCEPTION 'on purpose'
            USING ERRCODE = CASE nth % 2 WHEN 0 THEN '40001' ELSE '40P01' END;
        END IF;
        RETURN NEW;
      END $$;";

fn request(n: usize, key: Option<String>) -> JobRequest {
    JobRequest {
        idempotency_key: key,
        ..JobRequest::new(UNSERVED, json!(n))
    }
}

/// The batch is tried again, whole: nobody is told, and nothing is halved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_jobs_gets_past_a_few_conflicts() {
    let rig = Rig::new().await;
    rig.sql(REFUSE).await;
    rig.sql(
        "INSERT INTO refusals VALUES (2);
         CREATE TRIGGER refuse BEFORE INSERT ON jobs EXECUTE FUNCTION refuse()",
    )
    .await;
    let tries = "SELECT last_value FROM tries";
    let again = "ALTER SEQUENCE tries RESTART";

    let plain = (0..10).map(|n| request(n, None)).collect();
    let answers = rig.app.enqueue.enqueue_many(plain).await.unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(
        rig.number(tries).await,
        Some(3),
        "twice refused, then whole"
    );

    rig.sql(again).await;
    let keyed = (0..10).map(|n| request(n, Some(format!("{n}"))));
    let answers = rig.app.enqueue.enqueue_many(keyed.collect()).await.unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(rig.number(tries).await, Some(3));

    rig.sql(again).await;
    let alone = |job| FlowRequest {
        job,
        ..FlowRequest::default()
    };
    let mut flow = alone(request(0, Some("flow".into())));
    flow.children = vec![alone(request(1, None))];
    let accepted = rig.app.enqueue.enqueue_flow(flow).await.unwrap();
    assert!(accepted.root.is_new);
    let tries = rig.number(tries).await;
    assert_eq!(
        tries,
        Some(4),
        "its root and its children are two statements"
    );
    assert_eq!(rig.number("SELECT count(*) FROM jobs").await, Some(22));
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_outcomes_gets_past_a_few_conflicts() {
    const JOBS: usize = 6;
    let rig = Rig::new().await.with_upkeep();
    let worker = rig.work(|options| options.slots = JOBS);
    let mut ids = Vec::new();
    for n in 0..JOBS {
        let end = match n % 2 {
            0 => succeed(json!(n)),
            _ => fail("once"),
        };
        let runs: [&[_]; 2] = [&[wait("go"), end], &[succeed(json!(n))]];
        ids.push(rig.enqueue(scripted(&format!("{n}"), &runs)).await);
    }
    rig.probe.starts(JOBS).await;
    for id in &ids {
        rig.until(*id, "processing").await;
    }
    rig.sql(REFUSE).await;
    rig.sql(
        "INSERT INTO refusals VALUES (4);
         CREATE TRIGGER refuse BEFORE UPDATE ON jobs FOR EACH ROW
           WHEN (NEW.status IN ('completed', 'failed') AND OLD.status = 'processing')
           EXECUTE FUNCTION refuse()",
    )
    .await;
    rig.probe.open("go");
    for (n, id) in ids.iter().enumerate() {
        let job = rig.until(*id, "completed").await;
        assert_eq!(job.attempts, (n % 2) as i32);
        assert_eq!(rig.failures(*id).await.len(), n % 2);
    }
    let ends = (JOBS + JOBS / 2) as i64;
    let tries = rig.number("SELECT last_value FROM tries").await;
    assert_eq!(tries, Some(4 + ends), "each end was written once");
    assert_eq!(rig.probe.started().len() as i64, ends);
    worker.stop().await;
    rig.agree().await;
    rig.close().await;
}
