//! Bulk jobs: made, given a table once, closed, worked off when somebody looks, and asked for.

use hyper::Method;
use hyper::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::super::answers::Said;
use super::data::{Fields, Org};
use super::{Asked, error};

#[derive(Debug, Clone, Default)]
pub(super) struct BulkJob {
    object: String,
    /// The field of external ids; none: an update.
    key: Option<String>,
    pub(super) state: &'static str,
    pub(super) uploads: usize,
    table: Vec<u8>,
    processed: usize,
    failed: usize,
    good: Vec<u8>,
    bad: Vec<u8>,
    head: Vec<u8>,
}

impl Org {
    pub(super) fn bulk(&mut self, asked: &Asked<'_>, rest: &[&str], is_held: bool) -> Said {
        let body: Value = serde_json::from_slice(asked.body).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        if let (&Method::POST, []) = (asked.method, rest) {
            let id = self.next_id("IngestJob");
            let job = BulkJob {
                object: text("object").unwrap_or_default().to_owned(),
                key: text("externalIdFieldName").map(str::to_owned),
                state: "Open",
                ..BulkJob::default()
            };
            self.bulk.insert(id.clone(), job);
            return Said::json(200, &json!({ "id": id, "state": "Open" }));
        }
        let id = rest.first().copied().unwrap_or_default();
        let Some(mut job) = self.bulk.get(id).cloned() else {
            return error(404, "NOT_FOUND", "The requested resource does not exist");
        };
        let said = match (asked.method, &rest[1..]) {
            (&Method::PUT, ["batches"]) if job.state == "Open" && job.uploads == 0 => {
                job.uploads += 1;
                job.table = asked.body.to_vec();
                Said::json(201, &Value::Null)
            }
            (&Method::PUT, ["batches"]) => {
                self.broken += 1;
                error(400, "INVALIDJOBSTATE", "the job has its data already")
            }
            (&Method::PATCH, []) => match (job.state, text("state")) {
                ("Open", Some("UploadComplete")) => {
                    job.state = "UploadComplete";
                    Said::json(200, &json!({ "id": id, "state": job.state }))
                }
                ("Open" | "UploadComplete", Some("Aborted")) => {
                    job.state = "Aborted";
                    Said::json(200, &json!({ "id": id, "state": job.state }))
                }
                _ => error(400, "INVALIDJOBSTATE", "the job is not open"),
            },
            (&Method::GET, []) => {
                if job.state == "UploadComplete" && !is_held {
                    self.work_off(&mut job);
                }
                Said::json(
                    200,
                    &json!({
                        "id": id, "object": job.object, "state": job.state,
                        "numberRecordsProcessed": job.processed, "numberRecordsFailed": job.failed,
                    }),
                )
            }
            (&Method::GET, ["successfulResults"]) => table(&job.good),
            (&Method::GET, ["failedResults"]) => table(&job.bad),
            (&Method::GET, ["unprocessedrecords"]) => table(&job.head),
            _ => error(404, "NOT_FOUND", "The requested resource does not exist"),
        };
        self.bulk.insert(id.to_owned(), job);
        said
    }

    fn work_off(&mut self, job: &mut BulkJob) {
        let mut reader = csv::Reader::from_reader(job.table.as_slice());
        let head = reader.headers().cloned().unwrap_or_default();
        let mut writers = [["sf__Id", "sf__Created"], ["sf__Id", "sf__Error"]].map(|own| {
            let mut writer = csv::Writer::from_writer(Vec::new());
            let _ = writer.write_record(own.into_iter().chain(head.iter()));
            writer
        });
        // In another order than they were sent.
        let rows: Vec<csv::StringRecord> = reader.records().flatten().collect();
        for row in rows.iter().rev() {
            let mut record = Fields::new();
            for (name, value) in head.iter().zip(row.iter()) {
                match value {
                    "" => None,
                    "#N/A" => record.insert(name.to_owned(), Value::Null),
                    text => record.insert(name.to_owned(), json!(text)),
                };
            }
            let said = match &job.key {
                Some(key) => self.upsert(&job.object, key, record),
                None => self.update(&job.object, record),
            };
            job.processed += 1;
            let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
            let is_good = said["success"] == true;
            let (writer, own) = match is_good {
                true => (&mut writers[0], [text("id"), said["created"].to_string()]),
                false => {
                    job.failed += 1;
                    let error = &said["errors"][0];
                    let fields: Vec<&str> = error["fields"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .collect();
                    let (code, why) = (error["statusCode"].as_str(), error["message"].as_str());
                    let (code, why) = (code.unwrap_or_default(), why.unwrap_or_default());
                    let words = format!("{code}:{why}:{} --", fields.join(","));
                    (&mut writers[1], [String::new(), words])
                }
            };
            let own = own.iter().map(String::as_str);
            let _ = writer.write_record(own.chain(row.iter()));
        }
        let [good, bad] = writers.map(|writer| writer.into_inner().unwrap_or_default());
        (job.good, job.bad) = (good, bad);
        let mut writer = csv::Writer::from_writer(Vec::new());
        let _ = writer.write_record(&head);
        job.head = writer.into_inner().unwrap_or_default();
        job.state = "JobComplete";
    }
}

fn table(bytes: &[u8]) -> Said {
    Said {
        status: 200,
        headers: vec![(CONTENT_TYPE.as_str(), "text/csv".to_owned())],
        body: String::from_utf8_lossy(bytes).into_owned(),
        ..Said::default()
    }
}
