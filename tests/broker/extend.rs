use std::time::Duration;

use crate::support::Bench;

fn pairs(jobs: &[(&str, &str)]) -> Vec<(String, String)> {
    jobs.iter()
        .map(|(id, token)| ((*id).to_owned(), (*token).to_owned()))
        .collect()
}

#[tokio::test]
async fn a_held_lease_is_prolonged_and_no_other() {
    let t = Bench::new().await;
    t.add(&["mine", "lost", "others"]).await;
    t.claim(3).await;
    t.raws(&[
        "DEL @lost:lock",
        "SET @others:lock x PX 5000",
        "SADD @stalled mine lost others",
    ])
    .await;
    let jobs = pairs(&[
        ("mine", "t1"),
        ("lost", "t1"),
        ("others", "t1"),
        ("none", "t1"),
    ]);
    let lease = Duration::from_secs(60);
    let held = t.broker.extend(&t.queue, &jobs, lease).await.unwrap();
    assert_eq!(held, [true, false, false, false]);
    let dump = t.dump().await;
    for line in [
        "mine:lock = t1 ttl<=60s",
        "others:lock = x ttl<=10s",
        "stalled {lost others}",
    ] {
        assert!(
            dump.lines().any(|found| found == line),
            "{line} is not in\n{dump}"
        );
    }
    assert_eq!(
        t.raw::<i64>("EXISTS @lost:lock @none:lock").await,
        0,
        "no lock is revived"
    );
}

#[tokio::test]
async fn nothing_to_extend_is_no_call() {
    let t = Bench::new().await;
    let held = t
        .broker
        .extend(&t.queue, &[], Duration::from_secs(1))
        .await
        .unwrap();
    assert!(held.is_empty());
}
