//! Flows: accepted whole, run from the leaves to the root, and put back whatever Redis lost.

use bullwark::broker::{BrokerState, Fail, Finish, Keep};
use bullwark::enqueue::{EnqueueError, EnqueuedFlow};
use bullwark::job::flow::{FlowRequest, OnFailure};
use bullwark::job::{JobRequest, Outcome, QueueName, Refused};
use bullwark::reconcile;
use bullwark::record::settle::settle_many;
use bullwark::tasks::Tasks;
use serde_json::json;
use uuid::Uuid;

use crate::stage::{PATIENCE, Stage, completed, discarded, eventually, settled};

fn request(n: u32, children: Vec<FlowRequest>) -> FlowRequest {
    FlowRequest {
        job: JobRequest::new("noop", json!({ "n": n })),
        children,
        ..FlowRequest::default()
    }
}

fn child(n: u32, on_failure: OnFailure) -> FlowRequest {
    FlowRequest {
        on_failure,
        ..request(n, vec![])
    }
}

/// A flow that is in Redis, on a stage of its own.
struct Play {
    stage: Stage,
    ids: Vec<Uuid>,
}

impl Play {
    async fn of(flow: FlowRequest) -> Self {
        let stage = Stage::new().await;
        let EnqueuedFlow { ids, .. } = enqueue(&stage, flow).await.unwrap();
        let play = Self { stage, ids };
        let last = play.ids[play.ids.len() - 1];
        eventually("the flow is in Redis", async || {
            play.stage.state(last).await
        })
        .await;
        play
    }

    async fn state(&self, nth: usize) -> Option<BrokerState> {
        self.stage.state(self.ids[nth]).await
    }

    /// The places of the jobs that a claim gives, and the failures that wait for them.
    async fn claim(&self) -> Vec<(usize, Option<String>)> {
        let claimed = self.stage.claim("t").await.jobs.into_iter();
        let place = |id: &str| {
            let mut ids = self.ids.iter();
            ids.position(|known| known.to_string() == id).unwrap()
        };
        claimed
            .map(|job| (place(&job.id), job.deferred_failure))
            .collect()
    }

    async fn claimed(&self) -> Vec<usize> {
        self.claim().await.into_iter().map(|(nth, _)| nth).collect()
    }

    /// In the record only, as if Redis could not be told.
    async fn record(&self, nth: usize, outcome: Outcome) {
        let attempt = settled(self.ids[nth], 1, "w", outcome);
        let accepted = settle_many(&self.stage.record, &[attempt]).await.unwrap();
        assert_eq!(accepted.len(), 1);
    }

    async fn complete(&self, nth: usize) {
        self.record(nth, completed()).await;
        let finish = Finish {
            id: self.ids[nth].to_string(),
            token: "t".to_owned(),
            returnvalue: r#"{"ok":true}"#.to_owned(),
            keep: Keep::default(),
        };
        let queue = QueueName::default();
        self.stage.broker.finish(&queue, &[finish]).await.unwrap();
    }

    async fn die(&self, nth: usize) {
        self.record(nth, discarded("it can not be")).await;
        let fail = Fail {
            id: self.ids[nth].to_string(),
            token: "t".to_owned(),
            reason: "it can not be".to_owned(),
            stacktrace: "[]".to_owned(),
            attempts: 1,
            keep: Keep::default(),
        };
        let queue = QueueName::default();
        self.stage.broker.fail(&queue, &[fail]).await.unwrap();
    }

    /// Redis forgets these keys of the queue, `*` for all.
    async fn forget(&self, pattern: &str) {
        let mut redis = self.stage.redis().await;
        let pattern = format!("{}:{}:{pattern}", self.stage.prefix, QueueName::default());
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg(pattern)
            .query_async(&mut redis)
            .await
            .unwrap();
        let _: i64 = redis::cmd("DEL")
            .arg(keys)
            .query_async(&mut redis)
            .await
            .unwrap();
    }

