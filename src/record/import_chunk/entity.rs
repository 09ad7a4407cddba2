//! What a chunk needs of accounts and of contacts.

use std::future::Future;

use uuid::Uuid;

use crate::record::accounts::{self, AccountRow};
use crate::record::contacts::{self, ContactRow};
use crate::record::merge::{IfTaken, Merge};
use crate::record::{RecordError, Tx};

/// What accounts and contacts have in common for an import.
pub(super) trait Entity: Sized + Sync {
    fn find_same(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        rows: &[&Self],
    ) -> impl Future<Output = Result<Vec<Option<Uuid>>, RecordError>> + Send;

    fn insert_many(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        new: &[(Uuid, &Self)],
        if_taken: IfTaken,
    ) -> impl Future<Output = Result<Vec<Uuid>, RecordError>> + Send;

    fn update_many(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        merge: &Merge,
        known: &[(Uuid, &Self)],
    ) -> impl Future<Output = Result<Vec<Uuid>, RecordError>> + Send;
}

/// What `accounts.source` and `contacts.source` say of imported rows.
const SOURCE: &str = "import_csv";

impl Entity for AccountRow {
    async fn find_same(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        rows: &[&Self],
    ) -> Result<Vec<Option<Uuid>>, RecordError> {
        accounts::find_same(tx, workspace_id, rows).await
    }

    async fn insert_many(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        new: &[(Uuid, &Self)],
        if_taken: IfTaken,
    ) -> Result<Vec<Uuid>, RecordError> {
        accounts::insert_many(tx, workspace_id, (SOURCE, if_taken), new).await
    }

    async fn update_many(
        tx: &mut Tx,
        _workspace_id: Option<Uuid>,
        merge: &Merge,
        known: &[(Uuid, &Self)],
    ) -> Result<Vec<Uuid>, RecordError> {
        accounts::update_many(tx, merge, known).await
    }
}

impl Entity for ContactRow {
    async fn find_same(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        rows: &[&Self],
    ) -> Result<Vec<Option<Uuid>>, RecordError> {
        contacts::find_same(tx, workspace_id, rows).await
    }

    async fn insert_many(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        new: &[(Uuid, &Self)],
        if_taken: IfTaken,
    ) -> Result<Vec<Uuid>, RecordError> {
        contacts::insert_many(tx, workspace_id, (SOURCE, if_taken), new).await
    }

    async fn update_many(
        tx: &mut Tx,
        workspace_id: Option<Uuid>,
        merge: &Merge,
        known: &[(Uuid, &Self)],
    ) -> Result<Vec<Uuid>, RecordError> {
        contacts::update_many(tx, workspace_id, merge, known).await
    }
}
