//! Jobs come in that are tied to others: `add_linked`.
//!
//! What any `BullMQ` producer may ask for: a parent, a deduplication id, a schedule, an id that the
//! queue counts. Bullwark's own plain jobs need none of these and go through [`Broker::add`], which
//! is faster.

use serde::Serialize;

use super::add::{OTHER_MEMORY, TOO_LATE};
use super::batch::batches;
use super::connection::ScriptCall;
use super::epoch::EPOCH;
use super::error::Refusal;
use super::keys::check_job_id;
use super::script::ScriptId;
use super::{Broker, BrokerError, NewJob, PRIORITY_MAX, Repeat};
use crate::job::QueueName;
use crate::job::bullmq_options::{Deduplication, JobsOptions};

/// A job with what ties it to others, as it goes on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkedJob {
    /// None: the queue counts.
    pub id: Option<String>,
    pub name: String,
    /// JSON text, never looked into.
    pub data: String,
    /// JSON text, with `BullMQ`'s names.
    pub opts: String,
    /// None: the server's time.
    pub timestamp_ms: Option<i64>,
    /// It may start so long after its timestamp; of a parent: after its release.
    pub delay_ms: i64,
    /// On the wire: 0 none, 1 most urgent, up to [`PRIORITY_MAX`].
    pub priority: u32,
    /// Next in line among the jobs without priority.
    pub lifo: bool,
    /// A parent whose children are yet to come.
    pub waits_for_children: bool,
    /// How often it was started before. Only jobs of the record say so, from 0 on.
    pub attempts_started: Option<u32>,
    /// How many attempts it spent before; written when above 0.
    pub attempts_made: u32,
    /// Whose turn it takes in a fair queue: the workspace.
    pub owner: Option<String>,
    pub parent: Option<ParentLink>,
    pub schedule_id: Option<String>,
    pub deduplication: Option<Deduplication>,
    /// What is known of its children when it is put back.
    pub children: StoredChildren,
    /// Of a child that is put back: a parent that waits for nobody any more does not wait for it
    /// either. Not for children that a parent makes while it runs.
    pub unless_released: bool,
}

/// How the children of a parent stand that is put back into Redis. Each is named by its key,
/// `prefix:queue:id`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StoredChildren {
    /// It waits for them.
    pub pending: Vec<String>,
    /// With what they returned, JSON text.
    pub processed: Vec<(String, String)>,
    /// They failed with this reason, and it goes on.
    pub ignored: Vec<(String, String)>,
    /// They failed, and it fails when it is claimed.
    pub failed: Vec<String>,
}

/// The job that a child belongs to, in whatever queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentLink {
    /// `prefix:queue:id`.
    pub key: String,
    /// The `parent` field of the child: its parent, and what a failure does to that.
    pub json: String,
}

/// What became of a linked job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddedLinked {
    Created {
        id: String,
    },
    /// A job with its id exists. Of that nothing changed but its parent, when one was given.
    Duplicate {
        id: String,
    },
    /// Another job owns its deduplication id and stays; this one is not there, or remembered until
    /// that one ends.
    Deduplicated {
        survivor: String,
    },
    /// Its parent does not exist; nothing was written.
    ParentMissing,
    /// It exists as the child of another parent that lives; nothing was written.
    ParentKept,
}

#[derive(Serialize)]
struct ParentJson<'a> {
    id: &'a str,
    #[serde(rename = "queueKey")]
    queue_key: &'a str,
    #[serde(flatten)]
    policies: serde_json::Map<String, serde_json::Value>,
}

/// A job as the script takes it, besides its data and its options.
#[derive(Serialize)]
struct Packed<'a> {
    queue: &'a str,
    id: Option<&'a str>,
    name: &'a str,
    timestamp_ms: Option<i64>,
    delay_ms: i64,
    priority: u32,
    lifo: bool,
    waits_for_children: bool,
    attempts_started: Option<u32>,
    attempts_made: u32,
    owner: Option<&'a str>,
    parent_key: Option<&'a str>,
    parent: Option<&'a str>,
    schedule_id: Option<&'a str>,
    dedup: Option<&'a Deduplication>,
    children: Option<&'a StoredChildren>,
    unless_released: bool,
}

