//! Flows: a tree of jobs, accepted whole.
//!
//! All rows are committed in one transaction, each with its links; then Redis gets the tree in one
//! script call. If that fails, `reconcile` finds the rows and puts each job back with its links, in
//! whatever state its relatives are by then.

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::deliver::{FRESH, ROOM_TIMEOUT, due_ms, entry, not_after};
use super::insert::insert_whole;
use super::{Enqueue, EnqueueError, Enqueued, answer};
use crate::broker::{Broker, BrokerError, FLOW_BYTES_MAX, FLOW_NODES_MAX, LinkedJob, ParentLink};
use crate::fault::{self, Point};
use crate::job::bullmq_options::{JobsOptions, ParentOption};
use crate::job::flow::{FlowRequest, FlowWire, OnFailure};
use crate::job::wire::parent_options;
use crate::job::{Due, NewJob, Problem, QueueName, Refused};
use crate::record::Record;
use crate::record::enqueue::Inserted;
use crate::record::flow::FlowRows;
use crate::tasks::Tasks;

/// Flows between commit and Redis.
const FLOWS_MAX: usize = 64;

/// An accepted flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnqueuedFlow {
    pub root: Enqueued,
    /// The ids of all jobs, level by level, the root's first. Only the root's when its idempotency
    /// key was used before.
    pub ids: Vec<Uuid>,
}

/// The record, and the way of flows to Redis.
#[derive(Debug, Clone)]
pub(super) struct Flows {
    record: Record,
    prefix: String,
    sender: mpsc::Sender<FlowDelivery>,
}

#[derive(Debug)]
struct FlowDelivery {
    /// Not later than the commit.
    begun: Instant,
    jobs: Vec<(QueueName, LinkedJob)>,
}

/// A checked job with its place in the tree.
struct Planned {
    job: NewJob,
    above: Option<usize>,
    on_failure: OnFailure,
    children: Vec<Uuid>,
}

impl Planned {
    /// Where it hangs, and by what rule: two flows are the same request only if these are.
    fn place(&self) -> String {
        format!("{:?} {:?}", self.above, self.on_failure)
    }
}

impl Flows {
    pub(super) fn start(record: Record, broker: Broker, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(FLOWS_MAX);
        let prefix = broker.prefix().to_owned();
        tasks.spawn(
            "deliver flows",
            run(broker, receiver, tasks.stopping().clone()),
        );
        Self {
            record,
            prefix,
            sender,
        }
    }
}

impl Enqueue {
    /// Accepts a flow: all of its jobs or none. When this returns `Ok`, they are on disk; each will
    /// run when its children are done.
    ///
    /// At most [`FLOW_NODES_MAX`] jobs and [`FLOW_BYTES_MAX`] bytes of payload.
    pub async fn enqueue_flow(&self, flow: FlowRequest) -> Result<EnqueuedFlow, EnqueueError> {
        let planned = self.plan(flow)?;
        let jobs: Vec<NewJob> = planned.iter().map(|planned| planned.job.clone()).collect();
        let prefix = &self.flows.prefix;
        let links = |created_at: DateTime<Utc>| -> Vec<String> {
            let linked = link(&planned, prefix, created_at);
            let texts = planned
                .iter()
                .zip(&linked)
                .map(|(p, (_, job))| wire(p, job));
            texts.collect()
        };
        let places: Vec<String> = planned.iter().map(Planned::place).collect();
        // Before the commit: whatever holds it up, or its answer, counts.
        let begun = Instant::now();
        let tree = FlowRows {
            jobs: &jobs,
            places: &places,
            links: &links,
        };
        let inserted = insert_whole(&self.flows.record, &tree).await;
        let inserted = inserted.map_err(|error| EnqueueError::Record(Arc::new(error)))?;
        let (Some(inserted), Some(root)) = (inserted, jobs.first()) else {
            return Err(EnqueueError::Stopping);
        };
        let root = answer(root.id, &inserted)?;
        let mut ids = vec![root.id];
        if let Inserted::New { created_at } = inserted {
            fault::point(Point::AfterFlowCommit);
            ids = jobs.iter().map(|job| job.id).collect();
            let delivery = FlowDelivery {
                begun,
                jobs: link(&planned, prefix, created_at),
            };
            let sent = self.flows.sender.send_timeout(delivery, ROOM_TIMEOUT);
            if sent.await.is_err() {
                left(ids.len());
            }
        }
        Ok(EnqueuedFlow { root, ids })
    }

