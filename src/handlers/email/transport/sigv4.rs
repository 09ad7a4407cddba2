//! AWS Signature Version 4, of requests without a query string
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>).

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Url;
use sha2::{Digest, Sha256};

use crate::secret::Secret;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Whose request it is.
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: Secret,
    pub(super) session_token: Option<Secret>,
}

pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a str,
    pub(super) body: &'a [u8],
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) at: DateTime<Utc>,
}

/// The headers that sign a request. `Host` is signed, too, as HTTP clients send it.
pub(super) fn sign(
    keys: &Keys,
    request: &Request<'_>,
) -> Result<Vec<(&'static str, String)>, String> {
    let url = Url::parse(request.url).map_err(|_| "the address is no URL".to_owned())?;
    if url.query().is_some() {
        return Err("the address must have no query".to_owned());
    }
    let host = url.host_str().unwrap_or_default();
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let (day, time) = (
        request.at.format("%Y%m%d").to_string(),
        request.at.format("%Y%m%dT%H%M%SZ").to_string(),
    );
    let mut headers = vec![("host", host), ("x-amz-date", time.clone())];
    if let Some(token) = &keys.session_token {
        headers.push(("x-amz-security-token", token.to_string()));
    }
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let mut canonical = format!("{}\n{}\n\n", request.method, url.path());
    for (name, value) in &headers {
        let _ = writeln!(canonical, "{name}:{}", value.trim());
    }
    let _ = write!(
        canonical,
        "\n{names}\n{}",
        hex(&Sha256::digest(request.body))
    );
    let scope = format!("{day}/{}/{}/aws4_request", request.region, request.service);
    let digest = hex(&Sha256::digest(canonical.as_bytes()));
    let text = format!("{ALGORITHM}\n{time}\n{scope}\n{digest}");
    let mut key = mac(format!("AWS4{}", keys.secret.as_str()).as_bytes(), &day)?;
    for part in [request.region, request.service, "aws4_request"] {
        key = mac(&key, part)?;
    }
    let signature = hex(&mac(&key, &text)?);
    let authorization = format!(
        "{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
        keys.id
    );
    let mut signed = vec![("authorization", authorization)];
    signed.extend(headers.into_iter().filter(|(name, _)| *name != "host"));
    Ok(signed)
}

fn mac(key: &[u8], text: &str) -> Result<Vec<u8>, String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| error.to_string())?;
    mac.update(text.as_bytes());
    Ok(mac.finalize().into_bytes().to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `get-vanilla` and `post-vanilla` of the test suite that AWS publishes for the signature.
    #[test]
    fn requests_are_signed_as_the_published_examples_are() {
        let keys = Keys {
            id: "AKIDEXAMPLE".to_owned(),
            secret: Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            session_token: None,
        };
        for (method, signature) in [
            (
                "GET",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "POST",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
        ] {
            let request = Request {
                method,
                url: "https://example.amazonaws.com/",
                body: b"",
                region: "us-east-1",
                service: "service",
                at: "2015-08-30T12:36:00Z".parse().unwrap(),
            };
            let signed = sign(&keys, &request).unwrap();
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders=host;x-amz-date, Signature={signature}"
            );
            assert_eq!(signed[0], ("authorization", expected));
            assert_eq!(signed[1].1, "20150830T123600Z");
        }
    }
}
