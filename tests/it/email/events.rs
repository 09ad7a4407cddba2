//! Events of SendGrid: believed when they are signed, and counted once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::post::{Post, connect, step};
use crate::support::server::{Answer, send};
use crate::webhooks::receiver::Receiver;

const P256: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgA";

/// Signs as SendGrid does.
pub(crate) struct Teller {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Teller {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap();
        Self { pair, random }
    }

    /// As it is shown to who switches signing on.
    pub(crate) fn public_key(&self) -> String {
        let mut der = STANDARD.decode(format!("{P256}=")).unwrap();
        der.truncate(26);
        der.extend_from_slice(self.pair.public_key().as_ref());
        STANDARD.encode(der)
    }

    pub(crate) async fn tell(&self, post: &Post, path: &str, events: &Value) -> Answer {
        let (at, text) = (bullwark::clock::now().timestamp(), events.to_string());
        self.tell_text(post, path, at, (&text, &text)).await
    }

    /// Signs one text and sends another.
    async fn tell_text(
        &self,
        post: &Post,
        path: &str,
        at: i64,
        (signed, sent): (&str, &str),
    ) -> Answer {
        let text = format!("{at}{signed}");
        let signature = self.pair.sign(&self.random, text.as_bytes()).unwrap();
        let request = post.rig.server.anonymous(Method::POST, path);
        let request = request
            .header(
                "x-twilio-email-event-webhook-signature",
                STANDARD.encode(signature),
            )
            .header("x-twilio-email-event-webhook-timestamp", at)
            .header("content-type", "application/json")
            .body(sent.to_owned());
        send(request).await
    }
}

