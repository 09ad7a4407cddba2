//! `enrich_page`: some of the records of an enrichment.
//!
//! Where the worker may die, and what the next one finds:
//!
//! | between | finds | does |
//! |---|---|---|
//! | two records | those that are done, in the record | goes on with the others |
//! | an answer and its record | the answer | uses it, and asks nobody |
//! | the record and its line | neither: they are one commit | does both |
//!
//! What is wrong with one record is noted, and the others go on. So they do if one has to wait, for
//! a provider that fails or may not be asked now, or for somebody who asks the same: the page comes
//! back for those, after the longest of their waits.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use uuid::Uuid;

use super::super::enrich::{self, Account, Contact, Enricher, Fate, Subject, Summary, Told, Wish};
use super::super::import_csv::payload::EntityType;
use super::super::later::Later;
use super::super::providers::MANY_MAX;
use super::payload::{EnrichPage, PAGE_RECORDS};
use crate::job::{JobError, Progress};
use crate::record::enrichment_items::{self, Item};
use crate::record::flow;
use crate::worker::{Handler, JobContext};

/// A page of records, one after the other, with the waits of a quota among them.
const TIMEOUT: Duration = Duration::from_secs(2 * 3600);
/// What is told of a record that failed, in characters.
const MESSAGE_MAX: usize = 300;

/// Enriches a page of records.
#[derive(Debug, Clone)]
pub struct EnrichPageHandler {
    pub enricher: Enricher,
}

/// What a page came to.
#[derive(Debug, Serialize)]
pub struct PageSummary {
    records: usize,
    failed: usize,
    /// The whole was cancelled: the rest of the page was left alone.
    is_stopped: bool,
}

impl Handler for EnrichPageHandler {
    const TYPE: &'static str = "enrich_page";
    type Payload = EnrichPage;
    type Output = PageSummary;

    fn timeout(&self) -> Duration {
        TIMEOUT.max(enrich::TIMEOUT)
    }

    async fn run(&self, ctx: JobContext, payload: EnrichPage) -> Result<PageSummary, JobError> {
        let ctx = ctx.as_batch();
        match payload.entity_type {
            EntityType::Accounts => self.page::<Account>(ctx, payload).await,
            EntityType::Contacts => self.page::<Contact>(ctx, payload).await,
        }
    }
}

/// How far a page is.
struct Page<'a, S: Subject> {
    ctx: &'a JobContext,
    run_id: Uuid,
    wish: &'a Wish<S::Field>,
    total: usize,
    done: usize,
    failed: usize,
}

impl EnrichPageHandler {
    async fn page<S: Subject>(
        &self,
        ctx: JobContext,
        payload: EnrichPage,
    ) -> Result<PageSummary, JobError>
    where
        S::Field: DeserializeOwned,
    {
        if payload.record_ids.len() > PAGE_RECORDS {
            let why = format!("a page has at most {PAGE_RECORDS} records");
            return Err(JobError::Permanent(why));
        }
        let Some(run_id) = parent(&ctx).await? else {
            let why = "it is a part of an enrichment, which `POST /api/enrichments` begins";
            return Err(JobError::Permanent(why.to_owned()));
        };
        let wish = payload.how.wish::<S::Field>();
        let mut wish = wish.map_err(|problem| {
            JobError::Permanent(format!("{}: {}", problem.pointer, problem.message))
        })?;
        let (begun_at, mut is_stopped) = self.whole(&ctx, run_id).await?;
        wish.since = Some(begun_at);
        let ids = &payload.record_ids;
        let done = enrichment_items::done(ctx.record(), run_id, ids).await;
        let done: HashSet<Uuid> = done.map_err(JobError::retry)?.into_iter().collect();
        let open: Vec<Uuid> = ids
            .iter()
            .filter(|id| !done.contains(id))
            .copied()
            .collect();
        let mut page = Page::<S> {
            ctx: &ctx,
            run_id,
            wish: &wish,
            total: ids.len(),
            done: done.len(),
            failed: 0,
        };
        let mut later = Later::default();
        for some in open.chunks(MANY_MAX) {
            is_stopped = is_stopped || self.whole(&ctx, run_id).await?.1;
            if is_stopped {
                break;
            }
            if let Err(error) = self.enricher.prefetch::<S>(&ctx, some, &wish).await {
                note_failed_prefetch(&ctx, &wish, &mut later, error)?;
            }
            for id in some {
                if let Err(error) = Box::pin(self.record(&mut page, *id)).await {
                    note(&ctx, &mut later, error)?;
                }
            }
            wish.resting.wake_failed();
        }
        match later.end() {
            Some(error) if !is_stopped => Err(error),
            _ => {
                if wish.verify_email {
                    verify(&page, ids).await?;
                }
                Ok(PageSummary {
                    records: page.done,
                    failed: page.failed,
                    is_stopped,
                })
            }
        }
    }

