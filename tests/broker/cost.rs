//! What a job costs the server. Not part of a normal run:
//! `cargo test --test broker -- --ignored cost --nocapture`.

use bullwark::broker::{Broker, BrokerOptions, Finish, Keep, NewJob};
use bullwark::job::QueueName;

use crate::support::{Server, claim_options};

const JOBS: usize = 50_000;
const LARGE: Batches = Batches {
    add: 500,
    claim: 100,
};
const SMALL: Batches = Batches { add: 10, claim: 5 };

/// Jobs per call.
#[derive(Clone, Copy)]
struct Batches {
    add: usize,
    claim: usize,
}

/// Processor seconds that the server has used.
async fn cpu_seconds(server: &Server) -> f64 {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let info: redis::InfoDict = redis::cmd("INFO")
        .arg("cpu")
        .query_async(&mut connection)
        .await
        .unwrap();
    info.get::<f64>("used_cpu_user").unwrap() + info.get::<f64>("used_cpu_sys").unwrap()
}

fn new_jobs(priority: u32) -> Vec<NewJob> {
    let data = format!(
        r#"{{"account":"{}","padding":"{}"}}"#,
        uuid::Uuid::now_v7(),
        "x".repeat(120)
    );
    (0..JOBS)
        .map(|_| NewJob {
            id: uuid::Uuid::now_v7().to_string(),
            name: "enrich_account".into(),
            data: data.clone(),
            opts: r#"{"attempts":6,"priority":11,"backoff":{"type":"bullwark","delay":60000}}"#
                .into(),
            timestamp_ms: 1_700_000_000_000,
            priority,
            ..NewJob::default()
        })
        .collect()
}

async fn run(server: &Server, name: &str, priority: u32, keep: Keep, batches: Batches) {
    let options = BrokerOptions {
        url: server.url(),
        prefix: name.into(),
        ..Default::default()
    };
    let broker = Broker::connect(options).await.unwrap();
    let queue: QueueName = "q".parse().unwrap();
    let jobs = new_jobs(priority);
    let start = cpu_seconds(server).await;
    for part in jobs.chunks(batches.add) {
        broker.add(&queue, part).await.unwrap();
    }
    let added = cpu_seconds(server).await;
    let (mut claim_cpu, mut finish_cpu, mut done) = (0.0, 0.0, 0);
    // Ten claims of 100, then their ends: about as many are active as in a busy process.
    while done < JOBS {
        let before = cpu_seconds(server).await;
        let mut claims = Vec::new();
        for _ in 0..10 {
            claims.push(
                broker
                    .claim(&queue, &claim_options("worker:1", batches.claim))
                    .await
                    .unwrap()
                    .jobs,
            );
        }
        let between = cpu_seconds(server).await;
        for claimed in &claims {
            let ends: Vec<Finish> = claimed
                .iter()
                .map(|job| Finish {
                    id: job.id.clone(),
                    token: "worker:1".into(),
                    returnvalue: r#"{"ok":true}"#.into(),
                    keep,
                })
                .collect();
            done += broker.finish(&queue, &ends).await.unwrap().len();
        }
        claim_cpu += between - before;
        finish_cpu += cpu_seconds(server).await - between;
    }
    let per_job = |seconds: f64| seconds * 1e6 / JOBS as f64;
    println!(
        "{name:24} add {:5.1}  claim {:5.1}  finish {:5.1}  sum {:5.1} us of redis per job",
        per_job(added - start),
        per_job(claim_cpu),
        per_job(finish_cpu),
        per_job(added - start + claim_cpu + finish_cpu)
    );
}

#[tokio::test]
#[ignore = "a measurement, not a check"]
async fn cost_of_a_job() {
    let some = Keep::Some {
        count: Some(1000),
        age_seconds: None,
        limit: None,
    };
    let plain = Server::start(&[]);
    run(&plain, "prioritized, keep 1000", 11, some, LARGE).await;
    run(&plain, "prioritized, keep 0", 11, Keep::Remove, LARGE).await;
    run(&plain, "wait list, keep 1000", 0, some, LARGE).await;
    run(&plain, "add 10, claim 5", 11, some, SMALL).await;
    let durable = Server::start(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    run(&durable, "with append-only file", 11, some, LARGE).await;
    run(&durable, "aof, keep 0", 11, Keep::Remove, LARGE).await;
}
