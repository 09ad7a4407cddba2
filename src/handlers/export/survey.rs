//! What an export finds out before it writes: how many rows there are, up to which one, and which
//! columns the file gets.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::checkpoint::{Checkpoint, Lacking};
use super::plan::Plan;
use super::sheet::check_rows;
use super::turns::turn;
use crate::handlers::ending::record_error;
use crate::job::{JobError, Progress};
use crate::record::RecordError;
use crate::record::exports::read::Selection;
use crate::worker::JobContext;

/// Columns that a file gets for custom fields that nobody named.
pub(super) const CUSTOM_COLUMNS_MAX: usize = 200;
/// Times that a page is read again before the attempt gives up.
const READ_RETRIES: u32 = 5;
/// The wait before the first of them; it doubles.
const READ_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Looks at all rows once, window by window.
pub(super) async fn take(
    ctx: &JobContext,
    plan: &Plan,
    selection: &Selection,
) -> Result<Checkpoint, JobError> {
    let record = ctx.record();
    let until = insist(ctx, || selection.newest(record).boxed()).await?;
    let is_all = plan.fields.is_empty();
    let finds_custom = is_all && plan.is_tabular();
    let names_max = if finds_custom {
        CUSTOM_COLUMNS_MAX as i64 + 1
    } else {
        0
    };
    let (mut custom, mut total, mut after) = (BTreeSet::new(), 0, Uuid::nil());
    let mut has_unnamable = false;
    while let Some(until) = until {
        if ctx.cancelled().is_cancelled() {
            return Err(JobError::Retry(
                "interrupted while rows were counted".to_owned(),
            ));
        }
        let window = (after, until);
        let found = insist(ctx, || selection.survey(record, window, names_max).boxed()).await?;
        total += found.rows.unsigned_abs();
        custom.extend(found.custom);
        has_unnamable |= found.has_unnamable;
        while custom.len() > CUSTOM_COLUMNS_MAX + 1 {
            custom.pop_last();
        }
        let message = format!("{total} rows found");
        ctx.progress(Progress::new(total, 0, 0, message));
        check_sheet(plan, total)?;
        match found.next {
            Some(next) => after = next,
            None => break,
        }
    }
    let lacks_custom = custom.len() > CUSTOM_COLUMNS_MAX;
    let fields = match is_all {
        true => plan.all_columns(),
        false => plan.fields.clone(),
    };
    let mut columns: Vec<String> = fields.iter().map(|field| field.name()).collect();
    let custom = custom.into_iter().take(CUSTOM_COLUMNS_MAX);
    columns.extend(custom.map(|name| format!("custom.{name}")));
    let lacking = Lacking {
        custom: lacks_custom,
        unnamable: has_unnamable,
    };
    Ok(Checkpoint::new(columns, lacking, total, until))
}

fn check_sheet(plan: &Plan, rows: u64) -> Result<(), JobError> {
    match plan.is_sheet() {
        true => check_rows(rows),
        false => Ok(()),
    }
}

/// Reads in its turn, and reads again while the record is away. The reads are boxed: what a
/// handler calls must be `Send` whatever it borrows.
pub(super) async fn insist<'a, T>(
    ctx: &JobContext,
    read: impl Fn() -> BoxFuture<'a, Result<T, RecordError>>,
) -> Result<T, JobError> {
    let mut delay = READ_RETRY_DELAY;
    for _ in 0..READ_RETRIES {
        let ended = in_turn(ctx, &read).await;
        match ended {
            Err(error) if error.is_unavailable() => {
                tracing::warn!(job.id = %ctx.job_id(), %error, "rows are read again");
            }
            ended => return ended.map_err(record_error),
        }
        tokio::select! {
            () = tokio::time::sleep(delay) => delay *= 2,
            () = ctx.cancelled().cancelled() => break,
        }
    }
    in_turn(ctx, &read).await.map_err(record_error)
}

async fn in_turn<'a, T>(
    ctx: &JobContext,
    read: &impl Fn() -> BoxFuture<'a, Result<T, RecordError>>,
) -> Result<T, RecordError> {
    let _turn = turn(ctx.workspace_id()).await;
    read().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::export::ExportData;
    use crate::handlers::export::sheet::SHEET_ROWS_MAX;

    #[test]
    fn more_rows_than_a_sheet_holds_are_refused_for_sheets_alone() {
        for (format, most, more) in [("csv", true, true), ("excel", true, false)] {
            let payload = serde_json::json!({"entity_type": "accounts", "format": format});
            let payload: ExportData = serde_json::from_value(payload).unwrap();
            let plan = Plan::new(&payload).unwrap();
            assert_eq!(check_sheet(&plan, SHEET_ROWS_MAX).is_ok(), most, "{format}");
            assert_eq!(
                check_sheet(&plan, SHEET_ROWS_MAX + 1).is_ok(),
                more,
                "{format}"
            );
        }
    }
}
