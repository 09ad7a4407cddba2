//! What the demo shows while it runs: a bar of the jobs, a bar per provider of what is left of its
//! quota, and what has happened. Where nobody looks at a terminal, a line now and then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::mpsc;

use super::super::output;
use crate::app::App;
use crate::clock;
use crate::handlers::providers::DataSource;
use crate::handlers::simulator::Simulator;
use crate::quota::{QuotaKey, QuotaView};
use crate::record::stats;
use crate::record::workspaces::DEFAULT_WORKSPACE;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Words that wait to be shown.
const WORDS_MAX: usize = 16;

/// Where the story says what happens.
pub(super) struct Told(mpsc::Sender<&'static str>);

impl Told {
    pub(super) fn new() -> (Self, mpsc::Receiver<&'static str>) {
        let (tell, told) = mpsc::channel(WORDS_MAX);
        (Self(tell), told)
    }

    pub(super) fn say(&self, words: &'static str) {
        // Nobody looks: then nobody misses it.
        self.0.try_send(words).ok();
    }
}

/// The jobs as they are now.
#[derive(Debug, Clone, Copy, Default)]
struct Jobs {
    open: u64,
    processing: u64,
    failed: u64,
    dead: u64,
}

struct Bars {
    all: MultiProgress,
    jobs: ProgressBar,
    providers: BTreeMap<DataSource, ProgressBar>,
}

impl Bars {
    fn new(total: u64) -> Self {
        let all = MultiProgress::new();
        let jobs = all.add(ProgressBar::new(total));
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:9} [{bar:30}] {human_pos}/{human_len} · {msg}")
        {
            jobs.set_style(style.progress_chars("█▌ "));
        }
        jobs.set_prefix("accounts");
        let bar = |source: DataSource| {
            let bar = all.add(ProgressBar::new(1));
            if let Ok(style) =
                ProgressStyle::with_template("{prefix:9} [{bar:30}] {human_pos}/{human_len} {msg}")
            {
                bar.set_style(style.progress_chars("▪▪·"));
            }
            bar.set_prefix(source.as_str());
            (source, bar)
        };
        let providers = DataSource::ALL.into_iter().map(bar).collect();
        Self {
            jobs,
            providers,
            all,
        }
    }

    fn clear(&self) {
        for bar in self.providers.values() {
            bar.finish_and_clear();
        }
        self.jobs.finish_and_clear();
    }
}

