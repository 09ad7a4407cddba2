//! What a sync needs of a CRM, whichever it is.
//!
//! A client speaks one provider's wire and nothing else: it knows neither the record nor what the
//! values mean. It takes permits (`crate::quota`), renews tokens, cuts what it is given into
//! requests of the size that the provider takes, and bisects a request that is refused as a whole.
//!
//! Promises of every client: each call has a time limit and a bound on its answer; a record that
//! is refused never hides the others of its request; all that is written may be written again
//! (records are updated by their id, or upserted by ours), so an [`CrmError::Ambiguous`] end is
//! repaired by doing the same again. No error has a credential.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::super::connection::{Connection, Connections};
use crate::job::JobError;
use crate::outbound::Caller;
use crate::worker::JobContext;

/// The most records of one page of changes or deletions.
pub const PAGE_MAX: usize = 200;
/// The most records that the engine gives to one [`Crm::upsert`], unless it is told to send in
/// bulk ([`Crm::bulk_from`]), and then.
pub const UPSERT_MAX: usize = 200;
pub const BULK_MAX: usize = 10_000;
/// The most ids of one [`Crm::read`].
pub const FIND_MAX: usize = 100;
/// The most values of one [`Crm::find`], and the most records that it gives.
pub const VALUES_MAX: usize = 300;
pub const FOUND_MAX: usize = 200;

/// What is synced, parents before children.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Entity {
    Accounts,
    Contacts,
    Opportunities,
}

impl Entity {
    pub const ALL: [Self; 3] = [Self::Accounts, Self::Contacts, Self::Opportunities];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Contacts => "contacts",
            Self::Opportunities => "opportunities",
        }
    }
}

/// Values by the provider's names of fields.
///
/// Null is "has none", and empties the field when it is sent. Numbers, booleans and texts only;
/// dates are texts (`2026-01-31`, RFC 3339). The parent is not among them.
pub type Fields = BTreeMap<String, Value>;

/// A field of an object, from the provider's own description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldInfo {
    /// In characters.
    pub max_length: Option<u32>,
    /// A new record needs it, and the provider has no default for it.
    pub is_required: bool,
    /// We may set it.
    pub is_writable: bool,
    /// Of a restricted choice: nothing else is taken. Empty: anything.
    pub choices: Vec<String>,
}

/// By name of field.
pub type Description = BTreeMap<String, FieldInfo>;

/// A record of the CRM.
#[derive(Debug, Clone, PartialEq)]
pub struct Remote {
    /// The provider's.
    pub id: String,
    /// Those that were asked for, each: null where the record has none.
    pub fields: Fields,
    /// `SystemModstamp`, `hs_lastmodifieddate`: the provider's clock.
    pub modified_at: DateTime<Utc>,
    /// Who changed it last, as [`Identity::user_id`] names users, where the provider says so.
    pub modified_by: Option<String>,
    /// Our id, where the record bears one (the field that [`Push::local_id`] goes to).
    pub local_id: Option<Uuid>,
    /// The id of its account: of contacts and opportunities.
    pub parent_id: Option<String>,
}

/// Where a reader of changes is: behind all that was changed before `since`, and, of what was
/// changed at that moment, behind `after` (by id; none: before all of them).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub since: DateTime<Utc>,
    pub after: Option<String>,
}

/// Some of what was changed, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    pub records: Vec<Remote>,
    /// None: that was the last. It always gets on: never equal to the cursor that was given.
    pub next: Option<Cursor>,
}

/// A record that was deleted or archived in the CRM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    pub id: String,
    pub deleted_at: DateTime<Utc>,
}

/// Some of what was deleted, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deletions {
    pub records: Vec<Deletion>,
    /// Give it back to get more; none: that was the last.
    pub next: Option<String>,
}

/// A record to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    /// Ours: goes into the field of external ids, by which a record without `id` is upserted.
    pub local_id: Uuid,
    /// The provider's, where it is known: then that record is updated.
    pub id: Option<String>,
    /// What is set; what is not named stays as it is.
    pub fields: Fields,
    /// The id of its account, to be set; `Some(None)` takes it away.
    pub parent_id: Option<Option<String>>,
    /// Tells our writes apart where the provider keeps it (`objectWriteTraceId`); at most 100
    /// bytes of letters, digits and `-`.
    pub trace: String,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done {
        id: String,
        is_new: bool,
        /// The provider's moment of the write, where the answer tells it.
        modified_at: Option<DateTime<Utc>>,
    },
    /// The provider has one that it takes for the same: `id`, where it says which.
    Duplicate {
        id: Option<String>,
        refusal: Refusal,
    },
    /// [`Push::id`] is deleted there, or hidden from us: the two look the same.
    Gone(Refusal),
    /// Locked, or in the way of others: the same may work later.
    Retryable(Refusal),
    /// The record must be changed first.
    Permanent(Refusal),
}

