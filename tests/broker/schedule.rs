use std::time::Duration;

use bullwark::broker::{BrokerError, ClaimedJob, Finish, Keep, NewJob, Order, Refusal, Repaired};
use bullwark::job::QueueName;
use bullwark::job::schedule::{Rhythm, Schedule, Template};
use bullwark::tasks::Tasks;
use bullwark::upkeep::start_schedules;

use crate::support::{Bench, NOW, claim_options, job};

const MINUTE: i64 = 60_000;

fn template() -> Template {
    Template {
        name: "n".to_owned(),
        data: r#"{"a":1}"#.to_owned(),
        opts: r#"{"attempts":3}"#.to_owned(),
    }
}

/// Due at 0, 5, 10 … minutes; `NOW` is 13 minutes and 20 seconds past an hour.
fn every_five_minutes() -> Schedule {
    Schedule::cron("*/5 * * * *", "UTC")
}
const FIRST: i64 = NOW + 100_000;

async fn upsert(t: &Bench, id: &str, schedule: &Schedule) -> String {
    let upserted = t
        .broker
        .upsert_schedule(&t.queue, id, schedule, &template())
        .await;
    upserted.unwrap().unwrap().job_id
}

async fn claim_at(t: &Bench, now_ms: i64) -> Option<ClaimedJob> {
    let claimed = t
        .at(now_ms)
        .claim(&t.queue, &claim_options("t1", 1))
        .await
        .unwrap();
    claimed.jobs.into_iter().next()
}

async fn finish(t: &Bench, now_ms: i64, id: &str, keep: Keep) {
    let finish = Finish {
        id: id.to_owned(),
        token: "t1".to_owned(),
        returnvalue: "null".to_owned(),
        keep,
    };
    t.at(now_ms).finish(&t.queue, &[finish]).await.unwrap();
}

async fn repair_at(t: &Bench, now_ms: i64) -> Repaired {
    t.at(now_ms).repair_schedules(&t.queue, 0).await.unwrap()
}

/// Runs the current iteration without making the next one, as a worker does that knows nothing of
/// schedules.
async fn run_without_next(t: &Bench, now_ms: i64, keep: Keep) -> String {
    let job = claim_at(t, now_ms).await.unwrap();
    finish(t, now_ms, &job.id, keep).await;
    job.id
}

#[tokio::test]
async fn schedules_are_listed_counted_and_removed() {
    let t = Bench::new().await;
    let hourly = Schedule {
        limit: Some(9),
        end_ms: Some(NOW + 99 * MINUTE),
        ..Schedule::cron("0 * * * *", "Europe/Berlin")
    };
    upsert(&t, "hourly", &hourly).await;
    upsert(&t, "five", &every_five_minutes()).await;
    upsert(&t, "every", &Schedule::every(1000)).await;
    let ids = async |order, first, count| -> Vec<String> {
        let page = t.broker.schedules(&t.queue, order, first, count).await;
        page.unwrap().into_iter().map(|kept| kept.id).collect()
    };
    assert_eq!(
        ids(Order::Ascending, 0, 10).await,
        ["every", "five", "hourly"]
    );
    assert_eq!(ids(Order::Descending, 0, 2).await, ["hourly", "five"]);
    assert_eq!(ids(Order::Descending, 2, 2).await, ["every"]);
    assert!(ids(Order::Descending, 3, 2).await.is_empty());
    assert!(ids(Order::Ascending, 0, 0).await.is_empty());
    assert_eq!(t.broker.count_schedules(&t.queue).await.unwrap(), 3);

    let kept = t
        .broker
        .schedule(&t.queue, "hourly")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept.schedule, Some(hourly));
    assert_eq!(kept.template, template());
    assert_eq!(
        (kept.iterations, kept.due_ms),
        (Some(1), NOW + 46 * MINUTE + 40_000)
    );

    assert!(t.broker.remove_schedule(&t.queue, "hourly").await.unwrap());
    assert!(!t.broker.remove_schedule(&t.queue, "hourly").await.unwrap());
    assert_eq!(t.broker.schedule(&t.queue, "hourly").await.unwrap(), None);
}

