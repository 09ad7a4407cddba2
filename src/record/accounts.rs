//! Accounts: the companies that a workspace knows.

use uuid::Uuid;

use super::merge::{IfTaken, Merge, insert_statement, texts};
use super::{RecordError, Tx};

/// One account as a file or a provider describes it. Absent means "says nothing", not "is empty".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccountRow {
    pub external_id: Option<String>,
    pub name: String,
    pub domain: Option<String>,
    pub website: Option<String>,
    pub industry: Option<String>,
    pub employee_count: Option<i32>,
    /// Whole units of the account's currency.
    pub annual_revenue: Option<i64>,
    /// ISO 3166-1 alpha-2 where the country is known, else the text as given.
    pub country: Option<String>,
    pub city: Option<String>,
    pub phone: Option<String>,
    pub linkedin_url: Option<String>,
    pub description: Option<String>,
    /// A JSON array of names.
    pub technologies: Option<serde_json::Value>,
    /// A JSON object.
    pub custom: Option<serde_json::Value>,
}

/// Which existing account each row means, by the same position; `None` where there is none.
///
/// By external id, else by domain. The name decides only for a row that has neither; of several
/// accounts of that name the oldest is taken.
pub async fn find_same(
    tx: &mut Tx,
    workspace_id: Option<Uuid>,
    rows: &[&AccountRow],
) -> Result<Vec<Option<Uuid>>, RecordError> {
    // Look-ups by index for each row, never a join that stale statistics could turn into a scan.
    Ok(sqlx::query_scalar(
        "SELECT COALESCE(
           (SELECT a.id FROM accounts a
            WHERE COALESCE(a.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid) = $1
              AND a.external_id = n.external_id),
           (SELECT a.id FROM accounts a
            WHERE COALESCE(a.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid) = $1
              AND a.domain = n.domain),
           (SELECT (array_agg(a.id ORDER BY a.id))[1] FROM accounts a
            WHERE COALESCE(a.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid) = $1
              AND a.name_key = lower(left(n.name, 200))
              AND n.external_id IS NULL AND n.domain IS NULL))
         FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY
           AS n (external_id, domain, name, place)
         ORDER BY n.place",
    )
    .bind(workspace_id.unwrap_or_default())
    .bind(texts(rows, |row| &row.external_id))
    .bind(texts(rows, |row| &row.domain))
    .bind(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>())
    .fetch_all(tx.connection())
    .await?)
}

/// Inserts accounts under ids that the caller made; the answer names those that are new.
///
/// A key may exist by now, whoever wrote it: `if_taken` says what becomes of its row.
pub async fn insert_many(
    tx: &mut Tx,
    workspace_id: Option<Uuid>,
    (source, if_taken): (&str, IfTaken),
    new: &[(Uuid, &AccountRow)],
) -> Result<Vec<Uuid>, RecordError> {
    let rows: Vec<&AccountRow> = new.iter().map(|(_, row)| *row).collect();

    let insert = insert_statement!("sql/accounts_insert.sql", if_taken);
    Ok(sqlx::query_scalar(insert)
        .bind(workspace_id)
        .bind(source)
        .bind(new.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(texts(&rows, |row| &row.external_id))
        .bind(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>())
        .bind(texts(&rows, |row| &row.domain))
        .bind(texts(&rows, |row| &row.website))
        .bind(texts(&rows, |row| &row.industry))
        .bind(
            rows.iter()
                .map(|row| row.employee_count)
                .collect::<Vec<_>>(),
        )
        .bind(
            rows.iter()
                .map(|row| row.annual_revenue)
                .collect::<Vec<_>>(),
        )
        .bind(texts(&rows, |row| &row.country))
        .bind(texts(&rows, |row| &row.city))
        .bind(texts(&rows, |row| &row.phone))
        .bind(texts(&rows, |row| &row.linkedin_url))
        .bind(texts(&rows, |row| &row.description))
        .bind(
            rows.iter()
                .map(|row| row.technologies.clone())
                .collect::<Vec<_>>(),
        )
        .bind(
            rows.iter()
                .map(|row| row.custom.clone())
                .collect::<Vec<_>>(),
        )
        .fetch_all(tx.connection())
        .await?)
}

/// Brings existing accounts up to date; the answer names those that really changed.
pub async fn update_many(
    tx: &mut Tx,

    merge: &Merge,
    known: &[(Uuid, &AccountRow)],
) -> Result<Vec<Uuid>, RecordError> {
    let rows: Vec<&AccountRow> = known.iter().map(|(_, row)| *row).collect();

    Ok(sqlx::query_scalar(include_str!("sql/accounts_update.sql"))
        .bind(known.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(&merge.fill)
        .bind(&merge.clear)
        .bind(texts(&rows, |row| &row.external_id))
        .bind(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>())
        .bind(texts(&rows, |row| &row.domain))
        .bind(texts(&rows, |row| &row.website))
        .bind(texts(&rows, |row| &row.industry))
        .bind(
            rows.iter()
                .map(|row| row.employee_count)
                .collect::<Vec<_>>(),
        )
        .bind(
            rows.iter()
                .map(|row| row.annual_revenue)
                .collect::<Vec<_>>(),
        )
        .bind(texts(&rows, |row| &row.country))
        .bind(texts(&rows, |row| &row.city))
        .bind(texts(&rows, |row| &row.phone))
        .bind(texts(&rows, |row| &row.linkedin_url))
        .bind(texts(&rows, |row| &row.description))
        .bind(
            rows.iter()
                .map(|row| row.technologies.clone())
                .collect::<Vec<_>>(),
        )
        .bind(
            rows.iter()
                .map(|row| row.custom.clone())
                .collect::<Vec<_>>(),
        )
        .bind(&merge.keep)
        .fetch_all(tx.connection())
        .await?)
}
