//! What the simulator remembers: who may call how often, what is scripted, and what came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::providers::{DataSource, MANY_MAX, Topic};
use super::answers::{PAGE, Said, about, is_unknown, limit_headers};
use super::windows::{self, Window};
use crate::clock;

/// Questions that are remembered, the newest.
const SEEN_MAX: usize = 20_000;
/// Tokens that are good at a time.
const TOKENS_MAX: usize = 1000;

/// Something that happens out there, at one question.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// 429, however many calls there were.
    Limited(Style),
    /// This status, with words.
    Status(u16),
    /// 202: ask again later.
    StillLooking,
    /// The right answer; half of it comes after this time.
    Slow(Duration),
    /// Half of the right answer, and the connection ends.
    CutOff,
    /// 200, with a page for people.
    Nonsense,
    /// The right answer, and so many bytes more.
    Large(usize),
    /// The right answer.
    Fine,
}

/// How a 429 says when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `Retry-After` in seconds.
    Seconds(u32),
    /// `Retry-After` as a date.
    Date(u32),
    /// In the provider's own headers.
    Vendor(u32),
    /// Not at all.
    Bare,
}

/// A question that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub source: DataSource,
    /// Of a person: what was asked by, such as `email:ann@acme.com`.
    pub domain: String,
    pub status: u16,
    pub at: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    scripts: BTreeMap<DataSource, VecDeque<Turn>>,
    windows: BTreeMap<DataSource, Vec<Window>>,
    /// They say nothing of their limits.
    silent: BTreeSet<DataSource>,
    /// They do not answer.
    down: BTreeSet<DataSource>,
    credits: BTreeMap<DataSource, u64>,
    spent: BTreeMap<DataSource, u64>,
    refused: BTreeSet<String>,
    /// Companies and people that no question may be about.
    refused_topics: BTreeSet<String>,
    tokens: BTreeSet<String>,
    seen: VecDeque<Seen>,
    /// How often each status was answered.
    answers: BTreeMap<DataSource, BTreeMap<u16, u64>>,
    violations: usize,
    log_ins: usize,
}

#[derive(Debug)]
pub(super) struct State(Mutex<Inner>);

impl Default for State {
    /// With the limits that are published.
    fn default() -> Self {
        let mut inner = Inner::default();
        for source in DataSource::ALL {
            inner.windows.insert(source, windows::published(source));
        }
        Self(Mutex::new(inner))
    }
}

impl State {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn script(&self, source: DataSource, turns: impl IntoIterator<Item = Turn>) {
        self.inner()
            .scripts
            .entry(source)
            .or_default()
            .extend(turns);
    }

    pub(super) fn limit(&self, source: DataSource, max: usize, per: Duration) {
        let mut inner = self.inner();
        inner
            .windows
            .insert(source, vec![Window::sliding(max, per)]);
        inner.silent.insert(source);
    }

    pub(super) fn set_credits(&self, source: DataSource, credits: u64) {
        self.inner().credits.insert(source, credits);
    }

    pub(super) fn spent(&self, source: DataSource) -> u64 {
        self.inner().spent.get(&source).copied().unwrap_or_default()
    }

    pub(super) fn set_down(&self, source: DataSource, is_down: bool) {
        let mut inner = self.inner();
        match is_down {
            true => inner.down.insert(source),
            false => inner.down.remove(&source),
        };
    }

    pub(super) fn refuse(&self, credential: &str) {
        self.inner().refused.insert(credential.to_owned());
    }

    pub(super) fn refuse_about(&self, keys: impl IntoIterator<Item = String>) {
        self.inner().refused_topics.extend(keys);
    }

    pub(super) fn end_tokens(&self) {
        self.inner().tokens.clear();
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.inner().seen.iter().cloned().collect()
    }

    pub(super) fn answers(&self, source: DataSource) -> BTreeMap<u16, u64> {
        let inner = self.inner();
        inner.answers.get(&source).cloned().unwrap_or_default()
    }

    pub(super) fn violations(&self) -> usize {
        self.inner().violations
    }

    pub(super) fn log_ins(&self) -> usize {
        self.inner().log_ins
    }

    /// A token for a user and a password, or for a signed assertion, which is not looked into.
    pub(super) fn log_in(&self, body: &Value, assertion: Option<&str>) -> Said {
        let mut inner = self.inner();
        inner.log_ins += 1;
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let has_password = !text("username").is_empty() && !text("password").is_empty();
        let is_signed = assertion.is_some_and(|text| text.split('.').count() == 3);
        if !(has_password || is_signed) || inner.refused.contains(text("password")) {
            return Said::error(401, "Invalid username or password");
        }
        if inner.tokens.len() >= TOKENS_MAX {
            inner.tokens.clear();
        }
        let token = Uuid::new_v4().to_string();
        inner.tokens.insert(token.clone());
        Said::json(200, &json!({ "jwt": token }))
    }

    /// The answer to a question.
    pub(super) fn answer(&self, source: DataSource, key: Option<&str>, topic: &Topic) -> Said {
        self.told(source, key, Asked::One(topic))
    }

    /// The answer of Apollo to a question about several.
    pub(super) fn answer_many(&self, key: Option<&str>, topics: &[Option<Topic>]) -> Said {
        self.told(DataSource::Apollo, key, Asked::Many(topics))
    }