/// Shows it until the last job has ended.
pub(super) async fn show(
    app: &App,
    providers: &Simulator,
    total: u64,
    mut story: mpsc::Receiver<&'static str>,
    is_json: bool,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let bars = (!is_json).then(|| Bars::new(total));
    let is_seen = bars.as_ref().is_some_and(|bars| !bars.jobs.is_hidden());
    let mut line_at = began;
    loop {
        let jobs = count(app).await?;
        let done = total.saturating_sub(jobs.open);
        if let Some(bars) = &bars {
            while let Ok(words) = story.try_recv() {
                match is_seen {
                    true => bars.all.println(format!("  » {words}"))?,
                    false => output::note(&format!("  » {words}")),
                }
            }
            bars.jobs.set_position(done);
            bars.jobs.set_message(told(&jobs, began));
            for (source, bar) in &bars.providers {
                show_provider(app, providers, *source, bar).await?;
            }
            if !is_seen && line_at.elapsed() >= LINE_EVERY {
                line_at = Instant::now();
                output::note(&line(bars, done, total));
            }
        }
        if jobs.open == 0 {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if let Some(bars) = &bars {
        bars.clear();
    }
    sum_up(
        providers,
        (total, count(app).await?.dead),
        began.elapsed(),
        is_json,
    );
    Ok(())
}

fn told(jobs: &Jobs, began: Instant) -> String {
    let Jobs {
        open,
        processing,
        failed,
        dead,
    } = *jobs;
    let waiting = HumanCount(open.saturating_sub(processing + failed));
    format!(
        "{processing} running, {waiting} waiting, {failed} to be tried again, {dead} dead letters \
         · {}",
        HumanDuration(began.elapsed())
    )
}

fn line(bars: &Bars, done: u64, total: u64) -> String {
    let mut text = format!("{done}/{total} · {}", bars.jobs.message());
    for (source, bar) in &bars.providers {
        let (name, used, of) = (source.as_str(), bar.position(), bar.length().unwrap_or(0));
        text += &format!("\n  {name:9} {used}/{of} {}", bar.message());
    }
    text
}

async fn count(app: &App) -> anyhow::Result<Jobs> {
    let mut view = app.record.view().await?;
    let mut jobs = Jobs::default();
    for one in stats::count_open(&mut view, DEFAULT_WORKSPACE).await? {
        let count = u64::try_from(one.jobs).unwrap_or(0);
        jobs.open += count;
        match one.status.as_str() {
            "processing" => jobs.processing += count,
            "failed" => jobs.failed += count,
            _ => {}
        }
    }
    let dead = stats::count_dead(&mut view, DEFAULT_WORKSPACE).await?;
    jobs.dead = u64::try_from(dead).unwrap_or(0);
    Ok(jobs)
}

/// What is used of its narrowest window, and how it is.
async fn show_provider(
    app: &App,
    providers: &Simulator,
    source: DataSource,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let limits = source.limits();
    let key = QuotaKey::new(source.as_str(), DEFAULT_WORKSPACE)?.to_string();
    // Redis may be away for a moment: then the bar stays as it is.
    let quota = QuotaView::of(&app.broker, &key, &limits)
        .await
        .ok()
        .flatten();
    let answers = providers.answers(source);
    let of = |status: u16| answers.get(&status).copied().unwrap_or_default();
    let mut told = format!(
        "calls {} · {} found, {} unknown",
        per(&limits),
        HumanCount(providers.spent(source)),
        HumanCount(unknown(providers, source)),
    );
    for (status, words) in [(202, "still looking"), (429, "× 429"), (503, "× 503")] {
        if of(status) > 0 {
            told += &format!(", {} {words}", of(status));
        }
    }
    if let Some(quota) = quota {
        if let Some(window) = quota.windows.first() {
            bar.set_length(window.max);
            bar.set_position(window.used);
        }
        let left = |until: Option<chrono::DateTime<chrono::Utc>>| {
            let left = (until? - clock::now()).num_milliseconds();
            (left > 0).then_some((left as f64 / 1000.0).ceil())
        };
        if let Some(seconds) = left(quota.host_closed_until) {
            told += &format!(" — is down, tried again in {seconds} s");
        } else if let Some(seconds) = left(quota.closed_until) {
            told += &format!(" — closed for {seconds} s");
        }
    }
    bar.set_message(told);
    Ok(())
}

fn per(limits: &crate::quota::Limits) -> String {
    match limits.windows.first().map(|window| window.per_ms()) {
        Some(1000) => "a second".to_owned(),
        Some(60_000) => "a minute".to_owned(),
        Some(ms) => format!("in {} s", ms / 1000),
        None => String::new(),
    }
}

/// Right answers that cost nothing.
fn unknown(providers: &Simulator, source: DataSource) -> u64 {
    let answers = providers.answers(source);
    let of = |status: u16| answers.get(&status).copied().unwrap_or_default();
    (of(200) + of(404)).saturating_sub(providers.spent(source))
}

fn sum_up(providers: &Simulator, (total, dead): (u64, u64), took: Duration, is_json: bool) {
    let sum = |of: fn(&Simulator, DataSource) -> u64| -> u64 {
        DataSource::ALL
            .into_iter()
            .map(|source| of(providers, source))
            .sum()
    };
    let found = sum(|providers, source| providers.spent(source));
    let unknown = sum(unknown);
    let calls = sum(|providers, source| providers.answers(source).values().sum());
    let above = providers.violations();
    if is_json {
        output::json(&json!({
            "accounts": total, "calls": calls, "found": found, "unknown": unknown,
            "above_limit": above, "dead_letters": dead, "seconds": took.as_secs_f64(),
        }));
        return;
    }
    output::line(&format!(
        "
{} accounts enriched in {}: {} calls, {above} above a limit, {} credits spent, no company \
         paid for twice; {} companies that nobody knows; {dead} dead letters.

What was written, and where it comes from, is in the record: `accounts`, `account_sources`,
`account_versions`, `account_activities`. How it works: docs/enrichment.md, docs/quotas.md.
",
        HumanCount(total),
        HumanDuration(took),
        HumanCount(calls),
        HumanCount(found),
        HumanCount(unknown),
    ));
}
