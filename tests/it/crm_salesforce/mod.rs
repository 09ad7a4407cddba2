//! The client of Salesforce against the simulator: what it reads, writes and survives.

mod bulk;
mod dies;
mod log_in;
mod matching;
mod prechecks;
mod rotation;
mod spoiled;
mod sync;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bullwark::app::worker_id;
use bullwark::handlers::connection::Connections;
use bullwark::handlers::crm::client::{Crm, CrmError, Cursor, Entity, Outcome, Outside, Push};
use bullwark::handlers::crm::salesforce::Salesforce;
use bullwark::handlers::simulator::{SalesforceSide, SalesforceTurn, Simulator};
use bullwark::job::connection::Provider;
use bullwark::job::{JobError, JobType};
use bullwark::outbound::Caller;
use bullwark::sealed::Sealer;
use bullwark::tasks::Tasks;
use bullwark::worker::{Handler, JobContext, WorkerOptions};
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::webhooks::rig::Rig;

/// The client's name, and so that of the organization.
const ORG: &str = "acme";

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

type Work =
    Arc<dyn Fn(Arc<Salesforce>) -> BoxFuture<'static, Result<Value, CrmError>> + Send + Sync>;

/// A job that does with the client what a test wants.
struct Probe {
    outside: Outside,
    work: Work,
}

impl Handler for Probe {
    const TYPE: &'static str = "crm_probe";
    type Payload = Nothing;
    type Output = Value;

    async fn run(&self, ctx: JobContext, _: Nothing) -> Result<Value, JobError> {
        let connections = &self.outside.connections;
        let connection = connections.open(&ctx, Provider::Salesforce, None).await?;
        let crm = Salesforce::new(self.outside.clone(), ctx.clone(), connection);
        let crm = Arc::new(crm);
        match (self.work)(crm.clone()).await {
            Ok(value) => Ok(value),
            Err(error) => Err(error.into_job(&ctx, crm.connection()).await),
        }
    }
}

struct Stage {
    rig: Rig,
    simulator: Simulator,
    tasks: Tasks,
}

impl Stage {
    async fn new() -> Self {
        Self::with(json!({ "client_id": ORG, "refresh_token": "hush-hush" })).await
    }

    async fn with(credentials: Value) -> Self {
        let (rig, tasks) = (Rig::new().await, Tasks::new());
        let simulator = Simulator::start("127.0.0.1:0".parse().unwrap(), &tasks);
        let simulator = simulator.await.unwrap();
        let wish = json!({
            "provider": "salesforce", "name": "crm", "baseUrl": simulator.url(),
            "credentials": credentials,
        });
        let made = rig.server.post("/api/connections", wish).await;
        assert_eq!(made.status, 201, "{made:?}");
        let mut types = rig.server.app.enqueue.types();
        types.add(JobType::new("crm_probe", json!(true)).unwrap());
        rig.server.app.enqueue.set_types(types);
        Self {
            rig,
            simulator,
            tasks,
        }
    }

    fn there(&self) -> &SalesforceSide {
        self.simulator.salesforce()
    }

