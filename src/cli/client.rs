//! A small client of the HTTP API, for commands that work through a server.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use futures_util::TryStreamExt;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::{Global, endpoints};
use crate::config::{HTTP_ADDR, environment};

/// A server and a key for it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
}

impl Client {
    pub(crate) fn new(base: &str, key: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(std::time::Duration::from_secs(5))
            .build()
            .context("HTTP client")?;
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
            key: key.to_owned(),
        })
    }

    /// The server of this data directory, or the one that was named.
    pub(crate) fn find(
        global: &Global,
        server: Option<&str>,
        api_key: Option<&str>,
    ) -> anyhow::Result<Self> {
        let data_dir = global.data_dir();
        let local = endpoints::read(&data_dir).and_then(|endpoints| endpoints.http_url);
        let key = api_key
            .map(str::to_owned)
            .or_else(|| environment("BULLWARK_API_KEY").filter(|key| !key.is_empty()))
            .or_else(|| endpoints::read_api_key(&data_dir));
        let address = environment("BULLWARK_HTTP_ADDR").unwrap_or_else(|| HTTP_ADDR.to_owned());
        let server = server
            .map(str::to_owned)
            .or(local)
            .unwrap_or_else(|| format!("http://{address}"));
        let Some(key) = key else {
            bail!(
                "no API key is known: start `bullwark dev` here, or give --api-key or \
                 BULLWARK_API_KEY for {server}"
            );
        };
        Self::new(&server, &key)
    }

    /// Sends a file to the upload area; returns its `upload://` address.
    pub(crate) async fn upload(&self, path: &Path) -> anyhow::Result<String> {
        let file = tokio::fs::File::open(path)
            .await
            .with_context(|| format!("open {}", path.display()))?;
        let bytes = file.metadata().await?.len();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let url = reqwest::Url::parse_with_params(
            &format!("{}/api/uploads", self.base),
            &[("filename", name.unwrap_or_default())],
        )?;
        let request = self
            .http
            .post(url)
            .header("content-length", bytes)
            .header("content-type", "application/octet-stream")
            .body(reqwest::Body::wrap_stream(ReaderStream::new(file)));
        let answer = self.send(request, "upload").await?;
        let url = answer.pointer("/upload/url").and_then(Value::as_str);
        Ok(url
            .ok_or_else(|| anyhow!("upload: the server's answer has no address"))?
            .to_owned())
    }

    /// Enqueues one job; returns its row.
    pub(crate) async fn enqueue(&self, body: &Value) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}/api/jobs", self.base)).json(body);
        let mut answer = self.send(request, "enqueue").await?;
        Ok(answer["job"].take())
    }

    /// The row of a job.
    pub(crate) async fn job(&self, id: Uuid) -> anyhow::Result<Value> {
        let request = self.http.get(format!("{}/api/jobs/{id}", self.base));
        let mut answer = self.send(request, "look at the job").await?;
        Ok(answer["job"].take())
    }

    /// The connections of the workspace.
    pub(crate) async fn connections(&self) -> anyhow::Result<Vec<Value>> {
        let request = self.http.get(format!("{}/api/connections", self.base));
        let mut answer = self.send(request, "look at connections").await?;
        Ok(match answer["connections"].take() {
            Value::Array(all) => all,
            _ => Vec::new(),
        })
    }

    /// Makes a connection.
    pub(crate) async fn connect(&self, wish: &Value) -> anyhow::Result<()> {
        let url = format!("{}/api/connections", self.base);
        self.send(self.http.post(url).json(wish), "make a connection")
            .await?;
        Ok(())
    }

    /// Removes a connection.
    pub(crate) async fn disconnect(&self, id: &str) -> anyhow::Result<()> {
        let url = format!("{}/api/connections/{id}", self.base);
        self.send(self.http.delete(url), "remove a connection")
            .await?;
        Ok(())
    }

    /// Where the error report of an import can be fetched.
    pub(crate) fn report_url(&self, id: Uuid) -> String {
        format!("{}/api/jobs/{id}/report", self.base)
    }

    /// Saves the error report of an import.
    pub(crate) async fn save_report(&self, id: Uuid, path: &Path) -> anyhow::Result<()> {
        let answer = self.fetch(&self.report_url(id), "error report").await?;
        save(answer, path).await.context("save the error report")
    }

    /// Asks for an export; returns its row.
    pub(crate) async fn export(&self, body: &Value) -> anyhow::Result<Value> {
        let url = format!("{}/api/exports", self.base);
        let mut answer = self.send(self.http.post(url).json(body), "export").await?;
        Ok(answer["export"].take())
    }

    /// Saves the file of an export.
    pub(crate) async fn save_export(&self, id: Uuid, path: &Path) -> anyhow::Result<()> {
        let answer = self.fetch(&self.export_url(id), "export").await?;
        save(answer, path).await.context("save the export")
    }

    /// Writes the file of an export to the standard output.
    pub(crate) async fn print_export(&self, id: Uuid) -> anyhow::Result<()> {
        let answer = self.fetch(&self.export_url(id), "export").await?;
        copy(answer, tokio::io::stdout())
            .await
            .context("print the export")?;
        Ok(())
    }

    fn export_url(&self, id: Uuid) -> String {
        format!("{}/api/exports/{id}/file", self.base)
    }

    async fn fetch(&self, url: &str, doing: &str) -> anyhow::Result<Response> {
        let answer = self.http.get(url).bearer_auth(&self.key).send().await;
        let answer = answer.with_context(|| format!("{doing}: no answer from {}", self.base))?;
        if !answer.status().is_success() {
            read(answer, doing).await?;
            bail!("{doing}: the server's answer is no file");
        }
        Ok(answer)
    }

    async fn send(&self, request: RequestBuilder, doing: &str) -> anyhow::Result<Value> {
        let answer = request
            .bearer_auth(&self.key)
            .send()
            .await
            .with_context(|| format!("{doing}: no answer from {}", self.base))?;
        read(answer, doing).await
    }
}

