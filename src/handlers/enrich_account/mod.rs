//! `enrich_account`: fills an account with what providers know of the company.
//!
//! Providers are asked one after the other, for as long as a field that could be written has no
//! value: whoever knows most goes first, and nobody is paid for what would not be written.
//! Answers are kept per workspace, and asked for by one job at a time ([`lookup`]). What is
//! written, where it comes from, the version of the account, a line about it and the end of the job
//! are one transaction.
//!
//! Promises: no value that a person wrote is replaced; no call above a quota; no credit is spent
//! twice for the same answer, but for a worker that dies between an answer and its commit.

mod calls;
mod lookup;
mod merge;
mod payload;
mod tokens;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::connection::Connections;
use super::import_csv::normalize;
use super::providers::{self, CALL_TIMEOUT, CompanySource, Field};
use crate::job::JobError;
use crate::outbound::Caller;
use crate::record::enriched_accounts::{self, AccountState, NewValue};
use crate::record::logs::LogLevel;
use crate::record::lookups::{self, Question};
use crate::record::{RecordError, Tx};
use crate::worker::{Handler, JobContext};
use lookup::Lookups;
use merge::{Fate, fate, is_open, is_ours};
pub use payload::Payload;

/// What is looked up.
const KIND: &str = "company";
/// In the log of an account.
const ACTIVITY: &str = "enriched";

/// A page there is of the company, the domain is not: nobody pays to learn about the site.
const SHARED_SITES: [&str; 12] = [
    "facebook.com",
    "github.com",
    "google.com",
    "instagram.com",
    "linkedin.com",
    "linktr.ee",
    "medium.com",
    "tiktok.com",
    "twitter.com",
    "x.com",
    "xing.com",
    "youtube.com",
];

/// Enriches accounts.
#[derive(Debug, Clone)]
pub struct EnrichAccount {
    lookups: Lookups,
}

impl EnrichAccount {
    pub fn new(caller: Caller, connections: Connections) -> Self {
        let lookups = Lookups::new(caller, connections);
        Self { lookups }
    }
}

/// What an enrichment came to.
#[derive(Debug, Serialize)]
pub struct Summary {
    account_id: Uuid,
    domain: String,
    /// Whether any provider knows the company.
    matched: bool,
    is_dry_run: bool,
    /// Whom was asked, or would be, in this order.
    providers: Vec<Said>,
    /// What became of each value.
    fields: BTreeMap<&'static str, FieldSummary>,
    /// Fields that nobody could tell.
    unknown: Vec<Field>,
    /// Fields that were not asked for: what is there stays.
    kept: Vec<Field>,
}

#[derive(Debug, Serialize)]
struct Said {
    provider: &'static str,
    said: Answered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answered {
    Known,
    Unknown,
    /// Would be asked.
    NotAsked,
}

#[derive(Debug, Serialize)]
struct FieldSummary {
    fate: Fate,
    value: Value,
    source: &'static str,
    confidence: f32,
    fetched_at: DateTime<Utc>,
}

/// What is known so far.
struct Gathered {
    providers: Vec<Said>,
    values: BTreeMap<Field, NewValue>,
}

impl Handler for EnrichAccount {
    const TYPE: &'static str = "enrich_account";
    type Payload = Payload;
    type Output = Summary;

    fn timeout(&self) -> Duration {
        // Three providers, each with a token that may be renewed, and the commits.
        CALL_TIMEOUT * 12 + Duration::from_secs(300)
    }

