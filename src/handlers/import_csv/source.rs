//! Brings the file of an import to this machine's disk.
//!
//! Three kinds of address: `upload://<id>` for files that came through the API, `file://` below a
//! directory that the operator has opened, and `http(s)://`. Promises: never more than the allowed
//! bytes, never longer than the allowed time. Refuses: paths and links that lead out of their
//! directory, and addresses of the own machine or network, looked at after name resolution and
//! again at every redirect, so that neither a DNS answer nor a `Location` header leads a download
//! to a metadata service.
//!
//! Query strings of addresses are secrets (signed links) and never appear in an error.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Url;
use reqwest::redirect::{Attempt, Policy};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::outbound::{Failure, GuardedResolver, check_literal, explain, retry_after};
use crate::storage::Storage;
use crate::uploads::Uploads;

/// Redirects that a download follows.
const REDIRECTS_MAX: usize = 5;
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence in the middle of a download.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// What leads somewhere, in refusals.
const WHAT: &str = "the download";

/// Where files may come from.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// Uploads and reports are there, and files under work in `work/` of its directory.
    pub storage: Storage,
    /// `file://` addresses are refused unless they are below this directory.
    pub allowed_dir: Option<PathBuf>,
    /// Lets downloads reach the own machine and private networks; for tests and closed networks.
    pub allow_private_addresses: bool,
    /// Largest file.
    pub max_bytes: u64,
    /// Longest download.
    pub timeout: Duration,
}

impl SourceOptions {
    /// 2 GB and ten minutes, no local directory, no private addresses.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            storage: Storage::local(data_dir),
            allowed_dir: None,
            allow_private_addresses: false,
            max_bytes: 2 * 1024 * 1024 * 1024,
            timeout: Duration::from_secs(600),
        }
    }
}

/// A file on this machine's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    pub path: PathBuf,
    /// The last part of the address, for display.
    pub name: Option<String>,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It will not get better.
    #[error("{0}")]
    Refused(String),
    /// It may work later, after this time if the server named one.
    #[error("{message}")]
    Unavailable {
        message: String,
        after: Option<Duration>,
    },
    #[error("the download was stopped")]
    Cancelled,
}

impl SourceError {
    fn refused(message: impl Into<String>) -> Self {
        Self::Refused(message.into())
    }

    fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable {
            message: message.into(),
            after: None,
        }
    }
}

/// Makes the file of `address` available; a download goes into `spool`, and one that is complete
/// there already is taken as it is. An upload is found only for the workspace that made it.
pub async fn open(
    address: &str,
    options: &SourceOptions,
    workspace_id: Option<Uuid>,
    spool: &Path,
    cancelled: &CancellationToken,
) -> Result<LocalFile, SourceError> {
    let address = address.trim();
    match address.split_once("://") {
        Some(("upload", id)) => tokio::select! {
            found = upload(id, options, workspace_id, spool) => found,
            () = cancelled.cancelled() => Err(SourceError::Cancelled),
        },
        Some(("file", _)) => local(address, options).await,
        Some(("http" | "https", _)) => download(address, options, spool, cancelled).await,
        Some((scheme, _)) => Err(SourceError::refused(format!(
            "file_url begins with `{scheme}://`; known are upload://, https://, http:// and file://"
        ))),
        None => Err(SourceError::refused(
            "file_url has no scheme; it looks like upload://…, https://…, http://… or file://…",
        )),
    }
}

async fn upload(
    id: &str,
    options: &SourceOptions,
    workspace_id: Option<Uuid>,
    spool: &Path,
) -> Result<LocalFile, SourceError> {
    let Ok(id) = id.parse::<Uuid>() else {
        return Err(SourceError::refused(format!(
            "`upload://{id}` is no id of an upload"
        )));
    };
    // Another workspace's upload and one that never was look the same.
    let uploads = Uploads::new(&options.storage);
    let failed = |error: io::Error| SourceError::unavailable(format!("upload {id}: {error}"));
    let found = uploads.find(id, workspace_id.unwrap_or_default()).await;
    let Some(found) = found.map_err(failed)? else {
        return Err(SourceError::refused(format!("there is no upload {id}")));
    };
    if found.upload.bytes > options.max_bytes {
        return Err(too_large(options.max_bytes));
    }
    let upload = found.upload.clone();
    let path = found.bring(spool).await.map_err(failed)?;
    check_file(&path, &format!("upload {id}"), options.max_bytes).await?;
    Ok(LocalFile {
        path,
        name: Some(upload.file_name),
    })
}

async fn local(address: &str, options: &SourceOptions) -> Result<LocalFile, SourceError> {
    let Some(allowed) = &options.allowed_dir else {
        return Err(SourceError::refused(
            "file:// addresses are not allowed on this server",
        ));
    };
    let path = Url::parse(address)
        .ok()
        .and_then(|url| url.to_file_path().ok())
        .ok_or_else(|| SourceError::refused("the file:// address is not a path on this machine"))?;
    let missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => SourceError::refused("the file of the file:// address is gone"),
        _ => SourceError::unavailable(format!("open the file: {error}")),
    };
    // Links are followed first and the result is looked at: what counts is where the bytes are.
    let real = tokio::fs::canonicalize(&path).await.map_err(missing)?;
    let allowed = tokio::fs::canonicalize(allowed).await.map_err(missing)?;
    if !real.starts_with(&allowed) {
        return Err(SourceError::refused(
            "the file is outside of the directory for imports",
        ));
    }
    check_file(&real, "the file", options.max_bytes).await?;
    let name = real
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    Ok(LocalFile { path: real, name })
}

