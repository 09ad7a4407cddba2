//! Seals of the lineage: a chain of hashes per workspace over all changes (migration 0033).
//!
//! Promises: a change that was sealed can not be altered, removed, moved or put in between, nor can
//! a seal, without [`verify`] finding it, as long as the head of the chain is known from elsewhere.
//! A change is sealed some seconds after its commit; until then nothing vouches for it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{Record, RecordError, Tx};

/// Changes that are sealed at once.
const SEAL_MAX: i32 = 5_000;
/// Seals that are verified with one statement.
const PAGE: i64 = 20;
/// Findings that are told; a chain that was made anew may break everywhere.
pub const FINDINGS_MAX: usize = 100;

/// Seals what has come; whether there may be more. Safe to repeat, and beside itself.
pub async fn seal(record: &Record) -> Result<bool, RecordError> {
    let sealed: i64 = sqlx::query_scalar("SELECT bullwark.seal_changes($1)")
        .bind(SEAL_MAX)
        .fetch_one(&record.pool)
        .await?;
    Ok(sealed == i64::from(SEAL_MAX))
}

/// The end of a chain: whoever keeps it elsewhere can prove later that nothing before it was
/// rewritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct ChainHead {
    /// Zeros: of changes that are no workspace's.
    pub workspace_id: Uuid,
    /// Of its last seal.
    pub number: i64,
    /// Hexadecimal.
    pub head: String,
    pub sealed_at: DateTime<Utc>,
}

/// The heads of all chains, or of one.
pub async fn heads(
    record: &Record,
    workspace_id: Option<Uuid>,
) -> Result<Vec<ChainHead>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT s.workspace_id, s.number, encode(s.head, 'hex') AS head, s.sealed_at
         FROM bullwark.change_heads h JOIN bullwark.change_seals s USING (workspace_id, number)
         WHERE $1::uuid IS NULL OR workspace_id = $1 ORDER BY workspace_id",
    )
    .bind(workspace_id)
    .fetch_all(&record.pool)
    .await?)
}

/// Something that is not as it was sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whose chain; none: nobody knows.
    pub workspace_id: Option<Uuid>,
    /// The seal that does not hold, if it is one.
    pub seal: Option<i64>,
    pub problem: String,
}

/// What was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub intact: bool,
    pub chains: u64,
    pub seals: u64,
    /// Sealed changes that are there.
    pub changes: i64,
    /// Sealed changes that were forgotten on purpose, which leaves their hashes.
    pub forgotten: i64,
    /// Changes that have come and are not sealed yet.
    pub unsealed: i64,
    /// The first of them, [`FINDINGS_MAX`] at most.
    pub findings: Vec<Finding>,
}

impl Verified {
    fn find(&mut self, workspace_id: Option<Uuid>, seal: Option<i64>, problem: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding {
                workspace_id,
                seal,
                problem,
            });
        }
    }
}

#[derive(sqlx::FromRow)]
struct Chain {
    workspace_id: Uuid,
    number: i64,
    head: Vec<u8>,
    anchor: i64,
    anchor_head: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct Seal {
    number: i64,
    ids: String,
    sealed_at: DateTime<Utc>,
    changes: i64,
    previous: Vec<u8>,
    head: Vec<u8>,
    is_own_head: bool,
    found: i64,
    forgotten: i64,
    is_same: bool,
}

/// Reads every seal and every change again, of one workspace or of all, and compares. `known` are
/// heads that were kept elsewhere, in hexadecimal.
///
/// All of it is seen as it is at one moment, whatever is sealed and forgotten meanwhile.
pub async fn verify(
    record: &Record,
    workspace_id: Option<Uuid>,
    known: &[String],
) -> Result<Verified, RecordError> {
    let mut tx = record.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(tx.connection())
        .await?;
    let mut verified = Verified::default();
    let chains: Vec<Chain> = sqlx::query_as(
        "SELECT workspace_id, number, head, anchor, anchor_head FROM bullwark.change_heads
         WHERE $1::uuid IS NULL OR workspace_id = $1 ORDER BY workspace_id",
    )
    .bind(workspace_id)
    .fetch_all(tx.connection())
    .await?;
    for chain in &chains {
        follow(&mut tx, chain, &mut verified).await?;
    }
    verified.chains = chains.len() as u64;
    let headless: Vec<Uuid> = sqlx::query_scalar(
        "SELECT DISTINCT workspace_id FROM bullwark.change_seals s
         WHERE ($1::uuid IS NULL OR workspace_id = $1) AND NOT EXISTS (
           SELECT FROM bullwark.change_heads h WHERE h.workspace_id = s.workspace_id)",
    )
    .bind(workspace_id)
    .fetch_all(tx.connection())
    .await?;
    for of in headless {
        let problem = "its seals stand in no chain: the head was removed".to_owned();
        verified.find(Some(of), None, problem);
    }
    count_others(&mut tx, workspace_id, &mut verified).await?;
    for head in known {
        let is_known: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM bullwark.change_seals
                 WHERE encode(head, 'hex') = $1 AND ($2::uuid IS NULL OR workspace_id = $2))
               OR EXISTS (SELECT FROM bullwark.change_heads WHERE encode(anchor_head, 'hex') = $1
                 AND ($2::uuid IS NULL OR workspace_id = $2))",
        )
        .bind(head)
        .bind(workspace_id)
        .fetch_one(tx.connection())
        .await?;
        if !is_known {
            let problem = format!(
                "the head {head}, which was kept elsewhere, is in no chain: the chain was made \
                 anew, or its end was cut off"
            );
            verified.find(workspace_id, None, problem);
        }
    }
    tx.commit().await?;
    verified.intact = verified.findings.is_empty();
    Ok(verified)
}

