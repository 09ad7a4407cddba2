//! What happens to rows whose record exists, and what the error report says.

use bullwark::job::JobError;
use serde_json::json;

use crate::support::World;

const FIRST: &str = "name,domain,industry,city\nAcme,acme.com,Steel,Berlin\nBeta,beta.com,,\n";
const SECOND: &str = "name,domain,industry,city\nAcme AG,acme.com,,Bonn\nBeta,beta.com,Glass,\n";
const ROWS: &str = "SELECT concat_ws('|', name, coalesce(industry, '-'), coalesce(city, '-'))
                    FROM accounts";

#[tokio::test]
async fn existing_records_are_treated_as_the_options_say() {
    for (options, counts, expected) in [
        // inserted, updated, unchanged, skipped, failed
        (
            json!({"update_existing": true}),
            [0, 2, 0, 0, 0],
            ["Acme AG|Steel|Bonn", "Beta|Glass|-"],
        ),
        (
            json!({"update_existing": true, "update_policy": "fill_blank"}),
            [0, 1, 1, 0, 0],
            ["Acme|Steel|Berlin", "Beta|Glass|-"],
        ),
        (
            json!({"update_existing": true, "empty_values": "clear"}),
            [0, 2, 0, 0, 0],
            ["Acme AG|-|Bonn", "Beta|Glass|-"],
        ),
        (
            json!({}),
            [0, 0, 0, 2, 0],
            ["Acme|Steel|Berlin", "Beta|-|-"],
        ),
        (
            json!({"skip_duplicates": false}),
            [0, 0, 0, 0, 2],
            ["Acme|Steel|Berlin", "Beta|-|-"],
        ),
    ] {
        let world = World::new().await;
        world.accounts(FIRST, json!({})).await;
        let s = world.accounts(SECOND, options.clone()).await;
        let found = [s.inserted, s.updated, s.unchanged, s.skipped, s.failed];
        assert_eq!(found, counts, "{options}");
        assert_eq!(world.texts(ROWS).await, expected, "{options}");
        assert_eq!(s.report.is_some(), s.failed > 0, "{options}");
    }
}

#[tokio::test]
async fn a_list_of_updates_creates_nothing_and_reports_what_it_did_not_find() {
    let world = World::new().await;
    world.accounts(FIRST, json!({})).await;
    let list = "name,domain,city\nAcme,acme.com,Bonn\nAcne,acne.com,Bonn\nAcne,acne.com,Rome\n";
    let options = json!({"update_existing": true, "create_missing": false});
    for dry_run in [true, false] {
        let mut options = options.clone();
        options["dry_run"] = json!(dry_run);
        let s = world.accounts(list, options).await;
        let found = [s.inserted, s.updated, s.unchanged, s.skipped, s.failed];
        assert_eq!(found, [0, 1, 0, 2, 0], "{dry_run}");
        let report = world.report(&s);
        assert!(report.contains("NO_SUCH_RECORD"), "{report}");
        assert!(report.contains("acne.com"), "{report}");
    }
    let expected = ["Acme|Steel|Bonn", "Beta|-|-"];
    assert_eq!(world.texts(ROWS).await, expected);
    // With every chunk being ahead of the one before it, too.
    let mut many = String::from("name,domain,city\n");
    for n in 0..5_000 {
        many.push_str(&format!("Other {n},other-{n}.com,Rome\n"));
    }
    let s = world.accounts(&many, options).await;
    assert_eq!((s.inserted, s.skipped), (0, 5_000));
    assert_eq!(world.texts(ROWS).await, expected);
}

#[tokio::test]
async fn records_are_found_by_external_id_then_domain_then_name() {
    let world = World::new().await;
    let first = "external id,name,domain\nA1,Acme,acme.com\n,Beta,beta.com\n,Gamma,\n";
    world.accounts(first, json!({})).await;
    let second = "external id,name,domain\nA1,Acme New,\nB1,Beta,BETA.com\n,GAMMA,\n,Delta,\n";
    let summary = world
        .accounts(second, json!({"update_existing": true}))
        .await;
    assert_eq!(
        (summary.inserted, summary.updated, summary.failed),
        (1, 3, 0)
    );
    let found = world
        .texts("SELECT concat_ws('|', coalesce(external_id, '-'), name, domain) FROM accounts")
        .await;
    assert_eq!(
        found,
        [
            "-|Delta",
            "-|GAMMA",
            "A1|Acme New|acme.com",
            "B1|Beta|beta.com"
        ]
    );
}

#[tokio::test]
async fn a_row_whose_keys_belong_to_two_records_is_reported_and_changes_neither() {
    let world = World::new().await;
    world
        .accounts(
            "id,name,domain\nA,Acme,acme.com\nB,Beta,beta.com\n",
            json!({}),
        )
        .await;
    let text = "id,name,domain\nA,Acme,beta.com\nB,Beta 2,beta.com\n";
    let summary = world.accounts(text, json!({"update_existing": true})).await;
    assert_eq!((summary.updated, summary.failed), (1, 1));
    assert_eq!(summary.by_code["DUPLICATE_EXISTING"], 1);
    let found = world
        .texts("SELECT concat_ws('|', name, domain) FROM accounts")
        .await;
    assert_eq!(found, ["Acme|acme.com", "Beta 2|beta.com"]);
}

