//! Enrichment, whatever is enriched: records are filled with what providers know.
//!
//! Providers are asked one after the other, for as long as a field that could be written has no
//! value: whoever knows most goes first, and nobody is paid for what would not be written.
//! Answers are kept per workspace, and asked for by one job at a time ([`lookup`]). What is
//! written, where it comes from, the version of the record and a line about it are one transaction
//! of the caller. One of several providers that can not be asked, or fails again and again, keeps
//! nobody from what the others know.
//!
//! Promises: no value that a person wrote is replaced; nobody is asked about a person who objects;
//! no call above a quota; no credit is spent twice for the same answer, but for a worker that dies
//! between an answer and its commit.

mod calls;
mod lookup;
mod many;
mod merge;
mod payload;
mod resting;
mod subject;
mod summary;
mod tokens;
mod verification;
mod wish;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::connection::Connections;
use super::providers::{CALL_TIMEOUT, DataSource, EnrichField, Topic};
use crate::job::JobError;
use crate::outbound::Caller;
use crate::record::enriched::{self, NewValue, RecordState};
use crate::record::logs::LogLevel;
use crate::record::{RecordError, Tx, lookups};
use crate::worker::JobContext;
use lookup::{Answered, Kept, Lookups, question};
pub(super) use merge::Fate;
use merge::{fate, is_open, is_ours};
pub(super) use payload::payload;
pub(super) use subject::{Account, Contact, Subject, Topics};
pub use summary::Summary;
pub(super) use summary::Told;
pub(super) use summary::unreadable;
use summary::{FieldSummary, Said};
pub(super) use verification::verify;
pub(super) use wish::{Asked, Wish};

/// So often may a job have failed until one of its providers that fails is done without.
const FAILURES_MAX: u32 = 2;
/// In the log of a record.
const ACTIVITY: &str = "enriched";
/// Three providers, each with a token that may be renewed, and the commits.
pub(super) const TIMEOUT: Duration = Duration::from_secs(CALL_TIMEOUT.as_secs() * 12 + 300);

/// Enriches records. A cheap handle.
#[derive(Debug, Clone)]
pub struct Enricher {
    lookups: Lookups,
}

/// What was found for a record, before anything of it is written.
pub(super) struct Found<S: Subject> {
    summary: Summary,
    values: BTreeMap<S::Field, NewValue>,
    /// What it was judged by; somebody may have written since.
    state: RecordState,
}

/// What is known so far.
struct Gathered<F> {
    providers: Vec<Said>,
    values: BTreeMap<F, NewValue>,
}

impl Enricher {
    /// A call may take so long, 30 seconds at most.
    pub fn new(caller: Caller, connections: Connections, patience: Duration) -> Self {
        let lookups = Lookups::new(caller, connections, patience);
        Self { lookups }
    }

    /// The whole of a job about one record.
    pub(super) async fn run<S: Subject>(
        &self,
        ctx: JobContext,
        id: Uuid,
        wish: Result<Wish<S::Field>, String>,
    ) -> Result<Summary, JobError> {
        let wish = wish.map_err(|why| JobError::Permanent(format!("the payload {why}")))?;
        let found = Box::pin(self.find::<S>(&ctx, id, &wish)).await?;
        if wish.dry_run {
            return Ok(found.judged(&wish));
        }
        ctx.transaction(async |tx| {
            let mut summary = settle(tx, &ctx, id, &wish, found).await?;
            if wish.verify_email && summary.matched {
                summary.verification = verify(&ctx, tx, &[id]).await?;
            }
            Ok(summary)
        })
        .await
    }

    /// Asks, as far as it is needed. Nothing of the record is written.
    pub(super) async fn find<S: Subject>(
        &self,
        ctx: &JobContext,
        id: Uuid,
        wish: &Wish<S::Field>,
    ) -> Result<Found<S>, JobError> {
        let Some(workspace_id) = ctx.workspace_id() else {
            let why = "the job has no workspace: records and connections belong to one";
            return Err(JobError::Permanent(why.to_owned()));
        };
        let state = enriched::read(ctx.record(), S::ENTITY, (workspace_id, id)).await;
        let state = there::<S>(state.map_err(JobError::retry)?, id)?;
        let topics = S::topics(ctx.record(), workspace_id, &state).await?;
        let (open, kept): (Vec<S::Field>, Vec<S::Field>) = wish
            .fields
            .iter()
            .partition(|field| is_open(&state, **field, wish.overwrite));
        let gathered = match topics.objections.is_empty() {
            true => self.gather::<S>(ctx, wish, &topics, &open).await?,
            false => Gathered {
                providers: Vec::new(),
                values: BTreeMap::new(),
            },
        };
        let unknown = open
            .iter()
            .filter(|field| !gathered.values.contains_key(field));
        let summary = Summary {
            about: S::about(id, &topics),
            matched: gathered.providers.iter().any(|one| one.said == Told::Known),
            is_dry_run: wish.dry_run,
            unknown: unknown.map(|field| json!(field)).collect(),
            kept: kept.iter().map(|field| json!(field)).collect(),
            fields: BTreeMap::new(),
            providers: gathered.providers,
            verification: None,
        };
        Ok(Found {
            summary,
            values: gathered.values,
            state,
        })
    }

