//! `GET /api/dead-letters`: jobs that failed for good, by what killed them.

use axum::http::Uri;
use axum::{Json, extract};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Caller;
use super::problem::Problem;
use super::query::Parameters;
use super::state::State;
use crate::job::QueueName;
use crate::record::access::Permission;
use crate::record::dead_letters::{self, DeadFilter, DeadGroup, LOOKED_AT_MAX};

/// Groups when nothing else is said, and at most.
const LIMIT: i64 = 50;
const LIMIT_MAX: i64 = 200;

/// Dead letters of one cause.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterGroup)]
struct Group {
    #[serde(flatten)]
    group: DeadGroup,
    /// Of all dead letters, from 0 to 1.
    share: f64,
}

/// How a job type shares in all dead letters.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterType)]
struct TypeShare {
    job_type: String,
    count: i64,
    share: f64,
}

/// Dead letters in groups.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadLetters {
    total: i64,
    /// False: there are more than are looked at, which are those of the youngest jobs; or some
    /// whose cause is not known yet, which are in no group.
    is_exact: bool,
    /// The largest first.
    groups: Vec<Group>,
    /// Dead letters of groups that are not shown.
    others: i64,
    types: Vec<TypeShare>,
}

/// List dead letters by cause
///
/// Jobs that failed for good, in groups of one job type and one error, but for the numbers,
/// identifiers, addresses and quoted texts in it. `GET /api/jobs?fingerprint=` has the jobs.
#[utoipa::path(get, path = "/api/dead-letters", operation_id = "listDeadLetters", tag = "jobs",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200,
            description = "Groups; 50 without it."),
        ("queue" = Option<String>, Query, min_length = 1, max_length = 255,
            pattern = r"^[^:\s\x00-\x1f\x7f-\x9f]+$", description = "Only of this queue."),
        ("jobType" = Option<String>, Query, description = "Only of this type."),
        ("job_type" = Option<String>, Query, description = "The same as `jobType`")),
    responses((status = 200, description = "The largest groups first", body = DeadLetters)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<DeadLetters>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let given = Parameters::parse(&uri, &["limit", "queue", "jobType", "job_type"])?;
    let limit = given.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT);
    let job_type = given.text("jobType").or(given.text("job_type"));
    let filter = DeadFilter {
        workspace_id: caller.workspace_id,
        queue: given.parsed::<QueueName>("queue")?.map(String::from),
        job_type: job_type.map(str::to_owned),
    };
    let mut view = state.view(caller).await?;
    let found = dead_letters::groups(&mut view, &filter, limit).await?;
    drop(view);
    let total: i64 = found.types.iter().map(|of_type| of_type.count).sum();
    let shown: i64 = found.groups.iter().map(|group| group.count).sum();
    let share = |count: i64| (count as f64 / total.max(1) as f64 * 10_000.0).round() / 10_000.0;
    let groups = found.groups.into_iter().map(|group| Group {
        share: share(group.count),
        group,
    });
    let types = found.types.into_iter().map(|of_type| TypeShare {
        share: share(of_type.count),
        job_type: of_type.job_type,
        count: of_type.count,
    });
    Ok(Json(DeadLetters {
        total,
        is_exact: total < LOOKED_AT_MAX && found.are_all_known,
        groups: groups.collect(),
        // A job that was run again between the two looks is in one of them.
        others: (total - shown).max(0),
        types: types.collect(),
    }))
}
