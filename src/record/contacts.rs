//! Contacts: the people that a workspace knows.

use uuid::Uuid;

use super::merge::{IfTaken, Merge, insert_statement, texts};
use super::{RecordError, Tx};

/// One contact as a file or a provider describes it. Absent means "says nothing", not "is empty".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContactRow {
    pub external_id: Option<String>,
    pub email: Option<String>,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub title: Option<String>,
    pub phone: Option<String>,
    pub linkedin_url: Option<String>,
    pub company: Option<String>,
    /// The registrable domain of the employer; links the contact to an account.
    pub company_domain: Option<String>,
    pub country: Option<String>,
    pub city: Option<String>,
    /// A JSON object.
    pub custom: Option<serde_json::Value>,
}

/// Which existing contact each row means, by the same position; `None` where there is none.
///
/// By external id, else by e-mail address in any case, else by `LinkedIn` page.
pub async fn find_same(
    tx: &mut Tx,
    workspace_id: Option<Uuid>,
    rows: &[&ContactRow],
) -> Result<Vec<Option<Uuid>>, RecordError> {
    // Look-ups by index for each row, never a join that stale statistics could turn into a scan.
    Ok(sqlx::query_scalar(
        "SELECT COALESCE(
           (SELECT c.id FROM contacts c
            WHERE COALESCE(c.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid) = $1
              AND c.external_id = n.external_id),
           (SELECT c.id FROM contacts c
            WHERE COALESCE(c.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid) = $1
              AND lower(c.email) = lower(n.email)),
           (SELECT c.id FROM contacts c
            WHERE COALESCE(c.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid) = $1
              AND c.linkedin_url = n.linkedin_url))
         FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY
           AS n (external_id, email, linkedin_url, place)
         ORDER BY n.place",
    )
    .bind(workspace_id.unwrap_or_default())
    .bind(texts(rows, |row| &row.external_id))
    .bind(texts(rows, |row| &row.email))
    .bind(texts(rows, |row| &row.linkedin_url))
    .fetch_all(tx.connection())
    .await?)
}

/// The account of each row's employer: by domain, else by name, the oldest of that name.
async fn find_accounts(
    tx: &mut Tx,
    workspace_id: Option<Uuid>,
    rows: &[&ContactRow],
) -> Result<Vec<Option<Uuid>>, RecordError> {
    if rows
        .iter()
        .all(|row| row.company.is_none() && row.company_domain.is_none())
    {
        return Ok(vec![None; rows.len()]);
    }
    Ok(sqlx::query_scalar(
        "SELECT COALESCE(
           (SELECT a.id FROM accounts a
            WHERE COALESCE(a.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid) = $1
              AND a.domain = n.domain),
           (SELECT (array_agg(a.id ORDER BY a.id))[1] FROM accounts a
            WHERE COALESCE(a.workspace_id, '00000000-0000-0000-0000-000000000000'::uuid) = $1
              AND a.name_key = lower(left(n.name, 200))))
         FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS n (domain, name, place)
         ORDER BY n.place",
    )
    .bind(workspace_id.unwrap_or_default())
    .bind(texts(rows, |row| &row.company_domain))
    .bind(texts(rows, |row| &row.company))
    .fetch_all(tx.connection())
    .await?)
}

/// Inserts contacts under ids that the caller made; the answer names those that are new.
///
/// A key may exist by now, whoever wrote it: `if_taken` says what becomes of its row.
pub async fn insert_many(
    tx: &mut Tx,
    workspace_id: Option<Uuid>,
    (source, if_taken): (&str, IfTaken),
    new: &[(Uuid, &ContactRow)],
) -> Result<Vec<Uuid>, RecordError> {
    let rows: Vec<&ContactRow> = new.iter().map(|(_, row)| *row).collect();
    let account_ids = find_accounts(tx, workspace_id, &rows).await?;
    let insert = insert_statement!("sql/contacts_insert.sql", if_taken);
    Ok(sqlx::query_scalar(insert)
        .bind(workspace_id)
        .bind(source)
        .bind(new.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(account_ids)
        .bind(texts(&rows, |row| &row.external_id))
        .bind(texts(&rows, |row| &row.email))
        .bind(texts(&rows, |row| &row.first_name))
        .bind(texts(&rows, |row| &row.last_name))
        .bind(texts(&rows, |row| &row.title))
        .bind(texts(&rows, |row| &row.phone))
        .bind(texts(&rows, |row| &row.linkedin_url))
        .bind(texts(&rows, |row| &row.company))
        .bind(texts(&rows, |row| &row.country))
        .bind(texts(&rows, |row| &row.city))
        .bind(
            rows.iter()
                .map(|row| row.custom.clone())
                .collect::<Vec<_>>(),
        )
        .fetch_all(tx.connection())
        .await?)
}

/// Brings existing contacts up to date; the answer names those that really changed.
pub async fn update_many(
    tx: &mut Tx,
    workspace_id: Option<Uuid>,
    merge: &Merge,
    known: &[(Uuid, &ContactRow)],
) -> Result<Vec<Uuid>, RecordError> {
    let rows: Vec<&ContactRow> = known.iter().map(|(_, row)| *row).collect();
    let account_ids = find_accounts(tx, workspace_id, &rows).await?;
    Ok(sqlx::query_scalar(include_str!("sql/contacts_update.sql"))
        .bind(known.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(&merge.fill)
        .bind(&merge.clear)
        .bind(account_ids)
        .bind(texts(&rows, |row| &row.external_id))
        .bind(texts(&rows, |row| &row.email))
        .bind(texts(&rows, |row| &row.first_name))
        .bind(texts(&rows, |row| &row.last_name))
        .bind(texts(&rows, |row| &row.title))
        .bind(texts(&rows, |row| &row.phone))
        .bind(texts(&rows, |row| &row.linkedin_url))
        .bind(texts(&rows, |row| &row.company))
        .bind(texts(&rows, |row| &row.country))
        .bind(texts(&rows, |row| &row.city))
        .bind(
            rows.iter()
                .map(|row| row.custom.clone())
                .collect::<Vec<_>>(),
        )
        .bind(&merge.keep)
        .fetch_all(tx.connection())
        .await?)
}
