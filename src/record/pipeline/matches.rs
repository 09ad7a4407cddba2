//! How many records enrichment found something for, and what became of mails: for a record that has
//! the tables of these.
//!
//! They are an extra: what takes too long, or is not as it is read here, is left out of the report
//! with a note, and the report is made all the same.

use uuid::Uuid;

use crate::job::period::Span;
use crate::record::open::first_id_at;
use crate::record::{Record, RecordError, View, Viewer};

/// Rows that are looked at, the newest ones.
const ROWS_MAX: i64 = 200_000;

/// Enrichments of one kind.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Matched {
    pub kind: String,
    pub asked: i64,
    /// A provider knew the record.
    pub matched: i64,
}

/// Mails in one state.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct EmailSum {
    pub state: String,
    pub mails: i64,
}

/// What was found; none: the record has no such table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matches {
    pub enrichments: Option<Vec<Matched>>,
    pub emails: Option<Vec<EmailSum>>,
    /// Something could not be read.
    pub is_cut: bool,
}

pub(super) async fn read(
    record: &Record,
    workspace_id: Uuid,
    span: Span,
) -> Result<Matches, RecordError> {
    let mut found = Matches::default();
    // Each in a view of its own: a statement that fails ends its view.
    let view = view_with(record, workspace_id, "public.account_activities").await?;
    if let Some(mut view) = view {
        match enrichments(&mut view, workspace_id, span).await {
            Ok(matched) => found.enrichments = Some(matched),
            Err(error) => found.leave_out(&error),
        }
    }
    let view = view_with(record, workspace_id, "public.email_sends").await?;
    if let Some(mut view) = view {
        match emails(&mut view, workspace_id, span).await {
            Ok(mails) => found.emails = Some(mails),
            Err(error) => found.leave_out(&error),
        }
    }
    Ok(found)
}

impl Matches {
    fn leave_out(&mut self, error: &RecordError) {
        tracing::warn!(%error, "a part of a report is left out");
        self.is_cut = true;
    }
}

/// A view of a record that has this table.
async fn view_with(
    record: &Record,
    workspace_id: Uuid,
    table: &str,
) -> Result<Option<View>, RecordError> {
    let mut view = record.view_for(Viewer::Tenant(workspace_id)).await?;
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(table)
        .fetch_one(view.connection())
        .await?;
    Ok(is_there.then_some(view))
}

async fn enrichments(
    view: &mut View,
    workspace_id: Uuid,
    span: Span,
) -> Result<Vec<Matched>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT kind, count(*) AS asked,
           count(*) FILTER (WHERE details @> '{\"matched\": true}') AS matched
         FROM (SELECT kind, details FROM account_activities
               WHERE workspace_id = $1 AND id >= $2 AND id < $3 LIMIT $4) looked_at
         GROUP BY kind ORDER BY kind",
    )
    .bind(workspace_id)
    .bind(first_id_at(span.from))
    .bind(first_id_at(span.to))
    .bind(ROWS_MAX)
    .fetch_all(view.connection())
    .await?)
}

async fn emails(
    view: &mut View,
    workspace_id: Uuid,
    span: Span,
) -> Result<Vec<EmailSum>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT state, count(*) AS mails
         FROM (SELECT state FROM email_sends
               WHERE workspace_id = $1 AND id >= $2 AND id < $3
               ORDER BY id DESC LIMIT $4) looked_at
         GROUP BY state ORDER BY state",
    )
    .bind(workspace_id)
    .bind(first_id_at(span.from))
    .bind(first_id_at(span.to))
    .bind(ROWS_MAX)
    .fetch_all(view.connection())
    .await?)
}
