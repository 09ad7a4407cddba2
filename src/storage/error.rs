//! What an object storage says when it does not do what it is asked, in words that help.

use std::io;

/// Letters of a server's code that are shown.
const CODE_MAX: usize = 60;
/// Letters of any other answer.
const TEXT_MAX: usize = 300;

/// Why the storage did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error(
        "the object storage refuses access to the bucket `{bucket}`{code}: check \
         BULLWARK_STORAGE_KEY_ID, BULLWARK_STORAGE_SECRET and BULLWARK_STORAGE_REGION, and whether \
         this key may list, read, write and delete there"
    )]
    Denied { bucket: String, code: String },
    #[error(
        "the object storage has no bucket `{bucket}`: make it, or check BULLWARK_STORAGE_URL and \
         BULLWARK_STORAGE_ENDPOINT"
    )]
    NoBucket { bucket: String },
    #[error("the object storage has no object `{key}`")]
    NotFound { key: String },
    /// It is another one than before.
    #[error("the object `{key}` was changed meanwhile")]
    Changed { key: String },
    #[error("the object storage knows nothing of a file that was on its way to it: `{key}`")]
    Lost { key: String },
    #[error("the object storage: {0}")]
    Away(String),
    #[error("a file of the data directory: {0}")]
    Disk(#[from] io::Error),
}

impl StorageError {
    /// A word for how the storage is, for those who must not read more.
    pub fn state(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::NoBucket { .. } => "no_bucket",
            Self::NotFound { .. } | Self::Changed { .. } | Self::Lost { .. } => "ok",
            Self::Away(_) | Self::Disk(_) => "away",
        }
    }

    /// What the client says, of an object or, with an empty key, of the bucket.
    pub(super) fn of(error: object_store::Error, bucket: &str, key: &str) -> Self {
        use object_store::Error;
        let text = error.to_string();
        let code = code(&text);
        let bucket = bucket.to_owned();
        match error {
            _ if code.as_deref() == Some("NoSuchBucket") => Self::NoBucket { bucket },
            _ if code.as_deref() == Some("NoSuchUpload") => Self::Lost {
                key: key.to_owned(),
            },
            // Lists do not tell such answers apart.
            Error::Generic { .. } if is_denial(code.as_deref(), &text) => Self::Denied {
                bucket,
                code: code.map(|code| format!(" ({code})")).unwrap_or_default(),
            },
            Error::NotFound { .. } if key.is_empty() => Self::NoBucket { bucket },
            Error::NotFound { .. } => Self::NotFound {
                key: key.to_owned(),
            },
            Error::Precondition { .. } => Self::Changed {
                key: key.to_owned(),
            },
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Self::Denied {
                bucket,
                code: code.map(|code| format!(" ({code})")).unwrap_or_default(),
            },
            _ => Self::Away(match code {
                Some(code) => format!("answers `{code}`"),
                None => shortened(&text),
            }),
        }
    }

    /// The same for an answer that was asked for without the client.
    pub(super) fn of_answer(status: u16, text: &str, bucket: &str) -> Self {
        let (code, bucket) = (code(text), bucket.to_owned());
        match status {
            _ if code.as_deref() == Some("NoSuchBucket") => Self::NoBucket { bucket },
            401 | 403 => Self::Denied {
                bucket,
                code: code.map(|code| format!(" ({code})")).unwrap_or_default(),
            },
            _ => Self::Away(match code {
                Some(code) => format!("answers `{code}`"),
                None => format!("answers {status}"),
            }),
        }
    }
}

/// The code of an error document of S3.
fn code(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let is_code = code.chars().all(|c| c.is_ascii_alphanumeric());
    (is_code && !code.is_empty() && code.len() <= CODE_MAX).then(|| code.to_owned())
}

/// Whether an answer means that the key is wrong, or may not do that.
fn is_denial(code: Option<&str>, text: &str) -> bool {
    let codes = [
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    ];
    code.is_some_and(|code| codes.contains(&code))
        || ["status code: 401", "status code: 403"]
            .iter()
            .any(|status| text.contains(status))
}

fn shortened(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(TEXT_MAX)
        .collect()
}

impl From<StorageError> for io::Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Disk(error) => error,
            StorageError::NotFound { .. } => Self::new(io::ErrorKind::NotFound, error.to_string()),
            error => Self::other(error.to_string()),
        }
    }
}
