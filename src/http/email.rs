//! Mails, what people know of those in doubt, and the domains that they come from.

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::Uri;
use axum::{Extension, Json, extract};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Caller;
use super::body;
use super::observe::RequestId;
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::state::State;
use crate::record::access::Permission;
use crate::record::email_domains::{self, DOMAINS_MAX, DomainChange, DomainRow};
use crate::record::email_log::{self, Known, Resolved, SendFilter, SendRow};

/// The largest request.
const BODY_MAX: usize = 16 * 1024;
/// Rows of a page when nothing else is said, and at most.
const LIMIT: i64 = 50;
const LIMIT_MAX: i64 = 200;
/// The largest cap of a day, and the most days of a curve.
const CAP_MAX: i32 = 100_000_000;
const CURVE_MAX: usize = 100;
/// What a mail may be.
const STATES: [&str; 9] = [
    "planned",
    "claimed",
    "handed_over",
    "delivered",
    "bounced",
    "complained",
    "suppressed",
    "failed",
    "unknown",
];

/// A page of mails.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EmailSends {
    sends: Vec<SendRow>,
    /// What `before` must be for the next page; null: there is none.
    next_before: Option<Uuid>,
}

/// List mails
///
/// Newest first: those of a job, of a sequence, of a contact, or in a state.
#[utoipa::path(get, path = "/api/email/sends", operation_id = "listEmailSends", tag = "email",
    params(
        ("job_id" = Option<Uuid>, Query, description = "The job that sends them"),
        ("sequence_id" = Option<Uuid>, Query, description = "Their sequence"),
        ("contact_id" = Option<Uuid>, Query, description = "Whom they are for"),
        ("state" = Option<String>, Query, description = "Such as `unknown`"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200,
            description = "Mails of the page; 50 if none"),
        ("before" = Option<Uuid>, Query, description = "The `next_before` of the page before"),
    ),
    responses((status = 200, description = "A page of mails", body = EmailSends)))]
pub(super) async fn sends(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<EmailSends>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let names = [
        "job_id",
        "sequence_id",
        "contact_id",
        "state",
        "limit",
        "before",
    ];
    let given = Parameters::parse(&uri, &names)?;
    let limit = given.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT);
    let wanted = given.text("state");
    if wanted.is_some_and(|wanted| !STATES.contains(&wanted)) {
        let detail = format!("`state` must be one of {}", STATES.join(", "));
        return Err(super::query::invalid(&detail));
    }
    let filter = SendFilter {
        job_id: given.parsed("job_id")?,
        sequence_id: given.parsed("sequence_id")?,
        contact_id: given.parsed("contact_id")?,
        state: wanted.map(str::to_owned),
        before: given.parsed("before")?,
    };
    let mut view = state.view(caller).await?;
    let sends = email_log::page(&mut view, caller.workspace_id, &filter, limit).await?;
    let is_full = sends.len() as i64 == limit;
    let next_before = sends.last().filter(|_| is_full).map(|send| send.id);
    Ok(Json(EmailSends { sends, next_before }))
}

/// What somebody found out.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum EmailOutcome {
    Sent,
    NotSent,
}

/// What is known of a mail in doubt.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EmailResolution)]
struct Resolution {
    /// `not_sent`: the next job that names its contact sends it.
    outcome: EmailOutcome,
}

/// One mail.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneSend {
    send: SendRow,
}

/// Say what became of a mail in doubt
///
/// For admins. A mail is `unknown` when its worker died, or the provider did not answer, while it
/// was handed over. It is never sent again by itself.
#[utoipa::path(post, path = "/api/email/sends/{id}/resolve", operation_id = "resolveEmailSend",
    tag = "email", params(("id" = Uuid, Path, description = "The mail")),
    request_body = Resolution,
    responses(
        (status = 200, description = "The mail as it is now", body = OneSend),
        (status = 409, description = "It is not in doubt: `email_send_state`")))]
pub(super) async fn resolve(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<OneSend>, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Admin)?;
    let unknown = || Problem::new(Code::EmailSendNotFound, "there is no such mail here");
    let path = Path::<String>::from_request_parts(&mut parts, &state).await;
    let id = path.ok().and_then(|Path(id)| id.parse().ok());
    let id: Uuid = id.ok_or_else(unknown)?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let wish: Resolution = body::object(&whole.bytes, &json!({ "outcome": "sent" }))?;
    let known = match wish.outcome {
        EmailOutcome::Sent => Known::Sent,
        EmailOutcome::NotSent => Known::NotSent,
    };
    let (about, by) = ((caller.workspace_id, id), caller.by(&request_id));
    match email_log::resolve(&state.services.record, about, known, &by).await? {
        Resolved::Done(send) => Ok(Json(OneSend { send: *send })),
        Resolved::NotInDoubt(now) => {
            let detail = format!("the mail is `{now}`: nobody is in doubt about it");
            Err(Problem::new(Code::EmailSendState, detail))
        }
        Resolved::Unknown => Err(unknown()),
    }
}

