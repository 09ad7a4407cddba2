use bullwark::broker::Settled;

use crate::support::{Bench, NOW};

fn progress(id: &str, token: &str) -> (String, String, String) {
    (id.to_owned(), token.to_owned(), r#"{"rows":5}"#.to_owned())
}

#[tokio::test]
async fn only_the_holder_of_the_lease_notes_progress() {
    let t = Bench::new().await;
    t.add(&["a", "b"]).await;
    t.claim(2).await;
    t.raws(&["DEL @b:lock", "DEL @events"]).await;
    let jobs = [
        progress("a", "t1"),
        progress("a", "t0"),
        progress("b", "t1"),
        progress("x", "t1"),
    ];
    let answers = t.broker.update_progress(&t.queue, &jobs).await.unwrap();
    assert_eq!(
        answers,
        [
            Settled::Done,
            Settled::LockMismatch,
            Settled::LockMissing,
            Settled::JobMissing
        ]
    );
    let hash = format!("data={{}} delay=0 name=n opts={{}} priority=0 processedOn={NOW}");
    t.expect(&format!(
        "a {{ats=1 {hash} progress={{\"rows\":5}} timestamp={NOW}}}
         a:lock = t1 ttl<=30s
         active [b a]
         b {{ats=1 {hash} timestamp={NOW}}}
         events event=progress jobId=a data={{\"rows\":5}}
         id = 2
         marker <0=0>"
    ))
    .await;
}