impl ParentLink {
    /// `queue_key` is `prefix:queue`; `child` says what its failure does to the parent.
    pub fn new(queue_key: &str, id: &str, child: &JobsOptions) -> Self {
        let policies = child.policies().into_iter();
        let json = ParentJson {
            id,
            queue_key,
            policies: policies
                .map(|name| (name.to_owned(), true.into()))
                .collect(),
        };
        Self {
            key: format!("{queue_key}:{id}"),
            json: serde_json::to_string(&json).unwrap_or_default(),
        }
    }
}

impl From<NewJob> for LinkedJob {
    fn from(job: NewJob) -> Self {
        let delay_ms = job.due_ms.map_or(0, |due| (due - job.timestamp_ms).max(0));
        Self {
            id: Some(job.id),
            name: job.name,
            data: job.data,
            opts: job.opts,
            timestamp_ms: Some(job.timestamp_ms),
            delay_ms,
            priority: job.priority,
            lifo: job.lifo,
            attempts_started: job.attempts_started,
            attempts_made: job.attempts_made,
            owner: job.owner,
            ..Self::default()
        }
    }
}

impl AddedLinked {
    /// The job that is there now: this one, or the one that stays instead.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Created { id } | Self::Duplicate { id } => Some(id),
            Self::Deduplicated { survivor } => Some(survivor),
            Self::ParentMissing | Self::ParentKept => None,
        }
    }

    fn read(code: i64, id: String) -> Option<Self> {
        Some(match code {
            1 => Self::Created { id },
            2 => Self::Duplicate { id },
            3 => Self::Deduplicated { survivor: id },
            -5 => Self::ParentMissing,
            -7 => Self::ParentKept,
            _ => return None,
        })
    }
}

impl LinkedJob {
    /// The job that Node's `Queue.add(name, data, options)` would make. `data` is JSON text.
    ///
    /// Refuses what `BullMQ` refuses.
    pub fn new(name: &str, data: &str, options: &JobsOptions) -> Result<Self, BrokerError> {
        options
            .check(data)
            .map_err(|invalid| BrokerError::Refused(Refusal::Options(invalid)))?;
        let parent = options.parent.as_ref();
        Ok(Self {
            id: options.job_id.clone(),
            name: name.to_owned(),
            data: data.to_owned(),
            opts: options.write(),
            timestamp_ms: options.timestamp_ms.filter(|ms| *ms != 0),
            delay_ms: options.delay_ms.unwrap_or(0),
            priority: options.priority.unwrap_or(0),
            lifo: options.lifo,
            parent: parent.map(|parent| ParentLink::new(&parent.queue, &parent.id, options)),
            schedule_id: options.repeat_job_key.clone(),
            deduplication: options.deduplication.clone(),
            ..Self::default()
        })
    }

    fn check(&self) -> Result<(), BrokerError> {
        if self.priority > PRIORITY_MAX {
            return Err(BrokerError::Refused(Refusal::Priority(self.priority)));
        }
        self.id.as_deref().map_or(Ok(()), check_job_id)
    }

    pub(super) fn bytes(&self) -> usize {
        let parent = self.parent.as_ref().map_or(0, |parent| parent.json.len());
        let told = self.children.processed.iter().chain(&self.children.ignored);
        let told: usize = told.map(|(key, value)| key.len() + value.len()).sum();
        self.name.len() + self.data.len() + self.opts.len() + parent + told
    }

    /// A job without an id would be added twice, and a child that ended meanwhile would be waited
    /// for again.
    fn repeat(&self) -> Repeat {
        match self.id.is_some() && self.parent.is_none() {
            true => Repeat::Safe,
            false => Repeat::OnlyIfNotRun,
        }
    }

