//! What an update does with single fields, and what a dry run says before.

use bullwark::job::JobError;
use serde_json::{Value, json};

use crate::support::World;

const FIRST: &str = "name,domain,industry,city,phone,custom.a,custom.b\n\
     Acme,acme.com,Steel,Berlin,+49301234567,1,\n\
     Beta,beta.com,,,,,\n";
const SECOND: &str = "name,domain,industry,city,phone,custom.a,custom.b,custom.c\n\
     Acme AG,acme.com,Glass,Bonn,+49307654321,2,3,4\n\
     Beta AG,beta.com,Glass,Bonn,+49307654321,2,3,4\n";

async fn records(world: &World) -> Vec<String> {
    let sql = "SELECT concat_ws('|', name, coalesce(industry, '-'), coalesce(city, '-'),
                 coalesce(phone, '-'), custom::text) FROM accounts";
    world.texts(sql).await
}

#[tokio::test]
async fn each_field_is_overwritten_filled_or_left_as_its_policy_says() {
    let world = World::new().await;
    world.accounts(FIRST, json!({})).await;
    let options = json!({
        "update_existing": true,
        "field_policies": {
            "name": "never", "industry": "fill_blank", "phone": "never", "custom.a": "fill_blank",
            "custom.b": "overwrite", "custom.c": "never",
        },
    });
    let summary = world.accounts(SECOND, options.clone()).await;
    assert_eq!((summary.updated, summary.failed), (2, 0));
    assert_eq!(
        records(&world).await,
        [
            r#"Acme|Steel|Bonn|+49301234567|{"a": "1", "b": "3"}"#,
            r#"Beta|Glass|Bonn|-|{"a": "2", "b": "3"}"#,
        ]
    );
    // Again: nothing is left to do.
    let summary = world.accounts(SECOND, options.clone()).await;
    assert_eq!((summary.updated, summary.unchanged), (0, 2));
    // A record that is new has every value.
    let new = SECOND
        .replace("acme.com", "new.com")
        .replace("Acme AG", "New");
    world.accounts(&new, options).await;
    assert_eq!(
        records(&world).await[2],
        r#"New|Glass|Bonn|+49307654321|{"a": "2", "b": "3", "c": "4"}"#
    );
}

#[tokio::test]
async fn nothing_is_updated_where_the_policy_of_all_is_never_but_what_is_named() {
    let world = World::new().await;
    world.accounts(FIRST, json!({})).await;
    let options = json!({
        "update_existing": true, "update_policy": "never", "field_policies": {"city": "overwrite"},
    });
    world.accounts(SECOND, options).await;
    assert_eq!(
        records(&world).await,
        [
            r#"Acme|Steel|Bonn|+49301234567|{"a": "1"}"#,
            "Beta|-|Bonn|-|{}",
        ]
    );
}

#[tokio::test]
async fn of_contacts_the_names_and_the_account_have_policies_too() {
    let world = World::new().await;
    world
        .accounts("name,domain\nAcme,acme.com\n", json!({}))
        .await;
    let import = async |text: &str, policies: Value| {
        let payload = json!({
            "file_url": world.upload(text).await, "entity_type": "contacts",
            "options": {"update_existing": true, "field_policies": policies},
        });
        world.run(payload).await
    };
    import("email,first name\nada@mail.org,Ada\n", json!({}))
        .await
        .unwrap();
    let text = "email,full name,company domain,title\nada@mail.org,Eve King,acme.com,CTO\n";
    let policies = json!({"full_name": "fill_blank", "company_domain": "never"});
    assert_eq!(import(text, policies).await.unwrap().updated, 1);
    let sql = "SELECT concat_ws('|', first_name, last_name, title, account_id) FROM contacts";
    assert_eq!(world.texts(sql).await, ["Ada|King|CTO"]);

    match import(text, json!({"industry": "never"})).await {
        Err(JobError::Permanent(found)) => {
            assert!(found.contains("`industry`, which is no field of contacts"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_dry_run_counts_what_the_import_counts_and_leaves_only_its_report() {
    let world = World::new().await;
    let first = "id,name,domain\nA,Acme,acme.com\nB,Beta,beta.com\n,Same,same.com\n";
    world.accounts(first, json!({})).await;
    // Changed, unchanged, one whose keys belong to two records, new, the same again, bad.
    let text = "id,name,domain\nA,Acme AG,acme.com\n,Same,same.com\nB,Beta,acme.com\n\
         N,New,new.com\nN,New,new.com\n,Bad,nonsense\n";
    let everything = "SELECT accounts::text FROM accounts UNION ALL
         SELECT c::text FROM bullwark.data_changes c";
    let before = world.texts(everything).await;
    let options = |dry_run| json!({"update_existing": true, "dry_run": dry_run});
    let dry = world.accounts(text, options(true)).await;
    assert_eq!(world.texts(everything).await, before);
    let counts = [
        dry.inserted,
        dry.updated,
        dry.unchanged,
        dry.skipped,
        dry.failed,
    ];
    assert_eq!(counts, [1, 1, 1, 1, 2]);
    let gone: i64 = world
        .one(
            "SELECT count(*) FROM import_rows r JOIN imports i ON i.id = r.import_id
             WHERE i.dry_run AND r.entity_id IS NOT NULL
               AND NOT EXISTS (SELECT FROM accounts a WHERE a.id = r.entity_id)",
        )
        .await;
    assert_eq!(gone, 0, "no row names a record that is not there");

    let wet = world.accounts(text, options(false)).await;
    assert_eq!(
        counts,
        [
            wet.inserted,
            wet.updated,
            wet.unchanged,
            wet.skipped,
            wet.failed
        ]
    );
    assert_eq!(dry.by_code, wet.by_code);
    let rejected = |report: String| -> Vec<String> {
        let lines = report.lines().skip(1).map(str::to_owned);
        lines.filter(|line| !line.contains("exists")).collect()
    };
    assert_eq!(rejected(world.report(&dry)), rejected(world.report(&wet)));
}
