//! `bullwark dev`

use clap::Args;

use super::{Done, Global};

#[derive(Debug, Args)]
pub(crate) struct Dev {}

pub(crate) async fn run(_global: &Global, _args: Dev) -> Done {
    Err(anyhow::anyhow!("pending").into())
}
