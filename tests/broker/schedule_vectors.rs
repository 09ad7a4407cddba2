//! Schedules side by side with `BullMQ`: what its versions 6.7.0 and 5.81.5 left in all keys after
//! each step of random sequences, with one clock for all.

use std::collections::HashMap;

use bullwark::broker::{Broker, BrokerError, Finish, Keep, Refusal};
use bullwark::job::schedule::{Rhythm, Schedule, Template};
use serde::Deserialize;
use serde_json::Value;

use crate::support::{Bench, NOW, claim_options};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    op: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    ms: i64,
    #[serde(default)]
    repeat: Repeat,
    #[serde(default)]
    template: HashMap<String, Value>,
    /// What it begins with, where a client of an old version has been before.
    #[serde(default)]
    commands: Vec<Vec<String>>,
    #[serde(default)]
    answer: Value,
    added: Vec<String>,
    removed: Vec<String>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(rename_all = "camelCase")]
struct Repeat {
    every: Option<u64>,
    offset: Option<u64>,
    pattern: Option<String>,
    tz: Option<String>,
    start_date: Option<i64>,
    end_date: Option<i64>,
    limit: Option<u64>,
    #[serde(default)]
    immediately: bool,
}

impl Step {
    fn schedule(&self) -> Schedule {
        let repeat = self.repeat.clone();
        let cron = |pattern| Rhythm::Cron {
            pattern,
            zone: repeat.tz,
        };
        let every = || Rhythm::Every {
            every_ms: repeat.every.unwrap(),
            offset_ms: repeat.offset,
        };
        Schedule {
            rhythm: repeat.pattern.map_or_else(every, cron),
            start_ms: repeat.start_date,
            end_ms: repeat.end_date,
            limit: repeat.limit,
            immediately: repeat.immediately,
        }
    }

    fn template(&self) -> Template {
        let part = |name: &str| self.template.get(name);
        let json = |name: &str| part(name).map_or_else(|| "{}".to_owned(), Value::to_string);
        Template {
            name: part("name")
                .and_then(Value::as_str)
                .unwrap_or(&self.id)
                .to_owned(),
            data: json("data"),
            // The name that the wire has for it.
            opts: json("opts").replace("\"deduplication\"", "\"de\""),
        }
    }
}

/// The answers of the original, from ours.
async fn run(t: &Bench, broker: &Broker, active: &mut Vec<String>, step: &Step) -> Value {
    let text = |id: String| Value::from(id);
    match step.op.as_str() {
        "upsert" => {
            let (schedule, template) = (step.schedule(), step.template());
            let upserted = broker
                .upsert_schedule(&t.queue, &step.id, &schedule, &template)
                .await;
            match upserted {
                Ok(upserted) => upserted.map_or(Value::Null, |made| text(made.job_id)),
                Err(BrokerError::Refused(Refusal::ScheduleCollision)) => "error -10".into(),
                Err(BrokerError::Refused(Refusal::ScheduleBusy)) => "error -11".into(),
                Err(_) => "error ".into(),
            }
        }
        "claim" => {
            let options = claim_options("token", 1);
            let claimed = broker.claim(&t.queue, &options).await.unwrap();
            let Some(job) = claimed.jobs.first() else {
                return Value::Null;
            };
            broker.schedule_next(&t.queue, job).await.unwrap();
            active.push(job.id.clone());
            text(job.id.clone())
        }
        "finish" => {
            if active.is_empty() {
                return Value::Null;
            }
            let id = active.remove(0);
            let finish = Finish {
                id: id.clone(),
                token: "token".to_owned(),
                returnvalue: "1".to_owned(),
                keep: Keep::All,
            };
            broker.finish(&t.queue, &[finish]).await.unwrap();
            text(id)
        }
        "remove" => broker
            .remove_schedule(&t.queue, &step.id)
            .await
            .unwrap()
            .into(),
        "pause" => {
            broker.pause(&t.queue).await.unwrap();
            Value::Null
        }
        "v5" => {
            t.raws(&["HSET @meta bullwark.v5Peers 1"]).await;
            Value::Null
        }
        "load" => {
            for words in &step.commands {
                let mut cmd = redis::cmd(&words[0]);
                cmd.arg(t.key(&words[1])).arg(&words[2..]);
                let _: redis::Value = t.send(&cmd).await;
            }
            Value::Null
        }
        "time" => Value::Null,
        other => panic!("unknown step `{other}`"),
    }
}

/// All keys in the form of the vectors: events numbered, options in the order of their names.
async fn keys(t: &Bench) -> Vec<String> {
    let (mut lines, mut events) = (Vec::new(), 0);
    for line in t.dump().await.lines() {
        if let Some(event) = line.strip_prefix("events ") {
            if event.starts_with("event=drained") {
                continue;
            }
            events += 1;
            lines.push(format!("events {events} {event}"));
        } else if line.contains(":lock ") {
            lines.push(line.split(" ttl").next().unwrap().to_owned());
        } else if !line.starts_with("meta ") {
            lines.push(sorted_options(line));
        }
    }
    lines
}

fn sorted_options(line: &str) -> String {
    let Some(at) = line.find(" opts={").map(|at| at + " opts=".len()) else {
        return line.to_owned();
    };
    let mut values = serde_json::Deserializer::from_str(&line[at..]).into_iter::<Value>();
    let opts = values.next().unwrap().unwrap();
    let rest = &line[at + values.byte_offset()..];
    format!("{}{opts}{rest}", &line[..at])
}

fn without(lines: &[String], others: &[String]) -> Vec<String> {
    let mut rest: Vec<String> = lines
        .iter()
        .filter(|line| !others.contains(line))
        .cloned()
        .collect();
    rest.sort();
    rest
}

#[tokio::test]
async fn schedules_leave_the_keys_that_bullmq_leaves() {
    let vectors: Vec<Vec<Step>> =
        serde_json::from_str(include_str!("../vectors/schedules.json")).unwrap();
    let (mut wrong, mut steps) = (Vec::new(), 0);
    for (number, sequence) in vectors.iter().enumerate() {
        let t = Bench::new().await;
        let (mut now, mut active, mut before) = (NOW, Vec::new(), Vec::new());
        for (at, step) in sequence.iter().enumerate() {
            now += step.ms;
            steps += 1;
            let answer = run(&t, &t.at(now), &mut active, step).await;
            let after = keys(&t).await;
            let (added, removed) = (without(&after, &before), without(&before, &after));
            before = after;
            let is_same = answer == step.answer
                && added == without(&step.added, &[])
                && removed == without(&step.removed, &[]);
            if !is_same {
                wrong.push(format!(
                    "{number}.{at} {} {}: {answer}, not {}\n  only ours {:#?}\n  only theirs \
                     {:#?}\n",
                    step.op,
                    step.id,
                    step.answer,
                    without(&added, &step.added),
                    without(&step.added, &added),
                ));
                break;
            }
        }
    }
    assert!(steps > 100, "{steps} steps");
    let texts = wrong.iter().take(6).cloned().collect::<String>();
    assert!(
        wrong.is_empty(),
        "{} sequences differ:\n{texts}",
        wrong.len()
    );
}
