//! Whether a request was signed with the key of the bucket, as "AWS Signature Version 4" has it.

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::http::StatusCode;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::s3::{KEY_ID, Refusal, SECRET, find, hex, pairs, sum};

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Refuses a request that this key did not sign, with this body.
pub(super) fn check(request: &Request<()>, body: &[u8]) -> Result<(), Refusal> {
    let forbidden = |code| Refusal(StatusCode::FORBIDDEN, code);
    let headers = request.headers();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let query = pairs(request.uri().query().unwrap_or_default());
    let in_query = find(&query, "X-Amz-Signature");
    let (credential, signed, given, date, payload) = match &in_query {
        Some(signature) => (
            find(&query, "X-Amz-Credential").unwrap_or_default(),
            find(&query, "X-Amz-SignedHeaders").unwrap_or_default(),
            signature.clone(),
            find(&query, "X-Amz-Date").unwrap_or_default(),
            "UNSIGNED-PAYLOAD".to_owned(),
        ),
        None => {
            let text = header("authorization").ok_or(forbidden("AccessDenied"))?;
            let text = text.strip_prefix("AWS4-HMAC-SHA256 ");
            let parts = text.ok_or(forbidden("AccessDenied"))?.split(", ");
            let named: BTreeMap<&str, &str> =
                parts.filter_map(|part| part.split_once('=')).collect();
            let payload = header("x-amz-content-sha256").unwrap_or_default();
            if payload != sum(body) {
                let status = StatusCode::BAD_REQUEST;
                return Err(Refusal(status, "XAmzContentSHA256Mismatch"));
            }
            (
                named["Credential"].to_owned(),
                named["SignedHeaders"].to_owned(),
                named["Signature"].to_owned(),
                header("x-amz-date").unwrap_or_default().to_owned(),
                payload.to_owned(),
            )
        }
    };
    let (id, scope) = credential.split_once('/').unwrap_or_default();
    if id != KEY_ID {
        return Err(forbidden("InvalidAccessKeyId"));
    }
    let scoped: Vec<&str> = scope.split('/').collect();
    let [day, region, "s3", "aws4_request"] = scoped[..] else {
        return Err(forbidden("AccessDenied"));
    };
    let canonical_query: Vec<String> = query
        .iter()
        .filter(|(name, _)| name != "X-Amz-Signature")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let line = |name: &str| format!("{name}:{}\n", header(name).unwrap_or_default().trim());
    let canonical = format!(
        "{}\n{}\n{}\n{}\n{signed}\n{payload}",
        request.method(),
        request.uri().path(),
        canonical_query.join("&"),
        signed.split(';').map(line).collect::<String>(),
    );
    let text = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        sum(canonical.as_bytes())
    );
    let key = sign(format!("AWS4{SECRET}").as_bytes(), day);
    let key = sign(&sign(&sign(&key, region), "s3"), "aws4_request");
    match hex(&sign(&key, &text)) == given {
        true => Ok(()),
        false => Err(forbidden("SignatureDoesNotMatch")),
    }
}
