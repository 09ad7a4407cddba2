//! An object of the bucket as an answer: all of it or one part, with the conditions that the files
//! of this machine know as well, and piece by piece.

use std::ops::Range;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_MATCH, IF_NONE_MATCH, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::away;
use crate::http::problem::Problem;
use crate::storage::{Objects, as_io};

/// The object as the request wants it; none: there is no such object.
pub(super) async fn response(
    objects: &Objects,
    key: &str,
    (method, headers): (&Method, &HeaderMap),
) -> Result<Option<Response>, Problem> {
    let Some(object) = objects.look(key).await.map_err(|error| away(&error))? else {
        return Ok(None);
    };
    let bytes = object.bytes;
    let mut response = Response::new(Body::empty());
    let tag = object.tag.as_deref().unwrap_or_default();
    let answer = response.headers_mut();
    answer.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        answer.insert(ETAG, tag);
    }
    if text(headers, IF_MATCH).is_some_and(|tags| !has(tags, tag)) {
        *response.status_mut() = StatusCode::PRECONDITION_FAILED;
        return Ok(Some(response));
    }
    if text(headers, IF_NONE_MATCH).is_some_and(|tags| has(tags, tag)) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(Some(response));
    }
    let wanted = match text(headers, RANGE) {
        Some(range) => part(range, bytes),
        None => Part::All,
    };
    let range = match wanted {
        Part::All => 0..bytes,
        Part::One(range) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let (first, last) = (range.start, range.end - 1);
            let range_header = format!("bytes {first}-{last}/{bytes}");
            insert(&mut response, CONTENT_RANGE, &range_header);
            range
        }
        Part::Beyond => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            insert(&mut response, CONTENT_RANGE, &format!("bytes */{bytes}"));
            return Ok(Some(response));
        }
    };
    let length = (range.end - range.start).to_string();
    insert(&mut response, CONTENT_LENGTH, &length);
    if method != Method::HEAD {
        let pieces = as_io(objects.stream(object, range));
        *response.body_mut() = Body::from_stream(pieces);
    }
    Ok(Some(response))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn insert(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Whether one of the tags of a condition is this one. No tag of an object has a comma in it.
fn has(tags: &str, tag: &str) -> bool {
    let strong = |text: &str| text.trim().trim_start_matches("W/").to_owned();
    tags.split(',')
        .any(|given| given.trim() == "*" || strong(given) == strong(tag))
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    All,
    One(Range<u64>),
    /// There is no such part, or more than one is asked for.
    Beyond,
}

/// What `Range` asks for, of so many bytes (RFC 9110, 14.1). What is no range of bytes is passed
/// over, as the standard wants.
fn part(header: &str, bytes: u64) -> Part {
    let Some(ranges) = header.trim().strip_prefix("bytes=") else {
        return Part::All;
    };
    if ranges.contains(',') {
        return Part::Beyond;
    }
    let Some((first, last)) = ranges.trim().split_once('-') else {
        return Part::All;
    };
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse::<u64>().ok(),
        false => None,
    };
    let range = match (first, last) {
        ("", last) => match number(last) {
            Some(0) => return Part::Beyond,
            Some(length) => bytes.saturating_sub(length)..bytes,
            None => return Part::All,
        },
        (first, "") => match number(first) {
            Some(first) => first..bytes,
            None => return Part::All,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..bytes.min(last.saturating_add(1)),
            _ => return Part::All,
        },
    };
    match range.start < range.end {
        true => Part::One(range),
        false => Part::Beyond,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_of_a_file_is_asked_for() {
        for (header, expected) in [
            ("bytes=0-0", Part::One(0..1)),
            ("bytes=5-10", Part::One(5..11)),
            ("bytes=5-", Part::One(5..100)),
            ("bytes=-10", Part::One(90..100)),
            ("bytes=-1000", Part::One(0..100)),
            ("bytes=90-1000", Part::One(90..100)),
            ("bytes=100-", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=0-1,5-6", Part::Beyond),
            ("bytes=10-5", Part::All),
            ("bytes=a-b", Part::All),
            ("bytes=+1-2", Part::All),
            ("lines=1-2", Part::All),
        ] {
            assert_eq!(part(header, 100), expected, "{header}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Beyond);
    }

    #[test]
    fn a_condition_names_one_of_several_objects() {
        assert!(has("\"a\", W/\"b\"", "\"b\""));
        assert!(has("*", "\"b\""));
        assert!(!has("\"a\"", "\"b\""));
    }
}
