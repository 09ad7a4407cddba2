//! What is enriched: an account, or a contact.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::import_csv::normalize;
use super::super::providers::{
    ContactField, DataSource, EnrichField, Field, PersonKey, Topic, read, read_person,
};
use crate::job::JobError;
use crate::record::Record;
use crate::record::enriched::{self, Entity, RecordState};

/// Pages of a company there are many of, and the domain is not its own: nobody pays to learn about
/// the site.
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

/// A kind of record that is enriched.
pub(in super::super) trait Subject: Send + Sync + 'static {
    type Field: EnrichField;

    const ENTITY: Entity;

    /// What the record can be looked up by, the surest first; none: nobody may be asked, and why.
    async fn topics(
        record: &Record,
        workspace_id: Uuid,
        state: &RecordState,
    ) -> Result<Topics, JobError>;

    /// Which record it was and what it was looked up by, for the result.
    fn about(id: Uuid, topics: &Topics) -> Map<String, Value>;

    /// The values of an answer, and how sure they are.
    fn known(source: DataSource, answer: &Value, topic: &Topic) -> Option<Known<Self::Field>>;
}

/// What a record can be looked up by.
#[derive(Debug, Clone)]
pub(in super::super) struct Topics {
    pub(in super::super) all: Vec<Topic>,
    /// Why nobody is asked: the person does not want that.
    pub(in super::super) objections: Vec<String>,
}

/// Values, and how sure they are.
pub(in super::super) type Known<F> = (std::collections::BTreeMap<F, Value>, f32);

fn members<const N: usize>(all: [(&str, Value); N]) -> Map<String, Value> {
    all.map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// An account.
#[derive(Debug)]
pub(in super::super) enum Account {}

impl Subject for Account {
    type Field = Field;

    const ENTITY: Entity = Entity::Account;

    async fn topics(_: &Record, _: Uuid, state: &RecordState) -> Result<Topics, JobError> {
        Ok(Topics {
            all: vec![Topic::Company(domain(&state.values)?)],
            objections: Vec::new(),
        })
    }

    fn about(id: Uuid, topics: &Topics) -> Map<String, Value> {
        let domain = topics.all.first().map(Topic::key);
        members([("account_id", json!(id)), ("domain", json!(domain))])
    }

    fn known(source: DataSource, answer: &Value, topic: &Topic) -> Option<Known<Field>> {
        let facts = read(source, answer)?;
        let confidence = facts.confidence(&topic.key());
        Some((facts.values, confidence))
    }
}

/// What the company is looked up by. Also the domain is checked: it becomes a part of an address.
fn domain(values: &Map<String, Value>) -> Result<String, JobError> {
    let normal = |name: &str| {
        let text = values.get(name).and_then(Value::as_str)?;
        normalize::domain(text).ok()
    };
    let website = || normal("website").filter(|site| !SHARED_SITES.contains(&site.as_str()));
    normal("domain").or_else(website).ok_or_else(|| {
        let why = "the account has neither a domain nor a website with a domain of its own: it \
                   can not be looked up";
        JobError::Permanent(why.to_owned())
    })
}

/// A contact.
#[derive(Debug)]
pub(in super::super) enum Contact {}

impl Subject for Contact {
    type Field = ContactField;

    const ENTITY: Entity = Entity::Contact;

    async fn topics(
        record: &Record,
        workspace_id: Uuid,
        state: &RecordState,
    ) -> Result<Topics, JobError> {
        let text = |name: &str| state.values.get(name).and_then(Value::as_str);
        let account_id = text("account_id").and_then(|id| id.parse().ok());
        let domain = match account_id {
            Some(id) => enriched::domain_of(record, workspace_id, id)
                .await
                .map_err(JobError::retry)?,
            None => None,
        };
        let addresses: Vec<String> = match text("email").map(str::to_lowercase) {
            Some(email) => {
                let host = email.rsplit_once('@').map(|(_, host)| host.to_owned());
                std::iter::once(email).chain(host).collect()
            }
            None => Vec::new(),
        };
        let objections = enriched::objections(record, workspace_id, &addresses).await;
        let objections = objections.map_err(JobError::retry)?;
        let keys = PersonKey::of(|name| text(name).map(str::to_owned), domain.as_deref());
        if keys.is_empty() {
            let why = "the contact has neither an e-mail address, nor a LinkedIn page, nor both \
                       names and an employer: it can not be looked up";
            return Err(JobError::Permanent(why.to_owned()));
        }
        Ok(Topics {
            all: keys.into_iter().map(Topic::Person).collect(),
            objections,
        })
    }

    /// `looked_up_by`: `email`, `linkedin_url` or `name`. `objections`: why nobody was asked.
    fn about(id: Uuid, topics: &Topics) -> Map<String, Value> {
        let by = topics.all.first().and_then(|topic| match topic {
            Topic::Person(key) => Some(key.by()),
            Topic::Company(_) => None,
        });
        members([
            ("contact_id", json!(id)),
            ("looked_up_by", json!(by)),
            ("objections", json!(topics.objections)),
        ])
    }

    fn known(source: DataSource, answer: &Value, topic: &Topic) -> Option<Known<ContactField>> {
        let Topic::Person(key) = topic else {
            return None;
        };
        let facts = read_person(source, answer)?;
        let confidence = key.confidence(&facts);
        Some((facts.values, confidence))
    }
}
