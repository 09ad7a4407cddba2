//! Texts that never reach a log.

use std::fmt;

/// A text that is not printed: a key, or an address that may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl std::ops::Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Secret {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&Secret> for String {
    fn from(secret: &Secret) -> Self {
        secret.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Some(Secret("hush".to_owned()));
        assert_eq!(format!("{secret:?} {secret:#?}").matches("hush").count(), 0);
    }
}