    /// Level by level, so that ids ascend from parents to children.
    fn plan(&self, flow: FlowRequest) -> Result<Vec<Planned>, Refused> {
        let mut planned: Vec<Planned> = Vec::new();
        let mut waiting = VecDeque::from([(flow, None, String::new())]);
        let mut bytes = 0;
        while let Some((flow, above, pointer)) = waiting.pop_front() {
            if planned.len() == FLOW_NODES_MAX {
                let message = format!("the flow has more than {FLOW_NODES_MAX} jobs");
                return Err(refuse("", message));
            }
            let job = self
                .check(flow.job)
                .map_err(|refused| within(&pointer, refused))?;
            if above.is_some() && job.idempotency_key.is_some() {
                let message = "only the root of a flow may have one".to_owned();
                return Err(refuse(&format!("{pointer}/job/idempotencyKey"), message));
            }
            if !flow.children.is_empty() && job.due != Due::Now {
                let message = "a job with children starts when they are done".to_owned();
                return Err(refuse(&format!("{pointer}/job"), message));
            }
            bytes += job.payload.len();
            if bytes > FLOW_BYTES_MAX {
                let message = format!("the payloads have more than {FLOW_BYTES_MAX} bytes");
                return Err(refuse("", message));
            }
            let at = planned.len();
            if let Some(parent) = above.and_then(|above: usize| planned.get_mut(above)) {
                parent.children.push(job.id);
            }
            planned.push(Planned {
                job,
                above,
                on_failure: flow.on_failure,
                children: Vec::new(),
            });
            for (nth, child) in flow.children.into_iter().enumerate() {
                waiting.push_back((child, Some(at), format!("{pointer}/children/{nth}")));
            }
        }
        Ok(planned)
    }
}

/// The jobs as they go to Redis.
fn link(
    planned: &[Planned],
    prefix: &str,
    created_at: DateTime<Utc>,
) -> Vec<(QueueName, LinkedJob)> {
    let created_ms = created_at.timestamp_millis();
    let one = |this: &Planned| {
        let plain = entry(&this.job, created_ms, due_ms(&this.job, created_ms), 0, 0);
        let mut linked = LinkedJob::from(plain);
        if !this.children.is_empty() {
            linked.waits_for_children = true;
            linked.opts = parent_options(&this.job, created_ms);
        }
        if let Some(parent) = this.above.map(|above| &planned[above].job) {
            let mut options = JobsOptions::read(&linked.opts);
            let (id, queue) = (parent.id.to_string(), format!("{prefix}:{}", parent.queue));
            this.on_failure.write(&mut options);
            linked.parent = Some(ParentLink::new(&queue, &id, &options));
            options.parent = Some(ParentOption { id, queue });
            linked.opts = options.write();
        }
        (this.job.queue.clone(), linked)
    };
    planned.iter().map(one).collect()
}

fn wire(planned: &Planned, linked: &LinkedJob) -> String {
    let wire = FlowWire {
        opts: linked.opts.clone(),
        priority: linked.priority,
        parent_key: linked.parent.as_ref().map(|parent| parent.key.clone()),
        parent: linked.parent.as_ref().map(|parent| parent.json.clone()),
        children: planned.children.clone(),
    };
    serde_json::to_string(&wire).unwrap_or_default()
}

fn refuse(pointer: &str, message: String) -> Refused {
    let pointer = pointer.to_owned();
    Refused::Invalid {
        problems: vec![Problem { pointer, message }],
    }
}

/// Says in which job of the flow the problems are.
fn within(pointer: &str, refused: Refused) -> Refused {
    match refused {
        Refused::Invalid { mut problems } => {
            for problem in &mut problems {
                problem.pointer = format!("{pointer}/job{}", problem.pointer);
            }
            Refused::Invalid { problems }
        }
        other => other,
    }
}

/// `reconcile` will deliver them.
fn left(jobs: usize) {
    metrics::counter!("bullwark_deliveries_left_total").increment(jobs as u64);
}

/// Ends when every handle is gone, or when it should stop and nothing waits any more.
async fn run(
    broker: Broker,
    mut receiver: mpsc::Receiver<FlowDelivery>,
    stopping: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            biased;
            next = receiver.recv() => next,
            () = stopping.cancelled() => {
                receiver.close();
                receiver.recv().await
            }
        };
        let Some(FlowDelivery { begun, jobs }) = next else {
            return;
        };
        if begun.elapsed() > FRESH {
            left(jobs.len());
        } else if let Err(error) = add_fresh(&broker, &jobs, begun).await {
            tracing::warn!(%error, jobs = jobs.len(), "flow not delivered; reconcile will");
            left(jobs.len());
        }
    }
}

async fn add_fresh(
    broker: &Broker,
    jobs: &[(QueueName, LinkedJob)],
    begun: Instant,
) -> Result<(), BrokerError> {
    let not_after = not_after(broker, begun).await?;
    broker.add_flow_jobs(jobs, Some(not_after)).await?;
    Ok(())
}
