//! `bullwark export`

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::client::Client;
use super::import::Entity;
use super::watch::{Doing, job_id, watch};
use super::{Done, Global, output};
use crate::record::exports::columns::{self, Kind};

/// Means the standard output.
const STDOUT: &str = "-";

/// Exports records into a file, and shows how it goes.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  bullwark export --entity accounts --filter country=DE --filter \"employee_count>=50\" \\
    --fields name,domain,custom.tier --output accounts.csv

The server is the one that `bullwark dev` runs on this data directory, or --server with
--api-key.")]
pub(crate) struct ExportArgs {
    /// Which records
    #[arg(long, value_enum)]
    entity: Entity,
    /// What the file is; if not said, what its ending says: .csv, .json, .ndjson, .jsonl or
    /// .xlsx; CSV without an ending, and on the standard output
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
    /// Only rows for which this holds: FIELD=VALUE, FIELD!=VALUE, FIELD~PART, FIELD>VALUE,
    /// FIELD>=VALUE, FIELD<VALUE, FIELD<=VALUE; FIELD= for no value
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// The columns, in their order; all of them if not said
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    fields: Vec<String>,
    /// Where the file goes; `-` prints it
    #[arg(long, short, value_name = "FILE|-")]
    output: PathBuf,
    /// Between two columns of a CSV file
    #[arg(long)]
    delimiter: Option<String>,
    /// Start a CSV file with a byte order mark
    #[arg(long)]
    bom: bool,
    /// Leave texts that a spreadsheet would compute as they are
    #[arg(long)]
    no_formula_guard: bool,
    /// Server to use
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Its key [env: BULLWARK_API_KEY]
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FileFormat {
    Csv,
    Json,
    Ndjson,
    Xlsx,
}

/// Endings that promise what no export is.
const PROMISES: [&str; 9] = [
    "gz", "zip", "zst", "bz2", "xz", "xls", "xlsm", "ods", "parquet",
];

impl FileFormat {
    fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Xlsx => "xlsx",
        }
    }

    /// What is asked for, if the name of the file does not promise something else: nobody should
    /// find out by a program that can not open it.
    fn of(asked: Option<Self>, output: &Path) -> anyhow::Result<Self> {
        let ending = output.extension().map(|ending| ending.to_string_lossy());
        let Some(ending) = ending.map(|ending| ending.to_ascii_lowercase()) else {
            return Ok(asked.unwrap_or(Self::Csv));
        };
        let said = match ending.as_str() {
            "jsonl" => Some(Self::Ndjson),
            ending => Self::from_str(ending, false).ok(),
        };
        let possible = "an export is a .csv, .json, .ndjson (or .jsonl) or .xlsx file";
        match (asked, said) {
            (None, Some(format)) => Ok(format),
            (Some(asked), Some(format)) if asked != format => Err(anyhow!(
                "the file `{}` ends in .{ending}, and --format says {}: change one of them; \
                 {possible}",
                output.display(),
                asked.as_str(),
            )),
            (Some(asked), None) if PROMISES.contains(&ending.as_str()) => Err(anyhow!(
                "the file `{}` ends in .{ending}, and --format {} is something else: {possible}",
                output.display(),
                asked.as_str(),
            )),
            (Some(asked), _) => Ok(asked),
            (None, None) => Err(anyhow!(
                "the file `{}` ends in .{ending}, which says nothing of its format: {possible}; \
                 for another ending say --format",
                output.display(),
            )),
        }
    }
}

pub(crate) async fn run(global: &Global, args: ExportArgs) -> Done {
    let request = args.request()?;
    let client = Client::find(global, args.server.as_deref(), args.api_key.as_deref())?;
    let id = job_id(&client.export(&request).await?)?;
    let doing = Doing {
        what: "export",
        first: "counting rows",
        then: "exporting",
    };
    let is_printed = args.output == Path::new(STDOUT);
    let job = watch(&client, id, &doing, global.json || is_printed).await?;
    if job["status"] != "completed" {
        let error = job["error_message"]
            .as_str()
            .unwrap_or("no reason is known");
        let status = job["status"].as_str().unwrap_or("over");
        return Err(anyhow!("export {id} is {status}: {error}").into());
    }
    if is_printed {
        client.print_export(id).await?;
        return Ok(());
    }
    client.save_export(id, &args.output).await?;
    match global.json {
        true => output::json(&job["result"]),
        false => output::line(&describe(&job["result"], &args.output)),
    }
    Ok(())
}

impl ExportArgs {
    fn request(&self) -> anyhow::Result<Value> {
        let entity = match self.entity {
            Entity::Accounts => columns::Entity::Accounts,
            Entity::Contacts => columns::Entity::Contacts,
        };
        let filters = self.filters.iter().map(|text| filter(entity, text));
        let filters: anyhow::Result<Vec<Value>> = filters.collect();
        let mut options = json!({
            "bom": self.bom,
            "formula_guard": !self.no_formula_guard,
        });
        if let Some(delimiter) = &self.delimiter {
            options["delimiter"] = delimiter.clone().into();
        }
        let mut request = json!({
            "entity_type": self.entity.as_str(),
            "format": FileFormat::of(self.format, &self.output)?.as_str(),
            "filters": filters?,
            "fields": self.fields,
            "options": options,
        });
        let name = self.output.file_name().map(|name| name.to_string_lossy());
        if let Some(name) = name.filter(|name| name != STDOUT) {
            request["file_name"] = name.into();
        }
        Ok(request)
    }
}

