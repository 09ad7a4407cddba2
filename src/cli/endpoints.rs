//! What a running `bullwark dev` or `bullwark stores` offers, for other commands on this machine.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FILE: &str = "endpoints.json";
/// The file of the API key in a data directory.
pub(crate) const KEY_FILE: &str = "api-key";

/// Addresses of a running process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    pub(crate) redis_url: String,
    pub(crate) database_url: String,
    pub(crate) http_url: Option<String>,
    pub(crate) pid: u32,
}

/// Removes the file when it is dropped.
pub(crate) struct Published(PathBuf);

impl Drop for Published {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

/// Writes the addresses into the data directory, whole or not at all, until the end of this
/// process.
pub(crate) fn publish(data_dir: &Path, endpoints: &Endpoints) -> std::io::Result<Published> {
    std::fs::create_dir_all(data_dir)?;
    let path = data_dir.join(FILE);
    let temporary = data_dir.join(format!("{FILE}.{}", std::process::id()));
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(endpoints)?)?;
    std::fs::rename(&temporary, &path)?;
    Ok(Published(path))
}

/// The addresses of a process that runs on this data directory right now.
pub(crate) fn read(data_dir: &Path) -> Option<Endpoints> {
    let endpoints: Endpoints =
        serde_json::from_slice(&std::fs::read(data_dir.join(FILE)).ok()?).ok()?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(endpoints.pid).ok()?);
    // Left behind by a process that was killed.
    let is_alive = nix::sys::signal::kill(pid, None) != Err(nix::errno::Errno::ESRCH);
    is_alive.then_some(endpoints)
}

/// Both stores, as (Redis, database).
pub(crate) fn discover(data_dir: &Path) -> Option<(String, String)> {
    read(data_dir).map(|endpoints| (endpoints.redis_url, endpoints.database_url))
}

/// The API key of this data directory, if one was made.
pub(crate) fn read_api_key(data_dir: &Path) -> Option<String> {
    let key = std::fs::read_to_string(data_dir.join(KEY_FILE)).ok()?;
    Some(key.trim().to_owned()).filter(|key| !key.is_empty())
}

/// The API key of this data directory; makes one, readable by its owner alone, at the first use.
pub(crate) fn api_key(data_dir: &Path) -> std::io::Result<String> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(key) = read_api_key(data_dir) {
        return Ok(key);
    }
    let random: [u8; 32] = rand::random();
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = format!("bw_{hex}");
    std::fs::create_dir_all(data_dir)?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(data_dir.join(KEY_FILE))?;
    writeln!(file, "{key}")?;
    Ok(key)
}
