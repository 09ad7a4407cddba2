//! Signing deliveries as the Standard Webhooks convention has it
//! (<https://www.standardwebhooks.com>): HMAC-SHA256 over `id.timestamp.body`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A shared secret. It can not be printed.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A secret that signs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret begins with `whsec_`, and what follows is not base64 with its padding")]
pub struct InvalidSecret;

impl Secret {
    /// `whsec_` and base64, as the convention writes secrets; any other text counts as it stands.
    /// Broken base64 is no text of its own: the receiver, which decodes it too, could not tell
    /// why every delivery looks forged.
    pub fn new(text: &str) -> Result<Self, InvalidSecret> {
        let Some(encoded) = text.strip_prefix("whsec_") else {
            return Ok(Self(text.as_bytes().to_vec()));
        };
        match STANDARD.decode(encoded) {
            Ok(key) if !key.is_empty() => Ok(Self(key)),
            Ok(_) | Err(_) => Err(InvalidSecret),
        }
    }

    /// The three headers of a delivery.
    pub(super) fn sign(
        &self,
        id: &str,
        timestamp: i64,
        body: &[u8],
    ) -> [(&'static str, String); 3] {
        [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", timestamp.to_string()),
            ("webhook-signature", self.signature(id, timestamp, body)),
        ]
    }

    /// The value of the header `webhook-signature`.
    pub fn signature(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).map(|mac| {
            mac.chain_update(format!("{id}.{timestamp}."))
                .chain_update(body)
                .finalize()
                .into_bytes()
        });
        // HMAC takes a key of any length.
        format!("v1,{}", STANDARD.encode(mac.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the convention's own libraries.
    #[test]
    fn a_signature_is_that_of_standard_webhooks() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            secret.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new("hush").unwrap()), "Secret");
    }

    #[test]
    fn a_secret_that_is_not_what_it_begins_as_is_refused() {
        for broken in ["whsec_", "whsec_%%%%", "whsec_YWJjZA", "whsec_ YWJj"] {
            let refused = Secret::new(broken).unwrap_err();
            assert!(!refused.to_string().contains("YWJj"), "{broken}");
        }
        for plain in ["whisper", "WHSEC_%", "whse"] {
            assert!(Secret::new(plain).is_ok(), "{plain}");
        }
    }
}
