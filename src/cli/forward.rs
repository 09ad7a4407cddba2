//! `bullwark worker --forward`: options with `BullMQ`'s meaning, the admin port, and event lines.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::event_lines::EventLines;
use super::serve::Signals;
use super::worker::{WorkerFlags, work_until_signal};
use super::{Done, Global, connect, output, whole};
use crate::app::worker_id;
use crate::broker::RateLimit;
use crate::config::environment;
use crate::http::{Exposition, WorkerAdmin, serve_worker};
use crate::job::KeepFinished;
use crate::tasks::Tasks;
use crate::worker::forward::{Forward, Secret};
use crate::worker::{Events, Manners, StalledCheck, WorkerEvent, WorkerOptions};

/// How long the duties and connections of a closed worker may keep its process.
const LEAVE_LIMIT: Duration = Duration::from_millis(200);

/// Options of a worker that delivers its jobs over HTTP.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Forwarding (with BullMQ's meaning and defaults)")]
pub(crate) struct ForwardFlags {
    /// Deliver each job to this URL instead of running it here
    #[arg(long, value_name = "URL", conflicts_with = "lease_ms")]
    pub(crate) forward: Option<String>,
    /// Name of this worker on dashboards
    #[arg(long, requires = "forward")]
    name: Option<String>,
    /// Milliseconds that a lock lasts; instead of --lease-ms
    #[arg(long, requires = "forward", value_name = "MS", default_value_t = 30_000,
        value_parser = whole(1..=2_147_483_647))]
    lock_duration: u32,
    /// Milliseconds between renewals [default: half of the lock]
    #[arg(long, requires = "forward", value_name = "MS", value_parser = whole(1..=2_147_483_647))]
    lock_renew_time: Option<u32>,
    /// Never renew locks
    #[arg(long, requires = "forward")]
    skip_lock_renewal: bool,
    /// Milliseconds between looks at stalled jobs
    #[arg(long, requires = "forward", value_name = "MS", default_value_t = 30_000,
        value_parser = whole(1..=2_147_483_647))]
    stalled_interval: u32,
    /// How often a job may stall before it fails
    #[arg(long, requires = "forward", value_name = "N", default_value_t = 1,
        value_parser = whole(0..=1_000_000_000))]
    max_stalled_count: u32,
    /// How often a job may be started before it fails
    #[arg(long, requires = "forward", value_name = "N", value_parser = whole(0..=1_000_000_000))]
    max_started_attempts: Option<u32>,
    /// Never look for stalled jobs
    #[arg(long, requires = "forward")]
    skip_stalled_check: bool,
    /// Start at most MAX jobs of the queue in MS milliseconds
    #[arg(long, requires = "forward", value_name = "MAX/MS", value_parser = rate_limit)]
    limiter: Option<RateLimit>,
    /// The longest sleep in milliseconds when a rate limit is met
    #[arg(long, requires = "forward", value_name = "MS", default_value_t = 30_000,
        value_parser = whole(0..=2_147_483_647))]
    maximum_rate_limit_delay: u32,
    /// Seconds of waiting before an idle worker looks by itself
    #[arg(long, requires = "forward", value_name = "S", default_value_t = 5.0,
        value_parser = seconds)]
    drain_delay: f64,
    /// Which completed jobs Redis keeps: true, false, a count, or JSON with age (s), count, limit
    #[arg(long, requires = "forward", value_name = "RULE", value_parser = keep)]
    remove_on_complete: Option<KeepFinished>,
    /// Which failed jobs Redis keeps
    #[arg(long, requires = "forward", value_name = "RULE", value_parser = keep)]
    remove_on_fail: Option<KeepFinished>,
    /// Minutes of metrics that Redis keeps
    #[arg(long, requires = "forward", value_name = "N", value_parser = whole(0..=10_000_000))]
    metrics: Option<u32>,
    /// Begin only when POST /resume is called
    #[arg(long, requires = "admin", help_heading = "Options")]
    pub(super) paused: bool,
    /// Seconds that an attempt may take
    #[arg(long, requires = "forward", value_name = "S", default_value_t = 900,
        value_parser = whole(1..=604_800))]
    timeout: u32,
    /// Serve health, metrics and steering here; port 0 takes a free one
    #[arg(long, value_name = "ADDR", help_heading = "Options")]
    pub(super) admin: Option<SocketAddr>,
}

