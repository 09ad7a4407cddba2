//! The list of all routes: what answers at which path, and the document that says so.
//!
//! Promises: what is not in this list does not answer, and what is in it is in the document.

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::state::State;
use super::{
    actions, alerts, api_keys, audit, auth, bulk, connection_control, connections, consistency,
    control, crm, custom_fields, data_changes, dead_letters, docs, email, email_events, enqueue,
    enrichments, events, exports, exposition, flow_view, flows, health, import_templates,
    import_undo, imports, jobs, limits, links, openapi, pipeline_reports, queue_control, queues,
    quotas, rate_limits, reports, retention, schedule_control, schedules, sequences, ses_events,
    sessions, stats, suppressions, types, unsubscribe, uploads, webhook_control,
    webhook_deliveries, webhooks, workers,
};

/// The routes that answer soon.
pub(super) fn fast() -> OpenApiRouter<State> {
    let groups = [
        server(),
        jobs(),
        queues(),
        access(),
        outside(),
        mail(),
        customers(),
        files(),
    ];
    let all = OpenApiRouter::new();
    groups.into_iter().fold(all, OpenApiRouter::merge)
}

/// The routes whose requests may take as long as an upload.
pub(super) fn slow() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(uploads::upload))
}

/// What the server says of itself.
fn server() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(exposition::metrics))
        .routes(routes!(workers::list))
        .routes(routes!(consistency::show))
        .routes(routes!(openapi::document))
        .routes(routes!(docs::page))
        .routes(routes!(docs::file))
}

/// Jobs, one and many, and what is known of them.
fn jobs() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(jobs::list, enqueue::one))
        .routes(routes!(bulk::many))
        .routes(routes!(flows::one))
        .routes(routes!(flow_view::show))
        .routes(routes!(enrichments::start))
        .routes(routes!(enrichments::show))
        .routes(routes!(stats::stats))
        .routes(routes!(stats::dashboard))
        .routes(routes!(actions::list, actions::start))
        .routes(routes!(actions::show))
        .routes(routes!(actions::stop))
        .routes(routes!(actions::undo))
        .routes(routes!(jobs::show, control::patch, control::delete))
        .routes(routes!(jobs::logs))
        .routes(routes!(control::retry))
        .routes(routes!(control::promote))
        // Patience is for the beginning of an answer: a stream may go on.
        .routes(routes!(events::of_job))
        .routes(routes!(events::of_workspace))
        .routes(routes!(dead_letters::list))
        .routes(routes!(types::list, types::declare))
}

/// Queues, and what holds their jobs back or makes new ones.
fn queues() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(queues::list))
        .routes(routes!(queues::show, queue_control::patch))
        .routes(routes!(queue_control::drain))
        .routes(routes!(schedules::list))
        .routes(routes!(
            schedules::show,
            schedule_control::put,
            schedule_control::delete
        ))
        .routes(routes!(rate_limits::list))
        .routes(routes!(quotas::list))
        .routes(routes!(quotas::put, quotas::delete))
        .routes(routes!(alerts::list))
        .routes(routes!(alerts::resolve))
}

/// Who may do what, and who did it.
fn access() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(auth::me))
        .routes(routes!(sessions::show, sessions::open, sessions::end))
        .routes(routes!(limits::show))
        .routes(routes!(limits::change))
        .routes(routes!(api_keys::list, api_keys::create))
        .routes(routes!(api_keys::revoke))
        .routes(routes!(audit::list))
        .routes(routes!(data_changes::list))
}

/// What the workspace is connected to.
fn outside() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(
            webhooks::show,
            webhook_control::patch,
            webhook_control::delete
        ))
        .routes(routes!(webhook_control::rotate))
        .routes(routes!(webhook_control::test))
        .routes(routes!(webhook_deliveries::list))
        .routes(routes!(webhook_deliveries::replay))
        .routes(routes!(connections::list, connections::create))
        .routes(routes!(
            connections::show,
            connection_control::patch,
            connection_control::delete
        ))
}

/// Mails, and who wants none.
fn mail() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(sequences::list, sequences::create))
        .routes(routes!(sequences::show, sequences::patch))
        .routes(routes!(sequences::add_step))
        .routes(routes!(sequences::replace_step))
        .routes(routes!(suppressions::list, suppressions::create))
        .routes(routes!(suppressions::delete))
        .routes(routes!(email::sends))
        .routes(routes!(email::resolve))
        .routes(routes!(email::domains))
        .routes(routes!(email::change_domain))
        .routes(routes!(email_events::take_in))
        .routes(routes!(ses_events::take_in))
        .routes(routes!(unsubscribe::look, unsubscribe::click))
}

/// Syncs with a CRM.
fn customers() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(crm::conflicts))
        .routes(routes!(crm::resolve))
        .routes(routes!(crm::links))
        .routes(routes!(crm::errors))
        .routes(routes!(crm::states))
}

/// Files that come and go, and the data in them.
fn files() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(reports::report))
        .routes(routes!(links::of_report, links::revoke_of_report))
        .routes(routes!(retention::show, retention::put))
        .routes(routes!(imports::list))
        .routes(routes!(imports::show))
        .routes(routes!(imports::look))
        .routes(routes!(import_undo::undo))
        .routes(routes!(import_templates::list, import_templates::save))
        .routes(routes!(import_templates::delete))
        .routes(routes!(custom_fields::list, custom_fields::declare))
        .routes(routes!(custom_fields::delete))
        .routes(routes!(exports::list, exports::start))
        .routes(routes!(pipeline_reports::start))
        .routes(routes!(exports::show))
        .routes(routes!(exports::file))
        .routes(routes!(links::of_export, links::revoke_of_export))
        .routes(routes!(links::download))
}
