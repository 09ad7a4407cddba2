//! Dead letters over HTTP: in groups by what killed them.

use bullwark::record::dead_letters;
use bullwark::record::settle::settle_many;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::server;
use crate::stage::{discarded, settled};
use crate::support::server::{Answer, OTHER_KEY, Server, send};

async fn die(server: &Server, job_type: &str, queue: &str, why: &str) -> Uuid {
    let payload = match job_type {
        "sleep" => json!({"ms": 1}),
        _ => json!({}),
    };
    let body = json!({"jobType": job_type, "queue": queue, "payload": payload});
    let answer = server.post("/api/jobs", body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let id: Uuid = answer.body["job"]["id"].as_str().unwrap().parse().unwrap();
    let end = [settled(id, 1, "w", discarded(why))];
    let done = settle_many(&server.app.record, &end).await.unwrap();
    assert_eq!(done.len(), 1);
    id
}

fn groups(answer: &Answer) -> Vec<(&str, &str, i64)> {
    let groups = answer.body["groups"].as_array().unwrap().iter();
    let told = groups.map(|group| {
        (
            group["job_type"].as_str().unwrap(),
            group["error_pattern"].as_str().unwrap(),
            group["count"].as_i64().unwrap(),
        )
    });
    told.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_one_cause_are_one_group() {
    let (sandbox, server) = server().await;
    let mut ids = Vec::new();
    for why in [
        "no answer from 10.0.0.7:443 within 30000 ms",
        "no answer from 10.0.0.8:443 within 12 ms",
        "no answer from 192.168.1.1:80 within 5 ms",
    ] {
        ids.push(die(&server, "noop", "mails", why).await);
    }
    let missing = [
        "HTTP 404: ada@example.org is unknown to `crm`",
        "HTTP 404: bob@example.org is unknown to `mail`",
    ];
    for why in missing {
        die(&server, "noop", "calls", why).await;
    }
    die(
        &server,
        "noop",
        "calls",
        "HTTP 503: ada@example.org is unknown to `crm`",
    )
    .await;
    die(&server, "sleep", "calls", missing[0]).await;

    let all = server.get("/api/dead-letters").await;
    let unknown = "HTTP 404: <address> is unknown to <text>";
    let told = groups(&all);
    assert_eq!(
        told[0],
        ("noop", "no answer from <address> within <n> ms", 3)
    );
    assert_eq!(told[1], ("noop", unknown, 2));
    assert!(told[2..].contains(&("sleep", unknown, 1)), "{told:?}");
    assert!(
        told[2..].contains(&("noop", &unknown.replace("404", "503"), 1)),
        "{told:?}"
    );
    assert_eq!(told.len(), 4);
    let first = &all.body["groups"][0];
    let examples: Vec<Uuid> = serde_json::from_value(first["example_job_ids"].clone()).unwrap();
    assert_eq!(examples, [ids[2], ids[1], ids[0]], "newest first");
    assert_eq!(
        first["error_message"],
        "no answer from 192.168.1.1:80 within 5 ms"
    );
    assert_eq!(first["share"], 0.4286);
    assert!(first["first_at"].as_str().unwrap() <= first["last_at"].as_str().unwrap());
    assert_eq!(
        (&all.body["total"], &all.body["is_exact"]),
        (&json!(7), &json!(true))
    );
    let types = json!([
        {"job_type": "noop", "count": 6, "share": 0.8571},
        {"job_type": "sleep", "count": 1, "share": 0.1429},
    ]);
    assert_eq!(all.body["types"], types);

    let some = server.get("/api/dead-letters?limit=1").await;
    assert_eq!((groups(&some).len(), &some.body["others"]), (1, &json!(4)));
    let calls = server
        .get("/api/dead-letters?queue=calls&jobType=noop")
        .await;
    assert_eq!((groups(&calls).len(), &calls.body["total"]), (2, &json!(3)));
    server
        .get("/api/dead-letters?size=1")
        .await
        .problem(400, "invalid_parameter");

    // One by a process of an older version, which knows of no causes.
    let pool = sandbox.pool().await;
    let forget = "UPDATE bullwark.dead_letters SET fingerprint = $1 WHERE job_id = $2";
    sqlx::query(forget)
        .bind(Uuid::nil())
        .bind(ids[0])
        .execute(&pool)
        .await
        .unwrap();
    let without = server.get("/api/dead-letters").await;
    assert_eq!(
        (groups(&without)[0].2, &without.body["others"]),
        (2, &json!(1))
    );
    assert_eq!(
        (&without.body["total"], &without.body["is_exact"]),
        (&json!(7), &json!(false))
    );
    assert!(!dead_letters::find_causes(&server.app.record).await.unwrap());
    assert_eq!(server.get("/api/dead-letters").await.body, all.body);

    // The jobs of a group.
    let fingerprint = first["fingerprint"].as_str().unwrap();
    let listed = async |query: String| {
        let page = server.get(&format!("/api/jobs?{query}")).await.body;
        let jobs = page["jobs"].as_array().unwrap().iter();
        let ids: Vec<Uuid> = jobs
            .map(|job| job["id"].as_str().unwrap().parse().unwrap())
            .collect();
        (ids, page["pagination"]["next"].clone())
    };
    let group = format!("fingerprint={fingerprint}");
    assert_eq!(listed(group.clone()).await.0, [ids[2], ids[1], ids[0]]);
    let (page, next) = listed(format!("{group}&limit=2")).await;
    assert_eq!(page, [ids[2], ids[1]]);
    let before = next.as_str().unwrap();
    assert_eq!(
        listed(format!("{group}&limit=2&before={before}")).await.0,
        [ids[0]]
    );
    for other in ["queue=calls", "created_to=2020-01-01T00:00:00Z"] {
        assert!(listed(format!("{group}&{other}")).await.0.is_empty());
    }
    server
        .get("/api/jobs?fingerprint=x")
        .await
        .problem(400, "invalid_parameter");

    // What is run again or deleted is dead no more.
    let path = format!("/api/jobs/{}", ids[2]);
    let retried = send(server.request(Method::POST, &format!("{path}/retry"))).await;
    assert_eq!(retried.status, 200);
    let path = format!("/api/jobs/{}", ids[1]);
    assert_eq!(
        send(server.request(Method::DELETE, &path)).await.status,
        200
    );
    assert_eq!(listed(group.clone()).await.0, [ids[0]]);
    let left = server.get("/api/dead-letters").await;
    assert_eq!(left.body["total"], 5);
    assert!(groups(&left).contains(&("noop", "no answer from <address> within <n> ms", 1)));

    // Nothing of it is another workspace's business.
    let theirs = |path: &str| send(server.anonymous(Method::GET, path).bearer_auth(OTHER_KEY));
    let none = theirs("/api/dead-letters").await.body;
    assert_eq!((&none["groups"], &none["total"]), (&json!([]), &json!(0)));
    let none = theirs(&format!("/api/jobs?{group}")).await.body;
    assert_eq!(none["jobs"], json!([]));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_keeps_what_tells_its_cause() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    for (message, pattern) in [
        ("", ""),
        ("timeout after 30000ms", "timeout after <n>ms"),
        ("status: 404, 250 rows", "status: 404, <n> rows"),
        ("can't find user 'bob'", "can't find user <text>"),
        ("it's broken, isn't it", "it's broken, isn't it"),
        (
            "missing field `name` at line 3",
            "missing field <text> at line <n>",
        ),
        (
            "job 0192f5a1-7c3e-7d00-8000-3b9aca000000 is gone",
            "job <id> is gone",
        ),
        ("see https://x.org/a?b=1 and  more", "see <url> and more"),
        ("hash deadbeef0123456789 of 0x1F", "hash <id> of <id>"),
        ("effaced facade", "effaced facade"),
        ("a.b+c@mail.example.org refused", "<address> refused"),
    ] {
        let found: String = sqlx::query_scalar("SELECT bullwark.error_pattern($1)")
            .bind(message)
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(found, pattern, "{message}");
    }
    let long = "x1 ".repeat(10_000);
    let found: Value = sqlx::query_scalar("SELECT to_jsonb(length(bullwark.error_pattern($1)))")
        .bind(long)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(found, 500);
    server.end().await;
}
