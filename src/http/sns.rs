//! Messages of Amazon SNS: whether Amazon has signed them
//! (<https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>).
//!
//! Promises: certificates come by HTTPS from a host of SNS and from nowhere else, past the guard of
//! addresses, are bounded in size and number, and are asked for again after a day; a subscription
//! is confirmed at such a host only. Whose topic it is, its signature does not say: the caller
//! compares that before.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, Url};
use ring::signature::{
    RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use tokio::time::Instant;

use crate::outbound::{Call, Caller};

/// The largest certificate, and how many are kept, for how long.
const CERTIFICATE_MAX_BYTES: usize = 64 * 1024;
const CERTIFICATES_MAX: usize = 32;
const KEPT: Duration = Duration::from_secs(24 * 3600);
const TIMEOUT: Duration = Duration::from_secs(10);
/// The algorithm of a key of RSA, as a certificate has it (RFC 3279, 2.3.1), and the bit string
/// with the key behind it.
const RSA: [u8; 15] = [
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

/// A message as SNS sends it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Envelope {
    pub(super) r#type: String,
    pub(super) message_id: String,
    pub(super) topic_arn: String,
    pub(super) message: String,
    pub(super) timestamp: String,
    signature_version: String,
    signature: String,
    #[serde(rename = "SigningCertURL")]
    signing_cert_url: String,
    subject: Option<String>,
    token: Option<String>,
    #[serde(rename = "SubscribeURL")]
    pub(super) subscribe_url: Option<String>,
}

/// Why a message is not believed, or not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Nobody at Amazon has signed it.
    Unsigned,
    /// The certificate, or the confirmation, can not be had now.
    Unavailable(String),
}

/// Verifies messages. Certificates are kept.
#[derive(Debug)]
pub(super) struct Sns {
    caller: Caller,
    keys: Mutex<HashMap<String, (Instant, Vec<u8>)>>,
}

impl Envelope {
    /// What is signed: some of the members, in the order of their names.
    fn signed(&self) -> Option<String> {
        let subject = self.subject.as_deref().map(|subject| ("Subject", subject));
        let of_subscription = || {
            Some((
                ("SubscribeURL", self.subscribe_url.as_deref()?),
                ("Token", self.token.as_deref()?),
            ))
        };
        let mut members = vec![
            ("Message", self.message.as_str()),
            ("MessageId", &self.message_id),
        ];
        match self.r#type.as_str() {
            "Notification" => {
                members.extend(subject);
                members.push(("Timestamp", &self.timestamp));
            }
            "SubscriptionConfirmation" | "UnsubscribeConfirmation" => {
                let (url, token) = of_subscription()?;
                members.extend([url, ("Timestamp", self.timestamp.as_str()), token]);
            }
            _ => return None,
        }
        members.extend([
            ("TopicArn", self.topic_arn.as_str()),
            ("Type", &self.r#type),
        ]);
        let line = |(name, value): &(&str, &str)| format!("{name}\n{value}\n");
        Some(members.iter().map(line).collect())
    }
}

impl Sns {
    pub(super) fn new(allows_private_addresses: bool) -> Self {
        Self {
            caller: Caller::new(allows_private_addresses),
            keys: Mutex::default(),
        }
    }

    /// Whether Amazon has signed it. `own`: the address of the connection, if it has one of its
    /// own: whoever stands in for SES there may stand in for SNS.
    pub(super) async fn verify(&self, envelope: &Envelope, own: Option<&str>) -> Result<(), Doubt> {
        let algorithm: &dyn VerificationAlgorithm = match envelope.signature_version.as_str() {
            "1" => &RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
            "2" => &RSA_PKCS1_2048_8192_SHA256,
            _ => return Err(Doubt::Unsigned),
        };
        let signature = STANDARD.decode(&envelope.signature);
        let signature = signature.map_err(|_| Doubt::Unsigned)?;
        let signed = envelope.signed().ok_or(Doubt::Unsigned)?;
        let url = &envelope.signing_cert_url;
        if !is_certificate(url, own) {
            return Err(Doubt::Unsigned);
        }
        let key = self.key(url).await?;
        let key = UnparsedPublicKey::new(algorithm, key);
        let verified = key.verify(signed.as_bytes(), &signature);
        verified.map_err(|_| Doubt::Unsigned)
    }