    fn pack(&self, queue_key: &str) -> Result<Vec<u8>, BrokerError> {
        let parent = self.parent.as_ref();
        rmp_serde::to_vec_named(&Packed {
            queue: queue_key,
            id: self.id.as_deref(),
            name: &self.name,
            timestamp_ms: self.timestamp_ms,
            delay_ms: self.delay_ms,
            priority: self.priority,
            lifo: self.lifo,
            waits_for_children: self.waits_for_children,
            attempts_started: self.attempts_started,
            attempts_made: self.attempts_made,
            owner: self.owner.as_deref(),
            parent_key: parent.map(|parent| parent.key.as_str()),
            parent: parent.map(|parent| parent.json.as_str()),
            schedule_id: self.schedule_id.as_deref(),
            dedup: self.deduplication.as_ref(),
            children: Some(&self.children).filter(|known| **known != StoredChildren::default()),
            unless_released: self.unless_released,
        })
        .map_err(|error| BrokerError::corrupt("add_linked", error.to_string()))
    }
}

impl Broker {
    /// Puts jobs into a queue, in this order, with their links; answers in the same order. A parent
    /// that has nothing to wait for any more is released.
    ///
    /// Atomic per batch of [`BATCH_MAX`](super::BATCH_MAX), as `BullMQ`'s `addBulk` is not. After a
    /// failure nothing is known; run again, it adds what is missing, if all jobs have ids.
    pub async fn add_linked(
        &self,
        queue: &QueueName,
        jobs: &[LinkedJob],
    ) -> Result<Vec<AddedLinked>, BrokerError> {
        let queue_key = self.queue_key(queue);
        jobs.iter().try_for_each(LinkedJob::check)?;
        let mut answers = Vec::with_capacity(jobs.len());
        for batch in batches(jobs, LinkedJob::bytes) {
            let batch: Vec<_> = batch.iter().map(|job| (queue_key.as_str(), job)).collect();
            answers.extend(self.run_linked(&batch, false, None).await?);
        }
        Ok(answers)
    }

    /// One script call, whatever the number of jobs. `is_flow`: parents are released after the last
    /// one. Not later than `not_after_ms` by the server's clock, and then not sent again, as with
    /// [`Broker::add_until`]; and not into another memory of Redis than the one that is served.
    pub(super) async fn run_linked(
        &self,
        jobs: &[(&str, &LinkedJob)],
        is_flow: bool,
        not_after_ms: Option<i64>,
    ) -> Result<Vec<AddedLinked>, BrokerError> {
        const DOING: &str = "add_linked";
        let Some((first_queue, _)) = jobs.first() else {
            return Ok(Vec::new());
        };
        jobs.iter().try_for_each(|(_, job)| job.check())?;
        self.note_v5_peers_of(jobs.iter().map(|(queue_key, _)| *queue_key))
            .await?;
        let meta = format!("{first_queue}:meta");
        let mut call = ScriptCall::new(ScriptId::AddLinked, [&meta, &self.own_key(EPOCH)]);
        call.number_or_empty(self.test_now_ms)
            .flag(is_flow)
            .arg(self.served().as_deref().unwrap_or_default())
            .number_or_empty(not_after_ms);
        let mut repeat = match not_after_ms {
            Some(_) => Repeat::OnlyIfNotRun,
            None => Repeat::Safe,
        };
        for (queue_key, job) in jobs {
            call.arg(&job.data).arg(&job.opts).arg(job.pack(queue_key)?);
            if job.repeat() == Repeat::OnlyIfNotRun {
                repeat = Repeat::OnlyIfNotRun;
            }
        }
        let reply: Vec<(i64, String)> = self.connections.run(&call, repeat).await?;
        match reply.first() {
            Some((OTHER_MEMORY, _)) => return Err(BrokerError::OtherMemory { doing: DOING }),
            Some((TOO_LATE, _)) => return Err(BrokerError::TooLate { doing: DOING }),
            _ => {}
        }
        let count = reply.len();
        let answers = reply
            .into_iter()
            .map(|(code, id)| AddedLinked::read(code, id));
        let answers: Option<Vec<_>> = answers.collect();
        answers
            .filter(|_| count == jobs.len())
            .ok_or_else(|| BrokerError::corrupt(DOING, "not one known code per job"))
    }

    /// `prefix:queue`.
    pub(super) fn queue_key(&self, queue: &QueueName) -> String {
        format!("{}:{queue}", self.options.prefix)
    }
}
