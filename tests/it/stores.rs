//! Private servers: start, stop, crash, and everything that may be left behind.

use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use bullwark::stores::{Kill, Stores, StoresError, StoresOptions, discover};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::support::{Sandbox, connect, execute, own_stores};

/// The most that the kernel, or the guardian, may need to clean up after a killed process.
const AFTERMATH: Duration = Duration::from_secs(20);

pub(crate) fn kept(dir: &Path) -> StoresOptions {
    // Without waiting for the disk, but with Redis's append-only file, unlike `throwaway`.
    StoresOptions {
        shared_buffers_mb: 32,
        ..StoresOptions::kept(dir)
    }
}

/// A directory that every user may pass through: those of `tempfile` are closed to others.
pub(crate) fn passable_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
    dir
}

async fn redis(url: &str) -> redis::aio::MultiplexedConnection {
    redis::Client::open(url)
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap()
}

async fn set(stores: &Stores, key: &str, value: &str) {
    let mut connection = redis(&stores.redis_url).await;
    redis::cmd("SET")
        .arg(key)
        .arg(value)
        .exec_async(&mut connection)
        .await
        .unwrap();
}

async fn get(stores: &Stores, key: &str) -> Option<String> {
    redis::cmd("GET")
        .arg(key)
        .query_async(&mut redis(&stores.redis_url).await)
        .await
        .unwrap()
}

async fn numbers(stores: &Stores) -> Vec<i32> {
    let mut connection = connect(stores, "bullwark").await;
    sqlx::query_scalar("SELECT n FROM numbers ORDER BY n")
        .fetch_all(&mut connection)
        .await
        .unwrap()
}

pub(crate) async fn insert(stores: &Stores, number: i32) {
    let mut connection = connect(stores, "bullwark").await;
    execute(
        &mut connection,
        "CREATE TABLE IF NOT EXISTS numbers (n int)",
    )
    .await;
    execute(
        &mut connection,
        &format!("INSERT INTO numbers VALUES ({number})"),
    )
    .await;
}

pub(crate) fn is_alive(pid: u32) -> bool {
    // A zombie answers, too: what counts is whether it still works somewhere.
    std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok()
}

