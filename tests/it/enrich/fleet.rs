//! Many processes with one provider: its limit holds, is used, and nothing is bought twice.

use std::collections::BTreeSet;
use std::time::Duration;

use bullwark::handlers::providers::DataSource;
use bullwark::handlers::simulator::Seen;
use bullwark::record::workspaces::DEFAULT_WORKSPACE;
use serde_json::json;
use tokio::process::Child;
use tokio::time::Instant;

use super::Stage;

const SOURCE: DataSource = DataSource::Clearbit;
/// Every so many enrichments are about a company that another one is about, too.
const TWIN_OF: usize = 10;
/// Between two looks whether all is done.
const LOOK_EVERY: Duration = Duration::from_millis(200);

struct Fleet {
    processes: usize,
    enrichments: usize,
    /// So many calls in each stretch of this length.
    max: usize,
    per: Duration,
}

impl Fleet {
    fn companies(&self) -> usize {
        self.enrichments - self.enrichments / TWIN_OF
    }

    /// Everything enqueued, and the limit known to both sides.
    async fn set_up(&self) -> Stage {
        let stage = Stage::new().await;
        stage.simulator.limit(SOURCE, self.max, self.per);
        let per_ms = self.per.as_millis() as u64;
        let window = json!({ "kind": "sliding", "max": self.max, "perMs": per_ms });
        let limits = json!({ "windows": [window], "learns": false });
        let put = stage
            .rig
            .server
            .request(reqwest::Method::PUT, "/api/quotas/clearbit");
        let put = crate::support::server::send(put.json(&limits)).await;
        assert_eq!(put.status, 200, "{put:?}");
        let companies = self.companies();
        let accounts = format!(
            "INSERT INTO accounts (workspace_id, name, domain, website)
             SELECT '{DEFAULT_WORKSPACE}', 'Company ' || n,
               CASE WHEN n < {companies} THEN 'company' || n || '.com' END,
               'https://www.company' || n % {companies} || '.com'
             FROM generate_series(0, {} - 1) AS n",
            self.enrichments
        );
        stage.by_job(accounts).await;
        let wishes = "SELECT count(bullwark.enqueue('enrich_account', jsonb_build_object(
              'account_id', id, 'provider', 'clearbit'), workspace_id => workspace_id))
            FROM accounts";
        stage.rig.sql(wishes.to_owned()).await;
        stage.rig.tell().await;
        stage
    }

    fn start(&self, stage: &Stage) -> Vec<Child> {
        let worker = || {
            let options = ["--queue", "default", "--concurrency", "10"];
            stage.rig.process(&options).spawn().unwrap()
        };
        (0..self.processes).map(|_| worker()).collect()
    }

    /// Waits until every job is completed.
    async fn completed(&self, stage: &Stage) {
        let ideal = self.per.mul_f64(self.enrichments as f64 / self.max as f64);
        let until = Instant::now() + ideal * 3 + Duration::from_secs(60);
        let open = "SELECT count(*) FROM jobs WHERE status <> 'completed'";
        while stage.value(open.to_owned()).await != 0 {
            assert!(Instant::now() < until, "{}", self.stuck(stage).await);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The same where jobs have failed: those that spent an attempt would wait for a minute and
    /// more.
    async fn completed_at_once(&self, stage: &Stage) {
        let failed = "SELECT coalesce(jsonb_agg(id), '[]') FROM jobs WHERE status = 'failed'";
        let promote = async {
            loop {
                for job in stage.value(failed.to_owned()).await.as_array().unwrap() {
                    let promote = format!("/api/jobs/{}/promote", job.as_str().unwrap());
                    stage.rig.server.post(&promote, json!({})).await;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = self.completed(stage) => {}
            () = promote => {}
        }
    }

    async fn stuck(&self, stage: &Stage) -> String {
        let states = "SELECT jsonb_agg(to_jsonb(s)) FROM (SELECT status, count(*),
              max(error_message) AS why FROM jobs GROUP BY status) AS s";
        stage.value(states.to_owned()).await.to_string()
    }

    /// Each company was found once, and paid for once; every account has its values.
    async fn nothing_was_bought_twice_or_lost(&self, stage: &Stage) {
        let found = found(stage);
        let domains: BTreeSet<&str> = found.iter().map(|seen| seen.domain.as_str()).collect();
        assert_eq!(domains.len(), self.companies());
        assert_eq!(found.len(), self.companies(), "each was asked for once");
        assert_eq!(stage.simulator.spent(SOURCE), self.companies() as u64);
        let filled = "SELECT count(*) FROM accounts WHERE employee_count IS NOT NULL";
        assert_eq!(stage.value(filled.to_owned()).await, self.enrichments);
        let versions = "SELECT count(*) FROM account_versions WHERE number = 2";
        assert_eq!(stage.value(versions.to_owned()).await, self.enrichments);
        let twice = "SELECT count(*) FROM account_versions WHERE number > 2";
        assert_eq!(stage.value(twice.to_owned()).await, 0, "written once");
    }

    /// Of what the limit allowed once the first window was used up, so much was used. Only whole
    /// windows count.
    fn share_used(&self, stage: &Stage) -> f64 {
        let found = found(stage);
        let begin = found[self.max].at;
        let lasted = found[found.len() - 1].at - begin;
        let windows = (lasted.as_secs_f64() / self.per.as_secs_f64()).floor();
        assert!(windows >= 1.0, "it was over too soon to tell: {lasted:?}");
        let end = begin + self.per.mul_f64(windows);
        let calls = found.iter().filter(|seen| (begin..end).contains(&seen.at));
        calls.count() as f64 / (windows * self.max as f64)
    }
}

fn found(stage: &Stage) -> Vec<Seen> {
    let seen = stage.simulator.seen().into_iter();
    seen.filter(|seen| seen.status == 200).collect()
}

async fn the_limit_holds_and_is_used(fleet: Fleet, least: f64) {
    let stage = fleet.set_up().await;
    let workers = fleet.start(&stage);
    fleet.completed(&stage).await;
    assert_eq!(stage.simulator.violations(), 0, "no call above the limit");
    fleet.nothing_was_bought_twice_or_lost(&stage).await;
    let waited = "SELECT count(*) FROM jobs WHERE attempts > 0".to_owned();
    assert_eq!(stage.value(waited).await, 0, "to wait spends no attempt");
    let used = fleet.share_used(&stage);
    println!("{used:.3} of the rate that is allowed");
    assert!(used >= least, "only {used:.3} of the rate that is allowed");
    drop(workers);
    stage.end().await;
}

/// With `BULLWARK_FULL_SIZE` at the size of the promise, on a machine that does nothing else; that
/// takes about ten minutes.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "no setting of the program")]
async fn processes_share_a_limit_use_it_and_buy_nothing_twice() {
    let (fleet, least) = match std::env::var_os("BULLWARK_FULL_SIZE") {
        None => {
            // A call may be 2 % of it late on its way: enough on a busy machine, too.
            let fleet = Fleet {
                processes: 3,
                enrichments: 250,
                max: 100,
                per: Duration::from_secs(20),
            };
            (fleet, 0.5)
        }
        Some(_) => {
            let fleet = Fleet {
                processes: 10,
                enrichments: 10_000,
                // What Apollo publishes.
                max: 1000,
                per: Duration::from_secs(60),
            };
            (fleet, 0.95)
        }
    };
    Box::pin(the_limit_holds_and_is_used(fleet, least)).await;
}

struct Outage {
    /// So many are found before it begins.
    behind: usize,
    lasts: Duration,
    /// Calls that fail: those that were under way when it began, and the probes.
    failed_max: usize,
}

/// How many were found each second, in so many seconds from a moment on.
fn rate(stage: &Stage, from: Instant, seconds: u64) -> f64 {
    let until = from + Duration::from_secs(seconds);
    let found = found(stage).into_iter();
    let found = found.filter(|seen| (from..until).contains(&seen.at));
    found.count() as f64 / seconds as f64
}

/// The calls each second before it, and from ten seconds after it on.
async fn it_costs_few_attempts_and_loses_nothing(fleet: Fleet, outage: Outage) -> (f64, f64) {
    let stage = fleet.set_up().await;
    stage.simulator.set_down(SOURCE, outage.behind == 0);
    let workers = fleet.start(&stage);
    while found(&stage).len() < outage.behind {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    stage.simulator.set_down(SOURCE, true);
    let began = Instant::now();
    tokio::time::sleep(outage.lasts).await;
    stage.simulator.set_down(SOURCE, false);
    let ended = Instant::now();
    fleet.completed_at_once(&stage).await;
    fleet.nothing_was_bought_twice_or_lost(&stage).await;
    assert_eq!(stage.simulator.violations(), 0, "no call above the limit");
    let seen = stage.simulator.seen();
    let failed = seen.iter().filter(|seen| seen.status != 200).count();
    assert!(
        failed <= outage.failed_max,
        "{failed} calls to a provider that is down"
    );
    let spent = "SELECT coalesce(sum(attempts), 0) FROM jobs".to_owned();
    let spent = stage.value(spent).await.as_u64().unwrap();
    assert!(
        spent <= failed as u64 + 5,
        "{spent} attempts, {failed} calls"
    );
    let before = rate(&stage, began - Duration::from_secs(20), 20);
    let after = rate(&stage, ended + Duration::from_secs(10), 20);
    println!(
        "{failed} calls failed, {spent} attempts spent; {before:.1} calls/s before, {:.1} in the \
         first 10 s after it, {after:.1} in the 20 s behind them",
        rate(&stage, ended, 10)
    );
    drop(workers);
    stage.end().await;
    (before, after)
}

/// With `BULLWARK_FULL_SIZE`, two minutes in the middle of 10,000, and how soon the rate is what it
/// was; that takes about six minutes.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "no setting of the program")]
async fn a_provider_that_is_down_for_a_while_costs_few_attempts_and_loses_nothing() {
    let is_full = std::env::var_os("BULLWARK_FULL_SIZE").is_some();
    let (fleet, outage) = match is_full {
        false => {
            let fleet = Fleet {
                processes: 2,
                enrichments: 200,
                max: 1000,
                per: Duration::from_secs(1),
            };
            let outage = Outage {
                behind: 0,
                // Several times as long as it is left alone for.
                lasts: Duration::from_secs(6),
                failed_max: 40,
            };
            (fleet, outage)
        }
        true => {
            let fleet = Fleet {
                processes: 4,
                enrichments: 10_000,
                max: 500,
                per: Duration::from_secs(10),
            };
            let outage = Outage {
                behind: 3000,
                lasts: Duration::from_secs(120),
                failed_max: 150,
            };
            (fleet, outage)
        }
    };
    let costs = Box::pin(it_costs_few_attempts_and_loses_nothing(fleet, outage));
    let (before, after) = costs.await;
    if is_full {
        assert!(
            after >= before * 0.9,
            "{after:.1} calls/s, {before:.1} before"
        );
    }
}
