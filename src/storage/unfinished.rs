//! Files that were on their way to the storage, and whose sender came to an end. Nobody sees what
//! arrived of them, but it is stored and paid for.
//!
//! The client has no call for the list, so it is asked for with an address that is signed here.
//! Some servers, `MinIO` among them, list these for the exact name of one object only, and end them
//! by themselves after a day; for others a rule of the bucket can do the same
//! (`AbortIncompleteMultipartUpload`).

use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use reqwest::Method;

use super::{Objects, Sending, StorageError};

/// Entries of one list: S3's own most.
const LIST_MAX: usize = 1000;
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long the signed address works.
const SIGNED_FOR: Duration = Duration::from_secs(60);

/// A sending that the storage knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abandoned {
    /// Without the prefix of the settings.
    pub key: String,
    pub begun: DateTime<Utc>,
    id: String,
}

impl Objects {
    /// Sendings below a directory that have not come to their end; at most a thousand.
    pub async fn unfinished(&self, dir: &str) -> Result<Vec<Abandoned>, StorageError> {
        let prefix = format!("{}/", self.path(dir));
        let query = [
            ("uploads".to_owned(), String::new()),
            ("max-uploads".to_owned(), LIST_MAX.to_string()),
            ("prefix".to_owned(), prefix),
        ];
        let signed = SignedUrlOptions::default().with_query(query);
        let bucket = Path::default();
        let url = self
            .store
            .signed_url_opts(Method::GET, &bucket, SIGNED_FOR, &signed);
        let url = url.await.map_err(|error| self.error(error, ""))?;
        let away = |error: reqwest::Error| StorageError::Away(error.without_url().to_string());
        let mut answer = self.client.get(url).send().await.map_err(away)?;
        let status = answer.status().as_u16();
        let mut text = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(away)? {
            if text.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(StorageError::Away("answers without an end".to_owned()));
            }
            text.extend_from_slice(&piece);
        }
        let text = String::from_utf8_lossy(&text);
        if status != 200 {
            return Err(StorageError::of_answer(status, &text, &self.bucket));
        }
        let found = read(&text).into_iter().take(LIST_MAX);
        let ours = found.filter_map(|found| {
            let key = self.key(&found.key)?.to_owned();
            Some(Abandoned { key, ..found })
        });
        Ok(ours.collect())
    }

    /// Ends one of them for good.
    pub async fn abort_abandoned(&self, abandoned: &Abandoned) -> Result<(), StorageError> {
        let sending = Sending {
            key: abandoned.key.clone(),
            id: abandoned.id.clone(),
            part_bytes: 0,
            parts: Vec::new(),
        };
        self.abort(&sending).await
    }
}

/// The entries of a `ListMultipartUploadsResult`. Names of ours and ids have no letters that XML
/// would write in another way; what does not look like an entry is passed over.
fn read(text: &str) -> Vec<Abandoned> {
    let entries = text.split("<Upload>").skip(1);
    let entry = |text: &str| {
        let text = text.split("</Upload>").next()?;
        let inner = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            let (inner, _) = rest.split_once(&format!("</{name}>"))?;
            Some(inner.trim().to_owned())
        };
        Some(Abandoned {
            key: inner("Key")?,
            begun: DateTime::parse_from_rfc3339(&inner("Initiated")?)
                .ok()?
                .to_utc(),
            id: inner("UploadId")?,
        })
    };
    entries.filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_is_read() {
        let text = "<?xml version=\"1.0\"?><ListMultipartUploadsResult><Bucket>b</Bucket>\
            <Upload><Key>p/exports/a.1.csv</Key><UploadId>one</UploadId><Initiator><ID>x</ID>\
            </Initiator><Initiated>2026-11-27T20:48:33.000Z</Initiated></Upload>\
            <Upload><Key>broken</Key></Upload>\
            <Upload><UploadId>two==</UploadId><Key>q</Key>\
            <Initiated>2026-11-27T20:48:34Z</Initiated></Upload></ListMultipartUploadsResult>";
        let found: Vec<_> = read(text)
            .into_iter()
            .map(|found| (found.key, found.id, found.begun.timestamp()))
            .collect();
        let expected = [
            ("p/exports/a.1.csv", "one", 1_795_812_513),
            ("q", "two==", 1_795_812_514),
        ];
        let expected = expected.map(|(key, id, at)| (key.to_owned(), id.to_owned(), at));
        assert_eq!(found, expected);
        assert!(read("<Error><Code>NotImplemented</Code></Error>").is_empty());
    }
}
