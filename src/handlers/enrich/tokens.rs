//! Tokens that a provider gives for credentials, kept in memory for as long as they are good.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use uuid::Uuid;

use super::super::connection::Connection;
use super::super::providers::{self, DataSource, TOKEN_KEPT};
use super::calls::{Calls, unusable};
use crate::job::JobError;
use crate::secret::Secret;
use crate::worker::JobContext;

/// Tokens that are remembered.
const TOKENS_MAX: usize = 1000;

/// By connection. Who asks for a token holds its place, so that one asks and the others wait.
#[derive(Debug, Clone, Default)]
pub(super) struct Tokens(Arc<Mutex<HashMap<Uuid, Place>>>);

type Place = Arc<tokio::sync::Mutex<Option<Token>>>;

/// What a provider gave for credentials.
#[derive(Debug, Clone)]
struct Token {
    text: Secret,
    /// Of which credentials.
    version: i32,
    since: Instant,
}

impl Tokens {
    /// A token that is good for a while yet.
    pub(super) async fn get(
        &self,
        calls: &Calls,
        ctx: &JobContext,
        source: DataSource,
        connection: &Connection,
    ) -> Result<Secret, JobError> {
        let place = self.place(connection.id);
        let mut known = place.lock().await;
        let is_good = |token: &&Token| {
            token.version == connection.version() && token.since.elapsed() < TOKEN_KEPT
        };
        if let Some(token) = known.as_ref().filter(is_good) {
            return Ok(token.text.clone());
        }
        let call = providers::token_call(connection).map_err(|why| unusable(connection, &why))?;
        let since = Instant::now();
        let answer = calls
            .send(ctx, (source, connection), (&call, 1), |_| false)
            .await?;
        match (answer.status, providers::token(&answer)) {
            (200, Some(text)) => {
                *known = Some(Token {
                    text: text.clone(),
                    version: connection.version(),
                    since,
                });
                Ok(text)
            }
            (400 | 401 | 403, _) => {
                let why = format!("its log-in answered {}", answer.status);
                Err(connection.refused(ctx, &why).await)
            }
            // Its body may hold what is secret.
            (status, _) => Err(JobError::Retry(format!(
                "the log-in to {} answered {status} and no token",
                source.as_str()
            ))),
        }
    }

    /// A token was refused: nobody uses it again. One that somebody else has got since stays.
    pub(super) async fn forget(&self, connection: &Connection, refused: &Secret) {
        let place = self.place(connection.id);
        let mut known = place.lock().await;
        known.take_if(|token| token.text == *refused);
    }

    fn place(&self, connection_id: Uuid) -> Place {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= TOKENS_MAX {
            all.retain(|_, place| Arc::strong_count(place) > 1);
        }
        Arc::clone(all.entry(connection_id).or_default())
    }
}
