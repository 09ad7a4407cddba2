//! Events of SES by SNS: believed when SNS has signed them for the topic of the connection, and
//! counted once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use super::post::{Post, connect, step};
use crate::support::server::{Answer, send};
use crate::webhooks::receiver::Receiver;

const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:mail";
const KEY: &str = include_str!("sns/key.pem");
const CERTIFICATE: &str = include_str!("sns/certificate.pem");

/// Stands in for SES and SNS.
struct Sns {
    receiver: Receiver,
    pair: RsaKeyPair,
}

impl Sns {
    async fn start() -> Self {
        let text: String = KEY.lines().filter(|line| !line.starts_with('-')).collect();
        let key = STANDARD.decode(text).unwrap();
        Self {
            receiver: Receiver::start().await,
            pair: RsaKeyPair::from_pkcs8(&key).unwrap(),
        }
    }

    /// The next question is for the certificate.
    fn show_certificate(&self) {
        self.receiver.answer_body("200 OK", CERTIFICATE);
    }

    /// A message as SNS signs it; the members that are said here go before.
    fn message(&self, id: &str, members: Value) -> Value {
        let now = bullwark::clock::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let mut message = json!({
            "Type": "Notification", "MessageId": id, "TopicArn": TOPIC, "Timestamp": now,
            "SignatureVersion": "2", "SigningCertURL": self.receiver.url("/sns.pem"),
            "Message": "",
        });
        for (name, value) in members.as_object().unwrap() {
            message[name] = value.clone();
        }
        let names: &[&str] = match message["Type"].as_str().unwrap() {
            "Notification" => &[
                "Message",
                "MessageId",
                "Subject",
                "Timestamp",
                "TopicArn",
                "Type",
            ],
            _ => &[
                "Message",
                "MessageId",
                "SubscribeURL",
                "Timestamp",
                "Token",
                "TopicArn",
                "Type",
            ],
        };
        let line = |name: &&str| Some(format!("{name}\n{}\n", message[*name].as_str()?));
        let text: String = names.iter().filter_map(line).collect();
        let mut signature = vec![0; self.pair.public().modulus_len()];
        let random = SystemRandom::new();
        let signed = self
            .pair
            .sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature);
        signed.unwrap();
        message["Signature"] = json!(STANDARD.encode(signature));
        message
    }

    fn event(&self, id: &str, mut event: Value, send: &str) -> Value {
        event["mail"] = json!({ "messageId": "x", "tags": { "bullwark_send_id": [send] } });
        self.message(
            id,
            json!({ "Message": event.to_string(), "Subject": "Amazon SES" }),
        )
    }
}

async fn tell(post: &Post, path: &str, message: &Value) -> Answer {
    let request = post.rig.server.anonymous(Method::POST, path);
    let request = request.header("content-type", "text/plain; charset=UTF-8");
    send(request.body(message.to_string())).await
}

