//! `verify_email`, against a real server of DNS.

mod after_enrichment;
mod dns;
mod post;
mod probing;

use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use bullwark::tasks::Tasks;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::support::server::OTHER_WORKSPACE;
use crate::webhooks::rig::Rig;
use dns::{Dns, Zone};

struct Stage {
    rig: Rig,
    dns: Dns,
    tasks: Tasks,
}

impl Stage {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With these settings, too.
    async fn with(settings: &[(&'static str, &str)]) -> Self {
        let tasks = Tasks::new();
        let dns = Dns::start(&tasks).await;
        dns.knows("good.com", Zone::Mail("mail.good.com."));
        dns.knows("mail.good.com", Zone::Address);
        let server = dns.addr.to_string();
        let asking = [("BULLWARK_DNS_SERVERS", server.as_str())];
        let rig = Rig::with(&[&asking[..], settings].concat()).await;
        Self { rig, dns, tasks }
    }

    async fn contact(&self, workspace: Uuid, email: Option<&str>) -> Uuid {
        let id = Uuid::now_v7();
        let email = email.map_or("NULL".to_owned(), |email| format!("'{email}'"));
        self.rig
            .sql(format!(
                "INSERT INTO contacts (id, workspace_id, external_id, email)
                 VALUES ('{id}', '{workspace}', '{id}', {email})"
            ))
            .await;
        id
    }

    async fn verified(&self, contacts: &[Uuid], max_age_days: i32) -> Value {
        let payload = json!({ "contact_ids": contacts, "max_age_days": max_age_days });
        let job = json!({ "jobType": "verify_email", "payload": payload });
        let id = self.rig.enqueue(job).await;
        self.rig.until(&id, "completed").await["result"].clone()
    }

    /// Its status, its reasons, and whether it was ever verified.
    async fn found(&self, contact: Uuid) -> Value {
        let sql = format!(
            "SELECT jsonb_build_array(email_status, email_reasons,
               email_checked_at IS NOT NULL) FROM contacts WHERE id = '{contact}'"
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&self.rig.pool)
            .await
            .unwrap()
    }

    /// Who was verified, and when.
    async fn checked(&self) -> Vec<(Uuid, chrono::DateTime<chrono::Utc>)> {
        sqlx::query_as(
            "SELECT id, email_checked_at FROM contacts
             WHERE email_checked_at IS NOT NULL ORDER BY id",
        )
        .fetch_all(&self.rig.pool)
        .await
        .unwrap()
    }

    async fn end(self) {
        self.tasks.stop(std::time::Duration::from_secs(10)).await;
        self.rig.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_what_dns_and_its_form_say() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    for (name, zone) in [
        ("null.com", Zone::Mail(".")),
        ("alone.com", Zone::Address),
        ("nothing.com", Zone::Empty),
        ("broken.com", Zone::Broken),
        ("silent.com", Zone::Silent),
        ("hollow.com", Zone::Mail("mail.gone.com.")),
        ("xn--bcher-kva.de", Zone::Mail("mail.good.com.")),
        ("guerrillamailblock.com", Zone::Mail("mail.good.com.")),
    ] {
        stage.dns.knows(name, zone);
    }
    let expected = [
        ("ann@good.com", "valid", json!([])),
        ("ann@b\u{fc}cher.de", "valid", json!([])),
        ("info@good.com", "risky", json!(["role"])),
        ("ann@guerrillamailblock.com", "risky", json!(["disposable"])),
        ("ann@alone.com", "risky", json!(["implicit_mail_server"])),
        ("ann@null.com", "invalid", json!(["takes_no_mail"])),
        ("ann@nothing.com", "invalid", json!(["no_mail_server"])),
        ("ann@hollow.com", "invalid", json!(["no_mail_server"])),
        ("ann@gone.com", "invalid", json!(["no_such_domain"])),
        ("ann@no-such-ending.zzzz", "invalid", json!(["syntax"])),
        ("ann@broken.com", "unknown", json!(["dns_unavailable"])),
        ("ann@silent.com", "unknown", json!(["dns_unavailable"])),
    ];
    let mut contacts = Vec::new();
    for (email, _, _) in &expected {
        contacts.push(stage.contact(DEFAULT_WORKSPACE, Some(email)).await);
    }
    let result = stage.verified(&contacts, 30).await;
    let by_status = json!({ "valid": 2, "risky": 3, "invalid": 5, "unknown": 2 });
    assert_eq!(result["verified"], by_status, "{result}");
    for ((email, status, reasons), contact) in expected.iter().zip(&contacts) {
        let found = stage.found(*contact).await;
        assert_eq!(found, json!([status, reasons, true]), "{email}");
    }
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_verified_lately_is_left_alone_and_a_domain_is_asked_for_once() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let mut contacts = Vec::new();
    for nth in 0..40 {
        let email = format!("person{nth}@good.com");
        contacts.push(stage.contact(DEFAULT_WORKSPACE, Some(&email)).await);
    }
    stage.verified(&contacts[..1], 30).await;
    let asked = stage.dns.asked("good.com");
    let result = stage.verified(&contacts, 30).await;
    assert_eq!(result["fresh"], 1, "{result}");
    assert_eq!(result["verified"]["valid"], 39);
    assert_eq!(stage.dns.asked("good.com"), asked, "the answer was there");
    assert_eq!(stage.verified(&contacts, 0).await["fresh"], 0);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_now_replaces_nothing_that_was_known() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    stage.dns.knows("late.com", Zone::Broken);
    let contact = stage.contact(DEFAULT_WORKSPACE, Some("ann@late.com")).await;
    let known = format!(
        "UPDATE contacts SET email_status = 'valid', email_checked_at = '2020-01-01'
         WHERE id = '{contact}'"
    );
    stage.rig.sql(known).await;
    let result = stage.verified(&[contact], 30).await;
    assert_eq!(result["kept"], 1, "{result}");
    assert_eq!(stage.found(contact).await[0], "valid");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_address_is_not_verified_because_the_one_before_was() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let contact = stage.contact(DEFAULT_WORKSPACE, Some("ann@good.com")).await;
    stage.verified(&[contact], 30).await;
    let same = format!("UPDATE contacts SET email = 'Ann@good.com' WHERE id = '{contact}'");
    stage.rig.sql(same).await;
    assert_eq!(
        stage.found(contact).await[0],
        "valid",
        "the same in other letters"
    );
    let other = format!("UPDATE contacts SET email = 'bob@good.com' WHERE id = '{contact}'");
    stage.rig.sql(other).await;
    assert_eq!(stage.found(contact).await, json!([null, null, false]));
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contacts_of_others_and_those_without_an_address_are_counted_and_left_alone() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let nothing = stage.contact(DEFAULT_WORKSPACE, None).await;
    let theirs = stage.contact(OTHER_WORKSPACE, Some("ann@good.com")).await;
    let result = stage.verified(&[nothing, theirs, Uuid::now_v7()], 30).await;
    assert_eq!(result["without_address"], 1, "{result}");
    assert_eq!(result["unknown_contacts"], 2, "{result}");
    assert_eq!(result["verified"], json!({}));
    assert_eq!(stage.found(theirs).await, json!([null, null, false]));
    assert_eq!(stage.dns.asked("good.com"), 0);
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_loses_and_repeats_no_more_than_the_last_addresses() {
    let stage = Stage::new().await;
    let nothing = stage.contact(DEFAULT_WORKSPACE, None).await;
    let theirs = stage.contact(OTHER_WORKSPACE, Some("ann@good.com")).await;
    let mut contacts = vec![nothing, theirs];
    for nth in 0..148 {
        let email = match nth % 10 {
            0 => format!("info@good{nth}.com"),
            1 => format!("ann@gone{nth}.com"),
            _ => format!("ann{nth}@good.com"),
        };
        let own = Zone::Mail("mail.good.com.");
        stage.dns.knows(&format!("good{nth}.com"), own);
        contacts.push(stage.contact(DEFAULT_WORKSPACE, Some(&email)).await);
    }
    let payload = json!({ "contact_ids": contacts, "max_age_days": 0 });
    let job = json!({ "jobType": "verify_email", "payload": payload });
    let id = stage.rig.enqueue(job).await;
    stage
        .rig
        .work_on_until_it_dies("default", "before_transaction_commit:abort")
        .await;
    let before = stage.checked().await;
    assert_eq!(before.len(), 126, "two times 64, but for the first two");
    let asked = stage.dns.asked("gone1.com");
    let (rescue, working) = (stage.rig.rescue(), stage.rig.work());
    let result = stage.rig.until(&id, "completed").await["result"].clone();
    let verified = json!({ "valid": 118, "risky": 15, "invalid": 15 });
    assert_eq!(result["verified"], verified, "{result}");
    let reasons = json!({ "role": 15, "no_such_domain": 15 });
    assert_eq!(result["reasons"], reasons, "{result}");
    let left = (&result["without_address"], &result["unknown_contacts"]);
    assert_eq!(left, (&json!(1), &json!(1)), "{result}");
    let others = (&result["fresh"], &result["kept"], &result["changed"]);
    assert_eq!(others, (&json!(0), &json!(0), &json!(0)), "{result}");
    let after = stage.checked().await;
    assert_eq!(after.len(), 148);
    assert_eq!(after[..126], before[..], "they were not verified again");
    assert_eq!(stage.dns.asked("gone1.com"), asked, "nor asked for");
    rescue.stop(std::time::Duration::from_secs(10)).await;
    working.hurry().await;
    stage.end().await;
}