#[tokio::test]
async fn the_next_iteration_is_made_once_however_often_it_is_asked_for() {
    let t = Bench::new().await;
    upsert(&t, "s", &every_five_minutes()).await;
    let job = claim_at(&t, FIRST).await.unwrap();
    let next = t.at(FIRST).schedule_next(&t.queue, &job).await.unwrap();
    assert_eq!(next, Some(format!("repeat:s:{}", FIRST + 5 * MINUTE)));
    let before = t.dump().await;
    let late = t.at(FIRST + 60 * MINUTE);
    assert_eq!(late.schedule_next(&t.queue, &job).await.unwrap(), None);
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn jobs_without_a_schedule_and_those_of_a_removed_one_have_no_next() {
    let t = Bench::new().await;
    t.add(&["plain"]).await;
    let plain = claim_at(&t, NOW).await.unwrap();
    assert_eq!(
        t.broker.schedule_next(&t.queue, &plain).await.unwrap(),
        None
    );
    upsert(&t, "s", &Schedule::every(1000)).await;
    let job = claim_at(&t, NOW).await.unwrap();
    t.broker.remove_schedule(&t.queue, "s").await.unwrap();
    let before = t.dump().await;
    assert_eq!(t.broker.schedule_next(&t.queue, &job).await.unwrap(), None);
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn a_bad_schedule_is_refused_before_anything_is_written() {
    let t = Bench::new().await;
    for schedule in [Schedule::cron("61 * * * *", "UTC"), Schedule::every(0)] {
        let refused = t
            .broker
            .upsert_schedule(&t.queue, "s", &schedule, &template())
            .await;
        let Err(BrokerError::Refused(refusal)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(Refusal::code(&refusal), "schedule");
    }
    t.expect("").await;
}

#[tokio::test]
async fn a_pattern_whose_moment_has_run_is_refused_and_an_interval_takes_the_next_one() {
    let t = Bench::new().await;
    let id = upsert(&t, "s", &every_five_minutes()).await;
    t.broker.remove_schedule(&t.queue, "s").await.unwrap();
    t.add(&[&id]).await;
    let upserted = t
        .broker
        .upsert_schedule(&t.queue, "s", &every_five_minutes(), &template())
        .await;
    assert!(
        matches!(
            upserted,
            Err(BrokerError::Refused(Refusal::ScheduleCollision))
        ),
        "{upserted:?}"
    );
    let busy: Vec<NewJob> = (0..33)
        .map(|slot| job(&format!("repeat:e:{}", NOW + slot * 1000)))
        .collect();
    t.broker.add(&t.queue, &busy[..32]).await.unwrap();
    let upserted = upsert(&t, "e", &Schedule::every(1000)).await;
    assert_eq!(upserted, busy[32].id, "the 33rd moment is free");
    t.broker.remove_schedule(&t.queue, "e").await.unwrap();
    t.broker.add(&t.queue, &busy[32..]).await.unwrap();
    let upserted = t
        .broker
        .upsert_schedule(&t.queue, "e", &Schedule::every(1000), &template())
        .await;
    assert!(
        matches!(upserted, Err(BrokerError::Refused(Refusal::ScheduleBusy))),
        "{upserted:?}"
    );
}

#[tokio::test]
async fn a_chain_that_goes_on_by_itself_is_left_alone() {
    let t = Bench::new().await;
    upsert(&t, "s", &every_five_minutes()).await;
    upsert(&t, "e", &Schedule::every(1000)).await;
    t.raws(&["ZADD @repeat 1 old", "HSET @repeat:old name n"])
        .await;
    let before = t.dump().await;
    // Delayed, due but not claimed, and active without a next one: none of these is broken.
    for now in [NOW, FIRST + MINUTE] {
        assert_eq!(repair_at(&t, now).await, Repaired::default());
    }
    assert_eq!(t.dump().await, before);
    let claimed = claim_at(&t, FIRST).await.unwrap();
    let before = t.dump().await;
    assert_eq!(claimed.id, format!("repeat:e:{NOW}"));
    assert_eq!(repair_at(&t, FIRST + MINUTE).await, Repaired::default());
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn a_chain_that_broke_goes_on_at_the_next_moment_and_no_tick_runs_twice() {
    for keep in [Keep::All, Keep::Remove] {
        let t = Bench::new().await;
        upsert(&t, "s", &every_five_minutes()).await;
        let ran = run_without_next(&t, FIRST, keep).await;
        assert_eq!(ran, format!("repeat:s:{FIRST}"));
        // Two ticks were missed in the meantime: they are not made up for.
        let now = FIRST + 11 * MINUTE;
        let next = format!("repeat:s:{}", FIRST + 15 * MINUTE);
        let repaired = repair_at(&t, now).await;
        assert_eq!(repaired.job_ids, std::slice::from_ref(&next));
        assert_eq!(repair_at(&t, now).await, Repaired::default());
        let job = claim_at(&t, FIRST + 15 * MINUTE).await.unwrap();
        assert_eq!((job.id, job.repeat_job_key.as_deref()), (next, Some("s")));
        assert_eq!(job.data, r#"{"a":1}"#);
        assert!(job.opts.contains(r#""count":2"#), "{}", job.opts);
        assert_eq!(t.raw::<i64>("HGET @repeat:s ic").await, 2);
    }
}

#[tokio::test]
async fn a_broken_interval_keeps_its_phase() {
    let t = Bench::new().await;
    let schedule = Schedule {
        rhythm: Rhythm::Every {
            every_ms: 60_000,
            offset_ms: Some(7000),
        },
        ..Schedule::every(60_000)
    };
    let id = upsert(&t, "s", &schedule).await;
    let due: i64 = id.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(due % MINUTE, 7000);
    run_without_next(&t, due, Keep::All).await;
    let repaired = repair_at(&t, due + 10 * MINUTE + 1).await;
    assert_eq!(
        repaired.job_ids,
        [format!("repeat:s:{}", due + 11 * MINUTE)]
    );
}

#[tokio::test]
async fn an_iteration_that_was_lost_before_it_was_due_is_made_again() {
    let t = Bench::new().await;
    let id = upsert(&t, "s", &every_five_minutes()).await;
    let before = t.dump().await;
    t.raws(&[&format!("DEL @{id} @delayed")]).await;
    assert_eq!(repair_at(&t, NOW).await.job_ids, [id]);
    let after = t.dump().await;
    let kept = |dump: &str| -> Vec<String> {
        let is_kept = |line: &&str| !line.starts_with("events") && !line.starts_with("id ");
        dump.lines().filter(is_kept).map(str::to_owned).collect()
    };
    assert_eq!(kept(&after), kept(&before));
}

#[tokio::test]
async fn a_job_in_no_state_does_not_end_its_schedule() {
    let t = Bench::new().await;
    upsert(&t, "s", &every_five_minutes()).await;
    t.raws(&["DEL @delayed"]).await;
    assert_eq!(
        repair_at(&t, NOW).await,
        Repaired::default(),
        "it is not due yet"
    );
    let repaired = repair_at(&t, FIRST + 1).await;
    assert_eq!(
        repaired.job_ids,
        [format!("repeat:s:{}", FIRST + 5 * MINUTE)]
    );
}

#[tokio::test]
async fn a_schedule_at_its_limit_or_its_end_stays_over() {
    let t = Bench::new().await;
    let limited = Schedule {
        limit: Some(1),
        ..every_five_minutes()
    };
    let ended = Schedule {
        end_ms: Some(FIRST + 1),
        ..every_five_minutes()
    };
    upsert(&t, "limited", &limited).await;
    upsert(&t, "ended", &ended).await;
    for keep in [Keep::All, Keep::Remove] {
        run_without_next(&t, FIRST, keep).await;
    }
    let before = t.dump().await;
    assert_eq!(repair_at(&t, FIRST + MINUTE).await, Repaired::default());
    assert_eq!(t.dump().await, before);
}

#[tokio::test]
async fn repairs_in_parallel_make_one_iteration() {
    let t = Bench::new().await;
    upsert(&t, "s", &every_five_minutes()).await;
    run_without_next(&t, FIRST, Keep::All).await;
    let repairs = (0..8).map(|_| repair_at(&t, FIRST + MINUTE));
    let repaired = futures_util::future::join_all(repairs).await;
    let made: Vec<&String> = repaired.iter().flat_map(|r| &r.job_ids).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(t.raw::<i64>("ZCARD @delayed").await, 1);
    assert_eq!(t.raw::<i64>("HGET @repeat:s ic").await, 2);
}

#[tokio::test]
async fn the_duty_repairs_the_schedules_of_all_queues() {
    let t = Bench::new().await;
    let broker = t.broker_with_server_clock().await;
    let queues: [QueueName; 2] = ["q".parse().unwrap(), "other".parse().unwrap()];
    let hourly = Schedule::every(3_600_000);
    for queue in &queues {
        broker.ensure_queue(queue).await.unwrap();
        broker
            .upsert_schedule(queue, "s", &hourly, &template())
            .await
            .unwrap();
        let claimed = broker.claim(queue, &claim_options("t1", 1)).await.unwrap();
        let finish = Finish {
            id: claimed.jobs[0].id.clone(),
            token: "t1".to_owned(),
            returnvalue: "null".to_owned(),
            keep: Keep::All,
        };
        broker.finish(queue, &[finish]).await.unwrap();
    }
    let tasks = Tasks::new();
    start_schedules(&broker, &tasks);
    for queue in &queues {
        let mut iterations = None;
        for _ in 0..500 {
            let kept = broker.schedule(queue, "s").await.unwrap().unwrap();
            iterations = kept.iterations;
            if iterations == Some(2) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(iterations, Some(2), "{queue}");
    }
    assert!(tasks.stop(Duration::from_secs(5)).await);
}