/// Returns once everything written so far has been handed to the operating system.
async fn wait_for_append_only_file(stores: &Stores) {
    let mut connection = redis(&stores.redis_url).await;
    let deadline = Instant::now() + AFTERMATH;
    loop {
        let mut ask = redis::cmd("INFO");
        let text: String = ask
            .arg("persistence")
            .query_async(&mut connection)
            .await
            .unwrap();
        if text.contains("aof_buffer_length:0\r") {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "Redis does not write its file: {text}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for something that other processes do, with a limit.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + AFTERMATH;
    while !done() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn data_and_ports_stay_from_run_to_run() {
    let dir = passable_dir();
    let stores = Stores::start(kept(dir.path())).await.unwrap();
    set(&stores, "k", "v").await;
    insert(&stores, 1).await;
    let addresses = stores.addresses();
    assert_eq!(discover(dir.path()).as_ref(), Some(&addresses));
    let pids = [stores.redis_pid().unwrap(), stores.postgres_pid().unwrap()];
    stores.stop().await.unwrap();
    assert!(
        !pids.into_iter().any(is_alive),
        "stopped servers must be gone"
    );
    assert_eq!(discover(dir.path()), None);

    let stores = Stores::start(kept(dir.path())).await.unwrap();
    assert_eq!(stores.addresses(), addresses);
    assert_eq!(get(&stores, "k").await.as_deref(), Some("v"));
    assert_eq!(numbers(&stores).await, [1]);
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn servers_are_set_up_for_a_queue_and_listen_on_loopback_only() {
    let dir = passable_dir();
    let stores = Stores::start(kept(dir.path())).await.unwrap();
    let mut connection = redis(&stores.redis_url).await;
    for (name, expected) in [
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("maxmemory-policy", "noeviction"),
        ("save", ""),
        ("bind", "127.0.0.1"),
    ] {
        let mut ask = redis::cmd("CONFIG");
        let answer: Vec<String> = ask
            .arg("GET")
            .arg(name)
            .query_async(&mut connection)
            .await
            .unwrap();
        assert_eq!(answer, [name, expected]);
    }
    let mut connection = connect(&stores, "bullwark").await;
    for (name, expected) in [
        ("listen_addresses", "127.0.0.1"),
        ("synchronous_commit", "on"),
        ("fsync", "on"),
        ("max_connections", "200"),
        ("server_encoding", "UTF8"),
    ] {
        let shown: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(name)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(shown, expected, "{name}");
    }
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn a_directory_in_use_is_refused_and_its_holder_named() {
    let stores = own_stores().await;
    let refused = Stores::start(kept(stores.dir())).await.unwrap_err();
    let expected = std::process::id().to_string();
    assert!(
        matches!(&refused, StoresError::InUse { pid, .. } if *pid == expected),
        "{refused}"
    );
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_comes_back_on_its_port_with_its_data() {
    let dir = passable_dir();
    let mut stores = Stores::start(kept(dir.path())).await.unwrap();
    set(&stores, "k", "v").await;
    insert(&stores, 1).await;
    // What "everysec" may lose is not the point here.
    wait_for_append_only_file(&stores).await;
    for kill in [Kill::Immediately, Kill::Cleanly] {
        stores.restart_redis(kill).await.unwrap();
        assert_eq!(get(&stores, "k").await.as_deref(), Some("v"), "{kill:?}");
        stores.restart_postgres(kill).await.unwrap();
        assert_eq!(numbers(&stores).await, [1], "{kill:?}");
    }
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn a_throwaway_redis_forgets_everything_when_it_is_killed() {
    let mut stores = own_stores().await;
    set(&stores, "k", "v").await;
    stores.kill_redis(Kill::Immediately).await;
    assert!(TcpStream::connect(("127.0.0.1", stores.redis_port())).is_err());
    stores.start_redis().await.unwrap();
    assert_eq!(get(&stores, "k").await, None);
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_dies_by_itself_is_noticed() {
    let mut stores = own_stores().await;
    stores.check().unwrap();
    let pid = stores.redis_pid().unwrap();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    wait_until("it is noticed", || stores.check().is_err());
    let error = stores.check().unwrap_err().to_string();
    assert!(error.contains("Redis ended by itself"), "{error}");
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn dropped_stores_leave_no_process_and_no_directory() {
    let stores = own_stores().await;
    let (dir, pids) = (
        stores.dir().to_owned(),
        [stores.redis_pid().unwrap(), stores.postgres_pid().unwrap()],
    );
    tokio::task::spawn_blocking(move || drop(stores))
        .await
        .unwrap();
    assert!(!pids.into_iter().any(is_alive));
    wait_until("the guardian has removed the directory", || !dir.exists());
}

#[tokio::test]
async fn data_that_cannot_be_read_is_reported_with_the_servers_words() {
    let dir = passable_dir();
    Stores::start(kept(dir.path()))
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    std::fs::remove_file(dir.path().join("postgres/data/global/pg_control")).unwrap();
    let error = Stores::start(kept(dir.path()))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("PostgreSQL did not start"), "{error}");
    assert!(
        error.contains("database system") || error.contains("pg_control"),
        "{error}"
    );
}

#[tokio::test]
async fn a_start_that_was_killed_half_way_is_made_good() {
    let dir = passable_dir();
    Stores::start(kept(dir.path()))
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    // As if killed before the last step, with the rest of an initdb lying about.
    let postgres = dir.path().join("postgres");
    std::fs::rename(postgres.join("data"), postgres.join("data.new")).unwrap();
    std::fs::remove_file(postgres.join("data.new/PG_VERSION")).unwrap();
    let stores = Stores::start(kept(dir.path())).await.unwrap();
    insert(&stores, 7).await;
    assert_eq!(numbers(&stores).await, [7]);
    stores.stop().await.unwrap();
}

#[tokio::test]
async fn a_pid_file_that_names_a_stranger_harms_nobody() {
    let dir = passable_dir();
    Stores::start(kept(dir.path()))
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    let data = dir.path().join("postgres/data").canonicalize().unwrap();
    let me = std::process::id();
    let text = format!("{me}\n{}\n1\n1\n\n127.0.0.1\n", data.display());
    std::fs::write(data.join("postmaster.pid"), &text).unwrap();
    let ports = std::fs::read_to_string(dir.path().join("ports")).unwrap();
    let port = ports.trim().split(' ').next_back().unwrap();
    let socket_lock = data.parent().unwrap().join(format!(".s.PGSQL.{port}.lock"));
    std::fs::write(socket_lock, text).unwrap();
    std::fs::write(dir.path().join("redis/redis.pid"), me.to_string()).unwrap();
    Stores::start(kept(dir.path()))
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
}

#[tokio::test]
async fn as_root_postgres_runs_as_another_user_and_elsewhere_if_it_must() {
    if !Uid::effective().is_root() {
        eprintln!("not started as root: nothing to check");
        return;
    }
    let dir = passable_dir();
    let stores = Stores::start(kept(dir.path())).await.unwrap();
    assert_eq!(
        stores.postgres_dir(),
        dir.path().canonicalize().unwrap().join("postgres")
    );
    let owner = std::fs::metadata(format!("/proc/{}", stores.postgres_pid().unwrap())).unwrap();
    assert_ne!(owner.uid(), 0);
    stores.stop().await.unwrap();

    let closed = tempfile::tempdir().unwrap();
    std::fs::set_permissions(closed.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let inside = closed.path().join("inside");
    let stores = Stores::start(kept(&inside)).await.unwrap();
    insert(&stores, 1).await;
    let place = stores.postgres_dir().to_owned();
    assert!(!place.starts_with(closed.path()), "{}", place.display());
    stores.stop().await.unwrap();

    let stores = Stores::start(kept(&inside)).await.unwrap();
    assert_eq!(stores.postgres_dir(), place);
    assert_eq!(numbers(&stores).await, [1]);
    stores.stop().await.unwrap();

    // Whoever deletes the directory wants to start afresh; the old data is put aside.
    std::fs::remove_dir_all(&inside).unwrap();
    let stores = Stores::start(kept(&inside)).await.unwrap();
    assert_eq!(stores.postgres_dir(), place);
    let mut connection = connect(&stores, "bullwark").await;
    let found: Option<String> = sqlx::query_scalar("SELECT to_regclass('numbers')::text")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(found, None);
    drop(connection);
    stores.stop().await.unwrap();
    for dir in [&place, &place.with_extension("old")] {
        std::fs::remove_dir_all(dir).unwrap();
    }
    // Fails when another directory's data is there, which is as it should be.
    let _ = std::fs::remove_dir(place.parent().unwrap());
}

#[tokio::test]
async fn every_test_has_a_database_and_a_prefix_of_its_own() {
    let (a, b) = (Sandbox::new().await, Sandbox::new().await);
    assert_ne!(a.prefix, b.prefix);
    sqlx::raw_sql("CREATE TABLE mine (n int)")
        .execute(&a.pool().await)
        .await
        .unwrap();
    sqlx::raw_sql("CREATE TABLE mine (n int)")
        .execute(&b.pool().await)
        .await
        .unwrap();
    let mut connection = redis(&a.redis_url).await;
    redis::cmd("PING")
        .exec_async(&mut connection)
        .await
        .unwrap();
}
