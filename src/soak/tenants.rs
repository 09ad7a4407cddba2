//! I10: two workspaces share one queue, and each sees its own jobs only, through the API.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::space::Space;
use super::violations::{Law, Violations};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take; it is given up while the server is away.
const PATIENCE: Duration = Duration::from_secs(3);
/// Jobs of one page; no more have their payloads in it.
const PAGE: u32 = 25;

/// Looks through the eyes of both.
#[derive(Debug)]
pub(super) struct Tenants {
    http: reqwest::Client,
    base: String,
    /// The default workspace's key, and the neighbour's.
    keys: [String; 2],
    /// How often both have answered.
    pub(super) looks: AtomicU64,
}

impl Tenants {
    pub(super) fn new(base: &str, keys: &[String; 2]) -> anyhow::Result<Self> {
        Ok(Self {
            http: reqwest::Client::builder().timeout(PATIENCE).build()?,
            base: base.to_owned(),
            keys: keys.clone(),
            looks: AtomicU64::new(0),
        })
    }

    /// Looks until it is told to stop.
    pub(super) async fn run(&self, found: &Mutex<Violations>, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return,
            }
            // Nothing can be told while the server is away.
            let _seen = self.look(found).await;
        }
    }

    /// The newest jobs as each of them sees them, and the newest of one asked for by the other.
    /// None: an answer did not come.
    async fn look(&self, found: &Mutex<Violations>) -> Option<()> {
        let mut newest = Vec::new();
        for (is_neighbour, key) in [false, true].into_iter().zip(&self.keys) {
            let path = format!("/api/jobs?limit={PAGE}&include=payload");
            let (status, page) = self.get(&path, key).await?;
            if !status.is_success() {
                if !is_later(status) {
                    add(found, vec![format!("a look is refused: {status} {page}")]);
                }
                return None;
            }
            let jobs = page["jobs"].as_array().map_or(&[][..], Vec::as_slice);
            add(found, foreign(jobs, is_neighbour));
            newest.push(
                jobs.first()
                    .and_then(|job| job["id"].as_str())
                    .map(str::to_owned),
            );
        }
        for (key, theirs) in self.keys.iter().zip(newest.iter().rev()) {
            let Some(id) = theirs else { return None };
            let (status, job) = self.get(&format!("/api/jobs/{id}"), key).await?;
            add(found, shown(id, status, &job));
        }
        self.looks.fetch_add(1, Ordering::Relaxed);
        Some(())
    }

    async fn get(&self, path: &str, key: &str) -> Option<(StatusCode, Value)> {
        let request = self.http.get(format!("{}{path}", self.base));
        let answer = request.bearer_auth(key).send().await.ok()?;
        let status = answer.status();
        Some((status, answer.json().await.ok()?))
    }
}

fn add(found: &Mutex<Violations>, texts: Vec<String>) {
    let mut found = found
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    for text in texts {
        found.add(Law::Isolation, text);
    }
}

/// Those of a page that belong to the other workspace, or to none.
fn foreign(jobs: &[Value], is_neighbour: bool) -> Vec<String> {
    let whose = |job: &&Value| {
        let seq = job["payload"]["seq"].as_u64();
        let space = seq.and_then(Space::of);
        space.map(|space| space == Space::Neighbour) != Some(is_neighbour)
    };
    let eyes = match is_neighbour {
        true => "the neighbour",
        false => "the default workspace",
    };
    jobs.iter()
        .filter(whose)
        .map(|job| format!("{eyes} sees job {} ({})", job["payload"]["seq"], job["id"]))
        .collect()
}

fn is_later(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// What is wrong with the answer to one who asks for the other's job: anything but "not found" and
/// "later".
fn shown(id: &str, status: StatusCode, job: &Value) -> Vec<String> {
    match status == StatusCode::NOT_FOUND || is_later(status) {
        true => Vec::new(),
        false => vec![format!(
            "job {id} is shown to the other workspace: {status} {job}"
        )],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_that_the_other_workspace_sees_is_found() {
        let ours = json!({ "id": "a", "payload": { "seq": 3 } });
        let theirs = json!({ "id": "b", "payload": { "seq": Space::Neighbour.from() + 3 } });
        let nobodys = json!({ "id": "c", "payload": {} });
        assert!(foreign(std::slice::from_ref(&ours), false).is_empty());
        assert!(foreign(std::slice::from_ref(&theirs), true).is_empty());
        let seen = foreign(&[ours.clone(), theirs.clone(), nobodys], false);
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert_eq!(foreign(&[ours, theirs], true).len(), 1);
    }

    #[test]
    fn only_a_job_that_is_not_found_is_hidden() {
        let found = |status| shown("a", status, &json!({})).len();
        assert_eq!(found(StatusCode::NOT_FOUND), 0);
        assert_eq!(found(StatusCode::SERVICE_UNAVAILABLE), 0);
        assert_eq!(found(StatusCode::OK), 1);
        assert_eq!(
            found(StatusCode::FORBIDDEN),
            1,
            "it tells that there is one"
        );
    }
}