    async fn key(&self, url: &str) -> Result<Vec<u8>, Doubt> {
        let kept = self.keys().get(url).cloned();
        if let Some((_, key)) = kept.filter(|(at, _)| at.elapsed() < KEPT) {
            return Ok(key);
        }
        let pem = self.get(url, CERTIFICATE_MAX_BYTES).await?;
        let certificate = CertificateDer::from_pem_slice(&pem).ok();
        let key = certificate.and_then(|certificate| rsa_key(&certificate));
        let key = key.ok_or(Doubt::Unsigned)?;
        let mut keys = self.keys();
        if keys.len() >= CERTIFICATES_MAX {
            keys.clear();
        }
        keys.insert(url.to_owned(), (Instant::now(), key.clone()));
        Ok(key)
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, Vec<u8>)>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Confirms a subscription whose message was verified.
    pub(super) async fn confirm(
        &self,
        envelope: &Envelope,
        own: Option<&str>,
    ) -> Result<(), Doubt> {
        let url = envelope.subscribe_url.as_deref().unwrap_or_default();
        if !is_of_sns(url, own) {
            return Err(Doubt::Unsigned);
        }
        self.get(url, CERTIFICATE_MAX_BYTES).await.map(drop)
    }

    async fn get(&self, url: &str, bytes_max: usize) -> Result<Vec<u8>, Doubt> {
        let call = Call {
            method: Method::GET,
            url: url.to_owned(),
            headers: reqwest::header::HeaderMap::new(),
            body: bytes::Bytes::new(),
            timeout: TIMEOUT,
            answer_max_bytes: bytes_max,
        };
        let answer = self.caller.call(&call).await;
        let answer = answer.map_err(|error| Doubt::Unavailable(error.to_string()))?;
        match answer.status {
            200 if answer.is_whole => Ok(answer.bytes),
            status => Err(Doubt::Unavailable(format!("SNS answered {status}"))),
        }
    }
}

/// Whether an address is one of SNS.
fn is_of_sns(url: &str, own: Option<&str>) -> bool {
    let Ok(url) = Url::parse(url) else {
        return false;
    };
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return false;
    }
    let own = own.and_then(|own| Url::parse(own).ok());
    if own.is_some_and(|own| url.origin() == own.origin()) {
        return true;
    }
    let host = url.host_str().unwrap_or_default();
    let region = host.strip_prefix("sns.").and_then(|rest| {
        let rest = rest.strip_suffix(".cn").unwrap_or(rest);
        rest.strip_suffix(".amazonaws.com")
    });
    let is_region = |region: &str| {
        let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (3..=30).contains(&region.len()) && region.chars().all(is_letter)
    };
    url.scheme() == "https" && url.port().is_none() && region.is_some_and(is_region)
}

/// Whether an address is that of a certificate of SNS: its one path, and no query. Other paths of
/// the same host are its API, whose answers may repeat what the asker has put into the question, a
/// certificate of their own for one.
fn is_certificate(url: &str, own: Option<&str>) -> bool {
    if !is_of_sns(url, own) {
        return false;
    }
    let Ok(url) = Url::parse(url) else {
        return false;
    };
    let own = own.and_then(|own| Url::parse(own).ok());
    if own.is_some_and(|own| url.origin() == own.origin()) {
        return url.path().ends_with(".pem");
    }
    let name = url.path().strip_prefix("/SimpleNotificationService-");
    let id = name.and_then(|name| name.strip_suffix(".pem"));
    let is_hex = |id: &str| !id.is_empty() && id.chars().all(|c| c.is_ascii_hexdigit());
    url.query().is_none() && id.is_some_and(is_hex)
}

