//! The record as somebody may see it: one moment of it, to read and not to write.
//!
//! A view for a caller of the HTTP API is taken as a role that owns nothing, so that the database
//! itself leaves out what is not the caller's (row level security, `migrations/0019`): a statement
//! that forgets to name the workspace shows nothing more. For the operator, and for the program's
//! own looks, a view shows everything.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Record, RecordError, Tx};

/// All statements of a view see the same moment, so what one counts and another lists agrees.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
/// A rare filter over many rows may take long, and goes on when its reader has left: it must not
/// keep a connection for ever.
const STATEMENT_MAX: &str = "10s";

/// Whose eyes a view is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    /// Sees the workspaces of this user, as the role `authenticated`.
    User(Uuid),
    /// Sees this workspace, as the role `bullwark_tenant`.
    Tenant(Uuid),
}

/// One moment of the record. It keeps a connection: take it late, drop it early.
#[derive(Debug)]
pub struct View(Tx);

impl Record {
    /// Everything, for the operator and for the program itself.
    pub async fn view(&self) -> Result<View, RecordError> {
        let mut tx = Tx::begin_with(self.pool.clone(), BEGIN).await?;
        sqlx::query("SELECT set_config('statement_timeout', $1, true)")
            .bind(STATEMENT_MAX)
            .execute(tx.connection())
            .await?;
        Ok(View(tx))
    }

    /// What this viewer may see. Roles and claims last as long as the transaction.
    pub async fn view_for(&self, viewer: Viewer) -> Result<View, RecordError> {
        let mut tx = Tx::begin_with(self.pool.clone(), BEGIN).await?;
        let (claims, workspace, role) = match viewer {
            Viewer::User(id) => {
                let claims = json!({ "sub": id, "role": "authenticated" });
                (claims.to_string(), String::new(), "authenticated")
            }
            Viewer::Tenant(id) => (String::new(), id.to_string(), "bullwark_tenant"),
        };
        sqlx::query(
            "SELECT set_config('statement_timeout', $1, true),
               set_config('request.jwt.claims', $2, true),
               set_config('bullwark.workspace_id', $3, true), set_config('role', $4, true)",
        )
        .bind(STATEMENT_MAX)
        .bind(claims)
        .bind(workspace)
        .bind(role)
        .execute(tx.connection())
        .await?;
        Ok(View(tx))
    }
}

impl View {
    /// Ends it, and waits for the statement that is under way: then its connection is idle.
    pub async fn end(self) -> Result<(), RecordError> {
        self.0.rollback().await
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.0.connection()
    }
}