/// Mails by SendGrid, one for each contact, and where their events go.
async fn sent(post: &Post, teller: &Teller, count: i32) -> (String, Vec<String>) {
    let receiver = Receiver::start().await;
    let ids = post.contacts(count).await;
    let wish = json!({
        "provider": "sendgrid", "name": "sendgrid", "baseUrl": receiver.url(""),
        "credentials": { "api_key": "SG.hush", "webhook_public_key": teller.public_key() },
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
    (format!("/api/email/events/sendgrid/{connection}"), sends)
}

pub(crate) fn event(id: &str, kind: &str, send: &str) -> Value {
    json!({ "sg_event_id": id, "event": kind, "bullwark_send_id": send, "email": "x@x.example" })
}

#[tokio::test(flavor = "multi_thread")]
async fn events_say_what_became_of_mails_and_each_counts_once() {
    let (post, teller) = (Post::new().await, Teller::new());
    let (path, sends) = sent(&post, &teller, 7).await;
    let mut blocked = event("e4", "bounce", &sends[3]);
    blocked["type"] = json!("blocked");
    let doubt = format!(
        "UPDATE email_sends SET state = 'unknown' WHERE id = '{}'",
        sends[5]
    );
    post.rig.sql(doubt).await;
    let events = json!([
        event("e1", "delivered", &sends[0]),
        event("e2", "bounce", &sends[1]),
        event("e3", "spamreport", &sends[2]),
        blocked,
        event("e5", "group_unsubscribe", &sends[4]),
        event("e6", "delivered", &sends[5]),
        event("e7", "open", &sends[6]),
        event("e8", "delivered", &uuid::Uuid::now_v7().to_string()),
        { "event": "delivered", "sg_event_id": "e9" },
    ]);
    let taken = teller.tell(&post, &path, &events).await;
    assert_eq!(
        (taken.status, &taken.body["taken"]),
        (200, &json!(7)),
        "{taken:?}"
    );
    for _ in 0..2 {
        let again = teller.tell(&post, &path, &events).await;
        assert_eq!(
            (again.status, &again.body["taken"]),
            (200, &json!(0)),
            "{again:?}"
        );
    }
    // Late, and out of order: what is worse stays.
    let late = json!([
        event("f1", "delivered", &sends[1]),
        event("f2", "bounce", &sends[2]),
        event("f3", "processed", &sends[0]),
    ]);
    assert_eq!(teller.tell(&post, &path, &late).await.status, 200);
    let expected = [
        ("c1@x.example", "delivered event_delivered"),
        ("c2@x.example", "bounced event_bounced"),
        ("c3@x.example", "complained event_complained"),
        ("c4@x.example", "bounced event_blocked"),
        ("c5@x.example", "handed_over"),
        ("c6@x.example", "delivered event_delivered"),
        ("c7@x.example", "handed_over"),
    ];
    let expected = expected.map(|(to, fate)| (to.to_owned(), fate.to_owned()));
    assert_eq!(post.fates().await, expected.into());
    let listed = post.rig.server.get("/api/suppressions").await.body;
    let reasons: Vec<(&str, &str)> = listed["suppressions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (
                row["target"].as_str().unwrap(),
                row["reason"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        reasons,
        [
            ("c2@x.example", "bounced"),
            // It bounced later, which is another reason.
            ("c3@x.example", "bounced"),
            ("c3@x.example", "complained"),
            ("c5@x.example", "unsubscribed"),
        ]
    );
    let counted = "SELECT bounced * 10 + complained::bigint FROM email_domain_days";
    assert_eq!(post.value(counted).await, 11);
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_before_its_worker_has_noted_the_mail_counts() {
    let (post, teller) = (Post::new().await, Teller::new());
    let (path, sends) = sent(&post, &teller, 2).await;
    // As a worker leaves them that died, or is about to note them.
    let early = "UPDATE email_sends SET state = 'claimed', handed_over_at = NULL;
        DELETE FROM sequence_enrollments";
    post.rig.sql(early.to_owned()).await;
    let events = json!([
        event("e1", "processed", &sends[0]),
        event("e2", "bounce", &sends[1]),
    ]);
    assert_eq!(teller.tell(&post, &path, &events).await.status, 200);
    let expected = [
        ("c1@x.example", "handed_over event_taken"),
        ("c2@x.example", "bounced event_bounced"),
    ];
    let expected = expected.map(|(to, fate)| (to.to_owned(), fate.to_owned()));
    assert_eq!(post.fates().await, expected.into());
    let states = "SELECT count(*) FILTER (WHERE state = 'completed') * 10
        + count(*) FILTER (WHERE state = 'stopped') FROM sequence_enrollments";
    let states: i64 = post.value(states).await;
    assert_eq!(states, 20, "the sequence was through for both");
    post.rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_key_has_not_signed_changes_nothing() {
    let (post, teller) = (Post::new().await, Teller::new());
    let (path, sends) = sent(&post, &teller, 1).await;
    let events = json!([event("e1", "spamreport", &sends[0])]);
    let other = Teller::new().tell(&post, &path, &events).await;
    other.problem(401, "invalid_signature");
    let (now, text) = (bullwark::clock::now().timestamp(), events.to_string());
    let changed = teller.tell_text(&post, &path, now, ("[]", &text)).await;
    changed.problem(401, "invalid_signature");
    // What somebody kept for long.
    let old = now - 8 * 24 * 3600;
    let kept = teller.tell_text(&post, &path, old, (&text, &text)).await;
    kept.problem(401, "invalid_signature");
    let plain = post.rig.server.anonymous(Method::POST, &path).json(&events);
    send(plain).await.problem(401, "invalid_signature");
    // A connection that is not there, and one that has no key.
    let none = format!("/api/email/events/sendgrid/{}", uuid::Uuid::now_v7());
    let smtp = format!("/api/email/events/sendgrid/{}", post.connection);
    for path in [none.as_str(), &smtp, "/api/email/events/sendgrid/x"] {
        let refused = teller.tell(&post, path, &events).await;
        refused.problem(401, "invalid_signature");
    }
    let broken = teller.tell_text(&post, &path, now, ("{", "{")).await;
    broken.problem(400, "malformed_json");
    assert_eq!(post.fates().await["c1@x.example"], "handed_over");
    assert_eq!(
        post.value("SELECT count(*) FROM email_suppressions").await,
        0
    );

    // The connection of another workspace says nothing of this one's mails.
    let wish = json!({
        "provider": "sendgrid", "name": "s",
        "credentials": { "api_key": "x", "webhook_public_key": teller.public_key() },
    });
    let theirs = post.rig.server.anonymous(Method::POST, "/api/connections");
    let theirs = theirs
        .bearer_auth(crate::support::server::OTHER_KEY)
        .json(&wish);
    let theirs = send(theirs).await.body["connection"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/api/email/events/sendgrid/{theirs}");
    let foreign = teller.tell(&post, &path, &events).await;
    assert_eq!(foreign.status, 200, "{foreign:?}");
    assert_eq!(post.fates().await["c1@x.example"], "handed_over");
    assert_eq!(
        post.value("SELECT count(*) FROM email_suppressions").await,
        0
    );
    post.rig.end().await;
}
