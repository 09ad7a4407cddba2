//! Writing: batches, and what is bisected of them.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::super::client::{CrmError, Entity, Outcome, Push, Refusal};
use super::call::{Class, failed, parsed};
use super::halves::{BATCH_MAX, is_of_parts};
use super::outcome::{Input, outcomes, refused};
use super::{Hubspot, object};

/// A record as it is sent.
struct Sent {
    /// In what was given.
    place: usize,
    key: String,
    /// It is upserted by this property; none: updated by id.
    property: Option<String>,
    trace: String,
    body: Value,
}

impl Hubspot {
    pub(super) async fn write(
        &self,
        entity: Entity,
        records: &[Push],
    ) -> Result<Vec<Outcome>, CrmError> {
        let mut all: Vec<Option<Outcome>> = vec![None; records.len()];
        let (mut updates, mut upserts) = (Vec::new(), Vec::new());
        for (place, record) in records.iter().enumerate() {
            match self.to_send(entity, place, record).await? {
                Ok(sent) if sent.property.is_none() => updates.push(sent),
                Ok(sent) => upserts.push(sent),
                Err(refusal) => all[place] = Some(Outcome::Permanent(refusal)),
            }
        }
        for (verb, list) in [("update", updates), ("upsert", upserts)] {
            for batch in list.chunks(BATCH_MAX) {
                self.batch(entity, verb, batch, &mut all).await?;
            }
        }
        let unsaid = || Outcome::Retryable(unsaid());
        let mut all: Vec<Outcome> = all
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(unsaid))
            .collect();
        self.associate(entity, records, &mut all).await?;
        Ok(all)
    }

    async fn to_send(
        &self,
        entity: Entity,
        place: usize,
        record: &Push,
    ) -> Result<Result<Sent, Refusal>, CrmError> {
        let values = record
            .fields
            .iter()
            .map(|(name, value)| (name.clone(), sent(value)));
        let mut properties: Map<String, Value> = values.collect();
        let local_id = record.local_id.to_string();
        let (key, property) = match &record.id {
            Some(id) => {
                let external = self.external_id();
                let known = self.properties(entity).await?.get(external);
                if known.is_some_and(|property| property.is_unique) {
                    properties.insert(external.to_owned(), Value::from(local_id));
                }
                (id.clone(), None)
            }
            None => match self.upserted_by(entity).await? {
                "email" => {
                    let Some(email) = properties.get("email").and_then(Value::as_str) else {
                        return Ok(Err(Refusal {
                            code: "no_key".to_owned(),
                            message: format!(
                                "a contact without an e-mail address can only be made by the \
                                 property `{}`, which contacts do not have",
                                self.external_id()
                            ),
                            fields: vec!["email".to_owned()],
                        }));
                    };
                    (email.to_owned(), Some("email".to_owned()))
                }
                property => (local_id, Some(property.to_owned())),
            },
        };
        let mut body = json!({
            "id": key, "properties": properties, "objectWriteTraceId": record.trace,
        });
        if let Some(property) = &property {
            body["idProperty"] = Value::from(property.as_str());
        }
        Ok(Ok(Sent {
            place,
            key,
            property,
            trace: record.trace.clone(),
            body,
        }))
    }

    /// Sends a batch; what is refused as a whole goes again in halves, so that one bad record is
    /// found and the others are written.
    async fn batch(
        &self,
        entity: Entity,
        verb: &str,
        batch: &[Sent],
        all: &mut [Option<Outcome>],
    ) -> Result<(), CrmError> {
        let path = format!("/crm/v3/objects/{}/batch/{verb}", object(entity));
        let mut waiting = vec![batch];
        while let Some(part) = waiting.pop() {
            let inputs: Vec<&Value> = part.iter().map(|sent| &sent.body).collect();
            let body = json!({ "inputs": inputs });
            let answer = self
                .call(Method::POST, &path, Some(body), Class::Objects)
                .await?;
            let said = match answer.status {
                200..=299 => parsed(&answer)?,
                status if is_of_parts(status) && part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    waiting.extend([second, first]);
                    continue;
                }
                status if is_of_parts(status) => {
                    let error = serde_json::from_slice(&answer.bytes).unwrap_or_default();
                    all[part[0].place] = Some(refused(&error));
                    continue;
                }
                _ => return Err(failed(&answer)),
            };
            let inputs: Vec<Input<'_>> = part
                .iter()
                .map(|sent| Input {
                    key: &sent.key,
                    property: sent.property.as_deref(),
                    trace: &sent.trace,
                })
                .collect();
            let outcomes = outcomes(&inputs, &said);
            for (place, outcome) in outcomes.into_iter().enumerate() {
                match outcome {
                    Some(outcome) => all[part[place].place] = Some(outcome),
                    // Alone, the only error is its own.
                    None if part.len() == 1 => {
                        let error = said.pointer("/errors/0");
                        all[part[0].place] = error.map(refused);
                    }
                    None => waiting.push(&part[place..=place]),
                }
            }
        }
        Ok(())
    }
}

/// Values are texts; an empty one empties the property.
fn sent(value: &Value) -> Value {
    match value {
        Value::Null => Value::from(""),
        Value::String(text) => Value::from(text.as_str()),
        other => Value::from(other.to_string()),
    }
}

fn unsaid() -> Refusal {
    Refusal {
        code: "NO_ANSWER".to_owned(),
        message: "HubSpot's answer says nothing of this record".to_owned(),
        fields: Vec::new(),
    }
}
