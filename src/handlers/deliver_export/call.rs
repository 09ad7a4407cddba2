//! A call that tells a receiver of a file: signed as Standard Webhooks has it, with the secret of
//! its connection.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use uuid::Uuid;

use super::super::connection::Connection;
use super::super::http_call::sign;
use super::fate::Fate;
use super::send::Sending;
use crate::clock;
use crate::job::JobError;
use crate::job::connection::Provider;
use crate::outbound::{CALL_TIMEOUT, Call, CallFailure};
use crate::record::file_deliveries::{Delivery, ReadyFile};
use crate::record::logs::LogLevel;

/// What is read of a receiver's answer.
const ANSWER_MAX_BYTES: usize = 4 * 1024;

impl Sending<'_> {
    pub(super) async fn call(
        &self,
        file: &ReadyFile,
        one: &Delivery,
    ) -> Result<Option<Fate>, JobError> {
        let connections = &self.handler.connections;
        let id = one.connection_id;
        let connection = connections.open(self.ctx, Provider::Http, id).await?;
        let Some(base) = connection.base_url.clone() else {
            return Err(JobError::permanent("the connection has no address"));
        };
        let Some(url) = self.claim(one).await? else {
            return Ok(None);
        };
        let body = json!({
            "type": "export.ready",
            "timestamp": clock::now(),
            "data": {
                "export_id": self.of.1, "entity_type": file.entity_type, "format": file.format,
                "file_name": file.file_name, "rows": file.rows, "bytes": file.bytes,
                "sha256": file.sha256, "expires_at": file.expires_at, "url": url,
            },
        })
        .to_string();
        let headers = headers(&connection, one.id, &body)?;
        let call = Call {
            method: Method::POST,
            url: base,
            headers,
            body: body.into(),
            timeout: CALL_TIMEOUT,
            answer_max_bytes: ANSWER_MAX_BYTES,
        };
        let answer = match self.handler.caller.call(&call).await {
            Ok(answer) => answer,
            Err(CallFailure::Forbidden(why)) => {
                let why = format!("the address of the connection {why}");
                return Ok(Some(Fate::stop(JobError::Permanent(why))));
            }
            Err(unavailable) => return Ok(Some(Fate::stop(JobError::retry(unavailable)))),
        };
        let told = answer.told();
        Ok(Some(match (answer.status, answer.retry_after) {
            (200..300, _) => Fate::of("sent", None),
            (401, _) => Fate::stop(connection.refused(self.ctx, &told).await),
            (408 | 425 | 429 | 500.., Some(after)) => {
                let after = after.max(Duration::from_secs(1));
                Fate::stop(JobError::RetryAfter(after, told))
            }
            (408 | 425 | 429 | 500.., None) => Fate::stop(JobError::Retry(told)),
            _ => {
                self.ctx.log(LogLevel::Warn, &told, None);
                Fate::of("failed", told)
            }
        }))
    }
}

/// What the receiver is to know of who calls, and to tell two calls of one delivery.
fn headers(connection: &Connection, id: Uuid, body: &str) -> Result<HeaderMap, JobError> {
    let value = |text: &str| HeaderValue::try_from(text).map_err(JobError::permanent);
    let id = id.to_string();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("idempotency-key"), value(&id)?);
    if let Some(secret) = connection.credential("signing_secret") {
        let now_s = clock::now().timestamp();
        sign(&mut headers, &secret, (&id, now_s), body)?;
    }
    if let Some(authorization) = connection.credential("authorization") {
        let mut authorization = value(&authorization)?;
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
    }
    Ok(headers)
}
