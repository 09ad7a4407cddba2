//! The one timer loop: runs a duty again and again, with jitter.
//!
//! Every duty may run in every process at once, so there is no leader. The jitter keeps processes
//! that started together from working at the same moments.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

use crate::tasks::{Tasks, panic_text};

/// The share of the interval that is random.
const JITTER: f64 = 0.2;

/// What a duty wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There is more to do: at once.
    Again,
    /// After the interval.
    Rest,
}

/// Runs `duty` every `interval` until the tasks stop. An error or a panic is logged and the duty
/// tried again after the interval; nothing a duty does is lost by trying later.
pub fn every<F, E>(
    tasks: &Tasks,
    name: &'static str,
    interval: Duration,
    mut duty: impl FnMut() -> F + Send + 'static,
) where
    F: Future<Output = Result<Next, E>> + Send,
    E: std::fmt::Display,
{
    let stopping = tasks.stopping().clone();
    tasks.spawn(name, async move {
        let mut has_failed = false;
        loop {
            // Stopped between two runs, never within one: a run is short and bounded.
            let next = match AssertUnwindSafe(duty()).catch_unwind().await {
                Err(panic) => {
                    metrics::counter!("bullwark_duty_failures_total", "duty" => name).increment(1);
                    let panic = panic_text(panic.as_ref());
                    tracing::error!(duty = name, panic, "duty panicked; it will try again");
                    Next::Rest
                }
                Ok(Ok(next)) => {
                    if std::mem::take(&mut has_failed) {
                        tracing::info!(duty = name, "duty works again");
                    }
                    next
                }
                Ok(Err(error)) => {
                    metrics::counter!("bullwark_duty_failures_total", "duty" => name).increment(1);
                    if !std::mem::replace(&mut has_failed, true) {
                        tracing::warn!(duty = name, %error, "duty failed; it will try again");
                    }
                    Next::Rest
                }
            };
            if next == Next::Again && !stopping.is_cancelled() {
                continue;
            }
            let wait = interval.mul_f64(1.0 + JITTER * (rand::random::<f64>() - 0.5));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopping.cancelled() => return,
            }
        }
    });
}
