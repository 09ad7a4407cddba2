//! Mail servers are asked, if whoever runs the server and the job want it.

use std::time::{Duration, Instant};

use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::Stage;
use super::dns::Zone;
use super::post::{Mood, Post, recipient};

const ALLOW: (&str, &str) = ("BULLWARK_ALLOW_PRIVATE_ADDRESSES", "1");
const FROM: (&str, &str) = ("BULLWARK_SMTP_PROBE_FROM", "probe@mail.tester.example");
const SECONDS: (&str, &str) = ("BULLWARK_SMTP_PROBE_SECONDS", "1");
const PORT: &str = "BULLWARK_SMTP_PROBE_PORT";

struct Asking {
    stage: Stage,
    post: Post,
}

impl Asking {
    /// The mail servers of all domains are one server on this machine.
    async fn with(settings: &[(&'static str, &str)]) -> Self {
        let post = Post::start().await;
        let port = post.port.to_string();
        let settings = [settings, &[(PORT, port.as_str()), SECONDS]].concat();
        let stage = Stage::with(&settings).await;
        stage.dns.knows("mail.good.com", Zone::Here);
        Self { stage, post }
    }

    async fn new() -> Self {
        Self::with(&[FROM, ALLOW]).await
    }

    async fn contact(&self, email: &str) -> Uuid {
        let domain = email.rsplit_once('@').unwrap().1;
        if domain != "good.com" {
            self.stage.dns.knows(domain, Zone::Mail("mail.good.com."));
        }
        self.stage.contact(DEFAULT_WORKSPACE, Some(email)).await
    }

    async fn enqueue(&self, contacts: &[Uuid]) -> String {
        let payload = json!({ "contact_ids": contacts, "max_age_days": 0, "probe": true });
        let job = json!({ "jobType": "verify_email", "payload": payload });
        self.stage.rig.enqueue(job).await
    }

    async fn probed(&self, contacts: &[Uuid]) -> Value {
        let id = self.enqueue(contacts).await;
        self.stage.rig.until(&id, "completed").await["result"].clone()
    }

    async fn found(&self, contact: Uuid) -> (Value, Value) {
        let found = self.stage.found(contact).await;
        (found[0].clone(), found[1].clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_is_what_its_server_says() {
    let asking = Asking::new().await;
    let working = asking.stage.rig.work();
    let expected = [
        ("ann@good.com", "valid", json!(["mailbox_confirmed"])),
        (
            "info@good.com",
            "risky",
            json!(["role", "mailbox_confirmed"]),
        ),
        ("gone@good.com", "invalid", json!(["no_such_mailbox"])),
        ("plain@good.com", "invalid", json!(["no_such_mailbox"])),
        ("full@good.com", "risky", json!(["mailbox_full"])),
        ("later@good.com", "valid", json!(["probe_unclear"])),
        ("policy@good.com", "valid", json!(["probe_unclear"])),
        (
            "j\u{f6}rg@good.com",
            "risky",
            json!(["needs_smtputf8", "probe_unclear"]),
        ),
        ("ann@takes-all.com", "risky", json!(["catch_all"])),
        ("info@takes-all.com", "risky", json!(["role", "catch_all"])),
        ("ann@strict.com", "valid", json!(["mailbox_confirmed"])),
        ("plain@strict.com", "valid", json!(["probe_unclear"])),
        ("ann@grey.com", "valid", json!(["probe_unclear"])),
        ("gone@grey.com", "valid", json!(["probe_unclear"])),
        ("ann@short.com", "valid", json!(["mailbox_confirmed"])),
        ("cut@short.com", "valid", json!(["probe_unclear"])),
        ("gone@short.com", "valid", json!(["probe_unclear"])),
        ("ann@guerrillamailblock.com", "risky", json!(["disposable"])),
    ];
    let mut contacts = Vec::new();
    for (email, _, _) in &expected {
        contacts.push(asking.contact(email).await);
    }
    let gone = asking
        .stage
        .contact(DEFAULT_WORKSPACE, Some("ann@gone.com"))
        .await;
    let result = asking
        .probed(&[contacts.clone(), vec![gone]].concat())
        .await;
    for ((email, status, reasons), contact) in expected.iter().zip(&contacts) {
        let found = asking.found(*contact).await;
        assert_eq!(found, (json!(status), reasons.clone()), "{email}");
    }
    assert_eq!(asking.found(gone).await.1, json!(["no_such_domain"]));
    assert_eq!(result["reasons"]["no_such_mailbox"], 2, "{result}");

    let conversations = asking.post.conversations();
    assert_eq!(
        conversations.len(),
        5,
        "one for each domain: {conversations:?}"
    );
    for told in &conversations {
        assert_eq!(told[0], "EHLO mail.tester.example");
        assert_eq!(told[1], "MAIL FROM:<probe@mail.tester.example>");
        let first = recipient(&told[2]).unwrap();
        assert!(first.starts_with("no-such-mailbox-"), "{first}");
        let is_cut = told.iter().any(|line| line.contains("<cut@"));
        assert_eq!(told.last().unwrap() == "QUIT", !is_cut, "{told:?}");
        let verbs = told[2..].iter().filter(|line| *line != "QUIT");
        for line in verbs {
            assert!(
                recipient(line).is_some(),
                "nothing else, above all no DATA: {line}"
            );
        }
    }
    let asked = asking.post.asked();
    for nobody in [
        "takes-all.com",
        "grey.com",
        "guerrilla",
        "gone@short.com",
        "j\u{f6}rg",
    ] {
        let is_asked = asked.iter().any(|to| to.contains(nobody));
        assert!(!is_asked, "{nobody}: {asked:?}");
    }
    working.hurry().await;
    asking.stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_tells_nothing_costs_little_time_and_is_no_no() {
    let asking = Asking::new().await;
    let working = asking.stage.rig.work();
    for (mood, domain) in [
        (Mood::Silent, "silent.com"),
        (Mood::Closed, "closed.com"),
        (Mood::Secret, "secret.com"),
        (Mood::Endless, "endless.com"),
    ] {
        asking.post.is(mood);
        let contact = asking.contact(&format!("ann@{domain}")).await;
        let started = Instant::now();
        asking.probed(&[contact]).await;
        let unclear = (json!("valid"), json!(["probe_unclear"]));
        assert_eq!(asking.found(contact).await, unclear, "{mood:?}");
        assert!(started.elapsed() < Duration::from_secs(15), "{mood:?}");
    }
    assert_eq!(
        asking.post.conversations().len(),
        4,
        "nobody is tried twice"
    );
    assert_eq!(asking.post.asked(), [""; 0]);
    working.hurry().await;
    asking.stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mail_server_is_called_unless_the_server_and_the_job_want_it() {
    let asking = Asking::with(&[ALLOW]).await;
    let working = asking.stage.rig.work();
    let contact = asking.contact("ann@good.com").await;
    asking.stage.verified(&[contact], 0).await;
    let refused = asking.enqueue(&[contact]).await;
    let refused = asking.stage.rig.until(&refused, "dead_letter").await;
    let why = refused["error_message"].as_str().unwrap();
    assert!(why.contains("BULLWARK_SMTP_PROBE_FROM"), "{why}");
    assert_eq!(asking.post.conversations().len(), 0);
    working.hurry().await;
    asking.stage.end().await;

    let asking = Asking::new().await;
    let working = asking.stage.rig.work();
    let contact = asking.contact("ann@good.com").await;
    asking.stage.verified(&[contact], 0).await;
    assert_eq!(asking.found(contact).await, (json!("valid"), json!([])));
    assert_eq!(asking.post.conversations().len(), 0);
    working.hurry().await;
    asking.stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_servers_inside_of_this_network_are_not_called() {
    let asking = Asking::with(&[FROM]).await;
    let working = asking.stage.rig.work();
    let contact = asking.contact("gone@good.com").await;
    asking.probed(&[contact]).await;
    let unclear = (json!("valid"), json!(["probe_unclear"]));
    assert_eq!(asking.found(contact).await, unclear);
    assert_eq!(asking.post.conversations().len(), 0);
    working.hurry().await;
    asking.stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_there_is_passed_over() {
    let asking = Asking::new().await;
    let working = asking.stage.rig.work();
    let contact = asking.contact("gone@two.com").await;
    let dns = &asking.stage.dns;
    dns.knows(
        "two.com",
        Zone::Mails(&["beside.good.com.", "mail.good.com."]),
    );
    dns.knows("beside.good.com", Zone::HereBeside);
    asking.probed(&[contact]).await;
    assert_eq!(asking.found(contact).await.1, json!(["no_such_mailbox"]));
    working.hurry().await;
    asking.stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_is_asked_by_one_connection_at_a_time_for_some_addresses() {
    let asking = Asking::new().await;
    let working = asking.stage.rig.work();
    let mut jobs = Vec::new();
    for first in [0, 45] {
        let mut contacts = Vec::new();
        for nth in first..first + 45 {
            contacts.push(asking.contact(&format!("ann{nth}@good.com")).await);
        }
        jobs.push(asking.enqueue(&contacts).await);
    }
    for job in jobs {
        let result = asking.stage.rig.until(&job, "completed").await["result"].clone();
        let reasons = json!({ "mailbox_confirmed": 30, "not_probed": 15 });
        assert_eq!(result["reasons"], reasons, "{result}");
        assert_eq!(result["verified"], json!({ "valid": 45 }));
    }
    let conversations = asking.post.conversations();
    assert_eq!(conversations.len(), 6);
    for told in conversations {
        let recipients = told.iter().filter_map(|line| recipient(line)).count();
        assert_eq!(recipients, 11, "one that can not exist, and ten");
    }
    assert_eq!(asking.post.at_once("good.com"), 1);
    working.hurry().await;
    asking.stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_makes_no_domain_be_asked_for_more() {
    let asking = Asking::new().await;
    let mut contacts = Vec::new();
    for nth in 0..70 {
        contacts.push(asking.contact(&format!("ann{nth}@good.com")).await);
        contacts.push(asking.contact(&format!("ann{nth}@takes-all.com")).await);
    }
    let id = asking.enqueue(&contacts).await;
    let rig = &asking.stage.rig;
    rig.work_on_until_it_dies("default", "before_transaction_commit:abort")
        .await;
    let before = asking.post.conversations().len();
    assert_eq!(
        before, 4,
        "three for thirty addresses, one for a domain that takes all"
    );
    let (rescue, working) = (rig.rescue(), rig.work());
    let result = rig.until(&id, "completed").await["result"].clone();
    let reasons = json!({ "mailbox_confirmed": 30, "not_probed": 40, "catch_all": 70 });
    assert_eq!(result["reasons"], reasons, "{result}");
    assert_eq!(asking.post.conversations().len(), before);
    rescue.stop(Duration::from_secs(10)).await;
    working.hurry().await;
    asking.stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_now_replaces_nothing_that_it_once_said() {
    let asking = Asking::new().await;
    let working = asking.stage.rig.work();
    let contact = asking.contact("gone@good.com").await;
    asking.probed(&[contact]).await;
    let gone = (json!("invalid"), json!(["no_such_mailbox"]));
    assert_eq!(asking.found(contact).await, gone);
    asking.post.is(Mood::Closed);
    let result = asking.probed(&[contact]).await;
    assert_eq!(result["kept"], 1, "{result}");
    assert_eq!(asking.found(contact).await, gone);
    // Who does not ask servers wants to know what DNS says.
    asking.stage.verified(&[contact], 0).await;
    assert_eq!(asking.found(contact).await, (json!("valid"), json!([])));
    working.hurry().await;
    asking.stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_lets_nobody_out_is_noticed_and_told() {
    // Nobody listens there any more.
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port().to_string()
    };
    let settings = [FROM, ALLOW, SECONDS, (PORT, port.as_str())];
    let stage = Stage::with(&settings).await;
    stage.dns.knows("mail.good.com", Zone::Here);
    let post = Post::start().await;
    let asking = Asking { stage, post };
    let working = asking.stage.rig.work();
    let mut contacts = Vec::new();
    for nth in 0..30 {
        contacts.push(asking.contact(&format!("ann@out{nth}.com")).await);
    }
    let id = asking.enqueue(&contacts).await;
    let result = asking.stage.rig.until(&id, "completed").await["result"].clone();
    assert_eq!(
        result["reasons"],
        json!({ "probe_unclear": 30 }),
        "{result}"
    );
    let path = format!("/api/jobs/{id}/logs");
    let told = crate::stage::eventually("it is told", async || {
        let logs = asking.stage.rig.server.get(&path).await.body.to_string();
        logs.contains("port 25").then_some(logs)
    });
    assert_eq!(told.await.matches("port 25").count(), 1);
    working.hurry().await;
    asking.stage.end().await;
}
