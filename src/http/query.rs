//! Query parameters, checked by hand so that each refusal names the parameter and what it may be.

use axum::extract::Query;
use axum::http::Uri;
use chrono::{DateTime, Utc};

use super::problem::{Code, Problem};

/// The parameters of a request; every one is allowed and given at most once. An allowed `name.*`
/// stands for all that begin with `name.`.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn parse(uri: &Uri, allowed: &[&str]) -> Result<Self, Problem> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| invalid("the query string can not be read: percent-encode it"))?;
        for (position, (name, _)) in pairs.iter().enumerate() {
            let is_allowed = |allowed: &&str| match allowed.strip_suffix('*') {
                Some(start) => name.len() > start.len() && name.starts_with(start),
                None => *allowed == name,
            };
            if !allowed.iter().any(is_allowed) {
                let allowed = match allowed {
                    [] => "this route takes none".to_owned(),
                    names => format!("allowed are {}", names.join(", ")),
                };
                return Err(invalid(&format!("unknown parameter `{name}`; {allowed}")));
            }
            if pairs[..position].iter().any(|(other, _)| other == name) {
                return Err(invalid(&format!("`{name}` is given twice")));
            }
        }
        Ok(Self(pairs.0))
    }

    /// The value of a parameter; an empty one counts as absent.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter();
        let found = pairs.find(|(key, _)| key == name)?;
        Some(found.1.as_str()).filter(|value| !value.is_empty())
    }

    /// What follows `start` in the names of parameters, and their values.
    pub(super) fn all_of<'a>(&'a self, start: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pairs = self.0.iter();
        pairs.filter_map(move |(name, value)| Some((name.strip_prefix(start)?, value.as_str())))
    }

    /// A whole number within these bounds.
    pub(super) fn number(&self, name: &str, min: i64, max: i64) -> Result<Option<i64>, Problem> {
        let wrong = |text: &str| {
            let allowed = format!("it must be a whole number from {min} to {max}");
            invalid(&format!("`{name}` is `{text}`; {allowed}"))
        };
        self.text(name)
            .map(|text| {
                let number = text.parse().map_err(|_| wrong(text))?;
                if (min..=max).contains(&number) {
                    Ok(number)
                } else {
                    Err(wrong(text))
                }
            })
            .transpose()
    }

    /// A moment, as RFC 3339 writes it.
    pub(super) fn time(&self, name: &str) -> Result<Option<DateTime<Utc>>, Problem> {
        let read = |text: &str| {
            let time = DateTime::parse_from_rfc3339(text).map_err(|_| {
                let text = super::shortened(text);
                let example = "2026-01-31T08:00:00Z (a `+` in it is written %2B)";
                invalid(&format!(
                    "`{name}` is `{text}`; a time looks like {example}"
                ))
            })?;
            Ok(time.with_timezone(&Utc))
        };
        self.text(name).map(read).transpose()
    }

    /// A value that reads as `T`, whose error says what is allowed.
    pub(super) fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Problem>
    where
        T::Err: std::fmt::Display,
    {
        self.text(name)
            .map(|text| {
                text.parse()
                    .map_err(|error| invalid(&format!("`{name}`: {error}")))
            })
            .transpose()
    }
}

pub(super) fn invalid(detail: &str) -> Problem {
    Problem::new(Code::InvalidParameter, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(query: &str) -> String {
        let uri = format!("/api/jobs?{query}").parse().unwrap();
        let read = Parameters::parse(&uri, &["limit", "status"])
            .and_then(|parameters| parameters.number("limit", 1, 200));
        let document = read.unwrap_err().document();
        assert_eq!(document["code"], "invalid_parameter");
        document["detail"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_refusal_names_the_parameter_and_what_is_allowed() {
        let number = "it must be a whole number from 1 to 200";
        assert_eq!(refusal("limit=0"), format!("`limit` is `0`; {number}"));
        assert_eq!(refusal("limit=ten"), format!("`limit` is `ten`; {number}"));
        assert_eq!(refusal("limit=1&limit=2"), "`limit` is given twice");
        assert_eq!(
            refusal("size=1"),
            "unknown parameter `size`; allowed are limit, status"
        );
    }
}
