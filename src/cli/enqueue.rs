//! `bullwark enqueue`

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use chrono::{DateTime, Utc};
use clap::Args;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use uuid::Uuid;

use super::{Done, Failure, Global, connect, output};
use crate::app::App;
use crate::enqueue::EnqueueError;
use crate::job::request::PAYLOAD_MAX_BYTES;
use crate::job::{JobRequest, Refused, Status};
use crate::record::jobs;
use crate::record::workspaces::DEFAULT_WORKSPACE;

/// Lines of a file that are sent in one call.
const LINES_PER_CALL: usize = 1000;
/// The longest line; the payload and the names around it.
const LINE_MAX_BYTES: u64 = PAYLOAD_MAX_BYTES as u64 + 64 * 1024;
/// Wrong lines that are explained one by one.
const EXPLAINED_MAX: u64 = 20;
/// Between two looks at a job that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Enqueues one job, or one per line of a file.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bullwark enqueue sleep --payload '{\"ms\": 500}' --wait --diagnostics
  bullwark enqueue import_csv --payload @import.json --queue high_priority
  bullwark enqueue --ndjson jobs.ndjson

Each line of a file is a request: {\"jobType\": \"…\", \"payload\": {…}}")]
pub(crate) struct EnqueueArgs {
    /// Job type
    #[arg(required_unless_present = "ndjson", conflicts_with = "ndjson")]
    job_type: Option<String>,
    /// JSON, @FILE, or - for standard input
    #[arg(long, default_value = "{}")]
    payload: String,
    #[arg(long)]
    queue: Option<String>,
    /// 0 to 10, higher is more urgent
    #[arg(long, allow_hyphen_values = true)]
    priority: Option<i64>,
    /// Not before this long from now, such as 90s or 2h
    #[arg(long, conflicts_with = "at", value_parser = humantime::parse_duration)]
    delay: Option<Duration>,
    /// Not before this time (RFC 3339)
    #[arg(long)]
    at: Option<DateTime<Utc>>,
    #[arg(long)]
    max_attempts: Option<u32>,
    /// Seconds before the first retry
    #[arg(long)]
    retry_delay: Option<u32>,
    /// The same key again gives the same job
    #[arg(long)]
    idempotency_key: Option<String>,
    /// Wait until the job is over; exit code 0 only if it completed
    #[arg(long)]
    wait: bool,
    /// One request per line, from FILE or - for standard input
    #[arg(long, value_name = "FILE")]
    ndjson: Option<String>,
}

pub(crate) async fn run(global: &Global, args: EnqueueArgs) -> Done {
    if let Some(file) = &args.ndjson {
        let app = connect::app(global).await?;
        let done = enqueue_lines(global, &app, file).await;
        app.close().await;
        return done;
    }
    let request = request(&args)?;
    let app = connect::app(global).await?;
    let done = enqueue_one(global, &app, request, args.wait).await;
    app.close().await;
    done
}

fn request(args: &EnqueueArgs) -> anyhow::Result<JobRequest> {
    let text = match args.payload.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin()
                .take(LINE_MAX_BYTES)
                .read_to_string(&mut text)
                .context("payload: read standard input")?;
            text
        }
        payload => match payload.strip_prefix('@') {
            Some(file) => std::fs::read_to_string(file)
                .with_context(|| format!("payload: read file {file}"))?,
            None => payload.to_owned(),
        },
    };
    let payload = serde_json::from_str(&text).context("payload is no JSON")?;
    let mut request = JobRequest::new(args.job_type.clone().unwrap_or_default(), payload);
    request.queue = args.queue.clone();
    request.priority = args.priority;
    request.delay_ms = args.delay.map(|delay| delay.as_millis() as u64);
    request.scheduled_for = args.at;
    request.max_attempts = args.max_attempts;
    request.retry_delay_seconds = args.retry_delay;
    request.idempotency_key = args.idempotency_key.clone();
    request.workspace_id = Some(DEFAULT_WORKSPACE);
    Ok(request)
}

async fn enqueue_one(global: &Global, app: &App, request: JobRequest, wait: bool) -> Done {
    let enqueued = app
        .enqueue
        .enqueue(request)
        .await
        .map_err(|error| explain(global, error))?;
    let mut job = load(app, enqueued.id).await?;
    if wait {
        if !global.json {
            output::note(&format!("{} accepted, waiting …", enqueued.id));
        }
        job = wait_for(app, enqueued.id).await?;
    }
    if global.json {
        output::json(&job);
    } else {
        output::line(&format!("{} {}", job.id, job.status));
        if let Some(error) = &job.error_message {
            output::note(&format!("error: {error}"));
        }
    }
    match !wait || job.status == Status::Completed.as_str() {
        true => Ok(()),
        false => Err(Failure::Silent),
    }
}

async fn load(app: &App, id: Uuid) -> anyhow::Result<jobs::JobRow> {
    jobs::get(&mut app.record.view().await?, id, None)
        .await?
        .ok_or_else(|| anyhow!("job {id} is gone"))
}

