//! A bucket: objects looked at, read in pieces, listed and removed.
//!
//! A large object is read piece by piece, each with a request of its own that insists on the same
//! object: a slow reader holds no connection to the storage, a broken one costs one piece, and no
//! reader gets the beginning of one object and the end of another.

use std::io;
use std::ops::Range;
use std::path::Path as File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::round::Portion;
use super::{StorageError, StorageOptions};

/// Bytes of a piece that is read at once.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;
/// How long a request may take: a part of eight megabytes over a slow line.
const TIMEOUT: Duration = Duration::from_secs(120);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Jobs are tried again anyway; this is for a packet that was lost.
const RETRIES: usize = 3;
const RETRIES_WITHIN: Duration = Duration::from_secs(20);
/// How long a look at the storage may take.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// The objects of a bucket. Clones share their connections.
#[derive(Clone)]
pub struct Objects {
    pub(super) store: Arc<AmazonS3>,
    pub(super) bucket: String,
    prefix: String,
    pub(super) client: reqwest::Client,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = format!("s3://{}/{}", self.bucket, self.prefix);
        f.debug_tuple("Objects").field(&place).finish()
    }
}

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Without the prefix of the settings.
    pub key: String,
    pub bytes: u64,
    pub tag: Option<String>,
    pub modified: DateTime<Utc>,
}

