//! A handler whose code is in the test that uses it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use bullwark::job::{Backoff, JobError, JobRequest};
use bullwark::record::Tx;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::worker::{Handler, JobContext};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

type Code = Arc<dyn Fn(JobContext) -> BoxFuture<'static, Result<Value, JobError>> + Send + Sync>;

/// The code of jobs, by name.
#[derive(Default)]
pub(crate) struct Codes(Mutex<HashMap<String, Code>>);

impl Codes {
    pub(crate) fn set<F>(&self, name: &str, code: impl Fn(JobContext) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<Value, JobError>> + Send + 'static,
    {
        let code: Code = Arc::new(move |ctx| code(ctx).boxed());
        self.0.lock().unwrap().insert(name.to_owned(), code);
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Named {
    name: String,
}

pub(super) struct Coded(pub(super) Arc<Codes>);

impl Handler for Coded {
    const TYPE: &'static str = "coded";
    type Payload = Named;
    type Output = Value;

    async fn run(&self, ctx: JobContext, payload: Named) -> Result<Value, JobError> {
        let code = self.0.0.lock().unwrap()[&payload.name].clone();
        code(ctx).await
    }
}

/// A job that runs the code of this name; failures are retried soon.
pub(crate) fn coded(name: &str) -> JobRequest {
    let mut request = JobRequest::new("coded", json!({ "name": name }));
    request.workspace_id = Some(DEFAULT_WORKSPACE);
    request.backoff = Some(Backoff::Fixed {
        delay_ms: 20,
        jitter: 0.0,
    });
    request
}

/// Writes into `effects`.
pub(crate) async fn effect(tx: &mut Tx, name: &str) -> Result<(), JobError> {
    sqlx::query("INSERT INTO effects VALUES ($1)")
        .bind(name)
        .execute(tx.connection())
        .await
        .map_err(JobError::retry)?;
    Ok(())
}
