//! Accounts that are there already, found without a field for domains.

use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ORG, Stage};

impl Stage {
    async fn account(&self, name: &str, domain: Option<&str>, website: Option<&str>) -> Uuid {
        let id = Uuid::now_v7();
        let text = |text: Option<&str>| text.map_or("NULL".to_owned(), |text| format!("'{text}'"));
        let (domain, website) = (text(domain), text(website));
        self.rig
            .sql(format!(
                "INSERT INTO accounts (id, workspace_id, name, domain, website)
                 VALUES ('{id}', '{DEFAULT_WORKSPACE}', '{name}', {domain}, {website})"
            ))
            .await;
        id
    }

    fn company(&self, name: &str, website: Option<&str>) -> String {
        let fields = json!({ "Name": name, "Website": website });
        self.there().make(ORG, "Account", fields)
    }

    async fn remote_of(&self, id: Uuid) -> Value {
        let link = format!("SELECT max(remote_id) FROM crm_links WHERE local_id = '{id}'");
        self.value(&link).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_found_by_its_website_however_that_is_written() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let spellings = [
        "a0.com",
        "www.a1.com",
        "http://a2.com",
        "https://a3.com/",
        "http://www.a4.com/",
        "HTTPS://WWW.A5.COM",
        "www.a6.com/",
    ];
    let mut pairs = Vec::new();
    for (n, spelling) in spellings.into_iter().enumerate() {
        let there = stage.company(&format!("Company {n}"), Some(spelling));
        let domain = format!("a{n}.com");
        let name = format!("Account {n}");
        // What is known of it here: the domain, or only a site.
        let site = format!("https://www.{domain}");
        let here = match n % 2 {
            0 => stage.account(&name, Some(&domain), None).await,
            _ => stage.account(&name, None, Some(&site)).await,
        };
        pairs.push((here, there));
    }
    // Pages of one site are as many companies, and none of them is the site's.
    for page in ["https://www.social.com/one", "https://www.social.com/two"] {
        let there = stage.company(&page.to_uppercase(), Some(page));
        pairs.push((stage.account(page, None, Some(page)).await, there));
    }
    let page = "https://shop.com/en";
    let there = stage.company("Shop", Some(page));
    pairs.push((
        stage
            .account("Its shop", Some("shop.com"), Some(page))
            .await,
        there,
    ));
    stage.company("Social", Some("www.social.com"));
    let three = "https://www.social.com/three";
    let three = stage.account("Three", None, Some(three)).await;
    // Others: of another domain, and one of whom only the name is the same.
    stage.company("Gamma", Some("https://gamma.com.au"));
    let gamma = stage.account("Gamma", Some("gamma.com"), None).await;

    let done = stage.synced("push", &["accounts"]).await;
    let counts = &done["entities"]["accounts"];
    assert_eq!(counts["matched"], 10, "{done}");
    assert_eq!(counts["created_there"], 2, "Three and Gamma: {done}");
    assert_eq!(counts["errors"], 0, "{done}");
    assert_eq!(stage.there().records(ORG, "Account").len(), 14);
    for (here, there) in pairs {
        assert_eq!(stage.remote_of(here).await, there);
    }
    let there = stage.there().records(ORG, "Account");
    for (id, name) in [(gamma, "Gamma"), (three, "Three")] {
        let id = stage.remote_of(id).await;
        assert_eq!(there[id.as_str().unwrap()]["Name"], name);
    }
    let again = stage.synced("push", &["accounts"]).await;
    assert_eq!(again["entities"]["accounts"]["created_there"], 0, "{again}");
    working.hurry().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_a_domain_is_found_by_its_name_among_those_without_a_website() {
    let stage = Stage::new().await;
    let working = stage.rig.work();
    let same = stage.company("Acme, Inc.", None);
    let acme = stage.account("ACME, Inc.", None, None).await;
    // One of that name with a website is another company.
    let other = stage.company("Beta", Some("beta.example.com"));
    let beta = stage.account("Beta", None, None).await;
    let twice = [stage.company("Twin", None), stage.company("Twin", None)];
    stage.account("Twin", None, None).await;
    // A domain is known here: the name says nothing.
    stage.company("Delta", None);
    stage.account("Delta", Some("delta.com"), None).await;

    let done = stage.synced("push", &["accounts"]).await;
    let counts = &done["entities"]["accounts"];
    assert_eq!(counts["matched"], 1, "{done}");
    assert_eq!(counts["created_there"], 2, "Beta and Delta: {done}");
    assert_eq!(counts["errors"], 1, "nobody can tell which Twin: {done}");
    assert_eq!(stage.remote_of(acme).await, same);
    assert_ne!(stage.remote_of(beta).await, other);
    let error = "SELECT jsonb_build_array(code, message) FROM crm_errors";
    let error = stage.value(error).await;
    assert_eq!(error[0], "several_there");
    for id in twice {
        assert!(error[1].as_str().unwrap().contains(&id), "{error}");
    }
    assert_eq!(stage.there().records(ORG, "Account").len(), 7);
    working.hurry().await;
    stage.end().await;
}
