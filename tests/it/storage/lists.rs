//! The lists of the server: of objects (`ListObjectsV2`) and of uploads (`ListMultipartUploads`),
//! both from a place on, the second in portions.

use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, SecondsFormat, Utc};

use super::s3::{Bucket, Stored, Upload, find, plain};

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn answer(text: String) -> Response {
    plain(StatusCode::OK, text.into_bytes(), &[])
}

impl Bucket {
    pub(super) fn list(&self, query: &[(String, String)]) -> Response {
        let prefix = find(query, "prefix").unwrap_or_default();
        let after = find(query, "start-after").unwrap_or_default();
        let listed = self.objects.iter();
        let listed = listed.filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let entry = |(key, object): (&String, &Stored)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>{}</LastModified><ETag>{}</ETag>\
                 <Size>{}</Size></Contents>",
                time(object.modified),
                object.tag.replace('"', "&quot;"),
                object.content.len()
            )
        };
        let entries: String = listed.map(entry).collect();
        answer(format!("<ListBucketResult>{entries}</ListBucketResult>"))
    }

    pub(super) fn list_uploads(&self, query: &[(String, String)]) -> Response {
        let prefix = find(query, "prefix").unwrap_or_default();
        let max: usize = find(query, "max-uploads").unwrap().parse().unwrap();
        let id = find(query, "upload-id-marker").unwrap_or_default();
        let after = find(query, "key-marker").map(|key| (key, id));
        let mut listed: Vec<(&String, &Upload)> = self.uploads.iter().collect();
        listed.sort_by_key(|(id, upload)| (&upload.key, *id));
        listed.retain(|(id, upload)| {
            let place = (upload.key.clone(), (*id).clone());
            upload.key.starts_with(&prefix) && after.as_ref().is_none_or(|after| place > *after)
        });
        let entry = |(id, upload): &(&String, &Upload)| {
            format!(
                "<Upload><Key>{}</Key><UploadId>{id}</UploadId><Initiated>{}</Initiated></Upload>",
                upload.key,
                time(upload.begun),
            )
        };
        let more = match listed.get(..max).filter(|_| listed.len() > max) {
            Some([.., (id, upload)]) => format!(
                "<NextKeyMarker>{}</NextKeyMarker><NextUploadIdMarker>{id}</NextUploadIdMarker>\
                 <IsTruncated>true</IsTruncated>",
                upload.key
            ),
            _ => "<IsTruncated>false</IsTruncated>".to_owned(),
        };
        let entries: String = listed.iter().take(max).map(entry).collect();
        answer(format!(
            "<ListMultipartUploadsResult>{more}{entries}</ListMultipartUploadsResult>"
        ))
    }
}