    fn told(&self, source: DataSource, key: Option<&str>, asked: Asked<'_>) -> Said {
        let mut inner = self.inner();
        let said = inner.answer(source, key, asked);
        let answers = inner.answers.entry(source).or_default();
        *answers.entry(said.status).or_default() += 1;
        let topics: Vec<&Topic> = match asked {
            Asked::One(topic) => vec![topic],
            Asked::Many(topics) => topics.iter().flatten().collect(),
        };
        for topic in topics {
            if inner.seen.len() >= SEEN_MAX {
                inner.seen.pop_front();
            }
            inner.seen.push_back(Seen {
                source,
                domain: topic.key(),
                status: said.status,
                at: Instant::now(),
            });
        }
        said
    }
}

/// What a question is about.
#[derive(Debug, Clone, Copy)]
enum Asked<'a> {
    One(&'a Topic),
    /// None: it does not say.
    Many(&'a [Option<Topic>]),
}

impl Inner {
    fn answer(&mut self, source: DataSource, key: Option<&str>, asked: Asked<'_>) -> Said {
        let key = key.unwrap_or_default();
        let is_known = source != DataSource::Zoominfo || self.tokens.contains(key);
        if key.is_empty() || self.refused.contains(key) || !is_known {
            return Said::error(401, "Invalid API key");
        }
        if self.down.contains(&source) {
            return Said::error(503, "Service Unavailable");
        }
        let now = Instant::now();
        let windows = self.windows.entry(source).or_default();
        let is_silent = self.silent.contains(&source);
        let Some(left) = windows::take(windows, now) else {
            self.violations += 1;
            let told = windows::told(windows, now);
            let seconds = told.resets_in.as_secs_f64().ceil() as u32;
            let style = match source {
                _ if is_silent => Style::Bare,
                DataSource::Apollo => Style::Seconds(seconds),
                DataSource::Clearbit => Style::Vendor(seconds),
                DataSource::Zoominfo => Style::Bare,
            };
            return limited(source, style, told.max);
        };
        let turn = self.scripts.entry(source).or_default().pop_front();
        let mut said = match turn.unwrap_or(Turn::Fine) {
            Turn::Limited(style) => return limited(source, style, left.max),
            Turn::Status(status) => Said::error(status, "words"),
            Turn::StillLooking => {
                let error = json!({ "type": "queued", "message": "Lookup in progress" });
                Said::json(202, &json!({ "error": error }))
            }
            Turn::Nonsense => Said {
                status: 200,
                body: PAGE.to_owned(),
                ..Said::default()
            },
            Turn::Slow(pause) => Said {
                pause,
                ..self.found(source, asked)
            },
            Turn::CutOff => Said {
                is_cut: true,
                ..self.found(source, asked)
            },
            Turn::Large(bytes) => self.found(source, asked).with_more(bytes),
            Turn::Fine => self.found(source, asked),
        };
        if !is_silent {
            let resets_at = (clock::now() + left.resets_in).timestamp() + 1;
            said.headers = limit_headers(source, (left.max, left.left), resets_at);
        }
        said
    }

    fn found(&mut self, source: DataSource, asked: Asked<'_>) -> Said {
        let topics = match asked {
            Asked::One(topic) => return self.found_one(source, topic),
            Asked::Many(topics) => topics,
        };
        if topics.len() > MANY_MAX {
            return Said::error(422, "too many records");
        }
        if topics.iter().flatten().any(|topic| self.is_refused(topic)) {
            return Said::error(422, "words");
        }
        let mut each = Vec::new();
        for topic in topics {
            let said = topic.as_ref().map(|topic| self.found_one(source, topic));
            let body = match said {
                Some(said) if said.status != 200 => return said,
                Some(said) => serde_json::from_str::<Value>(&said.body).unwrap_or_default(),
                None => Value::Null,
            };
            let found = body.get("organization").or(body.get("person"));
            each.push(found.cloned().unwrap_or(Value::Null));
        }
        let is_people = topics
            .iter()
            .flatten()
            .any(|topic| matches!(topic, Topic::Person(_)));
        let list = match is_people {
            true => "matches",
            false => "organizations",
        };
        Said::json(200, &json!({ "status": "success", list: each }))
    }

    fn is_refused(&self, topic: &Topic) -> bool {
        self.refused_topics.contains(&topic.key())
    }

    /// Takes a credit for what is known.
    fn found_one(&mut self, source: DataSource, topic: &Topic) -> Said {
        if self.is_refused(topic) {
            return Said::error(422, "words");
        }
        let said = about(source, topic);
        if said.status != 200 || is_unknown(topic) {
            return said;
        }
        match self.credits.get_mut(&source) {
            Some(0) => return Said::error(402, "Over plan limit"),
            Some(credits) => *credits -= 1,
            None => {}
        }
        *self.spent.entry(source).or_default() += 1;
        said
    }
}

fn limited(source: DataSource, style: Style, max: usize) -> Said {
    let mut said = Said::error(429, "Too many requests");
    let now = clock::now();
    let after = |seconds: u32| now + Duration::from_secs(seconds.into());
    said.headers = match style {
        Style::Seconds(seconds) => vec![("retry-after", seconds.to_string())],
        Style::Date(seconds) => {
            let date = after(seconds)
                .format("%a, %d %b %Y %H:%M:%S GMT")
                .to_string();
            vec![("retry-after", date)]
        }
        Style::Vendor(seconds) => limit_headers(source, (max, 0), after(seconds).timestamp()),
        Style::Bare => Vec::new(),
    };
    said
}