/// A plain file of an allowed size; a link, directory or device is refused.
async fn check_file(path: &Path, what: &str, max_bytes: u64) -> Result<(), SourceError> {
    let meta = match tokio::fs::symlink_metadata(path).await {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SourceError::refused(format!(
                "{what} does not exist (any more)"
            )));
        }
        Err(error) => return Err(SourceError::unavailable(format!("open {what}: {error}"))),
    };
    if !meta.is_file() {
        return Err(SourceError::refused(format!("{what} is not a plain file")));
    }
    if meta.len() > max_bytes {
        return Err(too_large(max_bytes));
    }
    Ok(())
}

fn too_large(max_bytes: u64) -> SourceError {
    let megabytes = max_bytes / 1024 / 1024;
    SourceError::refused(format!(
        "the file is larger than {megabytes} MB ({max_bytes} bytes)"
    ))
}

async fn download(
    address: &str,
    options: &SourceOptions,
    spool: &Path,
    cancelled: &CancellationToken,
) -> Result<LocalFile, SourceError> {
    let url = Url::parse(address).map_err(|_| SourceError::refused("file_url is no valid URL"))?;
    check_literal(&url, WHAT, options.allow_private_addresses)
        .map_err(|forbidden| SourceError::refused(forbidden.0))?;
    let name = url
        .path_segments()
        .and_then(|mut parts| parts.next_back())
        .filter(|name| !name.is_empty())
        .map(|name| name.chars().filter(|c| !c.is_control()).take(255).collect());
    let path = spool.join("download");
    let disk = |error: io::Error| SourceError::unavailable(format!("store the file: {error}"));
    if !tokio::fs::try_exists(&path).await.map_err(disk)? {
        let part = spool.join("download.part");
        let transfer = transfer(url, options, &part);
        tokio::select! {
            result = transfer => result?,
            () = cancelled.cancelled() => return Err(SourceError::Cancelled),
        }
        tokio::fs::rename(&part, &path).await.map_err(disk)?;
    }
    Ok(LocalFile { path, name })
}

async fn transfer(url: Url, options: &SourceOptions, path: &Path) -> Result<(), SourceError> {
    let response = client(options)?.get(url).send().await.map_err(failed)?;
    let status = response.status();
    if !status.is_success() {
        let message = format!("the server of the file answered {status}");
        let retryable = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
        if retryable {
            return Err(SourceError::Unavailable {
                message,
                after: retry_after(response.headers()),
            });
        }
        let hint = "; the link may be wrong or expired";
        return Err(SourceError::refused(format!("{message}{hint}")));
    }
    if response
        .content_length()
        .is_some_and(|length| length > options.max_bytes)
    {
        return Err(too_large(options.max_bytes));
    }
    let disk = |error: io::Error| SourceError::unavailable(format!("store the file: {error}"));
    let mut file = tokio::fs::File::create(path).await.map_err(disk)?;
    let mut body = response.bytes_stream();
    let mut bytes = 0;
    while let Some(part) = body.next().await {
        let part = part.map_err(failed)?;
        bytes += part.len() as u64;
        // Counted after decompression, so that a small bomb does not fill the disk.
        if bytes > options.max_bytes {
            return Err(too_large(options.max_bytes));
        }
        file.write_all(&part).await.map_err(disk)?;
    }
    file.flush().await.map_err(disk)?;
    // Before it gets its name: whoever finds that, also behind a power cut, finds all of it.
    file.sync_all().await.map_err(disk)
}

fn client(options: &SourceOptions) -> Result<reqwest::Client, SourceError> {
    // The program installs it first thing; other users of the library may not have.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let allow_private = options.allow_private_addresses;
    let redirects = Policy::custom(move |attempt: Attempt<'_>| {
        if attempt.previous().len() > REDIRECTS_MAX {
            return attempt.error("too many redirects");
        }
        match check_literal(attempt.url(), WHAT, allow_private) {
            Ok(()) => attempt.follow(),
            Err(forbidden) => attempt.error(forbidden),
        }
    });
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .timeout(options.timeout)
        .redirect(redirects)
        .http1_only()
        // A proxy would resolve the name itself, behind the guard.
        .no_proxy()
        .dns_resolver(GuardedResolver { allow_private })
        .user_agent(concat!("bullwark/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| SourceError::unavailable(format!("prepare the download: {error}")))
}

/// What a failed request means. The address, with its secrets, stays out of the message.
fn failed(error: reqwest::Error) -> SourceError {
    match explain(error) {
        Failure::Forbidden(forbidden) => SourceError::refused(forbidden.0),
        Failure::Redirect(why) => SourceError::refused(format!("download the file: {why}")),
        Failure::Unavailable(why) => SourceError::unavailable(format!("download the file: {why}")),
    }
}

#[cfg(test)]
mod tests;
