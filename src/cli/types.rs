//! `bullwark types`

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};

use super::{Done, Global, connect, output};
use crate::job::JobType;
use crate::record::access::By;
use crate::record::types;

/// Example: bullwark types add resize_image --schema resize.schema.json
#[derive(Debug, Args)]
pub(crate) struct Types {
    #[command(subcommand)]
    command: TypesCommand,
}

#[derive(Debug, Subcommand)]
enum TypesCommand {
    /// List the known types
    List,
    /// Declare a type that foreign or forwarding workers serve
    Add {
        name: String,
        /// JSON Schema of the payload; without it everything is accepted
        #[arg(long, value_name = "FILE")]
        schema: Option<PathBuf>,
    },
}

pub(crate) async fn run(global: &Global, args: Types) -> Done {
    let app = connect::app(global).await?;
    match args.command {
        TypesCommand::List => {
            let rows = types::list(&app.record).await?;
            if global.json {
                output::json(&rows);
            } else {
                let kind = |builtin| if builtin { "built in" } else { "declared" };
                let cells = |row: types::TypeRow| vec![row.name, kind(row.builtin).to_owned()];
                output::table(&["type", ""], rows.into_iter().map(cells).collect());
            }
        }
        TypesCommand::Add { name, schema } => {
            let schema = match schema {
                Some(file) => {
                    let text = std::fs::read_to_string(&file)
                        .with_context(|| format!("read {}", file.display()))?;
                    serde_json::from_str(&text)
                        .with_context(|| format!("{} is no JSON", file.display()))?
                }
                None => serde_json::Value::Bool(true),
            };
            let job_type = JobType::new(&name, schema)?;
            if !types::declare(&app.record, &job_type.name, &job_type.schema, &By::OPERATOR).await?
            {
                return Err(anyhow!("`{name}` is a built-in type").into());
            }
            match global.json {
                true => output::json(&serde_json::json!({ "name": name, "declared": true })),
                false => output::line(&format!("{name} is declared")),
            }
        }
    }
    app.close().await;
    Ok(())
}
