//! What a job type is made of: a payload type, and code that runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics::SharedString;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::JobContext;
use crate::job::request::MAX_ATTEMPTS;
use crate::job::{Backoff, InvalidType, JobError, JobType, JobTypes, TIMEOUT};

/// The largest result, in bytes of JSON text. Larger output belongs into a file.
pub const RESULT_MAX_BYTES: usize = 1024 * 1024;
/// Types without a handler of their own that have figures of their own.
const LABELS_MAX: usize = 200;

/// The code of one job type.
///
/// A handler runs at least once per job. What it writes inside [`JobContext::transaction`],
/// [`JobContext::step_in_tx`] or [`JobContext::begin_checkpoint`] takes effect exactly once;
/// everything else must be safe to repeat.
pub trait Handler: Send + Sync + 'static {
    /// The name that requests use.
    const TYPE: &'static str;
    /// Its JSON Schema checks every request before it is accepted.
    type Payload: DeserializeOwned + JsonSchema + Send;
    type Output: Serialize + Send;

    /// How long an attempt may take, unless the job says otherwise.
    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    /// Replaces the specification's retry delays for this type.
    fn backoff(&self) -> Option<Backoff> {
        None
    }

    fn max_attempts(&self) -> u32 {
        MAX_ATTEMPTS
    }

    fn run(
        &self,
        ctx: JobContext,
        payload: Self::Payload,
    ) -> impl Future<Output = Result<Self::Output, JobError>> + Send;
}

/// A handler with its types erased.
trait Run: Send + Sync {
    fn timeout(&self) -> Duration;
    /// None: it runs any type.
    fn job_type(&self) -> Option<Result<JobType, InvalidType>>;
    fn run(
        self: Arc<Self>,
        ctx: JobContext,
        payload: String,
    ) -> BoxFuture<'static, Result<String, JobError>>;
}

impl<H: Handler> Run for H {
    fn timeout(&self) -> Duration {
        Handler::timeout(self)
    }

    fn job_type(&self) -> Option<Result<JobType, InvalidType>> {
        let schema = schemars::schema_for!(H::Payload).to_value();
        let complete = |mut job_type: JobType| {
            job_type.timeout = Handler::timeout(self);
            job_type.backoff = Handler::backoff(self);
            job_type.max_attempts = Handler::max_attempts(self);
            job_type
        };
        Some(JobType::new(H::TYPE, schema).map(complete))
    }

    fn run(
        self: Arc<Self>,
        ctx: JobContext,
        payload: String,
    ) -> BoxFuture<'static, Result<String, JobError>> {
        async move {
            let payload: H::Payload = serde_json::from_str(&payload)
                .map_err(|error| JobError::Permanent(format!("payload: {error}")))?;
            let output = Handler::run(&*self, ctx, payload).await?;
            result_text(&output)
        }
        .boxed()
    }
}

/// A result as JSON text.
pub(super) fn result_text(output: &impl Serialize) -> Result<String, JobError> {
    let result = serde_json::to_string(output)
        .map_err(|error| JobError::Permanent(format!("result: {error}")))?;
    bounded(result)
}

/// The result, unless it is too large for the record.
fn bounded(result: String) -> Result<String, JobError> {
    match result.len() {
        0..=RESULT_MAX_BYTES => Ok(result),
        bytes => Err(JobError::Permanent(format!(
            "result has {bytes} bytes, at most {RESULT_MAX_BYTES} are allowed"
        ))),
    }
}

#[cfg(feature = "handlers")]
impl Run for super::forward::Forward {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn job_type(&self) -> Option<Result<JobType, InvalidType>> {
        None
    }

    fn run(
        self: Arc<Self>,
        ctx: JobContext,
        _payload: String,
    ) -> BoxFuture<'static, Result<String, JobError>> {
        async move { bounded(self.deliver(&ctx).await?) }.boxed()
    }
}

/// The job types that a worker can run.
#[derive(Clone, Default)]
pub struct Handlers {
    by_type: BTreeMap<&'static str, Arc<dyn Run>>,
    /// Runs every type.
    any: Option<Arc<dyn Run>>,
    /// The types that `any` ran and that have figures of their own.
    labels: Arc<Mutex<BTreeSet<Arc<str>>>>,
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.by_type.keys()).finish()
    }
}

impl Handlers {
    /// Adds a handler; a second one of the same type replaces the first.
    pub fn add<H: Handler>(&mut self, handler: H) {
        self.by_type.insert(H::TYPE, Arc::new(handler));
    }

    /// Delivers every job over HTTP, whatever its type: no handler runs here any more.
    #[cfg(feature = "handlers")]
    pub fn forward(&mut self, forward: super::forward::Forward) {
        self.by_type.clear();
        self.any = Some(Arc::new(forward));
    }

    /// Whether jobs are delivered, with all that Redis has of them.
    pub(super) fn forwards(&self) -> bool {
        self.any.is_some()
    }

    /// The types with their schemas, for the check of requests.
    pub fn job_types(&self) -> Result<JobTypes, InvalidType> {
        let mut types = JobTypes::default();
        for handler in self.by_type.values() {
            if let Some(job_type) = handler.job_type() {
                types.add(job_type?);
            }
        }
        Ok(types)
    }

    /// The types that run here; none: whatever comes.
    pub(super) fn served_types(&self) -> Option<Vec<String>> {
        let names = self.by_type.keys().map(|name| (*name).to_owned());
        self.any.is_none().then(|| names.collect())
    }

    /// The time limit of a type, if this worker runs it.
    pub(super) fn timeout(&self, job_type: &str) -> Option<Duration> {
        let handler = self.by_type.get(job_type).or(self.any.as_ref())?;
        Some(handler.timeout())
    }

    /// What the figures of a job stand under. Types without a handler are clients' words, of which
    /// there may be any number: where whatever comes is run, the first [`LABELS_MAX`] have figures
    /// of their own.
    pub(super) fn label(&self, job_type: &str) -> SharedString {
        let other = SharedString::const_str("other");
        if let Some((name, _)) = self.by_type.get_key_value(job_type) {
            return SharedString::const_str(name);
        }
        if self.any.is_none() {
            return other;
        }
        let mut labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        match labels.get(job_type) {
            Some(label) => label.clone().into(),
            None if labels.len() < LABELS_MAX => {
                let label: Arc<str> = job_type.into();
                labels.insert(label.clone());
                label.into()
            }
            None => other,
        }
    }

    /// Runs a job. A type without handler fails with an error that may be retried: during an
    /// update another worker may know it already.
    pub(super) fn run(
        &self,
        job_type: &str,
        ctx: JobContext,
        payload: String,
    ) -> BoxFuture<'static, Result<String, JobError>> {
        match self.by_type.get(job_type).or(self.any.as_ref()) {
            Some(handler) => handler.clone().run(ctx, payload),
            None => {
                let known: Vec<&str> = self.by_type.keys().copied().collect();
                let known = known.join(", ");
                let error = format!("this worker has no handler for `{job_type}`; it has: {known}");
                std::future::ready(Err(JobError::Retry(error))).boxed()
            }
        }
    }
}
