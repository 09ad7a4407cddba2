//! Sessions of browsers over HTTP: what a cookie opens, for whom, from where, and until when.

use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::http::{enqueue, server, server_with};
use crate::http_tokens::{claims, signed, user, with_secret};
use crate::support::server::{Answer, KEY, OTHER_KEY, OTHER_WORKSPACE, Server, send};
use crate::worker::rig::eventually;

/// An open session, as a browser holds it.
struct Browser<'a> {
    server: &'a Server,
    cookie: String,
    csrf: String,
}

impl<'a> Browser<'a> {
    async fn open(server: &'a Server, bearer: &str) -> (Self, Answer) {
        let opening = server.anonymous(Method::POST, "/api/session");
        let answer = send(opening.bearer_auth(bearer)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let set = answer.header("set-cookie");
        assert!(set.contains("; HttpOnly; SameSite=Strict"), "{set}");
        let cookie = set.split(';').next().unwrap().to_owned();
        assert!(cookie.starts_with("bullwark_session="), "{cookie}");
        let csrf = answer.body["session"]["csrf_token"].as_str().unwrap();
        let csrf = csrf.to_owned();
        let browser = Self {
            server,
            cookie,
            csrf,
        };
        (browser, answer)
    }

    /// What a page of this server asks.
    fn asks(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.server.anonymous(method, path);
        let request = request.header("cookie", &self.cookie);
        request.header("sec-fetch-site", "same-origin")
    }

    /// What it asks to change something.
    fn changes(&self, method: Method, path: &str) -> RequestBuilder {
        self.asks(method, path).header("x-csrf-token", &self.csrf)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_stands_for_its_key_until_it_is_ended() {
    let (_sandbox, server) = server().await;
    let job = enqueue(&server).await;
    let (browser, opened) = Browser::open(&server, KEY).await;
    assert_eq!(opened.header("cache-control"), "no-store");
    let session = &opened.body["session"];
    assert_eq!(session["actor"]["kind"], "api_key");
    assert_eq!(session["permissions"], json!(["read", "write", "admin"]));

    let path = format!("/api/jobs/{job}");
    assert_eq!(send(browser.asks(Method::GET, &path)).await.status, 200);
    let shown = send(browser.asks(Method::GET, "/api/session")).await;
    assert_eq!(
        &shown.body["session"], session,
        "for a page that was loaded again"
    );
    let stopped = browser.changes(Method::PATCH, &path);
    let stopped = send(stopped.json(&json!({ "status": "cancelled" }))).await;
    assert_eq!(stopped.status, 200, "{stopped:?}");

    let ended = send(browser.changes(Method::DELETE, "/api/session")).await;
    assert_eq!(ended.status, 204);
    let forgotten = ended.header("set-cookie");
    assert!(
        forgotten.starts_with("bullwark_session=; Path=/; Max-Age=0; "),
        "{forgotten}"
    );
    let refused = send(browser.asks(Method::GET, &path)).await;
    refused.problem(401, "invalid_session");
    let audit = server.get("/api/audit").await.body["audit"].clone();
    let acts = audit.as_array().unwrap().iter();
    let acts: Vec<_> = acts
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(acts, ["session.end", "job.cancel", "session.open"]);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_changes_nothing_and_sees_nothing() {
    let (_sandbox, server) = server().await;
    let job = format!("/api/jobs/{}", enqueue(&server).await);
    let (browser, _) = Browser::open(&server, KEY).await;
    let anywhere = |method, path: &str| {
        let request = server.anonymous(method, path);
        request.header("cookie", &browser.cookie)
    };
    let cancel = json!({ "status": "cancelled" });
    // A form, a link, an image, a script: they have the cookie at most.
    for site in ["cross-site", "same-site"] {
        let asked = anywhere(Method::GET, &job).header("sec-fetch-site", site);
        send(asked).await.problem(403, "foreign_origin");
    }
    let asked = anywhere(Method::PATCH, &job).header("origin", "https://evil.example");
    let asked = send(asked.header("x-csrf-token", &browser.csrf).json(&cancel)).await;
    asked.problem(403, "foreign_origin");
    for token in ["", "AAAA", KEY] {
        let asked = browser
            .asks(Method::PATCH, &job)
            .header("x-csrf-token", token);
        let asked = send(asked.json(&cancel)).await;
        asked.problem(403, "csrf_token_required");
    }
    let (other, _) = Browser::open(&server, KEY).await;
    let asked = browser
        .asks(Method::PATCH, &job)
        .header("x-csrf-token", &other.csrf);
    send(asked.json(&cancel))
        .await
        .problem(403, "csrf_token_required");
    let upload = browser.asks(Method::POST, "/api/uploads").body("name\nA\n");
    send(upload).await.problem(403, "csrf_token_required");
    assert_eq!(server.get(&job).await.body["job"]["status"], "pending");

    // Who has a key needs no token, whatever else it sends.
    let with_key = anywhere(Method::PATCH, &job).bearer_auth(KEY).json(&cancel);
    assert_eq!(send(with_key).await.status, 200);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_the_key_or_the_membership_that_opened_it() {
    let (sandbox, server) = server_with(with_secret()).await;
    let wish = json!({ "name": "page", "scopes": ["read"] });
    let made = server.post("/api/api-keys", wish).await.body;
    let (browser, opened) = Browser::open(&server, made["key"].as_str().unwrap()).await;
    assert_eq!(opened.body["session"]["permissions"], json!(["read"]));
    let more = browser.changes(Method::POST, "/api/jobs");
    let more = send(more.json(&json!({ "jobType": "noop" }))).await;
    more.problem(403, "forbidden");
    let key = format!("/api/api-keys/{}", made["api_key"]["id"].as_str().unwrap());
    send(server.request(Method::DELETE, &key)).await;
    let refused = send(browser.asks(Method::GET, "/api/jobs")).await;
    refused.problem(401, "invalid_session");

    let pool = sandbox.pool().await;
    let memberships = [(DEFAULT_WORKSPACE, "member"), (OTHER_WORKSPACE, "admin")];
    let id = user(&pool, &memberships).await;
    let mut token = claims(id);
    token["exp"] = json!(bullwark::clock::now_ms() / 1000 + 60);
    token["workspace_id"] = json!(DEFAULT_WORKSPACE);
    let (browser, opened) = Browser::open(&server, &signed(&token)).await;
    let set = opened.header("set-cookie");
    let age = set
        .split("Max-Age=")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    assert!(
        (1..=60).contains(&age.parse::<i64>().unwrap()),
        "no longer than the token: {set}"
    );
    assert_eq!(
        opened.body["session"]["workspace_id"],
        json!(DEFAULT_WORKSPACE)
    );
    let elsewhere = browser.asks(Method::GET, "/api/session");
    let elsewhere = elsewhere.header("x-workspace-id", OTHER_WORKSPACE.to_string());
    let elsewhere = send(elsewhere).await;
    assert_eq!(
        elsewhere.body["session"]["permissions"],
        json!(["read", "write", "admin"])
    );
    for (statement, status) in [
        ("DELETE FROM workspace_members WHERE workspace_id = $1", 403),
        (
            "UPDATE bullwark.sessions SET expires_at = now() WHERE workspace_id = $1",
            401,
        ),
    ] {
        let change = sqlx::query(statement).bind(DEFAULT_WORKSPACE);
        change.execute(&pool).await.unwrap();
        // What a server knows of callers it believes for some seconds.
        eventually("the end of the session", async || {
            let answer = send(browser.asks(Method::GET, "/api/jobs")).await;
            (answer.status == status).then_some(())
        })
        .await;
    }
    pool.close().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_session_opens_nothing() {
    let (_sandbox, server) = server_with(with_secret()).await;
    let unknown = "x".repeat(43);
    for (cookie, code) in [
        (format!("bullwark_session={unknown}"), "invalid_session"),
        (format!("bullwark_session={unknown}x"), "missing_api_key"),
        ("bullwark_session=".to_owned(), "missing_api_key"),
        (format!("a={unknown}"), "missing_api_key"),
        (
            format!("__Host-bullwark_session={unknown}"),
            "missing_api_key",
        ),
    ] {
        let asked = server.anonymous(Method::GET, "/api/jobs");
        let asked = send(asked.header("cookie", &cookie)).await;
        asked.problem(401, code);
        let forgets = asked.header("set-cookie").contains("Max-Age=0");
        assert_eq!(
            forgets,
            code == "invalid_session",
            "{cookie}: no script could take it away"
        );
    }
    server
        .get("/api/session")
        .await
        .problem(404, "session_not_found");
    let end = send(server.request(Method::DELETE, "/api/session")).await;
    end.problem(404, "session_not_found");
    let end = send(server.request(Method::DELETE, "/api/session?all=perhaps")).await;
    end.problem(400, "invalid_parameter");
    let mut service = claims(uuid::Uuid::nil());
    service["role"] = json!("service_role");
    let opening = server.anonymous(Method::POST, "/api/session");
    let opening = opening.bearer_auth(signed(&service));
    let opening = opening.header("x-workspace-id", DEFAULT_WORKSPACE.to_string());
    send(opening).await.problem(403, "forbidden");
    // The page of another site, or a proxy that says another name.
    let opening = server.request(Method::POST, "/api/session");
    let opening = opening.header("origin", "https://dash.example");
    send(opening).await.problem(403, "foreign_origin");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_opens_no_other_and_all_of_one_key_end_at_once() {
    let (sandbox, server) = server().await;
    let (first, _) = Browser::open(&server, KEY).await;
    let more = send(first.changes(Method::POST, "/api/session")).await;
    more.problem(403, "forbidden");
    let (second, _) = Browser::open(&server, KEY).await;
    let (theirs, _) = Browser::open(&server, OTHER_KEY).await;
    let sees = async |browser: &Browser<'_>| {
        let answer = send(browser.asks(Method::GET, "/api/jobs")).await;
        answer.status == 200
    };
    assert!(sees(&first).await && sees(&second).await && sees(&theirs).await);
    let ended = send(second.changes(Method::DELETE, "/api/session?all=true")).await;
    assert_eq!(ended.status, 204);
    assert!(!sees(&first).await && !sees(&second).await && sees(&theirs).await);

    // The oldest give way; those that are over go when somebody opens one.
    let pool = sandbox.pool().await;
    let (oldest, _) = Browser::open(&server, KEY).await;
    for _ in 0..20 {
        Browser::open(&server, KEY).await;
    }
    let count = "SELECT count(*) FROM bullwark.sessions";
    let count = async || -> i64 { sqlx::query_scalar(count).fetch_one(&pool).await.unwrap() };
    assert_eq!(count().await, 21, "twenty, and one of another workspace");
    assert!(!sees(&oldest).await);
    let over = "UPDATE bullwark.sessions SET expires_at = now() - interval '1 s'";
    sqlx::query(over).execute(&pool).await.unwrap();
    Browser::open(&server, KEY).await;
    assert_eq!(count().await, 1);
    pool.close().await;
    server.end().await;
}
