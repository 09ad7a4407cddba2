use std::time::Duration;

use bullwark::broker::event::{Event, EventId};
use bullwark::broker::events::{Batch, EventReader, From};
use bullwark::job::QueueName;

use crate::support::{Bench, job};

const SOON: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(5);

fn names(batches: &[Batch]) -> Vec<String> {
    let entries = batches.iter().flat_map(|batch| &batch.entries);
    entries
        .map(|entry| String::from_utf8(entry.name().to_vec()).unwrap())
        .collect()
}

async fn drain(reader: &mut EventReader) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let batches = reader.read(3, SOON).await.unwrap();
        if batches.is_empty() {
            return all;
        }
        assert!(
            batches
                .iter()
                .all(|batch| (1..=3).contains(&batch.entries.len()))
        );
        all.extend(names(&batches));
    }
}

#[tokio::test]
async fn events_are_read_once_from_where_a_reader_begins() {
    let t = Bench::new().await;
    t.broker.add(&t.queue, &[job("before")]).await.unwrap();
    let mut from_now = t.broker.event_reader();
    let mut from_start = t.broker.event_reader();
    from_now.follow(t.queue.clone(), From::Now);
    from_start.follow(t.queue.clone(), From::After(EventId::ZERO));
    assert!(from_now.read(100, SOON).await.unwrap().is_empty());
    t.broker.add(&t.queue, &[job("a"), job("b")]).await.unwrap();
    let expected = ["added", "waiting", "added", "waiting"];
    assert_eq!(drain(&mut from_now).await, expected);
    assert_eq!(
        drain(&mut from_start).await,
        [&["added", "waiting"][..], &expected].concat()
    );

    // A place that was kept is a place to begin at.
    let oldest = t.broker.oldest_event(&t.queue).await.unwrap().unwrap();
    let mut later = t.broker.event_reader();
    later.follow(t.queue.clone(), From::After(oldest));
    let batches = later.read(1, LONG).await.unwrap();
    assert_eq!((batches[0].after, batches[0].is_full), (oldest, true));
    let waiting = Event::Waiting {
        job_id: "before".into(),
        prev: None,
    };
    assert_eq!(batches[0].entries[0].event(), waiting);
}

#[tokio::test]
async fn a_reader_waits_for_several_queues_and_learns_new_ones() {
    let t = Bench::new().await;
    let other: QueueName = "other".parse().unwrap();
    let mut reader = t.broker.event_reader();
    reader.follow(t.queue.clone(), From::Now);
    reader.follow(other.clone(), From::Now);
    assert!(reader.read(10, SOON).await.unwrap().is_empty());
    let add = async {
        tokio::time::sleep(SOON).await;
        t.broker.add(&other, &[job("a")]).await.unwrap();
    };
    let (read, _) = tokio::join!(reader.read(10, LONG), add);
    let read = read.unwrap();
    assert_eq!((read.len(), &read[0].queue), (1, &other));
    reader.forget(&other);
    t.broker.add(&other, &[job("b")]).await.unwrap();
    assert!(reader.read(10, SOON).await.unwrap().is_empty());
    for n in 0..600 {
        reader.follow(format!("q{n}").parse().unwrap(), From::After(EventId::ZERO));
    }
    t.broker
        .add(&"q599".parse().unwrap(), &[job("c")])
        .await
        .unwrap();
    assert_eq!(
        names(&reader.read(10, LONG).await.unwrap()),
        ["added", "waiting"]
    );
}

