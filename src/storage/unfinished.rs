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

use super::round::{Mark, Portion};
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
    /// Sendings below a directory that have not come to their end, behind this one; at most so
    /// many, and not more than a thousand.
    pub(crate) async fn unfinished(
        &self,
        dir: &str,
        after: Option<&Mark>,
        max: usize,
    ) -> Result<Portion<Abandoned, Mark>, StorageError> {
        let max = max.min(LIST_MAX);
        let prefix = format!("{}/", self.path(dir));
        let mut query = vec![
            ("uploads".to_owned(), String::new()),
            ("max-uploads".to_owned(), max.to_string()),
            ("prefix".to_owned(), prefix),
        ];
        if let Some(Mark { key, id }) = after {
            query.push(("key-marker".to_owned(), key.clone()));
            query.push(("upload-id-marker".to_owned(), id.clone()));
        }
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
        let (entries, next) = read(&text);
        let ours = entries.into_iter().take(LIST_MAX).filter_map(|found| {
            let key = self.key(&found.key)?.to_owned();
            Some(Abandoned { key, ..found })
        });
        let found = ours.collect();
        Ok(Portion { found, next })
    }

    /// Where a list goes on behind this one.
    pub(crate) fn mark(&self, abandoned: &Abandoned) -> Mark {
        Mark {
            key: self.path(&abandoned.key).to_string(),
            id: abandoned.id.clone(),
        }
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

/// The entries of a `ListMultipartUploadsResult`, and where it goes on. Names of ours and ids have
/// no letters that XML would write in another way; what does not look like an entry is passed over.
fn read(text: &str) -> (Vec<Abandoned>, Option<Mark>) {
    let entries = text.split("<Upload>").skip(1);
    let entry = |text: &str| {
        let text = text.split("</Upload>").next()?;
        Some(Abandoned {
            key: inner(text, "Key")?,
            begun: DateTime::parse_from_rfc3339(&inner(text, "Initiated")?)
                .ok()?
                .to_utc(),
            id: inner(text, "UploadId")?,
        })
    };
    let is_cut = inner(text, "IsTruncated").is_some_and(|is_cut| is_cut == "true");
    let next = || {
        Some(Mark {
            key: inner(text, "NextKeyMarker").filter(|key| !key.is_empty())?,
            id: inner(text, "NextUploadIdMarker").unwrap_or_default(),
        })
    };
    let next = if is_cut { next() } else { None };
    (entries.filter_map(entry).collect(), next)
}

fn inner(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner.trim().to_owned())
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
        let (found, next) = read(text);
        assert_eq!(next, None);
        let found: Vec<_> = found
            .into_iter()
            .map(|found| (found.key, found.id, found.begun.timestamp()))
            .collect();
        let expected = [
            ("p/exports/a.1.csv", "one", 1_795_812_513),
            ("q", "two==", 1_795_812_514),
        ];
        let expected = expected.map(|(key, id, at)| (key.to_owned(), id.to_owned(), at));
        assert_eq!(found, expected);
        let nothing = (Vec::new(), None);
        let error = "<Error><Code>NotImplemented</Code></Error>";
        assert_eq!(read(error), nothing);
        let cut = "<x><NextKeyMarker>p/k</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker>\
            <IsTruncated>true</IsTruncated></x>";
        let [key, id] = ["p/k", "i"].map(str::to_owned);
        assert_eq!(read(cut).1, Some(Mark { key, id }));
        assert_eq!(read(&cut.replace("true", "false")), nothing);
    }
}