/// `country=DE` as the server takes it. What is no whole number where there should be one is left
/// to the server, which says so.
fn filter(entity: columns::Entity, text: &str) -> anyhow::Result<Value> {
    let is_sign = |c: char| matches!(c, '=' | '!' | '~' | '<' | '>');
    let at = text.find(is_sign).unwrap_or(text.len());
    let (field, rest) = text.split_at(at);
    let signs = [
        ("!=", "ne"),
        (">=", "gte"),
        ("<=", "lte"),
        ("=", "eq"),
        ("~", "contains"),
        (">", "gt"),
        ("<", "lt"),
    ];
    let found = signs
        .iter()
        .find_map(|(sign, op)| Some((*op, rest.strip_prefix(sign)?)));
    let Some((op, value)) = found.filter(|_| !field.is_empty()) else {
        return Err(anyhow!(
            "the filter `{text}` has no `=`, `!=`, `~`, `<`, `<=`, `>` or `>=` behind a field"
        ));
    };
    let is_number = entity
        .field(field)
        .is_some_and(|field| field.kind() == Kind::Number);
    Ok(match (op, value, value.parse::<i64>()) {
        ("eq", "", _) => json!({"field": field, "op": "is_null", "value": true}),
        ("ne", "", _) => json!({"field": field, "op": "is_null", "value": false}),
        (_, _, Ok(number)) if is_number => json!({"field": field, "op": op, "value": number}),
        _ => json!({"field": field, "op": op, "value": value}),
    })
}

/// `980 accounts, 123456 bytes: accounts.csv`
fn describe(summary: &Value, path: &Path) -> String {
    let number = |name: &str| summary[name].as_i64().unwrap_or(0);
    let entity = summary["entity_type"].as_str().unwrap_or("rows");
    let (rows, bytes) = (number("rows"), number("bytes"));
    let mut text = format!("{rows} {entity}, {bytes} bytes: {}", path.display());
    for warning in summary["warnings"].as_array().into_iter().flatten() {
        text += &format!("\n  {}", warning.as_str().unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_of_the_file_says_what_it_is() {
        use FileFormat::{Csv, Json, Ndjson, Xlsx};
        let of = |asked, output: &str| FileFormat::of(asked, Path::new(output));
        for (asked, output, expected) in [
            (None, "a.csv", Csv),
            (None, "dir.x/a.XLSX", Xlsx),
            (None, "a.b.json", Json),
            (None, "a.ndjson", Ndjson),
            (None, "a.jsonl", Ndjson),
            (None, "a", Csv),
            (None, "-", Csv),
            (None, "/dev/stdout", Csv),
            (Some(Json), "-", Json),
            (Some(Xlsx), "a", Xlsx),
            (Some(Xlsx), "a.xlsx", Xlsx),
            (Some(Csv), "a.tsv", Csv),
            (Some(Csv), "accounts.2026-11", Csv),
        ] {
            let found = of(asked, output);
            assert_eq!(found.ok(), Some(expected), "{asked:?} {output}");
        }
        for (asked, output) in [
            (Some(Csv), "a.xlsx"),
            (Some(Xlsx), "a.csv"),
            (Some(Json), "a.jsonl"),
            (Some(Csv), "a.csv.gz"),
            (Some(Xlsx), "a.xls"),
            (None, "a.csv.gz"),
            (None, "a.xls"),
            (None, "a.txt"),
            (None, "a."),
        ] {
            let told = of(asked, output).unwrap_err().to_string();
            assert!(told.contains(output), "{told}");
            assert!(
                told.contains(".csv, .json, .ndjson (or .jsonl) or .xlsx"),
                "{told}"
            );
        }
    }

    #[test]
    fn filters_are_read_as_people_write_them() {
        let read = |text: &str| filter(columns::Entity::Accounts, text).ok();
        for (text, field, op, value) in [
            ("country=DE", "country", "eq", json!("DE")),
            ("country!=DE", "country", "ne", json!("DE")),
            ("name~a=b", "name", "contains", json!("a=b")),
            ("employee_count>=50", "employee_count", "gte", json!(50)),
            ("employee_count<x", "employee_count", "lt", json!("x")),
            (
                "created_at<2026-01-31",
                "created_at",
                "lt",
                json!("2026-01-31"),
            ),
            ("external_id=007", "external_id", "eq", json!("007")),
            ("phone=", "phone", "is_null", json!(true)),
            ("phone!=", "phone", "is_null", json!(false)),
            ("custom.a b=c", "custom.a b", "eq", json!("c")),
        ] {
            let expected = json!({"field": field, "op": op, "value": value});
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for text in ["country", "=DE", "", "country!DE"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
