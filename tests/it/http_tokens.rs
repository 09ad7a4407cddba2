//! Tokens of users over HTTP: whose they are, what they open, and which are refused.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bullwark::http::{HttpOptions, Secret, TokenOptions};
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::tasks::Tasks;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::http::{enqueue, server_with};
use crate::support::server::{Answer, KEY, OTHER_WORKSPACE, Server, send};
use crate::worker::rig::eventually;

const SECRET: &str = "a secret of thirty-two bytes, or more";

fn options(tokens: TokenOptions) -> HttpOptions {
    HttpOptions {
        tokens,
        ..HttpOptions::default()
    }
}

pub(crate) fn with_secret() -> HttpOptions {
    options(TokenOptions {
        secret: Some(Secret(SECRET.to_owned())),
        ..TokenOptions::default()
    })
}

fn in_an_hour() -> i64 {
    bullwark::clock::now_ms() / 1000 + 3600
}

pub(crate) fn claims(user: Uuid) -> Value {
    json!({
        "sub": user, "role": "authenticated", "aud": "authenticated", "exp": in_an_hour(),
    })
}

pub(crate) fn signed(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

pub(crate) async fn user(pool: &PgPool, memberships: &[(Uuid, &str)]) -> Uuid {
    let id = Uuid::now_v7();
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("INSERT INTO auth.users (id) VALUES ($1)")
        .bind(id)
        .execute(&mut *tx)
        .await
        .unwrap();
    for (workspace, role) in memberships {
        sqlx::query(
            "INSERT INTO workspace_members (workspace_id, user_id, role) VALUES ($1, $2, $3)",
        )
        .bind(workspace)
        .bind(id)
        .bind(role)
        .execute(&mut *tx)
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
    id
}

async fn get(server: &Server, token: &str, path: &str) -> Answer {
    send(server.anonymous(Method::GET, path).bearer_auth(token)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_may_create_and_see_jobs_and_an_admin_may_cancel_them() {
    let (sandbox, server) = server_with(with_secret()).await;
    let pool = sandbox.pool().await;
    let member = user(&pool, &[(DEFAULT_WORKSPACE, "member")]).await;
    let admin = user(&pool, &[(DEFAULT_WORKSPACE, "admin")]).await;
    let (member_token, admin_token) = (signed(&claims(member)), signed(&claims(admin)));
    let job = format!("/api/jobs/{}", enqueue(&server).await);

    assert_eq!(get(&server, &member_token, &job).await.status, 200);
    let me = get(&server, &member_token, "/api/me").await.body;
    assert_eq!(me["actor"], json!({ "kind": "user", "id": member }));
    assert_eq!(me["permissions"], json!(["read", "write"]));
    let add = server
        .anonymous(Method::POST, "/api/jobs")
        .bearer_auth(&member_token);
    let added = send(add.json(&json!({"jobType": "noop"}))).await;
    assert_eq!(added.body["job"]["workspace_id"], json!(DEFAULT_WORKSPACE));

    let cancel = async |token: &str| {
        let request = server.anonymous(Method::PATCH, &job).bearer_auth(token);
        send(request.json(&json!({"status": "cancelled"}))).await
    };
    let refused = cancel(&member_token).await;
    let detail = refused.problem(403, "forbidden");
    assert_eq!(detail, "this needs the right to `admin` in this workspace");
    assert_eq!(server.get(&job).await.body["job"]["status"], "pending");
    assert_eq!(cancel(&admin_token).await.status, 200);
    pool.close().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_workspaces_of_its_user_and_no_other() {
    let (sandbox, server) = server_with(with_secret()).await;
    let pool = sandbox.pool().await;
    enqueue(&server).await;
    let stranger = signed(&claims(user(&pool, &[]).await));
    get(&server, &stranger, "/api/jobs")
        .await
        .problem(403, "forbidden");

    let other = user(&pool, &[(OTHER_WORKSPACE, "owner")]).await;
    let other = signed(&claims(other));
    let jobs = get(&server, &other, "/api/jobs").await;
    assert_eq!(jobs.body["jobs"], json!([]), "it is of the other one");
    let named = async |token: &str, workspace: &str| {
        let request = server
            .anonymous(Method::GET, "/api/jobs")
            .bearer_auth(token);
        send(request.header("x-workspace-id", workspace)).await
    };
    let foreign = named(&other, &DEFAULT_WORKSPACE.to_string()).await;
    let nowhere = named(&other, &Uuid::now_v7().to_string()).await;
    assert_eq!(
        foreign.problem(403, "forbidden"),
        nowhere.problem(403, "forbidden")
    );
    named(&other, "mine")
        .await
        .problem(400, "invalid_workspace");

    let both = user(
        &pool,
        &[(DEFAULT_WORKSPACE, "member"), (OTHER_WORKSPACE, "member")],
    )
    .await;
    let token = signed(&claims(both));
    get(&server, &token, "/api/jobs")
        .await
        .problem(400, "workspace_required");
    let count = |answer: Answer| answer.body["jobs"].as_array().unwrap().len();
    assert_eq!(
        count(named(&token, &DEFAULT_WORKSPACE.to_string()).await),
        1
    );
    assert_eq!(count(named(&token, &OTHER_WORKSPACE.to_string()).await), 0);
    let mut naming = claims(both);
    naming["app_metadata"] = json!({ "workspace_id": DEFAULT_WORKSPACE });
    assert_eq!(count(get(&server, &signed(&naming), "/api/jobs").await), 1);
    // A key is of one workspace, whatever is named beside it.
    let request = server.anonymous(Method::GET, "/api/jobs").bearer_auth(KEY);
    let request = request.header("x-workspace-id", OTHER_WORKSPACE.to_string());
    send(request).await.problem(403, "forbidden");

    let service = json!({ "role": "service_role", "aud": "authenticated", "exp": in_an_hour() });
    let service = signed(&service);
    get(&server, &service, "/api/jobs")
        .await
        .problem(400, "workspace_required");
    assert_eq!(
        count(named(&service, &DEFAULT_WORKSPACE.to_string()).await),
        1
    );
    named(&service, &Uuid::now_v7().to_string())
        .await
        .problem(403, "forbidden");
    pool.close().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_prove_nothing_are_refused() {
    let (sandbox, server) = server_with(with_secret()).await;
    let pool = sandbox.pool().await;
    let good = claims(user(&pool, &[(DEFAULT_WORKSPACE, "owner")]).await);
    assert_eq!(get(&server, &signed(&good), "/api/me").await.status, 200);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        signed(&claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        signed(&claims)
    };
    let by_another = {
        let key = EncodingKey::from_secret(b"another secret, which is as long too");
        encode(&Header::new(Algorithm::HS256), &good, &key).unwrap()
    };
    let (head, tail) = good_parts(&signed(&good));
    let tampered = format!("{head}.{}.{tail}", base64_of(&with_sub(&good)));
    // "alg": "none", and no signature.
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", base64_of(&good));
    for (token, code, detail) in [
        (
            with("exp", json!(1_600_000_000)),
            "invalid_token",
            "the token has expired",
        ),
        (
            with("aud", json!("others")),
            "invalid_token",
            "the token is for another audience",
        ),
        (
            with("nbf", json!(in_an_hour())),
            "invalid_token",
            "the token is not valid yet",
        ),
        (
            with("sub", json!("me")),
            "invalid_token",
            "the token's `sub` is no UUID",
        ),
        (
            with("role", json!("anon")),
            "invalid_token",
            "the token is no user's",
        ),
        (without("sub"), "invalid_token", "the token is no user's"),
        (
            with("aud", json!(7)),
            "invalid_token",
            "the token is not valid",
        ),
        (
            without("aud"),
            "invalid_token",
            "the token names no audience",
        ),
        (without("exp"), "invalid_token", "the token lacks `exp`"),
        (by_another, "invalid_token", "the token is not valid"),
        (tampered, "invalid_token", "the token is not valid"),
        (
            unsigned,
            "invalid_api_key",
            "the API key is unknown, revoked or expired",
        ),
    ] {
        let answer = get(&server, &token, "/api/jobs").await;
        assert_eq!(answer.problem(401, code), detail, "{token}");
        assert!(answer.header("www-authenticate").contains("invalid_token"));
    }
    pool.close().await;
    server.end().await;
}

fn good_parts(token: &str) -> (String, String) {
    let parts: Vec<&str> = token.split('.').collect();
    (parts[0].to_owned(), parts[2].to_owned())
}

fn with_sub(claims: &Value) -> Value {
    let mut claims = claims.clone();
    claims["sub"] = json!(Uuid::now_v7());
    claims
}

fn base64_of(claims: &Value) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_secret_takes_keys_only() {
    let (_sandbox, server) = server_with(HttpOptions::default()).await;
    let answer = get(&server, &signed(&claims(Uuid::now_v7())), "/api/jobs").await;
    let detail = answer.problem(401, "invalid_token");
    assert_eq!(detail, "this server takes no tokens: send an API key");
    server.end().await;
}

/// Keys of nothing but this test.
const ONE: (&str, &str) = (
    "MC4CAQAwBQYDK2VwBCIEILZU279OS3Hmbtt3gSqSFrKSdRYPi+eCUGqCT4PRKsMr",
    "MsyFAdhjJTxSjGTah_kzQCh8MaYfypLxRIzhflMlBHQ",
);
const TWO: (&str, &str) = (
    "MC4CAQAwBQYDK2VwBCIEIAYACVWE8RHQY7IQugI58x/zVwQvrzjDJxdi2Y8A/0Lu",
    "tOFB0Iy1M9HUZFCMV8Hx_v-RKnsP-IVJFjY1uOxHX3Y",
);

fn public((_, x): (&str, &str), id: &str) -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": id, "x": x })
}

fn signed_with((private, _): (&str, &str), id: &str, claims: &Value) -> String {
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{private}\n-----END PRIVATE KEY-----\n");
    let key = EncodingKey::from_ed_pem(pem.as_bytes()).unwrap();
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(id.to_owned());
    encode(&header, claims, &key).unwrap()
}

/// Publishes keys, and counts who asks.
async fn publish(tasks: &Tasks) -> (String, Arc<Mutex<Value>>, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let keys = Arc::new(Mutex::new(json!({ "keys": [public(ONE, "one")] })));
    let asked = Arc::new(AtomicU32::new(0));
    let (shown, counted) = (keys.clone(), asked.clone());
    tasks.spawn("keys", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            if stream.read(&mut request).await.is_err() {
                continue;
            }
            counted.fetch_add(1, Ordering::SeqCst);
            let body = shown.lock().unwrap().to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}",
                body.len()
            );
            let answer = format!("{head}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    (url, keys, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn published_keys_are_fetched_once_and_again_for_a_new_one() {
    let tasks = Tasks::new();
    let (url, keys, asked) = publish(&tasks).await;
    let (sandbox, server) = server_with(options(TokenOptions {
        jwks_url: Some(url),
        issuer: Some("https://id.example".to_owned()),
        ..TokenOptions::default()
    }))
    .await;
    let pool = sandbox.pool().await;
    let mut claims = claims(user(&pool, &[(DEFAULT_WORKSPACE, "owner")]).await);
    let from_nowhere = signed_with(ONE, "one", &claims);
    get(&server, &from_nowhere, "/api/me")
        .await
        .problem(401, "invalid_token");
    claims["iss"] = json!("https://id.example");
    let good = signed_with(ONE, "one", &claims);
    for _ in 0..3 {
        assert_eq!(get(&server, &good, "/api/me").await.status, 200);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // A public key is no secret, and another one's signature is not this one's.
    let as_secret = EncodingKey::from_secret(ONE.1.as_bytes());
    let confused = encode(&Header::new(Algorithm::HS256), &claims, &as_secret).unwrap();
    get(&server, &confused, "/api/me")
        .await
        .problem(401, "invalid_token");
    let foreign = signed_with(TWO, "one", &claims);
    get(&server, &foreign, "/api/me")
        .await
        .problem(401, "invalid_token");

    // Strangers' ids do not make the server ask again and again.
    *keys.lock().unwrap() = json!({ "keys": [public(ONE, "one"), public(TWO, "two")] });
    for n in 0..10 {
        let unknown = signed_with(TWO, &format!("unknown{n}"), &claims);
        get(&server, &unknown, "/api/me")
            .await
            .problem(401, "invalid_token");
    }
    assert!(asked.load(Ordering::SeqCst) <= 3);
    let rotated = signed_with(TWO, "two", &claims);
    let taken = async || (get(&server, &rotated, "/api/me").await.status == 200).then_some(());
    eventually("the new key to be taken", taken).await;
    assert_eq!(get(&server, &good, "/api/me").await.status, 200);
    pool.close().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_can_not_be_fetched_are_the_servers_trouble_not_the_callers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    drop(listener);
    let tokens = TokenOptions {
        jwks_url: Some(url),
        ..TokenOptions::default()
    };
    let (_sandbox, server) = server_with(options(tokens)).await;
    let token = signed_with(ONE, "one", &claims(Uuid::now_v7()));
    let answer = get(&server, &token, "/api/me").await;
    answer.problem(503, "keys_unavailable");
    assert_eq!(answer.header("retry-after"), "2");
    server.end().await;
}
