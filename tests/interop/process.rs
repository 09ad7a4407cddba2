//! Worker processes of Bullwark on a test's stores.

use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::stage::Stage;

/// Starts `bullwark worker` with these arguments; killed when it is dropped. No job of a client
/// fails for losing it often: tests that kill workers do it again and again.
pub(crate) fn worker(stage: &Stage, arguments: &[&str], output: Stdio) -> Child {
    Command::new(env!("CARGO_BIN_EXE_bullwark"))
        .args(["worker", "--diagnostics", "--json"])
        .args(["--database-url", &stage.database_url])
        .args(["--redis-url", &stage.redis_url])
        .args(["--prefix", &stage.prefix])
        .args(arguments)
        .env("BULLWARK_MAX_STALLED_COUNT", "1000")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}
