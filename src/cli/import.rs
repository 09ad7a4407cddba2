//! `bullwark import`

use clap::Args;

use super::{Done, Global};

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {}

pub(crate) async fn run(_global: &Global, _args: ImportArgs) -> Done {
    Err(anyhow::anyhow!("pending").into())
}
