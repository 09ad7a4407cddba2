//! Questions of several records at once, of providers that take them: `enrich_records` fills what
//! is kept with them, so that each record then finds its answer there.
//!
//! Each question is claimed as for one record. What one answer says of several is kept question by
//! question, before any of it is used. A refusal of the whole, perhaps because of one bad record,
//! costs the others nothing: each is then asked for alone. An answer that can not be read was paid
//! for: that is kept of each question, and none of them is asked again soon.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::super::providers::{self, DataSource, MANY_MAX, Reply, Topic, can_ask_many, reply_many};
use super::lookup::{
    CLAIM, FOUND_DAYS, Lookups, Mine, UNKNOWN_DAYS, counted, judged, keep, keep_unreadable,
    question,
};
use super::resting::Resting;
use super::subject::Subject;
use super::{Enricher, Wish, is_open};
use crate::job::JobError;
use crate::outbound::Answer;
use crate::record::enriched;
use crate::record::lookups::{self, Asked};
use crate::worker::JobContext;

impl Enricher {
    /// Asks the first provider for what these records need of it, in as few calls as it takes.
    pub(in super::super) async fn prefetch<S: Subject>(
        &self,
        ctx: &JobContext,
        ids: &[Uuid],
        wish: &Wish<S::Field>,
    ) -> Result<(), JobError> {
        let Some(source) = wish.sources.first().copied() else {
            return Ok(());
        };
        if !can_ask_many(source) || wish.dry_run || wish.resting.of(source).is_some() {
            return Ok(());
        }
        // Equal questions once, and those of one kind together.
        let mut topics = BTreeMap::new();
        for id in ids {
            if let Some(topic) = needed::<S>(ctx, *id, wish, source).await? {
                topics.insert(topic.key(), topic);
            }
        }
        let topics: Vec<Topic> = topics.into_values().collect();
        for some in topics.chunks(MANY_MAX) {
            let how = (wish.max_age_days, &wish.resting);
            let asked = self.lookups.ask_many(ctx, source, some, how);
            Box::pin(asked).await?;
        }
        Ok(())
    }
}

/// What the provider would be asked about a record, if anything. What is wrong with the record is
/// told when it is its turn.
async fn needed<S: Subject>(
    ctx: &JobContext,
    id: Uuid,
    wish: &Wish<S::Field>,
    source: DataSource,
) -> Result<Option<Topic>, JobError> {
    let workspace_id = ctx.workspace_id().unwrap_or_default();
    let state = enriched::read(ctx.record(), S::ENTITY, (workspace_id, id)).await;
    let Some(state) = state.map_err(JobError::retry)? else {
        return Ok(None);
    };
    let mut fields = wish.fields.iter();
    if !fields.any(|field| is_open(&state, *field, wish.overwrite)) {
        return Ok(None);
    }
    let topics = match S::topics(ctx.record(), workspace_id, &state).await {
        Ok(topics) if topics.objections.is_empty() => topics.all,
        Ok(_) | Err(JobError::Permanent(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(topics.into_iter().find(|topic| topic.can_ask(source)))
}

impl Lookups {
    /// Asks for those of them that nobody has asked for, in one call.
    async fn ask_many(
        &self,
        ctx: &JobContext,
        source: DataSource,
        topics: &[Topic],
        (max_age_days, resting): (Option<i32>, &Resting),
    ) -> Result<(), JobError> {
        let workspace_id = ctx.workspace_id().unwrap_or_default();
        let mut mine = Vec::new();
        for topic in topics {
            let question = question(workspace_id, source, topic);
            let call_id = Uuid::new_v4();
            let claim = (call_id, CLAIM);
            let asked = lookups::ask(ctx.record(), &question, max_age_days, claim).await;
            if let Asked::Yours { polls } = asked.map_err(JobError::retry)? {
                mine.push(Mine {
                    ctx: ctx.clone(),
                    source,
                    topic: topic.clone(),
                    question,
                    call_id,
                    polls,
                    resting: resting.clone(),
                });
            }
        }
        if mine.is_empty() {
            return Ok(());
        }
        let lookups = self.clone();
        let bought = async move { lookups.buy_many(&mine).await };
        ctx.outlive("lookups", bought).await
    }

    /// Asks, and keeps each answer before anybody uses it; what has none is given back.
    async fn buy_many(&self, mine: &[Mine]) -> Result<(), JobError> {
        let Some(first) = mine.first() else {
            return Ok(());
        };
        let (source, record) = (first.source, first.ctx.record());
        let asked = self.call_many(mine).await;
        let (replies, mut failure) = match asked {
            Ok(replies) => (replies, None),
            Err(error) => (Vec::new(), error),
        };
        for (nth, one) in mine.iter().enumerate() {
            let kept = match replies.get(nth).and_then(Option::as_ref) {
                Some(Reply::Found(body)) => Some((Some(body), FOUND_DAYS, "found")),
                Some(Reply::Unknown) => Some((None, UNKNOWN_DAYS, "unknown")),
                Some(Reply::Unreadable) => {
                    counted(source, "unreadable");
                    if let Err(error) = keep_unreadable(record, one).await {
                        failure.get_or_insert(error);
                    }
                    continue;
                }
                _ => None,
            };
            let Some((body, days, outcome)) = kept else {
                counted(source, "none");
                // If this fails, the claim runs out by itself.
                let _ = lookups::give_back(record, &one.question, one.call_id, None).await;
                continue;
            };
            counted(source, outcome);
            // The others were paid for, too.
            if let Err(error) = keep(record, one, (body, days)).await {
                failure.get_or_insert(error);
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// One call. An error that says nothing: each is to be asked for alone.
    async fn call_many(&self, mine: &[Mine]) -> Result<Vec<Option<Reply>>, Option<JobError>> {
        let Some(first) = mine.first() else {
            return Ok(Vec::new());
        };
        let (ctx, source) = (&first.ctx, first.source);
        let connection = self.connections.open(ctx, source.provider(), None).await;
        let connection = connection.map_err(Some)?;
        let topics: Vec<&Topic> = mine.iter().map(|one| &one.topic).collect();
        let call = providers::call_many(source, &connection, &topics);
        let call = call.map_err(|why| Some(super::calls::unusable(&connection, &why)))?;
        let is_poor =
            |answer: &Answer| matches!(reply_many(source, &topics, answer), Err(Reply::NoCredits));
        let records = u32::try_from(topics.len()).unwrap_or(1);
        let sent = self
            .calls
            .send(ctx, (source, &connection), (&call, records), is_poor);
        let answer = sent.await.map_err(|error| match error {
            // Such as a quota that is smaller than this: each alone may fit.
            JobError::Permanent(_) => None,
            other => Some(other),
        })?;
        match reply_many(source, &topics, &answer) {
            Ok(replies) => Ok(replies),
            Err(Reply::Unreadable) => Ok(vec![Some(Reply::Unreadable); topics.len()]),
            Err(Reply::Rejected | Reply::Unknown) => Err(None),
            Err(reply) => match judged(ctx, source, (&connection, &answer), reply).await {
                Err(error) => Err(Some(error)),
                Ok(_) => Err(None),
            },
        }
    }
}