/// Waits until a job is over. Bounded by the job itself: its attempts and its timeout.
pub(crate) async fn wait_for(app: &App, id: Uuid) -> anyhow::Result<jobs::JobRow> {
    loop {
        let job = load(app, id).await?;
        if job.status.parse::<Status>()?.is_final() {
            return Ok(job);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Says what is wrong with a request, with the place of each problem.
fn explain(global: &Global, error: EnqueueError) -> Failure {
    if error.is_unavailable() {
        return Failure::Unavailable(error.into());
    }
    let EnqueueError::Refused(refused) = &error else {
        return Failure::Failed(error.into());
    };
    if global.json {
        let problems = match refused {
            Refused::Invalid { problems } => problems.clone(),
            Refused::UnknownType { .. } | Refused::PayloadTooLarge { .. } => Vec::new(),
        };
        output::json(&serde_json::json!({
            "code": refused.code(),
            "detail": refused.to_string(),
            "errors": problems,
        }));
    }
    if let Refused::Invalid { problems } = refused {
        output::error("the job is refused, nothing was stored:");
        for problem in problems {
            output::note(&format!("  {}: {}", problem.pointer, problem.message));
        }
        return Failure::Silent;
    }
    Failure::Failed(anyhow!("the job is refused, nothing was stored: {error}"))
}

#[derive(Debug, Default, serde::Serialize)]
struct Tally {
    accepted: u64,
    /// Accepted before, by the same idempotency key.
    existing: u64,
    refused: u64,
}

async fn enqueue_lines(global: &Global, app: &App, file: &str) -> Done {
    let input: Box<dyn AsyncBufRead + Unpin + Send> = match file {
        "-" => Box::new(BufReader::new(tokio::io::stdin())),
        path => {
            let opened = tokio::fs::File::open(path).await;
            Box::new(BufReader::new(
                opened.with_context(|| format!("open {path}"))?,
            ))
        }
    };
    let mut lines = Lines { input, number: 0 };
    let mut tally = Tally::default();
    loop {
        let mut numbers = Vec::with_capacity(LINES_PER_CALL);
        let mut requests = Vec::with_capacity(LINES_PER_CALL);
        while requests.len() < LINES_PER_CALL {
            let Some(line) = lines.next().await? else {
                break;
            };
            match serde_json::from_str::<JobRequest>(&line) {
                Ok(mut request) => {
                    request.workspace_id = Some(DEFAULT_WORKSPACE);
                    numbers.push(lines.number);
                    requests.push(request);
                }
                Err(error) => refuse(&mut tally, lines.number, &error.to_string()),
            }
        }
        if requests.is_empty() {
            break;
        }
        let answers = app.enqueue.enqueue_many(requests).await?;
        for (number, answer) in numbers.into_iter().zip(answers) {
            match answer {
                Ok(enqueued) if enqueued.is_new => tally.accepted += 1,
                Ok(_) => tally.existing += 1,
                Err(error) if error.is_unavailable() => {
                    report(global, &tally);
                    let text = format!("stopped at line {number}: {error}");
                    return Err(Failure::Unavailable(anyhow!(text)));
                }
                Err(error) => refuse(&mut tally, number, &error.to_string()),
            }
        }
    }
    report(global, &tally);
    match tally.refused {
        0 => Ok(()),
        _ => Err(Failure::Silent),
    }
}

fn refuse(tally: &mut Tally, number: u64, why: &str) {
    tally.refused += 1;
    match tally.refused {
        1..=EXPLAINED_MAX => output::error(&format!("line {number} is refused: {why}")),
        n if n == EXPLAINED_MAX + 1 => output::error("further refused lines are only counted"),
        _ => {}
    }
}

fn report(global: &Global, tally: &Tally) {
    match global.json {
        true => output::json(tally),
        false => output::line(&format!(
            "{} accepted, {} accepted before, {} refused",
            tally.accepted, tally.existing, tally.refused
        )),
    }
}

/// Lines with a bounded length; blank ones are passed over.
struct Lines {
    input: Box<dyn AsyncBufRead + Unpin + Send>,
    number: u64,
}

impl Lines {
    async fn next(&mut self) -> anyhow::Result<Option<String>> {
        use tokio::io::AsyncReadExt;
        loop {
            let mut line = String::new();
            let read = (&mut self.input)
                .take(LINE_MAX_BYTES)
                .read_line(&mut line)
                .await;
            self.number += 1;
            match read.with_context(|| format!("line {}", self.number))? {
                0 => return Ok(None),
                bytes if bytes as u64 == LINE_MAX_BYTES && !line.ends_with('\n') => {
                    bail!("line {} is longer than {LINE_MAX_BYTES} bytes", self.number)
                }
                _ if line.trim().is_empty() => {}
                _ => return Ok(Some(line)),
            }
        }
    }
}
