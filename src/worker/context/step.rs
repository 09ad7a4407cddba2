//! Named parts of a job that later attempts skip.
//!
//! Where it may die, and what the next attempt finds:
//!
//! | between | finds | does |
//! |---|---|---|
//! | the work of `step` and its commit | no step | does the work again |
//! | the work of `step_in_tx` and its commit | nothing of it | does the work |
//! | a commit and its answer | the step | skips it, with the result that was kept |

use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::write::{Wrote, not_committed, write_error};
use super::{Inner, JobContext};
use crate::job::JobError;
use crate::record::steps::{self, Kept, STEPS_MAX};
use crate::record::{RecordError, Tx};

/// The longest name of a step, and the longest key of an effect.
pub const NAME_MAX_BYTES: usize = 100;
/// The largest result of a step or an effect, in bytes of JSON text.
pub const STEP_RESULT_MAX_BYTES: usize = 64 * 1024;

impl JobContext {
    /// Runs a named part of the job and keeps its result: a later attempt is given that result
    /// instead of running the part again.
    ///
    /// ```
    /// # use bullwark::job::JobError;
    /// # use bullwark::worker::JobContext;
    /// # async fn fetch(url: &str) -> Result<String, JobError> { Ok(url.to_owned()) }
    /// # async fn run(ctx: JobContext) -> Result<usize, JobError> {
    /// let page = ctx.step("fetch", async || fetch("https://example.com").await).await?;
    /// Ok(page.len())
    /// # }
    /// ```
    ///
    /// The result is kept after the work, so the work runs at least once: if the process dies in
    /// between, it runs again. For writes to PostgreSQL there is [`Self::step_in_tx`], for calls
    /// over HTTP [`Self::once`].
    ///
    /// Names are unique within a job: the same name again gives the same result, also within one
    /// attempt. At most 1,000 steps per job, [`STEP_RESULT_MAX_BYTES`] per result. A job that is
    /// retried by hand keeps its steps. [`JobError::LeaseLost`]: the job went elsewhere.
    pub async fn step<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        work: impl AsyncFnOnce() -> Result<T, JobError>,
    ) -> Result<T, JobError> {
        check_name("step", name)?;
        let known = self.insist(|| self.find(name).boxed()).await?;
        if let Some(kept) = known {
            return read_result(name, kept);
        }
        let value = work().await?;
        let result = result_value(name, &value)?;
        // The work is done: rather several tries to keep its result than to do it again.
        let before = self.insist(|| self.keep(name, &result).boxed()).await?;
        match before {
            Some(kept) => read_result(name, kept),
            None => Ok(value),
        }
    }

    /// A step whose writes are in the transaction that keeps its result: they take effect exactly
    /// once, and a later attempt is given the result instead.
    ///
    /// ```
    /// # use bullwark::job::JobError;
    /// # use bullwark::worker::JobContext;
    /// # async fn run(ctx: JobContext) -> Result<(), JobError> {
    /// ctx.step_in_tx("reserve", async |tx| {
    ///     sqlx::query("UPDATE stock SET reserved = reserved + 1 WHERE item = 7")
    ///         .execute(tx.connection())
    ///         .await
    ///         .map_err(JobError::retry)?;
    ///     Ok(())
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// An error or a panic rolls back; so does a lost lease. Until the commit nobody else can
    /// restart, settle or cancel the job: keep it short, and make no other writes of this context
    /// inside of it.
    pub async fn step_in_tx<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        work: impl AsyncFnOnce(&mut Tx) -> Result<T, JobError>,
    ) -> Result<T, JobError> {
        check_name("step", name)?;
        let id = self.inner.held.id;
        let mut fenced = self.begin_fenced().await?;
        let known = steps::find(&mut fenced.tx, id, name).await;
        if let Some(kept) = known.map_err(write_error)? {
            return read_result(name, kept);
        }
        let value = work(&mut fenced.tx).await?;
        let result = result_value(name, &value)?;
        self.keep_in(&mut fenced.tx, name, &result).await?;
        match fenced.commit().await {
            Ok(()) => Ok(value),
            Err(error @ RecordError::Refused { .. }) => Err(write_error(error)),
            Err(error) => match self.resolve(&error, Wrote::Step(name)).await {
                true => Ok(value),
                false => Err(not_committed(&error)),
            },
        }
    }

    async fn find(&self, name: &str) -> Result<Option<Value>, JobError> {
        let Inner {
            record,
            held,
            worker_id,
            ..
        } = &*self.inner;
        let known = steps::look_up(record, held.id, held.attempt, worker_id, name).await;
        known.map_err(write_error)?.ok_or_else(|| self.lease_lost())
    }

    async fn keep(&self, name: &str, result: &Value) -> Result<Option<Value>, JobError> {
        let mut fenced = self.begin_fenced().await?;
        let before = self.keep_in(&mut fenced.tx, name, result).await?;
        fenced.commit().await.map_err(write_error)?;
        Ok(before)
    }

    /// Keeps the result of a step; returns the one that was kept before, if there is one.
    async fn keep_in(
        &self,
        tx: &mut Tx,
        name: &str,
        result: &Value,
    ) -> Result<Option<Value>, JobError> {
        let held = &self.inner.held;
        let kept = steps::keep(tx, held.id, held.attempt, name, result).await;
        match kept.map_err(write_error)? {
            Kept::Now => Ok(None),
            Kept::Before(result) => Ok(Some(result)),
            Kept::Full => Err(JobError::Permanent(format!(
                "step `{name}`: the job has {STEPS_MAX} others, and that is the most"
            ))),
        }
    }
}

/// Names go into an index and onto pages.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), JobError> {
    let is_good = !name.is_empty() && name.len() <= NAME_MAX_BYTES;
    match is_good && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(JobError::Permanent(format!(
            "{what} {name:?}: a name has 1 to {NAME_MAX_BYTES} bytes and no control characters"
        ))),
    }
}

/// A result as it is kept.
pub(super) fn result_value(name: &str, value: &impl Serialize) -> Result<Value, JobError> {
    let result = serde_json::to_value(value)
        .map_err(|error| JobError::Permanent(format!("result of `{name}`: {error}")))?;
    match result.to_string().len() {
        0..=STEP_RESULT_MAX_BYTES => Ok(result),
        bytes => Err(JobError::Permanent(format!(
            "result of `{name}` has {bytes} bytes, at most {STEP_RESULT_MAX_BYTES} are allowed"
        ))),
    }
}

/// A kept result as the handler's type. The code may have changed since it was kept.
pub(super) fn read_result<T: DeserializeOwned>(name: &str, kept: Value) -> Result<T, JobError> {
    serde_json::from_value(kept).map_err(|error| {
        JobError::Permanent(format!(
            "the kept result of `{name}` can not be read: {error}"
        ))
    })
}
