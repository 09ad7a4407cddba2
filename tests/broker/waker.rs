use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bullwark::broker::{Broker, BrokerOptions};
use bullwark::job::QueueName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Bench, ids, server};

const LONG: Duration = Duration::from_secs(10);

/// Waits until a client of this name blocks, so that a test wakes it and not its future self.
async fn await_blocked(t: &Bench, name: &str) {
    for _ in 0..1000 {
        let clients: String = t.send(redis::cmd("CLIENT").arg("LIST")).await;
        let is_blocked = clients
            .lines()
            .any(|line| line.contains(&format!("name={name} ")) && line.contains("flags=b"));
        if is_blocked {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{name} does not block");
}

#[tokio::test]
async fn an_added_job_wakes_a_worker_of_any_of_its_queues() {
    let t = Bench::with(|options| options.client_name = Some("w1".into())).await;
    let queues: Vec<QueueName> = vec!["other".parse().unwrap(), t.queue.clone()];
    let mut waker = t.broker.waker();
    let waiting = tokio::spawn(async move { waker.wait(&queues, LONG).await });
    // `other` in base64, as dashboards look for it.
    await_blocked(&t, &format!("{}:b3RoZXI=:w:w1", t.prefix)).await;
    t.add(&["a"]).await;
    assert_eq!(waiting.await.unwrap().unwrap(), Some(t.queue.clone()));
    assert_eq!(ids(&t.claim(9).await), ["a"]);
}

#[tokio::test]
async fn a_wait_ends_in_time_and_can_be_repeated() {
    let t = Bench::new().await;
    let mut waker = t.broker.waker();
    let queues = [t.queue.clone()];
    for _ in 0..2 {
        let woken = waker
            .wait(&queues, Duration::from_millis(20))
            .await
            .unwrap();
        assert_eq!(woken, None);
    }
    t.add(&["a"]).await;
    assert_eq!(
        waker.wait(&queues, LONG).await.unwrap(),
        Some(t.queue.clone())
    );
    assert_eq!(
        waker.wait(&[], Duration::from_millis(1)).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn a_dropped_wait_takes_no_marker() {
    let t = Bench::with(|options| options.client_name = Some("dropped".into())).await;
    let mut waker = t.broker.waker();
    let queues = [t.queue.clone()];
    {
        let waiting = waker.wait(&queues, LONG);
        tokio::pin!(waiting);
        let name = format!("{}:cQ==:w:dropped", t.prefix);
        let blocked = await_blocked(&t, &name);
        tokio::select! {
            _ = &mut waiting => panic!("nothing to wake for"),
            () = blocked => {}
        }
    }
    // The closed connection is noticed by the server before it runs a later command of ours.
    let gone = || async {
        let clients: String = t.send(redis::cmd("CLIENT").arg("LIST")).await;
        !clients.contains(&format!("name={}:cQ==:w:dropped ", t.prefix))
    };
    for _ in 0..1000 {
        if gone().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    t.add(&["a"]).await;
    assert_eq!(t.raw::<Vec<String>>("ZRANGE @marker 0 -1").await, ["0"]);
    assert_eq!(
        waker.wait(&queues, LONG).await.unwrap(),
        Some(t.queue.clone())
    );
}

#[tokio::test]
async fn a_lost_reply_loses_no_job_and_the_waker_reconnects() {
    let t = Bench::new().await;
    let is_mute = Arc::new(AtomicBool::new(false));
    let url = proxy(Arc::clone(&is_mute)).await;
    let options = BrokerOptions {
        url,
        prefix: t.prefix.clone(),
        ..BrokerOptions::default()
    };
    let far = Broker::connect(options).await.unwrap();
    let mut waker = far.waker();
    let queues = [t.queue.clone()];
    // Opens the connection; its replies are swallowed from now on, and then it is cut.
    assert_eq!(
        waker
            .wait(&queues, Duration::from_millis(10))
            .await
            .unwrap(),
        None
    );
    is_mute.store(true, Ordering::SeqCst);
    t.add(&["a"]).await;
    let error = waker.wait(&queues, LONG).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(
        t.raw::<i64>("EXISTS @marker").await,
        0,
        "the marker went with the reply"
    );

    assert_eq!(ids(&t.claim(9).await), ["a"], "the job did not");
    is_mute.store(false, Ordering::SeqCst);
    t.add(&["b"]).await;
    assert_eq!(
        waker.wait(&queues, LONG).await.unwrap(),
        Some(t.queue.clone())
    );
}

/// Passes bytes on to Redis and back; while mute, it cuts the connection instead of replying.
async fn proxy(is_mute: Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let upstream = TcpStream::connect(("127.0.0.1", server().port))
                .await
                .unwrap();
            let is_mute = Arc::clone(&is_mute);
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_redis, mut to_redis) = upstream.into_split();
                let requests =
                    tokio::spawn(
                        async move { tokio::io::copy(&mut from_client, &mut to_redis).await },
                    );
                let mut buffer = vec![0; 1 << 16];
                while let Ok(count @ 1..) = from_redis.read(&mut buffer).await {
                    let cut = is_mute.load(Ordering::SeqCst);
                    if cut || to_client.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
                requests.abort();
            });
        }
    });
    url
}