    /// Starts a worker whose jobs do this; a job of it.
    async fn start<F>(&self, work: impl Fn(Arc<Salesforce>) -> F + Send + Sync + 'static) -> String
    where
        F: Future<Output = Result<Value, CrmError>> + Send + 'static,
    {
        let mut app = self.rig.server.app.clone();
        let sealer = Sealer::new(None, self.rig.server.data_dir.path());
        app.handlers.add(Probe {
            outside: Outside {
                caller: Caller::new(true),
                connections: Connections::new(sealer),
            },
            work: Arc::new(move |crm| Box::pin(work(crm))),
        });
        let mut options = WorkerOptions::new(worker_id());
        options.queues = vec!["default".parse().unwrap()];
        let stop = self.tasks.stopping().clone();
        self.tasks.spawn("worker", async move {
            app.work(options, stop, CancellationToken::new())
                .await
                .unwrap();
        });
        self.rig
            .enqueue(json!({ "jobType": "crm_probe", "payload": {} }))
            .await
    }

    async fn result<F>(&self, work: fn(Arc<Salesforce>) -> F) -> Value
    where
        F: Future<Output = Result<Value, CrmError>> + Send + 'static,
    {
        let job = self.start(work).await;
        self.rig.until(&job, "completed").await["result"].clone()
    }

    /// A failed attempt is made again at once.
    async fn again(&self, job: &str) {
        self.rig.until(job, "failed").await;
        let promoted = self
            .rig
            .server
            .post(&format!("/api/jobs/{job}/promote"), json!({}))
            .await;
        assert_eq!(promoted.status, 200, "{promoted:?}");
    }

    async fn end(self) {
        assert_eq!(self.there().violations(), 0, "no limit was broken");
        self.tasks.stop(Duration::from_secs(30)).await;
        self.rig.end().await;
    }
}

/// The same record each time.
fn push(number: u128, last_name: &str) -> Push {
    let fields = [("LastName", json!(last_name)), ("Title", Value::Null)];
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    Push {
        local_id: Uuid::from_u128(number + 1),
        id: None,
        fields: BTreeMap::from(fields),
        parent_id: None,
        trace: String::new(),
    }
}

fn told(outcomes: &[Outcome]) -> Value {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for outcome in outcomes {
        let name = match outcome {
            Outcome::Done { is_new: true, .. } => "new".to_owned(),
            Outcome::Done { .. } => "changed".to_owned(),
            Outcome::Duplicate { .. } => "duplicate".to_owned(),
            Outcome::Gone(_) => "gone".to_owned(),
            Outcome::Retryable(refusal) => format!("retry {}", refusal.code),
            Outcome::Permanent(refusal) => format!("never {}", refusal.code),
        };
        *counts.entry(name).or_default() += 1;
    }
    json!(counts)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_bad_of_200_hide_nobody_and_the_rest_is_written_once() {
    let stage = Stage::new().await;
    stage
        .there()
        .lock(ORG, &Uuid::from_u128(200).to_string(), 1);
    let result = stage.result(|crm| async move {
        let name = |n: u128| {
            if n == 7 {
                "x".repeat(81)
            } else {
                format!("Name {n}")
            }
        };
        let mut pushes: Vec<Push> = (0..200).map(|n| push(n, &name(n))).collect();
        pushes[8].fields.remove("LastName");
        let first = crm.upsert(Entity::Contacts, &pushes).await?;
        assert!(matches!(&first[7], Outcome::Permanent(_)), "in their order");
        let second = crm.upsert(Entity::Contacts, &pushes).await?;
        Ok(json!([told(&first), told(&second)]))
    });
    let expected = json!([
        { "new": 197, "never STRING_TOO_LONG": 1, "never REQUIRED_FIELD_MISSING": 1,
          "retry UNABLE_TO_LOCK_ROW": 1 },
        { "changed": 197, "new": 1, "never STRING_TOO_LONG": 1,
          "never REQUIRED_FIELD_MISSING": 1 },
    ]);
    assert_eq!(result.await, expected);
    assert_eq!(stage.there().records(ORG, "Contact").len(), 198);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_spoils_its_request_is_found_alone() {
    let stage = Stage::new().await;
    let result = stage.result(|crm| async move {
        let deal = |n: u128| {
            let mut push = push(n, "");
            let day = if n == 13 { "soon" } else { "2026-03-01" };
            push.fields = BTreeMap::from([
                ("Name".to_owned(), json!(format!("Deal {n}"))),
                ("StageName".to_owned(), json!("Prospecting")),
                ("CloseDate".to_owned(), json!(day)),
            ]);
            push
        };
        let pushes: Vec<Push> = (0..50).map(deal).collect();
        let outcomes = crm.upsert(Entity::Opportunities, &pushes).await?;
        assert!(matches!(&outcomes[13], Outcome::Permanent(_)));
        Ok(told(&outcomes))
    });
    assert_eq!(
        result.await,
        json!({ "new": 49, "never JSON_PARSER_ERROR": 1 })
    );
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_is_renewed_once_for_all_who_wait() {
    let stage = Stage::new().await;
    let fine = SalesforceTurn::Fine;
    stage.there().script([fine, SalesforceTurn::SessionsEnd]);
    let result = stage.result(|crm| async move {
        crm.describe(Entity::Contacts).await?;
        let pushes = |from: u128| {
            (from..from + 10)
                .map(|n| push(n, "Ann"))
                .collect::<Vec<_>>()
        };
        let (a, b, c) = (pushes(0), pushes(10), pushes(20));
        let (a, b, c) = tokio::join!(
            crm.upsert(Entity::Contacts, &a),
            crm.upsert(Entity::Contacts, &b),
            crm.upsert(Entity::Contacts, &c),
        );
        Ok(told(&[a?, b?, c?].concat()))
    });
    assert_eq!(result.await, json!({ "new": 30 }));
    assert_eq!(stage.there().log_ins(), 2, "the first, and one more");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_come_once_each_in_order_and_deleted_ones_apart() {
    let stage = Stage::new().await;
    let name = |n: usize| json!({ "Name": format!("O'Neil \\ {n}"), "Phone": format!("{n}") });
    let all: Vec<String> = (0..450)
        .map(|n| stage.there().make(ORG, "Account", name(n)))
        .collect();
    stage.there().delete(ORG, "Account", &all[3]);
    let result = stage.result(|crm| async move {
        let fields = ["Name".to_owned(), "Phone".to_owned()];
        let mut cursor = Some(Cursor {
            since: Default::default(),
            after: None,
        });
        let (mut ids, mut pages) = (Vec::new(), 0);
        while let Some(at) = cursor {
            let page = crm.changes(Entity::Accounts, &fields, &at).await?;
            ids.extend(page.records.into_iter().map(|record| record.id));
            cursor = page.next;
            pages += 1;
        }
        let count = ids.len();
        ids.sort();
        ids.dedup();
        let gone = crm
            .deletions(Entity::Accounts, Default::default(), None)
            .await?;
        let gone: Vec<String> = gone.records.into_iter().map(|gone| gone.id).collect();
        let wanted = ["O'Neil \\ 5".to_owned(), "x' OR Name != '".to_owned()];
        let found = crm.find(Entity::Accounts, "Name", &wanted, &fields).await?;
        let read = crm.read(Entity::Accounts, &ids[..50], &fields).await?;
        let person = read[0].modified_by != crm.identity().await?.user_id;
        Ok(json!([
            count,
            ids.len(),
            pages,
            gone,
            found.len(),
            read.len(),
            person
        ]))
    });
    let result = result.await;
    assert_eq!(result[3][0], json!(all[3]));
    let numbers = [
        &result[0], &result[1], &result[2], &result[4], &result[5], &result[6],
    ];
    assert_eq!(json!(numbers), json!([449, 449, 3, 1, 50, true]));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_in_portions_is_one_answer() {
    let stage = Stage::new().await;
    for n in 0..250 {
        let name = json!({ "Name": format!("Name {n}") });
        stage.there().make(ORG, "Account", name);
    }
    stage.there().answer_by(ORG, 30);
    let result = stage.result(|crm| async move {
        let fields = ["Name".to_owned()];
        let from = Cursor {
            since: Default::default(),
            after: None,
        };
        let first = crm.changes(Entity::Accounts, &fields, &from).await?;
        let next = first.next.clone().unwrap();
        let second = crm.changes(Entity::Accounts, &fields, &next).await?;
        let both = first.records.iter().chain(&second.records);
        let ids: std::collections::BTreeSet<&str> = both.map(|one| one.id.as_str()).collect();
        let counts = [first.records.len(), second.records.len(), ids.len()];
        Ok(json!([counts, second.next.is_none()]))
    });
    assert_eq!(result.await, json!([[200, 50, 250], true]));
    assert_eq!(stage.there().calls(), 7 + 2, "portions of 30 records");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_took_too_long_is_asked_again_later() {
    let stage = Stage::new().await;
    let slow = SalesforceTurn::Refused(400, "QUERY_TIMEOUT");
    stage.there().script([slow]);
    let job = stage.start(|crm| async move {
        let names = ["A".to_owned()];
        let found = crm.find(Entity::Accounts, "Name", &names, &[]).await?;
        Ok(json!(found.len()))
    });
    let job = job.await;
    stage.again(&job).await;
    assert_eq!(stage.rig.until(&job, "completed").await["result"], 0);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_budget_spends_no_attempt_and_refused_credentials_pause_the_connection() {
    let stage = Stage::new().await;
    stage.there().limit(ORG, 0);
    let job = stage.start(|crm| async move {
        crm.describe(Entity::Accounts).await?;
        Ok(json!(true))
    });
    let job = job.await;
    let row = stage.rig.until(&job, "pending");
    assert_eq!(row.await["attempts"], 0);
    crate::stage::eventually("it was asked", async || {
        (stage.there().calls() == 1).then_some(())
    })
    .await;
    stage.end().await;

    let stage = Stage::new().await;
    stage.there().refuse(ORG);
    let start = stage.start(|crm| async move {
        crm.identity().await?;
        Ok(json!(true))
    });
    start.await;
    let why = crate::stage::eventually("the connection is paused", async || {
        let all = stage.rig.server.get("/api/connections").await.body;
        all["connections"][0]["paused_reason"]
            .as_str()
            .map(str::to_owned)
    });
    let why = why.await;
    assert!(why.contains("pre-authorize the user"), "{why}");
    assert!(!why.contains("hush"), "{why}");
    stage.end().await;
}
