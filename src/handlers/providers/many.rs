//! Questions about several companies or people at once, of providers that take them.
//!
//! An answer is taken apart: each record has its own outcome, and a bad one costs the others
//! nothing.

use reqwest::Method;
use serde_json::{Value, json};

use super::super::connection::Connection;
use super::{
    ANSWER_MAX_BYTES, DataSource, Reply, Topic, apollo, apollo_many, base_url, headers, refusal,
    said, sent,
};
use crate::outbound::{Answer, Call};

/// The most that one question may be about.
pub(in super::super) const MANY_MAX: usize = apollo_many::MANY_MAX;

/// Whether this provider takes several questions of this kind at once.
pub(in super::super) fn can_ask_many(source: DataSource) -> bool {
    source == DataSource::Apollo
}

/// One question about several of the same kind, at least one and at most [`MANY_MAX`].
pub(in super::super) fn call_many(
    source: DataSource,
    connection: &Connection,
    topics: &[&Topic],
) -> Result<Call, String> {
    let base = base_url(connection)?;
    let mut domains = Vec::new();
    let mut people = Vec::new();
    for topic in topics {
        match topic {
            Topic::Company(domain) => domains.push(domain.as_str()),
            Topic::Person(person) => people.push(apollo::person_question(person)),
        }
    }
    let (path, body) = match (domains.is_empty(), people.is_empty()) {
        (false, true) => (apollo_many::MANY_COMPANIES, json!({ "domains": domains })),
        (true, false) => (apollo_many::MANY_PEOPLE, json!({ "details": people })),
        _ => return Err("has no question about several of one kind".to_owned()),
    };
    let headers = headers(source, connection, None, true)?;
    let url = format!("{base}{path}");
    Ok(Call {
        answer_max_bytes: ANSWER_MAX_BYTES * topics.len().clamp(1, MANY_MAX),
        ..sent(Method::POST, url, headers, body.to_string())
    })
}

/// What an answer means for each of them, in their order; none where it does not tell which is
/// which: that one is to be asked for alone. Or, if it is no answer, what that means for all.
pub(in super::super) fn reply_many(
    source: DataSource,
    topics: &[&Topic],
    answer: &Answer,
) -> Result<Vec<Option<Reply>>, Reply> {
    if answer.status != 200 {
        return Err(refusal(answer));
    }
    if !answer.is_whole {
        return Err(Reply::Unreadable);
    }
    let body = serde_json::from_slice::<Value>(&answer.bytes);
    let body = body.map_err(|_| Reply::Unreadable)?;
    let domains: Vec<&str> = topics
        .iter()
        .filter_map(|topic| match topic {
            Topic::Company(domain) => Some(domain.as_str()),
            Topic::Person(_) => None,
        })
        .collect();
    let each = match domains.is_empty() {
        true => apollo_many::each_person(&body, topics.len()),
        false => apollo_many::each_company(&body, &domains),
    };
    let each = each.ok_or(Reply::Unreadable)?;
    let replies = topics.iter().zip(each);
    Ok(replies
        .map(|(topic, one)| Some(said(source, topic, one?)))
        .collect())
}
