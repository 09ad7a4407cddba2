//! Seals of the lineage: what was sealed can not be rewritten unseen, whoever does it.

use bullwark::record::change_seals::{self, Verified};
use bullwark::record::data_changes;
use bullwark::record::workspaces::{self, DEFAULT_WORKSPACE};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::stage::{Stage, eventually};

async fn stage() -> Stage {
    let stage = Stage::new().await;
    workspaces::ensure_default(&stage.record).await.unwrap();
    stage
}

/// Accounts with these names; each is a change.
async fn accounts(stage: &Stage, workspace: Uuid, names: &[&str]) {
    for name in names {
        let sql =
            format!("INSERT INTO accounts (workspace_id, name) VALUES ('{workspace}', '{name}')");
        stage.execute(sql).await;
    }
}

async fn other_workspace(stage: &Stage) -> Uuid {
    let sql = "INSERT INTO workspaces (name) VALUES ('other') RETURNING id";
    stage.scalar(sql.to_owned()).await
}

async fn seal(stage: &Stage) {
    assert!(!change_seals::seal(&stage.record).await.unwrap());
}

async fn verified(stage: &Stage) -> Verified {
    change_seals::verify(&stage.record, None, &[])
        .await
        .unwrap()
}

async fn intact(stage: &Stage) -> Verified {
    let verified = verified(stage).await;
    assert!(verified.intact, "{verified:#?}");
    verified
}

async fn head(stage: &Stage) -> String {
    let heads = change_seals::heads(&stage.record, Some(DEFAULT_WORKSPACE)).await;
    heads.unwrap().remove(0).head
}

/// As the owner of the database, who can do everything.
async fn tamper(stage: &Stage, sql: &str) {
    let sql =
        format!("SET session_replication_role = replica; {sql}; RESET session_replication_role");
    let mut connection = stage.pool.acquire().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut *connection)
        .await
        .unwrap();
}