    /// Repairs until this job is in this state. The first two seconds of a job nothing is done.
    async fn repaired(&self, nth: usize, state: BrokerState) {
        for id in &self.ids {
            self.stage.age(*id, 60).await;
        }
        eventually("the sweep has repaired it", async || {
            let (record, broker) = (&self.stage.record, &self.stage.broker);
            let mut after = Uuid::nil();
            while let Some(next) = reconcile::sweep_open(record, broker, after).await.unwrap() {
                after = next;
            }
            (self.state(nth).await == Some(state)).then_some(())
        })
        .await;
    }

    async fn values(&self, nth: usize) -> Vec<usize> {
        let queue = QueueName::default();
        let id = self.ids[nth].to_string();
        let values = self.stage.broker.children_values(&queue, &id).await;
        let values = values.unwrap().children;
        assert!(values.iter().all(|(_, value)| {
            let value = value.as_deref();
            value == Some(r#"{"ok":true}"#) || value == Some(r#"{"ok": true}"#)
        }));
        let is_done = |id: &Uuid| {
            let id = id.to_string();
            values.iter().any(|(key, _)| key.ends_with(&id))
        };
        (0..self.ids.len())
            .filter(|nth| is_done(&self.ids[*nth]))
            .collect()
    }
}

async fn enqueue(stage: &Stage, flow: FlowRequest) -> Result<EnqueuedFlow, EnqueueError> {
    let tasks = Tasks::new();
    let enqueue = stage.enqueue(&tasks);
    let answer = enqueue.enqueue_flow(flow).await;
    drop(enqueue);
    assert!(
        tasks.stop(PATIENCE).await,
        "what was accepted is delivered first"
    );
    answer
}

/// The pointer of the first problem.
fn pointer(answer: Result<EnqueuedFlow, EnqueueError>) -> String {
    match answer {
        Err(EnqueueError::Refused(Refused::Invalid { mut problems })) => problems.remove(0).pointer,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_flow_runs_from_its_leaves_to_its_root() {
    let flow = request(
        0,
        vec![request(1, vec![request(3, vec![])]), request(2, vec![])],
    );
    let play = Play::of(flow).await;
    assert_eq!(play.stage.count("jobs WHERE status = 'pending'").await, 4);
    assert_eq!(play.state(0).await, Some(BrokerState::WaitingChildren));

    assert_eq!(play.claimed().await, [2, 3]);
    play.complete(2).await;
    assert_eq!(play.claimed().await, [0_usize; 0]);
    play.complete(3).await;
    assert_eq!(play.claimed().await, [1]);
    play.complete(1).await;
    assert_eq!(play.claimed().await, [0]);
    assert_eq!(play.values(0).await, [1, 2]);
}

#[tokio::test]
async fn a_flow_is_accepted_whole_or_not_at_all() {
    let stage = Stage::new().await;
    let mut keyed = child(2, OnFailure::Wait);
    keyed.job.idempotency_key = Some("k".to_owned());
    let flow = request(0, vec![request(1, vec![]), keyed]);
    let answer = enqueue(&stage, flow).await;
    assert_eq!(pointer(answer), "/children/1/job/idempotencyKey");

    let mut late = request(1, vec![request(2, vec![])]);
    late.job.delay_ms = Some(1000);
    let answer = enqueue(&stage, request(0, vec![late])).await;
    assert_eq!(pointer(answer), "/children/0/job");

    let mut wrong = request(1, vec![]);
    wrong.job.priority = Some(11);
    let answer = enqueue(&stage, request(0, vec![wrong])).await;
    assert_eq!(pointer(answer), "/children/0/job/priority");

    let many = (0..1000).map(|n| request(n, vec![])).collect();
    assert_eq!(pointer(enqueue(&stage, request(0, many)).await), "");
    assert_eq!(stage.count("jobs").await, 0);
}

#[tokio::test]
async fn the_same_key_gives_the_same_flow_back() {
    let stage = Stage::new().await;
    let mut flow = request(0, vec![request(1, vec![])]);
    flow.job.idempotency_key = Some("k".to_owned());
    let first = enqueue(&stage, flow.clone()).await.unwrap();
    assert_eq!((first.root.is_new, first.ids.len()), (true, 2));
    let again = enqueue(&stage, flow.clone()).await.unwrap();
    assert_eq!((again.root.is_new, again.ids), (false, vec![first.root.id]));

    flow.job.payload = json!({ "another": true });
    let reused = enqueue(&stage, flow).await;
    assert!(matches!(reused, Err(EnqueueError::KeyReused { id }) if id == first.root.id));
    let mut other = request(0, vec![request(1, vec![]), request(2, vec![])]);
    other.job.idempotency_key = Some("k".to_owned());
    let reused = enqueue(&stage, other).await;
    assert!(
        matches!(reused, Err(EnqueueError::KeyReused { .. })),
        "the same root with other children is another flow"
    );
    assert_eq!(stage.count("jobs").await, 2);
}

#[tokio::test]
async fn a_forgotten_flow_comes_back_where_it_was() {
    let flow = request(
        0,
        vec![
            request(1, vec![]),
            request(2, vec![request(4, vec![]), request(5, vec![])]),
            request(3, vec![]),
        ],
    );
    let play = Play::of(flow).await;
    assert_eq!(play.claimed().await, [1, 3, 4, 5]);
    for done in [1, 4, 5] {
        play.complete(done).await;
    }
    // The third runs on; its worker knows nothing of what Redis lost.
    play.stage
        .execute(format!(
            "UPDATE jobs SET status = 'processing', attempt = 1, worker_id = 'w',
               started_at = now(), worker_heartbeat_at = now() WHERE id = '{}'",
            play.ids[3]
        ))
        .await;
    play.forget("*").await;
    play.repaired(0, BrokerState::WaitingChildren).await;
    // On a slow machine not with the same sweep.
    play.repaired(2, BrokerState::Prioritized).await;
    assert_eq!(play.state(1).await, None, "it is over");
    assert_eq!(play.values(0).await, [1]);
    assert_eq!(play.values(2).await, [4, 5]);

    assert_eq!(play.claimed().await, [2]);
    play.complete(2).await;
    assert_eq!(play.state(0).await, Some(BrokerState::WaitingChildren));
    // Redis does not know the third any more, so its ending tells nobody but the record.
    play.complete(3).await;
    assert_eq!(play.state(0).await, Some(BrokerState::WaitingChildren));
    play.repaired(0, BrokerState::Prioritized).await;
    assert_eq!(play.values(0).await, [1, 2, 3]);
    assert_eq!(play.claimed().await, [0]);
}

#[tokio::test]
async fn a_parent_comes_back_as_its_dead_children_left_it() {
    for (rule, state, failure) in [
        (OnFailure::Wait, BrokerState::WaitingChildren, false),
        (OnFailure::FailParent, BrokerState::Prioritized, true),
        (OnFailure::ContinueParent, BrokerState::Prioritized, false),
        (OnFailure::IgnoreDependency, BrokerState::Prioritized, false),
        (OnFailure::RemoveDependency, BrokerState::Prioritized, false),
    ] {
        let flow = request(0, vec![child(1, rule), child(2, OnFailure::Wait)]);
        let play = Play::of(flow).await;
        assert_eq!(play.claimed().await, [1, 2]);
        play.complete(2).await;
        play.die(1).await;
        assert_eq!(play.state(0).await, Some(state), "{rule:?}");
        play.forget("*").await;
        play.repaired(0, state).await;
        let claimed = play.claim().await;
        let failures: Vec<bool> = claimed.iter().map(|(_, f)| f.is_some()).collect();
        let expected = match state {
            BrokerState::WaitingChildren => vec![],
            _ => vec![failure],
        };
        assert_eq!(failures, expected, "{rule:?}");
    }
}
