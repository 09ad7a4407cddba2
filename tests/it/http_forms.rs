//! Files in forms: `multipart/form-data`, as pages and `curl -F` send it.

use bullwark::http::HttpOptions;
use reqwest::{Body, Method};

use crate::http::{server, server_with};
use crate::support::server::{Answer, Server, send};

const BOUNDARY: &str = "between-the-parts";

/// A form of these parts: the rest of the line that names them, and the content.
fn form(parts: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (named, content) in parts {
        text += &format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; {named}\r\n\r\n{content}\r\n"
        );
    }
    text + &format!("--{BOUNDARY}--\r\n")
}

async fn post(server: &Server, path: &str, body: impl Into<Body>) -> Answer {
    let request = server.request(Method::POST, path);
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    send(request.header("content-type", kind).body(body)).await
}

fn kept(server: &Server) -> usize {
    std::fs::read_dir(server.data_dir.path().join("uploads")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_a_form_is_the_same_upload_as_the_file_alone() {
    let (_sandbox, server) = server().await;
    let content = "name\r\nA--between-the-parts\r\n\r\n--between\r\n";
    let text = form(&[
        ("name=\"note\"", "of a page"),
        ("name=\"file\"; filename=\"kunden ü.csv\"", content),
        ("name=\"csrf\"", "x"),
    ]);
    let answer = post(&server, "/api/uploads", text).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let alone = server.request(Method::POST, "/api/uploads").body(content);
    let alone = send(alone).await;
    let (form, alone) = (&answer.body["upload"], &alone.body["upload"]);
    assert_eq!(form["sha256"], alone["sha256"]);
    assert_eq!(form["bytes"], content.len());
    assert_eq!(form["file_name"], "kunden ü.csv");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_a_part_is_for_people_only() {
    let (_sandbox, server) = server().await;
    for (named, name) in [
        ("name=\"file\"; filename=\"../../etc/passwd\"", "passwd"),
        ("name=\"file\"; filename=\"C:\\Users\\me\\a.csv\"", "a.csv"),
        ("name=\"file\"; filename=\"..\"", "upload"),
        ("name=\"file\"; filename=\"\"", "query.csv"),
        ("name=\"file\"", "query.csv"),
    ] {
        let path = "/api/uploads?filename=query.csv";
        let answer = post(&server, path, form(&[(named, "x")])).await;
        assert_eq!(answer.body["upload"]["file_name"], name, "{answer:?}");
    }
    let uploads = server.data_dir.path().join("uploads");
    for entry in std::fs::read_dir(uploads).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let id = name.trim_end_matches(".json");
        assert!(id.parse::<uuid::Uuid>().is_ok(), "{name}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_not_one_file_is_refused_and_nothing_is_kept() {
    let (_sandbox, server) = server().await;
    let file = "name=\"file\"; filename=\"a.csv\"";
    let whole = form(&[(file, "name\nAcme\n")]);
    let many: Vec<(&str, &str)> = (0..17).map(|_| ("name=\"x\"", "y")).collect();
    let long = "x".repeat(70_000);
    for (text, told) in [
        (form(&[("name=\"note\"", "x")]), "no part named `file`"),
        (form(&[]), "no part named `file`"),
        (form(&[(file, "a"), (file, "b")]), "more than one part"),
        (
            form(&[("name=\"upload\"; filename=\"a.csv\"", "a")]),
            "the part `upload` is a file: its name must be `file`",
        ),
        (form(&many), "more than 16 parts"),
        (form(&[("name=\"x\"", &long), (file, "a")]), "65536 bytes"),
        (whole[..whole.len() - 12].to_owned(), "can not be read"),
        ("no form at all".to_owned(), "can not be read"),
        (String::new(), "can not be read"),
    ] {
        let answer = post(&server, "/api/uploads", text).await;
        let detail = answer.problem(400, "invalid_form");
        assert!(detail.contains(told), "{detail}");
    }
    let empty = post(&server, "/api/uploads", form(&[(file, "")])).await;
    empty.problem(400, "empty_upload");
    let bare = server.request(Method::POST, "/api/uploads");
    let bare = send(bare.header("content-type", "multipart/form-data").body("x")).await;
    let detail = bare.problem(400, "invalid_form");
    assert!(detail.contains("boundary"), "{detail}");
    assert_eq!(kept(&server), 0);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_file_hold_in_a_form() {
    let (_sandbox, server) = server_with(HttpOptions {
        upload_max_bytes: 100_000,
        ..HttpOptions::default()
    })
    .await;
    let file = "name=\"file\"; filename=\"a.csv\"";
    let most = "x".repeat(100_000);
    let answer = post(&server, "/api/uploads", form(&[(file, &most)])).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let more = "x".repeat(100_001);
    let answer = post(&server, "/api/uploads", form(&[(file, &more)])).await;
    answer.problem(413, "body_too_large");

    // A head without an end is not waited for: the parser would keep all of it.
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: {}",
        "x".repeat(900_000)
    );
    let answer = post(&server, "/api/uploads", head).await;
    let detail = answer.problem(400, "invalid_form");
    assert!(detail.contains("can not be read"), "{detail}");
    assert_eq!(kept(&server), 2);
    server.end().await;
}
