//! Reads the rows of an export, window by window of ids, through a view of whoever asks.
//!
//! A statement looks at a bounded number of rows, however few of them match, so that none runs
//! into its time limit; and a page ends after so many bytes, so that memory does not grow with
//! what people wrote into a row.

use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{Postgres, QueryBuilder, Row};
use uuid::Uuid;

use super::columns::{CUSTOM_NAME_MAX, Cell, Entity, Field, Kind};
use super::filter::Condition;
use crate::record::{Record, RecordError, View, Viewer};

/// A page is full when its rows have so many bytes.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// How many rows a statement looks at.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// Of a survey.
    pub surveyed: i64,
    /// Of a page, when there are conditions.
    pub scanned: i64,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            surveyed: 50_000,
            scanned: 20_000,
        }
    }
}

/// Which rows: those of a tenant, or those without a workspace.
#[derive(Debug, Clone)]
pub struct Selection {
    pub workspace_id: Option<Uuid>,
    pub entity: Entity,
    pub conditions: Vec<Condition>,
    pub windows: Windows,
}

/// What a window of a survey found.
#[derive(Debug)]
pub struct Surveyed {
    /// Where the next window begins; none: this was the last one.
    pub next: Option<Uuid>,
    /// Rows that match.
    pub rows: i64,
    /// Names of their custom fields.
    pub custom: Vec<String>,
    /// Some have names that no column can have.
    pub has_unnamable: bool,
}

/// A page of rows.
#[derive(Debug)]
pub struct Page {
    pub rows: Vec<Vec<Cell>>,
    /// Where the next one begins; none: this was the last one.
    pub next: Option<Uuid>,
    /// About what its rows take.
    bytes: usize,
}

impl Page {
    /// How many rows to ask for next, `most` at most: with rows like these they just fill a page.
    /// What is asked for beyond that, the database sends in vain.
    pub fn next_limit(&self, most: i64) -> i64 {
        let row = self.bytes / self.rows.len().max(1);
        let fit = i64::try_from(PAGE_BYTES / row.max(1)).unwrap_or(most);
        fit.clamp(1, most.max(1))
    }
}

impl Selection {
    /// The record as the tenant sees it: the database leaves out what is not the tenant's. The
    /// rows without a workspace are nobody's, and only the program itself sees those.
    async fn view(&self, record: &Record) -> Result<View, RecordError> {
        match self.workspace_id {
            Some(id) => record.view_for(Viewer::Tenant(id)).await,
            None => record.view().await,
        }
    }

    /// The newest row that there is now: later ones are not exported.
    pub async fn newest(&self, record: &Record) -> Result<Option<Uuid>, RecordError> {
        let mut view = self.view(record).await?;
        let mut query = self.select("id");
        query.push(" ORDER BY id DESC LIMIT 1");
        let query = query.build_query_scalar();
        Ok(query.fetch_optional(view.connection()).await?)
    }

    /// Counts one window of rows behind `after` up to `until`, and names their custom fields if
    /// asked to, at most `names_max` of them.
    pub async fn survey(
        &self,
        record: &Record,
        (after, until): (Uuid, Uuid),
        names_max: i64,
    ) -> Result<Surveyed, RecordError> {
        let mut view = self.view(record).await?;
        let next = self
            .window(&mut view, (after, until), self.windows.surveyed)
            .await?;
        let window = (after, next.unwrap_or(until));
        let mut query = self.matching("count(*)", window);
        let rows = query.build_query_scalar().fetch_one(view.connection());
        let rows = rows.await?;
        let mut names: Vec<Option<String>> = Vec::new();
        if names_max > 0 {
            let mut query =
                QueryBuilder::new("SELECT DISTINCT CASE WHEN octet_length(name) BETWEEN 1 AND ");
            query.push_bind(CUSTOM_NAME_MAX as i32);
            query.push(" THEN name END FROM (");
            self.push_matching(&mut query, "jsonb_object_keys(custom) AS name", window);
            query.push(") matching ORDER BY 1 NULLS FIRST LIMIT ");
            query.push_bind(names_max + 1);
            let found = query.build_query_scalar().fetch_all(view.connection());
            names = found.await?;
        }
        Ok(Surveyed {
            next,
            rows,
            has_unnamable: names.iter().any(Option::is_none),
            custom: names.into_iter().flatten().collect(),
        })
    }

    /// The ids of at most `limit` rows behind `after` up to `until`, in their order; and where the
    /// next ones begin, none if these were the last.
    pub async fn ids(
        &self,
        record: &Record,
        (after, until): (Uuid, Uuid),
        limit: i64,
    ) -> Result<(Vec<Uuid>, Option<Uuid>), RecordError> {
        let mut view = self.view(record).await?;
        let next = match self.conditions.is_empty() {
            true => None,
            false => {
                let rows = self.windows.scanned;
                self.window(&mut view, (after, until), rows).await?
            }
        };
        let mut query = self.matching("id", (after, next.unwrap_or(until)));
        query.push(" ORDER BY id LIMIT ").push_bind(limit);
        let query = query.build_query_scalar();
        let ids: Vec<Uuid> = query.fetch_all(view.connection()).await?;
        let next = match ids.len() as i64 == limit {
            true => ids.last().copied(),
            false => next,
        };
        Ok((ids, next))
    }

