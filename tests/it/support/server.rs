//! The HTTP server of a test, in this process, and a client for it.

use std::time::Duration;

use bullwark::app::App;
use bullwark::config::{Config, Given};
use bullwark::handlers::import_csv::SourceOptions;
use bullwark::handlers::{self, BuiltinOptions};
use bullwark::http::{HttpOptions, serve};
use bullwark::record::api_keys;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::tasks::Tasks;
use bullwark::worker::Handlers;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A key of the default workspace.
pub(crate) const KEY: &str = "key-of-the-default-workspace";
/// A key of [`OTHER_WORKSPACE`].
pub(crate) const OTHER_KEY: &str = "key-of-another-workspace";
pub(crate) const OTHER_WORKSPACE: Uuid = Uuid::from_u128(0x7000_8000_0000_0000_0002);

pub(crate) struct Server {
    pub(crate) app: App,
    pub(crate) data_dir: TempDir,
    pub(crate) address: String,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: Tasks,
    client: reqwest::Client,
}

fn builtin(config: &Config) -> Handlers {
    let source = SourceOptions {
        allow_private_addresses: config.allows_private_addresses,
        storage: config.files().unwrap(),
        ..SourceOptions::new(&config.data_dir)
    };
    handlers::builtin(&BuiltinOptions {
        public_url: config.public_url.clone(),
        dns_servers: config.dns_servers.clone(),
        provider_patience: config.provider_patience,
        smtp_probe: config.smtp_probe.clone(),
        has_diagnostics: true,
        ..BuiltinOptions::new(source)
    })
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self {
            status,
            headers,
            body,
        }
    }

    /// Asserts that this is a problem document with this status and code, and gives its detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> &str {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["code"], code, "{self:?}");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["request_id"], self.header("x-request-id"));
        self.body["detail"].as_str().unwrap()
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

impl Server {
    pub(crate) async fn start(database_url: &str, redis_url: &str, prefix: &str) -> Self {
        Self::start_with(database_url, redis_url, prefix, HttpOptions::default()).await
    }

    pub(crate) async fn start_with(
        database_url: &str,
        redis_url: &str,
        prefix: &str,
        options: HttpOptions,
    ) -> Self {
        Self::start_as(database_url, redis_url, prefix, options, |_| None).await
    }

    /// The same, with settings from an environment.
    pub(crate) async fn start_as(
        database_url: &str,
        redis_url: &str,
        prefix: &str,
        options: HttpOptions,
        read: impl Fn(&str) -> Option<String>,
    ) -> Self {
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let data_dir = tempfile::tempdir().unwrap();
        let given = Given {
            database_url: Some(database_url.to_owned()),
            redis_url: Some(redis_url.to_owned()),
            prefix: Some(prefix.to_owned()),
            data_dir: Some(data_dir.path().to_owned()),
            has_diagnostics: true,
            ..Given::default()
        };
        let config = Config::settle(given, read, |_| None).unwrap();
        let app = App::connect(config.clone(), builtin(&config))
            .await
            .unwrap();
        let record = &app.record;
        make_other_workspace(database_url).await;
        for (key, workspace) in [(KEY, DEFAULT_WORKSPACE), (OTHER_KEY, OTHER_WORKSPACE)] {
            api_keys::ensure(record, key, workspace, "test")
                .await
                .unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, tasks) = (CancellationToken::new(), Tasks::new());
        let serving = serve(app.services(), options, listener, stop.clone());
        tasks.spawn("http server", async move { serving.await.unwrap() });
        Self {
            app,
            data_dir,
            address,
            stop,
            tasks,
            client: reqwest::Client::builder()
                .timeout(Duration::from_secs(60))
                .build()
                .unwrap(),
        }
    }

    /// A request with no key.
    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.client.request(method, url)
    }

    /// A request of the default workspace.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(KEY)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::POST, path).json(&body)).await
    }

    /// Ends in the order of a process: the server, then what was accepted, then the stores.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.tasks.drained().await;
        self.app.close().await;
    }
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    Answer::of(request.send().await.unwrap()).await
}

async fn make_other_workspace(database_url: &str) {
    let mut connection = PgConnection::connect(database_url).await.unwrap();
    sqlx::query("INSERT INTO workspaces (id, name) VALUES ($1, 'Other') ON CONFLICT DO NOTHING")
        .bind(OTHER_WORKSPACE)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}
