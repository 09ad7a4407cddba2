//! What a request may create, and what its answer says of it.

use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::super::problem::{Code, Problem};
use super::Pool;
use super::taken::Taken;

pub(in crate::http) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(in crate::http) const RATE_LIMIT_POLICY: HeaderName =
    HeaderName::from_static("ratelimit-policy");
/// The time that a limit is for, in seconds.
const WINDOW_SECONDS: u64 = 3600;

/// Where a workspace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct Standing {
    pub(in crate::http) quota: u32,
    /// What may be created now.
    pub(in crate::http) remaining: u64,
    /// Seconds until more may be.
    pub(in crate::http) restored_in: Option<u64>,
}

/// What a request may create.
#[derive(Debug)]
pub(in crate::http) struct Grant {
    /// None: there is no limit.
    pub(super) pool: Option<Arc<Pool>>,
    pub(in crate::http) granted: u64,
    /// The same, as long as it is not used.
    pub(super) taken: Taken,
    pub(super) standing: Option<Standing>,
    pub(super) retry_in: Option<u64>,
}

impl Grant {
    /// Gives back what was not used of it.
    pub(in crate::http) async fn used(&mut self, used: u64) {
        let unused = self.granted.saturating_sub(used);
        let Some(pool) = self.pool.as_ref().filter(|_| unused > 0) else {
            return;
        };
        self.taken.draw(used);
        let mut kept = pool.kept.lock().await;
        kept.keep(std::mem::take(&mut self.taken), Instant::now());
        kept.spent_until = None;
        self.granted = used;
        self.standing = Some(kept.standing());
    }

    /// Tells the client where it stands (draft-ietf-httpapi-ratelimit-headers).
    pub(in crate::http) fn show(&self, headers: &mut HeaderMap) {
        headers.extend(self.headers());
    }

    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let Some(standing) = self.standing else {
            return Vec::new();
        };
        let reset = standing.restored_in.map(|seconds| format!(";t={seconds}"));
        let reset = reset.unwrap_or_default();
        let policy = format!("\"jobs\";q={};w={WINDOW_SECONDS}", standing.quota);
        let limit = format!("\"jobs\";r={}{reset}", standing.remaining);
        let named = [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, limit)];
        let value = |(name, text): (HeaderName, String)| Some((name, text.parse().ok()?));
        named.into_iter().filter_map(value).collect()
    }

    /// Why so many more jobs are not created.
    pub(in crate::http) fn refusal(&self, needed: u64) -> Problem {
        let standing = self.standing;
        let (quota, remaining) = standing.map_or((0, 0), |s| (s.quota, s.remaining));
        let detail = match needed > u64::from(quota) {
            true => format!("{needed} jobs at once are more than the workspace may create an hour"),
            false => format!("the workspace may create {quota} jobs an hour; {remaining} are left"),
        };
        let mut problem = Problem::new(Code::CreationLimit, detail)
            .with_member("limit", quota)
            .with_member("remaining", remaining);
        for (name, value) in self.headers() {
            problem = problem.with_header(name, value);
        }
        let waits = self.retry_in.or(standing.and_then(|s| s.restored_in));
        match waits.filter(|_| needed <= u64::from(quota)) {
            Some(seconds) => problem.with_retry_after(seconds.max(1)),
            None => problem,
        }
    }
}
