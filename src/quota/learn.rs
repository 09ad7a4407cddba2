//! What an answer says about the quota: the headers of many services, in one form.
//!
//! Sources: RFC 9110 (`Retry-After`), the IETF draft on `RateLimit` fields (its structured form and
//! the three older fields), and the documentation of GitHub, Clearbit, SendGrid, Apollo, HubSpot
//! and Salesforce. Pure: pairs of names and values go in, so that it does not matter who called.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::structured;

/// No service is left alone for longer because of one header.
pub const CLOSED_MAX: Duration = Duration::from_secs(86_400);
/// The most windows that one answer tells of.
pub const TOLD_MAX: usize = 8;
/// A number above is a moment in seconds since 1970, not a number of seconds; ten times as many
/// digits are milliseconds.
const EPOCH_FROM: f64 = 1e9;
const EPOCH_MS_FROM: f64 = 1e12;
const DAY: Duration = Duration::from_secs(86_400);

/// What a service said of one of its windows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Tells it from the other windows of the service.
    pub name: String,
    pub limit: Option<u64>,
    pub left: Option<u64>,
    /// Until it is whole again.
    pub resets_in: Option<Duration>,
    /// How long it is, if that is known.
    pub per: Option<Duration>,
    /// It was asked for: what is left now, whatever was told before.
    pub is_polled: bool,
}

/// What an answer says: how the call went for the service, and what is left of its quota.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// It refused the call for its quota (429): the key is closed for everybody.
    pub is_limited: bool,
    /// It is not well (500, 502, 503, 504, 529 …): counts for the circuit breaker.
    pub is_failure: bool,
    /// How long nobody should call.
    pub closed_for: Option<Duration>,
    pub told: Vec<Told>,
}

impl Learned {
    /// Nothing but that the call worked.
    pub fn fine() -> Self {
        Self::default()
    }

    /// A quota that is asked for, not sent along: units of a window, such as what Amazon SES says
    /// of the last 24 hours, or the credits of an account.
    pub fn polled(name: &str, limit: u64, used: u64, per: Duration) -> Self {
        Self {
            told: vec![Told {
                name: name.to_owned(),
                limit: Some(limit),
                left: Some(limit.saturating_sub(used)),
                per: Some(per),
                is_polled: true,
                ..Told::default()
            }],
            ..Self::default()
        }
    }

    /// Amazon SES' `SendQuota` (`GetAccount`): -1 is without a limit. The rate is that of
    /// recipients per second.
    pub fn ses(max_24_hour_send: f64, max_send_rate: f64, sent_last_24_hours: f64) -> Self {
        let mut learned = Self::default();
        if max_24_hour_send >= 0.0 {
            let (max, sent) = (max_24_hour_send as u64, sent_last_24_hours.ceil() as u64);
            learned = Self::polled("ses-day", max, sent, DAY);
        }
        if max_send_rate >= 1.0 {
            learned.told.push(Told {
                name: "ses-rate".to_owned(),
                limit: Some(max_send_rate as u64),
                per: Some(Duration::from_secs(1)),
                ..Told::default()
            });
        }
        learned
    }
}

/// Adds what the headers of one kind say.
type Source = fn(&Headers<'_>, DateTime<Utc>, &mut Vec<Told>);

/// Reads an answer. `now` is for moments that headers name; names may be in any case.
///
/// Of a time to wait, `Retry-After` goes before what windows say. A header that can not be read
/// counts as not sent.
pub fn learn<'a>(
    status: u16,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    now: DateTime<Utc>,
) -> Learned {
    let headers = Headers(
        headers
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
            .collect(),
    );
    let mut told = Vec::new();
    let sources: [Source; 5] = [ietf, apollo, hubspot, salesforce, common];
    for source in sources {
        // The more exact one goes before; of a window that is told of twice, the first counts.
        let mut more = Vec::new();
        source(&headers, now, &mut more);
        more.retain(|new| !told.iter().any(|old: &Told| old.name == new.name));
        told.extend(more);
    }
    told.truncate(TOLD_MAX);
    let is_limited = status == 429;
    let retry_after = headers.get("retry-after").and_then(|v| moment(v, now));
    let spent = told.iter().filter(|told| told.left == Some(0));
    let closed_for = match (is_limited || status == 503, retry_after) {
        (false, _) => None,
        (true, Some(wait)) => Some(wait),
        (true, None) if is_limited => spent.filter_map(|told| told.resets_in).max(),
        (true, None) => None,
    };
    Learned {
        is_limited,
        is_failure: matches!(status, 500 | 502..=504 | 520..=530),
        closed_for: closed_for.map(|wait| wait.min(CLOSED_MAX)),
        told,
    }
}

struct Headers<'a>(Vec<(String, &'a str)>);

impl<'a> Headers<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| *value)
    }

    /// The first number of a value; some services send `100, 100;window=60`.
    fn number(&self, name: &str) -> Option<u64> {
        let value = self.get(name)?;
        let first = value.split([',', ';']).next()?.trim();
        let number: f64 = first.parse().ok()?;
        (number.is_finite() && (-1.0..1e15).contains(&number)).then(|| number.max(0.0) as u64)
    }

    fn any(&self, names: &[&str]) -> Option<u64> {
        names.iter().find_map(|name| self.number(name))
    }
}

