//! Secrets: in payloads they are shown to admins only, and in the log to nobody.

use std::process::Stdio;
use std::time::Duration;

use bullwark::http::HttpOptions;
use bullwark::job::JobRequest;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::http::{server, server_with};
use crate::support::own_stores;
use crate::support::server::{Answer, KEY, Server, send};
use crate::support::sse::EventStream;
use crate::worker::rig::eventually;

/// A key that may do this only.
async fn key(server: &Server, scopes: Value) -> String {
    let wish = json!({ "name": "some", "scopes": scopes });
    let made = server.post("/api/api-keys", wish).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.body["key"].as_str().unwrap().to_owned()
}

async fn get(server: &Server, key: &str, path: &str) -> Answer {
    send(server.anonymous(Method::GET, path).bearer_auth(key)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_in_payloads_are_shown_to_admins_only() {
    let (_sandbox, server) = server().await;
    let member = key(&server, json!(["read", "write"])).await;
    let payload = json!({ "to": "Ada", "smtp": { "user": "u", "password": "hush" } });
    let shown = json!({ "to": "Ada", "smtp": { "user": "u", "password": "[redacted]" } });
    let post = async || {
        let request = server
            .anonymous(Method::POST, "/api/jobs")
            .bearer_auth(&member);
        let request = request.header("idempotency-key", "once");
        send(request.json(&json!({ "jobType": "noop", "payload": payload }))).await
    };
    let (made, again) = (post().await, post().await);
    assert_eq!((made.status, again.status), (201, 200));
    assert_eq!(made.body["job"]["payload"], shown);
    assert_eq!(
        again.body["job"]["payload"], shown,
        "it may be somebody else's job"
    );

    let job = made.header("location");
    let list = "/api/jobs?include=payload";
    assert_eq!(
        get(&server, &member, job).await.body["job"]["payload"],
        shown
    );
    assert_eq!(
        get(&server, &member, list).await.body["jobs"][0]["payload"],
        shown
    );
    assert_eq!(server.get(job).await.body["job"]["payload"], payload);
    assert_eq!(server.get(list).await.body["jobs"][0]["payload"], payload);

    // Nor is it told by what is found.
    let guess = "/api/jobs?payload.smtp.password=hush";
    let refused = get(&server, &member, guess).await;
    let detail = refused.problem(400, "invalid_parameter");
    assert_eq!(detail, "`payload.smtp.password` is shown to admins only");
    let action = json!({ "action": "retry", "dryRun": true,
        "filter": { "payload": { "smtp.password": "hush" } } });
    let request = server
        .anonymous(Method::POST, "/api/jobs/actions")
        .bearer_auth(&member);
    send(request.json(&action))
        .await
        .problem(400, "invalid_parameter");
    assert_eq!(
        server.get(guess).await.body["jobs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let harmless = get(&server, &member, "/api/jobs?payload.smtp.user=u").await;
    assert_eq!(harmless.body["jobs"].as_array().unwrap().len(), 1);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_for_a_text_does_not_tell_what_is_hidden() {
    let (_sandbox, server) = server().await;
    let member = key(&server, json!(["read", "write"])).await;
    let payload = json!({
        "to": "Ada", "list": [{ "API-Key": "Hush", "note": "calm" }], "jwt": true,
        "smtp": { "secret": { "deep": "quiet" } }, "100%_sure": "yes",
    });
    let body = json!({ "jobType": "noop", "payload": payload, "delayMs": 3_600_000 });
    assert_eq!(server.post("/api/jobs", body).await.status, 201);
    let found = async |key: &str, text: &str| {
        let answer = get(&server, key, &format!("/api/jobs?q={text}")).await;
        answer.body["jobs"].as_array().unwrap().len()
    };
    for text in ["hush", "quiet", "%22deep%22"] {
        assert_eq!(
            (found(KEY, text).await, found(&member, text).await),
            (1, 0),
            "{text}"
        );
    }
    for text in ["ada", "CALM", "API-Key", "true", "100%25_sure"] {
        assert_eq!(found(&member, text).await, 1, "{text}");
        assert_eq!(found(KEY, text).await, 1, "{text}");
    }

    // Nor what is done to all that match, nor what others have looked for.
    let act = async |key: &str, filter: Value| {
        let request = server.anonymous(Method::POST, "/api/jobs/actions");
        let wish = json!({ "action": "promote", "filter": filter });
        send(request.bearer_auth(key).json(&wish)).await
    };
    let ended = async |action: &Answer| {
        let path = action.header("location").to_owned();
        eventually("the end of an action", async || {
            let action = server.get(&path).await.body["action"].clone();
            (action["state"] != "running").then_some(action)
        })
        .await
    };
    let guess = act(&member, json!({ "q": "quiet" })).await;
    assert_eq!(guess.status, 202, "{guess:?}");
    let guessed = ended(&guess).await;
    assert_eq!(
        (&guessed["matched"], &guessed["filter"]),
        (&json!(0), &json!({ "q": "quiet" }))
    );
    let filter = json!({ "q": "quiet", "payload": { "list.0.API-Key": "Hush", "to": "Ada" } });
    let admins = act(KEY, filter.clone()).await;
    let path = admins.header("location").to_owned();
    let done = ended(&admins).await;
    assert_eq!((&done["matched"], &done["filter"]), (&json!(1), &filter));
    let shown = json!({ "q": "[redacted]",
        "payload": { "list.0.API-Key": "[redacted]", "to": "Ada" } });
    assert_eq!(
        get(&server, &member, &path).await.body["action"]["filter"],
        shown
    );
    let all = get(&server, &member, "/api/jobs/actions").await.body;
    assert_eq!(all["actions"][0]["filter"], shown);
    assert_eq!(
        all["actions"][1]["filter"],
        json!({ "q": "quiet" }),
        "its own guess"
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_hidden_wherever_a_payload_or_progress_is_shown() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let member = key(&server, json!(["read"])).await;
    let smtp = json!({ "user": "u", "password": "hush" });
    let request = json!({ "jobType": "noop", "payload": { "smtp": smtp }, "delayMs": 3_600_000 });
    let made = server.post("/api/jobs", request).await;
    let job = made.header("location");
    sqlx::query("UPDATE jobs SET progress = '{\"step\": 1, \"token\": \"hush\"}'")
        .execute(&pool)
        .await
        .unwrap();

    // A whole object that is guessed right is not found.
    let path = format!("/api/jobs?payload.smtp={smtp}").replace('"', "%22");
    let found = get(&server, &member, &path).await;
    assert_eq!(found.body["jobs"], json!([]), "{found:?}");

    let hidden = json!({ "step": 1, "token": "[redacted]" });
    for path in [format!("{job}/events"), "/api/events".to_owned()] {
        let request = server.anonymous(Method::GET, &path).bearer_auth(&member);
        let snapshot = EventStream::open(request).await.until("snapshot").await;
        let text = snapshot.data.to_string();
        assert!(
            text.contains("\"step\":1") && !text.contains("hush"),
            "{path}: {text}"
        );
        assert!(
            text.contains(&hidden["token"].to_string()),
            "{path}: {text}"
        );
    }

    let schedule = "/api/schedules/mails/nightly";
    let wish =
        json!({ "everyMs": 60_000, "job": { "jobType": "noop", "payload": { "smtp": smtp } } });
    let put = server.request(Method::PUT, schedule).json(&wish);
    assert_eq!(send(put).await.status, 201);
    let payload = async |key: &str| {
        let answer = get(&server, key, schedule).await;
        answer.body["schedule"]["job"]["payload"].clone()
    };
    assert_eq!(payload(KEY).await["smtp"], smtp);
    let shown = json!({ "user": "u", "password": "[redacted]" });
    assert_eq!(payload(&member).await["smtp"], shown);
    pool.close().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_says_what_is_a_secret() {
    let (_sandbox, server) = server_with(HttpOptions {
        redacted: Some(vec!["iban".to_owned()]),
        ..HttpOptions::default()
    })
    .await;
    let reader = key(&server, json!(["read"])).await;
    let mut request = JobRequest::new("noop", json!({ "iban": "DE0", "password": "p" }));
    request.workspace_id = Some(DEFAULT_WORKSPACE);
    let job = server.app.enqueue.enqueue(request).await.unwrap();
    let answer = get(&server, &reader, &format!("/api/jobs/{}", job.id)).await;
    let shown = json!({ "iban": "[redacted]", "password": "p" });
    assert_eq!(answer.body["job"]["payload"], shown);
    server.end().await;
}

/// With a password before the host.
fn with_password(url: &str, user: &str, password: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{user}:{password}@{host}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_server_holds_no_secret() {
    let stores = own_stores().await;
    let client = redis::Client::open(stores.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut protect = redis::cmd("CONFIG");
    protect.arg("SET").arg("requirepass").arg("hush-of-redis");
    protect.query_async::<()>(&mut redis).await.unwrap();
    let redis_url = with_password(&stores.redis_url, "default", "hush-of-redis");
    let database_url = with_password(&stores.database_url, "bullwark", "hush-of-postgres");
    let data_dir = TempDir::new().unwrap();
    let command = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bullwark"));
        command
            .args(args)
            .env("BULLWARK_DATABASE_URL", &database_url)
            .env("BULLWARK_REDIS_URL", &redis_url)
            .env("BULLWARK_DATA_DIR", data_dir.path())
            .env("BULLWARK_API_KEY", "hush-of-the-api-key")
            .env(
                "BULLWARK_JWT_SECRET",
                "hush-of-tokens, of thirty-two bytes or more",
            )
            .env("BULLWARK_LOG", "debug")
            .kill_on_drop(true)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let migrated = command(&["migrate"]).output().await.unwrap();
    assert!(migrated.status.success(), "{migrated:?}");

    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    drop(port);
    // Into a file: nobody reads a pipe before the end, and a full one would stop the server.
    let log = data_dir.path().join("log");
    let mut serving = command(&["serve", "--diagnostics", "--http-addr", &address]);
    serving.stderr(std::fs::File::create(&log).unwrap());
    let serving = serving.spawn().unwrap();
    let pid = Pid::from_raw(serving.id().unwrap().try_into().unwrap());
    let client = reqwest::Client::new();
    let url = |path: &str| format!("http://{address}{path}");
    let client = &client;
    eventually("the server answers", async || {
        client.get(url("/healthz")).send().await.ok()
    })
    .await;
    let call = async |key: &str, method: Method, path: &str, body: Value| {
        let request = client.request(method, url(path)).bearer_auth(key);
        let request = request.timeout(Duration::from_secs(30)).json(&body);
        Answer::of(request.send().await.unwrap()).await
    };
    let good = "hush-of-the-api-key";
    let payload = json!({ "password": "hush-of-the-payload" });
    let job = json!({ "jobType": "noop", "payload": payload, "idempotencyKey": "hush-key" });
    let made = call(good, Method::POST, "/api/jobs", job.clone()).await;
    // 202 while it still looks at what Redis remembers.
    assert!(matches!(made.status, 201 | 202), "{made:?}");
    let wrong = json!({ "jobType": "sleep", "payload": { "ms": "hush-of-a-mistake" } });
    assert_eq!(
        call(good, Method::POST, "/api/jobs", wrong).await.status,
        422
    );
    let wish = json!({ "name": "new", "scopes": ["read"] });
    let new = call(good, Method::POST, "/api/api-keys", wish).await;
    let new = new.body["key"].as_str().unwrap().to_owned();
    assert_eq!(
        call(&new, Method::GET, "/api/jobs", json!({})).await.status,
        200
    );
    for bad in ["hush-wrong-key", "eyJhbGciOiJIUzI1NiJ9.e30.hush_signature"] {
        let path = "/api/jobs?q=hush-of-a-search";
        assert_eq!(call(bad, Method::GET, path, json!({})).await.status, 401);
    }

    let id = made.body["job"]["id"].as_str().unwrap();
    let reports = data_dir.path().join("reports");
    std::fs::create_dir_all(&reports).unwrap();
    std::fs::write(reports.join(format!("{id}.csv")), "row").unwrap();
    let links = format!("/api/jobs/{id}/report/links");
    let link = call(good, Method::POST, &links, json!({})).await.body;
    let link = link["url"].as_str().unwrap().to_owned();
    let token = link.rsplit_once('/').unwrap().1;
    for (path, status) in [
        (link.as_str(), 200),
        ("/api/downloads/hush-of-a-link", 404),
        ("/api/downloads/hush-of-a-link/more", 404),
    ] {
        let answer = client.get(url(path)).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }

    kill(pid, Signal::SIGTERM).unwrap();
    let ended = serving.wait_with_output().await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let log = std::fs::read(&log).unwrap();
    for output in [&migrated.stderr, &ended.stdout, &log] {
        let text = String::from_utf8_lossy(output);
        let line = |secret: &str| {
            let found = text.lines().find(|line| line.contains(secret));
            assert_eq!(found, None, "{secret}");
        };
        line("hush");
        line(&new[8..]);
        line(token);
    }
    let log = String::from_utf8_lossy(&log);
    assert!(
        log.contains("\"answered\""),
        "it was a log of requests: {log}"
    );
    stores.stop().await.unwrap();
}