/// The domains that mails come from.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EmailDomains {
    domains: Vec<DomainRow>,
}

/// List sending domains
///
/// Those that something was sent from, and how far they are warmed up.
#[utoipa::path(get, path = "/api/email/domains", operation_id = "listEmailDomains", tag = "email",
    responses((status = 200, description = "The domains", body = EmailDomains)))]
pub(super) async fn domains(
    extract::State(state): extract::State<State>,
    caller: Caller,
) -> Result<Json<EmailDomains>, Problem> {
    let caller = caller.who_may(Permission::Read)?;
    let mut view = state.view(caller).await?;
    let domains = email_domains::list(&mut view, caller.workspace_id).await?;
    Ok(Json(EmailDomains { domains }))
}

/// What is to be different of a domain.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = EmailDomainChange)]
struct Change {
    /// Whose midnight begins a day, from the next day on.
    #[serde(default)]
    #[schema(example = "Europe/Berlin")]
    zone: Option<String>,
    /// True: it has no cap, because it has sent much for long.
    #[serde(default, alias = "is_warm")]
    is_warm: Option<bool>,
    /// Where in its curve the day stands.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 100)]
    step: Option<i32>,
    /// The cap of each day of warming.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 100)]
    curve: Option<Vec<i32>>,
    /// False: nothing is sent from it. True: what paused it is forgotten.
    #[serde(default, alias = "is_active")]
    is_active: Option<bool>,
}

/// One sending domain.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneDomain {
    domain: DomainRow,
}

/// Change how a domain warms up
///
/// For admins. A domain that nothing was sent from yet may be named, too.
#[utoipa::path(patch, path = "/api/email/domains/{domain}", operation_id = "changeEmailDomain",
    tag = "email", params(("domain" = String, Path, description = "Such as `example.com`")),
    request_body = Change,
    responses(
        (status = 200, description = "The domain as it is now", body = OneDomain),
        (status = 409, description = "The workspace has 500: `too_many_domains`")))]
pub(super) async fn change_domain(
    extract::State(state): extract::State<State>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<OneDomain>, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let caller = caller.who_may(Permission::Admin)?;
    let path = Path::<String>::from_request_parts(&mut parts, &state).await;
    let domain = path.map(|Path(name)| name.to_ascii_lowercase());
    let is_domain = |name: &String| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        name.len() <= 253 && name.contains('.') && name.chars().all(is_part)
    };
    let domain = domain.ok().filter(is_domain).ok_or_else(|| {
        let detail = "this is no domain; one looks like example.com";
        Problem::new(Code::InvalidId, detail)
    })?;
    body::expect_json(&parts.headers)?;
    let whole = body::read(&state, caller, &parts.headers, body, BODY_MAX).await?;
    let wish: Change = body::object(&whole.bytes, &json!({}))?;
    let refused = |pointer, message: &str| Err(Problem::of_field(pointer, message.to_owned()));
    if let Some(zone) = &wish.zone
        && zone.parse::<chrono_tz::Tz>().is_err()
    {
        return refused("/zone", "must be a time zone such as Europe/Berlin");
    }
    if wish.step.is_some_and(|step| !(1..=100).contains(&step)) {
        return refused("/step", "must be from 1 to 100");
    }
    let is_curve = |curve: &Vec<i32>| {
        (1..=CURVE_MAX).contains(&curve.len()) && curve.iter().all(|n| (1..=CAP_MAX).contains(n))
    };
    if wish.curve.as_ref().is_some_and(|curve| !is_curve(curve)) {
        return refused(
            "/curve",
            "must have 1 to 100 caps, each from 1 to 100000000",
        );
    }
    let change = DomainChange {
        zone: wish.zone,
        is_warm: wish.is_warm,
        step: wish.step,
        curve: wish.curve,
        is_active: wish.is_active,
    };
    let (record, by) = (&state.services.record, caller.by(&request_id));
    let about = (caller.workspace_id, domain.as_str());
    let changed = email_domains::change(record, about, &change, &by).await?;
    let domain = changed.ok_or_else(|| {
        let detail = format!("this workspace has {DOMAINS_MAX} domains, which is the most");
        Problem::new(Code::TooManyDomains, detail)
    })?;
    Ok(Json(OneDomain { domain }))
}
