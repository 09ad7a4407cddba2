use bullwark::broker::NewJob;

use crate::support::{Bench, NOW, STEP, job, strings};

#[tokio::test]
async fn a_delayed_job_is_available_at_once() {
    let t = Bench::new().await;
    let later = |id: &str, priority| NewJob {
        due_ms: Some(NOW + 50),
        priority,
        ..job(id)
    };
    t.broker
        .add(&t.queue, &[later("a", 0), later("b", 2), later("c", 0)])
        .await
        .unwrap();
    t.raws(&["DEL @events @marker", "DEL @c"]).await;
    let ids = strings(&["a", "b", "x", "a", "c"]);
    let promoted = t.broker.promote(&t.queue, &ids).await.unwrap();
    assert_eq!(promoted, [true, true, false, false, true]);
    let hash =
        |p: u32| format!("{{data={{}} delay=0 name=n opts={{}} priority={p} timestamp={NOW}}}");
    t.expect(&format!(
        "a {}
         b {}
         events event=waiting jobId=a prev=delayed
         events event=waiting jobId=b prev=delayed
         id = 3
         marker <0=0>
         pc = 1
         prioritized <b={}>
         wait [a]",
        hash(0),
        hash(2),
        2 * STEP + 1
    ))
    .await;
}