impl Objects {
    /// Asks nobody yet.
    pub(super) fn open(options: &StorageOptions) -> Result<Self, StorageError> {
        // The program installs it first thing; other users of the library may not have.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let failed = |error: object_store::Error| StorageError::of(error, &options.bucket, "");
        let client = ClientOptions::new()
            .with_timeout(TIMEOUT)
            .with_connect_timeout(CONNECT_TIMEOUT)
            // The settings say where it may be.
            .with_allow_http(true);
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(3),
                base: 2.0,
            },
            max_retries: RETRIES,
            retry_timeout: RETRIES_WITHIN,
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&options.bucket)
            .with_region(&options.region)
            .with_client_options(client)
            .with_retry(retry)
            // Many servers do not take the other way.
            .with_disable_bulk_delete(true)
            .with_virtual_hosted_style_request(
                options.endpoint.is_none() && !options.bucket.contains('.'),
            );
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some((id, secret)) = &options.key {
            builder = builder
                .with_access_key_id(id)
                .with_secret_access_key(secret.as_str());
        }
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(RETRIES_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| StorageError::Away(error.to_string()))?;
        Ok(Self {
            store: Arc::new(builder.build().map_err(failed)?),
            bucket: options.bucket.clone(),
            prefix: options.prefix.clone(),
            client,
        })
    }

    /// Where it is in the bucket.
    pub(super) fn path(&self, key: &str) -> Path {
        match self.prefix.as_str() {
            "" => Path::from(key),
            prefix => Path::from(format!("{prefix}/{key}")),
        }
    }

    /// The key of what is there; none: it belongs to somebody else.
    pub(super) fn key<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.prefix.as_str() {
            "" => Some(path),
            prefix => path.strip_prefix(prefix)?.strip_prefix('/'),
        }
    }

    pub(super) fn error(&self, error: object_store::Error, key: &str) -> StorageError {
        StorageError::of(error, &self.bucket, key)
    }

    fn object(&self, meta: ObjectMeta) -> Option<Object> {
        Some(Object {
            key: self.key(meta.location.as_ref())?.to_owned(),
            bytes: meta.size,
            tag: meta.e_tag,
            modified: meta.last_modified,
        })
    }

    /// Whether the bucket is there and may be read.
    pub async fn probe(&self) -> Result<(), StorageError> {
        let path = self.path("exports");
        let mut listed = self.store.list(Some(&path));
        match tokio::time::timeout(PROBE_PATIENCE, listed.try_next()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.error(error, "")),
            Err(_) => Err(StorageError::Away("does not answer".to_owned())),
        }
    }

    /// What is known of an object; none: there is no such object.
    pub async fn look(&self, key: &str) -> Result<Option<Object>, StorageError> {
        match self.store.head(&self.path(key)).await {
            Ok(meta) => Ok(self.object(meta)),
            Err(error) => match self.error(error, key) {
                // Asked without a body, a bucket that is not there looks the same.
                StorageError::NotFound { .. } => self.probe().await.map(|()| None),
                error => Err(error),
            },
        }
    }

    /// A small object.
    pub async fn read(&self, key: &str, bytes_max: u64) -> Result<Option<Bytes>, StorageError> {
        let Some(object) = self.look(key).await? else {
            return Ok(None);
        };
        if object.bytes > bytes_max {
            let text = format!("the object `{key}` has {} bytes", object.bytes);
            return Err(StorageError::Away(text));
        }
        self.piece(&object, 0..object.bytes).await.map(Some)
    }

    /// A part of an object, as a stream of pieces.
    pub fn stream(
        &self,
        object: Object,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, StorageError>> + Send + 'static {
        let pieces = stream::iter((range.start..range.end).step_by(PIECE_BYTES as usize));
        let objects = self.clone();
        pieces.then(move |start| {
            let (objects, object) = (objects.clone(), object.clone());
            let piece = start..range.end.min(start + PIECE_BYTES);
            async move { objects.piece(&object, piece).await }
        })
    }

    async fn piece(&self, object: &Object, range: Range<u64>) -> Result<Bytes, StorageError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let expected = range.end - range.start;
        let options = GetOptions {
            if_match: object.tag.clone(),
            range: Some(range.into()),
            ..GetOptions::default()
        };
        let failed = |error| self.error(error, &object.key);
        let got = self.store.get_opts(&self.path(&object.key), options).await;
        let bytes = got.map_err(failed)?.bytes().await.map_err(failed)?;
        if bytes.len() as u64 != expected {
            let key = object.key.clone();
            return Err(StorageError::Changed { key });
        }
        Ok(bytes)
    }

    /// Copies an object, or its first bytes, into a file of this machine; answers how many they
    /// are and their sum.
    pub async fn fetch(
        &self,
        key: &str,
        file: &File,
        bytes_max: u64,
    ) -> Result<(u64, String), StorageError> {
        let object = self.look(key).await?;
        let object = object.ok_or_else(|| StorageError::NotFound {
            key: key.to_owned(),
        })?;
        let bytes = object.bytes.min(bytes_max);
        let mut pieces = std::pin::pin!(self.stream(object, 0..bytes));
        let mut copy = tokio::fs::File::create(file).await?;
        let mut hash = Sha256::new();
        while let Some(piece) = pieces.try_next().await? {
            hash.update(&piece);
            copy.write_all(&piece).await?;
        }
        copy.flush().await?;
        Ok((bytes, crate::uploads::hex(&hash.finalize())))
    }

    /// Puts a small object in its place.
    pub async fn put(&self, key: &str, content: Vec<u8>) -> Result<(), StorageError> {
        let put = self.store.put(&self.path(key), content.into()).await;
        put.map(drop).map_err(|error| self.error(error, key))
    }

    /// Removes an object, if it is there.
    pub async fn remove(&self, key: &str) -> Result<(), StorageError> {
        match self.store.delete(&self.path(key)).await {
            Ok(()) => Ok(()),
            Err(error) => match self.error(error, key) {
                StorageError::NotFound { .. } => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Objects below a directory, in the order of their keys behind this one, at most so many.
    pub(crate) async fn list(
        &self,
        dir: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Portion<Object, String>, StorageError> {
        let path = self.path(dir);
        let listed = match after {
            None => self.store.list(Some(&path)),
            Some(key) => self.store.list_with_offset(Some(&path), &self.path(key)),
        };
        let listed: Vec<ObjectMeta> = listed
            .take(max)
            .try_collect()
            .await
            .map_err(|error| self.error(error, ""))?;
        let is_cut = listed.len() == max;
        let found: Vec<Object> = listed
            .into_iter()
            .filter_map(|meta| self.object(meta))
            .collect();
        let next = found.last().filter(|_| is_cut).map(|o| o.key.clone());
        Ok(Portion { found, next })
    }
}

/// For those who read and write as streams do.
#[cfg(feature = "server")]
pub(crate) fn as_io(
    stream: impl Stream<Item = Result<Bytes, StorageError>>,
) -> impl Stream<Item = io::Result<Bytes>> {
    stream.map_err(io::Error::from)
}
