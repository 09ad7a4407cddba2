//! A small client of the HTTP API, for commands that work through a server.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio_util::io::ReaderStream;
use uuid::Uuid;

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

    /// Where the error report of an import can be fetched.
    pub(crate) fn report_url(&self, id: Uuid) -> String {
        format!("{}/api/jobs/{id}/report", self.base)
    }

    /// Saves the error report of an import.
    pub(crate) async fn save_report(&self, id: Uuid, path: &Path) -> anyhow::Result<()> {
        use futures_util::TryStreamExt;
        let answer = self
            .http
            .get(self.report_url(id))
            .bearer_auth(&self.key)
            .send()
            .await;
        let answer = answer
            .context("fetch the error report")?
            .error_for_status()?;
        let stream = answer.bytes_stream().map_err(std::io::Error::other);
        let mut reader = tokio_util::io::StreamReader::new(stream);
        let mut file = tokio::fs::File::create(path)
            .await
            .with_context(|| format!("create {}", path.display()))?;
        tokio::io::copy(&mut reader, &mut file)
            .await
            .context("save the error report")?;
        file.sync_all().await?;
        Ok(())
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
