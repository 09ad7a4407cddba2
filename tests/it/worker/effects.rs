//! Calls to the outside world, made once.

use std::sync::{Arc, Mutex};

use bullwark::control;
use bullwark::job::JobError;
use bullwark::record::access::By;
use bullwark::worker::{CallError, IfUnknown};
use serde_json::{Value, json};
use uuid::Uuid;

use super::coded::coded;
use super::rig::Rig;
use crate::support::proxy::Lose;

/// The keys of the calls that a provider got.
type Calls = Arc<Mutex<Vec<String>>>;

fn unknown(why: &str) -> CallError {
    CallError::Unknown(JobError::retry(why))
}

async fn state(rig: &Rig, id: Uuid) -> Vec<(String, String, Option<Value>)> {
    let mut tx = rig.app.record.begin().await.unwrap();
    sqlx::query_as("SELECT key, state, result FROM job_effects WHERE job_id = $1 ORDER BY key")
        .bind(id)
        .fetch_all(tx.connection())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_result_is_known_is_not_made_again() {
    let rig = Rig::new().await;
    let calls = Calls::default();
    let provider = calls.clone();
    rig.codes.set("a", move |ctx| {
        let provider = provider.clone();
        async move {
            let mut results = Vec::new();
            for key in ["charge", "mail"] {
                let request = json!({ "of": key });
                let call = ctx.once(key, &request, IfUnknown::GiveUp, async |key| {
                    let mut calls = provider.lock().unwrap();
                    calls.push(key.to_owned());
                    Ok(calls.len())
                });
                results.push(call.await?);
            }
            match ctx.attempt() {
                1 => Err(JobError::retry("later")),
                _ => Ok(json!(results)),
            }
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    let job = rig.until(id, "completed").await;
    assert_eq!(job.result, Some(json!([1, 2])));
    let keys = calls.lock().unwrap().clone();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
    let done = |key: &str, result: i32| (key.into(), "done".into(), Some(json!(result)));
    assert_eq!(state(&rig, id).await, [done("charge", 1), done("mail", 2)]);
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_call_is_repeated_with_the_same_key() {
    let rig = Rig::new().await;
    let calls = Calls::default();
    let provider = calls.clone();
    rig.codes.set("a", move |ctx| {
        let provider = provider.clone();
        async move {
            ctx.once("charge", &1, IfUnknown::Repeat, async |key| {
                provider.lock().unwrap().push(key.to_owned());
                match ctx.attempt() {
                    1 => Err(unknown("time-out")),
                    2 => panic!("in the middle"),
                    attempt => Ok(json!(attempt)),
                }
            })
            .await
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    let job = rig.until(id, "completed").await;
    assert_eq!((job.result, job.attempts), (Some(json!(3)), 2));
    let keys = calls.lock().unwrap().clone();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_call_to_a_provider_without_keys_is_never_sent_again() {
    let rig = Rig::new().await;
    let calls = Calls::default();
    let provider = calls.clone();
    rig.codes.set("a", move |ctx| {
        let provider = provider.clone();
        async move {
            ctx.once("charge", &1, IfUnknown::GiveUp, async |key| {
                provider.lock().unwrap().push(key.to_owned());
                Err::<Value, _>(unknown("time-out"))
            })
            .await
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    let job = rig.until(id, "dead_letter").await;
    let why = "effect `charge`: unknown whether it took effect; it is not sent again";
    assert_eq!(job.error_message.as_deref(), Some(why));
    assert_eq!(job.attempts, 1);
    let given_up = [("charge".into(), "unknown".into(), None)];
    assert_eq!(state(&rig, id).await, given_up);
    // Nor does a person's retry send it.
    control::retry(&rig.app.record, &rig.app.broker, &[id], &By::OPERATOR)
        .await
        .unwrap();
    rig.until(id, "dead_letter").await;
    assert_eq!(calls.lock().unwrap().len(), 1);
    // Who has looked it up says so, and the job goes on.
    rig.sql("UPDATE job_effects SET state = 'done', result = '\"by hand\"'")
        .await;
    control::retry(&rig.app.record, &rig.app.broker, &[id], &By::OPERATOR)
        .await
        .unwrap();
    let job = rig.until(id, "completed").await;
    assert_eq!(job.result, Some(json!("by hand")));
    assert_eq!(calls.lock().unwrap().len(), 1);
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_took_no_effect_may_be_made_again() {
    let rig = Rig::new().await;
    let calls = Calls::default();
    let provider = calls.clone();
    rig.codes.set("a", move |ctx| {
        let provider = provider.clone();
        async move {
            ctx.once("charge", &ctx.attempt(), IfUnknown::GiveUp, async |key| {
                provider.lock().unwrap().push(key.to_owned());
                match ctx.attempt() {
                    1 => Err(CallError::NoEffect(JobError::retry("429"))),
                    _ => Ok(json!("ok")),
                }
            })
            .await
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    let job = rig.until(id, "completed").await;
    assert_eq!((job.result, job.attempts), (Some(json!("ok")), 1));
    assert_eq!(calls.lock().unwrap().len(), 2);
    worker.stop().await;
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_effect_with_another_request_is_refused() {
    let rig = Rig::new().await;
    let calls = Calls::default();
    let provider = calls.clone();
    rig.codes.set("a", move |ctx| {
        let provider = provider.clone();
        async move {
            let request = json!({ "cents": ctx.attempt() });
            ctx.once("charge", &request, IfUnknown::Repeat, async |key| {
                provider.lock().unwrap().push(key.to_owned());
                Err::<Value, _>(unknown("time-out"))
            })
            .await
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    let job = rig.until(id, "dead_letter").await;
    let why = job.error_message.unwrap();
    assert!(why.contains("with another request"), "{why}");
    assert_eq!(calls.lock().unwrap().len(), 1);
    worker.stop().await;
    rig.close().await;
}

/// The commits of the intent and of the result lose their answers: one call, one result.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_without_answers_make_no_second_call() {
    let (rig, proxy) = Rig::behind_proxy().await;
    let calls = Calls::default();
    let (provider, losing) = (calls.clone(), proxy.clone());
    rig.codes.set("a", move |ctx| {
        let (provider, losing) = (provider.clone(), losing.clone());
        async move {
            losing.lose(Lose::Answer);
            ctx.once("charge", &1, IfUnknown::GiveUp, async |key| {
                provider.lock().unwrap().push(key.to_owned());
                losing.lose(Lose::Answer);
                Ok(json!("ok"))
            })
            .await
        }
    });
    let id = rig.enqueue(coded("a")).await;
    let worker = rig.work(|_| {});
    let job = rig.until(id, "completed").await;
    assert_eq!((job.result, job.attempts), (Some(json!("ok")), 0));
    assert_eq!(proxy.lost(), 2);
    assert_eq!(calls.lock().unwrap().len(), 1);
    worker.stop().await;
    rig.close().await;
}
