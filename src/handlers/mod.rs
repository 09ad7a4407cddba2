//! The built-in job types, one per file or folder.
//!
//! A handler reads and writes the record and the outside world; it never talks to Redis or HTTP
//! callers.

pub mod diagnostics;
pub mod import_csv;

use crate::config::Config;
use crate::worker::Handlers;
use import_csv::{ImportCsvHandler, SourceOptions};

/// Handlers of every built-in type; the diagnostic ones only when asked for.
pub fn builtin(config: &Config) -> Handlers {
    let mut handlers = Handlers::default();
    let source = SourceOptions {
        allowed_dir: config.import_dir.clone(),
        allow_private_addresses: config.allows_private_addresses,
        ..SourceOptions::new(&config.data_dir)
    };
    handlers.add(ImportCsvHandler { source });
    if config.has_diagnostics {
        diagnostics::add(&mut handlers);
    }
    handlers
}