/// A number of seconds, a moment in seconds or milliseconds since 1970, or a date (RFC 9110, or
/// RFC 3339). What is over already is no time.
fn moment(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    let until = |at: DateTime<Utc>| (at - now).to_std().unwrap_or_default();
    if let Ok(number) = value.parse::<f64>() {
        if !number.is_finite() || number < 0.0 {
            return None;
        }
        let ms = match number {
            n if n >= EPOCH_MS_FROM => n - now.timestamp_millis() as f64,
            n if n >= EPOCH_FROM => n * 1000.0 - now.timestamp_millis() as f64,
            n => n * 1000.0,
        };
        let cap = CLOSED_MAX.as_millis() as f64 * 31.0;
        return Some(Duration::from_millis(ms.clamp(0.0, cap).ceil() as u64));
    }
    // `GMT` is a zone of RFC 2822 as well.
    let date = DateTime::parse_from_rfc2822(value)
        .or_else(|_| DateTime::parse_from_rfc3339(value))
        .ok()?;
    Some(until(date.with_timezone(&Utc)))
}

/// `RateLimit-Policy: "burst";q=100;w=60` and `RateLimit: "burst";r=50;t=30`.
fn ietf(headers: &Headers<'_>, _: DateTime<Utc>, told: &mut Vec<Told>) {
    let policies = headers.get("ratelimit-policy").map(structured::items);
    let policies = policies.unwrap_or_default();
    let Some(limits) = headers.get("ratelimit").map(structured::items) else {
        return;
    };
    for limit in limits.into_iter().filter(|item| item.number("r").is_some()) {
        let policy = policies.iter().find(|policy| policy.name == limit.name);
        let number = |key| {
            let said = policy.and_then(|policy| policy.number(key));
            said.or_else(|| limit.number(key))
        };
        told.push(Told {
            name: format!("ietf-{}", limit.name),
            limit: number("q"),
            left: limit.number("r"),
            resets_in: limit.number("t").map(Duration::from_secs),
            per: number("w").map(Duration::from_secs),
            ..Told::default()
        });
    }
}

/// `x-rate-limit-minute`, `x-minute-requests-left`, the same with `hourly` and `24-hour`. Without a
/// time of their end.
fn apollo(headers: &Headers<'_>, _: DateTime<Utc>, told: &mut Vec<Told>) {
    for (word, seconds) in [("minute", 60), ("hourly", 3600), ("24-hour", 86_400)] {
        let left = headers.number(&format!("x-{word}-requests-left"));
        let limit = headers.number(&format!("x-rate-limit-{word}"));
        if left.is_some() || limit.is_some() {
            told.push(Told {
                name: format!("x-{word}"),
                limit,
                left,
                per: Some(Duration::from_secs(seconds)),
                ..Told::default()
            });
        }
    }
}

/// `X-HubSpot-RateLimit-Max/-Remaining/-Interval-Milliseconds`, `…-Secondly(-Remaining)`,
/// `…-Daily(-Remaining)`.
fn hubspot(headers: &Headers<'_>, _: DateTime<Utc>, told: &mut Vec<Told>) {
    let name = |rest: &str| format!("x-hubspot-ratelimit-{rest}");
    let interval = headers.number(&name("interval-milliseconds"));
    for (limit, left, ms) in [
        ("max", "remaining", interval),
        ("secondly", "secondly-remaining", Some(1000)),
        ("daily", "daily-remaining", Some(86_400_000)),
    ] {
        let (max, left) = (headers.number(&name(limit)), headers.number(&name(left)));
        if let (Some(ms), true) = (ms, max.is_some() || left.is_some()) {
            told.push(Told {
                name: format!("hubspot-{limit}"),
                limit: max,
                left,
                per: Some(Duration::from_millis(ms)),
                ..Told::default()
            });
        }
    }
}

/// `Sforce-Limit-Info: api-usage=18/5000`, of any 24 hours.
fn salesforce(headers: &Headers<'_>, _: DateTime<Utc>, told: &mut Vec<Told>) {
    let Some(info) = headers.get("sforce-limit-info") else {
        return;
    };
    for part in info.split(',') {
        // `per-app-api-usage=17/250(appName=sample)` is another one.
        let Some((name, usage)) = part.trim().split_once('=') else {
            continue;
        };
        let digits = |text: &str| -> Option<u64> {
            let end = text.find(|c: char| !c.is_ascii_digit());
            text[..end.unwrap_or(text.len())].parse().ok()
        };
        if let Some((used, limit)) = usage.split_once('/')
            && let (Some(used), Some(limit)) = (digits(used), digits(limit))
        {
            told.push(Told {
                name: format!("sforce-{name}"),
                limit: Some(limit),
                left: Some(limit.saturating_sub(used)),
                per: Some(DAY),
                ..Told::default()
            });
        }
    }
}

/// `X-RateLimit-Limit/-Remaining/-Reset` in its spellings, and the three fields of the older draft.
fn common(headers: &Headers<'_>, now: DateTime<Utc>, told: &mut Vec<Told>) {
    for start in ["x-ratelimit", "x-rate-limit", "ratelimit"] {
        let name = |rest: &str| format!("{start}-{rest}");
        let left = headers.any(&[&name("remaining")]);
        let limit = headers.any(&[&name("limit")]);
        let reset = headers.get(&name("reset"));
        let reset = reset.or_else(|| headers.get(&name("reset-after")));
        if left.is_none() && limit.is_none() {
            continue;
        }
        told.push(Told {
            name: "requests".to_owned(),
            limit,
            left,
            resets_in: reset.and_then(|value| moment(value, now)),
            per: window_of(headers.get(&name("limit"))),
            ..Told::default()
        });
        return;
    }
}

/// The older draft says `100, 100;w=60`: the window of the limit that is told.
fn window_of(limit: Option<&str>) -> Option<Duration> {
    let (_, parameter) = limit?.split_once(";w=")?;
    let end = parameter.find(|c: char| !c.is_ascii_digit());
    let seconds = parameter[..end.unwrap_or(parameter.len())].parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
#[path = "learn_tests.rs"]
mod tests;