/// The key of RSA in a certificate (RFC 5280, 4.1): behind its algorithm stands a bit string with
/// no unused bits, which is the key in the form of PKCS #1.
fn rsa_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let at = certificate
        .windows(RSA.len())
        .position(|window| window == RSA)?;
    let rest = certificate.get(at + RSA.len()..)?;
    let rest = rest.strip_prefix(&[0x03])?;
    let (length, rest) = match *rest.first()? {
        short @ 0..=0x7f => (usize::from(short), rest.get(1..)?),
        0x81 => (usize::from(*rest.get(1)?), rest.get(2..)?),
        0x82 => {
            let length = u16::from_be_bytes([*rest.get(1)?, *rest.get(2)?]);
            (usize::from(length), rest.get(3..)?)
        }
        _ => return None,
    };
    let bits = rest.get(..length)?;
    bits.strip_prefix(&[0]).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_at_its_one_path_and_in_no_answer_of_the_api() {
        let host = "https://sns.eu-central-1.amazonaws.com";
        for (path, is_one) in [
            ("/SimpleNotificationService-0123456789abcdef.pem", true),
            ("/SimpleNotificationService-.pem", false),
            ("/SimpleNotificationService-xyz.pem", false),
            ("/SimpleNotificationService-0123.pem?x=.pem", false),
            ("/?Action=GetEndpointAttributes&x=.pem", false),
            ("/?x=/SimpleNotificationService-0123.pem", false),
            ("/a/../?Message=.pem", false),
            ("/x.pem", false),
            ("/SimpleNotificationService-01/../23.pem", false),
            ("/SimpleNotificationService-0123%2e.pem", false),
        ] {
            assert_eq!(
                is_certificate(&format!("{host}{path}"), None),
                is_one,
                "{path}"
            );
        }
        let own = Some("http://127.0.0.1:4566");
        assert!(is_certificate("http://127.0.0.1:4566/sns.pem", own));
        assert!(!is_certificate(
            "https://evil.example/SimpleNotificationService-01.pem",
            own
        ));
    }

    #[test]
    fn only_hosts_of_sns_are_asked() {
        for (url, is_sns) in [
            (
                "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-x.pem",
                true,
            ),
            ("https://sns.cn-north-1.amazonaws.com.cn/x.pem", true),
            ("http://sns.eu-central-1.amazonaws.com/x.pem", false),
            ("https://sns.eu-central-1.amazonaws.com:8443/x.pem", false),
            ("https://u@sns.eu-central-1.amazonaws.com/x.pem", false),
            (
                "https://sns.eu-central-1.amazonaws.com.evil.example/x.pem",
                false,
            ),
            (
                "https://evil.example/sns.eu-central-1.amazonaws.com/x.pem",
                false,
            ),
            ("https://sns.a.b.amazonaws.com/x.pem", false),
            ("https://mybucket.s3.amazonaws.com/x.pem", false),
            ("https://sns..amazonaws.com/x.pem", false),
        ] {
            assert_eq!(is_of_sns(url, None), is_sns, "{url}");
        }
        let own = Some("http://127.0.0.1:4566");
        assert!(is_of_sns("http://127.0.0.1:4566/x.pem", own));
        assert!(!is_of_sns("http://127.0.0.1:4567/x.pem", own));
        assert!(is_of_sns(
            "https://sns.eu-central-1.amazonaws.com/x.pem",
            own
        ));
    }

    #[test]
    fn a_message_of_the_first_version_is_verified() {
        let folder = |name: &str| format!("tests/it/email/sns/{name}");
        let read = |name: &str| std::fs::read(folder(name)).unwrap();
        let certificate = CertificateDer::from_pem_slice(&read("certificate.pem")).unwrap();
        let key = rsa_key(&certificate).unwrap();
        let signature = STANDARD.decode(read("signature.v1.txt")).unwrap();
        let envelope: Envelope = serde_json::from_value(serde_json::json!({
            "Type": "Notification", "MessageId": "one", "Message": "hello",
            "TopicArn": "arn:aws:sns:eu-central-1:1:mail", "SignatureVersion": "1",
            "Timestamp": "2026-11-28T04:00:00.000Z", "Signature": "", "SigningCertURL": "",
        }))
        .unwrap();
        let key = UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, key);
        let signed = envelope.signed().unwrap();
        assert!(
            key.verify(signed.as_bytes(), &signature).is_ok(),
            "{signed}"
        );
        let other = Envelope {
            message: "evil".to_owned(),
            ..envelope
        };
        assert!(
            key.verify(other.signed().unwrap().as_bytes(), &signature)
                .is_err()
        );
    }

    #[test]
    fn what_is_no_certificate_has_no_key() {
        assert_eq!(rsa_key(b""), None);
        assert_eq!(rsa_key(&RSA), None);
        let cut = [&RSA[..], &[0x03, 0x82, 0xff, 0xff, 0x00]].concat();
        assert_eq!(rsa_key(&cut), None);
        let whole = [&RSA[..], &[0x03, 0x02, 0x00, 0x07]].concat();
        assert_eq!(rsa_key(&whole), Some(vec![7]));
    }
}
