//! `bullwark dev --enrichment`: an enrichment pipeline to look at, without an account anywhere.
//!
//! The providers are the simulator, with the limits that the real ones publish. Companies are
//! imported and enriched as a user would do it; meanwhile providers refuse calls for their quota,
//! are still looking, and one is down for a while ([`STORY`]). What happens is shown while it does.
//!
//! Refuses a workspace that has connections of its own to these providers: nothing here may spend
//! real credits.

mod companies;
mod view;

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::client::Client;
use super::import::{self, ImportArgs};
use super::{Done, Global, output};
use crate::app::App;
use crate::handlers::providers::DataSource;
use crate::handlers::simulator::{Simulator, Style, Turn};
use crate::job::JobRequest;
use crate::record::enqueue::INSERT_MAX;
use crate::record::enriched::never_enriched;
use crate::record::workspaces::DEFAULT_WORKSPACE;
use crate::tasks::Tasks;

/// How connections to the simulator are named.
const NAMED: &str = "simulator:";
/// Of so many companies each provider is asked for about what its limit allows.
const SHARES: [(DataSource, usize); 3] = [
    (DataSource::Apollo, 10),
    (DataSource::Clearbit, 6),
    (DataSource::Zoominfo, 3),
];

/// Something that happens out there.
struct Happening {
    /// Behind the one before it.
    after: Duration,
    what: fn(&Simulator),
    told: &'static str,
}

const STORY: [Happening; 5] = [
    Happening {
        after: Duration::from_secs(8),
        what: |providers| providers.script(DataSource::Clearbit, vec![Turn::StillLooking; 3]),
        told: "clearbit does not know three companies yet: it looks, and is asked again later",
    },
    Happening {
        after: Duration::from_secs(8),
        what: |providers| {
            let limited = Turn::Limited(Style::Seconds(10));
            providers.script(DataSource::Apollo, [limited]);
        },
        told: "apollo answers 429 and wants to be left alone for 10 s: no job calls it",
    },
    Happening {
        after: Duration::from_secs(14),
        what: |providers| providers.set_down(DataSource::Clearbit, true),
        told: "clearbit is down: the breaker opens, jobs wait and spend no attempt",
    },
    Happening {
        after: Duration::from_secs(20),
        what: |providers| providers.set_down(DataSource::Clearbit, false),
        told: "clearbit is well again: the next probe finds out, and all go on",
    },
    Happening {
        after: Duration::from_secs(10),
        what: |providers| providers.end_tokens(),
        told: "zoominfo ends its tokens early: one job logs in again, for all",
    },
];

/// What it works with.
pub(super) struct Demo {
    /// As many are imported, and enriched at most.
    pub(super) accounts: usize,
    pub(super) global: Global,
    pub(super) app: App,
    pub(super) tasks: Tasks,
}

impl Demo {
    /// Runs to the end of the last job, or until the tasks stop.
    pub(super) async fn run(self) -> Done {
        let stopping = self.tasks.stopping().clone();
        tokio::select! {
            done = self.tell() => done,
            () = stopping.cancelled() => Ok(()),
        }
    }

    async fn tell(&self) -> Done {
        let data_dir = self.app.config.data_dir.clone();
        let mut global = self.global.clone();
        global.data_dir = Some(data_dir.clone());
        let client = Client::find(&global, None, None)?;
        let local = "127.0.0.1:0".parse().context("address of the simulator")?;
        let providers = Simulator::start(local, &self.tasks)
            .await
            .context("start the simulator of providers")?;
        connect(&client, &providers).await?;
        let file = data_dir.join("examples").join("companies.csv");
        companies::write(&file, self.accounts)
            .with_context(|| format!("write {}", file.display()))?;
        note(&global, &format!("Importing {} companies …", self.accounts));
        import::run(&global, ImportArgs::of_accounts(file)).await?;
        let total = self.enqueue().await?;
        if total == 0 {
            note(
                &global,
                "Every account is enriched: start with a fresh --data-dir.",
            );
            return Ok(());
        }
        note(
            &global,
            &format!("Enriching {total} accounts; the providers are a simulator on this machine."),
        );
        let over = CancellationToken::new();
        let (told, story) = view::Told::new();
        let (teller, ending) = (providers.clone(), over.clone());
        self.tasks.spawn("story", async move {
            tokio::select! {
                () = happen(&teller, &told) => {}
                () = ending.cancelled() => {}
            }
        });
        let shown = view::show(&self.app, &providers, total, story, global.json).await;
        over.cancel();
        shown.map_err(Into::into)
    }

    /// One job per company that was never enriched; accounts of others are left alone. How many.
    async fn enqueue(&self) -> anyhow::Result<u64> {
        let domains: Vec<String> = (0..self.accounts).map(companies::domain).collect();
        let mut total = 0;
        for page in domains.chunks(INSERT_MAX) {
            let accounts = never_enriched(&self.app.record, DEFAULT_WORKSPACE, page).await?;
            let wishes = accounts.into_iter().enumerate();
            let wishes: Vec<JobRequest> = wishes.map(|(nth, id)| wish(nth, id)).collect();
            for enqueued in self.app.enqueue.enqueue_many(wishes).await? {
                enqueued?;
                total += 1;
            }
        }
        Ok(total)
    }
}

/// Some ask a second provider for what the first does not know.
fn wish(nth: usize, account_id: Uuid) -> JobRequest {
    let all: usize = SHARES.iter().map(|(_, share)| share).sum();
    let mut place = nth % all;
    let mut first = DataSource::Apollo;
    for (source, share) in SHARES {
        if place < share {
            first = source;
            break;
        }
        place -= share;
    }
    let mut payload = json!({ "account_id": account_id, "provider": first });
    if nth.is_multiple_of(50) && first == DataSource::Clearbit {
        // It knows no revenue.
        payload = json!({ "account_id": account_id, "providers": [first, DataSource::Apollo] });
    }
    JobRequest {
        workspace_id: Some(DEFAULT_WORKSPACE),
        ..JobRequest::new("enrich_account", payload)
    }
}

async fn happen(providers: &Simulator, told: &view::Told) {
    for happening in &STORY {
        tokio::time::sleep(happening.after).await;
        (happening.what)(providers);
        told.say(happening.told);
    }
}

/// Connections to the simulator, and to nobody else.
async fn connect(client: &Client, providers: &Simulator) -> anyhow::Result<()> {
    let is_one = |connection: &Value| {
        let provider = connection["provider"].as_str();
        DataSource::ALL
            .iter()
            .any(|source| provider == Some(source.as_str()))
    };
    for connection in client.connections().await?.iter().filter(|one| is_one(one)) {
        let (name, id) = (connection["name"].as_str(), connection["id"].as_str());
        let (Some(name), Some(id)) = (name, id) else {
            continue;
        };
        if !name.starts_with(NAMED) {
            bail!(
                "this data directory has a connection of its own, `{name}`, whose credits would \
                 be spent: use another one with --data-dir"
            );
        }
        // The simulator has another address each time.
        client.disconnect(id).await?;
    }
    for source in DataSource::ALL {
        let provider = source.as_str();
        let credentials = match source {
            DataSource::Zoominfo => json!({ "username": "demo", "password": "simulated" }),
            DataSource::Clearbit | DataSource::Apollo => json!({ "api_key": "simulated" }),
        };
        let wish = json!({
            "provider": provider, "name": format!("{NAMED} {provider}"),
            "baseUrl": providers.url(), "credentials": credentials,
        });
        client.connect(&wish).await?;
    }
    Ok(())
}

fn note(global: &Global, text: &str) {
    if !global.json {
        output::note(text);
    }
}
