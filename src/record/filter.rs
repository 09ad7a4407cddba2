//! Which jobs are meant: the one meaning of a filter, for pages and for what is done to all jobs
//! that match.
//!
//! What no index serves is looked for in windows: so many jobs at a time, of those among which the
//! wanted ones must be. So one statement is bounded, however many jobs there are.

mod search;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::RecordError;
use super::open::first_id_at;
use super::stragglers::Part;
use crate::job::Status;
pub use search::Search;
pub(super) use search::push_search;

/// Jobs that are looked at for one page, or at once for a dry run.
pub const SEARCHED_MAX: i64 = 5_000;
/// How far the clock that made an id may be from the record's.
const ID_SLACK: TimeDelta = TimeDelta::hours(1);

pub(super) type Query = sqlx::QueryBuilder<sqlx::Postgres>;

/// Which jobs: newest first, by keyset. `None` matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobFilter {
    #[serde(skip)]
    pub workspace_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Only these, whatever else is asked of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<Uuid>>,
    /// Only dead letters of this cause (see [`super::dead_letters`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Uuid>,
    /// Only jobs older than this one: the last id of the page before.
    #[serde(skip)]
    pub before: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_from: Option<DateTime<Utc>>,
    /// Not including it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_to: Option<DateTime<Utc>>,
    /// What each row must be looked at for.
    #[serde(flatten)]
    pub search: Search,
    #[serde(skip)]
    pub limit: i64,
}

impl JobFilter {
    /// Whether nothing is asked of a job but its workspace.
    pub fn is_empty(&self) -> bool {
        let whole = Self {
            workspace_id: self.workspace_id,
            before: self.before,
            limit: self.limit,
            ..Self::default()
        };
        *self == whole
    }

    /// Whether matches are looked for in windows.
    pub fn is_search(&self) -> bool {
        self.search != Search::default() || self.fingerprint.is_some()
    }
}

/// A job that matches.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Match {
    pub id: Uuid,
    pub job_type: String,
    #[sqlx(try_from = "String")]
    pub status: MatchStatus,
    /// It waits for a time that has not come.
    pub is_delayed: bool,
}

/// A status as the row has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatchStatus(pub Status);

