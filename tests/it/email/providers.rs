//! SendGrid and Amazon SES: what they are sent, and what their answers mean.

use serde_json::{Value, json};

use super::post::{Post, connect, step};
use crate::webhooks::receiver::{Got, Receiver};

/// A step over another connection; the payload that sends it.
pub(super) async fn by(post: &Post, wish: Value, contacts: &[uuid::Uuid]) -> (String, Value) {
    let connection = connect(&post.rig, wish).await;
    let step = step(
        &post.rig,
        &post.sequence,
        &connection,
        "Hi {{ first_name }}",
    )
    .await;
    let payload = json!({
        "sequence_id": post.sequence, "sequence_step_id": step, "contact_ids": contacts,
    });
    let job = json!({ "jobType": "send_email_batch", "payload": payload });
    (format!("/api/connections/{connection}"), job)
}

pub(super) fn sendgrid(receiver: &Receiver) -> Value {
    json!({
        "provider": "sendgrid", "name": "sendgrid", "baseUrl": receiver.url(""),
        "credentials": { "api_key": "SG.hush" },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn sendgrid_is_sent_what_it_documents_and_its_id_is_kept() {
    let (post, receiver) = (Post::new().await, Receiver::start().await);
    let ids = [post.contact("ada@x.example", Some("Ada")).await];
    let (_, job) = by(&post, sendgrid(&receiver), &ids).await;
    receiver.answer_with(&[("202 Accepted", "x-message-id: 14c5d75ce93\r\n")]);
    let working = post.rig.work();
    let job = post.rig.enqueue(job).await;
    assert_eq!(post.summary(&job).await["sent"], 1);
    let got = &receiver.got()[0];
    assert_eq!(got.path, "/v3/mail/send");
    assert_eq!(got.header("authorization"), "Bearer SG.hush");
    let body = got.body();
    let sends = post.rig.server.get("/api/email/sends").await.body;
    let send = &sends["sends"][0];
    assert_eq!(send["provider_id"], "14c5d75ce93");
    assert_eq!(
        body["personalizations"],
        json!([{
            "to": [{ "email": "ada@x.example" }],
            "custom_args": { "bullwark_send_id": send["id"] },
        }])
    );
    assert_eq!(
        body["from"],
        json!({ "email": "news@acme.example", "name": "Acme" })
    );
    assert_eq!(body["subject"], "Hi Ada");
    let kinds: Vec<&Value> = body["content"].as_array().unwrap().iter().collect();
    assert_eq!(
        (&kinds[0]["type"], &kinds[1]["type"]),
        (&json!("text/plain"), &json!("text/html"))
    );
    let headers = &body["headers"];
    assert_eq!(
        headers["List-Unsubscribe-Post"],
        "List-Unsubscribe=One-Click"
    );
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_of_sendgrid_means_what_it_says_for_the_mail() {
    let (post, receiver) = (Post::new().await, Receiver::start().await);
    let ids = [post.contact("ada@x.example", Some("Ada")).await];
    let (connection, job) = by(&post, sendgrid(&receiver), &ids).await;
    let working = post.rig.work();
    for (answer, fate) in [
        ("400 Bad Request", "failed message_rejected"),
        ("500 Error", "unknown no_answer"),
        ("504 Gateway", "unknown no_answer"),
    ] {
        post.rig.sql("DELETE FROM email_sends".to_owned()).await;
        receiver.answer_with(&[(answer, "")]);
        let job = post.rig.enqueue(job.clone()).await;
        post.summary(&job).await;
        assert_eq!(post.fates().await["ada@x.example"], fate, "{answer}");
    }
    // What is true of every mail ends the job, and leaves its mails to another one.
    post.rig.sql("DELETE FROM email_sends".to_owned()).await;
    receiver.answer_with(&[("403 Forbidden", "")]);
    let refused = post.rig.enqueue(job.clone()).await;
    let dead = post.rig.until(&refused, "dead_letter").await;
    let why = dead["error_message"].as_str().unwrap();
    assert!(why.contains("403"), "{why}");
    assert_eq!(post.fates().await["ada@x.example"], "planned not_available");
    post.rig.sql("DELETE FROM email_sends".to_owned()).await;
    receiver.answer_with(&[("401 Unauthorized", "")]);
    let resting = post.rig.enqueue(job.clone()).await;
    post.put_off(&resting).await;
    assert_eq!(post.fates().await["ada@x.example"], "planned not_available");
    let row = post.rig.server.get(&connection).await.body["connection"].clone();
    assert_eq!(row["is_active"], false, "{row}");
    let asked = receiver.got().len();
    post.rig
        .patch(&connection, json!({ "isActive": true }))
        .await;
    // It says for how long, and then nobody calls.
    receiver.answer_with(&[("429 Too Many", "retry-after: 600\r\n")]);
    post.promote(&resting).await;
    receiver.until(asked + 1).await;
    let waiting = post.put_off(&resting).await;
    assert_eq!(waiting["attempts"], 0);
    post.promote(&resting).await;
    post.put_off(&resting).await;
    assert_eq!(
        receiver.got().len(),
        asked + 1,
        "nobody calls while it is closed"
    );
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_ill_brings_one_group_in_doubt_and_no_more() {
    let (post, receiver) = (Post::new().await, Receiver::start().await);
    let ids = post.contacts(30).await;
    let (_, job) = by(&post, sendgrid(&receiver), &ids).await;
    receiver.answer_with(&[("500 Error", ""); 30]);
    let working = post.rig.work();
    let job = post.rig.enqueue(job).await;
    let failed = post.rig.until(&job, "failed").await;
    let why = failed["error_message"].as_str().unwrap();
    assert!(why.contains("none of 10 mails was answered"), "{why}");
    let doubt = "SELECT count(*) FROM email_sends WHERE state = 'unknown'";
    assert_eq!((post.value(doubt).await, receiver.got().len()), (10, 10));
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_is_refused_ends_the_job_and_fails_no_mail() {
    let post = Post::new().await;
    let ids = post.contacts(3).await;
    let path = format!("/api/sequences/{}/steps/{}", post.sequence, post.step);
    let step = json!({
        "connectionId": post.connection, "fromAddress": "refused@acme.example",
        "subject": "Hi", "textBody": "x",
    });
    let put = post.rig.server.request(reqwest::Method::PUT, &path);
    let put = crate::support::server::send(put.json(&step)).await;
    assert_eq!(put.status, 200, "{put:?}");
    let working = post.rig.work();
    let job = post.send(&ids).await;
    let dead = post.rig.until(&job, "dead_letter").await;
    let why = dead["error_message"].as_str().unwrap();
    assert!(
        why.contains("553") && why.contains("not your address"),
        "{why}"
    );
    assert!(post.smtp.got().is_empty());
    let planned = "SELECT count(*) FROM email_sends WHERE state = 'planned'";
    assert_eq!(post.value(planned).await, 3);
    let used = "SELECT used::bigint FROM email_domains";
    assert_eq!(post.value(used).await, 0, "nothing was sent");
    // The next job sends them, from an address that may.
    let mut step = step;
    step["fromAddress"] = json!("news@acme.example");
    let put = post.rig.server.request(reqwest::Method::PUT, &path);
    crate::support::server::send(put.json(&step)).await;
    let job = post.send(&ids).await;
    assert_eq!(post.summary(&job).await["sent"], 3);
    working.hurry().await;
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ses_is_asked_for_its_quota_and_sent_a_signed_request() {
    let (post, receiver) = (Post::new().await, Receiver::start().await);
    let ids = post.contacts(3).await;
    let wish = json!({
        "provider": "ses", "name": "ses", "baseUrl": receiver.url(""),
        "settings": { "region": "eu-central-1", "configuration_set": "events" },
        "credentials": { "access_key_id": "AKIDEXAMPLE", "secret_access_key": "hush" },
    });
    let (_, job) = by(&post, wish, &ids).await;
    let working = post.rig.work();
    let job = post.rig.enqueue(job).await;
    assert_eq!(post.summary(&job).await["sent"], 3);
    let got = receiver.got();
    assert_eq!(got[0].path, "/v2/email/account");
    let mails: Vec<&Got> = got[1..].iter().collect();
    assert_eq!(mails.len(), 3);
    for mail in mails {
        assert_eq!(mail.path, "/v2/email/outbound-emails");
        let authorization = mail.header("authorization");
        let start = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/";
        assert!(authorization.starts_with(start), "{authorization}");
        let scope = "/eu-central-1/ses/aws4_request, SignedHeaders=host;x-amz-date, Signature=";
        assert!(authorization.contains(scope), "{authorization}");
        let body = mail.body();
        assert_eq!(body["ConfigurationSetName"], "events");
        assert_eq!(body["EmailTags"][0]["Name"], "bullwark_send_id");
        let raw = body["Content"]["Raw"]["Data"].as_str().unwrap();
        use base64::Engine as _;
        let raw = base64::engine::general_purpose::STANDARD
            .decode(raw)
            .unwrap();
        let raw = String::from_utf8(raw).unwrap();
        let to = body["Destination"]["ToAddresses"][0].as_str().unwrap();
        assert!(raw.contains(&format!("To: {to}\r\n")), "{raw}");
        assert!(raw.contains("List-Unsubscribe-Post: "), "{raw}");
    }

    // What it calls an error, by name.
    post.rig.sql("DELETE FROM email_sends".to_owned()).await;
    let answers = [
        ("200 OK", ""),
        ("400 Bad", "x-amzn-errortype: MessageRejected:http://x/\r\n"),
        ("400 Bad", "x-amzn-errortype: BadRequestException\r\n"),
        ("500 Error", "x-amzn-errortype: InternalFailure\r\n"),
    ];
    receiver.answer_with(&answers);
    let retold: Value = post.rig.server.get(&format!("/api/jobs/{job}")).await.body;
    let again = json!({
        "jobType": "send_email_batch", "payload": retold["job"]["payload"],
    });
    let again = post.rig.enqueue(again).await;
    let summary = post.summary(&again).await;
    assert_eq!(
        summary["reasons"],
        json!({ "message_rejected": 2, "no_answer": 1 })
    );
    post.rig.sql("DELETE FROM email_sends".to_owned()).await;
    let unverified = "x-amzn-errortype: MailFromDomainNotVerifiedException\r\n";
    receiver.answer_with(&[("200 OK", ""), ("400 Bad", unverified)]);
    let payload = json!({
        "sequence_id": post.sequence, "sequence_step_id": retold["job"]["payload"]
        ["sequence_step_id"], "contact_ids": &ids[..1],
    });
    let wish = json!({ "jobType": "send_email_batch", "payload": payload });
    let job = post.rig.enqueue(wish).await;
    post.rig.until(&job, "dead_letter").await;
    assert_eq!(post.fates().await["c1@x.example"], "planned not_available");
    working.hurry().await;
    post.rig.end().await;
}
