//! The document of the API, as the server gives it.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::http::server;
use crate::support::server::send;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// The operations: method, path, and what is said of it.
pub(crate) fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(METHODS.contains(&method.as_str()), "{method} {path}");
            found.push((method.as_str(), path.as_str(), operation));
        }
    }
    assert!(!found.is_empty());
    found
}

/// Whether it needs a key.
fn is_secured(operation: &Value) -> bool {
    operation["security"].is_null()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_needs_no_key_and_says_what_each_route_is_for() {
    let (_sandbox, server) = server().await;
    let answer = send(server.anonymous(Method::GET, "/api/openapi.json")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/json");
    let document = answer.body;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["servers"][0]["url"], "/");
    let security = json!([{ "bearer": [] }, { "api_key": [] }]);
    assert_eq!(document["security"], security);

    let groups = document["tags"].as_array().unwrap().iter();
    let groups: BTreeSet<&str> = groups
        .map(|group| group["name"].as_str().unwrap())
        .collect();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let place = format!("{method} {path}: {operation}");
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap()),
            "{place}"
        );
        assert!(
            !operation["summary"].as_str().unwrap().is_empty(),
            "{place}"
        );
        assert_eq!(operation["tags"].as_array().unwrap().len(), 1, "{place}");
        assert!(
            groups.contains(operation["tags"][0].as_str().unwrap()),
            "{place}"
        );
        let answers = operation["responses"].as_object().unwrap();
        assert!(
            answers.keys().any(|status| status.starts_with('2')),
            "{place}"
        );
        let expected = match is_secured(operation) {
            true => vec!["default", "400", "401", "403", "503"],
            false => vec!["default", "503"],
        };
        for status in expected {
            assert!(answers.contains_key(status), "{status} of {place}");
        }
        for (status, answer) in answers {
            let is_told = answer["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty());
            assert!(is_told || answer["$ref"].is_string(), "{status} of {place}");
        }
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_document_lists_is_served_and_wants_the_keys_that_it_says() {
    let (_sandbox, server) = server().await;
    let document = server.get("/api/openapi.json").await.body;
    for (method, path, operation) in operations(&document) {
        let path = path.replace("{id}", "0192f5a1-7c3e-7d00-8000-3b9aca000000");
        let path = path.replace("{file}", "swagger-ui.css");
        let called = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let answer = send(server.anonymous(called, &path)).await;
        match is_secured(operation) {
            true => {
                answer.problem(401, "missing_api_key");
            }
            // A page for people; the token is the key.
            false if path.starts_with("/u/") => assert_eq!(answer.status, 404, "{answer:?}"),
            // The signature is the key.
            false if path.starts_with("/api/email/events/") => {
                answer.problem(401, "invalid_signature");
            }
            // The token is the key.
            false if path.contains("{token}") => {
                answer.problem(404, "link_not_found");
            }
            false => assert_eq!(answer.status, 200, "{method} {path}: {answer:?}"),
        }
    }
    server.end().await;
}

#[test]
fn no_route_goes_past_the_document() {
    // `routes!` alone enters a route in both; these would enter it in the server only.
    let source = [
        include_str!("../../src/http/mod.rs"),
        include_str!("../../src/http/routes.rs"),
    ]
    .concat();
    for past in [".route(", ".route_service(", ".nest_service(", ".nest("] {
        assert!(!source.contains(past), "{past}");
    }
    assert!(source.contains(".routes(routes!("));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_query_parameters_is_what_the_routes_take() {
    let (_sandbox, server) = server().await;
    let document = server.get("/api/openapi.json").await.body;
    let mut compared = 0;
    for (method, path, operation) in operations(&document) {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let said: BTreeSet<&str> = parameters
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        if said.is_empty() {
            continue;
        }
        let path = path.replace("{id}", "0192f5a1-7c3e-7d00-8000-3b9aca000000");
        let called = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let answer = send(server.request(called, &format!("{path}?zzz=1"))).await;
        let detail = answer.problem(400, "invalid_parameter");
        let (_, taken) = detail.split_once("allowed are ").unwrap();
        // One parameter of the document stands for all that begin with `payload.`.
        let taken = taken.split(", ").map(|name| name.trim_end_matches(".*"));
        assert_eq!(said, taken.collect(), "{method} {path}");
        compared += 1;
    }
    assert!(compared >= 5, "{compared}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_can_be_browsed_with_nothing_from_elsewhere() {
    let (_sandbox, server) = server().await;
    let page = send(server.anonymous(Method::GET, "/api/docs")).await;
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");

    let text = page.body.as_str().unwrap();
    assert!(!text.contains("://"), "{text}");
    let links = text
        .split(['"', '\''])
        .filter(|part| part.starts_with("docs/"));
    let mut loaded = 0;
    for link in links {
        let file = send(server.anonymous(Method::GET, &format!("/api/{link}"))).await;
        assert_eq!(file.status, 200, "{link}: {file:?}");
        loaded += 1;
    }
    assert!(loaded >= 4, "{text}");
    let inline = text
        .split("<script")
        .skip(1)
        .filter(|tag| !tag.trim().starts_with("src="));
    assert_eq!(inline.count(), 0, "{text}");
    let start = send(server.anonymous(Method::GET, "/api/docs/swagger-initializer.js")).await;
    let start = start.body.as_str().unwrap().to_owned();
    assert!(start.contains("\"openapi.json\""), "{start}");

    let answer = send(server.anonymous(Method::GET, "/api/docs/..%2Fsecret")).await;
    answer.problem(404, "route_not_found");
    server.end().await;
}
