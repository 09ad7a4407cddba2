//! sObject Collections: up to 200 records a call, each with a result of its own, in order.
//!
//! A request of which one value can not be read (a day that is none) is refused as a whole, without
//! a word about which: it is cut in halves until that record stands alone.
//!
//! Source: REST API Developer Guide, "sObject Collections": `PATCH
//! …/composite/sobjects/OBJECT/FIELD` upserts by an external id, `PATCH …/composite/sobjects`
//! updates by id, `DELETE …/composite/sobjects?ids=` deletes.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::super::client::{CrmError, Entity, Outcome, Push, Refusal};
use super::Salesforce;
use super::calls::{Request, api_error, refused, unconfirmed};
use super::log_in::is_id;
use super::outcome::{Said, SaidError};
use super::soql::{checked_name, object, parent_field};

/// The most records of a call.
const RECORDS_MAX: usize = 200;
/// The largest body of a call with several records, in bytes.
const BODY_MAX: usize = 4 * 1024 * 1024;

impl Salesforce {
    /// Writes records that are all addressed the same way: by id, or by ours.
    pub(super) async fn collection(
        &self,
        entity: Entity,
        pushes: &[&Push],
    ) -> Result<Vec<Outcome>, CrmError> {
        let records = pushes.iter().map(|push| self.record(entity, push));
        let records: Vec<String> = records.collect::<Result<_, _>>()?;
        let mut outcomes: Vec<Option<Outcome>> = vec![None; pushes.len()];
        let mut parts = portions(&records);
        // The first part last, so that it is taken first.
        parts.reverse();
        // Halves of halves: at most twice as many calls as records.
        while let Some(part) = parts.pop() {
            let (from, to) = part;
            let said = self
                .send_part(entity, &pushes[from..to], &records[from..to])
                .await?;
            match said {
                Ok(all) => {
                    for (index, said) in (from..to).zip(all) {
                        outcomes[index] = Some(said.outcome(pushes[index]));
                    }
                }
                Err(refusal) if to - from == 1 => {
                    outcomes[from] = Some(Outcome::Permanent(refusal));
                }
                Err(_) => {
                    let half = from + (to - from) / 2;
                    parts.extend([(half, to), (from, half)]);
                }
            }
        }
        let outcomes: Option<Vec<Outcome>> = outcomes.into_iter().collect();
        outcomes.ok_or_else(|| unconfirmed("fewer results than records"))
    }

    /// One call. Err: all of it was refused for a value in it.
    async fn send_part(
        &self,
        entity: Entity,
        pushes: &[&Push],
        records: &[String],
    ) -> Result<Result<Vec<Said>, Refusal>, CrmError> {
        let is_update = pushes.first().is_some_and(|push| push.id.is_some());
        let data = &self.data;
        let path = match is_update {
            true => format!("{data}/composite/sobjects"),
            false => {
                let field = checked_name(&self.external_id)?;
                format!("{data}/composite/sobjects/{}/{field}", object(entity))
            }
        };
        let body = format!(r#"{{"allOrNone":false,"records":[{}]}}"#, records.join(","));
        let answer = self
            .call(&Request::write(Method::PATCH, path, body.into()))
            .await?;
        match answer.status {
            200..300 => {}
            400 => {
                let error = api_error(&answer);
                if error.error_code != "JSON_PARSER_ERROR" {
                    return Err(refused(&answer));
                }
                return Ok(Err(Refusal {
                    code: error.error_code,
                    message: error.message,
                    fields: Vec::new(),
                }));
            }
            _ => return Err(refused(&answer)),
        }
        let said: Result<Vec<Said>, _> = serde_json::from_slice(&answer.bytes);
        match said {
            Ok(said) if said.len() == records.len() => Ok(Ok(said)),
            _ => Err(unconfirmed("no result for each record")),
        }
    }

    fn record(&self, entity: Entity, push: &Push) -> Result<String, CrmError> {
        let mut record = Map::new();
        record.insert("attributes".to_owned(), json!({ "type": object(entity) }));
        if let Some(id) = &push.id {
            record.insert("id".to_owned(), json!(id));
        }
        for (name, value) in self.values(entity, push) {
            record.insert(checked_name(name)?.to_owned(), value);
        }
        Ok(Value::Object(record).to_string())
    }

    /// Everything that is set: fields, our id, and the account.
    pub(super) fn values<'a>(
        &'a self,
        entity: Entity,
        push: &'a Push,
    ) -> impl Iterator<Item = (&'a str, Value)> {
        let own = (self.external_id.as_str(), json!(push.local_id));
        let parent = parent_field(entity).zip(push.parent_id.as_ref());
        let parent = parent.map(|(name, id)| (name, json!(id)));
        let fields = push.fields.iter();
        let fields = fields.map(|(name, value)| (name.as_str(), value.clone()));
        let fields = fields.filter(|(name, _)| *name != self.external_id);
        fields.chain(std::iter::once(own)).chain(parent)
    }

    /// Deletes by id; what is gone is done.
    pub(super) async fn delete(
        &self,
        entity: Entity,
        ids: &[String],
    ) -> Result<Vec<Outcome>, CrmError> {
        let done = |id: &String| Outcome::Done {
            id: id.clone(),
            is_new: false,
            modified_at: None,
        };
        let mut outcomes = Vec::with_capacity(ids.len());
        for ids in ids.chunks(RECORDS_MAX) {
            if let Some(odd) = ids.iter().find(|id| !is_id(id)) {
                let name = object(entity);
                return Err(CrmError::PermanentRun(format!(
                    "{odd:?} is no id of a {name}"
                )));
            }
            let (data, list) = (&self.data, ids.join(","));
            let path = format!("{data}/composite/sobjects?ids={list}&allOrNone=false");
            let request = Request::write(Method::DELETE, path, bytes::Bytes::new());
            let answer = self.must(&request).await?;
            let said: Result<Vec<Said>, _> = serde_json::from_slice(&answer.bytes);
            let said = said.ok().filter(|said| said.len() == ids.len());
            let said = said.ok_or_else(|| unconfirmed("no result for each record"))?;
            for (id, said) in ids.iter().zip(said) {
                outcomes.push(match said.success {
                    true => done(id),
                    false => {
                        let error = said.errors.into_iter().next().unwrap_or_default();
                        match SaidError::outcome(error, Some(id)) {
                            Outcome::Gone(_) => done(id),
                            other => other,
                        }
                    }
                });
            }
        }
        Ok(outcomes)
    }
}

/// From where to where each call goes.
fn portions(records: &[String]) -> Vec<(usize, usize)> {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    let mut bytes = 0;
    for (index, record) in records.iter().enumerate() {
        bytes += record.len() + 1;
        match parts.last_mut() {
            Some((from, to)) if index - *from < RECORDS_MAX && bytes <= BODY_MAX => *to = index + 1,
            _ => {
                parts.push((index, index + 1));
                bytes = record.len() + 1;
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_at_most_200_records_and_their_bytes() {
        let small = vec!["{}".to_owned(); 401];
        assert_eq!(portions(&small), [(0, 200), (200, 400), (400, 401)]);
        let large = vec!["x".repeat(BODY_MAX / 2 + 1); 3];
        assert_eq!(portions(&large), [(0, 1), (1, 2), (2, 3)]);
        assert!(portions(&[]).is_empty());
    }
}
