//! Exports, uploads and error reports go to the bucket and come from it.

use std::time::Duration;

use bullwark::storage::Round;
use bullwark::uploads::Uploads;
use reqwest::Method;
use serde_json::json;

use super::s3::S3;
use super::{PREFIX, rig};
use crate::support::server::send;

const CSV: &str = "name,description\r\nAcme,\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_in_the_bucket_alone_and_is_downloaded_from_there() {
    let s3 = S3::start().await;
    let rig = rig(&s3).await;
    rig.account("Acme").await;
    let working = rig.work();
    let id = rig.export().await;
    let job = rig.until(&id, "completed").await;
    let key = format!("{PREFIX}/exports/{id}.1.csv");
    assert_eq!(s3.keys(), std::slice::from_ref(&key));
    assert_eq!(job["result"]["file"], format!("exports/{id}.1.csv"));
    assert_eq!(
        rig.here("exports"),
        [""; 0],
        "nothing is left on this machine"
    );

    let whole = rig.exported_file(&id, &[]).await;
    assert_eq!((whole.status, &whole.body), (200, &json!(CSV)));
    for (name, value) in [
        ("content-type", "text/csv; charset=utf-8"),
        ("accept-ranges", "bytes"),
        ("cache-control", "private, no-store"),
        ("content-length", &CSV.len().to_string()),
    ] {
        assert_eq!(whole.header(name), value);
    }
    let tag = whole.header("etag").to_owned();
    let part = rig.exported_file(&id, &[("range", "bytes=5-10")]).await;
    assert_eq!((part.status, &part.body), (206, &json!(CSV[5..=10])));
    assert_eq!(
        part.header("content-range"),
        format!("bytes 5-10/{}", CSV.len())
    );
    let changed = [("range", "bytes=5-10"), ("if-range", "\"another\"")];
    assert_eq!(rig.exported_file(&id, &changed).await.status, 200);
    let beyond = rig.exported_file(&id, &[("range", "bytes=5000-")]).await;
    beyond.problem(416, "range_not_satisfiable");
    assert_eq!(
        beyond.header("content-range"),
        format!("bytes */{}", CSV.len())
    );
    assert_eq!(
        rig.exported_file(&id, &[("if-none-match", &tag)])
            .await
            .status,
        304
    );
    let other = rig.exported_file(&id, &[("if-match", "\"x\"")]).await;
    other.problem(412, "precondition_failed");
    let head = format!("/api/exports/{id}/file");
    let head = rig
        .server
        .request(Method::HEAD, &head)
        .send()
        .await
        .unwrap();
    assert_eq!(
        head.headers()["content-length"],
        CSV.len().to_string().as_str()
    );
    assert_eq!(head.text().await.unwrap(), "");

    let link = format!("/api/exports/{id}/links");
    let link = rig.server.post(&link, serde_json::Value::Null).await;
    let link = link.body["url"].as_str().unwrap().to_owned();
    let linked = send(rig.server.anonymous(Method::GET, &link)).await;
    assert_eq!((linked.status, &linked.body), (200, &json!(CSV)));

    // Its days are over; what is next to it stays, and what is of somebody else.
    s3.put("some/where/else.csv", b"x");
    s3.put("exports/other.csv", b"x");
    let kept = rig.export().await;
    rig.until(&kept, "completed").await;
    s3.age();
    assert_eq!(rig.sweep().await, 0);
    rig.sql(format!(
        "UPDATE exports SET expires_at = now() WHERE id = '{id}'"
    ))
    .await;
    assert_eq!(rig.sweep().await, 1);
    let kept = format!("{PREFIX}/exports/{kept}.1.csv");
    assert_eq!(
        s3.keys(),
        ["exports/other.csv", "some/where/else.csv", &kept]
    );
    rig.exported_file(&id, &[])
        .await
        .problem(410, "export_expired");
    assert_eq!(s3.bucket().refused, 0, "every request was signed");
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_imported_from_the_bucket_and_its_error_report_goes_there() {
    let s3 = S3::start().await;
    let rig = rig(&s3).await;
    let content = "name,domain\nAcme,acme.com\n,nobody.com\n";
    let request = rig
        .server
        .request(Method::POST, "/api/uploads?filename=a.csv");
    let answer = send(request.body(content)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.body["upload"]["id"].as_str().unwrap().to_owned();
    let keys = ["", ".json"].map(|end| format!("{PREFIX}/uploads/{id}{end}"));
    assert_eq!(s3.keys(), keys);
    assert_eq!(rig.here("uploads"), [""; 0]);

    let url = format!("upload://{id}");
    let wish = json!({ "file_url": url, "entity_type": "accounts" });
    let looked = rig.server.post("/api/imports/preview", wish.clone()).await;
    assert_eq!(looked.status, 200, "{looked:?}");
    let working = rig.work();
    let job = rig
        .enqueue(json!({ "jobType": "import_csv", "payload": wish }))
        .await;
    let done = rig.until(&job, "completed").await;
    assert_eq!(done["result"]["inserted"], 1, "{done}");
    let report = format!("{PREFIX}/reports/{job}.csv");
    assert!(s3.keys().contains(&report), "{:?}", s3.keys());
    assert_eq!(rig.here("reports"), [""; 0]);
    let report = rig.server.get(&format!("/api/jobs/{job}/report")).await;
    assert_eq!(report.status, 200, "{report:?}");
    assert!(report.body.as_str().unwrap().contains("nobody.com"));
    assert_eq!(rig.here("work"), [""; 0], "copies are gone");

    // Somebody changed it in the bucket.
    s3.put(&keys[0], b"name\nEvil\n");
    let job = rig
        .enqueue(json!({ "jobType": "import_csv", "payload": wish }))
        .await;
    let failed = rig.until(&job, "failed").await;
    let error = failed["last_error"].to_string() + &failed["error_message"].to_string();
    assert!(error.contains("is not what was uploaded"), "{failed}");
    working.hurry().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_lost_its_client_or_its_server_leaves_nothing_for_long() {
    let s3 = S3::start().await;
    let rig = rig(&s3).await;
    let services = rig.server.app.services();
    let uploads = Uploads::new(&services.storage);
    // The process died behind the content.
    s3.put(&format!("{PREFIX}/uploads/{}", uuid::Uuid::now_v7()), b"x");
    // And another one in the middle of a large one.
    let mut incoming = uploads.begin(uuid::Uuid::nil(), "a.csv").await.unwrap();
    for _ in 0..9 {
        incoming.write(&vec![b'x'; 1024 * 1024]).await.unwrap();
    }
    s3.hold("partNumber=2");
    tokio::select! {
        _ = incoming.finish() => panic!("it stands still"),
        () = s3.is_held.notified() => {}
    }
    s3.release();
    assert_eq!(s3.bucket().uploads.len(), 1);
    assert_eq!(rig.here("uploads"), [""; 0]);
    let sweep = async || {
        let swept = uploads.sweep(&mut Round::default()).await.unwrap();
        (swept.removed, swept.refused)
    };
    assert_eq!(sweep().await, (0, 0), "they are young");
    s3.age();
    assert_eq!(sweep().await, (2, 0));
    assert_eq!((s3.keys().len(), s3.bucket().uploads.len()), (0, 0));
    tokio::time::timeout(Duration::from_secs(5), rig.end())
        .await
        .unwrap();
}
