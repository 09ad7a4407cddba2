//! The steps of a history about job schedulers, as Bullwark's broker takes them.

use bullwark::broker::ClaimedJob;
use bullwark::job::schedule::{Rhythm, Schedule, Template};
use serde_json::Value;

use super::history::Step;
use super::ours::{Ours, Refused};

impl Ours {
    pub(super) async fn schedule(&self, step: &Step) -> Result<(), Refused> {
        let (id, rule, template) = (step.text(0), step.json(1), step.json(2));
        let json = |name: &str| match &template[name] {
            Value::Null => "{}".to_owned(),
            value => value.to_string(),
        };
        let template = Template {
            name: template["name"].as_str().unwrap().to_owned(),
            data: json("data"),
            opts: json("opts"),
        };
        let schedule = schedule(&rule);
        let made = self
            .broker
            .upsert_schedule(&self.queue, id, &schedule, &template);
        made.await?;
        Ok(())
    }

    /// What a worker does with every job that it claims, before it runs it.
    pub(super) async fn go_on(&self, claimed: &[ClaimedJob]) -> Result<(), Refused> {
        for job in claimed {
            self.broker.schedule_next(&self.queue, job).await?;
        }
        Ok(())
    }
}

fn schedule(rule: &Value) -> Schedule {
    let rhythm = match rule["every"].as_u64() {
        Some(every_ms) => Rhythm::Every {
            every_ms,
            offset_ms: rule["offset"].as_u64(),
        },
        None => Rhythm::Cron {
            pattern: rule["pattern"].as_str().unwrap().to_owned(),
            zone: rule["tz"].as_str().map(str::to_owned),
        },
    };
    Schedule {
        rhythm,
        start_ms: rule["startDate"].as_i64(),
        end_ms: rule["endDate"].as_i64(),
        limit: rule["limit"].as_u64(),
        immediately: rule["immediately"].as_bool().unwrap_or(false),
    }
}