    /// Asks one provider after the other, until there is nothing left to ask for.
    async fn gather<S: Subject>(
        &self,
        ctx: &JobContext,
        wish: &Wish<S::Field>,
        topics: &Topics,
        open: &[S::Field],
    ) -> Result<Gathered<S::Field>, JobError> {
        let mut gathered = Gathered {
            providers: Vec::new(),
            values: BTreeMap::new(),
        };
        let mut failed = None;
        for source in &wish.sources {
            if open.iter().all(|field| gathered.values.contains_key(field)) {
                break;
            }
            let provider = source.as_str();
            let mut told = |said: Told, from_cache: Option<bool>, why: Option<String>| {
                gathered.providers.push(Said {
                    provider,
                    said,
                    from_cache,
                    why,
                });
            };
            let mut said = |said, from_cache| told(said, from_cache, None);
            let Some(topic) = topics.all.iter().find(|topic| topic.can_ask(*source)) else {
                said(Told::CanNotAsk, None);
                continue;
            };
            let answered = match self.ask(ctx, wish, *source, topic).await {
                Ok(Some(answered)) => answered,
                Ok(None) => {
                    said(Told::NotAsked, None);
                    continue;
                }
                Err(error) if self.is_dispensable(ctx, wish, *source, &error).await? => {
                    ctx.log(
                        LogLevel::Warn,
                        &format!("without {provider}: {error}"),
                        None,
                    );
                    told(Told::Failed, None, Some(error.to_string()));
                    failed.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let from_cache = match wish.since {
                Some(since) => answered.kept.at() < since,
                None => !answered.is_bought,
            };
            let Kept::Answer(kept) = answered.kept else {
                // Paid for, or there is none at all.
                said(Told::Unreadable, (!from_cache).then_some(false));
                ctx.log(LogLevel::Warn, &unreadable(provider), None);
                continue;
            };
            let answer = kept.answer.as_ref();
            let Some((values, confidence)) =
                answer.and_then(|answer| S::known(*source, answer, topic))
            else {
                said(Told::Unknown, Some(from_cache));
                continue;
            };
            said(Told::Known, Some(from_cache));
            if confidence < wish.min_confidence {
                let metadata = json!({ "provider": provider, "confidence": confidence });
                let words = "the answer seems to be about somebody else";
                ctx.log(LogLevel::Warn, words, Some(metadata));
                continue;
            }
            for (field, value) in values {
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
        let is_answered = |one: &Said| matches!(one.said, Told::Known | Told::Unknown);
        match failed {
            // Nobody else knows anything of it: what is wrong is what there is to tell.
            Some(error) if !gathered.providers.iter().any(is_answered) => Err(error),
            _ => Ok(gathered),
        }
    }

    /// Whether what the others know is used without waiting for this one: what was paid for is not
    /// lost because another one refuses, has no connection, is out of service, or fails always.
    async fn is_dispensable<F>(
        &self,
        ctx: &JobContext,
        wish: &Wish<F>,
        source: DataSource,
        error: &JobError,
    ) -> Result<bool, JobError> {
        if wish.sources.len() < 2 {
            return Ok(false);
        }
        match error {
            JobError::Permanent(_) => Ok(true),
            // For a quota, or for who asks the same, it waits.
            JobError::Snooze(..) => self.lookups.is_out_of_service(ctx, source).await,
            JobError::Retry(_) | JobError::RetryAfter(..) => Ok(ctx.failures() >= FAILURES_MAX),
            JobError::Reported(_)
            | JobError::Moved
            | JobError::RateLimited(_)
            | JobError::LeaseLost => Ok(false),
        }
    }

    /// None: a dry run, and no answer is kept.
    async fn ask<F>(
        &self,
        ctx: &JobContext,
        wish: &Wish<F>,
        source: DataSource,
        topic: &Topic,
    ) -> Result<Option<Answered>, JobError> {
        if !wish.dry_run {
            // It is large: a call, and what is around it.
            let how = (wish.max_age_days, &wish.resting);
            let asked = self.lookups.answer(ctx, source, topic, how);
            let answered = Box::pin(asked).await?;
            // The job may have waited to ask. One of a page may have others that want to.
            if !answered.is_bought && !wish.is_one_of_many() {
                ctx.pass_turn(&calls::key(ctx, source)?).await;
            }
            return Ok(Some(answered));
        }
        let question = question(ctx.workspace_id().unwrap_or_default(), source, topic);
        let kept = lookups::find(ctx.record(), &question, wish.max_age_days).await;
        Ok(kept.map_err(JobError::retry)?.map(|kept| Answered {
            kept: Kept::Answer(kept),
            is_bought: false,
        }))
    }
}

impl<S: Subject> Found<S> {
    /// What would become of each value.
    fn judged(mut self, wish: &Wish<S::Field>) -> Summary {
        self.summary.fields = judge(&self.state, &self.values, wish.overwrite);
        self.summary
    }
}

/// Says what becomes of each value.
fn judge<F: EnrichField>(
    state: &RecordState,
    values: &BTreeMap<F, NewValue>,
    overwrite: bool,
) -> BTreeMap<&'static str, FieldSummary> {
    let judged = values.iter().map(|(field, new)| {
        let fate = fate(state, *field, new, overwrite);
        (new.field, FieldSummary::new(fate, new))
    });
    judged.collect()
}

/// Writes what is to be written, and what was done, inside a transaction of the job.
pub(super) async fn settle<S: Subject>(
    tx: &mut Tx,
    ctx: &JobContext,
    id: Uuid,
    wish: &Wish<S::Field>,
    found: Found<S>,
) -> Result<Summary, JobError> {
    let about = (ctx.workspace_id().unwrap_or_default(), id);
    let Found {
        mut summary,
        values,
        ..
    } = found;
    // Somebody may have written since it was read.
    let state = enriched::hold(tx, S::ENTITY, about).await;
    let state = there::<S>(state.map_err(JobError::retry)?, id)?;
    summary.fields = judge(&state, &values, wish.overwrite);
    let ids = (about.0, id, ctx.job_id());
    write::<S>(tx, ids, &state, &mut summary, &values)
        .await
        .map_err(JobError::retry)?;
    Ok(summary)
}

async fn write<S: Subject>(
    tx: &mut Tx,
    ids: (Uuid, Uuid, Uuid),
    state: &RecordState,
    summary: &mut Summary,
    values: &BTreeMap<S::Field, NewValue>,
) -> Result<(), RecordError> {
    let with = |summary: &Summary, wanted: Fate| -> Vec<(S::Field, NewValue)> {
        let is_so = |new: &NewValue| {
            let field = summary.fields.get(new.field);
            field.is_some_and(|field| field.fate == wanted)
        };
        let fits = values.iter().filter(|(_, new)| is_so(new));
        fits.map(|(field, new)| (*field, new.clone())).collect()
    };
    let mut written: Vec<NewValue> = with(summary, Fate::Written)
        .into_iter()
        .map(|(_, new)| new)
        .collect();
    if S::ENTITY == enriched::Entity::Contact {
        let taken = enriched::taken(tx, (ids.0, ids.1), &written).await?;
        written.retain(|new| !taken.contains(&new.field));
        for field in taken {
            if let Some(field) = summary.fields.get_mut(field) {
                field.fate = Fate::Taken;
            }
        }
    }
    // A value of ours that was confirmed is newer from now on.
    let confirmed: Vec<NewValue> = with(summary, Fate::Same)
        .into_iter()
        .filter(|(field, _)| is_ours(state, *field))
        .map(|(_, new)| new)
        .collect();
    if !written.is_empty() {
        enriched::write(tx, S::ENTITY, ids, state, &written).await?;
    }
    if !confirmed.is_empty() {
        enriched::note_sources(tx, S::ENTITY, ids, &confirmed).await?;
    }
    let names: Vec<&str> = written.iter().map(|new| new.field).collect();
    let details = json!({
        "providers": summary.providers, "matched": summary.matched, "written": names,
        "unknown": summary.unknown,
    });
    enriched::note_activity(tx, S::ENTITY, ids, (ACTIVITY, &details)).await
}

fn there<S: Subject>(state: Option<RecordState>, id: Uuid) -> Result<RecordState, JobError> {
    state.ok_or_else(|| {
        let name = S::ENTITY.as_str();
        JobError::Permanent(format!("this workspace has no {name} {id}"))
    })
}