    /// At most `limit` rows behind `after` up to `until`, in the order of their ids.
    pub async fn page(
        &self,
        record: &Record,
        fields: &[Field],
        (after, until): (Uuid, Uuid),
        limit: i64,
    ) -> Result<Page, RecordError> {
        let mut view = self.view(record).await?;
        // Without conditions every row that is looked at is one of the page.
        let next = match self.conditions.is_empty() {
            true => None,
            false => {
                let rows = self.windows.scanned;
                self.window(&mut view, (after, until), rows).await?
            }
        };
        let mut query = QueryBuilder::new("SELECT id");
        for field in fields {
            query.push(", ");
            match field {
                Field::Column(column) if column.kind == Kind::Number => {
                    query.push(column.name).push("::bigint")
                }
                Field::Column(column) => query.push(column.name),
                Field::Custom(name) => query
                    .push("custom -> ")
                    .push_bind(name.clone())
                    .push("::text"),
            };
        }
        self.push_from(&mut query);
        self.push_window(&mut query, (after, next.unwrap_or(until)));
        query.push(" ORDER BY id LIMIT ").push_bind(limit);

        let (mut rows, mut bytes, mut last) = (Vec::new(), 0, None);
        let query = query.build();
        let mut found = query.fetch(view.connection());
        while let Some(row) = found.try_next().await? {
            last = Some(row.try_get::<Uuid, _>(0)?);
            let cells: Result<Vec<Cell>, RecordError> = fields
                .iter()
                .enumerate()
                .map(|(at, field)| cell(&row, at + 1, field.kind()))
                .collect();
            let cells = cells?;
            bytes += cells.iter().map(size).sum::<usize>();
            rows.push(cells);
            if bytes > PAGE_BYTES {
                break;
            }
        }
        let is_full = bytes > PAGE_BYTES || rows.len() as i64 == limit;
        let next = if is_full { last } else { next };
        Ok(Page { rows, next, bytes })
    }

    /// The last row of a window of so many rows; none: it reaches to `until`.
    async fn window(
        &self,
        view: &mut View,
        (after, until): (Uuid, Uuid),
        rows: i64,
    ) -> Result<Option<Uuid>, RecordError> {
        let mut query = self.select("id");
        push_range(&mut query, (after, until));
        query.push(" ORDER BY id OFFSET ").push_bind(rows - 1);
        query.push(" LIMIT 1");
        let query = query.build_query_scalar();
        let last: Option<Uuid> = query.fetch_optional(view.connection()).await?;
        Ok(last.filter(|last| *last < until))
    }

    fn select(&self, what: &'static str) -> QueryBuilder<Postgres> {
        let mut query = QueryBuilder::new("SELECT ");
        query.push(what);
        self.push_from(&mut query);
        query
    }

    fn matching(&self, what: &'static str, window: (Uuid, Uuid)) -> QueryBuilder<Postgres> {
        let mut query = QueryBuilder::new("");
        self.push_matching(&mut query, what, window);
        query
    }

    fn push_matching<'a>(
        &self,
        query: &'a mut QueryBuilder<Postgres>,
        what: &'static str,
        window: (Uuid, Uuid),
    ) -> &'a mut QueryBuilder<Postgres> {
        query.push("SELECT ").push(what);
        self.push_from(query);
        self.push_window(query, window);
        query
    }

    /// The table and whose rows; named as well as seen, so that the index is used.
    fn push_from(&self, query: &mut QueryBuilder<Postgres>) {
        query.push(" FROM ").push(self.entity.as_str());
        match self.workspace_id {
            Some(id) => query.push(" WHERE workspace_id = ").push_bind(id),
            None => query.push(" WHERE workspace_id IS NULL"),
        };
    }

    fn push_window(&self, query: &mut QueryBuilder<Postgres>, window: (Uuid, Uuid)) {
        push_range(query, window);
        for condition in &self.conditions {
            query.push(" AND ");
            condition.push(query);
        }
    }
}

fn push_range(query: &mut QueryBuilder<Postgres>, (after, until): (Uuid, Uuid)) {
    query.push(" AND id > ").push_bind(after);
    query.push(" AND id <= ").push_bind(until);
}

fn cell(row: &PgRow, at: usize, kind: Kind) -> Result<Cell, RecordError> {
    fn or_empty<T>(value: Option<T>, cell: fn(T) -> Cell) -> Cell {
        value.map_or(Cell::Empty, cell)
    }
    Ok(match kind {
        Kind::Id => or_empty(row.try_get(at)?, Cell::Id),
        Kind::Text => or_empty(row.try_get(at)?, Cell::Text),
        Kind::Number => or_empty(row.try_get(at)?, Cell::Number),
        Kind::Time => or_empty(row.try_get(at)?, Cell::Time),
        Kind::List | Kind::Object | Kind::Custom => or_empty(row.try_get(at)?, Cell::Json),
    })
}

fn size(cell: &Cell) -> usize {
    match cell {
        Cell::Text(text) => text.len() + 32,
        Cell::Json(value) => json_size(value),
        Cell::Empty | Cell::Id(_) | Cell::Number(_) | Cell::Time(_) => 32,
    }
}

/// About what a value takes.
fn json_size(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    match value {
        Value::String(text) => text.len() + 32,
        Value::Array(items) => items.iter().map(json_size).sum::<usize>() + 32,
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| name.len() + json_size(value) + 64;
            members.iter().map(member).sum::<usize>() + 32
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_rows_are_asked_for_in_small_numbers() {
        let page = |rows: usize, bytes| Page {
            rows: vec![Vec::new(); rows],
            next: None,
            bytes,
        };
        for (page, limit) in [
            (page(0, 0), 1000),
            (page(100, 100 * 400), 1000),
            (page(100, 100 * PAGE_BYTES / 40), 40),
            (page(1, 50 * PAGE_BYTES), 1),
        ] {
            assert_eq!(page.next_limit(1000), limit);
        }
    }
}