    /// When the whole began, and whether it was cancelled.
    async fn whole(
        &self,
        ctx: &JobContext,
        run_id: Uuid,
    ) -> Result<(DateTime<Utc>, bool), JobError> {
        let workspace_id = ctx.workspace_id().unwrap_or_default();
        let found = enrichment_items::whole(ctx.record(), workspace_id, run_id).await;
        found.map_err(JobError::retry)?.ok_or_else(|| {
            JobError::Permanent("the enrichment that it is a part of is gone".to_owned())
        })
    }

    /// One record, and the line that says so, in one commit.
    async fn record<S: Subject>(&self, page: &mut Page<'_, S>, id: Uuid) -> Result<(), JobError> {
        let ctx = page.ctx;
        let found = match self.enricher.find::<S>(ctx, id, page.wish).await {
            Ok(found) => Ok(found),
            Err(JobError::Permanent(why)) => Err(why),
            Err(error) => return Err(error),
        };
        let mut checkpoint = ctx.begin_checkpoint().await?;
        let tx = checkpoint.tx();
        let item = match found {
            Ok(found) => match enrich::settle(tx, ctx, id, page.wish, found).await {
                Ok(summary) => item(id, &summary),
                Err(JobError::Permanent(why)) => failed(id, &why),
                Err(error) => return Err(error),
            },
            Err(why) => failed(id, &why),
        };
        let workspace_id = ctx.workspace_id().unwrap_or_default();
        enrichment_items::add(tx, (workspace_id, page.run_id), &item)
            .await
            .map_err(JobError::retry)?;
        let (done, failed) = (
            page.done + 1,
            page.failed + usize::from(item.outcome == "failed"),
        );
        let progress = Progress::new(page.total as u64, done as u64, failed as u64, "enriching");
        checkpoint.commit(json!({ "done": done }), progress).await?;
        (page.done, page.failed) = (done, failed);
        Ok(())
    }
}

/// Has the addresses of those people verified who are known. A page that dies behind it finds that
/// verification again.
async fn verify<S: Subject>(page: &Page<'_, S>, ids: &[Uuid]) -> Result<(), JobError> {
    let ctx = page.ctx;
    let known = enrichment_items::known(ctx.record(), page.run_id, ids).await;
    let known = known.map_err(JobError::retry)?;
    if known.is_empty() {
        return Ok(());
    }
    let mut checkpoint = ctx.begin_checkpoint().await?;
    enrich::verify(ctx, checkpoint.tx(), &known).await?;
    let (total, done, failed) = (page.total as u64, page.done as u64, page.failed as u64);
    let progress = Progress::new(total, done, failed, "addresses are verified");
    checkpoint.commit(json!({ "done": done }), progress).await
}

/// Notes that a record has to wait, unless the attempt is over.
fn note(ctx: &JobContext, later: &mut Later, error: JobError) -> Result<(), JobError> {
    match ctx.cancelled().is_cancelled() {
        true => Err(error),
        false => later.note(error),
    }
}

/// Notes that a question about several failed. Their records do not ask the same one by one.
fn note_failed_prefetch<F>(
    ctx: &JobContext,
    wish: &Wish<F>,
    later: &mut Later,
    error: JobError,
) -> Result<(), JobError> {
    // What is wrong with the connection is told of each record.
    if matches!(error, JobError::Permanent(_)) {
        return Ok(());
    }
    note(ctx, later, error.clone())?;
    if let Some(source) = wish.sources.first() {
        wish.resting.rest(*source, error);
    }
    Ok(())
}

/// The job of the whole; none: there is none.
async fn parent(ctx: &JobContext) -> Result<Option<Uuid>, JobError> {
    let links = flow::links(ctx.record(), &[ctx.job_id()]).await;
    let links = links.map_err(JobError::retry)?;
    Ok(links.first().and_then(|(_, link)| link.parent_id()))
}

fn item(id: Uuid, summary: &Summary) -> Item {
    let written = summary.fields.iter();
    let written: Vec<&'static str> = written
        .filter(|(_, field)| field.fate == Fate::Written)
        .map(|(name, _)| *name)
        .collect();
    let asked = |told: &Told| matches!(told, Told::Known | Told::Unknown);
    let objections = summary.about.get("objections");
    let has_objections =
        objections.is_some_and(|all| all.as_array().is_some_and(|all| !all.is_empty()));
    let unreadable = summary.unreadable();
    let outcome = match () {
        () if has_objections => "objected",
        () if !written.is_empty() => "enriched",
        () if summary.matched => "nothing_new",
        // Whether it is known, nobody can tell.
        () if unreadable.is_some() => "failed",
        () if summary.providers.iter().any(|one| asked(&one.said)) => "no_match",
        () => "nothing_to_ask",
    };
    Item {
        record_id: id,
        outcome,
        said: json!(summary.providers),
        written,
        message: unreadable.map(enrich::unreadable),
    }
}

fn failed(id: Uuid, why: &str) -> Item {
    Item {
        record_id: id,
        outcome: "failed",
        said: json!([]),
        written: Vec::new(),
        message: Some(why.chars().take(MESSAGE_MAX).collect()),
    }
}
