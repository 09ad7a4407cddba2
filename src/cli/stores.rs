//! `bullwark stores`

use super::endpoints::{self, Endpoints};
use super::{Done, Global, output};
use crate::stores::{Stores, StoresOptions};

/// Runs private stores until a signal. The first line on standard output has both addresses; the
/// schema is migrated by `bullwark migrate`.
pub(crate) async fn run(global: &Global) -> Done {
    let data_dir = global.data_dir();
    let mut signals = super::serve::Signals::listen()?;
    let mut stores = Stores::start(StoresOptions::kept(&data_dir)).await?;
    let endpoints = Endpoints {
        redis_url: stores.redis_url.clone(),
        database_url: stores.database_url.clone(),
        http_url: None,
        pid: std::process::id(),
    };
    let _published = endpoints::publish(&data_dir, &endpoints)?;
    output::json(&serde_json::json!({
        "redis_url": stores.redis_url,
        "database_url": stores.database_url,
    }));
    let mut checks = tokio::time::interval(std::time::Duration::from_secs(1));
    let failed = loop {
        tokio::select! {
            () = signals.next() => break None,
            _ = checks.tick() => {
                if let Err(error) = stores.check() {
                    break Some(error);
                }
            }
        }
    };
    stores.stop().await?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}
