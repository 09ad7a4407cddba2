//! The same histories as BullMQ's own packages went through, with the same answers and the same
//! keys left behind. `golden/record.mjs` made the recordings.

use std::collections::BTreeMap;

use bullwark::broker::{AddedLinked, AddedNode, Broker, BrokerError, FlowNode, LinkedJob};
use bullwark::job::bullmq_options::JobsOptions;
use serde_json::{Map, Value, json};

use crate::support::Bench;

const HISTORIES: &str = include_str!("golden/histories.json");
const BULLMQ_6: &str = include_str!("golden/bullmq6.json");
const BULLMQ_5: &str = include_str!("golden/bullmq5.json");
/// Texts that are JSON: the order of their members means nothing.
const JSON_FIELDS: [&str; 4] = ["opts", "parent", "data", "pd"];
const UUID_LENGTH: usize = 36;

/// One history on its way.
struct Replay {
    bench: Bench,
    broker: Broker,
    prefix: String,
}

#[tokio::test]
async fn bullmq_6_leaves_the_same_behind() {
    replay_all("6", BULLMQ_6).await;
}

#[tokio::test]
async fn bullmq_5_leaves_the_same_behind_where_its_peers_share_the_queue() {
    replay_all("5", BULLMQ_5).await;
}

async fn replay_all(version: &str, recordings: &str) {
    let histories: Vec<Value> = serde_json::from_str(HISTORIES).unwrap();
    let recordings: Vec<Value> = serde_json::from_str(recordings).unwrap();
    let histories = histories
        .iter()
        .filter(|history| version == "6" || history["v6"].is_null());
    let mut replayed = 0;
    for (history, recording) in histories.zip(&recordings) {
        assert_eq!(history["name"], recording["name"]);
        let prefix = format!("g{version}n{replayed}_");
        let bench = Bench::with(|options| options.prefix.clone_from(&prefix)).await;
        let broker = bench.broker.clone();
        let replay = Replay {
            bench,
            broker,
            prefix,
        };
        replay.check(version, history, recording).await;
        replayed += 1;
    }
    assert_eq!(replayed, recordings.len());
}

impl Replay {
    async fn check(&self, version: &str, history: &Value, recording: &Value) {
        let name = &history["name"];
        if version == "5" {
            for queue in ["q", "q2"] {
                self.command(&json!([
                    "HSET",
                    format!("{}:{queue}:meta", self.prefix),
                    "bullwark.v5Peers",
                    "1"
                ]))
                .await;
            }
        }
        let mut answers = Vec::new();
        for step in history["steps"].as_array().unwrap() {
            self.step(version, &self.place(step), &mut answers).await;
        }
        let names = self.made_up_names().await;
        let text = |given: &str| self.text(given, &names);
        let found = json!({"answers": map(&Value::from(answers), &text)});
        assert_eq!(found["answers"], recording["answers"], "answers of {name}");
        let mut left = self.left(&text).await;
        if version == "5" {
            left.retain(|_, value| {
                let fields = value.as_object_mut();
                fields.is_none_or(|f| f.remove("bullwark.v5Peers").is_none() || !f.is_empty())
            });
        }
        let expected = recording["left"].as_object().unwrap();
        for key in expected.keys().chain(left.keys()) {
            assert_eq!(left.get(key), expected.get(key), "{key} of {name}");
        }
    }

    async fn step(&self, version: &str, step: &Value, answers: &mut Vec<Value>) {
        let add = match version {
            "6" if step["add"].is_null() => &step["add6"],
            _ => &step["add"],
        };
        if !step["raw"].is_null() {
            self.command(&step["raw"]).await;
        }
        for job in add.as_array().into_iter().flatten() {
            let added = self.add(std::slice::from_ref(job)).await;
            answers.push(answer(added, |mut added| answered(&added.remove(0))));
        }
        if let Some(jobs) = step["bulk"].as_array() {
            let ids = |added: Vec<AddedLinked>| added.iter().map(answered).collect();
            answers.push(answer(self.add(jobs).await, ids));
        }
        if !step["flow"].is_null() {
            let added = self.broker.add_flow(&node(&step["flow"])).await;
            answers.push(answer(added, |root| tree(&root)));
        }
        if let Some(flows) = step["flows"].as_array() {
            let flows: Vec<FlowNode> = flows.iter().map(node).collect();
            let added = self.broker.add_flows(&flows).await;
            answers.push(answer(added, |roots| roots.iter().map(tree).collect()));
        }
    }

    async fn add(&self, jobs: &[Value]) -> Result<Vec<AddedLinked>, BrokerError> {
        let job = |job: &Value| {
            let options = JobsOptions::read(&job["opts"].to_string());
            LinkedJob::new(
                job["name"].as_str().unwrap(),
                &job["data"].to_string(),
                &options,
            )
        };
        let jobs: Vec<LinkedJob> = jobs.iter().map(job).collect::<Result<_, _>>()?;
        self.broker.add_linked(&self.bench.queue, &jobs).await
    }

    async fn command(&self, words: &Value) {
        let mut cmd = redis::Cmd::new();
        for word in words.as_array().unwrap() {
            cmd.arg(word.as_str().unwrap());
        }
        let _: redis::Value = self.bench.send(&cmd).await;
    }

    /// `@` is the prefix of this history, `@other` a second one.
    fn place(&self, step: &Value) -> Value {
        let prefix = &self.prefix;
        map(step, &|text| {
            let text = text.replace('@', &format!("{prefix}:"));
            text.replace(&format!("{prefix}:other"), &format!("{prefix}o"))
        })
    }

