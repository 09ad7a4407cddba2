//! Effects over HTTP: the intent is in the record before the call, the result after it.
//!
//! Where it may die, and what the next attempt finds:
//!
//! | between | finds | does |
//! |---|---|---|
//! | nothing and the intent | nothing | makes the call |
//! | the intent and the result | an intent: the call may have taken effect | [`IfUnknown`] |
//! | the result and its answer | the result | returns it, without a call |

use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::JobContext;
use super::step::{check_name, read_result, result_value};
use super::write::write_error;
use crate::job::JobError;
use crate::record::effects::{self, EFFECTS_MAX, EffectRow, Intent};

/// What to do about a call that an earlier attempt was about to make, and of which nobody knows
/// whether it took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfUnknown {
    /// Make it again with the same idempotency key: for providers that take such keys.
    Repeat,
    /// Never send it again: the effect becomes `unknown` and the job waits for a person. It takes
    /// effect at most once.
    GiveUp,
}

/// How a call failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CallError {
    /// It certainly took no effect: it did not leave, or the provider said no. A later attempt may
    /// make it as if for the first time.
    #[error(transparent)]
    NoEffect(JobError),
    /// Nobody knows: a time-out, a broken connection, an error of the provider.
    #[error(transparent)]
    Unknown(JobError),
}

/// The careful reading: what does not say more may have taken effect.
impl From<JobError> for CallError {
    fn from(error: JobError) -> Self {
        Self::Unknown(error)
    }
}

/// What the record says before a call.
enum Before {
    Call,
    Done(Value),
}

impl JobContext {
    /// Makes a call whose effect is outside of PostgreSQL, and keeps its result: a later attempt is
    /// given that result without a call.
    ///
    /// ```
    /// # use bullwark::job::JobError;
    /// # use bullwark::worker::{CallError, IfUnknown, JobContext};
    /// # async fn charge(key: &str, cents: u32) -> Result<String, CallError> { Ok(key.to_owned()) }
    /// # async fn run(ctx: JobContext, cents: u32) -> Result<String, JobError> {
    /// ctx.once("charge", &cents, IfUnknown::Repeat, async |idempotency_key| {
    ///     charge(idempotency_key, cents).await // sends it as the header `Idempotency-Key`
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// Before the call an intent is committed, fenced; if that fails, no call is made. The key that
    /// the call is given is the same in every attempt and unlike all others. If an earlier attempt
    /// left an intent and no result, `if_unknown` decides.
    ///
    /// `request` is what the call says: only its hash is kept. The same key with another request is
    /// a mistake, and no call is made. At most 1,000 effects per job,
    /// [`STEP_RESULT_MAX_BYTES`](super::STEP_RESULT_MAX_BYTES) per result.
    pub async fn once<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        request: &impl Serialize,
        if_unknown: IfUnknown,
        call: impl AsyncFnOnce(&str) -> Result<T, CallError>,
    ) -> Result<T, JobError> {
        check_name("effect", key)?;
        let intent = self.intent(key, request)?;
        let before = self.insist(|| self.intend(&intent, if_unknown).boxed());
        match before.await? {
            Before::Done(result) => return read_result(key, result),
            Before::Call => {}
        }
        let value = match call(&intent.idempotency_key).await {
            Ok(value) => value,
            Err(CallError::Unknown(error)) => return Err(error),
            Err(CallError::NoEffect(error)) => {
                // If this fails the intent stays, which is the careful side.
                if let Err(why) = self.insist(|| self.withdraw(&intent).boxed()).await {
                    tracing::warn!(job.id = %intent.job_id, %why, "an intent is not withdrawn");
                }
                return Err(error);
            }
        };
        let result = result_value(key, &value)?;
        self.insist(|| self.note_result(&intent, &result).boxed())
            .await?;
        Ok(value)
    }

    fn intent(&self, key: &str, request: &impl Serialize) -> Result<Intent, JobError> {
        let held = &self.inner.held;
        // Through a value: its keys have one order.
        let request = serde_json::to_value(request)
            .map_err(|error| JobError::Permanent(format!("request of `{key}`: {error}")))?;
        Ok(Intent {
            job_id: held.id,
            key: key.to_owned(),
            idempotency_key: Uuid::new_v5(&held.id, key.as_bytes()).to_string(),
            fingerprint: Sha256::digest(request.to_string()).to_vec(),
            call_id: Uuid::new_v4(),
            attempt: held.attempt,
        })
    }

    /// Notes the intent and decides about the call. Safe to repeat.
    async fn intend(&self, intent: &Intent, if_unknown: IfUnknown) -> Result<Before, JobError> {
        let key = &intent.key;
        let mut fenced = self.begin_fenced().await?;
        let row = effects::intend(&mut fenced.tx, intent).await;
        let Some(row) = row.map_err(write_error)? else {
            return Err(JobError::Permanent(format!(
                "effect `{key}`: the job has {EFFECTS_MAX} others, and that is the most"
            )));
        };
        let EffectRow {
            state,
            result,
            fingerprint,
            call_id,
        } = row;
        if fingerprint != intent.fingerprint {
            return Err(JobError::Permanent(format!(
                "effect `{key}`: an earlier attempt made this call with another request"
            )));
        }
        if let Some(result) = result {
            return Ok(Before::Done(result));
        }
        let unknown = JobError::Permanent(format!(
            "effect `{key}`: unknown whether it took effect; it is not sent again"
        ));
        if state != "intended" {
            return Err(unknown);
        }
        let is_given_up = call_id != intent.call_id && if_unknown == IfUnknown::GiveUp;
        let written = match is_given_up {
            true => effects::give_up(&mut fenced.tx, intent).await,
            false if call_id == intent.call_id => Ok(()),
            false => effects::intend_again(&mut fenced.tx, intent).await,
        };
        written.map_err(write_error)?;
        fenced.commit().await.map_err(write_error)?;
        match is_given_up {
            true => Err(unknown),
            false => Ok(Before::Call),
        }
    }

    async fn note_result(&self, intent: &Intent, result: &Value) -> Result<(), JobError> {
        let mut fenced = self.begin_fenced().await?;
        let noted = effects::note_result(&mut fenced.tx, intent, result).await;
        noted.map_err(write_error)?;
        fenced.commit().await.map_err(write_error)
    }

    async fn withdraw(&self, intent: &Intent) -> Result<(), JobError> {
        let mut fenced = self.begin_fenced().await?;
        let withdrawn = effects::withdraw(&mut fenced.tx, intent).await;
        withdrawn.map_err(write_error)?;
        fenced.commit().await.map_err(write_error)
    }
}
