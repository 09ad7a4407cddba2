//! The broker against a real Redis: each script alone, every key compared.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(clippy::disallowed_methods, reason = "tests wait for what they spawn")]

mod add;
mod cancel;
mod claim;
mod claim_bounds;
mod clean;
mod connection;
mod events;
mod extend;
mod fail;
mod fair;
mod finish;
mod flow;
mod from_active;
mod golden;
mod inspect;
mod job_data;
mod linked;
mod obliterate;
mod parents;
mod pause;
mod progress;
mod promote;
mod quota;
mod quota_breaker;
mod quota_lines;
mod quota_told;
mod quota_turns;
mod quota_waits;
mod read_job;
mod read_jobs;
mod readmit;
mod release;
mod remove_tree;
mod reprocess;
mod requeue;
mod rescue;
mod retry;
mod schedule;
mod schedule_vectors;
mod settings;
mod support;
mod v5_peers;
mod waiting;
mod waker;
