//! The built-in job types, one per file or folder.
//!
//! A handler reads and writes the record and the outside world; it never talks to Redis or HTTP
//! callers.

pub mod diagnostics;

use crate::config::Config;
use crate::worker::Handlers;

/// Handlers of every built-in type; the diagnostic ones only when asked for.
pub fn builtin(config: &Config) -> Handlers {
    let mut handlers = Handlers::default();
    if config.has_diagnostics {
        diagnostics::add(&mut handlers);
    }
    handlers
}
