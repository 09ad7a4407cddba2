//! Schemathesis asks every route of the HTTP API, by its document, what people forget to ask: each
//! answer must be one that the document has, and none may be an error of the server.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bullwark::http::{self, HttpOptions, Services};
use bullwark::job::JobRequest;
use bullwark::record::access::By;
use bullwark::record::api_keys;
use bullwark::record::webhooks::{self, NewWebhook};
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::sealed::Sealer;
use bullwark::storage::Storage;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::driver::{clients, sources};
use crate::stage::Stage;
use crate::wait::within_limit;

const KEY: &str = "key-of-the-default-workspace";
/// Cases of each operation in each phase that makes them up.
const CASES: &str = "15";
/// A machine with nothing else to do needs a minute.
const LIMIT: Duration = Duration::from_secs(480);
/// An address that may be called, though nobody does here.
const URL: &str = "https://example.com/hooks";
/// Jobs that routes are asked about.
const JOBS: usize = 40;

fn document() -> Value {
    serde_json::from_str(&http::openapi()).unwrap()
}

/// Runs a program of its environment, and gives what it said when it fails.
async fn run(program: &str, directory: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(clients().join("schemathesis/bin").join(program));
    command
        .current_dir(directory)
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = within_limit(LIMIT, program, command.output())
        .await
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_openapi() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("openapi.json");
    std::fs::write(&file, http::openapi()).unwrap();
    let check = async || {
        let schema = ["--schema", "3.1.0", "openapi.json"];
        run("openapi-spec-validator", directory.path(), &schema).await
    };
    check().await.unwrap();

    let mut broken = document();
    broken["paths"]["/api/jobs"]["get"]["responses"] = json!([]);
    std::fs::write(&file, broken.to_string()).unwrap();
    check().await.unwrap_err();
}

/// Every schema below this one.
fn each_schema(value: &mut Value, change: &mut impl FnMut(&mut Value)) {
    match value {
        Value::Object(members) => members.values_mut().for_each(|v| each_schema(v, change)),
        Value::Array(items) => items.iter_mut().for_each(|item| each_schema(item, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return,
    }
    change(value);
}

/// The document, stricter than for clients: answers have no members that it does not name, and no
/// status that it does not name. Requests ask for what there is, so that they get far: for jobs
/// that exist, and for a type that takes whatever payload.
fn narrowed(jobs: &[String], webhook: Uuid) -> Value {
    let mut document = document();
    let schemas = document["components"]["schemas"].as_object_mut().unwrap();
    schemas["NewJob"]["properties"]["jobType"] = json!({ "type": "string", "enum": ["noop"] });
    for name in ["NewWebhook", "WebhookChange"] {
        schemas[name]["properties"]["url"]["enum"] = json!([URL]);
    }
    let mut parts = Vec::new();
    for schema in schemas.values_mut() {
        each_schema(schema, &mut |part| {
            if let Some(all) = part.get_mut("allOf").and_then(Value::as_array_mut) {
                // Parts of a whole do not know each other: the whole is closed instead.
                for part in all {
                    parts.extend(part.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    part.as_object_mut()
                        .unwrap()
                        .remove("unevaluatedProperties");
                }
                part["unevaluatedProperties"] = json!(false);
            } else if part.get("properties").is_some_and(Value::is_object)
                && part.get("additionalProperties").is_none()
            {
                part["unevaluatedProperties"] = json!(false);
            }
        });
    }
    for part in parts {
        let name = part.strip_prefix("#/components/schemas/").unwrap();
        schemas[name]
            .as_object_mut()
            .unwrap()
            .remove("unevaluatedProperties");
    }
    // A stream has no end to wait for; it has tests of its own.
    let is_stream = |item: &Value| {
        let content = &item["get"]["responses"]["200"]["content"];
        !content["text/event-stream"].is_null()
    };
    let paths = document["paths"].as_object_mut().unwrap();
    let before = paths.len();
    paths.retain(|_, item| !is_stream(item));
    assert_eq!(before - paths.len(), 2, "streams");
    for (path, item) in paths {
        for operation in item.as_object_mut().unwrap().values_mut() {
            let answers = operation["responses"].as_object_mut().unwrap();
            answers.remove("default").unwrap();
            let parameters = operation.get_mut("parameters");
            let Some(parameters) = parameters.and_then(Value::as_array_mut) else {
                continue;
            };
            // Any other one is forbidden, and nothing else would be seen.
            parameters.retain(|parameter| parameter["name"] != "X-Workspace-Id");
            for parameter in parameters {
                if parameter["name"] == "id" && path.starts_with("/api/jobs/") {
                    parameter["schema"]["enum"] = json!(jobs);
                }
                if parameter["name"] == "id" && path.starts_with("/api/webhooks/") {
                    parameter["schema"]["enum"] = json!([webhook]);
                }
            }
        }
    }
    document
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_as_the_document_says() {
    let stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let record = &stage.app.record;
    api_keys::ensure(record, KEY, DEFAULT_WORKSPACE, "test")
        .await
        .unwrap();
    let services = Services {
        storage: Storage::local(directory.path()),
        sealer: Sealer::new(None, directory.path()),
        ..stage.app.services()
    };
    let webhook = NewWebhook {
        id: Uuid::now_v7(),
        workspace_id: DEFAULT_WORKSPACE,
        url: URL.to_owned(),
        description: String::new(),
        events: vec!["job.failed".to_owned()],
        job_types: None,
        sealed_secret: "sealed".to_owned(),
        created_by: None,
    };
    webhooks::create(record, &webhook, &By::OPERATOR)
        .await
        .unwrap();
    let mut jobs = Vec::new();
    for nth in 0..JOBS {
        let mut request = JobRequest::new("noop", json!({ "nth": nth }));
        request.workspace_id = Some(DEFAULT_WORKSPACE);
        let accepted = services.enqueue.enqueue(request).await.unwrap();
        jobs.push(accepted.id.to_string());
    }
    let narrowed = narrowed(&jobs, webhook.id).to_string();
    std::fs::write(directory.path().join("openapi.json"), narrowed).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let serving = http::serve(services, HttpOptions::default(), listener, stop.clone());
    let server = tokio::spawn(serving);
    let config = sources().join("schemathesis/schemathesis.toml");
    let config = config.to_str().unwrap();
    let key = format!("Authorization: Bearer {KEY}");
    let asked = run(
        "schemathesis",
        directory.path(),
        &[
            "--config-file",
            config,
            "--no-color",
            "run",
            "openapi.json",
            "--url",
            &url,
            "--header",
            &key,
            "--checks",
            "all",
            "--max-examples",
            CASES,
            "--workers",
            "1",
            "--continue-on-failure",
            // The same cases each time: what fails here fails again.
            "--generation-deterministic",
        ],
    )
    .await;
    stop.cancel();
    server.await.unwrap().unwrap();
    if let Err(said) = asked {
        panic!("{said}");
    }
}