/// Why a record was not taken, in the provider's words, cut to what the record holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// `REQUIRED_FIELD_MISSING`, `VALIDATION_ERROR` …
    pub code: String,
    pub message: String,
    /// Which fields it is about, where the provider says so.
    pub fields: Vec<String>,
}

/// Who we are there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The integration's user, as [`Remote::modified_by`] names it.
    pub user_id: Option<String>,
    /// The organization or portal: a connection that suddenly leads to another one must not go on
    /// with the links of the first.
    pub org_id: Option<String>,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CrmError {
    /// Network, 408, 425, 5xx, a lock: later, at this distance if the provider says one.
    #[error("{1}")]
    Retryable(Option<Duration>, String),
    /// The credentials are refused, also after they were renewed once.
    #[error("{0}")]
    Auth(String),
    /// 429, or the budget of a day is used up: not before this distance, and no attempt is spent.
    #[error("{1}")]
    Budget(Duration, String),
    /// No object or field of that name, no right to it, an answer that is none: for people.
    #[error("{0}")]
    PermanentRun(String),
    /// It was sent, and nobody knows whether it was done.
    #[error("{0}")]
    Ambiguous(String),
    /// The job is to end like that: it lost its lease, or waits for a permit.
    #[error("{0}")]
    Job(JobError),
}

impl From<JobError> for CrmError {
    fn from(error: JobError) -> Self {
        Self::Job(error)
    }
}

impl CrmError {
    /// How the job goes on. Refused credentials take the connection out of service.
    pub async fn into_job(self, ctx: &JobContext, connection: &Connection) -> JobError {
        match self {
            Self::Retryable(Some(wait), why) => JobError::RetryAfter(wait, why),
            Self::Retryable(None, why) | Self::Ambiguous(why) => JobError::Retry(why),
            Self::Auth(why) => connection.refused(ctx, &why).await,
            Self::Budget(wait, why) => JobError::Snooze(wait, why),
            Self::PermanentRun(why) => JobError::Permanent(why),
            Self::Job(error) => error,
        }
    }
}

/// What clients are made with.
#[derive(Debug, Clone)]
pub struct Outside {
    pub caller: Caller,
    pub connections: Connections,
}

type Answered<T> = Result<T, CrmError>;

/// A CRM, through one connection, for one attempt of a job.
///
/// A client is made by `fn new(outside: Outside, ctx: JobContext, connection: Connection) -> Self`.
pub trait Crm: Send + Sync {
    /// The connection that it was made with.
    fn connection(&self) -> &Connection;

    /// From so many records on, [`Crm::upsert`] is given up to [`BULK_MAX`] at once, for the
    /// provider's way of sending much. None: it has no such way.
    fn bulk_from(&self) -> Option<usize> {
        None
    }

    fn identity(&self) -> impl Future<Output = Answered<Identity>> + Send;

    /// The fields of an object.
    fn describe(&self, entity: Entity) -> impl Future<Output = Answered<Description>> + Send;

    /// What was changed or made since, with these fields. Deleted records are not among them.
    fn changes(
        &self,
        entity: Entity,
        fields: &[String],
        cursor: &Cursor,
    ) -> impl Future<Output = Answered<Page>> + Send;

    /// What was deleted or archived since, in pages.
    fn deletions(
        &self,
        entity: Entity,
        since: DateTime<Utc>,
        after: Option<&str>,
    ) -> impl Future<Output = Answered<Deletions>> + Send;

    /// The records of these ids that are there, in any order; at most [`FIND_MAX`].
    fn read(
        &self,
        entity: Entity,
        ids: &[String],
        fields: &[String],
    ) -> impl Future<Output = Answered<Vec<Remote>>> + Send;

    /// The records that have one of these values in `field`, in any order; of at most
    /// [`VALUES_MAX`] values the first [`FOUND_MAX`].
    fn find(
        &self,
        entity: Entity,
        field: &str,
        values: &[String],
        fields: &[String],
    ) -> impl Future<Output = Answered<Vec<Remote>>> + Send;

    /// Writes records: one outcome per record, in their order. An error means that nothing is known
    /// of those that have no outcome yet, and is safe to repeat.
    fn upsert(
        &self,
        entity: Entity,
        records: &[Push],
    ) -> impl Future<Output = Answered<Vec<Outcome>>> + Send;

    /// Deletes (archives) records by their ids, at most [`UPSERT_MAX`]; one that is gone already is
    /// done.
    fn archive(
        &self,
        entity: Entity,
        ids: &[String],
    ) -> impl Future<Output = Answered<Vec<Outcome>>> + Send;
}