/// Saves a file; a download that breaks off leaves what was there before, and so does one that
/// begins: it goes to a name that nobody has.
async fn save(answer: Response, path: &Path) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", Uuid::new_v4()));
    let part = path.with_file_name(name);
    let file = tokio::fs::File::create_new(&part)
        .await
        .with_context(|| format!("create {}", part.display()))?;
    let saved = async {
        copy(answer, file).await?.sync_all().await?;
        tokio::fs::rename(&part, path).await
    };
    if let Err(error) = saved.await {
        // Nothing to do about a second error.
        tokio::fs::remove_file(&part).await.ok();
        return Err(error.into());
    }
    Ok(())
}

async fn copy<W: AsyncWrite + Unpin>(answer: Response, mut to: W) -> std::io::Result<W> {
    let stream = answer.bytes_stream().map_err(std::io::Error::other);
    let mut reader = tokio_util::io::StreamReader::new(stream);
    tokio::io::copy(&mut reader, &mut to).await?;
    to.flush().await?;
    Ok(to)
}

/// The JSON of an answer, or the problem that the server describes.
async fn read(answer: Response, doing: &str) -> anyhow::Result<Value> {
    let status = answer.status();
    let text = answer
        .text()
        .await
        .with_context(|| format!("{doing}: read the answer"))?;
    let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    if status.is_success() {
        return Ok(value);
    }
    if status == StatusCode::UNAUTHORIZED {
        bail!("{doing}: the server does not know this API key");
    }
    let detail = value["detail"].as_str().unwrap_or(text.trim());
    let mut lines = vec![format!("{doing}: {detail} ({status})")];
    for error in value["errors"].as_array().into_iter().flatten() {
        let part = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        lines.push(format!("  {}: {}", part("pointer"), part("message")));
    }
    bail!("{}", lines.join("\n"))
}
