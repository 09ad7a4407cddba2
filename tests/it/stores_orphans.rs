//! Private servers whose owner was killed: none lives on, and none that does is trusted with data.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bullwark::stores::{Stores, StoresOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::stores::{insert, is_alive, kept, passable_dir, wait_until};

/// Names the directory that [`holder_process`] shall hold.
const HOLD: &str = "BULLWARK_TEST_HOLD";

/// Not a test: the process that the tests below kill. Does nothing when run with the others.
#[tokio::test]
async fn holder_process() {
    #[expect(
        clippy::disallowed_methods,
        reason = "how the parent test names the directory"
    )]
    let Ok(dir) = std::env::var(HOLD) else { return };
    let options = match dir.as_str() {
        "" => StoresOptions::throwaway(),
        dir => kept(Path::new(dir)),
    };
    let stores = Stores::start(options).await.unwrap();
    let (redis, postgres) = (stores.redis_pid().unwrap(), stores.postgres_pid().unwrap());
    eprintln!("held {redis} {postgres} {}", stores.dir().display());
    // Ends with the pipe, so that a failed parent leaves nothing behind.
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count())
        .await
        .unwrap();
}

/// A process that holds private servers; their pids; their directory.
fn hold(dir: &str) -> (Child, [u32; 2], PathBuf) {
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stores_orphans::holder_process", "--nocapture"])
        .env(HOLD, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stderr.take().unwrap()).lines();
    let mut held = lines
        .map_while(Result::ok)
        .filter_map(|l| l.strip_prefix("held ").map(String::from));
    let line = held.next().expect("the holder prints what it holds");
    let mut words = line.splitn(3, ' ');
    let mut word = || words.next().unwrap().to_owned();
    let pids = [word().parse().unwrap(), word().parse().unwrap()];
    (holder, pids, word().into())
}

fn kill_hard(mut holder: Child) {
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn servers_do_not_outlive_a_killed_process() {
    let dir = passable_dir();
    let (holder, pids, _) = hold(dir.path().to_str().unwrap());
    assert!(pids.into_iter().all(is_alive));
    kill_hard(holder);
    wait_until("the servers are gone", || !pids.into_iter().any(is_alive));
}

#[test]
fn a_killed_process_leaves_no_temporary_directory() {
    let (holder, pids, dir) = hold("");
    assert!(dir.exists());
    kill_hard(holder);
    wait_until("the directory is gone", || !dir.exists());
    assert!(!pids.into_iter().any(is_alive));
}

#[tokio::test]
async fn servers_of_a_killed_process_are_ended_by_the_next_start() {
    let dir = passable_dir();
    let path = dir.path().to_str().unwrap().to_owned();
    let (holder, [redis, postgres], _) = tokio::task::spawn_blocking(move || hold(&path))
        .await
        .unwrap();
    // Stopped processes do not see the kernel's goodbye: they stay as real leftovers would.
    for pid in [redis, postgres] {
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP).unwrap();
    }
    kill_hard(holder);
    assert!(
        is_alive(redis) && is_alive(postgres),
        "the leftovers of this test are needed"
    );

    let options = StoresOptions {
        stop_patience: Duration::from_millis(200),
        ..kept(dir.path())
    };
    let stores = Stores::start(options).await.unwrap();
    assert!(
        !is_alive(redis) && !is_alive(postgres),
        "two servers must never share data"
    );
    insert(&stores, 1).await;
    stores.stop().await.unwrap();
}
