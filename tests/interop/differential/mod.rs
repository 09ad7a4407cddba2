//! The same histories, lived once by the npm package and once by Bullwark, at the same fixed time:
//! after every step both must have left the same keys behind.
//!
//! What may differ is listed in one table, in `differences`, with the reason for each.

mod differences;
mod history;
mod keyspace;
mod npm;
mod ours;
mod ours_operate;
mod ours_schedule;

use std::sync::Arc;

use redis::aio::MultiplexedConnection;

use crate::driver::Driver;
use crate::stage::{redis_connection, redis_port, redis_url};
use differences::Version;
use history::{History, NOW_MS, Step, parse};
use keyspace::Keyspace;
use npm::Npm;
use ours::{NO_SUCH_STEP, Ours};

/// All histories.
const FILES: &[&str] = &[
    include_str!("../histories/lives.txt"),
    include_str!("../histories/dedup.txt"),
    include_str!("../histories/flows.txt"),
    include_str!("../histories/moves.txt"),
    include_str!("../histories/limits.txt"),
    include_str!("../histories/schedules.txt"),
];

#[tokio::test]
async fn version_6_leaves_the_same_keys_behind() {
    compare_all(Version::Six).await;
}

#[tokio::test]
async fn version_5_leaves_the_same_keys_behind() {
    compare_all(Version::Five).await;
}

async fn compare_all(version: Version) {
    let driver = Driver::node(version.number(), redis_port().await, Some(NOW_MS));
    let mut failed = Vec::new();
    let mut used = Vec::new();
    let histories: Vec<History> = FILES.iter().flat_map(|file| parse(file)).collect();
    for (number, history) in histories.iter().enumerate() {
        let mut pair = Pair::new(&driver, version, number).await;
        if let Err(why) = pair.live(history, &mut used).await {
            failed.push(format!("# {}\n{why}", history.name));
        }
        pair.npm.close().await;
    }
    assert!(
        failed.is_empty(),
        "{} of {} histories differ:\n\n{}",
        failed.len(),
        histories.len(),
        failed.join("\n\n")
    );
    differences::expect_all_used(version, &used);
}

/// Both sides of a history.
struct Pair {
    version: Version,
    npm: Npm,
    npm_prefix: String,
    ours: Ours,
    our_prefix: String,
    redis: MultiplexedConnection,
}

impl Pair {
    async fn new(driver: &Arc<Driver>, version: Version, number: usize) -> Self {
        let (npm_prefix, our_prefix) = (
            format!("n{}x{number}", version.number()),
            format!("b{}x{number}", version.number()),
        );
        let redis = redis_connection().await;
        Self {
            version,
            npm: Npm::new(driver.clone(), &npm_prefix).await,
            npm_prefix,
            ours: Ours::new(
                &redis_url().await,
                redis.clone(),
                &our_prefix,
                version == Version::Five,
            )
            .await,
            our_prefix,
            redis,
        }
    }

    async fn live(
        &mut self,
        history: &History,
        used: &mut Vec<&'static str>,
    ) -> Result<(), String> {
        for (nth, step) in history.steps.iter().enumerate() {
            let at = format!("  step {} `{}`: ", nth + 1, step.line);
            self.step(step).await.map_err(|why| at.clone() + &why)?;
            let mut theirs = Keyspace::read(&self.redis, &self.npm_prefix).await;
            let mut ours = Keyspace::read(&self.redis, &self.our_prefix).await;
            used.extend(differences::forgive(self.version, &mut theirs, &mut ours));
            let found = ours.differences(&theirs);
            match differences::named(self.version, step.differs.as_deref()) {
                Some(_) if found.is_empty() => return Err(format!("{at}no difference")),
                Some(name) => {
                    used.push(name);
                    return Ok(());
                }
                None if found.is_empty() => {}
                None => return Err(format!("{at}\n    {}", found.join("\n    "))),
            }
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        // What neither side does: time that passes.
        let expired = match step.op.as_str() {
            "lose" => format!("q:{}:lock", step.text(0)),
            "uncheck" => "q:stalled-check".to_owned(),
            "unlimited" => "q:limiter".to_owned(),
            _ => return self.both(step).await,
        };
        for prefix in [&self.npm_prefix, &self.our_prefix] {
            let key = format!("{prefix}:{expired}");
            let mut redis = self.redis.clone();
            let gone = redis::cmd("DEL").arg(key).query_async(&mut redis).await;
            let () = gone.unwrap();
        }
        Ok(())
    }

    async fn both(&mut self, step: &Step) -> Result<(), String> {
        let theirs = self.npm.run(step).await.err().map(|thrown| thrown.message);
        let ours = self.ours.run(step).await.err().map(|refused| refused.0);
        let was_tried = !ours
            .as_ref()
            .is_some_and(|why| why.starts_with(NO_SUCH_STEP));
        if was_tried && step.is_refused == theirs.is_some() && step.is_refused == ours.is_some() {
            return Ok(());
        }
        Err(format!("refused by npm: {theirs:?}, by Bullwark: {ours:?}"))
    }
}
