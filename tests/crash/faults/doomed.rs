//! The processes that die: no more than what is needed to get there, since there are thousands.

use std::time::Duration;

use bullwark::app::worker_id;
use bullwark::broker::{Broker, BrokerOptions};
use bullwark::config::environment;
use bullwark::enqueue::Enqueue;
use bullwark::fault;
use bullwark::handlers::import_csv::SourceOptions;
use bullwark::handlers::{self, BuiltinOptions};
use bullwark::reconcile;
use bullwark::record::{Record, RecordOptions};
use bullwark::tasks::Tasks;
use bullwark::worker::{Handlers, Worker, WorkerOptions};
use tokio_util::sync::CancellationToken;

use super::caller;
use crate::own_worker::{DATABASE, QUEUE, REDIS, Write};

/// What the process does.
pub(crate) const ROLE: &str = "BULLWARK_TEST_ROLE";
pub(crate) const CALL: &str = "call";
pub(crate) const REPAIR: &str = "repair";
pub(crate) const WORK: &str = "work";
/// Jobs that a worker has at once: so many are lost with it.
const SLOTS: usize = 2;
const LEASE: Duration = Duration::from_secs(1);

/// What every process of Bullwark stands on.
pub(crate) struct Doomed {
    pub(crate) record: Record,
    pub(crate) broker: Broker,
    broker_options: BrokerOptions,
}

/// Not a test: the process that dies. Does nothing when run with the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doomed_process() {
    let Some(role) = environment(ROLE) else {
        return;
    };
    let record = RecordOptions {
        writers: 2,
        connections: 4,
        ..RecordOptions::new(environment(DATABASE).unwrap())
    };
    let broker_options = BrokerOptions {
        url: environment(REDIS).unwrap(),
        ..BrokerOptions::default()
    };
    let doomed = Doomed {
        record: Record::connect(&record).unwrap(),
        broker: Broker::lazy(broker_options.clone()).unwrap(),
        broker_options,
    };
    if role == CALL {
        return caller::run(doomed).await;
    }
    fault::arm_from(environment).unwrap();
    match role.as_str() {
        REPAIR => {
            reconcile::reconcile_all(&doomed.record, &doomed.broker)
                .await
                .unwrap();
        }
        WORK => doomed.work().await,
        _ => panic!("what is `{role}`?"),
    }
}

pub(crate) fn builtin() -> Handlers {
    handlers::builtin(&BuiltinOptions {
        has_diagnostics: true,
        ..BuiltinOptions::new(SourceOptions::new(std::env::temp_dir()))
    })
}

impl Doomed {
    /// Works until it dies. No upkeep: what it lost, others give back.
    async fn work(self) {
        let mut handlers = builtin();
        handlers.add(Write);
        let mut options = WorkerOptions::new(worker_id());
        options.queues = vec![environment(QUEUE).unwrap().parse().unwrap()];
        options.slots = SLOTS;
        options.lease = LEASE;
        let types = handlers.job_types().unwrap();
        let (record, broker, tasks) = (self.record.clone(), self.broker.clone(), Tasks::new());
        let worker = Worker {
            enqueue: Enqueue::start(record, broker, types, &tasks),
            record: self.record,
            broker: self.broker,
            broker_options: self.broker_options,
            handlers,
            options,
        };
        let never = CancellationToken::new();
        worker.run(never.clone(), never).await.unwrap();
    }
}
