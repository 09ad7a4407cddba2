//! The built-in job types, one per file or folder.
//!
//! A handler reads and writes the record and the outside world; it never talks to Redis or HTTP
//! callers.

pub mod diagnostics;

use crate::worker::Handlers;

/// Handlers of every built-in type; the diagnostic ones only when asked for.
pub fn builtin(has_diagnostics: bool) -> Handlers {
    let mut handlers = Handlers::default();
    if has_diagnostics {
        diagnostics::add(&mut handlers);
    }
    handlers
}