/// Mails by SES, one for each contact, and where their events go.
async fn sent(post: &Post, sns: &Sns, count: i32) -> (String, Vec<String>) {
    let ids = post.contacts(count).await;
    let wish = json!({
        "provider": "ses", "name": "ses", "baseUrl": sns.receiver.url(""),
        "settings": {
            "region": "eu-central-1", "configuration_set": "events", "events_topic_arn": TOPIC,
        },
        "credentials": { "access_key_id": "AKIDEXAMPLE", "secret_access_key": "hush" },
    });
    let connection = connect(&post.rig, wish).await;
    let step = step(&post.rig, &post.sequence, &connection, "Hi").await;
    let working = post.rig.work();
    let payload = json!({
        "sequence_id": post.sequence, "sequence_step_id": step, "contact_ids": ids,
    });
    let job = json!({ "jobType": "send_email_batch", "payload": payload });
    let job = post.rig.enqueue(job).await;
    assert_eq!(post.summary(&job).await["sent"], count);
    working.hurry().await;
    let sends: Vec<String> = sqlx::query_scalar("SELECT id::text FROM email_sends ORDER BY place")
        .fetch_all(&post.rig.pool)
        .await
        .unwrap();
    (format!("/api/email/events/ses/{connection}"), sends)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_ses_say_what_became_of_mails_and_each_counts_once() {
    let (post, sns) = (Post::new().await, Sns::start().await);
    let (path, sends) = sent(&post, &sns, 6).await;
    let doubt = format!(
        "UPDATE email_sends SET state = 'unknown' WHERE id = '{}'",
        sends[5]
    );
    post.rig.sql(doubt).await;
    let asked = sns.receiver.got().len();
    sns.show_certificate();
    let messages = [
        sns.event("m1", json!({ "eventType": "Delivery" }), &sends[0]),
        sns.event(
            "m2",
            json!({ "eventType": "Bounce", "bounce": { "bounceType": "Permanent" } }),
            &sends[1],
        ),
        sns.event(
            "m3",
            json!({ "eventType": "Bounce", "bounce": { "bounceType": "Transient" } }),
            &sends[2],
        ),
        sns.event("m4", json!({ "eventType": "Complaint" }), &sends[3]),
        sns.event("m5", json!({ "eventType": "Reject" }), &sends[4]),
        sns.event("m6", json!({ "eventType": "DeliveryDelay" }), &sends[5]),
    ];
    for expected in [1, 0] {
        for message in &messages {
            let taken = tell(&post, &path, message).await;
            assert_eq!(
                (taken.status, &taken.body["taken"]),
                (200, &json!(expected)),
                "{taken:?}"
            );
        }
    }
    assert_eq!(
        sns.receiver.got().len(),
        asked + 1,
        "one look at the certificate"
    );
    let fates = post.fates().await;
    for (contact, fate) in [
        ("c1", "delivered event_delivered"),
        ("c2", "bounced event_bounced"),
        ("c3", "bounced event_blocked"),
        ("c4", "complained event_complained"),
        ("c5", "failed event_dropped"),
        ("c6", "handed_over event_taken"),
    ] {
        assert_eq!(fates[&format!("{contact}@x.example")], fate);
    }
    let suppressed: Vec<(String, String)> =
        sqlx::query_as("SELECT target, source FROM email_suppressions ORDER BY target")
            .fetch_all(&post.rig.pool)
            .await
            .unwrap();
    let ses = |target: &str| (target.to_owned(), "ses".to_owned());
    assert_eq!(suppressed, [ses("c2@x.example"), ses("c4@x.example")]);
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_of_the_topic_is_confirmed_and_no_other() {
    let (post, sns) = (Post::new().await, Sns::start().await);
    let (path, _) = sent(&post, &sns, 1).await;
    let before = sns.receiver.got().len();
    let subscription = |topic: &str, url: String| {
        let members = json!({
            "Type": "SubscriptionConfirmation", "TopicArn": topic, "Token": "secret",
            "SubscribeURL": url, "Message": "You have chosen to subscribe",
        });
        sns.message("s1", members)
    };
    let url = || sns.receiver.url("/?Action=ConfirmSubscription");
    // Signed by SNS, but for the topic of somebody else.
    let other = subscription("arn:aws:sns:eu-central-1:666:evil", url());
    tell(&post, &path, &other)
        .await
        .problem(401, "invalid_signature");
    assert_eq!(sns.receiver.got().len(), before, "nobody is asked for it");
    // Signed, but it leads elsewhere.
    sns.show_certificate();
    let elsewhere = subscription(TOPIC, "http://127.0.0.1:1/confirm".to_owned());
    tell(&post, &path, &elsewhere)
        .await
        .problem(401, "invalid_signature");
    let confirmed = tell(&post, &path, &subscription(TOPIC, url())).await;
    assert_eq!(confirmed.status, 200, "{confirmed:?}");
    let got = sns.receiver.got();
    assert_eq!(got.last().unwrap().path, "/?Action=ConfirmSubscription");
    assert_eq!(got.len(), before + 2);
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sns_has_not_signed_changes_nothing() {
    let (post, sns) = (Post::new().await, Sns::start().await);
    let (path, sends) = sent(&post, &sns, 1).await;
    let good = sns.event("m1", json!({ "eventType": "Complaint" }), &sends[0]);
    // The certificate can not be had: SNS is to send it again.
    sns.receiver.answer_with(&[("503 Busy", "")]);
    tell(&post, &path, &good)
        .await
        .problem(503, "keys_unavailable");
    sns.show_certificate();
    let changed = |name: &str, value: Value| {
        let mut message = good.clone();
        message[name] = value;
        message
    };
    let old = json!({ "Timestamp": "2026-01-01T00:00:00.000Z" });
    for wrong in [
        changed("MessageId", json!("m2")),
        changed("Signature", json!("AAAA")),
        changed("Signature", json!("no base64!")),
        changed("SignatureVersion", json!("3")),
        changed("SignatureVersion", json!("1")),
        changed("SigningCertURL", json!("https://evil.example/sns.pem")),
        changed("TopicArn", json!("arn:aws:sns:eu-central-1:666:evil")),
        changed("Type", json!("Gossip")),
        sns.message("m3", old),
        json!({}),
        json!([]),
    ] {
        tell(&post, &path, &wrong)
            .await
            .problem(401, "invalid_signature");
    }
    for path in [
        format!("/api/email/events/ses/{}", uuid::Uuid::now_v7()),
        format!("/api/email/events/ses/{}", post.connection),
        "/api/email/events/ses/x".to_owned(),
    ] {
        tell(&post, &path, &good)
            .await
            .problem(401, "invalid_signature");
    }
    assert_eq!(
        post.value("SELECT count(*) FROM email_suppressions").await,
        0
    );
    assert_eq!(tell(&post, &path, &good).await.body["taken"], 1);
    post.rig.end().await;
}
