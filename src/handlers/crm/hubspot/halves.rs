//! Calls for many records whose answers have nothing but errors: records that are archived, and
//! associations that are made or ended.
//!
//! Doing any of it again changes nothing. So what is refused, as a whole or in a part that `207`
//! tells of, goes again in halves, until each record that is refused stands alone: then the error
//! is its own.

use reqwest::Method;
use serde_json::{Value, json};

use super::super::client::{Crm, CrmError, Entity, Outcome, Push};
use super::call::{Class, failed, parsed};
use super::outcome::refused;
use super::{Hubspot, object, parent_type};

/// Records of one batch.
pub(super) const BATCH_MAX: usize = 100;
/// Some of a batch are refused.
const MULTI_STATUS: u16 = 207;

/// Whether a batch is refused for what is in it, so that a part of it may be taken.
pub(super) fn is_of_parts(status: u16) -> bool {
    matches!(status, 400 | 404 | 409 | 413 | 422)
}

/// A record and a company.
struct Tie {
    /// Of the record, in what was given.
    place: usize,
    id: String,
    company: String,
}

impl Hubspot {
    /// Sends all of them; `bad` gets those that are refused, with what is said of them.
    async fn send_all<T: Sync>(
        &self,
        path: &str,
        all: &[T],
        input: impl Fn(&T) -> Value + Send + Sync,
        mut bad: impl FnMut(&T, Outcome) + Send,
    ) -> Result<(), CrmError> {
        for batch in all.chunks(BATCH_MAX) {
            let mut waiting = vec![batch];
            while let Some(part) = waiting.pop() {
                let inputs: Vec<Value> = part.iter().map(&input).collect();
                let body = json!({ "inputs": inputs });
                let answer = self
                    .call(Method::POST, path, Some(body), Class::Objects)
                    .await?;
                let error = match answer.status {
                    MULTI_STATUS => match parsed(&answer)?.pointer("/errors/0") {
                        Some(error) => error.clone(),
                        None => continue,
                    },
                    200..=299 => {
                        // A page of a proxy says nothing of what was done.
                        parsed(&answer)?;
                        continue;
                    }
                    status if is_of_parts(status) => {
                        serde_json::from_slice(&answer.bytes).unwrap_or_default()
                    }
                    _ => return Err(failed(&answer)),
                };
                match part {
                    [one] => bad(one, refused(&error)),
                    _ => {
                        let (first, second) = part.split_at(part.len() / 2);
                        waiting.extend([second, first]);
                    }
                }
            }
        }
        Ok(())
    }

    /// Sets the accounts of records that were written.
    pub(super) async fn associate(
        &self,
        entity: Entity,
        records: &[Push],
        all: &mut [Outcome],
    ) -> Result<(), CrmError> {
        let Some(kind) = parent_type(entity) else {
            return Ok(());
        };
        let (mut to_set, mut to_end) = (Vec::new(), Vec::new());
        for (place, (record, outcome)) in records.iter().zip(&*all).enumerate() {
            let Outcome::Done { id, is_new, .. } = outcome else {
                continue;
            };
            match &record.parent_id {
                Some(Some(company)) => to_set.push(Tie {
                    place,
                    id: id.clone(),
                    company: company.clone(),
                }),
                Some(None) if !is_new => to_end.push((place, id.clone())),
                Some(None) | None => {}
            }
        }
        let path = format!(
            "/crm/v4/associations/{}/companies/batch/create",
            object(entity)
        );
        let pair = |tie: &Tie| {
            let (from, to) = (json!({ "id": tie.id }), json!({ "id": tie.company }));
            let kind = json!({
                "associationCategory": "HUBSPOT_DEFINED", "associationTypeId": kind,
            });
            json!({ "from": from, "to": to, "types": [kind] })
        };
        let bad = |tie: &Tie, outcome| {
            all[tie.place] = match outcome {
                // Its account is, not the record.
                Outcome::Gone(refusal) => Outcome::Permanent(refusal),
                other => other,
            };
        };
        self.send_all(&path, &to_set, pair, bad).await?;
        self.end_associations(entity, &to_end, all).await
    }

    async fn end_associations(
        &self,
        entity: Entity,
        to_end: &[(usize, String)],
        all: &mut [Outcome],
    ) -> Result<(), CrmError> {
        let path = format!(
            "/crm/v4/associations/{}/companies/batch/archive",
            object(entity)
        );
        for batch in to_end.chunks(BATCH_MAX) {
            let ids: Vec<String> = batch.iter().map(|(_, id)| id.clone()).collect();
            let now = self.read(entity, &ids, &[]).await?;
            let place = |id: &str| batch.iter().find(|(_, known)| known == id);
            let ties = now.into_iter().filter_map(|remote| {
                Some(Tie {
                    place: place(&remote.id)?.0,
                    id: remote.id,
                    company: remote.parent_id?,
                })
            });
            let ties: Vec<Tie> = ties.collect();
            let pair = |tie: &Tie| {
                let (from, to) = (json!({ "id": tie.id }), json!([{ "id": tie.company }]));
                json!({ "from": from, "to": to })
            };
            let bad = |tie: &Tie, outcome| match outcome {
                // With one of the two it is gone itself.
                Outcome::Gone(_) => {}
                other => all[tie.place] = other,
            };
            self.send_all(&path, &ties, pair, bad).await?;
        }
        Ok(())
    }

    pub(super) async fn archive_all(
        &self,
        entity: Entity,
        ids: &[String],
    ) -> Result<Vec<Outcome>, CrmError> {
        let path = format!("/crm/v3/objects/{}/batch/archive", object(entity));
        let done = |id: &String| Outcome::Done {
            id: id.clone(),
            is_new: false,
            modified_at: None,
        };
        let mut all: Vec<Outcome> = ids.iter().map(done).collect();
        let places: Vec<(usize, &String)> = ids.iter().enumerate().collect();
        let input = |(_, id): &(usize, &String)| json!({ "id": id });
        let bad = |(place, _): &(usize, &String), outcome| match outcome {
            // It is gone already: that is what was wanted.
            Outcome::Gone(_) => {}
            other => all[*place] = other,
        };
        self.send_all(&path, &places, input, bad).await?;
        Ok(all)
    }
}
