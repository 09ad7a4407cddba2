//! `bullwark import`

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::client::Client;
use super::watch::{Doing, job_id, watch};
use super::{Done, Failure, Global, output};

/// Uploads a file (CSV, .csv.gz or .xlsx), enqueues its import, and shows how it goes.
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
    /// Of an update: overwrite, fill_blank or never, for this field
    #[arg(long = "policy", value_name = "FIELD=POLICY", value_parser = parse_policy)]
    policies: Vec<(String, String)>,
    /// Rows per statement
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=2000))]
    batch_size: Option<u32>,
    /// Character encoding, when the detection is wrong
    #[arg(long)]
    encoding: Option<String>,
    /// Column separator, when the detection is wrong
    #[arg(long)]
    delimiter: Option<String>,
    /// The sheet of a workbook; the first visible one if not said
    #[arg(long, value_name = "NAME")]
    sheet: Option<String>,
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
pub(super) enum Entity {
    Accounts,
    Contacts,
}

impl Entity {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Contacts => "contacts",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Existing {
    /// It changes the record where it differs
    Update,
    /// The same, and a row without a record is left out and reported
    UpdateOnly,
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

fn parse_policy(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((field, policy @ ("overwrite" | "fill_blank" | "never"))) if !field.is_empty() => {
            Ok((field.to_owned(), policy.to_owned()))
        }
        _ => Err("write it as field=overwrite, field=fill_blank or field=never".to_owned()),
    }
}

pub(crate) async fn run(global: &Global, args: ImportArgs) -> Done {
    if !args.file.is_file() {
        return Err(anyhow!("there is no file {}", args.file.display()).into());
    }
    let client = Client::find(global, args.server.as_deref(), args.api_key.as_deref())?;
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
    let doing = Doing {
        what: "import",
        first: "reading the file",
        then: "importing",
    };
    let job = watch(&client, id, &doing, global.json).await?;
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

impl ImportArgs {
    fn request(&self, address: &str) -> Value {
        let name = self
            .file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let mut options = json!({
            "update_existing": matches!(self.existing, Existing::Update | Existing::UpdateOnly),
            "create_missing": self.existing != Existing::UpdateOnly,
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
        if !self.policies.is_empty() {
            options["field_policies"] = object(&self.policies);
        }
        if let Some(sheet) = &self.sheet {
            options["sheet"] = sheet.clone().into();
        }
        let mut request = json!({
            "jobType": "import_csv",
            "payload": {
                "file_url": address,
                "file_name": name,
                "entity_type": self.entity.as_str(),
                "mapping": object(&self.mapping),
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
        let mut import = Self::of_accounts(file);
        let industry = ("Industry".to_owned(), "industry".to_owned());
        import.mapping.push(industry);
        import
    }

    /// The import of a file with names and websites of companies.
    pub(super) fn of_accounts(file: PathBuf) -> Self {
        let mapping = [("Company Name", "name"), ("Website", "domain")];
        Self {
            file,
            entity: Entity::Accounts,
            mapping: mapping
                .map(|(from, to)| (from.to_owned(), to.to_owned()))
                .to_vec(),
            existing: Existing::Update,
            policies: Vec::new(),
            batch_size: None,
            encoding: None,
            delimiter: None,
            sheet: None,
            dry_run: false,
            queue: None,
            report: None,
            server: None,
            api_key: None,
            no_wait: false,
        }
    }
}

fn object(pairs: &[(String, String)]) -> Value {
    let pairs = pairs.iter().cloned();
    let map: Map<String, Value> = pairs.map(|(key, value)| (key, value.into())).collect();
    map.into()
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
