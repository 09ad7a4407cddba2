//! Looking at a file before it is imported, and at imports afterwards, over HTTP.

use reqwest::Method;
use serde_json::{Value, json};

use crate::http::server;
use crate::support::server::{Answer, KEY, OTHER_KEY, Server, send};

const FILE: &str = "Firma;Website;Notiz\nMüller GmbH;mueller.de;a\n;broken.de;b\n";

async fn upload(server: &Server, key: &str, content: impl Into<Vec<u8>>) -> String {
    let request = server.anonymous(Method::POST, "/api/uploads?filename=kunden.csv");
    let answer = send(request.bearer_auth(key).body(content.into())).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.body["upload"]["url"].as_str().unwrap().to_owned()
}

async fn look(server: &Server, payload: Value) -> Answer {
    server.post("/api/imports/preview", payload).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_looked_at_before_it_is_imported() {
    let (_sandbox, server) = server().await;
    let url = upload(&server, KEY, FILE).await;
    let payload = json!({ "file_url": url, "entity_type": "accounts" });
    let seen = look(&server, payload.clone()).await;
    assert_eq!(seen.status, 200, "{seen:?}");
    let preview = &seen.body["preview"];
    assert_eq!(preview["encoding"], "UTF-8");
    assert_eq!(preview["delimiter"], "semicolon");
    assert_eq!(
        (&preview["rows"], &preview["is_whole"]),
        (&json!(2), &json!(true))
    );
    let columns = preview["columns"].as_array().unwrap();
    let targets: Vec<&Value> = columns.iter().map(|column| &column["target"]).collect();
    assert_eq!(targets[..2], [&json!("name"), &json!("website")]);
    assert_eq!(preview["sample"][0]["values"][0], "Müller GmbH");
    assert_eq!(
        preview["sample"][1]["issues"][0]["code"],
        "REQUIRED_MISSING"
    );
    assert_eq!(
        (&preview["refused_rows"], &preview["problem"]),
        (&json!(1), &Value::Null)
    );

    let mut custom = payload.clone();
    custom["mapping"] = json!({ "Notiz": "custom.note", "Firma": "" });
    let seen = look(&server, custom).await.body;
    assert_eq!(seen["preview"]["columns"][2]["target"], "custom.note");
    let problem = seen["preview"]["problem"].as_str().unwrap();
    assert!(problem.contains("no column for `name`"), "{problem}");

    // Nothing was written: no job, no import, no file beside the upload.
    assert_eq!(server.get("/api/imports").await.body["imports"], json!([]));
    assert_eq!(server.get("/api/jobs").await.body["jobs"], json!([]));
    let mut work = std::fs::read_dir(server.data_dir.path().join("work")).unwrap();
    assert!(work.next().is_none());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_looked_at_is_said_with_its_place() {
    let (_sandbox, server) = server().await;
    let payload = |url: &str| json!({ "file_url": url, "entity_type": "accounts" });
    let theirs = upload(&server, OTHER_KEY, FILE).await;
    for url in [
        theirs.as_str(),
        "upload://0192f5a1-7c3e-7d00-8000-3b9aca000000",
        "upload://x",
    ] {
        look(&server, payload(url))
            .await
            .problem(404, "upload_not_found");
    }
    for url in ["https://example.com/a.csv", "file:///etc/passwd", "x"] {
        let answer = look(&server, payload(url)).await;
        let detail = answer.problem(422, "invalid_request");
        assert!(detail.contains("only an upload"), "{detail}");
        assert_eq!(answer.body["errors"][0]["pointer"], "/file_url");
    }
    let pdf = upload(&server, KEY, "%PDF-1.7 …").await;
    let answer = look(&server, payload(&pdf)).await;
    let detail = answer.problem(422, "invalid_request");
    assert!(detail.contains("PDF"), "{detail}");
    let url = upload(&server, KEY, FILE).await;
    let mut wrong = payload(&url);
    wrong["mapping"] = json!({ "Umsatz": "name" });
    let answer = look(&server, wrong).await;
    answer.problem(422, "invalid_request");
    assert_eq!(answer.body["errors"][0]["pointer"], "/mapping");
    for (name, value) in [("entity_type", json!("deals")), ("more", json!(1))] {
        let mut wrong = payload(&url);
        wrong[name] = value;
        look(&server, wrong).await.problem(422, "invalid_request");
    }
    let mut wrong = payload(&url);
    wrong["options"] = json!({ "batch_size": 0 });
    look(&server, wrong).await.problem(422, "invalid_request");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_a_workbook_names_its_sheets() {
    let (_sandbox, server) = server().await;
    let mut book = rust_xlsxwriter::Workbook::new();
    for (name, header) in [("Leads", "name"), ("Alte", "firma")] {
        let sheet = book.add_worksheet().set_name(name).unwrap();
        sheet.write(0, 0, header).unwrap();
        sheet.write(1, 0, "Acme").unwrap();
    }
    let url = upload(&server, KEY, book.save_to_buffer().unwrap()).await;
    let mut payload = json!({ "file_url": url, "entity_type": "accounts" });
    let preview = look(&server, payload.clone()).await.body["preview"].clone();
    assert_eq!(preview["sheets"], json!(["Leads", "Alte"]));
    assert_eq!(
        (&preview["sheet"], &preview["rows"]),
        (&json!("Leads"), &json!(1))
    );
    payload["options"] = json!({ "sheet": "Alte" });
    let preview = look(&server, payload.clone()).await.body["preview"].clone();
    assert_eq!(preview["sheet"], "Alte");
    assert_eq!(preview["columns"][0]["header"], "firma");
    payload["options"] = json!({ "sheet": "Neue" });
    let answer = look(&server, payload).await;
    let detail = answer.problem(422, "invalid_request");
    assert!(detail.contains("it has: Leads, Alte"), "{detail}");
    assert_eq!(answer.body["errors"][0]["pointer"], "/options/sheet");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_saved_for_headers_and_maps_files_that_have_them() {
    let (_sandbox, server) = server().await;
    let url = upload(&server, KEY, "Wer;Wo;Mail address\nAcme;Rome;a@acme.com\n").await;
    let payload = json!({ "file_url": url, "entity_type": "accounts" });
    let preview = look(&server, payload.clone()).await.body["preview"].clone();
    assert_eq!(preview["template"], Value::Null);
    assert_eq!(preview["columns"][0]["confidence"], 0.0);
    assert!(preview["columns"][0]["proposals"].is_array());

    let path = "/api/import-templates";
    let wish = json!({
        "name": "Messe", "entity_type": "accounts", "headers": ["Mail address", "WO", "wer"],
        "mapping": { "Wer": "name", "Wo": "city" },
    });
    let saved = server.post(path, wish.clone()).await;
    assert_eq!(saved.status, 201, "{saved:?}");
    let id = saved.body["template"]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        saved.body["template"]["fingerprint"],
        preview["fingerprint"]
    );
    let mut other = wish.clone();
    other["mapping"] = json!({ "Wer": "name", "Wo": "country" });
    let again = server.post(path, other).await;
    assert_eq!(
        (again.status, &again.body["template"]["id"]),
        (200, &json!(id))
    );

    let preview = look(&server, payload.clone()).await.body["preview"].clone();
    assert_eq!(preview["template"], json!({ "id": id, "name": "Messe" }));
    assert_eq!(preview["columns"][0]["reason"], "template");
    assert_eq!(preview["columns"][0]["confidence"], 1.0);
    assert_eq!(preview["columns"][1]["target"], "country");
    assert_eq!(preview["problem"], Value::Null);

    // Of others nothing is seen, used or deleted.
    let theirs = server.anonymous(Method::GET, path).bearer_auth(OTHER_KEY);
    assert_eq!(send(theirs).await.body, json!({ "templates": [] }));
    let one = format!("{path}/{id}");
    let theirs = server
        .anonymous(Method::DELETE, &one)
        .bearer_auth(OTHER_KEY);
    send(theirs).await.problem(404, "import_template_not_found");
    assert_eq!(server.get(path).await.body["templates"][0]["id"], json!(id));

    for (name, value, pointer) in [
        ("headers", json!([]), "/headers"),
        ("headers", json!(["", " "]), "/headers"),
        ("mapping", json!({ "Wann": "name" }), "/mapping"),
        ("mapping", json!({ "Wer": "nam" }), "/mapping"),
        ("mapping", json!({ "Wo": "city" }), "/mapping"),
        ("name", json!(" "), "/name"),
    ] {
        let mut wrong = wish.clone();
        wrong[name] = value;
        let answer = server.post(path, wrong).await;
        answer.problem(422, "invalid_request");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer);
    }
    let gone = send(server.request(Method::DELETE, &one)).await;
    assert_eq!(gone.body, json!({ "success": true }));
    let gone = send(server.request(Method::DELETE, &one)).await;
    gone.problem(404, "import_template_not_found");
    let preview = look(&server, payload).await.body["preview"].clone();
    assert_eq!(preview["template"], Value::Null);
    let audit = server.get("/api/audit").await.body["audit"].clone();
    let noted = audit.as_array().unwrap().iter();
    let noted = noted.filter(|row| row["target_kind"] == "import_template");
    assert_eq!(noted.count(), 3, "{audit}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_are_listed_for_their_workspace() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let add = "WITH job AS (
        INSERT INTO jobs (workspace_id, job_type, payload)
          SELECT workspace_id, 'import_csv', '{}' FROM bullwark.api_keys
          WHERE hash = sha256($1::bytea) RETURNING id, workspace_id)
      INSERT INTO imports (id, workspace_id, entity_type, file_name, sha256, bytes, encoding,
        delimiter)
      SELECT id, workspace_id, 'accounts', $2, '', 1, 'UTF-8', 'comma' FROM job RETURNING id";
    let mut ids: Vec<uuid::Uuid> = Vec::new();
    for (key, name) in [(KEY, "a.csv"), (OTHER_KEY, "their.csv"), (KEY, "b.csv")] {
        let added = sqlx::query_scalar(add)
            .bind(key)
            .bind(name)
            .fetch_one(&pool)
            .await;
        ids.push(added.unwrap());
    }
    let names = |answer: &Answer| -> Vec<String> {
        let imports = answer.body["imports"].as_array().unwrap().iter();
        imports
            .map(|i| i["file_name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&server.get("/api/imports").await), ["b.csv", "a.csv"]);
    let page = server.get("/api/imports?limit=1").await;
    assert_eq!(names(&page), ["b.csv"]);
    let next = page.body["next_before"].as_str().unwrap();
    let page = server
        .get(&format!("/api/imports?limit=1&before={next}"))
        .await;
    assert_eq!(names(&page), ["a.csv"]);

    let one = server.get(&format!("/api/imports/{}", ids[0])).await;
    assert_eq!(one.body["import"]["file_name"], "a.csv");
    assert_eq!(one.body["import"]["has_report"], false);
    let theirs = server.get(&format!("/api/imports/{}", ids[1])).await;
    theirs.problem(404, "import_not_found");
    pool.close().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_has_an_import_undone_by_a_job() {
    let (sandbox, server) = server().await;
    let pool = sandbox.pool().await;
    let add = "WITH job AS (
        INSERT INTO jobs (workspace_id, job_type, payload, status, attempt, completed_at)
          SELECT workspace_id, 'import_csv', '{}', 'completed', 1, now() FROM bullwark.api_keys
          WHERE hash = sha256($1::bytea) RETURNING id, workspace_id)
      INSERT INTO imports (id, workspace_id, entity_type, sha256, bytes, encoding, delimiter,
        dry_run, status, finished_at)
      SELECT id, workspace_id, 'accounts', '', 1, 'UTF-8', 'comma', $2, 'completed', now()
      FROM job RETURNING id";
    let add = async |key: &str, dry_run: bool| -> uuid::Uuid {
        let added = sqlx::query_scalar(add).bind(key).bind(dry_run);
        added.fetch_one(&pool).await.unwrap()
    };
    let undo = async |id| {
        let path = format!("/api/imports/{id}/undo");
        send(server.request(Method::POST, &path)).await
    };
    let (ours, theirs) = (add(KEY, false).await, add(OTHER_KEY, false).await);
    undo(theirs).await.problem(404, "import_not_found");
    let dry = add(KEY, true).await;
    let answer = undo(dry).await;
    let detail = answer.problem(409, "import_state");
    assert!(detail.contains("dry run"), "{detail}");

    let asked = undo(ours).await;
    assert_eq!(asked.status, 202, "{asked:?}");
    assert!(asked.body["import"]["undo_asked_at"].is_string());
    let job = asked.body["job_id"].as_str().unwrap();
    let job = server.get(&format!("/api/jobs/{job}")).await.body;
    assert_eq!(job["job"]["job_type"], "undo_import", "{job}");
    let audit = server.get("/api/audit").await.body["audit"].clone();
    assert_eq!(audit[0]["action"], "import.undo", "{audit}");
    pool.close().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_field_is_declared_and_shown_in_a_look() {
    let (_sandbox, server) = server().await;
    let path = "/api/custom-fields";
    let wish = json!({ "entity_type": "accounts", "name": "Score", "kind": "number" });
    let declared = server.post(path, wish.clone()).await;
    assert_eq!(declared.status, 201, "{declared:?}");
    let id = declared.body["custom_field"]["id"].as_str().unwrap();
    let one = format!("{path}/{id}");
    let again = server.post(path, wish.clone()).await;
    assert_eq!(
        (again.status, &again.body["custom_field"]["id"]),
        (200, &json!(id))
    );

    let url = upload(&server, KEY, "name,score\nAcme,7\nBeta,seven\n").await;
    let payload = json!({ "file_url": url, "entity_type": "accounts" });
    let preview = look(&server, payload.clone()).await.body["preview"].clone();
    assert_eq!(preview["columns"][1]["target"], "custom.Score");
    let fields = preview["fields"].as_array().unwrap();
    assert!(fields.contains(&json!("custom.Score")));
    assert_eq!(preview["sample"][0]["issues"], json!([]));
    assert_eq!(preview["sample"][1]["issues"][0]["code"], "TYPE_MISMATCH");

    let theirs = server.anonymous(Method::GET, path).bearer_auth(OTHER_KEY);
    assert_eq!(send(theirs).await.body, json!({ "custom_fields": [] }));
    let theirs = server
        .anonymous(Method::DELETE, &one)
        .bearer_auth(OTHER_KEY);
    send(theirs).await.problem(404, "custom_field_not_found");
    for (name, value) in [
        ("name", json!("")),
        ("name", json!("x".repeat(101))),
        ("kind", json!("colour")),
        ("entity_type", json!("deals")),
    ] {
        let mut wrong = wish.clone();
        wrong[name] = value;
        server
            .post(path, wrong)
            .await
            .problem(422, "invalid_request");
    }
    let gone = send(server.request(Method::DELETE, &one)).await;
    assert_eq!(gone.body, json!({ "success": true }));
    let preview = look(&server, payload).await.body["preview"].clone();
    assert_eq!(preview["columns"][1]["target"], Value::Null);
    server.end().await;
}
