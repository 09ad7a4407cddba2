//! Clients that hang, ask for too much, or come from elsewhere: they hold nothing, and nobody else
//! pays.

use std::time::Duration;

use bullwark::http::HttpOptions;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::{count, server, server_with};
use crate::support::server::{KEY, OTHER_KEY, Server, send};

/// Longer than anything here may take.
const LONG: Duration = Duration::from_secs(30);

async fn begin(server: &Server, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// A request for a job whose body was announced with so many bytes, and of which one comes.
async fn stalled(server: &Server, key: &str, announced: usize) -> TcpStream {
    let head = format!(
        "POST /api/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {announced}\r\n\r\n{{"
    );
    begin(server, &head).await
}

async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    timeout(LONG, stream.read_to_string(&mut text))
        .await
        .unwrap()
        .unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clients_that_hang_hold_no_transaction_and_keep_nobody_out() {
    let (sandbox, server) = server_with(HttpOptions {
        body_pause_max: Duration::from_secs(3),
        ..HttpOptions::default()
    })
    .await;
    // Together they announce far more than bodies may take in memory.
    let mut hanging = Vec::new();
    for _ in 0..100 {
        hanging.push(stalled(&server, KEY, 4 * 1024 * 1024).await);
    }
    let pool = sandbox.pool().await;
    for _ in 0..10 {
        let answer = server.post("/api/jobs", json!({ "jobType": "noop" })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let idle: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = $1 AND state LIKE 'idle in transaction%'",
        )
        .bind(sandbox.database())
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!(idle, 0);
    }
    for stream in hanging {
        let answer = rest(stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("\"code\":\"body_timeout\""), "{answer}");
        // The rest of the body would be taken for a request.
        assert!(
            answer.to_ascii_lowercase().contains("connection: close"),
            "{answer}"
        );
    }
    assert_eq!(count(&server).await, 10);
    pool.close().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_nothing_make_room_for_others() {
    const PLACES: usize = 8;
    let (_sandbox, server) = server_with(HttpOptions {
        connections_max: PLACES,
        ..HttpOptions::default()
    })
    .await;
    let mut silent = Vec::new();
    for nth in 0..PLACES {
        let text = if nth % 2 == 0 { "GET /healthz HT" } else { "" };
        silent.push(begin(&server, text).await);
    }
    for _ in 0..3 {
        let get = begin(
            &server,
            "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        );
        let answer = rest(get.await).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_with_too_much_under_way_is_told_to_wait_and_others_are_not() {
    let (_sandbox, server) = server_with(HttpOptions {
        requests_per_caller: 2,
        body_pause_max: LONG,
        ..HttpOptions::default()
    })
    .await;
    let first = stalled(&server, KEY, 100).await;
    let second = stalled(&server, KEY, 100).await;
    // They are under way when a third is refused; until then each request ends before the next.
    let refused = timeout(LONG, async {
        loop {
            let answer = server.get("/api/me").await;
            if answer.status != 200 {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let refused = refused.await.unwrap();
    let detail = refused.problem(429, "too_many_requests");
    assert_eq!(
        detail,
        "you have 2 requests under way; wait until one is answered"
    );
    assert_eq!(refused.header("retry-after"), "1");
    let other = server
        .anonymous(Method::GET, "/api/me")
        .bearer_auth(OTHER_KEY);
    assert_eq!(send(other).await.status, 200);
    drop((first, second));
    let free = timeout(LONG, async {
        while server.get("/api/me").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    free.await.unwrap();
    server.end().await;
}

/// Readers who leave again and again, each of them in the middle of a statement that takes long.
#[tokio::test(flavor = "multi_thread")]
async fn readers_of_one_workspace_hold_their_share_until_postgresql_is_done_and_others_read() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    assert_eq!(server.get("/api/jobs/actions").await.status, 200);
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE bullwark.actions IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *holder)
        .await
        .unwrap();
    let stuck = async || {
        let stuck = "SELECT count(*) FROM pg_locks WHERE NOT granted
          AND relation = 'bullwark.actions'::regclass";
        sqlx::query_scalar::<_, i64>(stuck)
            .fetch_one(&pool)
            .await
            .unwrap()
    };
    let head =
        format!("GET /api/jobs/actions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    let read = async || begin(&server, &head).await;
    let most = async |count: i64| {
        timeout(LONG, async {
            while stuck().await < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    };
    let mut readers = Vec::new();
    for _ in 0..6 {
        readers.push(read().await);
    }
    most(3).await;
    // They leave, and others come.
    for _ in 0..6 {
        readers.remove(0);
        readers.push(read().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let other = server
        .anonymous(Method::GET, "/api/imports")
        .bearer_auth(OTHER_KEY);
    assert_eq!(send(other).await.status, 200, "others have room");
    assert_eq!(stuck().await, 3, "half of those that may read at once");
    holder.commit().await.unwrap();
    let free = timeout(LONG, async {
        while server.get("/api/jobs/actions").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    free.await.unwrap();
    server.end().await;
}

/// Uploads that stand still keep their own workspace from more of them, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_one_workspace_leave_room_for_those_of_others() {
    let (_sandbox, server) = server_with(HttpOptions {
        upload_pause_max: LONG,
        ..HttpOptions::default()
    })
    .await;
    let head = format!(
        "POST /api/uploads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Length: 100\r\n\r\nx"
    );
    let mut standing = Vec::new();
    for _ in 0..8 {
        standing.push(begin(&server, &head).await);
    }
    let upload = |key: &str| {
        let request = server
            .anonymous(Method::POST, "/api/uploads")
            .bearer_auth(key);
        send(request.body("a,b\n"))
    };
    let refused = timeout(LONG, async {
        loop {
            let answer = upload(KEY).await;
            if answer.status != 201 {
                break answer;
            }
        }
    });
    let refused = refused.await.unwrap();
    refused.problem(429, "too_many_requests");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(upload(OTHER_KEY).await.status, 201);
    drop(standing);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_a_size_and_a_number_of_lines() {
    let (_sandbox, server) = server().await;
    let request = |lines: &str| {
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{lines}Connection: close\r\n\r\n")
    };
    let large = format!("X-Large: {}\r\n", "x".repeat(300 * 1024));
    let many: String = (0..101).map(|nth| format!("X-{nth}: y\r\n")).collect();
    let fine: String = (0..90).map(|nth| format!("X-{nth}: y\r\n")).collect();
    for (lines, status) in [(large, 431), (many, 431), (fine, 200)] {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        // It may be cut off before all of it is sent.
        stream.write_all(request(&lines).as_bytes()).await.ok();
        let mut answer = vec![0; 64];
        let read = timeout(LONG, stream.read(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_named_origins_may_use_the_api_and_no_others() {
    const OURS: &str = "https://app.example";
    let (_sandbox, server) = server_with(HttpOptions {
        cors_origins: vec![OURS.to_owned(), "http://localhost:5173".to_owned()],
        ..HttpOptions::default()
    })
    .await;
    let preflight = async |origin: &str| {
        let request = server.anonymous(Method::OPTIONS, "/api/jobs");
        let request = request
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,content-type",
            );
        send(request).await
    };
    let allowed = preflight(OURS).await;
    assert_eq!(allowed.status, 200, "{allowed:?}");
    assert_eq!(allowed.header("access-control-allow-origin"), OURS);
    assert!(
        allowed
            .header("access-control-allow-methods")
            .contains("POST")
    );
    let headers = allowed.header("access-control-allow-headers");
    for name in [
        "authorization",
        "content-type",
        "idempotency-key",
        "x-workspace-id",
        "range",
    ] {
        assert!(headers.contains(name), "{headers}");
    }
    assert_eq!(allowed.header("access-control-max-age"), "3600");
    assert_eq!(allowed.header("access-control-allow-credentials"), "");
    for other in [
        "https://evil.example",
        "null",
        "https://app.example.evil.example",
    ] {
        let refused = preflight(other).await;
        assert_eq!(refused.header("access-control-allow-origin"), "", "{other}");
    }

    // What an answer says may be read, also of one that is a problem.
    for (method, path, status) in [
        (Method::GET, "/api/jobs", 200),
        (Method::GET, "/api/x", 404),
    ] {
        let answer = send(server.request(method, path).header("origin", OURS)).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), OURS);
        let vary = answer.header("vary").to_ascii_lowercase();
        assert!(vary.contains("origin"), "{vary}");
        let exposed = answer.header("access-control-expose-headers");
        for name in [
            "ratelimit",
            "ratelimit-policy",
            "x-request-id",
            "location",
            "retry-after",
            "content-disposition",
        ] {
            assert!(exposed.split(',').any(|one| one == name), "{exposed}");
        }
    }
    let unnamed = server
        .anonymous(Method::GET, "/api/jobs")
        .header("origin", OURS);
    let unnamed = send(unnamed).await;
    unnamed.problem(401, "missing_api_key");
    assert_eq!(unnamed.header("access-control-allow-origin"), OURS);
    let other = server
        .request(Method::GET, "/api/jobs")
        .header("origin", "https://evil.example");
    assert_eq!(send(other).await.header("access-control-allow-origin"), "");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_what_browsers_may_do_with_it() {
    let (_sandbox, server) = server().await;
    let expected = [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-embedder-policy", "require-corp"),
        ("cache-control", "no-store"),
        ("access-control-allow-origin", ""),
    ];
    for path in ["/healthz", "/api/jobs", "/api/nothing", "/api/openapi.json"] {
        let answer = server.get(path).await;
        for (name, value) in expected {
            assert_eq!(answer.header(name), value, "{name} of {path}");
        }
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(answer.header("permissions-policy").contains("camera=()"));
    }
    server.end().await;
}
