use bullwark::broker::{Added, Broker, BrokerError, BrokerOptions};

use crate::support::{Bench, Server, claim_options, ids, job};

fn options(server: &Server) -> BrokerOptions {
    BrokerOptions {
        url: server.url(),
        ..BrokerOptions::default()
    }
}

#[tokio::test]
async fn forgotten_scripts_are_loaded_again() {
    let server = Server::start(&[]);
    let broker = Broker::connect(options(&server)).await.unwrap();
    let queue = "q".parse().unwrap();
    let mut raw = redis::Client::open(server.url())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    for id in ["a", "b"] {
        let _: () = redis::cmd("SCRIPT")
            .arg("FLUSH")
            .query_async(&mut raw)
            .await
            .unwrap();
        assert_eq!(
            broker.add(&queue, &[job(id)]).await.unwrap(),
            [Added::Created]
        );
    }
    let _: () = redis::cmd("SCRIPT")
        .arg("FLUSH")
        .query_async(&mut raw)
        .await
        .unwrap();
    let claimed = broker.claim(&queue, &claim_options("t", 9)).await.unwrap();
    assert_eq!(ids(&claimed), ["a", "b"], "a claim heals, too");
}

#[tokio::test]
async fn a_call_survives_that_redis_drops_all_connections() {
    let server = Server::start(&[]);
    let broker = Broker::connect(options(&server)).await.unwrap();
    let queue = "q".parse().unwrap();
    let mut raw = redis::Client::open(server.url())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    for round in 0..3 {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL")
            .arg("TYPE")
            .arg("normal")
            .arg("SKIPME")
            .arg("yes");
        let _: i64 = kill.query_async(&mut raw).await.unwrap();
        let added = broker
            .add(&queue, &[job(&format!("j{round}"))])
            .await
            .unwrap();
        assert_eq!(added.len(), 1);
        assert!(broker.counts(&queue).await.is_ok());
        assert!(broker.ping().await.is_ok());
    }
    assert_eq!(broker.counts(&queue).await.unwrap().wait, 3);
}

#[tokio::test]
async fn a_redis_that_may_evict_jobs_is_refused_with_the_remedy() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let refused = Broker::connect(options(&server)).await;
    let Err(error @ BrokerError::Refused(_)) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        error
            .to_string()
            .contains("CONFIG SET maxmemory-policy noeviction"),
        "{error}"
    );
    assert!(!error.is_unavailable());
    let allowed = BrokerOptions {
        allow_eviction: true,
        ..options(&server)
    };
    assert!(Broker::connect(allowed).await.is_ok());
}

#[tokio::test]
async fn an_absent_redis_and_a_full_one_are_unavailable() {
    let mut server = Server::start(&[]);
    let broker = Broker::connect(options(&server)).await.unwrap();
    let queue = "q".parse().unwrap();
    let mut raw = redis::Client::open(server.url())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("maxmemory").arg("1mb");
    let _: () = limit.query_async(&mut raw).await.unwrap();
    let error = broker.add(&queue, &[job("a")]).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");

    server.stop();
    let error = broker.add(&queue, &[job("a")]).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(
        broker
            .claim(&queue, &claim_options("t", 1))
            .await
            .unwrap_err()
            .is_unavailable()
    );
    assert!(broker.ping().await.unwrap_err().is_unavailable());
    let error = Broker::connect(options(&server)).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
}

#[tokio::test]
async fn a_broker_made_before_redis_works_once_redis_is_there() {
    let mut server = Server::start(&[]);
    server.stop();
    let broker = Broker::lazy(options(&server)).unwrap();
    let queue = "q".parse().unwrap();
    assert!(broker.check().await.unwrap_err().is_unavailable());
    assert!(
        broker
            .add(&queue, &[job("a")])
            .await
            .unwrap_err()
            .is_unavailable()
    );
    server.start_again();
    assert_eq!(
        broker.add(&queue, &[job("a")]).await.unwrap(),
        [Added::Created]
    );
    broker.check().await.unwrap();
}

#[tokio::test]
async fn a_call_survives_a_restart_of_redis() {
    let mut server = Server::start(&[]);
    let broker = Broker::connect(options(&server)).await.unwrap();
    let queue = "q".parse().unwrap();
    let before = broker.server_id().await.unwrap();
    server.stop();
    server.start_again();
    assert_eq!(
        broker.add(&queue, &[job("a")]).await.unwrap(),
        [Added::Created]
    );
    assert_ne!(
        broker.server_id().await.unwrap(),
        before,
        "it can be told that it was another"
    );
}

#[tokio::test]
async fn a_key_of_the_wrong_type_is_corrupt_not_unavailable() {
    let t = Bench::new().await;
    t.raws(&["SET @wait x"]).await;
    let error = t.broker.add(&t.queue, &[job("a")]).await.unwrap_err();
    assert!(
        matches!(error, BrokerError::Corrupt { doing: "add", .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_server_tells_who_it_is() {
    let t = Bench::new().await;
    let id = t.broker.server_id().await.unwrap();
    assert_eq!(id.len(), 40, "{id}");
    assert_eq!(t.broker.server_id().await.unwrap(), id);
    assert!(t.broker.server_time_ms().await.unwrap() > 1_700_000_000_000);
}
