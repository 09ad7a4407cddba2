//! A reader of Server-Sent Events, by the rules of the HTML standard.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use serde_json::Value;

/// The longest that the next event may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    /// The last id that was sent, up to this event.
    pub(crate) id: String,
    pub(crate) data: Value,
}

impl Event {
    /// The job that it is about.
    pub(crate) fn job(&self) -> &str {
        let id = &self.data["job"]["id"];
        id.as_str().unwrap_or_default()
    }
}

/// A stream that is read.
#[derive(Debug)]
pub(crate) struct EventStream {
    response: Response,
    parser: Parser,
}

/// Makes events of bytes.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    bytes: Vec<u8>,
    name: String,
    data: Vec<String>,
    ready: VecDeque<Event>,
    pub(crate) last_id: String,
    pub(crate) retry_ms: Option<u64>,
    pub(crate) comments: Vec<String>,
}

impl EventStream {
    pub(crate) async fn open(request: RequestBuilder) -> Self {
        // Longer than any test: the client's own limit is for short answers.
        let request = request.timeout(Duration::from_secs(600));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{response:?}");
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/event-stream");
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("x-accel-buffering"), "no");
        Self {
            response,
            parser: Parser::default(),
        }
    }

    pub(crate) fn parser(&self) -> &Parser {
        &self.parser
    }

    /// The next event; none at the end of the stream.
    pub(crate) async fn try_next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.parser.ready.pop_front() {
                return Some(event);
            }
            self.read_on().await?;
        }
    }

    /// Reads some more bytes; none at the end of the stream.
    pub(crate) async fn read_on(&mut self) -> Option<()> {
        let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
        let chunk = chunk.expect("no event in time").unwrap()?;
        self.parser.feed(&chunk);
        Some(())
    }

    pub(crate) async fn next(&mut self) -> Event {
        self.try_next().await.expect("the stream has ended")
    }

    /// Passes over events until one is of that kind.
    pub(crate) async fn until(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await;
            if event.name == name {
                return event;
            }
        }
    }

    /// The next event of a job.
    pub(crate) async fn next_of(&mut self, job: &str) -> Event {
        loop {
            let event = self.next().await;
            if event.job() == job {
                return event;
            }
        }
    }

    /// All events up to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.try_next().await {
            events.push(event);
        }
        events
    }
}

impl Parser {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = String::from_utf8(line).unwrap();
            self.line(line.trim_end_matches('\n').trim_end_matches('\r'));
        }
    }

    pub(crate) fn take(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let data = std::mem::take(&mut self.data);
            if !data.is_empty() {
                let data = data.join("\n");
                self.ready.push_back(Event {
                    name,
                    id: self.last_id.clone(),
                    data: serde_json::from_str(&data).unwrap(),
                });
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "" => self.comments.push(value),
            "event" => self.name = value,
            "data" => self.data.push(value),
            "id" => self.last_id = value,
            "retry" => self.retry_ms = value.parse().ok(),
            _ => panic!("unknown field {field:?}"),
        }
    }
}
