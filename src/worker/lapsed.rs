//! Claims that may have run out before their jobs began.
//!
//! Between a claim and the first line of a handler lie microseconds, or, for a job that was started
//! before, a question to the record; unless the process is frozen just there (SIGSTOP, a virtual
//! machine that is moved) or its threads are taken. When it goes on, others may have run the job
//! long since. Its outcome would be refused, but what a handler does outside can't be taken back.
//! So whoever comes late asks whether the lease is still there, and does so last of all.

use tokio::time::Instant;

use super::Shared;
use super::held::Held;

/// True when this job may begin: its claim was asked for less than a lease ago, or Redis says that
/// the lease is kept. Otherwise the job is forgotten: it is somebody else's, or will be when the
/// lease ends. Costs a look at the clock in the usual case.
pub(super) async fn may_begin(shared: &Shared, held: &Held, asked_at: Instant) -> bool {
    if asked_at.elapsed() < shared.lease {
        return true;
    }
    let lease = [(held.wire_id.clone(), held.token.clone())];
    let kept = shared
        .broker
        .extend(&held.queue, &lease, shared.lease)
        .await;
    if matches!(kept.as_deref(), Ok([true])) {
        return true;
    }
    tracing::warn!(job.id = %held.id, "not begun: its lease ran out before");
    metrics::counter!("bullwark_claims_lapsed_total").increment(1);
    shared.held.remove(held.id, &held.token);
    false
}