/// Follows one chain from its beginning to its head.
async fn follow(tx: &mut Tx, chain: &Chain, verified: &mut Verified) -> Result<(), RecordError> {
    let of = chain.workspace_id;
    let (mut number, mut head) = (chain.anchor, chain.anchor_head.clone());
    loop {
        let seals = page(tx, of, number).await?;
        let Some(last) = seals.last().map(|seal| seal.number) else {
            break;
        };
        for seal in seals {
            let mut found = |problem: String| verified.find(Some(of), Some(seal.number), problem);
            if seal.number != number + 1 {
                let missing = number + 1..seal.number;
                found(format!("seals {missing:?} before it are missing"));
            } else if seal.previous != head {
                found("it does not follow the seal before it: one of them was replaced".to_owned());
            }
            if !seal.is_own_head {
                found("the seal itself was changed".to_owned());
            }
            let there = seal.found + seal.forgotten;
            if there != seal.changes {
                found(format!(
                    "it covers {} changes, and {there} are there, among the ids {}, sealed at {}",
                    seal.changes, seal.ids, seal.sealed_at
                ));
            } else if !seal.is_same {
                found(format!(
                    "a change was altered, among the ids {}, sealed at {}",
                    seal.ids, seal.sealed_at
                ));
            }
            verified.seals += 1;
            verified.changes += seal.found;
            verified.forgotten += seal.forgotten;
            (number, head) = (seal.number, seal.head);
        }
        number = last;
    }
    if (number, &head) != (chain.number, &chain.head) {
        let problem = format!(
            "the chain ends with seal {number}, and its head is that of seal {}",
            chain.number
        );
        verified.find(Some(of), None, problem);
    }
    Ok(())
}

async fn page(tx: &mut Tx, workspace_id: Uuid, after: i64) -> Result<Vec<Seal>, RecordError> {
    Ok(sqlx::query_as(
        "SELECT s.number, s.ids::text AS ids, s.sealed_at, s.changes, s.previous, s.head,
           s.head = bullwark.seal_head(s) AS is_own_head, f.found, f.forgotten,
           coalesce(f.digest = s.digest, false) AS is_same
         FROM bullwark.change_seals s CROSS JOIN LATERAL (
           SELECT count(*) FILTER (WHERE NOT x.is_gone) AS found,
             count(*) FILTER (WHERE x.is_gone) AS forgotten,
             sha256(string_agg(x.hash, ''::bytea ORDER BY x.id)) AS digest
           FROM (
             SELECT c.id, bullwark.change_hash(c) AS hash, false AS is_gone
             FROM unnest(s.ids) r JOIN bullwark.data_changes c
               ON c.id >= lower(r) AND c.id < upper(r)
             WHERE coalesce(c.workspace_id, '00000000-0000-0000-0000-000000000000')
               = s.workspace_id
             UNION ALL
             SELECT g.id, g.hash, true FROM unnest(s.ids) r JOIN bullwark.forgotten_changes g
               ON g.id >= lower(r) AND g.id < upper(r)
             WHERE g.workspace_id = s.workspace_id
           ) x
         ) f
         WHERE s.workspace_id = $1 AND s.number > $2 ORDER BY s.number LIMIT $3",
    )
    .bind(workspace_id)
    .bind(after)
    .bind(PAGE)
    .fetch_all(tx.connection())
    .await?)
}

#[derive(sqlx::FromRow)]
struct Others {
    workspace_id: Uuid,
    unsealed: i64,
    stray: i64,
    first_stray: Option<i64>,
}

/// Changes without a seal: those that have just come, and those that should have one. Reads the
/// whole table once.
async fn count_others(
    tx: &mut Tx,
    workspace_id: Option<Uuid>,
    verified: &mut Verified,
) -> Result<(), RecordError> {
    let others: Vec<Others> = sqlx::query_as(
        "WITH covered AS (
           SELECT s.workspace_id, range_agg(r) AS ids
           FROM bullwark.change_seals s CROSS JOIN LATERAL unnest(s.ids) r GROUP BY 1
         ), changes AS (
           SELECT c.id, coalesce(c.workspace_id, '00000000-0000-0000-0000-000000000000') AS of
           FROM bullwark.data_changes c
         ), others AS (
           SELECT c.of, c.id, c.id <= z.low OR c.id <@ z.above AS is_stray
           FROM changes c LEFT JOIN covered k ON k.workspace_id = c.of
             CROSS JOIN bullwark.change_sealing z
           WHERE ($1::uuid IS NULL OR c.of = $1) AND NOT c.id <@ coalesce(k.ids, '{}')
         )
         SELECT of AS workspace_id, count(*) FILTER (WHERE NOT is_stray) AS unsealed,
           count(*) FILTER (WHERE is_stray) AS stray, min(id) FILTER (WHERE is_stray) AS first_stray
         FROM others GROUP BY of ORDER BY of",
    )
    .bind(workspace_id)
    .fetch_all(tx.connection())
    .await?;
    for of in others {
        verified.unsealed += of.unsealed;
        if let Some(first) = of.first_stray {
            let problem = format!(
                "{} changes stand in no seal and should, the first with id {first}: they were put \
                 in later, or their seals were removed",
                of.stray
            );
            verified.find(Some(of.workspace_id), None, problem);
        }
    }
    Ok(())
}