    async fn run(&self, ctx: JobContext, payload: Payload) -> Result<Summary, JobError> {
        let sources = payload
            .sources()
            .map_err(|why| JobError::Permanent(format!("the payload {why}")))?;
        let Some(workspace_id) = ctx.workspace_id() else {
            let why = "the job has no workspace: accounts and connections belong to one";
            return Err(JobError::Permanent(why.to_owned()));
        };
        let about = (workspace_id, payload.account_id);
        let state = enriched_accounts::read(ctx.record(), about).await;
        let state = found(state.map_err(JobError::retry)?, &payload)?;
        let domain = domain(&state)?;
        let (open, kept): (Vec<Field>, Vec<Field>) = payload
            .fields()
            .into_iter()
            .partition(|field| is_open(&state, *field, payload.overwrite));
        let gathered = self
            .gather(&ctx, &payload, &sources, &domain, &open)
            .await?;
        let unknown = open
            .iter()
            .filter(|field| !gathered.values.contains_key(field));
        let mut summary = Summary {
            account_id: payload.account_id,
            matched: gathered
                .providers
                .iter()
                .any(|one| one.said == Answered::Known),
            domain,
            is_dry_run: payload.dry_run,
            unknown: unknown.copied().collect(),
            kept,
            fields: BTreeMap::new(),
            providers: gathered.providers,
        };
        if payload.dry_run {
            judge(&mut summary, &state, &gathered.values, payload.overwrite);
            return Ok(summary);
        }
        let ids = (workspace_id, payload.account_id, ctx.job_id());
        ctx.transaction(async |tx| {
            // Somebody may have written since it was read.
            let state = enriched_accounts::hold(tx, about)
                .await
                .map_err(JobError::retry)?;
            let state = found(state, &payload)?;
            judge(&mut summary, &state, &gathered.values, payload.overwrite);
            write(tx, ids, &state, &summary, &gathered.values)
                .await
                .map_err(JobError::retry)?;
            Ok(summary)
        })
        .await
    }
}

impl EnrichAccount {
    /// Asks one provider after the other, until there is nothing left to ask for.
    async fn gather(
        &self,
        ctx: &JobContext,
        payload: &Payload,
        sources: &[CompanySource],
        domain: &str,
        open: &[Field],
    ) -> Result<Gathered, JobError> {
        let mut gathered = Gathered {
            providers: Vec::new(),
            values: BTreeMap::new(),
        };
        for source in sources {
            if open.iter().all(|field| gathered.values.contains_key(field)) {
                break;
            }
            let question = Question {
                workspace_id: ctx.workspace_id().unwrap_or_default(),
                provider: source.as_str(),
                kind: KIND,
                key: domain.to_owned(),
            };
            let max_age = payload.max_age_days();
            let kept = match payload.dry_run {
                true => lookups::find(ctx.record(), &question, max_age)
                    .await
                    .map_err(JobError::retry)?,
                false => Some(
                    self.lookups
                        .company(ctx, *source, &question, max_age)
                        .await?,
                ),
            };
            let provider = source.as_str();
            let facts = kept.as_ref().and_then(|kept| kept.answer.as_ref());
            let facts = facts.and_then(|answer| providers::read(*source, answer));
            let said = match (&kept, &facts) {
                (None, _) => Answered::NotAsked,
                (Some(_), None) => Answered::Unknown,
                (Some(_), Some(_)) => Answered::Known,
            };
            gathered.providers.push(Said { provider, said });
            let (Some(kept), Some(facts)) = (kept, facts) else {
                continue;
            };
            let confidence = facts.confidence(domain);
            if confidence < payload.min_confidence() {
                let metadata = json!({ "provider": provider, "confidence": confidence });
                let words = "the answer seems to be about another company";
                ctx.log(LogLevel::Warn, words, Some(metadata));
                continue;
            }
            for (field, value) in facts.values {
                if open.contains(&field) {
                    gathered.values.entry(field).or_insert(NewValue {
                        field: field.column(),
                        value,
                        source: provider,
                        confidence,
                        fetched_at: kept.fetched_at,
                    });
                }
            }
        }
        Ok(gathered)
    }
}

/// Says what becomes of each value.
fn judge(
    summary: &mut Summary,
    state: &AccountState,
    values: &BTreeMap<Field, NewValue>,
    overwrite: bool,
) {
    let judged = values.iter().map(|(field, new)| {
        let judged = FieldSummary {
            fate: fate(state, *field, new, overwrite),
            value: new.value.clone(),
            source: new.source,
            confidence: new.confidence,
            fetched_at: new.fetched_at,
        };
        (new.field, judged)
    });
    summary.fields = judged.collect();
}

/// Writes what is to be written, and what was done.
async fn write(
    tx: &mut Tx,
    ids: (Uuid, Uuid, Uuid),
    state: &AccountState,
    summary: &Summary,
    values: &BTreeMap<Field, NewValue>,
) -> Result<(), RecordError> {
    let with = |wanted: Fate| {
        let fits = move |(_, new): &(&Field, &NewValue)| {
            summary
                .fields
                .get(new.field)
                .is_some_and(|field| field.fate == wanted)
        };
        values.iter().filter(fits)
    };
    let written: Vec<NewValue> = with(Fate::Written).map(|(_, new)| new.clone()).collect();
    // A value of ours that was confirmed is newer from now on.
    let confirmed: Vec<NewValue> = with(Fate::Same)
        .filter(|(field, _)| is_ours(state, **field))
        .map(|(_, new)| new.clone())
        .collect();
    if !written.is_empty() {
        enriched_accounts::write(tx, ids, state, &written).await?;
    }
    if !confirmed.is_empty() {
        enriched_accounts::note_sources(tx, ids, &confirmed).await?;
    }
    let names: Vec<&str> = written.iter().map(|new| new.field).collect();
    let details = json!({
        "providers": summary.providers, "matched": summary.matched, "written": names,
        "unknown": summary.unknown,
    });
    enriched_accounts::note_activity(tx, ids, (ACTIVITY, &details)).await
}

fn found(state: Option<AccountState>, payload: &Payload) -> Result<AccountState, JobError> {
    state.ok_or_else(|| {
        let id = payload.account_id;
        JobError::Permanent(format!("this workspace has no account {id}"))
    })
}

/// What the company is looked up by. Also the domain is checked: it becomes a part of an address.
fn domain(state: &AccountState) -> Result<String, JobError> {
    let normal = |name: &str| {
        let text = state.values.get(name).and_then(Value::as_str)?;
        normalize::domain(text).ok()
    };
    let website = || normal("website").filter(|site| !SHARED_SITES.contains(&site.as_str()));
    normal("domain").or_else(website).ok_or_else(|| {
        let why = "the account has neither a domain nor a website with a domain of its own: it \
                   can not be looked up";
        JobError::Permanent(why.to_owned())
    })
}
