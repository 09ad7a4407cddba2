//! Processor time and memory, read from the kernel (proc(5)); zero where there is no `/proc`.

use std::fs;

use super::StorePids;

/// Ticks per second of `/proc/<pid>/stat` on every platform that Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;

/// Seconds of processor time so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) bullwark: f64,
    pub(super) redis: f64,
    pub(super) postgres: f64,
}

impl Cost {
    pub(super) fn now(pids: StorePids) -> Self {
        Self {
            bullwark: own_seconds(std::process::id()),
            redis: pids.redis.map_or(0.0, own_seconds),
            postgres: pids.postgres.map_or(0.0, family_seconds),
        }
    }

    pub(super) fn add(&mut self, more: Self) {
        self.bullwark += more.bullwark;
        self.redis += more.redis;
        self.postgres += more.postgres;
    }

    pub(super) fn since(self, before: &Self) -> Self {
        Self {
            bullwark: self.bullwark - before.bullwark,
            redis: self.redis - before.redis,
            postgres: self.postgres - before.postgres,
        }
    }
}

/// Memory of this process in use.
pub(super) fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * PAGE_BYTES
}

struct Stat {
    parent: u32,
    own: f64,
    /// Of children that have ended.
    children: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain blanks: the numbers begin after the last one.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |nth: usize| fields.get(nth)?.parse::<f64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        children: (ticks(13)? + ticks(14)?) / TICKS_PER_SECOND,
    })
}

fn own_seconds(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |stat| stat.own)
}

/// A postmaster with its backends, those that have ended included.
fn family_seconds(pid: u32) -> f64 {
    let Some(head) = stat(pid) else { return 0.0 };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let backends: f64 = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .filter(|stat| stat.parent == pid)
        .map(|stat| stat.own)
        .sum();
    head.own + head.children + backends
}