    async fn keys(&self) -> Vec<String> {
        let pattern = format!("{}*", self.prefix);
        self.bench.send(redis::cmd("KEYS").arg(pattern)).await
    }

    /// Ids that were made up, with the name of their job.
    async fn made_up_names(&self) -> BTreeMap<String, String> {
        let mut names = BTreeMap::new();
        for key in self.keys().await {
            let id = key.rsplit(':').next().unwrap();
            if id.len() == UUID_LENGTH && id.matches('-').count() == 4 {
                let name: String = self
                    .bench
                    .send(redis::cmd("HGET").arg(&key).arg("name"))
                    .await;
                names.insert(id.to_owned(), format!("<{name}>"));
            }
        }
        names
    }

    fn text(&self, given: &str, names: &BTreeMap<String, String>) -> String {
        let text = given.replace(&self.prefix, "@");
        names
            .iter()
            .fold(text, |text, (id, name)| text.replace(id, name))
    }

    async fn left(&self, text: &impl Fn(&str) -> String) -> Map<String, Value> {
        let mut left = Map::new();
        for key in self.keys().await {
            let kind: String = self.bench.send(redis::cmd("TYPE").arg(&key)).await;
            let value = self.read(&kind, &key, text).await;
            left.insert(text(&key), map(&value, text));
        }
        left
    }

    async fn read(&self, kind: &str, key: &str, text: &impl Fn(&str) -> String) -> Value {
        let cmd = |name: &str, words: &[&str]| {
            let mut cmd = redis::cmd(name);
            cmd.arg(key).arg(words);
            cmd
        };
        match kind {
            "string" => {
                let value: String = self.bench.send(&cmd("GET", &[])).await;
                let ttl_ms: i64 = self.bench.send(&cmd("PTTL", &[])).await;
                let bucket = (ttl_ms + 9_999) / 10_000 * 10;
                match ttl_ms > 0 {
                    true => Value::from(format!("{value} ttl<={bucket}s")),
                    false => Value::from(value),
                }
            }
            "list" => {
                let items: Vec<String> = self.bench.send(&cmd("LRANGE", &["0", "-1"])).await;
                Value::from(items)
            }
            "set" => {
                let items: Vec<String> = self.bench.send(&cmd("SMEMBERS", &[])).await;
                let mut items: Vec<String> = items.iter().map(|item| text(item)).collect();
                items.sort();
                Value::from(items)
            }
            "zset" => {
                let words = ["0", "-1", "WITHSCORES"];
                let members: Vec<(String, String)> = self.bench.send(&cmd("ZRANGE", &words)).await;
                let mut members: Vec<(String, String)> = members
                    .into_iter()
                    .map(|(member, score)| (score, text(&member)))
                    .collect();
                let number = |score: &str| score.parse::<f64>().unwrap();
                members.sort_by(|a, b| {
                    let scores = number(&a.0).total_cmp(&number(&b.0));
                    scores.then_with(|| a.1.cmp(&b.1))
                });
                members.iter().map(|pair| json!(pair)).collect()
            }
            "stream" => {
                type Entry = (String, Vec<String>);
                let entries: Vec<Entry> = self.bench.send(&cmd("XRANGE", &["-", "+"])).await;
                entries.into_iter().map(|(_, fields)| fields).collect()
            }
            _ => {
                let fields: BTreeMap<String, String> = self.bench.send(&cmd("HGETALL", &[])).await;
                let value = |name: &str, text: String| match JSON_FIELDS.contains(&name) {
                    true => serde_json::from_str(&text).unwrap(),
                    false => Value::from(text),
                };
                let fields = fields.into_iter();
                fields
                    .map(|(name, text)| (name.clone(), value(&name, text)))
                    .collect()
            }
        }
    }
}

/// The same value with another text for each part.
fn map(value: &Value, text: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(given) => Value::from(text(given)),
        Value::Array(items) => items.iter().map(|item| map(item, text)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (text(name), map(member, text)))
            .collect(),
        other => other.clone(),
    }
}

fn node(tree: &Value) -> FlowNode {
    let children = tree["children"].as_array().into_iter().flatten();
    FlowNode {
        queue: tree["queueName"].as_str().unwrap().parse().unwrap(),
        prefix: tree["prefix"].as_str().map(str::to_owned),
        name: tree["name"].as_str().unwrap().to_owned(),
        data: match &tree["data"] {
            Value::Null => "{}".to_owned(),
            data => data.to_string(),
        },
        options: JobsOptions::read(&tree["opts"].to_string()),
        children: children.map(node).collect(),
    }
}

fn answer<T>(added: Result<T, BrokerError>, read: impl FnOnce(T) -> Value) -> Value {
    match added {
        Ok(added) => read(added),
        Err(BrokerError::Refused(_)) => json!({"error": "refused"}),
        Err(other) => panic!("{other}"),
    }
}

fn answered(added: &AddedLinked) -> Value {
    match added {
        AddedLinked::ParentMissing => json!({"error": -5}),
        AddedLinked::ParentKept => json!({"error": -7}),
        added => json!(added.id()),
    }
}

/// Node answers what became of the root, and repeats the ids of the others.
fn tree(root: &AddedNode) -> Value {
    let children: Value = root.children.iter().map(child).collect();
    match answered(&root.added) {
        Value::String(id) => json!({"id": id, "children": children}),
        error => error,
    }
}

fn child(node: &AddedNode) -> Value {
    let children: Value = node.children.iter().map(child).collect();
    json!({"id": node.id, "children": children})
}
