//! Files over HTTP: in constant memory, whole or not at all.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bullwark::http::HttpOptions;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::storage::Storage;
use bullwark::uploads::Uploads;
use futures_util::stream;
use reqwest::{Body, Method};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::http::{enqueue, server, server_with};
use crate::support::server::{KEY, Server, send};

const CHUNK: usize = 64 * 1024;

fn files(server: &Server) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(server.data_dir.path().join("uploads")) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    entries.map(|e| name(e).into_string().unwrap()).collect()
}

/// Looks until it is so; a limit, not a wait for luck.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within five seconds: {what}");
}

/// Memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_takes_constant_memory() {
    const CHUNKS: usize = 4800;
    let (_sandbox, server) = server().await;
    let before = resident();
    let peak = Arc::new(AtomicU64::new(before));
    let seen = peak.clone();
    let content = stream::iter((0..CHUNKS).map(move |n| {
        seen.fetch_max(resident(), Ordering::Relaxed);
        Ok::<_, std::io::Error>(vec![n as u8; CHUNK])
    }));
    let path = "/api/uploads?filename=..%2Fbig%20leads.csv";
    let request = server.request(Method::POST, path);
    let answer = send(request.body(Body::wrap_stream(content))).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let grown = peak.load(Ordering::Relaxed) - before;
    // 300 MB went through; other tests of this process may take some, too.
    assert!(grown < 150 * 1024 * 1024, "{grown} bytes more");

    let mut hash = Sha256::new();
    (0..CHUNKS).for_each(|n| hash.update(vec![n as u8; CHUNK]));
    let sum: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let upload = &answer.body["upload"];
    assert_eq!(upload["sha256"], sum);
    assert_eq!(upload["bytes"], (CHUNKS * CHUNK) as u64);
    assert_eq!(upload["file_name"], "big leads.csv");
    let id: Uuid = upload["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(upload["url"], format!("upload://{id}"));
    let uploads = Uploads::new(&Storage::local(server.data_dir.path()));
    let found = uploads.find(id, DEFAULT_WORKSPACE).await.unwrap().unwrap();
    let known = found.upload.clone();
    let path = found.bring(server.data_dir.path()).await.unwrap();
    assert_eq!(known.sha256, sum);
    assert_eq!(std::fs::metadata(path).unwrap().len(), known.bytes);
    server.end().await;
}

async fn begin_upload(server: &Server, announced: usize) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let head = format!(
        "POST /api/uploads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Length: {announced}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; announced / 2]).await.unwrap();
    eventually("the upload has begun", || !files(server).is_empty()).await;
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_leaves_nothing() {
    let (_sandbox, server) = server().await;
    drop(begin_upload(&server, 1_000_000).await);
    eventually("nothing is left", || files(&server).is_empty()).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stands_still_is_ended() {
    let (_sandbox, server) = server_with(HttpOptions {
        upload_pause_max: Duration::from_millis(100),
        ..HttpOptions::default()
    })
    .await;
    let mut stream = begin_upload(&server, 1000).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("the upload stood still or took too long"),
        "{answer}"
    );
    assert!(files(&server).is_empty());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_requests_in_flight_end() {
    let (_sandbox, server) = server().await;
    let mut stream = begin_upload(&server, 1000).await;
    server.stop.cancel();
    eventually("no new connection is taken", || {
        std::net::TcpStream::connect(&server.address).is_err()
    })
    .await;
    stream.write_all(&[b'x'; 500]).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(files(&server).len(), 2);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_ever() {
    let (_sandbox, server) = server_with(HttpOptions {
        stop_limit: Duration::from_millis(200),
        ..HttpOptions::default()
    })
    .await;
    let stream = begin_upload(&server, 1000).await;
    server.stop.cancel();
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, server.tasks.drained())
        .await
        .unwrap();
    assert!(files(&server).is_empty(), "what was cut off leaves nothing");
    drop(stream);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_too_large_or_empty_is_refused() {
    let (_sandbox, server) = server_with(HttpOptions {
        upload_max_bytes: 100_000,
        ..HttpOptions::default()
    })
    .await;
    let post = || server.request(Method::POST, "/api/uploads");
    let detail = "the body is too large: at most 100000 bytes are allowed here";
    let announced = send(post().body(vec![0; 100_001])).await;
    assert_eq!(announced.problem(413, "body_too_large"), detail);
    let chunks = stream::iter((0..2).map(|_| Ok::<_, std::io::Error>(vec![0; 60_000])));
    let chunked = send(post().body(Body::wrap_stream(chunks))).await;
    assert_eq!(chunked.problem(413, "body_too_large"), detail);
    assert_eq!(
        send(post()).await.problem(400, "empty_upload"),
        "the body is empty; send the file itself as the body"
    );
    let path = "/api/uploads?name=x";
    let named = send(server.request(Method::POST, path).body("x")).await;
    assert_eq!(
        named.problem(400, "invalid_parameter"),
        "unknown parameter `name`; allowed are filename"
    );
    assert!(files(&server).is_empty());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_a_file_to_keep() {
    let (_sandbox, server) = server().await;
    let id = enqueue(&server).await;
    let path = format!("/api/jobs/{id}/report");
    let none = server.get(&path).await;
    let detail = none.problem(404, "report_not_found");
    assert!(
        detail.starts_with(&format!("job {id} (noop, pending) has no report")),
        "{detail}"
    );

    let report = "email,_row,_error_code\r\nx,2,EMAIL_INVALID\r\n";
    write(
        &server.data_dir.path().join("reports"),
        &format!("{id}.csv"),
        report,
    );
    let response = server.request(Method::GET, &path).send().await.unwrap();
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/csv; charset=utf-8");
    let disposition = format!("attachment; filename=\"import-errors-{id}.csv\"");
    assert_eq!(header("content-disposition"), disposition);
    assert_eq!(header("content-length"), report.len().to_string());
    assert_eq!(response.text().await.unwrap(), report);
    server.end().await;
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join(name), text).unwrap();
}
