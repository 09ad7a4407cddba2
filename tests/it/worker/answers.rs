//! PostgreSQL's answers: lost ones, those of a server that was restarted, and refusals for the sake
//! of others.

use std::sync::{Arc, Mutex};

use bullwark::job::JobRequest;
use bullwark::stores::Kill;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::rig::{Rig, UNSERVED};
use crate::stage::spawn;
use crate::support::{Sandbox, own_stores, shared_stores};

/// The next answer of PostgreSQL with this mark is dropped, and its connection cut.
type Dropped = Arc<Mutex<Option<&'static [u8]>>>;

async fn proxy(port: u16, dropped: Dropped, end: CancellationToken) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    spawn(async move {
        loop {
            let client = tokio::select! {
                client = listener.accept() => client.unwrap().0,
                () = end.cancelled() => return,
            };
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            spawn(serve(client, server, dropped.clone()));
        }
    });
    own
}

async fn serve(mut client: TcpStream, mut server: TcpStream, dropped: Dropped) {
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        let is_passed = tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(bytes) if bytes > 0 => server.write_all(&asked[..bytes]).await,
                _ => return,
            },
            read = server.read(&mut answered) => match read {
                Ok(bytes) if bytes > 0 && !is_dropped(&dropped, &answered[..bytes]) => {
                    client.write_all(&answered[..bytes]).await
                }
                _ => return,
            },
        };
        if is_passed.is_err() {
            return;
        }
    }
}

fn is_dropped(dropped: &Dropped, answer: &[u8]) -> bool {
    let mut wanted = dropped.lock().unwrap();
    let is_it = wanted.is_some_and(|mark| answer.windows(mark.len()).any(|part| part == mark));
    if is_it {
        *wanted = None;
    }
    is_it
}

fn request(payload: serde_json::Value, key: Option<&str>) -> JobRequest {
    JobRequest {
        idempotency_key: key.map(str::to_owned),
        ..JobRequest::new(UNSERVED, payload)
    }
}

/// The answer to a commit is lost: the job is there once, and its caller hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_a_commit_makes_no_second_job_and_no_refusal() {
    let sandbox = Sandbox::new().await;
    let (dropped, end) = (Dropped::default(), CancellationToken::new());
    let stores = shared_stores().await;
    let port = proxy(stores.postgres_port(), dropped.clone(), end.clone()).await;
    let database = sandbox.database_url.rsplit('/').next().unwrap();
    let database = database.split('?').next().unwrap();
    let database = match database.starts_with("test_") {
        true => database.to_owned(),
        false => format!("test_{}", sandbox.prefix.trim_start_matches("test")),
    };
    let url = format!("postgres://bullwark@127.0.0.1:{port}/{database}");
    let (redis, prefix) = (sandbox.redis_url.clone(), sandbox.prefix.clone());
    let rig = Rig::on(url, redis, prefix, Some(sandbox)).await;
    let count = "SELECT count(*) FROM jobs";

    // One statement is its own transaction.
    *dropped.lock().unwrap() = Some(b"SELECT 1\0");
    let plain = rig.enqueue(request(json!(1), None)).await;
    assert!(dropped.lock().unwrap().is_none(), "an answer was lost");
    assert_eq!(rig.job(plain).await.status, "pending");
    assert_eq!(rig.number(count).await, Some(1));

    // With a key there is a transaction.
    *dropped.lock().unwrap() = Some(b"COMMIT\0");
    let keyed = rig.enqueue(request(json!(2), Some("k"))).await;
    assert!(dropped.lock().unwrap().is_none(), "an answer was lost");
    let again = rig.app.enqueue.enqueue(request(json!(2), Some("k"))).await;
    let again = again.unwrap();
    assert_eq!((again.id, again.is_new), (keyed, false));
    assert_eq!(rig.number(count).await, Some(2));
    rig.close().await;
    end.cancel();
}

/// The pools are full of connections to a server that is gone: no caller notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_calls_after_a_restart_of_the_record_are_served() {
    let mut stores = own_stores().await;
    let rig = Rig::on_stores(&stores).await;
    for round in 0..2 {
        let many = (0..20).map(|n| rig.enqueue(request(json!(n), None)));
        futures_util::future::join_all(many).await;
        rig.app.warm().await;
        stores.restart_postgres(Kill::Immediately).await.unwrap();
        rig.enqueue(request(json!(round), None)).await;
        rig.enqueue(request(json!(round), Some(&format!("k{round}"))))
            .await;
    }
    assert_eq!(rig.number("SELECT count(*) FROM jobs").await, Some(44));
    rig.close().await;
    stores.stop().await.unwrap();
}

/// A row that PostgreSQL always rolls back keeps nobody out, and is told to its caller as worth
/// another try.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_always_in_conflict_keeps_no_other_out() {
    let rig = Rig::new().await;
    rig.sql(
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           RAISE EXCEPTION 'in conflict' USING ERRCODE = '40001'; END $$;
         CREATE TRIGGER poison BEFORE INSERT ON jobs FOR EACH ROW
           WHEN (NEW.payload = '\"poison\"'::jsonb) EXECUTE FUNCTION poison()",
    )
    .await;
    let mut requests: Vec<_> = (0..9).map(|n| request(json!(n), None)).collect();
    requests.insert(4, request(json!("poison"), None));
    let answers = rig.app.enqueue.enqueue_many(requests).await.unwrap();
    for (place, answer) in answers.iter().enumerate() {
        match answer {
            Ok(_) => assert_ne!(place, 4),
            Err(error) => assert!(place == 4 && error.is_unavailable(), "{place}: {error}"),
        }
    }
    assert_eq!(rig.number("SELECT count(*) FROM jobs").await, Some(9));
    rig.close().await;
}
