//! `bullwark import`

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::client::Client;
use super::endpoints;
use super::{Done, Failure, Global, output};
use crate::config::{HTTP_ADDR, environment};

/// Between two looks at the job.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks in a row that may fail before the command gives up watching.
const MISSED_LOOKS_MAX: u32 = 120;

/// Uploads a CSV file, enqueues its import, and shows how it goes.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  bullwark import examples/data/accounts.csv --entity accounts \\
    --map \"Company Name=name\" --map \"Website=domain\" --map \"Industry=industry\"

Headers that are not mapped are recognised by their usual names. The server is the one that
`bullwark dev` runs on this data directory, or --server with --api-key.")]
pub(crate) struct ImportArgs {
    /// The file
    file: PathBuf,
    /// What its rows are
    #[arg(long, value_enum)]
    entity: Entity,
    /// Header of the file and field of the record; an empty field leaves the column out
    #[arg(long = "map", value_name = "HEADER=FIELD", value_parser = parse_mapping)]
    mapping: Vec<(String, String)>,
    /// What becomes of a row whose record exists already
    #[arg(long, value_enum, default_value_t = Existing::Update)]
    existing: Existing,
    /// Rows per statement
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=2000))]
    batch_size: Option<u32>,
    /// Character encoding, when the detection is wrong
    #[arg(long)]
    encoding: Option<String>,
    /// Column separator, when the detection is wrong
    #[arg(long)]
    delimiter: Option<String>,
    /// Check and count, but write no record
    #[arg(long)]
    dry_run: bool,
    #[arg(long)]
    queue: Option<String>,
    /// Save the error report here as well
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Server to use
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Its key [env: BULLWARK_API_KEY]
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Enqueue and leave
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Entity {
    Accounts,
    Contacts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Existing {
    /// It changes the record where it differs
    Update,
    /// It is left out
    Skip,
    /// It is an error
    Refuse,
}

fn parse_mapping(text: &str) -> Result<(String, String), String> {
    let (header, field) = text
        .split_once('=')
        .ok_or_else(|| "write it as \"Header of the file=field\"".to_owned())?;
    if header.is_empty() {
        return Err("the header before the `=` is empty".to_owned());
    }
    Ok((header.to_owned(), field.to_owned()))
}

pub(crate) async fn run(global: &Global, args: ImportArgs) -> Done {
    if !args.file.is_file() {
        return Err(anyhow!("there is no file {}", args.file.display()).into());
    }
    let client = connect(global, &args)?;
    let address = client.upload(&args.file).await?;
    let job = client.enqueue(&args.request(&address)).await?;
    let id = job_id(&job)?;
    if args.no_wait {
        match global.json {
            true => output::json(&job),
            false => output::line(&format!("{id} accepted")),
        }
        return Ok(());
    }
    let bar = progress_bar(global.json);
    let job = watch(&client, id, &bar).await?;
    bar.finish_and_clear();
    if job["status"] != "completed" {
        if global.json {
            let (status, error) = (&job["status"], &job["error_message"]);
            output::json(&json!({ "id": id, "status": status, "error": error }));
        }
        let error = job["error_message"]
            .as_str()
            .unwrap_or("no reason is known");
        let status = job["status"].as_str().unwrap_or("over");
        return Err(anyhow!("import {id} is {status}: {error}").into());
    }
    let summary = &job["result"];
    let place = report_place(global, &client, id, summary, args.report.as_deref()).await?;
    if global.json {
        output::json(summary);
    } else {
        output::line(&describe(summary));
        if let Some(place) = place {
            output::line(&format!("Error report: {place}"));
        }
    }
    Ok(())
}

/// The server of this data directory, or the one that was named.
fn connect(global: &Global, args: &ImportArgs) -> anyhow::Result<Client> {
    let data_dir = global.data_dir();
    let local = endpoints::read(&data_dir).and_then(|endpoints| endpoints.http_url);
    let key = args
        .api_key
        .clone()
        .or_else(|| environment("BULLWARK_API_KEY").filter(|key| !key.is_empty()))
        .or_else(|| endpoints::read_api_key(&data_dir));
    let address = environment("BULLWARK_HTTP_ADDR").unwrap_or_else(|| HTTP_ADDR.to_owned());
    let server = args
        .server
        .clone()
        .or(local)
        .unwrap_or_else(|| format!("http://{address}"));
    let Some(key) = key else {
        bail!(
            "no API key is known: start `bullwark dev` here, or give --api-key or BULLWARK_API_KEY \
             for {server}"
        );
    };
    Client::new(&server, &key)
}

impl ImportArgs {
    fn request(&self, address: &str) -> Value {
        let name = self
            .file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let mut options = json!({
            "update_existing": self.existing == Existing::Update,
            "skip_duplicates": self.existing == Existing::Skip,
            "dry_run": self.dry_run,
        });
        if let Some(size) = self.batch_size {
            options["batch_size"] = size.into();
        }
        if let Some(encoding) = &self.encoding {
            options["encoding"] = encoding.clone().into();
        }
        if let Some(delimiter) = &self.delimiter {
            options["delimiter"] = delimiter.clone().into();
        }
        let mapping: Map<String, Value> = self
            .mapping
            .iter()
            .map(|(from, to)| (from.clone(), to.clone().into()))
            .collect();
        let mut request = json!({
            "jobType": "import_csv",
            "payload": {
                "file_url": address,
                "file_name": name,
                "entity_type": match self.entity {
                    Entity::Accounts => "accounts",
                    Entity::Contacts => "contacts",
                },
                "mapping": mapping,
                "options": options,
            },
        });
        if let Some(queue) = &self.queue {
            request["queue"] = queue.clone().into();
        }
        request
    }

    /// The import of the example file, as the documentation shows it.
    pub(super) fn example(file: PathBuf) -> Self {
        let mapping = [
            ("Company Name", "name"),
            ("Website", "domain"),
            ("Industry", "industry"),
        ];
        Self {
            file,
            entity: Entity::Accounts,
            mapping: mapping
                .map(|(from, to)| (from.to_owned(), to.to_owned()))
                .to_vec(),
            existing: Existing::Update,
            batch_size: None,
            encoding: None,
            delimiter: None,
            dry_run: false,
            queue: None,
            report: None,
            server: None,
            api_key: None,
            no_wait: false,
        }
    }
}

fn job_id(job: &Value) -> anyhow::Result<Uuid> {
    let id = job["id"]
        .as_str()
        .ok_or_else(|| anyhow!("the server's answer has no job id"))?;
    id.parse().context("the server's job id")
}

fn progress_bar(is_quiet: bool) -> ProgressBar {
    let target = match is_quiet {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    if let Ok(style) = ProgressStyle::with_template(
        "{spinner} {msg:24!} [{bar:32}] {human_pos}/{human_len} · {rate} · ETA {eta}",
    ) {
        let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // A closed terminal is no error.
            write!(out, "{} rows/s", HumanCount(state.per_sec() as u64)).ok();
        };
        bar.set_style(style.with_key("rate", rate).progress_chars("█▌ "));
    }
    bar.set_message("waiting for a worker");
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Watches a job until it is over. A server that restarts meanwhile is waited for.
async fn watch(client: &Client, id: Uuid, bar: &ProgressBar) -> anyhow::Result<Value> {
    let mut missed = 0;
    loop {
        let job = match client.job(id).await {
            Ok(job) => job,
            Err(error) if missed >= MISSED_LOOKS_MAX => {
                return Err(error.context(format!("import {id} goes on without being watched")));
            }
            Err(_) => {
                missed += 1;
                bar.set_message("server is away");
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
        };
        missed = 0;
        show(&job, bar);
        if matches!(
            job["status"].as_str(),
            Some("completed" | "dead_letter" | "cancelled")
        ) {
            return Ok(job);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn show(job: &Value, bar: &ProgressBar) {
    let progress = &job["progress"];
    if let Some(total) = progress["total"].as_u64() {
        bar.set_length(total);
    }
    if let Some(processed) = progress["processed"].as_u64() {
        bar.set_position(processed);
    }
    let message = match (job["status"].as_str(), progress["processed"].as_u64()) {
        (Some("failed"), _) => "failed, will try again",
        (Some("processing"), Some(1..)) => "importing",
        (Some("processing"), _) => "reading the file",
        _ => "waiting for a worker",
    };
    bar.set_message(message);
}

/// `980 imported, 20 skipped: 12 DUPLICATE_IN_FILE, 8 DOMAIN_INVALID`
fn describe(summary: &Value) -> String {
    let number = |name: &str| summary[name].as_i64().unwrap_or(0);
    let skipped = number("skipped") + number("failed");
    let mut text = format!("{} imported", number("imported"));
    if number("updated") + number("unchanged") > 0 {
        let (new, updated) = (number("inserted"), number("updated"));
        text += &format!(
            " ({new} new, {updated} updated, {} unchanged)",
            number("unchanged")
        );
    }
    text += &format!(", {skipped} skipped");
    let codes = summary["by_code"].as_object();
    let reasons: Vec<String> = codes
        .into_iter()
        .flatten()
        .map(|(code, count)| format!("{count} {code}"))
        .collect();
    if !reasons.is_empty() {
        text += &format!(": {}", reasons.join(", "));
    }
    text
}

/// Where the error report is; saves it when asked to.
async fn report_place(
    global: &Global,
    client: &Client,
    id: Uuid,
    summary: &Value,
    save: Option<&Path>,
) -> Result<Option<String>, Failure> {
    let Some(report) = summary["report"].as_str() else {
        return Ok(None);
    };
    if let Some(path) = save {
        client.save_report(id, path).await?;
        return Ok(Some(path.display().to_string()));
    }
    let local = global.data_dir().join(report);
    Ok(Some(match local.is_file() {
        true => local.display().to_string(),
        false => client.report_url(id),
    }))
}
