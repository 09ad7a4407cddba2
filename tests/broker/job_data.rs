use bullwark::broker::{BrokerError, LogPage, Order, Refusal};

use crate::support::{Bench, NOW, strings};

#[tokio::test]
async fn a_job_gets_other_data_and_a_missing_one_is_not_made() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    t.forget_events().await;
    assert!(
        t.broker
            .update_data(&t.queue, "a", r#"{"x":1}"#)
            .await
            .unwrap()
    );
    assert!(!t.broker.update_data(&t.queue, "b", "{}").await.unwrap());
    t.expect(&format!(
        "a {{data={{\"x\":1}} delay=0 name=n opts={{}} priority=0 timestamp={NOW}}}
         id = 1
         marker <0=0>
         wait [a]"
    ))
    .await;
    let meta = t.broker.update_data(&t.queue, "meta", "{}").await;
    assert!(matches!(meta, Err(BrokerError::Refused(Refusal::JobId(_)))));
}

#[tokio::test]
async fn a_log_keeps_its_newest_rows() {
    let t = Bench::new().await;
    t.add(&["a"]).await;
    let log = async |row: &str, keep| t.broker.add_log(&t.queue, "a", row, keep).await.unwrap();
    assert_eq!(log("1", 0).await, Some(1));
    assert_eq!(log("2", 0).await, Some(2));
    assert_eq!(log("3", 2).await, Some(2));
    assert_eq!(
        t.raw::<Vec<String>>("LRANGE @a:logs 0 -1").await,
        ["2", "3"]
    );
    assert_eq!(log("4", 5).await, Some(3));
    let missing = t.broker.add_log(&t.queue, "b", "1", 0).await.unwrap();
    assert_eq!((missing, t.raw::<i64>("EXISTS @b:logs").await), (None, 0));
    t.broker.clear_logs(&t.queue, "a", 1).await.unwrap();
    assert_eq!(t.raw::<Vec<String>>("LRANGE @a:logs 0 -1").await, ["4"]);
    t.broker.clear_logs(&t.queue, "a", 0).await.unwrap();
    assert_eq!(t.raw::<i64>("EXISTS @a:logs").await, 0);
}

#[tokio::test]
async fn a_log_is_read_in_pages_from_either_end() {
    let t = Bench::new().await;
    t.raws(&["RPUSH @a:logs 1 2 3 4 5"]).await;
    let page = async |offset, limit, order| {
        let page = t.broker.logs(&t.queue, "a", offset, limit, order);
        page.await.unwrap()
    };
    let expected = |rows: &[&str]| LogPage {
        rows: strings(rows),
        total: 5,
    };
    assert_eq!(page(0, 2, Order::Ascending).await, expected(&["1", "2"]));
    assert_eq!(page(4, 2, Order::Ascending).await, expected(&["5"]));
    assert_eq!(page(0, 2, Order::Descending).await, expected(&["5", "4"]));
    assert_eq!(page(3, 9, Order::Descending).await, expected(&["2", "1"]));
    assert_eq!(page(5, 9, Order::Descending).await, expected(&[]));
}

#[tokio::test]
async fn a_deduplication_id_is_given_free_by_its_owner_or_by_anybody() {
    let t = Bench::new().await;
    t.raws(&["SET @de:x a", "SET @de:y a"]).await;
    assert!(
        !t.broker
            .remove_deduplication(&t.queue, "x", Some("b"))
            .await
            .unwrap()
    );
    assert!(
        t.broker
            .remove_deduplication(&t.queue, "x", Some("a"))
            .await
            .unwrap()
    );
    assert!(
        !t.broker
            .remove_deduplication(&t.queue, "x", Some("a"))
            .await
            .unwrap()
    );
    assert!(
        t.broker
            .remove_deduplication(&t.queue, "y", None)
            .await
            .unwrap()
    );
    assert!(
        !t.broker
            .remove_deduplication(&t.queue, "y", None)
            .await
            .unwrap()
    );
    t.expect("").await;
}
