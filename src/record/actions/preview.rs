//! What an action would do, without doing it: how many jobs match, which they are, and to which of
//! them the change does not fit.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::batch::made_before;
use crate::job::{Change, Status, Unfit};
use crate::record::filter::{self, JobFilter, SEARCHED_MAX};
use crate::record::{RecordError, View};

/// Jobs that are shown.
const SAMPLE: usize = 20;
/// Types that are shown, those of the most jobs.
const TYPES: usize = 50;

/// How far a preview looks.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Jobs that are looked at, whether they match or not.
    pub jobs: i64,
    pub time: Duration,
}

/// What an action would do if it began now.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = ActionPreview))]
pub struct Preview {
    /// Jobs that match, as far as they were counted.
    pub matched: i64,
    /// Whether those are all.
    pub is_exact: bool,
    /// Of those, the jobs that would be changed.
    pub fitting: i64,
    pub by_status: Vec<Counted>,
    /// The types of the most jobs.
    pub by_type: Vec<Counted>,
    /// Of those that would be left as they are, how many for which reason.
    pub unfit: Vec<Counted>,
    /// The newest ones.
    pub sample: Vec<Sampled>,
}

/// So many jobs of a kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = CountedJobs))]
pub struct Counted {
    pub name: String,
    pub jobs: i64,
}

/// A job that matches.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema), schema(as = SampledJob))]
pub struct Sampled {
    pub id: Uuid,
    pub job_type: String,
    pub status: Status,
    /// Why it would be left as it is, if so.
    pub unfit: Option<Unfit>,
}

/// Counts the jobs that match, the newest `limit` of them at most, and says what the change would
/// do. Several statements, each of one window, of the one moment of the view.
pub async fn preview(
    view: &mut View,
    change: Change,
    wanted: &JobFilter,
    limit: Option<i64>,
    bounds: Bounds,
) -> Result<Preview, RecordError> {
    let (begin, mut looked_at, mut tally) = (Instant::now(), 0, Tally::default());
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT now()")
        .fetch_one(view.connection())
        .await?;
    let mut filter = made_before(wanted.clone(), now);
    let is_exact = loop {
        let left = limit.map_or(i64::MAX, |limit| limit - tally.matched);
        filter.limit = left.min(SEARCHED_MAX);
        let found = filter::find_next(view.connection(), &filter, SEARCHED_MAX).await?;
        looked_at += found.looked_at;
        found.matches.iter().for_each(|job| {
            tally.count(job, change.misfit(job.status.0, job.is_delayed));
        });
        if found.next.is_none() || limit.is_some_and(|limit| tally.matched >= limit) {
            break true;
        }
        if looked_at >= bounds.jobs || begin.elapsed() >= bounds.time {
            break false;
        }
        filter.before = found.next;
    };
    Ok(tally.preview(is_exact))
}

#[derive(Default)]
struct Tally {
    matched: i64,
    statuses: BTreeMap<Status, i64>,
    types: BTreeMap<String, i64>,
    unfit: BTreeMap<Unfit, i64>,
    sample: Vec<Sampled>,
}

impl Tally {
    fn count(&mut self, job: &filter::Match, unfit: Option<Unfit>) {
        self.matched += 1;
        *self.statuses.entry(job.status.0).or_default() += 1;
        match self.types.get_mut(&job.job_type) {
            Some(count) => *count += 1,
            None => drop(self.types.insert(job.job_type.clone(), 1)),
        }
        if let Some(unfit) = unfit {
            *self.unfit.entry(unfit).or_default() += 1;
        }
        if self.sample.len() < SAMPLE {
            self.sample.push(Sampled {
                id: job.id,
                job_type: job.job_type.clone(),
                status: job.status.0,
                unfit,
            });
        }
    }

    fn preview(self, is_exact: bool) -> Preview {
        let unfit: i64 = self.unfit.values().sum();
        let mut by_type = counted(self.types);
        by_type.truncate(TYPES);
        Preview {
            matched: self.matched,
            is_exact,
            fitting: self.matched - unfit,
            by_status: counted(self.statuses),
            by_type,
            unfit: counted(self.unfit),
            sample: self.sample,
        }
    }
}

/// Those of the most jobs first.
fn counted<K: Serialize>(counts: BTreeMap<K, i64>) -> Vec<Counted> {
    let mut all: Vec<Counted> = counts
        .into_iter()
        .map(|(key, jobs)| Counted {
            name: match serde_json::to_value(key) {
                Ok(serde_json::Value::String(name)) => name,
                other => other.map_or_else(|_| String::new(), |value| value.to_string()),
            },
            jobs,
        })
        .collect();
    all.sort_by_key(|counted| std::cmp::Reverse(counted.jobs));
    all
}
