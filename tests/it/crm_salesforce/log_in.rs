//! Log-ins by a signed assertion: who signs it, for whom, and what is told when it is not taken.

use bullwark::handlers::crm::client::Crm;
use bullwark::handlers::simulator::Signer;
use serde_json::{Value, json};

use super::{ORG, Stage};

/// Keys of nothing but tests.
const KEY: &str = include_str!("../email/sns/key.pem");
const CERTIFICATE: &str = include_str!("../email/sns/certificate.pem");
const OF_ANOTHER: &str = include_str!("other.pem");
const USER: &str = "integration@acme.example";

async fn stage() -> Stage {
    let credentials = json!({ "client_id": ORG, "username": USER, "private_key": KEY });
    Stage::with(credentials).await
}

impl Stage {
    fn trust(&self, certificate: &str, username: &str, audience: &str) {
        let signer = Signer {
            certificate: certificate.to_owned(),
            username: username.to_owned(),
            audience: audience.to_owned(),
        };
        self.there().trust(ORG, signer);
    }

    /// A job that only looks who it is there.
    async fn look(&self) -> String {
        let look = self.start(|crm| async move { Ok(json!(crm.identity().await?.user_id)) });
        look.await
    }

    async fn paused_reason(&self) -> String {
        crate::stage::eventually("the connection is paused", async || {
            let all = self.rig.server.get("/api/connections").await.body;
            let why = all["connections"][0]["paused_reason"].as_str();
            why.map(str::to_owned)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_is_signed_with_the_key_for_the_user_and_the_log_in() {
    let stage = stage().await;
    stage.trust(CERTIFICATE, USER, &stage.simulator.url());
    let job = stage.look().await;
    let done = stage.rig.until(&job, "completed").await;
    assert_ne!(done["result"], Value::Null, "{done}");
    assert_eq!(stage.there().log_ins(), 1);
    assert!(!done.to_string().contains("PRIVATE KEY"), "{done}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_that_is_not_taken_says_what_to_look_at() {
    for (certificate, user, audience, words) in [
        (OF_ANOTHER, USER, None, "must belong together"),
        (
            CERTIFICATE,
            "somebody@acme.example",
            None,
            "pre-authorize the user",
        ),
        (
            CERTIFICATE,
            USER,
            Some("https://login.salesforce.com"),
            "its `baseUrl` must be",
        ),
    ] {
        let stage = stage().await;
        let own = stage.simulator.url();
        stage.trust(certificate, user, audience.unwrap_or(&own));
        stage.look().await;
        let why = stage.paused_reason().await;
        assert!(why.contains(words), "{why}");
        assert!(!why.contains("PRIVATE KEY"), "{why}");
        assert_eq!(
            stage.there().calls(),
            0,
            "nothing was asked without a session"
        );
        stage.end().await;
    }
}