impl TryFrom<String> for MatchStatus {
    type Error = crate::job::UnknownStatus;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

const MATCH_COLUMNS: &str = "SELECT id, job_type, status,
  coalesce(CASE status WHEN 'pending' THEN scheduled_for WHEN 'failed' THEN next_retry_at END
    > now(), false) AS is_delayed";

/// One window of jobs: those of it that match, newest first, at most the filter's `limit`, and
/// where to go on. None: that was all.
#[derive(Debug)]
pub struct Found {
    pub matches: Vec<Match>,
    /// How many jobs were looked at, if all matches of the window are there.
    pub looked_at: i64,
    pub next: Option<Uuid>,
}

#[derive(sqlx::FromRow)]
struct WindowRow {
    looked_at: i64,
    last: Option<Uuid>,
    ids: Vec<Uuid>,
    types: Vec<String>,
    statuses: Vec<String>,
    delayed: Vec<bool>,
}

/// Looks at the next window, of so many jobs: one statement, so that what changes meanwhile is in
/// it or behind it, and nothing is between two windows.
pub(super) async fn find_next(
    connection: &mut PgConnection,
    filter: &JobFilter,
    window: i64,
) -> Result<Found, RecordError> {
    let mut query = Query::new("WITH seen AS MATERIALIZED (");
    push_window(&mut query, filter, window);
    query.push("), found AS (").push(MATCH_COLUMNS);
    // An array leaves one plan: by the primary key. A join may read the whole table for the order.
    query.push(" FROM jobs WHERE id = ANY(ARRAY(SELECT id FROM seen))");
    push_filter(&mut query, filter);
    push_search(&mut query, &filter.search);
    query
        .push(" ORDER BY id DESC LIMIT ")
        .push_bind(filter.limit);
    query.push(
        ") SELECT (SELECT count(*) FROM seen) AS looked_at,
           (SELECT id FROM seen ORDER BY id LIMIT 1) AS last,
           coalesce(array_agg(id ORDER BY id DESC), '{}') AS ids,
           coalesce(array_agg(job_type::text ORDER BY id DESC), '{}') AS types,
           coalesce(array_agg(status::text ORDER BY id DESC), '{}') AS statuses,
           coalesce(array_agg(is_delayed ORDER BY id DESC), '{}') AS delayed FROM found",
    );
    let row: WindowRow = query.build_query_as().fetch_one(connection).await?;
    let rest = row.types.into_iter().zip(row.statuses).zip(row.delayed);
    let matches = row.ids.into_iter().zip(rest);
    let matches = matches.map(|(id, ((job_type, status), is_delayed))| {
        let status = MatchStatus::try_from(status)
            .map_err(|error| RecordError::Corrupt(format!("job {id}: {error}")))?;
        Ok(Match {
            id,
            job_type,
            status,
            is_delayed,
        })
    });
    let matches = matches.collect::<Result<Vec<Match>, RecordError>>()?;
    let is_cut = matches.len() as i64 >= filter.limit;
    let next = match matches.last() {
        Some(last) if is_cut => Some(last.id),
        _ => row.last.filter(|_| row.looked_at >= window),
    };
    Ok(Found {
        matches,
        looked_at: row.looked_at,
        next,
    })
}

/// Of these jobs, those that match now; they are held until the transaction ends, in the order of
/// ids, as by every statement on several jobs.
pub(super) async fn hold(
    connection: &mut PgConnection,
    filter: &JobFilter,
    ids: &[Uuid],
) -> Result<Vec<Match>, RecordError> {
    let mut query = Query::new(MATCH_COLUMNS);
    query
        .push(" FROM jobs WHERE id = ANY(")
        .push_bind(ids.to_vec());
    query.push(")");
    push_filter(&mut query, filter);
    push_search(&mut query, &filter.search);
    query.push(" ORDER BY id FOR NO KEY UPDATE");
    Ok(query.build_query_as().fetch_all(connection).await?)
}

pub(super) const SEALED: &str = "(SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed')";

/// The ids that a search looks at, newest first: where the wanted ones must be.
pub(super) fn push_window(query: &mut Query, filter: &JobFilter, window: i64) {
    let is_open = filter.status.is_some_and(|status| !status.is_final());
    if filter.ids.is_some() {
        query.push("SELECT id FROM jobs WHERE true");
        push_range(query, filter);
    } else if filter.status == Some(Status::DeadLetter) || filter.fingerprint.is_some() {
        // By `dead_letters_workspace`, or `dead_letters_fingerprint`.
        query.push("SELECT job_id AS id FROM bullwark.dead_letters WHERE true");
        if let Some(workspace_id) = filter.workspace_id {
            query.push(" AND workspace_id = ").push_bind(workspace_id);
        }
        if let Some(fingerprint) = filter.fingerprint {
            query.push(" AND fingerprint = ").push_bind(fingerprint);
        }
        push_id_range(query, filter, "job_id");
    } else if is_open {
        // Few among millions of finished ones: after the seal and among the stragglers.
        query.push("SELECT id FROM ((SELECT id FROM jobs WHERE id > ");
        query.push(SEALED);
        push_range(query, filter);
        query.push(" ORDER BY id DESC LIMIT ").push_bind(window);
        for part in Part::with(filter.workspace_id) {
            query.push(") UNION ALL (SELECT job_id FROM bullwark.stragglers s WHERE job_id <= ");
            query.push(SEALED);
            part.push(query);
            push_id_range(query, filter, "job_id");
            query.push(" ORDER BY job_id DESC LIMIT ").push_bind(window);
        }
        query.push(")) open");
    } else {
        // By `jobs_workspace`.
        query.push("SELECT id FROM jobs WHERE true");
        push_range(query, filter);
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(window);
}

/// What an index serves.
fn push_range(query: &mut Query, filter: &JobFilter) {
    if let Some(workspace_id) = filter.workspace_id {
        query.push(" AND workspace_id = ").push_bind(workspace_id);
    }
    if let Some(ids) = filter.ids.clone() {
        query.push(" AND id = ANY(").push_bind(ids).push(")");
    }
    if let Some(from) = filter.created_from {
        query.push(" AND created_at >= ").push_bind(from);
    }
    if let Some(to) = filter.created_to {
        query.push(" AND created_at < ").push_bind(to);
    }
    push_id_range(query, filter, "id");
}

/// Ids are time-ordered, by clocks that may differ a little from the record's.
fn push_id_range(query: &mut Query, filter: &JobFilter, id: &str) {
    let mut push = |compared: &str, with: Uuid| {
        query.push(" AND ").push(id).push(compared).push_bind(with);
    };
    if let Some(before) = filter.before {
        push(" < ", before);
    }
    if let Some(from) = filter.created_from {
        push(" >= ", first_id_at(from - ID_SLACK));
    }
    if let Some(to) = filter.created_to {
        push(" < ", first_id_at(to + ID_SLACK));
    }
}

pub(super) fn push_filter(query: &mut Query, filter: &JobFilter) {
    query.push(" AND deleted_at IS NULL");
    push_range(query, filter);
    match filter.status {
        // The few dead ones are found in their own table, not among millions of finished jobs.
        Some(Status::DeadLetter) => {
            query.push(" AND status = 'dead_letter' AND id IN ");
            query.push("(SELECT job_id FROM bullwark.dead_letters)");
        }
        Some(status) => {
            query.push(" AND status = ").push_bind(status.as_str());
        }
        None => {}
    }
    if let Some(fingerprint) = filter.fingerprint {
        query.push(" AND id IN (SELECT job_id FROM bullwark.dead_letters WHERE fingerprint = ");
        query.push_bind(fingerprint).push(")");
    }
    if let Some(job_type) = filter.job_type.clone() {
        query.push(" AND job_type = ").push_bind(job_type);
    }
    if let Some(queue) = filter.queue.clone() {
        query.push(" AND job_queue = ").push_bind(queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_reads_back_as_it_was_written_down() {
        let filter = JobFilter {
            status: Some(Status::DeadLetter),
            ids: Some(vec![Uuid::from_u128(7)]),
            search: Search {
                attempts_min: Some(2),
                text: Some("x".into()),
                payload: vec![(vec!["to".into(), "name".into()], "Ada".into())],
                ..Search::default()
            },
            ..JobFilter::default()
        };
        let stored = serde_json::to_value(&filter).unwrap();
        let expected = serde_json::json!({
            "status": "dead_letter", "ids": [Uuid::from_u128(7)], "attempts_min": 2, "q": "x",
            "payload": {"to.name": "Ada"},
        });
        assert_eq!(stored, expected);
        assert_eq!(serde_json::from_value::<JobFilter>(stored).unwrap(), filter);
    }

    #[test]
    fn only_a_filter_that_asks_nothing_is_empty() {
        let workspace = JobFilter {
            workspace_id: Some(Uuid::from_u128(1)),
            limit: 5,
            ..JobFilter::default()
        };
        assert!(workspace.is_empty());
        let typed = JobFilter {
            job_type: Some("noop".into()),
            ..workspace
        };
        assert!(!typed.is_empty());
    }
}