/// Two workspaces with three seals each, of two changes each.
async fn sealed() -> (Stage, Uuid) {
    let stage = stage().await;
    let other = other_workspace(&stage).await;
    for names in [["a", "b"], ["c", "d"], ["e", "f"]] {
        accounts(&stage, DEFAULT_WORKSPACE, &names).await;
        accounts(&stage, other, &names).await;
        seal(&stage).await;
    }
    (stage, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_sealed_once_and_those_to_come_are_told_apart() {
    let (stage, _) = sealed().await;
    accounts(&stage, DEFAULT_WORKSPACE, &["late"]).await;
    let found = intact(&stage).await;
    let counts = (found.chains, found.seals, found.changes, found.unsealed);
    assert_eq!(counts, (2, 6, 12, 1));
    seal(&stage).await;
    seal(&stage).await;
    let found = intact(&stage).await;
    let counts = (found.chains, found.seals, found.changes, found.unsealed);
    assert_eq!(counts, (2, 7, 13, 0), "nothing is sealed twice");
    let one = change_seals::verify(&stage.record, Some(DEFAULT_WORKSPACE), &[]).await;
    assert_eq!(one.unwrap().changes, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_rewrite_what_was_sealed_is_found() {
    let third = "(SELECT id FROM bullwark.data_changes ORDER BY id OFFSET 2 LIMIT 1)";
    let mine = format!("workspace_id = '{DEFAULT_WORKSPACE}'");
    for (sql, words) in [
        (
            format!("UPDATE bullwark.data_changes SET after = '{{\"x\": 1}}' WHERE id = {third}"),
            "was altered",
        ),
        (
            format!("UPDATE bullwark.data_changes SET job_id = entity_id WHERE id = {third}"),
            "was altered",
        ),
        (
            format!("UPDATE bullwark.data_changes SET created_at = now() WHERE id = {third}"),
            "was altered",
        ),
        (
            format!("UPDATE bullwark.data_changes SET source = 'import_csv' WHERE id = {third}"),
            "was altered",
        ),
        (
            format!("UPDATE bullwark.data_changes SET source = NULL WHERE id = {third}"),
            "was altered",
        ),
        (
            format!("UPDATE bullwark.data_changes SET actor = 'operator' WHERE id = {third}"),
            "was altered",
        ),
        (
            format!("DELETE FROM bullwark.data_changes WHERE id = {third}"),
            "it covers 2 changes, and 1 are there",
        ),
        (
            format!(
                "INSERT INTO bullwark.data_changes (id, workspace_id, entity_type, entity_id,
                   action, after) OVERRIDING SYSTEM VALUE
                 VALUES (-1, '{DEFAULT_WORKSPACE}', 'accounts', gen_random_uuid(), 'insert',
                   '{{}}')"
            ),
            "stand in no seal and should",
        ),
        (
            "UPDATE bullwark.data_changes SET workspace_id = (SELECT id FROM workspaces
               WHERE name = 'other') WHERE id = (SELECT min(id) FROM bullwark.data_changes)"
                .to_owned(),
            "stand in no seal and should",
        ),
        (
            format!("UPDATE bullwark.change_seals SET changes = 3 WHERE {mine} AND number = 2"),
            "the seal itself was changed",
        ),
        (
            format!("DELETE FROM bullwark.change_seals WHERE {mine} AND number = 2"),
            "before it are missing",
        ),
        (
            format!("DELETE FROM bullwark.change_seals WHERE {mine} AND number = 1"),
            "before it are missing",
        ),
        (
            format!("DELETE FROM bullwark.change_seals WHERE {mine} AND number = 3"),
            "its head is that of seal 3",
        ),
        (
            format!("DELETE FROM bullwark.change_heads WHERE {mine}"),
            "stand in no chain",
        ),
        (
            format!(
                "DELETE FROM bullwark.change_seals WHERE {mine};
                 DELETE FROM bullwark.change_heads WHERE {mine}"
            ),
            "stand in no seal and should",
        ),
    ] {
        let (stage, _) = sealed().await;
        tamper(&stage, &sql).await;
        let found = verified(&stage).await;
        assert!(!found.intact, "{sql}");
        let told = found.findings.iter().any(|f| f.problem.contains(words));
        assert!(told, "{sql}: {:#?}", found.findings);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_was_made_anew_does_not_have_the_head_that_was_kept_elsewhere() {
    let (stage, _) = sealed().await;
    let kept = head(&stage).await;
    accounts(&stage, DEFAULT_WORKSPACE, &["g"]).await;
    seal(&stage).await;
    let heads = [kept];
    let verify = || change_seals::verify(&stage.record, Some(DEFAULT_WORKSPACE), &heads);
    assert!(verify().await.unwrap().intact, "the chain has grown since");

    let anew = "DELETE FROM bullwark.data_changes WHERE after ->> 'name' = 'a';
        TRUNCATE bullwark.change_seals, bullwark.change_heads;
        UPDATE bullwark.change_sealing SET low = 0, above = '{}', mark_xmax = NULL";
    tamper(&stage, anew).await;
    seal(&stage).await;
    intact(&stage).await;
    let found = verify().await.unwrap();
    assert!(!found.intact && found.findings.len() == 1, "{found:?}");
    assert!(found.findings[0].problem.contains(&heads[0]), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_takes_long_is_sealed_when_it_comes_however_late() {
    let stage = stage().await;
    let mut slow = stage.pool.begin().await.unwrap();
    let insert = |name: &str| {
        format!(
            "INSERT INTO accounts (workspace_id, name) VALUES ('{DEFAULT_WORKSPACE}', '{name}')"
        )
    };
    sqlx::raw_sql(AssertSqlSafe(insert("slow")))
        .execute(&mut *slow)
        .await
        .unwrap();
    for name in ["a", "b", "c", "d"] {
        accounts(&stage, DEFAULT_WORKSPACE, &[name]).await;
        seal(&stage).await;
    }
    assert_eq!(intact(&stage).await.changes, 4);
    let low = || stage.scalar::<i64>("SELECT low FROM bullwark.change_sealing".to_owned());
    let before = low().await;
    slow.commit().await.unwrap();
    seal(&stage).await;
    let found = intact(&stage).await;
    assert_eq!((found.changes, found.unsealed), (5, 0));
    // What was rolled back leaves a gap, which is passed when nobody can fill it any more.
    let mut gone = stage.pool.begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(insert("gone")))
        .execute(&mut *gone)
        .await
        .unwrap();
    gone.rollback().await.unwrap();
    accounts(&stage, DEFAULT_WORKSPACE, &["e"]).await;
    // Other databases of the server have transactions, too: they hold it up as long as they take.
    eventually("everything is behind it", async || {
        seal(&stage).await;
        let is_done = "SELECT above = '{}' FROM bullwark.change_sealing";
        stage.scalar::<bool>(is_done.to_owned()).await.then_some(())
    })
    .await;
    assert!(low().await > before + 4, "it does not stop at the gap");
    intact(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_write_and_seal_at_once_leave_no_change_out() {
    let stage = stage().await;
    let other = other_workspace(&stage).await;
    let writers = (0..4).map(|writer| {
        let stage = &stage;
        async move {
            for number in 0..25 {
                let workspace = [DEFAULT_WORKSPACE, other][number % 2];
                let name = format!("{writer}-{number}");
                accounts(stage, workspace, &[&name]).await;
            }
        }
    });
    let sealers = (0..2).map(|_| async {
        for _ in 0..30 {
            change_seals::seal(&stage.record).await.unwrap();
        }
    });
    let (writers, sealers) = (
        futures_util::future::join_all(writers),
        futures_util::future::join_all(sealers),
    );
    tokio::join!(writers, sealers);
    seal(&stage).await;
    let found = intact(&stage).await;
    assert_eq!((found.changes, found.unsealed), (100, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_on_purpose_leaves_the_chain_intact() {
    let (stage, other) = sealed().await;
    let account: Uuid = stage
        .scalar("SELECT id FROM accounts WHERE name = 'c' LIMIT 1".to_owned())
        .await;
    let forget = format!("SELECT bullwark.forget_record('{account}')");
    assert_eq!(stage.scalar::<i64>(forget).await, 1);
    let found = intact(&stage).await;
    assert_eq!((found.changes, found.forgotten), (11, 1));

    // The first seals are old: they go as a whole, the others follow what is left of them.
    let age =
        "UPDATE bullwark.change_seals SET newest_at = now() - interval '3 years' WHERE number <= 2;
         UPDATE bullwark.change_seals s SET head = bullwark.seal_head(s) WHERE number = 1;
         UPDATE bullwark.change_seals s SET previous = p.head FROM bullwark.change_seals p
           WHERE p.workspace_id = s.workspace_id AND p.number = 1 AND s.number = 2;
         UPDATE bullwark.change_seals s SET head = bullwark.seal_head(s) WHERE number = 2;
         UPDATE bullwark.change_seals s SET previous = p.head FROM bullwark.change_seals p
           WHERE p.workspace_id = s.workspace_id AND p.number = 2 AND s.number = 3;
         UPDATE bullwark.change_seals s SET head = bullwark.seal_head(s) WHERE number = 3;
         UPDATE bullwark.change_heads h SET head = s.head FROM bullwark.change_seals s
           WHERE s.workspace_id = h.workspace_id AND s.number = 3";
    tamper(&stage, age).await;
    intact(&stage).await;
    let kept = head(&stage).await;
    while data_changes::forget_old(&stage.record).await.unwrap() {}
    let heads = [kept];
    let found = change_seals::verify(&stage.record, Some(DEFAULT_WORKSPACE), &heads).await;
    let found = found.unwrap();
    assert!(found.intact, "{found:#?}");
    assert_eq!((found.seals, found.changes, found.forgotten), (1, 2, 0));
    accounts(&stage, DEFAULT_WORKSPACE, &["late"]).await;
    seal(&stage).await;
    intact(&stage).await;

    stage
        .execute(format!("DELETE FROM workspaces WHERE id = '{other}'"))
        .await;
    seal(&stage).await;
    let found = intact(&stage).await;
    assert_eq!((found.chains, found.changes), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_rewrites_a_seal_by_mistake() {
    let (stage, _) = sealed().await;
    for sql in [
        "UPDATE bullwark.change_seals SET changes = 1",
        "DELETE FROM bullwark.change_seals",
        "TRUNCATE bullwark.change_seals",
        "DELETE FROM bullwark.forgotten_changes; DELETE FROM bullwark.data_changes",
    ] {
        let refused = sqlx::raw_sql(sql).execute(&stage.pool).await.unwrap_err();
        assert!(
            refused.to_string().contains("only ever added to"),
            "{sql}: {refused}"
        );
    }
    intact(&stage).await;
}