fn rate_limit(text: &str) -> Result<RateLimit, String> {
    let parse = || {
        let (max, ms) = text.split_once('/')?;
        let (max, ms) = (max.parse().ok()?, ms.parse().ok()?);
        (max > 0 && ms > 0).then_some(RateLimit {
            max,
            window: Duration::from_millis(ms),
        })
    };
    parse().ok_or_else(|| "write it as 10/1000: ten jobs in a thousand milliseconds".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("it must be seconds from 0 to 3600, decimals allowed".to_owned()),
    }
}

fn keep(text: &str) -> Result<KeepFinished, String> {
    KeepFinished::from_json(text).ok_or_else(|| {
        "it must be true, false, a count, or JSON such as {\"age\":3600,\"count\":100}".to_owned()
    })
}

impl ForwardFlags {
    fn manners(&self, events: Events) -> Manners {
        let renew_ms = self.lock_renew_time.unwrap_or(self.lock_duration / 2);
        let ms = |ms: u32| Duration::from_millis(u64::from(ms));
        Manners {
            name: self.name.clone(),
            // A timer of half the time, as BullMQ's, so that a renewal is never later than asked.
            renew_every: (!self.skip_lock_renewal).then(|| ms(renew_ms) / 2),
            limit: self.limiter,
            limit_wait_max: (self.maximum_rate_limit_delay > 0)
                .then(|| ms(self.maximum_rate_limit_delay)),
            starts_max: self.max_started_attempts.filter(|max| *max > 0),
            keep_completed: self.remove_on_complete,
            keep_failed: self.remove_on_fail,
            stalled: (!self.skip_stalled_check).then(|| StalledCheck {
                every: ms(self.stalled_interval),
                stalls_max: self.max_stalled_count,
            }),
            events,
        }
    }

    fn options(&self, worker_id: String, flags: &WorkerFlags, events: Events) -> WorkerOptions {
        let mut options = flags.settle();
        options.worker_id = worker_id;
        // BullMQ's worker runs one job at a time unless it is told otherwise.
        options.slots = flags.concurrency.unwrap_or(1) as usize;
        options.lease = Duration::from_millis(u64::from(self.lock_duration));
        options.idle = Duration::from_secs_f64(self.drain_delay);
        options.manners = Some(self.manners(events));
        options
    }
}

/// Delivers jobs until a signal, or until the admin port closes the worker.
pub(crate) async fn run(
    global: &Global,
    flags: &WorkerFlags,
    forward: &ForwardFlags,
    url: &str,
) -> Done {
    let signals = Signals::listen()?;
    // Installed before anything counts.
    let metrics = Exposition::install().context("metrics")?;
    let secret = environment("BULLWARK_FORWARD_SECRET").filter(|secret| !secret.is_empty());
    let timeout = Duration::from_secs(u64::from(forward.timeout));
    let secret = secret.as_deref().map(Secret::new).transpose();
    let secret = secret.context("BULLWARK_FORWARD_SECRET")?;
    let target = Forward::to(url, secret, timeout)?;
    let mut app = connect::app_with_patience(global.config()?).await?;
    app.name_connections(
        forward.name.clone(),
        forward.metrics.filter(|points| *points > 0),
    )?;
    let admin = match forward.admin {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let worker_id = worker_id();
    let mut hello = json!({ "worker": worker_id });
    if let Some(listener) = &admin {
        hello["admin"] = format!("http://{}", listener.local_addr()?).into();
    }
    let lines = EventLines::start(output::line_to_reader)?;
    let told = lines.clone();
    let events = match global.json {
        true => Events::to(move |event| match event {
            WorkerEvent::Ready => lines.write(hello.to_string()),
            // A request to the admin port, or a job of a worker that was closed by force, may
            // still have something to say.
            WorkerEvent::Closed => lines.write_last(line(event).to_string()),
            event => lines.write(line(event).to_string()),
        }),
        false => Events::default(),
    };
    app.handlers.forward(target.telling(events.clone()));
    let options = forward.options(worker_id, flags, events.clone());
    let steering = options.steering.clone();
    if forward.paused {
        steering.pause(false).await;
    }
    let (tasks, stop_admin) = (Tasks::new(), CancellationToken::new());
    // Not where to: the address may hold a secret.
    tracing::info!(
        worker = options.worker_id,
        slots = options.slots,
        "forwarding"
    );
    let serving = Tasks::new();
    if let Some(listener) = admin {
        let admin = WorkerAdmin {
            steering: steering.clone(),
            events: events.clone(),
            metrics: metrics.clone(),
            tasks: serving.clone(),
        };
        serving.spawn("admin", serve_worker(admin, listener, stop_admin.clone()));
    }
    metrics.keep_small(&tasks);
    app.warm().await;
    app.start_upkeep_without_rescue(&tasks);
    let worked = tokio::select! {
        worked = work_until_signal(&app, options, signals) => Some(worked),
        () = steering.abandoned().cancelled() => None,
        () = told.stuck().cancelled() => return Err(anyhow!("{}", told.why_stuck()).into()),
    };
    events.tell(WorkerEvent::Closed);
    steering.set_closed();
    stop_admin.cancel();
    // Whoever closed the worker gets the answer.
    serving.drained().await;
    // Abandoned: what is held is left to its lock, nothing is given back and nothing settled.
    let Some(worked) = worked else { return Ok(()) };
    // Duties may be left in the middle: each is safe to repeat, and others run them, too.
    tasks.stop(LEAVE_LIMIT).await;
    tokio::time::timeout(LEAVE_LIMIT, app.close()).await.ok();
    Ok(worked?)
}

pub(super) async fn listen(address: SocketAddr) -> anyhow::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| anyhow!("--admin can not listen on {address}: {error}"))
}

