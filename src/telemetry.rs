//! Log lines on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::environment;

/// Starts logging. `BULLWARK_LOG` says what (for example `info` or `bullwark=debug,warn`); without
/// it, `default`. People get text, everything else gets one JSON object per line.
pub fn start(default: &str) {
    let wanted = environment("BULLWARK_LOG").unwrap_or_else(|| default.to_owned());
    let filter = EnvFilter::try_new(&wanted).unwrap_or_else(|_| EnvFilter::new(default));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second start (in tests) keeps the first.
    if std::io::stderr().is_terminal() {
        lines.compact().with_target(false).try_init().ok();
    } else {
        lines.json().flatten_event(true).try_init().ok();
    }
}
