//! `bullwark audit`: whether the lineage of records is what it was when it was sealed.

use anyhow::anyhow;
use chrono::SubsecRound;
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::{Done, Failure, Global, connect, output};
use crate::record::change_seals::{self, FINDINGS_MAX, Finding};

/// Example: bullwark audit verify --head 3f9a…
#[derive(Debug, Args)]
#[command(
    after_help = "Every change of an account or a contact is sealed some seconds after it was \
    made. Whoever owns the database could make all seals anew: keep the heads elsewhere, and give \
    them to `verify`."
)]
pub(crate) struct Audit {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Read every change and every seal again; exit code 0 only if all of them are intact
    Verify {
        /// Only the changes of this workspace
        #[arg(long)]
        workspace: Option<Uuid>,
        /// A head that was kept elsewhere: it must be in its chain still
        #[arg(long = "head", value_name = "HEX", value_parser = head)]
        heads: Vec<String>,
    },
    /// Print where each chain ends, to be kept elsewhere
    Heads {
        /// Only the chain of this workspace
        #[arg(long)]
        workspace: Option<Uuid>,
    },
}

fn head(text: &str) -> Result<String, String> {
    match text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit()) {
        true => Ok(text.to_ascii_lowercase()),
        false => {
            Err("a head has 64 hexadecimal digits, as `bullwark audit heads` prints it".into())
        }
    }
}

pub(crate) async fn run(global: &Global, args: Audit) -> Done {
    match args.command {
        AuditCommand::Verify { workspace, heads } => verify(global, workspace, &heads).await,
        AuditCommand::Heads { workspace } => print_heads(global, workspace).await,
    }
}

async fn verify(global: &Global, workspace: Option<Uuid>, heads: &[String]) -> Done {
    let record = connect::record(global).await?;
    let verified = change_seals::verify(&record, workspace, heads).await;
    record.close().await;
    let verified = verified?;
    if global.json {
        output::json(&verified);
    } else {
        output::line(&format!(
            "{} changes in {} seals of {} chains were read; {} more were forgotten on purpose, and \
             {} are not sealed yet.",
            verified.changes,
            verified.seals,
            verified.chains,
            verified.forgotten,
            verified.unsealed
        ));
        if !verified.findings.is_empty() {
            let cells = |finding: &Finding| {
                let workspace = finding.workspace_id.map(|id| id.to_string());
                let seal = finding.seal.map(|seal| seal.to_string());
                let problem = finding.problem.clone();
                vec![
                    workspace.unwrap_or_default(),
                    seal.unwrap_or_default(),
                    problem,
                ]
            };
            let rows = verified.findings.iter().map(cells).collect();
            output::table(&["workspace", "seal", "problem"], rows);
        }
        if verified.findings.len() == FINDINGS_MAX {
            output::line("There may be more.");
        }
    }
    match verified.intact {
        true => Ok(()),
        false if global.json => Err(Failure::Silent),
        false => Err(Failure::Failed(anyhow!("the lineage was tampered with"))),
    }
}

async fn print_heads(global: &Global, workspace: Option<Uuid>) -> Done {
    let record = connect::record(global).await?;
    let heads = change_seals::heads(&record, workspace).await;
    record.close().await;
    let heads = heads?;
    if global.json {
        output::json(&heads);
    } else {
        let rows = heads.iter().map(|head| {
            vec![
                head.workspace_id.to_string(),
                head.number.to_string(),
                head.sealed_at.trunc_subsecs(0).to_rfc3339(),
                head.head.clone(),
            ]
        });
        output::table(&["workspace", "seal", "sealed at", "head"], rows.collect());
    }
    Ok(())
}