#[tokio::test]
async fn the_report_has_the_rows_as_they_were_and_can_be_uploaded_again() {
    let world = World::new().await;
    let text = "sep=;\r\nName;Web;Employees\r\n\
                \"Acme; \"\"the\"\" one\";acme,com;5\r\n\
                Beta;beta.com;many;surplus\r\n\
                =cmd|'/c calc'!A1;;7\r\n\
                Gamma\r\n\
                Gamma 2;gamma.com\r\n\
                Gamma 3;gamma.com\r\n";
    let payload = |url: String| {
        let mapping = json!({"Web": "domain"});
        json!({"file_url": url, "entity_type": "accounts", "mapping": mapping})
    };
    let summary = world.run(payload(world.upload(text).await)).await.unwrap();
    assert_eq!(
        (summary.inserted, summary.failed, summary.skipped),
        (3, 2, 1)
    );
    let expected = "\u{FEFF}Name;Web;Employees;;_row;_status;_error_code;_error_column;\
         _error_message;_suggestion\r\n\
         \"Acme; \"\"the\"\" one\";acme,com;5;;1;failed;DOMAIN_INVALID;Web;\
         `acme,com` is not a domain;acme.com\r\n\
         Beta;beta.com;many;surplus;2;failed;TOO_MANY_COLUMNS;;\"the row has 4 columns, the header \
         has 3; a value with the delimiter in it must stand in quotes; `many` is not a number of \
         employees\";\r\n\
         Gamma 3;gamma.com;;;6;skipped;DUPLICATE_IN_FILE;;the same record as row 5;\r\n";
    assert_eq!(world.report(&summary), expected);

    // A formula is a text to us, and stays one.
    let names = world
        .texts("SELECT name FROM accounts WHERE name LIKE '=%'")
        .await;
    assert_eq!(names, ["=cmd|'/c calc'!A1"]);

    // Corrected and uploaded again; the row that still has a surplus value is still refused.
    let corrected = expected
        .replace("acme,com;5", "acme.com;5")
        .replace("Gamma 3;gamma.com", "G;g.com");
    let again = world
        .run(payload(world.upload(corrected).await))
        .await
        .unwrap();
    assert_eq!((again.inserted, again.failed), (2, 1));
    assert_eq!(again.by_code["TOO_MANY_COLUMNS"], 1);
}

#[tokio::test]
async fn a_dry_run_counts_and_leaves_no_trace() {
    let world = World::new().await;
    world.accounts(FIRST, json!({})).await;
    let before = world.texts("SELECT accounts::text FROM accounts").await;
    let text = format!("{SECOND}Gamma,gamma.com,,\nDelta,nonsense,,\n");
    let summary = world
        .accounts(&text, json!({"update_existing": true, "dry_run": true}))
        .await;
    assert_eq!(
        (summary.inserted, summary.updated, summary.failed),
        (1, 2, 1)
    );
    assert!(
        summary
            .message
            .starts_with("Dry run: would have imported 3 accounts")
    );
    assert_eq!(
        world.texts("SELECT accounts::text FROM accounts").await,
        before
    );
}

#[tokio::test]
async fn files_that_cannot_be_imported_fail_at_once_and_say_why() {
    let world = World::new().await;
    for (text, mapping, message) in [
        ("PK\u{3}\u{4}xl/", json!({}), "the workbook cannot be read"),
        ("%PDF-1.4", json!({}), "PDF"),
        ("", json!({}), "the file is empty"),
        ("\n\n", json!({}), "no header row"),
        (
            "a,b\n1,2\n",
            json!({}),
            "no column for `name`; map one of the headers to it: a, b",
        ),
        (
            "name\nx\n",
            json!({"Firm": "name"}),
            "the mapping names the header `Firm`",
        ),
        (
            "name,web\nA,b.com\n\"C,d.com\n",
            json!({}),
            "opens on line 3 is never closed",
        ),
    ] {
        let url = world.upload(text).await;
        let payload = json!({"file_url": url, "entity_type": "accounts", "mapping": mapping});
        match world.run(payload).await {
            Err(JobError::Permanent(found)) => assert!(found.contains(message), "{found}"),
            other => panic!("{text:?}: {other:?}"),
        }
    }
    assert_eq!(world.one::<i64>("SELECT count(*) FROM accounts").await, 0);
    assert_eq!(world.one::<i64>("SELECT count(*) FROM imports").await, 0);
    let left = std::fs::read_dir(world.dir.path().join("work"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "no work file stays");
}

#[tokio::test]
async fn a_file_with_only_a_header_is_an_import_of_nothing() {
    let world = World::new().await;
    let summary = world.accounts("name,domain\n", json!({})).await;
    assert_eq!(
        (summary.total, summary.imported, summary.report),
        (0, 0, None)
    );
    assert_eq!(
        world.one::<String>("SELECT status FROM imports").await,
        "completed"
    );
}