#[tokio::test]
async fn a_reader_survives_what_is_in_a_stream_and_the_loss_of_its_connection() {
    let t = Bench::new().await;
    let mut reader = t.broker.event_reader();
    reader.follow(t.queue.clone(), From::After(EventId::ZERO));
    t.raws(&[
        "XADD @events * event completed jobId 1 returnvalue {",
        "XADD @events * x y",
        "XADD @events * event mine a b",
    ])
    .await;
    let batches = reader.read(10, LONG).await.unwrap();
    let events: Vec<Event> = batches[0]
        .entries
        .iter()
        .map(|entry| entry.event())
        .collect();
    assert!(matches!(&events[0], Event::Invalid { name, .. } if name == "completed"));
    assert!(matches!(&events[1], Event::Invalid { name, .. } if name.is_empty()));
    assert!(matches!(&events[2], Event::Other { name, .. } if name == "mine"));

    let named = async || -> Vec<String> {
        let list: String = t.raw("CLIENT LIST TYPE normal").await;
        let name = format!("name={}:", t.prefix);
        let lines = list
            .lines()
            .filter(|line| line.contains(&name) && line.contains(":qe "));
        lines
            .map(|line| line.split(['=', ' ']).nth(1).unwrap().to_owned())
            .collect()
    };
    let clients = named().await;
    assert_eq!(clients.len(), 1, "it is named as BullMQ's readers are");
    let _: i64 = t.raw(&format!("CLIENT KILL ID {}", clients[0])).await;
    t.broker.add(&t.queue, &[job("a")]).await.unwrap();
    let mut read = reader.read(10, LONG).await;
    if read.is_err() {
        read = reader.read(10, LONG).await;
    }
    assert_eq!(names(&read.unwrap()), ["added", "waiting"]);
}

#[tokio::test]
async fn queues_are_noticed_by_their_keys_and_by_the_names_of_connections() {
    let t = Bench::new().await;
    let mut finder = t.broker.queue_finder();
    t.broker.add(&t.queue, &[job("a")]).await.unwrap();
    let mut reader = t.broker.event_reader();
    reader.follow("nothing-yet".parse().unwrap(), From::Now);
    reader.read(1, SOON).await.unwrap();
    let found: Vec<String> = finder
        .look()
        .await
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(found, ["nothing-yet".to_owned(), t.queue.to_string()]);
    t.raws(&["DEL @meta"]).await;
    let found = finder.look().await.unwrap();
    assert_eq!(
        found.iter().map(|queue| queue.as_str()).collect::<Vec<_>>(),
        ["nothing-yet"]
    );
}

#[tokio::test]
async fn a_memory_has_one_name_until_it_is_lost() {
    let t = Bench::new().await;
    let (one, other) = tokio::join!(t.broker.epoch(), t.broker.epoch());
    let epoch = one.unwrap();
    assert_eq!(other.unwrap(), epoch);
    assert_eq!(t.broker.epoch().await.unwrap(), epoch);
    let key = format!("bullwark:{}:epoch", t.prefix);
    let _: i64 = t.raw(&format!("DEL {key}")).await;
    let next = t.broker.epoch().await.unwrap();
    assert_ne!(next, epoch);
    // The key came back with a snapshot, and another server answers.
    let _: String = t
        .raw(&format!("SET {key} {}@another-server", "0".repeat(32)))
        .await;
    let third = t.broker.epoch().await.unwrap();
    assert!(third != next && third != epoch);
    assert_eq!(t.broker.epoch().await.unwrap(), third);
}

#[tokio::test]
async fn a_duty_has_one_owner_until_it_is_left_or_ends() {
    let t = Bench::new().await;
    let take = async |token: &str, ms: u64| {
        let time = Duration::from_millis(ms);
        t.broker.take_duty("duty", token, time).await.unwrap()
    };
    assert!(take("a", 60_000).await && take("a", 60_000).await);
    assert!(!take("b", 60_000).await);
    t.broker.leave_duty("duty", "b").await.unwrap();
    assert!(!take("b", 60_000).await);
    t.broker.leave_duty("duty", "a").await.unwrap();
    assert!(take("b", 200).await);
    assert!(!take("a", 60_000).await);
    let taken = async {
        while !take("a", 60_000).await {
            tokio::time::sleep(SOON).await;
        }
    };
    tokio::time::timeout(LONG, taken).await.unwrap();
    assert!(!take("b", 200).await);
}
