//! The process that calls what people call: it enqueues, cancels, retries, and changes queues.

use bullwark::broker::Broker;
use bullwark::config::environment;
use bullwark::control;
use bullwark::enqueue::Enqueue;
use bullwark::fault;
use bullwark::job::flow::FlowRequest;
use bullwark::job::{JobRequest, QueueChange, QueueName, Schedule, Template};
use bullwark::record::Record;
use bullwark::record::access::By;
use bullwark::tasks::Tasks;
use serde_json::json;
use uuid::Uuid;

use super::doomed::{Doomed, builtin};

/// What it calls, and the number of the first call.
pub(crate) const DEED: &str = "BULLWARK_TEST_DEED";
pub(crate) const FIRST: &str = "BULLWARK_TEST_FIRST";
/// Calls of one process at most.
pub(crate) const CALLS_MAX: u64 = 100;
/// The queue whose settings change.
pub(crate) const SETTLED: &str = "settled";
const HOUR_MS: u64 = 3_600_000;

/// What the process before was not answered is called again, undisturbed, with the same key.
pub(super) async fn run(doomed: Doomed) {
    let deed = environment(DEED).unwrap();
    let first: u64 = environment(FIRST).unwrap().parse().unwrap();
    let types = builtin().job_types().unwrap();
    let (record, broker) = (doomed.record, doomed.broker);
    let tasks = Tasks::new();
    let caller = Caller {
        enqueue: Enqueue::start(record.clone(), broker.clone(), types, &tasks),
        record,
        broker,
    };
    for nth in first..first + CALLS_MAX {
        let ids = caller.call(&deed, nth).await;
        println!("\n{}", json!({ "nth": nth, "ids": ids }));
        if nth == first {
            fault::arm_from(environment).unwrap();
        }
    }
}

struct Caller {
    enqueue: Enqueue,
    record: Record,
    broker: Broker,
}

impl Caller {
    async fn call(&self, deed: &str, nth: u64) -> Vec<Uuid> {
        let key = key(deed, nth);
        let mut request = JobRequest::new("noop", json!({ "key": key }));
        request.idempotency_key = Some(key);
        match deed {
            "enqueue" => vec![self.enqueue.enqueue(request).await.unwrap().id],
            "flow" => {
                let child = || FlowRequest {
                    job: JobRequest::new("noop", json!({ "child": nth })),
                    ..FlowRequest::default()
                };
                let flow = FlowRequest {
                    job: request,
                    children: vec![child(), child()],
                    ..FlowRequest::default()
                };
                self.enqueue.enqueue_flow(flow).await.unwrap().ids
            }
            "control" => {
                request.delay_ms = Some(HOUR_MS);
                let id = self.enqueue.enqueue(request).await.unwrap().id;
                let (record, broker) = (&self.record, &self.broker);
                control::cancel(record, broker, &[id], &By::OPERATOR, "not now")
                    .await
                    .unwrap();
                if is_retried(nth) {
                    control::retry(record, broker, &[id], &By::OPERATOR)
                        .await
                        .unwrap();
                }
                vec![id]
            }
            "settings" => {
                self.change(nth).await;
                vec![]
            }
            _ => panic!("what is `{deed}`?"),
        }
    }

    async fn change(&self, nth: u64) {
        let queue: QueueName = SETTLED.parse().unwrap();
        let (record, broker) = (&self.record, &self.broker);
        if nth.is_multiple_of(2) {
            let change = QueueChange {
                concurrency: Some(Some(nth + 1)),
                ..QueueChange::default()
            };
            control::change_queue(record, broker, &queue, &change, (&By::OPERATOR, None))
                .await
                .unwrap();
            return;
        }
        let template = Template {
            name: "noop".to_owned(),
            data: json!({ "nth": nth }).to_string(),
            opts: "{}".to_owned(),
        };
        let schedule = Schedule::every(HOUR_MS + nth);
        control::upsert_schedule(
            record,
            broker,
            &queue,
            "tick",
            &schedule,
            &template,
            &By::OPERATOR,
        )
        .await
        .unwrap();
    }
}

pub(crate) fn key(deed: &str, nth: u64) -> String {
    format!("{deed}-{nth}")
}

/// Whether a cancelled job is given another run.
pub(crate) fn is_retried(nth: u64) -> bool {
    nth % 2 == 1
}
