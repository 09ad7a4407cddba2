//! Addresses and domains that no mail is sent to.

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::{StatusCode, Uri};
use axum::{Extension, Json, extract};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::state::State;
use crate::record::access::Permission;
use crate::record::suppressions::{self, NewSuppression, SuppressionRow};

/// The largest request.
const BODY_MAX: usize = 16 * 1024;
/// Rows of a page when nothing else is said, and at most.
const LIMIT: i64 = 100;
const LIMIT_MAX: i64 = 1_000;
/// The longest note, in characters.
const NOTE_MAX: usize = 500;

/// A page of suppressions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Suppressions {
    suppressions: Vec<SuppressionRow>,
    /// What `after` must be for the next page; null: there is none.
    next_after: Option<String>,
}

/// One suppression.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneSuppression {
    suppression: SuppressionRow,
}

/// List suppressions
///
/// By address or domain, and reason.
#[utoipa::path(get, path = "/api/suppressions", operation_id = "listSuppressions", tag = "email",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 1000,
            description = "Rows of the page; 100 if none"),
        ("after" = Option<String>, Query, description = "The `next_after` of the page before"),
    ),
    responses((status = 200, description = "A page of them", body = Suppressions)))]
pub(super) async fn list(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Suppressions>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let given = Parameters::parse(&uri, &["limit", "after"])?;
    let limit = given.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT);
    let after = given.text("after").filter(|text| !text.contains('\0'));
    let after = after.and_then(|after| after.rsplit_once(':'));
    let mut view = state.view(caller).await?;
    let rows = suppressions::page(&mut view, caller.workspace_id, after, limit).await?;
    let is_full = rows.len() as i64 == limit;
    let last = rows.last().filter(|_| is_full);
    let next_after = last.map(|row| format!("{}:{}", row.target, row.reason));
    Ok(Json(Suppressions {
        suppressions: rows,
        next_after,
    }))
}

/// Why nothing is sent to it.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SuppressionReason {
    Unsubscribed,
    Bounced,
    Complained,
    #[default]
    Manual,
}

/// Their names.
const REASONS: [&str; 4] = ["unsubscribed", "bounced", "complained", "manual"];

impl SuppressionReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unsubscribed => "unsubscribed",
            Self::Bounced => "bounced",
            Self::Complained => "complained",
            Self::Manual => "manual",
        }
    }
}

/// A suppression that is wished for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewSuppression)]
struct Wish {
    /// An address; or a domain, for all of its addresses.
    #[schema(min_length = 3, max_length = 254, example = "ada@example.com")]
    target: String,
    #[serde(default)]
    reason: SuppressionReason,
    #[serde(default)]
    #[schema(max_length = 500)]
    note: String,
}

/// Suppress an address or a domain
///
/// From now on nothing is sent to it, by jobs that run already, too. It may be there for several
/// reasons.
#[utoipa::path(post, path = "/api/suppressions", operation_id = "createSuppression",
    tag = "email", request_body = Wish,
    responses(
        (status = 201, description = "It is suppressed now", body = OneSuppression),
        (status = 200, description = "It was before, and stays as it is", body = OneSuppression)))]
pub(super) async fn create(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<(StatusCode, Json<OneSuppression>), Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Write)?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let wish: Wish = body::object(&whole.bytes, &json!({ "target": "" }))?;
    let target = target(&wish.target).ok_or_else(|| {
        let message = "must be an address such as ada@example.com, or a domain such as example.com";
        Problem::of_field("/target", message)
    })?;
    if wish.note.chars().count() > NOTE_MAX || wish.note.contains('\0') {
        let message = format!("must have at most {NOTE_MAX} characters and no U+0000");
        return Err(Problem::of_field("/note", message));
    }
    let new = NewSuppression {
        workspace_id: caller.workspace_id,
        target,
        reason: wish.reason.as_str().to_owned(),
        note: wish.note,
        created_by: caller.user_id(),
    };
    let by = caller.by(&request_id);
    let (suppression, is_new) = suppressions::add(&state.services.record, &new, &by).await?;
    let status = match is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, Json(OneSuppression { suppression })))
}

/// That it is done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SuppressionDeleted)]
pub(super) struct Deleted {
    success: bool,
}

/// Take a suppression away
///
/// For admins: mails go there again, unless there is another reason. Do it for who asked for it,
/// and for nobody who unsubscribed.
#[utoipa::path(delete, path = "/api/suppressions/{target}", operation_id = "deleteSuppression",
    tag = "email",
    params(("target" = String, Path, description = "The address or the domain"),
        ("reason" = Option<String>, Query,
            description = "Such as `bounced`: the others stay; all of them if none")),
    responses((status = 200, description = "It is gone", body = Deleted)))]
pub(super) async fn delete(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    uri: Uri,
    Path(given): Path<String>,
) -> Result<Json<Deleted>, Problem> {
    let caller = caller.who_may(Permission::Admin)?;
    let parameters = Parameters::parse(&uri, &["reason"])?;
    let reason = parameters.text("reason");
    if reason.is_some_and(|reason| !REASONS.contains(&reason)) {
        let detail = format!("`reason` must be one of {}", REASONS.join(", "));
        return Err(super::query::invalid(&detail));
    }
    let unknown = || {
        let detail = "there is no such suppression here";
        Problem::new(Code::SuppressionNotFound, detail)
    };
    let target = target(&given).ok_or_else(unknown)?;
    let (record, by) = (&state.services.record, caller.by(&request_id));
    match suppressions::remove(record, (caller.workspace_id, &target), reason, &by).await? {
        true => Ok(Json(Deleted { success: true })),
        false => Err(unknown()),
    }
}

/// An address or a domain as it is compared.
fn target(given: &str) -> Option<String> {
    let text = given.trim().to_lowercase();
    let domain = text.rsplit('@').next().unwrap_or_default();
    let is_domain = domain.contains('.')
        && !domain.starts_with('.')
        && !domain.ends_with('.')
        && !domain.contains("..");
    let is_address = match text.rsplit_once('@') {
        Some((local, _)) => !local.is_empty(),
        None => true,
    };
    let is_plain = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    (is_domain && is_address && is_plain && text.len() <= 254).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn addresses_and_domains_are_compared_in_small_letters() {
        for (given, expected) in [
            (" Ada@Example.COM ", Some("ada@example.com")),
            ("Example.com", Some("example.com")),
            ("@example.com", None),
            ("example", None),
            ("a b@example.com", None),
            (".com", None),
            ("a@b..example", None),
            ("", None),
        ] {
            assert_eq!(target(given).as_deref(), expected, "{given}");
        }
    }
}