/// An event as a line for programs.
fn line(event: WorkerEvent) -> Value {
    match event {
        WorkerEvent::Ready => Value::Null,
        WorkerEvent::Active { id } => {
            json!({ "event": "active", "jobId": id, "prev": "waiting" })
        }
        WorkerEvent::Completed {
            id,
            returnvalue,
            attempts_made,
            finished_ms,
        } => json!({
            "event": "completed", "jobId": id, "prev": "active",
            "returnvalue": serde_json::from_str::<Value>(&returnvalue).unwrap_or_default(),
            "attemptsMade": attempts_made, "finishedOn": finished_ms,
        }),
        WorkerEvent::Failed {
            id,
            reason,
            attempts_made,
            delay_ms,
            finished_ms,
            hash,
        } => {
            let mut line = json!({
                "event": "failed", "jobId": id, "prev": "active", "failedReason": reason,
                "attemptsMade": attempts_made,
            });
            if let Some(delay_ms) = delay_ms {
                line["delay"] = delay_ms.into();
            }
            if let Some(finished_ms) = finished_ms {
                line["finishedOn"] = finished_ms.into();
            }
            if let Some(hash) = hash {
                line["raw"] = hash.into_iter().map(|(k, v)| (k, Value::from(v))).collect();
            }
            line
        }
        WorkerEvent::Stalled { id } => json!({ "event": "stalled", "jobId": id, "prev": "active" }),
        WorkerEvent::Drained => json!({ "event": "drained" }),
        WorkerEvent::LeasesLost { ids } => {
            json!({ "event": "lockRenewalFailed", "jobIds": ids })
        }
        WorkerEvent::Error { message } => json!({ "event": "error", "message": message }),
        WorkerEvent::Paused => json!({ "event": "paused" }),
        WorkerEvent::Resumed => json!({ "event": "resumed" }),
        WorkerEvent::Closing => json!({ "event": "closing" }),
        WorkerEvent::Closed => json!({ "event": "closed" }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::worker::WorkerArgs;
    use super::*;

    #[test]
    fn a_lease_that_would_be_ignored_is_refused() {
        let parse = |arguments: &str| {
            let command = WorkerArgs::augment_args(clap::Command::new("worker"));
            let words = arguments.split(' ');
            command.try_get_matches_from(std::iter::once("worker").chain(words))
        };
        let refused = parse("--forward http://a/ --lease-ms 5000").unwrap_err();
        let message = refused.to_string();
        assert!(
            message.contains("--lease-ms") && message.contains("cannot be used with"),
            "{message}"
        );
        for accepted in [
            "--forward http://a/ --lock-duration 5000",
            "--lease-ms 5000",
            "--forward http://a/",
        ] {
            assert!(parse(accepted).is_ok(), "{accepted}");
        }
    }

    #[test]
    fn options_are_read_as_people_write_them() {
        let limit = rate_limit("10/1000").unwrap();
        assert_eq!((limit.max, limit.window.as_secs()), (10, 1));
        for text in ["10", "0/1000", "10/0", "a/b", "-1/5"] {
            assert!(rate_limit(text).is_err(), "{text}");
        }
        assert_eq!(seconds("0.5"), Ok(0.5));
        assert!(seconds("NaN").is_err());
        assert_eq!(keep("true").unwrap().count, Some(0));
        assert_eq!(keep(r#"{"age":5}"#).unwrap().age_seconds, Some(5));
        assert!(keep("some").is_err());
    }
}
