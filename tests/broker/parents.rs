use bullwark::broker::{ChildEnding, EndedChild};

use crate::support::{Bench, NOW};

/// A parent `p` that waits for `a`, `b` and `c`.
async fn waiting_parent() -> Bench {
    let t = Bench::new().await;
    t.raws(&[
        "HSET @p name p priority 0 delay 0",
        &format!("ZADD @waiting-children {NOW} p"),
        "SADD @p:dependencies a b c",
    ])
    .await;
    t
}

fn ended(t: &Bench, key: &str, parent: &str, ending: ChildEnding) -> EndedChild {
    EndedChild {
        key: key.to_owned(),
        parent_key: t.key("p"),
        parent: parent.to_owned(),
        ending,
    }
}

#[tokio::test]
async fn a_parent_is_told_of_each_kind_of_ending_once() {
    let t = waiting_parent().await;
    let children = [
        ended(&t, "a", "{}", ChildEnding::Completed("1".to_owned())),
        ended(
            &t,
            "b",
            r#"{"idof":true}"#,
            ChildEnding::Failed("why".to_owned()),
        ),
        ended(&t, "c", "{}", ChildEnding::Removed),
    ];
    t.broker.tell_parents(&children).await.unwrap();
    let expected = "events event=waiting jobId=p prev=waiting-children
         marker <0=0>
         p {delay=0 name=p priority=0}
         p:failed {b=why}
         p:processed {a=1}
         wait [p]";
    t.expect(expected).await;
    t.broker.tell_parents(&children).await.unwrap();
    t.expect(expected).await;
}

#[tokio::test]
async fn a_child_that_failed_without_a_rule_is_waited_for() {
    let t = waiting_parent().await;
    let before = t.dump().await;
    let failed = ended(&t, "a", "{}", ChildEnding::Failed("why".to_owned()));
    t.broker.tell_parents(&[failed]).await.unwrap();
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn a_child_may_take_its_parent_along() {
    let t = waiting_parent().await;
    let failed = ended(
        &t,
        "a",
        r#"{"fpof":true}"#,
        ChildEnding::Failed("why".to_owned()),
    );
    t.broker.tell_parents(&[failed]).await.unwrap();
    t.expect(&format!(
        "events event=waiting jobId=p prev=waiting-children
         marker <0=0>
         p {{defa=child a failed delay=0 name=p priority=0}}
         p:dependencies {{b c}}
         p:unsuccessful <a={now}>
         wait [p]",
        now = NOW
    ))
    .await;
}

#[tokio::test]
async fn the_owner_of_a_deduplication_id_is_known_and_gives_it_free() {
    let t = Bench::new().await;
    t.raws(&["SET @de:d a"]).await;
    let owner = async || t.broker.deduplication_owner(&t.queue, "d").await.unwrap();
    let remove = async |owner| {
        let removed = t.broker.remove_deduplication(&t.queue, "d", owner);
        removed.await.unwrap()
    };
    assert_eq!(owner().await.as_deref(), Some("a"));
    assert!(!remove(Some("b")).await, "another owns it");
    assert_eq!(owner().await.as_deref(), Some("a"));
    assert!(remove(Some("a")).await);
    assert_eq!(owner().await, None);
    t.raws(&["SET @de:d c"]).await;
    assert!(remove(None).await, "whoever owns it");
    assert!(!remove(None).await);
    t.expect("").await;
}
